//! The line between agent and control plane: cut, blocked, silent, refused, and always found again.

use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::hostile_control_plane::{accept, enrolled, send};
use crate::support::agent::Agent;
use crate::support::binary::{Sortie, sortie};
use crate::support::control_plane::{ControlPlane, ServeSettings};
use crate::support::hole::Hole;
use crate::support::process::wait_until;
use crate::support::reverse_proxy::ReverseProxy;
use crate::support::scene::Scene;

const LIMIT: Duration = Duration::from_secs(60);

/// A control plane whose connections count as dead after so many seconds without a sign.
fn control_plane_with(ping_seconds: u64) -> ControlPlane {
    let arguments = vec!["--ping-seconds".to_owned(), ping_seconds.to_string()];
    ControlPlane::start_with(ServeSettings { arguments, ..ServeSettings::default() })
}

fn status_of(config: &Path) -> Value {
    let output = sortie(["status", "--json", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status, Some(0), "{output:?}");
    output.json()
}

fn wait_for_transport(agent: &Agent, transport: &str) {
    wait_until(&format!("{transport} carries the session"), LIMIT, || {
        status_of(agent.config())["control_plane"]["transport"] == transport
    });
}

#[test]
fn a_peer_that_vanishes_without_a_word_is_found_by_both_sides() {
    let scene = Scene::small();
    let control_plane = control_plane_with(1);
    let hole = Hole::start(control_plane.port());
    let agent =
        scene.agent("fra1-a").start_through(&control_plane, &format!("http://127.0.0.1:{}", hole.port()));
    wait_for_transport(&agent, "websocket");
    // It stands for longer than the time after which it would be dead, because both give signs.
    let stood = Instant::now();
    wait_until("three times that time has passed", LIMIT, || stood.elapsed() > Duration::from_secs(6));
    assert_eq!(hole.opened(), 1 + enrollments(), "{}", agent.log());
    let begun = Instant::now();
    hole.swallow();
    let ended = |log: &str| log.contains("the agent was silent for too long");
    wait_until("the control plane has found out", LIMIT, || ended(&control_plane.log()));
    wait_until("the agent has found out", LIMIT, || agent.log().contains("the control plane is silent"));
    assert!(begun.elapsed() < Duration::from_secs(6), "within the time and a little: {:?}", begun.elapsed());
    let task = control_plane.run_task(&scene.test_task(json!({})));
    assert_eq!(task["outcome"], "succeeded", "{task:#}");
}

/// How many connections an enrollment takes.
fn enrollments() -> u64 {
    1
}

#[test]
fn a_polled_session_whose_peer_vanishes_is_found_as_well() {
    let scene = Scene::small();
    let control_plane = control_plane_with(1);
    let proxy = ReverseProxy::start(control_plane.port(), false);
    let hole = Hole::start(proxy.port());
    let agent =
        scene.agent("fra1-a").start_through(&control_plane, &format!("http://127.0.0.1:{}", hole.port()));
    wait_for_transport(&agent, "long_polling");
    hole.swallow();
    // Both requests fail with their connections, and others take their place or the session does.
    let task = control_plane.run_task(&scene.test_task(json!({})));
    assert_eq!(task["outcome"], "succeeded", "{task:#}\n{}", agent.log());
}

#[test]
fn a_second_agent_with_the_same_identity_supersedes_the_first_and_both_sides_say_so() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").start(&control_plane);
    let copy = Sortie::new();
    let text = std::fs::read_to_string(agent.config()).unwrap();
    let (original, copied) = (agent.directory().display().to_string(), copy.home().display().to_string());
    let config = copy.home().join("config.toml");
    std::fs::write(&config, text.replace(&original, &copied)).unwrap();
    copy_files(&agent.directory().join("state"), &copy.home().join("state"));
    copy_files(agent.directory(), copy.home());
    std::fs::write(&config, text.replace(&original, &copied)).unwrap();
    let begun = Instant::now();
    let _second = copy.start(["run", "--config", config.to_str().unwrap()]);
    let said = "another agent with this identity connected";
    wait_until("the first one is told", LIMIT, || agent.log().contains(said));
    assert!(begun.elapsed() < Duration::from_secs(10), "at once: {:?}", begun.elapsed());
    let log = control_plane.log();
    assert!(log.contains("a newer session of the same agent took this one's place"), "{log}");
    assert!(log.contains("fra1-a") && log.contains("WARN"), "{log}");
    assert_eq!(control_plane.agents()[0]["state"], "connected");
}

