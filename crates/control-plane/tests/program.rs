//! The program itself: its commands, its exit statuses, its end by force.

use std::path::Path;
use std::process::{Output, Stdio};

use reqwest::Method;
use serde_json::{Value, json};
use sortie_protocol::message::{AgentMessage, AttemptOutcome, Disposition};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::support::{Identity, PATIENCE, http_client, request};

fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sortie-control"));
    command.current_dir(directory).kill_on_drop(true).stdin(Stdio::null()).env_clear();
    command
}

async fn run(directory: &Path, arguments: &[&str]) -> Output {
    program(directory).args(arguments).output().await.unwrap()
}

async fn token(directory: &Path, name: &str, role: &str) -> String {
    let arguments = ["token", "create", "--name", name, "--role", role, "--database", "sqlite:c.db"];
    let output = run(directory, &arguments).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
    let token = String::from_utf8(output.stdout).unwrap();
    assert_eq!(token.lines().count(), 1);
    token.trim().to_owned()
}

struct Server {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    url: String,
}

impl Server {
    async fn start(directory: &Path, arguments: &[&str]) -> Self {
        Self::start_at(directory, "127.0.0.1:0", arguments).await
    }

    async fn start_at(directory: &Path, listen: &str, arguments: &[&str]) -> Self {
        let mut command = program(directory);
        command.args(["serve", "--listen", listen, "--database", "sqlite:c.db", "--log-format", "json"]);
        let mut child = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let listening = async {
            while let Some(line) = log.next_line().await.unwrap() {
                let line: Value = serde_json::from_str(&line).unwrap();
                let fields = &line["fields"];
                if let Some(address) = fields["listen.address"].as_str() {
                    return format!("{}://{address}", fields["listen.scheme"].as_str().unwrap());
                }
            }
            panic!("it does not listen");
        };
        let url = tokio::time::timeout(PATIENCE, listening).await.unwrap();
        Self { child, log, url }
    }

    /// Sends a signal by the shell's own `kill`, which every host has.
    async fn signal(&mut self, name: &str) -> i32 {
        let process = self.child.id().unwrap().to_string();
        let sent =
            Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).status().await.unwrap();
        assert!(sent.success());
        // Reading on keeps the pipe from filling up.
        let drained = async { while let Ok(Some(_)) = self.log.next_line().await {} };
        tokio::time::timeout(PATIENCE, drained).await.unwrap();
        self.child.wait().await.unwrap().code().unwrap_or(-1)
    }
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked_without_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let secret = token(path, "ops", "admin").await;
    assert!(secret.starts_with("sortie_"));
    let again =
        run(path, &["token", "create", "--name", "ops", "--role", "viewer", "--database", "sqlite:c.db"])
            .await;
    assert_eq!(again.status.code(), Some(1));
    let list = run(path, &["token", "list", "--database", "sqlite:c.db"]).await;
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.contains("ops") && list.contains("admin") && !list.contains(&secret));
    for status in [0, 1] {
        let revoked = run(path, &["token", "revoke", "--name", "ops", "--database", "sqlite:c.db"]).await;
        assert_eq!(revoked.status.code(), Some(status));
    }
}

