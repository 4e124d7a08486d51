//! Objects read straight from a repository's database, on as many threads as there are handles, in bounded memory.
//!
//! Small objects are unpacked into memory. Large ones are inflated piece by piece where they are stored whole, and
//! only where they are stored as a delta they are held, up to [`MAX_HELD_BYTES`].

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::bufread::ZlibDecoder;
use gix_hash::{Kind as HashKind, ObjectId, oid};
use gix_object::Kind;
use gix_odb::Header as _;
use gix_odb::store::init::Options;

use crate::git::objects::MAX_TREE_BYTES;
use crate::git::{Error, Limit, PackProblem};

/// What is unpacked into memory without a second thought, in bytes: one object, or the deltas that lead to it.
pub(in crate::git) const SMALL_BYTES: usize = 4 * 1024 * 1024;

/// The largest object that is unpacked into memory at all, in bytes; unpacking a delta takes about twice as much.
/// Git itself makes no deltas of what is larger (`core.bigFileThreshold`).
pub(in crate::git) const MAX_HELD_BYTES: usize = 512 * 1024 * 1024;

/// What each handle keeps of objects that others are deltas of, in bytes.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// What is read at once of an object that is not held, in bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// The most bytes before the content of a loose object: its kind, its size, a zero.
const MAX_LOOSE_HEADER_BYTES: usize = 64;

/// One thread's access to the objects of a repository; a clone is for another thread.
#[derive(Clone)]
pub(in crate::git) struct Objects {
    small: gix_odb::HandleArc,
    large: gix_odb::HandleArc,
    /// The directories of objects, the repository's own first and then those that it borrows from.
    directories: Vec<PathBuf>,
}

/// What reading a file's content came to.
pub(in crate::git) enum Found {
    /// It is in the buffer.
    Read,
    /// It is larger than what is read so.
    Large {
        /// In bytes.
        size: u64,
    },
}

impl Objects {
    /// Opens the objects of a repository, given its git directory.
    pub(in crate::git) fn open(repository: &Path) -> Result<Self, Error> {
        let objects = repository.join("objects");
        let cannot = |_| Error::Internal { what: "opening the objects", class: 0, code: 0 };
        let current = std::env::current_dir().map_err(cannot)?;
        let borrowed = gix_odb::alternate::resolve(objects.clone(), &current)
            .map_err(|_| Error::PackCorrupt(PackProblem::ObjectMissing))?;
        let open = |limit: usize| {
            let options = Options { alloc_limit_bytes: Some(limit), ..Options::default() };
            gix_odb::at_opts(objects.clone(), HashKind::Sha1, [], options)
                .and_then(gix_odb::Handle::into_arc)
                .map_err(cannot)
        };
        let mut small = open(SMALL_BYTES)?;
        small.set_pack_cache(|| Box::new(gix_pack::cache::lru::MemoryCappedHashmap::new(CACHE_BYTES)));
        let mut directories = vec![objects.clone()];
        directories.extend(borrowed);
        Ok(Self { small, large: open(MAX_HELD_BYTES)?, directories })
    }

    /// Reads the content of a file, unless it is larger than [`SMALL_BYTES`].
    pub(in crate::git) fn small_file(&self, id: &oid, buffer: &mut Vec<u8>) -> Result<Found, Error> {
        match find(&self.small, id, Kind::Blob, buffer) {
            Ok(()) => return Ok(Found::Read),
            Err(Some(error)) => return Err(error),
            Err(None) => {}
        }
        let size = self.size(id)?;
        if size > SMALL_BYTES as u64 {
            return Ok(Found::Large { size });
        }
        // Small itself, at the end of deltas that are not.
        find(&self.large, id, Kind::Blob, buffer).map_err(damaged)?;
        Ok(Found::Read)
    }

    /// Reads a tree or a commit.
    pub(in crate::git) fn structure(&self, id: &oid, kind: Kind, buffer: &mut Vec<u8>) -> Result<(), Error> {
        match find(&self.small, id, kind, buffer) {
            Ok(()) => return Ok(()),
            Err(Some(error)) => return Err(error),
            Err(None) => {}
        }
        if self.size(id)? > MAX_TREE_BYTES {
            return Err(Error::TooLarge { what: Limit::TreeBytes, limit: MAX_TREE_BYTES });
        }
        find(&self.large, id, kind, buffer).map_err(damaged)
    }

    /// The size of an object, in bytes, without unpacking it.
    pub(in crate::git) fn size(&self, id: &oid) -> Result<u64, Error> {
        let header = self.small.try_header(id).map_err(|_| damaged(None))?;
        header.map(|header| header.size()).ok_or(Error::PackCorrupt(PackProblem::ObjectMissing))
    }

