//! A clone: fetched, checked out, and put in its place when whole.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{ErrorClass, Repository, RepositoryInitOptions};

use super::attach::{attach, peel};
use super::checkout::{self, CheckedOut};
use super::fetch::{Fetched, Means, REMOTE, Source, Want, fetch};
use super::lfs::{self, LfsRemote};
use super::pkt::scrubbed;
use super::references::internal;
use super::refname::Selected;
use super::target::{Announce, Scratch, unless_disk_is_full, write_error};
use super::wire::Wire;
use super::{Control, Error, PackProblem, Phase, Remote, blocking, is_acceptable_name, sparse};
use crate::report::{Stage, StageLog};

/// What to clone.
#[derive(Debug, Clone)]
pub struct CloneRequest {
    /// What is fetched.
    pub want: Want,
    /// Only what lies below these paths is written; everything where there are none.
    pub paths: Vec<String>,
    /// Where to: a directory that is empty or does not exist.
    pub target: PathBuf,
    /// How it is fetched and written.
    pub means: Means,
    /// Who takes note of it before it is in its place.
    pub announce: Option<Announce>,
}

/// What a clone brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloned {
    /// The commit that is checked out, in hex.
    pub commit: String,
    /// The full name of the reference it was cloned by; `None` for a bare commit.
    pub reference: Option<String>,
    /// Where its objects came from.
    pub source: Source,
    /// Bytes received over the network.
    pub received_bytes: u64,
    /// Objects received.
    pub received_objects: u64,
    /// Files and symbolic links in the working directory.
    pub files: u64,
    /// Bytes of all files as they are in the commit.
    pub bytes: u64,
    /// Files that are pointers of Git LFS and stay so.
    pub lfs_pointers: u64,
    /// Submodules of the commit itself, whether or not they are taken along.
    pub submodules: u64,
    /// What else there is to say.
    pub warnings: Vec<CloneWarning>,
}

/// What there is to say of a clone that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneWarning {
    /// Attributes ask for files in UTF-16 or UTF-32, whose mark of the byte order git writes and gix does not.
    WideEncoding,
}

/// A clone that is whole and not yet in its place, so that more can be put into it. Dropping it removes it.
pub struct Draft {
    pub(super) scratch: Option<Scratch>,
    /// What came so far.
    pub cloned: Cloned,
}

impl Draft {
    /// Where it is now.
    pub fn path(&self) -> &Path {
        self.scratch.as_ref().map_or(Path::new(""), Scratch::path)
    }

    /// Fetches the LFS objects of its files, and puts them in the place of their pointers.
    ///
    /// # Errors
    /// Why an object could not be had.
    pub async fn fetch_lfs(
        &mut self,
        remote: &LfsRemote,
        control: &Control,
        log: &StageLog,
    ) -> Result<(), Error> {
        let (work_tree, watched) = (self.path().to_owned(), control.clone());
        let open =
            move |path: &Path| Repository::open(path).map_err(|error| internal("opening the clone", &error));
        let tree = work_tree.clone();
        let files = blocking::files(move || lfs::find(&open(&tree)?, &watched)).await?;
        let git_directory = work_tree.join(".git");
        let reference = self.cloned.reference.as_deref();
        let fetched =
            lfs::fetch(&files, remote, reference, (&work_tree, &git_directory), control, log).await?;
        self.cloned.received_bytes = self.cloned.received_bytes.saturating_add(fetched.bytes);
        self.cloned.lfs_pointers = self.cloned.lfs_pointers.saturating_sub(fetched.files.len() as u64);
        blocking::files(move || lfs::refresh_index(&open(&work_tree)?, &fetched.files)).await
    }

    /// Lets somebody take note of it right before it is put in its place, instead of whoever the request named.
    pub fn announce_to(&mut self, announce: Announce) {
        if let Some(scratch) = &mut self.scratch {
            scratch.announce_to(announce);
        }
    }

    /// Puts it in its place: the stage `deliver`.
    ///
    /// # Errors
    /// Why it cannot be there; nothing of it is left then.
    pub async fn deliver(mut self, control: &Control, log: &StageLog) -> Result<Cloned, Error> {
        log.begin(Stage::Deliver);
        control.check()?;
        let scratch = self.scratch.take();
        let delivered = blocking::files(move || scratch.map_or(Ok(()), Scratch::deliver)).await;
        delivered?;
        log.pass();
        Ok(self.cloned)
    }

