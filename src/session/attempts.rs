//! The attempts that this agent holds, and how long each is still its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sortie_protocol::AttemptId;
use sortie_protocol::message::{Decision, Reject, RejectReason, Renewal};

use super::{Action, StopReason};

/// How long before the end of its lease an attempt that could not be renewed is stopped, so that its
/// effects have ended when another agent may begin.
const STOP_BEFORE_END: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// Those that are ours, and when each is to be stopped unless it is renewed.
    held: BTreeMap<AttemptId, Duration>,
    /// Those that are not ours any more and still clean up: they take a slot until they have ended.
    ending: BTreeSet<AttemptId>,
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

    pub(super) fn ids(&self) -> Vec<AttemptId> {
        self.held.keys().cloned().collect()
    }

    pub(super) fn contains(&self, attempt: &AttemptId) -> bool {
        self.held.contains_key(attempt)
    }

    /// The attempt has ended. Says whether it was still ours.
    pub(super) fn remove(&mut self, attempt: &AttemptId) -> bool {
        self.ending.remove(attempt);
        self.held.remove(attempt).is_some()
    }

    pub(super) fn consider(&mut self, attempt: AttemptId, now: Duration, lease: Duration) {
        self.held.insert(attempt, stop_at(now, lease));
    }

    /// When the first lease is over.
    pub(super) fn next_end(&self) -> Option<Duration> {
        self.held.values().min().copied()
    }

    /// Carries out the control plane's word on attempts that run.
    pub(super) fn decide(&mut self, now: Duration, renewals: &[Renewal], actions: &mut Vec<Action>) {
        for renewal in renewals {
            match renewal.decision {
                Decision::Keep => {
                    if let Some(end) = self.held.get_mut(&renewal.attempt) {
                        *end = stop_at(now, Duration::from_millis(renewal.lease_ms));
                    }
                }
                Decision::Cancel => self.cancel(&renewal.attempt, actions),
                Decision::Abandon => self.lose(&renewal.attempt, actions),
            }
        }
    }

    /// Stops an attempt whose result is still due: it stays held until it has ended.
    pub(super) fn cancel(&mut self, attempt: &AttemptId, actions: &mut Vec<Action>) {
        if self.contains(attempt) {
            actions.push(Action::Stop(attempt.clone(), StopReason::Cancelled));
        }
    }

    /// Stops every attempt whose lease could not be renewed.
    pub(super) fn end_leases(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let over: Vec<_> =
            self.held.iter().filter(|(_, end)| now >= **end).map(|(id, _)| id.clone()).collect();
        for attempt in over {
            tracing::warn!(%attempt, "the lease could not be renewed in time: the attempt is stopped");
            self.lose(&attempt, actions);
        }
    }

    fn lose(&mut self, attempt: &AttemptId, actions: &mut Vec<Action>) {
        if self.held.remove(attempt).is_some() {
            self.ending.insert(attempt.clone());
            actions.push(Action::Stop(attempt.clone(), StopReason::Lost));
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
