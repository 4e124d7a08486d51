//! One transaction for a batch of the dispatcher's transitions.

use std::collections::HashMap;
use std::time::Duration;

use sortie_protocol::AttemptId;
use sqlx::{Sqlite as Database, Transaction};

use super::records::{to_text, word};
use super::{IdempotencyKey, Millis, Sqlite, StoreError};
use crate::dispatch::{Connected, TaskState, Transition};
use crate::engine::Stamp;

/// The transaction takes the write lock at its beginning, so that it never fails in its middle over it.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

type Tx = Transaction<'static, Database>;

impl Sqlite {
    pub(super) async fn commit(
        &self,
        at: Stamp,
        transitions: &[Transition],
        keys: &[IdempotencyKey],
    ) -> Result<(), StoreError> {
        let mut tx = self.writer.begin_with(BEGIN).await?;
        let last = last_states(transitions);
        for (index, transition) in transitions.iter().enumerate() {
            apply(&mut tx, at, transition).await?;
            // A task often changes its state several times within one batch, and only the last of them is seen.
            if let Some((task_id, state)) = state_after(transition)
                && last.get(task_id) == Some(&index)
            {
                set_state(&mut tx, task_id, state).await?;
            }
        }
        for key in keys {
            sqlx::query(
                "INSERT INTO idempotency_keys (token_id, key, body_hash, task_id) VALUES (?, ?, ?, ?)",
            )
            .bind(&key.token_id)
            .bind(&key.key)
            .bind(&key.body_hash)
            .bind(&key.task_id)
            .execute(&mut *tx)
            .await?;
        }
        sqlx::query(
            "INSERT INTO clock (id, elapsed, wall) VALUES (1, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET elapsed = excluded.elapsed, wall = excluded.wall",
        )
        .bind(millis(at.elapsed))
        .bind(at.wall)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    pub(super) async fn last_stamp(&self) -> Result<Option<Stamp>, StoreError> {
        let row: Option<(Millis, Millis)> =
            sqlx::query_as("SELECT elapsed, wall FROM clock").fetch_optional(&self.readers).await?;
        Ok(row.map(|(elapsed, wall)| Stamp { wall, elapsed: duration(elapsed) }))
    }
}

/// The transition of each task that leaves it in its last state.
fn last_states(transitions: &[Transition]) -> HashMap<&str, usize> {
    let states = transitions.iter().enumerate().filter_map(|(index, transition)| match transition {
        Transition::TaskCompleted { task_id, .. } => Some((task_id.as_str(), index)),
        Transition::TaskCancelling { task_id, .. } => Some((task_id.as_str(), index)),
        _ => state_after(transition).map(|(task_id, _)| (task_id, index)),
    });
    states.collect()
}

/// The state in which a transition leaves its task, where it does nothing else to the task's own row.
fn state_after(transition: &Transition) -> Option<(&str, TaskState)> {
    match transition {
        Transition::AttemptOffered { attempt, .. } => Some((&attempt.task_id, TaskState::Offered)),
        Transition::AttemptStarted { attempt } => Some((&attempt.task_id, TaskState::Running)),
        Transition::TaskQueued { task_id } => Some((task_id, TaskState::Queued)),
        _ => None,
    }
}

/// A duration as it is kept.
pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// A kept duration.
pub(super) fn duration(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

async fn apply(tx: &mut Tx, at: Stamp, transition: &Transition) -> Result<(), StoreError> {
    let now = at.wall;
    match transition {
        Transition::TaskPosted { .. } => task_posted(tx, at, transition).await,
        Transition::AttemptOffered { attempt, agent_id, agent_name } => {
            sqlx::query(
                "INSERT INTO attempts (task_id, number, agent_id, agent_name, offered_at) \
                 VALUES (?, ?, ?, ?, ?)",
            )
            .bind(&attempt.task_id)
            .bind(attempt.attempt)
            .bind(agent_id)
            .bind(agent_name)
            .bind(now)
            .execute(&mut **tx)
            .await?;
            Ok(())
        }
        Transition::AttemptStarted { attempt } => attempt_started(tx, now, attempt).await,
        Transition::AttemptEnded { .. } => attempt_ended(tx, now, transition).await,
        Transition::LateResult { attempt, outcome } => {
            sqlx::query("UPDATE attempts SET late_result = ? WHERE task_id = ? AND number = ?")
                .bind(word(outcome))
                .bind(&attempt.task_id)
                .bind(attempt.attempt)
                .execute(&mut **tx)
                .await?;
            Ok(())
        }
        Transition::TaskQueued { .. } => Ok(()),
        Transition::TaskCancelling { task_id, reason } => {
            sqlx::query("UPDATE tasks SET state = ?, cancel_reason = ? WHERE id = ?")
                .bind(word(&TaskState::Cancelling))
                .bind(reason)
                .bind(task_id)
                .execute(&mut **tx)
                .await?;
            Ok(())
        }
        Transition::TaskCompleted { .. } => task_completed(tx, now, transition).await,
        Transition::AgentConnected(connected) => agent_connected(tx, now, connected).await,
        Transition::AgentGone { agent_id } => {
            sqlx::query("UPDATE agents SET last_seen_at = ? WHERE id = ?")
                .bind(now)
                .bind(agent_id)
                .execute(&mut **tx)
                .await?;
            Ok(())
        }
        Transition::AgentMode { agent_id, mode } => {
            sqlx::query("UPDATE agents SET mode = ? WHERE id = ?")
                .bind(word(mode))
                .bind(agent_id)
                .execute(&mut **tx)
                .await?;
            Ok(())
        }
        Transition::AgentRevoked { agent_id } => {
            sqlx::query("UPDATE agents SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
                .bind(now)
                .bind(agent_id)
                .execute(&mut **tx)
                .await?;
            Ok(())
        }
    }
}

async fn set_state(tx: &mut Tx, task_id: &str, state: TaskState) -> Result<(), StoreError> {
    sqlx::query("UPDATE tasks SET state = ? WHERE id = ?")
        .bind(word(&state))
        .bind(task_id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn task_posted(tx: &mut Tx, at: Stamp, transition: &Transition) -> Result<(), StoreError> {
    let Transition::TaskPosted { task_id, bytes, spec } = transition else { return Ok(()) };
    sqlx::query(
        "INSERT INTO tasks (id, kind, spec, state, created_at, posted_elapsed) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(task_id)
    .bind(word(&spec.kind))
    .bind(&**bytes)
    .bind(word(&TaskState::Queued))
    .bind(at.wall)
    .bind(millis(at.elapsed))
    .execute(&mut **tx)
    .await?;
    for (key, value) in &spec.labels {
        sqlx::query("INSERT INTO task_labels (task_id, key, value) VALUES (?, ?, ?)")
            .bind(task_id)
            .bind(key)
            .bind(value)
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

async fn attempt_started(tx: &mut Tx, now: Millis, attempt: &AttemptId) -> Result<(), StoreError> {
    sqlx::query("UPDATE attempts SET started_at = ? WHERE task_id = ? AND number = ?")
        .bind(now)
        .bind(&attempt.task_id)
        .bind(attempt.attempt)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn attempt_ended(tx: &mut Tx, now: Millis, transition: &Transition) -> Result<(), StoreError> {
    let Transition::AttemptEnded { attempt, outcome, diagnosis, reason, by_result, counted, passed_on } =
        transition
    else {
        return Ok(());
    };
    let diagnosis = diagnosis.as_ref().map(|it| to_text("diagnosis", it)).transpose()?;
    let passed_on = passed_on.as_ref().map(|it| to_text("result", it)).transpose()?;
    sqlx::query(
        "UPDATE attempts SET ended_at = ?, outcome = ?, diagnosis = ?, reason = ?, by_result = ?, \
         counted = ?, result = ? WHERE task_id = ? AND number = ?",
    )
    .bind(now)
    .bind(word(outcome))
    .bind(diagnosis)
    .bind(reason)
    .bind(by_result)
    .bind(counted)
    .bind(passed_on)
    .bind(&attempt.task_id)
    .bind(attempt.attempt)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn task_completed(tx: &mut Tx, now: Millis, transition: &Transition) -> Result<(), StoreError> {
    let Transition::TaskCompleted { task_id, outcome, result, reason } = transition else { return Ok(()) };
    let result = result.as_ref().map(|it| to_text("result", it)).transpose()?;
    sqlx::query(
        "UPDATE tasks SET state = ?, outcome = ?, result = ?, reason = ?, completed_at = ? WHERE id = ?",
    )
    .bind(word(&TaskState::Completed))
    .bind(word(outcome))
    .bind(result)
    .bind(reason)
    .bind(now)
    .bind(task_id)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn agent_connected(tx: &mut Tx, now: Millis, agent: &Connected) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE agents SET tags = ?, version = ?, os = ?, arch = ?, max_tasks = ?, last_seen_at = ? \
         WHERE id = ?",
    )
    .bind(to_text("list of tags", &agent.own_tags)?)
    .bind(&agent.version)
    .bind(&agent.os)
    .bind(&agent.arch)
    .bind(agent.max_tasks)
    .bind(now)
    .bind(&agent.agent_id)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
