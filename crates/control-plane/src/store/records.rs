//! The rows of the store, as the rest of the program sees them.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sortie_protocol::report::Diagnosis;
use sortie_protocol::task::{TaskKind, TaskSpec};

use super::{Millis, StoreError};
use crate::dispatch::{Mode, Outcome, TaskState};

/// What the holder of an API token may do. Each role may do what the ones before it may.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads tasks and agents.
    Viewer,
    /// Also posts and cancels tasks.
    Dispatcher,
    /// Also makes enrollment tokens and manages agents.
    Admin,
}

/// An API token without its secret.
#[derive(Debug, Clone)]
pub struct ApiToken {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// When it was made.
    pub created_at: Millis,
}

/// An API token to be kept.
#[derive(Debug, Clone)]
pub struct NewApiToken {
    /// Its identifier.
    pub id: String,
    /// Its name, one of a kind among live tokens.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// The SHA-256 of the secret.
    pub hash: Vec<u8>,
}

/// An enrollment token to be kept.
#[derive(Debug, Clone)]
pub struct EnrollmentToken {
    /// The SHA-256 of the secret.
    pub hash: Vec<u8>,
    /// The tags that its agents get.
    pub tags: Vec<String>,
    /// How many agents it enrolls.
    pub max_uses: u32,
    /// When it ends.
    pub expires_at: Millis,
}

/// A registered agent.
#[derive(Debug, Clone)]
pub struct AgentRecord {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its public key.
    pub public_key: Vec<u8>,
    /// The base URL by which it enrolled.
    pub origin: String,
    /// The tags of its own configuration.
    pub tags: Vec<String>,
    /// The tags that its enrollment token gave.
    pub token_tags: Vec<String>,
    /// The version of its program.
    pub version: String,
    /// Its operating system.
    pub os: String,
    /// Its architecture.
    pub arch: String,
    /// How many attempts it runs at once.
    pub max_tasks: u32,
    /// What an administrator decided.
    pub mode: Mode,
    /// When it enrolled.
    pub created_at: Millis,
    /// When it last connected or went.
    pub last_seen_at: Option<Millis>,
}

/// A task with its history.
#[derive(Debug, Clone)]
pub struct TaskRecord {
    /// Its place among all tasks.
    pub seq: i64,
    /// Its identifier.
    pub id: String,
    /// What is to be done.
    pub spec: TaskSpec,
    /// Where it stands.
    pub state: TaskState,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why it ended so, where no result says it.
    pub reason: Option<String>,
    /// What the last attempt answered.
    pub result: Option<Value>,
    /// When it was posted.
    pub created_at: Millis,
    /// When it ended.
    pub completed_at: Option<Millis>,
    /// Its attempts, by number.
    pub attempts: Vec<AttemptRecord>,
}

/// An attempt of a task.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// Its number, from 1.
    pub number: u32,
    /// The agent.
    pub agent_id: String,
    /// The agent's name at that time.
    pub agent_name: String,
    /// When it was offered.
    pub offered_at: Millis,
    /// When it started.
    pub started_at: Option<Millis>,
    /// When it ended.
    pub ended_at: Option<Millis>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// The diagnosis.
    pub diagnosis: Option<Diagnosis>,
    /// Why it ended, where no result says it.
    pub reason: Option<String>,
}

/// Which tasks a list shows.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Only those in this state.
    pub state: Option<TaskState>,
    /// Only those with this outcome.
    pub outcome: Option<Outcome>,
    /// Only those of this kind.
    pub kind: Option<TaskKind>,
    /// Only those that carry this label.
    pub label: Option<(String, String)>,
    /// Only those before this place.
    pub before: Option<i64>,
    /// How many at most.
    pub limit: u32,
}

/// The use of an idempotency key.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The caller's token.
    pub token_id: String,
    /// The key.
    pub key: String,
    /// The SHA-256 of what was posted.
    pub body_hash: Vec<u8>,
    /// The task that came of it.
    pub task_id: String,
}

/// The word under which a value of an enum is kept: the one of its JSON form.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        // Only unit variants are passed in; any other value has no word.
        Ok(_) | Err(_) => String::new(),
    }
}

/// The value of a word.
pub(super) fn from_word<T: DeserializeOwned>(what: &'static str, word: String) -> Result<T, StoreError> {
    serde_json::from_value(Value::String(word)).map_err(|_| StoreError::Unreadable(what))
}

/// A document as it is kept.
pub(super) fn to_text<T: Serialize>(what: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Unreadable(what))
}

/// A kept document.
pub(super) fn from_text<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Unreadable(what))
}
