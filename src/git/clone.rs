//! A clone of one reference: negotiated, received, indexed, checked out, and put in its place when whole.

use std::path::PathBuf;
use std::sync::Arc;

use git2::{AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, Progress, RemoteCallbacks};
use git2::{Repository, RepositoryInitOptions};

use super::checkout::{self, CheckedOut};
use super::foreign::take_packs;
use super::pkt::scrubbed;
use super::references::{advertised, connect_error, internal};
use super::refname::{self, Selected};
use super::target::Scratch;
use super::wire::Wire;
use super::{
    Advertisement, Control, Engine, Error, Limit, PackProblem, Phase, Remote, blocking, is_acceptable_name,
};
use crate::report::{Stage, StageLog};

/// The name of the remote in a clone.
const REMOTE: &str = "origin";

/// What to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloneRequest {
    /// A branch, a tag, a full name of a reference or a full commit; `None` is what the server's `HEAD` is.
    pub reference: Option<String>,
    /// How many commits of its history, from 1; `None` is all.
    pub depth: Option<u32>,
    /// Where to: a directory that is empty or does not exist.
    pub target: PathBuf,
    /// Only what lies below these paths is written; everything where there are none.
    pub paths: Vec<String>,
    /// What does the two pieces of work in which time is spent.
    pub engine: Engine,
}

/// What a clone brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloned {
    /// The commit that is checked out, in hex.
    pub commit: String,
    /// The full name of the reference it was cloned by; `None` for a bare commit.
    pub reference: Option<String>,
    /// Bytes received over the network.
    pub received_bytes: u64,
    /// Objects received.
    pub received_objects: u64,
    /// Files and symbolic links in the working directory.
    pub files: u64,
    /// Files that are pointers of Git LFS; they stay pointers.
    pub lfs_pointers: u64,
    /// Submodules, which are left out.
    pub submodules: u64,
    /// What else there is to say.
    pub warnings: Vec<CloneWarning>,
}

/// What there is to say of a clone that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneWarning {
    /// Attributes ask for files in UTF-16 or UTF-32, in which other programs may expect a mark of the byte order.
    WideEncoding,
}

/// Clones one reference into a directory.
///
/// The directory comes into being whole, by a rename, or not at all: after a failure, a cancel, the deadline
/// or a caller who dropped the future nothing is left. Stages are those of [`super::summarize`], then
/// `negotiate`, `receive`, `index`, `checkout` and `deliver`. No secret is in any file of it.
///
/// # Errors
/// Why there is no clone; [`Error::stage`] says where.
pub async fn clone(
    remote: &Remote,
    request: &CloneRequest,
    control: &Control,
    log: &StageLog,
) -> Result<Cloned, Error> {
    if let Some(name) = request.reference.as_deref().filter(|name| !is_acceptable_name(name)) {
        return Err(Error::ReferenceInvalid { name: scrubbed(name.as_bytes()) });
    }
    let request = request.clone();
    blocking::run(remote, control, log, move |wire| clone_here(wire, &request)).await
}

fn clone_here(wire: &Arc<Wire>, request: &CloneRequest) -> Result<Cloned, Error> {
    let scratch = Scratch::prepare(&request.target)?;
    let repository = initialize(wire, &scratch)?;
    if request.engine == Engine::Gix {
        let odb = repository.odb().map_err(|error| write_error(&scratch, "opening the objects", &error))?;
        take_packs(&odb, repository.path().join("objects/pack"))
            .map_err(|error| internal("taking packs", &error))?;
    }
    let fetched = fetch(wire, request, &repository, &scratch)?;
    let commit = peel(&repository, &fetched)?;
    let checked_out =
        checkout::check_out(wire, &repository, commit, &request.paths, request.engine, &scratch)?;
    attach(&repository, &fetched, commit, request.depth.is_some())
        .map_err(|error| write_error(&scratch, "setting the references", &error))?;
    if let Some(url) = wire.url_of_origin() {
        repository
            .remote_set_url(REMOTE, &url)
            .map_err(|error| write_error(&scratch, "setting the remote's URL", &error))?;
    }
    drop(repository);
    wire.log.begin(Stage::Deliver);
    wire.control.check()?;
    scratch.deliver()?;
    wire.log.pass();
    Ok(cloned(wire, &fetched, commit, &checked_out))
}

