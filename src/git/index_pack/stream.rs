//! The bytes of a pack on their way from libgit2 to the disk: in order, checked, judged entry by entry.
//!
//! Nothing of an object is held here. A large file gets its name as it passes by, so that nobody needs to unpack it
//! again; and so does every file as long as the sender is what is waited for, because there is time for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use flate2::Crc;
use gix_hash::{Hasher, Kind, ObjectId};
use gix_pack::data::Entry;
use gix_pack::data::entry::Header;
use gix_zlib::{Decompress, FlushDecompress, Status};

use crate::git::objects::{LARGE_FILE_BYTES, MAX_TREE_BYTES};
use crate::git::target::target_error;
use crate::git::{Control, Error, Limit, PackProblem};

/// What is collected before it is written, in bytes.
const WRITE_BYTES: usize = 256 * 1024;

/// What is inflated at once, in bytes.
const INFLATED_BYTES: usize = 32 * 1024;

/// What a pack begins with, in bytes.
pub(super) const PACK_HEADER_BYTES: usize = 12;

/// The checksum at the end of a pack, in bytes.
pub(super) const TRAILER_BYTES: usize = 20;

/// The most bytes that an entry of a pack has before its content.
const MAX_ENTRY_HEADER_BYTES: usize = 40;

/// What libgit2 hands over, piece by piece. An empty piece is the end; a sender that is gone without it has given up.
pub(super) struct Pieces {
    incoming: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    consumed: usize,
    has_ended: bool,
    /// Whether the present piece had to be waited for.
    is_ahead: bool,
    interrupt: Arc<AtomicBool>,
}

impl Pieces {
    pub(super) fn new(incoming: Receiver<Vec<u8>>, interrupt: Arc<AtomicBool>) -> Self {
        Self { incoming, piece: Vec::new(), consumed: 0, has_ended: false, is_ahead: false, interrupt }
    }

    fn unread(&self) -> &[u8] {
        self.piece.get(self.consumed..).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        self.consumed += count;
    }

    /// Waits for so many bytes together, or for the end.
    fn fill(&mut self, count: usize) -> Result<(), Error> {
        while self.unread().len() < count && !self.has_ended {
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(truncated());
            }
            let ready = self.incoming.try_recv().ok();
            self.is_ahead = ready.is_none();
            let next = match ready {
                Some(next) => next,
                None => self.incoming.recv().map_err(|_| truncated())?,
            };
            self.has_ended = next.is_empty();
            if self.unread().is_empty() {
                self.piece = next;
            } else {
                self.piece = [self.unread(), &next].concat();
            }
            self.consumed = 0;
        }
        Ok(())
    }

    /// The next bytes, exactly so many.
    fn exactly(&mut self, count: usize) -> Result<&[u8], Error> {
        self.fill(count)?;
        self.unread().get(..count).ok_or_else(truncated)
    }
}

/// Marks a record that is no delta, or a delta of an object that is known by its name alone.
pub(super) const NO_BASE: u32 = u32::MAX;

/// One entry of a pack.
pub(super) struct Record {
    /// Where it begins.
    pub(super) offset: u64,
    pub(super) crc32: u32,
    /// The position of the record that it is a delta of.
    pub(super) base: u32,
}

/// A file whose name is known since it passed by.
pub(super) struct Hashed {
    /// Its position among the records.
    pub(super) record: u32,
    pub(super) id: ObjectId,
    /// Whether there are deltas of it, so that its content is needed once more.
    pub(super) is_base: bool,
}

/// A pack that is on the disk and whole.
pub(super) struct Received {
    /// By their places.
    pub(super) records: Vec<Record>,
    /// By their places.
    pub(super) hashed: Vec<Hashed>,
    /// Deltas of objects that are known by their names alone.
    pub(super) by_name: BTreeMap<ObjectId, Vec<u32>>,
    /// Where the bases are that deltas name, as far as that is known.
    pub(super) places: BTreeMap<ObjectId, u64>,
    /// Where the last entry ends.
    pub(super) end: u64,
    /// The hash of it all.
    pub(super) hash: ObjectId,
}

