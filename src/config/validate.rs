//! From what is written to what is valid.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sortie_protocol::selector::check_own_tags;

use super::load::nearest;
use super::raw::{Raw, RawAgent, RawControlPlane, RawCredential, RawLimits, RawLog, RawSecret, RawServer};
use super::{Agent, Config, ConfigError, ControlPlane, CredentialSource, Log, LogFormat, Proxy};
use super::{ClientCertificate, ProxyServer, SecretSource, Server};
use crate::credential::CredentialKind;
use crate::git::Limits;
use crate::host_key::Pin;
use crate::remote_url::{RemoteUrl, Scheme};

const DEFAULT_STATE_DIR: &str = "/var/lib/sortie";
const DEFAULT_MAX_TASKS: u32 = 4;
const MAX_TASKS: u32 = 256;
const DEFAULT_DRAIN_SECONDS: u64 = 60;
const MAX_DRAIN_SECONDS: u64 = 86_400;

/// An error about one key.
pub(super) fn invalid(key: impl Into<String>, expected: impl Into<String>) -> ConfigError {
    ConfigError::Value { origin: "the configuration".into(), key: key.into(), expected: expected.into() }
}

pub(super) fn validate(raw: Raw) -> Result<Config, ConfigError> {
    let agent = agent(raw.agent)?;
    let mut credentials = BTreeMap::new();
    for (name, written) in raw.credentials {
        let source = credential(&name, written, agent.strict_modes)?;
        credentials.insert(name, source);
    }
    let mut servers = Vec::new();
    let mut proxy_secrets = BTreeMap::new();
    for (name, written) in raw.servers {
        if let Some(secret) = &written.proxy_auth {
            proxy_secrets.insert(name.clone(), secret_source(&format!("servers.{name}.proxy_auth"), secret)?);
        }
        servers.push(server(&name, written, &credentials, agent.strict_modes)?);
    }
    let control_plane = raw.control_plane.map(|raw| control_plane(raw, agent.strict_modes)).transpose()?;
    Ok(Config {
        agent,
        control_plane,
        servers,
        proxy_secrets,
        credentials,
        log: log(raw.log)?,
        health: super::health::health(&raw.health)?,
        limits: limits(&raw.limits)?,
        max_run: max_run(&raw.limits)?,
        clones: super::clones::clones(&raw.git, &raw.mirrors, raw.workspaces)?,
    })
}

fn agent(raw: RawAgent) -> Result<Agent, ConfigError> {
    let name = raw.name.unwrap_or_else(host_name);
    let name_fits = (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !name_fits {
        return Err(invalid("agent.name", "1 to 64 letters, digits, dashes, underscores and dots"));
    }
    check_own_tags(&raw.tags).map_err(|error| invalid("agent.tags", error.to_string()))?;
    let max_tasks = in_range("agent.max_tasks", raw.max_tasks.unwrap_or(DEFAULT_MAX_TASKS), 1, MAX_TASKS)?;
    let drain = raw.drain_seconds.unwrap_or(DEFAULT_DRAIN_SECONDS);
    let drain = in_range("agent.drain_seconds", drain, 0, MAX_DRAIN_SECONDS)?;
    let state_dir = raw.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into());
    Ok(Agent {
        name,
        tags: raw.tags,
        state_dir: absolute("agent.state_dir", &state_dir)?,
        max_tasks,
        drain: Duration::from_secs(drain),
        strict_modes: raw.strict_modes.unwrap_or(true),
        control_socket: raw.control_socket.map(|path| absolute("agent.control_socket", &path)).transpose()?,
    })
}

/// The first label of the host's own name, as Linux tells it.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let label = name.trim().split('.').next().unwrap_or_default().to_owned();
    if label.is_empty() { "agent".to_owned() } else { label }
}

