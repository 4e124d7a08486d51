//! What agents say about their attempts.

use std::time::Duration;

use sortie_protocol::AttemptId;
use sortie_protocol::message::{
    AttemptOutcome, AttemptResult, ControlMessage, Decision, Disposition, Progress, Reject, RejectReason,
    Renewal,
};

use super::agents::{milliseconds, told};
use super::task::{End, Phase, Refusal};
use super::{Action, Dispatcher, Outcome, PastAttempt, Transition, reach};

impl Dispatcher {
    pub(super) fn lease_end(&self, now: Duration) -> Duration {
        now + self.times.lease + self.times.lease_margin
    }

    pub(super) fn accepted(&mut self, now: Duration, agent_id: &str, attempt: &AttemptId) {
        let lease_end = self.lease_end(now);
        let live = self.tasks.get_mut(&attempt.task_id).and_then(|it| it.fenced(agent_id, attempt.attempt));
        let Some(live) = live else { return self.turn_away(agent_id, attempt) };
        if live.phase == Phase::Offered {
            live.phase = Phase::Accepted;
            live.ends_at = lease_end;
            self.watch(&attempt.task_id);
            if let Some(agent) = self.agents.get_mut(agent_id) {
                agent.credit = agent.credit.saturating_sub(1);
            }
        }
    }

    pub(super) fn started(&mut self, now: Duration, agent_id: &str, attempt: &AttemptId) {
        let live = self.tasks.get_mut(&attempt.task_id).and_then(|it| it.fenced(agent_id, attempt.attempt));
        if live.is_none() {
            return self.turn_away(agent_id, attempt);
        }
        self.accepted(now, agent_id, attempt);
        self.mark_started(attempt);
    }

    pub(super) fn mark_started(&mut self, attempt: &AttemptId) {
        let live = self.tasks.get_mut(&attempt.task_id).and_then(|task| task.live.as_mut());
        if let Some(live) = live
            && live.number == attempt.attempt
            && live.phase != Phase::Running
        {
            live.phase = Phase::Running;
            self.persist(Transition::AttemptStarted { attempt: attempt.clone() });
        }
    }

    /// Stops an agent that works on what is not its own any more.
    fn turn_away(&mut self, agent_id: &str, attempt: &AttemptId) {
        let reason = "the attempt is not this agent's any more".to_owned();
        self.send(agent_id, ControlMessage::Cancel { attempt: attempt.clone(), reason });
    }

    pub(super) fn progressed(&mut self, agent_id: &str, progress: Progress) {
        let attempt = &progress.attempt;
        let task = self.tasks.get_mut(&attempt.task_id);
        if task.is_some_and(|task| task.fenced(agent_id, attempt.attempt).is_some()) {
            self.actions.push(Action::Progress(Box::new(progress)));
        }
    }

    pub(super) fn renewed(&mut self, now: Duration, agent_id: &str, attempts: Vec<AttemptId>) {
        let attempts =
            attempts.into_iter().map(|attempt| self.renewal(now, agent_id, attempt)).collect::<Vec<_>>();
        self.send(agent_id, ControlMessage::Renewed { attempts });
    }

    /// Gives an attempt another lease, or says why not.
    pub(super) fn renewal(&mut self, now: Duration, agent_id: &str, attempt: AttemptId) -> Renewal {
        let lease_end = self.lease_end(now);
        let task = self.tasks.get_mut(&attempt.task_id);
        let cancelling = task.as_ref().is_some_and(|task| task.cancel.is_some());
        let Some(live) = task.and_then(|task| task.fenced(agent_id, attempt.attempt)) else {
            return Renewal { attempt, decision: Decision::Abandon, lease_ms: 0 };
        };
        live.ends_at = lease_end;
        live.failover_at = None;
        if live.phase == Phase::Offered {
            live.phase = Phase::Accepted;
        }
        self.orphans.remove(&attempt.task_id);
        self.watch(&attempt.task_id);
        let decision = if cancelling { Decision::Cancel } else { Decision::Keep };
        Renewal { attempt, decision, lease_ms: milliseconds(self.times.lease) }
    }

