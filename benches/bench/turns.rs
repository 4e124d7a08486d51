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
    pub(crate) fn time(&self, command: Command) -> Duration {
        self.time_all(vec![command])
    }

    /// Starts programs together and waits for the end of the last.
    ///
    /// # Panics
    /// When one fails, with what it wrote.
    pub(crate) fn time_all(&self, mut commands: Vec<Command>) -> Duration {
        for (number, command) in commands.iter_mut().enumerate() {
            let errors = File::create(self.file(number)).expect("a file for errors");
            let output = errors.try_clone().expect("a file for output");
            command.stdin(Stdio::null()).stdout(output).stderr(errors);
        }
        let begun = Instant::now();
        let started =
            commands.iter_mut().map(|command| command.spawn().expect("a program that can be started"));
        // All of them are started before the first one is waited for.
        let started: Vec<_> = started.collect();
        let ended = started.into_iter().map(|mut child| child.wait().expect("the status of a program"));
        let ended: Vec<_> = ended.collect();
        let took = begun.elapsed();
        for (number, (status, command)) in ended.iter().zip(&commands).enumerate() {
            if !status.success() {
                let said = std::fs::read_to_string(self.file(number)).unwrap_or_default();
                panic!("{command:?} ended with {status}\n{said}");
            }
        }
        took
    }

    /// What the last program, or the first of several, wrote.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.file(0)).unwrap_or_default()
    }

    fn file(&self, number: usize) -> PathBuf {
        self.errors.with_extension(number.to_string())
    }
}

/// Lets two programs take turns, so that whatever else the machine does hits both alike; what each run came to.
pub(crate) fn take_turns<T>(
    warm_ups: usize,
    runs: usize,
    mut ours: impl FnMut() -> T,
    mut theirs: impl FnMut() -> T,
) -> (Vec<T>, Vec<T>) {
    for _ in 0..warm_ups {
        ours();
        theirs();
    }
    let (mut of_ours, mut of_theirs) = (Vec::new(), Vec::new());
    for run in 0..runs {
        // Who goes first changes, too.
        if run % 2 == 0 {
            of_ours.push(ours());
            of_theirs.push(theirs());
        } else {
            of_theirs.push(theirs());
            of_ours.push(ours());
        }
    }
    (of_ours, of_theirs)
}

/// The medians of two programs that take turns.
pub(crate) fn compare(
    name: &str,
    target: Target,
    warm_ups: usize,
    runs: usize,
    ours: impl FnMut() -> Duration,
    theirs: impl FnMut() -> Duration,
) -> Figure {
    eprintln!("{name}: {runs} runs of each");
    let (our_times, their_times) = take_turns(warm_ups, runs, ours, theirs);
    let (our_times, their_times) = (Times::new(our_times), Times::new(their_times));
    let (our_median, their_median) = (milliseconds(our_times.median()), milliseconds(their_times.median()));
    eprintln!("  {our_median:.1} ms and {their_median:.1} ms");
    Figure::compared(name, &our_times, &their_times, target)
}
