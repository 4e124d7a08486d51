//! What the daemon costs while it does nothing, and how fast it is there.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::effort::Effort;
use crate::figure::{Figure, Quantity, Target};
use crate::machine::{field, kibibytes};
use crate::statistics::Times;
use crate::support::agent::Agent;
use crate::support::binary::{binary, isolate};
use crate::support::control_plane::ControlPlane;

/// How much memory an idle agent may take.
const MEMORY_TARGET: Target = Target::Megabytes(16.0);
/// How long a start may take.
const START_TARGET: Target = Target::Milliseconds(100.0);
/// What the agent logs when it has got the `welcome`.
const WELCOMED: &str = "session is open";
/// How long an agent is left alone before its memory is looked at.
const IDLE: Duration = Duration::from_secs(5);

/// Measures all of it.
pub(crate) fn measure(effort: &Effort) -> Vec<Figure> {
    let control_plane = ControlPlane::start();
    let mut agent = Agent::plan("bench").start(&control_plane);
    eprintln!("memory of an idle agent: waiting for {IDLE:?}");
    // Being idle for a while is what is measured here.
    std::thread::sleep(IDLE);
    let memory = Figure::alone("resident memory of an idle agent", memory_of(&agent), MEMORY_TARGET);
    agent.kill();
    eprintln!("start to `welcome`: {} starts", effort.starts);
    for _ in 0..effort.warm_ups {
        time_to_welcome(agent.config(), agent.directory());
    }
    let times = (0..effort.starts).map(|_| time_to_welcome(agent.config(), agent.directory())).collect();
    let start = Quantity::of(Times::new(times).median());
    vec![memory, Figure::alone("start of the agent to `welcome`", start, START_TARGET)]
}

/// The resident set of an agent.
///
/// # Panics
/// When the agent has ended.
pub(crate) fn memory_of(agent: &Agent) -> Quantity {
    let text = field(&format!("/proc/{}/status", agent.id()), "VmRSS").expect("the memory of the agent");
    let kibibytes = kibibytes(&text).expect("a number of kibibytes");
    Quantity::Megabytes(kibibytes as f64 * 1024.0 / 1e6)
}

/// An agent whose log is read as it is written; killed when it is dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts an enrolled agent and waits, without polling, for the line that tells of the `welcome`.
fn time_to_welcome(config: &Path, home: &Path) -> Duration {
    let mut command = Command::new(binary("sortie"));
    isolate(&mut command, home).arg("run").arg("--config").arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let begun = Instant::now();
    let mut started = Started(command.spawn().expect("an agent"));
    let log = BufReader::new(started.0.stderr.take().expect("a pipe"));
    let mut seen = String::new();
    for line in log.lines() {
        let line = line.expect("a line of the log");
        if line.contains(WELCOMED) {
            return begun.elapsed();
        }
        seen += &line;
        seen.push('\n');
    }
    panic!("the agent ended without a session:\n{seen}");
}
