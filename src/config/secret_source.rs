//! Where a secret comes from. The configuration holds this, never the secret itself.

use std::fmt;
use std::path::PathBuf;

use crate::host_key::Pin;

/// The source of one secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file, read whenever the secret is needed, so that it can be replaced at any time.
    File(PathBuf),
    /// A variable of the daemon's environment.
    Environment(String),
    /// A credential that systemd passes to the unit (`LoadCredential=`).
    Systemd(String),
    /// An SSH agent that holds a private key and signs with it.
    Agent {
        /// Where it listens.
        socket: PathBuf,
        /// Which of its keys; its only one where this is missing.
        named: Option<Pin>,
    },
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
            Self::Systemd(name) => write!(f, "the systemd credential {name}"),
            Self::Agent { socket, .. } => write!(f, "the SSH agent at {}", socket.display()),
        }
    }
}
