//! Tasks that go from one agent to the next: because the first could not reach the server, or was not heard of
//! any more.

use std::time::Duration;

use sortie_protocol::report::TaskOutput;

use super::agents::seconds;
use super::reach::{progress, was_reached};
use super::task::{End, Ended, Passed, Phase, Task};
use super::{Dispatcher, Outcome};

/// The largest report that is kept for a task that goes on to another agent, in bytes. One that is larger is the task's
/// last: many tasks may wait, each with what several agents saw.
const MAX_PASSED_BYTES: usize = 64 * 1024;

/// How many attempts the reason of a dead task tells of, the last ones.
const TOLD_ATTEMPTS: usize = 10;

impl Task {
    /// The report of the attempt that came furthest, the last one among equals, and in the reason what each agent
    /// saw. `None` where no agent tried.
    pub(super) fn most_telling(&mut self) -> Option<(TaskOutput, Option<String>)> {
        let reason = (self.passed.len() > 1)
            .then(|| format!("{} agents could not reach the server: {}", self.passed.len(), self.seen()));
        let best = self.passed.iter().enumerate().max_by_key(|(_, it)| progress(it.result.diagnosis()));
        let best = best.map(|(index, _)| index)?;
        Some((self.passed.swap_remove(best).result, reason))
    }

    /// What happened before the attempt that ends the task, where other agents had tried.
    pub(super) fn before(&self) -> Option<String> {
        (!self.passed.is_empty()).then(|| format!("before that, it could not be reached: {}", self.seen()))
    }

    fn seen(&self) -> String {
        let each = self.passed.iter().filter_map(|it| {
            let diagnosis = it.result.diagnosis()?;
            Some(format!("{} saw {} at {}", it.agent_name, diagnosis.code, diagnosis.stage))
        });
        each.collect::<Vec<_>>().join("; ")
    }

    /// The attempts that were lost, in one sentence.
    fn history(&self, is_told: impl Fn(&Ended) -> bool) -> String {
        let told: Vec<_> = self.ended.iter().filter(|(_, ended)| is_told(ended)).collect();
        let last = told.iter().skip(told.len().saturating_sub(TOLD_ATTEMPTS));
        let each = last.map(|(number, ended)| {
            let reason = ended.reason.as_deref().unwrap_or("it has a diagnosis");
            format!("attempt {number} on {}: {reason}", ended.agent_name)
        });
        each.collect::<Vec<_>>().join("; ")
    }
}

impl Dispatcher {
    /// Remembers whether an agent reached what a task is about.
    pub(super) fn note_reach(&mut self, now: Duration, task_id: &str, agent_id: &str, result: &TaskOutput) {
        let target = self.tasks.get(task_id).and_then(|task| task.target.as_deref());
        if let (Some(target), Some(is_good)) = (target, was_reached(result)) {
            self.reach.note(now, agent_id, target, is_good);
        }
    }

    /// How many attempts of a task may count.
    pub(super) fn attempts_allowed(&self, task: &Task) -> u32 {
        task.spec.max_attempts.unwrap_or(self.limits.attempts_per_task)
    }

