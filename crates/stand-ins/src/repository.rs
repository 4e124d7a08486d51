//! What a bare repository says about itself, asked of the `git` program.

use std::io;
use std::path::Path;

use tokio::process::Command;

/// The branches and tags of a repository and its default branch.
pub(crate) struct References {
    /// Full name and object of each reference, sorted by name.
    pub(crate) all: Vec<Reference>,
    /// The full name of the branch that HEAD names; none in an empty repository.
    pub(crate) default_branch: Option<String>,
}

/// One reference.
pub(crate) struct Reference {
    /// The full name, such as `refs/heads/main`.
    pub(crate) name: String,
    /// The object it points at, in hexadecimal.
    pub(crate) object: String,
}

impl References {
    /// Reads them from the bare repository in `directory`.
    pub(crate) async fn read(directory: &Path) -> io::Result<Self> {
        let listed = run(directory, &["for-each-ref", "--format=%(objectname) %(refname)"]).await?;
        let all = listed
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(object, name)| Reference { name: name.to_owned(), object: object.to_owned() })
            .collect::<Vec<_>>();
        // A detached HEAD is answered by the status 1 and no text.
        let head = run(directory, &["symbolic-ref", "--quiet", "HEAD"]).await?.trim().to_owned();
        let default_branch = all.iter().any(|reference| reference.name == head).then_some(head);
        Ok(Self { all, default_branch })
    }

    /// The names below `refs/heads/`, without that prefix, with their objects.
    pub(crate) fn branches(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all.iter().filter_map(|reference| {
            Some((reference.name.strip_prefix("refs/heads/")?, reference.object.as_str()))
        })
    }
}

/// A `git` that reads no configuration but what is given here.
pub(crate) fn git() -> Command {
    let mut command = Command::new("git");
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("HOME", "/nonexistent")
        .env("LC_ALL", "C")
        // The repositories may belong to somebody else than the one who runs this.
        .args(["-c", "safe.directory=*"])
        .kill_on_drop(true);
    command
}

async fn run(directory: &Path, arguments: &[&str]) -> io::Result<String> {
    let output = git().arg("--git-dir").arg(directory).args(arguments).output().await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
