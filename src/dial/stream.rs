//! A connected stream with what was measured while it came about.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::tls::{CertificateFacts, TlsFacts};

/// How many of the peer's first bytes are kept: enough to say what it speaks where it does not speak TLS, and
/// what it chose where it does. A ServerHello with a post-quantum key share has about 1200 bytes.
const FIRST_BYTES: usize = 2048;

/// What carries the bytes: TCP, or TLS to a proxy on it.
pub(super) type Transport = Either<TcpStream, Box<TlsStream<Observed<TcpStream>>>>;

/// What was measured while a stream came about.
#[derive(Debug, Clone)]
pub struct StreamFacts {
    /// The address that was connected to: the server's, or the proxy's.
    pub peer: SocketAddr,
    /// The proxy as `host:port`, where there is one in between.
    pub proxy: Option<String>,
    /// What TLS agreed on, where the stream has TLS.
    pub tls: Option<TlsFacts>,
    /// What TLS with the proxy itself agreed on, where the proxy speaks TLS.
    pub proxy_tls: Option<TlsFacts>,
    /// The certificate that the operator named for this host, where there is one.
    pub client_certificate: Option<CertificateFacts>,
}

impl StreamFacts {
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self { peer, proxy: None, tls: None, proxy_tls: None, client_certificate: None }
    }
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
    pub(super) transport: Transport,
    pub(super) facts: StreamFacts,
}

/// A stream with TLS.
#[derive(Debug)]
pub struct Tls {
    pub(super) tls: TlsStream<Observed<Transport>>,
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
            Self::Plain(stream) => Pin::new(&mut stream.transport).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(&mut stream.tls).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(&mut stream.transport).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(&mut stream.tls).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(&mut stream.transport).poll_flush(context),
            Self::Tls(stream) => Pin::new(&mut stream.tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(&mut stream.transport).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(&mut stream.tls).poll_shutdown(context),
        }
    }
}

/// A socket that remembers the first bytes that came from it.
#[derive(Debug)]
pub(super) struct Observed<S> {
    inner: S,
    first: Vec<u8>,
    is_watching: bool,
}

impl<S> Observed<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, first: Vec::new(), is_watching: true }
    }

    /// The first bytes that came, at most [`FIRST_BYTES`].
    pub(super) fn first_bytes(&self) -> &[u8] {
        &self.first
    }

    /// What was watched.
    pub(super) fn into_inner(self) -> S {
        self.inner
    }

    /// Forgets the first bytes and keeps no more of them.
    pub(super) fn forget(&mut self) {
        (self.first, self.is_watching) = (Vec::new(), false);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.inner).poll_read(context, buffer);
        if this.is_watching {
            let came = &buffer.filled()[before..];
            let kept = came.len().min(FIRST_BYTES - this.first.len());
            this.first.extend_from_slice(&came[..kept]);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
