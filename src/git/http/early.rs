//! One exchange instead of two where a clone asks for a part of the history.
//!
//! libgit2 asks twice then: first with what it wants and how deep, to hear where the history is cut, and then with the
//! same and `done`. The second request is known when the first one is, and its answer begins with that of the first. So it
//! is sent at once, the first reader gets the beginning of its answer, and the second one, where it asks for the very
//! same, the rest. Where it asks for something else, because it has some of the history, it is sent as it is.

use std::sync::{Arc, Mutex, PoisonError};

use super::Answer;

/// The line that ends a request.
const DONE: &[u8] = b"0009done\n";

/// A line without content, which ends a part.
const FLUSH: &[u8] = b"0000";

/// Bytes of the length before each line.
const LENGTH_BYTES: usize = 4;

/// The rest of an answer, kept for the request that it belongs to.
#[derive(Clone, Default)]
pub(super) struct Early(Arc<Mutex<Option<Kept>>>);

struct Kept {
    request: Vec<u8>,
    rest: Answer,
}

impl Early {
    /// Keeps the rest of an answer.
    pub(super) fn keep(&self, request: Vec<u8>, rest: Answer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Kept { request, rest });
    }

    /// The rest of the answer to this request, where it was sent before.
    pub(super) fn take(&self, request: &[u8]) -> Option<Answer> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        kept.filter(|kept| kept.request == request).map(|kept| kept.rest)
    }
}

/// The request that will follow this one, where it is one that only asks where the history is cut.
pub(super) fn following(request: &[u8]) -> Option<Vec<u8>> {
    let mut rest = request;
    let mut is_deep = false;
    while let Some(line) = first_line(rest) {
        rest = rest.get(line.len()..)?;
        if line == FLUSH {
            let is_all = rest.is_empty() && is_deep;
            return is_all.then(|| [request, DONE].concat());
        }
        let content = line.get(LENGTH_BYTES..)?;
        is_deep |= content.starts_with(b"deepen ");
    }
    None
}

/// The line at the beginning, with its length; `None` where there is no whole one.
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    let length = length(bytes.first_chunk()?)?;
    bytes.get(..length)
}

/// The bytes of a line, its length included, by its first four.
fn length(head: &[u8; LENGTH_BYTES]) -> Option<usize> {
    let length = usize::from_str_radix(std::str::from_utf8(head).ok()?, 16).ok()?;
    match length {
        0 => Some(LENGTH_BYTES),
        1..LENGTH_BYTES => None,
        length => Some(length),
    }
}

/// Finds the end of the part that the first reader is to get.
#[derive(Default)]
pub(super) struct Part {
    head: [u8; LENGTH_BYTES],
    /// How many bytes of the head have come.
    headed: usize,
    /// How many bytes of the line are still to come.
    missing: usize,
    is_flush: bool,
    /// Whether what came is no line: the part has no end then, and the first reader gets everything.
    is_lost: bool,
}

impl Part {
    /// How many bytes may be read at the most so that nothing behind the part is.
    pub(super) fn at_most(&self, wanted: usize) -> usize {
        match (self.is_lost, self.missing) {
            (true, _) => wanted,
            (false, 0) => wanted.min(LENGTH_BYTES - self.headed),
            (false, missing) => wanted.min(missing),
        }
    }

    /// Takes note of what was read, at most [`Self::at_most`]; `true` is the end of the part.
    pub(super) fn read(&mut self, bytes: &[u8]) -> bool {
        if self.is_lost {
            return false;
        }
        if self.missing > 0 {
            self.missing -= bytes.len().min(self.missing);
            return false;
        }
        for byte in bytes {
            if let Some(place) = self.head.get_mut(self.headed) {
                *place = *byte;
                self.headed += 1;
            }
        }
        if self.headed == LENGTH_BYTES {
            self.headed = 0;
            self.is_flush = self.head == FLUSH;
            match length(&self.head) {
                Some(length) => self.missing = length - LENGTH_BYTES,
                None => self.is_lost = true,
            }
        }
        self.is_flush
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_of_two_requests_has_a_known_successor() {
        let first = b"0032want 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n000cdeepen 10000";
        let second = following(first).unwrap();
        assert!(second.starts_with(first) && second.ends_with(b"00000009done\n"));
        assert_eq!(following(&second), None, "it is the second");
        let others: [&[u8]; 6] = [
            b"0032want 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n00000009done\n",
            b"0032want 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n0000",
            b"000cdeepen 100000032have 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n0000",
            b"000cdeepen 1",
            b"00zzdeepen 10000",
            b"",
        ];
        for other in others {
            assert_eq!(following(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    /// Reads as much as may be read, in pieces of a size.
    fn part_of(answer: &[u8], piece: usize) -> usize {
        let (mut part, mut read) = (Part::default(), 0);
        while read < answer.len() {
            let count = part.at_most(piece.min(answer.len() - read));
            if part.read(&answer[read..read + count]) {
                return read + count;
            }
            read += count;
        }
        read
    }

    #[test]
    fn the_part_ends_with_its_flush_however_it_is_read() {
        let part = b"0035shallow 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n0000";
        let answer = [&part[..], b"0008NAK\nPACK"].concat();
        for piece in [1, 3, 4, 5, 64, 4096] {
            assert_eq!(part_of(&answer, piece), part.len(), "{piece}");
        }
        let not_lines = b"<html>0000</html>";
        assert_eq!(part_of(not_lines, 7), not_lines.len(), "it all goes to whoever asked");
    }
}
