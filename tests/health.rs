//! Health of the daemon: who is told what, when it is ready and when not, and what feeds systemd's watchdog.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stand_ins::Fault;
use tokio::net::TcpListener;

use crate::hostile_control_plane::{accept, enrolled, receive, send};
use crate::support::agent::{Agent, AgentPlan};
use crate::support::binary::{Sortie, sortie};
use crate::support::control_plane::ControlPlane;
use crate::support::process::wait_until;
use crate::support::python::Environment;
use crate::support::scene::{PAT, Scene};

const LIMIT: Duration = Duration::from_secs(60);

/// What was answered to one request.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The reasons why not.
    fn reasons(&self) -> Vec<String> {
        let body = self.json();
        let reasons = body["reasons"].as_array().into_iter().flatten();
        reasons.map(|reason| reason.as_str().unwrap().to_owned()).collect()
    }
}

/// Sends bytes and reads to the end.
fn exchange(mut stream: impl Read + Write, request: &str) -> Answer {
    // It may have been answered before all of it was read.
    let _ = stream.write_all(request.as_bytes());
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer { status: status.unwrap(), head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn request(method: &str, path: &str) -> String {
    request_to("sortie", method, path)
}

fn request_to(host: &str, method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn get(socket: &Path, path: &str) -> Answer {
    exchange(connect(socket), &request("GET", path))
}

/// The socket for health of an agent, or of its plan.
fn socket(directory: &Path) -> PathBuf {
    directory.join("run/health.sock")
}

/// The plan with health on a Unix socket.
fn with_health(plan: AgentPlan) -> AgentPlan {
    let listen = format!("[health]\nlisten = \"unix:{}\"\n", socket(plan.directory()).display());
    plan.with_toml(&listen)
}

fn wait_until_ready(agent: &Agent) {
    let socket = socket(agent.directory());
    wait_until("it is ready", LIMIT, || get(&socket, "/readyz").status == 200);
}

/// Waits until it is not ready, and for this reason among others.
fn wait_until_missing(agent: &Agent, reason: &str) {
    let socket = socket(agent.directory());
    wait_until(reason, LIMIT, || {
        let answer = get(&socket, "/readyz");
        answer.status == 503 && answer.reasons().iter().any(|told| told == reason)
    });
}

/// The value of a sample that stands on the page with exactly this name and these labels.
fn sample(page: &str, name: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn ready_means_that_there_is_a_session_and_alive_that_the_loop_moves() {
    let scene = Scene::small();
    let mut control_plane = ControlPlane::start();
    let agent = with_health(scene.agent("fra1-a")).start(&control_plane);
    let socket = socket(agent.directory());
    wait_until_ready(&agent);
    let ready = get(&socket, "/readyz");
    assert_eq!(ready.json(), json!({"ready": true}));
    assert!(ready.head.contains("content-type: application/json"), "{ready:?}");

    control_plane.kill();
    wait_until_missing(&agent, "no_session");
    assert_eq!(get(&socket, "/readyz").json(), json!({"ready": false, "reasons": ["no_session"]}));
    // A restart of the agent would not bring the control plane back.
    assert_eq!(
        (get(&socket, "/healthz").status, get(&socket, "/healthz").json()),
        (200, json!({"alive": true}))
    );
    assert_eq!(sample(&get(&socket, "/metrics").body, "sortie_session_up"), Some(0.0));

    control_plane.restart();
    wait_until_ready(&agent);
    let page = get(&socket, "/metrics").body;
    assert_eq!(sample(&page, "sortie_session_up"), Some(1.0));
    assert_eq!(sample(&page, "sortie_reconnects_total"), Some(1.0), "{page}");
    assert!(sample(&page, "sortie_errors_total") >= Some(1.0), "{page}");
    let status = sortie(["status", "--json", "--config", agent.config().to_str().unwrap()]).json();
    assert_eq!(status["readiness"], json!({"ready": true, "reasons": []}));
    assert_eq!(status["control_plane"]["reconnects"], 1);
    assert!(status["control_plane"]["errors"][0]["message"].is_string(), "{status:#}");
    let people = sortie(["status", "--config", agent.config().to_str().unwrap()]).stdout;
    assert!(people.contains("ready          yes") && people.contains("last errors"), "{people}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_that_falls_silent_is_found_out_in_the_time_that_it_set() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let home = tempfile::tempdir().unwrap();
    let config = enrolled(home.path(), &url);
    let socket = socket(home.path());
    let sortie = Sortie::new().env("SORTIE__HEALTH__LISTEN", socket.to_str().unwrap());
    let _daemon = sortie.start(["run", "--config", config.to_str().unwrap()]);

    let mut line = accept(&listener).await;
    send(&mut line, &json!({"type": "challenge", "session": "s", "nonce": "bm9uY2U="})).await;
    assert_eq!(receive(&mut line).await["type"], "hello");
    assert_eq!(get(&socket, "/readyz").reasons(), ["no_session"], "it is not welcome yet");
    let dead_after = Duration::from_secs(2);
    let times = json!({"ping_ms": 500, "dead_after_ms": dead_after.as_millis() as u64, "renew_ms": 20_000});
    send(&mut line, &json!({"type": "welcome", "session": "s", "version": "1", "times": times})).await;
    assert_eq!(receive(&mut line).await["type"], "credit");
    let heard = Instant::now();
    wait_until("it is ready", LIMIT, || get(&socket, "/readyz").status == 200);
    // The line stays, and nobody reads it any more: no ping is answered.
    wait_until("it is not ready", LIMIT, || get(&socket, "/readyz").status == 503);
    assert!(heard.elapsed() < dead_after * 2, "{:?}", heard.elapsed());
    wait_until("the line is given up", LIMIT, || get(&socket, "/readyz").reasons() == ["no_session"]);
    assert_eq!(get(&socket, "/healthz").status, 200);
    drop(line);

    let mut line = accept(&listener).await;
    send(&mut line, &json!({"type": "challenge", "session": "s", "nonce": "bm9uY2U="})).await;
    assert_eq!(receive(&mut line).await["type"], "hello");
    let goaway = json!({"type": "goaway", "reason": "identity_refused", "message": "unknown agent"});
    send(&mut line, &goaway).await;
    wait_until("it knows", LIMIT, || get(&socket, "/readyz").reasons() == ["no_session", "identity_refused"]);
    assert_eq!(sample(&get(&socket, "/metrics").body, "sortie_identity_refused"), Some(1.0));
    assert_eq!(get(&socket, "/healthz").status, 200);
}

#[test]
fn a_daemon_that_drains_is_alive_and_not_ready() {
    let scene = Scene::generated(2_000);
    let control_plane = ControlPlane::start();
    let mut agent = with_health(scene.agent("fra1-a")).start(&control_plane);
    let socket = socket(agent.directory());
    wait_until_ready(&agent);
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    scene.server().set_fault_at("git-upload-pack", Fault::PauseAfter { bytes: 20_000 });
    control_plane.post_task(&scene.clone_task(json!({})));
    scene.wait_for_request("the clone has begun", |request| request.path.ends_with("/git-upload-pack"));
    agent.terminate();
    wait_until_missing(&agent, "draining");
    assert_eq!(get(&socket, "/healthz").status, 200);
    let page = get(&socket, "/metrics").body;
    assert_eq!(
        (sample(&page, "sortie_draining"), sample(&page, "sortie_slots_used")),
        (Some(1.0), Some(1.0))
    );
    scene.server().clear_fault();
    assert_eq!(agent.wait(LIMIT).and_then(|status| status.code()), Some(0));
    assert!(!socket.exists(), "the socket goes with the daemon");
}

#[test]
fn the_metrics_count_what_was_done_and_name_nobody() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let agent = with_health(scene.agent("fra1-a").with_max_tasks(3)).start(&control_plane);
    let socket = socket(agent.directory());
    let (good, cloned) = (
        control_plane.run_task(&scene.test_task(json!({}))),
        control_plane.run_task(&scene.clone_task(json!({}))),
    );
    assert_eq!(
        (&good["outcome"], &cloned["outcome"]),
        (&json!("succeeded"), &json!("succeeded")),
        "{cloned:#}"
    );
    let missing = format!("{}/shop/nope.git", scene.server().url());
    let bad = control_plane.run_task(&json!({"kind": "connection-test", "url": missing}));
    let code = bad["result"]["diagnosis"]["code"].as_str().unwrap();
    // A client may know of the last result before its agent does.
    wait_until("every result is acknowledged", LIMIT, || {
        get(&socket, "/metrics").body.contains("sortie_results_waiting 0")
    });
    let page = get(&socket, "/metrics");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{page:?}");

    let families = read_back(&page.body);
    let value = |family: &str, labels: Value| {
        let samples =
            families[family]["samples"].as_array().unwrap_or_else(|| panic!("{family}: {families:#}"));
        let found = samples.iter().find(|sample| sample[1] == labels);
        found.and_then(|sample| sample[2].as_f64()).unwrap_or_else(|| panic!("{labels}: {families:#}"))
    };
    let ended =
        |kind: &str, outcome: &str| value("sortie_attempts_ended", json!({"kind": kind, "outcome": outcome}));
    assert_eq!((ended("connection-test", "succeeded"), ended("connection-test", "failed")), (1.0, 1.0));
    assert_eq!((ended("clone", "succeeded"), ended("clone", "cancelled")), (1.0, 0.0));
    assert_eq!(value("sortie_diagnoses", json!({"code": code})), 1.0);
    let received = cloned["result"]["received_bytes"].as_f64().unwrap();
    assert!(received > 0.0);
    assert_eq!(value("sortie_clone_received_bytes", json!({})), received);
    assert_eq!(value("sortie_build_info", json!({"version": env!("CARGO_PKG_VERSION")})), 1.0);
    assert_eq!((value("sortie_slots", json!({})), value("sortie_slots_used", json!({}))), (3.0, 0.0));
    assert_eq!((value("sortie_ready", json!({})), value("sortie_results_waiting", json!({}))), (1.0, 0.0));
    assert!(value("sortie_heard_age_seconds", json!({})) < 60.0);
    assert!(value("process_resident_memory_bytes", json!({})) > 1e6);
    assert!(value("process_open_fds", json!({})) > 3.0 && value("process_threads", json!({})) >= 2.0);

    let told: String = ["/metrics", "/readyz", "/healthz"].map(|path| get(&socket, path).body).concat();
    let host = scene.server().url().replace("https://", "");
    let task = good["id"].as_str().unwrap();
    for canary in [PAT, &host, "shop", "lab", task, &control_plane.url(), "fra1-a", "http://"] {
        assert!(!told.contains(canary), "{canary}: {told}");
    }
}

/// The families of a page as a program of another maker reads them.
fn read_back(page: &str) -> Value {
    let mut command = Environment::named("prometheus").python();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/python/read_metrics.py");
    let mut reader = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    reader.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = reader.wait_with_output().unwrap();
    assert!(output.status.success(), "{page}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn other_requests_are_refused_and_slow_ones_are_cut() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let agent = with_health(scene.agent("fra1-a")).start(&control_plane);
    let socket = socket(agent.directory());
    assert_eq!(get(&socket, "/").status, 404);
    assert_eq!(get(&socket, "/healthz/x").status, 404);
    let posted = exchange(connect(&socket), &request("POST", "/healthz"));
    assert!(posted.status == 405 && posted.head.contains("allow: get, head"), "{posted:?}");
    let head = exchange(connect(&socket), &request("HEAD", "/metrics"));
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("content-length: "), "{head:?}");
    let asked = get(&socket, "/healthz?verbose=1");
    assert_eq!(asked.status, 200);
    let long = format!("GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    assert_eq!(exchange(connect(&socket), &long).status, 431);
    let many = format!("GET /healthz HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(65));
    assert_eq!(exchange(connect(&socket), &many).status, 431);
    assert_eq!(exchange(connect(&socket), "garbage\r\n\r\n").status, 400);

    // A client that sends a little again and again, and never comes to an end.
    let begun = Instant::now();
    let mut slow = connect(&socket);
    slow.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
    let is_cut = |slow: &mut UnixStream| {
        let written = slow.write_all(b"X: y\r\n");
        let mut piece = [0; 1024];
        match slow.read(&mut piece) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => written.is_err() || error.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    wait_until("it is cut", LIMIT, || is_cut(&mut slow));
    let lasted = begun.elapsed();
    let bounds = (sortie::health::HEAD_TIMEOUT, sortie::health::HEAD_TIMEOUT + Duration::from_secs(4));
    assert!(lasted >= bounds.0 && lasted < bounds.1, "{lasted:?}");

    // Clients that say nothing take the places, until their time is over.
    let silent: Vec<_> = (0..sortie::health::MAX_CONNECTIONS).map(|_| connect(&socket)).collect();
    wait_until("the places are taken", LIMIT, || get(&socket, "/healthz").status == 503);
    wait_until("they are free again", LIMIT, || get(&socket, "/healthz").status == 200);
    drop(silent);
}

#[test]
fn a_loopback_address_serves_as_well_and_one_that_is_taken_ends_the_start() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").with_toml("[health]\nlisten = \"127.0.0.1:0\"\n").start(&control_plane);
    let log = agent.log();
    let address = log.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let address = address.unwrap_or_else(|| panic!("no address: {log}"));
    // Whoever asks for health does not go through the door.
    #[allow(clippy::disallowed_methods)]
    let stream = || {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    };
    let ask = |host: &str, path: &str| exchange(stream(), &request_to(host, "GET", path)).status;
    wait_until("it is ready", LIMIT, || ask(address, "/readyz") == 200);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!((ask("localhost", path), ask(address, path)), (200, 200), "{path}");
        assert_eq!((ask("evil.example", path), ask("", path)), (421, 421), "{path}");
    }

    let sortie = Sortie::new().env("SORTIE__HEALTH__LISTEN", address);
    let plan = scene.agent("fra1-b");
    let other = plan.write_config(&control_plane.url());
    let taken = sortie.run(["run", "--config", other.to_str().unwrap()]);
    assert_eq!(taken.status, Some(78), "{taken:?}");
    assert!(taken.stderr.contains("health.listen") && taken.stderr.contains(address), "{taken:?}");

    let sortie = Sortie::new().env("SORTIE__HEALTH__LISTEN", "0.0.0.0:7801");
    let open = sortie.run(["config", "check", "--config", agent.config().to_str().unwrap()]);
    assert_eq!(open.status, Some(78), "{open:?}");
    assert!(open.stderr.contains("`health.listen` expects a loopback address"), "{open:?}");
}

/// What the service manager would be told.
struct Manager(UnixDatagram);

impl Manager {
    /// Waits for a message that has this line.
    fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + LIMIT;
        let mut message = [0; 4096];
        loop {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            let Ok(length) = self.0.recv(&mut message) else { continue };
            let text = String::from_utf8_lossy(&message[..length]);
            if text.lines().any(&wanted) {
                return;
            }
        }
    }

    /// Waits until the watchdog was fed so many times.
    fn wait_for_food(&self, what: &str, times: u32) {
        for _ in 0..times {
            self.wait_for(what, |line| line == "WATCHDOG=1");
        }
    }
}

#[test]
fn the_watchdog_is_fed_while_connected_and_while_the_control_plane_is_away() {
    let scene = Scene::small();
    let mut control_plane = ControlPlane::start();
    let plan = with_health(scene.agent("fra1-a"));
    let path = plan.directory().join("notify.sock");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    manager.0.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let agent = plan
        .with_env("NOTIFY_SOCKET", path.to_str().unwrap())
        .with_env("WATCHDOG_USEC", "1000000")
        .start(&control_plane);
    manager.wait_for("ready", |line| line == "READY=1");
    manager.wait_for("connected", |line| line.starts_with("STATUS=connected"));
    manager.wait_for_food("fed while connected", 4);
    control_plane.kill();
    manager.wait_for("not connected", |line| line.starts_with("STATUS=not connected"));
    let away = Instant::now();
    manager.wait_for_food("fed while the control plane is away", 8);
    assert!(away.elapsed() >= Duration::from_secs(3), "it is fed when it is due, and not all the time");
    assert_eq!(get(&socket(agent.directory()), "/healthz").status, 200);
    control_plane.restart();
    manager.wait_for("connected again", |line| line.starts_with("STATUS=connected"));
    manager.wait_for_food("fed again", 2);
}
