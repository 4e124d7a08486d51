//! Loading secrets from where the operator keeps them.
//!
//! A secret is read each time it is needed, so that a rotated one is taken without a restart, and is not
//! kept afterwards.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::{Zeroize as _, Zeroizing};

use super::{Credential, CredentialKind, Material, PrivateKey};
use crate::config::{CredentialSource, SecretSource};
use crate::secret::{MAX_SECRET_BYTES, Redaction, Secret};

/// Why a credential could not be had. No variant holds any of its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The agent has no credential of that name.
    #[error("the agent has no credential named `{name}`")]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
    /// The source does not exist.
    #[error("{source_name} does not exist")]
    Missing {
        /// Where it should have been.
        source_name: String,
    },
    /// A systemd credential was asked for outside of a unit.
    #[error(
        "the systemd credential {name} is readable only inside the unit; $CREDENTIALS_DIRECTORY is not set here"
    )]
    OutsideOfUnit {
        /// The credential's name.
        name: String,
    },
    /// The source exists and holds nothing.
    #[error("{source_name} is empty")]
    Empty {
        /// Where it came from.
        source_name: String,
    },
    /// The source exists and cannot be read.
    #[error("{source_name} cannot be read: {kind}")]
    Unreadable {
        /// Where it should have come from.
        source_name: String,
        /// The class of the system's error.
        kind: std::io::ErrorKind,
    },
    /// A private key that other users of the host can read.
    #[error("{} can be read by other users of this host (mode {mode:04o})", path.display())]
    TooOpen {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Over [`MAX_SECRET_BYTES`].
    #[error("{source_name} is over the limit of {MAX_SECRET_BYTES} bytes")]
    TooLarge {
        /// Where it came from.
        source_name: String,
    },
    /// It is no UTF-8 text, or has control characters where the kind allows none.
    #[error("{source_name} holds bytes that cannot be part of such a secret")]
    NotText {
        /// Where it came from.
        source_name: String,
    },
}

/// The credentials that the operator declared.
#[derive(Debug, Clone, Default)]
pub struct Store {
    sources: BTreeMap<String, CredentialSource>,
    redaction: Option<Redaction>,
}

impl Store {
    /// A store of these.
    pub fn new(sources: BTreeMap<String, CredentialSource>) -> Self {
        Self { sources, redaction: None }
    }

    /// The same store, which tells `redaction` of every secret that it loads.
    pub fn telling(&self, redaction: &Redaction) -> Self {
        Self { redaction: Some(redaction.clone()), ..self.clone() }
    }

    /// The kind of a credential, without loading it.
    pub fn kind(&self, name: &str) -> Option<CredentialKind> {
        self.sources.get(name).map(|source| source.kind)
    }

    /// Loads a credential from its source.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub async fn load(&self, name: &str) -> Result<Credential, LoadError> {
        let name = name.to_owned();
        let Some(source) = self.sources.get(&name).cloned() else { return Err(LoadError::Unknown { name }) };
        let loaded = blocking(move || load(name, &source)).await?;
        if let Some(redaction) = &self.redaction {
            loaded.teach(redaction);
        }
        Ok(loaded)
    }
}

/// Loads a secret that is no credential of a git server: an enrollment token, a proxy's password.
///
/// # Errors
/// See [`LoadError`].
pub async fn load_secret(source: &SecretSource) -> Result<Secret, LoadError> {
    let source = source.clone();
    blocking(move || read_line(&source)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    let cancelled = || LoadError::Unreadable {
        source_name: "the source of the secret".into(),
        kind: std::io::ErrorKind::Interrupted,
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(cancelled()))
}

fn load(name: String, source: &CredentialSource) -> Result<Credential, LoadError> {
    let material = match source.kind {
        CredentialKind::Pat => Material::Pat(read_line(&source.secret)?),
        CredentialKind::Password => Material::Password(read_line(&source.secret)?),
        CredentialKind::Bearer => Material::Bearer(read_line(&source.secret)?),
        CredentialKind::SshKey => Material::SshKey {
            key: match &source.secret {
                SecretSource::Agent { socket, named } => {
                    PrivateKey::Agent { socket: socket.clone(), named: named.clone() }
                }
                _ => PrivateKey::Text {
                    text: read_key(source)?,
                    passphrase: source.passphrase.as_ref().map(read_line).transpose()?,
                },
            },
            source: source.secret.to_string(),
        },
    };
    Ok(Credential { name, username: source.username.clone(), material })
}

/// A secret of one line. A control character in it would end up in a header.
fn read_line(source: &SecretSource) -> Result<Secret, LoadError> {
    let secret = read(source)?;
    if secret.expose().chars().any(char::is_control) {
        return Err(LoadError::NotText { source_name: source.to_string() });
    }
    Ok(secret)
}

/// Reads a private key that belongs to a certificate. It blocks.
///
/// # Errors
/// See [`LoadError`].
pub(crate) fn read_key_file(path: &Path, strict_modes: bool) -> Result<Secret, LoadError> {
    // systemd hands credentials out as 0440 with an access list, which shows as a mode for the group.
    let of_unit =
        std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|directory| path.starts_with(directory));
    if !of_unit {
        check_mode(path, strict_modes)?;
    }
    read(&SecretSource::File(path.to_owned()))
}

