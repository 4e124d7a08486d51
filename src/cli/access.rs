//! The flags that say where to go and as whom, shared by `test` and `clone`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Common, load_config, usage};
use crate::config::{
    ClientCertificate, Config, ConfigError, CredentialSource, Proxy, ProxyAuthorization, SecretSource,
    Server, proxy_server,
};
use crate::credential::{self, CredentialKind, LoadError, Store};
use crate::dial::{Door, ProxyEnvironment};
use crate::git::{Engine, Limits, Mirrors};
use crate::host_key::Pin;
use crate::policy::Policy;
use crate::provider::Provider;
use crate::provider::detect::{self, Known};
use crate::remote_url::{RemoteUrl, Scheme};
use crate::secret::Secret;
use crate::task::{TargetSpec, Tools};

/// The name of a server or a credential that the command line declares. No configuration can have it.
pub(super) const COMMAND_LINE: &str = "command line";

/// The name of the credential for REST that the command line declares.
const COMMAND_LINE_API: &str = "command line, for REST";

/// The most seconds of a deadline.
const MAX_DEADLINE_SECONDS: f64 = 86_400.0;

/// The kinds of servers, as a person types them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProviderName {
    AzureDevops,
    Gitlab,
    Git,
}

impl From<ProviderName> for Provider {
    fn from(name: ProviderName) -> Self {
        match name {
            ProviderName::AzureDevops => Self::AzureDevops,
            ProviderName::Gitlab => Self::Gitlab,
            ProviderName::Git => Self::Git,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct AccessArgs {
    /// A server that the configuration declares, instead of a URL
    #[arg(long, value_name = "NAME")]
    pub(super) server: Option<String>,
    /// The project on --server; for GitLab the group
    #[arg(long, value_name = "P", requires = "server")]
    project: Option<String>,
    /// The repository in --project; beside the URL of a project, a group or a collection, the one to read there
    #[arg(long, value_name = "R")]
    repository: Option<String>,
    /// The kind of server; found by looking where it is not given
    #[arg(long, value_enum)]
    provider: Option<ProviderName>,
    /// The user name, needed beside --password-file
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// A file with an access token
    #[arg(long, value_name = "F", group = "secret")]
    pat_file: Option<PathBuf>,
    /// A file with a password
    #[arg(long, value_name = "F", group = "secret")]
    password_file: Option<PathBuf>,
    /// A file with a bearer token
    #[arg(long, value_name = "F", group = "secret")]
    bearer_file: Option<PathBuf>,
    /// A private key for SSH
    #[arg(long, value_name = "F", group = "secret")]
    ssh_key: Option<PathBuf>,
    /// The SSH agent at $SSH_AUTH_SOCK instead of a key; one key of it is used
    #[arg(long, group = "secret")]
    ssh_agent: bool,
    /// Which key of --ssh-agent, where it holds several: SHA256:… or a public key
    #[arg(long, value_name = "KEY", requires = "ssh_agent", value_parser = key_of_agent)]
    ssh_agent_key: Option<Pin>,
    /// A file with the passphrase of --ssh-key
    #[arg(long, value_name = "F", requires = "ssh_key")]
    passphrase_file: Option<PathBuf>,
    /// A file with an access token for REST, beside --ssh-key or --password-file; git does not use it
    #[arg(long, value_name = "F")]
    api_pat_file: Option<PathBuf>,
    /// The SSH host keys that are known [default: ~/.ssh/known_hosts]
    #[arg(long, value_name = "F")]
    known_hosts: Option<PathBuf>,
    /// Certificates of authorities to trust in addition to the platform's
    #[arg(long, value_name = "F")]
    ca_file: Option<PathBuf>,
    /// A certificate for a server that asks for one, in PEM
    #[arg(long, value_name = "F", requires = "client_key_file")]
    client_cert_file: Option<PathBuf>,
    /// The private key of --client-cert-file, in PEM
    #[arg(long, value_name = "F", requires = "client_cert_file")]
    client_key_file: Option<PathBuf>,
    /// A proxy: http://HOST:PORT, https://… or socks5://…, or none; HTTPS_PROXY and NO_PROXY hold where it is not given
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// A file with one line, user:password, for the proxy
    #[arg(long, value_name = "F")]
    proxy_auth_file: Option<PathBuf>,
    /// Certificates of authorities to trust for an https proxy in addition to the platform's
    #[arg(long, value_name = "F")]
    proxy_ca_file: Option<PathBuf>,
    /// When to give up; a fraction is allowed
    #[arg(long, value_name = "SECONDS", value_parser = deadline)]
    deadline: Option<Duration>,
}

/// What the flags come to.
pub(super) struct Access {
    pub(super) target: TargetSpec,
    /// The repository to read where the target's URL names none.
    pub(super) test_repository: Option<String>,
    pub(super) provider: Option<Provider>,
    pub(super) credential: Option<String>,
    pub(super) tools: Tools,
    pub(super) deadline: Option<Duration>,
}

/// Why the flags come to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccessError {
    #[error("{0}")]
    Configuration(#[from] ConfigError),
    #[error("the proxy's authentication: {0}")]
    ProxyAuthentication(#[from] LoadError),
    #[error("the proxy's authentication is not one line of the form user:password")]
    ProxyAuthenticationForm,
}

/// What the daemon or the command line works on, before secrets are needed.
struct Declared {
    servers: Vec<Server>,
    proxy_secrets: BTreeMap<String, SecretSource>,
    credentials: BTreeMap<String, CredentialSource>,
    limits: Limits,
    engine: Engine,
    mirrors: Option<Arc<Mirrors>>,
}

impl AccessArgs {
    /// Puts together what the work is done with. `url` is the positional argument.
    pub(super) async fn resolve(self, common: &Common, url: Option<String>) -> Result<Access, AccessError> {
        let target = self.target(url);
        let mut declared = match &target {
            // The variable does not count: with a URL only a file that is named right here is read.
            TargetSpec::Url(text) if common.config.is_empty() => self.declared_by_url(text),
            _ => {
                let config = load_config(common)?;
                let mirrors = own_mirrors(&config);
                Declared {
                    servers: config.servers,
                    proxy_secrets: config.proxy_secrets,
                    credentials: config.credentials,
                    limits: config.limits,
                    engine: config.clones.engine,
                    mirrors,
                }
            }
        };
        let credential = self.credential(&target);
        let name = credential.as_ref().map(|_| COMMAND_LINE.to_owned());
        declared.credentials.extend(credential.map(|source| (COMMAND_LINE.to_owned(), source)));
        declared
            .credentials
            .extend(self.api_credential().map(|source| (COMMAND_LINE_API.to_owned(), source)));
        for server in &mut declared.servers {
            self.override_server(server);
        }
        // The secrets of other servers may be readable for the daemon only, and are not needed here.
        let policy = Policy::new(declared.servers.clone());
        let chosen = target.resolve(&policy).ok().map(|target| target.server.name.clone());
        for server in declared.servers.iter_mut().filter(|server| Some(&server.name) == chosen.as_ref()) {
            server.proxy =
                with_secret(server.proxy.clone(), declared.proxy_secrets.get(&server.name)).await?;
            if let Some(file) = &self.proxy_auth_file {
                if !matches!(server.proxy, Proxy::Through(_)) {
                    usage(
                        "--proxy-auth-file goes with --proxy, or with a server whose configuration names a proxy",
                    );
                }
                let source = SecretSource::File(file.clone());
                server.proxy = with_secret(server.proxy.clone(), Some(&source)).await?;
            }
        }
        let tools = Tools {
            door: Arc::new(Door::new(ProxyEnvironment::from_process())),
            policy: Arc::new(Policy::new(declared.servers)),
            credentials: Arc::new(Store::new(declared.credentials)),
            limits: declared.limits,
            engine: declared.engine,
            // A mirror belongs to a credential that the operator declared, and not to whatever a flag names.
            mirrors: declared.mirrors.filter(|_| name.is_none()),
            temporary: std::env::temp_dir(),
            workspaces: None,
            uploads: None,
        };
        let test_repository = self.repository.clone().filter(|_| self.server.is_none());
        Ok(Access {
            target,
            test_repository,
            provider: self.provider.map(Into::into),
            credential: name,
            tools,
            deadline: self.deadline,
        })
    }

    fn target(&self, url: Option<String>) -> TargetSpec {
        match (url, &self.server) {
            (Some(url), None) => TargetSpec::Url(url),
            (None, Some(name)) => TargetSpec::Server {
                name: name.clone(),
                project: self.project.clone(),
                repository: self.repository.clone(),
            },
            _ => usage("name the target either by its URL or by --server"),
        }
    }

    /// The URL is the declaration: its host and port, at any path. Plain http is never declared so.
    fn declared_by_url(&self, text: &str) -> Declared {
        let url = RemoteUrl::parse(text).ok().filter(|url| url.scheme() != Scheme::Http);
        let provider = self.provider.map(Into::into);
        let server = url.map(|url| {
            // A token for REST declares the same host by HTTPS along with what SSH leads to.
            let rest = (url.scheme() == Scheme::Ssh && self.api_pat_file.is_some())
                .then(|| rest_base(&url, provider));
            let ssh = rest.as_ref().map(|_| url.with_path(""));
            let base = rest.unwrap_or_else(|| url.with_path(""));
            Server { allow_loopback: true, ssh, ..Server::new(COMMAND_LINE, provider, base) }
        });
        Declared {
            servers: server.into_iter().collect(),
            proxy_secrets: BTreeMap::new(),
            credentials: BTreeMap::new(),
            limits: Limits::default(),
            engine: Engine::default(),
            mirrors: None,
        }
    }

    /// What the command line says goes before what the configuration says.
    fn override_server(&self, server: &mut Server) {
        server.credentials.push(COMMAND_LINE.to_owned());
        if self.api_pat_file.is_some() {
            server.api_credential = Some(COMMAND_LINE_API.to_owned());
        }
        if self.known_hosts.is_some() || server.known_hosts_file.is_none() {
            server.known_hosts_file = self.known_hosts.clone().or_else(own_known_hosts);
        }
        if self.ca_file.is_some() {
            server.ca_file.clone_from(&self.ca_file);
        }
        if self.proxy_ca_file.is_some() {
            server.proxy_ca_file.clone_from(&self.proxy_ca_file);
        }
        if let (Some(cert_file), Some(key_file)) = (&self.client_cert_file, &self.client_key_file) {
            let (cert_file, key_file) = (cert_file.clone(), key_file.clone());
            server.client_certificate = Some(ClientCertificate { cert_file, key_file, strict_modes: true });
        }
        match self.proxy.as_deref() {
            None => {}
            Some("none") => server.proxy = Proxy::Direct,
            Some(text) => match proxy_server(text) {
                Ok(proxy) => server.proxy = Proxy::Through(proxy),
                Err(expected) => usage(&format!("--proxy expects {expected}")),
            },
        }
    }

    fn api_credential(&self) -> Option<CredentialSource> {
        let secret = SecretSource::File(self.api_pat_file.clone()?);
        let kind = CredentialKind::Pat;
        Some(CredentialSource { kind, username: None, secret, passphrase: None, strict_modes: true })
    }

    fn credential(&self, target: &TargetSpec) -> Option<CredentialSource> {
        if self.ssh_agent {
            let Some(socket) = std::env::var_os("SSH_AUTH_SOCK") else {
                usage("--ssh-agent takes the agent at $SSH_AUTH_SOCK, which is not set");
            };
            return Some(CredentialSource {
                kind: CredentialKind::SshKey,
                username: self.username.clone(),
                secret: SecretSource::Agent { socket: socket.into(), named: self.ssh_agent_key.clone() },
                passphrase: None,
                strict_modes: true,
            });
        }
        let by_kind = [
            (CredentialKind::Pat, &self.pat_file),
            (CredentialKind::Password, &self.password_file),
            (CredentialKind::Bearer, &self.bearer_file),
            (CredentialKind::SshKey, &self.ssh_key),
        ];
        let (kind, file) = by_kind.into_iter().find_map(|(kind, file)| Some((kind, file.clone()?)))?;
        let user_of_url = match target {
            TargetSpec::Url(text) => {
                RemoteUrl::parse(text).ok().and_then(|url| url.user().map(ToOwned::to_owned))
            }
            TargetSpec::Server { .. } => None,
        };
        let username = match kind {
            CredentialKind::Password => self.username.clone().or(user_of_url),
            _ => self.username.clone(),
        };
        // A URL that is none gets its report, whatever else is missing.
        let is_refused = matches!(target, TargetSpec::Url(text) if RemoteUrl::parse(text).is_err());
        if kind == CredentialKind::Password && username.is_none() && !is_refused {
            usage("--password-file needs --username, or a user in the URL");
        }
        Some(CredentialSource {
            kind,
            username,
            secret: SecretSource::File(file),
            passphrase: self.passphrase_file.clone().map(SecretSource::File),
            strict_modes: true,
        })
    }
}

/// Where the REST interface of a URL for SSH is: at the same host by HTTPS, or at the cloud edition's own.
fn rest_base(url: &RemoteUrl, provider: Option<Provider>) -> RemoteUrl {
    let known = Known { url, base: None, provider, scope: None };
    detect::over_ssh(known).canonical_https().with_path("")
}

fn key_of_agent(text: &str) -> Result<Pin, String> {
    Pin::parse(text).ok_or_else(|| "it is neither SHA256:… nor a public key".to_owned())
}

pub(super) fn deadline(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is no number of seconds".to_owned())?;
    if seconds > 0.0 && seconds <= MAX_DEADLINE_SECONDS {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(format!("it is more than 0 and {MAX_DEADLINE_SECONDS} at the most"))
}

/// The agent's mirrors, where they belong to the user who runs this program: the daemon must be able to read whatever
/// is added to them.
fn own_mirrors(config: &Config) -> Option<Arc<Mirrors>> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::fs::metadata(&config.agent.state_dir).ok()?.uid();
    let bytes = config.clones.mirrors_bytes?;
    let is_own = owner == rustix::process::geteuid().as_raw();
    is_own.then(|| Arc::new(Mirrors::new(config.mirrors(), bytes)))
}

/// The known_hosts file of the user who runs this program.
fn own_known_hosts() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".ssh/known_hosts"))
}

/// A proxy with the user and password that `source` holds.
pub(super) async fn with_secret(proxy: Proxy, source: Option<&SecretSource>) -> Result<Proxy, AccessError> {
    let (Proxy::Through(mut proxy), Some(source)) = (proxy.clone(), source) else { return Ok(proxy) };
    let pair = credential::load_secret(source).await?;
    let (user, password) = pair.expose().split_once(':').ok_or(AccessError::ProxyAuthenticationForm)?;
    let password = Secret::new(password.to_owned());
    proxy.authorization = Some(ProxyAuthorization { user: user.to_owned(), password });
    Ok(Proxy::Through(proxy))
}
