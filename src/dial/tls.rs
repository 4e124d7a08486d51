//! TLS: whom it trusts, and handshakes that say what they saw.

pub(super) mod certificate;
pub(super) mod classify;
mod trust;
pub(super) mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::client::{ClientConfig, ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ProtocolVersion, SignatureScheme};
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::stream::Observed;
use super::{ADDRESS_TIMEOUT, Alpn, Destination, DialError};
use crate::report::StageLog;

pub use certificate::CertificateFacts;
pub(super) use trust::Trust;

/// How long a server that asked for a client certificate gets to refuse us for having none. In TLS 1.3 it
/// does so after our handshake has ended.
const LATE_REFUSAL_WAIT: Duration = Duration::from_millis(500);

/// Sessions that an HTTP client can resume. It talks to one server.
const RESUMABLE_SESSIONS: usize = 8;

/// What TLS agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// The cipher suite by its name in the registry of TLS.
    pub cipher_suite: String,
    /// The protocol that was agreed on, such as `h2`.
    pub alpn: Option<String>,
    /// Whether the server asked for a client certificate.
    pub client_certificate_requested: bool,
    /// The chain that the server sent, its own certificate first.
    pub chain: Vec<CertificateFacts>,
}

/// The configuration of an HTTP client, which resumes sessions with its one server.
pub(super) fn for_client(verifier: Arc<verify::Verifier>, alpn: Alpn) -> Result<ClientConfig, DialError> {
    let mut config = verify::client_config(verifier)?;
    config.alpn_protocols = protocols(alpn);
    config.resumption = Resumption::in_memory_sessions(RESUMABLE_SESSIONS);
    Ok(config)
}

/// The name that the server's certificate must have.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, DialError> {
    ServerName::try_from(host.to_owned()).map_err(|_| DialError::NameNotFound { host: host.to_owned() })
}

/// Makes the handshake and records its facts in the stage that runs, those of a bad chain too. Each time
/// it is a full one, so that the certificate has really been verified.
pub(super) async fn handshake(
    tcp: TcpStream,
    destination: &Destination,
    verifier: Arc<verify::Verifier>,
    log: &StageLog,
) -> Result<(TlsStream<Observed>, TlsFacts), DialError> {
    let asked = Arc::new(AskedForCertificate::default());
    let mut config = verify::client_config(verifier)?;
    config.alpn_protocols = protocols(destination.alpn);
    config.resumption = Resumption::disabled();
    config.client_auth_cert_resolver = Arc::clone(&asked) as Arc<dyn ResolvesClientCert>;

    let name = server_name(&destination.host)?;
    let connect = TlsConnector::from(Arc::new(config)).connect(name, Observed::new(tcp)).into_fallible();
    let ended = timeout(ADDRESS_TIMEOUT, connect).await;
    let ended = ended.map_err(|_| DialError::TlsTimedOut { after: ADDRESS_TIMEOUT })?;
    let was_asked = || asked.0.load(Ordering::Relaxed);
    let mut stream = match ended {
        Ok(stream) => stream,
        Err((error, io)) => {
            let seen = classify::Seen { destination, first_bytes: io.first_bytes(), was_asked: was_asked() };
            let failure = classify::handshake_failure(&error, &seen);
            if let Some(chain) = classify::rejected_chain(&error) {
                record_chain(log, &chain);
            }
            return Err(failure);
        }
    };
    let facts = facts_of(&stream, was_asked());
    record(log, &facts);
    if facts.client_certificate_requested && facts.version == "1.3" {
        await_late_refusal(&mut stream).await?;
    }
    Ok((stream, facts))
}

/// Gives the server the time to refuse us. Data that comes instead stays where it is, to be read later.
async fn await_late_refusal(stream: &mut TlsStream<Observed>) -> Result<(), DialError> {
    match timeout(LATE_REFUSAL_WAIT, stream.fill_buf()).await {
        Err(_) => Ok(()),
        Ok(Ok(data)) if !data.is_empty() => Ok(()),
        Ok(_) => Err(DialError::ClientCertificateRequired),
    }
}

fn protocols(alpn: Alpn) -> Vec<Vec<u8>> {
    match alpn {
        Alpn::Http1 => vec![b"http/1.1".to_vec()],
        Alpn::Http2OrHttp1 => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        Alpn::None => Vec::new(),
    }
}

fn facts_of(stream: &TlsStream<Observed>, client_certificate_requested: bool) -> TlsFacts {
    let (_, connection) = stream.get_ref();
    let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
    let chain = connection.peer_certificates().unwrap_or_default();
    TlsFacts {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "1.3",
        },
        cipher_suite: suite.unwrap_or_default().to_owned(),
        alpn: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
        client_certificate_requested,
        chain: certificate::chain_facts(chain),
    }
}

fn record(log: &StageLog, facts: &TlsFacts) {
    log.fact("version", facts.version);
    log.fact("cipher_suite", facts.cipher_suite.as_str());
    log.fact("alpn", facts.alpn.clone());
    if facts.client_certificate_requested {
        log.fact("client_certificate_requested", true);
    }
    record_chain(log, &facts.chain);
}

fn record_chain(log: &StageLog, chain: &[CertificateFacts]) {
    if let Some(own) = chain.first() {
        log.fact("subject", own.subject.as_str());
        log.fact("issuer", own.issuer.as_str());
        log.fact("names", own.names.clone());
        log.fact("not_before", own.not_before.as_str());
        log.fact("not_after", own.not_after.as_str());
        log.fact("fingerprint", own.fingerprint.as_str());
    }
    let chain = chain.iter().map(|certificate| {
        serde_json::json!({
            "subject": certificate.subject,
            "issuer": certificate.issuer,
            "not_after": certificate.not_after,
            "fingerprint": certificate.fingerprint,
        })
    });
    log.fact("chain", chain.collect::<Vec<_>>());
}

/// Has no client certificate, and remembers that it was asked for one.
#[derive(Debug, Default)]
struct AskedForCertificate(AtomicBool);

impl ResolvesClientCert for AskedForCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}
