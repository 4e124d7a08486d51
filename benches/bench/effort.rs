//! How often everything is repeated.

use std::time::Duration;

/// Numbers of repetitions.
pub(crate) struct Effort {
    /// Whether what comes out is worth keeping.
    pub(crate) is_for_the_record: bool,
    /// Runs before the measured ones, of each program.
    pub(crate) warm_ups: usize,
    /// Connection tests, of each program.
    pub(crate) tests: usize,
    /// References of the repository with many.
    pub(crate) references: usize,
    /// Repositories of three sizes, smallest first; most cases take the one in the middle.
    pub(crate) sizes: [Growing; 3],
    /// Clones of each kind, of each program.
    pub(crate) clones: usize,
    /// Clones of the kinds that take a moment only, of each program.
    pub(crate) quick_clones: usize,
    /// Times that several clones are started at once, of each program.
    pub(crate) crowds: usize,
    /// Commits that a mirror lacks.
    pub(crate) behind: usize,
    /// Archives, of each program.
    pub(crate) archives: usize,
    /// Starts of the daemon.
    pub(crate) starts: usize,
    /// Tasks from POST to result.
    pub(crate) tasks: usize,
    /// Agents that are killed at a connection test.
    pub(crate) failovers: usize,
    /// Agents that are killed at a clone, each of which takes more than a minute.
    pub(crate) clone_failovers: usize,
    /// For how long tasks are counted that go through many agents.
    pub(crate) throughput_seconds: u64,
    /// Agents that lose their control plane together.
    pub(crate) herd: usize,
}

/// A repository of one size.
pub(crate) struct Growing {
    /// Its objects, at least.
    pub(crate) objects: usize,
    /// Full clones of it, of each program.
    pub(crate) clones: usize,
}

impl Growing {
    const fn new(objects: usize, clones: usize) -> Self {
        Self { objects, clones }
    }
}

impl Effort {
    /// `throughput_seconds` as a duration.
    pub(crate) fn throughput(&self) -> Duration {
        Duration::from_secs(self.throughput_seconds)
    }

    /// Enough for figures that others may rely on.
    pub(crate) const FULL: Self = Self {
        is_for_the_record: true,
        warm_ups: 2,
        tests: 31,
        references: 50_000,
        sizes: [Growing::new(20_000, 7), Growing::new(150_000, 3), Growing::new(500_000, 3)],
        clones: 3,
        quick_clones: 9,
        crowds: 2,
        behind: 200,
        archives: 9,
        starts: 21,
        tasks: 400,
        failovers: 5,
        clone_failovers: 2,
        throughput_seconds: 10,
        herd: 1000,
    };
    /// Enough to see that the measurements work.
    pub(crate) const QUICK: Self = Self {
        is_for_the_record: false,
        warm_ups: 1,
        tests: 5,
        references: 5_000,
        sizes: [Growing::new(2_000, 1), Growing::new(5_000, 1), Growing::new(10_000, 1)],
        clones: 2,
        quick_clones: 2,
        crowds: 1,
        behind: 20,
        archives: 2,
        starts: 3,
        tasks: 20,
        failovers: 1,
        clone_failovers: 0,
        throughput_seconds: 2,
        herd: 100,
    };
}
