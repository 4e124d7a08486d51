//! A certificate authority for tests: its own root, and server and client certificates of every useful condition.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use time::{Duration, OffsetDateTime};

/// How long a root is valid, in days.
const ROOT_DAYS: i64 = 3650;
/// How long a valid leaf is valid, in days; above the 30 days at which a client may warn.
const LEAF_DAYS: i64 = 365;
/// How far back validity starts, in days, so that a clock a little behind does not matter.
const BACKDATE_DAYS: i64 = 1;
/// The only name on a certificate of the kind [`CertificateKind::WrongName`].
const WRONG_NAME: &str = "elsewhere.example";

/// Where the certificate of the kind [`CertificateKind::MissingIntermediate`] says that its issuer's can be had.
const INTERMEDIATE_URL: &[u8] = b"http://pki.stand-ins.example/intermediate.crt";

/// Why a certificate could not be made or stored.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A key or certificate could not be generated.
    #[error("the certificate could not be generated: {0}")]
    Generate(#[from] rcgen::Error),
    /// The file could not be written; the directory must exist and be writable.
    #[error("{path} could not be written: {source}")]
    Write {
        /// The file that was to be written.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The TLS library refused what was generated.
    #[error("the TLS configuration was refused: {0}")]
    Tls(#[from] rustls::Error),
    /// What was generated does not read back as PEM.
    #[error("the generated PEM does not read back: {0}")]
    Pem(#[from] rustls_pki_types::pem::Error),
}

/// The condition of a server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateKind {
    /// Issued by the authority for `localhost`, `127.0.0.1` and `::1`, valid now.
    #[default]
    Valid,
    /// As [`Self::Valid`], but its time is over.
    Expired,
    /// As [`Self::Valid`], but its time ends within ten days.
    EndsSoon,
    /// As [`Self::Valid`], but its time has not come.
    NotYetValid,
    /// Valid now, for another name only.
    WrongName,
    /// Issued by a root that nobody was told about.
    UnknownAuthority,
    /// Issued by an intermediate that the server sends along.
    Intermediate,
    /// Issued by an intermediate that the server does not send, and whose certificate it says where to find.
    MissingIntermediate,
}

/// A certificate chain (leaf first) with its private key, both in PEM.
pub struct Issued {
    /// The chain in PEM, leaf first, without the root.
    pub certificate_pem: String,
    /// The private key in PEM (PKCS #8).
    pub key_pem: String,
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` (mode 0600) below `directory` and returns their paths in this order.
    ///
    /// # Errors
    /// [`AuthorityError::Write`] when a file cannot be written.
    pub fn write(&self, directory: &Path, name: &str) -> Result<(PathBuf, PathBuf), AuthorityError> {
        let certificate = directory.join(format!("{name}.pem"));
        let key = directory.join(format!("{name}.key"));
        write_file(&certificate, &self.certificate_pem)?;
        write_private_file(&key, &self.key_pem)?;
        Ok((certificate, key))
    }

    /// A rustls configuration that serves this chain, with HTTP/2 and HTTP/1.1 offered.
    ///
    /// # Errors
    /// [`AuthorityError::Pem`] and [`AuthorityError::Tls`] when the chain and the key do not make a configuration.
    pub fn server_config(&self) -> Result<rustls::ServerConfig, AuthorityError> {
        let chain =
            CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())?;
        // The provider is named here because a test binary may link several and set no default.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// A root of its own whose certificate lies in a directory as `ca.pem`; its key stays in memory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    ca_file: PathBuf,
}

impl Authority {
    /// Makes a new root and writes its certificate to `directory/ca.pem`.
    ///
    /// # Errors
    /// [`AuthorityError::Write`] when the directory does not exist or is not writable.
    pub fn create(directory: &Path) -> Result<Self, AuthorityError> {
        let (issuer, certificate_pem) = new_root("Stand-in Root")?;
        let ca_file = directory.join("ca.pem");
        write_file(&ca_file, &certificate_pem)?;
        Ok(Self { issuer, certificate_pem, ca_file })
    }

    /// The file with the root's certificate in PEM, for a client's `--ca-file`.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// The root's certificate in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a server certificate for loopback (`localhost`, `127.0.0.1`, `::1`) in the condition asked for.
    ///
    /// # Errors
    /// [`AuthorityError::Generate`] when a key or certificate cannot be generated.
    pub fn issue(&self, kind: CertificateKind) -> Result<Issued, AuthorityError> {
        match kind {
            CertificateKind::Valid => sign(server_params()?, &self.issuer, None),
            CertificateKind::Expired => {
                let mut params = server_params()?;
                params.not_before = days_from_now(-60);
                params.not_after = days_from_now(-30);
                sign(params, &self.issuer, None)
            }
            CertificateKind::EndsSoon => {
                let mut params = server_params()?;
                params.not_after = days_from_now(10);
                sign(params, &self.issuer, None)
            }
            CertificateKind::NotYetValid => {
                let mut params = server_params()?;
                params.not_before = days_from_now(30);
                params.not_after = days_from_now(60);
                sign(params, &self.issuer, None)
            }
            CertificateKind::WrongName => {
                let mut params = server_params()?;
                params.subject_alt_names = vec![SanType::DnsName(WRONG_NAME.try_into()?)];
                sign(params, &self.issuer, None)
            }
            CertificateKind::UnknownAuthority => {
                let (stranger, _) = new_root("Unknown Root")?;
                sign(server_params()?, &stranger, None)
            }
            CertificateKind::Intermediate => {
                let (intermediate, pem) = self.new_intermediate()?;
                sign(server_params()?, &intermediate, Some(&pem))
            }
            CertificateKind::MissingIntermediate => {
                let (intermediate, _) = self.new_intermediate()?;
                let mut params = server_params()?;
                params.custom_extensions.push(issuer_at(INTERMEDIATE_URL));
                sign(params, &intermediate, None)
            }
        }
    }

    /// Issues a valid server certificate for these host names and addresses instead of loopback's.
    ///
    /// # Errors
    /// [`AuthorityError::Generate`] when a name is no DNS name or address.
    pub fn issue_for(&self, names: &[&str]) -> Result<Issued, AuthorityError> {
        let mut params = server_params()?;
        let names = names.iter().map(ToString::to_string).collect::<Vec<_>>();
        params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        sign(params, &self.issuer, None)
    }

    /// Issues a client certificate whose common name is `name`.
    ///
    /// # Errors
    /// [`AuthorityError::Generate`] when a key or certificate cannot be generated.
    pub fn issue_client(&self, name: &str) -> Result<Issued, AuthorityError> {
        let mut params = leaf_params(name)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        sign(params, &self.issuer, None)
    }

    fn new_intermediate(&self) -> Result<(Issuer<'static, KeyPair>, String), AuthorityError> {
        let key = KeyPair::generate()?;
        let params = authority_params("Stand-in Intermediate")?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((Issuer::new(params, key), certificate.pem()))
    }
}

fn new_root(name: &str) -> Result<(Issuer<'static, KeyPair>, String), AuthorityError> {
    let key = KeyPair::generate()?;
    let params = authority_params(name)?;
    let certificate = params.self_signed(&key)?;
    Ok((Issuer::new(params, key), certificate.pem()))
}

fn authority_params(name: &str) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = days_from_now(-BACKDATE_DAYS);
    params.not_after = days_from_now(ROOT_DAYS);
    Ok(params)
}

fn leaf_params(name: &str) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = named(name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.not_before = days_from_now(-BACKDATE_DAYS);
    params.not_after = days_from_now(LEAF_DAYS);
    Ok(params)
}

fn server_params() -> Result<CertificateParams, AuthorityError> {
    let mut params = leaf_params("stand-in server")?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into()?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    Ok(params)
}

/// The extension that names where the issuer's certificate can be had (RFC 5280, section 4.2.2.1): a sequence of
/// one description, which is a method and a URI. All of it is short, so that each length is one byte.
fn issuer_at(url: &[u8]) -> CustomExtension {
    const AUTHORITY_INFORMATION_ACCESS: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 1, 1];
    const CA_ISSUERS: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02];
    const SEQUENCE: u8 = 0x30;
    const URI: u8 = 0x86;
    let tagged = |tag: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap_or_default();
        [&[tag, length], content].concat()
    };
    let description = [&CA_ISSUERS[..], &tagged(URI, url)].concat();
    let content = tagged(SEQUENCE, &tagged(SEQUENCE, &description));
    CustomExtension::from_oid_content(&AUTHORITY_INFORMATION_ACCESS, content)
}

fn sign(
    params: CertificateParams,
    issuer: &Issuer<'static, KeyPair>,
    intermediate_pem: Option<&str>,
) -> Result<Issued, AuthorityError> {
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, issuer)?;
    let certificate_pem = leaf.pem() + intermediate_pem.unwrap_or_default();
    Ok(Issued { certificate_pem, key_pem: key.serialize_pem() })
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::OrganizationName, "Stand-ins");
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn days_from_now(days: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::days(days)
}

fn write_file(path: &Path, text: &str) -> Result<(), AuthorityError> {
    fs::write(path, text).map_err(|source| AuthorityError::Write { path: path.to_owned(), source })
}

fn write_private_file(path: &Path, text: &str) -> Result<(), AuthorityError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| AuthorityError::Write { path: path.to_owned(), source })
}
