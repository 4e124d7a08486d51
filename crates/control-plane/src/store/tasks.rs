//! Reading tasks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sortie_protocol::AttemptId;
use sqlx::FromRow;

use super::records::{from_text, from_word, word};
use super::{AttemptRecord, IdempotencyKey, Millis, Sqlite, StoreError, TaskFilter, TaskRecord};
use crate::dispatch::{PastAttempt, Posted, RestoredAttempt, RestoredTask};

#[derive(FromRow)]
struct TaskRow {
    seq: i64,
    id: String,
    spec: String,
    state: String,
    outcome: Option<String>,
    reason: Option<String>,
    cancel_reason: Option<String>,
    result: Option<String>,
    created_at: Millis,
    completed_at: Option<Millis>,
}

#[derive(FromRow)]
struct AttemptRow {
    task_id: String,
    number: u32,
    agent_id: String,
    agent_name: String,
    offered_at: Millis,
    started_at: Option<Millis>,
    ended_at: Option<Millis>,
    outcome: Option<String>,
    diagnosis: Option<String>,
    reason: Option<String>,
    by_result: bool,
    counted: bool,
}

impl Sqlite {
    pub(super) async fn task(&self, id: &str) -> Result<Option<TaskRecord>, StoreError> {
        let row: Option<TaskRow> =
            sqlx::query_as("SELECT * FROM tasks WHERE id = ?").bind(id).fetch_optional(&self.readers).await?;
        match row {
            Some(row) => self.with_attempts(row).await.map(Some),
            None => Ok(None),
        }
    }

    pub(super) async fn tasks(&self, filter: &TaskFilter) -> Result<Vec<TaskRecord>, StoreError> {
        let (key, value) = filter.label.clone().unzip();
        let rows: Vec<TaskRow> = sqlx::query_as(
            "SELECT * FROM tasks WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR outcome = ?2) \
             AND (?3 IS NULL OR kind = ?3) AND (?4 IS NULL OR seq < ?4) \
             AND (?5 IS NULL OR id IN (SELECT task_id FROM task_labels WHERE key = ?5 AND value = ?6)) \
             ORDER BY seq DESC LIMIT ?7",
        )
        .bind(filter.state.as_ref().map(word))
        .bind(filter.outcome.as_ref().map(word))
        .bind(filter.kind.as_ref().map(word))
        .bind(filter.before)
        .bind(key)
        .bind(value)
        .bind(filter.limit)
        .fetch_all(&self.readers)
        .await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in rows {
            records.push(self.with_attempts(row).await?);
        }
        Ok(records)
    }

    async fn with_attempts(&self, row: TaskRow) -> Result<TaskRecord, StoreError> {
        let attempts: Vec<AttemptRow> =
            sqlx::query_as("SELECT * FROM attempts WHERE task_id = ? ORDER BY number")
                .bind(&row.id)
                .fetch_all(&self.readers)
                .await?;
        Ok(TaskRecord {
            seq: row.seq,
            spec: from_text("task", &row.spec)?,
            state: from_word("state", row.state)?,
            outcome: row.outcome.map(|it| from_word("outcome", it)).transpose()?,
            reason: row.reason.or(row.cancel_reason),
            result: row.result.as_deref().map(|it| from_text("result", it)).transpose()?,
            created_at: row.created_at,
            completed_at: row.completed_at,
            attempts: attempts.into_iter().map(attempt_record).collect::<Result<_, _>>()?,
            id: row.id,
        })
    }

    pub(super) async fn live_tasks(&self, now: Millis) -> Result<Vec<RestoredTask>, StoreError> {
        // One read transaction, so that no task changes between the two questions.
        let mut tx = self.readers.begin().await?;
        let rows: Vec<TaskRow> =
            sqlx::query_as("SELECT * FROM tasks WHERE state <> 'completed' ORDER BY seq")
                .fetch_all(&mut *tx)
                .await?;
        let attempts: Vec<AttemptRow> = sqlx::query_as(
            "SELECT attempts.* FROM attempts JOIN tasks ON tasks.id = attempts.task_id \
             WHERE tasks.state <> 'completed' ORDER BY attempts.task_id, attempts.number",
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        let mut by_task: HashMap<String, Vec<RestoredAttempt>> = HashMap::new();
        for attempt in attempts {
            by_task.entry(attempt.task_id.clone()).or_default().push(restored_attempt(attempt));
        }
        rows.into_iter()
            .map(|row| {
                let attempts = by_task.remove(&row.id).unwrap_or_default();
                restored_task(now, row, attempts)
            })
            .collect()
    }

    pub(super) async fn past_attempt(&self, attempt: &AttemptId) -> Result<Option<PastAttempt>, StoreError> {
        let row: Option<(String, bool)> =
            sqlx::query_as("SELECT agent_id, by_result FROM attempts WHERE task_id = ? AND number = ?")
                .bind(&attempt.task_id)
                .bind(attempt.attempt)
                .fetch_optional(&self.readers)
                .await?;
        Ok(row.map(|(agent_id, by_result)| PastAttempt { agent_id, by_result }))
    }

    pub(super) async fn idempotency_key(
        &self,
        token_id: &str,
        key: &str,
    ) -> Result<Option<IdempotencyKey>, StoreError> {
        let row: Option<(Vec<u8>, String)> =
            sqlx::query_as("SELECT body_hash, task_id FROM idempotency_keys WHERE token_id = ? AND key = ?")
                .bind(token_id)
                .bind(key)
                .fetch_optional(&self.readers)
                .await?;
        Ok(row.map(|(body_hash, task_id)| IdempotencyKey {
            token_id: token_id.to_owned(),
            key: key.to_owned(),
            body_hash,
            task_id,
        }))
    }
}

fn attempt_record(row: AttemptRow) -> Result<AttemptRecord, StoreError> {
    Ok(AttemptRecord {
        number: row.number,
        agent_id: row.agent_id,
        agent_name: row.agent_name,
        offered_at: row.offered_at,
        started_at: row.started_at,
        ended_at: row.ended_at,
        outcome: row.outcome.map(|it| from_word("outcome", it)).transpose()?,
        diagnosis: row.diagnosis.as_deref().map(|it| from_text("diagnosis", it)).transpose()?,
        reason: row.reason,
    })
}

fn restored_attempt(row: AttemptRow) -> RestoredAttempt {
    RestoredAttempt {
        number: row.number,
        agent_id: row.agent_id,
        agent_name: row.agent_name,
        started: row.started_at.is_some(),
        ended: row.ended_at.is_some(),
        by_result: row.by_result,
        counted: row.counted,
    }
}

fn restored_task(
    now: Millis,
    row: TaskRow,
    attempts: Vec<RestoredAttempt>,
) -> Result<RestoredTask, StoreError> {
    // A clock that was set back makes a task young again and never makes it expire early.
    let waited = u64::try_from(now.saturating_sub(row.created_at)).unwrap_or(0);
    let posted = Posted {
        id: row.id,
        spec: Arc::new(from_text("task", &row.spec)?),
        bytes: Arc::from(row.spec.as_str()),
    };
    Ok(RestoredTask { posted, waited: Duration::from_millis(waited), cancel: row.cancel_reason, attempts })
}
