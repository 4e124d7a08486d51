//! A stream that fails where its peer does not read.

use std::io::{Error, ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bounds how long a write may make no progress. A peer that reads slowly is served; one that does not read
/// loses its connection, and with it the place that it holds.
#[derive(Debug)]
pub(super) struct WriteTimeout<S> {
    stream: S,
    write: Stall,
    /// A flush may have nothing to do while a write is stuck, so that each has a clock of its own.
    flush: Stall,
}

/// The clock of an operation that does not get on.
#[derive(Debug)]
struct Stall {
    limit: Duration,
    over: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn bound<T>(&mut self, context: &mut Context<'_>, polled: Poll<Result<T>>) -> Poll<Result<T>> {
        if polled.is_ready() {
            self.over = None;
            return polled;
        }
        let over = self.over.get_or_insert_with(|| Box::pin(sleep(self.limit)));
        over.as_mut().poll(context).map(|()| Err(Error::new(ErrorKind::TimedOut, "the peer does not read")))
    }
}

impl<S> WriteTimeout<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        let stall = || Stall { limit, over: None };
        Self { stream, write: stall(), flush: stall() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.write.bound(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.write.bound(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.flush.bound(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.flush.bound(context, polled)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_peer_that_does_not_read_ends_the_stream_and_one_that_does_is_served() {
        let (mut peer, stream) = duplex(4);
        let mut stream = WriteTimeout::new(stream, Duration::from_millis(20));
        let stuck = stream.write_all(b"more than fits").await.unwrap_err();
        assert_eq!(stuck.kind(), ErrorKind::TimedOut);
        let mut read = [0; 4];
        peer.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"more");
        let mut rest = [0; 14];
        let (written, _) = tokio::join!(stream.write_all(b"more than fits"), peer.read_exact(&mut rest));
        written.unwrap();
        assert_eq!(&rest, b"more than fits");
    }
}
