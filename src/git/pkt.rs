//! Looks at git's framing as it passes by: the capabilities, the count of references, and errors in words.
//!
//! libgit2 reads the same bytes right after. This only notes what it would not tell.

use std::collections::VecDeque;

use super::list::Selection;
use super::{Advertisement, Error, Limit, Reference, Summary};

/// How much of the list's beginning is kept: the first line with its capabilities fits many times.
const MAX_KEPT_BYTES: usize = 16 * 1024;

/// The most bytes of an error in the server's words.
const MAX_MESSAGE_BYTES: usize = 1024;

/// The longest frame by git's rules, in bytes.
const MAX_FRAME_BYTES: usize = 65_520;

/// Names that the first branch of a repository usually has.
pub(super) const USUAL_BRANCHES: [&str; 2] = ["refs/heads/main", "refs/heads/master"];

/// What a pack begins with.
const PACK_SIGNATURE: &[u8] = b"PACK";

/// The signature, a version and the count of objects, of four bytes each.
const PACK_HEADER_BYTES: usize = 12;

/// The side band that carries the pack.
const DATA_BAND: u8 = 1;

/// The side band on which a server talks to people while it works.
const TALK_BAND: u8 = 2;

/// The side band on which a server says why it gives up.
const ERROR_BAND: u8 = 3;

/// How many of the last lines on the talk band are kept: git's own programs say in two or three why they end.
const MAX_LAST_LINES: usize = 3;

/// What is looked for.
#[derive(Clone, Copy)]
enum Expected {
    /// A list of references, of at most so many.
    List { max_references: u64 },
    /// A pack of at most so many objects, or an error.
    Pack { max_objects: u64 },
    /// The rest of a pack in side bands, and what the server says beside it.
    Rest,
    /// Nothing more.
    Nothing,
}

/// How far a list has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing but the name of the service.
    Beginning,
    /// Lines of the list.
    Listing,
    /// Its end.
    Whole,
    /// Something that no list has.
    OutOfForm,
}

/// The state of looking at one stream.
pub(super) struct Observer {
    expected: Expected,
    /// Whether the list itself is wanted, beside its summary.
    keeps_list: bool,
    /// What is wanted of the list and kept of it, where that is not all.
    selection: Option<Selection>,
    count: u64,
    /// The branch that `HEAD` stands for by its commit, where the server does not say.
    guessed_branch: Option<String>,
    progress: Progress,
    lines: u64,
    first: Vec<u8>,
    header: Vec<u8>,
    remaining: usize,
    line: Vec<u8>,
    /// Whether the pack comes in side bands.
    has_bands: bool,
    error: Option<String>,
    talk: Talk,
    pack_header: Vec<u8>,
    list: Advertisement,
    /// Where in the bytes that passed by last a line begins that says where a shallow repository ends.
    ends: Vec<usize>,
}

impl Observer {
    pub(super) fn new(max_references: u64) -> Self {
        Self {
            expected: Expected::List { max_references },
            keeps_list: true,
            selection: None,
            count: 0,
            guessed_branch: None,
            progress: Progress::Beginning,
            lines: 0,
            first: Vec::new(),
            header: Vec::new(),
            remaining: 0,
            line: Vec::new(),
            has_bands: true,
            error: None,
            talk: Talk::default(),
            pack_header: Vec::new(),
            list: Advertisement::default(),
            ends: Vec::new(),
        }
    }

    /// Begins anew for the pack, or for what comes in its place.
    pub(super) fn expect_pack(&mut self, max_objects: u64) {
        let first = std::mem::take(&mut self.first);
        *self = Self { first, expected: Expected::Pack { max_objects }, ..Self::new(0) };
    }

    /// Whether nothing has come yet.
    pub(super) fn is_silent(&self) -> bool {
        self.first.is_empty()
    }

    /// The error that the server sent as a frame, in its own words.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The first bytes of the list.
    pub(super) fn first_bytes(&self) -> &[u8] {
        &self.first
    }

    /// Whether the server named a capability in its first line.
    pub(super) fn has_capability(&self, name: &str) -> bool {
        self.capabilities().any(|word| word == name.as_bytes())
    }

    fn capabilities(&self) -> impl Iterator<Item = &[u8]> {
        let after_nul = self.first.iter().position(|&byte| byte == 0).map_or(self.first.len(), |nul| nul + 1);
        let line = self.first[after_nul..].split(|&byte| byte == b'\n').next().unwrap_or_default();
        line.split(|&byte| byte == b' ')
    }

