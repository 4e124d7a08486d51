//! What the engine and admission ask of whatever keeps their tasks and agents.
//!
//! The store is one ledger. A simulation has another one, in memory and with failures of its own: nothing in
//! the engine knows of SQLite.

use std::future::Future;
use std::time::Duration;

use sortie_protocol::AttemptId;

use super::wall_clock;
use crate::dispatch::{PastAttempt, RestoredTask, Transition};
use crate::store::{AgentRecord, IdempotencyKey, Millis, Store, StoreError};

/// When something was committed.
///
/// The clock of the wall is for people: it may be set to anything at any time. How long a task has waited is
/// told by `elapsed`, which is made of measured durations, and of the wall's difference for the time between
/// two processes alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// By the clock of the wall.
    pub wall: Millis,
    /// How long this ledger has been in use. It never goes back.
    pub elapsed: Duration,
}

impl Stamp {
    /// How long a ledger has been in use when a process begins at `wall`, `last` being what was stamped last.
    ///
    /// A clock that was set back since then adds nothing. One that was set forward while nobody served cannot be
    /// told from a long pause.
    pub fn resumed(last: Option<Self>, wall: Millis) -> Duration {
        last.map_or(Duration::ZERO, |last| {
            let pause = u64::try_from(wall.saturating_sub(last.wall)).unwrap_or(0);
            last.elapsed + Duration::from_millis(pause)
        })
    }
}

/// Where tasks, attempts and agents are kept. Clones share it.
pub trait Ledger: Clone + Send + Sync + 'static {
    /// Makes a batch of transitions durable, all or none. An empty batch keeps the stamp alone.
    ///
    /// # Errors
    /// Why it failed. What became of the batch is then to be read from the ledger.
    fn commit(
        &self,
        at: Stamp,
        transitions: &[Transition],
        keys: &[IdempotencyKey],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The stamp of the last commit; `None` where there was none.
    ///
    /// # Errors
    /// The ledger's.
    fn last_stamp(&self) -> impl Future<Output = Result<Option<Stamp>, StoreError>> + Send;

    /// Every task that is not completed, the oldest first. What a task has waited is `elapsed` less the
    /// `elapsed` of the commit that posted it.
    ///
    /// # Errors
    /// The ledger's.
    fn live_tasks(
        &self,
        elapsed: Duration,
    ) -> impl Future<Output = Result<Vec<RestoredTask>, StoreError>> + Send;

    /// What is known of an attempt of any task.
    ///
    /// # Errors
    /// The ledger's.
    fn past_attempt(
        &self,
        attempt: &AttemptId,
    ) -> impl Future<Output = Result<Option<PastAttempt>, StoreError>> + Send;

    /// The use of an idempotency key.
    ///
    /// # Errors
    /// The ledger's.
    fn idempotency_key(
        &self,
        token_id: &str,
        key: &str,
    ) -> impl Future<Output = Result<Option<IdempotencyKey>, StoreError>> + Send;

    /// Every agent that is registered, in an order that is always the same.
    ///
    /// # Errors
    /// The ledger's.
    fn agents(&self) -> impl Future<Output = Result<Vec<AgentRecord>, StoreError>> + Send;

    /// One agent, unless it was revoked.
    ///
    /// # Errors
    /// The ledger's.
    fn agent(&self, id: &str) -> impl Future<Output = Result<Option<AgentRecord>, StoreError>> + Send;

    /// Gives an agent another name; `false` where another agent has it.
    ///
    /// # Errors
    /// The ledger's.
    fn rename_agent(&self, id: &str, name: &str) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Removes tasks that are completed and were posted before `posted_before` of a stamp's `elapsed`, `limit` at
    /// the most. Says how many. A ledger may keep everything.
    ///
    /// # Errors
    /// The ledger's.
    fn prune_tasks(
        &self,
        posted_before: Duration,
        limit: u32,
    ) -> impl Future<Output = Result<u64, StoreError>> + Send {
        let _ = (posted_before, limit);
        std::future::ready(Ok(0))
    }

    /// The present time by the clock of the wall, as it goes into stamps.
    fn wall_clock(&self) -> Millis {
        wall_clock()
    }
}

impl Ledger for Store {
    async fn commit(
        &self,
        at: Stamp,
        transitions: &[Transition],
        keys: &[IdempotencyKey],
    ) -> Result<(), StoreError> {
        Store::commit(self, at, transitions, keys).await
    }

    async fn last_stamp(&self) -> Result<Option<Stamp>, StoreError> {
        Store::last_stamp(self).await
    }

    async fn live_tasks(&self, elapsed: Duration) -> Result<Vec<RestoredTask>, StoreError> {
        Store::live_tasks(self, elapsed).await
    }

    async fn prune_tasks(&self, posted_before: Duration, limit: u32) -> Result<u64, StoreError> {
        Store::prune_tasks(self, posted_before, limit).await
    }

    async fn past_attempt(&self, attempt: &AttemptId) -> Result<Option<PastAttempt>, StoreError> {
        Store::past_attempt(self, attempt).await
    }

    async fn idempotency_key(&self, token_id: &str, key: &str) -> Result<Option<IdempotencyKey>, StoreError> {
        Store::idempotency_key(self, token_id, key).await
    }

    async fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        Store::agents(self).await
    }

    async fn agent(&self, id: &str) -> Result<Option<AgentRecord>, StoreError> {
        Store::agent(self, id).await
    }

    async fn rename_agent(&self, id: &str, name: &str) -> Result<bool, StoreError> {
        Store::rename_agent(self, id, name).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Millis = 3_600_000;

    #[test]
    fn a_pause_counts_and_a_clock_that_was_set_back_does_not() {
        let last = Stamp { wall: 10 * HOUR, elapsed: Duration::from_secs(50) };
        assert_eq!(Stamp::resumed(None, HOUR), Duration::ZERO);
        assert_eq!(Stamp::resumed(Some(last), 10 * HOUR + 7000), Duration::from_secs(57));
        assert_eq!(Stamp::resumed(Some(last), 9 * HOUR), Duration::from_secs(50));
    }
}
