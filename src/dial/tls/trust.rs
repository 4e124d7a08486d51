//! The authorities: the platform's, loaded once, and those of CA files, kept as long as a file is unchanged.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::OnceCell;

use super::client_certificate::Own;
use super::verify::{ProxyTrust, Verifier, standard};
use crate::config::{ClientCertificate, ProxyKind, ProxyServer};
use crate::dial::error::{CaFileProblem, DialError};
use crate::dial::proxy::endpoint;
use crate::dial::{Destination, MAX_CA_FILE_BYTES};

/// How many CA files, and how many client certificates, are remembered. Beyond it the memory starts anew.
const MAX_FILES: usize = 64;

/// Whom the door trusts, and the certificates by which it shows itself.
#[derive(Default)]
pub(in crate::dial) struct Trust {
    platform: OnceCell<Arc<Verifier>>,
    files: Mutex<HashMap<PathBuf, Remembered>>,
    own: Mutex<HashMap<ClientCertificate, Arc<Own>>>,
}

/// What TLS needs on the way to one destination.
#[derive(Clone, Default)]
pub(in crate::dial) struct Setup {
    /// Verifies the server; there where it speaks TLS.
    pub(in crate::dial) server: Option<Arc<Verifier>>,
    /// Verifies the proxy; there where it speaks TLS.
    pub(in crate::dial) proxy: Option<ProxyTrust>,
    /// The certificate for a server that asks for one.
    pub(in crate::dial) own: Option<Arc<Own>>,
}

impl Setup {
    /// Whether nothing was replaced since `other` was made.
    pub(in crate::dial) fn is_same(&self, other: &Self) -> bool {
        fn same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
            one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
        }
        let proxy = |setup: &Self| setup.proxy.as_ref().map(|proxy| Arc::clone(&proxy.verifier));
        same(self.server.as_ref(), other.server.as_ref())
            && same(proxy(self).as_ref(), proxy(other).as_ref())
            && same(self.own.as_ref(), other.own.as_ref())
    }
}

/// A CA file as it was when it was read.
struct Remembered {
    version: FileVersion,
    verifier: Arc<Verifier>,
}

/// What tells one content of a file from the next without reading it.
type FileVersion = (Option<SystemTime>, u64);

impl Trust {
    /// The verifier that trusts the platform's authorities and those of `ca_file`. The same file, unchanged,
    /// gives the same verifier.
    pub(in crate::dial) async fn verifier(&self, ca_file: Option<&Path>) -> Result<Arc<Verifier>, DialError> {
        let platform = Arc::clone(self.platform.get_or_try_init(load_platform).await?);
        let Some(path) = ca_file else { return Ok(platform) };
        let known = self.remembered(path);
        let (own_path, shared) = (path.to_owned(), platform.platform());
        let load = move || load_file(&own_path, known, shared);
        let loaded = tokio::task::spawn_blocking(load).await.map_err(|_| DialError::ClientSetup)?;
        let loaded = loaded.map_err(|problem| DialError::CaFile { path: path.to_owned(), problem })?;
        let verifier = Arc::clone(&loaded.verifier);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if files.len() >= MAX_FILES && !files.contains_key(path) {
            files.clear();
        }
        files.insert(path.to_owned(), loaded);
        Ok(verifier)
    }

    /// What TLS needs to go to a destination through `proxy`.
    pub(in crate::dial) async fn setup(
        &self,
        destination: &Destination,
        proxy: Option<&ProxyServer>,
    ) -> Result<Setup, DialError> {
        let mut setup = Setup::default();
        if let Some(proxy) = proxy.filter(|proxy| proxy.kind == ProxyKind::Https) {
            let shown = endpoint(&proxy.host, proxy.port);
            let verifier = self.verifier(destination.proxy_ca_file.as_deref()).await;
            let verifier =
                verifier.map_err(|cause| DialError::ProxyTls { proxy: shown, cause: Box::new(cause) })?;
            let is_servers_host = proxy.host == destination.host;
            setup.proxy = Some(ProxyTrust { host: proxy.host.clone(), is_servers_host, verifier });
        }
        if destination.tls {
            setup.server = Some(self.verifier(destination.ca_file.as_deref()).await?);
            if let Some(files) = &destination.client_certificate {
                setup.own = Some(self.own(files).await?);
            }
        }
        Ok(setup)
    }

    /// The client certificate in these files. Unchanged files give the same one.
    pub(in crate::dial) async fn own(&self, files: &ClientCertificate) -> Result<Arc<Own>, DialError> {
        let known = self.own.lock().unwrap_or_else(PoisonError::into_inner).get(files).cloned();
        let wanted = files.clone();
        let read = tokio::task::spawn_blocking(move || Own::read(&wanted, known)).await;
        let own = read.map_err(|_| DialError::ClientSetup)??;
        let mut all = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_FILES && !all.contains_key(files) {
            all.clear();
        }
        all.insert(files.clone(), Arc::clone(&own));
        Ok(own)
    }

    fn remembered(&self, path: &Path) -> Option<Remembered> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let found = files.get(path)?;
        Some(Remembered { version: found.version, verifier: Arc::clone(&found.verifier) })
    }
}

async fn load_platform() -> Result<Arc<Verifier>, DialError> {
    let load = || {
        let loaded = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (taken, ignored) = roots.add_parsable_certificates(loaded.certs);
        if taken == 0 {
            tracing::warn!(
                certificates.ignored = ignored,
                "the platform has no certificate authorities: install its ca-certificates"
            );
        }
        Arc::new(Verifier::new(standard(roots), &[], RootCertStore::empty()))
    };
    tokio::task::spawn_blocking(load).await.map_err(|_| DialError::ClientSetup)
}

fn load_file(
    path: &Path,
    known: Option<Remembered>,
    platform: Option<Arc<WebPkiServerVerifier>>,
) -> Result<Remembered, CaFileProblem> {
    let unreadable = |error: io::Error| CaFileProblem::Unreadable(error.kind());
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let version = (metadata.modified().ok(), metadata.len());
    if let Some(known) = known.filter(|known| known.version == version) {
        return Ok(known);
    }
    let mut pem = Vec::new();
    file.take(MAX_CA_FILE_BYTES + 1).read_to_end(&mut pem).map_err(unreadable)?;
    if pem.len() as u64 > MAX_CA_FILE_BYTES {
        return Err(CaFileProblem::TooLarge);
    }
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|_| CaFileProblem::Malformed)?;
    if certificates.is_empty() {
        return Err(CaFileProblem::NoCertificate);
    }
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|_| CaFileProblem::Malformed)?;
    }
    Ok(Remembered { version, verifier: Arc::new(Verifier::new(platform, &certificates, roots)) })
}
