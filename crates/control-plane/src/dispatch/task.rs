//! A live task, and how it enters and leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sortie_protocol::AttemptId;
use sortie_protocol::message::ControlMessage;
use sortie_protocol::report::{Diagnosis, TaskOutput};
use sortie_protocol::task::TaskSpec;

use super::{Dispatcher, Outcome, Posted, TaskState, Transition, reach};

/// A task that is not completed.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: String,
    /// Its place by age among all tasks.
    pub(super) order: u64,
    pub(super) spec: Arc<TaskSpec>,
    pub(super) bytes: Arc<str>,
    /// What it wants to reach, where that can be told.
    pub(super) target: Option<String>,
    pub(super) posted_at: Duration,
    pub(super) queue_until: Duration,
    pub(super) last_number: u32,
    pub(super) counted: u32,
    pub(super) live: Option<Live>,
    pub(super) ended: BTreeMap<u32, Ended>,
    pub(super) refused_by: BTreeSet<String>,
    pub(super) refusal: Option<Refusal>,
    /// Agents that could not reach the server, in the order in which they tried.
    pub(super) passed: Vec<Passed>,
    /// Until when a task that no connected agent is left for is kept for one that is expected.
    pub(super) held_until: Option<Duration>,
    /// Under which time it stands among the deadlines.
    pub(super) watched: Option<Duration>,
    /// Why it is to stop, once somebody said so.
    pub(super) cancel: Option<String>,
}

/// The attempt that holds a task.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) number: u32,
    pub(super) agent_id: String,
    pub(super) agent_name: String,
    pub(super) phase: Phase,
    /// When the offer or the lease is over.
    pub(super) ends_at: Duration,
    /// When another agent may take the task over, where the agent's connection has ended and the task allows it.
    pub(super) failover_at: Option<Duration>,
    /// Whether the `hello` that is being handled listed it.
    pub(super) resumed: bool,
}

/// How far the live attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Offered,
    Accepted,
    Running,
}

/// An attempt that is over.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) agent_id: String,
    pub(super) agent_name: String,
    pub(super) reason: Option<String>,
    pub(super) by_result: bool,
    pub(super) counted: bool,
}

/// What an agent saw that could not reach the server.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) agent_id: String,
    pub(super) agent_name: String,
    pub(super) result: TaskOutput,
}

/// The last word of an agent that would not do the task, for when no other agent is left.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) result: Option<TaskOutput>,
}

impl Task {
    /// A task that has waited for so long already, and that no agent has been asked about yet.
    pub(super) fn waiting(posted: Posted, order: u64, now: Duration, waited: Duration) -> Self {
        let left = Duration::from_secs(posted.spec.queue_seconds).saturating_sub(waited);
        Self {
            id: posted.id,
            order,
            target: reach::target(&posted.spec),
            spec: posted.spec,
            bytes: posted.bytes,
            posted_at: now.saturating_sub(waited),
            queue_until: now + left,
            last_number: 0,
            counted: 0,
            live: None,
            ended: BTreeMap::new(),
            refused_by: BTreeSet::new(),
            refusal: None,
            passed: Vec::new(),
            held_until: None,
            watched: None,
            cancel: None,
        }
    }

    pub(super) fn state(&self) -> TaskState {
        match &self.live {
            None => TaskState::Queued,
            Some(live) if live.phase != Phase::Running => TaskState::Offered,
            Some(_) if self.cancel.is_some() => TaskState::Cancelling,
            Some(_) => TaskState::Running,
        }
    }

    /// Whether the agent that has it may be changing something that outlives the attempt: its word on an offer is the
    /// least that is needed for that.
    pub(super) fn may_have_effects(&self) -> bool {
        self.spec.kind.has_side_effects()
            && self.live.as_ref().is_some_and(|live| live.phase != Phase::Offered)
    }

    /// The live attempt, where it is this one and this agent's: the fence.
    pub(super) fn fenced(&mut self, agent_id: &str, number: u32) -> Option<&mut Live> {
        self.live.as_mut().filter(|live| live.number == number && live.agent_id == agent_id)
    }

    /// Whether an agent has refused the task or tried it in vain.
    pub(super) fn excludes(&self, agent_id: &str) -> bool {
        self.refused_by.contains(agent_id) || self.passed.iter().any(|it| it.agent_id == agent_id)
    }

    /// The agents that [`Self::excludes`] names.
    pub(super) fn excluded(&self) -> BTreeSet<String> {
        let passed = self.passed.iter().map(|it| it.agent_id.clone());
        self.refused_by.iter().cloned().chain(passed).collect()
    }

