//! What must outlive the process: tasks, attempts, agents, tokens, and what is known of artifacts.
//!
//! [`Store`] is the whole interface. SQLite stands behind it; another database would be another variant.
//! Every write is one transaction that is on the disk when the call returns.

mod agents;
mod artifacts;
mod commit;
mod error;
mod open;
mod records;
mod tasks;
mod tokens;

pub use agents::{EnrollError, NewAgent};
pub use artifacts::{
    ArtifactError, ArtifactFilter, ArtifactLimits, ArtifactRecord, ArtifactState, NewArtifact, Uploader,
};
pub use error::{OpenError, StoreError};
pub use open::{ServeLock, Sqlite};
pub use records::{
    AgentRecord, ApiToken, AttemptRecord, EnrollmentToken, IdempotencyKey, NewApiToken, Role, TaskFilter,
    TaskRecord,
};

use std::path::PathBuf;
use std::time::Duration;

use sortie_protocol::AttemptId;
use sortie_protocol::artifact::{ArtifactCompletion, ArtifactPart};

use crate::dispatch::{PastAttempt, RestoredTask, Transition};
use crate::engine::Stamp;

/// Milliseconds since 1970 in UTC.
pub type Millis = i64;

/// The place where everything is kept. Clones share it.
#[derive(Debug, Clone)]
pub enum Store {
    /// A SQLite file.
    Sqlite(Sqlite),
}

/// Passes a call on to whatever stands behind the interface.
macro_rules! behind {
    ($self:ident . $method:ident ( $($argument:expr),* )) => {
        match $self {
            Self::Sqlite(store) => store.$method($($argument),*).await,
        }
    };
}

