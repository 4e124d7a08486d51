//! How many small tasks a second go through one control plane and many agents, beside what the disk allows.
//!
//! The control plane is the real program with its database on a disk. The agents are sessions in this process, over
//! real WebSockets: they answer every offer at once, so that what is measured is the control plane. They share the
//! machine's cores with it, and so does the client that posts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::json;
use sortie_protocol::identity::{enroll_payload, hello_payload};
use sortie_protocol::message::{
    AgentMessage, AttemptOutcome, AttemptResult, ControlMessage, Disposition, Hello,
};
use sortie_protocol::report::{Report, ReportOutcome, Target as Tested, TaskOutput};
use sortie_protocol::{AttemptId, decode, encode};
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::client::{Client, connect};
use crate::effort::Effort;
use crate::figure::{Figure, Quantity, Target};
use crate::support::control_plane::ControlPlane;

/// Sessions of agents.
pub(crate) const AGENTS: u32 = 50;
/// Attempts that each of them takes at once.
const SLOTS: u32 = 8;
/// Connections that post.
const CLIENTS: usize = 64;
/// Tasks that are posted and not acknowledged yet, at the most.
const OUTSTANDING: usize = 512;
/// What must go through.
const TASKS_TARGET: f64 = 2000.0;
/// How many times the rate of single commits it must be.
const COMMITS_TARGET: f64 = 5.0;
/// The size of a row that is committed alone, about that of a task.
const ROW_BYTES: usize = 200;
/// How long the tasks that are under way at the end may take.
const TAIL: Duration = Duration::from_secs(60);

/// What all of them share.
struct Shared {
    port: u16,
    token: String,
    /// Results that were recorded.
    recorded: AtomicU64,
    /// Results that were acknowledged in another way, which must not be.
    others: AtomicU64,
    posted: AtomicU64,
    /// Room for further tasks.
    room: Semaphore,
}

/// Measures all of it.
pub(crate) fn measure(effort: &Effort) -> Vec<Figure> {
    let control_plane = ControlPlane::start();
    let (warm_up, time) = (Duration::from_secs(effort.throughput_seconds / 5 + 1), effort.throughput());
    eprintln!("throughput: {AGENTS} agents for {} s", time.as_secs());
    let shared = Arc::new(Shared {
        port: control_plane.port(),
        token: control_plane.token().to_owned(),
        recorded: AtomicU64::new(0),
        others: AtomicU64::new(0),
        posted: AtomicU64::new(0),
        room: Semaphore::new(OUTSTANDING),
    });
    let identities: Vec<_> = (0..AGENTS).map(|number| Identity::enroll(&control_plane, number)).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let directory = control_plane.database();
    let directory = directory.parent().expect("the database's directory");
    let (tasks, commits) = runtime.block_on(async {
        let tasks = tasks_per_second(&shared, identities, warm_up, time).await;
        (tasks, commits_per_second(directory, time / 2).await)
    });
    eprintln!("  {tasks:.0} tasks and {commits:.0} single commits a second");
    vec![
        Figure::alone(
            &format!("small tasks a second through {AGENTS} agents"),
            Quantity::PerSecond(tasks),
            Target::PerSecond(TASKS_TARGET),
        ),
        Figure::beside(
            "the same beside single durable commits of SQLite a second",
            Quantity::PerSecond(tasks),
            Quantity::PerSecond(commits),
            Target::RatioAtLeast(COMMITS_TARGET),
        ),
    ]
}

async fn tasks_per_second(
    shared: &Arc<Shared>,
    identities: Vec<Identity>,
    warm_up: Duration,
    time: Duration,
) -> f64 {
    let mut agents = JoinSet::new();
    for identity in identities {
        agents.spawn(serve(Arc::clone(shared), identity));
    }
    let mut clients = JoinSet::new();
    let stop_at = Instant::now() + warm_up + time;
    for _ in 0..CLIENTS {
        clients.spawn(post(Arc::clone(shared), stop_at));
    }
    tokio::time::sleep(warm_up).await;
    let (before, begun) = (shared.recorded.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(time).await;
    let (after, took) = (shared.recorded.load(Ordering::Relaxed), begun.elapsed());
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client that ends well");
    }
    // Every task has one result, and no result counted twice.
    let everything = shared.room.acquire_many(u32::try_from(OUTSTANDING).expect("a small number"));
    let _room = tokio::time::timeout(TAIL, everything).await.expect("every task ends").expect("room");
    assert_eq!(shared.recorded.load(Ordering::Relaxed), shared.posted.load(Ordering::Relaxed));
    assert_eq!(shared.others.load(Ordering::Relaxed), 0);
    #[allow(clippy::cast_precision_loss)] // Far below what a float holds exactly.
    let done = (after - before) as f64;
    done / took.as_secs_f64()
}

/// An agent that is registered.
pub(crate) struct Identity {
    key: Ed25519KeyPair,
    id: String,
    name: String,
    origin: String,
}

impl Identity {
    pub(crate) fn enroll(control_plane: &ControlPlane, number: u32) -> Self {
        let key = Ed25519KeyPair::generate().expect("a key");
        let (name, origin) = (format!("bench-{number}"), control_plane.url());
        let token = control_plane.enrollment_token(&[], 1);
        let public_key = STANDARD.encode(key.public_key());
        let signature = STANDARD.encode(key.sign(&enroll_payload(&origin, &token, &public_key)));
        let body = json!({
            "token": token, "public_key": public_key, "origin": origin, "signature": signature, "name": name,
            "version": "0", "os": "linux", "arch": "x86_64", "tags": [],
        });
        let answer = control_plane.request(Method::POST, "/agent/v1/enroll", Some(&body));
        let id = answer.body["agent_id"].as_str().unwrap_or_else(|| panic!("not enrolled: {answer:?}"));
        Self { key, id: id.to_owned(), name, origin }
    }

