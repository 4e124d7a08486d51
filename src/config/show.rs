//! The configuration as it holds, for `sortie config show`: defaults filled in, secrets only by source.

use serde_json::{Map, Value, json};

use super::{Config, ControlPlane, CredentialSource, LogFormat, Proxy, SecretSource, Server};

pub(super) fn toml(config: &Config) -> String {
    toml::to_string_pretty(&without_nulls(json(config))).unwrap_or_default()
}

pub(super) fn json(config: &Config) -> Value {
    let servers: Map<_, _> = config.servers.iter().map(|s| (s.name.clone(), server(s, config))).collect();
    let credentials: Map<_, _> =
        config.credentials.iter().map(|(name, c)| (name.clone(), credential(c))).collect();
    json!({
        "agent": {
            "name": config.agent.name,
            "tags": config.agent.tags,
            "state_dir": config.agent.state_dir,
            "max_tasks": config.agent.max_tasks,
            "drain_seconds": config.agent.drain.as_secs(),
            "strict_modes": config.agent.strict_modes,
            "control_socket": config.agent.control_socket,
        },
        "control_plane": config.control_plane.as_ref().map(control_plane),
        "servers": servers,
        "credentials": credentials,
        "log": {
            "level": config.log.level.as_str().to_ascii_lowercase(),
            "format": match config.log.format {
                LogFormat::Text => "text",
                LogFormat::Json => "json",
                LogFormat::Journald => "journald",
            },
        },
        "health": { "listen": config.health.as_ref().map(ToString::to_string) },
        "limits": {
            "bytes": config.limits.max_bytes,
            "objects": config.limits.max_objects,
            "files": config.limits.max_files,
            "blob_bytes": config.limits.max_blob_bytes,
            "expanded_bytes": config.limits.max_expanded_bytes,
            "seconds": config.max_run.as_secs(),
        },
        "git": { "engine": config.clones.engine.as_str() },
        "mirrors": {
            "enabled": config.clones.mirrors_bytes.is_some(),
            "bytes": config.clones.mirrors_bytes,
        },
        "workspaces": {
            "bytes": config.clones.workspaces.max_bytes,
            "ttl_seconds": config.clones.workspaces.ttl.as_secs(),
            "directories": config.clones.workspaces.directories,
        },
    })
}

fn control_plane(control_plane: &ControlPlane) -> Value {
    json!({
        "url": control_plane.url.to_string(),
        "enrollment_token": control_plane.enrollment_token.as_ref().map(source),
        "ca_file": control_plane.ca_file,
        "client_cert_file": control_plane.client_certificate.as_ref().map(|own| &own.cert_file),
        "client_key_file": control_plane.client_certificate.as_ref().map(|own| &own.key_file),
        "proxy": proxy(&control_plane.proxy),
        "proxy_auth": control_plane.proxy_secret.as_ref().map(source),
        "proxy_ca_file": control_plane.proxy_ca_file,
    })
}

fn server(server: &Server, config: &Config) -> Value {
    json!({
        "provider": server.provider.map(|provider| provider.as_str()),
        "url": server.url.to_string(),
        "ssh": server.ssh.as_ref().map(ToString::to_string),
        "credential": server.credential,
        "credentials": server.credentials,
        "api_credential": server.api_credential,
        "known_hosts_file": server.known_hosts_file,
        "host_keys": server.host_keys.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "ca_file": server.ca_file,
        "client_cert_file": server.client_certificate.as_ref().map(|own| &own.cert_file),
        "client_key_file": server.client_certificate.as_ref().map(|own| &own.key_file),
        "proxy": proxy(&server.proxy),
        "proxy_auth": config.proxy_secrets.get(&server.name).map(source),
        "proxy_ca_file": server.proxy_ca_file,
        "allow_loopback": server.allow_loopback,
    })
}

fn credential(credential: &CredentialSource) -> Value {
    json!({
        "kind": credential.kind.as_str(),
        "username": credential.username,
        "secret": source(&credential.secret),
        "passphrase": credential.passphrase.as_ref().map(source),
        "strict_modes": credential.strict_modes,
    })
}

fn source(source: &SecretSource) -> Value {
    match source {
        SecretSource::File(path) => json!({ "file": path }),
        SecretSource::Environment(name) => json!({ "env": name }),
        SecretSource::Systemd(name) => json!({ "systemd": name }),
        SecretSource::Agent { socket, named } => {
            json!({ "agent": socket, "key": named.as_ref().map(ToString::to_string) })
        }
    }
}

fn proxy(proxy: &Proxy) -> Option<String> {
    match proxy {
        Proxy::Environment => None,
        Proxy::Direct => Some("none".to_owned()),
        Proxy::Through(proxy) => Some(proxy.url()),
    }
}

/// TOML has no null: what is not set is left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let set = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(set.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        other => other,
    }
}
