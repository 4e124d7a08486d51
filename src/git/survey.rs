//! Looks at a commit's trees before anything is written: how much they hold, and whether a path is unsafe.
//!
//! Each tree is read once however often it occurs, so that a few trees that stand for billions of files cost
//! no more than they are.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use gix_hash::ObjectId;
use gix_object::tree::EntryKind;
use gix_object::{FindExt as _, FindHeader as _, Kind, TreeRefIter};

use super::objects::Objects;
use super::pkt::scrubbed;
use super::{Control, Error, Limit, PackProblem};

/// The sizes of what may be a pointer of Git LFS, in bytes, by its specification.
const LFS_POINTER_BYTES: std::ops::RangeInclusive<u64> = 100..=1024;

/// The largest file of attributes that git reads, in bytes.
const MAX_ATTRIBUTES_BYTES: u64 = 100 * 1024 * 1024;

/// What a commit holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Files and symbolic links.
    pub(super) files: u64,
    /// Submodules.
    pub(super) submodules: u64,
    /// Files that are pointers of Git LFS; 0 where files were not looked at.
    pub(super) lfs_pointers: u64,
    /// Bytes of all files; 0 where files were not looked at.
    pub(super) bytes: u64,
    /// Whether attributes ask for `ident`, which is never expanded.
    pub(super) has_ident: bool,
    /// Whether attributes name an encoding of the working tree that is not read as git reads it.
    pub(super) has_wide_encoding: bool,
}

/// How closely files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Files {
    /// Their number, because whoever writes them looks at them anyway.
    Counted,
    /// Size and beginning of each.
    Weighed,
}

/// What lies below a tree.
#[derive(Clone, Copy, Default)]
struct Below {
    files: u64,
    submodules: u64,
    lfs_pointers: u64,
    bytes: u64,
    depth: u64,
    path_bytes: u64,
}

struct Surveyor<'a> {
    objects: &'a Objects,
    control: &'a Control,
    looked_at: Files,
    trees: HashMap<ObjectId, Below>,
    blobs: HashMap<ObjectId, (u64, bool)>,
    attributes: HashSet<ObjectId>,
    path: Vec<u8>,
    found: Survey,
}

/// Looks at everything below a tree, or below the named paths in it; a path that is not there is passed over.
pub(super) fn survey(
    objects: &Objects,
    tree: ObjectId,
    paths: &[String],
    looked_at: Files,
    control: &Control,
) -> Result<Survey, Error> {
    let mut surveyor = Surveyor {
        objects,
        control,
        looked_at,
        trees: HashMap::new(),
        blobs: HashMap::new(),
        attributes: HashSet::new(),
        path: Vec::new(),
        found: Survey::default(),
    };
    if paths.is_empty() {
        let below = surveyor.tree(tree, 0)?;
        surveyor.found.add(below);
    }
    for path in paths {
        surveyor.named(tree, path)?;
    }
    Ok(surveyor.found)
}

/// A tree as it is read once and worked through.
fn entries(data: &[u8]) -> impl Iterator<Item = Result<gix_object::tree::EntryRef<'_>, Error>> {
    let entries = TreeRefIter::from_bytes(data, gix_hash::Kind::Sha1);
    entries.map(|entry| entry.map_err(|_| Error::PackCorrupt(PackProblem::Damaged)))
}

