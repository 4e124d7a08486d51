//! The verification of a server's certificate: the standard one, which tells what it rejected.
//!
//! rustls forgets the chain that it did not accept, and a report has to name it. So the verifier here asks
//! the standard ones and wraps their verdict together with the chain. It never turns a "no" into a "yes".
//! This file is the only one that uses what rustls calls dangerous.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::{Setup, certificate};
use crate::dial::DialError;

/// A chain that was rejected, with the verdict of the standard verification.
#[derive(Debug)]
pub(in crate::dial) struct Rejected {
    /// The verdict.
    pub(in crate::dial) verdict: Error,
    /// The chain that the server sent, its own certificate first.
    pub(in crate::dial) chain: Vec<CertificateDer<'static>>,
    /// Whether the operator's CA file holds the server's own certificate.
    pub(in crate::dial) is_listed_itself: bool,
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server's certificate was rejected")
    }
}

impl std::error::Error for Rejected {}

/// Trusts the platform's authorities, which all verifiers share, and those of one CA file.
#[derive(Debug)]
pub(in crate::dial) struct Verifier {
    platform: Option<Arc<WebPkiServerVerifier>>,
    further: Option<Arc<WebPkiServerVerifier>>,
    further_fingerprints: Vec<String>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Verifies a proxy by one verifier and every other host by another, for a library that takes only one for both.
/// Where proxy and server have the same name, either may vouch for it.
#[derive(Debug)]
struct ByName {
    proxy: ProxyTrust,
    server: Arc<Verifier>,
}

/// Who vouches for a proxy.
#[derive(Debug, Clone)]
pub(in crate::dial) struct ProxyTrust {
    /// The proxy's host.
    pub(super) host: String,
    /// Whether the server has the same.
    pub(super) is_servers_host: bool,
    /// Verifies its certificate.
    pub(in crate::dial) verifier: Arc<Verifier>,
}

/// The one provider of cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// The standard verification by these authorities; none where there are no authorities.
pub(super) fn standard(roots: RootCertStore) -> Option<Arc<WebPkiServerVerifier>> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().ok()
}

/// The configuration for a handshake with one peer.
pub(super) fn client_config(verifier: Arc<Verifier>) -> Result<ClientConfig, DialError> {
    configured(verifier)
}

/// The configuration for a library that uses the same for the server and for the proxy. It trusts nobody where
/// neither speaks TLS.
pub(super) fn shared_config(setup: &Setup) -> Result<ClientConfig, DialError> {
    let server = setup.server.clone().unwrap_or_default();
    match &setup.proxy {
        Some(proxy) => configured(Arc::new(ByName { proxy: proxy.clone(), server })),
        None => configured(server),
    }
}

fn configured(verifier: Arc<dyn ServerCertVerifier>) -> Result<ClientConfig, DialError> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|_| DialError::ClientSetup)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

impl Verifier {
    pub(super) fn new(
        platform: Option<Arc<WebPkiServerVerifier>>,
        further: &[CertificateDer<'_>],
        further_roots: RootCertStore,
    ) -> Self {
        Self {
            platform,
            further: standard(further_roots),
            further_fingerprints: further.iter().map(|der| certificate::fingerprint(der)).collect(),
            algorithms: provider().signature_verification_algorithms,
        }
    }

    /// The part that is shared: the platform's.
    pub(super) fn platform(&self) -> Option<Arc<WebPkiServerVerifier>> {
        self.platform.clone()
    }

    fn reject(&self, verdict: Error, own: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Error {
        let chain = std::iter::once(own).chain(others).map(|der| der.clone().into_owned()).collect();
        let is_listed_itself = self.further_fingerprints.contains(&certificate::fingerprint(own));
        let rejected = Rejected { verdict, chain, is_listed_itself };
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(rejected))))
    }
}

/// Trusts nobody.
impl Default for Verifier {
    fn default() -> Self {
        Self::new(None, &[], RootCertStore::empty())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let mut verdict = unknown.clone();
        for verifier in [&self.platform, &self.further].into_iter().flatten() {
            match verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
                Ok(verified) => return Ok(verified),
                // The one that knows the issuer has more to say than the one that does not.
                Err(error) if verdict == unknown => verdict = error,
                Err(_) => {}
            }
        }
        Err(self.reject(verdict, end_entity, intermediates))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for ByName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let by = |verifier: &Verifier| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        match server_name.to_str() == self.proxy.host.as_str() {
            true if self.proxy.is_servers_host => by(&self.server).or_else(|_| by(&self.proxy.verifier)),
            true => by(&self.proxy.verifier),
            false => by(&self.server),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.server.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.server.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.server.supported_verify_schemes()
    }
}
