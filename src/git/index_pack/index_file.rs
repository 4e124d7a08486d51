//! The index of a pack, in version 2 of git's form.

use std::io::{self, Write};

use gix_hash::{Hasher, Kind, ObjectId};

use super::stream::{Received, Record};

/// What an index begins with.
const SIGNATURE: &[u8] = b"\xfftOc";

/// The version of its form.
const VERSION: u32 = 2;

/// The first place in a pack that has no room in the short table.
const FIRST_LARGE_OFFSET: u64 = 0x8000_0000;

/// What marks a position in the table of large places.
const LARGE_MARK: u32 = 0x8000_0000;

/// An object by its name, and its position among the records.
pub(super) struct Named {
    pub(super) id: ObjectId,
    pub(super) record: u32,
}

struct Hashing<W> {
    out: W,
    hash: Hasher,
}

impl<W: Write> Hashing<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Writes the index of a pack whose objects are sorted by name.
pub(super) fn write(received: &Received, named: &[Named], out: impl Write) -> io::Result<()> {
    let mut out = Hashing { out, hash: gix_hash::hasher(Kind::Sha1) };
    let records = || named.iter().filter_map(|named| received.records.get(named.record as usize));
    out.put(SIGNATURE)?;
    out.put(&VERSION.to_be_bytes())?;
    let mut counted = 0;
    for first in 0..=u8::MAX {
        let rest = named.get(counted..).unwrap_or_default();
        counted += rest.partition_point(|named| named.id.first_byte() <= first);
        out.put(&short(counted)?.to_be_bytes())?;
    }
    for named in named {
        out.put(named.id.as_slice())?;
    }
    for record in records() {
        out.put(&record.crc32.to_be_bytes())?;
    }
    let mut large = 0;
    for record in records() {
        let place = match u32::try_from(record.offset) {
            Ok(place) if record.offset < FIRST_LARGE_OFFSET => place,
            _ => {
                large += 1;
                LARGE_MARK | (large - 1)
            }
        };
        out.put(&place.to_be_bytes())?;
    }
    for Record { offset, .. } in records().filter(|record| record.offset >= FIRST_LARGE_OFFSET) {
        out.put(&offset.to_be_bytes())?;
    }
    out.put(received.hash.as_slice())?;
    let hash = out.hash.try_finalize().map_err(|_| io::ErrorKind::InvalidData)?;
    out.out.write_all(hash.as_slice())?;
    out.out.flush()
}

fn short(count: usize) -> io::Result<u32> {
    u32::try_from(count).map_err(|_| io::ErrorKind::InvalidData.into())
}
