//! What the configuration says, turned into what is valid. Nothing here opens a socket or reads a secret.

mod clones;
mod health;
mod load;
mod proxy;
mod raw;
mod secret_source;
mod server;
mod show;
mod validate;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

pub use clones::{Clones, WorkspaceSettings};
pub use health::HealthAddress;
pub use proxy::{Proxy, ProxyAuthorization, ProxyKind, ProxyServer, ProxySettingProblem};
pub use secret_source::SecretSource;
pub use server::{ClientCertificate, Server};

use crate::credential::CredentialKind;
use crate::git::Limits;
use crate::provider::Provider;
use crate::remote_url::{RemoteUrl, Scheme};

/// Where the configuration is, unless the command line or `SORTIE_CONFIG` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/sortie/config.toml";

/// Why a configuration is not valid: where it stands and what is expected there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {problem}", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// The kind of the system's error, or a limit.
        problem: String,
    },
    /// The source is no TOML.
    #[error("{origin}: is not valid TOML: {problem}")]
    Syntax {
        /// The file, or the environment.
        origin: String,
        /// Line, column and what was expected.
        problem: String,
    },
    /// A key that no table has.
    #[error("{origin}: `{key}` is not a key{}", nearest.as_ref().map(|key| format!("; is `{key}` meant?")).unwrap_or_default())]
    UnknownKey {
        /// The file, or the environment.
        origin: String,
        /// The whole key.
        key: String,
        /// The right key that was most likely meant.
        nearest: Option<String>,
    },
    /// A key whose name is taken for a later version.
    #[error("{origin}: `{key}` is not supported by this version: remove it")]
    NotSupportedYet {
        /// The file, or the environment.
        origin: String,
        /// The whole key.
        key: String,
    },
    /// A value that its key does not take. The value itself is not shown: it could be a secret.
    #[error("{origin}: `{key}` expects {expected}")]
    Value {
        /// The file, the environment, or both merged.
        origin: String,
        /// The whole key.
        key: String,
        /// What is expected.
        expected: String,
    },
    /// A variable would declare a server or a credential that no file declares.
    #[error("the environment: {variable} would add to [{table}]; a variable may only change what a file declares{}", nearest.as_ref().map(|name| format!(" (is `{name}` meant?)")).unwrap_or_default())]
    EnvironmentAdds {
        /// The variable.
        variable: String,
        /// `servers` or `credentials`.
        table: String,
        /// The declared name that was most likely meant.
        nearest: Option<String>,
    },
}

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// What this agent is.
    pub agent: Agent,
    /// Where its control plane is; `sortie test` and `sortie clone` need none.
    pub control_plane: Option<ControlPlane>,
    /// The allowlist.
    pub servers: Vec<Server>,
    /// By the name of a server: where `user:password` for its proxy comes from.
    pub proxy_secrets: BTreeMap<String, SecretSource>,
    /// By name: where secrets come from.
    pub credentials: BTreeMap<String, CredentialSource>,
    /// How to log.
    pub log: Log,
    /// Where it is told whether the daemon is well; nowhere unless it is configured.
    pub health: Option<HealthAddress>,
    /// How much a clone may take.
    pub limits: Limits,
    /// How long any attempt may take, whatever its task asks for.
    pub max_run: Duration,
    /// How clones are made, and what of them is kept.
    pub clones: Clones,
}

/// What this agent is.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its name, unique at its control plane.
    pub name: String,
    /// Its own tags.
    pub tags: Vec<String>,
    /// Where it keeps its key, its journal and its workspaces.
    pub state_dir: PathBuf,
    /// How many tasks it runs at once.
    pub max_tasks: u32,
    /// How long running tasks may go on after the first SIGTERM.
    pub drain: Duration,
    /// Whether a private key that others can read is refused, or only warned about.
    pub strict_modes: bool,
    /// Where the daemon answers `status` and `doctor`; `None` is the usual place.
    pub control_socket: Option<PathBuf>,
}

