//! What a comparison answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Diagnosis, ReportOutcome, Stage};

/// The outcome of a comparison of a reference with a commit. What is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CompareReport {
    /// How it ended.
    pub outcome: ReportOutcome,
    /// The full name of the reference; as it was asked for where the server has none of that name.
    pub reference: Option<String>,
    /// The commit that was asked about.
    pub commit: String,
    /// The commit that the reference leads to now; null where it is gone.
    pub head: Option<String>,
    /// Whether it has moved.
    pub state: Option<Moved>,
    /// How many commits `head` has that `commit` has not; null where that is not known.
    pub ahead: Option<u64>,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// Stages in their order.
    pub stages: Vec<Stage>,
    /// What works and should still be looked at.
    pub warnings: Vec<Diagnosis>,
    /// Why it failed; null where it succeeded.
    pub diagnosis: Option<Diagnosis>,
}

/// What became of a reference since a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Moved {
    /// It leads to that commit still.
    Unchanged,
    /// It leads to another one.
    Moved,
    /// The server has it no more, or never had it.
    Gone,
}