impl Surveyor<'_> {
    fn read(&self, tree: ObjectId) -> Result<Vec<u8>, Error> {
        let mut buffer = Vec::new();
        let found = self.objects.find(&tree, &mut buffer).map_err(|_| missing())?;
        if found.kind != Kind::Tree {
            return Err(Error::PackCorrupt(PackProblem::Damaged));
        }
        Ok(buffer)
    }

    /// Looks at one path below the root. The trees on the way are looked at as well, because their names are written.
    fn named(&mut self, root: ObjectId, path: &str) -> Result<(), Error> {
        let mut tree = root;
        let mut components = Path::new(path).iter().peekable();
        let mut depth = 0;
        while let Some(component) = components.next() {
            let data = self.read(tree)?;
            let wanted = component.as_encoded_bytes();
            let found = entries(&data).find(|entry| !matches!(entry, Ok(entry) if entry.filename != wanted));
            let Some(entry) = found.transpose()? else { return Ok(()) };
            if is_unsafe_name(entry.filename, entry.mode.is_link()) {
                return Err(Error::UnsafePath { path: scrubbed(path.as_bytes()) });
            }
            depth += 1;
            match entry.mode.kind() {
                EntryKind::Tree if components.peek().is_some() => tree = entry.oid.to_owned(),
                EntryKind::Tree => {
                    let below = self.tree(entry.oid.to_owned(), depth)?;
                    self.found.add(below);
                }
                EntryKind::Commit => self.found.submodules += 1,
                _ => self.found.files += 1,
            }
        }
        Ok(())
    }

    fn tree(&mut self, oid: ObjectId, depth: u64) -> Result<Below, Error> {
        if let Some(known) = self.trees.get(&oid) {
            return Ok(*known);
        }
        self.control.check()?;
        let limits = self.control.limits;
        if depth > limits.max_path_depth {
            return Err(too_large(Limit::PathDepth, limits.max_path_depth));
        }
        let data = self.read(oid)?;
        let mut below = Below::default();
        let mut names: HashSet<&[u8]> = HashSet::new();
        for entry in entries(&data) {
            let entry = entry?;
            let name: &[u8] = entry.filename;
            let parent_bytes = self.path.len();
            self.path.extend_from_slice(name);
            // A name that is there twice, as a symbolic link and as a directory, leads out of the tree.
            if is_unsafe_name(name, entry.mode.is_link()) || !names.insert(name) {
                return Err(Error::UnsafePath { path: scrubbed(&self.path) });
            }
            match entry.mode.kind() {
                EntryKind::Tree => {
                    self.path.push(b'/');
                    let inner = self.tree(entry.oid.to_owned(), depth + 1)?;
                    below.add_tree(inner, name.len() as u64);
                }
                EntryKind::Commit => below.submodules = below.submodules.saturating_add(1),
                kind => self.file(entry.oid.to_owned(), kind, name, &mut below)?,
            }
            below.path_bytes = below.path_bytes.max(name.len() as u64);
            self.path.truncate(parent_bytes);
        }
        check_sums(&below, depth, limits)?;
        self.trees.insert(oid, below);
        Ok(below)
    }

    fn file(&mut self, oid: ObjectId, kind: EntryKind, name: &[u8], below: &mut Below) -> Result<(), Error> {
        below.files = below.files.saturating_add(1);
        if name == b".gitattributes" && kind != EntryKind::Link && self.attributes.insert(oid) {
            self.read_attributes(oid)?;
        }
        if self.looked_at == Files::Weighed {
            let (bytes, is_pointer) = self.weigh(oid)?;
            below.bytes = below.bytes.saturating_add(bytes);
            let is_pointer = is_pointer && kind != EntryKind::Link;
            below.lfs_pointers = below.lfs_pointers.saturating_add(u64::from(is_pointer));
        }
        Ok(())
    }

    /// The size of a file, and whether it is a pointer of Git LFS.
    fn weigh(&mut self, oid: ObjectId) -> Result<(u64, bool), Error> {
        if let Some(known) = self.blobs.get(&oid) {
            return Ok(*known);
        }
        let limit = self.control.limits.max_blob_bytes;
        let header = self.objects.try_header(&oid).map_err(|_| missing())?.ok_or_else(missing)?;
        if header.kind != Kind::Blob {
            return Err(Error::PackCorrupt(PackProblem::Damaged));
        }
        if header.size > limit {
            return Err(too_large(Limit::BlobBytes, limit));
        }
        let mut buffer = Vec::new();
        let is_pointer = LFS_POINTER_BYTES.contains(&header.size)
            && is_lfs_pointer(self.objects.find(&oid, &mut buffer).map_err(|_| missing())?.data);
        self.blobs.insert(oid, (header.size, is_pointer));
        Ok((header.size, is_pointer))
    }

    fn read_attributes(&mut self, oid: ObjectId) -> Result<(), Error> {
        let header = self.objects.try_header(&oid).map_err(|_| missing())?.ok_or_else(missing)?;
        if header.size > MAX_ATTRIBUTES_BYTES.min(self.control.limits.max_blob_bytes) {
            return Ok(());
        }
        let mut buffer = Vec::new();
        let text = self.objects.find(&oid, &mut buffer).map_err(|_| missing())?.data;
        for word in text.split(u8::is_ascii_whitespace) {
            self.found.has_ident |= word == b"ident" || word.starts_with(b"ident=");
            let encoding = word.strip_prefix(b"working-tree-encoding=").unwrap_or_default();
            let encoding = encoding.to_ascii_uppercase();
            self.found.has_wide_encoding |=
                encoding.starts_with(b"UTF-16") || encoding.starts_with(b"UTF-32");
        }
        Ok(())
    }
}

