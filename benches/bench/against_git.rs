//! `sortie clone` beside `git clone`, on the same server.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stand_ins::Authority;
use tempfile::TempDir;

use crate::effort::Effort;
use crate::figure::{Figure, Target};
use crate::support::binary::{binary, isolate};
use crate::support::control_plane::secret_file;
use crate::support::nginx::Nginx;
use crate::support::repository::{SampleRepository, git};
use crate::turns::{Programs, compare};

/// How many times as long as `git clone` a clone may take.
const CLONE_TARGET: Target = Target::Ratio(1.6);
/// What the server accepts.
const TOKEN: &str = "token-for-measurements";
/// A directory in memory, where the system has one.
const IN_MEMORY: &str = "/dev/shm";

/// A server with a repository, and what both programs need to reach it.
struct Bench {
    nginx: Nginx,
    ca_file: PathBuf,
    pat_file: PathBuf,
    programs: Programs,
    home: TempDir,
    scratch: TempDir,
}

/// Measures all of it.
pub(crate) fn measure(effort: &Effort) -> Vec<Figure> {
    let bench = Bench::start(effort.objects);
    let full = bench.clones("full clone", &[], CLONE_TARGET, effort);
    let shallow = bench.clones("clone of depth 1", &["--depth", "1"], Target::None, effort);
    vec![full, shallow]
}

impl Bench {
    fn start(objects: usize) -> Self {
        eprintln!("generating a repository of {objects} objects");
        let scratch = tempfile::tempdir().expect("a private directory");
        let path = scratch.path();
        SampleRepository::generated(&path.join("large.git"), objects);
        let authority = Authority::create(path).expect("an authority for certificates");
        let nginx = Nginx::plan(path).accept_pat(TOKEN).start(&authority);
        let ca_file = authority.ca_file().to_owned();
        let pat_file = secret_file(path, "pat", TOKEN);
        let home = tempfile::tempdir().expect("a private home");
        Self { nginx, ca_file, pat_file, programs: Programs::new(path), home, scratch }
    }

    fn clones(&self, name: &str, options: &[&str], target: Target, effort: &Effort) -> Figure {
        let place = clone_directory();
        let url = format!("{}/large.git", self.nginx.url());
        let directory = place.path().join("clone");
        let timed = |mut command: Command| {
            command.args(options);
            let took = self.programs.time(command);
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
}

/// A directory in memory where there is one, so that the disk is not what is measured.
fn clone_directory() -> TempDir {
    let in_memory = Path::new(IN_MEMORY);
    let builder = tempfile::Builder::new();
    let found = if in_memory.is_dir() { TempDir::new_in(in_memory) } else { builder.tempdir() };
    found.or_else(|_| builder.tempdir()).expect("a private directory")
}
