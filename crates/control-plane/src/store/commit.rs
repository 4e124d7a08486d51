//! One transaction for a batch of the dispatcher's transitions.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;
use sqlx::{Sqlite as Database, Transaction};

use super::records::{to_text, word};
use super::{IdempotencyKey, Millis, Sqlite, StoreError};
use crate::dispatch::{Connected, TaskState, Transition};
use crate::engine::Stamp;

/// The transaction takes the write lock at its beginning, so that it never fails in its middle over it.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

/// The most bytes of rows that one statement gets, where there is more than one row: results may be large.
const ARRAY_BYTES: usize = 1024 * 1024;

type Tx = Transaction<'static, Database>;

impl Sqlite {
    pub(super) async fn commit(
        &self,
        at: Stamp,
        transitions: &[Transition],
        keys: &[IdempotencyKey],
    ) -> Result<(), StoreError> {
        let (rows, others) = Rows::of(transitions)?;
        let mut tx = self.writer.begin_with(BEGIN).await?;
        rows.write_attempts(&mut tx, at).await?;
        for transition in others {
            apply(&mut tx, at.wall, transition).await?;
        }
        rows.write_states(&mut tx, at).await?;
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

/// What most batches are made of, as rows: each kind of row is written by one statement, however many there are.
///
/// The order of the kinds is that of an attempt's life. A task's own state is written once, the last one.
#[derive(Default)]
struct Rows {
    posted: Vec<String>,
    labels: Vec<String>,
    offered: Vec<String>,
    started: Vec<String>,
    ended: Vec<String>,
    states: Vec<String>,
    completed: Vec<String>,
}

impl Rows {
    /// The rows, and the transitions that have none.
    fn of(transitions: &[Transition]) -> Result<(Self, Vec<&Transition>), StoreError> {
        let (mut rows, mut others) = (Self::default(), Vec::new());
        let last = last_states(transitions);
        for (index, transition) in transitions.iter().enumerate() {
            if !rows.add(transition)? {
                others.push(transition);
            }
            if let Some((task_id, state)) = state_after(transition)
                && last.get(task_id) == Some(&index)
            {
                rows.states.push(json!([task_id, word(&state)]).to_string());
            }
        }
        Ok((rows, others))
    }

    /// Takes a transition in; `false` where it has no row.
    fn add(&mut self, transition: &Transition) -> Result<bool, StoreError> {
        match transition {
            Transition::TaskPosted { task_id, bytes, spec } => {
                self.posted.push(json!([task_id, word(&spec.kind), &**bytes]).to_string());
                self.labels
                    .extend(spec.labels.iter().map(|(key, value)| json!([task_id, key, value]).to_string()));
            }
            Transition::AttemptOffered { attempt, agent_id, agent_name } => {
                let row = json!([attempt.task_id, attempt.attempt, agent_id, agent_name]);
                self.offered.push(row.to_string());
            }
            Transition::AttemptStarted { attempt } => {
                self.started.push(json!([attempt.task_id, attempt.attempt]).to_string());
            }
            Transition::AttemptEnded {
                attempt,
                outcome,
                diagnosis,
                reason,
                by_result,
                counted,
                passed_on,
            } => {
                let diagnosis = diagnosis.as_ref().map(|it| to_text("diagnosis", it)).transpose()?;
                let passed_on = passed_on.as_ref().map(|it| to_text("result", it)).transpose()?;
                let (task_id, number, outcome) = (&attempt.task_id, attempt.attempt, word(outcome));
                let row = json!([task_id, number, outcome, diagnosis, reason, by_result, counted, passed_on]);
                self.ended.push(row.to_string());
            }
            Transition::TaskCompleted { task_id, outcome, result, reason } => {
                let result = result.as_ref().map(|it| to_text("result", it)).transpose()?;
                self.completed.push(json!([task_id, word(outcome), result, reason]).to_string());
            }
            // A state is all that there is to it.
            Transition::TaskQueued { .. } => {}
            Transition::LateResult { .. }
            | Transition::TaskCancelling { .. }
            | Transition::AgentConnected(_)
            | Transition::AgentGone { .. }
            | Transition::AgentMode { .. }
            | Transition::AgentRevoked { .. } => return Ok(false),
        }
        Ok(true)
    }

    async fn write_attempts(&self, tx: &mut Tx, at: Stamp) -> Result<(), StoreError> {
        const POSTED: &str = "INSERT INTO tasks (id, kind, spec, state, created_at, posted_elapsed) \
             SELECT value ->> 0, value ->> 1, value ->> 2, 'queued', ?2, ?3 FROM json_each(?1)";
        const LABELS: &str = "INSERT INTO task_labels (task_id, key, value) \
             SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)";
        const OFFERED: &str = "INSERT INTO attempts (task_id, number, agent_id, agent_name, offered_at) \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, ?2 FROM json_each(?1)";
        const STARTED: &str = "UPDATE attempts SET started_at = ?2 FROM json_each(?1) AS it \
             WHERE attempts.task_id = it.value ->> 0 AND attempts.number = it.value ->> 1";
        const ENDED: &str = "UPDATE attempts SET ended_at = ?2, outcome = it.value ->> 2, \
             diagnosis = it.value ->> 3, reason = it.value ->> 4, by_result = it.value ->> 5, \
             counted = it.value ->> 6, result = it.value ->> 7 FROM json_each(?1) AS it \
             WHERE attempts.task_id = it.value ->> 0 AND attempts.number = it.value ->> 1";
        write(tx, POSTED, &self.posted, at).await?;
        write(tx, LABELS, &self.labels, at).await?;
        write(tx, OFFERED, &self.offered, at).await?;
        write(tx, STARTED, &self.started, at).await?;
        write(tx, ENDED, &self.ended, at).await
    }

    async fn write_states(&self, tx: &mut Tx, at: Stamp) -> Result<(), StoreError> {
        const STATES: &str = "UPDATE tasks SET state = it.value ->> 1 FROM json_each(?1) AS it \
             WHERE tasks.id = it.value ->> 0";
        const COMPLETED: &str = "UPDATE tasks SET state = 'completed', outcome = it.value ->> 1, \
             result = it.value ->> 2, reason = it.value ->> 3, completed_at = ?2 \
             FROM json_each(?1) AS it WHERE tasks.id = it.value ->> 0";
        write(tx, STATES, &self.states, at).await?;
        write(tx, COMPLETED, &self.completed, at).await
    }
}

/// Writes the rows of one kind. `?1` of the statement is an array of them, `?2` the time by the clock of the wall,
/// and `?3` by the ledger's own.
async fn write(tx: &mut Tx, statement: &'static str, rows: &[String], at: Stamp) -> Result<(), StoreError> {
    let mut rows = rows.iter().peekable();
    while let Some(first) = rows.next() {
        let mut array = format!("[{first}");
        while let Some(row) = rows.next_if(|row| array.len() + row.len() < ARRAY_BYTES) {
            array.push(',');
            array.push_str(row);
        }
        array.push(']');
        let query = sqlx::query(statement).bind(array).bind(at.wall).bind(millis(at.elapsed));
        query.execute(&mut **tx).await?;
    }
    Ok(())
}

/// The transition of each task that leaves it in its last state.
fn last_states(transitions: &[Transition]) -> HashMap<&str, usize> {
    let states = transitions.iter().enumerate().filter_map(|(index, transition)| match transition {
        Transition::TaskCompleted { task_id, .. } | Transition::TaskCancelling { task_id, .. } => {
            Some((task_id.as_str(), index))
        }
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

/// Writes a transition that has no row in [`Rows`].
async fn apply(tx: &mut Tx, now: Millis, transition: &Transition) -> Result<(), StoreError> {
    let query = match transition {
        Transition::LateResult { attempt, outcome } => {
            sqlx::query("UPDATE attempts SET late_result = ? WHERE task_id = ? AND number = ?")
                .bind(word(outcome))
                .bind(&attempt.task_id)
                .bind(attempt.attempt)
        }
        Transition::TaskCancelling { task_id, reason } => {
            sqlx::query("UPDATE tasks SET state = ?, cancel_reason = ? WHERE id = ?")
                .bind(word(&TaskState::Cancelling))
                .bind(reason)
                .bind(task_id)
        }
        Transition::AgentConnected(connected) => return agent_connected(tx, now, connected).await,
        Transition::AgentGone { agent_id } => {
            sqlx::query("UPDATE agents SET last_seen_at = ? WHERE id = ?").bind(now).bind(agent_id)
        }
        Transition::AgentMode { agent_id, mode } => {
            sqlx::query("UPDATE agents SET mode = ? WHERE id = ?").bind(word(mode)).bind(agent_id)
        }
        Transition::AgentRevoked { agent_id } => {
            sqlx::query("UPDATE agents SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL")
                .bind(now)
                .bind(agent_id)
        }
        Transition::TaskPosted { .. }
        | Transition::AttemptOffered { .. }
        | Transition::AttemptStarted { .. }
        | Transition::AttemptEnded { .. }
        | Transition::TaskQueued { .. }
        | Transition::TaskCompleted { .. } => return Ok(()),
    };
    query.execute(&mut **tx).await?;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use sortie_protocol::AttemptId;
    use sortie_protocol::report::{CompareReport, ReportOutcome, TaskOutput};

    use super::*;
    use crate::dispatch::Outcome;
    use crate::store::TaskFilter;

    const AGENT: &str = "agent_a";

    async fn store() -> (tempfile::TempDir, Sqlite) {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&directory.path().join("control.db")).await.unwrap();
        (directory, store)
    }

    fn at(seconds: u64) -> Stamp {
        Stamp { wall: 1_000_000, elapsed: Duration::from_secs(seconds) }
    }

    fn attempt(task_id: &str, attempt: u32) -> AttemptId {
        AttemptId { task_id: task_id.to_owned(), attempt }
    }

    fn posted(task_id: &str) -> Transition {
        let bytes = r#"{"kind":"compare","url":"https://a","labels":{"team":"shop"}}"#;
        Transition::TaskPosted {
            task_id: task_id.to_owned(),
            bytes: bytes.into(),
            spec: Arc::new(serde_json::from_str(bytes).unwrap()),
        }
    }

    fn offered(task_id: &str, number: u32) -> Transition {
        let (agent_id, agent_name) = (AGENT.to_owned(), "a".to_owned());
        Transition::AttemptOffered { attempt: attempt(task_id, number), agent_id, agent_name }
    }

    fn output() -> TaskOutput {
        let report = r#"{"outcome":"failed","commit":"c","duration_ms":1.0,"stages":[],"warnings":[],"diagnosis":null}"#;
        let report: CompareReport = serde_json::from_str(report).unwrap();
        assert_eq!(report.outcome, ReportOutcome::Failed);
        TaskOutput::Compare(Box::new(report))
    }

    fn ended(task_id: &str, number: u32, outcome: Outcome, passed_on: bool) -> Transition {
        Transition::AttemptEnded {
            attempt: attempt(task_id, number),
            outcome,
            diagnosis: None,
            reason: Some("because".to_owned()),
            by_result: true,
            counted: false,
            passed_on: passed_on.then(|| Box::new(output())),
        }
    }

    fn completed(task_id: &str, outcome: Outcome) -> Transition {
        let (result, reason) = (Some(output()), None);
        Transition::TaskCompleted { task_id: task_id.to_owned(), outcome, result, reason }
    }

    #[tokio::test]
    async fn a_batch_leaves_every_task_in_its_last_state() {
        let (_directory, store) = store().await;
        let queued = |task_id: &str| Transition::TaskQueued { task_id: task_id.to_owned() };
        let started = |task_id: &str| Transition::AttemptStarted { attempt: attempt(task_id, 1) };
        let cancelling =
            Transition::TaskCancelling { task_id: "stopping".to_owned(), reason: "enough".to_owned() };
        let batch = [
            posted("queued"),
            posted("again"),
            posted("running"),
            posted("stopping"),
            posted("done"),
            offered("again", 1),
            offered("running", 1),
            offered("stopping", 1),
            offered("done", 1),
            started("running"),
            started("stopping"),
            started("done"),
            ended("again", 1, Outcome::Failed, true),
            queued("again"),
            cancelling,
            ended("done", 1, Outcome::Succeeded, false),
            completed("done", Outcome::Succeeded),
        ];
        store.commit(at(5), &batch, &[]).await.unwrap();
        let states = [
            ("queued", TaskState::Queued),
            ("again", TaskState::Queued),
            ("running", TaskState::Running),
            ("stopping", TaskState::Cancelling),
            ("done", TaskState::Completed),
        ];
        for (id, state) in states {
            let task = store.task(id).await.unwrap().unwrap();
            assert_eq!(task.state, state, "{id}");
            assert_eq!(task.attempts.len(), usize::from(id != "queued"), "{id}");
            assert_eq!(task.spec.labels["team"], "shop");
        }
        let done = store.task("done").await.unwrap().unwrap();
        assert_eq!((done.outcome, done.completed_at), (Some(Outcome::Succeeded), Some(1_000_000)));
        assert!(done.attempts[0].started_at.is_some() && done.attempts[0].ended_at.is_some());
        assert_eq!(store.task("stopping").await.unwrap().unwrap().reason.as_deref(), Some("enough"));
        let labelled =
            TaskFilter { label: Some(("team".into(), "shop".into())), limit: 9, ..Default::default() };
        assert_eq!(store.tasks(&labelled).await.unwrap().len(), 5);
        // What the next process finds.
        assert_eq!(store.last_stamp().await.unwrap(), Some(at(5)));
        let live = store.live_tasks(Duration::from_secs(12)).await.unwrap();
        let ids: Vec<_> = live.iter().map(|task| task.posted.id.as_str()).collect();
        assert_eq!(ids, ["queued", "again", "running", "stopping"]);
        assert!(live.iter().all(|task| task.waited == Duration::from_secs(7)));
        let again = &live[1].attempts[0];
        assert_eq!(again.passed_on.as_deref(), Some(&output()));
        assert_eq!(again.reason.as_deref(), Some("because"));
        assert!(live[2].attempts[0].started && !live[2].attempts[0].ended);
    }

    #[tokio::test]
    async fn texts_come_back_as_they_were_however_strange_and_large() {
        let (_directory, store) = store().await;
        let strange = "a\u{0}b\"\\\u{1F600}\u{7f}\n, ']";
        let bytes = serde_json::json!({"kind": "clone", "url": "https://a", "labels": {strange: strange}});
        let spec = Arc::new(serde_json::from_value(bytes.clone()).unwrap());
        let large = "x\"".repeat(ARRAY_BYTES / 4);
        let mut batch = Vec::new();
        for id in ["t1", "t2", "t3"] {
            let (bytes, spec) = (bytes.to_string().into(), Arc::clone(&spec));
            batch.push(Transition::TaskPosted { task_id: id.to_owned(), bytes, spec });
            let (result, reason) = (Some(output()), Some(format!("{id}{strange}{large}")));
            let outcome = Outcome::Failed;
            batch.push(Transition::TaskCompleted { task_id: id.to_owned(), outcome, result, reason });
        }
        store.commit(at(0), &batch, &[]).await.unwrap();
        let label = Some((strange.to_owned(), strange.to_owned()));
        let found = store.tasks(&TaskFilter { label, limit: 9, ..Default::default() }).await.unwrap();
        assert_eq!(found.len(), 3);
        for task in found {
            assert_eq!(task.reason, Some(format!("{}{strange}{large}", task.id)));
            assert_eq!(task.spec, *spec);
            assert_eq!(task.result, Some(serde_json::to_value(output()).unwrap()));
        }
    }

    #[tokio::test]
    async fn the_next_batch_goes_on_where_the_last_one_ended() {
        let (_directory, store) = store().await;
        store.commit(at(1), &[posted("t"), offered("t", 1)], &[]).await.unwrap();
        let started = Transition::AttemptStarted { attempt: attempt("t", 1) };
        store.commit(at(2), &[started], &[]).await.unwrap();
        assert_eq!(store.task("t").await.unwrap().unwrap().state, TaskState::Running);
        let second = [ended("t", 1, Outcome::Expired, false), offered("t", 2)];
        store.commit(at(3), &second, &[]).await.unwrap();
        let task = store.task("t").await.unwrap().unwrap();
        assert_eq!((task.state, task.attempts.len()), (TaskState::Offered, 2));
        let last = [ended("t", 2, Outcome::Failed, false), completed("t", Outcome::Failed)];
        store.commit(at(4), &last, &[]).await.unwrap();
        let task = store.task("t").await.unwrap().unwrap();
        assert_eq!((task.state, task.outcome), (TaskState::Completed, Some(Outcome::Failed)));
        let outcomes: Vec<_> = task.attempts.iter().map(|it| it.outcome).collect();
        assert_eq!(outcomes, [Some(Outcome::Expired), Some(Outcome::Failed)]);
    }

    #[tokio::test]
    async fn old_tasks_that_are_completed_go_in_small_batches_with_what_belongs_to_them() {
        let (_directory, store) = store().await;
        let key = |task_id: &str| IdempotencyKey {
            token_id: "token".to_owned(),
            key: task_id.to_owned(),
            body_hash: vec![1],
            task_id: task_id.to_owned(),
        };
        for (seconds, id, is_done) in
            [(1, "old", true), (2, "old too", true), (3, "old and live", false), (50, "young", true)]
        {
            let mut batch = vec![posted(id), offered(id, 1)];
            if is_done {
                batch.push(completed(id, Outcome::Failed));
            }
            store.commit(at(seconds), &batch, &[key(id)]).await.unwrap();
        }
        let before = Duration::from_secs(50);
        assert_eq!(store.prune_tasks(before, 1).await.unwrap(), 1);
        assert!(store.task("old").await.unwrap().is_none());
        assert_eq!(store.prune_tasks(before, 9).await.unwrap(), 1);
        assert_eq!(store.prune_tasks(before, 9).await.unwrap(), 0);
        for (id, is_there) in [("old too", false), ("old and live", true), ("young", true)] {
            assert_eq!(store.task(id).await.unwrap().is_some(), is_there, "{id}");
            assert_eq!(store.idempotency_key("token", id).await.unwrap().is_some(), is_there, "{id}");
            assert_eq!(store.past_attempt(&attempt(id, 1)).await.unwrap().is_some(), is_there, "{id}");
        }
    }
}
