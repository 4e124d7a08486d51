//! Packages from npm, pinned by their integrity, below the build directory.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::binary::build_directory;
use super::process::require;

/// Written last: packages without it were never wholly installed.
const COMPLETE: &str = "complete";

/// What npm needs to know, beside each other in `tests/support/node`.
const FILES: [&str; 2] = ["package.json", "package-lock.json"];

/// The packages of `tests/support/node`. They are installed once and kept with what was built.
pub struct Packages {
    directory: PathBuf,
}

impl Packages {
    /// Installs them, unless that was done before. Other tests and other processes wait.
    ///
    /// # Panics
    /// When Node.js or npm is missing, with the Debian package to install, or when npm fails, with what it said.
    pub fn installed() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/node");
        let mut hasher = DefaultHasher::new();
        for file in FILES {
            fs::read(source.join(file)).expect("what npm shall install").hash(&mut hasher);
        }
        let root = build_directory().join("node");
        fs::create_dir_all(&root).expect("a directory for packages");
        let directory = root.join(format!("{:016x}", hasher.finish()));
        let lock = File::create(directory.with_extension("lock")).expect("a lock");
        lock.lock().expect("the lock");
        if !directory.join(COMPLETE).is_file() {
            fs::create_dir_all(&directory).expect("a directory for packages");
            for file in FILES {
                fs::copy(source.join(file), directory.join(file)).expect("a copy of what npm shall install");
            }
            install(&directory);
            File::create(directory.join(COMPLETE)).expect("the mark of complete packages");
        }
        Self { directory }
    }

    /// Node.js, to be given the path of a script, which is told where its packages are by `PACKAGES`.
    pub fn node(&self) -> Command {
        let mut command = Command::new(require("node", "nodejs"));
        command.env("PACKAGES", self.directory.join("package.json"));
        command
    }
}

fn install(directory: &Path) {
    let npm = require("npm", "npm");
    let mut command = Command::new(npm);
    command.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]);
    let output = command.current_dir(directory).stdin(Stdio::null()).output().expect("npm");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let hint =
        "npm takes the packages from the registry that it is configured for; see that it can be reached";
    assert!(output.status.success(), "npm ci ended with {}\n{said}\n{hint}", output.status);
}
