//! A server on a free port, clients with tokens, and an agent that says what a test wants said.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sortie_control::identity::{Token, new_id, sha256};
use sortie_control::server::{Running, Settings, prepare};
use sortie_control::settings::{Limits, Times};
use sortie_control::store::{NewApiToken, Role, Store};
use sortie_protocol::identity::{enroll_payload, hello_payload, unenroll_payload};
use sortie_protocol::message::{
    AgentMessage, AttemptOutcome, AttemptResult, Challenge, ControlMessage, Disposition, Hello, Offer,
    Welcome,
};
use sortie_protocol::report::{Report, ReportOutcome, Target, TaskOutput};
use sortie_protocol::{AttemptId, decode, encode};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// The base URL that test agents say they dialed. It survives a restart on another port.
pub(crate) const ORIGIN: &str = "http://control.test";

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Rig {
    pub(crate) directory: Arc<TempDir>,
    pub(crate) running: Option<Running>,
    pub(crate) store: Store,
    pub(crate) url: String,
    pub(crate) admin: String,
    pub(crate) client: Client,
    times: Times,
    limits: Limits,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) location: Option<String>,
    pub(crate) body: Value,
}

/// A client that trusts nothing but what is handed in.
pub(crate) fn http_client(roots: rustls::RootCertStore) -> Client {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap()
}

