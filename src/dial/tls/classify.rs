//! A failed handshake by its cause: from alerts, certificates and the peer's first bytes.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError, Error as TlsError};

use super::certificate::{CertificateFacts, chain_facts};
use super::verify::Rejected;
use super::{Peer, Shown};
use crate::dial::error::{CertificateProblem, DialError};

/// How many of a peer's first bytes are shown where it does not speak TLS.
const SHOWN_BYTES: usize = 16;

/// What else is known of the handshake.
pub(super) struct Seen<'a> {
    /// Whom it was with.
    pub(super) peer: &'a Peer<'a>,
    /// The first bytes that the peer sent.
    pub(super) first_bytes: &'a [u8],
    /// What became of the client certificate.
    pub(super) shown: &'a Shown,
}

/// The cause of a failed handshake.
pub(super) fn handshake_failure(error: &io::Error, seen: &Seen<'_>) -> DialError {
    if let Some(rejected) = rejected(error) {
        return rejection(rejected, seen.peer.host);
    }
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match error {
        Some(TlsError::AlertReceived(alert)) => alert_received(*alert, seen.peer.host, Some(seen.shown)),
        Some(TlsError::InvalidMessage(_) | TlsError::PeerSentOversizedRecord)
            if !speaks_tls(seen.first_bytes) =>
        {
            DialError::NotTls { first_bytes: printable(seen.first_bytes) }
        }
        Some(TlsError::PeerIncompatible(_)) => DialError::LegacyOnly,
        Some(_) => DialError::TlsFailed { alert: None },
        // Without an error of rustls's own it is the socket that broke.
        None if seen.first_bytes.is_empty() => {
            DialError::Reset { endpoint: seen.peer.endpoint.clone(), during_tls: true }
        }
        None if seen.shown.was_asked() => {
            DialError::ClientCertificateRequired { sent: seen.shown.was_sent() }
        }
        None if !speaks_tls(seen.first_bytes) => {
            DialError::NotTls { first_bytes: printable(seen.first_bytes) }
        }
        None => DialError::CutInHandshake { endpoint: seen.peer.endpoint.clone() },
    }
}

/// What an alert of the server's means for us, where `host` was asked for. `shown` is what became of the client certificate, where that is
/// known.
pub(in crate::dial) fn alert_received(
    alert: AlertDescription,
    host: &str,
    shown: Option<&Shown>,
) -> DialError {
    let (was_asked, sent) = shown.map_or((false, false), |shown| (shown.was_asked(), shown.was_sent()));
    match alert {
        AlertDescription::CertificateRequired => DialError::ClientCertificateRequired { sent },
        AlertDescription::HandshakeFailure
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::NoCertificate
        | AlertDescription::AccessDenied
            if was_asked =>
        {
            DialError::ClientCertificateRequired { sent }
        }
        // These judge a certificate that the server got to see.
        AlertDescription::UnknownCA
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError
            if sent =>
        {
            DialError::ClientCertificateRequired { sent }
        }
        AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity => DialError::LegacyOnly,
        AlertDescription::UnrecognisedName => DialError::UnknownName { host: host.to_owned() },
        alert => DialError::TlsFailed { alert: Some(alert.into()) },
    }
}

/// The chain that was rejected in this error.
pub(super) fn rejected_chain(error: &io::Error) -> Option<Vec<CertificateFacts>> {
    rejected(error).map(|rejected| chain_facts(&rejected.chain))
}

fn rejected(error: &io::Error) -> Option<&Rejected> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()).and_then(rejected_in)
}

/// The rejection in an error of rustls's.
pub(in crate::dial) fn rejected_in(error: &TlsError) -> Option<&Rejected> {
    let TlsError::InvalidCertificate(CertificateError::Other(other)) = error else { return None };
    let other: &(dyn Error + 'static) = other.0.as_ref();
    other.downcast_ref::<Rejected>()
}

/// Why a chain was rejected.
pub(in crate::dial) fn rejection(rejected: &Rejected, host: &str) -> DialError {
    let chain = chain_facts(&rejected.chain);
    let own = chain.first().cloned().unwrap_or_default();
    let TlsError::InvalidCertificate(verdict) = &rejected.verdict else {
        return DialError::TlsFailed { alert: None };
    };
    let issuer = chain.last().map(|last| last.issuer.clone()).unwrap_or_default();
    let invalid = |problem| DialError::InvalidCertificate {
        subject: own.subject.clone(),
        issuer: issuer.clone(),
        fingerprint: own.fingerprint.clone(),
        problem,
    };
    match verdict {
        CertificateError::UnknownIssuer => unknown_issuer(&chain, own),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            let (subject, not_after) = outermost(&chain, |one| &one.not_after, |a, b| a < b);
            DialError::Expired { subject, not_after }
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            let (subject, not_before) = outermost(&chain, |one| &one.not_before, |a, b| a > b);
            DialError::NotYetValid { subject, not_before }
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            DialError::NameMismatch { host: host.to_owned(), names: own.names }
        }
        CertificateError::BadEncoding => invalid(CertificateProblem::Malformed),
        CertificateError::Revoked => invalid(CertificateProblem::Revoked),
        CertificateError::BadSignature => invalid(CertificateProblem::Signature),
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            invalid(CertificateProblem::SignatureAlgorithm)
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            invalid(CertificateProblem::Purpose)
        }
        // The standard verification looks at this before it looks for an issuer.
        _ if own.is_authority && own.is_self_issued() && !rejected.is_listed_itself => {
            unknown_issuer(&chain, own)
        }
        _ if own.is_authority => invalid(CertificateProblem::AuthorityAsServer),
        _ => invalid(CertificateProblem::Other),
    }
}

