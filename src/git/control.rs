//! What holds for one piece of work: deadline, cancel, limits, and the counters that others read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Error, Limit};

/// Under what conditions git's work is done. Cloning it shares the token and the counters.
#[derive(Clone)]
pub struct Control {
    /// When the time for the work is over.
    pub deadline: Instant,
    /// Ends the work early.
    pub cancel: CancellationToken,
    /// What has come so far.
    pub transfer: Arc<Transfer>,
    /// How much may come.
    pub limits: Limits,
}

impl Control {
    /// Work without limits of its own that must be done by `deadline`.
    pub fn new(deadline: Instant, cancel: CancellationToken) -> Self {
        Self { deadline, cancel, transfer: Arc::default(), limits: Limits::default() }
    }

    /// Why the work must stop now, if it must.
    ///
    /// # Errors
    /// [`Error::Cancelled`] or [`Error::DeadlineExceeded`].
    pub fn check(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(Error::DeadlineExceeded);
        }
        Ok(())
    }

    /// The time that is left, never nothing, because to libssh2 nothing means for ever.
    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }
}

/// How much a repository may bring. Everything is counted before it is stored or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes received, references included.
    pub max_bytes: u64,
    /// Objects in the pack.
    pub max_objects: u64,
    /// Files in the working directory.
    pub max_files: u64,
    /// Bytes of one file.
    pub max_blob_bytes: u64,
    /// Bytes of all files in the working directory together.
    pub max_expanded_bytes: u64,
    /// Bytes of one path.
    pub max_path_bytes: u64,
    /// Directories above one file.
    pub max_path_depth: u64,
    /// References that the server lists.
    pub max_references: u64,
    /// Bytes of all objects of Git LFS, each counted once; one of them has at most `max_blob_bytes`.
    pub max_lfs_bytes: u64,
}

impl Limits {
    /// What holds for the sum over all repositories of one clone, where `what` is such a sum.
    pub(crate) fn of_the_whole(&self, what: Limit) -> Option<u64> {
        match what {
            Limit::Objects => Some(self.max_objects),
            Limit::Files => Some(self.max_files),
            Limit::ExpandedBytes => Some(self.max_expanded_bytes),
            Limit::LfsBytes => Some(self.max_lfs_bytes),
            Limit::Bytes
            | Limit::BlobBytes
            | Limit::PathBytes
            | Limit::PathDepth
            | Limit::References
            | Limit::AnswerBytes
            | Limit::LfsObjects
            | Limit::ArchiveBytes
            | Limit::BundleBytes
            | Limit::TreeBytes
            | Limit::DeltaBytes
            | Limit::DeltaDepth
            | Limit::Submodules
            | Limit::SubmoduleDepth => None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        const GIB: u64 = 1024 * 1024 * 1024;
        Self {
            max_bytes: 20 * GIB,
            max_objects: 50_000_000,
            max_files: 2_000_000,
            max_blob_bytes: GIB / 2,
            max_expanded_bytes: 100 * GIB,
            max_path_bytes: 4096,
            max_path_depth: 128,
            max_references: 1_000_000,
            max_lfs_bytes: 20 * GIB,
        }
    }
}

/// What the work is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing has come yet.
    Connecting,
    /// The pack is on its way.
    Receiving,
    /// The pack is being indexed.
    Indexing,
    /// Files are being written.
    CheckingOut,
}

/// What has come so far; written by the work, read by whoever shows progress.
#[derive(Debug, Default)]
pub struct Transfer {
    received_bytes: AtomicU64,
    received_objects: AtomicU64,
    total_objects: AtomicU64,
    indexed_objects: Arc<AtomicUsize>,
    written_files: Arc<AtomicUsize>,
    total_files: AtomicU64,
    phase: AtomicU8,
    lfs_bytes: AtomicU64,
    total_lfs_bytes: AtomicU64,
}

impl Transfer {
    /// Bytes received.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Objects received.
    pub fn received_objects(&self) -> u64 {
        self.received_objects.load(Ordering::Relaxed)
    }

    /// Objects that will come; 0 while it is not known.
    pub fn total_objects(&self) -> u64 {
        self.total_objects.load(Ordering::Relaxed)
    }

    /// Objects whose names are known.
    pub fn indexed_objects(&self) -> u64 {
        self.indexed_objects.load(Ordering::Relaxed) as u64
    }

    /// Files written.
    pub fn written_files(&self) -> u64 {
        self.written_files.load(Ordering::Relaxed) as u64
    }

    /// Files that will be written; 0 while it is not known.
    pub fn total_files(&self) -> u64 {
        self.total_files.load(Ordering::Relaxed)
    }

    /// Bytes of objects of Git LFS that were received; they are not among [`Self::received_bytes`].
    pub fn lfs_bytes(&self) -> u64 {
        self.lfs_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of objects of Git LFS that will come; 0 while it is not known.
    pub fn total_lfs_bytes(&self) -> u64 {
        self.total_lfs_bytes.load(Ordering::Relaxed)
    }

    /// What the work is at.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Connecting,
            1 => Phase::Receiving,
            2 => Phase::Indexing,
            _ => Phase::CheckingOut,
        }
    }

    /// Counts bytes and returns the sum.
    pub(crate) fn add_bytes(&self, count: usize) -> u64 {
        let count = count as u64;
        self.received_bytes.fetch_add(count, Ordering::Relaxed) + count
    }

    /// Begins to count for another repository of the same work; bytes are those of all.
    pub(crate) fn begin_another(&self) {
        self.set_objects(0, 0);
        self.indexed_objects.store(0, Ordering::Relaxed);
        self.written_files.store(0, Ordering::Relaxed);
        self.set_total_files(0);
    }

    pub(crate) fn set_objects(&self, received: usize, total: usize) {
        self.received_objects.store(received as u64, Ordering::Relaxed);
        self.total_objects.store(total as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_object(&self) {
        self.received_objects.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_total_files(&self, total: u64) {
        self.total_files.store(total, Ordering::Relaxed);
    }

    /// Where objects whose names are known are counted.
    pub(crate) fn indexed(&self) -> &Arc<AtomicUsize> {
        &self.indexed_objects
    }

    /// Where files that are written are counted.
    pub(crate) fn written(&self) -> &Arc<AtomicUsize> {
        &self.written_files
    }

    pub(crate) fn add_lfs_bytes(&self, count: u64) {
        self.lfs_bytes.fetch_add(count, Ordering::Relaxed);
    }

    /// Adds to what will come: a clone with submodules has several repositories with objects.
    pub(crate) fn add_total_lfs_bytes(&self, count: u64) {
        self.total_lfs_bytes.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }
}
