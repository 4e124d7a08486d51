//! The clone: policy, a measured connection, and git into a directory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::diagnose::{self, Failure, Subject};
use super::{TargetSpec, Tools, login, remote, stages};
use crate::git::{self, CloneRequest, CloneWarning, Cloned, Control};
use crate::provider::Provider;
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
    let reached = remote::reach(prepared, request.provider, tools, control, log, subject).await?;
    let wanted =
        CloneRequest { reference: request.reference.clone(), depth: request.depth, target: target.clone() };
    // Git watches deadline and cancel itself and is awaited to its end, so that nothing is left behind.
    let cloned = git::clone(&reached.remote, &wanted, control, log).await;
    let cloned = cloned.map_err(|error| Failure::of_git(error, subject.provider))?;
    Ok((cloned, target, reached.is_plain))
}