impl Store {
    /// Opens the database that a URL names, makes it where it is missing, and brings its tables up to date.
    ///
    /// # Errors
    /// Every way in which it cannot be used, see [`OpenError`].
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        Sqlite::open(&open::path_of(url)?).await.map(Self::Sqlite)
    }

    /// Claims the database for one serving process, for as long as the lock is kept.
    ///
    /// # Errors
    /// [`OpenError::InUse`] where another process serves it.
    pub fn claim(&self) -> Result<ServeLock, OpenError> {
        match self {
            Self::Sqlite(store) => store.claim(),
        }
    }

    /// The same database for the engine, over connections that no request can hold.
    pub fn for_engine(&self) -> Self {
        match self {
            Self::Sqlite(store) => Self::Sqlite(store.for_engine()),
        }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        behind!(self.ping())
    }

    /// Closes every connection, after what is going on.
    pub async fn close(&self) {
        behind!(self.close());
    }

    /// Makes a batch of transitions durable, all or none.
    ///
    /// # Errors
    /// The database's. What became of the batch is then to be read from the store.
    pub async fn commit(
        &self,
        at: Stamp,
        transitions: &[Transition],
        keys: &[IdempotencyKey],
    ) -> Result<(), StoreError> {
        behind!(self.commit(at, transitions, keys))
    }

    /// The stamp of the last commit of a batch; `None` where there was none.
    ///
    /// # Errors
    /// The database's.
    pub async fn last_stamp(&self) -> Result<Option<Stamp>, StoreError> {
        behind!(self.last_stamp())
    }

    /// Every task that is not completed, the oldest first. `elapsed` is what a stamp of now would have.
    ///
    /// # Errors
    /// The database's.
    pub async fn live_tasks(&self, elapsed: Duration) -> Result<Vec<RestoredTask>, StoreError> {
        behind!(self.live_tasks(elapsed))
    }

    /// Removes tasks that are completed and were posted before `posted_before` of a stamp's `elapsed`, the oldest
    /// first and `limit` at the most, with their attempts, labels and idempotency keys. Says how many.
    ///
    /// # Errors
    /// The database's.
    pub async fn prune_tasks(&self, posted_before: Duration, limit: u32) -> Result<u64, StoreError> {
        behind!(self.prune_tasks(posted_before, limit))
    }

    /// What is known of an attempt.
    ///
    /// # Errors
    /// The database's.
    pub async fn past_attempt(&self, attempt: &AttemptId) -> Result<Option<PastAttempt>, StoreError> {
        behind!(self.past_attempt(attempt))
    }

    /// One task with its attempts.
    ///
    /// # Errors
    /// The database's.
    pub async fn task(&self, id: &str) -> Result<Option<TaskRecord>, StoreError> {
        behind!(self.task(id))
    }

    /// Tasks, the newest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn tasks(&self, filter: &TaskFilter) -> Result<Vec<TaskRecord>, StoreError> {
        behind!(self.tasks(filter))
    }

    /// The use of an idempotency key: the hash of the body and the task.
    ///
    /// # Errors
    /// The database's.
    pub async fn idempotency_key(
        &self,
        token_id: &str,
        key: &str,
    ) -> Result<Option<IdempotencyKey>, StoreError> {
        behind!(self.idempotency_key(token_id, key))
    }

    /// Every agent that is registered, by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        behind!(self.agents())
    }

    /// One agent, unless it was revoked.
    ///
    /// # Errors
    /// The database's.
    pub async fn agent(&self, id: &str) -> Result<Option<AgentRecord>, StoreError> {
        behind!(self.agent(id))
    }

    /// Gives an agent another name; `false` where another agent has it.
    ///
    /// # Errors
    /// The database's.
    pub async fn rename_agent(&self, id: &str, name: &str) -> Result<bool, StoreError> {
        behind!(self.rename_agent(id, name))
    }

    /// Registers an agent's key for an enrollment token.
    ///
    /// # Errors
    /// Why the token does not allow it, or the database's.
    pub async fn enroll(&self, now: Millis, agent: &NewAgent) -> Result<AgentRecord, EnrollError> {
        behind!(self.enroll(now, agent))
    }

    /// Keeps an enrollment token.
    ///
    /// # Errors
    /// The database's.
    pub async fn add_enrollment_token(&self, now: Millis, token: &EnrollmentToken) -> Result<(), StoreError> {
        behind!(self.add_enrollment_token(now, token))
    }

    /// Keeps an API token; `false` where a live one has the name.
    ///
    /// # Errors
    /// The database's.
    pub async fn add_api_token(&self, now: Millis, token: &NewApiToken) -> Result<bool, StoreError> {
        behind!(self.add_api_token(now, token))
    }

    /// Every API token that is not revoked, by name.
    ///
    /// # Errors
    /// The database's.
    pub async fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        behind!(self.api_tokens())
    }

    /// The API token of a hash, unless it was revoked.
    ///
    /// # Errors
    /// The database's.
    pub async fn api_token(&self, hash: &[u8]) -> Result<Option<ApiToken>, StoreError> {
        behind!(self.api_token(hash))
    }

    /// Revokes the API token of a name; `false` where there is none.
    ///
    /// # Errors
    /// The database's.
    pub async fn revoke_api_token(&self, now: Millis, name: &str) -> Result<bool, StoreError> {
        behind!(self.revoke_api_token(now, name))
    }

    /// The directory for artifacts where none was named: beside the database.
    pub fn artifacts_directory(&self) -> PathBuf {
        match self {
            Self::Sqlite(store) => store.artifacts_directory(),
        }
    }

    /// Begins an upload, or finds the one that the attempt has begun under the same file name; `true` where it
    /// is new.
    ///
    /// # Errors
    /// Why it is not to be, see [`ArtifactError`].
    pub async fn begin_artifact(
        &self,
        now: Millis,
        uploader: &Uploader,
        new: &NewArtifact,
        limits: &ArtifactLimits,
    ) -> Result<(ArtifactRecord, bool), ArtifactError> {
        behind!(self.begin_artifact(now, uploader, new, limits))
    }

    /// An upload of that attempt with the parts that are durable; none where it is complete.
    ///
    /// # Errors
    /// [`ArtifactError::NotFound`], or the database's.
    pub async fn artifact_upload(
        &self,
        uploader: &Uploader,
        id: &str,
    ) -> Result<(ArtifactRecord, Vec<ArtifactPart>), ArtifactError> {
        behind!(self.artifact_upload(uploader, id))
    }

    /// Makes room for a part before its object is written; `false` where the very part is there already.
    ///
    /// # Errors
    /// Why it is not to be, see [`ArtifactError`].
    pub async fn reserve_part(
        &self,
        now: Millis,
        uploader: &Uploader,
        id: &str,
        part: &ArtifactPart,
        limits: &ArtifactLimits,
    ) -> Result<bool, ArtifactError> {
        behind!(self.reserve_part(now, uploader, id, part, limits))
    }

    /// Notes that the object of a part is durable; `false` where the upload is over.
    ///
    /// # Errors
    /// The database's.
    pub async fn part_stored(&self, id: &str, number: u32) -> Result<bool, ArtifactError> {
        behind!(self.part_stored(id, number))
    }

    /// Completes an artifact whose whole has been checked. Repeating it changes nothing.
    ///
    /// # Errors
    /// Why it is not to be, see [`ArtifactError`].
    pub async fn complete_artifact(
        &self,
        now: Millis,
        uploader: &Uploader,
        id: &str,
        whole: &ArtifactCompletion,
        expires_at: Millis,
    ) -> Result<ArtifactRecord, ArtifactError> {
        behind!(self.complete_artifact(now, uploader, id, whole, expires_at))
    }

    /// Gives an upload up: its parts are to be removed.
    ///
    /// # Errors
    /// [`ArtifactError::NotCurrent`] for one that is complete and whose attempt has ended, or the database's.
    pub async fn drop_upload(&self, uploader: &Uploader, id: &str) -> Result<(), ArtifactError> {
        behind!(self.drop_upload(uploader, id))
    }

    /// One artifact that is complete and has not expired.
    ///
    /// # Errors
    /// The database's.
    pub async fn artifact(&self, now: Millis, id: &str) -> Result<Option<ArtifactRecord>, StoreError> {
        behind!(self.artifact(now, id))
    }

    /// Artifacts that are complete and have not expired, the newest first.
    ///
    /// # Errors
    /// The database's.
    pub async fn artifacts(
        &self,
        now: Millis,
        filter: &ArtifactFilter,
    ) -> Result<Vec<ArtifactRecord>, StoreError> {
        behind!(self.artifacts(now, filter))
    }

    /// Takes an artifact away from everybody; `false` where there is none. Its parts are to be removed.
    ///
    /// # Errors
    /// The database's.
    pub async fn remove_artifact(&self, now: Millis, id: &str) -> Result<bool, StoreError> {
        behind!(self.remove_artifact(now, id))
    }

    /// Finds artifacts whose parts are to be removed: expired, dropped, abandoned since then, or of an attempt that
    /// did not succeed.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep_artifacts(
        &self,
        now: Millis,
        abandoned_before: Millis,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        behind!(self.sweep_artifacts(now, abandoned_before, limit))
    }

    /// The numbers of the parts of an artifact that is to be removed.
    ///
    /// # Errors
    /// The database's.
    pub async fn parts_to_remove(&self, id: &str) -> Result<Vec<u32>, StoreError> {
        behind!(self.parts_to_remove(id))
    }

    /// Notes that no object of an artifact is left.
    ///
    /// # Errors
    /// The database's.
    pub async fn artifact_removed(&self, id: &str) -> Result<(), StoreError> {
        behind!(self.artifact_removed(id))
    }
}
