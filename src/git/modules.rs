//! The submodules of a clone: what a commit says of them, checked, and how each gets its place in the clone.
//!
//! Of `.gitmodules` nothing counts but names, paths and URLs. What a submodule is, is an entry of the commit; the file
//! only says where to have it from.

mod config;
mod url;

use std::collections::HashMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Repository};

use super::clone::{CloneRequest, Draft, draft, git_error};
use super::fetch::{Means, REMOTE, Want};
use super::lfs::LfsRemote;
use super::pkt::scrubbed;
use super::references::internal;
use super::survey::is_unsafe_name;
use super::target::{Scratch, target_error};
use super::{Control, Error, Limit, Limits, Remote, blocking};
use crate::report::StageLog;

pub use url::resolve;

/// The most submodules that one clone has, with those of submodules.
pub const MAX_SUBMODULES: usize = 1000;

/// How deep submodules lie in submodules at the most.
pub const MAX_SUBMODULE_DEPTH: usize = 10;

/// The largest `.gitmodules` that is read, in bytes.
const MAX_FILE_BYTES: usize = 1024 * 1024;

/// The file that says where submodules are to be had from.
const FILE: &str = ".gitmodules";

/// The kind of an entry that is a submodule's commit.
const GITLINK_MODE: u32 = 0o160_000;

/// The bit of an entry that is outside of the chosen paths.
const SKIP_WORKTREE: u16 = 1 << 14;

/// A submodule as a commit names it. Name and path have been found to be safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submodule {
    /// What git calls it, which is a part of the path of its repository.
    pub name: String,
    /// Where it is in the repository that has it.
    pub path: String,
    /// The URL as it is written, which may be relative; nothing has been checked of it.
    pub url: String,
    /// Its commit, in hex.
    pub commit: String,
    /// Whether it stays empty unless it is asked for by its path (`update = none`).
    pub is_left_out: bool,
}

/// A repository of a clone that may have submodules: the clone itself, or a submodule that has its place.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Its files, from the root of the clone.
    path: String,
    /// Its repository, from the root of the clone.
    git_directory: PathBuf,
}

impl Holder {
    /// The clone itself.
    pub fn root() -> Self {
        Self { path: String::new(), git_directory: PathBuf::from(".git") }
    }

    /// Where a path of this repository is in the whole clone.
    pub fn within(&self, path: &str) -> String {
        if self.path.is_empty() { path.to_owned() } else { format!("{}/{path}", self.path) }
    }
}

impl Draft {
    /// The submodules of a repository of this clone, in the order of their paths: those among the chosen paths of which
    /// `.gitmodules` says where they are to be had from.
    ///
    /// # Errors
    /// [`Error::UnsafePath`] for a name or a path that leads elsewhere and for a file that git cannot read,
    /// [`Error::TooLarge`] where there are too many.
    pub async fn submodules(&self, holder: &Holder, control: &Control) -> Result<Vec<Submodule>, Error> {
        let (directory, control) = (self.path().join(&holder.git_directory), control.clone());
        blocking::files(move || {
            let opened = Repository::open(&directory);
            let repository = opened.map_err(|error| internal("opening the clone", &error))?;
            find(&repository, &control)
        })
        .await
    }

    /// Clones a submodule of this clone, which [`Self::adopt`] gives its place. What it brings counts together with what
    /// is here, and stages go into a log of their own.
    ///
    /// # Errors
    /// Those of any clone; [`Error::ReferenceNotFound`] where the server has not the very commit.
    pub async fn draft_submodule(
        &self,
        submodule: &Submodule,
        remote: &Remote,
        depth: Option<u32>,
        means: Means,
        control: &Control,
        log: &StageLog,
    ) -> Result<Self, Error> {
        let request = CloneRequest {
            want: Want { reference: Some(submodule.commit.clone()), depth, ..Want::default() },
            paths: Vec::new(),
            target: self.path().join(".git/submodule"),
            means,
            // It is part of the clone that it goes into.
            announce: None,
        };
        control.transfer.begin_another();
        let received_before = control.transfer.received_bytes();
        let limited = Control { limits: self.limits_left(control), ..control.clone() };
        let drafted = draft(remote, &request, &limited, log).await;
        let mut inner = drafted.map_err(|error| of_the_whole(error, control.limits))?;
        inner.cloned.received_bytes = inner.cloned.received_bytes.saturating_sub(received_before);
        if inner.cloned.commit != submodule.commit {
            // A branch of the server's may bear the commit's name.
            inner.discard().await;
            return Err(Error::ReferenceNotFound { name: submodule.commit.clone(), near: Vec::new() });
        }
        Ok(inner)
    }

