//! `sortie doctor`: every check, in the order in which they build upon each other, and what to do first.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access::deadline;
use super::run::tools;
use super::screen::{Color, Screen, padded};
use super::work::interrupt;
use super::{Common, Exit, complain, config_files, enroll, load_config, print, print_json, usage};
use crate::agent::ControlPlane;
use crate::config::{self, Config};
use crate::control_socket::{Answer, AskError, LINE_TIMEOUT, Request, ask, places};
use crate::doctor::{self, Check, DaemonRequest, Examiner, Mark, Plan, Seen, bundle};
use crate::{git, identity};

/// How long all of it may take where nothing else is said.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(300);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo -u sortie sortie doctor
  sortie doctor --server ado --json
  sortie doctor --bundle support.tar.gz

Each declared server is tested with its own credential. Credentials that only the service has are tried by the running
daemon. A credential that was refused is not sent again. The exit status is 1 where a check failed, 78 where the
configuration is wrong.")]
pub(super) struct DoctorArgs {
    /// Test this declared server alone
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Write what was found, without any secret, into a new .tar.gz for support
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// When to give up as a whole [default: 300]; each server has 60 seconds of it
    #[arg(long, value_name = "SECONDS", value_parser = deadline)]
    deadline: Option<Duration>,
}

pub(super) async fn execute(common: &Common, args: DoctorArgs) -> Exit {
    let stop = CancellationToken::new();
    let mut found = tokio::select! {
        biased;
        found = look(common, &args, &stop) => found,
        () = interrupt() => {
            // What runs on blocking threads looks at this; all the rest has ended with its future.
            stop.cancel();
            return complain(Exit::Interrupted, "interrupted");
        }
    };
    if let Some(path) = args.bundle {
        let (shown, entries) = (path.display().to_string(), found.entries());
        let written = tokio::task::spawn_blocking(move || bundle::write(&path, &entries)).await;
        match written {
            Ok(Ok(())) => found.bundle = Some(shown),
            Ok(Err(error)) => return complain(Exit::Failed, &error.to_string()),
            Err(_) => return complain(Exit::Bug, "the bundle could not be written"),
        }
    }
    if common.json {
        print_json(&found.to_json());
    } else {
        print(&found.told());
    }
    found.exit()
}

/// What was found.
struct Found {
    checks: Vec<Check>,
    config: Option<Arc<Config>>,
    status: Option<Value>,
    bundle: Option<String>,
}

/// Everything in its order.
async fn look(common: &Common, args: &DoctorArgs, stop: &CancellationToken) -> Found {
    let deadline = Instant::now() + args.deadline.unwrap_or(DEFAULT_DEADLINE);
    let files = config_files(common);
    let config = match load_config(common) {
        Ok(config) => Arc::new(config),
        Err(error) => {
            let checks = vec![doctor::configuration(&files, Err(&error)), unit().await];
            return Found { checks, config: None, status: None, bundle: None };
        }
    };
    if let Some(name) = &args.server
        && config.servers.iter().all(|server| server.name != *name)
    {
        usage(&format!("--server: the configuration declares no server named {name}"));
    }
    let mut checks = vec![doctor::configuration(&files, Ok(&config))];
    // Failing means that this is tried without git, and the tests say what does not work.
    let _ = git::initialize();
    let seen = status(&config).await;
    checks.extend(local_state(files, &config, seen.as_ref().ok()).await);
    checks.push(doctor::daemon(&seen, &config));
    let examiner = Examiner {
        control_plane: control_plane(&config).await,
        tools: tools(&config).await,
        config: Arc::clone(&config),
    };
    let plan = examiner.plan(args.server.as_deref()).await;
    let (way, here, by_daemon) = tokio::join!(
        examiner.control_plane(deadline),
        examiner.here(&plan, deadline, stop),
        by_daemon(&examiner, &plan, &seen, deadline),
    );
    let (control_plane, offset) = way;
    checks.push(doctor::clock(Path::new("/"), offset));
    checks.push(examiner.proxies());
    checks.push(control_plane);
    checks.extend(in_order(&config, here, by_daemon, examiner.host().await));
    checks.push(unit().await);
    Found { checks, config: Some(config), status: seen.ok(), bundle: None }
}

async fn status(config: &Config) -> Seen {
    match ask(&places(&config.agent), &Request::Status, LINE_TIMEOUT).await? {
        Answer::Status { status } => Ok(status),
        _ => Err(AskError::Broken),
    }
}

async fn local_state(files: Vec<PathBuf>, config: &Arc<Config>, status: Option<&Value>) -> Vec<Check> {
    let (config, status) = (Arc::clone(config), status.cloned());
    let looked = tokio::task::spawn_blocking(move || {
        vec![doctor::files(&files, &config), doctor::enrollment(&config, status.as_ref())]
    });
    looked.await.unwrap_or_default()
}

async fn unit() -> Check {
    let looked = tokio::task::spawn_blocking(|| doctor::unit(Path::new("/"))).await;
    looked.unwrap_or_else(|_| Check::new("unit", Mark::Skipped, "it could not be looked at"))
}

