//! Two programs that take turns, and how long each of them took.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::figure::{Figure, Target};
use crate::statistics::{Times, milliseconds};

/// Runs programs whose output goes to a file, which is read only where one fails.
pub(crate) struct Programs {
    errors: PathBuf,
}

impl Programs {
    /// Keeps the file in this directory.
    pub(crate) fn new(directory: &Path) -> Self {
        Self { errors: directory.join("errors") }
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    /// When it fails, with what it wrote.
    pub(crate) fn time(&self, mut command: Command) -> Duration {
        let errors = File::create(&self.errors).expect("a file for errors");
        let output = errors.try_clone().expect("a file for output");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let begun = Instant::now();
        let status = command.status().expect("a program that can be started");
        let took = begun.elapsed();
        if !status.success() {
            let said = std::fs::read_to_string(&self.errors).unwrap_or_default();
            panic!("{command:?} ended with {status}\n{said}");
        }
        took
    }
}

/// Lets two programs take turns, so that whatever else the machine does hits both alike.
pub(crate) fn compare(
    name: &str,
    target: Target,
    warm_ups: usize,
    runs: usize,
    mut ours: impl FnMut() -> Duration,
    mut theirs: impl FnMut() -> Duration,
) -> Figure {
    eprintln!("{name}: {runs} runs of each");
    for _ in 0..warm_ups {
        ours();
        theirs();
    }
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for run in 0..runs {
        // Who goes first changes, too.
        if run % 2 == 0 {
            our_times.push(ours());
            their_times.push(theirs());
        } else {
            their_times.push(theirs());
            our_times.push(ours());
        }
    }
    let (our_times, their_times) = (Times::new(our_times), Times::new(their_times));
    let (our_median, their_median) = (milliseconds(our_times.median()), milliseconds(their_times.median()));
    eprintln!("  {our_median:.1} ms and {their_median:.1} ms");
    Figure::compared(name, &our_times, &their_times, target)
}
