//! `sortie status` and the control socket that it asks: who may, what is told, and what broken clients come to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stand_ins::Fault;

use crate::support::agent::Agent;
use crate::support::binary::{Output, binary, isolate, sortie};
use crate::support::control_plane::ControlPlane;
use crate::support::process::{is_root, require, wait_until};
use crate::support::scene::Scene;

const LIMIT: Duration = Duration::from_secs(60);

fn socket(agent: &Agent) -> PathBuf {
    agent.directory().join("run/control.sock")
}

fn status(agent: &Agent) -> Output {
    sortie(["status", "--json", "--config", agent.config().to_str().unwrap()])
}

fn people(agent: &Agent) -> String {
    let output = sortie(["status", "--config", agent.config().to_str().unwrap()]);
    assert_eq!(output.status, Some(0), "{output:?}");
    output.stdout
}

/// Sends bytes and gives back the one line that is answered.
fn exchange(path: &Path, bytes: &[u8]) -> Value {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // The daemon may have said no before it has read all.
    let _ = stream.write_all(bytes);
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn the_status_tells_who_what_and_since_when() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").with_tags(&["dc:fra1"]).with_max_tasks(2).start(&control_plane);
    let before = status(&agent).json();
    assert_eq!(before["schema"], "sortie.status.v1");
    assert_eq!(before["agent"]["name"], "fra1-a");
    assert_eq!(before["agent"]["tags"], json!(["dc:fra1"]));
    assert_eq!(before["agent"]["id"], control_plane.agents()[0]["id"]);
    assert_eq!(before["control_plane"]["url"], control_plane.url());
    assert_eq!(before["slots"], json!({"total": 2, "used": 0}));
    assert_eq!((&before["mode"], &before["recent"]), (&json!("running"), &json!([])));
    wait_until("it is connected", LIMIT, || status(&agent).json()["control_plane"]["connected"] == true);

    scene.server().set_fault(Fault::Stall);
    let id = control_plane.post_task(&scene.test_task(json!({})));
    wait_until("the attempt is told", LIMIT, || status(&agent).json()["attempts"][0]["task"] == id.as_str());
    let during = status(&agent).json();
    let attempt = &during["attempts"][0];
    assert_eq!((&attempt["kind"], &attempt["target"]), (&json!("connection-test"), &json!(scene.url())));
    assert_eq!((&attempt["attempt"], &during["slots"]["used"]), (&json!(1), &json!(1)));
    assert!(attempt["stage"].is_string() && attempt["seconds"].is_number(), "{during:#}");
    assert!(people(&agent).contains(&id));

    control_plane.cancel_task(&id);
    control_plane.wait_task(&id, LIMIT);
    wait_until("the end is told", LIMIT, || status(&agent).json()["recent"][0]["task"] == id.as_str());
    let after = status(&agent).json();
    assert_eq!(
        (&after["recent"][0]["outcome"], &after["recent"][0]["diagnosis"]),
        (&json!("cancelled"), &json!("cancelled"))
    );
    assert_eq!(after["slots"]["used"], 0);
    let shown = people(&agent);
    for part in ["fra1-a", "dc:fra1", "connected for", "0 of 2 used", "ended lately", "cancelled"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn a_control_plane_that_is_gone_is_told_with_its_error_and_what_waits_for_it() {
    let scene = Scene::generated(2_000);
    let mut control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").start(&control_plane);
    scene.server().set_fault_at("git-upload-pack", Fault::PauseAfter { bytes: 20_000 });
    control_plane.post_task(&scene.clone_task(json!({})));
    scene.wait_for_request("the clone has begun", |request| request.path.ends_with("/git-upload-pack"));
    control_plane.kill();
    wait_until("it is told", LIMIT, || status(&agent).json()["control_plane"]["connected"] == false);
    let away = status(&agent).json();
    assert!(away["control_plane"]["last_error"]["message"].is_string(), "{away:#}");
    assert!(people(&agent).contains("not connected"));
    scene.server().clear_fault();
    wait_until("the result waits", LIMIT, || status(&agent).json()["results_waiting"] == 1);
    control_plane.restart();
    wait_until("it is acknowledged", LIMIT, || status(&agent).json()["results_waiting"] == 0);
    assert_eq!(status(&agent).json()["control_plane"]["connected"], true);
}

#[test]
fn a_pause_and_a_drain_are_told_apart() {
    let scene = Scene::generated(2_000);
    let control_plane = ControlPlane::start();
    let mut agent = scene.agent("fra1-a").start(&control_plane);
    let id = control_plane.agents()[0]["id"].as_str().unwrap().to_owned();
    control_plane.request(reqwest::Method::POST, &format!("/api/v1/agents/{id}/pause"), None);
    wait_until("the pause is told", LIMIT, || status(&agent).json()["mode"] == "paused");
    control_plane.request(reqwest::Method::POST, &format!("/api/v1/agents/{id}/resume"), None);
    wait_until("the end of it is told", LIMIT, || status(&agent).json()["mode"] == "running");
    scene.server().set_fault_at("git-upload-pack", Fault::PauseAfter { bytes: 20_000 });
    control_plane.post_task(&scene.clone_task(json!({})));
    scene.wait_for_request("the clone has begun", |request| request.path.ends_with("/git-upload-pack"));
    agent.terminate();
    wait_until("the drain is told", LIMIT, || status(&agent).json()["mode"] == "draining");
    scene.server().clear_fault();
    assert_eq!(agent.wait(LIMIT).and_then(|status| status.code()), Some(0));
    assert!(!socket(&agent).exists(), "the socket goes with the daemon");
}

#[test]
fn without_a_daemon_the_status_is_3_and_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("config.toml");
    let path = home.path().join("run/control.sock");
    std::fs::write(&config, format!("[agent]\ncontrol_socket = \"{}\"\n", path.display())).unwrap();
    let output = sortie(["status", "--config", config.to_str().unwrap()]);
    assert_eq!((output.status, output.stdout.as_str()), (Some(3), ""), "{output:?}");
    assert!(
        output.stderr.contains(path.to_str().unwrap()) && output.stderr.contains("systemctl start"),
        "{output:?}"
    );
    // A socket that nobody listens on is no daemon either.
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let output = sortie(["status", "--json", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status, Some(3), "{output:?}");
    assert!(output.json()["error"].is_string());
    let wrong = sortie(["status", "--config", "/nonexistent/config.toml"]);
    assert_eq!(wrong.status, Some(78), "{wrong:?}");
}

#[test]
fn a_daemon_that_was_killed_leaves_a_socket_that_the_next_one_replaces() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let mut agent = scene.agent("fra1-a").start(&control_plane);
    agent.kill();
    assert!(socket(&agent).exists());
    assert_eq!(status(&agent).status, Some(3));
    agent.restart();
    wait_until("the new one answers", LIMIT, || status(&agent).status == Some(0));
    let metadata = std::fs::metadata(socket(&agent)).unwrap();
    assert_eq!(metadata.mode() & 0o777, 0o660);
    assert_eq!(std::fs::metadata(socket(&agent).parent().unwrap()).unwrap().mode() & 0o777, 0o750);
}

#[test]
fn two_daemons_do_not_take_each_others_socket() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let first = scene.agent("fra1-a").start(&control_plane);
    let variable = socket(&first).display().to_string();
    let second =
        scene.agent("fra1-b").with_env("SORTIE__AGENT__CONTROL_SOCKET", &variable).start(&control_plane);
    assert!(second.log().contains("another daemon listens on"), "{}", second.log());
    assert_eq!(status(&first).json()["agent"]["name"], "fra1-a");
}

