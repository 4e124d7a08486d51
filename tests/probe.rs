//! A polled session that stands is probed for a WebSocket, and goes over to it without having been cut.
//!
//! The daemon probes every ten minutes. So that nobody waits for that, its loop runs in this process here, with a way
//! to the control plane that is probed all the time; everything else is real.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::json;
use sortie::agent::{Agent, ControlPlane as Place, Dialer, Parts, Wish};
use sortie::backoff;
use sortie::config::Proxy;
use sortie::dial::{Alpn, Destination, Door, ProxyEnvironment};
use sortie::git::{Control, Limits};
use sortie::journal::Journal;
use sortie::journal::sqlite::SqliteStore;
use sortie::policy::AddressRule;
use sortie::remote_url::RemoteUrl;
use sortie::report::{Code, Diagnosis, Stage, StageLog};
use sortie::runner::{Runner, Work};
use sortie::session::Profile;
use sortie::session::choice::Kind;
use sortie::session::line::LineError;
use sortie::session::transport::{Transport, Way};
use sortie::status::{Board, Status};
use sortie::systemd::Notifier;
use sortie::task::{Task, TaskReport};
use sortie_protocol::AttemptId;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::support::control_plane::ControlPlane;
use crate::support::process::wait_until;
use crate::support::reverse_proxy::ReverseProxy;
use crate::support::scene::Scene;

const LIMIT: Duration = Duration::from_secs(60);

/// How long after an opening the next probe is.
const PAUSE: Duration = Duration::from_millis(200);

/// A daemon's way to its control plane, impatient.
struct Impatient {
    way: Dialer,
    tried: Instant,
}

impl Way for Impatient {
    fn open(&self) -> BoxFuture<'static, Result<Box<dyn Transport>, LineError>> {
        self.way.open()
    }

    fn opened(&mut self, result: Result<Kind, &LineError>) {
        self.tried = Instant::now();
        self.way.opened(result);
    }

    fn ended(&mut self) {
        self.way.ended();
    }

    fn probe_at(&self) -> Option<Instant> {
        self.way.probe_at().map(|_| self.tried + PAUSE)
    }
}

/// Work that lasts until it is cancelled.
#[derive(Clone)]
struct Lasting;

impl Work for Lasting {
    fn admit(&self, _: &Task) -> Result<(), Diagnosis> {
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    async fn run(&self, _: &AttemptId, task: &Task, control: &Control, log: &StageLog) -> TaskReport {
        control.cancel.cancelled().await;
        log.begin(Stage::Policy);
        TaskReport::failed(task, Diagnosis::new(Code::Cancelled, Stage::Policy, "cancelled", vec![]), log)
    }

    async fn discard(self, _: AttemptId) {}

    async fn settle(self, _: Vec<AttemptId>) {}
}

/// The loop of an agent whose daemon has ended and left its state in `directory`.
fn revived(directory: &std::path::Path, url: &str) -> (Agent<SqliteStore, Lasting>, watch::Receiver<Status>) {
    let state = directory.join("state");
    let identity = sortie::identity::load(&state).unwrap();
    let (store, kept) = SqliteStore::open(&state).unwrap();
    let url = RemoteUrl::parse(url).unwrap();
    let destination = Destination {
        host: url.host().to_owned(),
        port: url.port(),
        tls: false,
        alpn: Alpn::Http1,
        rule: AddressRule::RemoteOrLoopback,
        proxy: Proxy::Direct,
        ca_file: None,
        proxy_ca_file: None,
        client_certificate: None,
    };
    let door = Arc::new(Door::new(ProxyEnvironment::from_process()));
    let way = Dialer::new(door, Place { url, destination });
    let (board, status) = Board::new();
    let agent = Agent::new(Parts {
        way: Box::new(Impatient { way, tried: Instant::now() }),
        profile: Profile { name: "fra1-a".to_owned(), tags: Vec::new(), max_tasks: 4 },
        identity,
        runner: Runner::new(Lasting, LIMIT),
        journal: Journal::new(store, kept),
        notifier: Notifier::from_environment(),
        board,
        drain: LIMIT,
        jitter: Box::new(backoff::random),
    });
    (agent, status)
}

#[test]
fn a_polled_session_goes_over_to_a_websocket_as_soon_as_one_passes() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let mut proxy = ReverseProxy::start(control_plane.port(), false);
    // The daemon enrolls, and ends.
    let mut enrolled = scene.agent("fra1-a").start_through(&control_plane, &proxy.url());
    enrolled.kill();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let (agent, status) = revived(enrolled.directory(), &proxy.url());
    let (wishes, wish) = watch::channel(Wish::Run);
    let running = runtime.spawn(agent.run(wish));
    let carries = |transport: &str| status.borrow().transport == Some(transport);
    wait_until("long polling carries the session", LIMIT, || carries("long_polling"));
    let id = control_plane.post_task(&scene.test_task(json!({})));
    wait_until("the attempt runs", LIMIT, || control_plane.task(&id)["state"] == "running");
    let tries = |proxy: &ReverseProxy| {
        proxy.requests().iter().filter(|request| request.starts_with("GET /agent/v1 4")).count()
    };
    let before = tries(&proxy);
    wait_until("a WebSocket is tried again and again", LIMIT, || tries(&proxy) > before + 2);
    assert!(carries("long_polling"), "the polled session stands meanwhile");

    // What is under way goes on by the old configuration; new connections pass upgrades.
    proxy.reload(true);
    wait_until("a WebSocket carries the session", LIMIT, || carries("websocket"));
    assert_eq!(status.borrow().counters.sessions, 2, "there was no other session in between");
    control_plane.cancel_task(&id);
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!(task["attempts"].as_array().unwrap().len(), 1, "the attempt was taken along: {task:#}");
    assert_eq!(task["outcome"], "cancelled", "{task:#}");
    wishes.send_replace(Wish::Stop);
    runtime.block_on(running).unwrap();
}
