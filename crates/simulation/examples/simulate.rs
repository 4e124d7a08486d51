//! `simulate`: runs seeds, and says how to repeat the one that fails.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use sortie_simulation::oracle::Counts;
use sortie_simulation::world;

/// Runs the agents and the control plane under simulated time, network and disks.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds are run.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run each seed twice, and look whether the same happens.
    #[arg(long)]
    twice: bool,
    /// Run this seed alone, with the programs' logs.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => replay(seed),
        None => many(&arguments),
    }
}

fn replay(seed: u64) -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::DEBUG)
        .without_time()
        .init();
    let outcome = world::run(seed);
    println!("{outcome:#?}");
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(arguments: &Arguments) -> ExitCode {
    let (first, seeds) = (arguments.first, arguments.seeds);
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let has_failed = AtomicBool::new(false);
    let sum = Mutex::new(Counts::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(seeds) || has_failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let mut outcome = world::run(seed);
                    if arguments.twice && world::run(seed).digest != outcome.digest {
                        outcome.violations.push("the second run of the seed went another way".to_owned());
                    }
                    sum.lock().unwrap_or_else(PoisonError::into_inner).add(&outcome.counts);
                    if !outcome.violations.is_empty() {
                        has_failed.store(true, Ordering::Relaxed);
                        eprintln!("seed {seed} failed:");
                        for violation in &outcome.violations {
                            eprintln!("  {violation}");
                        }
                        eprintln!("repeat it with the programs' logs: make simulate SEED={seed}");
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{seeds} seeds from {first} in {:.1} s: {sum:#?}", began.elapsed().as_secs_f64());
    if has_failed.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
