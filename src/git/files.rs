//! A few files of one commit, by git: the commit alone is fetched, into a directory that goes away again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, ObjectType, Oid, Progress};
use git2::{RemoteCallbacks, Repository, RepositoryInitOptions, Tree};

use super::pkt::scrubbed;
use super::references::{advertised, connect_error, internal};
use super::refname::{self, Selected};
use super::target::Scratch;
use super::wire::Wire;
use super::{Advertisement, Control, Error, Limit, PackProblem, Phase, Remote, blocking, is_acceptable_name};
use crate::report::{Stage, StageLog};

/// How many of the paths an error names.
const MAX_NAMED_PATHS: usize = 5;

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesRequest {
    /// A branch, a tag, a full name of a reference or a full commit; `None` is what the server's `HEAD` is.
    pub reference: Option<String>,
    /// Paths from the repository's root, without slashes at their ends.
    pub paths: Vec<String>,
    /// A path that does not exist. A directory beside it holds what is fetched, and is removed.
    pub scratch: PathBuf,
    /// How many bytes all files may have together.
    pub max_bytes: u64,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedFiles {
    /// The commit, in hex.
    pub commit: String,
    /// The full name of the reference; `None` for a bare commit.
    pub reference: Option<String>,
    /// What is there, in the order of the request.
    pub files: Vec<FetchedFile>,
    /// Paths at which nothing is.
    pub missing: Vec<String>,
}

/// What is at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedFile {
    /// The path.
    pub path: String,
    /// The mode by git's rules, as 0o100644.
    pub mode: u32,
    /// The bytes of a file, or where a symbolic link leads; `None` for a directory and a submodule.
    pub content: Option<Vec<u8>>,
}

impl FetchedFiles {
    /// Itself, where anything was found.
    ///
    /// # Errors
    /// [`Error::PathNotFound`] where nothing was.
    pub fn some(self) -> Result<Self, Error> {
        if !self.files.is_empty() {
            return Ok(self);
        }
        let paths = self.missing.iter().take(MAX_NAMED_PATHS).map(|path| scrubbed(path.as_bytes())).collect();
        Err(Error::PathNotFound { paths })
    }
}

/// The name of a blob, in hex; `None` where it cannot be computed.
pub fn blob_id(content: &[u8]) -> Option<String> {
    Oid::hash_object(ObjectType::Blob, content).ok().map(|oid| oid.to_string())
}

/// Reads files of one commit. Stages are those of [`super::summarize`], then `negotiate`, `receive`, `index` and
/// `checkout`. After it nothing is left on the disk, however it ends.
///
/// # Errors
/// Why there are none; [`Error::PathNotFound`] where nothing is at any path, [`Error::TooLarge`] where they have more
/// bytes than wanted. [`Error::stage`] says where.
pub async fn fetch_files(
    remote: &Remote,
    request: &FilesRequest,
    control: &Control,
    log: &StageLog,
) -> Result<FetchedFiles, Error> {
    if let Some(name) = request.reference.as_deref().filter(|name| !is_acceptable_name(name)) {
        return Err(Error::ReferenceInvalid { name: scrubbed(name.as_bytes()) });
    }
    let request = request.clone();
    blocking::run(remote, control, log, move |wire| {
        let scratch = Scratch::prepare(&request.scratch)?;
        fetch_into(wire, &request, &scratch)
    })
    .await
}

fn fetch_into(wire: &Arc<Wire>, request: &FilesRequest, scratch: &Scratch) -> Result<FetchedFiles, Error> {
    let mut options = RepositoryInitOptions::new();
    options.bare(true).external_template(false).no_reinit(true).mkdir(false).mkpath(false);
    let made = Repository::init_opts(scratch.path(), &options);
    let repository = made.map_err(|error| write_error(scratch, "making the repository", &error))?;
    let selected = fetch(wire, request, &repository, scratch)?;
    wire.log.begin(Stage::Checkout);
    let (commit, tree) = peel(&repository, &selected)?;
    let reference = match selected {
        Selected::Branch { name, .. } => Some(name),
        Selected::Detached { name, .. } => Some(name).filter(|name| name != "HEAD"),
        Selected::Commit(_) => None,
    };
    let mut read =
        FetchedFiles { commit: commit.to_string(), reference, files: Vec::new(), missing: Vec::new() };
    let mut bytes_left = request.max_bytes;
    for path in &request.paths {
        wire.control.check()?;
        match read_one(&repository, &tree, path, bytes_left, request.max_bytes)? {
            Some(file) => {
                bytes_left -= file.content.as_ref().map_or(0, |content| content.len() as u64);
                read.files.push(file);
            }
            None => read.missing.push(path.clone()),
        }
    }
    let read = read.some()?;
    wire.log.fact("files", read.files.len());
    wire.log.pass();
    Ok(read)
}