#[tokio::test]
async fn wrong_usage_and_wrong_configuration_have_their_exit_statuses() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("text.db"), "this is a text and no database at all, long enough to tell")
        .unwrap();
    std::fs::write(path.join("bad.pem"), "no certificate").unwrap();
    let _server = Server::start(path, &[]).await;
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = held.local_addr().unwrap().to_string();
    let serve = |rest: &[&'static str]| [&["serve"], rest].concat();
    let cases: Vec<(Vec<&str>, i32, &str)> = vec![
        (vec![], 2, "Usage"),
        (vec!["fly"], 2, "fly"),
        (vec!["serve"], 2, "--database"),
        (vec!["serve", "--database", "sqlite:x.db", "--tls-cert", "bad.pem"], 2, "--tls-key"),
        (serve(&["--database", "postgres://u:canary@h/d"]), 78, "not supported yet"),
        (serve(&["--database", "mysql://u:canary@h/d"]), 78, "sqlite:PATH"),
        (serve(&["--listen", "127.0.0.1:0", "--database", "sqlite:text.db"]), 78, "not a database"),
        (serve(&["--listen", "127.0.0.1:0", "--database", "sqlite:no/such/c.db"]), 78, "make its directory"),
        (serve(&["--listen", "127.0.0.1:0", "--database", "sqlite:c.db"]), 78, "another sortie-control"),
        (serve(&["--listen", "0.0.0.0:0", "--database", "sqlite:x.db"]), 78, "loopback only"),
        (serve(&["--listen", "nowhere", "--database", "sqlite:x.db"]), 78, "HOST:PORT"),
        (serve(&["--public-url", "ftp://x", "--database", "sqlite:x.db"]), 78, "--public-url"),
        (vec!["serve", "--listen", &taken, "--database", "sqlite:x.db"], 78, "in use"),
        (
            serve(&["--tls-cert", "bad.pem", "--tls-key", "bad.pem", "--database", "sqlite:x.db"]),
            78,
            "--tls-cert bad.pem",
        ),
        (
            serve(&["--tls-cert", "none.pem", "--tls-key", "none.pem", "--database", "sqlite:x.db"]),
            78,
            "--tls-cert none.pem",
        ),
    ];
    for (arguments, status, word) in cases {
        let output = run(path, &arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
        assert!(!said.contains("canary"), "{said}");
        assert!(output.stdout.is_empty());
    }
    drop(held);
    for flag in ["--version", "--help"] {
        assert_eq!(run(path, &[flag]).await.status.code(), Some(0));
    }
}

#[tokio::test]
async fn a_database_that_is_locked_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("c.db");
    token(directory.path(), "ops", "admin").await;
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    let mut holder = pool.acquire().await.unwrap();
    sqlx::query("PRAGMA locking_mode = EXCLUSIVE").execute(&mut *holder).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut *holder).await.unwrap();
    let output =
        run(directory.path(), &["serve", "--listen", "127.0.0.1:0", "--database", "sqlite:c.db"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("locked by another program"), "{said}");
}

async fn enroll(url: &str, admin: &str) -> Identity {
    let client = http_client(rustls::RootCertStore::empty());
    let path = format!("{url}/api/v1/enrollment-tokens");
    let made = request(&client, Method::POST, &path, Some(admin), None, &[]).await.body;
    let mut identity = Identity::new("a");
    let body = identity.enroll_body(made["token"].as_str().unwrap());
    let enrolled =
        request(&client, Method::POST, &format!("{url}/agent/v1/enroll"), None, Some(body), &[]).await;
    identity.id = enrolled.body["agent_id"].as_str().unwrap().to_owned();
    identity
}

fn submit(directory: &Path, url: &str, arguments: &[&str]) -> Command {
    let mut command = program(directory);
    command.env("SORTIE_CONTROL_URL", url).env("SORTIE_CONTROL_TOKEN_FILE", "ops.token");
    // Nothing answers there: a token that would go over plain HTTP to a proxy makes every test fail.
    command.env("http_proxy", "http://127.0.0.1:1").env("HTTP_PROXY", "http://127.0.0.1:1");
    command.args(["task", "submit", "--file", "task.json"]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn prepared() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let admin = token(directory.path(), "ops", "admin").await;
    std::fs::write(directory.path().join("ops.token"), format!("{admin}\n")).unwrap();
    let task = json!({"kind": "connection-test", "url": "https://git.example/a"});
    std::fs::write(directory.path().join("task.json"), task.to_string()).unwrap();
    (directory, admin)
}

#[tokio::test]
async fn submit_prints_the_task_and_tells_how_it_ended() {
    let (directory, admin) = prepared().await;
    let mut server = Server::start(directory.path(), &[]).await;
    let identity = enroll(&server.url, &admin).await;
    let mut agent = identity.connect(&server.url, &[], &[], &[]).await;
    for (outcome, status) in [(AttemptOutcome::Succeeded, 0), (AttemptOutcome::Failed, 1)] {
        agent.send(AgentMessage::Credit { slots: 1 }).await;
        let child = submit(directory.path(), &server.url, &["--wait"]).spawn().unwrap();
        let attempt = agent.begin().await;
        agent.finish(&attempt, outcome).await;
        agent.acknowledged(&attempt).await;
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stderr));
        let task: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&task["id"], &task["state"]), (&json!(attempt.task_id), &json!("completed")));
    }
    std::fs::write(directory.path().join("task.json"), r#"{"kind":"connection-test","ur":"x"}"#).unwrap();
    let refused = submit(directory.path(), &server.url, &[]).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("did you mean `url`?"));
    let plain = submit(directory.path(), "http://sortie.example", &[]).output().await.unwrap();
    assert_eq!(plain.status.code(), Some(78));
    assert_eq!(server.signal("TERM").await, 0);
    let nobody = submit(directory.path(), &server.url, &[]).output().await.unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("refused"));
}