/// Everything that is done to each byte.
struct Sink {
    file: BufWriter<File>,
    directory: PathBuf,
    hash: Hasher,
    crc: Crc,
    offset: u64,
}

impl Sink {
    fn pass(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hash.update(bytes);
        self.crc.update(bytes);
        self.offset += bytes.len() as u64;
        self.write(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(|error| target_error(&self.directory, error))
    }
}

/// Takes a pack in.
struct Taker<'a> {
    pieces: Pieces,
    sink: Sink,
    control: &'a Control,
    inflate: Decompress,
    inflated: Vec<u8>,
    received: Received,
}

/// Takes a pack in, up to its end, and writes it into a file. What it says of itself is checked as soon as it says so.
///
/// `directory` is what is named where the file cannot be written.
pub(super) fn take(
    pieces: Pieces,
    file: File,
    directory: &Path,
    control: &Control,
) -> Result<Received, Error> {
    let sink = Sink {
        file: BufWriter::with_capacity(WRITE_BYTES, file),
        directory: directory.to_owned(),
        hash: gix_hash::hasher(Kind::Sha1),
        crc: Crc::new(),
        offset: 0,
    };
    let received = Received {
        records: Vec::new(),
        hashed: Vec::new(),
        by_name: BTreeMap::new(),
        places: BTreeMap::new(),
        end: 0,
        hash: ObjectId::null(Kind::Sha1),
    };
    let (inflate, inflated) = (Decompress::new(), vec![0; INFLATED_BYTES]);
    Taker { pieces, sink, control, inflate, inflated, received }.run()
}

