//! The artifact store: what agents deliver, part by part, until it expires.
//!
//! The database decides and the objects follow: a part has its row before its object is written, and counts as
//! there only once the object is durable. Whatever changes the objects of one artifact holds that artifact's lock,
//! and runs as a task of its own that the server waits for, so that a client which goes away leaves nothing half
//! done. One process serves a database, so that locks in memory are enough.

mod objects;
mod proof;
pub mod receive;
mod sweep;
mod upload;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::settings::{Limits, Times};
use crate::store::{ArtifactLimits, Store};

pub use objects::{Location, LocationError, ObjectError, Objects};
pub(crate) use sweep::sweep;

/// The artifact store. What it shares with its own tasks lies behind one reference.
#[derive(Debug, Clone)]
pub struct Artifacts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    objects: Objects,
    times: Times,
    limits: ArtifactLimits,
    part_bytes: u64,
    /// The uploads that somebody is at, with their locks.
    uploads: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Progress>>>>,
    /// Places for parts that arrive.
    arriving: Semaphore,
    /// Places for readers.
    readers: Arc<Semaphore>,
    /// Writes that go on without whoever asked for them.
    writes: TaskTracker,
}

/// How far the digest of a whole has come with the parts that were stored in their order. After a restart, or
/// where parts come out of order, the whole is read once more instead.
struct Progress {
    digest: Context,
    /// The number of the next part.
    next: u32,
}

impl Default for Progress {
    fn default() -> Self {
        Self { digest: Context::new(&SHA256), next: 1 }
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Artifacts {
    /// Puts the store together.
    pub fn new(store: Store, objects: Objects, times: &Times, limits: &Limits) -> Self {
        let largest =
            limits.artifact_part_bytes.saturating_mul(u64::from(sortie_protocol::artifact::MAX_PARTS));
        Self(Arc::new(Inner {
            store,
            objects,
            times: times.clone(),
            limits: ArtifactLimits {
                bytes: limits.artifact_bytes.min(largest),
                total_bytes: limits.artifacts_total_bytes,
                per_attempt: limits.artifacts_per_attempt,
                open_per_agent: limits.artifact_uploads_per_agent,
            },
            part_bytes: limits.artifact_part_bytes,
            uploads: Mutex::default(),
            arriving: Semaphore::new(limits.artifact_parts_at_once),
            readers: Arc::new(Semaphore::new(limits.artifact_readers)),
            writes: TaskTracker::new(),
        }))
    }

    /// Waits for the writes that go on; no request begins further ones by then.
    pub async fn finish(&self) {
        self.0.writes.close();
        self.0.writes.wait().await;
    }

    /// Places for those who read artifacts.
    pub(crate) fn readers(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.readers)
    }

    /// Reads a piece of an artifact that lies within one part.
    pub(crate) async fn read(&self, id: &str, part: u32, range: Range<u64>) -> Result<Bytes, ObjectError> {
        self.0.objects.read(id, part, range).await
    }
}

impl Inner {
    /// The lock of one artifact.
    fn upload(&self, id: &str) -> Arc<tokio::sync::Mutex<Progress>> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(uploads.entry(id.to_owned()).or_default())
    }

    /// Forgets the lock of an artifact that is complete or gone. Whoever still waits for it finds that out from the
    /// database.
    fn forget(&self, id: &str) {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}
