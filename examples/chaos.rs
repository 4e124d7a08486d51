//! Chaos: `make chaos KILLS=1000`, or `cargo run --release --example chaos`.
//!
//! A real control plane over a real SQLite file, three real agents and a real git server work off a stream of small
//! connection tests and clones, while programs are killed at random times as `kill -9` does, the lines between them
//! delay, cut, truncate and swallow what they carry, disks are full and the database is locked. Then everything comes
//! to rest, and an oracle looks whether each task that was answered was carried out and counted once, and whether
//! anything was left behind. The status is 1 when anything is wrong; `SEED` repeats the storm's decisions.
//!
//! In reading order: `stage` (what runs), `wire` (the lines), `supervised` (programs that are started again), `ills`
//! (disks and locks), `client` (who posts tasks), `storm` (what happens to them), `oracle` (what is looked at).

// It talks to whoever started it, and like the rigs it may panic with what to do about it. It is the other side of the
// wire, so that what it opens does not go through the door.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, clippy::disallowed_methods)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

#[path = "chaos/client.rs"]
mod client;
#[path = "chaos/ills.rs"]
mod ills;
#[path = "chaos/oracle.rs"]
mod oracle;
#[path = "chaos/random.rs"]
mod random;
#[path = "chaos/stage.rs"]
mod stage;
#[path = "chaos/storm.rs"]
mod storm;
#[path = "chaos/supervised.rs"]
mod supervised;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "chaos/wire.rs"]
mod wire;

use client::{Desk, Ledger};
use oracle::Verdict;
use random::Random;
use stage::Stage;
use storm::Damage;

/// The exit status after Ctrl-C.
const INTERRUPTED: u8 = 130;
/// How many kills there are where `KILLS` does not say.
const DEFAULT_KILLS: u64 = 1000;
/// How many clients post tasks, each of them one at a time.
const CLIENTS: usize = 16;
/// How long what runs may take to end after Ctrl-C.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How many findings are shown.
const SHOWN_FINDINGS: usize = 40;

fn main() -> ExitCode {
    ills::enter_own_namespace();
    // The rigs' panics are messages to a person.
    std::panic::set_hook(Box::new(|panic| eprintln!("\nchaos: {panic}")));
    let number =
        |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse::<u64>());
    let (Ok(kills), Ok(seed)) = (number("KILLS").transpose(), number("SEED").transpose()) else {
        eprintln!("chaos: KILLS and SEED are numbers");
        return ExitCode::from(2);
    };
    let kills = u32::try_from(kills.unwrap_or(DEFAULT_KILLS)).unwrap_or(u32::MAX);
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) ^ now_nanoseconds());
    let scratch = tempfile::Builder::new().prefix("sortie-chaos-").tempdir().expect("a private directory");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    // Everything that the rigs make lies in this one directory, so that it can be removed at any time.
    let _ = tempfile::env::override_temp_dir(scratch.path());
    println!("{kills} kills; to repeat the storm's decisions: make chaos KILLS={kills} SEED={seed}");
    let (done, mut ended) = oneshot::channel::<()>();
    let (directory, handle) = (scratch.path().to_owned(), runtime.handle().clone());
    let story = std::thread::spawn(move || {
        let _done = done;
        tell(&directory, &handle, kills, seed)
    });
    let was_interrupted = runtime.block_on(async {
        tokio::select! {
            // The channel never carries anything: it closes when the thread ends, in whatever way.
            _ = &mut ended => false,
            () = interrupted() => true,
        }
    });
    if was_interrupted {
        // With this process ends all that it started; what is still being started has some seconds to be ended before.
        storm::STOPPED.store(true, Ordering::SeqCst);
        let until = std::time::Instant::now() + STOP_LIMIT;
        while !story.is_finished() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        ills::unmount_all();
        let _ = scratch.close();
        return ExitCode::from(INTERRUPTED);
    }
    let is_good = story.join().is_ok_and(|is_good| is_good);
    if !is_good {
        ills::keep_mounted(scratch.path());
    }
    ills::unmount_all();
    if is_good {
        return ExitCode::SUCCESS;
    }
    println!("\nWRONG; to repeat the storm's decisions: make chaos KILLS={kills} SEED={seed}");
    println!("logs, state and database: {}", scratch.keep().display());
    ExitCode::FAILURE
}

