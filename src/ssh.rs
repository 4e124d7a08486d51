//! SSH up to a running `git-upload-pack`: banner, handshake, host key, authentication.
//!
//! libssh2 works on a socket behind which a relay carries the bytes of a connection that the door made. It
//! blocks, so all of this but the relay runs on a blocking thread; a cancel or the deadline cuts the socket,
//! which wakes it.

mod approach;
mod error;
mod key;
mod login;
mod relay;
mod transcript;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::credential::Credential;
use crate::dial::{Destination, Door};

pub(crate) use approach::approach;
pub use error::Error;
pub use key::{KeyProblem, TypeProblem};
pub(crate) use key::{fingerprint, key_type};
pub(crate) use login::{Opened, open};
pub use transcript::{Algorithms, Kind};

/// Where to log in over SSH, and as whom.
#[derive(Clone)]
pub struct Login {
    /// The door that the connection goes through.
    pub door: Arc<Door>,
    /// The host and how to get there; `tls` is false.
    pub destination: Destination,
    /// The user at the host.
    pub user: String,
    /// The key; anything but an SSH key is refused.
    pub key: Credential,
    /// The keys that hosts are known by.
    pub known_hosts: KnownHosts,
    /// Whether the server is known to take RSA keys alone: another one is not even shown to it then.
    pub rsa_alone: bool,
    /// What is found out about the server on the way.
    pub seen: Arc<Seen>,
}

/// What a login found out about a server.
#[derive(Debug, Default)]
pub struct Seen {
    /// The algorithms that it offers.
    pub offered: OnceLock<Algorithms>,
}

/// The keys that hosts are known by.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    /// A file in OpenSSH's format; without one no host is known.
    pub file: Option<PathBuf>,
}
