//! Whatever a server sends and however long: a test ends in time, with a diagnosis, and in little memory.

use std::io::{Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use stand_ins::Fault;

use crate::connection_test::{AZURE_PAT, GITLAB_PAT, Lab};
use crate::support::memory::{self, Measured};
use crate::support::process::write_private;

/// The most memory that a test may take, in KiB as the kernel counts it.
const MAX_MEMORY_KIB: u64 = 64 * 1000 * 1000 / 1024;
/// What comes at once from a server that has no end, in bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// How much a server without an end sends at the most, so that a broken client ends as well, in bytes.
const ENDLESS_BYTES: usize = 4 * 1024 * 1024 * 1024;

/// What the kernel and the program say of one run.
struct Run {
    report: Value,
    memory_kib: u64,
    took: Duration,
}

impl Run {
    fn diagnosis(&self) -> (&str, &str) {
        let text = |key| self.report["diagnosis"][key].as_str().unwrap_or_default();
        (text("code"), text("stage"))
    }
}

/// Runs `sortie test` to its end and asks the kernel how much memory it took.
fn measured(home: &Path, arguments: &[&str]) -> Run {
    let arguments = ["test", "--json"].iter().chain(arguments);
    let Measured { report, memory_kib, took, status } = memory::measured(home, arguments);
    assert_eq!(status, Some(1), "{report:#}");
    assert!(memory_kib < MAX_MEMORY_KIB, "{memory_kib} KiB: {report:#}");
    Run { report, memory_kib, took }
}

/// A server that answers every request with the same head and a body that it makes as long as somebody reads.
struct Endless {
    port: u16,
}

impl Endless {
    fn start(head: &'static str, first: &'static [u8], piece: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let piece = Arc::new(piece);
        // The thread ends with the process: it waits for connections for as long as there are tests.
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let piece = Arc::clone(&piece);
                std::thread::spawn(move || answer(connection, head, first, &piece));
            }
        });
        Self { port }
    }

    /// A configuration that declares it, without TLS.
    fn config(&self, home: &Path, provider: &str) -> PathBuf {
        let pat = home.join("pat");
        write_private(&pat, "any-token").unwrap();
        let text = format!(
            "[servers.lab]\nprovider = \"{provider}\"\nurl = \"http://127.0.0.1:{}\"\ncredential = \"pat\"\n\
             allow_loopback = true\nproxy = \"none\"\n\
             [credentials.pat]\nkind = \"pat\"\nsecret = {{ file = \"{}\" }}\n",
            self.port,
            pat.display()
        );
        let file = home.join("config.toml");
        std::fs::write(&file, text).unwrap();
        file
    }
}

/// Whoever reads no further is no error.
fn answer(mut connection: TcpStream, head: &str, first: &[u8], piece: &[u8]) {
    let mut request = [0; 4096];
    let _ = connection.read(&mut request);
    let mut sent = 0;
    let mut go_on = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(first)).is_ok();
    while go_on && sent < ENDLESS_BYTES {
        go_on = connection.write_all(piece).is_ok();
        sent += piece.len();
    }
}

fn against(server: &Endless, provider: &str, path: &str) -> Run {
    let home = tempfile::tempdir().unwrap();
    let config = server.config(home.path(), provider);
    let url = format!("http://127.0.0.1:{}{path}", server.port);
    measured(home.path(), &[&url, "--config", config.to_str().unwrap(), "--deadline", "30"])
}

/// One line of a list of references, again and again.
fn references() -> Vec<u8> {
    let line = format!("{} refs/heads/{}\n", "a".repeat(40), "x".repeat(15));
    let line = format!("{:04x}{line}", line.len() + 4);
    line.repeat(PIECE_BYTES / line.len()).into_bytes()
}

const GIT_LIST: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\nConnection: close\r\n\r\n";
const JSON: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n";
const SERVICE: &[u8] = b"001e# service=git-upload-pack\n0000";

#[test]
fn a_list_of_references_without_an_end_is_refused_in_little_memory() {
    let server = Endless::start(GIT_LIST, SERVICE, references());
    let run = against(&server, "git", "/many.git");
    assert_eq!(run.diagnosis(), ("too_large", "references"), "{:#}", run.report);
}

#[test]
fn answers_without_an_end_are_cut_off_and_named() {
    let cases = [
        ("git", GIT_LIST, SERVICE, vec![0; PIECE_BYTES], "unexpected_answer"),
        ("git", PAGE, b"<html>".as_slice(), vec![b' '; PIECE_BYTES], "unexpected_answer"),
        ("azure-devops", JSON, b"{".as_slice(), vec![b' '; PIECE_BYTES], "unexpected_answer"),
        ("gitlab", JSON, b"[".as_slice(), b"[".repeat(PIECE_BYTES), "unexpected_answer"),
        // A head without an end.
        ("gitlab", "HTTP/1.1 200 OK\r\n", b"".as_slice(), b"X-Y: z\r\n".repeat(8192), "unexpected_answer"),
        ("git", "HTTP/1.1 200 OK\r\n", b"".as_slice(), b"X-Y: z\r\n".repeat(8192), "unexpected_answer"),
    ];
    for (provider, head, first, piece, code) in cases {
        let server = Endless::start(head, first, piece);
        let run = against(&server, provider, "/Coll/Shop/_git/web");
        assert_eq!(run.diagnosis().0, code, "{provider} {head}: {:#}", run.report);
    }
}

#[test]
fn huge_answers_of_an_api_are_not_taken_in() {
    let lab = Lab::start();
    let ca_file = lab.authority.ca_file().to_str().unwrap();
    let servers = [
        (lab.azure(), "azure-devops", "/Coll/My%20Shop/_git/web", AZURE_PAT),
        (lab.gitlab(), "gitlab", "/shop/sub/web.git", GITLAB_PAT),
    ];
    for (server, provider, path, pat) in servers {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("pat");
        write_private(&file, pat).unwrap();
        server.set_fault(Fault::HugeBody);
        let url = format!("{}{path}", server.url());
        let file = file.to_str().unwrap();
        let run =
            measured(home.path(), &[&url, "--provider", provider, "--pat-file", file, "--ca-file", ca_file]);
        assert_eq!(run.diagnosis().0, "unexpected_answer", "{:#}", run.report);
        assert!(run.memory_kib > 0);
    }
}

#[test]
fn a_server_that_dawdles_ends_with_the_deadline() {
    let lab = Lab::start();
    let ca_file = lab.authority.ca_file().to_str().unwrap();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("pat");
    write_private(&file, AZURE_PAT).unwrap();
    let url = format!("{}/Coll/My%20Shop/_git/web", lab.azure().url());
    for fault in [Fault::SlowBody, Fault::Stall] {
        lab.azure().clear_fault();
        lab.azure().set_fault(fault);
        let arguments =
            [&url, "--pat-file", file.to_str().unwrap(), "--ca-file", ca_file, "--deadline", "1.5"];
        let run = measured(home.path(), &arguments);
        assert_eq!(run.diagnosis(), ("deadline_exceeded", "identify"), "{:#}", run.report);
        // Far less than what a byte a second, or a silence, would take by itself.
        assert!(run.took < Duration::from_secs(20), "{:?}", run.took);
    }
}
