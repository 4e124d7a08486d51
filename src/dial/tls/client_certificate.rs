//! The certificate by which this host shows itself to a server that asks for one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::SystemTime;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, SignatureScheme};

use super::certificate::CertificateFacts;
use super::verify::provider;
use crate::config::ClientCertificate;
use crate::credential::read_key_file;
use crate::dial::MAX_CLIENT_CERTIFICATE_BYTES;
use crate::dial::error::{ClientCertificateProblem as Problem, DialError};

/// The label of an encrypted key (RFC 7468, section 11), and the header of one in the older form (RFC 1421).
const ENCRYPTION_MARKS: [&str; 2] = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];

/// A certificate with its key, as it was when its files were read.
pub(in crate::dial) struct Own {
    pub(super) key: Arc<CertifiedKey>,
    pub(in crate::dial) facts: CertificateFacts,
    versions: [FileVersion; 2],
}

/// What tells one content of a file from the next without reading it.
type FileVersion = Option<(SystemTime, u64)>;

impl Own {
    /// Reads certificate and key, or gives back `known` where both files are unchanged. It blocks.
    pub(super) fn read(files: &ClientCertificate, known: Option<Arc<Self>>) -> Result<Arc<Self>, DialError> {
        let versions = [version(&files.cert_file), version(&files.key_file)];
        if let Some(known) = known.filter(|known| known.versions == versions && !versions.contains(&None)) {
            return Ok(known);
        }
        let in_certificate =
            |problem| DialError::ClientCertificate { path: files.cert_file.clone(), problem };
        let in_key = |problem| DialError::ClientCertificate { path: files.key_file.clone(), problem };
        let chain = read_chain(&files.cert_file).map_err(in_certificate)?;
        let key = read_key(&files.key_file, files.strict_modes).map_err(in_key)?;
        let facts = chain.first().map(|own| CertificateFacts::parse(own)).unwrap_or_default();
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            TlsError::InconsistentKeys(_) => in_key(Problem::Mismatch),
            TlsError::InvalidCertificate(_) => in_certificate(Problem::NoCertificate),
            _ => in_key(Problem::UnsupportedKey),
        })?;
        Ok(Arc::new(Self { key: Arc::new(key), facts, versions }))
    }
}

fn version(path: &Path) -> FileVersion {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let unreadable = |error: io::Error| Problem::Unreadable(error.kind());
    let mut pem = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_CLIENT_CERTIFICATE_BYTES + 1).read_to_end(&mut pem).map_err(unreadable)?;
    if pem.len() as u64 > MAX_CLIENT_CERTIFICATE_BYTES {
        return Err(Problem::TooLarge);
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or(Problem::NoCertificate)
}

fn read_key(path: &Path, strict_modes: bool) -> Result<PrivateKeyDer<'static>, Problem> {
    let pem = read_key_file(path, strict_modes).map_err(Problem::Key)?;
    if ENCRYPTION_MARKS.iter().any(|mark| pem.expose().contains(mark)) {
        return Err(Problem::EncryptedKey);
    }
    PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|_| Problem::NoKey)
}

/// Answers a server that asks for a certificate, and remembers what became of it.
pub(in crate::dial) struct Shown {
    own: Option<Arc<Own>>,
    state: AtomicU8,
}

const NOT_ASKED: u8 = 0;
const ASKED: u8 = 1;
const SENT: u8 = 2;

impl Shown {
    pub(super) fn new(own: Option<Arc<Own>>) -> Self {
        Self { own, state: AtomicU8::new(NOT_ASKED) }
    }

    /// Whether the server asked.
    pub(in crate::dial) fn was_asked(&self) -> bool {
        self.state.load(Ordering::Relaxed) != NOT_ASKED
    }

    /// Whether it got one.
    pub(in crate::dial) fn was_sent(&self) -> bool {
        self.state.load(Ordering::Relaxed) == SENT
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").field("was_asked", &self.was_asked()).finish_non_exhaustive()
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // A key that can sign in none of these ways is the same as none.
        let own = self.own.as_ref().filter(|own| own.key.key.choose_scheme(schemes).is_some());
        self.state.store(if own.is_some() { SENT } else { ASKED }, Ordering::Relaxed);
        own.map(|own| Arc::clone(&own.key))
    }

    fn has_certs(&self) -> bool {
        self.own.is_some()
    }
}
