//! A pack as it comes: checked against the limits entry by entry, written down, and indexed on all cores.
//!
//! libgit2 hands over raw bytes on its own thread; another thread reads them, so that the network and the
//! processor work at the same time. The pack gets its name when it is whole, index last, as git does it.

mod by_name;
mod delta;
mod index_file;
mod names;
mod stream;
mod thin;

use std::fs::{self, File, Permissions};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tempfile::NamedTempFile;

use self::stream::Pieces;
use super::connectivity::Links;
use super::objects::Objects;
use super::wire::{self, Wire};
use super::{Error, Phase};
use crate::report::Stage;

/// How many pieces may wait to be read: of 64 KiB each, as they come from a side band.
const MAX_PIECES: usize = 64;

/// What is collected before it is written, in bytes.
const WRITE_BYTES: usize = 256 * 1024;

/// Packs are never changed, as git has it.
const PACK_MODE: u32 = 0o444;

/// The work failed; why is recorded with the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

/// A pack that is coming. Dropping it before [`IndexPack::commit`] leaves nothing of it.
pub(super) struct IndexPack {
    /// Missing where libgit2 was called outside of a piece of work: then nothing is taken.
    wire: Option<Arc<Wire>>,
    pieces: Option<SyncSender<Vec<u8>>>,
    thread: Option<JoinHandle<Result<u32, Error>>>,
}

impl IndexPack {
    /// Begins to index what will be appended, into a directory for packs. Objects of the repository that the directory
    /// belongs to complete a thin pack.
    pub(super) fn begin(directory: PathBuf) -> Self {
        let Some(wire) = wire::current() else { return Self { wire: None, pieces: None, thread: None } };
        let (pieces, incoming) = sync_channel(MAX_PIECES);
        let worker = Worker { wire: Arc::clone(&wire), directory };
        let spawned =
            std::thread::Builder::new().name("index-pack".into()).spawn(move || worker.run(incoming));
        match spawned {
            Ok(thread) => Self { wire: Some(wire), pieces: Some(pieces), thread: Some(thread) },
            Err(_) => {
                let _ = wire.fail(internal("starting a thread"));
                Self { wire: None, pieces: None, thread: None }
            }
        }
    }

    /// Takes the next bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        let wire = self.wire.as_ref().ok_or(Failed)?;
        if let Err(error) = wire.control.check() {
            let _ = wire.fail(error);
            return Err(Failed);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let transfer = &wire.control.transfer;
        if transfer.phase() == Phase::Connecting {
            transfer.set_phase(Phase::Receiving);
            wire.log.begin(Stage::Receive);
        }
        if self.pieces.as_ref().is_some_and(|pieces| pieces.send(bytes.to_vec()).is_ok()) {
            return Ok(());
        }
        // Nobody listens any more: the thread has ended and says why.
        self.join().and(Err(Failed))
    }

    /// Waits until the pack is indexed and has its name. Returns how many objects came.
    pub(super) fn commit(&mut self) -> Result<u32, Failed> {
        let wire = Arc::clone(self.wire.as_ref().ok_or(Failed)?);
        if wire.control.transfer.phase() != Phase::Indexing {
            wire.control.transfer.set_phase(Phase::Indexing);
        }
        wire.log.begin(Stage::Index);
        wire.log.fact("objects", wire.control.transfer.total_objects());
        // An empty piece is the end, in contrast to a sender that is gone.
        if let Some(pieces) = self.pieces.take() {
            let _ = pieces.send(Vec::new());
        }
        self.join()
    }

    fn join(&mut self) -> Result<u32, Failed> {
        self.pieces = None;
        let joined = self.thread.take().map(JoinHandle::join).ok_or(Failed)?;
        joined.unwrap_or_else(|_| Err(internal("a panic while indexing"))).map_err(|error| {
            if let Some(wire) = &self.wire {
                let _ = wire.fail(error);
            }
            Failed
        })
    }
}

impl Drop for IndexPack {
    fn drop(&mut self) {
        self.pieces = None;
        if let Some(thread) = self.thread.take() {
            // What it has to say interests nobody any more.
            let _ = thread.join();
        }
    }
}

fn internal(what: &'static str) -> Error {
    Error::Internal { what, class: 0, code: 0 }
}

/// What the thread works with.
struct Worker {
    wire: Arc<Wire>,
    directory: PathBuf,
}

impl Worker {
    fn run(&self, incoming: Receiver<Vec<u8>>) -> Result<u32, Error> {
        // The deadline and a cancel go before everything else.
        let indexed = self.index(Pieces::new(incoming, self.wire.cut.interrupt()));
        indexed.map_err(|error| self.wire.control.check().err().unwrap_or(error))
    }

    fn index(&self, pieces: Pieces) -> Result<u32, Error> {
        let control = &self.wire.control;
        let pack = self.temporary("tmp_pack_")?;
        let index = self.temporary("tmp_idx_")?;
        let mut received = stream::take(pieces, self.reopened(&pack)?, &self.directory, control)?;
        let earlier = Objects::for_bases(&self.directory, control.limits.max_blob_bytes);
        received.find_hashed();
        let interrupt = self.wire.cut.interrupt();
        let source =
            names::Pack { path: pack.path(), directory: &self.directory, control, interrupt: &interrupt };
        if !received.by_name.is_empty() {
            by_name::resolve(&source, &mut received, self.reopened(&pack)?, earlier.as_ref())?;
        }
        let links = Links::new(received.records.len(), earlier.as_ref(), Arc::clone(&interrupt));
        let named = names::names(&source, &received, &links)?;
        let verdict = links.judge(named.iter().map(|named| &*named.id), earlier.as_ref(), control)?;
        self.wire.set_connectivity(verdict);
        let out = BufWriter::with_capacity(WRITE_BYTES, self.reopened(&index)?);
        index_file::write(&received, &named, out).map_err(|error| self.target(error))?;
        let count = u32::try_from(named.len()).map_err(|_| internal("counting the objects"))?;
        if count > 0 {
            self.keep(pack, index, &received.hash.to_hex().to_string())?;
        }
        Ok(count)
    }

    fn temporary(&self, prefix: &str) -> Result<NamedTempFile, Error> {
        // The names are those by which git itself finds what was left behind.
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix).permissions(Permissions::from_mode(0o600));
        builder.tempfile_in(&self.directory).map_err(|error| self.target(error))
    }

    fn reopened(&self, file: &NamedTempFile) -> Result<File, Error> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true);
        options.open(file.path()).map_err(|error| self.target(error))
    }

    /// Gives the pack and its index their names, durably, as git does; the index last, because it is what is looked for.
    fn keep(&self, pack: NamedTempFile, index: NamedTempFile, hash: &str) -> Result<(), Error> {
        let keep = || -> std::io::Result<()> {
            for (file, ending) in [(pack, "pack"), (index, "idx")] {
                file.as_file().set_permissions(Permissions::from_mode(PACK_MODE))?;
                file.as_file().sync_all()?;
                file.persist(self.directory.join(format!("pack-{hash}.{ending}")))?;
            }
            File::open(&self.directory)?.sync_all()
        };
        keep().map_err(|error| self.target(error))
    }

    fn target(&self, source: std::io::Error) -> Error {
        super::target::target_error(&self.directory, source)
    }
}
