//! Named small files of a commit, read straight from the objects. Nothing is written, and no link is followed.

use std::path::Path;

use gix_hash::ObjectId;

use super::archive::trees::{EntryKind, Trees, entry_at};
use super::archive::{commit, normal};
use super::objects::{Found, Objects, is_lfs_pointer, object_id};
use super::pkt::scrubbed;
use super::{Control, Error, Limit};

/// How alike a path must be to be offered instead of one that is not there, from 0 to 1.
const NEAR_ENOUGH: f64 = 0.75;

/// The most paths that are offered.
const MAX_NEAR: usize = 3;

/// How much may be given inline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentsLimits {
    /// Paths.
    pub max_files: u64,
    /// Bytes of one file.
    pub max_file_bytes: u64,
    /// Bytes of all files and their paths. As base64 they take a third more.
    pub max_bytes: u64,
}

impl Default for ContentsLimits {
    /// What fits into one message to the control plane.
    fn default() -> Self {
        Self { max_files: 256, max_file_bytes: 512 * 1024, max_bytes: 512 * 1024 }
    }
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A file.
    File,
    /// A file that may be run.
    Executable,
    /// A symbolic link; its content is where it leads.
    Symlink,
    /// A directory, which is not read.
    Directory,
    /// A submodule, which is not read.
    Submodule,
}

/// One path and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    /// The path from the root of the tree.
    pub path: String,
    /// What it leads to.
    pub kind: FileKind,
    /// The content as it is in the commit; empty for a directory or a submodule.
    pub content: Vec<u8>,
    /// Whether it is a pointer of Git LFS.
    pub is_lfs_pointer: bool,
}

/// Files of a commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// What is there, in the order of the request.
    pub files: Vec<FileContent>,
    /// Paths that the commit does not have.
    pub missing: Vec<String>,
}

/// Reads named files of a commit. `repository` is a git directory. Blocks.
///
/// # Errors
/// [`Error::PathNotFound`] where none of the paths is there, [`Error::TooLarge`], [`Error::PackCorrupt`],
/// [`Error::Cancelled`] and [`Error::DeadlineExceeded`].
pub fn contents(
    repository: &Path,
    commit_id: &str,
    paths: &[String],
    limits: &ContentsLimits,
    control: &Control,
) -> Result<Contents, Error> {
    if paths.len() as u64 > limits.max_files {
        return Err(Error::TooLarge { what: Limit::InlineFiles, limit: limits.max_files });
    }
    let objects = Objects::open(repository)?;
    let (root, _) = commit(&objects, object_id(commit_id)?)?;
    let mut trees = Trees::new(objects);
    let mut contents = Contents::default();
    let mut bytes = 0;
    for path in paths {
        control.check()?;
        let normal = normal(path);
        let found = if normal.is_empty() {
            Some((EntryKind::Directory, root))
        } else {
            trees.find(root, normal.as_bytes())?
        };
        let Some((kind, id)) = found else {
            contents.missing.push(path.clone());
            continue;
        };
        let content = content(&trees.objects, kind, id, limits)?;
        bytes += (normal.len() + content.len()) as u64;
        if bytes > limits.max_bytes {
            return Err(Error::TooLarge { what: Limit::InlineBytes, limit: limits.max_bytes });
        }
        let is_file = matches!(kind, EntryKind::File | EntryKind::Executable);
        let is_lfs_pointer = is_file && is_lfs_pointer(&content);
        contents.files.push(FileContent { path: normal, kind: kind.into(), content, is_lfs_pointer });
    }
    match contents.missing.first() {
        Some(first) if contents.files.is_empty() => {
            let near = near(&mut trees, root, first)?;
            Err(Error::PathNotFound { path: scrubbed(first.as_bytes()), near })
        }
        _ => Ok(contents),
    }
}

fn content(
    objects: &Objects,
    kind: EntryKind,
    id: ObjectId,
    limits: &ContentsLimits,
) -> Result<Vec<u8>, Error> {
    let mut content = Vec::new();
    if matches!(kind, EntryKind::Directory | EntryKind::Submodule) {
        return Ok(content);
    }
    let size = match objects.small_file(&id, &mut content)? {
        Found::Read => content.len() as u64,
        Found::Large { size } => size,
    };
    // What is not small is not read, whatever the limit.
    if size > limits.max_file_bytes || size > content.len() as u64 {
        return Err(Error::TooLarge { what: Limit::InlineFileBytes, limit: limits.max_file_bytes });
    }
    Ok(content)
}

impl From<EntryKind> for FileKind {
    fn from(kind: EntryKind) -> Self {
        match kind {
            EntryKind::File => Self::File,
            EntryKind::Executable => Self::Executable,
            EntryKind::Link => Self::Symlink,
            EntryKind::Directory => Self::Directory,
            EntryKind::Submodule => Self::Submodule,
        }
    }
}

/// Paths that are like one that is not there: its neighbors in the deepest directory that is.
pub(super) fn near(trees: &mut Trees, root: ObjectId, path: &str) -> Result<Vec<String>, Error> {
    let normal = normal(path);
    let mut directory = root;
    let mut above = String::new();
    let mut wanted = "";
    for name in normal.split('/') {
        wanted = name;
        match trees.find(directory, name.as_bytes())? {
            Some((EntryKind::Directory, id)) => directory = id,
            _ => break,
        }
        above.push_str(name);
        above.push('/');
    }
    let tree = trees.get(directory)?;
    let mut scored: Vec<(f64, String)> = Vec::new();
    let mut offset = 0;
    while let Some((entry, next)) = entry_at(&tree, offset)? {
        offset = next;
        let name = scrubbed(entry.name);
        let score = strsim::jaro_winkler(&wanted.to_lowercase(), &name.to_lowercase());
        if score >= NEAR_ENOUGH {
            scored.push((score, format!("{above}{name}")));
        }
    }
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    Ok(scored.into_iter().take(MAX_NEAR).map(|(_, path)| path).collect())
}
