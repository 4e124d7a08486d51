//! The small HTTP server: one task for each connection, all of them owned by one set, one request for each.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::answer::{answer, is_for, misdirected};
use super::{
    CONNECTION_TIMEOUT, HEAD_TIMEOUT, Listener, MAX_CONNECTIONS, MAX_HEAD_BYTES, MAX_HEADERS, Source,
};

/// The pause after an error of the system, such as too many open files, before the next client is taken.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(200);

/// What a client gets that is one too many. Its request is not read.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// A client.
enum Client {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Serves clients until `stop` is cancelled; what is being answered then is cut off.
pub async fn serve(listener: Listener, source: Source, stop: CancellationToken) {
    let source = Arc::new(source);
    let address = match &listener {
        Listener::Tcp(listener) => listener.local_addr().ok(),
        Listener::Unix(_) => None,
    };
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = clients.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Err(_) => tokio::time::sleep(PAUSE_AFTER_ERROR).await,
            Ok(client) if clients.len() >= MAX_CONNECTIONS => client.refuse_at_once(),
            Ok(Client::Tcp(stream)) => {
                clients.spawn(attend(stream, address, Arc::clone(&source)));
            }
            Ok(Client::Unix(stream)) => {
                clients.spawn(attend(stream, address, Arc::clone(&source)));
            }
        }
    }
    clients.shutdown().await;
}

impl Listener {
    async fn accept(&self) -> io::Result<Client> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Client::Tcp(stream)),
            Self::Unix(socket) => socket.listener.accept().await.map(|(stream, _)| Client::Unix(stream)),
        }
    }
}

impl Client {
    /// Says no without waiting for anything: what does not fit into the socket's buffer is not sent.
    fn refuse_at_once(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.try_write(BUSY),
            Self::Unix(stream) => stream.try_write(BUSY),
        };
    }
}

/// Answers one request, whose body is not read.
async fn attend<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    address: Option<SocketAddr>,
    source: Arc<Source>,
) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = if is_for(&request, address) {
            answer(request.method(), request.uri().path(), &source)
        } else {
            misdirected()
        };
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    // Whatever ends it early is the client's own affair.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}
