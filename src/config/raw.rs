//! The configuration as it is written: every key optional, nothing judged yet.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Raw {
    pub(super) agent: RawAgent,
    pub(super) control_plane: Option<RawControlPlane>,
    pub(super) servers: BTreeMap<String, RawServer>,
    pub(super) credentials: BTreeMap<String, RawCredential>,
    pub(super) log: RawLog,
    pub(super) health: RawHealth,
    pub(super) limits: RawLimits,
    pub(super) git: RawGit,
    pub(super) mirrors: RawMirrors,
    pub(super) workspaces: RawWorkspaces,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawAgent {
    pub(super) name: Option<String>,
    pub(super) tags: Vec<String>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) max_tasks: Option<u32>,
    pub(super) drain_seconds: Option<u64>,
    pub(super) strict_modes: Option<bool>,
    pub(super) control_socket: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawControlPlane {
    pub(super) url: Option<String>,
    pub(super) enrollment_token: Option<RawSecret>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) proxy: Option<String>,
    pub(super) proxy_auth: Option<RawSecret>,
    pub(super) proxy_ca_file: Option<PathBuf>,
    pub(super) client_cert_file: Option<PathBuf>,
    pub(super) client_key_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawServer {
    pub(super) provider: Option<String>,
    pub(super) url: Option<String>,
    pub(super) ssh: Option<String>,
    pub(super) credential: Option<String>,
    pub(super) credentials: Vec<String>,
    pub(super) api_credential: Option<String>,
    pub(super) known_hosts_file: Option<PathBuf>,
    pub(super) host_keys: Vec<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) proxy: Option<String>,
    pub(super) proxy_auth: Option<RawSecret>,
    pub(super) proxy_ca_file: Option<PathBuf>,
    pub(super) client_cert_file: Option<PathBuf>,
    pub(super) client_key_file: Option<PathBuf>,
    pub(super) allow_loopback: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawCredential {
    pub(super) kind: Option<String>,
    pub(super) username: Option<String>,
    pub(super) secret: Option<RawSecret>,
    pub(super) passphrase: Option<RawSecret>,
    pub(super) strict_modes: Option<bool>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(super) struct RawSecret {
    pub(super) file: Option<PathBuf>,
    pub(super) env: Option<String>,
    pub(super) systemd: Option<String>,
    pub(super) agent: Option<PathBuf>,
    pub(super) key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawLog {
    pub(super) level: Option<String>,
    pub(super) format: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawHealth {
    pub(super) listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawLimits {
    pub(super) bytes: Option<u64>,
    pub(super) objects: Option<u64>,
    pub(super) files: Option<u64>,
    pub(super) blob_bytes: Option<u64>,
    pub(super) expanded_bytes: Option<u64>,
    pub(super) seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawGit {
    pub(super) engine: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawMirrors {
    pub(super) enabled: Option<bool>,
    pub(super) bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RawWorkspaces {
    pub(super) bytes: Option<u64>,
    pub(super) ttl_seconds: Option<u64>,
    pub(super) directories: Vec<PathBuf>,
}

/// The keys that each table knows. `*` stands for a name that the operator chooses.
///
/// A message about an unknown key takes its suggestion from here; a test holds this list against what the
/// tables above really accept.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "agent",
            "control_plane",
            "servers",
            "credentials",
            "log",
            "health",
            "limits",
            "git",
            "mirrors",
            "workspaces",
        ],
    ),
    ("agent", &["name", "tags", "state_dir", "max_tasks", "drain_seconds", "strict_modes", "control_socket"]),
    (
        "control_plane",
        &[
            "url",
            "enrollment_token",
            "ca_file",
            "client_cert_file",
            "client_key_file",
            "proxy",
            "proxy_auth",
            "proxy_ca_file",
        ],
    ),
    (
        "servers.*",
        &[
            "provider",
            "url",
            "ssh",
            "credential",
            "credentials",
            "api_credential",
            "known_hosts_file",
            "host_keys",
            "ca_file",
            "client_cert_file",
            "client_key_file",
            "proxy",
            "proxy_auth",
            "proxy_ca_file",
            "allow_loopback",
        ],
    ),
    ("credentials.*", &["kind", "username", "secret", "passphrase", "strict_modes"]),
    ("log", &["level", "format"]),
    ("health", &["listen"]),
    ("limits", &["bytes", "objects", "files", "blob_bytes", "expanded_bytes", "seconds"]),
    ("git", &["engine"]),
    ("mirrors", &["enabled", "bytes"]),
    ("workspaces", &["bytes", "ttl_seconds", "directories"]),
    ("control_plane.enrollment_token", SECRET_KEYS),
    ("control_plane.proxy_auth", SECRET_KEYS),
    ("servers.*.proxy_auth", SECRET_KEYS),
    ("credentials.*.secret", SECRET_KEYS),
    ("credentials.*.passphrase", SECRET_KEYS),
];

const SECRET_KEYS: &[&str] = &["file", "env", "systemd", "agent", "key"];

/// Keys whose names are taken for later versions. They are refused by name, because a setting that is
/// accepted and does nothing is worse than none.
pub(super) const LATER_KEYS: &[(&str, &[&str])] = &[
    ("control_plane", &["trusted_signers"]),
    ("servers.*", &["tasks"]),
    ("credentials.*.secret", &["vault"]),
    ("credentials.*.passphrase", &["vault"]),
];
