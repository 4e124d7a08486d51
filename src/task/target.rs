//! What a task is aimed at: from what the client wrote to a URL that policy admitted.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::Server;
use crate::policy::{Policy, Refusal};
use crate::provider::{Provider, azure_devops};
use crate::remote_url::{self, RemoteUrl, Scheme, UrlError};

/// What is escaped in a name that becomes a segment of a path.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A target as the client named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetSpec {
    /// By its URL.
    Url(String),
    /// By the name of a declared server, with project and repository on it.
    Server {
        /// The server's name in the configuration.
        name: String,
        /// The project; for GitLab the group.
        project: Option<String>,
        /// The repository.
        repository: Option<String>,
    },
}

/// Why a target is refused before anything is opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is no URL of a git server.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// It is a path of Team Foundation Version Control.
    #[error("the path is one of Team Foundation Version Control")]
    Tfvc,
    /// Policy says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A target that policy admitted.
#[derive(Debug, Clone)]
pub struct Target {
    /// The declared server that covers it.
    pub server: Arc<Server>,
    /// Where it is.
    pub url: RemoteUrl,
    /// The same by SSH, where the target was named by its server and that one declares SSH.
    pub ssh_url: Option<RemoteUrl>,
}

impl TargetSpec {
    /// Finds the URL and asks policy about it.
    ///
    /// # Errors
    /// See [`TargetError`].
    pub fn resolve(&self, policy: &Policy) -> Result<Target, TargetError> {
        let target = match self {
            Self::Url(text) => {
                let url = RemoteUrl::parse(text)?;
                Target { server: policy.admit(&url)?, url, ssh_url: None }
            }
            Self::Server { name, project, repository } => {
                let server = policy.server(name)?;
                let path = path_on(&server, project.as_deref(), repository.as_deref());
                // Parsed again, because a name may hold what no URL may: `..`, for example.
                let url = RemoteUrl::parse(&format!("{}{path}", server.url))?;
                let ssh_url = server.ssh.as_ref().map(|base| ssh_url(&server, base, &path)).transpose()?;
                // A narrower declaration holds for its paths whoever is named; of two for one base the named one is meant.
                let admitted = policy.admit(&url)?;
                let server = if admitted.url == server.url { server } else { admitted };
                Target { server, url, ssh_url }
            }
        };
        if azure_devops::is_tfvc(&target.url) {
            return Err(TargetError::Tfvc);
        }
        Ok(target)
    }

    /// Whether the target was named by its server and not by a URL.
    pub fn names_server(&self) -> bool {
        matches!(self, Self::Server { .. })
    }

    /// The target as a report shows it where it could not be resolved: scrubbed and shortened.
    pub fn shown(&self) -> String {
        match self {
            Self::Url(text) => {
                RemoteUrl::parse(text).map_or_else(|_| remote_url::scrubbed(text), |url| url.to_string())
            }
            Self::Server { name, project, repository } => {
                let parts = [Some(name), project.as_ref(), repository.as_ref()];
                remote_url::scrubbed(&parts.into_iter().flatten().cloned().collect::<Vec<_>>().join("/"))
            }
        }
    }
}

impl Target {
    /// The name of the credential to use: the one that was asked for, or the server's own; `None` is anonymous.
    ///
    /// # Errors
    /// [`Refusal::CredentialNotListed`].
    pub fn credential_name(&self, asked: Option<&str>) -> Result<Option<String>, TargetError> {
        if let Some(name) = asked {
            Policy::admit_credential(&self.server, name)?;
        }
        Ok(asked.or(self.server.credential.as_deref()).map(str::to_owned))
    }

    /// Whether it is reached by SSH.
    pub fn is_ssh(&self) -> bool {
        self.url.scheme() == Scheme::Ssh
    }
}

/// The path below the server's base, as its provider spells it.
fn path_on(server: &Server, project: Option<&str>, repository: Option<&str>) -> String {
    let is_azure = match server.provider {
        Some(provider) => provider == Provider::AzureDevops,
        None => azure_devops::is_cloud_host(server.url.host()),
    };
    let mut path = String::new();
    if let Some(project) = project {
        path += &escaped(project);
    }
    if let Some(repository) = repository {
        if is_azure {
            path += "/_git";
        }
        path += &escaped(repository);
    }
    path
}

/// Escapes each segment; slashes stay, because a group of GitLab's has subgroups.
fn escaped(name: &str) -> String {
    let segments = name.split('/').filter(|segment| !segment.is_empty());
    segments.fold(String::new(), |path, segment| path + "/" + &utf8_percent_encode(segment, NAME).to_string())
}

fn ssh_url(server: &Server, base: &RemoteUrl, path: &str) -> Result<RemoteUrl, UrlError> {
    // Azure DevOps Server has its collection in the path of SSH as well; GitLab leaves its relative root out.
    let above = match server.provider {
        Some(Provider::AzureDevops) if base.path().is_empty() => server.url.path(),
        _ => base.path(),
    };
    let user = base.user().map(|user| format!("{user}@")).unwrap_or_default();
    RemoteUrl::parse(&format!("ssh://{user}{}{above}{path}", base.authority()))
}
