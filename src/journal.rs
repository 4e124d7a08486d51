//! What must survive a crash: attempts that run, results that the control plane has not acknowledged, and which
//! attempts were ever taken, so that none is carried out twice.
//!
//! [`Journal`] holds all of it in memory and lets no one go on before a [`Store`] has kept what they depend on. The
//! daemon's store is a SQLite file ([`sqlite`]). Where a write fails, for example because the disk is full, nothing is
//! lost while the process lives: what could not be kept is kept by the next [`Journal::catch_up`], and meanwhile the
//! agent takes nothing new.

pub mod sqlite;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sortie_protocol::AttemptId;
use sortie_protocol::message::{AttemptResult, LostAttempt};

/// How many attempts that are over are remembered, so that an offer of one of them is refused.
pub const MAX_PAST_ATTEMPTS: usize = 10_000;

/// How many results may wait for their acknowledgment before the agent takes nothing new. Each is one message at the
/// most, so that the journal stays below 256 MiB.
pub const MAX_WAITING_RESULTS: usize = 256;

/// Why an attempt is lost that was running when the process ended.
const RESTARTED: &str = "the agent was restarted while the attempt ran";

/// What is to be kept.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// An attempt is about to run.
    Began(AttemptId),
    /// An attempt has ended with this result, which waits for its acknowledgment.
    Ended(Box<AttemptResult>),
    /// Nothing waits for the attempt any more. It stays known as one that was taken.
    Over(AttemptId),
}

/// Whether the next step depends on a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// It survives the death of the process. Whether it survives the host's, nothing depends on.
    Process,
    /// It survives the host's death as well: it is on the disk.
    Disk,
}

/// What a store held when it was opened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kept {
    /// Attempts that began and have no result.
    pub began: Vec<AttemptId>,
    /// Results that were not acknowledged.
    pub ended: Vec<AttemptResult>,
    /// Attempts that are over, the oldest first; at most [`MAX_PAST_ATTEMPTS`].
    pub over: Vec<AttemptId>,
}

/// A store did not keep something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room: the disk or a quota is used up.
    #[error("the journal cannot be written: the disk is full")]
    Full,
    /// The file is damaged.
    #[error("the journal is damaged")]
    Damaged,
    /// The file cannot be written or read for another reason.
    #[error("the journal cannot be written ({0})")]
    Failed(&'static str),
    /// The store's thread has ended.
    #[error("the journal is closed")]
    Closed,
}

/// Where a journal is kept.
pub trait Store: Send {
    /// Keeps all of the changes or none of them. Dropping the future undoes nothing.
    fn keep(
        &mut self,
        changes: Vec<Change>,
        durability: Durability,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The journal of one agent.
#[derive(Debug)]
pub struct Journal<S> {
    store: S,
    results: BTreeMap<AttemptId, AttemptResult>,
    /// Attempts that an earlier process began and did not end, until the control plane has been told.
    lost: BTreeSet<AttemptId>,
    past: Past,
    /// What the store did not keep yet, in order.
    owed: Vec<Change>,
}

impl<S: Store> Journal<S> {
    /// A journal that goes on with what a store has kept.
    pub fn new(store: S, kept: Kept) -> Self {
        let mut past = Past::default();
        for attempt in kept.over {
            past.insert(attempt);
        }
        for attempt in kept.began.iter().chain(kept.ended.iter().map(|result| &result.attempt)) {
            past.insert(attempt.clone());
        }
        let results = kept.ended.into_iter().map(|result| (result.attempt.clone(), result)).collect();
        Self { store, results, lost: kept.began.into_iter().collect(), past, owed: Vec::new() }
    }

    /// Keeps that an attempt is about to run. When this returns it may.
    ///
    /// # Errors
    /// Nothing is kept then, and the attempt must not run.
    pub async fn begin(&mut self, attempt: &AttemptId, durability: Durability) -> Result<(), StoreError> {
        self.catch_up().await?;
        let kept = self.store.keep(vec![Change::Began(attempt.clone())], durability).await;
        match kept {
            Ok(()) => self.past.insert(attempt.clone()),
            // Nobody can say what of a failed write is there. To take it back is what the next write begins with.
            Err(_) => self.owed.push(Change::Over(attempt.clone())),
        }
        kept
    }

    /// Keeps a result. When this returns it may be sent.
    ///
    /// # Errors
    /// It is kept in memory then, may be sent as well, and goes to the store with the next [`Self::catch_up`].
    pub async fn record(&mut self, result: AttemptResult) -> Result<(), StoreError> {
        self.results.insert(result.attempt.clone(), result.clone());
        self.owed.push(Change::Ended(Box::new(result)));
        self.catch_up().await
    }

    /// Drops what is kept for attempts that nobody waits for any more.
    ///
    /// # Errors
    /// They are dropped from memory all the same.
    pub async fn forget(&mut self, attempts: &[AttemptId]) -> Result<(), StoreError> {
        for attempt in attempts {
            self.results.remove(attempt);
            self.lost.remove(attempt);
            // A result that never got to the store need not go there any more.
            self.owed.retain(|change| !matches!(change, Change::Ended(result) if result.attempt == *attempt));
            self.owed.push(Change::Over(attempt.clone()));
        }
        // What is done again because this got lost is only told again.
        self.write(Durability::Process).await
    }

    /// Brings what an earlier write failed to keep to the store.
    ///
    /// # Errors
    /// The store still fails.
    pub async fn catch_up(&mut self) -> Result<(), StoreError> {
        self.write(Durability::Disk).await
    }

    async fn write(&mut self, durability: Durability) -> Result<(), StoreError> {
        if self.owed.is_empty() {
            return Ok(());
        }
        self.store.keep(self.owed.clone(), durability).await?;
        self.owed.clear();
        Ok(())
    }

    /// The result of an attempt that waits for its acknowledgment.
    pub fn result(&self, attempt: &AttemptId) -> Option<&AttemptResult> {
        self.results.get(attempt)
    }

    /// All attempts with such a result, in order.
    pub fn unacknowledged(&self) -> Vec<AttemptId> {
        self.results.keys().cloned().collect()
    }

    /// The attempts that ended with an earlier process, and why, until they are forgotten.
    pub fn lost(&self) -> Vec<LostAttempt> {
        let lost = self.lost.iter().cloned();
        lost.map(|attempt| LostAttempt { attempt, reason: RESTARTED.to_owned() }).collect()
    }

    /// Whether an attempt was taken before, by this process or an earlier one.
    pub fn has_taken(&self, attempt: &AttemptId) -> bool {
        self.past.set.contains(attempt)
    }
}

/// The attempts that were taken, the latest [`MAX_PAST_ATTEMPTS`] of them.
#[derive(Debug, Default)]
struct Past {
    set: BTreeSet<AttemptId>,
    order: VecDeque<AttemptId>,
}

impl Past {
    fn insert(&mut self, attempt: AttemptId) {
        if self.set.insert(attempt.clone()) {
            self.order.push_back(attempt);
        }
        while self.order.len() > MAX_PAST_ATTEMPTS {
            if let Some(oldest) = self.order.pop_front() {
                self.set.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
#[path = "journal/tests.rs"]
mod tests;
