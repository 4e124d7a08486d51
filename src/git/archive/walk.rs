//! The entries of an archive in git's order: directories before what they hold, and only where they hold something.

use std::collections::VecDeque;
use std::sync::Arc;

use gix_filter::eol::AttributesDigest;
use gix_hash::ObjectId;

use super::attributes::{Attributes, Treatment};
use super::trees::{EntryKind, Trees, attributes_of, entry_at};
use crate::git::Error;

/// One entry of an archive.
pub(super) struct Item {
    /// Its path in the archive; that of a directory or a submodule ends with a slash.
    pub(super) path: Vec<u8>,
    pub(super) kind: EntryKind,
    pub(super) id: ObjectId,
    /// How its line ends change.
    pub(super) line_ends: Option<AttributesDigest>,
    /// Whether git would expand placeholders in it.
    pub(super) is_substituted: bool,
}

/// A directory that is being gone through.
struct Frame {
    tree: Arc<Vec<u8>>,
    id: ObjectId,
    offset: usize,
    path_bytes: usize,
    is_written: bool,
    /// Whether everything below is wanted.
    is_whole: bool,
    has_attributes: bool,
}

/// Goes through the trees of a commit.
pub(super) struct Walk {
    trees: Trees,
    attributes: Option<Attributes>,
    selection: Vec<Vec<u8>>,
    prefix: Vec<u8>,
    frames: Vec<Frame>,
    /// The path of the directory that is being gone through, with a slash at its end.
    path: Vec<u8>,
    ready: VecDeque<Item>,
}

/// How a path stands to what was selected.
enum Wanted {
    Whole,
    /// Something below it.
    Within,
    Not,
}

impl Walk {
    /// Begins at the root of a commit. The paths of the selection have no slash at either end; none stand for
    /// everything. The prefix goes before each path.
    pub(super) fn new(
        trees: Trees,
        root: ObjectId,
        selection: Vec<Vec<u8>>,
        attributes_matter: bool,
        prefix: &[u8],
    ) -> Result<Self, Error> {
        let attributes = attributes_matter.then(Attributes::new);
        let is_whole = selection.is_empty();
        let mut walk = Self {
            trees,
            attributes,
            selection,
            prefix: prefix.to_vec(),
            frames: Vec::new(),
            path: Vec::new(),
            ready: VecDeque::new(),
        };
        if !prefix.is_empty() {
            walk.ready.push_back(walk.item(&[], EntryKind::Directory, root, Treatment::default()));
        }
        walk.enter(root, is_whole)?;
        if let Some(frame) = walk.frames.last_mut() {
            frame.is_written = true;
        }
        Ok(walk)
    }

    /// The next entry.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Error> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let Some(frame) = self.frames.last_mut() else { return Ok(None) };
            let tree = Arc::clone(&frame.tree);
            let is_whole = frame.is_whole;
            match entry_at(&tree, frame.offset)? {
                None => self.leave(),
                Some((entry, next)) => {
                    frame.offset = next;
                    let parent_bytes = self.path.len();
                    self.path.extend_from_slice(entry.name);
                    let wanted = if is_whole { Wanted::Whole } else { self.wanted() };
                    self.visit(entry.kind, entry.id, &wanted, parent_bytes)?;
                }
            }
        }
    }

    /// Takes an entry whose path stands in `self.path`.
    fn visit(
        &mut self,
        kind: EntryKind,
        id: ObjectId,
        wanted: &Wanted,
        parent_bytes: usize,
    ) -> Result<(), Error> {
        let is_directory = kind == EntryKind::Directory;
        let is_unwanted = match wanted {
            Wanted::Whole => false,
            Wanted::Within => !is_directory,
            Wanted::Not => true,
        };
        if is_unwanted {
            self.path.truncate(parent_bytes);
            return Ok(());
        }
        let is_like_directory = matches!(kind, EntryKind::Directory | EntryKind::Submodule);
        let treatment = match &mut self.attributes {
            Some(attributes) => attributes.of(&self.path, is_like_directory),
            None => Treatment::default(),
        };
        if is_like_directory {
            self.path.push(b'/');
        }
        if is_directory {
            if treatment.is_ignored {
                self.path.truncate(parent_bytes);
                return Ok(());
            }
            // `leave` takes the path back.
            return self.enter(id, matches!(wanted, Wanted::Whole));
        }
        // Git writes the directories above even where the one file in them is then left out.
        self.write_directories();
        if !treatment.is_ignored {
            let item = self.item(&self.path, kind, id, treatment);
            self.ready.push_back(item);
        }
        self.path.truncate(parent_bytes);
        Ok(())
    }

    fn enter(&mut self, id: ObjectId, is_whole: bool) -> Result<(), Error> {
        let tree = self.trees.get(id)?;
        let mut has_attributes = false;
        if let Some(attributes) = &mut self.attributes
            && let Some(content) = attributes_of(&self.trees.objects, &tree)?
        {
            attributes.push(&content, &self.path);
            has_attributes = true;
        }
        let path_bytes = self.path.len();
        self.frames.push(Frame {
            tree,
            id,
            offset: 0,
            path_bytes,
            is_written: false,
            is_whole,
            has_attributes,
        });
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(frame) = self.frames.pop()
            && frame.has_attributes
            && let Some(attributes) = &mut self.attributes
        {
            attributes.pop();
        }
        let parent_bytes = self.frames.last().map_or(0, |frame| frame.path_bytes);
        self.path.truncate(parent_bytes);
    }

    fn write_directories(&mut self) {
        for position in 0..self.frames.len() {
            let Some(frame) = self.frames.get_mut(position).filter(|frame| !frame.is_written) else {
                continue;
            };
            frame.is_written = true;
            let (id, path_bytes) = (frame.id, frame.path_bytes);
            let path = self.path.get(..path_bytes).unwrap_or_default();
            let item = self.item(path, EntryKind::Directory, id, Treatment::default());
            self.ready.push_back(item);
        }
    }

    fn item(&self, path: &[u8], kind: EntryKind, id: ObjectId, treatment: Treatment) -> Item {
        let path = [&self.prefix, path].concat();
        let Treatment { line_ends, is_substituted, .. } = treatment;
        Item { path, kind, id, line_ends, is_substituted }
    }

    fn wanted(&self) -> Wanted {
        let is_below = |path: &[u8], directory: &[u8]| {
            path.strip_prefix(directory).is_some_and(|rest| rest.first().is_none_or(|byte| *byte == b'/'))
        };
        if self.selection.iter().any(|selected| is_below(&self.path, selected)) {
            Wanted::Whole
        } else if self.selection.iter().any(|selected| is_below(selected, &self.path)) {
            Wanted::Within
        } else {
            Wanted::Not
        }
    }
}
