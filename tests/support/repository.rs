//! Real git repositories, made by `git fast-import` with fixed names and dates, so that every run has the same objects.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::{command_line, require};

/// Who made the commits.
const AUTHOR: &str = "Ada Example <ada@example.com>";
/// When the first commit was made, in seconds; each further one is a minute later.
const FIRST_COMMIT_SECONDS: u64 = 1_700_000_000;
/// Objects that each generated commit adds: itself, a root tree, and a tree and a blob for each file.
const OBJECTS_A_COMMIT: usize = 2 + 2 * FILES_A_COMMIT;
/// Files that each generated commit changes, each in another directory.
const FILES_A_COMMIT: usize = 4;
/// Directories among which generated commits choose.
const DIRECTORIES: usize = 64;
/// Files in each of them.
const FILES_A_DIRECTORY: usize = 8;
/// Lines of a generated file.
const LINES_A_FILE: usize = 40;

/// A `git` that reads no configuration of the machine or the user and never asks anything.
pub fn git() -> Command {
    let mut command = Command::new(require("git", "git"));
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        .args(["-c", "safe.directory=*"]);
    command
}

/// Runs `git` in a repository and returns its output without the line end.
///
/// # Panics
/// When it fails, with what it wrote to standard error.
pub fn run_git<A: AsRef<OsStr>>(directory: &Path, arguments: impl IntoIterator<Item = A>) -> String {
    command_line(git().arg("-C").arg(directory).args(arguments))
}

/// A bare repository on disk.
pub struct SampleRepository {
    /// Where it is.
    pub directory: PathBuf,
}

impl SampleRepository {
    /// One without any commit; HEAD names `main`.
    pub fn empty(directory: &Path) -> Self {
        command_line(git().args(["init", "--quiet", "--bare", "--initial-branch=main"]).arg(directory));
        Self { directory: directory.to_owned() }
    }

    /// A few commits on `main` and `feature`, the tag `v1.0` on the second commit (annotated) and `light` on the first, an
    /// executable, a symbolic link, directories and names that are not ASCII.
    pub fn small(directory: &Path) -> Self {
        let sample = Self::empty(directory);
        sample.import(|stream| stream.write_all(small_stream().as_bytes()));
        sample
    }

    /// At least this many objects in one pack, for measurements.
    pub fn generated(directory: &Path, objects: usize) -> Self {
        let sample = Self::empty(directory);
        let commits = objects.div_ceil(OBJECTS_A_COMMIT) + DIRECTORIES;
        sample.import(|stream| generate(stream, commits));
        // Fast-import finds few deltas; a server would have packed this long ago.
        run_git(&sample.directory, ["repack", "-a", "-d", "-q", "-f", "--write-bitmap-index"]);
        let found = sample.object_count();
        assert!(found >= objects, "{found} objects were generated instead of {objects}");
        sample
    }

    /// As [`Self::small`], with this many branches more, packed as a server packs them.
    pub fn with_references(directory: &Path, references: usize) -> Self {
        let sample = Self::small(directory);
        let commit = sample.commit("main");
        sample.import(|stream| {
            (0..references).try_for_each(|number| {
                let topic = number % 100;
                writeln!(stream, "reset refs/heads/team/{topic}/branch-{number}\nfrom {commit}\n")
            })
        });
        run_git(&sample.directory, ["pack-refs", "--all"]);
        sample
    }

    /// The commit that a revision such as `main` or `v1.0` names.
    pub fn commit(&self, revision: &str) -> String {
        run_git(&self.directory, ["rev-parse", "--verify", &format!("{revision}^{{commit}}")])
    }

    /// How many objects all references reach.
    pub fn object_count(&self) -> usize {
        run_git(&self.directory, ["rev-list", "--all", "--objects", "--count"]).parse().expect("a number")
    }

    /// Adds a commit with one file to a branch and returns it, so that something is new to fetch.
    pub fn add_commit(&self, branch: &str, path: &str, content: &str) -> String {
        self.import(|stream| {
            let from = format!("from refs/heads/{branch}^0\n");
            let mut text = commit_head(&format!("refs/heads/{branch}"), 1000, &format!("Add {path}"));
            text.push_str(&from);
            add_file(&mut text, "100644", path, content);
            stream.write_all(text.as_bytes())
        });
        self.commit(branch)
    }

