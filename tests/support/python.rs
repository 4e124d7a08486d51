//! Packages from PyPI, pinned by their hashes, in virtual environments below the build directory.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::binary::build_directory;
use super::process::{Child, START_LIMIT, require};

/// Written last: an environment without it was never finished.
const COMPLETE: &str = "complete";

/// A virtual environment with certain packages. It is made once and kept with what was built.
pub struct Environment {
    directory: PathBuf,
}

impl Environment {
    /// The environment with the packages of a requirements file, each with its hashes, as
    /// `pip-compile --generate-hashes` writes it; `tests/support/python` is the place for such files.
    ///
    /// Whoever comes first makes it, other tests and other processes wait.
    ///
    /// # Panics
    /// When Python or its module venv is missing, with the Debian package to install, or when pip fails, with
    /// what it said.
    pub fn with(requirements: &Path) -> Self {
        let pinned =
            fs::read(requirements).unwrap_or_else(|error| panic!("{}: {error}", requirements.display()));
        let python = require("python3", "python3");
        let mut hasher = DefaultHasher::new();
        // An environment belongs to the Python that made it.
        (&pinned, fs::canonicalize(&python).ok()).hash(&mut hasher);
        let root = build_directory().join("python");
        fs::create_dir_all(&root).expect("a directory for virtual environments");
        let directory = root.join(format!("{:016x}", hasher.finish()));
        let lock = File::create(directory.with_extension("lock")).expect("a lock");
        lock.lock().expect("the lock");
        if !directory.join(COMPLETE).is_file() {
            install(&python, &directory, requirements);
            File::create(directory.join(COMPLETE)).expect("the mark of a complete environment");
        }
        Self { directory }
    }

    /// The environment with the packages of `tests/support/python/NAME.txt`.
    ///
    /// # Panics
    /// As [`Self::with`].
    pub fn named(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/python");
        Self::with(&directory.join(name).with_extension("txt"))
    }

    /// Starts `tests/support/python/NAME_server.py` with these settings; it tells its port in its first line.
    ///
    /// # Panics
    /// When it does not start, with what it wrote.
    pub fn serve(&self, name: &str, settings: &serde_json::Value, directory: &Path) -> (Child, u16) {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/python");
        let mut command = self.python();
        command.arg(scripts.join(format!("{name}_server.py"))).arg(settings.to_string());
        let mut child = Child::start(name, &mut command, directory);
        let stdout = directory.join(format!("{name}.stdout"));
        let told = || {
            let text = fs::read_to_string(&stdout).unwrap_or_default();
            let (first, _) = text.split_once('\n')?;
            first.strip_prefix("port ")?.parse().ok()
        };
        child.wait_for("the port is told", START_LIMIT, || told().is_some());
        (child, told().expect("the port"))
    }

    /// The interpreter, to be given the path of a script. It sees no packages but these.
    pub fn python(&self) -> Command {
        let mut command = Command::new(self.directory.join("bin/python"));
        command.args(["-I", "-u", "-B"]);
        command
    }
}

fn install(python: &Path, directory: &Path, requirements: &Path) {
    let venv = [Path::new("-m"), Path::new("venv"), Path::new("--clear"), directory];
    let hint = "install the Debian package \"python3-venv\": apt-get install python3-venv";
    run(Command::new(python).args(venv), hint);
    let mut pip = Command::new(directory.join("bin/python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--require-hashes",
    ]);
    let hint = "pip takes the packages from the index that it is configured for; see that it can be reached";
    run(pip.arg("--requirement").arg(requirements), hint);
}

fn run(command: &mut Command, hint: &str) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{command:?} ended with {}\n{said}\n{hint}", output.status);
}
