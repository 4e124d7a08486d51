//! The clone: policy, a measured connection, and git into a directory.

mod deliver;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::diagnose::{self, Failure, Subject};
use super::files::{FileAnswer, MAX_CONTENT_BYTES, content};
use super::remote::{self, Reached};
use super::submodules::{self, Along, Submodules, Taken, Which};
use super::{TargetSpec, Tools, lfs, login, stages};
use crate::artifact::Uploaded;
use crate::git::lfs::LfsRemote;
use crate::git::{
    self, Announce, ArchiveFormat, Bare, CloneRequest, CloneWarning, Cloned, Control, Draft, Means, Source,
    Want,
};
use crate::provider::Provider;
use crate::report::{Code, Diagnosis, Stage, StageLog, StageRecord};
use crate::secret::Redaction;
use crate::workspace::{PlaceError, Workspaces};
use deliver::{Form, Order};

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
    /// Nowhere: it is made, looked at and removed.
    Nowhere,
    /// To the control plane, as an archive of its files.
    Archive(ArchiveFormat, Attempt),
    /// To the control plane, as a bundle of its history.
    Bundle(Attempt),
    /// Into the report: the files at the request's paths.
    Inline,
}

/// For which attempt something is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The task.
    pub task_id: String,
    /// The number of the attempt.
    pub number: u32,
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
    /// What was delivered to the control plane.
    pub artifact: Option<Uploaded>,
    /// The files that were asked for inline.
    pub contents: Vec<FileAnswer>,
    /// Paths that were asked for and are not in the commit.
    pub missing: Vec<String>,
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
    let outcome = Box::pin(work(request, &tools, control, log, &mut subject, &redaction)).await;
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

/// What came of a clone.
struct Done {
    cloned: Cloned,
    path: Option<PathBuf>,
    artifact: Option<Uploaded>,
    contents: Vec<FileAnswer>,
    missing: Vec<String>,
    taken: Taken,
    is_plain: bool,
}

fn succeeded(done: Done, log: &StageLog) -> Report {
    let Done { cloned, path, artifact, contents, missing, taken, is_plain } = done;
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
        path,
        artifact,
        contents,
        missing,
        submodules: taken.paths,
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

async fn work(
    request: &Request,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
    subject: &mut Subject,
    redaction: &Redaction,
) -> Result<Done, Failure> {
    let credential = request.credential.as_deref();
    let prepared = login::prepare(&request.target, credential, tools, control, log, subject).await?;
    let identity = login::identity(prepared.credential.as_ref());
    let target = match &request.destination {
        Destination::Directory(path) => path.clone(),
        Destination::Workspace { name, directory } => {
            if directory.is_some() {
                settled(tools, control).await?;
            }
            workspace(tools, name, directory.as_deref()).await.map_err(Failure::Place)?
        }
        _ => tools.temporary.join("checked"),
    };
    let credential = prepared.credential.as_ref().map(|credential| credential.name.clone());
    let reached = remote::reach(prepared, request.provider, tools, control, log, subject).await?;
    let means = tools.means(&reached.remote, &identity);
    let way = Way { request, reached: &reached, tools, means, credential };
    let (mut done, missing) = match &request.destination {
        Destination::Directory(_) | Destination::Workspace { .. } | Destination::Nowhere => {
            (way.files(target, control, log, subject).await?, Vec::new())
        }
        Destination::Archive(format, attempt) => {
            way.artifact(Form::Archive(*format), attempt, control, log, subject).await?
        }
        Destination::Bundle(attempt) => way.artifact(Form::Bundle, attempt, control, log, subject).await?,
        Destination::Inline => way.inline(control, log, subject, redaction).await?,
    };
    done.missing = missing;
    done.is_plain = reached.is_plain || done.taken.is_plain;
    Ok(done)
}

/// A clone on its way, once its server was reached.
struct Way<'a> {
    request: &'a Request,
    reached: &'a Reached,
    tools: &'a Tools,
    means: Means,
    /// The name of the credential.
    credential: Option<String>,
}

