//! The bytes of a pack on their way from libgit2 to the index: read in order, written down, judged entry by entry.
//!
//! Libraries wrap what went wrong below them in errors of their own. So whoever fails here notes why, and the notes
//! are what counts.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

use gix_pack::data::entry::Header;
use gix_pack::data::input::Entry;

use super::objects::MAX_TREE_BYTES;
use super::target::target_error;
use super::{Control, Error, Limit, Limits, PackProblem, Transfer};

/// The checksum at the end of a pack, in bytes.
const TRAILER_BYTES: u64 = 20;

/// Shared by the parts of one thread's work.
pub(super) type Shared<T> = Rc<RefCell<T>>;

/// Makes a part that is shared.
pub(super) fn shared<T>(value: T) -> Shared<T> {
    Rc::new(RefCell::new(value))
}

/// What is noted while a pack passes by.
#[derive(Default)]
pub(super) struct Notes {
    /// Why it went wrong.
    pub(super) failure: Option<Error>,
    /// How many bytes of the stream were read.
    read_bytes: u64,
    /// Where the last entry ended in the stream.
    entries_end: u64,
}

impl Notes {
    fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
    }
}

/// What libgit2 hands over, piece by piece. An empty piece is the end; a sender that is gone without it has given up.
pub(super) struct Pieces {
    incoming: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    consumed: usize,
    has_ended: bool,
    interrupt: Arc<AtomicBool>,
}

impl Pieces {
    pub(super) fn new(incoming: Receiver<Vec<u8>>, interrupt: Arc<AtomicBool>) -> Self {
        Self { incoming, piece: Vec::new(), consumed: 0, has_ended: false, interrupt }
    }

    /// Sees to it that the stream ends where the pack does.
    pub(super) fn expect_end(&mut self, notes: &Shared<Notes>) -> Result<(), Error> {
        let mut rest = [0];
        let unread = self.read(&mut rest).map_err(|_| Error::PackCorrupt(PackProblem::Truncated))?;
        let notes = notes.borrow();
        // An empty pack has no entry, and only the checksum behind its header.
        let end = notes.entries_end.max(PACK_HEADER_BYTES) + TRAILER_BYTES;
        if unread == 0 && notes.read_bytes <= end {
            return Ok(());
        }
        Err(Error::PackCorrupt(PackProblem::Damaged))
    }
}

/// What a pack begins with, in bytes.
const PACK_HEADER_BYTES: u64 = 12;

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.consumed == self.piece.len() && !self.has_ended {
            // Not `Interrupted`, which readers take for an invitation to try again.
            if self.interrupt.load(Ordering::Relaxed) {
                return Err(ErrorKind::BrokenPipe.into());
            }
            self.piece = self.incoming.recv().map_err(|_| io::Error::from(ErrorKind::BrokenPipe))?;
            self.consumed = 0;
            self.has_ended = self.piece.is_empty();
        }
        let unread = &self.piece[self.consumed..];
        let count = buffer.len().min(unread.len());
        buffer[..count].copy_from_slice(&unread[..count]);
        self.consumed += count;
        Ok(count)
    }
}

/// The pieces as they are read, with a copy of them on the disk where that is wanted.
pub(super) struct Tee {
    pieces: Shared<Pieces>,
    file: Option<Shared<PackFile>>,
    notes: Shared<Notes>,
}

impl Tee {
    pub(super) fn new(
        pieces: &Shared<Pieces>,
        file: Option<&Shared<PackFile>>,
        notes: &Shared<Notes>,
    ) -> Self {
        Self { pieces: Rc::clone(pieces), file: file.map(Rc::clone), notes: Rc::clone(notes) }
    }
}

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.pieces.borrow_mut().read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            // Whoever reads on has not come to the end of the pack.
            self.notes.borrow_mut().fail(Error::PackCorrupt(PackProblem::Truncated));
        }
        self.notes.borrow_mut().read_bytes += count as u64;
        if let Some(file) = &self.file {
            file.borrow_mut().write_all(&buffer[..count])?;
        }
        Ok(count)
    }
}

/// The file that a pack is written to.
pub(super) struct PackFile {
    file: BufWriter<File>,
    path: PathBuf,
    notes: Shared<Notes>,
}

impl PackFile {
    /// `path` is the directory to name where it cannot be written.
    pub(super) fn new(file: BufWriter<File>, path: PathBuf, notes: &Shared<Notes>) -> Self {
        Self { file, path, notes: Rc::clone(notes) }
    }

    fn noted<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            self.notes.borrow_mut().fail(target_error(&self.path, error));
            kind.into()
        })
    }
}

impl Write for PackFile {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer);
        self.noted(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.flush();
        self.noted(flushed)
    }
}

/// A pack file as one who writes it, and reads it again, sees it.
pub(super) struct PackFileHandle(pub(super) Shared<PackFile>);

impl Write for PackFileHandle {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

impl Read for PackFileHandle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.0.borrow_mut();
        file.flush()?;
        let read = file.file.get_mut().read(buffer);
        file.noted(read)
    }
}

impl Seek for PackFileHandle {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let mut file = self.0.borrow_mut();
        let sought = file.file.seek(to);
        file.noted(sought)
    }
}

/// Entries of a pack, each held against the limits as soon as its size is known.
pub(super) struct Judged<I> {
    entries: I,
    limits: Limits,
    transfer: Arc<Transfer>,
    notes: Shared<Notes>,
}

impl<I: Iterator> Judged<I> {
    pub(super) fn new(entries: I, control: &Control, notes: &Shared<Notes>) -> Self {
        control.transfer.set_objects(0, entries.size_hint().0);
        let transfer = Arc::clone(&control.transfer);
        Self { entries, limits: control.limits, transfer, notes: Rc::clone(notes) }
    }

    fn judge(&self, entry: &Entry) -> Result<(), Error> {
        self.notes.borrow_mut().entries_end =
            entry.pack_offset + u64::from(entry.header_size) + entry.compressed_size;
        let limit = self.limits.max_blob_bytes;
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
}

impl<I: Iterator<Item = gix_error::Result<Entry>>> Iterator for Judged<I> {
    type Item = gix_error::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = match self.entries.next()? {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        if let Err(error) = self.judge(&entry) {
            self.notes.borrow_mut().fail(error);
            return Some(Err(gix_hash::io::from_std_io(ErrorKind::QuotaExceeded.into())));
        }
        self.transfer.add_object();
        Some(Ok(entry))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}