    /// Adds a commit to `main` with what only some repositories have: bytes that are no text, links that lead out of the
    /// tree, a submodule, a pointer of Git LFS and a file of 600 KiB; and references of the servers' own kinds.
    pub fn vary(&self) -> String {
        self.import(|stream| {
            let head = commit_head("refs/heads/main", 2000, "Add what is unusual");
            stream.write_all(head.as_bytes())?;
            stream.write_all(b"from refs/heads/main^0\n")?;
            let binary = [0, 0xff, 0xfe, b'\n', 0x80];
            let pointer = format!(
                "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n",
                "5".repeat(64)
            );
            let large = "a line of a large file\n".repeat(600 * 1024 / 23);
            let files: [(&str, &str, &[u8]); 6] = [
                ("100644", "assets/logo.bin", &binary),
                ("100644", "assets/model.onnx", pointer.as_bytes()),
                ("100644", "large.txt", large.as_bytes()),
                ("120000", "outside", b"../../etc/passwd"),
                ("120000", "shop", b"src/shop"),
                ("100644", "empty", b""),
            ];
            for (mode, path, content) in files {
                write!(stream, "M {mode} inline {path}\ndata {}\n", content.len())?;
                stream.write_all(content)?;
                stream.write_all(b"\n")?;
            }
            writeln!(stream, "M 160000 {} vendor/lib\n", "7".repeat(40))
        });
        let commit = self.commit("feature");
        for name in ["refs/merge-requests/3/head", "refs/pull/7/merge"] {
            run_git(&self.directory, ["update-ref", name, &commit]);
        }
        self.commit("main")
    }

    /// Feeds a stream to `git fast-import`.
    ///
    /// # Panics
    /// When git fails.
    pub fn import(&self, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) {
        let mut child = git()
            .arg("--git-dir")
            .arg(&self.directory)
            .args(["fast-import", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("git fast-import");
        let mut stream = BufWriter::new(child.stdin.take().expect("a pipe"));
        let written = write(&mut stream).and_then(|()| stream.flush());
        drop(stream);
        let status = child.wait().expect("the status of git fast-import");
        assert!(status.success() && written.is_ok(), "git fast-import ended with {status}: {written:?}");
    }
}

fn small_stream() -> String {
    let mut text = commit_head("refs/heads/main", 0, "Begin");
    add_file(&mut text, "100644", "README.md", "# Web\n\nA small shop.\n");
    add_file(&mut text, "100755", "bin/start.sh", "#!/bin/sh\nexec true\n");
    add_file(&mut text, "100644", "src/shop/cart.txt", "empty\n");
    text.push_str("reset refs/tags/light\nfrom refs/heads/main\n\n");
    text.push_str(&commit_head("refs/heads/main", 1, "Add names that are not ASCII, and a link"));
    add_file(&mut text, "100644", "docs/Größe.txt", "Ä ö ü\n");
    add_file(&mut text, "100644", "docs/日本語.txt", "こんにちは\n");
    add_file(&mut text, "100644", "docs/with space.txt", "space\n");
    add_file(&mut text, "120000", "current", "src/shop");
    let tagged = FIRST_COMMIT_SECONDS + 90;
    let _ = write!(
        text,
        "tag v1.0\nfrom refs/heads/main\ntagger {AUTHOR} {tagged} +0000\ndata 12\nVersion 1.0\n\n"
    );
    text.push_str(&commit_head("refs/heads/feature", 2, "Fill the cart"));
    text.push_str("from refs/heads/main\n");
    add_file(&mut text, "100644", "src/shop/cart.txt", "one apple\n");
    text.push_str(&commit_head("refs/heads/main", 3, "Say more in the README"));
    add_file(&mut text, "100644", "README.md", "# Web\n\nA small shop with a cart.\n");
    text
}

fn commit_head(reference: &str, minute: u64, message: &str) -> String {
    let seconds = FIRST_COMMIT_SECONDS + 60 * minute;
    let length = message.len();
    format!("commit {reference}\ncommitter {AUTHOR} {seconds} +0000\ndata {length}\n{message}\n")
}

fn add_file(text: &mut String, mode: &str, path: &str, content: &str) {
    let _ = write!(text, "M {mode} inline {path}\ndata {}\n{content}\n", content.len());
}

fn generate(stream: &mut dyn Write, commits: usize) -> std::io::Result<()> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for number in 0..commits {
        let mut text = commit_head("refs/heads/main", number as u64, &format!("Change number {number}"));
        for file in 0..FILES_A_COMMIT {
            let directory = (number * FILES_A_COMMIT + file) % DIRECTORIES;
            let name = random.below(FILES_A_DIRECTORY);
            let path = format!("part-{directory:02}/file-{name}.txt");
            add_file(&mut text, "100644", &path, &content(&mut random, directory * FILES_A_DIRECTORY + name));
        }
        stream.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Lines that are mostly the same for one file, so that versions of it are alike as in real life.
fn content(random: &mut Random, file: usize) -> String {
    let mut text = String::new();
    let changed = random.below(LINES_A_FILE);
    for line in 0..LINES_A_FILE {
        let word = if line == changed {
            random.next()
        } else {
            Random((file * LINES_A_FILE + line + 1) as u64).next()
        };
        let _ =
            writeln!(text, "line {line} of file {file} holds {word:016x} and {:016x}", word.rotate_left(17));
    }
    text
}

/// A generator of numbers that are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }
}