fn control_plane(raw: RawControlPlane, strict_modes: bool) -> Result<ControlPlane, ConfigError> {
    let text =
        raw.url.ok_or_else(|| invalid("control_plane.url", "the base URL, https://HOST[:PORT][/PREFIX]"))?;
    let url = super::control_plane_url(&text).map_err(|expected| invalid("control_plane.url", expected))?;
    let secret = |key: &str, secret: &Option<RawSecret>| {
        secret.as_ref().map(|secret| secret_source(&format!("control_plane.{key}"), secret)).transpose()
    };
    Ok(ControlPlane {
        url,
        enrollment_token: secret("enrollment_token", &raw.enrollment_token)?,
        ca_file: raw.ca_file.map(|path| absolute("control_plane.ca_file", &path)).transpose()?,
        proxy: proxy("control_plane.proxy", raw.proxy.as_deref())?,
        proxy_secret: secret("proxy_auth", &raw.proxy_auth)?,
        proxy_ca_file: raw
            .proxy_ca_file
            .map(|path| absolute("control_plane.proxy_ca_file", &path))
            .transpose()?,
        client_certificate: client_certificate(
            "control_plane",
            raw.client_cert_file,
            raw.client_key_file,
            strict_modes,
        )?,
    })
}

/// A client certificate of a table, with its key: both or none.
fn client_certificate(
    table: &str,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    strict_modes: bool,
) -> Result<Option<ClientCertificate>, ConfigError> {
    let key = |key: &str| format!("{table}.{key}");
    match (cert_file, key_file) {
        (None, None) => Ok(None),
        (Some(cert_file), Some(key_file)) => Ok(Some(ClientCertificate {
            cert_file: absolute(&key("client_cert_file"), &cert_file)?,
            key_file: absolute(&key("client_key_file"), &key_file)?,
            strict_modes,
        })),
        (Some(_), None) => {
            Err(invalid(key("client_key_file"), "the private key that belongs to client_cert_file"))
        }
        (None, Some(_)) => {
            Err(invalid(key("client_cert_file"), "the certificate that belongs to client_key_file"))
        }
    }
}

fn server(
    name: &str,
    raw: RawServer,
    credentials: &BTreeMap<String, CredentialSource>,
    strict_modes: bool,
) -> Result<Server, ConfigError> {
    let key = |key: &str| format!("servers.{name}.{key}");
    check_name("servers", name)?;
    let expected = "azure-devops, gitlab or git";
    let provider = raw.provider.ok_or_else(|| invalid(key("provider"), expected))?;
    let provider = super::provider_named(&provider).ok_or_else(|| invalid(key("provider"), expected))?;
    let text = raw.url.ok_or_else(|| invalid(key("url"), "the base URL of the server"))?;
    let url = RemoteUrl::parse(&text).map_err(|error| invalid(key("url"), format!("a URL, but {error}")))?;
    if url.user().is_some() && url.scheme() != Scheme::Ssh {
        return Err(invalid(key("url"), "a URL without a user: that belongs to the credential"));
    }
    let ssh = raw.ssh.map(|text| ssh_url(&key("ssh"), &text)).transpose()?;
    for used in raw.credential.iter().chain(&raw.credentials) {
        declared_credential(&key("credential"), used, credentials)?;
    }
    if let Some(used) = &raw.api_credential {
        let key = key("api_credential");
        let kind = declared_credential(&key, used, credentials)?.kind;
        if !matches!(kind, CredentialKind::Pat | CredentialKind::Bearer) {
            return Err(invalid(key, "a credential of the kind pat or bearer: REST takes no other"));
        }
    }
    let path = |part: &str, path: Option<PathBuf>| path.map(|path| absolute(&key(part), &path)).transpose();
    Ok(Server {
        ssh,
        credential: raw.credential,
        credentials: raw.credentials,
        api_credential: raw.api_credential,
        known_hosts_file: path("known_hosts_file", raw.known_hosts_file)?,
        host_keys: raw.host_keys.iter().map(|text| pin(&key("host_keys"), text)).collect::<Result<_, _>>()?,
        ca_file: path("ca_file", raw.ca_file)?,
        proxy: proxy(&key("proxy"), raw.proxy.as_deref())?,
        proxy_ca_file: path("proxy_ca_file", raw.proxy_ca_file)?,
        client_certificate: client_certificate(
            &format!("servers.{name}"),
            raw.client_cert_file,
            raw.client_key_file,
            strict_modes,
        )?,
        allow_loopback: raw.allow_loopback,
        ..Server::new(name, Some(provider), url)
    })
}

