//! Counts what a library does, where others can read it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prodash::messages::MessageLevel;
use prodash::progress::{Id, Step, UNKNOWN};
use prodash::{Count, NestedProgress, Progress, Unit};

/// A counter for one of the things that a library counts; the others go nowhere.
pub(super) struct Meter {
    count: Arc<AtomicUsize>,
}

impl Meter {
    /// Counts right here.
    pub(super) fn counting(count: &Arc<AtomicUsize>) -> Self {
        Self { count: Arc::clone(count) }
    }
}

impl Count for Meter {
    fn set(&self, step: Step) {
        self.count.store(step, Ordering::Relaxed);
    }

    fn step(&self) -> Step {
        self.count.load(Ordering::Relaxed)
    }

    fn inc_by(&self, step: Step) {
        self.count.fetch_add(step, Ordering::Relaxed);
    }

    fn counter(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.count)
    }
}

impl Progress for Meter {
    fn init(&mut self, _max: Option<Step>, _unit: Option<Unit>) {}

    fn set_name(&mut self, _name: String) {}

    fn name(&self) -> Option<String> {
        None
    }

    fn id(&self) -> Id {
        UNKNOWN
    }

    fn message(&self, _level: MessageLevel, _message: String) {}
}

impl NestedProgress for Meter {
    type SubProgress = Self;

    fn add_child(&mut self, _name: impl Into<String>) -> Self {
        Self { count: Arc::default() }
    }

    fn add_child_with_id(&mut self, name: impl Into<String>, _id: Id) -> Self {
        self.add_child(name)
    }
}