    /// Whether some agent had a word on it, so that it ends with that where no agent is left.
    pub(super) fn was_tried(&self) -> bool {
        self.refusal.is_some() || !self.passed.is_empty()
    }

    /// The attempts that count towards the limit.
    pub(super) fn tries(&self) -> u32 {
        self.counted.saturating_add(u32::try_from(self.passed.len()).unwrap_or(u32::MAX))
    }

    /// When it must be looked at next, where nothing happens before.
    fn due(&self) -> Duration {
        match &self.live {
            Some(live) => live.failover_at.map_or(live.ends_at, |at| at.min(live.ends_at)),
            None => self.held_until.map_or(self.queue_until, |at| at.min(self.queue_until)),
        }
    }

    pub(super) fn attempt_id(&self, number: u32) -> AttemptId {
        AttemptId { task_id: self.id.clone(), attempt: number }
    }
}

impl Dispatcher {
    pub(super) fn task_posted(&mut self, now: Duration, posted: Posted) {
        let id = posted.id.clone();
        self.persist(Transition::TaskPosted {
            task_id: id.clone(),
            bytes: Arc::clone(&posted.bytes),
            spec: Arc::clone(&posted.spec),
        });
        let task = Task::waiting(posted, self.next_count(), now, Duration::ZERO);
        self.insert(task);
        self.place(now, &id);
    }

    /// Puts a task into the books, queued or held by an agent.
    pub(super) fn insert(&mut self, task: Task) {
        match &task.live {
            Some(live) => {
                self.held.entry(live.agent_id.clone()).or_default().insert(task.id.clone());
            }
            None => self.queue.push(&task),
        }
        let id = task.id.clone();
        self.tasks.insert(id.clone(), task);
        self.watch(&id);
    }

