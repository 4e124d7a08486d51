//! The clone: policy, a measured connection, and git into a directory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::diagnose::{self, Failure, Subject};
use super::remote::Reached;
use super::submodules::{self, Along, Submodules, Taken, Which};
use super::{TargetSpec, Tools, lfs, login, remote, stages};
use crate::git::lfs::LfsRemote;
use crate::git::{self, CloneRequest, CloneWarning, Cloned, Control, Draft, Source, Want};
use crate::provider::Provider;
use crate::report::{Code, Diagnosis, Stage, StageLog, StageRecord};
use crate::workspace::PlaceError;

/// A clone as it was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is cloned.
    pub target: TargetSpec,
    /// The kind of server, where the client names it.
    pub provider: Option<Provider>,
    /// The name of the credential; the server's own where it is missing.
    pub credential: Option<String>,
    /// What is fetched.
    pub want: Want,
    /// Only these files and directories are written; everything where there are none.
    pub paths: Vec<String>,
    /// Whether objects of Git LFS come along; their files stay pointers where they do not.
    pub lfs: bool,
    /// Which submodules come along.
    pub submodules: Submodules,
    /// Where it goes.
    pub destination: Destination,
}

/// Where a clone goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Into this directory, which is empty or does not exist.
    Directory(PathBuf),
    /// Into a workspace of this name.
    Workspace {
        /// The name, without a slash.
        name: String,
        /// Where it is to be instead of among the agent's own, below a directory that the operator allows.
        directory: Option<PathBuf>,
    },
}

/// The outcome of a clone.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The commit that was checked out.
    pub commit: Option<String>,
    /// The full reference that it came from; `None` for a bare commit.
    pub reference: Option<String>,
    /// Where its objects came from.
    pub source: Option<Source>,
    /// Bytes that came over the line.
    pub received_bytes: u64,
    /// Objects that came over the line.
    pub received_objects: u64,
    /// Files in the tree that was checked out.
    pub files: u64,
    /// Files that are pointers of Git LFS.
    pub lfs_pointers: u64,
    /// Where submodules that came along are, in the order of the tree; those of submodules follow them.
    pub submodules: Vec<String>,
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
        Ok(done) => succeeded(done, log),
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

fn succeeded(done: Done, log: &StageLog) -> Report {
    let Done { cloned, path, is_plain, taken } = done;
    let mut warnings: Vec<Diagnosis> = cloned.warnings.iter().map(warning).collect();
    warnings.extend(taken.warnings);
    if !warnings.is_empty() {
        log.warn_at(Stage::Checkout);
    }
    if is_plain {
        log.warn_at(Stage::Connect);
        warnings.push(Diagnosis::new(Code::PlainHttp, Stage::Connect, "", vec![]));
    }
    Report {
        commit: Some(cloned.commit),
        reference: cloned.reference,
        source: Some(cloned.source),
        received_bytes: cloned.received_bytes,
        received_objects: cloned.received_objects,
        files: cloned.files,
        lfs_pointers: cloned.lfs_pointers,
        submodules: taken.paths,
        path: Some(path),
        stages: stages::succeeded(log),
        warnings,
        ..Report::default()
    }
}

fn warning(warning: &CloneWarning) -> Diagnosis {
    match warning {
        CloneWarning::WideEncoding => Diagnosis::new(Code::EncodingDiffers, Stage::Checkout, "", vec![]),
    }
}

/// What came of it.
struct Done {
    cloned: Cloned,
    path: PathBuf,
    /// Whether anything went over the line as it is.
    is_plain: bool,
    taken: Taken,
}

async fn work(
    request: &Request,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
    subject: &mut Subject,
) -> Result<Done, Failure> {
    let credential = request.credential.as_deref();
    let prepared = login::prepare(&request.target, credential, tools, control, log, subject).await?;
    let target = match &request.destination {
        Destination::Directory(path) => path.clone(),
        Destination::Workspace { name, directory } => {
            workspace(tools, name, directory.as_deref()).await.map_err(Failure::Place)?
        }
    };
    let identity = login::identity(prepared.credential.as_ref());
    let credential = prepared.credential.as_ref().map(|credential| credential.name.clone());
    let reached = remote::reach(prepared, request.provider, tools, control, log, subject).await?;
    let wanted = CloneRequest {
        want: request.want.clone(),
        paths: request.paths.clone(),
        target: target.clone(),
        means: tools.means(&reached.remote, &identity),
    };
    let of_git = |error| Failure::of_git(error, subject.provider);
    // What LFS lacks is found out before anything is fetched in vain.
    let lfs = match request.lfs {
        true => Some(lfs::remote(&reached.remote, &reached.place, &reached.server, tools, control).await?),
        false => None,
    };
    // Git watches deadline and cancel itself and is awaited to its end, so that nothing is left behind.
    let mut draft = git::draft(&reached.remote, &wanted, control, log).await.map_err(of_git)?;
    let along = Along { request, tools, control, log };
    let completed =
        complete(&mut draft, lfs.as_ref(), &along, &reached, credential.as_deref(), subject).await;
    let taken = match completed {
        Ok(taken) => taken,
        Err(failed) => {
            draft.discard().await;
            return Err(failed);
        }
    };
    let of_git = |error| Failure::of_git(error, subject.provider);
    let cloned = draft.deliver(control, log).await.map_err(of_git)?;
    note(tools, &request.destination, &subject.url, &cloned.commit).await;
    Ok(Done { cloned, path: target, is_plain: reached.is_plain || taken.is_plain, taken })
}

/// Puts into a clone what else was asked for.
async fn complete(
    draft: &mut Draft,
    lfs: Option<&LfsRemote>,
    along: &Along<'_>,
    reached: &Reached,
    credential: Option<&str>,
    subject: &Subject,
) -> Result<Taken, Failure> {
    let of_git = |error| Failure::of_git(error, subject.provider);
    if let Some(remote) = lfs {
        draft.fetch_lfs(remote, along.control, along.log).await.map_err(of_git)?;
    }
    if along.request.submodules.which == Which::Nothing {
        return Ok(Taken::default());
    }
    submodules::take_along(draft, along, reached, credential).await
}

/// A place for a workspace. Files are looked at for that.
async fn workspace(tools: &Tools, name: &str, directory: Option<&Path>) -> Result<PathBuf, PlaceError> {
    let nowhere = || PlaceError::NotAllowed { directory: directory.unwrap_or(Path::new(name)).to_owned() };
    let Some(workspaces) = tools.workspaces.clone() else { return Err(nowhere()) };
    let (owned_name, owned) = (name.to_owned(), directory.map(Path::to_owned));
    let placed = tokio::task::spawn_blocking(move || workspaces.place(&owned_name, owned.as_deref())).await;
    placed.unwrap_or_else(|_| Err(nowhere()))
}

/// Takes note of a workspace that was delivered.
async fn note(tools: &Tools, destination: &Destination, url: &str, commit: &str) {
    let (Destination::Workspace { name, directory: None }, Some(workspaces)) =
        (destination, tools.workspaces.clone())
    else {
        return;
    };
    let (name, url, commit) = (name.clone(), url.to_owned(), commit.to_owned());
    let noted = tokio::task::spawn_blocking(move || workspaces.note(&name, &url, &commit)).await;
    // Without its note it is there for now, and gone after the next start.
    if !matches!(noted, Ok(Ok(()))) {
        tracing::warn!("no note of a workspace could be taken");
    }
}
