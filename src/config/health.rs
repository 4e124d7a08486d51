//! Where the daemon tells whether it is well: `[health]`.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::raw::RawHealth;
use super::validate::invalid;

/// What `health.listen` takes, and why it takes no more.
const EXPECTED: &str = "a loopback address with a port, such as 127.0.0.1:7801 or [::1]:7801, or a Unix socket, such as \
                        unix:/run/sortie/health.sock: nothing guards what is told there, so that other hosts are not let in";

/// What marks the path of a Unix socket. An absolute path needs no mark.
const UNIX: &str = "unix:";

/// Where health is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthAddress {
    /// A loopback address; the port 0 is any free one.
    Tcp(SocketAddr),
    /// A Unix socket, by its absolute path.
    Unix(PathBuf),
}

impl fmt::Display for HealthAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// The address, where one is configured.
pub(super) fn health(raw: &RawHealth) -> Result<Option<HealthAddress>, ConfigError> {
    let Some(text) = &raw.listen else { return Ok(None) };
    let path = Path::new(text.strip_prefix(UNIX).unwrap_or(text));
    if path.is_absolute() && path.file_name().is_some() {
        return Ok(Some(HealthAddress::Unix(path.to_owned())));
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(Some(HealthAddress::Tcp(address))),
        _ => Err(invalid("health.listen", EXPECTED)),
    }
}
