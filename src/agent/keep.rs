//! What the loop keeps on the disk before it goes on, and what it does while that fails.

use std::collections::VecDeque;
use std::time::Duration;

use sortie_protocol::message::{Offer, Reject, RejectReason};
use tokio::time::Instant;

use super::Agent;
use crate::journal::{Durability, Store, StoreError};
use crate::runner::Work;
use crate::session::{Effects, Event};

/// How long until a journal that could not be written is tried again.
const STORE_RETRY: Duration = Duration::from_secs(5);

impl<S: Store, W: Work> Agent<S, W> {
    /// Decides about an offer: the journal first, because nothing is done twice, then the runner. What is taken is
    /// kept before anybody hears of it.
    pub(super) async fn consider(
        &mut self,
        offer: &Offer,
        events: &mut VecDeque<Event>,
    ) -> Result<Effects, Box<Reject>> {
        let attempt = &offer.attempt;
        let reject = |reason| {
            let attempt = attempt.clone();
            Box::new(Reject { attempt, retryable: true, reason, diagnosis: None, result: None })
        };
        if self.journal.has_taken(attempt) {
            tracing::warn!(%attempt, "an attempt was offered again that was taken before");
            return Err(reject(RejectReason::Duplicate));
        }
        let effects = self.runner.admit(offer)?;
        let durability = match effects {
            // An attempt that is not listed after a power failure is one that was lost, which is what it is.
            Effects::None => Durability::Process,
            Effects::Some => Durability::Disk,
        };
        let kept = self.journal.begin(attempt, durability).await;
        if kept.is_err() {
            self.runner.dismiss(attempt);
        }
        let is_kept = kept.is_ok();
        events.extend(self.stored(kept));
        if is_kept { Ok(effects) } else { Err(reject(RejectReason::Busy)) }
    }

    /// Takes note of whether the journal could be written, and tells the session where that has changed.
    pub(super) fn stored(&mut self, kept: Result<(), StoreError>) -> Option<Event> {
        let did_work = self.store_retry.is_none();
        let works = kept.is_ok();
        self.store_retry = (!works).then(|| Instant::now() + STORE_RETRY);
        match kept {
            Err(error) if did_work => {
                tracing::error!(%error, "no new tasks are taken until the journal can be written");
                self.board.trouble(&error.to_string());
            }
            Ok(()) if !did_work => tracing::info!("the journal can be written again"),
            _ => {}
        }
        (did_work != works).then_some(Event::Journal { works })
    }

    pub(super) async fn retry_store(&mut self) {
        if self.store_retry.is_some_and(|at| Instant::now() >= at) {
            let kept = self.journal.catch_up().await;
            if let Some(event) = self.stored(kept) {
                self.feed(event).await;
            }
        }
    }
}
