//! Starts and stops the servers. They run on a thread of their own, so that blocking code can use them as well.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum_server::accept::{Accept, NoDelayAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::authority::{Authority, AuthorityError, CertificateKind};
use crate::fault::{Fault, Faults};
use crate::recorder::{RecordedRequest, Recorder};
use crate::site::{Product, Site, handle};
use crate::world::{World, WorldError};

/// Threads that serve requests.
const WORKER_THREADS: usize = 2;

/// Why the servers did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The world is not valid.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] AuthorityError),
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system answered.
        source: io::Error,
    },
    /// The runtime or its thread could not be started.
    #[error("the runtime could not be started: {0}")]
    Runtime(io::Error),
}

/// Starts the servers of a world.
pub struct StandIns;

impl StandIns {
    /// Starts every server of the world on free ports of 127.0.0.1.
    ///
    /// # Errors
    /// Any [`StartError`].
    pub fn start(world: World, authority: &Authority) -> Result<Running, StartError> {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_on(world, authority, any_port, any_port)
    }

    /// Starts every server of the world, each on the address given for it.
    ///
    /// # Errors
    /// Any [`StartError`].
    pub fn start_on(
        mut world: World,
        authority: &Authority,
        azure_address: SocketAddr,
        gitlab_address: SocketAddr,
    ) -> Result<Running, StartError> {
        world.check()?;
        let world = Arc::new(world);
        let azure = world.azure_devops.clone().map(|settings| {
            let (kind, plain) = (settings.certificate, settings.plain_http);
            let (path, names) = (settings.base_path.clone(), settings.certificate_names.clone());
            let product = Product::AzureDevOps(settings);
            prepare(&world, authority, product, azure_address, (kind, &names), plain, path)
        });
        let gitlab = world.gitlab.clone().map(|settings| {
            let (kind, plain) = (settings.certificate, settings.plain_http);
            let path = settings.relative_root.clone();
            let product = Product::Gitlab(settings);
            prepare(&world, authority, product, gitlab_address, (kind, &[]), plain, path)
        });
        let (azure, gitlab) = (azure.transpose()?, gitlab.transpose()?);
        let handles =
            [&azure, &gitlab].map(|prepared| prepared.as_ref().map(|prepared| prepared.handle.clone()));
        let prepared = [azure, gitlab].into_iter().flatten().collect();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKER_THREADS)
            .thread_name("stand-ins")
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let thread = std::thread::Builder::new()
            .name("stand-ins".to_owned())
            .spawn(move || runtime.block_on(serve(prepared, stopped)))
            .map_err(StartError::Runtime)?;
        let [azure, gitlab] = handles;
        Ok(Running { azure, gitlab, stop: Some(stop), thread: Some(thread) })
    }
}

/// The servers while they run; dropping it stops them, cuts every connection and waits for the thread to end.
pub struct Running {
    /// The Azure DevOps Server, when the world has one.
    pub azure: Option<ServerHandle>,
    /// The GitLab, when the world has one.
    pub gitlab: Option<ServerHandle>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been printed already; dropping must not add another.
            let _ = thread.join();
        }
    }
}

/// One running server: where it is, what it saw, and how it shall misbehave.
#[derive(Clone)]
pub struct ServerHandle {
    address: SocketAddr,
    scheme: &'static str,
    base_path: String,
    site: Arc<Site>,
    connections: Arc<AtomicUsize>,
}

