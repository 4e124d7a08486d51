//! An archive of a tree, beside `git archive | zstd -3`.
//!
//! There is no command for it: this program starts itself again as one that archives and nothing else, so that the
//! start of a process is part of both times.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use sortie::git::{ArchiveFormat, ArchiveRequest, Control, archive};
use tokio_util::sync::CancellationToken;

use crate::effort::Effort;
use crate::figure::{Figure, Target};
use crate::support::process::{command_line, require};
use crate::support::repository::git;
use crate::turns::{Programs, compare};

/// The first argument of the program that archives; a repository, a commit and a file follow.
pub(crate) const FLAG: &str = "--archive";
/// How long an archive may take.
const DEADLINE: Duration = Duration::from_secs(600);

/// Measures archives of the commit in a bare repository; what they write goes below `directory`.
pub(crate) fn measure(repository: &Path, commit: &str, directory: &Path, effort: &Effort) -> Figure {
    let programs = Programs::new(directory);
    let (of_ours, of_theirs) = (directory.join("ours.tar.zst"), directory.join("theirs.tar.zst"));
    let ours = || {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        command.arg(FLAG).arg(repository).arg(commit).arg(&of_ours);
        programs.time(command)
    };
    let theirs = || programs.time(piped(repository, commit, &of_theirs));
    ours();
    theirs();
    assert!(unpacked(&of_ours) == unpacked(&of_theirs), "the archives hold other things");
    let name = "archive of a tree, against `git archive` and `zstd -3`";
    let figure = compare(name, Target::Ratio(0.65), 1, effort.archives, ours, theirs);
    for file in [of_ours, of_theirs] {
        std::fs::remove_file(file).expect("the archive can be removed");
    }
    figure.aiming_at(0.5)
}

/// What the program does that was started with [`FLAG`] and these arguments.
///
/// # Panics
/// When it cannot.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let [repository, commit, file] = arguments else { panic!("{FLAG} REPOSITORY COMMIT FILE") };
    let request = ArchiveRequest {
        commit: commit.clone(),
        paths: Vec::new(),
        format: ArchiveFormat::TarZst,
        prefix: String::new(),
        max_bytes: u64::MAX,
    };
    let control = Control::new(tokio::time::Instant::now() + DEADLINE, CancellationToken::new());
    let mut sink = BufWriter::new(File::create(file).expect("a file for the archive"));
    archive(Path::new(repository), &request, &mut sink, &control).expect("an archive");
    sink.flush().expect("an archive that is written");
    ExitCode::SUCCESS
}

/// Two processes with a pipe between them. The shell becomes the second one.
fn piped(repository: &Path, commit: &str, file: &Path) -> Command {
    let git = git();
    let mut command = Command::new("sh");
    command.env_clear().envs(git.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args([
        "-c",
        "\"$1\" -C \"$2\" archive --format=tar \"$3\" | exec \"$4\" -3 -q -f -o \"$5\"",
        "archive",
    ]);
    command.arg(git.get_program()).arg(repository).arg(commit).arg(require("zstd", "zstd")).arg(file);
    command
}

/// The checksum of the tar in an archive.
fn unpacked(file: &PathBuf) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", "\"$1\" -d -q -c \"$2\" | sha256sum", "unpacked"]);
    command_line(command.arg(require("zstd", "zstd")).arg(file))
}