/// Where the control plane is: by the configuration, or else by the agent's registration.
async fn control_plane(config: &Config) -> Option<ControlPlane> {
    let url = match &config.control_plane {
        Some(configured) => configured.url.clone(),
        None => {
            let state_dir = config.agent.state_dir.clone();
            let identity =
                tokio::task::spawn_blocking(move || identity::load(&state_dir)).await.ok()?.ok()?;
            config::control_plane_url(&identity.control_plane).ok()?
        }
    };
    match enroll::control_plane(config, &url).await {
        Ok(control_plane) => Some(control_plane),
        // The proxy's password is the daemon's alone: without it the proxy says what it asks for.
        Err(_) => Some(enroll::without_secret(config, &url)),
    }
}

/// What the daemon is asked, because only it can tell.
async fn by_daemon(examiner: &Examiner, plan: &Plan, seen: &Seen, deadline: Instant) -> Vec<Check> {
    if let Err(error) = seen {
        return examiner.out_of_reach(plan, &error.to_string());
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let request = Request::Doctor(DaemonRequest {
        servers: plan.by_daemon.clone(),
        credentials: plan.spare_by_daemon.clone(),
        deadline_seconds: Some(left.as_secs_f64()),
    });
    match ask(&places(&examiner.config.agent), &request, left + LINE_TIMEOUT).await {
        Ok(Answer::Doctor { checks }) => checks,
        Ok(_) => examiner.out_of_reach(plan, &AskError::Broken.to_string()),
        Err(error) => examiner.out_of_reach(plan, &error.to_string()),
    }
}

/// Credentials and servers in the order of the configuration, then the host. What the daemon saw of its host goes
/// before what this program saw: its limits are those that count.
fn in_order(config: &Config, here: Vec<Check>, by_daemon: Vec<Check>, host: Vec<Check>) -> Vec<Check> {
    let mut all: Vec<_> = by_daemon.into_iter().chain(here).chain(host).collect();
    let mut take = |name: &str| {
        let found = all.iter().position(|check| check.check == name);
        found.map(|position| all.remove(position))
    };
    let credentials = config.credentials.keys().map(|name| format!("credential:{name}"));
    let servers = config.servers.iter().map(|server| format!("server:{}", server.name));
    let host = ["disk", "limits", "kernel"].map(ToOwned::to_owned);
    credentials.chain(servers).chain(host).filter_map(|name| take(&name)).collect()
}

impl Found {
    fn exit(&self) -> Exit {
        let has_failed = self.checks.iter().any(|check| check.status == Mark::Failed);
        match (&self.config, has_failed) {
            (None, _) => Exit::Configuration,
            (Some(_), true) => Exit::Failed,
            (Some(_), false) => Exit::Done,
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "schema": doctor::SCHEMA,
            "version": env!("CARGO_PKG_VERSION"),
            "checks": self.checks,
            "first": doctor::first(&self.checks),
        })
    }

    /// What goes into the archive for support.
    fn entries(&self) -> Vec<(&'static str, String)> {
        let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
        let no_status =
            || json!({ "error": "the daemon did not answer; see the check `daemon` in doctor.json" });
        let kernel = std::fs::read_to_string("/proc/version").unwrap_or_default();
        let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        vec![
            ("doctor.json", pretty(&self.to_json())),
            ("status.json", pretty(&self.status.clone().unwrap_or_else(no_status))),
            ("config.toml", self.config.as_ref().map(|config| config.show()).unwrap_or_default()),
            ("version.txt", format!("sortie {}\n{kernel}{system}", env!("CARGO_PKG_VERSION"))),
        ]
    }

    /// A line for each check, what to do about it below, and what to do first at the end.
    fn told(&self) -> String {
        let screen = Screen::of_stdout();
        let mut out = String::new();
        let width = self.checks.iter().map(|check| check.check.chars().count()).max().unwrap_or_default();
        let indent = " ".repeat(width + 11);
        for check in &self.checks {
            let color = match check.status {
                Mark::Passed => Color::Good,
                Mark::Warned => Color::Warning,
                Mark::Failed => Color::Bad,
                Mark::Skipped => Color::Faint,
            };
            let mark = screen.paint(color, &padded(check.status.as_str(), 7));
            let head = format!("{mark}  {}  ", padded(&check.check, width));
            out.push_str(&screen.wrap(&head, &indent, &check.summary));
            for remedy in &check.remedies {
                out.push_str(&screen.wrap(&format!("{indent}- "), &format!("{indent}  "), remedy));
            }
        }
        out.push('\n');
        match doctor::first(&self.checks) {
            Some(first) => {
                let head = format!("{} ({}): ", screen.paint(Color::Strong, "What to do first"), first.check);
                out.push_str(&screen.wrap(&head, "  ", &first.remedy));
            }
            None => out.push_str("Nothing needs doing.\n"),
        }
        if let Some(path) = &self.bundle {
            let text = format!("Written for support, without any secret: {path}");
            out.push_str(&screen.wrap("\n", "", &text));
        }
        out
    }
}
