//! Looks at a commit's trees before anything is written: how much they hold, and whether a path is unsafe.
//!
//! Each tree is read once however often it occurs, so that a few trees that stand for billions of files cost
//! no more than they are.

use std::collections::{HashMap, HashSet};

use git2::{ObjectType, Odb, Oid, Repository};

use super::pkt::scrubbed;
use super::references::internal;
use super::{Control, Error, Limit, PackProblem};

/// The kinds of entries, by the file type in their mode.
const TYPE_MASK: i32 = 0o170_000;
const TYPE_TREE: i32 = 0o040_000;
const TYPE_SYMLINK: i32 = 0o120_000;
const TYPE_SUBMODULE: i32 = 0o160_000;

/// The sizes of what may be a pointer of Git LFS, in bytes, by its specification.
const LFS_POINTER_BYTES: std::ops::RangeInclusive<usize> = 100..=1024;

/// What a commit holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Survey {
    /// Files and symbolic links.
    pub(super) files: u64,
    /// Submodules.
    pub(super) submodules: u64,
    /// Files that are pointers of Git LFS.
    pub(super) lfs_pointers: u64,
}

/// What lies below a tree.
#[derive(Clone, Copy, Default)]
struct Below {
    files: u64,
    submodules: u64,
    lfs_pointers: u64,
    depth: u64,
    path_bytes: u64,
}

struct Surveyor<'a> {
    repository: &'a Repository,
    odb: Odb<'a>,
    control: &'a Control,
    trees: HashMap<Oid, Below>,
    blobs: HashMap<Oid, bool>,
    path: Vec<u8>,
}

/// Looks at everything below a tree.
pub(super) fn survey(repository: &Repository, tree: Oid, control: &Control) -> Result<Survey, Error> {
    let odb = repository.odb().map_err(|error| internal("opening the objects", &error))?;
    let (trees, blobs) = (HashMap::new(), HashMap::new());
    let mut surveyor = Surveyor { repository, odb, control, trees, blobs, path: Vec::new() };
    let below = surveyor.tree(tree, 0)?;
    Ok(Survey { files: below.files, submodules: below.submodules, lfs_pointers: below.lfs_pointers })
}

impl Surveyor<'_> {
    fn tree(&mut self, oid: Oid, depth: u64) -> Result<Below, Error> {
        if let Some(known) = self.trees.get(&oid) {
            return Ok(*known);
        }
        self.control.check()?;
        let limits = self.control.limits;
        if depth > limits.max_path_depth {
            return Err(too_large(Limit::PathDepth, limits.max_path_depth));
        }
        let tree = self.repository.find_tree(oid).map_err(|_| missing())?;
        let mut below = Below::default();
        let mut names: HashSet<Vec<u8>> = HashSet::with_capacity(tree.len());
        for entry in &tree {
            let name = entry.name_bytes();
            let parent_bytes = self.path.len();
            self.path.extend_from_slice(name);
            let kind = entry.filemode() & TYPE_MASK;
            // A name that is there twice, as a symbolic link and as a directory, leads out of the tree.
            if is_unsafe_name(name, kind == TYPE_SYMLINK) || !names.insert(name.to_vec()) {
                return Err(Error::UnsafePath { path: scrubbed(&self.path) });
            }
            let name_bytes = name.len() as u64;
            match kind {
                TYPE_TREE => {
                    self.path.push(b'/');
                    let inner = self.tree(entry.id(), depth + 1)?;
                    below.add_tree(inner, name_bytes);
                }
                TYPE_SUBMODULE => below.submodules = below.submodules.saturating_add(1),
                kind => {
                    below.files = below.files.saturating_add(1);
                    let is_pointer = self.is_pointer(entry.id())? && kind != TYPE_SYMLINK;
                    below.lfs_pointers = below.lfs_pointers.saturating_add(u64::from(is_pointer));
                }
            }
            below.path_bytes = below.path_bytes.max(name_bytes);
            self.path.truncate(parent_bytes);
        }
        check_sums(&below, depth, limits)?;
        self.trees.insert(oid, below);
        Ok(below)
    }

    /// Looks at the size of a file, and whether it is a pointer of Git LFS.
    fn is_pointer(&mut self, oid: Oid) -> Result<bool, Error> {
        const BEGINNING: &[u8] = b"version https://git-lfs.github.com/spec/";
        if let Some(known) = self.blobs.get(&oid) {
            return Ok(*known);
        }
        let limit = self.control.limits.max_blob_bytes;
        let (size, kind) = self.odb.read_header(oid).map_err(|_| missing())?;
        if kind != ObjectType::Blob {
            return Err(Error::PackCorrupt(PackProblem::Damaged));
        }
        if size as u64 > limit {
            return Err(too_large(Limit::BlobBytes, limit));
        }
        let is_pointer = LFS_POINTER_BYTES.contains(&size)
            && self.odb.read(oid).map_err(|_| missing())?.data().starts_with(BEGINNING);
        self.blobs.insert(oid, is_pointer);
        Ok(is_pointer)
    }
}