    /// Fetches the LFS objects of a submodule that [`Self::draft_submodule`] cloned.
    ///
    /// # Errors
    /// Why an object could not be had.
    pub async fn fetch_lfs_of_submodule(
        &self,
        inner: &mut Self,
        remote: &LfsRemote,
        control: &Control,
        log: &StageLog,
    ) -> Result<(), Error> {
        let limited = Control { limits: self.limits_left(control), ..control.clone() };
        let fetched = inner.fetch_lfs(remote, &limited, log).await;
        fetched.map_err(|error| of_the_whole(error, control.limits))
    }

    /// How much the rest of the clone may still take.
    fn limits_left(&self, control: &Control) -> Limits {
        let limits = control.limits;
        Limits {
            max_objects: limits.max_objects.saturating_sub(self.cloned.received_objects),
            max_files: limits.max_files.saturating_sub(self.cloned.files),
            max_expanded_bytes: limits.max_expanded_bytes.saturating_sub(self.cloned.bytes),
            max_lfs_bytes: limits.max_lfs_bytes.saturating_sub(control.transfer.total_lfs_bytes()),
            ..limits
        }
    }

    /// Gives a submodule its place in this clone, as git itself does: its files at its path, its repository among those
    /// of the repository that has it.
    ///
    /// # Errors
    /// [`Error::UnsafePath`] where its place is not an empty directory that is reached without a symbolic link.
    pub async fn adopt(
        &mut self,
        holder: &Holder,
        submodule: &Submodule,
        mut inner: Self,
    ) -> Result<Holder, Error> {
        let taken = inner.scratch.take();
        let counted = inner.cloned;
        let (root, holder, submodule) = (self.path().to_owned(), holder.clone(), submodule.clone());
        let adopted = blocking::files(move || {
            let Some(scratch) = taken else { return Err(Error::UnsafePath { path: submodule.path }) };
            take_in(&root, &holder, &submodule, &scratch)
        });
        let adopted = adopted.await?;
        let cloned = &mut self.cloned;
        cloned.received_objects = cloned.received_objects.saturating_add(counted.received_objects);
        cloned.received_bytes = cloned.received_bytes.saturating_add(counted.received_bytes);
        cloned.files = cloned.files.saturating_add(counted.files);
        cloned.bytes = cloned.bytes.saturating_add(counted.bytes);
        cloned.lfs_pointers = cloned.lfs_pointers.saturating_add(counted.lfs_pointers);
        for warning in counted.warnings {
            if !cloned.warnings.contains(&warning) {
                cloned.warnings.push(warning);
            }
        }
        Ok(adopted)
    }
}

