//! What Sortie costs, measured side by side with `git` in one run: `make bench`, or `cargo bench --bench bench`.
//!
//! Prints tables and writes them with the facts of the machine: what the agent costs to `docs/benchmarks.md`, what
//! clones cost to `docs/performance.md`. `BENCH_ONLY=agent` or `BENCH_ONLY=clones` in the environment measures one of
//! them, and writes its page alone. With `BENCH_STRICT=1` the exit status is 1 when a figure is over its target. With
//! `BENCH_QUICK=1` everything is repeated a few times only and nothing is written: to see whether the measurements
//! work, not what they measure.
//!
//! In reading order: `effort` (how often), `connection` (tests), `daemon` (memory and start), `round_trip` (from POST
//! to result), `failover` (killed agents), `throughput` (tasks a second), `herd` (agents that come back together),
//! `clones` and `archives`, `figure` (what comes out), `turns`, `statistics`, `machine`, `paper` (the table).

// It talks to whoever started it, and like the rigs it may panic with what to do about it.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;

#[path = "bench/archives.rs"]
mod archives;
#[path = "bench/client.rs"]
mod client;
#[path = "bench/clones.rs"]
mod clones;
#[path = "bench/connection.rs"]
mod connection;
#[path = "bench/daemon.rs"]
mod daemon;
#[path = "bench/effort.rs"]
mod effort;
#[path = "bench/failover.rs"]
mod failover;
#[path = "bench/figure.rs"]
mod figure;
#[path = "bench/herd.rs"]
mod herd;
#[path = "bench/machine.rs"]
mod machine;
#[path = "bench/paper.rs"]
mod paper;
#[path = "bench/round_trip.rs"]
mod round_trip;
#[path = "bench/statistics.rs"]
mod statistics;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "bench/throughput.rs"]
mod throughput;
#[path = "bench/turns.rs"]
mod turns;

use effort::Effort;
use figure::Figure;

/// What is measured together and has a page of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    Agent,
    Clones,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some((flag, arguments)) = arguments.split_first()
        && flag == archives::FLAG
    {
        return archives::run(arguments);
    }
    // Without the flag this was started by a run of all targets' tests, which is no time to measure.
    if !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("this measures for minutes; start it with: cargo bench --bench bench");
        return ExitCode::SUCCESS;
    }
    let groups = match std::env::var("BENCH_ONLY").as_deref() {
        Err(_) | Ok("") => vec![Group::Agent, Group::Clones],
        Ok("agent") => vec![Group::Agent],
        Ok("clones") => vec![Group::Clones],
        Ok(other) => {
            eprintln!("BENCH_ONLY is agent or clones, and not {other:?}");
            return ExitCode::FAILURE;
        }
    };
    let effort = if is_set("BENCH_QUICK") { Effort::QUICK } else { Effort::FULL };
    let figures: Vec<Figure> = groups.into_iter().flat_map(|group| group.measure(&effort)).collect();
    let is_over = figures.iter().any(Figure::is_over);
    if is_over && is_set("BENCH_STRICT") { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

impl Group {
    /// Measures, prints, and writes the page where it is for the record.
    fn measure(self, effort: &Effort) -> Vec<Figure> {
        let (figures, text) = match self {
            Self::Agent => {
                let mut figures = connection::measure(effort);
                figures.extend(daemon::measure(effort));
                figures.extend(round_trip::measure(effort));
                figures.extend(failover::measure(effort));
                figures.extend(throughput::measure(effort));
                figures.extend(herd::measure(effort));
                let text = paper::text(&paper::table(&figures), &machine::facts(), effort);
                (figures, text)
            }
            Self::Clones => {
                let clones = clones::measure(effort);
                let text = clones::text(&clones, &machine::facts(), effort);
                (clones.figures, text)
            }
        };
        println!("\n{text}");
        if effort.is_for_the_record {
            match paper::keep(self.page(), &text) {
                Ok(file) => println!("written to {}", file.display()),
                Err(error) => eprintln!("the page was not written: {error}"),
            }
        }
        figures
    }

    /// Where the last full run is kept, below the package's directory.
    fn page(self) -> &'static str {
        match self {
            Self::Agent => "docs/benchmarks.md",
            Self::Clones => "docs/performance.md",
        }
    }
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty() && value != "0")
}
