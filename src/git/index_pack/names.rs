//! What the objects of a pack are called: unpacked on all cores, deltas on their bases, and hashed. On the way it is
//! seen what they refer to.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gix_hash::{Kind as HashKind, ObjectId};
use gix_object::Kind;
use gix_pack::cache::delta::Tree;
use gix_pack::cache::delta::traverse::{Context, Options};
use gix_pack::data::EntryRange;

use super::index_file::Named;
use super::stream::{Hashed, NO_BASE, Received, Record};
use crate::git::connectivity::{Collector, Links};
use crate::git::meter::Meter;
use crate::git::objects::MAX_TREE_BYTES;
use crate::git::{Control, Error, Limit, Limits, PackProblem};

/// The most deltas on each other. Git itself makes 4,095 at the most.
pub(super) const MAX_DELTA_DEPTH: u16 = 10_000;

/// How much of objects is held at once because there are further deltas of them, in bytes.
pub(super) const MAX_HELD_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// From which size on an object counts as held, in bytes.
const COUNTED_BYTES: u64 = 16 * 1024;

/// A pack that is about to be indexed.
pub(super) struct Pack<'a> {
    pub(super) path: &'a Path,
    /// The directory that it is in.
    pub(super) directory: &'a Path,
    pub(super) control: &'a Control,
    pub(super) interrupt: &'a AtomicBool,
}

/// An object as it goes through the library.
struct Item {
    record: u32,
    id: ObjectId,
}

/// The names of all objects, sorted.
pub(super) fn names(pack: &Pack<'_>, received: &Received, links: &Links) -> Result<Vec<Named>, Error> {
    let mut named = unpacked(pack, received, links)?;
    named.sort_unstable_by_key(|named| named.id);
    // Deltas that lean on each other's doubles would send whoever follows the index around in circles.
    let is_double = |pair: &[Named]| matches!(pair, [first, second] if first.id == second.id);
    if named.windows(2).any(is_double) { Err(damaged()) } else { Ok(named) }
}

/// A pack in the library's form, with the places of what is passed over.
type Source = (gix_pack::data::File, Vec<u64>);

fn slice(range: EntryRange, (pack, passed_over): &Source) -> Option<&[u8]> {
    let next = passed_over.partition_point(|place| *place <= range.start);
    let end = passed_over.get(next).map_or(range.end, |place| range.end.min(*place));
    pack.entry_slice(range.start..end)
}

fn unpacked(pack: &Pack<'_>, received: &Received, links: &Links) -> Result<Vec<Named>, Error> {
    let Received { records, hashed, end, places, .. } = received;
    let known: Vec<&Hashed> = hashed.iter().filter(|hashed| !hashed.is_base).collect();
    let count = u32::try_from(records.len()).map_err(|_| damaged())?;
    let is_known = |record: &u32| known.binary_search_by_key(record, |hashed| hashed.record).is_ok();
    let items = (0..count).filter(|record| !is_known(record));
    let items: Vec<Item> = items.map(|record| Item { record, id: ObjectId::null(HashKind::Sha1) }).collect();
    let offset = |record: u32| records.get(record as usize).map_or(0, |record| record.offset);
    let noted = Mutex::new(None);
    let failed = |error: gix_error::Error| {
        let noted = noted.lock().unwrap_or_else(PoisonError::into_inner).take();
        noted.unwrap_or_else(|| meaning(&error, pack.control.limits))
    };
    let mut unpacked = Vec::with_capacity(records.len());
    if !items.is_empty() {
        let tree = Tree::from_offsets_in_pack(
            pack.path,
            items.into_iter(),
            &|item: &Item| offset(item.record),
            &|id| Ok(places.get(id).copied()),
            &mut Meter::counting(&Arc::default()),
            pack.interrupt,
            HashKind::Sha1,
        )
        .map_err(failed)?;
        let file = gix_pack::data::File::at(pack.path, HashKind::Sha1).map_err(failed)?;
        // By their places, as all records are.
        let passed_over: Vec<u64> = known.iter().map(|hashed| offset(hashed.record)).collect();
        let (held, limits) = (Held::new(records), pack.control.limits);
        let mut inspector =
            Inspector { records, held: &held, links: links.collector(), limits, noted: &noted };
        let inspect = move |item: &mut Item, _: &dyn prodash::Progress, context: Context<'_>| {
            inspector.inspect(item, &context)
        };
        let options = Options {
            object_progress: Box::new(Meter::counting(pack.control.transfer.indexed())),
            size_progress: &mut Meter::counting(&Arc::default()),
            thread_limit: None,
            should_interrupt: pack.interrupt,
            object_hash: HashKind::Sha1,
            alloc_limit_bytes: alloc_limit(pack.control.limits),
        };
        let outcome = tree.traverse(slice, &(file, passed_over), *end, inspect, options).map_err(failed)?;
        let items = outcome.roots.into_iter().chain(outcome.children);
        unpacked.extend(items.map(|item| Named { id: item.data.id, record: item.data.record }));
    }
    pack.control.transfer.indexed().fetch_add(known.len(), Ordering::Relaxed);
    unpacked.extend(known.into_iter().map(|hashed| Named { id: hashed.id, record: hashed.record }));
    Ok(unpacked)
}

/// Looks at every object once, on the thread that unpacked it.
#[derive(Clone)]
struct Inspector<'a> {
    records: &'a [Record],
    held: &'a Held,
    links: Collector<'a>,
    limits: Limits,
    noted: &'a Mutex<Option<Error>>,
}