fn cloned(wire: &Wire, fetched: &Fetched, commit: Oid, checked_out: &CheckedOut) -> Cloned {
    let reference = match &fetched.selected {
        Selected::Branch { name, .. } => Some(name.clone()),
        Selected::Detached { name, .. } if name != "HEAD" => Some(name.clone()),
        Selected::Detached { .. } | Selected::Commit(_) => None,
    };
    Cloned {
        commit: commit.to_string(),
        reference,
        received_bytes: wire.control.transfer.received_bytes(),
        received_objects: wire.control.transfer.received_objects(),
        files: checked_out.files,
        lfs_pointers: checked_out.lfs_pointers,
        submodules: checked_out.submodules,
        warnings: checked_out.has_wide_encoding.then_some(CloneWarning::WideEncoding).into_iter().collect(),
    }
}

/// An empty repository without templates, hooks and anything of this host's configuration.
fn initialize(wire: &Wire, scratch: &Scratch) -> Result<Repository, Error> {
    let mut options = RepositoryInitOptions::new();
    options.external_template(false).no_reinit(true).mkdir(false).mkpath(false);
    let made = Repository::init_opts(scratch.path(), &options).and_then(|repository| {
        let mut config = repository.config()?;
        // These are off by default on Linux, but clones travel.
        config.set_bool("core.protectHFS", true)?;
        config.set_bool("core.protectNTFS", true)?;
        repository.remote(REMOTE, &wire.url_for_git())?;
        Ok(repository)
    });
    let repository = made.map_err(|error| write_error(scratch, "making the repository", &error))?;
    // libgit2 puts an executable sample there.
    let hooks = repository.path().join("hooks");
    match std::fs::remove_dir_all(&hooks) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(scratch.write_error()),
        _ => Ok(repository),
    }
}

/// What came.
struct Fetched {
    selected: Selected,
    list: Advertisement,
    /// Whether all branches came, because the server does not give out a commit alone.
    all_branches: bool,
}

fn fetch(
    wire: &Arc<Wire>,
    request: &CloneRequest,
    repository: &Repository,
    scratch: &Scratch,
) -> Result<Fetched, Error> {
    let mut remote =
        repository.find_remote(REMOTE).map_err(|error| internal("opening the remote", &error))?;
    let connected = remote.connect_auth(Direction::Fetch, None, None);
    let mut connection = connected.map_err(|error| connect_error(wire, &error))?;
    let list = advertised(wire);
    let selected = select(request, &list)?;
    let max_objects = wire.control.limits.max_objects;
    wire.log.begin(Stage::Negotiate);
    wire.observer().expect_pack(max_objects);
    let (refspecs, depth, all_branches) = wanted(wire, &selected, &list, request.depth);
    let mut options = FetchOptions::new();
    if request.engine == Engine::Libgit2 {
        options.remote_callbacks(callbacks(wire));
    }
    options.download_tags(AutotagOption::None).update_fetchhead(false);
    if let Some(depth) = depth {
        options.depth(i32::try_from(depth).unwrap_or(i32::MAX));
    }
    let downloaded = connection.remote().download(&refspecs, Some(&mut options));
    drop(options);
    downloaded.map_err(|error| download_error(wire, scratch, &selected, &error))?;
    // The pack is there behind libgit2's back.
    let refreshed = repository.odb().and_then(|odb| odb.refresh());
    refreshed.map_err(|error| internal("reading the objects", &error))?;
    let transfer = &wire.control.transfer;
    wire.log.fact_at(Stage::Receive, "bytes", transfer.received_bytes());
    wire.log.fact_at(Stage::Receive, "objects", transfer.received_objects());
    Ok(Fetched { selected, list, all_branches })
}