fn now_nanoseconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos() & u128::from(u64::MAX)).unwrap_or_default()
}

/// Starts everything, lets the storm blow, and judges; says whether all is well.
fn tell(scratch: &Path, handle: &Handle, kills: u32, seed: u64) -> bool {
    let mut random = Random::new(seed);
    let mut stage = Stage::start(scratch, handle, &mut random);
    if !ills::may_mount() {
        println!("no file system can be mounted here: no disk will be full");
    }
    let ledger = Arc::new(Ledger::default());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let desk = Desk::new(&stage.client_url(), &stage.token);
        let work = client::work(desk, Arc::clone(&ledger), stage.repository_url(), seed, random.fork());
        clients.spawn_on(work, handle);
    }
    let damage = storm::blow(&mut stage, kills, &ledger, &mut random);
    if storm::is_stopped() {
        handle.block_on(clients.shutdown());
        return false;
    }
    println!("  the storm is over after {}; all comes to rest", seconds(damage.lasted));
    let mut verdict = oracle::judge(&mut stage, handle, &ledger);
    handle.block_on(clients.shutdown());
    for program in stage.all() {
        program.finish_log();
    }
    show(&stage, &ledger, &damage, &verdict);
    if !verdict.is_good() {
        stage.keep_agents(scratch);
    }
    drop(stage);
    verdict.leftovers.extend(oracle::leftover_processes(scratch));
    verdict.findings().take(SHOWN_FINDINGS).for_each(|finding| println!("  ! {finding}"));
    verdict.is_good()
}

/// The table.
fn show(stage: &Stage, ledger: &Ledger, damage: &Damage, verdict: &Verdict) {
    let row = |name: &str, value: String| println!("  {name:<22} {value}");
    let listed = |counts: &std::collections::BTreeMap<&'static str, u32>| {
        counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    println!();
    row("kills", format!("{} ({})", damage.kills.values().sum::<u32>(), listed(&damage.kills)));
    let programs = stage.agents.iter().chain([&stage.control_plane]);
    let killed: Vec<_> = programs.clone().map(|it| format!("{} {}", it.name(), it.kills)).collect();
    row("of each program", killed.join(", "));
    let counts = &stage.weather.counts;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    row(
        "connections",
        format!(
            "{}, of them delayed {}, cut {}, truncated {}, swallowed {}",
            count(&counts.connections),
            count(&counts.delayed),
            count(&counts.cut),
            count(&counts.truncated),
            count(&counts.swallowed)
        ),
    );
    row("ills", if damage.ills.is_empty() { "none".to_owned() } else { listed(&damage.ills) });
    let ends: Vec<&String> = programs.flat_map(|it| &it.ends).collect();
    row("ended by themselves", ends.len().to_string());
    ends.iter().take(SHOWN_FINDINGS).for_each(|end| println!("    {end}"));
    let outcomes: Vec<_> = verdict.outcomes.iter().map(|(name, count)| format!("{name} {count}")).collect();
    row("tasks", format!("{} ({})", verdict.outcomes.values().sum::<usize>(), outcomes.join(", ")));
    row("attempts", format!("{}, {} of one task at the most", verdict.attempts, verdict.most_attempts));
    row("requests repeated", count(&ledger.repeats).to_string());
    row("lost", verdict.lost.len().to_string());
    row("doubled", verdict.doubled.len().to_string());
    row("stale artifacts", format!("{}, which expire", verdict.stale_artifacts));
    row("leftovers", verdict.leftovers.len().to_string());
    row("otherwise wrong", verdict.wrong.len().to_string());
    row("longest gap", seconds(ledger.longest_gap()));
    let slowest = ledger.posted().values().filter_map(|task| task.took).max().unwrap_or_default();
    row("slowest task", seconds(slowest));
    row("time", format!("{} of storm, {} to rest", seconds(damage.lasted), seconds(verdict.rest)));
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Resolves at Ctrl-C or SIGTERM.
async fn interrupted() {
    let mut terminate = signal(SignalKind::terminate()).expect("a handler of SIGTERM");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
