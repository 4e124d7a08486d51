//! What a connection test found out.

use std::time::Duration;

use time::OffsetDateTime;

use super::Request;
use crate::credential::CredentialKind;
use crate::provider::{Provider, Scope};
use crate::report::{Diagnosis, StageRecord};
use crate::secret::Redaction;
use crate::task::TargetSpec;

/// The outcome of a connection test. What is not known is `None`.
#[derive(Debug, Clone)]
pub struct Report {
    /// When it began.
    pub started_at: OffsetDateTime,
    /// How long it took.
    pub duration: Duration,
    /// What was tested.
    pub target: TargetFacts,
    /// What answered.
    pub server: ServerFacts,
    /// The name of whom the server took us for.
    pub identity: Option<String>,
    /// What was learned about the credential.
    pub credential: CredentialFacts,
    /// What the credential may do.
    pub capabilities: Capabilities,
    /// The repository that was read.
    pub repository: Option<RepositoryFacts>,
    /// The stages in their order.
    pub stages: Vec<StageRecord>,
    /// What works and should still be looked at.
    pub warnings: Vec<Diagnosis>,
    /// Why it failed.
    pub diagnosis: Option<Diagnosis>,
}

/// What was tested.
#[derive(Debug, Clone)]
pub struct TargetFacts {
    /// The URL without any user info; scrubbed where it is none.
    pub url: String,
    /// The kind of server.
    pub provider: Option<Provider>,
    /// What kind of place it is.
    pub scope: Option<Scope>,
}

/// What answered.
#[derive(Debug, Clone, Default)]
pub struct ServerFacts {
    /// The product's name.
    pub product: Option<String>,
    /// The release.
    pub version: Option<String>,
    /// The version of its REST interface that was used.
    pub api_version: Option<String>,
}

/// What was learned about the credential.
#[derive(Debug, Clone, Default)]
pub struct CredentialFacts {
    /// Its kind.
    pub kind: Option<CredentialKind>,
    /// When it expires, as the server told it.
    pub expires_at: Option<String>,
    /// The scopes that the server told.
    pub scopes: Vec<String>,
    /// The scopes that the target needs and the credential lacks.
    pub missing_scopes: Vec<String>,
}

/// Whether something is possible with the credential.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, Default)]
pub struct Capabilities {
    /// Read the repository's contents.
    pub read_code: Capability,
    /// Read about projects, or about GitLab's projects and groups.
    pub read_projects: Capability,
    /// Set the status of a commit.
    pub set_status: Capability,
    /// Manage webhooks or service hooks.
    pub manage_hooks: Capability,
}

/// The repository that was read.
#[derive(Debug, Clone)]
pub struct RepositoryFacts {
    /// Its default branch, without `refs/heads/`.
    pub default_branch: Option<String>,
    /// The commit at the tip of the default branch.
    pub head: Option<String>,
    /// How many references it has; `None` where git did not come to list them.
    pub references: Option<u64>,
}

impl Report {
    pub(super) fn new(target: &TargetSpec, started_at: OffsetDateTime) -> Self {
        Self {
            started_at,
            duration: Duration::ZERO,
            target: TargetFacts { url: target.shown(), provider: None, scope: None },
            server: ServerFacts::default(),
            identity: None,
            credential: CredentialFacts::default(),
            capabilities: Capabilities::default(),
            repository: None,
            stages: Vec::new(),
            warnings: Vec::new(),
            diagnosis: None,
        }
    }

    /// Takes the secrets that `redaction` knows out of what the server told.
    pub(super) fn redact(&mut self, redaction: &Redaction) {
        self.diagnosis.iter_mut().chain(&mut self.warnings).for_each(|diagnosis| diagnosis.redact(redaction));
        let facts = self.stages.iter_mut().flat_map(|stage| stage.facts.values_mut());
        facts.for_each(|value| redaction.clean_value(value));
        let ServerFacts { product, version, api_version } = &mut self.server;
        let branch = self.repository.as_mut().map(|repository| &mut repository.default_branch);
        let credential = &mut self.credential;
        let texts = [product, version, api_version, &mut self.identity, &mut credential.expires_at];
        texts.into_iter().chain(branch).flatten().for_each(|text| redaction.clean(text));
        credential.scopes.iter_mut().for_each(|scope| redaction.clean(scope));
        credential.missing_scopes.iter_mut().for_each(|scope| redaction.clean(scope));
    }

    /// The report of a test that ended before it could report.
    pub(in crate::task) fn failed(request: &Request, diagnosis: Diagnosis, stages: Vec<StageRecord>) -> Self {
        let mut report = Self::new(&request.target, OffsetDateTime::now_utc());
        report.target.provider = request.provider;
        report.target.scope = request.scope;
        report.stages = stages;
        report.diagnosis = Some(diagnosis);
        report
    }
}
