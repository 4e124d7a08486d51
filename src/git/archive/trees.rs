//! The trees of a commit: read, judged and counted before the first byte of an archive is made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gix_hash::{Kind as HashKind, ObjectId};
use gix_object::tree::EntryMode;
use gix_object::{Kind, TreeRefIter};

use super::attributes;
use crate::git::archive::objects::Objects;
use crate::git::pkt::scrubbed;
use crate::git::survey::is_unsafe_name;
use crate::git::{Control, Error, Limit, Limits, PackProblem};

/// How much of the trees is kept for the second time that they are needed, in bytes.
const KEPT_BYTES: usize = 64 * 1024 * 1024;

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::git) enum EntryKind {
    /// A file.
    File,
    /// A file that may be run.
    Executable,
    /// A symbolic link.
    Link,
    /// A directory.
    Directory,
    /// A commit of another repository.
    Submodule,
}

/// One entry of a tree.
pub(in crate::git) struct Entry<'a> {
    pub(in crate::git) name: &'a [u8],
    pub(in crate::git) kind: EntryKind,
    pub(in crate::git) id: ObjectId,
}

/// Trees, each read once as long as they fit.
pub(in crate::git) struct Trees {
    pub(in crate::git) objects: Objects,
    kept: HashMap<ObjectId, Arc<Vec<u8>>>,
    kept_bytes: usize,
}

impl Trees {
    pub(in crate::git) fn new(objects: Objects) -> Self {
        Self { objects, kept: HashMap::new(), kept_bytes: 0 }
    }

    pub(in crate::git) fn get(&mut self, id: ObjectId) -> Result<Arc<Vec<u8>>, Error> {
        if let Some(tree) = self.kept.get(&id) {
            return Ok(Arc::clone(tree));
        }
        let mut data = Vec::new();
        self.objects.structure(&id, Kind::Tree, &mut data)?;
        let tree = Arc::new(data);
        if self.kept_bytes + tree.len() <= KEPT_BYTES {
            self.kept_bytes += tree.len();
            self.kept.insert(id, Arc::clone(&tree));
        }
        Ok(tree)
    }

    /// The entry at a path below a tree, if there is one.
    pub(in crate::git) fn find(
        &mut self,
        root: ObjectId,
        path: &[u8],
    ) -> Result<Option<(EntryKind, ObjectId)>, Error> {
        let mut found = (EntryKind::Directory, root);
        for name in path.split(|byte| *byte == b'/') {
            if found.0 != EntryKind::Directory {
                return Ok(None);
            }
            let tree = self.get(found.1)?;
            let Some(entry) = named(&tree, name)? else { return Ok(None) };
            found = (entry.kind, entry.id);
        }
        Ok(Some(found))
    }
}

/// The entries of a tree from an offset on, each with the offset of the next.
pub(in crate::git) fn entry_at(tree: &[u8], offset: usize) -> Result<Option<(Entry<'_>, usize)>, Error> {
    let damaged = Error::PackCorrupt(PackProblem::Damaged);
    let Some(rest) = tree.get(offset..) else { return Err(damaged) };
    let mut iterator = TreeRefIter::from_bytes(rest, HashKind::Sha1);
    match iterator.next() {
        None => Ok(None),
        Some(Err(_)) => Err(damaged),
        Some(Ok(entry)) => {
            let next = offset + iterator.offset_to_next_entry(rest);
            let entry = Entry { name: entry.filename, kind: kind(entry.mode), id: entry.oid.to_owned() };
            Ok(Some((entry, next)))
        }
    }
}

/// The entry of a name.
pub(in crate::git) fn named<'a>(tree: &'a [u8], name: &[u8]) -> Result<Option<Entry<'a>>, Error> {
    let mut offset = 0;
    while let Some((entry, next)) = entry_at(tree, offset)? {
        if entry.name == name {
            return Ok(Some(entry));
        }
        offset = next;
    }
    Ok(None)
}

fn kind(mode: EntryMode) -> EntryKind {
    if mode.is_tree() {
        EntryKind::Directory
    } else if mode.is_commit() {
        EntryKind::Submodule
    } else if mode.is_link() {
        EntryKind::Link
    } else if mode.value() & 0o100 != 0 {
        EntryKind::Executable
    } else {
        EntryKind::File
    }
}

/// What lies below a tree.
#[derive(Clone, Copy, Default)]
struct Below {
    entries: u64,
    depth: u64,
    path_bytes: u64,
}

/// Judges every name below a tree and counts what is there. A tree that occurs often is looked at once, so that a
/// few trees that stand for billions of files cost no more than they are.
pub(super) struct Surveyor<'a> {
    trees: &'a mut Trees,
    control: &'a Control,
    seen: HashMap<ObjectId, Below>,
    path: Vec<u8>,
    entries: u64,
    /// Whether some file of attributes changes what an archive holds.
    pub(super) attributes_matter: bool,
}

