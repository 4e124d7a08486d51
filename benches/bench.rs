//! What Sortie costs, measured side by side with `git` in one run: `make bench`, or `cargo bench --bench bench`.
//!
//! Prints a table and writes it with the facts of the machine to `docs/benchmarks.md`. With `BENCH_STRICT=1` in the
//! environment the exit status is 1 when a figure is over its target. With `BENCH_QUICK=1` everything is repeated a
//! few times only and nothing is written: to see whether the measurements work, not what they measure.
//!
//! In reading order: `effort` (how often), `connection` (tests), `against_git` (clones), `daemon` (memory and start),
//! `round_trip` (from POST to result), `figure` (what comes out), `statistics`, `machine`, `paper` (the table).

// It talks to whoever started it, and like the rigs it may panic with what to do about it.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;

#[path = "bench/against_git.rs"]
mod against_git;
#[path = "bench/connection.rs"]
mod connection;
#[path = "bench/daemon.rs"]
mod daemon;
#[path = "bench/effort.rs"]
mod effort;
#[path = "bench/figure.rs"]
mod figure;
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
#[path = "bench/turns.rs"]
mod turns;

use effort::Effort;

fn main() -> ExitCode {
    // Without the flag this was started by a run of all targets' tests, which is no time to measure.
    if !std::env::args().any(|argument| argument == "--bench") {
        eprintln!("this measures for minutes; start it with: cargo bench --bench bench");
        return ExitCode::SUCCESS;
    }
    let effort = if is_set("BENCH_QUICK") { Effort::QUICK } else { Effort::FULL };
    let mut figures = connection::measure(&effort);
    figures.extend(against_git::measure(&effort));
    figures.extend(daemon::measure(&effort));
    figures.extend(round_trip::measure(&effort));
    let table = paper::table(&figures);
    println!("\n{table}");
    if effort.is_for_the_record {
        match paper::write(&table, &machine::facts(), &effort) {
            Ok(file) => println!("written to {}", file.display()),
            Err(error) => eprintln!("the table was not written: {error}"),
        }
    }
    let is_over = figures.iter().any(figure::Figure::is_over);
    if is_over && is_set("BENCH_STRICT") { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|value| !value.is_empty() && value != "0")
}
