//! The tar format, byte for byte as `git archive` writes it: ustar, with pax headers where a name does not fit.

use gix_hash::ObjectId;

use super::trees::EntryKind;
use super::walk::Item;

/// Everything in a tar is padded to this, in bytes.
const BLOCK: usize = 512;

/// What a tar is written by, in bytes: its end is padded to it.
const RECORD: u64 = 20 * BLOCK as u64;

/// The largest size and time that fit their fields.
const MAX_NUMBER: u64 = 0o77_777_777_777;

const NAME: std::ops::Range<usize> = 0..100;
const LINK_NAME: std::ops::Range<usize> = 157..257;
const PREFIX: std::ops::Range<usize> = 345..500;

/// `tar.umask` of git, as it is without configuration.
const UMASK: u32 = 0o002;

/// What is the same for all entries.
pub(super) struct Form {
    /// Seconds since 1970.
    time: u64,
    commit: ObjectId,
}

impl Form {
    pub(super) fn new(commit: ObjectId, time: u64) -> Self {
        Self { time, commit }
    }

    /// The beginning of an archive: a global header that names the commit.
    pub(super) fn beginning(&self) -> Vec<u8> {
        let mut extended = Vec::new();
        extend(&mut extended, "comment", self.commit.to_string().as_bytes());
        if self.time > MAX_NUMBER {
            extend(&mut extended, "mtime", self.time.to_string().as_bytes());
        }
        let mut bytes = Vec::new();
        self.header(&mut bytes, b'g', b"pax_global_header", 0o666, extended.len() as u64, &[], &[]);
        push_padded(&mut bytes, &extended);
        bytes
    }

    /// The end of an archive that has so many bytes so far.
    pub(super) fn end(written: u64) -> Vec<u8> {
        let least = written + 2 * BLOCK as u64;
        let padded = least.div_ceil(RECORD) * RECORD;
        vec![0; usize::try_from(padded - written).unwrap_or(BLOCK)]
    }

    /// An entry with its content; of a link the content is where it leads.
    pub(super) fn entry(&self, item: &Item, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(3 * BLOCK + content.len());
        let link = if item.kind == EntryKind::Link { content } else { &[] };
        self.head(&mut bytes, item, content.len() as u64, link);
        if matches!(item.kind, EntryKind::File | EntryKind::Executable) {
            push_padded(&mut bytes, content);
        }
        bytes
    }

    /// The header of a file whose content is written afterwards.
    pub(super) fn head_of_file(&self, item: &Item, size: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.head(&mut bytes, item, size, &[]);
        bytes
    }

    /// What follows the content of a file of that size.
    pub(super) fn padding(size: u64) -> &'static [u8] {
        static ZEROS: [u8; BLOCK] = [0; BLOCK];
        let rest = usize::try_from(size % BLOCK as u64).unwrap_or(0);
        if rest == 0 { &[] } else { ZEROS.get(rest..).unwrap_or_default() }
    }

    fn head(&self, bytes: &mut Vec<u8>, item: &Item, size: u64, link: &[u8]) {
        let (flag, mode, size) = match item.kind {
            EntryKind::Directory | EntryKind::Submodule => (b'5', 0o777 & !UMASK, 0),
            EntryKind::Link => (b'2', 0o777, 0),
            EntryKind::Executable => (b'0', 0o777 & !UMASK, size),
            EntryKind::File => (b'0', 0o666 & !UMASK, size),
        };
        let mut extended = Vec::new();
        let mut field = size;
        let (long_name, long_link);
        let (prefix, mut name) = split(&item.path);
        if name.len() > NAME.len() {
            extend(&mut extended, "path", &item.path);
            long_name = format!("{}.data", item.id);
            name = long_name.as_bytes();
        }
        let mut target = link;
        if link.len() > LINK_NAME.len() {
            extend(&mut extended, "linkpath", link);
            long_link = format!("see {}.paxheader", item.id);
            target = long_link.as_bytes();
        }
        if size > MAX_NUMBER {
            extend(&mut extended, "size", size.to_string().as_bytes());
            field = 0;
        }
        if !extended.is_empty() {
            let name = format!("{}.paxheader", item.id);
            self.header(bytes, b'x', name.as_bytes(), 0o666, extended.len() as u64, &[], &[]);
            push_padded(bytes, &extended);
        }
        self.header(bytes, flag, name, mode, field, target, prefix);
    }

    #[allow(clippy::too_many_arguments)] // These are the fields of the format.
    fn header(
        &self,
        bytes: &mut Vec<u8>,
        flag: u8,
        name: &[u8],
        mode: u32,
        size: u64,
        link: &[u8],
        prefix: &[u8],
    ) {
        let mut header = [0u8; BLOCK];
        let mut put = |start: usize, value: &[u8]| {
            if let Some(field) = header.get_mut(start..start + value.len()) {
                field.copy_from_slice(value);
            }
        };
        put(NAME.start, name);
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{size:011o}").as_bytes());
        put(136, format!("{:011o}", self.time.min(MAX_NUMBER)).as_bytes());
        put(156, &[flag]);
        put(LINK_NAME.start, link);
        put(257, b"ustar\x0000");
        put(265, b"root");
        put(297, b"root");
        put(329, b"0000000");
        put(337, b"0000000");
        put(PREFIX.start, prefix);
        // The sum counts its own field as spaces.
        let sum = header.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
        if let Some(field) = header.get_mut(148..155) {
            field.copy_from_slice(format!("{sum:07o}").as_bytes());
        }
        bytes.extend_from_slice(&header);
    }
}

/// A path as prefix and name, where it does not fit the name alone. What cannot be split is all name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    if path.len() <= NAME.len() {
        return (&[], path);
    }
    // The last slash at which the prefix fits; the one at the end of a directory is none.
    let end = path.len() - usize::from(path.last() == Some(&b'/'));
    let beginning = path.get(..end.min(PREFIX.len())).unwrap_or_default();
    let slash = beginning.iter().rposition(|byte| *byte == b'/');
    match slash {
        Some(position) if position > 0 => {
            let rest = path.get(position + 1..).unwrap_or_default();
            if rest.len() <= NAME.len() {
                (path.get(..position).unwrap_or_default(), rest)
            } else {
                (&[], path)
            }
        }
        _ => (&[], path),
    }
}

/// One record of a pax header: its own length in decimal, a key and a value.
fn extend(extended: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = 1 + key.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    extended.extend_from_slice(format!("{length} {key}=").as_bytes());
    extended.extend_from_slice(value);
    extended.push(b'\n');
}

fn push_padded(bytes: &mut Vec<u8>, content: &[u8]) {
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(Form::padding(content.len() as u64));
}
