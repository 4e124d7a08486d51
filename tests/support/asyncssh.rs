//! asyncssh on loopback: an SSH server that shares no code with OpenSSH, in front of the real git-upload-pack.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::process::{Child, require, write_private};
use super::python::Environment;
use super::sshd::{Key, KeyKind};

/// The user that its URLs name; any would do.
const USER: &str = "git";

/// What an asyncssh server shall be; [`AsyncSshPlan::start`] starts it.
pub struct AsyncSshPlan {
    host_key: KeyKind,
    authorized: Vec<String>,
    repositories: Map<String, Value>,
    greeting: Option<String>,
    options: Map<String, Value>,
    announces_signatures: bool,
}

/// A running asyncssh server.
pub struct AsyncSsh {
    port: u16,
    host_key: Key,
    // The order of these fields is the order in which they end.
    child: Child,
    directory: TempDir,
}

impl AsyncSsh {
    /// Plans one with a host key of that kind.
    pub fn plan(host_key: KeyKind) -> AsyncSshPlan {
        AsyncSshPlan {
            host_key,
            authorized: Vec::new(),
            repositories: Map::new(),
            greeting: Some("Welcome to GitLab, @ada!\n".to_owned()),
            options: Map::new(),
            announces_signatures: true,
        }
    }

    /// `ssh://git@127.0.0.1:PORT`, to be followed by `/` and a served path.
    pub fn url(&self) -> String {
        format!("ssh://{USER}@127.0.0.1:{}", self.port)
    }

    /// A known_hosts file with its host key.
    pub fn known_hosts(&self) -> PathBuf {
        let file = self.directory.path().join("known_hosts");
        let line = format!("[127.0.0.1]:{} {}\n", self.port, self.host_key.public);
        write_private(&file, &line).expect("a known_hosts file");
        file
    }

    /// How many times a key was shown to it. A login that succeeds may show its key twice: to ask, and signed.
    pub fn keys_shown(&self) -> usize {
        self.child.stdout().lines().filter(|line| line.starts_with("key ")).count()
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.child.stderr()
    }
}

impl AsyncSshPlan {
    /// Lets this key in.
    pub fn authorize(mut self, key: &Key) -> Self {
        self.authorized.push(key.public.clone());
        self
    }

    /// Serves a bare repository under exactly this path, which has no slash in front.
    pub fn serve(mut self, path: &str, directory: &Path) -> Self {
        self.repositories.insert(path.to_owned(), json!(directory));
        self
    }

    /// Sets an option of `asyncssh.listen`, such as `signature_algs`.
    pub fn with_option(mut self, name: &str, value: Value) -> Self {
        self.options.insert(name.to_owned(), value);
        self
    }

    /// Never answers who asks for a shell.
    pub fn without_greeting(mut self) -> Self {
        self.greeting = None;
        self
    }

    /// Keeps to itself which signatures it takes, as servers do that are older than RFC 8308.
    pub fn without_signature_algorithms(mut self) -> Self {
        self.announces_signatures = false;
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When Python is missing, its packages cannot be had, or it does not start.
    pub fn start(self) -> AsyncSsh {
        let environment = Environment::named("asyncssh");
        let directory = tempfile::tempdir().expect("a private directory");
        let host_key = Key::make(directory.path(), "host_key", self.host_key, None);
        let settings = json!({
            "host_keys": [host_key.private_file],
            "authorized": self.authorized,
            "repositories": self.repositories,
            "greeting": self.greeting,
            "options": self.options,
            "announces_signatures": self.announces_signatures,
            "git": require("git", "git"),
        });
        let (child, port) = environment.serve("asyncssh", &settings, directory.path());
        AsyncSsh { port, host_key, child, directory }
    }
}