pub(crate) async fn request(
    client: &Client,
    method: Method,
    url: &str,
    token: Option<&str>,
    body: Option<Value>,
    headers: &[(&'static str, &str)],
) -> Answer {
    let mut request = client.request(method, url);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let header = |name: &str| response.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
    let (content_type, location) = (header("content-type").unwrap_or_default(), header("location"));
    let status = response.status().as_u16();
    let bytes = response.bytes().await.unwrap();
    Answer { status, content_type, location, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::with(Times::default(), Limits::default()).await
    }

    pub(crate) async fn with(times: Times, limits: Limits) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let (running, store) = serve(&directory, &times, &limits).await;
        let url = format!("http://{}", running.address());
        let admin = new_token(&store, "admin", Role::Admin).await;
        let client = http_client(rustls::RootCertStore::empty());
        Self { directory, running: Some(running), store, url, admin, client, times, limits }
    }

    /// Stops the server in order and starts another one over the same database.
    pub(crate) async fn restart(&mut self) {
        self.running.take().unwrap().stop().await;
        let (running, store) = serve(&self.directory, &self.times, &self.limits).await;
        self.url = format!("http://{}", running.address());
        self.running = Some(running);
        self.store = store;
    }

    pub(crate) async fn token(&self, name: &str, role: Role) -> String {
        new_token(&self.store, name, role).await
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("control.db")
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let url = format!("{}{path}", self.url);
        request(&self.client, method, &url, Some(&self.admin), body, &[]).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Posts a connection test with these further fields and returns its identifier.
    pub(crate) async fn task(&self, fields: Value) -> String {
        let mut task = json!({"kind": "connection-test", "url": "https://git.example/a"});
        task.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = self.post("/api/v1/tasks", task).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn show(&self, id: &str) -> Value {
        self.get(&format!("/api/v1/tasks/{id}")).await.body
    }

    pub(crate) async fn completed(&self, id: &str) -> Value {
        let answer = self.get(&format!("/api/v1/tasks/{id}?wait=20s")).await;
        assert_eq!(answer.body["state"], "completed", "{}", answer.body);
        answer.body
    }

    /// Asks again and again, with the server's own events as the clock, until the task is in a state.
    pub(crate) async fn until_state(&self, id: &str, state: &str) -> Value {
        self.until(&format!("/api/v1/tasks/{id}"), |task| task["state"] == state).await
    }

    /// Reads an address until what it shows is as it must become.
    pub(crate) async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let shown = async {
            loop {
                last = self.get(path).await.body;
                if holds(&last) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let became_right = tokio::time::timeout(PATIENCE, shown).await.is_ok();
        assert!(became_right, "{path} did not become right: {last:#}");
        last
    }

    pub(crate) async fn enrollment_token(&self, wanted: Value) -> String {
        let answer = self.post("/api/v1/enrollment-tokens", wanted).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body["token"].as_str().unwrap().to_owned()
    }

    /// An agent that is enrolled, connected, and has told four free slots.
    pub(crate) async fn agent(&self, name: &str, tags: &[&str]) -> Agent {
        let identity = self.enrolled(name).await;
        let mut agent = identity.connect(&self.url, tags, &[], &[]).await;
        agent.send(AgentMessage::Credit { slots: 4 }).await;
        // A task that waits may have taken a slot by now.
        let has_credit = |it: &Value| it["free_slots"] == 4 || it["attempts"] != json!([]);
        self.until(&format!("/api/v1/agents/{}", agent.identity.id), has_credit).await;
        agent
    }

    pub(crate) async fn enrolled(&self, name: &str) -> Identity {
        let token = self.enrollment_token(json!({})).await;
        let mut identity = Identity::new(name);
        let answer = identity.enroll(self, &token).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        identity.id = answer.body["agent_id"].as_str().unwrap().to_owned();
        identity
    }
}

async fn serve(directory: &TempDir, times: &Times, limits: &Limits) -> (Running, Store) {
    let path = directory.path().join("control.db");
    let store = Store::open(&format!("sqlite:{}", path.display())).await.unwrap();
    let settings = Settings {
        listen: "127.0.0.1:0".to_owned(),
        times: times.clone(),
        limits: limits.clone(),
        ..Settings::default()
    };
    let running = prepare(settings).await.unwrap().start(store.clone()).unwrap();
    (running, store)
}

pub(crate) async fn new_token(store: &Store, name: &str, role: Role) -> String {
    let token = Token::generate("sortie_").unwrap();
    let kept = NewApiToken {
        id: new_id("token").unwrap(),
        name: name.to_owned(),
        role,
        hash: sha256(token.expose().as_bytes()),
    };
    assert!(store.add_api_token(0, &kept).await.unwrap());
    token.expose().to_owned()
}

/// An agent's key, and what it was registered as.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) key: Arc<Ed25519KeyPair>,
    pub(crate) id: String,
    pub(crate) name: String,
}

impl Identity {
    pub(crate) fn new(name: &str) -> Self {
        let key = Arc::new(Ed25519KeyPair::generate().unwrap());
        Self { key, id: String::new(), name: name.to_owned() }
    }

    pub(crate) fn sign(&self, payload: &[u8]) -> String {
        STANDARD.encode(self.key.sign(payload))
    }

    pub(crate) fn enroll_body(&self, token: &str) -> Value {
        let public_key = STANDARD.encode(self.key.public_key());
        let signature = self.sign(&enroll_payload(ORIGIN, token, &public_key));
        json!({
            "token": token, "public_key": public_key, "origin": ORIGIN, "signature": signature,
            "name": self.name, "version": "0.1.0", "os": "linux", "arch": "x86_64", "tags": [],
        })
    }

    pub(crate) async fn enroll(&self, rig: &Rig, token: &str) -> Answer {
        rig.post("/agent/v1/enroll", self.enroll_body(token)).await
    }

    pub(crate) async fn unenroll(&self, rig: &Rig, signer: &Identity) -> Answer {
        let challenge = rig.call(Method::POST, "/agent/v1/challenge", None).await.body;
        let (session, nonce) = (challenge["session"].as_str().unwrap(), challenge["nonce"].as_str().unwrap());
        let signature = signer.sign(&unenroll_payload(ORIGIN, session, nonce, &self.id));
        let body = json!({"agent_id": self.id, "origin": ORIGIN, "session": session, "signature": signature});
        rig.post("/agent/v1/unenroll", body).await
    }

    pub(crate) fn hello(&self, challenge: &Challenge, tags: &[&str]) -> Hello {
        let payload = hello_payload(ORIGIN, &challenge.session, &challenge.nonce, &self.id);
        Hello {
            agent_id: self.id.clone(),
            origin: ORIGIN.to_owned(),
            signature: self.sign(&payload),
            name: self.name.clone(),
            version: "0.1.0".to_owned(),
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            tags: tags.iter().map(ToString::to_string).collect(),
            max_tasks: 4,
            running: Vec::new(),
            unacknowledged: Vec::new(),
            lost: Vec::new(),
        }
    }

    pub(crate) async fn connect(
        &self,
        url: &str,
        tags: &[&str],
        running: &[AttemptId],
        unacknowledged: &[AttemptId],
    ) -> Agent {
        let mut wire = Wire::open(url).await;
        let challenge = wire.challenge().await;
        let mut hello = self.hello(&challenge, tags);
        hello.running = running.to_vec();
        hello.unacknowledged = unacknowledged.to_vec();
        wire.send(AgentMessage::Hello(hello)).await;
        let ControlMessage::Welcome(welcome) = wire.receive().await else { panic!("a welcome is due") };
        Agent { identity: self.clone(), wire, welcome }
    }
}

/// A WebSocket to the control plane.
pub(crate) struct Wire {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// The upgrade request with the subprotocol, to which a test may add headers.
pub(crate) fn upgrade_request(url: &str) -> tokio_tungstenite::tungstenite::http::Request<()> {
    let mut request = format!("{}/agent/v1", url.replacen("http", "ws", 1)).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "sortie.v1".parse().unwrap());
    request
}

impl Wire {
    pub(crate) async fn open(url: &str) -> Self {
        // Small messages in a row would wait for each other's acknowledgement otherwise.
        let disable_nagle = true;
        let connected =
            tokio_tungstenite::connect_async_with_config(upgrade_request(url), None, disable_nagle).await;
        let (socket, response) = connected.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "sortie.v1");
        Self { socket }
    }

    pub(crate) async fn challenge(&mut self) -> Challenge {
        let ControlMessage::Challenge(challenge) = self.receive().await else { panic!("a challenge is due") };
        challenge
    }

    pub(crate) async fn send(&mut self, message: AgentMessage) {
        self.send_text(encode(&message).unwrap()).await;
    }

    pub(crate) async fn send_text(&mut self, text: String) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    /// The next message; `None` when the session has ended.
    pub(crate) async fn next(&mut self) -> Option<ControlMessage> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("no message came");
            match next {
                Some(Ok(Message::Text(text))) => return Some(decode(&text).unwrap()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(other)) => panic!("an unexpected frame: {other:?}"),
            }
        }
    }

    pub(crate) async fn receive(&mut self) -> ControlMessage {
        self.next().await.expect("the session ended")
    }
}

