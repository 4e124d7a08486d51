//! What this agent may do and where it may go: pure decisions, each with its reason.
//!
//! Nothing here opens a socket or reads a file. The declared servers are the allowlist; the control plane
//! cannot add to it.

mod address;

use std::sync::Arc;

use crate::config::Server;
use crate::provider::Provider;
use crate::remote_url::{RemoteUrl, Scheme};

pub use address::{AddressRefusal, AddressRule, check_address};

/// Why a target is refused before any socket opens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Plain http to a server that is not declared so.
    #[error("plain http is used only for a server that the operator declared with an http URL")]
    PlainHttp,
    /// No declared server has this scheme, host, port and path.
    #[error("{}", .0.message())]
    NotDeclared(NotDeclared),
    /// The task named a server that the configuration does not have.
    #[error("the configuration declares no server named `{0}`")]
    UnknownServer(String),
    /// The task named a credential that the server does not list.
    #[error("the server `{server}` lists no credential named `{credential}`")]
    CredentialNotListed {
        /// The server's name.
        server: String,
        /// The credential's name.
        credential: String,
    },
}

/// How close an undeclared target came to a declared one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDeclared {
    /// No declared server has this host.
    Host(String),
    /// The host is declared, with other ports or schemes.
    Endpoint {
        /// What was asked for, as `scheme://host[:port]`.
        asked: String,
        /// The server that has the host.
        server: String,
    },
    /// The endpoint is declared, for other paths.
    Path {
        /// The server that has the endpoint.
        server: String,
        /// Its base path.
        base: String,
    },
}

impl NotDeclared {
    fn message(&self) -> String {
        match self {
            Self::Host(host) => format!("no declared server has the host {host}"),
            Self::Endpoint { asked, server } => {
                format!("the server `{server}` is declared on that host, but not as {asked}")
            }
            Self::Path { server, base } => {
                format!("the server `{server}` is declared for paths below {base} only")
            }
        }
    }
}

/// The operator's word on where tasks may go.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    servers: Vec<Arc<Server>>,
}

impl Policy {
    /// A policy that allows these servers and nothing else.
    pub fn new(servers: impl IntoIterator<Item = Server>) -> Self {
        Self { servers: servers.into_iter().map(Arc::new).collect() }
    }

    /// The server of that name.
    ///
    /// # Errors
    /// [`Refusal::UnknownServer`].
    pub fn server(&self, name: &str) -> Result<Arc<Server>, Refusal> {
        let found = self.servers.iter().find(|server| server.name == name);
        found.cloned().ok_or_else(|| Refusal::UnknownServer(name.to_owned()))
    }

    /// The declared server that covers a URL; the one with the longest base where several do.
    ///
    /// # Errors
    /// [`Refusal::PlainHttp`] or [`Refusal::NotDeclared`] with how close it came.
    pub fn admit(&self, url: &RemoteUrl) -> Result<Arc<Server>, Refusal> {
        let covering =
            self.servers.iter().filter(|server| bases(server).any(|base| covers(server, base, url)));
        if let Some(server) = covering.max_by_key(|server| server.url.segments().len()) {
            return Ok(Arc::clone(server));
        }
        if url.scheme() == Scheme::Http {
            return Err(Refusal::PlainHttp);
        }
        Err(Refusal::NotDeclared(self.nearest(url)))
    }

    /// Checks that a task may use a credential on a server.
    ///
    /// # Errors
    /// [`Refusal::CredentialNotListed`].
    pub fn admit_credential(server: &Server, credential: &str) -> Result<(), Refusal> {
        if server.lists_credential(credential) {
            return Ok(());
        }
        Err(Refusal::CredentialNotListed { server: server.name.clone(), credential: credential.to_owned() })
    }

