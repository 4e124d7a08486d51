//! TLS: whom it trusts, and handshakes that say what they saw.

pub(super) mod certificate;
pub(super) mod classify;
pub(super) mod client_certificate;
mod hello;
mod trust;
pub(super) mod verify;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::ProtocolVersion;
use rustls::client::{ClientConfig, ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::stream::Observed;
use super::{ADDRESS_TIMEOUT, Alpn, DialError};
use crate::report::{Facts, StageLog};

pub use certificate::CertificateFacts;
pub(super) use client_certificate::{Own, Shown};
pub(super) use trust::{Setup, Trust};

/// How long a server that asked for a client certificate gets to refuse us. In TLS 1.3 it does so after our
/// handshake has ended.
const LATE_REFUSAL_WAIT: Duration = Duration::from_millis(500);

/// The versions that are spoken.
pub(super) const VERSIONS: [&str; 2] = ["1.2", "1.3"];

/// Sessions that an HTTP client can resume. It talks to one server.
const RESUMABLE_SESSIONS: usize = 8;

/// What TLS agreed on, as far as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsFacts {
    /// `1.2` or `1.3`, and in a handshake that failed what else the server chose.
    pub version: Option<&'static str>,
    /// The cipher suite by its name in the registry of TLS.
    pub cipher_suite: Option<&'static str>,
    /// The group of the key exchange, such as `X25519MLKEM768`.
    pub key_exchange: Option<&'static str>,
    /// The protocol that was agreed on, such as `h2`.
    pub alpn: Option<String>,
    /// Whether the server asked for a client certificate.
    pub client_certificate_requested: bool,
    /// Whether it got one.
    pub client_certificate_sent: bool,
    /// The chain that the server sent, its own certificate first.
    pub chain: Vec<CertificateFacts>,
}

/// Whom a handshake is with.
pub(super) struct Peer<'a> {
    /// The name or address that its certificate must have.
    pub(super) host: &'a str,
    /// `host:port`, for messages.
    pub(super) endpoint: String,
    /// What is announced.
    pub(super) alpn: Alpn,
}

/// A handshake that failed, with what was seen of it.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: DialError,
    pub(super) facts: TlsFacts,
}

impl From<DialError> for Failed {
    fn from(error: DialError) -> Self {
        Self { error, facts: TlsFacts::default() }
    }
}

/// The configuration of an HTTP client, which resumes sessions with its one server, and what becomes of the
/// client certificate in its handshakes.
pub(super) fn for_client(setup: &Setup, alpn: Alpn) -> Result<(ClientConfig, Arc<Shown>), DialError> {
    let shown = Arc::new(Shown::new(setup.own.clone()));
    let mut config = verify::shared_config(setup)?;
    config.alpn_protocols = protocols(alpn);
    config.resumption = Resumption::in_memory_sessions(RESUMABLE_SESSIONS);
    config.client_auth_cert_resolver = Arc::clone(&shown) as Arc<dyn ResolvesClientCert>;
    Ok((config, shown))
}

/// The name that a certificate must have.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, DialError> {
    ServerName::try_from(host.to_owned()).map_err(|_| DialError::NameNotFound { host: host.to_owned() })
}

