//! Serves the repositories of a table, clones each by git and by Sortie, and tells what differs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sortie::git::Engine;
use sortie::provider::Provider;
use stand_ins::Authority;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::maker::Maker;
use crate::support::nginx::Nginx;
use crate::support::repository::git;
use crate::trial::{Outcome, Trial};

/// Rows that are worked on at the same time.
const THREADS: usize = 4;

/// How many differences are told of one row.
const MAX_TOLD: usize = 8;

/// How much of a file's content is shown, in bytes.
const SHOWN_BYTES: usize = 120;

/// One odd repository.
pub(crate) struct Row {
    name: &'static str,
    build: Box<dyn Fn(&Maker) + Send + Sync>,
    reference: Option<&'static str>,
    depth: Option<u32>,
    expected: Expected,
    warnings: &'static [&'static str],
}

/// What Sortie makes of it.
pub(crate) enum Expected {
    /// The clone that git makes: the same `HEAD`, index, files, bytes, modes, links and `git status`.
    Same,
    /// No clone, and nothing left on the disk.
    Fails {
        /// The code of the diagnosis.
        code: &'static str,
    },
}

/// A row whose clone is git's. The builder gets an empty bare repository whose `HEAD` names `main`.
pub(crate) fn row(name: &'static str, build: impl Fn(&Maker) + Send + Sync + 'static) -> Row {
    let expected = Expected::Same;
    Row { name, build: Box::new(build), reference: None, depth: None, expected, warnings: &[] }
}

impl Row {
    /// Asks for a branch or a tag.
    pub(crate) fn at(mut self, reference: &'static str) -> Self {
        self.reference = Some(reference);
        self
    }

    /// Asks for so many commits.
    pub(crate) fn depth(mut self, depth: u32) -> Self {
        self.depth = Some(depth);
        self
    }

    /// Expects a failure with this code.
    pub(crate) fn fails(mut self, code: &'static str) -> Self {
        self.expected = Expected::Fails { code };
        self
    }

    /// Expects these warnings beside the clone.
    #[allow(dead_code)] // The first warning of a row is still to come.
    pub(crate) fn warns(mut self, warnings: &'static [&'static str]) -> Self {
        self.warnings = warnings;
        self
    }
}

/// Holds every row of a table to what it expects.
///
/// # Panics
/// When a row differs, with all differences of all rows.
pub(crate) fn hold(rows: Vec<Row>) {
    let server = Server::start();
    let (next, differences) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = server.differences(row);
                    differences.lock().unwrap().extend(found);
                }
            });
        }
    });
    let differences = differences.into_inner().unwrap();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// A server of git's own that serves everything below a directory, and room for clones.