impl ServerHandle {
    /// Scheme, address, port and base path without a trailing slash: `https://127.0.0.1:8443/tfs`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_with_host("127.0.0.1")
    }

    /// The same with another host, such as `localhost`, which the certificate has as well.
    #[must_use]
    pub fn url_with_host(&self, host: &str) -> String {
        format!("{}://{host}:{}{}", self.scheme, self.port(), self.base_path)
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests so far, oldest first; at most the last 10,000.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.recorder().all()
    }

    /// How many TCP connections were accepted so far, requests or not.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Forgets the requests and connections so far.
    pub fn clear_requests(&self) {
        self.recorder().clear();
        self.connections.store(0, Ordering::SeqCst);
    }

    /// Blocks until a request so far or to come satisfies `wanted`; `false` when the time is over before.
    #[must_use]
    pub fn wait_for_request(&self, wanted: impl Fn(&RecordedRequest) -> bool, limit: Duration) -> bool {
        self.recorder().wait_for(wanted, limit)
    }

    /// Tells by `Date` a clock that is so many seconds ahead of the host's; less than nothing is behind.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.site.clock_offset.store(seconds, Ordering::Relaxed);
    }

    /// Misbehaves for every request from now on, beside the faults that were set before, which come first.
    pub fn set_fault(&self, fault: Fault) {
        self.faults().add("", fault);
    }

    /// Misbehaves for the requests whose path with query contains `path_part`.
    pub fn set_fault_at(&self, path_part: &str, fault: Fault) {
        self.faults().add(path_part, fault);
    }

    /// Behaves again; a pack that was paused goes on.
    pub fn clear_fault(&self) {
        self.faults().clear();
    }

    fn recorder(&self) -> &Recorder {
        &self.site.recorder
    }

    fn faults(&self) -> &Faults {
        &self.site.faults
    }
}

struct Prepared {
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    handle: ServerHandle,
}

fn prepare(
    world: &Arc<World>,
    authority: &Authority,
    product: Product,
    address: SocketAddr,
    (certificate, names): (CertificateKind, &[String]),
    plain_http: bool,
    base_path: String,
) -> Result<Prepared, StartError> {
    let listen = |address| {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok::<_, io::Error>((listener, bound))
    };
    let (listener, bound) = listen(address).map_err(|source| StartError::Listen { address, source })?;
    let issued = || match names {
        [] => authority.issue(certificate),
        names => authority.issue_for(&names.iter().map(String::as_str).collect::<Vec<_>>()),
    };
    let tls = if plain_http { None } else { Some(Arc::new(issued()?.server_config()?)) };
    let scheme = if plain_http { "http" } else { "https" };
    let site = Site {
        world: Arc::clone(world),
        product,
        scheme,
        recorder: Recorder::default(),
        faults: Faults::default(),
        clock_offset: AtomicI64::new(0),
    };
    let handle =
        ServerHandle { address: bound, scheme, base_path, site: Arc::new(site), connections: Arc::default() };
    Ok(Prepared { listener, tls, handle })
}

/// Serves until `stopped` resolves; the servers and all their connections end with the runtime.
async fn serve(prepared: Vec<Prepared>, stopped: oneshot::Receiver<()>) {
    let mut servers = JoinSet::new();
    for Prepared { listener, tls, handle: server } in prepared {
        let app = Router::new().fallback(handle).with_state(server.site).into_make_service();
        let counter = server.connections;
        match tls {
            Some(tls) => servers.spawn(async move {
                // As real servers do: otherwise a small answer waits for the client's acknowledgement of the one before.
                let acceptor =
                    RustlsAcceptor::new(RustlsConfig::from_config(tls)).acceptor(NoDelayAcceptor::new());
                let server = axum_server::from_tcp(listener)?;
                server.acceptor(Counting { acceptor, counter }).serve(app).await
            }),
            None => servers.spawn(async move {
                let acceptor = NoDelayAcceptor::new();
                let server = axum_server::from_tcp(listener)?;
                server.acceptor(Counting { acceptor, counter }).serve(app).await
            }),
        };
    }
    // Both an explicit word and a dropped sender mean: stop.
    let _ = stopped.await;
    servers.shutdown().await;
}

/// Counts the connections that arrive, whatever becomes of their handshakes.
#[derive(Clone)]
struct Counting<A> {
    acceptor: A,
    counter: Arc<AtomicUsize>,
}

impl<A, I, S> Accept<I, S> for Counting<A>
where
    A: Accept<I, S>,
    A::Future: Future<Output = io::Result<(A::Stream, A::Service)>>,
{
    type Stream = A::Stream;
    type Service = A::Service;
    type Future = A::Future;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        self.counter.fetch_add(1, Ordering::SeqCst);
        self.acceptor.accept(stream, service)
    }
}
