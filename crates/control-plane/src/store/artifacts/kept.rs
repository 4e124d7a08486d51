//! Artifacts that are whole: read, listed, and removed when nobody may have them any more.

use sqlx::{QueryBuilder, Sqlite as Database};

use super::{ArtifactFilter, ArtifactRecord, ArtifactRow};
use crate::dispatch::Outcome;
use crate::store::commit::BEGIN;
use crate::store::records::word;
use crate::store::{Millis, Sqlite, StoreError};

impl Sqlite {
    pub(in crate::store) async fn artifact(
        &self,
        now: Millis,
        id: &str,
    ) -> Result<Option<ArtifactRecord>, StoreError> {
        let row: Option<ArtifactRow> =
            sqlx::query_as("SELECT * FROM artifacts WHERE id = ? AND state = 'complete' AND expires_at > ?")
                .bind(id)
                .bind(now)
                .fetch_optional(&self.readers)
                .await?;
        row.map(ArtifactRow::record).transpose()
    }

    pub(in crate::store) async fn artifacts(
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

    pub(in crate::store) async fn remove_artifact(&self, now: Millis, id: &str) -> Result<bool, StoreError> {
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
    pub(in crate::store) async fn sweep_artifacts(
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
    pub(in crate::store) async fn parts_to_remove(&self, id: &str) -> Result<Vec<u32>, StoreError> {
        let numbers = sqlx::query_scalar(
            "SELECT number FROM artifact_parts WHERE artifact_id = ? AND EXISTS \
             (SELECT 1 FROM artifacts WHERE id = artifact_id AND state = 'removing')",
        )
        .bind(id)
        .fetch_all(&self.readers)
        .await?;
        Ok(numbers)
    }

    pub(in crate::store) async fn artifact_removed(&self, id: &str) -> Result<(), StoreError> {
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