fn pin(key: &str, text: &str) -> Result<Pin, ConfigError> {
    Pin::parse(text).ok_or_else(|| invalid(key, "lines like ssh-ed25519 AAAA…, SHA256:… or ssh-rsa SHA256:…"))
}

fn declared_credential<'a>(
    key: &str,
    used: &str,
    credentials: &'a BTreeMap<String, CredentialSource>,
) -> Result<&'a CredentialSource, ConfigError> {
    credentials.get(used).ok_or_else(|| {
        let near = nearest(used, credentials.keys().map(String::as_str));
        let near = near.map(|near| format!(" (is `{near}` meant?)")).unwrap_or_default();
        invalid(key, format!("the name of a table [credentials.<name>]{near}"))
    })
}

fn ssh_url(key: &str, text: &str) -> Result<RemoteUrl, ConfigError> {
    let url =
        RemoteUrl::parse(text).map_err(|error| invalid(key, format!("ssh://HOST[:PORT], but {error}")))?;
    if url.scheme() == Scheme::Ssh { Ok(url) } else { Err(invalid(key, "ssh://HOST[:PORT]")) }
}

fn credential(name: &str, raw: RawCredential, strict_modes: bool) -> Result<CredentialSource, ConfigError> {
    let key = |key: &str| format!("credentials.{name}.{key}");
    check_name("credentials", name)?;
    let expected = "pat, password, bearer or ssh-key";
    let kind = raw.kind.ok_or_else(|| invalid(key("kind"), expected))?;
    let kind = CredentialKind::from_name(&kind).ok_or_else(|| invalid(key("kind"), expected))?;
    let secret = raw.secret.ok_or_else(|| invalid(key("secret"), SECRET_FORM))?;
    let passphrase = raw.passphrase.map(|secret| secret_source(&key("passphrase"), &secret)).transpose()?;
    if passphrase.is_some() && kind != CredentialKind::SshKey {
        return Err(invalid(key("passphrase"), "a credential of the kind ssh-key"));
    }
    if kind == CredentialKind::Password && raw.username.is_none() {
        return Err(invalid(key("username"), "the user whose password this is"));
    }
    let username_fits =
        |user: &String| !user.is_empty() && !user.contains(':') && !user.chars().any(char::is_control);
    if !raw.username.iter().all(username_fits) {
        return Err(invalid(key("username"), "a name without colons and control characters"));
    }
    Ok(CredentialSource {
        kind,
        username: raw.username,
        secret: if kind == CredentialKind::SshKey && secret.agent.is_some() {
            ssh_agent(&key("secret"), &secret)?
        } else {
            secret_source(&key("secret"), &secret)?
        },
        passphrase,
        strict_modes: raw.strict_modes.unwrap_or(strict_modes),
    })
}

/// A key that an SSH agent holds.
fn ssh_agent(key: &str, raw: &RawSecret) -> Result<SecretSource, ConfigError> {
    let RawSecret { file: None, env: None, systemd: None, agent: Some(socket), key: named } = raw else {
        return Err(invalid(key, "{ agent = … } with no other source beside it"));
    };
    let socket = absolute(&format!("{key}.agent"), socket)?;
    let named = named.as_ref().map(|text| pin(&format!("{key}.key"), text)).transpose()?;
    Ok(SecretSource::Agent { socket, named })
}

/// What every secret's table looks like.
pub(super) const SECRET_FORM: &str = "exactly one of { file = … }, { env = … } and { systemd = … }";

