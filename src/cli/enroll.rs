//! `sortie enroll` and `sortie unenroll`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::access::{AccessError, with_secret};
use super::{Common, Exit, complain, load_config, print, print_json};
use crate::agent::ControlPlane;
use crate::config::{self, Agent, Config, ConfigError, Proxy, SecretSource};
use crate::credential;
use crate::dial::{Alpn, Destination, Door, ProxyEnvironment};
use crate::enroll::{self, EnrollError};
use crate::identity::{self, Identity, IdentityError};
use crate::policy::AddressRule;
use crate::remote_url::{RemoteUrl, Scheme};
use crate::session::Profile;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sortie enroll --control-plane https://sortie.example.com --token-file token.txt

Name, tags and state directory come from the configuration. Run it as the agent's own user:
  sudo -u sortie sortie enroll …")]
pub(super) struct EnrollArgs {
    /// The base URL of the control plane
    #[arg(long, value_name = "URL")]
    control_plane: String,
    /// A file with the enrollment token
    #[arg(long, value_name = "F")]
    token_file: PathBuf,
    /// Certificates of authorities to trust in addition to the platform's
    #[arg(long, value_name = "F")]
    ca_file: Option<PathBuf>,
    /// A proxy: http://HOST:PORT, https://… or socks5://…, or none; HTTPS_PROXY and NO_PROXY hold where it is not given
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sortie unenroll")]
pub(super) struct UnenrollArgs {
    /// Forget the key even where the control plane cannot be told
    #[arg(long)]
    force: bool,
}

/// Why an agent could not be enrolled, or not be released.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Configuration(#[from] ConfigError),
    #[error("{0}")]
    Access(#[from] AccessError),
    #[error("--control-plane expects {0}")]
    Url(String),
    #[error("--proxy expects {0}")]
    Proxy(&'static str),
    #[error("{0}")]
    Token(#[from] credential::LoadError),
    #[error("{0}")]
    Identity(#[from] IdentityError),
    #[error("this agent is enrolled at {0} already: run `sortie unenroll` first")]
    AlreadyEnrolled(String),
    #[error("{0}")]
    Enroll(#[from] EnrollError),
}

impl Failure {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_) | Self::Access(_) | Self::Identity(_) => Exit::Configuration,
            Self::Url(_) | Self::Proxy(_) => Exit::Usage,
            Self::Token(_) | Self::AlreadyEnrolled(_) | Self::Enroll(_) => Exit::Failed,
        }
    }
}

pub(super) async fn execute(common: &Common, args: EnrollArgs) -> Exit {
    match enroll(common, args).await {
        Ok((identity, profile)) => {
            if common.json {
                let control_plane = &identity.control_plane;
                print_json(
                    &json!({ "agent_id": identity.agent_id, "name": profile.name, "control_plane": control_plane }),
                );
            } else {
                let (name, id) = (&profile.name, &identity.agent_id);
                print(&format!("Enrolled {name} as {id} at {}.\n", identity.control_plane));
            }
            Exit::Done
        }
        Err(failure) => complain(failure.exit(), &failure.to_string()),
    }
}

async fn enroll(common: &Common, args: EnrollArgs) -> Result<(Identity, Profile), Failure> {
    let config = config_or_default(common)?;
    let url = config::control_plane_url(&args.control_plane).map_err(Failure::Url)?;
    let proxy = match args.proxy.as_deref() {
        None => Proxy::Environment,
        Some("none") => Proxy::Direct,
        Some(text) => Proxy::Through(config::proxy_server(text).map_err(Failure::Proxy)?),
    };
    // What the configuration says of the very same control plane holds where no flag says otherwise.
    let mut control_plane = control_plane(&config, &url).await?;
    if args.ca_file.is_some() {
        control_plane.destination.ca_file = args.ca_file;
    }
    if args.proxy.is_some() {
        control_plane.destination.proxy = proxy;
    }
    let profile = profile(&config.agent);
    let identity =
        trade(&config.agent.state_dir, &control_plane, &profile, &SecretSource::File(args.token_file))
            .await?;
    Ok((identity, profile))
}

/// Trades the token that `source` holds for a registered key, and keeps the key.
pub(super) async fn trade(
    state_dir: &Path,
    control_plane: &ControlPlane,
    profile: &Profile,
    source: &SecretSource,
) -> Result<Identity, Failure> {
    match identity::load(state_dir) {
        Ok(identity) => return Err(Failure::AlreadyEnrolled(identity.control_plane)),
        Err(IdentityError::NotEnrolled(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let token = credential::load_secret(source).await?;
    let url = control_plane.url.to_string();
    let key = identity::prepare(state_dir, &url)?;
    let door = Door::new(ProxyEnvironment::from_process());
    let ControlPlane { url: base, destination } = control_plane;
    let answer = enroll::enroll(&door, destination, base, &token, &key, profile).await?;
    let identity = Identity { agent_id: answer.agent_id, control_plane: url, key };
    identity::store(state_dir, &identity)?;
    Ok(identity)
}

pub(super) async fn unenroll(common: &Common, args: UnenrollArgs) -> Exit {
    match give_back(common, args.force).await {
        Ok(control_plane) => {
            if common.json {
                print_json(&json!({ "control_plane": control_plane }));
            } else {
                print(&format!("This agent is not enrolled at {control_plane} any more.\n"));
            }
            Exit::Done
        }
        Err(failure) => complain(failure.exit(), &failure.to_string()),
    }
}

async fn give_back(common: &Common, force: bool) -> Result<String, Failure> {
    let config = config_or_default(common)?;
    let identity = identity::load(&config.agent.state_dir)?;
    let url = config::control_plane_url(&identity.control_plane).map_err(Failure::Url)?;
    let control_plane = control_plane(&config, &url).await?;
    let door = Door::new(ProxyEnvironment::from_process());
    let ControlPlane { url: base, destination } = &control_plane;
    match enroll::unenroll(&door, destination, base, &identity).await {
        Ok(()) => {}
        Err(error) if force => {
            complain(Exit::Done, &format!("the control plane was not told: {error}"));
        }
        Err(error) => return Err(error.into()),
    }
    identity::remove(&config.agent.state_dir)?;
    Ok(identity.control_plane)
}

/// The configuration; its defaults where none was named and there is none in the usual place.
pub(super) fn config_or_default(common: &Common) -> Result<Config, ConfigError> {
    match load_config(common) {
        Err(ConfigError::Unreadable { file, .. })
            if file == Path::new(config::DEFAULT_PATH) && !file.exists() && common.config.is_empty() =>
        {
            Config::load(&[], &std::collections::HashMap::new())
        }
        other => other,
    }
}

/// The control plane at `url`, reached as the configuration says where it is the one that stands there.
pub(super) async fn control_plane(config: &Config, url: &RemoteUrl) -> Result<ControlPlane, AccessError> {
    let mut control_plane = without_secret(config, url);
    let destination = &mut control_plane.destination;
    let secret = config.control_plane.as_ref().and_then(|declared| declared.proxy_secret.as_ref());
    destination.proxy = with_secret(destination.proxy.clone(), secret).await?;
    Ok(control_plane)
}

/// The same, without the secret that its proxy may ask for.
pub(super) fn without_secret(config: &Config, url: &RemoteUrl) -> ControlPlane {
    let declared = config.control_plane.as_ref().filter(|declared| declared.url == *url);
    let proxy = match declared {
        Some(declared) => declared.proxy.clone(),
        None => Proxy::Environment,
    };
    let destination = Destination {
        host: url.host().to_owned(),
        port: url.port(),
        tls: url.scheme() == Scheme::Https,
        alpn: Alpn::Http1,
        // The operator named this place himself, and it is where the agent takes its orders from.
        rule: AddressRule::RemoteOrLoopback,
        proxy,
        ca_file: declared.and_then(|declared| declared.ca_file.clone()),
        proxy_ca_file: declared.and_then(|declared| declared.proxy_ca_file.clone()),
        client_certificate: declared.and_then(|declared| declared.client_certificate.clone()),
    };
    ControlPlane { url: url.clone(), destination }
}

pub(super) fn profile(agent: &Agent) -> Profile {
    Profile { name: agent.name.clone(), tags: agent.tags.clone(), max_tasks: agent.max_tasks }
}
