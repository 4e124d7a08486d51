//! An agent's disk: where its journal is kept. What was written with a sync survives the loss of power, and the rest
//! survives the death of the process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sortie::journal::{Change, Durability, Kept, MAX_PAST_ATTEMPTS, Store, StoreError};
use tokio::time::sleep;

use crate::chaos::{Chaos, Process};

/// How long a write takes at the most.
const SLOWEST_WRITE: Duration = Duration::from_millis(20);

/// A disk. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What the files say.
    written: Kept,
    /// What they would say after a loss of power.
    synced: Kept,
}

impl Disk {
    /// Whether nothing waits there any more: no attempt runs, and no result is to be delivered.
    pub fn is_settled(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.written.began.is_empty() && state.written.ended.is_empty()
    }

    /// What a process finds when it starts after another one.
    pub fn read(&self, after_power_loss: bool) -> Kept {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if after_power_loss {
            state.written = state.synced.clone();
        }
        state.written.clone()
    }
}

/// A journal's store on a disk.
pub struct DiskStore {
    /// The disk.
    pub disk: Disk,
    /// The chance of the run.
    pub chaos: Chaos,
    /// Whose store it is.
    pub process: Process,
}

impl Store for DiskStore {
    async fn keep(&mut self, changes: Vec<Change>, durability: Durability) -> Result<(), StoreError> {
        self.process.step().await;
        sleep(self.chaos.duration(SLOWEST_WRITE)).await;
        let failure = self.chaos.weather().store;
        if self.chaos.strikes(failure) {
            return Err(StoreError::Full);
        }
        {
            let mut state = self.disk.0.lock().unwrap_or_else(PoisonError::into_inner);
            for change in changes {
                apply(&mut state.written, change);
            }
            if durability == Durability::Disk {
                state.synced = state.written.clone();
            }
        }
        self.process.step().await;
        // It was written, and nobody heard of it.
        if self.chaos.strikes(failure) { Err(StoreError::Failed("simulated")) } else { Ok(()) }
    }
}

fn apply(kept: &mut Kept, change: Change) {
    let attempt = match &change {
        Change::Began(attempt) | Change::Over(attempt) => attempt,
        Change::Ended(result) => &result.attempt,
    };
    kept.began.retain(|began| began != attempt);
    kept.ended.retain(|result| result.attempt != *attempt);
    kept.over.retain(|over| over != attempt);
    match change {
        Change::Began(attempt) => kept.began.push(attempt),
        Change::Ended(result) => kept.ended.push(*result),
        Change::Over(attempt) => kept.over.push(attempt),
    }
    let too_many = kept.over.len().saturating_sub(MAX_PAST_ATTEMPTS);
    kept.over.drain(..too_many);
}
