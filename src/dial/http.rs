//! HTTP clients that are bound to one origin each.

mod demanded;
mod failure;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode, redirect, retry};
use url::Url;

use super::clock::{self, Clock, ClockOffset};
use super::tls::{Setup, Shown};
use super::{Alpn, CONNECT_TIMEOUT, Destination, DialError, HttpError, Parts, USER_AGENT, names, proxy, tls};
use crate::config::{ClientCertificate, ProxyKind, ProxyServer};
use crate::credential::basic;
use crate::policy::AddressRule;

/// How long an answer may be silent. A git server that counts a large repository's objects can be so for a
/// while; the task's own deadline is what bounds a test.
pub const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// How long an unused connection is kept.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How many unused connections a client keeps.
const POOL_MAX_IDLE: usize = 4;

/// How many clients are kept. Beyond it the memory starts anew; clients in use live on.
const MAX_CLIENTS: usize = 64;

/// What a server may send on one HTTP/2 stream before we have read any of it, in bytes: 4 MiB let a pack
/// come at 40 MB/s over a way of 100 ms.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// The same for a connection.
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// An HTTP client that is bound to one origin and cannot be made to leave it: it follows no redirect, has
/// no cookies, decompresses nothing and sends nothing twice that a server may have processed. Clones share their connections.
#[derive(Clone)]
pub struct HttpClient(Arc<Bound>);

struct Bound {
    parts: Arc<Parts>,
    destination: Destination,
    proxy: Option<ProxyServer>,
    origin: String,
    base: Url,
    setup: Setup,
    client: reqwest::Client,
    /// What became of the client certificate in the client's handshakes.
    shown: Arc<Shown>,
    clock: Clock,
    /// In use once the server has demanded HTTP/1.1.
    http1_client: OnceLock<reqwest::Client>,
}

/// The clients that were made, by where they go.
#[derive(Default)]
pub(super) struct Clients(Mutex<HashMap<Key, Kept>>);

/// What makes one client differ from another, beside the authorities that it trusts.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    host: String,
    port: u16,
    tls: bool,
    alpn: Alpn,
    rule: AddressRule,
    proxy: Option<(ProxyKind, String, u16, Option<String>)>,
    ca_file: Option<PathBuf>,
    proxy_ca_file: Option<PathBuf>,
    client_certificate: Option<ClientCertificate>,
}

/// A client with what it was made with: a CA file or a certificate that has changed gives another one.
struct Kept {
    setup: Setup,
    client: HttpClient,
}

/// The client for a destination; see [`super::Door::client`].
pub(super) async fn client(
    parts: &Arc<Parts>,
    clients: &Clients,
    destination: &Destination,
) -> Result<HttpClient, DialError> {
    let proxy = proxy::choose(&parts.environment, destination)?;
    let setup = parts.trust.setup(destination, proxy.as_ref()).await?;
    let key = Key::new(destination, proxy.as_ref());
    if let Some(client) = clients.find(&key, &setup) {
        return Ok(client);
    }
    let client = HttpClient::build(parts, destination, proxy, setup.clone())?;
    clients.keep(key, Kept { setup, client: client.clone() });
    Ok(client)
}

impl HttpClient {
    /// `scheme://host[:port]`.
    pub fn origin(&self) -> &str {
        &self.0.origin
    }

    /// A request to a path of the origin, percent-encoded and beginning with a slash, with or without a
    /// query. Whatever the text holds, the request goes to the origin.
    pub fn request(&self, method: Method, path_and_query: &str) -> reqwest::RequestBuilder {
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        let mut url = self.0.base.clone();
        url.set_path(path);
        url.set_query(query);
        self.0.client.request(method, url)
    }

