//! What befalls the disks: a full file system, and a database that somebody else has locked.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::support::process::{command_line, is_root, require};

/// Set in the process that has a mount namespace of its own.
const INSIDE: &str = "SORTIE_CHAOS_INSIDE";
/// How much is written at once to fill a file system.
static PIECE: [u8; 64 * 1024] = [0; 64 * 1024];

/// Goes on in a mount namespace of its own where the system lets it, so that what is mounted goes with this process,
/// whatever ends it.
pub(crate) fn enter_own_namespace() {
    if std::env::var_os(INSIDE).is_some() || !is_root() {
        return;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command
    };
    let may = unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if may && let Ok(program) = std::env::current_exe() {
        // It returns only where it fails; small file systems are done without then.
        let _ = unshare().arg(program).env(INSIDE, "1").exec();
    }
}

/// Whether small file systems can be mounted.
pub(crate) fn may_mount() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// What is mounted.
static MOUNTED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Takes away what was mounted, so that the directories can be removed.
pub(crate) fn unmount_all() {
    for directory in MOUNTED.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = Command::new("umount").arg("--lazy").arg(directory).status();
    }
}

/// Copies what lies on the small file systems, which goes with them, into this directory.
pub(crate) fn keep_mounted(into: &Path) {
    for directory in MOUNTED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let name = directory.display().to_string().replace('/', "-");
        let _ = Command::new("cp").arg("-a").arg(directory).arg(into.join(format!("kept{name}"))).status();
    }
}

/// Mounts a file system of so many MiB, in memory.
///
/// # Panics
/// When it cannot be mounted.
pub(crate) fn mount_small(directory: &Path, mebibytes: u32) {
    fs::create_dir_all(directory).expect("a directory to mount at");
    let options = format!("size={mebibytes}m,mode=0700");
    command_line(Command::new("mount").args(["-t", "tmpfs", "-o", &options, "chaos"]).arg(directory));
    MOUNTED.lock().unwrap_or_else(PoisonError::into_inner).push(directory.to_owned());
}

/// An ill. It ends when it is dropped.
pub(crate) enum Ill {
    /// A file that takes all that was left.
    Full(PathBuf),
    /// A program that has locked the database.
    Locked(Child),
}

impl Ill {
    /// Fills the file system of a directory to its last byte.
    pub(crate) fn fill(directory: &Path) -> Self {
        let path = directory.join("filled-by-chaos");
        if let Ok(mut file) = File::create(&path) {
            let mut piece = &PIECE[..];
            // Smaller and smaller pieces leave nothing.
            while !piece.is_empty() {
                if file.write_all(piece).is_err() {
                    piece = &piece[..piece.len() / 2];
                }
            }
        }
        Self::Full(path)
    }

    /// Locks a database for everybody else.
    pub(crate) fn lock(database: &Path) -> Self {
        const HOLD: &str = "import sqlite3, sys\n\
             connection = sqlite3.connect(sys.argv[1], timeout=10, isolation_level=None)\n\
             connection.execute('BEGIN EXCLUSIVE')\n\
             print('locked', flush=True)\n\
             sys.stdin.read()\n";
        let mut command = Command::new(require("python3", "python3"));
        command.args(["-I", "-c", HOLD]).arg(database).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.stderr(Stdio::null()).spawn().expect("python3");
        let mut word = [0; 6];
        // Where it does not get the lock it ends, and nothing is locked.
        let _ = holder.stdout.as_mut().map(|stdout| stdout.read_exact(&mut word));
        Self::Locked(holder)
    }
}

impl Drop for Ill {
    fn drop(&mut self) {
        match self {
            Self::Full(path) => {
                let _ = fs::remove_file(path);
            }
            Self::Locked(holder) => {
                // It ends when its input does, so that it does when this process is gone, too.
                drop(holder.stdin.take());
                let _ = holder.wait();
            }
        }
    }
}
