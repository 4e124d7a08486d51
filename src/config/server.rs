//! A git server that the operator declared, in the form that the rest of the daemon works with.

use std::path::PathBuf;

use crate::provider::Provider;
use crate::remote_url::RemoteUrl;
use crate::secret::Secret;

/// A declared server. The list of these is the allowlist; a URL given on the command line is one too.
#[derive(Debug, Clone)]
pub struct Server {
    /// Its key in the configuration.
    pub name: String,
    /// Its kind; `None` only for a URL on the command line, where it is found by looking.
    pub provider: Option<Provider>,
    /// The base: tasks may go to this scheme, host and port, at this path and below.
    pub url: RemoteUrl,
    /// Where its SSH listens, where the operator named it; an `ssh` URL.
    pub ssh: Option<RemoteUrl>,
    /// The credential that a task gets without naming one.
    pub credential: Option<String>,
    /// The other credentials that a task may name.
    pub credentials: Vec<String>,
    /// Keys of the SSH hosts that are known, in addition to `host_keys`.
    pub known_hosts_file: Option<PathBuf>,
    /// Certificates of authorities that are trusted for this server in addition to the platform's.
    pub ca_file: Option<PathBuf>,
    /// How connections to it leave this host.
    pub proxy: Proxy,
    /// Whether its name may lead to a loopback address.
    pub allow_loopback: bool,
}

impl Server {
    /// A server of which nothing is said but where it is: no credential, no further trust, the environment's
    /// proxy, no loopback.
    pub fn new(name: impl Into<String>, provider: Option<Provider>, url: RemoteUrl) -> Self {
        Self {
            name: name.into(),
            provider,
            url,
            ssh: None,
            credential: None,
            credentials: Vec::new(),
            known_hosts_file: None,
            ca_file: None,
            proxy: Proxy::Environment,
            allow_loopback: false,
        }
    }

    /// Whether a task may use the credential of that name on this server.
    pub fn lists_credential(&self, name: &str) -> bool {
        self.credential.as_deref() == Some(name) || self.credentials.iter().any(|listed| listed == name)
    }
}

/// How connections leave this host.
#[derive(Debug, Clone, Default)]
pub enum Proxy {
    /// As the standard variables say: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.
    #[default]
    Environment,
    /// Directly, whatever the environment says.
    Direct,
    /// Through this one.
    Http(HttpProxy),
}

/// An HTTP proxy that makes tunnels with CONNECT.
#[derive(Debug, Clone)]
pub struct HttpProxy {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password for Basic.
    pub authorization: Option<ProxyAuthorization>,
}

/// User and password for a proxy.
#[derive(Debug, Clone)]
pub struct ProxyAuthorization {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}