fn select(request: &CloneRequest, list: &Advertisement) -> Result<Selected, Error> {
    if list.is_empty() {
        return Err(Error::Empty);
    }
    let wanted = request.reference.as_deref().filter(|name| *name != "HEAD");
    let by_head = || list.head_branch.as_deref().and_then(|branch| refname::select(branch, &list.references));
    let selected = match wanted {
        Some(name) => refname::select(name, &list.references),
        None => by_head().or_else(|| {
            let oid = Oid::from_str(list.head.as_deref()?).ok()?;
            Some(Selected::Detached { name: "HEAD".to_owned(), oid })
        }),
    };
    selected.ok_or_else(|| {
        let name = wanted.or(list.head_branch.as_deref()).unwrap_or("HEAD");
        Error::ReferenceNotFound { name: name.to_owned(), near: refname::near(name, &list.references) }
    })
}

/// The refspecs for one reference: never more than is asked for, unless the server cannot give out a commit by
/// its identifier.
fn wanted(
    wire: &Wire,
    selected: &Selected,
    list: &Advertisement,
    depth: Option<u32>,
) -> (Vec<String>, Option<u32>, bool) {
    let oid = match selected {
        Selected::Branch { name, .. } => return (vec![tracking_refspec(name)], depth, false),
        Selected::Detached { name, .. } => return (vec![format!("+{name}:{name}")], depth, false),
        Selected::Commit(oid) => oid.to_string(),
    };
    if let Some(tip) = list.references.iter().find(|reference| reference.oid == oid) {
        return (vec![format!("+{0}:{0}", tip.name)], depth, false);
    }
    if wire.observer().has_capability("allow-reachable-sha1-in-want") {
        return (vec![format!("+{oid}:refs/commit")], depth, false);
    }
    // The commit may lie deep, so its history comes whole.
    (
        vec!["+refs/heads/*:refs/remotes/origin/*".to_owned(), "+refs/tags/*:refs/tags/*".to_owned()],
        None,
        true,
    )
}

fn short_branch(name: &str) -> &str {
    name.strip_prefix("refs/heads/").unwrap_or(name)
}

fn tracking_refspec(branch: &str) -> String {
    format!("+{branch}:refs/remotes/{REMOTE}/{}", short_branch(branch))
}

fn callbacks<'a>(wire: &Arc<Wire>) -> RemoteCallbacks<'a> {
    let wire = Arc::clone(wire);
    let mut callbacks = RemoteCallbacks::new();
    callbacks.transfer_progress(move |progress| match follow(&wire, &progress) {
        Ok(()) => true,
        Err(error) => {
            // libgit2 stops at `false`; why is recorded.
            let _ = wire.fail(error);
            false
        }
    });
    callbacks
}

/// Follows libgit2 through the pack: counters, stages, limits, and whether to go on.
fn follow(wire: &Wire, progress: &Progress<'_>) -> Result<(), Error> {
    wire.control.check()?;
    let (received, total) = (progress.received_objects(), progress.total_objects());
    let transfer = &wire.control.transfer;
    transfer.set_objects(received, total);
    if total as u64 > wire.control.limits.max_objects {
        return Err(Error::TooLarge { what: Limit::Objects, limit: wire.control.limits.max_objects });
    }
    let phase = if total > 0 && received == total { Phase::Indexing } else { Phase::Receiving };
    if transfer.phase() != phase {
        if transfer.phase() == Phase::Connecting {
            wire.log.begin(Stage::Receive);
        }
        if phase == Phase::Indexing {
            wire.log.begin(Stage::Index);
            wire.log.fact("objects", total);
        }
        transfer.set_phase(phase);
    }
    Ok(())
}

