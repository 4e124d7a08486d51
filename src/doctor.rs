//! `sortie doctor`: whether this host, its configuration, its control plane and its git servers are fit for work.
//!
//! Each check is a file below. Most are made by the program that a person started; those that need what only the
//! service has, its credentials above all, are made by the running daemon, which is asked through its control socket.
//! A credential is tried in one of the two places and never in both.

mod clock;
mod control_plane;
mod daemon;
mod disk;
mod enrollment;
mod files;
mod host;
mod proxies;
mod secrets;
mod servers;
mod unit;

pub mod bundle;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent;
use crate::config::{Config, ConfigError};
use crate::report::Facts;
use crate::task::Tools;

pub use clock::examine as clock;
pub use daemon::{Seen, examine as daemon, fingerprint};
pub use enrollment::examine as enrollment;
pub use files::examine as files;
pub use unit::examine as unit;

/// The name of the form that `sortie doctor --json` prints.
pub const SCHEMA: &str = "sortie.doctor.v1";

/// How long the test of one server may take.
pub const SERVER_TIMEOUT: Duration = Duration::from_secs(60);

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What it is about: `clock`, `server:ado`, ….
    pub check: String,
    /// How it went.
    pub status: Mark,
    /// The one fact that matters, for people.
    pub summary: String,
    /// What an operator can do, most likely first; empty where nothing needs doing.
    #[serde(default)]
    pub remedies: Vec<String>,
    /// What was measured, units in the names.
    #[serde(default)]
    pub facts: Facts,
    /// The whole report of a connection test, where the check is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Value>,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It is fine.
    Passed,
    /// It works, and should still be looked at.
    Warned,
    /// Something will not work.
    Failed,
    /// It could not be looked at, or need not be.
    Skipped,
}

impl Mark {
    /// The word as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Warned => "warned",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl Check {
    /// A check that has come to a result.
    pub fn new(check: impl Into<String>, status: Mark, summary: impl Into<String>) -> Self {
        let (check, summary) = (check.into(), plain(&summary.into()));
        Self { check, status, summary, remedies: Vec::new(), facts: Facts::new(), report: None }
    }

    /// Adds what an operator can do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedies.push(plain(&remedy.into()));
        self
    }

    /// Adds what was measured.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Makes it worse: the graver mark and its summary come first, the remedies are kept.
    fn worsen(&mut self, status: Mark, summary: impl Into<String>, remedy: impl Into<String>) {
        let summary = plain(&summary.into());
        if gravity(status) > gravity(self.status) {
            (self.status, self.summary) = (status, summary);
            self.remedies.insert(0, plain(&remedy.into()));
        } else {
            self.summary = format!("{}; {summary}", self.summary);
            self.remedies.push(plain(&remedy.into()));
        }
    }
}

fn gravity(mark: Mark) -> u8 {
    match mark {
        Mark::Skipped => 0,
        Mark::Passed => 1,
        Mark::Warned => 2,
        Mark::Failed => 3,
    }
}

/// Names of files and words of servers come in here, and a terminal would obey their escape codes.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What is to be done first: the remedy of the first check that failed, or else of the first that warned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct First {
    /// The check.
    pub check: String,
    /// What to do.
    pub remedy: String,
}

/// Finds what is to be done first. The checks stand in the order in which they build upon each other.
pub fn first(checks: &[Check]) -> Option<First> {
    let with = |mark| checks.iter().find(|check| check.status == mark && !check.remedies.is_empty());
    let check = with(Mark::Failed).or_else(|| with(Mark::Warned))?;
    Some(First { check: check.check.clone(), remedy: check.remedies.first()?.clone() })
}

/// The check of the configuration itself.
pub fn configuration(files: &[std::path::PathBuf], result: Result<&Config, &ConfigError>) -> Check {
    let shown: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    let check = match result {
        Ok(config) => {
            let servers = match config.servers.len() {
                1 => "one server".to_owned(),
                count => format!("{count} servers"),
            };
            let summary = format!("{} is valid, with {servers}", shown.join(", "));
            let check = Check::new("configuration", Mark::Passed, summary);
            if config.servers.is_empty() {
                Check { status: Mark::Warned, ..check }
                    .remedy("Declare each git server that tasks may go to as a table [servers.<name>].")
            } else {
                check
            }
        }
        Err(error) => {
            let check = Check::new("configuration", Mark::Failed, error.to_string());
            match error {
                ConfigError::Unreadable { file, .. } if file.exists() => {
                    check.remedy("Run it as the agent's user or as root: sudo -u sortie sortie doctor")
                }
                ConfigError::Unreadable { file, .. } => check.remedy(format!(
                    "Write {}, beginning with config.example.toml, or name another file with --config.",
                    file.display()
                )),
                _ => {
                    check.remedy("Correct the key that is named; sortie config check judges the file alone.")
                }
            }
        }
    };
    check.fact("files", shown)
}

/// What the daemon is asked to look at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DaemonRequest {
    /// The servers to test, by name.
    #[serde(default)]
    pub servers: Vec<String>,
    /// The credentials to load, by name; they are not sent anywhere.
    #[serde(default)]
    pub credentials: Vec<String>,
    /// How long all of it may take, in seconds.
    #[serde(default)]
    pub deadline_seconds: Option<f64>,
}

/// The longest time that a client can ask the daemon's doctor to take.
const MAX_DAEMON_SECONDS: f64 = 300.0;

/// How many names that the daemon's configuration does not declare are answered; the rest is passed over.
const MAX_UNKNOWN_NAMES: usize = 16;

