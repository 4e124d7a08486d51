//! What must hold, whatever happens. It sees what leaves the control plane, what the database is told, and what tasks
//! do, and none of it through the eyes of the programs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sortie_control::dispatch::{Outcome, TaskState};
use sortie_protocol::message::{Decision, Disposition};
use sortie_protocol::{AttemptId, ControlMessage};
use tokio::time::Instant;

use crate::ledger::{Row, Shared};

/// Who watches a run. Clones share it.
#[derive(Debug, Clone)]
pub struct Oracle(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    began: Instant,
    database: Shared,
    /// Until when each attempt was granted to its agent, by what the control plane wrote.
    granted: BTreeMap<AttemptId, Instant>,
    /// Attempts that ran.
    ran: BTreeSet<AttemptId>,
    /// Tasks that somebody asked to be stopped.
    cancelled: BTreeSet<String>,
    /// Whether two processes have had one identity: what another copy of an agent holds cannot be known then.
    was_copied: bool,
    violations: Vec<String>,
    events: u64,
    digest: u64,
}

/// The numbers of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that were accepted.
    pub tasks: u64,
    /// Of these, those that succeeded.
    pub succeeded: u64,
    /// Of these, those that failed.
    pub failed: u64,
    /// Of these, those that were cancelled.
    pub cancelled: u64,
    /// Of these, those that waited for too long.
    pub expired: u64,
    /// Of these, those that no attempt could carry out.
    pub dead: u64,
    /// Attempts that were offered.
    pub attempts: u64,
    /// Attempts that ran.
    pub ran: u64,
    /// Results that came too late.
    pub late_results: u64,
    /// Processes that were killed.
    pub kills: u64,
}

impl Counts {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        let Self { tasks, succeeded, failed, cancelled, expired, dead, attempts, ran, late_results, kills } =
            other;
        self.tasks += tasks;
        self.succeeded += succeeded;
        self.failed += failed;
        self.cancelled += cancelled;
        self.expired += expired;
        self.dead += dead;
        self.attempts += attempts;
        self.ran += ran;
        self.late_results += late_results;
        self.kills += kills;
    }
}

