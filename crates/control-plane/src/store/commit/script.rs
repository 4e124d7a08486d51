//! Statements that go to the database together.
//!
//! Each call goes to the thread that has the connection, and back, which costs a small transaction more than its
//! statements do. Their texts are few, so that they stay prepared.

use serde_json::json;
use sqlx::AssertSqlSafe;

use super::{Tx, millis};
use crate::engine::Stamp;
use crate::identity::hex;
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
        Self { wall, elapsed, text: String::new(), arguments: Vec::new() }
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

    /// Runs what was added, and is empty again.
    pub(super) async fn run(&mut self, tx: &mut Tx) -> Result<(), StoreError> {
        // It is made of the texts above; whatever came from outside is an argument.
        let mut query = sqlx::query(AssertSqlSafe(std::mem::take(&mut self.text)));
        for argument in self.arguments.drain(..) {
            query = match argument {
                Argument::Number(number) => query.bind(number),
                Argument::Text(text) => query.bind(text),
            };
        }
        query.execute(&mut **tx).await?;
        Ok(())
    }
}
