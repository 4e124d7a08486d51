//! A program that is started again whenever it has ended, as a service manager would.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::process::Child;

/// The pause before a program that ended by itself is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// How much of the log of one run is kept, in bytes.
const KEPT_LOG_BYTES: usize = 256 * 1024;

/// A program that is killed and started again.
pub(crate) struct Supervised {
    name: String,
    directory: PathBuf,
    command: Box<dyn Fn() -> Command + Send>,
    child: Option<Child>,
    start_at: Option<Instant>,
    /// How often it was killed.
    pub(crate) kills: u32,
    /// How it ended by itself, each time.
    pub(crate) ends: Vec<String>,
}

impl Supervised {
    /// Starts it. Its output goes to files in the directory.
    pub(crate) fn start(
        name: &str,
        directory: &Path,
        command: impl Fn() -> Command + Send + 'static,
    ) -> Self {
        let mut started = Self {
            name: name.to_owned(),
            directory: directory.to_owned(),
            command: Box::new(command),
            child: None,
            start_at: None,
            kills: 0,
            ends: Vec::new(),
        };
        started.launch();
        started
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn launch(&mut self) {
        self.start_at = None;
        self.child = Some(Child::start(&self.name, &mut (self.command)(), &self.directory));
    }

    /// Kills it, and starts it again after a while.
    pub(crate) fn kill(&mut self, down: Duration) {
        if let Some(mut child) = self.child.take() {
            child.kill();
            self.kills += 1;
            self.keep_log(&child);
        }
        self.start_at = Some(Instant::now() + down);
    }

    /// Starts it where that is due, and notes where it has ended by itself.
    pub(crate) fn tend(&mut self) {
        if let Some(child) = &mut self.child
            && !child.is_running()
        {
            let status = child.wait(Duration::ZERO).map_or_else(String::new, |status| status.to_string());
            let said = child.stderr();
            let last = said.lines().last().unwrap_or_default();
            self.ends.push(format!("{} ended by itself ({status}): {last}", self.name));
            self.start_at = Some(Instant::now() + RESTART_PAUSE);
            if let Some(child) = self.child.take() {
                self.keep_log(&child);
            }
        }
        if self.start_at.is_some_and(|at| Instant::now() >= at) {
            self.launch();
        }
    }

    /// What it logged, in all its runs.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.directory.join(format!("{}.log", self.name))
    }

    fn keep_log(&self, child: &Child) {
        let said = child.stderr();
        let kept = said.len().saturating_sub(KEPT_LOG_BYTES);
        let kept = said.get(kept..).unwrap_or_default();
        let file = OpenOptions::new().create(true).append(true).open(self.log_file());
        let _ = file.and_then(|mut file| writeln!(file, "{kept}--- {} ended", self.name));
    }

    /// Puts the log of the run that still goes on behind those of the others.
    pub(crate) fn finish_log(&self) {
        if let Some(child) = &self.child {
            self.keep_log(child);
        }
    }
}