fn find(repository: &Repository, control: &Control) -> Result<Vec<Submodule>, Error> {
    const ENTRIES_BETWEEN_LOOKS: usize = 4096;
    let index = repository.index().map_err(|error| internal("reading the index", &error))?;
    let mut links = Vec::new();
    let mut file = None;
    for (number, entry) in index.iter().enumerate() {
        if number % ENTRIES_BETWEEN_LOOKS == 0 {
            control.check()?;
        }
        if entry.path == FILE.as_bytes() && entry.mode & 0o170_000 == 0o100_000 {
            file = Some(entry.id);
        } else if entry.mode == GITLINK_MODE && entry.flags_extended & SKIP_WORKTREE == 0 {
            if links.len() == MAX_SUBMODULES {
                return Err(too_many());
            }
            links.push((entry.path, entry.id.to_string()));
        }
    }
    // A commit that is nowhere said to be had is an entry that nobody can follow, not even git.
    let Some(file) = file.filter(|_| !links.is_empty()) else { return Ok(Vec::new()) };
    let mut places: HashMap<String, (String, String, bool)> = HashMap::new();
    for section in config::parse(&content(repository, file)?).ok_or_else(|| unsafe_path(FILE.as_bytes()))? {
        if let (Some(path), Some(url)) = (section.path, section.url) {
            places.insert(path.trim_end_matches('/').to_owned(), (section.name, url, section.is_left_out));
        }
    }
    let mut found: Vec<Submodule> = Vec::new();
    for (path, commit) in links {
        let path = String::from_utf8(path).map_err(|error| unsafe_path(error.as_bytes()))?;
        let Some((name, url, is_left_out)) = places.remove(&path) else { continue };
        for text in [&path, &name] {
            if !is_safe(text) {
                return Err(unsafe_path(text.as_bytes()));
            }
        }
        found.push(Submodule { name, path, url, commit, is_left_out });
    }
    check_nesting(&found)?;
    Ok(found)
}

fn content(repository: &Repository, file: git2::Oid) -> Result<String, Error> {
    let failed = |error| internal("reading .gitmodules", &error);
    let odb = repository.odb().map_err(failed)?;
    let (bytes, kind) = odb.read_header(file).map_err(failed)?;
    if bytes > MAX_FILE_BYTES {
        return Err(Error::TooLarge { what: Limit::BlobBytes, limit: MAX_FILE_BYTES as u64 });
    }
    if kind != ObjectType::Blob {
        return Err(unsafe_path(FILE.as_bytes()));
    }
    let object = odb.read(file).map_err(failed)?;
    String::from_utf8(object.data().to_vec()).map_err(|_| unsafe_path(FILE.as_bytes()))
}

/// Whether a name or a path stays below where it is put, on every file system that a clone may travel to, and can be
/// written into a configuration and read again.
fn is_safe(text: &str) -> bool {
    !text.starts_with('-')
        && !text.chars().any(char::is_control)
        && text.split('/').all(|part| !is_unsafe_name(part.as_bytes(), true))
}

/// A repository must not lie in another one's: what is a directory of its files there would be git's own here.
fn check_nesting(found: &[Submodule]) -> Result<(), Error> {
    let mut names: Vec<String> = found.iter().map(|module| module.name.to_lowercase() + "/").collect();
    names.sort_unstable();
    let nested = names.iter().zip(names.iter().skip(1)).find(|(outer, inner)| inner.starts_with(*outer));
    nested.map_or(Ok(()), |(_, inner)| Err(unsafe_path(inner.trim_end_matches('/').as_bytes())))
}

fn take_in(root: &Path, holder: &Holder, submodule: &Submodule, scratch: &Scratch) -> Result<Holder, Error> {
    let failed = |error| target_error(root, error);
    let path = holder.within(&submodule.path);
    let git_directory = holder.git_directory.join("modules").join(&submodule.name);
    let (place, repository) = (free_place(root, &path)?, root.join(&git_directory));
    match fs::symlink_metadata(&repository) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        _ => return Err(unsafe_path(submodule.name.as_bytes())),
    }
    let growing = scratch.path().join(".git");
    let moved = || -> io::Result<()> {
        let usual = fs::metadata(&growing)?.permissions().mode();
        fs::create_dir_all(repository.parent().unwrap_or(root))?;
        fs::rename(&growing, &repository)?;
        let up = "../".repeat(path.split('/').count());
        fs::write(&growing, format!("gitdir: {up}{}\n", git_directory.display()))?;
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(usual))?;
        // Files keep what the index knows of them, because none of them is touched.
        fs::rename(scratch.path(), &place)
    };
    moved().map_err(failed)?;
    let up = "../".repeat(git_directory.components().count());
    let settings = || -> Result<(), git2::Error> {
        let mut own = git2::Config::open(&repository.join("config"))?;
        own.set_str("core.worktree", &format!("{up}{path}"))?;
        let url = own.get_string(&format!("remote.{REMOTE}.url"))?;
        let mut above = git2::Config::open(&root.join(&holder.git_directory).join("config"))?;
        above.set_bool(&format!("submodule.{}.active", submodule.name), true)?;
        above.set_str(&format!("submodule.{}.url", submodule.name), &url)
    };
    settings().map_err(|error| git_error(root, "connecting a submodule", &error))?;
    Ok(Holder { path, git_directory })
}