    pub(crate) fn hello(&self, session: &str, nonce: &str) -> Hello {
        let payload = hello_payload(&self.origin, session, nonce, &self.id);
        Hello {
            agent_id: self.id.clone(),
            origin: self.origin.clone(),
            signature: STANDARD.encode(self.key.sign(&payload)),
            name: self.name.clone(),
            version: "0".to_owned(),
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            tags: Vec::new(),
            max_tasks: SLOTS,
            running: Vec::new(),
            unacknowledged: Vec::new(),
            lost: Vec::new(),
        }
    }
}

type Wire = WebSocketStream<TcpStream>;

/// One agent's session, which ends with its task.
async fn serve(shared: Arc<Shared>, identity: Identity) {
    let address = format!("ws://127.0.0.1:{}{}", shared.port, sortie_protocol::WEBSOCKET_PATH);
    let mut request = address.into_client_request().expect("a request");
    let subprotocol = sortie_protocol::SUBPROTOCOL.parse().expect("a header");
    request.headers_mut().insert("sec-websocket-protocol", subprotocol);
    let stream = connect(shared.port).await;
    let (mut wire, _) = tokio_tungstenite::client_async(request, stream).await.expect("a session");
    while let Some(message) = wire.next().await {
        let Message::Text(text) = message.expect("a message") else { continue };
        match decode::<ControlMessage>(&text).expect("a message of the protocol") {
            ControlMessage::Challenge(challenge) => {
                let hello = identity.hello(&challenge.session, &challenge.nonce);
                say(&mut wire, [AgentMessage::Hello(hello)]).await;
            }
            ControlMessage::Welcome(_) => say(&mut wire, [AgentMessage::Credit { slots: SLOTS }]).await,
            ControlMessage::Offer(offer) => answer(&mut wire, offer.attempt).await,
            ControlMessage::ResultAck { disposition, .. } => {
                let is_recorded = disposition == Disposition::Recorded;
                let count = if is_recorded { &shared.recorded } else { &shared.others };
                count.fetch_add(1, Ordering::Relaxed);
                shared.room.add_permits(1);
            }
            ControlMessage::Goaway(goaway) => panic!("the control plane says: {}", goaway.message),
            _ => {}
        }
    }
}

/// The whole life of an attempt at once.
async fn answer(wire: &mut Wire, attempt: AttemptId) {
    let report = Report {
        started_at: "2026-11-21T04:00:00Z".to_owned(),
        duration_ms: 0.0,
        outcome: ReportOutcome::Succeeded,
        target: Tested { url: "https://git.example/group/web".to_owned(), provider: None, scope: None },
        server: Default::default(),
        identity: Default::default(),
        credential: Default::default(),
        capabilities: Default::default(),
        repository: Default::default(),
        stages: Vec::new(),
        warnings: Vec::new(),
        diagnosis: None,
    };
    let result = AttemptResult {
        attempt: attempt.clone(),
        outcome: AttemptOutcome::Succeeded,
        result: TaskOutput::Report(Box::new(report)),
    };
    let life = [
        AgentMessage::Accept(attempt.clone()),
        AgentMessage::Start(attempt),
        AgentMessage::Result(result),
        AgentMessage::Credit { slots: SLOTS },
    ];
    say(wire, life).await;
}

async fn say(wire: &mut Wire, messages: impl IntoIterator<Item = AgentMessage>) {
    for message in messages {
        wire.feed(Message::text(encode(&message).expect("a frame"))).await.expect("an open session");
    }
    wire.flush().await.expect("an open session");
}

/// One client with a connection of its own, which posts whenever there is room.
async fn post(shared: Arc<Shared>, stop_at: Instant) {
    let task = json!({"kind": "connection-test", "url": "https://git.example/group/web"}).to_string();
    let mut client = Client::connect(shared.port, &shared.token).await;
    while Instant::now() < stop_at {
        // It is given back when the result is acknowledged.
        shared.room.acquire().await.expect("room").forget();
        shared.posted.fetch_add(1, Ordering::Relaxed);
        let answer = client.post("/api/v1/tasks", &task).await;
        assert!(answer.head.starts_with("http/1.1 201"), "the task was not taken: {}", answer.head);
    }
}

/// What one connection commits when each row is a transaction of its own, with the settings of the control plane.
async fn commits_per_second(directory: &Path, time: Duration) -> f64 {
    let mut connection = SqliteConnectOptions::new()
        .filename(directory.join("single.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await
        .expect("a database");
    let table = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";
    sqlx::query(table).execute(&mut connection).await.expect("a table");
    let row = "x".repeat(ROW_BYTES);
    let begun = Instant::now();
    let mut commits = 0.0;
    while begun.elapsed() < time {
        let insert = sqlx::query("INSERT INTO notes (text) VALUES (?)").bind(&row);
        insert.execute(&mut connection).await.expect("a commit");
        commits += 1.0;
    }
    commits / begun.elapsed().as_secs_f64()
}