    /// Ends an attempt that could not reach the server, and lets another agent try, where there is one.
    pub(super) fn pass_on(&mut self, now: Duration, task_id: &str, result: TaskOutput) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        let Some(live) = &task.live else { return };
        let (agent_id, agent_name) = (live.agent_id.clone(), live.agent_name.clone());
        let diagnosis = result.diagnosis().cloned();
        let is_small = serde_json::to_vec(&result).is_ok_and(|text| text.len() <= MAX_PASSED_BYTES);
        let kept = Box::new(result.clone());
        task.passed.push(Passed { agent_id, agent_name, result });
        let Some(task) = self.tasks.get(task_id) else { return };
        let goes_on = is_small
            && task.passed.len() < self.limits.agents_per_task
            && task.tries() < self.attempts_allowed(task)
            && now < task.queue_until
            && (self.somebody_is_left(task) || self.expected(now, task).is_some());
        let end = End {
            outcome: Outcome::Failed,
            diagnosis,
            reason: None,
            by_result: true,
            counted: false,
            passed_on: goes_on.then_some(kept),
        };
        self.end_attempt(task_id, end);
        if goes_on { self.requeue(now, task_id) } else { self.settle(task_id) }
    }

    /// Ends a task that has had all its attempts.
    pub(super) fn die(&mut self, task_id: &str, result: Option<TaskOutput>) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        let history = task.history(|ended| ended.counted);
        let reason = format!("{} attempts were lost: {history}", task.counted);
        let before = task.before().map(|before| format!("; {before}")).unwrap_or_default();
        let result = result.or_else(|| task.most_telling().map(|(result, _)| result));
        self.complete(task_id, Outcome::Dead, result, Some(reason + &before));
    }

    /// Ends a task that was offered again and again, with what agents saw, where some did.
    pub(super) fn wear_out(&mut self, task_id: &str) {
        let Some(task) = self.tasks.get(task_id) else { return };
        if !task.passed.is_empty() {
            return self.settle(task_id);
        }
        let offers = task.last_number;
        let reason = format!(
            "{offers} offers were made and no agent kept one; see why these agents do not, the last ones: {}",
            task.history(|_| true)
        );
        self.complete(task_id, Outcome::Dead, None, Some(reason));
    }

    /// Lets another agent take over what the agent of a session had that ends. It keeps what has effects until its
    /// lease ends, and everything where it is back soon enough.
    pub(super) fn lend(&mut self, now: Duration, agent_id: &str) {
        let failover_at = now + self.times.failover;
        let held: Vec<_> = self.held.get(agent_id).into_iter().flatten().cloned().collect();
        for task_id in held {
            let Some(task) = self.tasks.get_mut(&task_id) else { continue };
            let has_side_effects = task.spec.kind.has_side_effects();
            if let Some(live) = task.live.as_mut().filter(|_| !has_side_effects) {
                live.failover_at = Some(failover_at);
                self.watch(&task_id);
            }
        }
    }

    /// An agent that lost its connection was not back in time.
    pub(super) fn give_up_waiting(&mut self, now: Duration, task_id: &str) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        let Some(live) = task.live.as_mut() else { return };
        live.failover_at = None;
        if let Some(cancel) = task.cancel.clone() {
            self.end_attempt(task_id, End::cancelled(&cancel));
            return self.complete(task_id, Outcome::Cancelled, None, Some(cancel));
        }
        // The last attempt that it may have stays with its agent, which may still come back with the result.
        let was_offered = live.phase == Phase::Offered;
        let Some(task) = self.tasks.get(task_id) else { return };
        if !was_offered && task.tries() + 1 >= self.attempts_allowed(task) {
            return;
        }
        self.orphans.insert(task_id.to_owned());
        let is_wanted = self.agents.keys().any(|it| self.free_slots(it) > 0 && self.could_take(task, it));
        if is_wanted {
            self.take_over(now, task_id);
        }
    }

    /// Gives an agent with free slots what others had and were not heard of since.
    pub(super) fn adopt(&mut self, now: Duration, agent_id: &str) {
        if self.orphans.is_empty() {
            return;
        }
        let free = usize::try_from(self.free_slots(agent_id)).unwrap_or(usize::MAX);
        let able = self
            .orphans
            .iter()
            .filter(|task_id| self.tasks.get(*task_id).is_some_and(|task| self.could_take(task, agent_id)));
        for task_id in able.take(free).cloned().collect::<Vec<_>>() {
            self.take_over(now, &task_id);
        }
    }

    fn take_over(&mut self, now: Duration, task_id: &str) {
        let Some(task) = self.tasks.get(task_id) else { return };
        let Some(live) = &task.live else { return };
        let (was_offered, agent) = (live.phase == Phase::Offered, &live.agent_name);
        let reason =
            format!("{agent} lost its connection and was not back within {}", seconds(self.times.failover));
        if was_offered {
            self.end_attempt(task_id, End { counted: false, ..End::lost(&reason) });
            self.requeue(now, task_id);
        } else {
            self.lose(now, task_id, &reason);
        }
    }
}
