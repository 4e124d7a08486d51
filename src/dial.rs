//! The door: the only place of the daemon that opens connections.
//!
//! It hands out two things. [`Door::connect`] gives a connected stream, and measures every stage on the
//! way: lookup, proxy, TCP, TLS. [`Door::client`] gives an HTTP client that is bound to one origin. Either
//! way each address is shown to the operator's policy before it is connected to, TLS is always verified,
//! and what goes wrong has a name.

mod clock;
mod connect;
mod error;
mod evidence;
mod http;
mod interception;
mod names;
mod proxy;
mod socks;
mod stream;
mod tls;
mod tunnel;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{ClientCertificate, Proxy, Server};
use crate::policy::AddressRule;
use crate::remote_url::{RemoteUrl, Scheme};
use crate::report::StageLog;

pub use clock::ClockOffset;
pub use error::{
    CaFileProblem, CertificateProblem, ClientCertificateProblem, DialError, HttpError, Interception,
    Obstacle, ProxyReply, ResolverProblem,
};
pub use evidence::evidence;
pub use http::{HttpClient, READ_TIMEOUT, read_limited};
pub use names::{LookupError, Names, SystemNames};
pub use proxy::ProxyEnvironment;
pub use stream::{Plain, Stream, StreamFacts, Tls};
pub use tls::{CertificateFacts, TlsFacts};

/// How long one address, one proxy or one handshake may take.
pub const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long all addresses of a host together may take, or a proxy's tunnel.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the lookup of a name may take.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest CA file, in bytes. The bundles of distributions have about 230 KiB.
pub const MAX_CA_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The largest file with a client certificate and its intermediate ones, in bytes.
pub const MAX_CLIENT_CERTIFICATE_BYTES: u64 = 256 * 1024;

/// What every request says of its sender.
const USER_AGENT: &str = concat!("sortie/", env!("CARGO_PKG_VERSION"));

/// Where a connection goes and what it must look like.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The host: a name in its ASCII form, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
    /// What is spoken on the stream.
    pub alpn: Alpn,
    /// Which addresses the host may have.
    pub rule: AddressRule,
    /// How the connection leaves this host.
    pub proxy: Proxy,
    /// Authorities that are trusted in addition to the platform's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// The same for an https proxy.
    pub proxy_ca_file: Option<PathBuf>,
    /// The certificate for a server that asks for one.
    pub client_certificate: Option<ClientCertificate>,
}

/// What is spoken on a stream: what TLS announces, and which of the environment's proxies are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// HTTP/1.1 alone, as a WebSocket needs it.
    Http1,
    /// HTTP/2 or HTTP/1.1.
    Http2OrHttp1,
    /// No HTTP, such as SSH: nothing is announced, and the environment's HTTP proxies are not meant for it.
    None,
}

impl Destination {
    /// The destination of a URL on a declared server. TLS is spoken where the URL is https.
    pub fn for_url(url: &RemoteUrl, server: &Server) -> Self {
        Self {
            host: url.host().to_owned(),
            port: url.port(),
            tls: url.scheme() == Scheme::Https,
            alpn: if url.scheme() == Scheme::Ssh { Alpn::None } else { Alpn::Http2OrHttp1 },
            rule: AddressRule::for_server(server, url.host()),
            proxy: server.proxy.clone(),
            ca_file: server.ca_file.clone(),
            proxy_ca_file: server.proxy_ca_file.clone(),
            client_certificate: server.client_certificate.clone(),
        }
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub fn endpoint(&self) -> String {
        proxy::endpoint(&self.host, self.port)
    }
}

/// The door. Shared by everything that opens connections; it keeps TLS configurations and HTTP clients.
pub struct Door {
    parts: Arc<Parts>,
    clients: http::Clients,
}

/// What connections need, shared with the HTTP clients.
struct Parts {
    environment: ProxyEnvironment,
    lookup: names::Lookup,
    trust: tls::Trust,
    clock: clock::Clock,
}

impl Door {
    /// A door that looks names up as the host is configured to.
    pub fn new(environment: ProxyEnvironment) -> Self {
        Self::with_names(environment, Arc::new(SystemNames))
    }

    /// A door that looks names up in another way.
    pub fn with_names(environment: ProxyEnvironment, names: Arc<dyn Names>) -> Self {
        let (lookup, trust) = (names::Lookup::new(names), tls::Trust::default());
        let parts = Parts { environment, lookup, trust, clock: clock::Clock::default() };
        Self { parts: Arc::new(parts), clients: http::Clients::default() }
    }

    /// Opens a connection and records the stages `resolve`, `proxy`, `connect` and `tls`, those that apply,
    /// with their facts. The last one still runs when this returns, so that its caller can add to it.
    ///
    /// # Errors
    /// Why there is no connection; [`DialError::stage`] says where.
    pub async fn connect(&self, destination: &Destination, log: &StageLog) -> Result<Stream, DialError> {
        // Its handshakes are large, and every task and the daemon's loop would carry their room along.
        Box::pin(connect::connect(&self.parts, destination, log)).await
    }

    /// The proxy that a connection goes through, as `host:port`, without looking anything up.
    ///
    /// # Errors
    /// [`DialError::ProxySetting`] where a variable of the environment names none.
    pub fn proxy_for(&self, destination: &Destination) -> Result<Option<String>, DialError> {
        let proxy = proxy::choose(&self.parts.environment, destination)?;
        Ok(proxy.map(|proxy| proxy::endpoint(&proxy.host, proxy.port)))
    }

    /// An error of [`Self::connect`] as it shows beside a look past the proxy: where the chain that came through
    /// the proxy is not trusted and the server itself shows another one, the proxy opens TLS. It takes a few
    /// seconds at the most; facts go to the stage that runs. Every other error stays as it is.
    pub async fn look_past_proxy(
        &self,
        destination: &Destination,
        error: DialError,
        log: &StageLog,
    ) -> DialError {
        Box::pin(interception::look_past_proxy(&self.parts, destination, error, log)).await
    }

    /// How far this host's clock is from that of the server that answered last over verified TLS.
    pub fn clock_offset(&self) -> Option<ClockOffset> {
        self.parts.clock.get()
    }

    /// Notes the `Date` of an answer that came over a stream of this door's with TLS.
    pub fn note_date(&self, destination: &Destination, date: &str) {
        if destination.tls
            && let Some(seconds) =
                clock::offset_of(date, Duration::ZERO, std::time::SystemTime::now(), Duration::ZERO)
        {
            self.parts.clock.set(ClockOffset { source: destination.endpoint(), seconds });
        }
    }

    /// The HTTP client for a destination. It records no stages. Each connection that it opens is looked up
    /// and shown to policy anew.
    ///
    /// # Errors
    /// Where the destination is an address that policy refuses, or trust or proxy cannot be set up.
    pub async fn client(&self, destination: &Destination) -> Result<HttpClient, DialError> {
        http::client(&self.parts, &self.clients, destination).await
    }
}

#[cfg(test)]
mod tests;