impl Below {
    fn add_tree(&mut self, inner: Self, name_bytes: u64) {
        self.files = self.files.saturating_add(inner.files);
        self.submodules = self.submodules.saturating_add(inner.submodules);
        self.lfs_pointers = self.lfs_pointers.saturating_add(inner.lfs_pointers);
        self.depth = self.depth.max(inner.depth + 1);
        self.path_bytes = self.path_bytes.max(name_bytes + 1 + inner.path_bytes);
    }
}

fn check_sums(below: &Below, depth: u64, limits: super::Limits) -> Result<(), Error> {
    if below.files.saturating_add(below.submodules) > limits.max_files {
        return Err(too_large(Limit::Files, limits.max_files));
    }
    // A tree that was met before at a lesser depth is not read again: its own depth counts.
    if depth.saturating_add(below.depth) > limits.max_path_depth {
        return Err(too_large(Limit::PathDepth, limits.max_path_depth));
    }
    if below.path_bytes > limits.max_path_bytes {
        return Err(too_large(Limit::PathBytes, limits.max_path_bytes));
    }
    Ok(())
}

fn too_large(what: Limit, limit: u64) -> Error {
    Error::TooLarge { what, limit }
}

fn missing() -> Error {
    Error::PackCorrupt(PackProblem::ObjectMissing)
}

/// Whether a name in a tree must not be written: it leads elsewhere, or some file system takes it for git's
/// own directory. A `.gitmodules` that is a symbolic link makes git read what it does not mean to.
pub(super) fn is_unsafe_name(name: &[u8], is_symlink: bool) -> bool {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return true;
    }
    let text: String = String::from_utf8_lossy(name).chars().filter(|c| !is_ignored_by_hfs(*c)).collect();
    // NTFS takes a backslash for a slash, and what follows a colon for a stream of the file before it.
    text.to_lowercase().split('\\').any(|whole| {
        let part = whole.split(':').next().unwrap_or_default().trim_end_matches([' ', '.']);
        let is_git = matches!(part, ".git" | "git~1");
        let is_modules = part == ".gitmodules" || (part.starts_with("gitmod~") && part.len() == 8);
        is_git || whole == ".." || (is_symlink && is_modules)
    })
}

