//! SSH up to a running `git-upload-pack`: banner, handshake, host key, authentication.
//!
//! libssh2 works on a socket behind which a relay carries the bytes of a connection that the door made. It
//! blocks, so all of this but the relay runs on a blocking thread; a cancel or the deadline cuts the socket,
//! which wakes it.

mod agent;
mod approach;
mod authenticate;
mod error;
mod key;
mod login;
mod relay;
mod transcript;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::credential::Credential;
use crate::dial::{Destination, Door};
use crate::host_key::Pin;

pub use agent::AgentProblem;
pub(crate) use approach::approach;
pub use error::{Error, KnownKey};
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
    /// Whether the server is known to answer a request for a shell with a greeting and nothing else. Elsewhere a
    /// shell is never asked for.
    pub greets: bool,
    /// What is found out about the server on the way.
    pub seen: Arc<Seen>,
}

/// What a login found out about a server.
#[derive(Debug, Default)]
pub struct Seen {
    /// The algorithms that it offers.
    pub offered: OnceLock<Algorithms>,
    /// What it says to people who ask for a shell.
    pub greeting: OnceLock<String>,
}

/// The keys that hosts are known by.
///
/// What the file and the pins say adds up: one that vouches for a key is enough. But a key that the file revokes
/// stays refused, and where there are pins, a key that nothing vouches for is another one than the pinned.
#[derive(Debug, Clone, Default)]
pub struct KnownHosts {
    /// A file in OpenSSH's format.
    pub file: Option<PathBuf>,
    /// Keys that are pinned in the configuration.
    pub pins: Vec<Pin>,
    /// The key of the configuration where they stand.
    pub pins_key: String,
}
