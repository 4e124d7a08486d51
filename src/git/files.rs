//! A few files of one commit, by git: the commit alone is fetched, into a directory that goes away again.

use std::path::Path;

use git2::{ErrorCode, ObjectType, Oid, Repository, Tree};

use super::pkt::scrubbed;
use super::references::internal;
use super::{Bare, Control, Error, Limit, Means, PackProblem, Remote, Source, Want, with_bare};
use crate::report::StageLog;

/// How many of the paths an error names.
const MAX_NAMED_PATHS: usize = 5;

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesRequest {
    /// A branch, a tag, a full name of a reference or a full commit; `None` is what the server's `HEAD` is.
    pub reference: Option<String>,
    /// Paths from the repository's root, without slashes at their ends.
    pub paths: Vec<String>,
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
    /// Where its objects came from.
    pub source: Source,
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
        Err(Error::PathNotFound { paths, near: Vec::new() })
    }
}

/// The name of a blob, in hex; `None` where it cannot be computed.
pub fn blob_id(content: &[u8]) -> Option<String> {
    Oid::hash_object(ObjectType::Blob, content).ok().map(|oid| oid.to_string())
}

/// Reads files of one commit, which is fetched into a directory of its own below `directory`. Stages are those of [`super::summarize`], then `negotiate`, `receive`, `index` and
/// `checkout`. After it nothing is left on the disk, however it ends.
///
/// # Errors
/// Why there are none; [`Error::PathNotFound`] where nothing is at any path, [`Error::TooLarge`] where they have more
/// bytes than wanted. [`Error::stage`] says where.
pub async fn fetch_files(
    remote: &Remote,
    request: &FilesRequest,
    means: &Means,
    directory: &Path,
    control: &Control,
    log: &StageLog,
) -> Result<FetchedFiles, Error> {
    let want = Want { reference: request.reference.clone(), depth: Some(1), ..Want::default() };
    let (wanted, watched, noted) = (request.clone(), control.clone(), log.clone());
    let work = move |bare: &Bare| read(bare, &wanted, &watched, &noted);
    let done = with_bare(remote, &want, means, directory, control, log, work).await;
    done.map(|(read, _)| read)
}

fn read(
    bare: &Bare,
    request: &FilesRequest,
    control: &Control,
    log: &StageLog,
) -> Result<FetchedFiles, Error> {
    let missing = |_| Error::PackCorrupt(PackProblem::ObjectMissing);
    let repository =
        Repository::open_bare(&bare.repository).map_err(|error| internal("opening it", &error))?;
    let oid = Oid::from_str(&bare.commit).map_err(missing)?;
    let tree = repository.find_commit(oid).and_then(|commit| commit.tree()).map_err(missing)?;
    let mut read = FetchedFiles {
        commit: bare.commit.clone(),
        reference: bare.reference.clone(),
        source: bare.source,
        files: Vec::new(),
        missing: Vec::new(),
    };
    let mut bytes_left = request.max_bytes;
    for path in &request.paths {
        control.check()?;
        match read_one(&repository, &tree, path, bytes_left, request.max_bytes)? {
            Some(file) => {
                bytes_left -= file.content.as_ref().map_or(0, |content| content.len() as u64);
                read.files.push(file);
            }
            None => read.missing.push(path.clone()),
        }
    }
    let read = read.some()?;
    log.fact("files_read", read.files.len());
    log.pass();
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
