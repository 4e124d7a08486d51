//! Artifacts and the parts of uploads. The bytes themselves lie elsewhere.

use serde::{Deserialize, Serialize};
use sortie_protocol::AttemptId;
use sortie_protocol::artifact::{ArtifactCompletion, ArtifactPart};
use sqlx::{FromRow, QueryBuilder, Sqlite as Database, Transaction};

use super::commit::BEGIN;
use super::records::{from_word, word};
use super::{Millis, Sqlite, StoreError};
use crate::dispatch::{Outcome, TaskState};

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

type Tx = Transaction<'static, Database>;

/// Whether the attempt is the current one and runs on that very agent. An attempt that has not ended is the last
/// one of its task: the next is not offered before.
async fn check_current(tx: &mut Tx, uploader: &Uploader) -> Result<(), ArtifactError> {
    let row: Option<(String, bool, bool, String)> = sqlx::query_as(
        "SELECT a.agent_id, a.started_at IS NOT NULL, a.ended_at IS NOT NULL, t.state \
         FROM attempts a JOIN tasks t ON t.id = a.task_id WHERE a.task_id = ? AND a.number = ?",
    )
    .bind(&uploader.attempt.task_id)
    .bind(uploader.attempt.attempt)
    .fetch_optional(&mut **tx)
    .await?;
    match row {
        Some((agent, started, false, state)) if agent == uploader.agent_id => {
            if state == word(&TaskState::Running) {
                Ok(())
            } else if started {
                // The task is being cancelled.
                Err(ArtifactError::NotCurrent)
            } else {
                Err(ArtifactError::NotStarted)
            }
        }
        _ => Err(ArtifactError::NotCurrent),
    }
}

/// The upload of that attempt; one of another's is as good as none.
async fn own(tx: &mut Tx, uploader: &Uploader, id: &str) -> Result<ArtifactRecord, ArtifactError> {
    let row: Option<ArtifactRow> = sqlx::query_as(
        "SELECT * FROM artifacts WHERE id = ? AND task_id = ? AND attempt = ? AND agent_id = ?",
    )
    .bind(id)
    .bind(&uploader.attempt.task_id)
    .bind(uploader.attempt.attempt)
    .bind(&uploader.agent_id)
    .fetch_optional(&mut **tx)
    .await?;
    Ok(row.ok_or(ArtifactError::NotFound)?.record()?)
}

async fn parts(tx: &mut Tx, id: &str) -> Result<Vec<PartRow>, ArtifactError> {
    let rows = sqlx::query_as("SELECT * FROM artifact_parts WHERE artifact_id = ? ORDER BY number")
        .bind(id)
        .fetch_all(&mut **tx)
        .await?;
    Ok(rows)
}

async fn count(tx: &mut Tx, query: &'static str, key: (&str, Option<u32>)) -> Result<i64, ArtifactError> {
    let mut query = sqlx::query_scalar(query).bind(key.0.to_owned());
    if let Some(number) = key.1 {
        query = query.bind(number);
    }
    Ok(query.fetch_one(&mut **tx).await?)
}

