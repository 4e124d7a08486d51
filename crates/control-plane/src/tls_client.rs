//! TLS for what this program itself connects to: its own commands, and a bucket.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Why there is no configuration. The text says the cause.
#[derive(Debug, thiserror::Error)]
pub enum TlsClientError {
    /// The file with further authorities cannot be used.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// A certificate in it cannot be used, or the library's own settings do not go together.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Trusts the platform's authorities and those of a file in PEM.
///
/// # Errors
/// Why the file cannot be used.
pub fn config(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, TlsClientError> {
    let mut roots = rustls::RootCertStore::empty();
    // A root of the platform that cannot be read is one root less, and not the end.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let failed = |source| TlsClientError::File { path: path.display().to_string(), source };
        for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
            roots.add(certificate.map_err(failed)?)?;
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