    /// Sends a request that [`Self::request`] began. No redirect is followed and nothing is sent again.
    ///
    /// # Errors
    /// Why there is no answer. Where the HTTP library keeps the cause of a failed connection to itself, a
    /// connection is opened once more to find it.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, HttpError> {
        let (_, request) = request.build_split();
        let request = request.map_err(|_| HttpError::BadRequest)?;
        let url = request.url();
        if url.origin() != self.0.base.origin() || !url.username().is_empty() || url.password().is_some() {
            return Err(HttpError::BadRequest);
        }
        let began = Instant::now();
        let response = self.0.execute(request).await?;
        self.0.note_date(&response, began.elapsed());
        let response = demanded::judged(response, &self.0.shown).await?;
        match &self.0.proxy {
            // Without TLS there is no tunnel: the proxy itself answers with this.
            Some(proxy) if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Err(failure::proxy_authentication(proxy, response.headers()).into())
            }
            _ => Ok(response),
        }
    }

    /// How far this host's clock was from the server's at its last answer, where that told.
    pub fn clock_offset(&self) -> Option<ClockOffset> {
        self.0.clock.get()
    }

    fn build(
        parts: &Arc<Parts>,
        destination: &Destination,
        proxy: Option<ProxyServer>,
        setup: Setup,
    ) -> Result<Self, DialError> {
        // The HTTP library asks no resolver about a host that is an address, so policy is asked here.
        if let Ok(address) = destination.host.parse::<IpAddr>() {
            names::admit(&destination.host, &[address], destination.rule)?;
        }
        let base = base_url(destination)?;
        let origin = base.origin().ascii_serialization();
        let (client, shown) = library_client(parts, destination, proxy.as_ref(), &setup, destination.alpn)?;
        let clock = Clock::default();
        let (parts, destination, http1_client) = (Arc::clone(parts), destination.clone(), OnceLock::new());
        let bound =
            Bound { parts, destination, proxy, origin, base, setup, client, shown, clock, http1_client };
        Ok(Self(Arc::new(bound)))
    }
}

impl Bound {
    /// Compares the clocks. Without TLS, an answer may be the proxy's own.
    fn note_date(&self, response: &reqwest::Response, waited: Duration) {
        if self.proxy.is_some() && !self.destination.tls {
            return;
        }
        let Some(seconds) = clock::offset(response.headers(), SystemTime::now(), waited) else { return };
        let offset = ClockOffset { source: self.destination.endpoint(), seconds };
        if self.destination.tls {
            self.parts.clock.set(offset.clone());
        }
        self.clock.set(offset);
    }

    /// Sends a request, by HTTP/1.1 once the server has demanded that. IIS demands it where Windows
    /// authentication is on. A request that it refused in that way has not been processed (RFC 9113,
    /// section 7), so that it can be sent again.
    async fn execute(&self, request: reqwest::Request) -> Result<reqwest::Response, HttpError> {
        if let Some(client) = self.http1_client.get() {
            return self.execute_with(client, request).await;
        }
        let again = request.try_clone();
        match self.client.execute(request).await {
            Ok(response) => Ok(response),
            Err(error) if failure::is_http1_demanded(&error) => {
                let client = self.http1_client()?;
                match again {
                    Some(request) => self.execute_with(client, request).await,
                    None => Err(failure::explain(self, &error).await),
                }
            }
            Err(error) => Err(failure::explain(self, &error).await),
        }
    }

    async fn execute_with(
        &self,
        client: &reqwest::Client,
        request: reqwest::Request,
    ) -> Result<reqwest::Response, HttpError> {
        match client.execute(request).await {
            Ok(response) => Ok(response),
            Err(error) => Err(failure::explain(self, &error).await),
        }
    }

    fn http1_client(&self) -> Result<&reqwest::Client, DialError> {
        let proxy = self.proxy.as_ref();
        // The certificate fares here as it did in the handshake before, whose memory is the one that counts.
        let (client, _) = library_client(&self.parts, &self.destination, proxy, &self.setup, Alpn::Http1)?;
        Ok(self.http1_client.get_or_init(|| client))
    }
}

#[allow(clippy::disallowed_methods, reason = "this is where the clients that are bound to a server are made")]
fn library_client(
    parts: &Arc<Parts>,
    destination: &Destination,
    proxy: Option<&ProxyServer>,
    setup: &Setup,
    alpn: Alpn,
) -> Result<(reqwest::Client, Arc<Shown>), DialError> {
    // Without TLS to the server, a proxy in between is spoken to as is said here.
    let alpn = if destination.tls { alpn } else { Alpn::Http1 };
    // Where nobody speaks TLS the configuration is never used, and the library insists on one.
    let (config, shown) = tls::for_client(setup, alpn)?;
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .no_proxy()
        .https_only(destination.tls)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_MAX_IDLE)
        .tcp_nodelay(true)
        .http2_initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .dns_resolver(Arc::new(Guarded::new(parts, destination, proxy)));
    if alpn != Alpn::Http2OrHttp1 {
        builder = builder.http1_only();
    }
    if let Some(proxy) = proxy {
        builder = builder.proxy(library_proxy(proxy)?);
    }
    builder = builder.tls_backend_preconfigured(config);
    Ok((builder.build().map_err(|_| DialError::ClientSetup)?, shown))
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpClient").field(&self.0.origin).finish()
    }
}

