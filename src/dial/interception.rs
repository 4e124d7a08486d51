//! Whether a proxy opens TLS: the chain that came through it, beside the one that the server shows without it.
//!
//! The look past the proxy is one connection and one handshake, made only where the chain through the proxy is
//! not trusted. The operator's rule about addresses holds for it as for every direct connection, no certificate
//! and no credential goes along, and nothing is sent after the handshake. Where a firewall allows no way out but
//! the proxy, it ends after a few seconds and changes nothing.

use std::time::Duration;

use tokio::time::timeout;

use super::error::{CertificateProblem, DialError, Interception};
use super::stream::Transport;
use super::tls::{self, TlsFacts};
use super::{Destination, Parts, connect, proxy};
use crate::config::Proxy;
use crate::report::StageLog;

/// How long the look past the proxy may take in all.
const DIRECT_LOOK_TIMEOUT: Duration = Duration::from_secs(3);

/// The server's own chain.
struct Direct {
    facts: TlsFacts,
    is_trusted: bool,
}

/// The same error, or an interception where the server's own chain is another one. What was seen of it goes to
/// the stage that runs.
pub(super) async fn look_past_proxy(
    parts: &Parts,
    destination: &Destination,
    error: DialError,
    log: &StageLog,
) -> DialError {
    let (subject, issuer, fingerprint) = match &error {
        DialError::UntrustedIssuer { subject, issuer, fingerprint, .. }
        | DialError::IncompleteChain { subject, issuer, fingerprint, .. }
        // An authority that took the name of a trusted one.
        | DialError::InvalidCertificate {
            subject,
            issuer,
            fingerprint,
            problem: CertificateProblem::Signature,
        } => (subject, issuer, fingerprint),
        _ => return error,
    };
    let Ok(Some(through)) = proxy::choose(&parts.environment, destination) else { return error };
    let looked = timeout(DIRECT_LOOK_TIMEOUT, look(parts, destination)).await;
    let Ok(Some(direct)) = looked else { return error };
    let (Some(own), Some(last)) = (direct.facts.chain.first(), direct.facts.chain.last()) else {
        return error;
    };
    log.fact("direct_fingerprint", own.fingerprint.as_str());
    log.fact("direct_issuer", last.issuer.as_str());
    // A server may have several certificates of one issuer: only a chain that is trusted, or another issuer's,
    // tells that somebody else answered.
    let is_another = own.fingerprint != *fingerprint && (direct.is_trusted || last.issuer != *issuer);
    if !is_another {
        return error;
    }
    DialError::Intercepted(Box::new(Interception {
        proxy: proxy::endpoint(&through.host, through.port),
        subject: subject.clone(),
        issuer: issuer.clone(),
        fingerprint: fingerprint.clone(),
        direct_issuer: last.issuer.clone(),
        direct_fingerprint: own.fingerprint.clone(),
    }))
}

async fn look(parts: &Parts, destination: &Destination) -> Option<Direct> {
    let direct = Destination { proxy: Proxy::Direct, client_certificate: None, ..destination.clone() };
    let (tcp, _) = connect::connect_directly(parts, &direct, &StageLog::default()).await.ok()?;
    let verifier = parts.trust.verifier(direct.ca_file.as_deref()).await.ok()?;
    let peer = tls::Peer { host: &direct.host, endpoint: direct.endpoint(), alpn: direct.alpn };
    match tls::handshake(Transport::Left(tcp), &peer, verifier, None).await {
        Ok((_, facts)) => Some(Direct { facts, is_trusted: true }),
        Err(failed) => Some(Direct { facts: failed.facts, is_trusted: false }),
    }
}