    fn nearest(&self, url: &RemoteUrl) -> NotDeclared {
        let same_endpoint = |base: &RemoteUrl| {
            (base.scheme(), base.host(), base.port()) == (url.scheme(), url.host(), url.port())
        };
        for server in &self.servers {
            if let Some(base) = bases(server).find(|base| same_endpoint(base)) {
                return NotDeclared::Path { server: server.name.clone(), base: base.path().to_owned() };
            }
        }
        let same_host = self.servers.iter().find(|s| bases(s).any(|base| base.host() == url.host()));
        match same_host {
            Some(server) => NotDeclared::Endpoint { asked: url.origin(), server: server.name.clone() },
            None => NotDeclared::Host(url.host().to_owned()),
        }
    }
}

/// Whether a base that the operator declared covers a URL. Azure DevOps reads its paths without regard to
/// case, so that another spelling is the same place there and nowhere else.
fn covers(server: &Server, base: &RemoteUrl, url: &RemoteUrl) -> bool {
    let lower = |url: &RemoteUrl| url.with_path(&url.path().to_lowercase());
    let is_azure = server.provider == Some(Provider::AzureDevops);
    base.contains(url) || (is_azure && lower(base).contains(&lower(url)))
}

fn bases(server: &Server) -> impl Iterator<Item = &RemoteUrl> {
    std::iter::once(&server.url).chain(server.ssh.as_ref())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn server(name: &str, url: &str, ssh: Option<&str>) -> Server {
        Server {
            ssh: ssh.map(|url| RemoteUrl::parse(url).unwrap()),
            credential: Some("pat".into()),
            credentials: vec!["other".into()],
            ..Server::new(name, None, RemoteUrl::parse(url).unwrap())
        }
    }

    fn admitted(policy: &Policy, url: &str) -> Result<String, Refusal> {
        policy.admit(&RemoteUrl::parse(url).unwrap()).map(|server| server.name.clone())
    }

    #[test]
    fn only_declared_schemes_hosts_ports_and_paths_are_admitted() {
        let policy = Policy::new([
            server("ado", "https://ado.example/Default", Some("ssh://ado.example:22")),
            server("shop", "https://ado.example/Default/Shop", None),
            server("lab", "http://lab.example:8080", None),
        ]);
        assert_eq!(admitted(&policy, "https://ado.example/Default/X/_git/x").unwrap(), "ado");
        assert_eq!(admitted(&policy, "https://ado.example/Default/Shop/_git/x").unwrap(), "shop");
        assert_eq!(admitted(&policy, "git@ado.example:v3/a/b/c").unwrap(), "ado");
        assert_eq!(admitted(&policy, "http://lab.example:8080/x").unwrap(), "lab");
        let refused = |url| admitted(&policy, url).unwrap_err();
        assert_eq!(refused("http://ado.example/Default/X"), Refusal::PlainHttp);
        assert!(matches!(
            refused("https://ado.example/Other/X"),
            Refusal::NotDeclared(NotDeclared::Path { .. })
        ));
        assert!(matches!(
            refused("https://ado.example:444/Default"),
            Refusal::NotDeclared(NotDeclared::Endpoint { .. })
        ));
        assert!(matches!(refused("https://evil.example/"), Refusal::NotDeclared(NotDeclared::Host(_))));
    }

    #[test]
    fn case_does_not_matter_where_the_server_does_not_mind_it() {
        let mut ado = server("ado", "https://ado.example/DefaultCollection", None);
        assert!(admitted(&Policy::new([ado.clone()]), "https://ado.example/defaultcollection/x").is_err());
        ado.provider = Some(Provider::AzureDevops);
        assert!(admitted(&Policy::new([ado]), "https://ado.example/defaultcollection/x").is_ok());
    }

    #[test]
    fn only_listed_credentials_are_admitted() {
        let ado = server("ado", "https://ado.example", None);
        assert!(
            Policy::admit_credential(&ado, "pat").is_ok() && Policy::admit_credential(&ado, "other").is_ok()
        );
        assert!(matches!(Policy::admit_credential(&ado, "root"), Err(Refusal::CredentialNotListed { .. })));
    }
}