impl Way<'_> {
    /// Files in a directory, which is put in its place or, where nobody wants it, removed.
    async fn files(
        &self,
        target: PathBuf,
        control: &Control,
        log: &StageLog,
        subject: &Subject,
    ) -> Result<Done, Failure> {
        let Reached { remote, place, server, .. } = self.reached;
        let of_git = |error| Failure::of_git(error, subject.provider);
        let wanted = CloneRequest {
            want: self.request.want.clone(),
            paths: self.request.paths.clone(),
            target: target.clone(),
            means: self.means.clone(),
            announce: announce(self.tools, &self.request.destination),
        };
        // What LFS lacks is found out before anything is fetched in vain.
        let lfs = match self.request.lfs {
            true => Some(lfs::remote(remote, place, server, self.tools, control).await?),
            false => None,
        };
        // Git watches deadline and cancel itself and is awaited to its end, so that nothing is left behind.
        let mut draft = git::draft(remote, &wanted, control, log).await.map_err(of_git)?;
        let along = Along { request: self.request, tools: self.tools, control, log };
        let credential = self.credential.as_deref();
        let completed = complete(&mut draft, lfs.as_ref(), &along, self.reached, credential, subject).await;
        let taken = match completed {
            Ok(taken) => taken,
            Err(failed) => {
                draft.discard().await;
                return Err(failed);
            }
        };
        if self.request.destination == Destination::Nowhere {
            let cloned = draft.cloned.clone();
            draft.discard().await;
            return Ok(Done { taken, ..Done::of(cloned, None) });
        }
        let noted = self.workspace();
        if let Some((workspaces, name)) = noted {
            draft.announce_to(workspaces.announce_workspace(name, &subject.url, &draft.cloned.commit));
        }
        let delivered = draft.deliver(control, log).await;
        if let (Err(_), Some((workspaces, name))) = (&delivered, noted) {
            let (workspaces, name) = (Arc::clone(workspaces), name.to_owned());
            // What is left of it is in nobody's way, and goes at the next start.
            let _ = tokio::task::spawn_blocking(move || workspaces.give_up(&name)).await;
        }
        let cloned = delivered.map_err(of_git)?;
        Ok(Done { taken, ..Done::of(cloned, Some(target)) })
    }

    /// The workspace of the agent's own that it goes into.
    fn workspace(&self) -> Option<(&Arc<Workspaces>, &str)> {
        match &self.request.destination {
            Destination::Workspace { name, directory: None } => {
                Some((self.tools.workspaces.as_ref()?, name.as_str()))
            }
            _ => None,
        }
    }

    async fn artifact(
        &self,
        form: Form,
        attempt: &Attempt,
        control: &Control,
        log: &StageLog,
        subject: &Subject,
    ) -> Result<(Done, Vec<String>), Failure> {
        let mut means = self.means.clone();
        if form == Form::Bundle {
            // The pack of a bundle is the one that comes for it; one out of a mirror would have to be made anew.
            means.mirror = None;
        }
        let order = Order { form, attempt };
        let remote = &self.reached.remote;
        let sent = deliver::send(self.request, order, remote, &means, self.tools, control, log);
        let sent = sent.await.map_err(|failure| match failure {
            Failure::Git(error) => Failure::of_git(error, subject.provider),
            other => other,
        })?;
        let mut done = Done::of(of_bare(sent.bare, control), None);
        done.artifact = Some(sent.uploaded);
        Ok((done, sent.missing))
    }

    async fn inline(
        &self,
        control: &Control,
        log: &StageLog,
        subject: &Subject,
        redaction: &Redaction,
    ) -> Result<(Done, Vec<String>), Failure> {
        let of_git = |error| Failure::of_git(error, subject.provider);
        let read = deliver::read(self.request, &self.reached.remote, &self.means, self.tools, control, log);
        let read = read.await.map_err(of_git)?;
        let cloned = Cloned {
            commit: read.commit,
            reference: read.reference,
            source: read.source,
            received_bytes: control.transfer.received_bytes(),
            received_objects: control.transfer.received_objects(),
            files: read.files.len() as u64,
            lfs_pointers: 0,
            submodules: 0,
            bytes: 0,
            warnings: Vec::new(),
        };
        let mut done = Done::of(cloned, None);
        done.contents = content::all(read.files, MAX_CONTENT_BYTES, redaction).map_err(of_git)?;
        done.cloned.lfs_pointers = done.contents.iter().filter(|file| file.is_lfs_pointer).count() as u64;
        Ok((done, read.missing))
    }
}

impl Done {
    fn of(cloned: Cloned, path: Option<PathBuf>) -> Self {
        Self {
            cloned,
            path,
            artifact: None,
            contents: Vec::new(),
            missing: Vec::new(),
            taken: Taken::default(),
            is_plain: false,
        }
    }
}

fn of_bare(bare: Bare, control: &Control) -> Cloned {
    Cloned {
        commit: bare.commit,
        reference: bare.reference,
        source: bare.source,
        received_bytes: control.transfer.received_bytes(),
        received_objects: control.transfer.received_objects(),
        files: bare.files,
        lfs_pointers: bare.lfs_pointers,
        submodules: bare.submodules,
        bytes: 0,
        warnings: Vec::new(),
    }
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

/// Waits until what other attempts have left in directories of the operator's is gone, if it does not count.
async fn settled(tools: &Tools, control: &Control) -> Result<(), Failure> {
    let Some(workspaces) = &tools.workspaces else { return Ok(()) };
    tokio::select! {
        biased;
        () = workspaces.removed() => {}
        () = control.cancel.cancelled() => {}
        () = tokio::time::sleep_until(control.deadline) => {}
    }
    control.check().map_err(Failure::Git)
}

/// Who takes note of a clone that goes into a directory of the operator's.
fn announce(tools: &Tools, destination: &Destination) -> Option<Announce> {
    let Destination::Workspace { name, directory: Some(_) } = destination else { return None };
    tools.workspaces.as_ref().map(|workspaces| workspaces.announce(name))
}