/// Makes the handshake on `io`. Each time it is a full one, so that the certificate has really been verified.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    io: S,
    peer: &Peer<'_>,
    verifier: Arc<verify::Verifier>,
    own: Option<Arc<Own>>,
) -> Result<(TlsStream<Observed<S>>, TlsFacts), Failed> {
    let shown = Arc::new(Shown::new(own));
    let mut config = verify::client_config(verifier)?;
    config.alpn_protocols = protocols(peer.alpn);
    config.resumption = Resumption::disabled();
    config.client_auth_cert_resolver = Arc::clone(&shown) as Arc<dyn ResolvesClientCert>;

    let name = server_name(peer.host)?;
    let connect = TlsConnector::from(Arc::new(config)).connect(name, Observed::new(io)).into_fallible();
    let ended = timeout(ADDRESS_TIMEOUT, connect).await;
    let ended = ended.map_err(|_| DialError::TlsTimedOut { after: ADDRESS_TIMEOUT })?;
    let mut stream = match ended {
        Ok(stream) => stream,
        Err((error, io)) => {
            let seen = classify::Seen { peer, first_bytes: io.first_bytes(), shown: &shown };
            let chosen = hello::chosen(io.first_bytes());
            let facts = TlsFacts {
                version: chosen.version,
                cipher_suite: chosen.cipher_suite,
                key_exchange: chosen.key_exchange,
                client_certificate_requested: shown.was_asked(),
                client_certificate_sent: shown.was_sent(),
                chain: classify::rejected_chain(&error).unwrap_or_default(),
                alpn: None,
            };
            return Err(Failed { error: classify::handshake_failure(&error, &seen), facts });
        }
    };
    stream.get_mut().0.forget();
    let facts = facts_of(&stream, &shown);
    if facts.client_certificate_requested && facts.version == Some("1.3") && !is_accepted(&mut stream).await {
        let error = DialError::ClientCertificateRequired { sent: shown.was_sent() };
        return Err(Failed { error, facts });
    }
    Ok((stream, facts))
}

/// Gives the server the time to refuse us. A ticket for a later session, or data, says that it does not; data
/// stays where it is, to be read later.
async fn is_accepted<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut TlsStream<Observed<S>>) -> bool {
    let verdict = poll_fn(|context| {
        let said = match Pin::new(&mut *stream).poll_fill_buf(context) {
            Poll::Ready(Ok(data)) => Poll::Ready(!data.is_empty()),
            Poll::Ready(Err(_)) => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        };
        if said.is_pending() && stream.get_ref().1.tls13_tickets_received() > 0 {
            return Poll::Ready(true);
        }
        said
    });
    timeout(LATE_REFUSAL_WAIT, verdict).await.unwrap_or(true)
}

fn protocols(alpn: Alpn) -> Vec<Vec<u8>> {
    match alpn {
        Alpn::Http1 => vec![b"http/1.1".to_vec()],
        Alpn::Http2OrHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Alpn::None => Vec::new(),
    }
}

fn facts_of<S>(stream: &TlsStream<Observed<S>>, shown: &Shown) -> TlsFacts {
    let (_, connection) = stream.get_ref();
    let group = connection.negotiated_key_exchange_group();
    TlsFacts {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => Some("1.2"),
            _ => Some("1.3"),
        },
        cipher_suite: connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()),
        key_exchange: group.and_then(|group| group.name().as_str()),
        alpn: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        client_certificate_requested: shown.was_asked(),
        client_certificate_sent: shown.was_sent(),
        chain: certificate::chain_facts(connection.peer_certificates().unwrap_or_default()),
    }
}

impl TlsFacts {
    /// All of it by name. What is not known is left out, but for the protocol that both sides may not have.
    pub(super) fn to_facts(&self) -> Facts {
        let mut facts = Facts::new();
        let mut put = |name: &str, value: serde_json::Value| {
            facts.insert(name.to_owned(), value);
        };
        if let Some(version) = self.version {
            put("version", version.into());
        }
        if let Some(cipher_suite) = self.cipher_suite {
            put("cipher_suite", cipher_suite.into());
        }
        if let Some(key_exchange) = self.key_exchange {
            put("key_exchange", key_exchange.into());
        }
        if self.version.is_some() {
            put("alpn", self.alpn.clone().into());
        }
        if self.client_certificate_requested {
            put("client_certificate_requested", true.into());
            put("client_certificate_sent", self.client_certificate_sent.into());
        }
        if let Some(own) = self.chain.first() {
            facts.extend(own.to_facts());
            let chain = self.chain.iter().map(|one| serde_json::Value::Object(one.to_facts()));
            facts.insert("chain".to_owned(), chain.collect());
        }
        facts
    }

    /// Records all of it in the stage that runs.
    pub(super) fn record(&self, log: &StageLog) {
        for (name, value) in self.to_facts() {
            log.fact(&name, value);
        }
    }
}
