//! The clone: policy, a measured connection, and git into a directory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::diagnose::{self, Failure, Subject};
use super::login::{self, Prepared, https_remote, ssh_remote};
use super::stop::until_stopped;
use super::{TargetSpec, Tools, stages};
use crate::artifact::Uploaded;
use crate::credential::{Credential, CredentialKind};
use crate::dial::{Destination as Endpoint, HttpClient};
use crate::git::{self, CloneRequest, CloneWarning, Cloned, Control, Remote};
use crate::provider::detect::{self, Known};
use crate::provider::rest::Api;
use crate::provider::{Place, Provider, azure_devops, gitlab};
use crate::remote_url::Scheme;
use crate::report::{Code, Diagnosis, Stage, StageLog, StageRecord};

/// A clone as it was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is cloned.
    pub target: TargetSpec,
    /// The kind of server, where the client names it.
    pub provider: Option<Provider>,
    /// The name of the credential; the server's own where it is missing.
    pub credential: Option<String>,
    /// Branch, tag, full reference or commit; the default branch where it is missing.
    pub reference: Option<String>,
    /// How many commits of history; all where it is missing.
    pub depth: Option<u32>,
    /// Where it goes.
    pub destination: Destination,
}

/// Where a clone goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Into this directory, which is empty or does not exist.
    Directory(PathBuf),
    /// Into a directory of this name among the agent's workspaces.
    Workspace(String),
}

/// The outcome of a clone.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The commit that was checked out.
    pub commit: Option<String>,
    /// The full reference that it came from; `None` for a bare commit.
    pub reference: Option<String>,
    /// Bytes that came over the line.
    pub received_bytes: u64,
    /// Objects that came over the line.
    pub received_objects: u64,
    /// Files in the tree that was checked out.
    pub files: u64,
    /// Files that are pointers of Git LFS.
    pub lfs_pointers: u64,
    /// The directory; `None` where nothing is there.
    pub path: Option<PathBuf>,
    /// What was delivered to the control plane.
    pub artifact: Option<Uploaded>,
    /// How long it took.
    pub duration: Duration,
    /// The stages in their order.
    pub stages: Vec<StageRecord>,
    /// What works and should still be looked at.
    pub warnings: Vec<Diagnosis>,
    /// Why it failed.
    pub diagnosis: Option<Diagnosis>,
}

impl Report {
    /// The report of a clone that ended before it could report.
    pub(super) fn failed(diagnosis: Diagnosis, stages: Vec<StageRecord>) -> Self {
        Self { stages, diagnosis: Some(diagnosis), ..Self::default() }
    }
}

/// Runs a clone to its end, good or bad. After a failure nothing of it is left in the directory.
pub async fn run(request: &Request, tools: &Tools, control: &Control, log: &StageLog) -> Report {
    let since = Instant::now();
    let mut subject = Subject { url: request.target.shown(), ..Subject::default() };
    let (tools, redaction) = super::redacting(tools, log);
    let outcome = work(request, &tools, control, log, &mut subject).await;
    let mut report = match outcome {
        Ok((cloned, path, is_plain)) => succeeded(cloned, path, is_plain, log),
        Err(failed) => {
            let stage = failed.stage(log.current());
            Report {
                // What came before the failure did cross the line.
                received_bytes: control.transfer.received_bytes(),
                received_objects: control.transfer.received_objects(),
                stages: stages::failed(log, stage, &[]),
                diagnosis: Some(diagnose::failure(&failed, stage, &subject)),
                ..Report::default()
            }
        }
    };
    report.duration = since.elapsed();
    report
        .diagnosis
        .iter_mut()
        .chain(&mut report.warnings)
        .for_each(|diagnosis| diagnosis.redact(&redaction));
    report
}

fn succeeded(cloned: Cloned, path: PathBuf, is_plain: bool, log: &StageLog) -> Report {
    let mut warnings: Vec<Diagnosis> =
        cloned.warnings.iter().map(|warning: &CloneWarning| match *warning {}).collect();
    if is_plain {
        log.warn_at(Stage::Connect);
        warnings.push(Diagnosis::new(Code::PlainHttp, Stage::Connect, "", vec![]));
    }
    Report {
        commit: Some(cloned.commit),
        reference: cloned.reference,
        received_bytes: cloned.received_bytes,
        received_objects: cloned.received_objects,
        files: cloned.files,
        lfs_pointers: cloned.lfs_pointers,
        path: Some(path),
        stages: stages::succeeded(log),
        warnings,
        ..Report::default()
    }
}

