//! The certificate of the listening side.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::TlsFiles;

/// A certificate that cannot be used. The text says the cause and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file with the certificate.
    #[error(
        "--tls-cert {path}: {source}; name a file with the certificate and its chain in PEM",
        path = path.display()
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// The file with the key.
    #[error(
        "--tls-key {path}: {source}; name a file with the private key in PEM",
        path = path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// The two do not go together.
    #[error("the certificate {certificate} and the key {key} cannot be used together: {source}",
        certificate = certificate.display(), key = key.display())]
    Mismatch {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
}

pub(super) fn acceptor(files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|source| TlsError::Key { path: files.key.clone(), source })?;
    let mismatch = |source| TlsError::Mismatch {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        source,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(mismatch)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(mismatch)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Certificate { path: path.to_owned(), source };
    let chain = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if chain.is_empty() { Err(failed(rustls_pki_types::pem::Error::NoItemsFound)) } else { Ok(chain) }
}