    /// Counts references from now on and forgets them.
    pub(super) fn keep_no_list(&mut self) {
        self.keeps_list = false;
    }

    /// Keeps what is selected from now on, and counts the rest.
    pub(super) fn select(&mut self, selection: Selection) {
        self.keep_no_list();
        self.selection = Some(selection);
    }

    /// Takes out what was selected.
    pub(super) fn take_selection(&mut self) -> Option<Selection> {
        self.selection.take()
    }

    /// Whether the list has come to its end.
    pub(super) fn has_whole_list(&self) -> bool {
        self.progress == Progress::Whole
    }

    /// Whether something came that no list has.
    pub(super) fn is_out_of_form(&self) -> bool {
        self.progress == Progress::OutOfForm || self.error.is_some()
    }

    /// Takes the summary of the list out.
    pub(super) fn take_summary(&mut self) -> Summary {
        let Advertisement { head_branch, head, .. } = self.take_list();
        let head_branch = head_branch.or_else(|| self.guessed_branch.take());
        Summary { head_branch, head, references: self.count }
    }

    /// Takes the list out. Names that are not UTF-8 are left out: nobody can ask for them.
    pub(super) fn take_list(&mut self) -> Advertisement {
        const HEAD: &[u8] = b"symref=HEAD:";
        let symref = self.capabilities().find_map(|word| word.strip_prefix(HEAD));
        let head_branch = symref.and_then(|name| std::str::from_utf8(name).ok()).map(str::to_owned);
        Advertisement { head_branch, ..std::mem::take(&mut self.list) }
    }

    /// Reads `<object> <name>`, which the capabilities follow in the first line.
    fn note_reference(&mut self) {
        const SERVICE: &[u8] = b"# service=";
        if self.progress == Progress::Beginning && self.line.starts_with(SERVICE) {
            return;
        }
        let line = self.line.split(|&byte| byte == 0 || byte == b'\n').next().unwrap_or_default();
        // Beside references a list tells its version and where a shallow repository ends.
        const SHALLOW: &[u8] = b"shallow ";
        let is_other = [SHALLOW, b"version "].iter().any(|word| line.starts_with(word));
        let space = line.iter().position(|&byte| byte == b' ');
        let (oid, name) = space.map_or((line, [].as_slice()), |at| (&line[..at], &line[at + 1..]));
        self.progress = match self.progress {
            Progress::Beginning | Progress::Listing if is_other || is_object_name(oid) => Progress::Listing,
            _ => Progress::OutOfForm,
        };
        let is_long = self.line.len() == MAX_MESSAGE_BYTES && !self.line.contains(&0);
        if let Some(end) = line.strip_prefix(SHALLOW)
            && self.keeps_list
            && is_object_name(end)
        {
            self.list.shallow.push(String::from_utf8_lossy(end).into_owned());
        }
        if is_other || self.progress == Progress::OutOfForm {
            return;
        }
        if let Some(selection) = &mut self.selection {
            selection.note(oid, name, is_long);
        }
        if name.ends_with(b"^{}") {
            return;
        }
        if name.starts_with(b"refs/") {
            self.count += 1;
        }
        let (Ok(oid), Ok(name), false) = (std::str::from_utf8(oid), std::str::from_utf8(name), is_long)
        else {
            return;
        };
        if name == "HEAD" {
            self.list.head = Some(oid.to_owned());
        } else if self.keeps_list {
            self.list.references.push(Reference { name: name.to_owned(), oid: oid.to_owned() });
        } else if self.list.head.as_deref() == Some(oid)
            && is_better_guess(name, self.guessed_branch.as_deref())
        {
            self.guessed_branch = Some(name.to_owned());
        }
    }

    /// Makes comments of the lines that say where a shallow repository ends, in the bytes that passed by last: libgit2
    /// takes such a line only without the line end that git puts behind it.
    pub(super) fn hide_ends(&self, bytes: &mut [u8]) {
        for end in &self.ends {
            if let Some(first) = bytes.get_mut(*end) {
                *first = b'#';
            }
        }
    }

