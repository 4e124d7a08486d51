//! The attempts that this agent holds, and how long each is still its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sortie_protocol::AttemptId;
use sortie_protocol::message::{Decision, Reject, RejectReason, Renewal};

use super::{Action, StopReason};

/// How long before the end of its lease an attempt that could not be renewed is stopped, so that its
/// effects have ended when another agent may begin.
const STOP_BEFORE_END: Duration = Duration::from_secs(2);

/// How many requests for renewal may be without an answer in a session; no further one is made then. It is more than
/// an agent that runs as many attempts as it may ever comes to, so that such a peer answers nothing.
const MAX_UNANSWERED: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// Those that are ours.
    held: BTreeMap<AttemptId, Held>,
    /// Those that are not ours any more and still clean up: they take a slot until they have ended.
    ending: BTreeSet<AttemptId>,
    /// When each request for renewal was sent that has not been answered yet. A lease counts from there: the other
    /// side counts from a later moment, whatever the line did to the message.
    asked: VecDeque<Duration>,
}

#[derive(Debug)]
struct Held {
    /// When it is to be stopped unless it is renewed.
    until: Duration,
    phase: Phase,
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The runner is asked.
    Considered,
    /// The control plane was told that it starts, and is to say that it is still ours.
    Waiting,
    Running,
}

impl Attempts {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// How many slots are taken.
    pub(super) fn occupied(&self) -> usize {
        self.held.len() + self.ending.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Those of which the control plane was told that they start. Of others nothing is asked: the answer would pass for
    /// one to their start.
    pub(super) fn started(&self) -> Vec<AttemptId> {
        let started = self.held.iter().filter(|(_, held)| held.phase != Phase::Considered);
        started.map(|(attempt, _)| attempt.clone()).collect()
    }

    pub(super) fn contains(&self, attempt: &AttemptId) -> bool {
        self.held.contains_key(attempt)
    }

    /// The attempt is not taken. One of the same name that still cleans up keeps its slot.
    pub(super) fn dismiss(&mut self, attempt: &AttemptId) {
        self.held.remove(attempt);
    }

    /// The attempt has ended. Says whether it was still ours.
    pub(super) fn remove(&mut self, attempt: &AttemptId) -> bool {
        self.ending.remove(attempt);
        self.held.remove(attempt).is_some()
    }

    pub(super) fn consider(&mut self, attempt: AttemptId, now: Duration, lease: Duration) {
        self.held.insert(attempt, Held { until: stop_at(now, lease), phase: Phase::Considered });
    }

    /// Notes that the control plane is told of an attempt's start.
    pub(super) fn start(&mut self, attempt: &AttemptId) {
        if let Some(held) = self.held.get_mut(attempt)
            && held.phase == Phase::Considered
        {
            held.phase = Phase::Waiting;
        }
    }

    /// Lets a waiting attempt run.
    pub(super) fn run(&mut self, attempt: &AttemptId, actions: &mut Vec<Action>) {
        if let Some(held) = self.held.get_mut(attempt)
            && held.phase == Phase::Waiting
        {
            held.phase = Phase::Running;
            actions.push(Action::Run(attempt.clone()));
        }
    }

    /// When the first lease is over.
    pub(super) fn next_end(&self) -> Option<Duration> {
        self.held.values().map(|held| held.until).min()
    }

    /// A new connection: nothing that was asked on another one is answered here.
    pub(super) fn opened(&mut self) {
        self.asked.clear();
    }

    /// Notes that renewal is asked for now; `false` where it must not be, because so much has not been answered.
    pub(super) fn asks(&mut self, now: Duration) -> bool {
        let may_ask = self.asked.len() < MAX_UNANSWERED;
        if may_ask {
            self.asked.push_back(now);
        }
        may_ask
    }

    /// Carries out the control plane's word on attempts that it was asked about.
    pub(super) fn answered(&mut self, renewals: &[Renewal], actions: &mut Vec<Action>) {
        // An answer that nobody asked for grants nothing.
        let asked = self.asked.pop_front();
        for renewal in renewals {
            match renewal.decision {
                Decision::Keep => {
                    let Some((held, asked)) = self.held.get_mut(&renewal.attempt).zip(asked) else {
                        continue;
                    };
                    held.until = stop_at(asked, Duration::from_millis(renewal.lease_ms));
                    self.run(&renewal.attempt, actions);
                }
                Decision::Cancel => self.cancel(&renewal.attempt, actions),
                Decision::Abandon => self.lose(&renewal.attempt, actions),
            }
        }
    }

    /// Stops an attempt whose result is still due: it stays held until it has ended.
    pub(super) fn cancel(&mut self, attempt: &AttemptId, actions: &mut Vec<Action>) {
        if let Some(held) = self.held.get_mut(attempt) {
            // One that waits is run to its end at once by whoever stops it: a result is due for it as well.
            held.phase = Phase::Running;
            actions.push(Action::Stop(attempt.clone(), StopReason::Cancelled));
        }
    }

    /// Stops every attempt whose lease could not be renewed.
    pub(super) fn end_leases(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let over: Vec<_> =
            self.held.iter().filter(|(_, held)| now >= held.until).map(|(id, _)| id.clone()).collect();
        for attempt in over {
            tracing::warn!(%attempt, "the lease could not be renewed in time: the attempt is stopped");
            self.lose(&attempt, actions);
        }
    }

    fn lose(&mut self, attempt: &AttemptId, actions: &mut Vec<Action>) {
        let Some(held) = self.held.remove(attempt) else { return };
        actions.push(Action::Stop(attempt.clone(), StopReason::Lost));
        match held.phase {
            // It will not be heard of again.
            Phase::Considered | Phase::Waiting => actions.push(Action::Forget(vec![attempt.clone()])),
            Phase::Running => {
                self.ending.insert(attempt.clone());
            }
        }
    }
}

fn stop_at(now: Duration, lease: Duration) -> Duration {
    now + lease.saturating_sub(STOP_BEFORE_END.min(lease / 4))
}

/// The answer to an offer for which there is no slot.
pub(super) fn busy(attempt: AttemptId) -> Reject {
    Reject { attempt, retryable: true, reason: RejectReason::Busy, diagnosis: None, result: None }
}
