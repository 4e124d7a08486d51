//! The zip format: deflated entries with Unix modes, UTF-8 names, and Zip64 where numbers do not fit otherwise.

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use gix_hash::ObjectId;
use time::OffsetDateTime;

use super::trees::EntryKind;
use super::walk::Item;
use crate::git::Error;

/// The largest number of 32 bits, which stands for "see the Zip64 field".
const FULL: u32 = u32::MAX;

/// Version 4.5 of the format on Unix, whose modes stand in the directory.
const MADE_BY: u16 = (3 << 8) | 45;

/// Names are UTF-8.
const FLAG_UTF8: u16 = 1 << 11;

/// Sizes and checksum follow the content.
const FLAG_DESCRIPTOR: u16 = 1 << 3;

const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// What is the same for all entries.
pub(super) struct Form {
    time: u32,
    dos_time: u16,
    dos_date: u16,
    comment: String,
}

/// What the directory at the end says of an entry.
pub(super) struct Record {
    name: Vec<u8>,
    kind: EntryKind,
    method: u16,
    flags: u16,
    crc: u32,
    compressed: u64,
    size: u64,
}

/// One thread's compressor.
pub(super) struct Deflate(Compress);

impl Default for Deflate {
    fn default() -> Self {
        Self(Compress::new(Compression::default(), false))
    }
}

impl Deflate {
    /// Compresses all of `content` to the end of `bytes`.
    fn all(&mut self, content: &[u8], bytes: &mut Vec<u8>) -> Result<(), Error> {
        self.0.reset();
        bytes.reserve(content.len() / 2 + 64);
        loop {
            let taken = usize::try_from(self.0.total_in()).unwrap_or(usize::MAX);
            let rest = content.get(taken..).unwrap_or_default();
            match self.0.compress_vec(rest, bytes, FlushCompress::Finish) {
                Ok(Status::StreamEnd) => return Ok(()),
                Ok(_) => bytes.reserve(content.len() / 4 + 64),
                Err(_) => return Err(failed()),
            }
        }
    }
}

fn failed() -> Error {
    Error::Internal { what: "compressing", class: 0, code: 0 }
}

impl Form {
    /// Entries have the commit's time, in UTC: the format keeps no zone.
    pub(super) fn new(commit: ObjectId, time: u64) -> Self {
        // 1980 to 2107 is what the older field can say.
        let seconds = i64::try_from(time).unwrap_or(i64::MAX).clamp(315_532_800, 4_354_819_199);
        let when = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let year = u16::try_from(when.year() - 1980).unwrap_or(0);
        Self {
            time: u32::try_from(time.min(i32::MAX as u64)).unwrap_or(0),
            dos_time: (u16::from(when.hour()) << 11)
                | (u16::from(when.minute()) << 5)
                | (u16::from(when.second()) / 2),
            dos_date: (year << 9) | (u16::from(u8::from(when.month())) << 5) | u16::from(when.day()),
            comment: commit.to_string(),
        }
    }

    /// An entry with its content; of a link the content is where it leads.
    pub(super) fn entry(
        &self,
        item: &Item,
        content: &[u8],
        deflate: &mut Deflate,
    ) -> Result<(Vec<u8>, Record), Error> {
        let mut crc = Crc::new();
        crc.update(content);
        let mut compressed = Vec::new();
        let is_file = matches!(item.kind, EntryKind::File | EntryKind::Executable);
        if is_file && !content.is_empty() {
            deflate.all(content, &mut compressed)?;
        }
        let is_smaller = is_file && compressed.len() < content.len();
        let data = if is_smaller { compressed.as_slice() } else { content };
        let record = Record {
            name: item.path.clone(),
            kind: item.kind,
            method: if is_smaller { DEFLATED } else { STORED },
            flags: FLAG_UTF8,
            crc: crc.sum(),
            compressed: data.len() as u64,
            size: content.len() as u64,
        };
        let mut bytes = Vec::with_capacity(128 + record.name.len() + data.len());
        self.local_header(&mut bytes, &record);
        bytes.extend_from_slice(data);
        Ok((bytes, record))
    }

