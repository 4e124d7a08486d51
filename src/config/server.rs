//! A git server that the operator declared, in the form that the rest of the daemon works with.

use std::path::PathBuf;

use super::Proxy;
use crate::host_key::Pin;
use crate::provider::Provider;
use crate::remote_url::RemoteUrl;

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
    /// The credential for REST where that of git is none for it: beside an SSH key or a password. A task may
    /// name it for git only where it is listed above as well.
    pub api_credential: Option<String>,
    /// Keys of the SSH hosts that are known, in addition to `host_keys`.
    pub known_hosts_file: Option<PathBuf>,
    /// Host keys of its SSH that are pinned in the configuration itself.
    pub host_keys: Vec<Pin>,
    /// Certificates of authorities that are trusted for this server in addition to the platform's.
    pub ca_file: Option<PathBuf>,
    /// How connections to it leave this host.
    pub proxy: Proxy,
    /// Certificates of authorities that are trusted for an https proxy in addition to the platform's.
    pub proxy_ca_file: Option<PathBuf>,
    /// The certificate that it gets to see where it asks for one.
    pub client_certificate: Option<ClientCertificate>,
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
            api_credential: None,
            known_hosts_file: None,
            host_keys: Vec::new(),
            ca_file: None,
            proxy: Proxy::Environment,
            proxy_ca_file: None,
            client_certificate: None,
            allow_loopback: false,
        }
    }

    /// Whether a task may use the credential of that name on this server.
    pub fn lists_credential(&self, name: &str) -> bool {
        self.credential.as_deref() == Some(name) || self.credentials.iter().any(|listed| listed == name)
    }
}

/// The certificate by which this host shows itself to a server, with its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    /// The certificate, followed by its intermediate ones, in PEM.
    pub cert_file: PathBuf,
    /// Its private key in PEM, not encrypted.
    pub key_file: PathBuf,
    /// Whether a key that others can read is refused.
    pub strict_modes: bool,
}