struct Server {
    nginx: Nginx,
    authority: Authority,
    runtime: Runtime,
    directory: TempDir,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("served");
        fs::create_dir(&root).unwrap();
        let authority = Authority::create(directory.path()).unwrap();
        let nginx = Nginx::plan(&root).start(&authority);
        Self { nginx, authority, runtime: Runtime::new().unwrap(), directory }
    }

    /// What is not as the row says.
    fn differences(&self, row: &Row) -> Vec<String> {
        let slug: String =
            row.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        (row.build)(&Maker::new(&self.directory.path().join("served").join(format!("{slug}.git"))));
        let url = format!("{}/{slug}.git", self.nginx.url());
        let room = self.directory.path().join(&slug);
        fs::create_dir(&room).unwrap();
        let theirs = room.join("git");
        let by_git = self.clone_by_git(row, &url, &theirs);
        let mut found = Vec::new();
        for engine in [Engine::Gix, Engine::Libgit2] {
            let place = room.join(format!("{engine:?}"));
            fs::create_dir(&place).unwrap();
            let ours = place.join("clone");
            let mut trial = Trial::of(Some(Provider::Git), &self.nginx.url(), &url);
            trial = trial.trust(self.authority.ca_file());
            trial.engine = engine;
            let outcome = self.runtime.block_on(trial.clone_at(row.reference, row.depth, &ours));
            let wrong = match (&row.expected, &by_git) {
                (Expected::Same, Err(words)) => vec![format!("git does not clone it: {words}")],
                (Expected::Same, Ok(())) => same(row, &outcome, &theirs, &ours),
                (Expected::Fails { code }, _) => failed(code, &outcome, &place),
            };
            found.extend(wrong.iter().map(|wrong| format!("{} ({engine:?}): {wrong}", row.name)));
        }
        found
    }

    fn clone_by_git(&self, row: &Row, url: &str, target: &Path) -> Result<(), String> {
        let mut command = git();
        command.env("GIT_SSL_CAINFO", self.authority.ca_file()).args(["clone", "--quiet"]);
        if let Some(reference) = row.reference {
            command.args(["--branch", reference]);
        }
        if let Some(depth) = row.depth {
            command.args(["--depth", &depth.to_string()]);
        }
        let output = command.arg(url).arg(target).output().unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// What is wrong with a clone that should be git's.
fn same(row: &Row, outcome: &Outcome, theirs: &Path, ours: &Path) -> Vec<String> {
    if !outcome.succeeded() {
        return vec![format!("{:?}: {}", outcome.diagnosis(), outcome.0["diagnosis"]["summary"])];
    }
    let mut wrong = Snapshot::take(theirs).differences(&Snapshot::take(ours));
    if outcome.warnings() != row.warnings {
        wrong.push(format!("it warns of {:?} instead of {:?}", outcome.warnings(), row.warnings));
    }
    wrong
}

/// What is wrong with a failure.
fn failed(code: &str, outcome: &Outcome, place: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    if outcome.diagnosis().0 != code {
        wrong.push(format!("{:?} instead of {code}", outcome.diagnosis()));
    }
    if fs::read_dir(place).unwrap().next().is_some() {
        wrong.push("something is left of it".to_owned());
    }
    wrong
}

/// What is to be seen of a clone.
struct Snapshot {
    /// What git says of it, by what was asked.
    said: BTreeMap<&'static str, String>,
    /// Everything beside the repository, by its path.
    entries: BTreeMap<Vec<u8>, Entry>,
}

#[derive(PartialEq)]
enum Entry {
    Directory { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link(Vec<u8>),
}

impl Snapshot {
    fn take(clone: &Path) -> Self {
        let asked: [(&str, &[&str]); 4] = [
            ("commit", &["rev-parse", "--verify", "HEAD"]),
            ("upstream", &["rev-parse", "--symbolic-full-name", "@{upstream}"]),
            ("index", &["ls-files", "--stage", "-t", "-z"]),
            ("status", &["status", "--porcelain", "-z", "--untracked-files=all", "--ignored"]),
        ];
        let mut said: BTreeMap<_, _> = asked.map(|(name, question)| (name, ask(clone, question))).into();
        said.insert("HEAD", fs::read_to_string(clone.join(".git/HEAD")).unwrap());
        let mut entries = BTreeMap::new();
        look_into(clone, clone, &mut entries);
        Self { said, entries }
    }

    /// How another one differs from this one, which is git's.
    fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, theirs) in &self.said {
            let ours = &other.said[name];
            if ours != theirs {
                found.push(format!(
                    "{name} is {} instead of {}",
                    cut(ours.as_bytes()),
                    cut(theirs.as_bytes())
                ));
            }
        }
        let mut paths: Vec<&Vec<u8>> = self.entries.keys().chain(other.entries.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        for path in paths {
            let (theirs, ours) = (self.entries.get(path), other.entries.get(path));
            if theirs != ours {
                found.push(format!("{} is {} instead of {}", cut(path), shown(ours), shown(theirs)));
            }
        }
        if found.len() > MAX_TOLD {
            let more = found.len() - MAX_TOLD;
            found.truncate(MAX_TOLD);
            found.push(format!("and {more} more"));
        }
        found
    }
}

fn ask(clone: &Path, question: &[&str]) -> String {
    let output = git().arg("-C").arg(clone).args(question).output().unwrap();
    let mut said = String::new();
    // What git cannot tell it cannot tell of the other one either.
    write!(said, "{}{}", output.stdout.escape_ascii(), output.stderr.escape_ascii()).unwrap();
    said
}

fn look_into(root: &Path, directory: &Path, entries: &mut BTreeMap<Vec<u8>, Entry>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let relative: PathBuf = path.strip_prefix(root).unwrap().to_owned();
        if relative.as_os_str() == ".git" {
            continue;
        }
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        let entry = if metadata.is_dir() {
            look_into(root, &path, entries);
            Entry::Directory { mode }
        } else if metadata.is_symlink() {
            Entry::Link(fs::read_link(&path).unwrap().into_os_string().into_vec())
        } else {
            Entry::File { mode, content: fs::read(&path).unwrap() }
        };
        entries.insert(relative.as_os_str().as_bytes().to_vec(), entry);
    }
}

fn shown(entry: Option<&Entry>) -> String {
    match entry {
        None => "not there".to_owned(),
        Some(Entry::Directory { mode }) => format!("a directory of mode {mode:o}"),
        Some(Entry::Link(target)) => format!("a link to {}", cut(target)),
        Some(Entry::File { mode, content }) => {
            format!("a file of mode {mode:o} with {} bytes \"{}\"", content.len(), cut(content))
        }
    }
}

fn cut(bytes: &[u8]) -> String {
    let dots = if bytes.len() > SHOWN_BYTES { "…" } else { "" };
    format!("{}{dots}", bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii())
}