/// A connected agent.
pub(crate) struct Agent {
    pub(crate) identity: Identity,
    pub(crate) wire: Wire,
    pub(crate) welcome: Welcome,
}

impl Agent {
    pub(crate) async fn send(&mut self, message: AgentMessage) {
        self.wire.send(message).await;
    }

    pub(crate) async fn receive(&mut self) -> ControlMessage {
        self.wire.receive().await
    }

    pub(crate) async fn offer(&mut self) -> Offer {
        match self.receive().await {
            ControlMessage::Offer(offer) => offer,
            other => panic!("an offer is due, not {other:?}"),
        }
    }

    /// Takes an offer and starts.
    pub(crate) async fn begin(&mut self) -> AttemptId {
        let attempt = self.offer().await.attempt;
        self.send(AgentMessage::Accept(attempt.clone())).await;
        self.send(AgentMessage::Start(attempt.clone())).await;
        attempt
    }

    pub(crate) async fn finish(&mut self, attempt: &AttemptId, outcome: AttemptOutcome) {
        self.send(AgentMessage::Result(result(attempt, outcome))).await;
    }

    pub(crate) async fn acknowledged(&mut self, attempt: &AttemptId) -> Disposition {
        match self.receive().await {
            ControlMessage::ResultAck { attempt: acknowledged, disposition } => {
                assert_eq!(&acknowledged, attempt);
                disposition
            }
            other => panic!("an acknowledgement is due, not {other:?}"),
        }
    }
}

pub(crate) fn result(attempt: &AttemptId, outcome: AttemptOutcome) -> AttemptResult {
    AttemptResult { attempt: attempt.clone(), outcome, result: report(outcome) }
}

pub(crate) fn report(outcome: AttemptOutcome) -> TaskOutput {
    let succeeded = outcome == AttemptOutcome::Succeeded;
    TaskOutput::Report(Box::new(Report {
        started_at: "2026-11-21T04:00:00Z".to_owned(),
        duration_ms: 41.0,
        outcome: if succeeded { ReportOutcome::Succeeded } else { ReportOutcome::Failed },
        target: Target { url: "https://git.example/a".to_owned(), provider: None, scope: None },
        server: Default::default(),
        identity: Default::default(),
        credential: Default::default(),
        capabilities: Default::default(),
        repository: Default::default(),
        stages: Vec::new(),
        warnings: Vec::new(),
        diagnosis: (!succeeded).then(|| diagnosis("pat_rejected")),
    }))
}

pub(crate) fn diagnosis(code: &str) -> sortie_protocol::report::Diagnosis {
    sortie_protocol::report::Diagnosis {
        code: code.to_owned(),
        stage: "authenticate".to_owned(),
        summary: format!("the test says {code}"),
        remedies: vec!["none".to_owned()],
    }
}
