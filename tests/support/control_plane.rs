//! A real control plane over a database in a private directory, and a small client of its REST interface.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Certificate, Client, Method};
use serde_json::{Value, json};
use stand_ins::{Authority, CertificateKind};
use tempfile::TempDir;

use super::binary::{binary, isolate};
use super::process::{Child, START_LIMIT, command_line, start_on_free_port, write_private};
use super::small_disk::SmallDisk;

/// How long one request may take; above the longest wait that is asked for.
const REQUEST_LIMIT: Duration = Duration::from_secs(45);
/// How long the server is asked to wait in one request for a task, in seconds.
const WAIT_SECONDS: u64 = 10;

/// An answer of the control plane.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; null when it is empty or no JSON.
    pub body: Value,
}

/// A running control plane.
pub struct ControlPlane {
    port: u16,
    token: String,
    tls: Option<Tls>,
    settings: ServeSettings,
    // The order of these fields is the order in which they end.
    child: Child,
    directory: TempDir,
}

/// What else it is started with.
#[derive(Clone, Debug, Default)]
pub struct ServeSettings {
    /// Further arguments of `serve`.
    pub arguments: Vec<String>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// Gives its artifacts a disk of so many MiB of their own, empty at each start.
    pub artifacts_mebibytes: Option<u32>,
}

/// How it speaks TLS itself.
struct Tls {
    ca_file: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl ControlPlane {
    /// Starts one with an empty database and a token of the role `admin`.
    ///
    /// # Panics
    /// When it does not start, with the end of its log.
    pub fn start() -> Self {
        Self::start_with(ServeSettings::default())
    }

    /// The same with further arguments and variables, which a restart keeps.
    ///
    /// # Panics
    /// When it does not start, with the end of its log.
    pub fn start_with(settings: ServeSettings) -> Self {
        Self::start_in(tempfile::tempdir().expect("a private directory"), None, settings)
    }

    /// The same with TLS and a certificate from this authority.
    ///
    /// # Panics
    /// When it does not start, with the end of its log.
    pub fn start_with_tls(authority: &Authority) -> Self {
        let directory = tempfile::tempdir().expect("a private directory");
        let issued = authority.issue(CertificateKind::Valid).expect("a certificate");
        let (certificate, key) = issued.write(directory.path(), "server").expect("the certificate's files");
        let ca_file = authority.ca_file().to_owned();
        Self::start_in(directory, Some(Tls { ca_file, certificate, key }), ServeSettings::default())
    }

    fn start_in(directory: TempDir, tls: Option<Tls>, settings: ServeSettings) -> Self {
        let path = directory.path();
        let token = make_token(path, "admin");
        let (child, port) =
            start_on_free_port("sortie-control", path, |port| serve(path, port, tls.as_ref(), &settings));
        let mut started = Self { port, token, tls, settings, child, directory };
        started.wait_until_healthy();
        started
    }

    /// `http://127.0.0.1:PORT`, or `https` with TLS.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// The token of the role `admin`.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Makes another token with the running database.
    pub fn create_token(&self, role: &str) -> String {
        make_token(self.directory.path(), role)
    }

    /// The file of the database.
    pub fn database(&self) -> PathBuf {
        self.directory.path().join("control.db")
    }

    /// The directory of its artifacts, where they lie on the disk.
    pub fn artifacts(&self) -> PathBuf {
        let path = self.directory.path().join("artifacts");
        if self.settings.artifacts_mebibytes.is_some() {
            SmallDisk::seen(self.child.id(), &path)
        } else {
            path
        }
    }

    /// Leaves its artifacts room for so many bytes, or all that there is.
    ///
    /// # Panics
    /// When they have no disk of their own.
    pub fn leave_room(&self, bytes: Option<u64>) {
        let disk = artifacts_disk(self.directory.path(), &self.settings).expect("a small disk");
        match bytes {
            Some(bytes) => disk.leave(self.child.id(), bytes),
            None => disk.make_room(self.child.id()),
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it logged since its last start.
    pub fn log(&self) -> String {
        self.child.stderr()
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Asks it to stop and waits for it.
    ///
    /// # Panics
    /// When it does not stop in time.
    pub fn terminate(&mut self) {
        self.child.terminate();
        assert!(
            self.child.wait(START_LIMIT).is_some(),
            "sortie-control does not stop\n{}",
            self.child.tail()
        );
    }

    /// Starts it again on the same port and database, whether it still runs or not.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.child.kill();
        let path = self.directory.path();
        let mut command = serve(path, self.port, self.tls.as_ref(), &self.settings);
        self.child = Child::start("sortie-control", &mut command, path);
        self.wait_until_healthy();
    }

    /// Sends one request with the token of the role `admin`; `path` starts with `/`.
    pub fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.request_as(&self.token, method, path, body, &[])
    }

    /// Sends one request with another token and further headers.
    ///
    /// # Panics
    /// When the control plane does not answer.
    pub fn request_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let ca_file = self.tls.as_ref().map(|tls| tls.ca_file.as_path());
        send(&self.url(), ca_file, token, method, path, body, headers)
            .unwrap_or_else(|error| panic!("{path} was not answered: {error}\n{}", self.child.tail()))
    }

    /// Makes an enrollment token for this many agents, which will carry the tags.
    pub fn enrollment_token(&self, tags: &[&str], max_uses: u32) -> String {
        let body = json!({"tags": tags, "ttl_seconds": 900, "max_uses": max_uses});
        let answer = self.request(Method::POST, "/api/v1/enrollment-tokens", Some(&body));
        answer.body["token"].as_str().unwrap_or_else(|| panic!("no enrollment token: {answer:?}")).to_owned()
    }

    /// Posts a task and returns its identifier.
    ///
    /// # Panics
    /// When it is not taken.
    pub fn post_task(&self, task: &Value) -> String {
        let answer = self.request(Method::POST, "/api/v1/tasks", Some(task));
        assert_eq!(answer.status, 201, "the task was not taken: {answer:?}");
        answer.body["id"]
            .as_str()
            .unwrap_or_else(|| panic!("a task without an identifier: {answer:?}"))
            .to_owned()
    }

    /// A task as it stands.
    pub fn task(&self, id: &str) -> Value {
        self.request(Method::GET, &format!("/api/v1/tasks/{id}"), None).body
    }

    /// Waits until a task is completed and returns it.
    ///
    /// # Panics
    /// When it is not completed within the limit.
    pub fn wait_task(&self, id: &str, limit: Duration) -> Value {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_secs().clamp(1, WAIT_SECONDS);
            let task = self.request(Method::GET, &format!("/api/v1/tasks/{id}?wait={left}s"), None).body;
            if task["state"] == "completed" {
                return task;
            }
            assert!(
                Instant::now() < deadline,
                "not completed within {limit:?}: {task:#}\n{}",
                self.child.tail()
            );
        }
    }