    fn local_header(&self, bytes: &mut Vec<u8>, record: &Record) {
        let is_open = record.flags & FLAG_DESCRIPTOR != 0;
        // An entry whose size is not known here says that its numbers have 64 bits where they may need them.
        let is_wide = record.is_wide();
        let shown = |number: u64| if is_wide { FULL } else { low(number) };
        let (crc, compressed, size) = if is_open {
            (0, shown(0), shown(0))
        } else {
            (record.crc, shown(record.compressed), shown(record.size))
        };
        push4(bytes, 0x0403_4b50);
        push2(bytes, 45);
        push2(bytes, record.flags);
        push2(bytes, record.method);
        push2(bytes, self.dos_time);
        push2(bytes, self.dos_date);
        push4(bytes, crc);
        push4(bytes, compressed);
        push4(bytes, size);
        push2(bytes, short(record.name.len()));
        push2(bytes, 9 + if is_wide { 20 } else { 0 });
        bytes.extend_from_slice(&record.name);
        self.extended_time(bytes);
        if is_wide {
            push2(bytes, 1);
            push2(bytes, 16);
            push8(bytes, if is_open { 0 } else { record.size });
            push8(bytes, if is_open { 0 } else { record.compressed });
        }
    }

    /// Seconds since 1970, which most programs prefer.
    fn extended_time(&self, bytes: &mut Vec<u8>) {
        push2(bytes, 0x5455);
        push2(bytes, 5);
        bytes.push(1);
        push4(bytes, self.time);
    }
}

impl Record {
    /// Whether its sizes may need 64 bits. What is compressed can be a little larger than it was.
    fn is_wide(&self) -> bool {
        self.size.max(self.compressed) >= u64::from(FULL) - (1 << 24)
    }

    /// The mode as Unix has it.
    fn mode(&self) -> u32 {
        match self.kind {
            EntryKind::File => 0o100_644,
            EntryKind::Executable => 0o100_755,
            EntryKind::Link => 0o120_777,
            EntryKind::Directory | EntryKind::Submodule => 0o040_755,
        }
    }
}

/// A large file on its way through, piece by piece.
pub(super) struct Open {
    record: Record,
    crc: Crc,
    deflate: Compress,
    bytes: Vec<u8>,
}

impl Open {
    /// Begins a file whose size is known and whose compressed size is not; its header is the first of the bytes.
    pub(super) fn begin(form: &Form, item: &Item, size: u64) -> Self {
        let record = Record {
            name: item.path.clone(),
            kind: item.kind,
            method: DEFLATED,
            flags: FLAG_UTF8 | FLAG_DESCRIPTOR,
            crc: 0,
            compressed: 0,
            size,
        };
        let mut bytes = Vec::new();
        form.local_header(&mut bytes, &record);
        Self { record, crc: Crc::new(), deflate: Compress::new(Compression::default(), false), bytes }
    }

    /// Takes a piece of the content; returns what is to be written.
    pub(super) fn piece(&mut self, content: &[u8]) -> Result<Vec<u8>, Error> {
        self.crc.update(content);
        let before = self.deflate.total_in();
        loop {
            let taken = usize::try_from(self.deflate.total_in() - before).unwrap_or(usize::MAX);
            let rest = content.get(taken..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(std::mem::take(&mut self.bytes));
            }
            self.bytes.reserve(32 * 1024);
            self.deflate.compress_vec(rest, &mut self.bytes, FlushCompress::None).map_err(|_| failed())?;
        }
    }

    /// Ends it; returns what is still to be written.
    pub(super) fn end(mut self) -> Result<(Vec<u8>, Record), Error> {
        loop {
            self.bytes.reserve(32 * 1024);
            let status = self.deflate.compress_vec(&[], &mut self.bytes, FlushCompress::Finish);
            match status {
                Ok(Status::StreamEnd) => break,
                Ok(_) => {}
                Err(_) => return Err(failed()),
            }
        }
        let mut record = self.record;
        record.crc = self.crc.sum();
        let bytes = &mut self.bytes;
        let is_wide = record.is_wide();
        record.compressed = self.deflate.total_out();
        push4(bytes, 0x0807_4b50);
        push4(bytes, record.crc);
        if is_wide {
            push8(bytes, record.compressed);
            push8(bytes, record.size);
        } else {
            push4(bytes, low(record.compressed));
            push4(bytes, low(record.size));
        }
        Ok((self.bytes, record))
    }
}

