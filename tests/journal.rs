//! What an agent that is killed finds again, and what it tells of what it lost.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::clone::{assert_whole, entries};
use crate::support::agent::Agent;
use crate::support::control_plane::ControlPlane;
use crate::support::process::wait_until;
use crate::support::scene::Scene;

const LIMIT: Duration = Duration::from_secs(60);

fn attempts(task: &Value) -> &Vec<Value> {
    task["attempts"].as_array().unwrap()
}

/// A clone into a directory of the operator's, whose agent is killed once it is there and before its result is in the
/// journal: somebody else has the journal's file, and nobody hears of the result.
fn delivered_and_killed(
    scene: &Scene,
    control_plane: &mut ControlPlane,
    agent: &mut Agent,
    place: &Path,
) -> String {
    let mut task = scene.clone_task(json!({}));
    task["directory"] = json!(place);
    let id = scene.begin_task(control_plane, &task);
    control_plane.kill();
    let holder = hold_journal(agent);
    scene.server().clear_fault();
    wait_until("the attempt has ended", LIMIT, || agent.log().contains("an attempt has ended"));
    agent.kill();
    drop(holder);
    id
}

/// Takes the journal's file, so that nobody else can write it.
fn hold_journal(agent: &Agent) -> rusqlite::Connection {
    let holder = rusqlite::Connection::open(agent.directory().join("state/journal.db")).unwrap();
    holder.busy_timeout(LIMIT).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    holder
}

/// A clone that has ended while its control plane was away, and whose agent was killed then.
fn ended_unheard(scene: &Scene, control_plane: &mut ControlPlane, agent: &mut Agent) -> String {
    let id = scene.begin_clone(control_plane);
    control_plane.kill();
    scene.server().clear_fault();
    wait_until("the attempt has ended", LIMIT, || agent.log().contains("an attempt has ended"));
    agent.kill();
    id
}

#[test]
fn a_result_outlives_an_agent_that_is_killed_before_anybody_heard_it() {
    let scene = Scene::generated(5_000);
    let mut control_plane = ControlPlane::start();
    let mut agent = scene.agent("fra1-a").start(&control_plane);
    let id = ended_unheard(&scene, &mut control_plane, &mut agent);
    control_plane.restart();
    agent.restart();
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!(task["outcome"], "succeeded", "{task:#}");
    assert_eq!(attempts(&task).len(), 1, "{task:#}");
    assert_eq!(scene.packs_asked(), 1, "the stored result comes back, and the server is asked once");
    wait_until("the result is acknowledged", LIMIT, || {
        let status = crate::support::binary::sortie([
            "status",
            "--json",
            "--config",
            agent.config().to_str().unwrap(),
        ]);
        serde_json::from_str::<Value>(&status.stdout).is_ok_and(|status| status["results_waiting"] == 0)
    });
}

#[test]
fn an_attempt_that_a_killed_agent_ran_is_told_as_lost_and_done_again() {
    let scene = Scene::generated(5_000);
    let control_plane = ControlPlane::start();
    let mut agent = scene.agent("fra1-a").start(&control_plane);
    let id = scene.begin_clone(&control_plane);
    agent.kill();
    scene.server().clear_fault();
    agent.restart();
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!(task["outcome"], "succeeded", "{task:#}");
    let [lost, done] = attempts(&task).as_slice() else { panic!("{task:#}") };
    assert_eq!((&lost["outcome"], &done["outcome"]), (&"expired".into(), &"succeeded".into()), "{task:#}");
    assert_eq!(lost["reason"], "fra1-a lost it: the agent was restarted while the attempt ran", "{task:#}");
}

#[test]
fn what_a_killed_agent_put_into_a_directory_makes_room_for_the_next_attempt() {
    let allowed = tempfile::tempdir().unwrap();
    let scene = Scene::generated(5_000);
    let mut control_plane = ControlPlane::start();
    let table = format!("[workspaces]\ndirectories = [\"{}\"]\n", allowed.path().display());
    let mut agent = scene.agent("fra1-a").with_toml(&table).start(&control_plane);
    let place = allowed.path().join("builds/web");
    let id = delivered_and_killed(&scene, &mut control_plane, &mut agent, &place);
    let first = fs::metadata(place.join(".git")).unwrap().ino();
    control_plane.restart();
    agent.restart();
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!(task["outcome"], "succeeded", "{task:#}");
    assert_eq!(attempts(&task).len(), 2, "{task:#}");
    assert_whole(&place);
    assert_ne!(fs::metadata(place.join(".git")).unwrap().ino(), first, "it is another clone");
    assert_eq!(entries(&allowed.path().join("builds")), ["web"], "nothing else is left there");
    wait_until("nothing is noted any more", LIMIT, || {
        entries(&agent.directory().join("state/placed")).is_empty()
    });
}

