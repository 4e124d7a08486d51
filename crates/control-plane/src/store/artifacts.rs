//! Artifacts and the parts of uploads. The bytes themselves lie elsewhere.

mod kept;
mod uploads;

use serde::{Deserialize, Serialize};
use sortie_protocol::AttemptId;
use sortie_protocol::artifact::ArtifactPart;
use sqlx::FromRow;

use super::records::from_word;
use super::{Millis, StoreError};

/// Where an artifact stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArtifactState {
    /// Parts are coming.
    Open,
    /// It is whole and can be read.
    Complete,
    /// Its parts are to be removed.
    Removing,
    /// Nothing of it is left but its row, so that a repeated request does not begin it anew.
    Removed,
}

/// Who uploads: an agent for an attempt.
#[derive(Debug, Clone)]
pub struct Uploader {
    /// The agent.
    pub agent_id: String,
    /// The attempt.
    pub attempt: AttemptId,
}

/// An upload that is to begin.
#[derive(Debug, Clone)]
pub struct NewArtifact {
    /// The identifier that it gets, unless the attempt has begun it before.
    pub id: String,
    /// The name of the file.
    pub file_name: String,
    /// Its media type.
    pub media_type: String,
    /// The size of its parts, in bytes.
    pub part_bytes: u64,
}

/// How much there may be of artifacts.
#[derive(Debug, Clone)]
pub struct ArtifactLimits {
    /// Bytes of one.
    pub bytes: u64,
    /// Bytes of all together.
    pub total_bytes: u64,
    /// Artifacts of one attempt.
    pub per_attempt: u32,
    /// Uploads that one agent may have open.
    pub open_per_agent: u32,
}

/// An artifact, complete or not.
#[derive(Debug, Clone)]
pub struct ArtifactRecord {
    /// Its place among all.
    pub seq: i64,
    /// Its identifier.
    pub id: String,
    /// The attempt that it is of.
    pub attempt: AttemptId,
    /// The agent that made it.
    pub agent_id: String,
    /// The name of the file.
    pub file_name: String,
    /// Its media type.
    pub media_type: String,
    /// Where it stands.
    pub state: ArtifactState,
    /// The size of its parts but the last, in bytes.
    pub part_bytes: u64,
    /// Its size in bytes, so far.
    pub bytes: u64,
    /// Its SHA-256 in hex, once it is complete.
    pub sha256: Option<String>,
    /// When it was completed.
    pub completed_at: Option<Millis>,
    /// When it goes, once it is complete.
    pub expires_at: Option<Millis>,
}

/// Which artifacts a list shows.
#[derive(Debug, Clone, Default)]
pub struct ArtifactFilter {
    /// Only those of this task.
    pub task_id: Option<String>,
    /// Only those before this place.
    pub before: Option<i64>,
    /// How many at most.
    pub limit: u32,
}

/// Why an upload does not go on.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The attempt is not the current one, or not this agent's.
    #[error("the attempt is not running on this agent")]
    NotCurrent,
    /// The attempt's start has not been told yet.
    #[error("the attempt has not started yet")]
    NotStarted,
    /// There is no such upload of this attempt, or it is over.
    #[error("there is no such upload")]
    NotFound,
    /// The upload was dropped before.
    #[error("the upload was dropped")]
    Dropped,
    /// The file name is taken by an upload with other settings.
    #[error("the same file was begun with another media type")]
    Differs,
    /// The attempt has as many artifacts as it may.
    #[error("an attempt may deliver {0} artifacts")]
    TooManyOfAttempt(u32),
    /// The agent has as many open uploads as it may.
    #[error("an agent may have {0} open uploads")]
    TooManyOpen(u32),
    /// Another content is there under the number.
    #[error("another content is there under this number")]
    PartDiffers,
    /// The whole is over the limit.
    #[error("an artifact may have {0} bytes")]
    TooLarge(u64),
    /// All artifacts together are over the limit.
    #[error("all artifacts together may have {0} bytes")]
    Full(u64),
    /// It is complete already, with another content.
    #[error("the artifact is complete, with another content")]
    Completed,
    /// The parts that are there are not those that were told.
    #[error("the parts that are there are not those that were told")]
    Incomplete,
    /// The database's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for ArtifactError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

#[derive(FromRow)]
struct ArtifactRow {
    seq: i64,
    id: String,
    task_id: String,
    attempt: u32,
    agent_id: String,
    file_name: String,
    media_type: String,
    state: String,
    part_bytes: i64,
    bytes: i64,
    sha256: Option<String>,
    completed_at: Option<Millis>,
    expires_at: Option<Millis>,
}

#[derive(FromRow)]
struct PartRow {
    number: u32,
    bytes: i64,
    sha256: String,
    stored: bool,
}

impl ArtifactRow {
    fn record(self) -> Result<ArtifactRecord, StoreError> {
        Ok(ArtifactRecord {
            seq: self.seq,
            id: self.id,
            attempt: AttemptId { task_id: self.task_id, attempt: self.attempt },
            agent_id: self.agent_id,
            file_name: self.file_name,
            media_type: self.media_type,
            state: from_word("state", self.state)?,
            part_bytes: unsigned(self.part_bytes),
            bytes: unsigned(self.bytes),
            sha256: self.sha256,
            completed_at: self.completed_at,
            expires_at: self.expires_at,
        })
    }
}

impl From<PartRow> for ArtifactPart {
    fn from(row: PartRow) -> Self {
        Self { number: row.number, bytes: unsigned(row.bytes), sha256: row.sha256 }
    }
}

/// SQLite has signed integers alone; what is kept is never below zero.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