impl Taker<'_> {
    fn run(mut self) -> Result<Received, Error> {
        let header = self.pieces.exactly(PACK_HEADER_BYTES)?.first_chunk().copied().unwrap_or_default();
        let (_, count) = gix_pack::data::header::decode(&header).map_err(|_| damaged())?;
        self.pass_header(PACK_HEADER_BYTES)?;
        self.control.transfer.set_objects(0, count as usize);
        for record in 0..count {
            self.entry(record)?;
            self.control.transfer.add_object();
        }
        self.received.end = self.sink.offset;
        let hash = std::mem::replace(&mut self.sink.hash, gix_hash::hasher(Kind::Sha1));
        self.received.hash = hash.try_finalize().map_err(|_| damaged())?;
        let trailer = self.pieces.exactly(TRAILER_BYTES)?;
        if trailer != self.received.hash.as_slice() {
            return Err(damaged());
        }
        self.sink.write(trailer)?;
        self.pieces.consume(TRAILER_BYTES);
        self.pieces.fill(1)?;
        if !self.pieces.unread().is_empty() {
            return Err(damaged());
        }
        let Sink { mut file, directory, .. } = self.sink;
        file.flush().map_err(|error| target_error(&directory, error))?;
        Ok(self.received)
    }

    fn pass_header(&mut self, count: usize) -> Result<(), Error> {
        self.sink.pass(self.pieces.unread().get(..count).ok_or_else(truncated)?)?;
        self.pieces.consume(count);
        Ok(())
    }

    fn entry(&mut self, record: u32) -> Result<(), Error> {
        let offset = self.sink.offset;
        self.sink.crc.reset();
        self.pieces.fill(MAX_ENTRY_HEADER_BYTES)?;
        let unread = self.pieces.unread();
        let header = unread.get(..MAX_ENTRY_HEADER_BYTES).unwrap_or(unread);
        let ends_early = header.len() < MAX_ENTRY_HEADER_BYTES;
        let entry = Entry::from_bytes(header, offset, Kind::Sha1)
            .map_err(|_| if ends_early { truncated() } else { damaged() })?;
        self.judge(&entry)?;
        self.pass_header(entry.header_size())?;
        let base = self.base(&entry, offset, record)?;
        let is_named = self.pieces.is_ahead || entry.decompressed_size >= LARGE_FILE_BYTES;
        let mut name = (is_named && entry.header == Header::Blob).then(|| {
            let mut name = gix_hash::hasher(Kind::Sha1);
            name.update(format!("blob {}\0", entry.decompressed_size).as_bytes());
            name
        });
        self.content(entry.decompressed_size, name.as_mut())?;
        if let Some(name) = name {
            let id = name.try_finalize().map_err(|_| damaged())?;
            self.received.hashed.push(Hashed { record, id, is_base: false });
        }
        let crc32 = self.sink.crc.sum();
        self.received.records.push(Record { offset, crc32, base });
        Ok(())
    }

    /// Holds an entry against the limits, before anything of it is inflated.
    fn judge(&self, entry: &Entry) -> Result<(), Error> {
        let limit = self.control.limits.max_blob_bytes;
        // The instructions of a delta are bounded as what they make is.
        let most = match entry.header {
            Header::Blob => limit,
            _ => limit.max(MAX_TREE_BYTES),
        };
        if entry.decompressed_size > most {
            return Err(Error::TooLarge { what: Limit::BlobBytes, limit });
        }
        Ok(())
    }

    /// Finds what an entry is a delta of.
    fn base(&mut self, entry: &Entry, offset: u64, record: u32) -> Result<u32, Error> {
        let place = match entry.header {
            Header::OfsDelta { base_distance } => {
                Header::verified_base_pack_offset(offset, base_distance).ok_or_else(damaged)?
            }
            Header::RefDelta { base_id } => {
                self.received.by_name.entry(base_id).or_default().push(record);
                return Ok(NO_BASE);
            }
            _ => return Ok(NO_BASE),
        };
        let records = &self.received.records;
        let base = records.binary_search_by_key(&place, |record| record.offset).map_err(|_| damaged())?;
        let base = u32::try_from(base).map_err(|_| damaged())?;
        self.received.mark_base(base);
        Ok(base)
    }

    /// Passes the content of an entry on, and sees to it that it is as long as it has to be.
    fn content(&mut self, size: u64, mut name: Option<&mut Hasher>) -> Result<(), Error> {
        self.inflate.reset();
        loop {
            self.pieces.fill(1)?;
            let unread = self.pieces.unread();
            if unread.is_empty() {
                return Err(truncated());
            }
            let (taken_before, made_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(unread, &mut self.inflated, FlushDecompress::None);
            let status = status.map_err(|_| damaged())?;
            let taken = usize::try_from(self.inflate.total_in() - taken_before).map_err(|_| damaged())?;
            let made = usize::try_from(self.inflate.total_out() - made_before).map_err(|_| damaged())?;
            self.sink.pass(unread.get(..taken).unwrap_or_default())?;
            self.pieces.consume(taken);
            if let Some(name) = &mut name {
                name.update(self.inflated.get(..made).unwrap_or_default());
            }
            let total = self.inflate.total_out();
            match status {
                Status::StreamEnd if total == size => return Ok(()),
                Status::StreamEnd => return Err(damaged()),
                _ if total > size || (taken == 0 && made == 0) => return Err(damaged()),
                _ => {}
            }
        }
    }
}

impl Received {
    /// Notes that there is a delta of a record.
    pub(super) fn mark_base(&mut self, base: u32) {
        if let Ok(position) = self.hashed.binary_search_by_key(&base, |hashed| hashed.record)
            && let Some(hashed) = self.hashed.get_mut(position)
        {
            hashed.is_base = true;
        }
    }

    /// Finds bases among the files of the pack whose names are known.
    pub(super) fn find_hashed(&mut self) {
        let known: Vec<(ObjectId, u32)> =
            self.hashed.iter().map(|hashed| (hashed.id, hashed.record)).collect();
        for (id, record) in known {
            if self.by_name.contains_key(&id) {
                self.found(&id, record);
            }
        }
    }

    /// Says of all deltas of an object that is known by its name where it is.
    pub(super) fn found(&mut self, id: &ObjectId, base: u32) {
        if let Some(place) = self.records.get(base as usize).map(|record| record.offset) {
            self.places.insert(*id, place);
        }
        for delta in self.by_name.remove(id).unwrap_or_default() {
            if let Some(record) = self.records.get_mut(delta as usize) {
                record.base = base;
            }
        }
        self.mark_base(base);
    }
}

fn truncated() -> Error {
    Error::PackCorrupt(PackProblem::Truncated)
}

fn damaged() -> Error {
    Error::PackCorrupt(PackProblem::Damaged)
}
