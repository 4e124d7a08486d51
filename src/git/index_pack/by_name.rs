//! Finds what deltas lean on that name it by its identifier: in the pack itself first and then among earlier objects, as
//! git does it, so that no object comes to stand in a pack twice.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use gix_hash::{Kind as HashKind, ObjectId};
use gix_object::Kind;
use gix_zlib::Inflate;

use super::delta;
use super::names::{MAX_DELTA_DEPTH, MAX_HELD_BYTES, Pack, damaged, too_deep};
use super::stream::{NO_BASE, Received, Record};
use super::thin;
use crate::git::objects::{MAX_TREE_BYTES, Objects};
use crate::git::{Error, Limit};

/// Finds the base of every delta that has none yet. What is taken from the earlier objects is put behind the pack.
pub(super) fn resolve(
    pack: &Pack<'_>,
    received: &mut Received,
    file: File,
    earlier: Option<&Objects>,
) -> Result<(), Error> {
    let finder = Finder::new(pack, received, MAX_HELD_BYTES)?;
    finder.look_inside()?;
    let added = match earlier {
        Some(earlier) => thin::add(&finder, received, &file, &earlier.without_refresh())?,
        None => thin::Added::default(),
    };
    let found = finder.found()?;
    drop(finder);
    let is_thin = !added.records.is_empty();
    received.records.extend(added.records);
    for (id, base) in found {
        received.found(&id, base);
    }
    if is_thin {
        received.end = added.end;
        thin::seal(received, file, pack)?;
    }
    Ok(())
}

/// An object that deltas name.
struct Wanted<'a> {
    id: ObjectId,
    deltas: &'a [u32],
    /// The position of its record once it is found.
    record: AtomicU32,
}

/// An object that is held, because there are deltas of it that were not looked at yet.
struct Held {
    kind: Kind,
    content: Vec<u8>,
    deltas: Vec<u32>,
    depth: u16,
}

/// Deltas by the position of what they lean on, as far as the pack says it.
struct Deltas {
    /// Where those of each position end.
    ends: Vec<usize>,
    list: Vec<u32>,
}

impl Deltas {
    fn new(records: &[Record]) -> Self {
        let mut ends = vec![0; records.len()];
        for record in records {
            if let Some(count) = ends.get_mut(record.base as usize) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum - *end;
        }
        // Each place holds where the next one goes, and in the end where the last one went.
        let mut list = vec![0; sum];
        for (position, record) in (0u32..).zip(records) {
            if let Some(end) = ends.get_mut(record.base as usize)
                && let Some(place) = list.get_mut(*end)
            {
                *place = position;
                *end += 1;
            }
        }
        Self { ends, list }
    }

    fn of(&self, record: u32) -> &[u32] {
        let position = record as usize;
        let begin = position.checked_sub(1).and_then(|before| self.ends.get(before)).map_or(0, |end| *end);
        let end = self.ends.get(position).map_or(begin, |end| *end);
        self.list.get(begin..end).unwrap_or_default()
    }
}

/// Goes from the objects that are stored whole to the deltas of them, by place and by name.
pub(super) struct Finder<'a> {
    pub(super) pack: &'a Pack<'a>,
    file: gix_pack::data::File,
    records: &'a [Record],
    /// What is stored whole and may be leaned on.
    roots: Vec<u32>,
    deltas: Deltas,
    /// By their names.
    wanted: Vec<Wanted<'a>>,
    /// How many of them are not found yet.
    missing: AtomicUsize,
    held_bytes: AtomicU64,
    max_held_bytes: u64,
    is_over: AtomicBool,
}

impl<'a> Finder<'a> {
    fn new(pack: &'a Pack<'a>, received: &'a Received, max_held_bytes: u64) -> Result<Self, Error> {
        let Received { records, hashed, by_name, .. } = received;
        let file = gix_pack::data::File::at(pack.path, HashKind::Sha1).map_err(|_| damaged())?;
        let mut is_root = vec![true; records.len()];
        let passed_over = hashed.iter().filter(|hashed| !hashed.is_base).map(|hashed| hashed.record);
        for record in passed_over.chain(by_name.values().flatten().copied()) {
            if let Some(is_root) = is_root.get_mut(record as usize) {
                *is_root = false;
            }
        }
        let roots = (0u32..).zip(records.iter().zip(is_root));
        let roots = roots.filter(|(_, (record, is_root))| record.base == NO_BASE && *is_root);
        let roots = roots.map(|(position, _)| position).collect();
        let deltas = Deltas::new(records);
        let wanted = by_name.iter();
        let wanted: Vec<Wanted<'_>> =
            wanted.map(|(id, deltas)| Wanted { id: *id, deltas, record: AtomicU32::new(NO_BASE) }).collect();
        let missing = AtomicUsize::new(wanted.len());
        let (held_bytes, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { pack, file, records, roots, deltas, wanted, missing, held_bytes, max_held_bytes, is_over })
    }

