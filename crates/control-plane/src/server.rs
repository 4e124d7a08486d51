//! The listening side: sockets, TLS, and the way to a stop.

mod accept;
mod carry;
mod gate;
mod spread;
mod tls;
mod write_timeout;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{App, router};
use crate::artifacts::{Artifacts, Location, LocationError, sweep};
use crate::engine;
use crate::enroll::Challenges;
use crate::identity::canonical_origin;
use crate::polling::Polls;
use crate::settings::{Limits, Times};
use crate::store::{OpenError, ServeLock, Store};

use accept::Acceptor;
pub use accept::Place;
pub(crate) use carry::carry;
pub use gate::Gate;
pub(crate) use spread::come_back_after;
pub use tls::TlsError;

/// How often a stopping server looks whether the requests have ended that are to end before the sessions.
const STOP_LOOK: Duration = Duration::from_millis(20);

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate with its chain, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// How to serve.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where to listen: `HOST:PORT`, the port 0 for any.
    pub listen: String,
    /// The certificate, for TLS.
    pub tls: Option<TlsFiles>,
    /// Whether a proxy in front does TLS and tells about its clients.
    pub behind_proxy: bool,
    /// The base URLs by which agents may reach this control plane.
    pub public_urls: Vec<String>,
    /// Where artifacts lie: `file:PATH` or `s3://BUCKET[/PREFIX]`; a directory beside the database where it is
    /// missing.
    pub artifacts: Option<String>,
    /// Durations.
    pub times: Times,
    /// Limits.
    pub limits: Limits,
}

