//! Why a connection or a request did not come about, named by meaning.
//!
//! Everything here is decided from error numbers, alerts, certificates and answers. No text of a library's
//! error is read, and none of these errors can hold a secret.

mod problem;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{ProxyKind, ProxySettingProblem};
use crate::policy::AddressRefusal;
use crate::report::Stage;

pub use problem::{
    CaFileProblem, CertificateProblem, ClientCertificateProblem, Interception, Obstacle, ProxyReply,
    ResolverProblem,
};

/// Why no connection came about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The host leads to addresses of which none may be connected to; this is the first of them.
    #[error("{host} leads to {address}, {refusal}")]
    AddressNotAllowed {
        /// The host as it was asked for.
        host: String,
        /// The address that was refused.
        address: IpAddr,
        /// Why.
        refusal: AddressRefusal,
    },
    /// The resolver says that there is no such name, or that it has no address.
    #[error("the resolver knows no address of {host}")]
    NameNotFound {
        /// The name.
        host: String,
    },
    /// The resolver gave no verdict.
    #[error("the resolver gave no answer for {host}: {problem}")]
    ResolverFailed {
        /// The name.
        host: String,
        /// What became of the question.
        problem: ResolverProblem,
    },
    /// The environment names a proxy of a form that cannot be used.
    #[error("the variable {variable} names no usable proxy: {problem}")]
    ProxySetting {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it.
        problem: ProxySettingProblem,
    },
    /// The proxy accepted no connection.
    #[error("the proxy {proxy} accepted no connection: {problem}")]
    ProxyUnreachable {
        /// The proxy as `host:port`.
        proxy: String,
        /// What stood in the way.
        problem: Obstacle,
    },
    /// TLS with the proxy itself did not come about.
    #[error("the proxy {proxy}: {cause}")]
    ProxyTls {
        /// The proxy as `host:port`.
        proxy: String,
        /// Why, as for a server.
        cause: Box<DialError>,
    },
    /// The proxy answered 407, or 401 to the user and password that it got, or took none of the ways of SOCKS to authenticate that it was offered.
    #[error("the proxy {proxy} demands authentication")]
    ProxyAuthRequired {
        /// The proxy as `host:port`.
        proxy: String,
        /// What it speaks.
        kind: ProxyKind,
        /// The schemes that it offers, in lower case, such as `basic`, `ntlm`, `negotiate`. SOCKS tells none.
        schemes: Vec<String>,
        /// Whether a user and a password were sent and not accepted.
        credentials_sent: bool,
    },
    /// The proxy refused the tunnel: with a status that says neither yes nor who are you, or by a reply of SOCKS.
    #[error("the proxy {proxy} refused the tunnel with {reply}")]
    ProxyRefused {
        /// The proxy as `host:port`.
        proxy: String,
        /// Its answer.
        reply: ProxyReply,
    },
    /// What the proxy answered is not what it is said to speak, is cut off or has no end.
    #[error("the proxy {proxy} did not answer as one that speaks {}", .kind.as_str())]
    ProxyProtocol {
        /// The proxy as `host:port`.
        proxy: String,
        /// What it should speak.
        kind: ProxyKind,
    },
    /// The proxy did its work, and met this on the way to the target; only SOCKS tells so much.
    #[error("the proxy {proxy} says of {endpoint}: {problem}")]
    BehindProxy {
        /// The proxy as `host:port`.
        proxy: String,
        /// The target as `host:port`.
        endpoint: String,
        /// What stood in the way.
        problem: Obstacle,
    },
    /// Nothing listens there, or a firewall rejects.
    #[error("{endpoint} refused the connection")]
    Refused {
        /// `host:port`.
        endpoint: String,
    },
    /// No answer within the time; through a proxy, no tunnel within it.
    #[error("{endpoint} did not answer within {} s", .after.as_secs())]
    TimedOut {
        /// `host:port`.
        endpoint: String,
        /// How long was waited.
        after: Duration,
    },
    /// No route to it.
    #[error("there is no route to {endpoint}")]
    Unreachable {
        /// `host:port`.
        endpoint: String,
    },
    /// Cut right after connecting, before the peer said anything.
    #[error("the connection to {endpoint} was cut before the peer said anything")]
    Reset {
        /// `host:port`.
        endpoint: String,
        /// Whether the peer cut it after our first TLS message; Schannel does so where no suite is common.
        during_tls: bool,
    },
    /// Cut in the middle of a TLS handshake, after the peer had begun to answer.
    #[error("the connection to {endpoint} was cut in the middle of the TLS handshake")]
    CutInHandshake {
        /// `host:port`.
        endpoint: String,
    },
    /// Another error of the operating system's.
    #[error("the connection to {endpoint} failed ({kind:?})")]
    Socket {
        /// `host:port`.
        endpoint: String,
        /// Its kind.
        kind: io::ErrorKind,
    },
    /// The peer speaks something else than TLS.
    #[error("the peer does not speak TLS on this port")]
    NotTls {
        /// The first bytes that it sent, at most 16, with dots for what cannot be printed.
        first_bytes: String,
    },
    /// The handshake did not come to an end.
    #[error("the TLS handshake did not end within {} s", .after.as_secs())]
    TlsTimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The chain ends in an authority that is not trusted.
    #[error("the certificate of {subject} was issued by {issuer}, which is not trusted")]
    UntrustedIssuer {
        /// The subject of the server's certificate.
        subject: String,
        /// The issuer at the end of the chain that was sent.
        issuer: String,
        /// SHA-256 of the server's certificate, hex with colons.
        fingerprint: String,
        /// Whether the server's certificate is signed by itself.
        self_signed: bool,
        /// The product for TLS inspection that the issuer is known to belong to.
        inspection: Option<&'static str>,
    },
    /// The server sent its own certificate alone, and that names where its issuer's can be had.
    #[error("the server sent its certificate without that of its issuer, {issuer}")]
    IncompleteChain {
        /// The subject of the server's certificate.
        subject: String,
        /// Its issuer, which was not sent.
        issuer: String,
        /// Where the certificate says that the issuer's can be had.
        issuer_url: String,
        /// SHA-256 of the server's certificate, hex with colons.
        fingerprint: String,
    },
    /// A certificate of the chain is past its time.
    #[error("the certificate of {subject} expired at {not_after}")]
    Expired {
        /// The subject of the certificate.
        subject: String,
        /// Its last moment, by RFC 3339.
        not_after: String,
    },
    /// A certificate of the chain is before its time.
    #[error("the certificate of {subject} is not valid before {not_before}")]
    NotYetValid {
        /// The subject of the certificate.
        subject: String,
        /// Its first moment, by RFC 3339.
        not_before: String,
    },
    /// The certificate is for other names.
    #[error("the certificate is not for {host}")]
    NameMismatch {
        /// The host that was asked for.
        host: String,
        /// The names in the certificate; empty where it has none but a common name.
        names: Vec<String>,
    },
    /// The server has nothing under the name that was asked for, and shows no certificate: the alert
    /// `unrecognized_name` (RFC 6066, section 3).
    #[error("the server has no site of that name, {host}")]
    UnknownName {
        /// The host that was asked for.
        host: String,
    },
    /// A certificate that is wrong in itself.
    #[error("the certificate of {subject} cannot be used: {problem}")]
    InvalidCertificate {
        /// The subject of the server's certificate, empty where it cannot be read.
        subject: String,
        /// The issuer at the end of the chain that was sent.
        issuer: String,
        /// SHA-256 of the server's certificate, hex with colons.
        fingerprint: String,
        /// What is wrong with it.
        problem: CertificateProblem,
    },
    /// No common version of TLS or no common suite.
    #[error("the server offers no version of TLS and no cipher suite that is considered safe")]
    LegacyOnly,
    /// The server wants a certificate of the client's, and refused without or did not accept it.
    #[error("the server demands a client certificate{}", if *.sent { " and did not accept the one that was sent" } else { "; none was sent" })]
    ClientCertificateRequired {
        /// Whether one was sent.
        sent: bool,
    },
    /// The client certificate that the operator named cannot be used.
    #[error("the client certificate cannot be used: {}: {problem}", .path.display())]
    ClientCertificate {
        /// The file that is at fault.
        path: PathBuf,
        /// What is wrong with it.
        problem: ClientCertificateProblem,
    },
    /// The chain that came through the proxy is not the one that the server shows without it.
    #[error("{0}")]
    Intercepted(Box<Interception>),
    /// The handshake ended in another alert or break of the rules of TLS.
    #[error("the TLS handshake failed")]
    TlsFailed {
        /// The alert that the server sent, by its number in the registry of TLS.
        alert: Option<u8>,
    },
    /// The file with further authorities cannot be used.
    #[error("the CA file {} cannot be used: {problem}", .path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: CaFileProblem,
    },
    /// The HTTP client could not be set up: a bug.
    #[error("the HTTP client could not be set up")]
    ClientSetup,
}