impl Oracle {
    /// Watches a run with this database.
    pub fn new(database: Shared) -> Self {
        Self(Arc::new(Mutex::new(State {
            began: Instant::now(),
            database,
            granted: BTreeMap::new(),
            ran: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            was_copied: false,
            violations: Vec::new(),
            events: 0,
            digest: 0xcbf2_9ce4_8422_2325,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is not as it must be.
    pub fn violated(&self, what: &str) {
        let mut state = self.state();
        let at = state.began.elapsed().as_secs_f64();
        state.violations.push(format!("{at:.3} s: {what}"));
    }

    /// What was not as it must be.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// A number that tells two different runs apart.
    pub fn digest(&self) -> u64 {
        self.state().digest
    }

    /// From now on there are two processes with one identity.
    pub fn copied(&self) {
        self.state().was_copied = true;
    }

    /// Somebody is about to ask for a task to be stopped.
    pub fn cancel_asked(&self, task_id: &str) {
        self.state().cancelled.insert(task_id.to_owned());
    }

    /// Somebody heard that it will be: the word must be kept by now.
    pub fn cancel_confirmed(&self, task_id: &str) {
        let is_kept = {
            let state = self.state();
            let database = state.database.look();
            database.tasks.get(task_id).is_some_and(Row::is_cancelled_or_over)
        };
        if !is_kept {
            self.violated(&format!("{task_id} was to be stopped, which was confirmed and not kept"));
        }
    }

    /// What is said must be true for what is kept, so that no crash can make it untrue.
    fn check_said(&self, message: &ControlMessage) {
        let (attempt, wants) = match message {
            ControlMessage::Offer(offer) => (&offer.attempt, "an offer of an attempt that is not kept"),
            ControlMessage::ResultAck { attempt, disposition, .. } if *disposition != Disposition::Stale => {
                (attempt, "an acknowledgment of a result that is not kept")
            }
            _ => return,
        };
        let is_true = {
            let state = self.state();
            let database = state.database.look();
            let row = database.tasks.get(&attempt.task_id).and_then(|row| row.attempts.get(&attempt.attempt));
            row.is_some_and(|row| match message {
                // It may have ended while the message waited to be written.
                ControlMessage::Offer(_) => true,
                _ => row.has_result(),
            })
        };
        if !is_true {
            self.violated(&format!("{wants}: {attempt}"));
        }
    }

    /// The control plane sends this to an agent.
    pub fn granted(&self, message: &ControlMessage) {
        self.check_said(message);
        let mut state = self.state();
        let now = Instant::now();
        let mut grant = |attempt: &AttemptId, lease_ms: u64| {
            let until = now + Duration::from_millis(lease_ms);
            let granted = state.granted.entry(attempt.clone()).or_insert(until);
            *granted = (*granted).max(until);
        };
        match message {
            ControlMessage::Offer(offer) => grant(&offer.attempt, offer.lease_ms),
            ControlMessage::Welcome(welcome) => {
                for renewal in welcome.attempts.iter().filter(|renewal| renewal.decision == Decision::Keep) {
                    grant(&renewal.attempt, renewal.lease_ms);
                }
            }
            ControlMessage::Renewed { attempts } => {
                for renewal in attempts.iter().filter(|renewal| renewal.decision == Decision::Keep) {
                    grant(&renewal.attempt, renewal.lease_ms);
                }
            }
            _ => {}
        }
        state.note("sent", message.name());
    }

    /// An attempt begins to run.
    pub fn began(&self, attempt: &AttemptId, has_effects: bool) {
        let mut state = self.state();
        state.note("began", &attempt.to_string());
        if !state.ran.insert(attempt.clone()) {
            let twice = format!("{attempt} ran twice");
            drop(state);
            return self.violated(&twice);
        }
        drop(state);
        self.effect(attempt, has_effects, "began");
    }

    /// An attempt that runs touches something.
    pub fn touched(&self, attempt: &AttemptId, has_effects: bool) {
        self.effect(attempt, has_effects, "went on");
    }

    /// An attempt has come to a success: who made it.
    pub fn produced(&self, attempt: &AttemptId, agent: &str) -> String {
        self.state().note("produced", agent);
        format!("{attempt}@{agent}")
    }

    fn effect(&self, attempt: &AttemptId, has_effects: bool, what: &str) {
        let (late, is_over) = {
            let state = self.state();
            let now = Instant::now();
            let granted = state.granted.get(attempt).copied().unwrap_or(state.began);
            let database = state.database.look();
            let row = database.tasks.get(&attempt.task_id).and_then(|row| row.attempts.get(&attempt.attempt));
            let is_over = row.is_none_or(|row| row.ended_at.is_some());
            (now.saturating_duration_since(granted), is_over && !state.was_copied)
        };
        // A task without effects may go on for as long as its offer was on its way: it harms nobody.
        if has_effects && late > Duration::ZERO {
            self.violated(&format!("{attempt} {what} {late:?} after its lease"));
        }
        if has_effects && is_over {
            self.violated(&format!("{attempt} {what} with effects after the control plane had given it up"));
        }
    }

    /// Looks at the end whether every accepted task has its end.
    pub fn judge(&self, accepted: &BTreeMap<String, String>, kills: u64) -> Counts {
        let database = self.state().database.clone();
        let database = database.look();
        let mut counts = Counts { kills, late_results: database.late_results, ..Counts::default() };
        for (key, id) in accepted {
            let Some(row) = database.tasks.get(id) else {
                self.violated(&format!("{id}, accepted for {key}, is not kept"));
                continue;
            };
            counts.tasks += 1;
            counts.attempts += row.attempts.len() as u64;
            if row.state != TaskState::Completed {
                self.violated(&format!("{id} has not ended: {row:?}"));
            }
            match row.outcome {
                Some(Outcome::Succeeded) => counts.succeeded += 1,
                Some(Outcome::Failed) => counts.failed += 1,
                Some(Outcome::Cancelled) if self.state().cancelled.contains(id) => counts.cancelled += 1,
                Some(Outcome::Cancelled) => {
                    self.violated(&format!("nobody asked for {id} to be cancelled: {row:?}"))
                }
                Some(Outcome::Expired) => counts.expired += 1,
                Some(Outcome::Dead) if row.has_used_its_attempts() => counts.dead += 1,
                Some(Outcome::Dead) => self.violated(&format!("{id} is dead and had attempts left: {row:?}")),
                Some(Outcome::Refused) => self.violated(&format!("{id} was refused: {row:?}")),
                None => {}
            }
        }
        if database.tasks.len() > accepted.len() {
            let (kept, keys) = (database.tasks.len(), accepted.len());
            self.violated(&format!("{kept} tasks are kept for {keys} keys"));
        }
        counts.ran = self.state().ran.len() as u64;
        counts
    }
}

impl State {
    /// Takes an event into the digest of the run.
    fn note(&mut self, kind: &str, what: &str) {
        self.events += 1;
        tracing::debug!(at = ?self.began.elapsed(), kind, what);
        let at = self.began.elapsed().as_nanos().to_le_bytes();
        for byte in kind.bytes().chain(what.bytes()).chain(at) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