/// Reads an answer's body to its end.
///
/// # Errors
/// [`HttpError::BodyTooLarge`] once it has more than `max_bytes`, or why the rest did not come.
pub async fn read_limited(mut response: reqwest::Response, max_bytes: usize) -> Result<Vec<u8>, HttpError> {
    let too_large = HttpError::BodyTooLarge { max_bytes };
    if response.content_length().is_some_and(|length| length > max_bytes as u64) {
        return Err(too_large);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if chunk.len() > max_bytes - body.len() {
            return Err(too_large);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

impl Clients {
    fn find(&self, key: &Key, setup: &Setup) -> Option<HttpClient> {
        let clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = clients.get(key)?;
        kept.setup.is_same(setup).then(|| kept.client.clone())
    }

    fn keep(&self, key: Key, kept: Kept) {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&key) {
            clients.clear();
        }
        clients.insert(key, kept);
    }
}

impl Key {
    fn new(destination: &Destination, proxy: Option<&ProxyServer>) -> Self {
        // A digest of the credentials tells two of them apart without keeping them.
        let credentials = |proxy: &ProxyServer| {
            let authorization = proxy.authorization.as_ref()?;
            let value = basic(&authorization.user, &authorization.password);
            Some(tls::certificate::fingerprint(value.expose().as_bytes()))
        };
        Self {
            host: destination.host.clone(),
            port: destination.port,
            tls: destination.tls,
            alpn: destination.alpn,
            rule: destination.rule,
            proxy: proxy.map(|proxy| (proxy.kind, proxy.host.clone(), proxy.port, credentials(proxy))),
            ca_file: destination.ca_file.clone(),
            proxy_ca_file: destination.proxy_ca_file.clone(),
            client_certificate: destination.client_certificate.clone(),
        }
    }
}

/// The resolver of one client: it knows one host, and shows each address of it to policy.
struct Guarded {
    parts: Arc<Parts>,
    host: String,
    rule: Option<AddressRule>,
}

impl Guarded {
    /// Through a proxy, the proxy's own name is all that is looked up, and no rule applies to it.
    fn new(parts: &Arc<Parts>, destination: &Destination, proxy: Option<&ProxyServer>) -> Self {
        let (host, rule) = match proxy {
            Some(proxy) => (proxy.host.clone(), None),
            None => (destination.host.clone(), Some(destination.rule)),
        };
        Self { parts: Arc::clone(parts), host, rule }
    }

    async fn addresses(
        parts: &Parts,
        host: &str,
        rule: Option<AddressRule>,
    ) -> Result<Vec<IpAddr>, DialError> {
        match rule {
            Some(rule) => Ok(parts.lookup.admitted(host, rule).await?.allowed),
            None => parts.lookup.addresses(host).await.map_err(|error| names::named(host, error)),
        }
    }
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let (parts, host, rule) = (Arc::clone(&self.parts), self.host.clone(), self.rule);
        let is_known = name.as_str().eq_ignore_ascii_case(&host);
        Box::pin(async move {
            if !is_known {
                return Err(DialError::ClientSetup.into());
            }
            let addresses = Self::addresses(&parts, &host, rule).await?;
            // The library puts the right port in place of zero.
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| (address, 0).into()));
            Ok(addresses)
        })
    }
}

fn base_url(destination: &Destination) -> Result<Url, DialError> {
    let scheme = if destination.tls { "https" } else { "http" };
    let url = Url::parse(&format!("{scheme}://{}/", destination.endpoint()));
    url.map_err(|_| DialError::NameNotFound { host: destination.host.clone() })
}

fn library_proxy(proxy: &ProxyServer) -> Result<reqwest::Proxy, DialError> {
    let scheme = match proxy.kind {
        ProxyKind::Http => "http",
        ProxyKind::Https => "https",
        // By this name the library leaves the lookup to the proxy.
        ProxyKind::Socks5 => "socks5h",
    };
    let url = format!("{scheme}://{}", proxy::endpoint(&proxy.host, proxy.port));
    let mut made = reqwest::Proxy::all(url).map_err(|_| DialError::ClientSetup)?;
    let Some(authorization) = &proxy.authorization else { return Ok(made) };
    if proxy.kind == ProxyKind::Socks5 {
        made = made.basic_auth(&authorization.user, authorization.password.expose());
    } else {
        let value = basic(&authorization.user, &authorization.password);
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| DialError::ClientSetup)?;
        value.set_sensitive(true);
        made = made.custom_http_auth(value);
    }
    Ok(made)
}