impl DialError {
    /// The stage in which this shows.
    pub fn stage(&self) -> Stage {
        match self {
            Self::AddressNotAllowed { .. } | Self::NameNotFound { .. } | Self::ResolverFailed { .. } => {
                Stage::Resolve
            }
            Self::ProxySetting { .. }
            | Self::ProxyUnreachable { .. }
            | Self::ProxyTls { .. }
            | Self::ProxyAuthRequired { .. }
            | Self::ProxyRefused { .. }
            | Self::ProxyProtocol { .. } => Stage::Proxy,
            Self::BehindProxy { .. }
            | Self::Refused { .. }
            | Self::TimedOut { .. }
            | Self::Unreachable { .. }
            | Self::Reset { .. }
            | Self::Socket { .. }
            | Self::ClientSetup => Stage::Connect,
            Self::NotTls { .. }
            | Self::TlsTimedOut { .. }
            | Self::UntrustedIssuer { .. }
            | Self::IncompleteChain { .. }
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::NameMismatch { .. }
            | Self::UnknownName { .. }
            | Self::CutInHandshake { .. }
            | Self::InvalidCertificate { .. }
            | Self::LegacyOnly
            | Self::ClientCertificateRequired { .. }
            | Self::ClientCertificate { .. }
            | Self::Intercepted(_)
            | Self::TlsFailed { .. }
            | Self::CaFile { .. } => Stage::Tls,
        }
    }
}

/// Why a request got no answer, or its answer could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// No connection came about.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The answer is larger than what is read.
    #[error("the answer is larger than {max_bytes} bytes")]
    BodyTooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// The connection broke while the request or the answer was on its way.
    #[error("the connection broke in the middle ({kind:?})")]
    Interrupted {
        /// How it broke.
        kind: io::ErrorKind,
    },
    /// What came is no HTTP.
    #[error("the answer breaks the rules of HTTP")]
    Protocol,
    /// Nothing came for too long.
    #[error("nothing came for {} s", .after.as_secs())]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The request was out of form, or made to leave the client's origin: a bug.
    #[error("the request is out of form or would leave its origin")]
    BadRequest,
}
