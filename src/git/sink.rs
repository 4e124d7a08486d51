//! From blocking work to an async reader: what is written becomes pieces on a bounded channel.

use std::io::{self, ErrorKind, Write};

use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Control;

/// What is handed on at once, in bytes; the last piece may be smaller.
const PIECE_BYTES: usize = 256 * 1024;

/// Hands what is written on as pieces. It waits while the channel is full, and fails once the receiver is gone, the
/// task is cancelled or its time is over. What is not flushed is lost when it is dropped.
pub struct ChannelSink {
    sender: mpsc::Sender<Bytes>,
    piece: BytesMut,
    control: Control,
    runtime: Handle,
}

impl ChannelSink {
    /// A sink for a blocking thread of that runtime. The channel's capacity times 256 KiB is what may wait in it.
    pub fn new(sender: mpsc::Sender<Bytes>, control: &Control, runtime: Handle) -> Self {
        Self { sender, piece: BytesMut::new(), control: control.clone(), runtime }
    }

    fn hand_on(&mut self) -> io::Result<()> {
        let piece = self.piece.split().freeze();
        let (sender, control) = (&self.sender, &self.control);
        self.runtime
            .block_on(async move {
                tokio::select! {
                    biased;
                    () = control.cancel.cancelled() => Err(ErrorKind::Interrupted),
                    () = tokio::time::sleep_until(control.deadline) => Err(ErrorKind::TimedOut),
                    sent = sender.send(piece) => sent.map_err(|_| ErrorKind::BrokenPipe),
                }
            })
            // `Interrupted` would be tried again.
            .map_err(|kind| {
                if kind == ErrorKind::Interrupted { ErrorKind::ConnectionAborted } else { kind }.into()
            })
    }
}

impl Write for ChannelSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.reserve(PIECE_BYTES.saturating_sub(self.piece.len()).max(1));
        let room = PIECE_BYTES.saturating_sub(self.piece.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.piece.extend_from_slice(taken);
        let count = taken.len();
        if self.piece.len() >= PIECE_BYTES {
            self.hand_on()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.hand_on() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::time::{Duration, Instant};
    use tokio_util::sync::CancellationToken;

    fn control() -> Control {
        Control::new(Instant::now() + Duration::from_secs(60), CancellationToken::new())
    }

    #[tokio::test]
    async fn pieces_arrive_whole_and_in_order() {
        let (sender, mut receiver) = mpsc::channel(2);
        let content: Vec<u8> = (0..3 * PIECE_BYTES + 7).map(|number| (number % 251) as u8).collect();
        let written = content.clone();
        let runtime = Handle::current();
        let writer = tokio::task::spawn_blocking(move || {
            let mut sink = ChannelSink::new(sender, &control(), runtime);
            written.chunks(1000).try_for_each(|chunk| sink.write_all(chunk)).and_then(|()| sink.flush())
        });
        let mut received = Vec::new();
        let mut sizes = Vec::new();
        while let Some(piece) = receiver.recv().await {
            sizes.push(piece.len());
            received.extend_from_slice(&piece);
        }
        writer.await.unwrap().unwrap();
        assert_eq!(received, content);
        assert_eq!(sizes, [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 7]);
    }

    #[tokio::test]
    async fn a_receiver_that_goes_away_and_a_cancel_end_it() {
        for is_cancelled in [false, true] {
            let (sender, receiver) = mpsc::channel(1);
            let control = control();
            let (runtime, theirs) = (Handle::current(), control.clone());
            let writer = tokio::task::spawn_blocking(move || {
                let mut sink = ChannelSink::new(sender, &theirs, runtime);
                sink.write_all(&vec![0; 10 * PIECE_BYTES])
            });
            // The channel is full after one piece, and nobody reads on.
            let kept = if is_cancelled {
                control.cancel.cancel();
                Some(receiver)
            } else {
                drop(receiver);
                None
            };
            let ended = tokio::time::timeout(Duration::from_secs(1), writer).await.unwrap().unwrap();
            let expected = if is_cancelled { ErrorKind::ConnectionAborted } else { ErrorKind::BrokenPipe };
            assert_eq!(ended.unwrap_err().kind(), expected);
            drop(kept);
        }
    }
}
