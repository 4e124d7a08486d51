//! What the readers make of each entry: the bytes that stand for it in the archive, ready to be written.

use gix_object::bstr::ByteSlice as _;

use super::trees::EntryKind;
use super::walk::Item;
use super::{tar, zip};
use crate::git::archive::objects::{Found, Objects};
use crate::git::survey::is_lfs_pointer;
use crate::git::{Control, Error, Limit};

/// How the entries of an archive are written, and what is the same for all of them.
pub(super) enum Form {
    Tar(tar::Form),
    Zip(zip::Form),
}

/// One entry, ready to be written.
pub(super) struct Piece {
    pub(super) body: Body,
    /// Bytes of its content.
    pub(super) content_bytes: u64,
    pub(super) is_pointer: bool,
    pub(super) is_substituted: bool,
}

pub(super) enum Body {
    /// Everything that a tar has of it.
    Tar(Vec<u8>, EntryKind),
    /// Everything that a zip has of it where it stands, and what its directory at the end says.
    Zip(Vec<u8>, zip::Record, EntryKind),
    /// It is too large to be held: the writer takes it through piece by piece.
    Large(Item),
}

/// What a thread uses again and again.
#[derive(Default)]
pub(super) struct Scratch {
    content: Vec<u8>,
    converted: Vec<u8>,
    pub(super) deflate: zip::Deflate,
}

impl Piece {
    pub(super) fn held_bytes(&self) -> usize {
        match &self.body {
            Body::Tar(bytes, _) | Body::Zip(bytes, _, _) => bytes.len(),
            Body::Large(_) => 0,
        }
    }
}

impl Form {
    /// Reads an entry and puts it in form.
    pub(super) fn piece(
        &self,
        objects: &Objects,
        item: Item,
        control: &Control,
        scratch: &mut Scratch,
    ) -> Result<Piece, Error> {
        let is_substituted = item.is_substituted;
        scratch.content.clear();
        if !matches!(item.kind, EntryKind::Directory | EntryKind::Submodule)
            && let Found::Large { size } = objects.small_file(&item.id, &mut scratch.content)?
        {
            let limit = control.limits.max_blob_bytes;
            if size > limit {
                return Err(Error::TooLarge { what: Limit::BlobBytes, limit });
            }
            if item.kind == EntryKind::Link {
                let limit = control.limits.max_path_bytes;
                return Err(Error::TooLarge { what: Limit::PathBytes, limit });
            }
            return Ok(Piece {
                body: Body::Large(item),
                content_bytes: size,
                is_pointer: false,
                is_substituted,
            });
        }
        check_size(&item, scratch.content.len() as u64, control)?;
        let is_file = matches!(item.kind, EntryKind::File | EntryKind::Executable);
        let is_pointer = is_file && is_lfs_pointer(&scratch.content);
        if is_file && convert(&item, &scratch.content, &mut scratch.converted)? {
            std::mem::swap(&mut scratch.content, &mut scratch.converted);
        }
        let content_bytes = scratch.content.len() as u64;
        let body = match self {
            Self::Tar(form) => Body::Tar(form.entry(&item, &scratch.content), item.kind),
            Self::Zip(form) => {
                let (bytes, record) = form.entry(&item, &scratch.content, &mut scratch.deflate)?;
                Body::Zip(bytes, record, item.kind)
            }
        };
        Ok(Piece { body, content_bytes, is_pointer, is_substituted })
    }
}

fn check_size(item: &Item, size: u64, control: &Control) -> Result<(), Error> {
    let (what, limit) = match item.kind {
        EntryKind::Link => (Limit::PathBytes, control.limits.max_path_bytes),
        _ => (Limit::BlobBytes, control.limits.max_blob_bytes),
    };
    if size > limit { Err(Error::TooLarge { what, limit }) } else { Ok(()) }
}

/// Makes the line ends that the attributes ask for; `false` where the content stays as it is.
fn convert(item: &Item, content: &[u8], converted: &mut Vec<u8>) -> Result<bool, Error> {
    let Some(line_ends) = item.line_ends.filter(|_| content.contains_str("\n")) else { return Ok(false) };
    let configuration = gix_filter::eol::Configuration::default();
    gix_filter::eol::convert_to_worktree(content, line_ends, converted, configuration)
        .map_err(|_| Error::Internal { what: "changing line ends", class: 0, code: 0 })
}