/// Whether a file is a pointer of Git LFS, by its size and its beginning.
pub(super) fn is_lfs_pointer(data: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"version https://git-lfs.github.com/spec/";
    LFS_POINTER_BYTES.contains(&(data.len() as u64)) && data.starts_with(BEGINNING)
}

impl Survey {
    fn add(&mut self, below: Below) {
        self.files = self.files.saturating_add(below.files);
        self.submodules = self.submodules.saturating_add(below.submodules);
        self.lfs_pointers = self.lfs_pointers.saturating_add(below.lfs_pointers);
        self.bytes = self.bytes.saturating_add(below.bytes);
    }
}

impl Below {
    fn add_tree(&mut self, inner: Self, name_bytes: u64) {
        self.files = self.files.saturating_add(inner.files);
        self.submodules = self.submodules.saturating_add(inner.submodules);
        self.lfs_pointers = self.lfs_pointers.saturating_add(inner.lfs_pointers);
        self.bytes = self.bytes.saturating_add(inner.bytes);
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
    if below.bytes > limits.max_expanded_bytes {
        return Err(too_large(Limit::ExpandedBytes, limits.max_expanded_bytes));
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
    use git2::{ObjectType, Oid, Repository};

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

    fn surveyed(repository: &Repository, tree: Oid, control: &Control) -> Result<Survey, Error> {
        let objects = Objects::open(&repository.path().join("objects"), u64::MAX).unwrap();
        let tree = ObjectId::from_hex(tree.to_string().as_bytes()).unwrap();
        survey(&objects, tree, &[], Files::Weighed, control)
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
            let refused = surveyed(&repository, tree, &control());
            assert!(matches!(refused, Err(Error::UnsafePath { .. })), "{name}: {refused:?}");
        }
        for name in [".gitignore", ".gitattributes", "git", "a.git", "..a", "x:y"] {
            let tree = raw_tree(&repository, &[("100644", name, blob)]);
            assert_eq!(surveyed(&repository, tree, &control()).unwrap().files, 1, "{name}");
        }
        let tree = raw_tree(&repository, &[("120000", ".gitmodules", blob)]);
        assert!(matches!(surveyed(&repository, tree, &control()), Err(Error::UnsafePath { .. })));
    }

    #[test]
    fn a_name_that_is_a_link_and_a_directory_is_refused() {
        let (_directory, repository, blob) = fixture();
        let inner = raw_tree(&repository, &[("100644", "passwd", blob)]);
        let tree = raw_tree(&repository, &[("120000", "a", blob), ("40000", "a", inner)]);
        let refused = surveyed(&repository, tree, &control());
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
        let refused = surveyed(&repository, tree, &control());
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
            match surveyed(&repository, tree, &control) {
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
        let seen = surveyed(&repository, tree, &control()).unwrap();
        assert_eq!((seen.files, seen.submodules, seen.lfs_pointers), (2, 1, 1));
    }
}
