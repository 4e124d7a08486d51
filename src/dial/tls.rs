//! TLS: trust, handshakes and what they show.

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

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whom it names.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// The names and addresses that it is for.
    pub names: Vec<String>,
    /// Its first moment, by RFC 3339.
    pub not_before: String,
    /// Its last moment, by RFC 3339.
    pub not_after: String,
    /// SHA-256, hex with colons.
    pub fingerprint: String,
    /// Whether it is an authority's.
    pub is_authority: bool,
    /// Where the issuer's certificate can be had, where it says so.
    pub issuer_url: Option<String>,
}

#[derive(Default)]
pub(super) struct Trust;