    /// Looks at bytes as they pass by.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        let whole = bytes.len();
        self.ends.clear();
        if matches!(self.expected, Expected::List { .. }) {
            let kept = bytes.len().min(MAX_KEPT_BYTES - self.first.len());
            self.first.extend_from_slice(&bytes[..kept]);
        }
        while !bytes.is_empty() && !matches!(self.expected, Expected::Nothing) {
            if self.remaining == 0 {
                bytes = self.feed_header(bytes);
            } else {
                // In a list no other line begins so.
                let is_end = self.line.is_empty() && bytes.first() == Some(&b's');
                if is_end && matches!(self.expected, Expected::List { .. }) {
                    self.ends.push(whole - bytes.len());
                }
                let count = bytes.len().min(self.remaining);
                let room = (MAX_MESSAGE_BYTES - self.line.len()).min(count);
                self.line.extend_from_slice(&bytes[..room]);
                self.remaining -= count;
                bytes = &bytes[count..];
                if self.remaining == 0 {
                    self.end_line()?;
                }
            }
        }
        Ok(())
    }

    fn feed_header<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        const HEADER_BYTES: usize = 4;
        let count = bytes.len().min(HEADER_BYTES - self.header.len());
        self.header.extend_from_slice(&bytes[..count]);
        if self.header.len() == HEADER_BYTES {
            if self.header == PACK_SIGNATURE {
                // A server without side bands sends the pack as it is: read its header as a frame of its own.
                self.line = [&[DATA_BAND], PACK_SIGNATURE].concat();
                self.remaining = PACK_HEADER_BYTES - PACK_SIGNATURE.len();
                self.header.clear();
                self.has_bands = false;
                return &bytes[count..];
            }
            let text = std::str::from_utf8(&self.header).unwrap_or_default();
            match usize::from_str_radix(text, 16) {
                // The end of a list, unless it is that of the line before it, which names the service.
                Ok(0) if self.progress == Progress::Listing => self.progress = Progress::Whole,
                Ok(length) if length <= MAX_FRAME_BYTES => {
                    self.remaining = length.saturating_sub(HEADER_BYTES)
                }
                // Out of form: libgit2 says so too, and then `first` is what to show.
                _ => (self.expected, self.progress) = (Expected::Nothing, Progress::OutOfForm),
            }
            self.header.clear();
        }
        &bytes[count..]
    }

    fn end_line(&mut self) -> Result<(), Error> {
        if let Some(message) = self.line.strip_prefix(b"ERR ") {
            self.error.get_or_insert(scrubbed(message));
        }
        if let (Expected::Pack { max_objects }, Some(data)) =
            (self.expected, self.line.strip_prefix(&[DATA_BAND]))
        {
            self.pack_header
                .extend_from_slice(&data[..data.len().min(PACK_HEADER_BYTES - self.pack_header.len())]);
            if let Some(count) = self.pack_header.get(8..PACK_HEADER_BYTES) {
                let objects = count.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
                self.expected = if self.has_bands { Expected::Rest } else { Expected::Nothing };
                if objects > max_objects {
                    return Err(Error::TooLarge { what: Limit::Objects, limit: max_objects });
                }
            }
        }
        match self.expected {
            Expected::List { .. } => self.note_reference(),
            Expected::Pack { .. } | Expected::Rest => self.talk.note(&self.line)?,
            Expected::Nothing => {}
        }
        self.line.clear();
        self.lines += 1;
        match self.expected {
            // One more for the line that names the service.
            Expected::List { max_references } if self.lines > max_references.saturating_add(1) => {
                Err(Error::TooLarge { what: Limit::References, limit: max_references })
            }
            _ => Ok(()),
        }
    }
}

/// What a server says to people beside a pack, as far as it may explain an end of it.
#[derive(Default)]
struct Talk {
    /// The last lines on the talk band, the oldest first. A line that is written over and over is none.
    lines: VecDeque<Vec<u8>>,
    /// The beginning of the next one.
    line: Vec<u8>,
}

impl Talk {
    /// Looks at one frame, of which the first [`MAX_MESSAGE_BYTES`] are here.
    fn note(&mut self, frame: &[u8]) -> Result<(), Error> {
        match frame.split_first() {
            Some((&TALK_BAND, text)) => text.iter().for_each(|&byte| self.note_byte(byte)),
            Some((&ERROR_BAND, text)) => return Err(Error::GaveUp { message: self.last_words(text) }),
            _ => {}
        }
        Ok(())
    }

