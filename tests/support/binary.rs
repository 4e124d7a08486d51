//! The built programs, run with nothing of the machine's or the user's settings.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::process::Child;

/// How long a run of `sortie` may take when a test does not say.
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);

/// The path of one of the workspace's programs: `sortie`, `sortie-control` or `stand-ins`.
///
/// It is looked for where this test was built, and built there once when it is missing.
///
/// # Panics
/// When it cannot be built.
pub fn binary(name: &str) -> PathBuf {
    if let (true, Some(known)) = (name == "sortie", option_env!("CARGO_BIN_EXE_sortie")) {
        return PathBuf::from(known);
    }
    let directory = build_directory();
    let program = directory.join(name);
    if !program.is_file() {
        build(name, &directory);
    }
    assert!(program.is_file(), "{} was not built; run: cargo build --workspace", program.display());
    program
}

/// `target/debug` or `target/release`, found from where this program lies.
pub(super) fn build_directory() -> PathBuf {
    let mut directory = std::env::current_exe().expect("the path of this program");
    directory.pop();
    if directory.ends_with("deps") || directory.ends_with("examples") {
        directory.pop();
    }
    directory
}

fn build(package: &str, directory: &Path) {
    static BUILDING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = BUILDING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "-p", package]).current_dir(env!("CARGO_MANIFEST_DIR"));
    if directory.ends_with("release") {
        command.arg("--release");
    }
    if let Some(target) = directory.parent() {
        command.env("CARGO_TARGET_DIR", target);
    }
    let status = command.stdin(Stdio::null()).status().expect("cargo");
    assert!(status.success(), "cargo build -p {package} ended with {status}");
}

/// An environment without proxies, settings or secrets; the home directory is `home`.
pub fn isolate<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.env("HOME", home).env("LC_ALL", "C.UTF-8").env("NO_COLOR", "1").current_dir(home)
}

/// What a run of `sortie` left behind.
#[derive(Debug)]
pub struct Output {
    /// The exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Everything on standard output.
    pub stdout: String,
    /// Everything on standard error.
    pub stderr: String,
}

impl Output {
    /// Standard output as the one JSON value that it holds.
    ///
    /// # Panics
    /// When it holds anything else.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON on standard output: {error}\n{self:#?}"))
    }

    /// The code of the diagnosis in `--json` output; empty when there is none.
    pub fn diagnosis(&self) -> String {
        self.json()["diagnosis"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// One way to run `sortie`, with a private home directory.
pub struct Sortie {
    home: TempDir,
    output: TempDir,
    environment: Vec<(String, String)>,
    limit: Duration,
}

impl Default for Sortie {
    fn default() -> Self {
        Self::new()
    }
}

impl Sortie {
    /// With an empty home directory and the default limit of a minute.
    pub fn new() -> Self {
        let home = tempfile::tempdir().expect("a private home");
        let output = tempfile::tempdir().expect("a private directory");
        Self { home, output, environment: Vec::new(), limit: DEFAULT_LIMIT }
    }

    /// Sets a variable of its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets it run for this long.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Its home directory, which is also where it runs.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Starts it and leaves it running. A further start replaces the output of the one before.
    pub fn start<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Child {
        let mut command = Command::new(binary("sortie"));
        isolate(&mut command, self.home.path()).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // The output's files lie elsewhere, so that a test that lists the home sees only what sortie made.
        Child::start("sortie", &mut command, self.output.path())
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it does not end within the limit, with the end of what it wrote.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Output {
        let mut child = self.start(arguments);
        let Some(status) = child.wait(self.limit) else {
            panic!("sortie still runs after {:?}\n{}", self.limit, child.tail());
        };
        Output { status: status.code(), stdout: child.stdout(), stderr: child.stderr() }
    }
}

/// Runs `sortie` with a private home, no proxy and a limit of a minute.
///
/// # Panics
/// When it does not end in time.
pub fn sortie<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    Sortie::new().run(arguments)
}