    /// Posts a task and waits for its end, for at most a minute.
    pub fn run_task(&self, task: &Value) -> Value {
        self.wait_task(&self.post_task(task), Duration::from_secs(60))
    }

    /// Cancels a task.
    pub fn cancel_task(&self, id: &str) -> Answer {
        self.request(Method::POST, &format!("/api/v1/tasks/{id}/cancel"), None)
    }

    /// The agents, as the REST interface lists them.
    pub fn agents(&self) -> Vec<Value> {
        let answer = self.request(Method::GET, "/api/v1/agents", None);
        answer.body["agents"].as_array().unwrap_or_else(|| panic!("no agents: {answer:?}")).clone()
    }

    fn wait_until_healthy(&mut self) {
        let (url, ca_file) = (self.url(), self.tls.as_ref().map(|tls| tls.ca_file.clone()));
        let ca_file = ca_file.as_deref();
        self.child.wait_for("sortie-control is healthy", START_LIMIT, || {
            send(&url, ca_file, "", Method::GET, "/healthz", None, &[])
                .is_ok_and(|answer| answer.status == 200)
        });
    }
}

fn database_argument(directory: &Path) -> String {
    format!("sqlite:{}", directory.join("control.db").display())
}

fn artifacts_disk(directory: &Path, settings: &ServeSettings) -> Option<SmallDisk> {
    settings.artifacts_mebibytes.map(|mebibytes| SmallDisk::new(&directory.join("artifacts"), mebibytes))
}

fn serve(directory: &Path, port: u16, tls: Option<&Tls>, settings: &ServeSettings) -> Command {
    let program = binary("sortie-control");
    let disk = artifacts_disk(directory, settings);
    let mut command = disk.map_or_else(|| Command::new(&program), |disk| disk.command(&program));
    isolate(&mut command, directory)
        .arg("serve")
        .arg("--listen")
        .arg(format!("127.0.0.1:{port}"))
        .arg("--database")
        .arg(database_argument(directory))
        .args(&settings.arguments)
        .envs(settings.environment.iter().map(|(name, value)| (name, value)));
    if let Some(tls) = tls {
        command.arg("--tls-cert").arg(&tls.certificate).arg("--tls-key").arg(&tls.key);
    }
    command
}

fn make_token(directory: &Path, role: &str) -> String {
    let mut command = Command::new(binary("sortie-control"));
    isolate(&mut command, directory).args(["token", "create", "--name", role, "--role", role, "--database"]);
    command_line(command.arg(database_argument(directory)))
}

/// Writes a secret to a private file below `directory` and returns its path.
pub fn secret_file(directory: &Path, name: &str, secret: &str) -> PathBuf {
    let file = directory.join(name);
    write_private(&file, secret).expect("a secret's file");
    file
}

fn send(
    url: &str,
    ca_file: Option<&Path>,
    token: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
    headers: &[(&str, &str)],
) -> Result<Answer, reqwest::Error> {
    block_on(async {
        // One that is installed already serves as well.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut builder = Client::builder().no_proxy().timeout(REQUEST_LIMIT);
        if let Some(file) = ca_file {
            let pem = std::fs::read(file).expect("the authority's certificate");
            builder = builder.tls_certs_only([Certificate::from_pem(&pem)?]);
        }
        let client = builder.build()?;
        let mut request = client.request(method, format!("{url}{path}"));
        if !token.is_empty() {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let body = serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null);
        Ok(Answer { status, body })
    })
}

/// Runs a future to its end on a thread of its own, so that it works inside of an async test as well.
fn block_on<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(future)
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("the request's thread"))
}