    pub(super) fn rejected(&mut self, now: Duration, agent_id: &str, reject: Reject) {
        let attempt = &reject.attempt;
        let task_id = attempt.task_id.clone();
        let live = self.tasks.get_mut(&task_id).and_then(|it| it.fenced(agent_id, attempt.attempt));
        // An attempt that the agent has known before goes on as it does, and one that is not its own any
        // more has nothing left to reject.
        if live.is_none() || reject.reason == RejectReason::Duplicate {
            return;
        }
        let reason = reject.diagnosis.as_ref().map_or_else(
            || match reject.reason {
                RejectReason::Busy => "the agent has no free slot".to_owned(),
                _ => "the agent gave no reason".to_owned(),
            },
            |diagnosis| told(&diagnosis.summary),
        );
        // Being busy needs no explanation, and may happen again and again.
        let is_busy = reject.reason == RejectReason::Busy;
        let end = End {
            outcome: Outcome::Refused,
            diagnosis: reject.diagnosis.filter(|_| !is_busy),
            reason: Some(reason.clone()),
            by_result: false,
            counted: false,
            passed_on: None,
        };
        self.end_attempt(&task_id, end);
        if is_busy {
            // No other offer goes to it before it tells its free slots again.
            if let Some(agent) = self.agents.get_mut(agent_id) {
                agent.credit = 0;
            }
            return self.requeue(now, &task_id);
        }
        if !reject.retryable {
            self.complete(&task_id, Outcome::Refused, reject.result, Some(reason));
        } else if let Some(task) = self.tasks.get_mut(&task_id) {
            task.refused_by.insert(agent_id.to_owned());
            task.refusal = Some(Refusal { reason, result: reject.result });
            self.requeue(now, &task_id);
        }
        self.fill(now, agent_id);
    }

    pub(super) fn resulted(&mut self, now: Duration, session: &str, agent_id: &str, result: AttemptResult) {
        let attempt = result.attempt.clone();
        let Some(task) = self.tasks.get_mut(&attempt.task_id) else {
            let (session, result) = (session.to_owned(), Box::new(result));
            return self.actions.push(Action::Recall { session, result });
        };
        if task.fenced(agent_id, attempt.attempt).is_some() {
            self.count(now, agent_id, result);
            return self.acknowledge(agent_id, attempt, Disposition::Recorded);
        }
        let past = task
            .ended
            .get(&attempt.attempt)
            .map(|ended| PastAttempt { agent_id: ended.agent_id.clone(), by_result: ended.by_result });
        self.late(agent_id, &result, past);
    }

    pub(super) fn recalled(&mut self, session: &str, result: &AttemptResult, past: Option<PastAttempt>) {
        if let Some(agent_id) = self.sessions.get(session).cloned() {
            self.late(&agent_id, result, past);
        }
    }

    /// Answers a result that changes nothing: counted before, or of an attempt that was given up.
    fn late(&mut self, agent_id: &str, result: &AttemptResult, past: Option<PastAttempt>) {
        let attempt = result.attempt.clone();
        let disposition = match past.filter(|past| past.agent_id == agent_id) {
            Some(past) if past.by_result => Disposition::Duplicate,
            Some(_) => {
                let outcome = outcome_of(result.outcome);
                self.persist(Transition::LateResult { attempt: attempt.clone(), outcome });
                Disposition::Stale
            }
            None => Disposition::Stale,
        };
        self.acknowledge(agent_id, attempt, disposition);
    }

    fn acknowledge(&mut self, agent_id: &str, attempt: AttemptId, disposition: Disposition) {
        self.send(agent_id, ControlMessage::ResultAck { attempt, disposition });
    }

    /// Takes the result of the live attempt.
    fn count(&mut self, now: Duration, agent_id: &str, result: AttemptResult) {
        let task_id = result.attempt.task_id;
        let outcome = outcome_of(result.outcome);
        self.note_reach(now, &task_id, agent_id, &result.result);
        let cancel = self.tasks.get(&task_id).and_then(|task| task.cancel.clone());
        let is_others_chance = result.result.diagnosis().is_some_and(reach::others_may_not_have);
        if outcome == Outcome::Failed && cancel.is_none() && is_others_chance {
            return self.pass_on(now, &task_id, result.result);
        }
        let stopped_by_agent = outcome == Outcome::Cancelled && cancel.is_none();
        let end = End {
            outcome,
            diagnosis: result.result.diagnosis().cloned(),
            reason: stopped_by_agent.then(|| "the agent stopped it".to_owned()),
            by_result: true,
            counted: stopped_by_agent,
            passed_on: None,
        };
        self.end_attempt(&task_id, end);
        let Some(task) = self.tasks.get(&task_id) else { return };
        if !stopped_by_agent {
            let reason = cancel.or_else(|| task.before());
            return self.complete(&task_id, outcome, Some(result.result), reason);
        }
        // Nobody asked for the stop here: the agent is going down, and the task is still wanted.
        if task.tries() >= self.attempts_allowed(task) {
            self.die(&task_id, Some(result.result));
        } else {
            self.requeue(now, &task_id);
        }
    }
}

fn outcome_of(outcome: AttemptOutcome) -> Outcome {
    match outcome {
        AttemptOutcome::Succeeded => Outcome::Succeeded,
        AttemptOutcome::Failed => Outcome::Failed,
        AttemptOutcome::Cancelled => Outcome::Cancelled,
    }
}