    /// Looks at what is in the pack, on all cores, until everything is found.
    fn look_inside(&self) -> Result<(), Error> {
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            let mut inflate = Inflate::default();
            while let Some(root) = self.roots.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.is_done() {
                    return;
                }
                if let Err(error) = self.below(*root, &mut inflate) {
                    self.is_over.store(true, Ordering::Relaxed);
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    return;
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            // This thread is one of them; where no other can be had, it does everything.
            for _ in 1..threads.min(self.roots.len()) {
                let spawned =
                    std::thread::Builder::new().name("find-bases".to_owned()).spawn_scoped(scope, work);
                if spawned.is_err() {
                    break;
                }
            }
            work();
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn is_done(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) || self.missing.load(Ordering::Relaxed) == 0
    }

    fn below(&self, root: u32, inflate: &mut Inflate) -> Result<(), Error> {
        let (entry, content) = self.content(root, inflate)?;
        let kind = entry.header.as_kind().ok_or_else(damaged)?;
        self.descend(root, kind, content, inflate)
    }

    /// Takes note of what an object and everything that leans on it is called.
    pub(super) fn descend(
        &self,
        record: u32,
        kind: Kind,
        content: Vec<u8>,
        inflate: &mut Inflate,
    ) -> Result<(), Error> {
        let mut held: Vec<Held> = self.hold(record, kind, content, 0)?.into_iter().collect();
        while let Some(base) = held.last_mut() {
            if self.pack.interrupt.load(Ordering::Relaxed) {
                return Err(damaged());
            }
            let Some(record) = base.deltas.pop().filter(|_| !self.is_done()) else {
                self.release(held.pop());
                continue;
            };
            if base.depth >= MAX_DELTA_DEPTH {
                return Err(too_deep());
            }
            let (kind, depth) = (base.kind, base.depth + 1);
            let content = self.made(record, kind, &base.content, inflate)?;
            if base.deltas.is_empty() {
                self.release(held.pop());
            }
            held.extend(self.hold(record, kind, content, depth)?);
        }
        Ok(())
    }

    /// Names an object, and keeps it where there are deltas of it.
    fn hold(&self, record: u32, kind: Kind, content: Vec<u8>, depth: u16) -> Result<Option<Held>, Error> {
        let mut deltas = self.deltas.of(record).to_vec();
        let id = gix_object::compute_hash(HashKind::Sha1, kind, &content).map_err(|_| damaged())?;
        let wanted = self.wanted.binary_search_by(|wanted| wanted.id.cmp(&id));
        if let Some(wanted) = wanted.ok().and_then(|position| self.wanted.get(position))
            && wanted.record.compare_exchange(NO_BASE, record, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.missing.fetch_sub(1, Ordering::Relaxed);
            deltas.extend(wanted.deltas);
        }
        if deltas.is_empty() {
            return Ok(None);
        }
        let size = content.len() as u64;
        if self.held_bytes.fetch_add(size, Ordering::Relaxed) + size > self.max_held_bytes {
            return Err(Error::TooLarge { what: Limit::DeltaBytes, limit: self.max_held_bytes });
        }
        Ok(Some(Held { kind, content, deltas, depth }))
    }

    fn release(&self, held: Option<Held>) {
        let size = held.map_or(0, |held| held.content.len() as u64);
        self.held_bytes.fetch_sub(size, Ordering::Relaxed);
    }

    /// What an entry has in it, inflated: the delta where it is one.
    fn content(&self, record: u32, inflate: &mut Inflate) -> Result<(gix_pack::data::Entry, Vec<u8>), Error> {
        let record = self.records.get(record as usize).ok_or_else(damaged)?;
        let entry = self.file.entry(record.offset).map_err(|_| damaged())?;
        // It was held against the limits as it came.
        let size = usize::try_from(entry.decompressed_size).map_err(|_| damaged())?;
        let mut content = vec![0; size];
        self.file.decompress_entry(&entry, inflate, &mut content).map_err(|_| damaged())?;
        Ok((entry, content))
    }

    fn made(&self, record: u32, kind: Kind, base: &[u8], inflate: &mut Inflate) -> Result<Vec<u8>, Error> {
        let (_, delta) = self.content(record, inflate)?;
        let limit = self.pack.control.limits.max_blob_bytes;
        let most = if kind == Kind::Blob { limit } else { limit.max(MAX_TREE_BYTES) };
        delta::apply(base, &delta, most).map_err(|failure| match failure {
            delta::Failure::TooLarge => Error::TooLarge { what: Limit::BlobBytes, limit },
            delta::Failure::Damaged => damaged(),
        })
    }

    /// What is not found yet, in the order of the first delta of it.
    pub(super) fn missing(&self) -> Vec<ObjectId> {
        let missing = self.wanted.iter().filter(|wanted| wanted.record.load(Ordering::Relaxed) == NO_BASE);
        let mut missing: Vec<(Option<&u32>, ObjectId)> =
            missing.map(|wanted| (wanted.deltas.first(), wanted.id)).collect();
        missing.sort_unstable();
        missing.into_iter().map(|(_, id)| id).collect()
    }

    /// Whether an object is found.
    pub(super) fn has_found(&self, id: &ObjectId) -> bool {
        let position = self.wanted.binary_search_by(|wanted| wanted.id.cmp(id)).ok();
        let wanted = position.and_then(|position| self.wanted.get(position));
        wanted.is_some_and(|wanted| wanted.record.load(Ordering::Relaxed) != NO_BASE)
    }

    /// Everything that deltas name, and where it is.
    fn found(&self) -> Result<Vec<(ObjectId, u32)>, Error> {
        let found = self.wanted.iter().map(|wanted| match wanted.record.load(Ordering::Relaxed) {
            NO_BASE => Err(damaged()),
            record => Ok((wanted.id, record)),
        });
        found.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use tokio::time::{Duration, Instant};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::git::Control;

    const BLOB: u8 = 3;
    const DELTA_BY_NAME: u8 = 7;

    /// A pack in which each object that is made has two deltas, of which one has none itself. All name their bases.
    fn comb(steps: u8) -> (tempfile::NamedTempFile, Received) {
        let content = |step: u8| [step; 100];
        let id = |step| gix_object::compute_hash(HashKind::Sha1, Kind::Blob, &content(step)).unwrap();
        let delta = |step: u8| [vec![100, 100, 100], content(step).to_vec()].concat();
        let mut entries = vec![(BLOB, Vec::new(), content(0).to_vec())];
        for step in 1..=steps {
            let base = id(step - 1).as_slice().to_vec();
            entries.push((DELTA_BY_NAME, base.clone(), delta(step + 100)));
            entries.push((DELTA_BY_NAME, base, delta(step)));
        }
        let mut bytes = b"PACK\0\0\0\x02\0\0\0\0".to_vec();
        let (mut records, mut by_name) = (Vec::new(), BTreeMap::<ObjectId, Vec<u32>>::new());
        for (position, (kind, base, content)) in (0u32..).zip(entries) {
            records.push(Record { offset: bytes.len() as u64, crc32: 0, base: NO_BASE });
            let size = content.len() as u8;
            bytes.extend([0x80 | kind << 4 | (size & 15), size >> 4]);
            bytes.extend(&base);
            if !base.is_empty() {
                by_name.entry(ObjectId::from_bytes_or_panic(&base)).or_default().push(position);
            }
            let mut deflated = ZlibEncoder::new(&mut bytes, Compression::default());
            deflated.write_all(&content).unwrap();
            deflated.finish().unwrap();
        }
        let end = bytes.len() as u64;
        bytes.extend([0; 20]);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let hash = ObjectId::null(HashKind::Sha1);
        let received = Received { records, hashed: Vec::new(), by_name, places: BTreeMap::new(), end, hash };
        (file, received)
    }

    #[test]
    fn deltas_are_found_by_what_they_lean_on() {
        let record = |base| Record { offset: 0, crc32: 0, base };
        let deltas = Deltas::new(&[record(NO_BASE), record(0), record(3), record(NO_BASE), record(0)]);
        let found: Vec<&[u32]> = (0..6).map(|record| deltas.of(record)).collect();
        assert_eq!(found, [[1, 4].as_slice(), &[], &[], &[2], &[], &[]]);
    }

    #[test]
    fn what_is_held_while_bases_are_found_has_a_limit() {
        const STEPS: u8 = 20;
        let (file, received) = comb(STEPS);
        let control = Control::new(Instant::now() + Duration::from_secs(60), CancellationToken::new());
        let interrupt = AtomicBool::new(false);
        let directory = file.path().parent().unwrap();
        let pack = Pack { path: file.path(), directory, control: &control, interrupt: &interrupt };
        // A base with its last delta at the top of it.
        let enough = Finder::new(&pack, &received, 100 * (u64::from(STEPS) + 1)).unwrap();
        enough.look_inside().unwrap();
        let found: Vec<u32> = enough.found().unwrap().into_iter().map(|(_, record)| record).collect();
        assert_eq!(found.len(), usize::from(STEPS));
        assert_eq!(enough.held_bytes.load(Ordering::Relaxed), 0, "everything is given back");
        let little = Finder::new(&pack, &received, 150).unwrap();
        let refused = little.look_inside();
        assert!(matches!(refused, Err(Error::TooLarge { what: Limit::DeltaBytes, .. })), "{refused:?}");
    }
}