    /// Hands a large file out piece by piece.
    pub(in crate::git) fn stream(
        &self,
        id: &oid,
        size: u64,
        mut take: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(mut content) = self.stored_whole(id)? {
            let mut piece = vec![0; PIECE_BYTES];
            let mut seen = 0u64;
            loop {
                let count = content.read(&mut piece).map_err(|_| damaged(None))?;
                seen += count as u64;
                if seen > size || (count == 0 && seen < size) {
                    return Err(damaged(None));
                }
                if count == 0 {
                    return Ok(());
                }
                take(piece.get(..count).unwrap_or_default())?;
            }
        }
        if size > MAX_HELD_BYTES as u64 {
            return Err(Error::TooLarge { what: Limit::DeltaBytes, limit: MAX_HELD_BYTES as u64 });
        }
        let mut buffer = Vec::new();
        find(&self.large, id, Kind::Blob, &mut buffer).map_err(damaged)?;
        buffer.chunks(PIECE_BYTES).try_for_each(take)
    }

    /// Whether [`Self::stream`] holds no more than a piece of a file.
    pub(in crate::git) fn is_streamed(&self, id: &oid) -> Result<bool, Error> {
        Ok(self.stored_whole(id)?.is_some())
    }

    /// The inflated content of a file that is stored as it is, in a pack or by itself.
    fn stored_whole(&self, id: &oid) -> Result<Option<Box<dyn Read>>, Error> {
        for directory in &self.directories {
            if let Some(content) = packed(directory, id)? {
                return Ok(content);
            }
        }
        Ok(self.directories.iter().find_map(|directory| loose(directory, id)))
    }
}

/// Reads an object of a kind. `None` as the error is a failure whose reason has to be looked for: too large, or
/// damaged.
fn find(
    handle: &gix_odb::HandleArc,
    id: &oid,
    kind: Kind,
    buffer: &mut Vec<u8>,
) -> Result<(), Option<Error>> {
    match gix_object::Find::try_find(handle, id, buffer) {
        Ok(Some(found)) if found.kind == kind => Ok(()),
        Ok(Some(_)) => Err(Some(damaged(None))),
        Ok(None) => Err(Some(Error::PackCorrupt(PackProblem::ObjectMissing))),
        Err(_) => Err(None),
    }
}

fn damaged(known: Option<Error>) -> Error {
    known.unwrap_or(Error::PackCorrupt(PackProblem::Damaged))
}

/// Looks for a file in the packs of a directory of objects: `None` where no pack has it, `Some(None)` where it is
/// a delta.
#[allow(clippy::type_complexity)]
fn packed(objects: &Path, id: &oid) -> Result<Option<Option<Box<dyn Read>>>, Error> {
    let Ok(entries) = std::fs::read_dir(objects.join("pack")) else { return Ok(None) };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|extension| extension != "idx") {
            continue;
        }
        // A pack that goes away meanwhile has its objects elsewhere.
        let Ok(index) = gix_pack::index::File::at(&path, HashKind::Sha1) else { continue };
        let Some(position) = index.lookup(id) else { continue };
        let Ok(pack) = gix_pack::data::File::at(path.with_extension("pack"), HashKind::Sha1) else {
            continue;
        };
        let entry = pack.entry(index.pack_offset_at_index(position)).map_err(|_| damaged(None))?;
        match entry.header {
            gix_pack::data::entry::Header::Blob => {}
            header if header.is_delta() => return Ok(Some(None)),
            _ => return Err(damaged(None)),
        }
        let Ok(mut file) = File::open(pack.path()) else { continue };
        file.seek(SeekFrom::Start(entry.data_offset)).map_err(|_| damaged(None))?;
        return Ok(Some(Some(Box::new(ZlibDecoder::new(BufReader::with_capacity(PIECE_BYTES, file))))));
    }
    Ok(None)
}

/// Opens a file that is stored by itself, behind its header.
fn loose(objects: &Path, id: &oid) -> Option<Box<dyn Read>> {
    let name = id.to_string();
    let (directory, rest) = name.split_at_checked(2)?;
    let file = File::open(objects.join(directory).join(rest)).ok()?;
    let mut content = ZlibDecoder::new(BufReader::with_capacity(PIECE_BYTES, file));
    let mut byte = [1];
    for _ in 0..MAX_LOOSE_HEADER_BYTES {
        content.read_exact(&mut byte).ok()?;
        if byte == [0] {
            return Some(Box::new(content));
        }
    }
    None
}

/// The identifier of an object from its hex form.
pub(in crate::git) fn object_id(hex: &str) -> Result<ObjectId, Error> {
    ObjectId::from_hex(hex.as_bytes()).map_err(|_| Error::Internal {
        what: "reading an object's identifier",
        class: 0,
        code: 0,
    })
}