/// The directory at the end of an archive.
#[derive(Default)]
pub(super) struct Directory {
    bytes: Vec<u8>,
    entries: u64,
}

impl Directory {
    /// Adds an entry that begins at an offset.
    pub(super) fn add(&mut self, form: &Form, record: &Record, offset: u64) {
        let bytes = &mut self.bytes;
        let is_wide = record.is_wide();
        let is_far = offset >= u64::from(FULL);
        let wide_bytes = if is_wide { 16 } else { 0 } + if is_far { 8 } else { 0 };
        push4(bytes, 0x0201_4b50);
        push2(bytes, MADE_BY);
        push2(bytes, 45);
        push2(bytes, record.flags);
        push2(bytes, record.method);
        push2(bytes, form.dos_time);
        push2(bytes, form.dos_date);
        push4(bytes, record.crc);
        push4(bytes, if is_wide { FULL } else { low(record.compressed) });
        push4(bytes, if is_wide { FULL } else { low(record.size) });
        push2(bytes, short(record.name.len()));
        push2(bytes, 9 + if wide_bytes > 0 { 4 + wide_bytes } else { 0 });
        push2(bytes, 0);
        push2(bytes, 0);
        push2(bytes, 0);
        let directory = u32::from(record.mode() & 0o170_000 == 0o040_000) * 0x10;
        push4(bytes, (record.mode() << 16) | directory);
        push4(bytes, low(offset));
        bytes.extend_from_slice(&record.name);
        form.extended_time(bytes);
        if wide_bytes > 0 {
            push2(bytes, 1);
            push2(bytes, wide_bytes);
            if is_wide {
                push8(bytes, record.size);
                push8(bytes, record.compressed);
            }
            if is_far {
                push8(bytes, offset);
            }
        }
        self.entries += 1;
    }

    /// The directory as it is written at an offset, with what ends an archive. Its comment is the commit.
    pub(super) fn end(self, form: &Form, offset: u64) -> Vec<u8> {
        let (mut bytes, entries) = (self.bytes, self.entries);
        let size = bytes.len() as u64;
        let is_wide = entries >= 0xffff || size >= u64::from(FULL) || offset >= u64::from(FULL);
        if is_wide {
            push4(&mut bytes, 0x0606_4b50);
            push8(&mut bytes, 44);
            push2(&mut bytes, MADE_BY);
            push2(&mut bytes, 45);
            push4(&mut bytes, 0);
            push4(&mut bytes, 0);
            push8(&mut bytes, entries);
            push8(&mut bytes, entries);
            push8(&mut bytes, size);
            push8(&mut bytes, offset);
            push4(&mut bytes, 0x0706_4b50);
            push4(&mut bytes, 0);
            push8(&mut bytes, offset + size);
            push4(&mut bytes, 1);
        }
        let count = u16::try_from(entries).unwrap_or(u16::MAX);
        push4(&mut bytes, 0x0605_4b50);
        push2(&mut bytes, 0);
        push2(&mut bytes, 0);
        push2(&mut bytes, count);
        push2(&mut bytes, count);
        push4(&mut bytes, low(size));
        push4(&mut bytes, low(offset));
        push2(&mut bytes, short(form.comment.len()));
        bytes.extend_from_slice(form.comment.as_bytes());
        bytes
    }
}

/// A number in 32 bits, or the sign that it does not fit.
fn low(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(FULL)
}

/// A length in 16 bits. Paths are shorter by their limit, which cannot be set higher than this.
fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn push2(bytes: &mut Vec<u8>, number: u16) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn push4(bytes: &mut Vec<u8>, number: u32) {
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn push8(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend_from_slice(&number.to_le_bytes());
}