/// Where the control plane is and how to get there.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    /// Its base URL.
    pub url: RemoteUrl,
    /// Where an enrollment token comes from, for agents that enroll by themselves.
    pub enrollment_token: Option<SecretSource>,
    /// Certificates of authorities that are trusted for it in addition to the platform's.
    pub ca_file: Option<PathBuf>,
    /// How connections to it leave this host.
    pub proxy: Proxy,
    /// Where `user:password` for the proxy comes from.
    pub proxy_secret: Option<SecretSource>,
    /// Certificates of authorities that are trusted for an https proxy in addition to the platform's.
    pub proxy_ca_file: Option<PathBuf>,
    /// The certificate that it gets to see where it asks for one.
    pub client_certificate: Option<ClientCertificate>,
}

/// A credential as it is declared, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialSource {
    /// Its kind.
    pub kind: CredentialKind,
    /// The user, where one is needed.
    pub username: Option<String>,
    /// Where the secret comes from.
    pub secret: SecretSource,
    /// Where the passphrase of a key comes from.
    pub passphrase: Option<SecretSource>,
    /// Whether a private key that others can read is refused.
    pub strict_modes: bool,
}

/// How to log.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// The least level that is shown.
    pub level: tracing::Level,
    /// The form.
    pub format: LogFormat,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people, on standard error.
    Text,
    /// One JSON object a line, on standard error.
    Json,
    /// The journal's own protocol, with its fields.
    Journald,
}

impl Config {
    /// Reads the files, later ones over earlier ones, and the variables over all of them.
    ///
    /// # Errors
    /// The first thing that is not as it must be.
    pub fn load(files: &[PathBuf], variables: &HashMap<String, String>) -> Result<Self, ConfigError> {
        validate::validate(load::load(files, variables)?)
    }

    /// The configuration in TOML, every default filled in and no secret in it.
    pub fn show(&self) -> String {
        show::toml(self)
    }

    /// The same for programs.
    pub fn show_json(&self) -> serde_json::Value {
        show::json(self)
    }

    /// Where the agent keeps what was fetched before.
    pub fn mirrors(&self) -> PathBuf {
        self.agent.state_dir.join("mirrors")
    }

    /// Where the agent puts what it needs for a moment.
    pub fn temporary(&self) -> PathBuf {
        self.agent.state_dir.join("tmp")
    }

    /// Where the agent keeps what a clone task makes.
    pub fn workspaces(&self) -> PathBuf {
        self.agent.state_dir.join("workspaces")
    }

    /// Where the agent notes what clone tasks have put into directories of the operator's.
    pub fn placed(&self) -> PathBuf {
        self.agent.state_dir.join("placed")
    }
}

/// The files to read: those of the command line, else the variable's, else the default.
pub fn files(named: &[PathBuf], by_variable: Option<PathBuf>) -> Vec<PathBuf> {
    if named.is_empty() { vec![by_variable.unwrap_or_else(|| DEFAULT_PATH.into())] } else { named.to_vec() }
}

/// Parses the base URL of a control plane: https, or http on loopback alone.
///
/// # Errors
/// What is expected instead.
pub fn control_plane_url(text: &str) -> Result<RemoteUrl, String> {
    let url = RemoteUrl::parse(text).map_err(|error| format!("https://HOST[:PORT][/PREFIX], but {error}"))?;
    let is_loopback = url.host() == "localhost" || url.address().is_some_and(|address| address.is_loopback());
    match url.scheme() {
        _ if url.user().is_some() => Err("a URL without a user".to_owned()),
        Scheme::Https => Ok(url),
        Scheme::Http if is_loopback => Ok(url),
        Scheme::Http => Err("https://…: plain http is used only on this very host".to_owned()),
        Scheme::Ssh => Err("https://HOST[:PORT][/PREFIX]".to_owned()),
    }
}

/// The provider of a name that a person typed.
pub fn provider_named(name: &str) -> Option<Provider> {
    [Provider::AzureDevops, Provider::Gitlab, Provider::Git]
        .into_iter()
        .find(|provider| provider.as_str() == name)
}

/// Parses the URL of a proxy, without credentials in it.
///
/// # Errors
/// What is expected instead.
pub fn proxy_server(text: &str) -> Result<ProxyServer, &'static str> {
    validate::proxy_server(text)
}

#[cfg(test)]
#[path = "config/tests.rs"]
mod tests;
