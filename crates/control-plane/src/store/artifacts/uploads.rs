//! Uploads of attempts that run, from their beginning to a whole artifact or to their end.

use sortie_protocol::AttemptId;
use sortie_protocol::artifact::{ArtifactCompletion, ArtifactPart};
use sqlx::{Sqlite as Database, Transaction};

use super::{
    ArtifactError, ArtifactLimits, ArtifactRecord, ArtifactRow, ArtifactState, NewArtifact, PartRow,
    Uploader, signed, unsigned,
};
use crate::dispatch::TaskState;
use crate::store::commit::BEGIN;
use crate::store::records::word;
use crate::store::{Millis, Sqlite};

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
    pub(in crate::store) async fn begin_artifact(
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

    pub(in crate::store) async fn artifact_upload(
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

    pub(in crate::store) async fn reserve_part(
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

    pub(in crate::store) async fn part_stored(&self, id: &str, number: u32) -> Result<bool, ArtifactError> {
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

    pub(in crate::store) async fn complete_artifact(
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
    pub(in crate::store) async fn drop_upload(
        &self,
        uploader: &Uploader,
        id: &str,
    ) -> Result<(), ArtifactError> {
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
