//! A live task, and how it enters and leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sortie_protocol::AttemptId;
use sortie_protocol::message::ControlMessage;
use sortie_protocol::report::{Diagnosis, TaskOutput};
use sortie_protocol::task::TaskSpec;

use super::{Dispatcher, Outcome, Posted, TaskState, Transition};

/// A task that is not completed.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) id: String,
    /// Its place in the queue: tasks are served by age.
    pub(super) order: u64,
    pub(super) spec: Arc<TaskSpec>,
    pub(super) bytes: Arc<str>,
    pub(super) posted_at: Duration,
    pub(super) queue_until: Duration,
    pub(super) last_number: u32,
    pub(super) counted: u32,
    pub(super) live: Option<Live>,
    pub(super) ended: BTreeMap<u32, Ended>,
    pub(super) refused_by: BTreeSet<String>,
    pub(super) refusal: Option<Refusal>,
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
    pub(super) by_result: bool,
}

/// The last word of an agent that would not do the task, for when no other agent is left.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) result: Option<TaskOutput>,
    /// Until when it is held back for an agent that is expected, where it is.
    pub(super) held_until: Option<Duration>,
}

impl Task {
    /// A task that has waited for so long already, and that no agent has been asked about yet.
    pub(super) fn waiting(posted: Posted, order: u64, now: Duration, waited: Duration) -> Self {
        let left = Duration::from_secs(posted.spec.queue_seconds).saturating_sub(waited);
        Self {
            id: posted.id,
            order,
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

    /// The live attempt, where it is this one and this agent's: the fence.
    pub(super) fn fenced(&mut self, agent_id: &str, number: u32) -> Option<&mut Live> {
        self.live.as_mut().filter(|live| live.number == number && live.agent_id == agent_id)
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
                self.deadlines.insert((live.ends_at, task.id.clone()));
                self.held.entry(live.agent_id.clone()).or_default().insert(task.id.clone());
            }
            None => {
                self.deadlines.insert((task.queue_until, task.id.clone()));
                self.queue.insert(task.order, task.id.clone());
            }
        }
        self.tasks.insert(task.id.clone(), task);
    }

    pub(super) fn next_count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Takes the live attempt away from its agent and writes down how it ended.
    pub(super) fn end_attempt(&mut self, task_id: &str, end: End) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        let Some(live) = task.live.take() else { return };
        task.ended.insert(live.number, Ended { agent_id: live.agent_id.clone(), by_result: end.by_result });
        task.counted += u32::from(end.counted);
        let attempt = task.attempt_id(live.number);
        if let Some(held) = self.held.get_mut(&live.agent_id) {
            held.remove(task_id);
            if held.is_empty() {
                self.held.remove(&live.agent_id);
            }
        }
        let End { outcome, diagnosis, reason, by_result, counted } = end;
        self.persist(Transition::AttemptEnded { attempt, outcome, diagnosis, reason, by_result, counted });
    }

    /// Puts a task whose attempt has just ended back into the queue, at the place that its age gives.
    pub(super) fn requeue(&mut self, now: Duration, task_id: &str) {
        let Some(task) = self.tasks.get(task_id) else { return };
        if task.queue_until <= now {
            return self.expire(task_id);
        }
        self.deadlines.insert((task.queue_until, task.id.clone()));
        self.queue.insert(task.order, task.id.clone());
        self.persist(Transition::TaskQueued { task_id: task_id.to_owned() });
        self.place(now, task_id);
    }

    /// Ends an attempt that its agent lost, and gives the task another one while it may have one.
    pub(super) fn lose(&mut self, now: Duration, task_id: &str, reason: &str) {
        self.end_attempt(task_id, End::lost(reason));
        let Some(task) = self.tasks.get(task_id) else { return };
        if let Some(cancel) = task.cancel.clone() {
            self.complete(task_id, Outcome::Cancelled, None, Some(cancel));
        } else if task.counted >= self.limits.attempts_per_task {
            let reason = format!("{} attempts were lost; the last one: {reason}", task.counted);
            self.complete(task_id, Outcome::Dead, None, Some(reason));
        } else {
            self.requeue(now, task_id);
        }
    }

    pub(super) fn expire(&mut self, task_id: &str) {
        let Some(task) = self.tasks.get(task_id) else { return };
        if task.refusal.is_some() && !self.somebody_is_left(task) {
            return self.refuse(task_id);
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
        self.queue.remove(&task.order);
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
            let Some(task) = self.tasks.get(&task_id) else { continue };
            match &task.live {
                Some(live) if live.ends_at <= now => self.live_attempt_ran_out(now, &task_id),
                None if task.queue_until <= now => self.expire(&task_id),
                None if task.refusal.as_ref().and_then(|it| it.held_until).is_some_and(|at| at <= now) => {
                    self.place(now, &task_id);
                }
                _ => {}
            }
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
}

impl End {
    pub(super) fn lost(reason: &str) -> Self {
        Self {
            outcome: Outcome::Expired,
            diagnosis: None,
            reason: Some(reason.to_owned()),
            by_result: false,
            counted: true,
        }
    }

    pub(super) fn cancelled(reason: &str) -> Self {
        Self { outcome: Outcome::Cancelled, counted: false, ..Self::lost(reason) }
    }
}
