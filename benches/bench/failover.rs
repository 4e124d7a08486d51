//! How soon another agent has done what a killed agent was at.

use std::time::{Duration, Instant};

use serde_json::json;
use stand_ins::Authority;

use crate::effort::Effort;
use crate::figure::{Figure, Quantity, Target};
use crate::statistics::Times;
use crate::support::agent::Agent;
use crate::support::control_plane::ControlPlane;
use crate::support::cutter::Cutter;
use crate::support::nginx::Nginx;
use crate::support::process::wait_until;
use crate::support::repository::SampleRepository;

/// The token of the server's user.
const TOKEN: &str = "token-for-measurements";
/// How soon a connection test must be done elsewhere.
const TEST_TARGET: Target = Target::Milliseconds(5_000.0);
/// How soon a clone must be, which waits for the lease of the first one to end.
const CLONE_TARGET: Target = Target::Milliseconds(90_000.0);
/// How long any of it may take before the measurement is given up.
const LIMIT: Duration = Duration::from_secs(150);
/// How long a task may take until an agent is at it.
const START: Duration = Duration::from_secs(20);

/// Two agents, a control plane, and a git server behind a line that can fall silent.
struct Bench {
    control_plane: ControlPlane,
    agents: [Agent; 2],
    line: Cutter,
    _nginx: Nginx,
    _scratch: tempfile::TempDir,
}

/// Measures all of it.
pub(crate) fn measure(effort: &Effort) -> Vec<Figure> {
    let mut bench = Bench::start();
    let mut figures = Vec::new();
    let kinds = [
        (
            "connection-test",
            "a killed agent's connection test, done elsewhere",
            effort.failovers,
            TEST_TARGET,
        ),
        ("clone", "a killed agent's clone, done elsewhere", effort.clone_failovers, CLONE_TARGET),
    ];
    for (kind, name, runs, target) in kinds {
        if runs > 0 {
            eprintln!("{name}: {runs} kills");
            let times = Times::new((0..runs).map(|_| bench.kill_and_wait(kind)).collect());
            figures.push(Figure::alone(name, Quantity::of(times.percentile(100)), target));
        }
    }
    figures
}

impl Bench {
    fn start() -> Self {
        let scratch = tempfile::tempdir().expect("a private directory");
        SampleRepository::small(&scratch.path().join("small.git"));
        let authority = Authority::create(scratch.path()).expect("an authority for certificates");
        let nginx = Nginx::plan(scratch.path()).accept_pat(TOKEN).start(&authority);
        let line = Cutter::start(nginx.port());
        let control_plane = ControlPlane::start();
        let agents = ["first", "second"].map(|name| {
            let server = format!(
                "[servers.lab]\nprovider = \"git\"\nurl = \"https://127.0.0.1:{}\"\ncredential = \"pat\"\n\
                 ca_file = \"{}\"\n",
                line.port(),
                authority.ca_file().display()
            );
            Agent::plan(name)
                .with_toml(&server)
                .with_credential("pat", "pat", TOKEN, "")
                .start(&control_plane)
        });
        Self { control_plane, agents, line, _nginx: nginx, _scratch: scratch }
    }

    /// Lets an agent get stuck in a task, kills it, and says how long it took until the other one had done it.
    fn kill_and_wait(&mut self, kind: &str) -> Duration {
        // The next connection falls silent, and those after it do not.
        let before = self.line.reached();
        self.line.silence_upload_after(1);
        let url = format!("https://127.0.0.1:{}/small.git", self.line.port());
        let task = json!({"kind": kind, "url": url, "run_seconds": 100});
        let id = self.control_plane.post_task(&task);
        let (control_plane, line) = (&self.control_plane, &self.line);
        let is_stuck = || line.reached() > before && control_plane.task(&id)["state"] == "running";
        wait_until("an agent is at the task", START, is_stuck);
        let runs = self.control_plane.task(&id)["attempts"][0]["agent"].clone();
        let agent =
            self.agents.iter_mut().find(|agent| runs == agent.name()).expect("the agent of the attempt");
        agent.kill();
        let killed = Instant::now();
        let done = self.control_plane.wait_task(&id, LIMIT);
        let took = killed.elapsed();
        assert_eq!(done["outcome"], "succeeded", "{done:#}");
        assert_eq!(done["attempts"].as_array().map(Vec::len), Some(2), "{done:#}");
        assert_ne!(done["attempts"][1]["agent"], runs, "{done:#}");
        agent.restart();
        agent.wait_until_connected(&self.control_plane);
        eprintln!("  {:.1} s", took.as_secs_f64());
        took
    }
}
