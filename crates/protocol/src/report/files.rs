//! What files that were read answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Diagnosis, FileContent, ReportOutcome, Stage};

/// The outcome of reading files. What is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FilesReport {
    /// How it ended.
    pub outcome: ReportOutcome,
    /// The commit that all of them are from.
    pub commit: Option<String>,
    /// The full reference that it came from; null for a bare commit.
    pub reference: Option<String>,
    /// How they were read.
    pub source: Option<FilesSource>,
    /// What was found, in the order of the task.
    pub files: Vec<FileContent>,
    /// Paths that the commit does not have.
    pub missing: Vec<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// Stages in their order.
    pub stages: Vec<Stage>,
    /// What works and should still be looked at.
    pub warnings: Vec<Diagnosis>,
    /// Why it failed; null where it succeeded.
    pub diagnosis: Option<Diagnosis>,
}

/// How files were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FilesSource {
    /// Over the API of the server, one by one.
    Api,
    /// By git, out of the whole tree of one commit.
    Git,
}
