//! A program with a directory on a disk that fills up.
//!
//! The directory is a file system of its own, in memory, which only the program sees (`unshare`): it goes with the
//! program, whatever ends that. Root may mount it; others may where user namespaces are allowed. Where neither works the
//! kernel limits the size of each file instead (`RLIMIT_FSIZE`), which ends writes midway just as well.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::process::{command_line, require};

/// Set by whoever wants to see the tests as they are where nothing can be mounted.
const WITHOUT_MOUNT: &str = "SORTIE_TEST_WITHOUT_MOUNT";

/// What fills the file system, beside what the program has there.
const FILLER: &str = "filler";

/// Mounts the file system over what is there, takes that along, and becomes the program.
const MOUNT: &str = "set -e; mkdir -p \"$1\"; rm -rf \"$1.before\"; cp -a \"$1\" \"$1.before\"; \
    mount -t tmpfs -o \"size=$2m,mode=0700\" small \"$1\"; cp -a \"$1.before/.\" \"$1\"; rm -rf \"$1.before\"; \
    shift 2; exec \"$@\"";

/// A program that does not listen hears of the limit as an error of its write.
const LIMIT: &str = "trap '' XFSZ; shift 2; exec \"$@\"";

/// A directory that becomes small once the program runs.
#[derive(Clone, Debug)]
pub struct SmallDisk {
    directory: PathBuf,
    mebibytes: u32,
}

/// How a disk is made small here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A file system of its own, mounted with these arguments of `unshare`.
    Mount(&'static [&'static str]),
    /// A limit for the size of each file.
    FileSize,
}

/// The way that works here.
pub fn way() -> Way {
    static WAY: OnceLock<Way> = OnceLock::new();
    *WAY.get_or_init(|| {
        let ways: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
        let works = |arguments: &&[&str]| {
            let directory = tempfile::tempdir().expect("a private directory");
            let mut command = Command::new(require("unshare", "util-linux"));
            command.args(*arguments).args(["mount", "-t", "tmpfs", "small"]).arg(directory.path());
            command.stdin(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        let found =
            if std::env::var_os(WITHOUT_MOUNT).is_some() { None } else { ways.into_iter().find(works) };
        found.map_or(Way::FileSize, Way::Mount)
    })
}

impl SmallDisk {
    /// Of so many MiB. What lies in the directory when the program starts is taken along.
    pub fn new(directory: &Path, mebibytes: u32) -> Self {
        Self { directory: directory.to_owned(), mebibytes }
    }

    /// The program with this disk.
    pub fn command(&self, program: &Path) -> Command {
        let shell = require("sh", "dash");
        let mut command = match way() {
            Way::Mount(arguments) => {
                let mut command = Command::new(require("unshare", "util-linux"));
                command.args(arguments).arg(shell).args(["-c", MOUNT]);
                command
            }
            Way::FileSize => {
                let mut command = Command::new(shell);
                command.args(["-c", LIMIT]);
                command
            }
        };
        command.arg("small").arg(&self.directory).arg(self.mebibytes.to_string()).arg(program);
        command
    }

    /// A path as the program with this number sees it.
    pub fn seen(id: u32, path: &Path) -> PathBuf {
        match way() {
            Way::Mount(_) => {
                Path::new("/proc").join(id.to_string()).join("root").join(path.strip_prefix("/").unwrap())
            }
            Way::FileSize => path.to_owned(),
        }
    }

    /// How many bytes there is room for.
    pub fn room(&self, id: u32) -> u64 {
        let mut command = Command::new(require("stat", "coreutils"));
        let told = command_line(command.args(["-f", "--format=%a %S"]).arg(Self::seen(id, &self.directory)));
        told.split(' ').map(|number| number.parse::<u64>().expect("a number")).product()
    }

    /// Leaves the program room for so many bytes, or for a quarter of them in one file.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn leave(&self, id: u32, bytes: u64) {
        self.make_room(id);
        match way() {
            Way::Mount(_) => {
                let mut file =
                    File::create(Self::seen(id, &self.directory.join(FILLER))).expect("the filler");
                let mut left = self.room(id).checked_sub(bytes).expect("there is as much room");
                let piece = [0; 4096];
                while left > 0 {
                    let length = left.min(piece.len() as u64);
                    file.write_all(&piece[..usize::try_from(length).unwrap()]).expect("to fill the disk");
                    left -= length;
                }
            }
            // The program itself finds out whether its disk is full by writing a few MiB.
            Way::FileSize => limit(id, &(bytes / 4).to_string()),
        }
    }

    /// Leaves it all the room that there is.
    pub fn make_room(&self, id: u32) {
        match way() {
            Way::Mount(_) => drop(std::fs::remove_file(Self::seen(id, &self.directory.join(FILLER)))),
            Way::FileSize => limit(id, "unlimited"),
        }
    }
}

fn limit(id: u32, bytes: &str) {
    let mut command = Command::new(require("prlimit", "util-linux"));
    command_line(command.arg("--pid").arg(id.to_string()).arg(format!("--fsize={bytes}:unlimited")));
}
