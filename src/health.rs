//! Whether the daemon is well, over HTTP and for its own host alone: `/healthz`, `/readyz` and `/metrics`.
//!
//! `/healthz` answers 200 while the agent's loop comes around, `/readyz` while tasks can be carried out, with what is
//! missing otherwise; `/metrics` is Prometheus's text format. Nothing that is told is secret: no URL, no name of a
//! server, a repository or a task. It is off unless `health.listen` names a loopback address or a Unix socket.

mod answer;
mod metrics;
mod process;
mod serve;

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::HealthAddress;
use crate::local_socket::{self, Purpose};
use crate::status::{Daemon, Status};

pub use serve::serve;

/// How many connections are served at once; more are told so and sent away.
pub const MAX_CONNECTIONS: usize = 16;

/// The largest head of a request, in bytes. A longer one is answered with 431.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;

/// How many headers a request may have.
const MAX_HEADERS: usize = 64;

/// How long the head of a request may take to come.
pub const HEAD_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// How long a connection may last, its answer included.
const CONNECTION_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// What the Unix socket is, in errors.
const PURPOSE: Purpose = Purpose { name: "socket for health", key: "health.listen" };

/// Why health cannot be told where the configuration says.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, or none of this host's.
    #[error(
        "health.listen: {address} cannot be listened on: {kind}; free it, or name another loopback address"
    )]
    Address {
        /// Which one.
        address: SocketAddr,
        /// The class of the system's error.
        kind: ErrorKind,
    },
    /// The Unix socket cannot be made.
    #[error("health.listen: {0}")]
    Socket(#[from] local_socket::BindError),
}

/// Where clients come in.
#[derive(Debug)]
pub enum Listener {
    /// Over loopback.
    Tcp(TcpListener),
    /// Over a Unix socket.
    Unix(local_socket::Listener),
}

/// What the answers are made from.
#[derive(Debug)]
pub struct Source {
    /// What does not change while the daemon runs.
    pub daemon: Daemon,
    /// What it is doing.
    pub status: watch::Receiver<Status>,
}

/// Listens at the configured address.
///
/// # Errors
/// See [`BindError`].
pub async fn bind(address: &HealthAddress) -> Result<Listener, BindError> {
    match address {
        HealthAddress::Tcp(address) => {
            let bound = TcpListener::bind(address).await;
            let failed = |error: std::io::Error| BindError::Address { address: *address, kind: error.kind() };
            Ok(Listener::Tcp(bound.map_err(failed)?))
        }
        HealthAddress::Unix(path) => {
            Ok(Listener::Unix(local_socket::bind(PURPOSE, std::slice::from_ref(path)).await?))
        }
    }
}

impl Listener {
    /// Where it listens: with the port that was given where any would do.
    pub fn address(&self) -> Option<HealthAddress> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(HealthAddress::Tcp),
            Self::Unix(listener) => Some(HealthAddress::Unix(listener.path().to_owned())),
        }
    }
}