/// What is at a path; links on the way to it are not followed, and nothing is behind them.
fn read_one(
    repository: &Repository,
    tree: &Tree<'_>,
    path: &str,
    bytes_left: u64,
    limit: u64,
) -> Result<Option<FetchedFile>, Error> {
    let entry = match tree.get_path(Path::new(path)) {
        Ok(entry) => entry,
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        Err(_) => return Err(Error::PackCorrupt(PackProblem::ObjectMissing)),
    };
    let content = if entry.kind() == Some(ObjectType::Blob) {
        let missing = |_| Error::PackCorrupt(PackProblem::ObjectMissing);
        let odb = repository.odb().map_err(|error| internal("opening the objects", &error))?;
        let (size, _) = odb.read_header(entry.id()).map_err(missing)?;
        if size as u64 > bytes_left {
            return Err(Error::TooLarge { what: Limit::AnswerBytes, limit });
        }
        Some(odb.read(entry.id()).map_err(missing)?.data().to_vec())
    } else {
        None
    };
    Ok(Some(FetchedFile { path: path.to_owned(), mode: entry.filemode().cast_unsigned(), content }))
}

fn fetch(
    wire: &Arc<Wire>,
    request: &FilesRequest,
    repository: &Repository,
    scratch: &Scratch,
) -> Result<Selected, Error> {
    let remote = repository.remote_anonymous(&wire.url_for_git());
    let mut remote = remote.map_err(|error| internal("opening the remote", &error))?;
    let connected = remote.connect_auth(Direction::Fetch, None, None);
    let mut connection = connected.map_err(|error| connect_error(wire, &error))?;
    let list = advertised(wire);
    let selected = select(request.reference.as_deref(), &list)?;
    wire.log.begin(Stage::Negotiate);
    wire.observer().expect_pack(wire.control.limits.max_objects);
    let (refspecs, depth) = wanted(wire, &selected, &list);
    let mut options = FetchOptions::new();
    options.remote_callbacks(callbacks(wire)).download_tags(AutotagOption::None).update_fetchhead(false);
    if let Some(depth) = depth {
        options.depth(depth);
    }
    let downloaded = connection.remote().download(&refspecs, Some(&mut options));
    drop(options);
    downloaded.map_err(|error| download_error(wire, scratch, &selected, &error))?;
    let transfer = &wire.control.transfer;
    wire.log.fact_at(Stage::Receive, "bytes", transfer.received_bytes());
    wire.log.fact_at(Stage::Receive, "objects", transfer.received_objects());
    Ok(selected)
}

fn select(reference: Option<&str>, list: &Advertisement) -> Result<Selected, Error> {
    if list.is_empty() {
        return Err(Error::Empty);
    }
    let wanted = reference.filter(|name| *name != "HEAD");
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

/// The refspecs for one commit. Only a server that does not give out a commit by its identifier is asked for more.
fn wanted(wire: &Wire, selected: &Selected, list: &Advertisement) -> (Vec<String>, Option<i32>) {
    let by_name = |name: &str| (vec![format!("+{name}:{name}")], Some(1));
    let oid = match selected {
        Selected::Branch { name, .. } | Selected::Detached { name, .. } => return by_name(name),
        Selected::Commit(oid) => oid.to_string(),
    };
    if let Some(tip) = list.references.iter().find(|reference| reference.oid == oid) {
        return by_name(&tip.name);
    }
    if wire.observer().has_capability("allow-reachable-sha1-in-want") {
        return (vec![format!("+{oid}:refs/commit")], Some(1));
    }
    (vec!["+refs/heads/*:refs/heads/*".to_owned(), "+refs/tags/*:refs/tags/*".to_owned()], None)
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

fn write_error(scratch: &Scratch, what: &'static str, error: &git2::Error) -> Error {
    match error.class() {
        ErrorClass::Os | ErrorClass::Filesystem | ErrorClass::Config => scratch.write_error(),
        _ => scratch.unless_disk_is_full(internal(what, error)),
    }
}

/// The commit that a reference leads to, through tags, and its tree.
fn peel<'a>(repository: &'a Repository, selected: &Selected) -> Result<(Oid, Tree<'a>), Error> {
    let (oid, name) = match selected {
        Selected::Branch { name, oid } | Selected::Detached { name, oid } => (oid, name.clone()),
        Selected::Commit(oid) => (oid, oid.to_string()),
    };
    let not_found = || Error::ReferenceNotFound { name: name.clone(), near: Vec::new() };
    let object = repository.find_object(*oid, None).map_err(|_| match selected {
        Selected::Commit(_) => not_found(),
        _ => Error::PackCorrupt(PackProblem::ObjectMissing),
    })?;
    // A tag may lead to a tree or a file: there is no commit to read then.
    let commit = object.peel_to_commit().map_err(|_| not_found())?;
    let tree = commit.tree().map_err(|_| Error::PackCorrupt(PackProblem::ObjectMissing))?;
    Ok((commit.id(), tree))
}
