//! Connections: accepted up to a limit, each a task of its own that the server waits for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::write_timeout::WriteTimeout;

/// How long to wait where the operating system has no more file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The longest head of a request, in bytes.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A connection's place among those that may be open. Its request carries it, so that a WebSocket keeps it
/// after the upgrade.
#[derive(Debug, Clone)]
pub struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// What accepts, and what every connection is given.
pub(super) struct Acceptor {
    pub(super) listener: TcpListener,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) router: Router,
    pub(super) header_timeout: Duration,
    pub(super) write_timeout: Duration,
    pub(super) places: Arc<Semaphore>,
    pub(super) behind_proxy: bool,
    pub(super) connections: TaskTracker,
    /// Ends accepting, and connections after their present request.
    pub(super) stop: CancellationToken,
    /// Ends connections at once.
    pub(super) abort: CancellationToken,
}

#[derive(Clone)]
struct Connection {
    tls: Option<TlsAcceptor>,
    router: Router,
    header_timeout: Duration,
    write_timeout: Duration,
    behind_proxy: bool,
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Acceptor {
    pub(super) async fn run(self) {
        let connection = Connection {
            tls: self.tls,
            router: self.router,
            header_timeout: self.header_timeout,
            write_timeout: self.write_timeout,
            behind_proxy: self.behind_proxy,
            stop: self.stop.clone(),
            abort: self.abort,
        };
        loop {
            // Where all places are taken, further connections wait in the kernel's queue.
            let place = tokio::select! {
                place = Arc::clone(&self.places).acquire_owned() => place,
                () = self.stop.cancelled() => return,
            };
            let Ok(place) = place else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.connections.spawn(connection.clone().serve(stream, peer, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Connection {
    async fn serve(self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        // Small messages go out at once; where the option fails they go out a little later.
        let _ = stream.set_nodelay(true);
        let abort = self.abort.clone();
        let place = Place { _permit: Arc::new(place) };
        let served = async {
            match self.tls.clone() {
                None => self.speak(stream, peer, place).await,
                Some(tls) => match timeout(self.header_timeout, tls.accept(stream)).await {
                    Ok(Ok(stream)) => self.speak(stream, peer, place).await,
                    Ok(Err(error)) => {
                        tracing::debug!(%error, client.address = %peer, "a TLS handshake failed")
                    }
                    Err(_) => tracing::debug!(client.address = %peer, "a TLS handshake took too long"),
                },
            }
        };
        tokio::select! {
            () = served => {}
            () = abort.cancelled() => {}
        }
    }

    async fn speak<S>(self, stream: S, peer: SocketAddr, place: Place)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let behind_proxy = self.behind_proxy;
        let service = tower_service(self.router, peer, behind_proxy, place);
        let stream = WriteTimeout::new(stream, self.write_timeout);
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(served);
        let result = tokio::select! {
            result = &mut served => result,
            () = self.stop.cancelled() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, client.address = %peer, "a connection failed");
        }
    }
}

/// The router as a service of one connection.
fn tower_service(
    router: Router,
    peer: SocketAddr,
    behind_proxy: bool,
    place: Place,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone {
    let inner = TowerToHyperService::new(router.into_service());
    hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(place.clone());
        let client = client(&request, peer, behind_proxy);
        let (method, path) = (request.method(), request.uri().path());
        tracing::debug!(client.address = %client, http.method = %method, http.path = ?path, "a request");
        hyper::service::Service::call(&inner, request)
    })
}

/// Who asks, for the log: the peer, or whom the proxy names.
fn client(request: &Request<Incoming>, peer: SocketAddr, behind_proxy: bool) -> String {
    const LONGEST: usize = 64;
    let named = request.headers().get("x-forwarded-for").filter(|_| behind_proxy);
    // A proxy adds the client that it saw at the end.
    let named = named.and_then(|names| names.to_str().ok()).and_then(|names| names.rsplit(',').next());
    named.map_or_else(|| peer.to_string(), |name| name.trim().chars().take(LONGEST).collect())
}