/// Why serving did not begin. The text says the cause and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is none.
    #[error("--listen {0}: it is HOST:PORT, such as 127.0.0.1:7800 or [::1]:7800")]
    AddressInvalid(String),
    /// Others could read along.
    #[error(
        "--listen {0}: without TLS it listens on loopback only; give --tls-cert and --tls-key, \
         or --behind-proxy where a proxy on this network does TLS"
    )]
    AddressNotAllowed(SocketAddr),
    /// Something else listens there, or it is not an address of this host.
    #[error("--listen {address}: {source}; stop what listens there, or choose another address")]
    Bind {
        /// The address.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A public URL is none.
    #[error("--public-url {0}: it is the base URL that agents dial, such as https://sortie.example.com")]
    PublicUrlInvalid(String),
    /// The place for artifacts.
    #[error("--artifacts: {0}")]
    Artifacts(#[from] LocationError),
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The database.
    #[error(transparent)]
    Store(#[from] OpenError),
}

/// A server that listens.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    app: Arc<App>,
    engine: JoinHandle<()>,
    sweeping: JoinHandle<()>,
    accepting: JoinHandle<()>,
    connections: TaskTracker,
    abort: CancellationToken,
    engine_stop: CancellationToken,
    _lock: ServeLock,
}

/// Settings that have been checked: nothing is open yet.
pub struct Prepared {
    settings: Settings,
    acceptor: Option<TlsAcceptor>,
    addresses: Vec<SocketAddr>,
    public_urls: Vec<String>,
    artifacts: Option<Location>,
}

/// Checks the settings before anything opens.
///
/// # Errors
/// What is wrong with the address, the certificate or a public URL.
pub async fn prepare(settings: Settings) -> Result<Prepared, ServeError> {
    let acceptor = settings.tls.as_ref().map(tls::acceptor).transpose()?;
    let public_urls = settings.public_urls.iter().map(|url| public_url(url)).collect::<Result<_, _>>()?;
    let artifacts = settings.artifacts.as_deref().map(Location::parse).transpose()?;
    let allowed_anywhere = acceptor.is_some() || settings.behind_proxy;
    let addresses = addresses(&settings.listen, allowed_anywhere).await?;
    Ok(Prepared { settings, acceptor, addresses, public_urls, artifacts })
}

impl Prepared {
    /// Begins to serve.
    ///
    /// # Errors
    /// What is wrong with the address, or that another process serves the database.
    pub fn start(self, store: Store) -> Result<Running, ServeError> {
        let Self { settings, acceptor, addresses, public_urls, artifacts } = self;
        let lock = store.claim()?;
        let location = artifacts.unwrap_or_else(|| Location::Directory(store.artifacts_directory()));
        let objects = location.open()?;
        let listener = bind(&settings.listen, &addresses)?;
        let address = listener
            .local_addr()
            .map_err(|source| ServeError::Bind { address: settings.listen.clone(), source })?;
        let Settings { times, limits, behind_proxy, .. } = settings;
        let engine_stop = CancellationToken::new();
        let (handle, engine) =
            engine::start(store.for_engine(), times.clone(), limits.clone(), engine_stop.clone());
        let stop = CancellationToken::new();
        let artifacts = Artifacts::new(store.clone(), objects, &times, &limits);
        let sweeping = tokio::spawn(sweep(artifacts.clone(), stop.clone()));
        let is_secure = acceptor.is_some() || behind_proxy;
        let app = Arc::new(App {
            store,
            engine: handle,
            artifacts,
            public_urls,
            scheme: if is_secure { "https" } else { "http" },
            challenges: Challenges::new(times.challenge, limits.challenges),
            gate: Gate::new(limits.handshakes_per_second, limits.handshakes),
            polls: Polls::new(limits.poll_sessions),
            lists: Semaphore::new(limits.lists),
            sessions: TaskTracker::new(),
            stop: stop.clone(),
            times,
            limits,
        });
        let (connections, abort) = (TaskTracker::new(), CancellationToken::new());
        let accepting = Acceptor {
            listener,
            tls: acceptor,
            router: router(Arc::clone(&app)),
            header_timeout: app.times.request_head,
            write_timeout: app.times.write,
            places: Arc::new(Semaphore::new(app.limits.connections)),
            behind_proxy,
            connections: connections.clone(),
            stop,
            abort: abort.clone(),
        };
        let accepting = tokio::spawn(accepting.run());
        tracing::info!(listen.address = %address, listen.scheme = app.scheme, "listening");
        Ok(Running {
            address,
            app,
            engine,
            sweeping,
            accepting,
            connections,
            abort,
            engine_stop,
            _lock: lock,
        })
    }
}

impl Running {
    /// The address with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: no new connections, agents told to come back later, requests finished within a bound, the
    /// database closed.
    pub async fn stop(self) {
        let grace = self.app.times.stop_grace;
        self.app.stop.cancel();
        let _ = self.accepting.await;
        self.connections.close();
        // Answers that are due still need the engine, so it goes after the requests. Upgraded connections
        // are sessions by now and end with the engine, and so do requests that wait for a session's messages.
        let requests = async {
            while self.connections.len() > self.app.polls.waiting() {
                sleep(STOP_LOOK).await;
            }
        };
        if timeout(grace, requests).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
        let _ = self.sweeping.await;
        self.engine_stop.cancel();
        let _ = self.engine.await;
        self.app.sessions.close();
        if timeout(grace, self.app.sessions.wait()).await.is_err() {
            tracing::warn!("some sessions did not end in time");
        }
        // What the sessions said last is on its way to those who poll.
        let _ = timeout(grace, self.connections.wait()).await;
        self.abort.cancel();
        self.connections.wait().await;
        self.app.artifacts.finish().await;
        self.app.store.close().await;
        tracing::info!("stopped");
    }
}

fn public_url(url: &str) -> Result<String, ServeError> {
    let canonical = canonical_origin(url);
    let host = canonical.strip_prefix("https://").or_else(|| canonical.strip_prefix("http://"));
    let is_clean = !canonical.chars().any(|c| c.is_control() || c.is_whitespace() || "?#@".contains(c));
    if host.is_some_and(|host| !host.is_empty()) && is_clean {
        Ok(canonical)
    } else {
        Err(ServeError::PublicUrlInvalid(url.to_owned()))
    }
}

async fn addresses(listen: &str, allowed_anywhere: bool) -> Result<Vec<SocketAddr>, ServeError> {
    let found = tokio::net::lookup_host(listen)
        .await
        .map_err(|_| ServeError::AddressInvalid(listen.to_owned()))?
        .collect::<Vec<_>>();
    if found.is_empty() {
        return Err(ServeError::AddressInvalid(listen.to_owned()));
    }
    match found.iter().find(|address| !address.ip().is_loopback()) {
        Some(open) if !allowed_anywhere => Err(ServeError::AddressNotAllowed(*open)),
        _ => Ok(found),
    }
}

/// Listens at the first of the addresses that works; `localhost` may name one that this host lacks.
fn bind(listen: &str, addresses: &[SocketAddr]) -> Result<TcpListener, ServeError> {
    let mut failure = None;
    for address in addresses {
        match listen_at(*address) {
            Ok(listener) => return Ok(listener),
            Err(source) => failure = failure.or(Some(source)),
        }
    }
    let source = failure.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into());
    Err(ServeError::Bind { address: listen.to_owned(), source })
}

fn listen_at(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    // A restart need not wait for the connections of the process before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
