//! A transaction whose statements go to the database together.
//!
//! Each call goes to the thread that has the connection, and back, which costs a small transaction more than its
//! statements do. Their texts are few, so that they stay prepared.

use serde_json::json;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Sqlite as Database, SqlitePool};

use super::{BEGIN, millis};
use crate::dispatch::{Connected, TaskState, Transition};
use crate::engine::Stamp;
use crate::identity::hex;
use crate::store::records::{to_text, word};
use crate::store::{IdempotencyKey, Millis, StoreError};

/// The most bytes of rows that one statement gets, where there is more than one row: results may be large.
pub(super) const ARRAY_BYTES: usize = 1024 * 1024;

/// A time that a statement writes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Time {
    /// By the clock of the wall.
    Wall,
    /// By the ledger's own.
    Elapsed,
}

/// What is put for a question mark.
enum Argument {
    Number(Millis),
    Text(String),
}

/// Statements, each with a semicolon at its end, and what is put for their question marks, in order.
pub(super) struct Script {
    wall: Millis,
    elapsed: Millis,
    text: String,
    arguments: Vec<Argument>,
}

impl Script {
    pub(super) fn new(at: Stamp) -> Self {
        let (wall, elapsed) = (at.wall, millis(at.elapsed));
        Self { wall, elapsed, text: format!("{BEGIN};"), arguments: Vec::new() }
    }

    /// Adds a transition that is no row among others.
    pub(super) fn add(&mut self, transition: &Transition) -> Result<(), StoreError> {
        let now = Argument::Number(self.wall);
        match transition {
            Transition::LateResult { attempt, outcome } => self.statement(
                "UPDATE attempts SET late_result = ? WHERE task_id = ? AND number = ?;",
                [word(outcome).into(), attempt.task_id.clone().into(), attempt.attempt.into()],
            ),
            Transition::TaskCancelling { task_id, reason } => self.statement(
                "UPDATE tasks SET state = ?, cancel_reason = ? WHERE id = ?;",
                [word(&TaskState::Cancelling).into(), reason.clone().into(), task_id.clone().into()],
            ),
            Transition::AgentConnected(connected) => self.agent_connected(connected)?,
            Transition::AgentGone { agent_id } => self.statement(
                "UPDATE agents SET last_seen_at = ? WHERE id = ?;",
                [now, agent_id.clone().into()],
            ),
            Transition::AgentMode { agent_id, mode } => self.statement(
                "UPDATE agents SET mode = ? WHERE id = ?;",
                [word(mode).into(), agent_id.clone().into()],
            ),
            Transition::AgentRevoked { agent_id } => self.statement(
                "UPDATE agents SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL;",
                [now, agent_id.clone().into()],
            ),
            Transition::TaskPosted { .. }
            | Transition::AttemptOffered { .. }
            | Transition::AttemptStarted { .. }
            | Transition::AttemptEnded { .. }
            | Transition::TaskQueued { .. }
            | Transition::TaskCompleted { .. } => {}
        }
        Ok(())
    }

    fn agent_connected(&mut self, agent: &Connected) -> Result<(), StoreError> {
        let arguments = [
            to_text("list of tags", &agent.own_tags)?.into(),
            agent.version.clone().into(),
            agent.os.clone().into(),
            agent.arch.clone().into(),
            agent.max_tasks.into(),
            Argument::Number(self.wall),
            agent.agent_id.clone().into(),
        ];
        self.statement(
            "UPDATE agents SET tags = ?, version = ?, os = ?, arch = ?, max_tasks = ?, last_seen_at = ? \
             WHERE id = ?;",
            arguments,
        );
        Ok(())
    }

    fn statement<const N: usize>(&mut self, statement: &'static str, arguments: [Argument; N]) {
        self.text.push_str(statement);
        self.arguments.extend(arguments);
    }

    /// Adds the rows of one kind. The statement's question marks are these times, and then a JSON array of rows.
    pub(super) fn rows(&mut self, statement: &'static str, times: &[Time], rows: &[String]) {
        let mut rows = rows.iter().peekable();
        while let Some(first) = rows.next() {
            let mut array = format!("[{first}");
            while let Some(row) = rows.next_if(|row| array.len() + row.len() < ARRAY_BYTES) {
                array.push(',');
                array.push_str(row);
            }
            array.push(']');
            self.text.push_str(statement);
            times.iter().for_each(|time| self.time(*time));
            self.arguments.push(Argument::Text(array));
        }
    }

    /// Adds uses of idempotency keys.
    pub(super) fn keys(&mut self, keys: &[IdempotencyKey]) {
        const KEYS: &str = "INSERT INTO idempotency_keys (token_id, key, body_hash, task_id) \
             SELECT value ->> 0, value ->> 1, unhex(value ->> 2), value ->> 3 FROM json_each(?);";
        let rows = keys.iter().map(|key| json!([key.token_id, key.key, hex(&key.body_hash), key.task_id]));
        self.rows(KEYS, &[], &rows.map(|row| row.to_string()).collect::<Vec<_>>());
    }

    /// Adds the time of all of it.
    pub(super) fn stamp(&mut self) {
        self.text.push_str(
            "INSERT INTO clock (id, wall, elapsed) VALUES (1, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET elapsed = excluded.elapsed, wall = excluded.wall;",
        );
        self.time(Time::Wall);
        self.time(Time::Elapsed);
    }

    fn time(&mut self, time: Time) {
        self.arguments.push(Argument::Number(match time {
            Time::Wall => self.wall,
            Time::Elapsed => self.elapsed,
        }));
    }

    /// Carries all of it out, or nothing.
    pub(super) async fn commit(mut self, writer: &SqlitePool) -> Result<(), StoreError> {
        self.text.push_str("COMMIT;");
        let mut connection = Unsettled(Some(writer.acquire().await?));
        let Some(open) = connection.0.as_deref_mut() else { return Ok(()) };
        // It is made of the texts above; whatever came from outside is an argument.
        let mut query = sqlx::query(AssertSqlSafe(self.text));
        for argument in self.arguments {
            query = match argument {
                Argument::Number(number) => query.bind(number),
                Argument::Text(text) => query.bind(text),
            };
        }
        query.execute(open).await?;
        connection.0 = None;
        Ok(())
    }
}

/// A connection that may be in the middle of a transaction which nobody but this knows of. Where it is dropped before
/// it was taken out, because of a failure or because nobody waits any more, the connection is closed: that rolls back.
struct Unsettled(Option<PoolConnection<Database>>);

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.close_on_drop();
        }
    }
}

impl From<String> for Argument {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u32> for Argument {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}