impl Sqlite {
    pub(super) async fn begin_artifact(
        &self,
        now: Millis,
        uploader: &Uploader,
        new: &NewArtifact,
        limits: &ArtifactLimits,
    ) -> Result<(ArtifactRecord, bool), ArtifactError> {
        let _turn = self.turn().await?;
        let mut tx = self.writer.begin_with(BEGIN).await?;
        check_current(&mut tx, uploader).await?;
        let AttemptId { task_id, attempt } = &uploader.attempt;
        let known: Option<ArtifactRow> =
            sqlx::query_as("SELECT * FROM artifacts WHERE task_id = ? AND attempt = ? AND file_name = ?")
                .bind(task_id)
                .bind(attempt)
                .bind(&new.file_name)
                .fetch_optional(&mut *tx)
                .await?;
        if let Some(known) = known {
            let known = known.record()?;
            return match known.state {
                ArtifactState::Removing | ArtifactState::Removed => Err(ArtifactError::Dropped),
                _ if known.media_type != new.media_type => Err(ArtifactError::Differs),
                ArtifactState::Open | ArtifactState::Complete => Ok((known, false)),
            };
        }
        let of_attempt = "SELECT COUNT(*) FROM artifacts WHERE task_id = ? AND attempt = ?";
        if count(&mut tx, of_attempt, (task_id, Some(*attempt))).await? >= i64::from(limits.per_attempt) {
            return Err(ArtifactError::TooManyOfAttempt(limits.per_attempt));
        }
        let open = "SELECT COUNT(*) FROM artifacts WHERE agent_id = ? AND state = 'open'";
        if count(&mut tx, open, (&uploader.agent_id, None)).await? >= i64::from(limits.open_per_agent) {
            return Err(ArtifactError::TooManyOpen(limits.open_per_agent));
        }
        sqlx::query(
            "INSERT INTO artifacts (id, task_id, attempt, agent_id, file_name, media_type, state, part_bytes, \
             created_at, touched_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&new.id)
        .bind(task_id)
        .bind(attempt)
        .bind(&uploader.agent_id)
        .bind(&new.file_name)
        .bind(&new.media_type)
        .bind(word(&ArtifactState::Open))
        .bind(signed(new.part_bytes))
        .bind(now)
        .bind(now)
        .execute(&mut *tx)
        .await?;
        let record = own(&mut tx, uploader, &new.id).await?;
        tx.commit().await?;
        Ok((record, true))
    }

    pub(super) async fn artifact_upload(
        &self,
        uploader: &Uploader,
        id: &str,
    ) -> Result<(ArtifactRecord, Vec<ArtifactPart>), ArtifactError> {
        let mut tx = self.readers.begin().await?;
        let record = own(&mut tx, uploader, id).await?;
        let parts = parts(&mut tx, id).await?.into_iter().filter(|part| part.stored);
        match record.state {
            ArtifactState::Open => Ok((record, parts.map(ArtifactPart::from).collect())),
            ArtifactState::Complete => Ok((record, Vec::new())),
            ArtifactState::Removing | ArtifactState::Removed => Err(ArtifactError::NotFound),
        }
    }

    pub(super) async fn reserve_part(
        &self,
        now: Millis,
        uploader: &Uploader,
        id: &str,
        part: &ArtifactPart,
        limits: &ArtifactLimits,
    ) -> Result<bool, ArtifactError> {
        let _turn = self.turn().await?;
        let mut tx = self.writer.begin_with(BEGIN).await?;
        check_current(&mut tx, uploader).await?;
        let record = own(&mut tx, uploader, id).await?;
        if matches!(record.state, ArtifactState::Removing | ArtifactState::Removed) {
            return Err(ArtifactError::NotFound);
        }
        let known: Option<PartRow> =
            sqlx::query_as("SELECT * FROM artifact_parts WHERE artifact_id = ? AND number = ?")
                .bind(id)
                .bind(part.number)
                .fetch_optional(&mut *tx)
                .await?;
        let replaced = match known {
            Some(known) if known.stored => {
                let is_same = known.sha256 == part.sha256 && unsigned(known.bytes) == part.bytes;
                return if is_same { Ok(false) } else { Err(ArtifactError::PartDiffers) };
            }
            Some(known) => unsigned(known.bytes),
            None => 0,
        };
        if record.state == ArtifactState::Complete {
            return Err(ArtifactError::Completed);
        }
        let total: i64 =
            sqlx::query_scalar("SELECT COALESCE(SUM(bytes), 0) FROM artifacts").fetch_one(&mut *tx).await?;
        if record.bytes - replaced + part.bytes > limits.bytes {
            return Err(ArtifactError::TooLarge(limits.bytes));
        }
        if unsigned(total) - replaced + part.bytes > limits.total_bytes {
            return Err(ArtifactError::Full(limits.total_bytes));
        }
        sqlx::query(
            "INSERT INTO artifact_parts (artifact_id, number, bytes, sha256) VALUES (?, ?, ?, ?) \
             ON CONFLICT (artifact_id, number) DO UPDATE SET bytes = excluded.bytes, sha256 = excluded.sha256",
        )
        .bind(id)
        .bind(part.number)
        .bind(signed(part.bytes))
        .bind(&part.sha256)
        .execute(&mut *tx)
        .await?;
        sqlx::query("UPDATE artifacts SET bytes = ?, touched_at = ? WHERE id = ?")
            .bind(signed(record.bytes - replaced + part.bytes))
            .bind(now)
            .bind(id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    pub(super) async fn part_stored(&self, id: &str, number: u32) -> Result<bool, ArtifactError> {
        let _turn = self.turn().await?;
        let done = sqlx::query(
            "UPDATE artifact_parts SET stored = TRUE WHERE artifact_id = ? AND number = ? \
             AND EXISTS (SELECT 1 FROM artifacts WHERE id = artifact_id AND state = 'open')",
        )
        .bind(id)
        .bind(number)
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    pub(super) async fn complete_artifact(
        &self,
        now: Millis,
        uploader: &Uploader,
        id: &str,
        whole: &ArtifactCompletion,
        expires_at: Millis,
    ) -> Result<ArtifactRecord, ArtifactError> {
        let _turn = self.turn().await?;
        let mut tx = self.writer.begin_with(BEGIN).await?;
        let record = own(&mut tx, uploader, id).await?;
        check_whole(&record, &parts(&mut tx, id).await?, whole)?;
        if record.state == ArtifactState::Complete {
            return Ok(record);
        }
        check_current(&mut tx, uploader).await?;
        sqlx::query(
            "UPDATE artifacts SET state = ?, sha256 = ?, completed_at = ?, expires_at = ? WHERE id = ?",
        )
        .bind(word(&ArtifactState::Complete))
        .bind(&whole.sha256)
        .bind(now)
        .bind(expires_at)
        .bind(id)
        .execute(&mut *tx)
        .await?;
        let record = own(&mut tx, uploader, id).await?;
        tx.commit().await?;
        Ok(record)
    }

    /// Gives an upload up. One that is complete stays once its attempt has ended: its result names it.
    pub(super) async fn drop_upload(&self, uploader: &Uploader, id: &str) -> Result<(), ArtifactError> {
        let _turn = self.turn().await?;
        let mut tx = self.writer.begin_with(BEGIN).await?;
        let record = own(&mut tx, uploader, id).await?;
        match record.state {
            ArtifactState::Removing | ArtifactState::Removed => return Ok(()),
            ArtifactState::Open => {}
            ArtifactState::Complete => {
                let running =
                    "SELECT COUNT(*) FROM attempts WHERE task_id = ? AND number = ? AND ended_at IS NULL";
                let attempt = &uploader.attempt;
                if count(&mut tx, running, (&attempt.task_id, Some(attempt.attempt))).await? == 0 {
                    return Err(ArtifactError::NotCurrent);
                }
            }
        }
        sqlx::query("UPDATE artifacts SET state = 'removing' WHERE id = ?")
            .bind(id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }

    pub(super) async fn artifact(&self, now: Millis, id: &str) -> Result<Option<ArtifactRecord>, StoreError> {
        let row: Option<ArtifactRow> =
            sqlx::query_as("SELECT * FROM artifacts WHERE id = ? AND state = 'complete' AND expires_at > ?")
                .bind(id)
                .bind(now)
                .fetch_optional(&self.readers)
                .await?;
        row.map(ArtifactRow::record).transpose()
    }

    pub(super) async fn artifacts(
        &self,
        now: Millis,
        filter: &ArtifactFilter,
    ) -> Result<Vec<ArtifactRecord>, StoreError> {
        let mut query = QueryBuilder::<Database>::new(
            "SELECT * FROM artifacts WHERE state = 'complete' AND expires_at > ",
        );
        query.push_bind(now);
        if let Some(task) = filter.task_id.clone() {
            query.push(" AND task_id = ").push_bind(task);
        }
        if let Some(before) = filter.before {
            query.push(" AND seq < ").push_bind(before);
        }
        query.push(" ORDER BY seq DESC LIMIT ").push_bind(filter.limit);
        let rows: Vec<ArtifactRow> = query.build_query_as().fetch_all(&self.readers).await?;
        rows.into_iter().map(ArtifactRow::record).collect()
    }

    pub(super) async fn remove_artifact(&self, now: Millis, id: &str) -> Result<bool, StoreError> {
        let _turn = self.turn().await?;
        let done = sqlx::query(
            "UPDATE artifacts SET state = 'removing' WHERE id = ? AND state = 'complete' AND expires_at > ?",
        )
        .bind(id)
        .bind(now)
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Marks what nobody may have any more, forgets what needs no row, and lists what is to be removed.
    pub(super) async fn sweep_artifacts(
        &self,
        now: Millis,
        abandoned_before: Millis,
        limit: u32,
    ) -> Result<Vec<String>, StoreError> {
        let _turn = self.turn().await?;
        let mut tx = self.writer.begin_with(BEGIN).await?;
        // What a failed or lost attempt delivered is named by no result.
        sqlx::query(
            "UPDATE artifacts SET state = 'removing' WHERE state = 'complete' AND (expires_at <= ? OR EXISTS \
             (SELECT 1 FROM attempts a WHERE a.task_id = artifacts.task_id AND a.number = artifacts.attempt \
             AND a.ended_at IS NOT NULL AND a.outcome <> ?))",
        )
        .bind(now)
        .bind(word(&Outcome::Succeeded))
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "UPDATE artifacts SET state = 'removing' WHERE state = 'open' AND (touched_at <= ? OR NOT EXISTS \
             (SELECT 1 FROM attempts a WHERE a.task_id = artifacts.task_id AND a.number = artifacts.attempt \
             AND a.ended_at IS NULL))",
        )
        .bind(abandoned_before)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "DELETE FROM artifacts WHERE state = 'removed' AND NOT EXISTS \
             (SELECT 1 FROM attempts a WHERE a.task_id = artifacts.task_id AND a.number = artifacts.attempt \
             AND a.ended_at IS NULL)",
        )
        .execute(&mut *tx)
        .await?;
        let found =
            sqlx::query_scalar("SELECT id FROM artifacts WHERE state = 'removing' ORDER BY seq LIMIT ?")
                .bind(limit)
                .fetch_all(&mut *tx)
                .await?;
        tx.commit().await?;
        Ok(found)
    }

    /// The numbers of all parts that may have an object, where the artifact is to be removed.
    pub(super) async fn parts_to_remove(&self, id: &str) -> Result<Vec<u32>, StoreError> {
        let numbers = sqlx::query_scalar(
            "SELECT number FROM artifact_parts WHERE artifact_id = ? AND EXISTS \
             (SELECT 1 FROM artifacts WHERE id = artifact_id AND state = 'removing')",
        )
        .bind(id)
        .fetch_all(&self.readers)
        .await?;
        Ok(numbers)
    }

    pub(super) async fn artifact_removed(&self, id: &str) -> Result<(), StoreError> {
        let _turn = self.turn().await?;
        let mut tx = self.writer.begin_with(BEGIN).await?;
        sqlx::query("DELETE FROM artifact_parts WHERE artifact_id = ?").bind(id).execute(&mut *tx).await?;
        sqlx::query("UPDATE artifacts SET state = 'removed', bytes = 0 WHERE id = ? AND state = 'removing'")
            .bind(id)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Whether exactly the parts that were told are there, each full but the last.
fn check_whole(
    record: &ArtifactRecord,
    parts: &[PartRow],
    whole: &ArtifactCompletion,
) -> Result<(), ArtifactError> {
    match record.state {
        ArtifactState::Open => {}
        ArtifactState::Complete if record.sha256.as_deref() != Some(whole.sha256.as_str()) => {
            return Err(ArtifactError::Completed);
        }
        ArtifactState::Complete => {}
        ArtifactState::Removing | ArtifactState::Removed => return Err(ArtifactError::NotFound),
    }
    let is_in_order = parts.iter().zip(1_u32..).all(|(part, number)| part.number == number && part.stored);
    let is_full = parts.iter().rev().skip(1).all(|part| unsigned(part.bytes) == record.part_bytes);
    let bytes: u64 = parts.iter().map(|part| unsigned(part.bytes)).sum();
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    if is_in_order && is_full && count == whole.parts && bytes == whole.bytes {
        Ok(())
    } else {
        Err(ArtifactError::Incomplete)
    }
}