    /// Removes it, and returns when nothing of it is left.
    pub async fn discard(mut self) {
        let scratch = self.scratch.take();
        // There is nothing to be done about a directory that cannot be removed; it is logged where it happens.
        let _ = blocking::files(move || {
            drop(scratch);
            Ok(())
        })
        .await;
    }
}

/// Clones into a directory beside the target, which [`Draft::deliver`] puts in its place.
///
/// After a failure, a cancel, the deadline or a caller who dropped the future nothing is left. Stages are those of
/// [`super::summarize`], then `negotiate`, `receive`, `index` and `checkout`. No secret is in any file of it.
///
/// # Errors
/// Why there is no clone; [`Error::stage`] says where.
pub async fn draft(
    remote: &Remote,
    request: &CloneRequest,
    control: &Control,
    log: &StageLog,
) -> Result<Draft, Error> {
    check_name(&request.want)?;
    sparse::check(&request.paths)?;
    let request = request.clone();
    blocking::run(remote, control, log, move |wire| draft_here(wire, &request)).await
}

/// Clones into a directory: [`draft`], then [`Draft::deliver`].
///
/// # Errors
/// Those of both.
pub async fn clone(
    remote: &Remote,
    request: &CloneRequest,
    control: &Control,
    log: &StageLog,
) -> Result<Cloned, Error> {
    draft(remote, request, control, log).await?.deliver(control, log).await
}

/// What was fetched without being written as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bare {
    /// The repository's directory. It exists only while the work on it runs.
    pub repository: PathBuf,
    /// The commit, in hex.
    pub commit: String,
    /// The full name of the reference; `None` for a bare commit.
    pub reference: Option<String>,
    /// What the reference leads to, in hex: the commit, or a tag that leads to it.
    pub target: String,
    /// Where its objects came from.
    pub source: Source,
    /// Files and symbolic links of the commit.
    pub files: u64,
    /// Files that are pointers of Git LFS.
    pub lfs_pointers: u64,
    /// Submodules.
    pub submodules: u64,
}

/// Fetches into a repository without files below `directory`, looks at the trees of the commit, does some work on it,
/// and removes it.
///
/// The work runs on a blocking thread and looks at the control itself. Limits and unsafe paths are found before it
/// begins.
///
/// # Errors
/// Those of a clone, and those of the work.
pub async fn with_bare<T: Send + 'static>(
    remote: &Remote,
    want: &Want,
    means: &Means,
    directory: &Path,
    control: &Control,
    log: &StageLog,
    work: impl FnOnce(&Bare) -> Result<T, Error> + Send + 'static,
) -> Result<(T, Bare), Error> {
    check_name(want)?;
    let (want, means, directory) = (want.clone(), means.clone(), directory.to_owned());
    blocking::run(remote, control, log, move |wire| {
        let (scratch, bare) = healed(wire, &means, |means| {
            let scratch = Scratch::apart(&directory)?;
            let repository = initialize(wire, scratch.path(), true)?;
            let fetched = fetch(wire, &want, means, &repository)?;
            let commit = peel(&repository, &fetched)?;
            let seen = checkout::look_at(wire, &repository, commit, scratch.path())?;
            let bare = Bare {
                repository: repository.path().to_owned(),
                commit: commit.to_string(),
                reference: reference(&fetched),
                target: fetched.selected.target().unwrap_or(commit).to_string(),
                source: fetched.source,
                files: seen.files,
                lfs_pointers: seen.lfs_pointers,
                submodules: seen.submodules,
            };
            Ok((scratch, bare))
        })?;
        let done = work(&bare);
        drop(scratch);
        if let (Err(Error::PackCorrupt(_)), Some(place)) = (&done, &means.mirror)
            && place.was_used()
        {
            // Half of what came of it may be gone already; the next one begins with a new mirror.
            place.discard(wire)?;
        }
        Ok((done?, bare))
    })
    .await
}

fn check_name(want: &Want) -> Result<(), Error> {
    match want.reference.as_deref().filter(|name| !is_acceptable_name(name)) {
        Some(name) => Err(Error::ReferenceInvalid { name: scrubbed(name.as_bytes()) }),
        None => Ok(()),
    }
}