#[test]
fn broken_requests_get_an_answer_and_hold_nobody_up() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let mut agent = scene.agent("fra1-a").start(&control_plane);
    let path = socket(&agent);
    let code = |bytes: &[u8]| exchange(&path, bytes)["code"].as_str().unwrap_or_default().to_owned();
    assert_eq!(code(b"GET / HTTP/1.1\r\n\r\n"), "not_understood");
    assert_eq!(code(b"\xff\xfe\n"), "not_understood");
    assert_eq!(code(b"{\"version\":1,\"request\":\"dig\"}\n"), "not_understood");
    assert_eq!(code(b"{\"version\":2,\"request\":\"status\"}\n"), "version");
    let nested = [vec![b'['; 100_000], vec![b'\n']].concat();
    assert_eq!(code(&nested), "not_understood");
    assert_eq!(code(&vec![b'a'; 2 * 1024 * 1024]), "limit");

    // Clients that say nothing take their places, and are sent away when their time is over.
    let mut silent: Vec<_> = (0..8).map(|_| UnixStream::connect(&path).unwrap()).collect();
    wait_until("the places are taken", LIMIT, || {
        exchange(&path, b"{\"version\":1,\"request\":\"status\"}\n")["code"] == "busy"
    });
    let mut said = String::new();
    silent[0].read_to_string(&mut said).unwrap();
    assert!(said.contains("\"limit\""), "{said}");
    wait_until("a place is free again", LIMIT, || status(&agent).status == Some(0));

    let _waiting: Vec<_> = (0..4).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let begun = Instant::now();
    agent.terminate();
    assert_eq!(agent.wait(LIMIT).and_then(|status| status.code()), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(4), "clients held the daemon up: {:?}", begun.elapsed());
}

#[test]
fn users_who_are_neither_the_daemons_nor_in_its_group_are_refused() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").start(&control_plane);
    let path = socket(&agent);
    let set =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    if !is_root() {
        // One user alone cannot be another: what is left is a directory that he may not search.
        set(path.parent().unwrap(), 0o000);
        let denied = status(&agent);
        set(path.parent().unwrap(), 0o750);
        assert_eq!(denied.status, Some(3), "{denied:?}");
        assert!(denied.stderr.contains("may not use"), "{denied:?}");
        return;
    }
    set(agent.directory(), 0o755);
    set(agent.config(), 0o644);
    // The program may lie where nobody else may look.
    let program = agent.directory().join("sortie");
    std::fs::copy(binary("sortie"), &program).unwrap();
    set(&program, 0o755);
    let setpriv = require("setpriv", "util-linux");
    let ask = |groups: &str| {
        let mut command = Command::new(&setpriv);
        isolate(&mut command, agent.directory());
        command.args(["--reuid", "65534", "--regid", "65534", groups]).arg(&program);
        let output = command.args(["status", "--config"]).arg(agent.config()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let denied = |what: &str| {
        let (status, said) = ask("--clear-groups");
        assert!(
            status == Some(3) && said.contains("may not use") && said.contains("group"),
            "{what}: {said}"
        );
    };
    denied("the directory lets nobody else in");
    set(path.parent().unwrap(), 0o755);
    denied("the socket's mode lets nobody else in");
    assert_eq!(ask("--groups=0"), (Some(0), String::new()), "whoever is in the group is heard");
    // And if somebody opens the socket to all, the daemon still looks at who it is.
    set(&path, 0o666);
    let (refused, said) = ask("--clear-groups");
    assert!(refused == Some(1) && said.contains("neither the daemon's nor in its group"), "{said}");
    assert!(agent.log().contains("refused a user"), "{}", agent.log());
    assert_eq!(status(&agent).status, Some(0), "the daemon's own user is heard all the same");
}