    fn note_byte(&mut self, byte: u8) {
        match byte {
            b'\r' => self.line.clear(),
            b'\n' => {
                self.lines.push_back(std::mem::take(&mut self.line));
                if self.lines.len() > MAX_LAST_LINES {
                    self.lines.pop_front();
                }
            }
            _ if self.line.len() < MAX_MESSAGE_BYTES => self.line.push(byte),
            _ => {}
        }
    }

    /// An error with the lines before it: the program that failed talks on the other band.
    fn last_words(&self, error: &[u8]) -> String {
        let words = self.lines.iter().map(Vec::as_slice).chain([error]).map(scrubbed);
        let words: Vec<String> = words.filter(|line| !line.is_empty()).collect();
        words.join("; ")
    }
}

/// Whether a reference that leads to `HEAD`'s commit is more likely its branch than the one known so far: the first
/// branch is, unless a later one has a usual name.
fn is_better_guess(name: &str, known: Option<&str>) -> bool {
    match known {
        None => name.starts_with("refs/heads/"),
        Some(known) => USUAL_BRANCHES.contains(&name) && !USUAL_BRANCHES.contains(&known),
    }
}

/// Whether this names an object, by SHA-1 or by SHA-256.
fn is_object_name(bytes: &[u8]) -> bool {
    matches!(bytes.len(), 40 | 64) && bytes.iter().all(u8::is_ascii_hexdigit)
}

/// What a server said, as it may be shown: without control characters, terminal escape codes included, and
/// bounded.
pub(super) fn scrubbed(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(MAX_MESSAGE_BYTES)];
    let text = String::from_utf8_lossy(bytes);
    let lines =
        text.split(['\n', '\r']).map(|line| line.chars().filter(|c| !is_hidden(*c)).collect::<String>());
    let lines: Vec<String> =
        lines.map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    lines.join(" ")
}

