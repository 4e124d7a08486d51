//! What an attempt answers: the report of a connection test, or the outcome of a clone or of a task that looks
//! something up.
//!
//! The very same JSON comes from `sortie test --json` and `sortie clone --json`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::task::Provider;

mod compare;
mod contents;
mod files;
mod references;

pub use compare::{CompareReport, Moved};
pub use contents::{Encoding, FileContent, FileKind};
pub use files::{FilesReport, FilesSource};
pub use references::{Reference, ReferencesReport};

/// Measured values of a stage, by name. Units stand in the names (`…_ms`, `…_bytes`).
pub type Facts = serde_json::Map<String, serde_json::Value>;

/// The result of an attempt. `schema` tells which it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "schema")]
pub enum TaskOutput {
    /// Of a connection test.
    #[serde(rename = "sortie.report.v1")]
    Report(Box<Report>),
    /// Of a clone.
    #[serde(rename = "sortie.clone.v1")]
    Clone(Box<CloneReport>),
    /// Of a list of references.
    #[serde(rename = "sortie.references.v1")]
    References(Box<ReferencesReport>),
    /// Of files that were read.
    #[serde(rename = "sortie.files.v1")]
    Files(Box<FilesReport>),
    /// Of a comparison.
    #[serde(rename = "sortie.compare.v1")]
    Compare(Box<CompareReport>),
}

impl TaskOutput {
    /// The diagnosis, where it failed.
    pub fn diagnosis(&self) -> Option<&Diagnosis> {
        match self {
            Self::Report(report) => report.diagnosis.as_ref(),
            Self::Clone(clone) => clone.diagnosis.as_ref(),
            Self::References(list) => list.diagnosis.as_ref(),
            Self::Files(files) => files.diagnosis.as_ref(),
            Self::Compare(compared) => compared.diagnosis.as_ref(),
        }
    }

    /// Whether it succeeded.
    pub fn outcome(&self) -> ReportOutcome {
        match self {
            Self::Report(report) => report.outcome,
            Self::Clone(clone) => clone.outcome,
            Self::References(list) => list.outcome,
            Self::Files(files) => files.outcome,
            Self::Compare(compared) => compared.outcome,
        }
    }
}

/// How a test or a clone ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportOutcome {
    /// Everything that was asked for was done.
    Succeeded,
    /// `diagnosis` says why not.
    Failed,
}

/// The outcome of a connection test. What is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Report {
    /// When the test began by the agent's clock, RFC 3339 in UTC.
    pub started_at: String,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// How it ended.
    pub outcome: ReportOutcome,
    /// What was tested.
    pub target: Target,
    /// What answered.
    pub server: Server,
    /// Who the server took us for.
    pub identity: Identity,
    /// What was learned about the credential; never the secret.
    pub credential: Credential,
    /// What the credential may do.
    pub capabilities: Capabilities,
    /// The repository that was read.
    pub repository: Repository,
    /// Stages in their order.
    pub stages: Vec<Stage>,
    /// What works and should still be looked at.
    pub warnings: Vec<Diagnosis>,
    /// Why it failed; null where it succeeded.
    pub diagnosis: Option<Diagnosis>,
}

/// What was tested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// The URL without any user info.
    pub url: String,
    /// The kind of server.
    pub provider: Option<Provider>,
    /// `account`, `project` or `repository`.
    pub scope: Option<crate::task::Scope>,
}

/// What answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Server {
    /// The product's name, such as `Azure DevOps Server`.
    pub product: Option<String>,
    /// The release, such as `2022` or `16.11.2`.
    pub version: Option<String>,
    /// The version of its REST interface that was used.
    pub api_version: Option<String>,
}

/// Who the server took us for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Identity {
    /// The name that the server told.
    pub name: Option<String>,
}

/// What was learned about the credential.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Credential {
    /// `pat`, `password`, `bearer` or `ssh-key`.
    pub kind: Option<String>,
    /// When it expires, as the server told it.
    pub expires_at: Option<String>,
    /// The scopes that the server told.
    pub scopes: Vec<String>,
    /// The scopes that the target needs and the credential lacks.
    pub missing_scopes: Vec<String>,
}

/// Whether something is possible with this credential.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// It was shown to be.
    Yes,
    /// It was refused, or the scopes exclude it.
    No,
    /// It was not tried, or cannot be told.
    #[default]
    Unknown,
}

/// What the credential may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    /// Read the repository's contents.
    pub read_code: Capability,
    /// Read about projects (GitLab: projects and groups).
    #[serde(default)]
    pub read_projects: Capability,
    /// Set the status of a commit.
    pub set_status: Capability,
    /// Manage webhooks or service hooks.
    pub manage_hooks: Capability,
}

/// The repository that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Repository {
    /// The branch that HEAD names, without `refs/heads/`.
    pub default_branch: Option<String>,
    /// The commit at the tip of the default branch.
    pub head: Option<String>,
    /// How many references the server advertised.
    pub references: Option<u64>,
    /// Whether there is no reference at all.
    pub empty: Option<bool>,
}

/// One stage and what was measured in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stage {
    /// Its name: `policy`, `resolve`, `proxy`, `connect`, `tls`, `host_key`, `identify`, `authenticate`,
    /// `authorize`, `repository`, `references`; for a clone also `negotiate`, `receive`, `index`,
    /// `checkout`, `deliver`.
    pub stage: String,
    /// How it went.
    pub status: StageStatus,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// What was measured.
    pub facts: Facts,
}

/// How a stage went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageStatus {
    /// It was exercised and is fine.
    Passed,
    /// It was exercised, and there is a warning about it.
    Warned,
    /// It failed; the diagnosis names it.
    Failed,
    /// It was not exercised.
    Skipped,
}

/// A stable code, one sentence of cause, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnosis {
    /// The code, such as `pat_rejected`. Codes are never renamed.
    pub code: String,
    /// The stage that failed, or that the warning is about.
    pub stage: String,
    /// The cause in one sentence, with what was seen.
    pub summary: String,
    /// What an operator can do, most likely first.
    pub remedies: Vec<String>,
}

/// The outcome of a clone. What is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloneReport {
    /// How it ended.
    pub outcome: ReportOutcome,
    /// The commit that was checked out.
    pub commit: Option<String>,
    /// The full reference that it came from; null for a bare commit.
    pub reference: Option<String>,
    /// Where the objects came from.
    pub source: Option<CloneSource>,
    /// Bytes that came over the line.
    pub received_bytes: u64,
    /// Objects that came over the line.
    pub received_objects: u64,
    /// Files in the tree that was checked out.
    pub files: u64,
    /// Files that are pointers of Git LFS.
    pub lfs_pointers: u64,
    /// Paths of the submodules that were taken along.
    pub submodules: Vec<String>,
    /// The directory on the agent's host.
    pub path: Option<String>,
    /// What was delivered to the control plane's artifact store; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// Stages in their order.
    pub stages: Vec<Stage>,
    /// What works and should still be looked at.
    pub warnings: Vec<Diagnosis>,
    /// Why it failed; null where it succeeded.
    pub diagnosis: Option<Diagnosis>,
    /// The files that were asked for inline; the member is missing where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<FileContent>,
    /// Paths that were asked for and are not in the commit; the member is missing where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Where the objects of a clone came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloneSource {
    /// The server alone.
    Origin,
    /// A mirror on the agent, brought up to date from the server.
    Mirror,
}
