//! `sortie doctor`: every check with what makes it fail, who tries which credential, and what the bundle holds.

mod bundle;
mod control_plane;
mod credentials;
mod daemon;
mod host;

use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stand_ins::Fault;
use tempfile::TempDir;

use crate::secrets::assert_clean;
use crate::support::agent::{Agent, AgentPlan};
use crate::support::binary::{Output, Sortie, binary, isolate, sortie};
use crate::support::control_plane::{ControlPlane, secret_file};
use crate::support::nginx::Nginx;
use crate::support::process::{free_port, wait_until};
use crate::support::scene::{PAT, Scene};
use crate::support::sshd::{Key, KeyKind, Sshd};

const LIMIT: Duration = Duration::from_secs(60);

/// A configuration of its own, for agents that are not enrolled or do not run.
struct Setup {
    directory: TempDir,
    text: String,
}

impl Setup {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let text = format!(
            "[agent]\nname = \"a\"\nstate_dir = \"{}\"\ncontrol_socket = \"{}\"\n",
            path.join("state").display(),
            path.join("control.sock").display()
        );
        Self { directory, text }
    }

    fn with(mut self, toml: &str) -> Self {
        self.text.push_str(toml);
        self.text.push('\n');
        self
    }

    fn config(&self) -> PathBuf {
        let path = self.directory.path().join("config.toml");
        crate::support::process::write_private(&path, &self.text).unwrap();
        path
    }

    fn run(&self, arguments: &[&str]) -> Output {
        doctor(&self.config(), arguments)
    }
}

fn doctor(config: &Path, arguments: &[&str]) -> Output {
    let mut all = vec!["doctor", "--config", config.to_str().unwrap()];
    all.extend(arguments);
    sortie(all)
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("no {name}: {report:#}"))
}

fn status<'a>(report: &'a Value, name: &str) -> &'a str {
    check(report, name)["status"].as_str().unwrap()
}

fn summary<'a>(report: &'a Value, name: &str) -> &'a str {
    check(report, name)["summary"].as_str().unwrap()
}

/// The server and the credential of a scene as tables of a configuration.
fn tables(scene: &Scene, server: &str, base: &str, secret: &str) -> String {
    format!(
        "[servers.{server}]\nprovider = \"gitlab\"\nurl = \"{}{base}\"\ncredential = \"{server}_pat\"\nca_file = \"{}\"\n\
         [credentials.{server}_pat]\nkind = \"pat\"\nsecret = {secret}\n",
        scene.server().url(),
        scene.authority.ca_file().display()
    )
}

/// An agent whose token is a credential of its unit, so that nobody but the daemon has it.
fn unit_agent(scene: &Scene) -> (AgentPlan, TempDir) {
    let credentials = tempfile::tempdir().unwrap();
    secret_file(credentials.path(), "lab-pat", PAT);
    let plan = Agent::plan("fra1-a")
        .with_toml(&tables(scene, "lab", "", "{ systemd = \"lab-pat\" }"))
        .with_env("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap());
    (plan, credentials)
}

fn enrolled(state: &Path, url: &str) {
    use sortie::identity;
    let key = identity::prepare(state, url).unwrap();
    let identity = identity::Identity { agent_id: "a1".into(), control_plane: url.into(), key };
    identity::store(state, &identity).unwrap();
}