impl<'a> Surveyor<'a> {
    pub(super) fn new(trees: &'a mut Trees, control: &'a Control) -> Self {
        let seen = HashMap::new();
        Self { trees, control, seen, path: Vec::new(), entries: 0, attributes_matter: false }
    }

    /// Looks at everything at a path, given what is there, and at the attributes of the directories above.
    pub(super) fn survey(
        &mut self,
        path: &[u8],
        root: ObjectId,
        found: (EntryKind, ObjectId),
    ) -> Result<(), Error> {
        let limits = self.control.limits;
        let mut above = root;
        let mut depth = 0;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let tree = self.trees.get(above)?;
            self.look_for_attributes(&tree)?;
            let Some(entry) = named(&tree, name)? else { break };
            if is_unsafe_name(name, entry.kind == EntryKind::Link) {
                return Err(Error::UnsafePath { path: scrubbed(path) });
            }
            above = entry.id;
            depth += 1;
        }
        self.path = path.to_vec();
        let mut below = Below { entries: 1, ..Below::default() };
        if found.0 == EntryKind::Directory {
            below = self.tree(found.1, depth)?;
        }
        below.path_bytes += path.len() as u64;
        self.entries = self.entries.saturating_add(below.entries);
        below.entries = self.entries;
        check(&below, depth, &limits)
    }

    fn tree(&mut self, id: ObjectId, depth: u64) -> Result<Below, Error> {
        if let Some(known) = self.seen.get(&id) {
            return Ok(*known);
        }
        self.control.check()?;
        let limits = self.control.limits;
        if depth > limits.max_path_depth {
            return Err(Error::TooLarge { what: Limit::PathDepth, limit: limits.max_path_depth });
        }
        let tree = self.trees.get(id)?;
        self.look_for_attributes(&tree)?;
        let mut below = Below::default();
        let mut names: HashSet<&[u8]> = HashSet::new();
        let mut offset = 0;
        while let Some((entry, next)) = entry_at(&tree, offset)? {
            offset = next;
            let parent_bytes = self.path.len();
            if parent_bytes > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(entry.name);
            // A name that is there twice, as a symbolic link and as a directory, leads out of the tree.
            if is_unsafe_name(entry.name, entry.kind == EntryKind::Link) || !names.insert(entry.name) {
                return Err(Error::UnsafePath { path: scrubbed(&self.path) });
            }
            let mut bytes = entry.name.len() as u64;
            below.entries = below.entries.saturating_add(1);
            if entry.kind == EntryKind::Directory {
                let inner = self.tree(entry.id, depth + 1)?;
                // Directories count too: each is an entry of the archive.
                below.entries = below.entries.saturating_add(inner.entries);
                below.depth = below.depth.max(inner.depth + 1);
                bytes += 1 + inner.path_bytes;
            }
            below.path_bytes = below.path_bytes.max(bytes);
            self.path.truncate(parent_bytes);
        }
        check(&below, depth, &limits)?;
        self.seen.insert(id, below);
        Ok(below)
    }

    fn look_for_attributes(&mut self, tree: &[u8]) -> Result<(), Error> {
        if !self.attributes_matter {
            let content = attributes_of(&self.trees.objects, tree)?;
            self.attributes_matter = content.is_some_and(|content| attributes::matters(&content));
        }
        Ok(())
    }
}

fn check(below: &Below, depth: u64, limits: &Limits) -> Result<(), Error> {
    let too_large = |what, limit| Err(Error::TooLarge { what, limit });
    if below.entries > limits.max_files {
        return too_large(Limit::Files, limits.max_files);
    }
    // A tree that was met before at a lesser depth is not read again: its own depth counts.
    if depth.saturating_add(below.depth) > limits.max_path_depth {
        return too_large(Limit::PathDepth, limits.max_path_depth);
    }
    if below.path_bytes > limits.max_path_bytes {
        return too_large(Limit::PathBytes, limits.max_path_bytes);
    }
    Ok(())
}

/// The attributes that a directory has of its own. What is no plain file, or is larger than a small one, is none.
pub(super) fn attributes_of(objects: &Objects, tree: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    use crate::git::archive::objects::Found;
    let Some(entry) = named(tree, attributes::FILE_NAME)? else { return Ok(None) };
    if !matches!(entry.kind, EntryKind::File | EntryKind::Executable) {
        return Ok(None);
    }
    let mut content = Vec::new();
    Ok(match objects.small_file(&entry.id, &mut content)? {
        Found::Read => Some(content),
        Found::Large { .. } => None,
    })
}