/// The characters that HFS+ leaves out when it compares names.
fn is_ignored_by_hfs(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::time::{Duration, Instant};
    use tokio_util::sync::CancellationToken;

    /// Writes a tree without the checks that libgit2 makes.
    fn raw_tree(repository: &Repository, entries: &[(&str, &str, Oid)]) -> Oid {
        let mut data = Vec::new();
        for (mode, name, oid) in entries {
            data.extend(format!("{mode} {name}\0").bytes());
            data.extend(oid.as_bytes());
        }
        repository.odb().unwrap().write(ObjectType::Tree, &data).unwrap()
    }

    fn control() -> Control {
        Control::new(Instant::now() + Duration::from_secs(60), CancellationToken::new())
    }

    fn fixture() -> (tempfile::TempDir, Repository, Oid) {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::init(directory.path()).unwrap();
        let blob = repository.blob(b"content").unwrap();
        (directory, repository, blob)
    }

    #[test]
    fn hostile_names_are_found_wherever_they_stand() {
        let (_directory, repository, blob) = fixture();
        let names = [
            ".git",
            ".GIT",
            ".git ",
            ".git.",
            "git~1",
            ".g\u{200c}it",
            ".git::$INDEX_ALLOCATION",
            "..",
            ".",
            ".git\\config",
            "a\\..\\b",
        ];
        for name in names {
            let inner = raw_tree(&repository, &[("100644", name, blob)]);
            let tree = raw_tree(&repository, &[("40000", "inner", inner)]);
            let refused = survey(&repository, tree, &control());
            assert!(matches!(refused, Err(Error::UnsafePath { .. })), "{name}: {refused:?}");
        }
        for name in [".gitignore", ".gitattributes", "git", "a.git", "..a", "x:y"] {
            let tree = raw_tree(&repository, &[("100644", name, blob)]);
            assert_eq!(survey(&repository, tree, &control()).unwrap().files, 1, "{name}");
        }
        let tree = raw_tree(&repository, &[("120000", ".gitmodules", blob)]);
        assert!(matches!(survey(&repository, tree, &control()), Err(Error::UnsafePath { .. })));
    }

    #[test]
    fn a_name_that_is_a_link_and_a_directory_is_refused() {
        let (_directory, repository, blob) = fixture();
        let inner = raw_tree(&repository, &[("100644", "passwd", blob)]);
        let tree = raw_tree(&repository, &[("120000", "a", blob), ("40000", "a", inner)]);
        let refused = survey(&repository, tree, &control());
        assert!(matches!(&refused, Err(Error::UnsafePath { path }) if path == "a"), "{refused:?}");
    }

    #[test]
    fn a_bomb_of_trees_is_counted_without_being_unpacked() {
        let (_directory, repository, blob) = fixture();
        let mut tree = raw_tree(&repository, &[("100644", "f", blob)]);
        for _ in 0..30 {
            let names: Vec<String> = (0..10).map(|digit| format!("d{digit}")).collect();
            let entries: Vec<_> = names.iter().map(|name| ("40000", name.as_str(), tree)).collect();
            tree = raw_tree(&repository, &entries);
        }
        let refused = survey(&repository, tree, &control());
        assert!(matches!(refused, Err(Error::TooLarge { what: Limit::Files, .. })), "{refused:?}");
    }

    #[test]
    fn depth_length_and_size_have_limits() {
        let (_directory, repository, blob) = fixture();
        let leaf = raw_tree(&repository, &[("100644", "file", blob)]);
        let tree = raw_tree(&repository, &[("40000", "directory", leaf)]);
        let limited = |change: fn(&mut super::super::Limits)| {
            let mut control = control();
            change(&mut control.limits);
            match survey(&repository, tree, &control) {
                Err(Error::TooLarge { what, .. }) => Some(what),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(limited(|limits| limits.max_path_depth = 0), Some(Limit::PathDepth));
        assert_eq!(limited(|limits| limits.max_path_bytes = 13), Some(Limit::PathBytes));
        assert_eq!(limited(|limits| limits.max_blob_bytes = 6), Some(Limit::BlobBytes));
        assert_eq!(limited(|limits| limits.max_files = 0), Some(Limit::Files));
    }

    #[test]
    fn pointers_of_lfs_and_submodules_are_counted() {
        let (_directory, repository, blob) = fixture();
        let text = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n",
            "0".repeat(64)
        );
        let pointer = repository.blob(text.as_bytes()).unwrap();
        let tree = raw_tree(
            &repository,
            &[("100644", "a", pointer), ("100644", "b", blob), ("160000", "sub", blob)],
        );
        let seen = survey(&repository, tree, &control()).unwrap();
        assert_eq!(seen, Survey { files: 2, submodules: 1, lfs_pointers: 1 });
    }
}