/// Copies the files of a directory, and not what lies below it.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn where_no_websocket_passes_the_agent_polls_and_goes_back_when_one_does() {
    let scene = Scene::generated(5_000);
    let control_plane = ControlPlane::start();
    let mut proxy = ReverseProxy::start(control_plane.port(), false);
    // With a mirror a second clone would have nothing to fetch.
    let plan = scene.agent("fra1-a").with_toml("[mirrors]\nenabled = false\n");
    let agent = plan.start_through(&control_plane, &proxy.url());
    wait_for_transport(&agent, "long_polling");
    let people = sortie(["status", "--config", agent.config().to_str().unwrap()]).stdout;
    assert!(people.contains("by long polling"), "{people}");
    let task = control_plane.run_task(&scene.test_task(json!({})));
    assert_eq!(task["outcome"], "succeeded", "{task:#}");

    // A cancel reaches it at once.
    let id = scene.begin_clone(&control_plane);
    let begun = Instant::now();
    control_plane.cancel_task(&id);
    assert_eq!(control_plane.wait_task(&id, LIMIT)["outcome"], "cancelled");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    scene.server().clear_fault();

    // A cut in the middle of a task loses nothing and does nothing twice.
    let id = scene.begin_clone(&control_plane);
    proxy.restart(false);
    scene.server().clear_fault();
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!(task["outcome"], "succeeded", "{task:#}");
    assert_eq!(task["attempts"].as_array().unwrap().len(), 1, "{task:#}");

    // The way is opened while it is away.
    let id = scene.begin_clone(&control_plane);
    proxy.kill();
    wait_until("the line is lost", LIMIT, || {
        status_of(agent.config())["control_plane"]["connected"] == false
    });
    proxy.restart(true);
    wait_for_transport(&agent, "websocket");
    scene.server().clear_fault();
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!(task["outcome"], "succeeded", "{task:#}");
    assert_eq!(task["attempts"].as_array().unwrap().len(), 1, "{task:#}");
}

/// Submits a clone and waits until its pack has begun to come; it goes on when the fault is cleared.
#[test]
fn the_doctor_says_that_only_long_polling_passes() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let proxy = ReverseProxy::start(control_plane.port(), false);
    let agent = scene.agent("fra1-a").start_through(&control_plane, &proxy.url());
    let output = sortie(["doctor", "--json", "--config", agent.config().to_str().unwrap()]);
    let report = output.json();
    let checks = report["checks"].as_array().unwrap();
    let check =
        checks.iter().find(|check| check["check"] == "control_plane").unwrap_or_else(|| panic!("{report:#}"));
    assert_eq!(check["status"], "warned", "{report:#}");
    assert!(check["summary"].as_str().unwrap().contains("long polling"), "{report:#}");
}

#[test]
fn a_refused_identity_shows_in_the_status() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").start(&control_plane);
    assert_eq!(status_of(agent.config())["control_plane"]["identity_refused"], false);
    let id = control_plane.agents()[0]["id"].as_str().unwrap().to_owned();
    control_plane.request(Method::DELETE, &format!("/api/v1/agents/{id}"), None);
    wait_until("the status says it", LIMIT, || {
        status_of(agent.config())["control_plane"]["identity_refused"] == true
    });
    let people = sortie(["status", "--config", agent.config().to_str().unwrap()]).stdout;
    assert!(people.contains("refuses this agent's identity"), "{people}");
}

/// A daemon that is enrolled at this listener.
fn daemon(listener: &TcpListener) -> (Sortie, crate::support::process::Child) {
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sortie = Sortie::new();
    let config = enrolled(sortie.home(), &url);
    let daemon = sortie.start(["run", "--config", config.to_str().unwrap()]);
    (sortie, daemon)
}

async fn next(listener: &TcpListener) -> TcpStream {
    tokio::time::timeout(LIMIT, listener.accept()).await.expect("the agent connects").unwrap().0
}

/// Reads the head of a request.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(LIMIT, stream.read_u8()).await.expect("a request").unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn an_agent_that_is_sent_away_stays_away_for_as_long_as_it_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_home, daemon) = daemon(&listener);
    for seconds in [3, 2] {
        let mut stream = next(&listener).await;
        head(&mut stream).await;
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        drop(stream);
        let told = Instant::now();
        let _again = next(&listener).await;
        assert!(told.elapsed() >= Duration::from_secs(seconds), "{:?}\n{}", told.elapsed(), daemon.stderr());
    }
}

#[tokio::test]
async fn a_line_that_opens_and_is_cut_at_once_is_opened_ever_more_slowly() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_home, daemon) = daemon(&listener);
    for _ in 0..4 {
        let mut line = accept(&listener).await;
        send(&mut line, &json!({"type": "challenge", "session": "s", "nonce": "bm9uY2U="})).await;
        drop(line);
    }
    wait_until("the fourth cut is told", LIMIT, || {
        daemon.stderr().matches("the connection to the control plane was cut").count() == 4
    });
    let log = daemon.stderr();
    for window in
        ["retry_within_ms=1000", "retry_within_ms=2000", "retry_within_ms=4000", "retry_within_ms=8000"]
    {
        assert!(log.contains(window), "{window}: {log}");
    }
}

#[tokio::test]
async fn upgrades_that_are_swallowed_or_cut_without_a_frame_lead_to_long_polling() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (_home, daemon) = daemon(&listener);
    // Cut after the upgrade, cut before it, and answered with something else.
    drop(accept(&listener).await);
    drop(next(&listener).await);
    let mut stream = next(&listener).await;
    assert!(head(&mut stream).await.starts_with("GET /agent/v1 "));
    stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let mut stream = next(&listener).await;
    let request = head(&mut stream).await;
    assert!(request.starts_with("POST /agent/v1/poll "), "{request}\n{}", daemon.stderr());
    assert!(daemon.stderr().contains("long polling is tried next"), "{}", daemon.stderr());
}