fn unknown_issuer(chain: &[CertificateFacts], own: CertificateFacts) -> DialError {
    let self_signed = own.is_self_issued();
    if let (1, false, Some(issuer_url)) = (chain.len(), self_signed, own.issuer_url) {
        return DialError::IncompleteChain {
            subject: own.subject,
            issuer: own.issuer,
            issuer_url,
            fingerprint: own.fingerprint,
        };
    }
    let issuer = chain.last().map(|last| last.issuer.clone()).unwrap_or_default();
    DialError::UntrustedIssuer {
        inspection: inspection_product(chain),
        subject: own.subject,
        issuer,
        fingerprint: own.fingerprint,
        self_signed,
    }
}

/// The certificate of the chain whose moment is the first by `comes_first`: times of RFC 3339 in UTC sort as
/// texts.
fn outermost(
    chain: &[CertificateFacts],
    moment: fn(&CertificateFacts) -> &String,
    comes_first: fn(&String, &String) -> bool,
) -> (String, String) {
    let found =
        chain.iter().reduce(|best, one| if comes_first(moment(one), moment(best)) { one } else { best });
    found.map(|one| (one.subject.clone(), moment(one).clone())).unwrap_or_default()
}

/// The product for TLS inspection whose authority stands in the chain, by the names that the products' own
/// manuals give to the authorities that they make or ship. An authority that the operator named for himself is
/// found only beside the server's own chain.
fn inspection_product(chain: &[CertificateFacts]) -> Option<&'static str> {
    const PRODUCTS: [(&str, &str); 42] = [
        ("zscaler", "Zscaler"),
        ("netskope", "Netskope"),
        ("goskope", "Netskope"),
        ("palo alto", "Palo Alto Networks"),
        ("paloalto", "Palo Alto Networks"),
        ("globalprotect", "Palo Alto Networks"),
        ("fortinet", "Fortinet FortiGate"),
        ("fortigate", "Fortinet FortiGate"),
        ("blue coat", "Symantec ProxySG"),
        ("bluecoat", "Symantec ProxySG"),
        ("proxysg", "Symantec ProxySG"),
        ("symantec web security", "Symantec Web Security Service"),
        ("cloud services ca", "Symantec Web Security Service"),
        ("check point", "Check Point"),
        ("checkpoint", "Check Point"),
        ("sophos", "Sophos"),
        ("cisco umbrella", "Cisco Umbrella"),
        ("cisco secure access", "Cisco Secure Access"),
        ("ironport", "Cisco Secure Web Appliance"),
        ("cisco web security", "Cisco Secure Web Appliance"),
        ("mcafee web gateway", "Skyhigh"),
        ("skyhigh", "Skyhigh"),
        ("trellix", "Trellix"),
        ("mcafee", "McAfee"),
        ("forcepoint", "Forcepoint"),
        ("websense", "Forcepoint"),
        ("barracuda", "Barracuda"),
        ("kaspersky", "Kaspersky"),
        ("eset ssl filter", "ESET"),
        ("avast", "Avast"),
        ("avg web", "AVG"),
        ("bitdefender", "Bitdefender"),
        ("iboss", "iboss"),
        ("cloudflare for teams", "Cloudflare Gateway"),
        ("gateway ca - cloudflare", "Cloudflare Gateway"),
        ("watchguard", "WatchGuard"),
        ("fireware", "WatchGuard"),
        ("sonicwall", "SonicWall"),
        ("trend micro", "Trend Micro"),
        ("cato networks", "Cato Networks"),
        ("squid", "Squid"),
        ("mitmproxy", "mitmproxy"),
    ];
    let issuers: Vec<String> = chain.iter().map(|one| one.issuer.to_lowercase()).collect();
    let names = |mark: &str| issuers.iter().any(|issuer| issuer.contains(mark));
    PRODUCTS.iter().find(|(mark, _)| names(mark)).map(|(_, product)| *product)
}

/// Whether these bytes begin a TLS record: an alert or a handshake message, version 3.x.
fn speaks_tls(first_bytes: &[u8]) -> bool {
    matches!(first_bytes, [0x15 | 0x16, 3, ..] | [0x15 | 0x16])
}

fn printable(bytes: &[u8]) -> String {
    let shown = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
    bytes.iter().take(SHOWN_BYTES).map(shown).collect()
}