fn draft_here(wire: &Arc<Wire>, request: &CloneRequest) -> Result<Draft, Error> {
    healed(wire, &request.means, |means| {
        let scratch = Scratch::prepare(&request.target)?.announced(request.announce.as_ref())?;
        let repository = initialize(wire, scratch.path(), false)?;
        let fetched = fetch(wire, &request.want, means, &repository)?;
        let commit = peel(&repository, &fetched)?;
        if !request.paths.is_empty() {
            sparse::configure(&repository, &request.paths)
                .map_err(|error| git_error(scratch.path(), "choosing the paths", &error))?;
        }
        let checked_out =
            checkout::check_out(wire, &repository, commit, &request.paths, means.engine, &scratch)?;
        attach(wire, &repository, &fetched, &request.want, commit)
            .map_err(|error| git_error(scratch.path(), "setting the references", &error))?;
        wire.log.pass();
        let cloned = cloned(wire, &fetched, &commit.to_string(), &checked_out);
        Ok(Draft { scratch: Some(scratch), cloned })
    })
}

/// Does the work; where a mirror that took part turns out to be damaged, it is thrown away and the work is done once
/// more.
fn healed<T>(
    wire: &Wire,
    means: &Means,
    mut work: impl FnMut(&Means) -> Result<T, Error>,
) -> Result<T, Error> {
    // What was recorded where it happened counts: of a full disk, a limit or a cancel libgit2 says no more than that the
    // pack did not come, which is no fault of the mirror's.
    let before = stages(wire);
    let done = work(means).map_err(|error| wire.take_failure().unwrap_or(error));
    match (&done, &means.mirror) {
        // What the server cut short was no fault of the mirror's.
        (Err(Error::PackCorrupt(PackProblem::Truncated)), _) => done,
        (Err(Error::PackCorrupt(_) | Error::Internal { .. }), Some(place)) if place.was_used() => {
            tracing::warn!(mirror = place.key(), "a mirror is damaged and is made anew");
            place.discard(wire)?;
            // The report has each stage once: what is gone through again takes the place of what came to nothing.
            if let Some(first) = stages(wire).into_iter().find(|stage| !before.contains(stage)) {
                wire.log.take_from(first);
            }
            wire.control.transfer.set_phase(Phase::Connecting);
            work(means)
        }
        _ => done,
    }
}

fn stages(wire: &Wire) -> Vec<Stage> {
    wire.log.records().iter().map(|record| record.stage).collect()
}

fn cloned(wire: &Wire, fetched: &Fetched, commit: &str, checked_out: &CheckedOut) -> Cloned {
    Cloned {
        commit: commit.to_owned(),
        reference: reference(fetched),
        source: fetched.source,
        received_bytes: wire.control.transfer.received_bytes(),
        received_objects: wire.control.transfer.received_objects(),
        files: checked_out.files,
        bytes: checked_out.bytes,
        lfs_pointers: checked_out.lfs_pointers,
        submodules: checked_out.submodules,
        warnings: checked_out.has_wide_encoding.then_some(CloneWarning::WideEncoding).into_iter().collect(),
    }
}

fn reference(fetched: &Fetched) -> Option<String> {
    match &fetched.selected {
        Selected::Branch { name, .. } => Some(name.clone()),
        Selected::Detached { name, .. } if name != "HEAD" => Some(name.clone()),
        Selected::Detached { .. } | Selected::Commit(_) | Selected::Prefix(_) => None,
    }
}

/// An empty repository without templates, hooks and anything of this host's configuration.
fn initialize(wire: &Wire, directory: &Path, is_bare: bool) -> Result<Repository, Error> {
    let mut options = RepositoryInitOptions::new();
    options.external_template(false).no_reinit(true).mkdir(false).mkpath(false).bare(is_bare);
    let made = Repository::init_opts(directory, &options).and_then(|repository| {
        protect(&repository)?;
        repository.remote(REMOTE, &wire.url_for_git())?;
        Ok(repository)
    });
    let repository = made.map_err(|error| git_error(directory, "making the repository", &error))?;
    // libgit2 puts an executable sample there.
    match fs::remove_dir_all(repository.path().join("hooks")) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(write_error(directory)),
        _ => Ok(repository),
    }
}

/// Switches on what is off by default on Linux, because clones travel.
pub(super) fn protect(repository: &Repository) -> Result<(), git2::Error> {
    let mut config = repository.config()?;
    config.set_bool("core.protectHFS", true)?;
    config.set_bool("core.protectNTFS", true)
}

/// What it means that libgit2 could not write.
pub(super) fn git_error(directory: &Path, what: &'static str, error: &git2::Error) -> Error {
    match error.class() {
        ErrorClass::Os | ErrorClass::Filesystem | ErrorClass::Index | ErrorClass::Config => {
            write_error(directory)
        }
        _ => unless_disk_is_full(directory, internal(what, error)),
    }
}
