//! dulwich on loopback: a git server over HTTPS that shares no code with git.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stand_ins::{Authority, CertificateKind};
use tempfile::TempDir;

use super::process::Child;
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
        let (child, port) = environment.serve("dulwich", &settings, directory.path());
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
