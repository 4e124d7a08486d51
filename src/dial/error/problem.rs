//! What exactly went wrong: the parts of [`super::DialError`] that tell one case from the next.

use std::io;

use crate::credential::LoadError;

/// Two chains for one server: one came through the proxy, the other without it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the certificate of {subject} was issued by {issuer}, and the server's own, seen without the proxy {proxy}, by \
     {direct_issuer}"
)]
pub struct Interception {
    /// The proxy as `host:port`.
    pub proxy: String,
    /// The subject of the certificate that came through the proxy.
    pub subject: String,
    /// The issuer at the end of the chain that came through the proxy.
    pub issuer: String,
    /// SHA-256 of that certificate, hex with colons.
    pub fingerprint: String,
    /// The issuer at the end of the server's own chain.
    pub direct_issuer: String,
    /// SHA-256 of the server's own certificate.
    pub direct_fingerprint: String,
}

/// Why a resolver gave no verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResolverProblem {
    /// A temporary failure; mostly a server that cannot be reached or answers SERVFAIL.
    #[error("a temporary failure")]
    Temporary,
    /// A failure that the resolver calls permanent.
    #[error("a permanent failure")]
    Permanent,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// Another code of getaddrinfo's.
    #[error("code {0} of getaddrinfo")]
    Code(i32),
}

/// What stood between this host and a proxy, or between a proxy and its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Its name does not exist.
    #[error("its name does not exist")]
    NameNotFound,
    /// The resolver gave no verdict on its name.
    #[error("the resolver gave no answer for its name")]
    ResolverFailed,
    /// Nothing listens there.
    #[error("nothing listens on that port")]
    Refused,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// No route.
    #[error("no route to it")]
    Unreachable,
    /// The connection was cut.
    #[error("the connection was cut")]
    Reset,
    /// Another error of the operating system's.
    #[error("an error of the operating system ({0:?})")]
    Socket(io::ErrorKind),
}

/// How a proxy refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyReply {
    /// A status of HTTP.
    #[error("status {0}")]
    Status(u16),
    /// A reply of SOCKS (RFC 1928, section 6): 1 is a general failure, 2 a rule of the proxy's.
    #[error("the SOCKS reply {0}")]
    Socks(u8),
    /// A reply of SOCKS that the protocol does not define.
    #[error("a SOCKS reply that the protocol does not define")]
    SocksUnknown,
}

/// What is wrong with a client certificate or its key. No variant holds anything of the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientCertificateProblem {
    /// The certificate's file cannot be read.
    #[error("it cannot be read ({0:?})")]
    Unreadable(io::ErrorKind),
    /// The key's file cannot be had, or others can read it.
    #[error("{0}")]
    Key(LoadError),
    /// It is over the limit.
    #[error("it is larger than {} bytes", crate::dial::MAX_CLIENT_CERTIFICATE_BYTES)]
    TooLarge,
    /// It holds no certificate in PEM.
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    /// It holds no private key in PEM.
    #[error("it holds no private key in PEM")]
    NoKey,
    /// The key is encrypted.
    #[error("the private key in it is encrypted")]
    EncryptedKey,
    /// The key is of a kind that TLS here cannot use.
    #[error("the private key in it is of a kind that cannot be used")]
    UnsupportedKey,
    /// The certificate was made for another key.
    #[error("it is not the key of the certificate")]
    Mismatch,
}

/// What is wrong with a certificate in itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateProblem {
    /// It cannot be parsed.
    #[error("it is malformed")]
    Malformed,
    /// A certificate of an authority, which is trusted as such, stands for the server itself.
    #[error("it is an authority's certificate and not a server's")]
    AuthorityAsServer,
    /// It is not for servers.
    #[error("it is not issued for servers")]
    Purpose,
    /// A signature that does not fit.
    #[error("a signature in its chain is wrong")]
    Signature,
    /// A signature of a kind that is not accepted, such as SHA-1.
    #[error("a signature in its chain is of a kind that is not accepted, such as SHA-1")]
    SignatureAlgorithm,
    /// It was revoked.
    #[error("it was revoked")]
    Revoked,
    /// Anything else, such as a constraint of an authority's that it breaks.
    #[error("it breaks the rules of its chain")]
    Other,
}

/// What is wrong with a CA file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CaFileProblem {
    /// It cannot be read.
    #[error("it cannot be read ({0:?})")]
    Unreadable(io::ErrorKind),
    /// It is over the limit.
    #[error("it is larger than {} bytes", crate::dial::MAX_CA_FILE_BYTES)]
    TooLarge,
    /// It holds no certificate in PEM.
    #[error("it holds no certificate in PEM")]
    NoCertificate,
    /// One of its certificates cannot be read.
    #[error("it holds a certificate that cannot be read")]
    Malformed,
}