#[test]
fn what_somebody_has_changed_in_a_directory_stays() {
    let allowed = tempfile::tempdir().unwrap();
    let scene = Scene::generated(5_000);
    let mut control_plane = ControlPlane::start();
    let table = format!("[workspaces]\ndirectories = [\"{}\"]\n", allowed.path().display());
    let mut agent = scene.agent("fra1-a").with_toml(&table).start(&control_plane);
    let place = allowed.path().join("web");
    let id = delivered_and_killed(&scene, &mut control_plane, &mut agent, &place);
    fs::write(place.join("notes.txt"), "mine").unwrap();
    control_plane.restart();
    agent.restart();
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!(task["result"]["diagnosis"]["code"], "target_not_empty", "{task:#}");
    assert_eq!(fs::read_to_string(place.join("notes.txt")).unwrap(), "mine");
    assert_eq!(attempts(&task).len(), 2, "{task:#}");
    assert!(agent.log().contains("it was changed since"), "{}", agent.log());
    assert_eq!(entries(allowed.path()), ["web"]);
}

#[test]
fn what_a_killed_agent_had_begun_in_a_directory_goes_before_the_next_attempt() {
    let allowed = tempfile::tempdir().unwrap();
    let scene = Scene::generated(5_000);
    let control_plane = ControlPlane::start();
    let table = format!("[workspaces]\ndirectories = [\"{}\"]\n", allowed.path().display());
    let mut agent = scene.agent("fra1-a").with_toml(&table).start(&control_plane);
    let place = allowed.path().join("builds/web");
    let mut task = scene.clone_task(json!({}));
    task["directory"] = json!(place);
    task["max_attempts"] = 1.into();
    let id = scene.begin_task(&control_plane, &task);
    agent.kill();
    assert_eq!(entries(&allowed.path().join("builds")).len(), 1, "it grows beside its place");
    scene.server().clear_fault();
    agent.restart();
    assert_eq!(control_plane.wait_task(&id, LIMIT)["outcome"], "dead");
    wait_until("nothing is left", LIMIT, || entries(allowed.path()).is_empty());
}

#[test]
fn a_task_that_allows_one_attempt_is_dead_when_its_agent_was_killed() {
    let scene = Scene::generated(5_000);
    let control_plane = ControlPlane::start();
    let mut agent = scene.agent("fra1-a").start(&control_plane);
    let mut task = scene.clone_task(json!({}));
    task["max_attempts"] = 1.into();
    let id = scene.begin_task(&control_plane, &task);
    agent.kill();
    scene.server().clear_fault();
    agent.restart();
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!((task["outcome"].as_str(), attempts(&task).len()), (Some("dead"), 1), "{task:#}");
    let reason = task["reason"].as_str().unwrap();
    assert!(reason.contains("the agent was restarted"), "{reason}");
}

#[test]
fn a_damaged_journal_is_set_aside_and_the_daemon_works() {
    let scene = Scene::generated(5_000);
    let mut control_plane = ControlPlane::start();
    let mut agent = scene.agent("fra1-a").start(&control_plane);
    let id = ended_unheard(&scene, &mut control_plane, &mut agent);
    let state = agent.directory().join("state");
    for name in ["journal.db", "journal.db-wal"] {
        let file = state.join(name);
        let size = fs::metadata(&file).map_or(0, |facts| facts.len());
        let noise = b"not what it was ".repeat(usize::try_from(size).unwrap() / 16 + 1);
        fs::write(file, noise).unwrap();
    }
    control_plane.restart();
    agent.restart();
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!(task["outcome"], "succeeded", "it is done again: {task:#}");
    assert_eq!(attempts(&task).len(), 2, "{task:#}");
    assert!(agent.log().contains("the journal is damaged and was set aside"), "{}", agent.log());
    let names = fs::read_dir(state).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("journal.db.damaged-")), "{names:?}");
}

#[test]
fn a_journal_that_somebody_holds_is_waited_for() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let mut agent = scene.agent("fra1-a").start(&control_plane);
    agent.kill();
    let holder = rusqlite::Connection::open(agent.directory().join("state/journal.db")).unwrap();
    holder.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE;").unwrap();
    agent.restart();
    wait_until("the agent says what it waits for", LIMIT, || {
        agent.log().contains("another program holds it")
    });
    assert_eq!(agent.wait(Duration::ZERO), None, "it is up");
    drop(holder);
    agent.wait_until_connected(&control_plane);
    assert_eq!(control_plane.run_task(&scene.test_task(json!({})))["outcome"], "succeeded");
}
