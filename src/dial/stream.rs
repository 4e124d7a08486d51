//! A connected stream with what was measured while it came about.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::tls::TlsFacts;

/// How many of the peer's first bytes are kept, to say what it speaks where it does not speak TLS.
const FIRST_BYTES: usize = 16;

/// What was measured while a stream came about.
#[derive(Debug, Clone)]
pub struct StreamFacts {
    /// The address that was connected to: the server's, or the proxy's.
    pub peer: SocketAddr,
    /// The proxy as `host:port`, where there is one in between.
    pub proxy: Option<String>,
    /// What TLS agreed on, where the stream has TLS.
    pub tls: Option<TlsFacts>,
}

/// A connected stream: TCP or a proxy's tunnel, with or without TLS on it.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(Box<Plain>),
    /// With TLS.
    Tls(Box<Tls>),
}

/// A stream without TLS.
#[derive(Debug)]
pub struct Plain {
    pub(super) tcp: TcpStream,
    pub(super) facts: StreamFacts,
}

/// A stream with TLS.
#[derive(Debug)]
pub struct Tls {
    pub(super) tls: TlsStream<Observed>,
    pub(super) facts: StreamFacts,
}

impl Stream {
    /// What was measured.
    pub fn facts(&self) -> &StreamFacts {
        match self {
            Self::Plain(stream) => &stream.facts,
            Self::Tls(stream) => &stream.facts,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(&mut stream.tcp).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(&mut stream.tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(&mut stream.tcp).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(&mut stream.tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(&mut stream.tcp).poll_flush(context),
            Self::Tls(stream) => Pin::new(&mut stream.tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(&mut stream.tcp).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(&mut stream.tls).poll_shutdown(context),
        }
    }
}

/// A socket that remembers the first bytes that came from it.
#[derive(Debug)]
pub(super) struct Observed {
    tcp: TcpStream,
    first: [u8; FIRST_BYTES],
    seen: usize,
}

impl Observed {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, first: [0; FIRST_BYTES], seen: 0 }
    }

    /// The first bytes that came, at most [`FIRST_BYTES`].
    pub(super) fn first_bytes(&self) -> &[u8] {
        &self.first[..self.seen]
    }
}

impl AsyncRead for Observed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.tcp).poll_read(context, buffer);
        let came = &buffer.filled()[before..];
        let kept = came.len().min(FIRST_BYTES - this.seen);
        this.first[this.seen..this.seen + kept].copy_from_slice(&came[..kept]);
        this.seen += kept;
        polled
    }
}

impl AsyncWrite for Observed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}
