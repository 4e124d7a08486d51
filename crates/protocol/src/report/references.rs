//! What a list of references answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Diagnosis, ReportOutcome, Stage};

/// The outcome of a list of references. What is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReferencesReport {
    /// How it ended.
    pub outcome: ReportOutcome,
    /// The branch that HEAD names, without `refs/heads/`.
    pub default_branch: Option<String>,
    /// The commit at the tip of the default branch.
    pub head: Option<String>,
    /// How many references match, whether they are named here or not.
    pub total: u64,
    /// Whether some that match are not named here.
    pub truncated: bool,
    /// Those that match, in the server's order, which is that of their names.
    pub references: Vec<Reference>,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// Stages in their order.
    pub stages: Vec<Stage>,
    /// What works and should still be looked at.
    pub warnings: Vec<Diagnosis>,
    /// Why it failed; null where it succeeded.
    pub diagnosis: Option<Diagnosis>,
}

/// A reference of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reference {
    /// The full name, such as `refs/heads/main`.
    pub name: String,
    /// The object that it names: a commit, or an annotated tag.
    pub target: String,
    /// What an annotated tag leads to; null where `target` is no such tag.
    pub peeled: Option<String>,
}
