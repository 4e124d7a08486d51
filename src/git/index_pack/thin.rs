//! Completes a thin pack: objects that it leans on and that were there before are put behind its own, as git does it.

use std::fs::File;
use std::io::{BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use gix_hash::{Kind, ObjectId};
use gix_object::Find as _;
use gix_pack::data::input::Entry;
use gix_zlib::{Compression, Inflate};

use super::by_name::Finder;
use super::names::{Pack, damaged};
use super::stream::{NO_BASE, PACK_HEADER_BYTES, Received, Record};
use crate::git::objects::Objects;
use crate::git::target::target_error;
use crate::git::{Control, Error, Limit};

/// What is read at once where the pack is hashed anew, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// Where the number of objects stands in a pack.
const COUNT_OFFSET: u64 = 8;

/// What is put behind a pack.
#[derive(Default)]
pub(super) struct Added {
    pub(super) records: Vec<Record>,
    /// Where the last of them ends.
    pub(super) end: u64,
}

/// Puts the earlier objects behind the pack on which something in it leans that is not found yet. An object that comes
/// to light by one of them is not added any more: it is in the pack.
pub(super) fn add(
    finder: &Finder<'_>,
    received: &Received,
    mut file: &File,
    earlier: &Objects,
) -> Result<Added, Error> {
    let control = finder.pack.control;
    let cannot = |error| target_error(finder.pack.directory, error);
    let mut added = Added { records: Vec::new(), end: received.end };
    let (mut buffer, mut inflate) = (Vec::new(), Inflate::default());
    file.seek(SeekFrom::Start(received.end)).map_err(cannot)?;
    let mut out = BufWriter::new(file);
    for id in finder.missing() {
        control.check()?;
        if finder.has_found(&id) {
            continue;
        }
        let limit = control.limits.max_blob_bytes;
        let found =
            earlier.try_find(&id, &mut buffer).map_err(|error| match error.is_resource_exhausted() {
                true => Error::TooLarge { what: Limit::BlobBytes, limit },
                false => damaged(),
            })?;
        let Some(object) = found else { continue };
        let entry = Entry::from_data_obj(&object, added.end, Compression::BEST_SPEED);
        let entry = entry.map_err(|_| damaged())?;
        entry.header.write_to(entry.decompressed_size, &mut out).map_err(cannot)?;
        out.write_all(entry.compressed.as_deref().unwrap_or_default()).map_err(cannot)?;
        let position = received.records.len() + added.records.len();
        let position = u32::try_from(position).map_err(|_| damaged())?;
        let crc32 = entry.crc32.unwrap_or_default();
        added.records.push(Record { offset: added.end, crc32, base: NO_BASE });
        added.end += entry.bytes_in_pack();
        finder.descend(position, object.kind, object.data.to_vec(), &mut inflate)?;
    }
    out.flush().map_err(cannot)?;
    Ok(added)
}

/// Makes the pack say how many objects it has now, and what its hash is.
pub(super) fn seal(received: &mut Received, mut file: File, pack: &Pack<'_>) -> Result<(), Error> {
    let cannot = |error| target_error(pack.directory, error);
    let count = u32::try_from(received.records.len()).map_err(|_| damaged())?;
    file.seek(SeekFrom::Start(COUNT_OFFSET)).map_err(cannot)?;
    file.write_all(&count.to_be_bytes()).map_err(cannot)?;
    received.hash = hash(&mut file, received.end, pack.directory, pack.control)?;
    file.write_all(received.hash.as_slice()).map_err(cannot)
}

/// The hash of so many bytes from the beginning on; the file stands behind them then.
fn hash(file: &mut File, end: u64, directory: &Path, control: &Control) -> Result<ObjectId, Error> {
    debug_assert!(end > PACK_HEADER_BYTES as u64, "a pack that leans on something is not empty");
    let cannot = |error| target_error(directory, error);
    file.seek(SeekFrom::Start(0)).map_err(cannot)?;
    let mut hasher = gix_hash::hasher(Kind::Sha1);
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = end;
    while left > 0 {
        control.check()?;
        let most = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let count = file.read(piece.get_mut(..most).unwrap_or_default()).map_err(cannot)?;
        if count == 0 {
            return Err(damaged());
        }
        hasher.update(piece.get(..count).unwrap_or_default());
        left -= count as u64;
    }
    hasher.try_finalize().map_err(|_| damaged())
}
