//! Where a secret comes from. The configuration holds this, never the secret itself.

use std::fmt;
use std::path::PathBuf;

/// The source of one secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, read whenever the secret is needed, so that it can be replaced at any time.
    File(PathBuf),
    /// A variable of the daemon's environment.
    Environment(String),
    /// A credential that systemd passes to the unit (`LoadCredential=`).
    Systemd(String),
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
            Self::Systemd(name) => write!(f, "the systemd credential {name}"),
        }
    }
}
