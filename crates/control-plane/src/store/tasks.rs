//! Reading tasks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sortie_protocol::AttemptId;
use sqlx::{FromRow, QueryBuilder, Sqlite as Database};

use super::commit::{duration, millis};
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
    posted_elapsed: Millis,
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
    result: Option<String>,
}

/// The statement for a list. It names only what is asked for, so that an index serves it.
fn select(filter: &TaskFilter) -> QueryBuilder<Database> {
    let mut query = QueryBuilder::new("SELECT * FROM tasks WHERE TRUE");
    let words = [
        (" AND state = ", filter.state.as_ref().map(word)),
        (" AND outcome = ", filter.outcome.as_ref().map(word)),
        (" AND kind = ", filter.kind.as_ref().map(word)),
    ];
    for (condition, word) in words {
        if let Some(word) = word {
            query.push(condition).push_bind(word);
        }
    }
    if let Some(before) = filter.before {
        query.push(" AND seq < ").push_bind(before);
    }
    if let Some((key, value)) = filter.label.clone() {
        query.push(" AND id IN (SELECT task_id FROM task_labels WHERE key = ").push_bind(key);
        query.push(" AND value = ").push_bind(value).push(")");
    }
    query.push(" ORDER BY seq DESC LIMIT ").push_bind(filter.limit);
    query
}

impl Sqlite {
    pub(super) async fn task(&self, id: &str) -> Result<Option<TaskRecord>, StoreError> {
        // Both at once, because a client waits for it.
        const BOTH: &str = "SELECT * FROM tasks WHERE id = ?; \
             SELECT * FROM attempts WHERE task_id = ? ORDER BY number;";
        let rows = sqlx::query(BOTH).bind(id).bind(id).fetch_all(&self.readers).await?;
        let Some((row, attempts)) = rows.split_first() else { return Ok(None) };
        let attempts = attempts.iter().map(AttemptRow::from_row).collect::<Result<_, _>>()?;
        record(TaskRow::from_row(row)?, attempts).map(Some)
    }

    pub(super) async fn tasks(&self, filter: &TaskFilter) -> Result<Vec<TaskRecord>, StoreError> {
        let rows: Vec<TaskRow> = select(filter).build_query_as().fetch_all(&self.readers).await?;
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
        record(row, attempts)
    }

    pub(super) async fn live_tasks(&self, elapsed: Duration) -> Result<Vec<RestoredTask>, StoreError> {
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
            by_task.entry(attempt.task_id.clone()).or_default().push(restored_attempt(attempt)?);
        }
        rows.into_iter()
            .map(|row| {
                let attempts = by_task.remove(&row.id).unwrap_or_default();
                restored_task(elapsed, row, attempts)
            })
            .collect()
    }

    pub(super) async fn prune_tasks(&self, posted_before: Duration, limit: u32) -> Result<u64, StoreError> {
        // Tasks stand by the time of their posts, so that the first ones tell whether any is old enough.
        let done = sqlx::query(
            "DELETE FROM tasks WHERE seq IN (SELECT seq FROM (SELECT seq, posted_elapsed FROM tasks \
             WHERE state = 'completed' ORDER BY seq LIMIT ?) WHERE posted_elapsed < ?)",
        )
        .bind(limit)
        .bind(millis(posted_before))
        .execute(&self.writer)
        .await?;
        Ok(done.rows_affected())
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

fn record(row: TaskRow, attempts: Vec<AttemptRow>) -> Result<TaskRecord, StoreError> {
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

fn restored_attempt(row: AttemptRow) -> Result<RestoredAttempt, StoreError> {
    Ok(RestoredAttempt {
        number: row.number,
        agent_id: row.agent_id,
        agent_name: row.agent_name,
        started: row.started_at.is_some(),
        ended: row.ended_at.is_some(),
        by_result: row.by_result,
        counted: row.counted,
        reason: row.reason,
        passed_on: row.result.as_deref().map(|it| from_text("result", it)).transpose()?,
    })
}

fn restored_task(
    elapsed: Duration,
    row: TaskRow,
    attempts: Vec<RestoredAttempt>,
) -> Result<RestoredTask, StoreError> {
    let waited = elapsed.saturating_sub(duration(row.posted_elapsed));
    let posted = Posted {
        id: row.id,
        spec: Arc::new(from_text("task", &row.spec)?),
        bytes: Arc::from(row.spec.as_str()),
    };
    Ok(RestoredTask { posted, waited, cancel: row.cancel_reason, attempts })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dispatch::{Outcome, TaskState};
    use sortie_protocol::task::TaskKind;
    use sqlx::{Execute, Row};

    #[tokio::test]
    async fn every_list_goes_through_an_index_in_its_order() {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&directory.path().join("control.db")).await.unwrap();
        let all = TaskFilter { limit: 51, ..TaskFilter::default() };
        let filters = [
            (all.clone(), "SCAN tasks"),
            (TaskFilter { state: Some(TaskState::Completed), ..all.clone() }, "tasks_state"),
            (TaskFilter { outcome: Some(Outcome::Failed), ..all.clone() }, "tasks_outcome"),
            (TaskFilter { kind: Some(TaskKind::Clone), before: Some(7), ..all }, "tasks_kind"),
        ];
        for (filter, index) in filters {
            let mut query = QueryBuilder::<Database>::new("EXPLAIN QUERY PLAN ");
            query.push(select(&filter).build().sql().as_str().replace('?', "NULL"));
            let plan: Vec<_> = query.build().fetch_all(&store.readers).await.unwrap();
            let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
            assert!(plan[0].contains(index), "{plan:?}");
            assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{plan:?}");
            store.tasks(&filter).await.unwrap();
        }
    }
}
