//! The bytes of an artifact from the thread that makes them to the parts that travel.

use std::io::{self, Write};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::UploadError;

/// How many bytes the writer collects before it hands them on.
const PIECE_BYTES: usize = 64 * 1024;

/// How many pieces may wait for the upload.
const WAITING_PIECES: usize = 4;

/// One piece of an artifact.
#[derive(Debug, Clone)]
pub enum Piece {
    /// The next bytes.
    Data(Bytes),
    /// There are no more. Without this an artifact is never complete.
    End,
}

/// Takes an artifact from a thread that may block. Dropping it without [`PieceWriter::finish`] gives the artifact
/// up. Once the upload has failed, writing fails with `BrokenPipe`.
pub struct PieceWriter {
    buffer: BytesMut,
    sender: mpsc::Sender<Piece>,
}

/// A writer, and what [`super::Uploader::upload`] reads.
pub fn pieces() -> (PieceWriter, mpsc::Receiver<Piece>) {
    let (sender, receiver) = mpsc::channel(WAITING_PIECES);
    (PieceWriter { buffer: BytesMut::with_capacity(PIECE_BYTES), sender }, receiver)
}

impl PieceWriter {
    /// Says that the artifact is whole.
    ///
    /// # Errors
    /// `BrokenPipe` where the upload has ended.
    pub fn finish(mut self) -> io::Result<()> {
        self.hand_over()?;
        self.send(Piece::End)
    }

    fn hand_over(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = self.buffer.split().freeze();
        self.buffer.reserve(PIECE_BYTES);
        self.send(Piece::Data(bytes))
    }

    fn send(&self, piece: Piece) -> io::Result<()> {
        self.sender.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() >= PIECE_BYTES {
            self.hand_over()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()
    }
}

/// A part, with its SHA-256 in hex.
pub(super) struct Part {
    pub(super) bytes: Bytes,
    pub(super) sha256: String,
    /// Whether nothing comes after it.
    pub(super) is_last: bool,
}

/// Cuts what comes into parts, and has the digest of the whole.
pub(super) struct Source {
    receiver: mpsc::Receiver<Piece>,
    rest: Bytes,
    digest: Context,
    /// How many bytes went into parts.
    pub(super) bytes: u64,
}

impl Source {
    pub(super) fn new(receiver: mpsc::Receiver<Piece>) -> Self {
        Self { receiver, rest: Bytes::new(), digest: Context::new(&SHA256), bytes: 0 }
    }

    /// The next part of up to that many bytes. It is empty only where it is the last one.
    pub(super) async fn part(&mut self, part_bytes: usize, max_bytes: u64) -> Result<Part, UploadError> {
        // The memory is taken as bytes come: most artifacts are smaller than a part.
        let mut part = BytesMut::new();
        let mut digest = Context::new(&SHA256);
        let is_last = loop {
            let room = part_bytes - part.len();
            let piece = self.rest.split_to(self.rest.len().min(room));
            self.bytes += piece.len() as u64;
            if self.bytes > max_bytes {
                return Err(UploadError::TooLarge { limit: max_bytes });
            }
            digest.update(&piece);
            self.digest.update(&piece);
            part.extend_from_slice(&piece);
            if part.len() == part_bytes {
                break false;
            }
            match self.receiver.recv().await {
                Some(Piece::Data(bytes)) => self.rest = bytes,
                Some(Piece::End) => break true,
                None => return Err(UploadError::SourceFailed),
            }
        };
        Ok(Part { bytes: part.freeze(), sha256: hex(digest.finish().as_ref()), is_last })
    }

    /// The SHA-256 of everything that went into parts.
    pub(super) fn sha256(self) -> String {
        hex(self.digest.finish().as_ref())
    }
}

/// Bytes in lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_of_any_size_become_parts_of_one_size() {
        let (mut writer, receiver) = pieces();
        let whole: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let written = whole.clone();
        let making = tokio::task::spawn_blocking(move || {
            for chunk in written.chunks(70_001) {
                writer.write_all(chunk).unwrap();
            }
            writer.finish().unwrap();
        });
        let mut source = Source::new(receiver);
        let mut parts = Vec::new();
        loop {
            let part = source.part(100_000, 300_000).await.unwrap();
            parts.push(part.bytes.to_vec());
            if part.is_last {
                break;
            }
        }
        making.await.unwrap();
        let sizes: Vec<_> = parts.iter().map(Vec::len).collect();
        assert_eq!((sizes, parts.concat()), (vec![100_000, 100_000, 100_000, 0], whole.clone()));
        let digest = aws_lc_rs::digest::digest(&SHA256, &whole);
        assert_eq!(source.sha256(), hex(digest.as_ref()));
    }

    #[tokio::test]
    async fn a_source_that_ends_without_its_word_is_no_artifact() {
        let (sender, receiver) = mpsc::channel(2);
        sender.send(Piece::Data(Bytes::from_static(b"half"))).await.unwrap();
        drop(sender);
        let part = Source::new(receiver).part(100, 100).await;
        assert_eq!(part.err(), Some(UploadError::SourceFailed));
        let (sender, receiver) = mpsc::channel(2);
        sender.send(Piece::Data(Bytes::from_static(b"too much"))).await.unwrap();
        let part = Source::new(receiver).part(100, 7).await;
        assert_eq!(part.err(), Some(UploadError::TooLarge { limit: 7 }));
    }
}