impl Inspector<'_> {
    fn inspect(&mut self, item: &mut Item, context: &Context<'_>) -> gix_error::Result<()> {
        self.inspected(item, context).map_err(|error| {
            self.noted.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            gix_hash::io::from_std_io(io::ErrorKind::InvalidData.into())
        })
    }

    fn inspected(&mut self, item: &mut Item, context: &Context<'_>) -> Result<(), Error> {
        let kind = context.entry.header.as_kind().ok_or_else(damaged)?;
        let size = context.decompressed.len() as u64;
        if context.level > MAX_DELTA_DEPTH {
            return Err(too_deep());
        }
        if kind == Kind::Blob && size > self.limits.max_blob_bytes {
            return Err(Error::TooLarge { what: Limit::BlobBytes, limit: self.limits.max_blob_bytes });
        }
        let base = self.records.get(item.record as usize).map_or(NO_BASE, |record| record.base);
        self.held.note(item.record, base, size)?;
        item.id =
            gix_object::compute_hash(HashKind::Sha1, kind, context.decompressed).map_err(|_| damaged())?;
        self.links.object(kind, context.decompressed);
        Ok(())
    }
}

/// Counts what the library has to hold: objects of which there are deltas that were not unpacked yet. A few bytes can
/// make a whole tree of large ones.
struct Held {
    /// By record: deltas of it that are still to come.
    deltas: Vec<AtomicU32>,
    /// Of how many records more than a little is held.
    count: AtomicUsize,
    bases: Mutex<Bases>,
}

#[derive(Default)]
struct Bases {
    bytes: u64,
    sizes: HashMap<u32, u64>,
}

impl Held {
    fn new(records: &[Record]) -> Self {
        let deltas: Vec<AtomicU32> = records.iter().map(|_| AtomicU32::new(0)).collect();
        for record in records {
            if let Some(deltas) = deltas.get(record.base as usize) {
                deltas.fetch_add(1, Ordering::Relaxed);
            }
        }
        Self { deltas, count: AtomicUsize::new(0), bases: Mutex::default() }
    }

    fn note(&self, record: u32, base: u32, size: u64) -> Result<(), Error> {
        let is_last =
            self.deltas.get(base as usize).is_some_and(|deltas| deltas.fetch_sub(1, Ordering::AcqRel) == 1);
        if is_last && self.count.load(Ordering::Acquire) > 0 {
            let mut bases = self.lock();
            if let Some(size) = bases.sizes.remove(&base) {
                bases.bytes -= size;
                self.count.fetch_sub(1, Ordering::AcqRel);
            }
        }
        let has_deltas =
            self.deltas.get(record as usize).is_some_and(|deltas| deltas.load(Ordering::Acquire) > 0);
        if has_deltas && size >= COUNTED_BYTES {
            let mut bases = self.lock();
            bases.bytes += size;
            bases.sizes.insert(record, size);
            self.count.fetch_add(1, Ordering::AcqRel);
            if bases.bytes > MAX_HELD_BYTES {
                return Err(Error::TooLarge { what: Limit::DeltaBytes, limit: MAX_HELD_BYTES });
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Bases> {
        self.bases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn alloc_limit(limits: Limits) -> Option<usize> {
    usize::try_from(limits.max_blob_bytes.max(MAX_TREE_BYTES)).ok()
}

/// What a library's error means: an object that would be larger than any may be, or bytes out of form.
fn meaning(error: &gix_error::Error, limits: Limits) -> Error {
    if error.is_resource_exhausted() {
        return Error::TooLarge { what: Limit::BlobBytes, limit: limits.max_blob_bytes };
    }
    damaged()
}

pub(super) fn too_deep() -> Error {
    Error::TooLarge { what: Limit::DeltaDepth, limit: u64::from(MAX_DELTA_DEPTH) }
}

pub(super) fn damaged() -> Error {
    Error::PackCorrupt(PackProblem::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(base: u32) -> Record {
        Record { offset: 0, crc32: 0, base }
    }

    #[test]
    fn what_has_to_be_held_is_counted_until_the_last_delta_of_it() {
        const SIZE: u64 = MAX_HELD_BYTES / 4;
        // A base with two deltas, of which the second has one itself.
        let held = Held::new(&[record(NO_BASE), record(0), record(0), record(2)]);
        let bytes = || held.lock().bytes;
        assert!(held.note(0, NO_BASE, SIZE).is_ok());
        assert!(held.note(2, 0, SIZE).is_ok());
        assert_eq!(bytes(), 2 * SIZE);
        assert!(held.note(3, 2, SIZE).is_ok());
        assert_eq!(bytes(), SIZE, "the second delta has no more deltas");
        assert!(held.note(1, 0, SIZE).is_ok());
        assert_eq!((bytes(), held.lock().sizes.len()), (0, 0));
    }

    #[test]
    fn deltas_that_branch_at_every_step_cannot_make_us_hold_everything() {
        const SIZE: u64 = 300 * 1024 * 1024;
        // Every second record is a delta of the one before the last, and has two deltas itself.
        let records: Vec<Record> = (0..100u32)
            .map(|number| record(if number == 0 { NO_BASE } else { (number - 1) / 2 * 2 }))
            .collect();
        let held = Held::new(&records);
        let first = (0..100).step_by(2).find_map(|number| {
            let base = if number == 0 { NO_BASE } else { number - 2 };
            held.note(number, base, SIZE).err()
        });
        assert!(matches!(first, Some(Error::TooLarge { what: Limit::DeltaBytes, .. })), "{first:?}");
    }
}
