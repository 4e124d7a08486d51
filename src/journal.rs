//! What must outlive the moment: results that the control plane has not acknowledged.

use std::collections::BTreeMap;

use sortie_protocol::AttemptId;
use sortie_protocol::message::AttemptResult;

/// Where results wait for their acknowledgment.
///
/// The session asks for nothing else, so that a journal on disk can take the place of the one in memory.
pub trait Journal: Send {
    /// Keeps a result. When this returns it may be sent.
    fn record(&mut self, result: AttemptResult);

    /// The result of an attempt.
    fn result(&self, attempt: &AttemptId) -> Option<&AttemptResult>;

    /// All attempts with a result, in order.
    fn unacknowledged(&self) -> Vec<AttemptId>;

    /// Drops a result that has been acknowledged.
    fn forget(&mut self, attempt: &AttemptId);
}

/// A journal that lives as long as the process.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    results: BTreeMap<AttemptId, AttemptResult>,
}

impl Journal for MemoryJournal {
    fn record(&mut self, result: AttemptResult) {
        self.results.insert(result.attempt.clone(), result);
    }

    fn result(&self, attempt: &AttemptId) -> Option<&AttemptResult> {
        self.results.get(attempt)
    }

    fn unacknowledged(&self) -> Vec<AttemptId> {
        self.results.keys().cloned().collect()
    }

    fn forget(&mut self, attempt: &AttemptId) {
        self.results.remove(attempt);
    }
}