#[tokio::test]
async fn a_killed_server_finds_its_tasks_and_takes_the_result_once() {
    let (directory, admin) = prepared().await;
    let mut server = Server::start(directory.path(), &[]).await;
    let identity = enroll(&server.url, &admin).await;
    let mut agent = identity.connect(&server.url, &[], &[], &[]).await;
    agent.send(AgentMessage::Credit { slots: 1 }).await;
    let output = submit(directory.path(), &server.url, &[]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let attempt = agent.begin().await;
    server.signal("KILL").await;
    let server = Server::start(directory.path(), &[]).await;
    let mut agent = identity.connect(&server.url, &[], std::slice::from_ref(&attempt), &[]).await;
    for disposition in [Disposition::Recorded, Disposition::Duplicate] {
        agent.finish(&attempt, AttemptOutcome::Succeeded).await;
        assert_eq!(agent.acknowledged(&attempt).await, disposition);
    }
    let client = http_client(rustls::RootCertStore::empty());
    let url = format!("{}/api/v1/tasks/{}", server.url, attempt.task_id);
    let task = request(&client, Method::GET, &url, Some(&admin), None, &[]).await.body;
    assert_eq!((&task["outcome"], task["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 1));
}

#[tokio::test]
async fn submit_waits_for_a_control_plane_that_restarts() {
    let (directory, admin) = prepared().await;
    let mut server = Server::start(directory.path(), &[]).await;
    let identity = enroll(&server.url, &admin).await;
    let mut agent = identity.connect(&server.url, &[], &[], &[]).await;
    agent.send(AgentMessage::Credit { slots: 1 }).await;
    let mut child = submit(directory.path(), &server.url, &["--wait"]).spawn().unwrap();
    let attempt = agent.begin().await;
    server.signal("KILL").await;
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, said.next_line()).await.unwrap().unwrap().unwrap();
    assert!(line.ends_with("; trying again"), "{line}");
    let listen = server.url.strip_prefix("http://").unwrap();
    let server = Server::start_at(directory.path(), listen, &[]).await;
    let mut agent = identity.connect(&server.url, &[], std::slice::from_ref(&attempt), &[]).await;
    agent.finish(&attempt, AttemptOutcome::Succeeded).await;
    agent.acknowledged(&attempt).await;
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let task: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(task["id"], attempt.task_id);
}

#[tokio::test]
async fn it_serves_tls_with_a_certificate() {
    let (directory, admin) = prepared().await;
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(directory.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(directory.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let files = ["--tls-cert", "cert.pem", "--tls-key", "key.pem"];
    let server = Server::start(directory.path(), &files).await;
    assert!(server.url.starts_with("https://127.0.0.1:"));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = http_client(roots);
    let url = format!("{}/api/v1/tasks", server.url);
    assert_eq!(request(&client, Method::GET, &url, Some(&admin), None, &[]).await.status, 200);
    let trusted = submit(directory.path(), &server.url, &["--ca-file", "cert.pem"]).output().await.unwrap();
    assert_eq!(trusted.status.code(), Some(0), "{}", String::from_utf8_lossy(&trusted.stderr));
    let unknown = submit(directory.path(), &server.url, &["--wait"]).output().await.unwrap();
    assert_eq!(unknown.status.code(), Some(1));
}

#[tokio::test]
async fn it_tells_the_service_manager_when_it_is_ready() {
    let directory = tempfile::tempdir().unwrap();
    let socket = tokio::net::UnixDatagram::bind(directory.path().join("notify")).unwrap();
    let mut command = program(directory.path());
    command.args(["serve", "--listen", "127.0.0.1:0", "--database", "sqlite:c.db"]);
    command.env("NOTIFY_SOCKET", directory.path().join("notify")).stderr(Stdio::null());
    let _child = command.spawn().unwrap();
    let mut buffer = [0; 256];
    let read = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&buffer[..read]).contains("READY=1"));
}