/// An empty directory at a path below the root, reached without any symbolic link. Nobody else writes there meanwhile.
fn free_place(root: &Path, path: &str) -> Result<PathBuf, Error> {
    let failed = |error| target_error(root, error);
    let mut place = root.to_owned();
    for part in path.split('/') {
        place.push(part);
        match fs::symlink_metadata(&place) {
            Ok(metadata) if metadata.is_dir() => {}
            Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir(&place).map_err(failed)?,
            Ok(_) => return Err(unsafe_path(path.as_bytes())),
            Err(error) => return Err(failed(error)),
        }
    }
    if fs::read_dir(&place).map_err(failed)?.next().is_some() {
        return Err(unsafe_path(path.as_bytes()));
    }
    Ok(place)
}

/// A limit that was lowered by what had come before is told as the operator set it.
fn of_the_whole(error: Error, limits: Limits) -> Error {
    match error {
        Error::TooLarge { what, limit } => {
            Error::TooLarge { what, limit: limits.of_the_whole(what).unwrap_or(limit) }
        }
        error => error,
    }
}

/// Too many submodules in one clone.
pub fn too_many() -> Error {
    Error::TooLarge { what: Limit::Submodules, limit: MAX_SUBMODULES as u64 }
}

/// Submodules that lie too deep in submodules.
pub fn too_deep() -> Error {
    Error::TooLarge { what: Limit::SubmoduleDepth, limit: MAX_SUBMODULE_DEPTH as u64 }
}

fn unsafe_path(path: &[u8]) -> Error {
    Error::UnsafePath { path: scrubbed(path) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths_stay_below_where_they_are_put() {
        for safe in ["lib", "vendor/lib", "a b", "größe", "lib.git", "x.y/z"] {
            assert!(is_safe(safe), "{safe}");
        }
        let hostile =
            ["", "..", "../x", "a/../b", "/a", "a//b", "a/", "-x", "--upload-pack=x", "a\r", "a\nb"];
        for text in
            hostile.into_iter().chain([".git", "a/.GIT/hooks", "a\\..\\b", "git~1", ".git ", "a/.git."])
        {
            assert!(!is_safe(text), "{text:?}");
        }
    }

    #[test]
    fn a_repository_does_not_lie_in_another_ones() {
        let named = |names: &[&str]| {
            let module = |name: &&str| Submodule {
                name: (*name).to_owned(),
                path: String::new(),
                url: String::new(),
                commit: String::new(),
                is_left_out: false,
            };
            check_nesting(&names.iter().map(module).collect::<Vec<_>>()).is_ok()
        };
        assert!(named(&["a/b", "a/c", "ab", "a-b"]));
        assert!(!named(&["a", "c", "a/hooks"]) && !named(&["a", "A"]) && !named(&["a", "a-b", "a/b"]));
    }

    #[test]
    fn a_place_behind_a_link_is_none() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
        fs::create_dir_all(root.path().join("full/x")).unwrap();
        for path in ["link", "link/sub", "full"] {
            assert!(matches!(free_place(root.path(), path), Err(Error::UnsafePath { .. })), "{path}");
        }
        assert!(free_place(root.path(), "new/sub").unwrap().is_dir());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