async fn work(
    request: &Request,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
    subject: &mut Subject,
) -> Result<(Cloned, PathBuf, bool), Failure> {
    let credential = request.credential.as_deref();
    let prepared = login::prepare(&request.target, credential, tools, control, log, subject).await?;
    let target = match &request.destination {
        Destination::Directory(path) => path.clone(),
        Destination::Workspace(name) => tools.workspaces.as_ref().ok_or(Failure::NoWorkspaces)?.join(name),
    };
    let provider = request.provider.or(prepared.target.server.provider);
    let provider = provider.or_else(|| detect::by_shape(&prepared.target.url));
    subject.provider = provider;
    let is_plain = prepared.target.url.scheme() == Scheme::Http;
    let remote = if prepared.target.is_ssh() {
        over_ssh(prepared, provider, tools)?
    } else {
        over_https(prepared, provider, tools, control, log).await?
    };
    let wanted =
        CloneRequest { reference: request.reference.clone(), depth: request.depth, target: target.clone() };
    // Git watches deadline and cancel itself and is awaited to its end, so that nothing is left behind.
    let cloned = git::clone(&remote, &wanted, control, log).await;
    let cloned = cloned.map_err(|error| Failure::of_git(error, subject.provider))?;
    Ok((cloned, target, is_plain))
}

fn over_ssh(prepared: Prepared, provider: Option<Provider>, tools: &Tools) -> Result<Remote, Failure> {
    let Prepared { target, credential } = prepared;
    let key = credential.ok_or(Failure::NoCredential)?;
    let place = detect::over_ssh(Known { url: &target.url, base: None, provider, scope: None });
    let url = place.git_url().unwrap_or_else(|| target.url.clone());
    Ok(ssh_remote(url, &target, key, tools))
}

async fn over_https(
    prepared: Prepared,
    provider: Option<Provider>,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
) -> Result<Remote, Failure> {
    let Prepared { target, credential } = prepared;
    let endpoint = Endpoint::for_url(&target.url, &target.server);
    let connected = until_stopped(control, tools.door.connect(&endpoint, log)).await;
    drop(connected.map_err(Failure::Stopped)?.map_err(Failure::Dial)?);
    log.pass();
    let client = until_stopped(control, tools.door.client(&endpoint)).await;
    let client = client.map_err(Failure::Stopped)?.map_err(Failure::Dial)?;
    let base = target.server.provider.map(|_| &target.server.url);
    let known = Known { url: &target.url, base, provider, scope: None };
    let needs_provider = credential.as_ref().is_some_and(depends_on_provider);
    let place = place(known, needs_provider, &client, control).await?;
    let url = place.git_url().unwrap_or_else(|| target.url.clone());
    Ok(https_remote(url, client, place.provider(), credential.as_ref()))
}

/// Whether the form in which a credential is sent depends on the kind of server.
fn depends_on_provider(credential: &Credential) -> bool {
    match credential.kind() {
        CredentialKind::Bearer => true,
        CredentialKind::Pat => credential.username.is_none(),
        CredentialKind::Password | CredentialKind::SshKey => false,
    }
}

/// What the URL means. The server is asked for its kind only where nobody names it and it matters.
async fn place(
    known: Known<'_>,
    needs_provider: bool,
    client: &HttpClient,
    control: &Control,
) -> Result<Place, Failure> {
    let git = || Place::Git(known.url.clone());
    Ok(match known.provider {
        Some(Provider::AzureDevops) => {
            Place::AzureDevops(azure_devops::Place::parse(known.url, known.base, known.scope))
        }
        // Without its suffix the path of a repository is the same below any relative root.
        Some(Provider::Gitlab) => {
            gitlab::Place::parse(known.url, "", Some(crate::provider::Scope::Repository))
                .map_or_else(git, Place::Gitlab)
        }
        None if needs_provider => {
            let anonymous = Api::anonymous(client.clone());
            let identified = until_stopped(control, detect::identify(&anonymous, known)).await;
            identified.map_err(Failure::Stopped)?.map_err(Failure::Provider)?.place
        }
        Some(Provider::Git) | None => git(),
    })
}
