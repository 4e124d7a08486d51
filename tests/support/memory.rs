//! Runs of `sortie` whose memory the kernel counts.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::binary::{binary, isolate};
use super::process::require;

/// What the kernel and the program say of one run.
pub struct Measured {
    /// Its JSON.
    pub report: Value,
    /// The most memory, in KiB.
    pub memory_kib: u64,
    /// From start to end.
    pub took: Duration,
    /// The exit status; `None` where a signal ended it.
    pub status: Option<i32>,
}

/// Runs `sortie` to its end under GNU time.
///
/// # Panics
/// Where it prints no JSON.
pub fn measured<A: AsRef<OsStr>>(home: &Path, arguments: impl IntoIterator<Item = A>) -> Measured {
    let told = home.join("memory");
    // The program counts; the shell has a word of the same name that does not.
    let mut command = Command::new(require("time", "time"));
    isolate(&mut command, home).args(["--format=%M", "--output"]).arg(&told);
    command.arg(binary("sortie")).args(arguments);
    let began = Instant::now();
    let output = command.output().unwrap();
    let took = began.elapsed();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let memory = std::fs::read_to_string(told).unwrap();
    // A failed program makes `time` write a line more.
    let memory_kib = memory.lines().last().unwrap().trim().parse().unwrap();
    Measured { report, memory_kib, took, status: output.status.code() }
}
