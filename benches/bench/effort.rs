//! How often everything is repeated.

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
    /// Clones of each kind, of each program.
    pub(crate) clones: usize,
    /// Objects of the repository that is cloned, at least.
    pub(crate) objects: usize,
    /// Starts of the daemon.
    pub(crate) starts: usize,
    /// Tasks from POST to result.
    pub(crate) tasks: usize,
}

impl Effort {
    /// Enough for figures that others may rely on.
    pub(crate) const FULL: Self = Self {
        is_for_the_record: true,
        warm_ups: 2,
        tests: 31,
        references: 50_000,
        clones: 9,
        objects: 20_000,
        starts: 21,
        tasks: 400,
    };
    /// Enough to see that the measurements work.
    pub(crate) const QUICK: Self = Self {
        is_for_the_record: false,
        warm_ups: 1,
        tests: 5,
        references: 5_000,
        clones: 2,
        objects: 2_000,
        starts: 3,
        tasks: 20,
    };
}