/// Control characters, and those that turn the direction of text.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"001e# service=git-upload-pack\n00000014abc HEAD\0a bb c\n0008xyz\n0000";

    #[test]
    fn capabilities_are_found_however_the_bytes_are_cut() {
        for size in [1, 2, 3, 7, 100] {
            let mut observer = Observer::new(10);
            for piece in LIST.chunks(size) {
                observer.feed(piece).unwrap();
            }
            assert!(observer.has_capability("bb") && observer.has_capability("c"), "{size}");
            assert!(!observer.has_capability("b"), "{size}");
        }
    }

    #[test]
    fn references_are_read_with_the_branch_of_head() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let mut observer = Observer::new(10);
        for line in [
            format!("{a} HEAD\0multi_ack symref=HEAD:refs/heads/main side-band-64k\n"),
            format!("{a} refs/heads/main\n"),
            format!("{b} refs/tags/v1\n"),
            format!("{a} refs/tags/v1^{{}}\n"),
            format!("shallow {b}\n"),
        ] {
            observer.feed(format!("{:04x}{line}", line.len() + 4).as_bytes()).unwrap();
        }
        observer.feed(b"0000").unwrap();
        let list = observer.take_list();
        assert_eq!(list.shallow, [b]);
        assert_eq!(list.head_branch.as_deref(), Some("refs/heads/main"));
        assert_eq!(list.head, Some(a));
        assert_eq!(list.references.len(), 2);
    }

    fn summed_up(lines: &[String]) -> (Observer, Summary) {
        let mut observer = Observer::new(10);
        observer.keep_no_list();
        observer.feed(b"001e# service=git-upload-pack\n0000").unwrap();
        for line in lines {
            observer.feed(format!("{:04x}{line}", line.len() + 4).as_bytes()).unwrap();
        }
        observer.feed(b"0000").unwrap();
        let summary = observer.take_summary();
        (observer, summary)
    }

    #[test]
    fn a_summary_counts_and_keeps_nothing() {
        let (a, b) = ("a".repeat(40), "b".repeat(64));
        let (observer, summary) = summed_up(&[
            format!("{a} HEAD\0multi_ack\n"),
            format!("{a} refs/heads/alpha\n"),
            format!("{a} refs/heads/main\n"),
            format!("{b} refs/tags/v1\n"),
            format!("{a} refs/tags/v1^{{}}\n"),
            format!("shallow {a}\n"),
        ]);
        assert!(observer.has_whole_list() && !observer.is_out_of_form());
        assert!(observer.list.references.is_empty());
        let head_branch = Some("refs/heads/main".to_owned());
        assert_eq!(summary, Summary { head_branch, head: Some(a), references: 3 });
    }

    #[test]
    fn ends_of_a_shallow_repository_become_comments_however_the_bytes_are_cut() {
        let (head, end) =
            (format!("{} HEAD\0shallow\n", "a".repeat(40)), format!("shallow {}\n", "b".repeat(40)));
        let list = [&head, &end, &end].map(|line| format!("{:04x}{line}", line.len() + 4)).concat();
        for size in [1, 3, 50, 1000] {
            let mut observer = Observer::new(10);
            let mut passed = Vec::new();
            for piece in list.as_bytes().chunks(size) {
                let mut piece = piece.to_vec();
                observer.feed(&piece).unwrap();
                observer.hide_ends(&mut piece);
                passed.extend(piece);
            }
            let expected = list.replace("shallow b", "#hallow b");
            assert_eq!(String::from_utf8(passed).unwrap(), expected, "{size}");
        }
    }

    #[test]
    fn an_empty_list_is_whole_and_a_strange_one_is_not() {
        let none = format!("{} capabilities^{{}}\0multi_ack\n", "0".repeat(40));
        let (observer, summary) = summed_up(&[none]);
        assert!(observer.has_whole_list());
        assert_eq!(summary, Summary::default());
        let (observer, _) = summed_up(&["<html>".to_owned()]);
        assert!(observer.is_out_of_form() && !observer.has_whole_list());
    }

    #[test]
    fn an_error_frame_is_kept_without_control_characters() {
        let mut observer = Observer::new(10);
        observer.feed(b"001aERR no\x1b[31m such repo\n").unwrap();
        assert_eq!(observer.error(), Some("no[31m such repo"));
    }

    #[test]
    fn why_a_server_gave_up_is_kept_with_the_lines_before_it() {
        let frame = |band: u8, text: &str| {
            [format!("{:04x}", text.len() + 5).as_bytes(), &[band], text.as_bytes()].concat()
        };
        let pack = frame(DATA_BAND, "PACK\0\0\0\x02\0\0\0\x05");
        let talk = frame(TALK_BAND, "Counting: 50%\rCounting: 100%\nfatal: unable to read 1234\n");
        let data = frame(DATA_BAND, &"x".repeat(60_000));
        let error = frame(ERROR_BAND, "aborting\x1b[31m\n");
        let bytes = [b"0008NAK\n".as_slice(), &pack, &talk, &data, &error].concat();
        for size in [1, 7, 1000, 100_000] {
            let mut observer = Observer::new(10);
            observer.expect_pack(1000);
            let gave_up = bytes.chunks(size).find_map(|piece| observer.feed(piece).err());
            let Some(Error::GaveUp { message }) = gave_up else { panic!("{size}: {gave_up:?}") };
            assert_eq!(message, "Counting: 100%; fatal: unable to read 1234; aborting[31m", "{size}");
        }
    }

    #[test]
    fn a_server_that_only_reports_progress_has_not_given_up() {
        let mut observer = Observer::new(10);
        observer.expect_pack(1000);
        let bytes = b"0008NAK\n0011\x01PACK\0\0\0\x02\0\0\0\x05000a\x02done\n0006\x01\x030000";
        assert!(observer.feed(bytes).is_ok());
    }

    #[test]
    fn too_many_references_are_refused() {
        let mut observer = Observer::new(3);
        let refused = (0..10).find_map(|_| observer.feed(b"0008xyz\n").err());
        assert!(matches!(refused, Some(Error::TooLarge { what: Limit::References, limit: 3 })));
    }

    #[test]
    fn a_pack_that_claims_too_many_objects_is_refused_by_its_header() {
        let header = b"PACK\0\0\0\x02\xff\xff\xff\xff";
        let framed = [b"0008NAK\n".as_slice(), b"0011\x01", header].concat();
        let split = [b"0008NAK\n".as_slice(), b"000b\x01", &header[..6], b"000b\x01", &header[6..]].concat();
        let bare = [b"0008NAK\n".as_slice(), header].concat();
        for bytes in [framed, split, bare] {
            for size in [1, 5, 100] {
                let mut observer = Observer::new(10);
                observer.expect_pack(1000);
                let refused = bytes.chunks(size).find_map(|piece| observer.feed(piece).err());
                assert!(
                    matches!(refused, Some(Error::TooLarge { what: Limit::Objects, limit: 1000 })),
                    "{size}"
                );
            }
        }
    }
}
