//! Which secrets can be read here, and which only the daemon has.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use super::{Check, Mark};
use crate::config::{Config, SecretSource, Server};
use crate::credential::{LoadError, load_secret};
use crate::task::Tools;

/// Who tests which server, and who loads which other credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Servers whose secrets can be read here, or that need none.
    pub here: Vec<String>,
    /// Servers with a secret that only the daemon may have.
    pub by_daemon: Vec<String>,
    /// Credentials that no server goes by of itself, readable here.
    pub spare_here: Vec<String>,
    /// The same, readable for the daemon only.
    pub spare_by_daemon: Vec<String>,
}

/// Looks where each secret can be read. Nothing is sent anywhere.
pub(super) async fn plan(config: &Config, tools: &Tools, only: Option<&str>) -> Plan {
    let mut plan = Plan::default();
    let mut tested = BTreeSet::new();
    let mut daemons = BTreeSet::new();
    let chosen: Vec<_> =
        config.servers.iter().filter(|server| only.is_none_or(|name| name == server.name)).collect();
    for server in &chosen {
        tested.extend(used_by(server));
        if needs_daemon(server, config, tools).await {
            daemons.insert(server.name.as_str());
        }
    }
    with_sharers(&chosen, &mut daemons);
    for server in chosen {
        let is_daemons = daemons.contains(server.name.as_str());
        let list = if is_daemons { &mut plan.by_daemon } else { &mut plan.here };
        list.push(server.name.clone());
    }
    if only.is_none() {
        for name in config.credentials.keys().filter(|name| !tested.contains(name.as_str())) {
            let is_daemons = credential_is_daemons(name, config, tools).await;
            let list = if is_daemons { &mut plan.spare_by_daemon } else { &mut plan.spare_here };
            list.push(name.clone());
        }
    }
    plan
}

/// Adds the servers that share a credential with one of the daemon's: who tries a credential must know whether it was
/// refused before.
fn with_sharers<'a>(servers: &[&'a Server], daemons: &mut BTreeSet<&'a str>) {
    let mut credentials = BTreeSet::new();
    loop {
        let before = (daemons.len(), credentials.len());
        for &server in servers {
            let used = used_by(server);
            if daemons.contains(server.name.as_str()) || used.iter().any(|name| credentials.contains(name)) {
                daemons.insert(&server.name);
                credentials.extend(used);
            }
        }
        // Each round may find a credential that a server before it shares; there are no more rounds than servers.
        if (daemons.len(), credentials.len()) == before {
            return;
        }
    }
}

/// The credentials that a test of the server uses.
pub(super) fn used_by(server: &Server) -> Vec<&str> {
    server.credential.iter().chain(&server.api_credential).map(String::as_str).collect()
}

async fn needs_daemon(server: &Server, config: &Config, tools: &Tools) -> bool {
    for name in used_by(server) {
        if credential_is_daemons(name, config, tools).await {
            return true;
        }
    }
    match config.proxy_secrets.get(&server.name) {
        Some(source) => matches!(load_secret(source).await, Err(error) if is_daemons(&error, &[source])),
        None => false,
    }
}

async fn credential_is_daemons(name: &str, config: &Config, tools: &Tools) -> bool {
    let Some(declared) = config.credentials.get(name) else { return false };
    let sources: Vec<_> =
        [Some(&declared.secret), declared.passphrase.as_ref()].into_iter().flatten().collect();
    matches!(tools.credentials.load(name).await, Err(error) if is_daemons(&error, &sources))
}

/// Whether the daemon may have what cannot be had here: a credential of its unit, a file of its user, a variable of
/// its own environment.
fn is_daemons(error: &LoadError, sources: &[&SecretSource]) -> bool {
    match error {
        LoadError::OutsideOfUnit { .. } => true,
        LoadError::Unreadable { kind, .. } => *kind == ErrorKind::PermissionDenied,
        LoadError::Missing { .. } => {
            sources.iter().any(|source| matches!(source, SecretSource::Environment(_)))
        }
        _ => false,
    }
}

/// Loads credentials and lets go of them.
pub(super) async fn load(tools: &Tools, names: &[String]) -> Vec<Check> {
    let mut checks = Vec::new();
    for name in names {
        let check = format!("credential:{name}");
        checks.push(match tools.credentials.load(name).await {
            Ok(loaded) => {
                Check::new(check, Mark::Passed, format!("a {} that can be read", loaded.kind().as_str()))
            }
            Err(error) => Check::new(check, Mark::Failed, error.to_string()).remedy(remedy(&error, name)),
        });
    }
    checks
}

/// Credentials that nobody could look at.
pub(super) fn out_of_reach(names: &[String], why: &str) -> Vec<Check> {
    let skipped = names.iter().map(|name| {
        let summary = format!("only the daemon can read it, and {why}");
        Check::new(format!("credential:{name}"), Mark::Skipped, summary)
    });
    skipped.collect()
}

fn remedy(error: &LoadError, name: &str) -> String {
    match error {
        LoadError::Unknown { .. } => format!("Declare it as [credentials.{name}], and restart the daemon."),
        LoadError::OutsideOfUnit { name } => {
            format!("Start the daemon as a service with LoadCredential={name}:PATH in a drop-in of the unit.")
        }
        LoadError::TooOpen { path, .. } => format!("chmod 0600 {}", path.display()),
        LoadError::Unreadable { source_name, .. } => format!("Let the agent's user read {source_name}."),
        LoadError::Missing { .. } | LoadError::Empty { .. } => {
            format!("Put the secret where [credentials.{name}] says it is.")
        }
        LoadError::TooLarge { .. } | LoadError::NotText { .. } => {
            format!("Look whether [credentials.{name}] names the right file: this is no secret of one line.")
        }
    }
}

/// Where a secret comes from, with the way to run the doctor with it where there is no daemon.
pub(super) fn with_unit_credentials(config: &Config, server: &Server) -> String {
    let sources = used_by(server).into_iter().filter_map(|name| config.credentials.get(name));
    let systemd = sources.flat_map(|source| [Some(&source.secret), source.passphrase.as_ref()]);
    let names: Vec<_> = systemd
        .flatten()
        .chain(config.proxy_secrets.get(&server.name))
        .filter_map(|source| match source {
            SecretSource::Systemd(name) => Some(format!("-p LoadCredential={name}:PATH ")),
            _ => None,
        })
        .collect();
    if names.is_empty() {
        "Run it as the agent's user or as root: sudo -u sortie sortie doctor".to_owned()
    } else {
        format!(
            "Or without the daemon: sudo systemd-run --pipe --wait --uid=sortie {}sortie doctor --server {}",
            names.concat(),
            server.name
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::remote_url::RemoteUrl;

    #[test]
    fn who_shares_a_credential_with_a_server_of_the_daemons_is_tested_there() {
        let server = |name: &str, credential: &str, api: Option<&str>| {
            let mut server = Server::new(name, None, RemoteUrl::parse("https://git.example").unwrap());
            (server.credential, server.api_credential) =
                (Some(credential.to_owned()), api.map(str::to_owned));
            server
        };
        let servers = [
            server("third", "z", None),
            server("second", "x", Some("z")),
            server("first", "x", Some("unit")),
            server("alone", "own", None),
        ];
        let mut daemons = BTreeSet::from(["first"]);
        with_sharers(&servers.iter().collect::<Vec<_>>(), &mut daemons);
        assert_eq!(daemons, BTreeSet::from(["first", "second", "third"]));
    }
}
