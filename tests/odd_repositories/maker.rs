//! Makes repositories, object by object, with nothing but git.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::process::command_line;
use crate::support::repository::{git, run_git};

/// Who made everything that says who made it, and when.
pub(crate) const WHO: &str = "Ada <ada@example.com> 1700000000 +0000";

/// A bare repository that is being made.
pub(crate) struct Maker {
    directory: PathBuf,
}

impl Maker {
    /// An empty one, whose `HEAD` names `main`.
    pub(crate) fn new(directory: &Path) -> Self {
        Self::with_options(directory, &[])
    }

    /// The same, made with further options of `git init`.
    pub(crate) fn with_options(directory: &Path, options: &[&str]) -> Self {
        let init = ["init", "--quiet", "--bare", "--initial-branch=main"];
        command_line(git().args(init).args(options).arg(directory));
        Self { directory: directory.to_owned() }
    }

    /// Throws it away and begins anew, with options of `git init`.
    pub(crate) fn again(&self, options: &[&str]) -> Self {
        fs::remove_dir_all(&self.directory).unwrap();
        Self::with_options(&self.directory, options)
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs git in it.
    pub(crate) fn git<const N: usize>(&self, arguments: [&str; N]) -> String {
        run_git(&self.directory, arguments)
    }

    /// Writes an object as it is, without any check of git's; returns its identifier.
    pub(crate) fn object(&self, kind: &str, content: impl AsRef<[u8]>) -> String {
        let write = ["hash-object", "-w", "--literally", "--stdin", "-t", kind];
        String::from_utf8(self.feed(&write, content.as_ref())).unwrap().trim().to_owned()
    }

    /// Writes a file's content.
    pub(crate) fn blob(&self, content: impl AsRef<[u8]>) -> String {
        self.object("blob", content)
    }

    /// Writes a tree as it is: modes, names and identifiers, in this order.
    pub(crate) fn tree(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let mut content = Vec::new();
        for (mode, name, id) in entries {
            content.extend_from_slice(mode.as_bytes());
            content.push(b' ');
            content.extend_from_slice(name);
            content.push(0);
            content
                .extend((0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()));
        }
        self.object("tree", content)
    }

    /// Writes a commit of a tree, after these parents.
    pub(crate) fn commit(&self, tree: &str, parents: &[&str]) -> String {
        let parents: String = parents.iter().map(|parent| format!("parent {parent}\n")).collect();
        self.object("commit", format!("tree {tree}\n{parents}author {WHO}\ncommitter {WHO}\n\nx\n"))
    }

    /// Writes a tree with one file.
    pub(crate) fn one_file(&self) -> String {
        self.tree(&[("100644", b"file", &self.blob("content\n"))])
    }

    /// Lets a reference lead to an object.
    pub(crate) fn set(&self, reference: &str, id: &str) {
        self.git(["update-ref", reference, id]);
    }

    /// Lets `main` lead to a commit of a tree.
    pub(crate) fn main(&self, tree: &str) -> String {
        let commit = self.commit(tree, &[]);
        self.set("refs/heads/main", &commit);
        commit
    }

    /// Adds a commit with files to `main`: mode, path and content. Paths may have any bytes.
    pub(crate) fn files(&self, files: &[(&str, &[u8], &[u8])]) -> String {
        let mut stream = format!("commit refs/heads/main\ncommitter {WHO}\ndata 0\n").into_bytes();
        if self.has_main() {
            stream.extend_from_slice(b"from refs/heads/main^0\n");
        }
        for (mode, path, content) in files {
            write!(stream, "M {mode} inline {}\ndata {}\n", quoted(path), content.len()).unwrap();
            stream.extend_from_slice(content);
            stream.push(b'\n');
        }
        self.feed(&["fast-import", "--quiet", "--force"], &stream);
        self.git(["rev-parse", "refs/heads/main"])
    }

    /// The same with plain files.
    pub(crate) fn plain(&self, files: &[(&str, &[u8])]) -> String {
        let files: Vec<_> =
            files.iter().map(|(path, content)| ("100644", path.as_bytes(), *content)).collect();
        self.files(&files)
    }

    fn has_main(&self) -> bool {
        let asked = ["rev-parse", "--verify", "--quiet", "refs/heads/main"];
        git().arg("-C").arg(&self.directory).args(asked).output().unwrap().status.success()
    }

    /// Runs git in it with an input; returns its output.
    pub(crate) fn feed(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        piped(git().arg("-C").arg(&self.directory).args(arguments), input)
    }
}

/// Runs a command with an input; returns its output.
pub(crate) fn piped(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// A path in the form in which `git fast-import` takes any bytes.
fn quoted(path: &[u8]) -> String {
    let bytes = path.iter().map(|byte| format!("\\{byte:03o}"));
    format!("\"{}\"", bytes.collect::<String>())
}
