//! dulwich on loopback: a git server over HTTPS that shares no code with git.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stand_ins::{Authority, CertificateKind};
use tempfile::TempDir;

use super::process::{Child, START_LIMIT};
use super::python::Environment;

/// A running dulwich.
pub struct Dulwich {
    port: u16,
    // The order of these fields is the order in which they end.
    child: Child,
    _directory: TempDir,
}

impl Dulwich {
    /// Serves a bare repository under a path that begins with a slash, to whoever has this token.
    ///
    /// # Panics
    /// When Python is missing, its packages cannot be had, or it does not start.
    pub fn serve(path: &str, repository: &Path, token: &str, authority: &Authority) -> Self {
        let environment = Environment::named("providers");
        let directory = tempfile::tempdir().expect("a private directory");
        let issued = authority.issue(CertificateKind::Valid).expect("a certificate");
        issued.write(directory.path(), "server").expect("a certificate");
        let settings = json!({
            "repositories": {path: repository},
            "certificate": directory.path().join("server.pem"),
            "key": directory.path().join("server.key"),
            "accepted": format!("Basic {}", STANDARD.encode(format!(":{token}"))),
        });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/python/dulwich_server.py");
        let mut command = environment.python();
        command.arg(script).arg(settings.to_string());
        let mut child = Child::start("dulwich", &mut command, directory.path());
        let stdout = directory.path().join("dulwich.stdout");
        let told = || {
            let text = fs::read_to_string(&stdout).unwrap_or_default();
            let (first, _) = text.split_once('\n')?;
            first.strip_prefix("port ")?.parse().ok()
        };
        child.wait_for("the port is told", START_LIMIT, || told().is_some());
        let port = told().expect("the port");
        Self { port, child, _directory: directory }
    }

    /// `https://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> String {
        self.child.stderr()
    }
}
