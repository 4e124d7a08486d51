//! Thousands of seeds, and what must hold in each of them. `make simulate SEEDS=N` runs more.
#![allow(clippy::expect_used)]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sortie_simulation::oracle::Counts;
use sortie_simulation::world::{self, Outcome};

/// Runs seeds on all cores and hands each outcome on.
fn run(seeds: u64, look: impl Fn(u64, &Outcome) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    look(seed, &world::run(seed));
                }
            });
        }
    });
}

#[test]
fn nothing_is_lost_and_nothing_is_counted_twice() {
    let sum = Mutex::new(Counts::default());
    run(3000, |seed, outcome| {
        let violations = outcome.violations.join("\n  ");
        assert!(violations.is_empty(), "make simulate SEED={seed} repeats it:\n  {violations}");
        sum.lock().expect("no other thread panicked").add(&outcome.counts);
    });
    let sum = sum.into_inner().expect("no thread panicked");
    // It would hold as well where nothing happens, so that there must have been something.
    let happened = [
        ("kills", sum.kills, 10_000),
        ("tasks", sum.tasks, 30_000),
        ("successes", sum.succeeded, 5_000),
        ("cancels", sum.cancelled, 1_000),
        ("attempts beyond the first", sum.attempts - sum.tasks, 1_000),
        ("late results", sum.late_results, 500),
    ];
    for (what, count, least) in happened {
        assert!(count >= least, "only {count} {what}: {sum:?}");
    }
}

#[test]
fn a_seed_decides_everything() {
    run(100, |seed, outcome| {
        assert_eq!(outcome, &world::run(seed), "the second run of seed {seed} went another way");
    });
}
