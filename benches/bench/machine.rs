//! What the figures were measured on, without anything that names the machine.

use std::fs;
use std::process::Command;

use crate::support::binary::binary;
use crate::support::process::{command_line, require};
use crate::support::repository::git;

/// Kibibytes in a gibibyte.
const KIB_IN_GIB: f64 = 1024.0 * 1024.0;

/// Names and facts, in the order of a list.
pub(crate) fn facts() -> Vec<(&'static str, String)> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|text| kibibytes(&text)).unwrap_or_default();
    vec![
        ("Processor", format!("{processor}, {cores} cores")),
        ("Memory", format!("{:.0} GiB", memory as f64 / KIB_IN_GIB)),
        ("Kernel", kernel()),
        ("Sortie", command_line(Command::new(binary("sortie")).arg("--version"))),
        ("Git", command_line(git().arg("--version"))),
        ("nginx", nginx_version()),
    ]
}

/// The first value of a field in one of the kernel's files of the form `name: value`.
pub(crate) fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}

/// The number in `1234 kB`, as the kernel writes it.
pub(crate) fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse().ok()
}

/// Its version without what a distribution or a cloud appends.
fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {}", release.split(['-', '\n']).next().unwrap_or_default())
}

/// It writes its version to standard error.
fn nginx_version() -> String {
    let output = Command::new(require("nginx", "nginx-light")).arg("-v").output().expect("nginx");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    text.trim().trim_start_matches("nginx version: ").to_owned()
}