    /// Puts a task among the deadlines, once, where its state says that it must be looked at.
    pub(super) fn watch(&mut self, task_id: &str) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        let due = task.due();
        if task.watched == Some(due) {
            return;
        }
        if let Some(before) = task.watched.replace(due) {
            self.deadlines.remove(&(before, task_id.to_owned()));
        }
        self.deadlines.insert((due, task_id.to_owned()));
    }

    pub(super) fn next_count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Takes the live attempt away from its agent and writes down how it ended.
    pub(super) fn end_attempt(&mut self, task_id: &str, end: End) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        let Some(live) = task.live.take() else { return };
        let ended = Ended {
            agent_id: live.agent_id.clone(),
            agent_name: live.agent_name,
            reason: end.reason.clone(),
            by_result: end.by_result,
            counted: end.counted,
        };
        task.ended.insert(live.number, ended);
        task.counted += u32::from(end.counted);
        self.orphans.remove(task_id);
        let attempt = task.attempt_id(live.number);
        if let Some(held) = self.held.get_mut(&live.agent_id) {
            held.remove(task_id);
            if held.is_empty() {
                self.held.remove(&live.agent_id);
            }
        }
        let End { outcome, diagnosis, reason, by_result, counted, passed_on } = end;
        self.persist(Transition::AttemptEnded {
            attempt,
            outcome,
            diagnosis,
            reason,
            by_result,
            counted,
            passed_on,
        });
    }

    /// Puts a task whose attempt has just ended back into the queue, at the place that its age gives.
    pub(super) fn requeue(&mut self, now: Duration, task_id: &str) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        task.held_until = None;
        if task.queue_until <= now {
            return self.expire(task_id);
        }
        self.queue.push(task);
        self.watch(task_id);
        self.persist(Transition::TaskQueued { task_id: task_id.to_owned() });
        self.place(now, task_id);
    }

    /// Ends an attempt that its agent lost, and gives the task another one while it may have one.
    pub(super) fn lose(&mut self, now: Duration, task_id: &str, reason: &str) {
        self.end_attempt(task_id, End::lost(reason));
        let Some(task) = self.tasks.get(task_id) else { return };
        if let Some(cancel) = task.cancel.clone() {
            self.complete(task_id, Outcome::Cancelled, None, Some(cancel));
        } else if task.tries() >= self.attempts_allowed(task) {
            self.die(task_id, None);
        } else {
            self.requeue(now, task_id);
        }
    }

    pub(super) fn expire(&mut self, task_id: &str) {
        let Some(task) = self.tasks.get(task_id) else { return };
        if !task.passed.is_empty() || (task.refusal.is_some() && !self.somebody_is_left(task)) {
            return self.settle(task_id);
        }
        let waited = task.spec.queue_seconds;
        let reason = format!("no agent took the task within {waited} s: {}", self.summary(task));
        self.complete(task_id, Outcome::Expired, None, Some(reason));
    }

    pub(super) fn complete(
        &mut self,
        task_id: &str,
        outcome: Outcome,
        result: Option<TaskOutput>,
        reason: Option<String>,
    ) {
        let Some(task) = self.tasks.remove(task_id) else { return };
        self.queue.remove(task.order, false);
        if let Some(watched) = task.watched {
            self.deadlines.remove(&(watched, task_id.to_owned()));
        }
        self.persist(Transition::TaskCompleted { task_id: task_id.to_owned(), outcome, result, reason });
    }

    pub(super) fn cancel_requested(&mut self, now: Duration, task_id: &str, reason: &str) {
        // A task that is not here is completed, and stays as it is.
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        let state = task.state();
        let holder = task.live.as_ref().map(|live| (live.agent_id.clone(), task.attempt_id(live.number)));
        match state {
            TaskState::Queued | TaskState::Offered => {
                self.end_attempt(task_id, End::cancelled(reason));
                self.complete(task_id, Outcome::Cancelled, None, Some(reason.to_owned()));
            }
            TaskState::Running => {
                task.cancel = Some(reason.to_owned());
                self.persist(Transition::TaskCancelling {
                    task_id: task_id.to_owned(),
                    reason: reason.to_owned(),
                });
            }
            TaskState::Cancelling | TaskState::Completed => return,
        }
        if let Some((agent_id, attempt)) = holder {
            self.send(&agent_id, ControlMessage::Cancel { attempt, reason: reason.to_owned() });
            self.fill(now, &agent_id);
        }
    }

    /// Looks at every task whose time may be over.
    pub(super) fn run_out(&mut self, now: Duration) {
        while let Some((at, _)) = self.deadlines.first()
            && *at <= now
        {
            let Some((_, task_id)) = self.deadlines.pop_first() else { return };
            let Some(task) = self.tasks.get_mut(&task_id) else { continue };
            task.watched = None;
            match &task.live {
                Some(live) if live.ends_at <= now => self.live_attempt_ran_out(now, &task_id),
                Some(live) if live.failover_at.is_some_and(|at| at <= now) => {
                    self.give_up_waiting(now, &task_id);
                }
                None if task.queue_until <= now => self.expire(&task_id),
                None if task.held_until.is_some_and(|at| at <= now) => self.place(now, &task_id),
                _ => {}
            }
            self.watch(&task_id);
        }
    }

    fn live_attempt_ran_out(&mut self, now: Duration, task_id: &str) {
        let Some(live) = self.tasks.get(task_id).and_then(|task| task.live.as_ref()) else { return };
        let (agent_id, number, phase) = (live.agent_id.clone(), live.number, live.phase);
        if phase != Phase::Offered {
            let reason = format!("{} did not renew its lease in time", live.agent_name);
            return self.lose(now, task_id, &reason);
        }
        let reason = format!("{} did not answer the offer in time", live.agent_name);
        // An agent that leaves an offer unanswered gets no other one before it tells its free slots again.
        if let Some(agent) = self.agents.get_mut(&agent_id) {
            agent.credit = 0;
        }
        let attempt = AttemptId { task_id: task_id.to_owned(), attempt: number };
        self.send(&agent_id, ControlMessage::Cancel { attempt, reason: reason.clone() });
        self.end_attempt(task_id, End { counted: false, ..End::lost(&reason) });
        self.requeue(now, task_id);
    }
}

/// How an attempt ended.
pub(super) struct End {
    pub(super) outcome: Outcome,
    pub(super) diagnosis: Option<Diagnosis>,
    pub(super) reason: Option<String>,
    pub(super) by_result: bool,
    pub(super) counted: bool,
    /// The result, where the task goes on without it.
    pub(super) passed_on: Option<Box<TaskOutput>>,
}

impl End {
    pub(super) fn lost(reason: &str) -> Self {
        Self {
            outcome: Outcome::Expired,
            diagnosis: None,
            reason: Some(reason.to_owned()),
            by_result: false,
            counted: true,
            passed_on: None,
        }
    }

    pub(super) fn cancelled(reason: &str) -> Self {
        Self { outcome: Outcome::Cancelled, counted: false, ..Self::lost(reason) }
    }
}