/// Each name once, whatever a client asks for: a server that is tested again counts another refused login.
fn wanted(names: &[String], is_declared: impl Fn(&str) -> bool) -> Vec<String> {
    let once: BTreeSet<_> = names.iter().collect();
    let (mut known, unknown): (Vec<_>, Vec<_>) =
        once.into_iter().cloned().partition(|name| is_declared(name));
    known.extend(unknown.into_iter().take(MAX_UNKNOWN_NAMES));
    known
}

/// What checks are made with.
#[derive(Clone)]
pub struct Examiner {
    /// What the operator has declared.
    pub config: Arc<Config>,
    /// What tests are made with.
    pub tools: Tools,
    /// Where orders come from, where that is known.
    pub control_plane: Option<agent::ControlPlane>,
}

/// Which servers can be tested here, and which only by the daemon.
pub use secrets::Plan;

impl Examiner {
    /// Looks which secrets can be read here. Nothing is sent anywhere.
    pub async fn plan(&self, server: Option<&str>) -> Plan {
        secrets::plan(&self.config, &self.tools, server).await
    }

    /// Looks at the way to the control plane, stage by stage, and how far this host's clock is off.
    pub async fn control_plane(&self, deadline: Instant) -> (Check, Option<clock::Offset>) {
        match &self.control_plane {
            Some(place) => control_plane::examine(&self.tools.door, place, deadline).await,
            None => (control_plane::unknown(), None),
        }
    }

    /// The part of a plan that can be carried out here.
    pub async fn here(&self, plan: &Plan, deadline: Instant, stop: &CancellationToken) -> Vec<Check> {
        let mut checks = secrets::load(&self.tools, &plan.spare_here).await;
        checks.extend(self.servers(&plan.here, deadline, stop).await);
        checks
    }

    /// The part of a plan that only the daemon could carry out, which was not to be had.
    pub fn out_of_reach(&self, plan: &Plan, why: &str) -> Vec<Check> {
        let mut checks = secrets::out_of_reach(&plan.spare_by_daemon, why);
        checks.extend(servers::out_of_reach(self, &plan.by_daemon, why));
        checks
    }

    async fn servers(&self, names: &[String], deadline: Instant, stop: &CancellationToken) -> Vec<Check> {
        servers::examine(self, names, deadline, stop).await
    }

    /// Looks at the proxies that hold for this process.
    pub fn proxies(&self) -> Check {
        proxies::examine(self)
    }

    /// Looks at the room for workspaces and at the limits of this process. It reads files.
    pub async fn host(&self) -> Vec<Check> {
        let config = Arc::clone(&self.config);
        let looked =
            tokio::task::spawn_blocking(move || vec![disk::examine(&config), host::limits(), host::kernel()]);
        looked.await.unwrap_or_default()
    }

    /// The daemon's part: what only it can see.
    pub async fn in_daemon(&self, request: &DaemonRequest, stop: &CancellationToken) -> Vec<Check> {
        let seconds = request.deadline_seconds.unwrap_or(SERVER_TIMEOUT.as_secs_f64());
        let time =
            Duration::try_from_secs_f64(seconds.clamp(0.0, MAX_DAEMON_SECONDS)).unwrap_or(SERVER_TIMEOUT);
        let deadline = Instant::now() + time;
        let credentials = wanted(&request.credentials, |name| self.config.credentials.contains_key(name));
        let servers = wanted(&request.servers, |name| self.config.servers.iter().any(|s| s.name == name));
        let mut checks = secrets::load(&self.tools, &credentials).await;
        checks.extend(self.servers(&servers, deadline, stop).await);
        checks.extend(self.host().await);
        for check in &mut checks {
            check.facts.insert("seen_by".to_owned(), "daemon".into());
        }
        checks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_comes_before_what_warned_and_earlier_before_later() {
        let check = |name: &str, mark| Check::new(name, mark, "").remedy(format!("mend {name}"));
        let checks = [
            check("files", Mark::Warned),
            Check::new("daemon", Mark::Failed, "no remedy"),
            check("control_plane", Mark::Failed),
            check("server:ado", Mark::Failed),
        ];
        let named = first(&checks).map(|first| (first.check, first.remedy));
        assert_eq!(named, Some(("control_plane".to_owned(), "mend control_plane".to_owned())));
        assert_eq!(first(&checks[..1]).map(|first| first.check), Some("files".to_owned()));
        assert_eq!(first(&[Check::new("unit", Mark::Skipped, "none").remedy("x")]), None);
    }

    #[test]
    fn a_name_counts_once_and_unknown_ones_are_few() {
        let mut names = vec!["lab".to_owned(); 1000];
        names.extend((0..1000).map(|number| format!("unknown-{number}")));
        let wanted = wanted(&names, |name| name == "lab");
        assert_eq!((wanted.len(), wanted[0].as_str()), (1 + MAX_UNKNOWN_NAMES, "lab"));
    }

    #[test]
    fn a_graver_finding_comes_first_and_nothing_is_lost() {
        let mut check = Check::new("files", Mark::Passed, "fine");
        check.worsen(Mark::Warned, "odd", "look");
        check.worsen(Mark::Failed, "bad\x1b[2J", "mend");
        check.worsen(Mark::Failed, "worse", "mend too");
        assert_eq!((check.status, check.summary.as_str()), (Mark::Failed, "bad [2J; worse"));
        assert_eq!(check.remedies, ["mend", "look", "mend too"]);
    }
}