fn read_key(source: &CredentialSource) -> Result<Secret, LoadError> {
    if let SecretSource::File(path) = &source.secret {
        check_mode(path, source.strict_modes)?;
    }
    let key = read(&source.secret)?;
    // The line end that was trimmed belongs to the format of a key.
    Ok(Secret::new(format!("{}\n", key.expose())))
}

fn check_mode(path: &Path, strict: bool) -> Result<(), LoadError> {
    const OTHERS: u32 = 0o077;
    let Ok(metadata) = std::fs::metadata(path) else { return Ok(()) };
    let mode = metadata.mode() & 0o7777;
    if !metadata.is_file() || mode & OTHERS == 0 {
        return Ok(());
    }
    if strict {
        return Err(LoadError::TooOpen { path: path.to_owned(), mode });
    }
    tracing::warn!(path = %path.display(), mode = format!("{mode:04o}"), "a private key can be read by others");
    Ok(())
}

fn read(source: &SecretSource) -> Result<Secret, LoadError> {
    let bytes = match source {
        SecretSource::File(path) => read_file(path, source)?,
        SecretSource::Systemd(name) => {
            let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") else {
                return Err(LoadError::OutsideOfUnit { name: name.clone() });
            };
            read_file(&Path::new(&directory).join(name), source)?
        }
        SecretSource::Environment(name) => match std::env::var_os(name) {
            Some(value) => Zeroizing::new(OsString::into_encoded_bytes(value)),
            None => return Err(LoadError::Missing { source_name: source.to_string() }),
        },
        // An agent gives its keys to nobody; a configuration that wants one is refused before this.
        SecretSource::Agent { .. } => {
            let kind = std::io::ErrorKind::Unsupported;
            return Err(LoadError::Unreadable { source_name: source.to_string(), kind });
        }
    };
    trimmed(bytes, source)
}

fn read_file(path: &Path, source: &SecretSource) -> Result<Zeroizing<Vec<u8>>, LoadError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => LoadError::Missing { source_name: source.to_string() },
        kind => LoadError::Unreadable { source_name: source.to_string(), kind },
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    // With room for the limit and one byte more, the buffer never moves and leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 1));
    file.take(MAX_SECRET_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Takes one line end from the end, as editors and `echo` leave it.
fn trimmed(mut bytes: Zeroizing<Vec<u8>>, source: &SecretSource) -> Result<Secret, LoadError> {
    let source_name = || source.to_string();
    if bytes.len() > MAX_SECRET_BYTES {
        return Err(LoadError::TooLarge { source_name: source_name() });
    }
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err(LoadError::Empty { source_name: source_name() });
    }
    String::from_utf8(std::mem::take(&mut *bytes)).map(Secret::new).map_err(|error| {
        error.into_bytes().zeroize();
        LoadError::NotText { source_name: source_name() }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn store(path: &Path, kind: CredentialKind, strict_modes: bool) -> Store {
        let secret = SecretSource::File(path.to_owned());
        let source = CredentialSource { kind, username: None, secret, passphrase: None, strict_modes };
        Store::new([("it".to_owned(), source)].into())
    }

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    async fn pat(content: &[u8]) -> Result<String, LoadError> {
        let file = file(content, 0o600);
        let credential = store(file.path(), CredentialKind::Pat, true).load("it").await?;
        let Material::Pat(token) = credential.material else { unreachable!("the kind is pat") };
        Ok(token.expose().to_owned())
    }

    #[tokio::test]
    async fn one_line_end_is_trimmed_and_nothing_else() {
        assert_eq!(pat(b"token\n").await.unwrap(), "token");
        assert_eq!(pat(b"token\r\n").await.unwrap(), "token");
        assert_eq!(pat(b" token ").await.unwrap(), " token ");
        assert!(matches!(pat(b"token\n\n").await, Err(LoadError::NotText { .. })));
        assert!(matches!(pat(b"\n").await, Err(LoadError::Empty { .. })));
        assert!(matches!(pat(b"").await, Err(LoadError::Empty { .. })));
        assert!(matches!(pat(b"\xff").await, Err(LoadError::NotText { .. })));
        assert!(matches!(pat(&vec![b'a'; MAX_SECRET_BYTES + 1]).await, Err(LoadError::TooLarge { .. })));
    }

    #[tokio::test]
    async fn a_missing_source_is_told_from_an_unknown_name() {
        let store = store(Path::new("/nonexistent/token"), CredentialKind::Pat, true);
        let missing = store.load("it").await.unwrap_err();
        assert_eq!(missing.to_string(), "the file /nonexistent/token does not exist");
        assert!(matches!(store.load("other").await, Err(LoadError::Unknown { .. })));
    }

    #[tokio::test]
    async fn a_private_key_that_others_can_read_is_refused() {
        let key = file(b"-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o640);
        let strict = store(key.path(), CredentialKind::SshKey, true).load("it").await;
        assert!(matches!(strict, Err(LoadError::TooOpen { mode: 0o640, .. })));
        assert!(store(key.path(), CredentialKind::SshKey, false).load("it").await.is_ok());
    }
}