/// What it means that libgit2 could not fetch, where no transport recorded why.
fn download_error(wire: &Wire, scratch: &Scratch, selected: &Selected, error: &git2::Error) -> Error {
    if let Some(message) = wire.observer().error() {
        if let Selected::Commit(oid) = selected {
            return Error::ReferenceNotFound { name: oid.to_string(), near: Vec::new() };
        }
        return Error::RepositoryUnavailable { exit_status: None, message: message.to_owned() };
    }
    match error.class() {
        ErrorClass::Os | ErrorClass::Filesystem => scratch.write_error(),
        ErrorClass::Net if error.code() == ErrorCode::Eof => Error::PackCorrupt(PackProblem::Truncated),
        ErrorClass::Net if wire.control.transfer.total_objects() > 0 => {
            Error::PackCorrupt(PackProblem::Truncated)
        }
        ErrorClass::Net => Error::Protocol { first_bytes: String::new() },
        ErrorClass::Indexer | ErrorClass::Odb | ErrorClass::Zlib | ErrorClass::Object | ErrorClass::Sha1 => {
            Error::PackCorrupt(PackProblem::Damaged)
        }
        _ => scratch.unless_disk_is_full(internal("fetching", error)),
    }
}

/// What it means that libgit2 could not write.
pub(super) fn write_error(scratch: &Scratch, what: &'static str, error: &git2::Error) -> Error {
    match error.class() {
        ErrorClass::Os | ErrorClass::Filesystem | ErrorClass::Index | ErrorClass::Config => {
            scratch.write_error()
        }
        _ => scratch.unless_disk_is_full(internal(what, error)),
    }
}

/// The commit that a reference leads to, through tags.
fn peel(repository: &Repository, fetched: &Fetched) -> Result<Oid, Error> {
    let (Selected::Branch { oid, .. } | Selected::Detached { oid, .. } | Selected::Commit(oid)) =
        &fetched.selected;
    let found = repository.find_object(*oid, None);
    let object = found.map_err(|_| match &fetched.selected {
        Selected::Commit(oid) => Error::ReferenceNotFound { name: oid.to_string(), near: Vec::new() },
        _ => Error::PackCorrupt(PackProblem::ObjectMissing),
    })?;
    let commit = object.peel_to_commit();
    let name = || match &fetched.selected {
        Selected::Branch { name, .. } | Selected::Detached { name, .. } => name.clone(),
        Selected::Commit(oid) => oid.to_string(),
    };
    // A tag may lead to a tree or a file: there is nothing to check out then.
    let commit = commit.map_err(|_| Error::ReferenceNotFound { name: name(), near: Vec::new() })?;
    Ok(commit.id())
}

/// Sets references and configuration, so that the clone is one that git itself could have made.
fn attach(
    repository: &Repository,
    fetched: &Fetched,
    commit: Oid,
    is_shallow: bool,
) -> Result<(), git2::Error> {
    const MESSAGE: &str = "clone";
    let set = |name: &str, oid| repository.reference(name, oid, true, MESSAGE).map(drop);
    if fetched.all_branches {
        for reference in &fetched.list.references {
            if let Some(branch) = reference.name.strip_prefix("refs/heads/") {
                set(&format!("refs/remotes/{REMOTE}/{branch}"), Oid::from_str(&reference.oid)?)?;
            }
        }
    }
    match &fetched.selected {
        Selected::Branch { name, oid } => {
            let branch = short_branch(name);
            let tracking = format!("refs/remotes/{REMOTE}/{branch}");
            set(&tracking, *oid)?;
            set(name, commit)?;
            repository
                .find_branch(branch, git2::BranchType::Local)?
                .set_upstream(Some(&format!("{REMOTE}/{branch}")))?;
            if fetched.list.head_branch.as_deref() == Some(name) {
                let head = format!("refs/remotes/{REMOTE}/HEAD");
                repository.reference_symbolic(&head, &tracking, true, MESSAGE)?;
            }
            if is_shallow {
                // A later fetch of all branches would bring their whole history.
                let key = format!("remote.{REMOTE}.fetch");
                repository.config()?.set_str(&key, &tracking_refspec(name))?;
            }
            repository.set_head(name)
        }
        Selected::Detached { name, oid } => {
            if name.starts_with("refs/") {
                set(name, *oid)?;
            }
            repository.set_head_detached(commit)
        }
        Selected::Commit(_) => repository.set_head_detached(commit),
    }
}
