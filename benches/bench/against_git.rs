//! `sortie test` beside `git ls-remote`, and `sortie clone` beside `git clone`, on the same server.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stand_ins::Authority;
use tempfile::TempDir;

use crate::effort::Effort;
use crate::figure::{Figure, Target};
use crate::statistics::{Times, milliseconds};
use crate::support::binary::{binary, isolate};
use crate::support::control_plane::secret_file;
use crate::support::nginx::Nginx;
use crate::support::repository::{SampleRepository, git};

/// How many times as long as `git ls-remote` a test may take.
const TEST_TARGET: Target = Target::Ratio(1.5);
/// How many times as long as `git clone` a clone may take.
const CLONE_TARGET: Target = Target::Ratio(1.6);
/// What the server accepts.
const TOKEN: &str = "token-for-measurements";
/// A directory in memory, where the system has one.
const IN_MEMORY: &str = "/dev/shm";

/// A server with two repositories, and what both programs need to reach it.
struct Bench {
    nginx: Nginx,
    ca_file: PathBuf,
    pat_file: PathBuf,
    errors: PathBuf,
    home: TempDir,
    scratch: TempDir,
}

/// Measures all of it.
pub(crate) fn measure(effort: &Effort) -> Vec<Figure> {
    let bench = Bench::start(effort.objects);
    let test = {
        let small = format!("{}/small.git", bench.nginx.url());
        let ours = || bench.time(bench.sortie(["test", &small]));
        let theirs = || bench.time(bench.git(["ls-remote", &small]));
        compare("`sortie test` and `git ls-remote`", TEST_TARGET, effort.warm_ups, effort.tests, ours, theirs)
    };
    let full = bench.clones("full clone", &[], CLONE_TARGET, effort);
    let shallow = bench.clones("clone of depth 1", &["--depth", "1"], Target::None, effort);
    vec![test, full, shallow]
}

impl Bench {
    fn start(objects: usize) -> Self {
        eprintln!("generating a repository of {objects} objects");
        let scratch = tempfile::tempdir().expect("a private directory");
        let path = scratch.path();
        SampleRepository::small(&path.join("small.git"));
        SampleRepository::generated(&path.join("large.git"), objects);
        let authority = Authority::create(path).expect("an authority for certificates");
        let nginx = Nginx::plan(path).accept_pat(TOKEN).start(&authority);
        let ca_file = authority.ca_file().to_owned();
        let pat_file = secret_file(path, "pat", TOKEN);
        let home = tempfile::tempdir().expect("a private home");
        Self { nginx, ca_file, pat_file, errors: path.join("errors"), home, scratch }
    }

    fn clones(&self, name: &str, options: &[&str], target: Target, effort: &Effort) -> Figure {
        let place = clone_directory();
        let url = format!("{}/large.git", self.nginx.url());
        let directory = place.path().join("clone");
        let timed = |mut command: Command| {
            command.args(options);
            let took = self.time(command);
            assert!(directory.join(".git").is_dir(), "nothing was cloned");
            std::fs::remove_dir_all(&directory).expect("the clone can be removed");
            took
        };
        let ours = || {
            let mut command = self.sortie(["clone", &url]);
            command.arg(&directory);
            timed(command)
        };
        let theirs = || {
            let mut command = self.git(["clone", "--quiet", &url]);
            command.arg(&directory);
            timed(command)
        };
        let name = format!("`sortie clone` and `git clone`, {name}");
        compare(&name, target, effort.warm_ups, effort.clones, ours, theirs)
    }

    fn sortie<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new(binary("sortie"));
        isolate(&mut command, self.home.path()).args(arguments);
        command.args(["--provider", "git", "--json", "--pat-file"]).arg(&self.pat_file);
        command.arg("--ca-file").arg(&self.ca_file);
        command
    }

    fn git<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = git();
        let header = STANDARD.encode(format!(":{TOKEN}"));
        command.arg("-c").arg(format!("http.sslCAInfo={}", self.ca_file.display()));
        command.arg("-c").arg(format!("http.extraHeader=Authorization: Basic {header}"));
        command.args(arguments).current_dir(self.scratch.path());
        command
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    /// When it fails, with what it wrote.
    fn time(&self, mut command: Command) -> Duration {
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

/// A directory in memory where there is one, so that the disk is not what is measured.
fn clone_directory() -> TempDir {
    let in_memory = Path::new(IN_MEMORY);
    let builder = tempfile::Builder::new();
    let found = if in_memory.is_dir() { TempDir::new_in(in_memory) } else { builder.tempdir() };
    found.or_else(|_| builder.tempdir()).expect("a private directory")
}

/// Lets two programs take turns, so that whatever else the machine does hits both alike.
fn compare(
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
