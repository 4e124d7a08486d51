//! What the tests of both stand-ins share: curl and git as clients.

// Each test binary uses a part of it.
#![allow(dead_code, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../../tests/support/mod.rs"]
pub mod support;

use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stand_ins::Authority;
use support::process::require;
use support::repository::git;

/// An answer as curl saw it.
#[derive(Debug)]
pub struct Seen {
    pub status: u16,
    /// Names in lower case, in order, with repetitions.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    pub fn json(&self) -> serde_json::Value {
        let body = self.body.trim_start_matches('\u{feff}');
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// Asks for a URL with curl; redirects are not followed.
pub fn curl(authority: &Authority, url: &str, arguments: &[&str]) -> Seen {
    let output = Command::new(require("curl", "curl"))
        .args(["-s", "-S", "-i", "--noproxy", "*", "--max-time", "20", "--cacert"])
        .arg(authority.ca_file())
        .args(arguments)
        .arg(url)
        .output()
        .unwrap();
    assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Seen { status, headers, body: body.to_owned() }
}

/// The header that carries a user name and a secret.
pub fn basic(user: &str, secret: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(format!("{user}:{secret}")))
}

/// Runs git over TLS with this authority and one header; says whether it succeeded, and all that it wrote.
pub fn git_with(authority: &Authority, header: &str, arguments: &[&str]) -> (bool, String) {
    let ca = format!("http.sslCAInfo={}", authority.ca_file().display());
    let header = format!("http.extraHeader={header}");
    let output =
        git().args(["-c", &ca, "-c", &header]).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}