fn secret_source(key: &str, raw: &RawSecret) -> Result<SecretSource, ConfigError> {
    if raw.agent.is_some() || raw.key.is_some() {
        let expected = "agent and key only as the secret of a credential of the kind ssh-key";
        return Err(invalid(key, expected));
    }
    match (&raw.file, &raw.env, &raw.systemd) {
        (Some(path), None, None) => Ok(SecretSource::File(absolute(&format!("{key}.file"), path)?)),
        (None, Some(name), None) if is_plain(name) => Ok(SecretSource::Environment(name.clone())),
        (None, None, Some(name)) if is_plain(name) => Ok(SecretSource::Systemd(name.clone())),
        (None, Some(_), None) => Err(invalid(format!("{key}.env"), "the name of a variable")),
        (None, None, Some(_)) => {
            Err(invalid(format!("{key}.systemd"), "the name of a credential of the unit"))
        }
        _ => Err(invalid(key, SECRET_FORM)),
    }
}

/// Names of variables and of systemd credentials hold no slash, so that they cannot point elsewhere.
fn is_plain(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=255).contains(&name.len()) && name.chars().all(fits) && name != "." && name != ".."
}

fn check_name(table: &str, name: &str) -> Result<(), ConfigError> {
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if fits {
        return Ok(());
    }
    Err(invalid(format!("{table}.{name}"), "a name of small letters, digits and underscores, a letter first"))
}

fn proxy(key: &str, text: Option<&str>) -> Result<Proxy, ConfigError> {
    match text {
        None => Ok(Proxy::Environment),
        Some("none") => Ok(Proxy::Direct),
        Some(text) => Ok(Proxy::Through(proxy_server(text).map_err(|expected| invalid(key, expected))?)),
    }
}

/// Parses the URL of a proxy without credentials.
pub(super) fn proxy_server(text: &str) -> Result<ProxyServer, &'static str> {
    const EXPECTED: &str = "http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT (user and password belong \
                            into proxy_auth or --proxy-auth-file) or none";
    match ProxyServer::parse(text) {
        Ok(proxy) if text.contains("://") && proxy.authorization.is_none() => Ok(proxy),
        _ => Err(EXPECTED),
    }
}

fn log(raw: RawLog) -> Result<Log, ConfigError> {
    use tracing::Level;
    let level = match raw.level.as_deref().unwrap_or("info") {
        "error" => Level::ERROR,
        "warn" => Level::WARN,
        "info" => Level::INFO,
        "debug" => Level::DEBUG,
        "trace" => Level::TRACE,
        _ => return Err(invalid("log.level", "error, warn, info, debug or trace")),
    };
    let format = match raw.format.as_deref().unwrap_or("text") {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        "journald" => LogFormat::Journald,
        _ => return Err(invalid("log.format", "text, json or journald")),
    };
    Ok(Log { level, format })
}

fn limits(raw: &RawLimits) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    let at_least_one = |key: &str, value: u64| in_range(&format!("limits.{key}"), value, 1, i64::MAX as u64);
    if let Some(bytes) = raw.bytes {
        limits.max_bytes = at_least_one("bytes", bytes)?;
    }
    if let Some(objects) = raw.objects {
        limits.max_objects = at_least_one("objects", objects)?;
    }
    if let Some(files) = raw.files {
        limits.max_files = at_least_one("files", files)?;
    }
    if let Some(bytes) = raw.blob_bytes {
        limits.max_blob_bytes = at_least_one("blob_bytes", bytes)?;
    }
    if let Some(bytes) = raw.expanded_bytes {
        limits.max_expanded_bytes = at_least_one("expanded_bytes", bytes)?;
    }
    Ok(limits)
}

/// How long any attempt may take, whatever its task asks for.
fn max_run(raw: &RawLimits) -> Result<Duration, ConfigError> {
    let seconds = raw.seconds.unwrap_or(sortie_protocol::task::MAX_SECONDS);
    in_range("limits.seconds", seconds, 1, sortie_protocol::task::MAX_SECONDS).map(Duration::from_secs)
}

pub(super) fn in_range<T: PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    least: T,
    most: T,
) -> Result<T, ConfigError> {
    if (&least..=&most).contains(&&value) {
        return Ok(value);
    }
    Err(invalid(key, format!("a whole number from {least} to {most}")))
}

pub(super) fn absolute(key: &str, path: &Path) -> Result<PathBuf, ConfigError> {
    if path.is_absolute() { Ok(path.to_owned()) } else { Err(invalid(key, "an absolute path")) }
}
