//! The main job: tasks go out to agents, and their results come back and are kept, whatever is cut off.

use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use stand_ins::Fault;

use crate::support::binary::binary;
use crate::support::control_plane::{ControlPlane, secret_file};
use crate::support::process::{command_line, wait_until};
use crate::support::proxy::Proxy;
use crate::support::scene::Scene;

const LIMIT: Duration = Duration::from_secs(60);

fn code(task: &Value) -> &str {
    task["result"]["diagnosis"]["code"].as_str().unwrap_or_default()
}

fn entries(directory: &std::path::Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}

#[test]
fn a_task_goes_to_the_agent_with_its_tags_and_its_report_is_kept() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let _other = scene.agent("muc1-a").with_tags(&["dc:muc1"]).start(&control_plane);
    let _agent = scene.agent("fra1-a").with_tags(&["dc:fra1"]).start(&control_plane);
    for (selector, agent) in [
        (json!({"all": ["dc:fra1"]}), "fra1-a"),
        (json!({"all": ["name:muc1-a", "os:linux"]}), "muc1-a"),
        (json!({"any": ["dc:fra1", "dc:muc1"], "none": ["dc:fra1"]}), "muc1-a"),
    ] {
        let task = control_plane.run_task(&scene.test_task(selector));
        assert_eq!(task["outcome"], "succeeded", "{task:#}");
        assert_eq!(task["attempts"][0]["agent"], agent, "{task:#}");
        assert_eq!(task["result"]["schema"], "sortie.report.v1");
        assert_eq!(task["result"]["repository"]["head"], scene.sample.commit("main"));
    }
}

#[test]
fn a_clone_lands_in_the_agents_workspaces() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").start(&control_plane);
    let task = control_plane.run_task(&scene.clone_task(json!({})));
    assert_eq!(task["outcome"], "succeeded", "{task:#}");
    assert_eq!(task["result"]["commit"], scene.sample.commit("main"));
    let path = std::path::PathBuf::from(task["result"]["path"].as_str().unwrap());
    assert!(path.starts_with(agent.directory().join("state/workspaces")) && path.join(".git").is_dir());
}

#[test]
fn a_clone_of_some_depth_asks_for_its_pack_once() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let _agent = scene.agent("fra1-a").with_toml("[mirrors]\nenabled = false\n").start(&control_plane);
    let mut task = scene.clone_task(json!({}));
    task["depth"] = 1.into();
    let done = control_plane.run_task(&task);
    assert_eq!(done["outcome"], "succeeded", "{done:#}");
    assert_eq!(done["result"]["commit"], scene.sample.commit("main"));
    assert_eq!(scene.packs_asked(), 1, "where the history is cut is told in the same answer");
}

#[test]
fn references_files_and_comparisons_come_back_without_a_clone() {
    let scene = Scene::small();
    scene.sample.vary();
    let control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").start(&control_plane);
    let (main, feature) = (scene.sample.commit("main"), scene.sample.commit("feature"));
    let task = |more: Value| {
        let mut task = json!({"url": scene.url(), "selector": {"all": ["name:fra1-a"]}});
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        task
    };
    let list = task(json!({"kind": "references", "patterns": ["refs/merge-requests/*"], "limit": 1}));
    let done = control_plane.run_task(&list);
    assert_eq!(done["outcome"], "succeeded", "{done:#}");
    let expected = json!([{"name": "refs/merge-requests/3/head", "target": feature, "peeled": null}]);
    assert_eq!(
        (&done["result"]["schema"], &done["result"]["references"]),
        (&"sortie.references.v1".into(), &expected)
    );
    let compare = task(json!({"kind": "compare", "reference": "main", "commit": feature}));
    let done = control_plane.run_task(&compare);
    assert_eq!((&done["result"]["state"], &done["result"]["head"]), (&"moved".into(), &main.as_str().into()));
    let files =
        task(json!({"kind": "files", "reference": "main", "paths": ["bin/start.sh", "outside", "nope"]}));
    let done = submit(&control_plane, scene.scratch(), &files);
    let content = |place: usize| done["result"]["files"][place]["content"].as_str().unwrap();
    assert_eq!((content(0), content(1)), ("#!/bin/sh\nexec true\n", "../../etc/passwd"), "{done:#}");
    assert_eq!((&done["result"]["source"], &done["result"]["missing"]), (&"api".into(), &json!(["nope"])));
    assert_eq!(entries(&agent.directory().join("state/workspaces")), 0);
    let listed = control_plane.request(Method::GET, "/api/v1/tasks?kind=files", None);
    assert_eq!(listed.body["tasks"].as_array().map(Vec::len), Some(1), "{listed:?}");
    let odd = control_plane.request(Method::POST, "/api/v1/tasks", Some(&task(json!({"kind": "compare"}))));
    assert_eq!((odd.status, &odd.body["detail"]), (422, &"`commit` is missing".into()), "{odd:?}");
}

/// Submits a task as an operator does, waits, and reads what is printed.
fn submit(control_plane: &ControlPlane, directory: &std::path::Path, task: &Value) -> Value {
    let file = directory.join("task.json");
    std::fs::write(&file, task.to_string()).unwrap();
    let token = secret_file(directory, "submit-token", control_plane.token());
    let mut command = Command::new(binary("sortie-control"));
    command.args(["task", "submit", "--wait", "--url", &control_plane.url(), "--file"]).arg(file);
    serde_json::from_str(&command_line(command.arg("--token-file").arg(token))).unwrap()
}

#[test]
fn policy_has_the_last_word_before_any_socket() {
    let scene = Scene::small();
    let undeclared = Scene::small();
    let control_plane = ControlPlane::start();
    let _agent = scene.agent("fra1-a").start(&control_plane);
    let task = control_plane.run_task(&undeclared.test_task(json!({})));
    assert_eq!((task["outcome"].as_str(), code(&task)), (Some("refused"), "server_not_declared"), "{task:#}");
    assert_eq!(undeclared.server().connections(), 0);
    let with_credential = json!({"kind": "connection-test", "url": scene.url(), "credential": "root"});
    let task = control_plane.run_task(&with_credential);
    assert_eq!(task["outcome"], "refused", "{task:#}");
    assert_eq!(scene.server().connections(), 0);
}

#[test]
fn a_control_plane_that_is_killed_in_the_middle_of_a_clone_gets_the_result_once() {
    let scene = Scene::generated(5_000);
    let mut control_plane = ControlPlane::start();
    let _agent = scene.agent("fra1-a").start(&control_plane);
    let id = scene.begin_clone(&control_plane);
    control_plane.kill();
    scene.server().clear_fault();
    control_plane.restart();
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!(task["outcome"], "succeeded", "{task:#}");
    assert_eq!(task["attempts"].as_array().unwrap().len(), 1, "{task:#}");
    assert_eq!(scene.packs_asked(), 1, "the work is done once");
}

#[test]
fn a_result_waits_for_a_control_plane_that_is_away() {
    let scene = Scene::generated(5_000);
    let mut control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").start(&control_plane);
    let id = scene.begin_clone(&control_plane);
    control_plane.kill();
    scene.server().clear_fault();
    wait_until("the attempt has ended", LIMIT, || agent.log().contains("an attempt has ended"));
    control_plane.restart();
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!(task["outcome"], "succeeded", "{task:#}");
    assert_eq!(task["attempts"].as_array().unwrap().len(), 1, "{task:#}");
}

#[test]
fn a_workspace_that_nobody_was_told_of_is_gone_after_a_restart() {
    let scene = Scene::generated(5_000);
    let control_plane = ControlPlane::start();
    let mut agent = scene.agent("fra1-a").start(&control_plane);
    let id = scene.begin_clone(&control_plane);
    agent.kill();
    // As if it had come as far as the note, and no further.
    let workspaces = agent.directory().join("state/workspaces");
    let (name, now) = (format!("{id}-1"), time::OffsetDateTime::now_utc());
    std::fs::create_dir_all(workspaces.join(&name).join(".git")).unwrap();
    let note = sortie::workspace::Workspace {
        name: name.clone(),
        url: scene.url(),
        commit: scene.sample.commit("main"),
        bytes: 1,
        created_at: now,
        expires_at: now + Duration::from_secs(3600),
    };
    std::fs::write(workspaces.join(format!("{name}.json")), serde_json::to_vec(&note).unwrap()).unwrap();
    scene.server().clear_fault();
    agent.restart();
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!(task["outcome"], "succeeded", "{task:#}");
    wait_until("what does not count is gone", LIMIT, || entries(&workspaces) == 2);
    assert!(workspaces.join(format!("{id}-2/.git")).is_dir(), "{task:#}");
}

#[test]
fn cancel_stops_a_clone_and_nothing_is_left_behind() {
    let scene = Scene::generated(5_000);
    let control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").start(&control_plane);
    let id = scene.begin_clone(&control_plane);
    control_plane.cancel_task(&id);
    let task = control_plane.wait_task(&id, LIMIT);
    assert_eq!((task["outcome"].as_str(), code(&task)), (Some("cancelled"), "cancelled"), "{task:#}");
    assert_eq!(entries(&agent.directory().join("state/workspaces")), 0);
}

#[test]
fn an_attempt_ends_at_its_deadline() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let _agent = scene.agent("fra1-a").start(&control_plane);
    scene.server().set_fault(Fault::Stall);
    let task = json!({"kind": "connection-test", "url": scene.url(), "run_seconds": 1});
    let task = control_plane.run_task(&task);
    assert_eq!((task["outcome"].as_str(), code(&task)), (Some("failed"), "deadline_exceeded"), "{task:#}");
}

#[test]
fn sigterm_drains_and_a_second_one_stops() {
    let scene = Scene::generated(5_000);
    let control_plane = ControlPlane::start();
    let mut agent = scene.agent("fra1-a").with_toml("[mirrors]\nenabled = false\n").start(&control_plane);
    let id = scene.begin_clone(&control_plane);
    agent.terminate();
    wait_until("the agent drains", LIMIT, || agent.log().contains("draining"));
    scene.server().clear_fault();
    assert_eq!(agent.wait(LIMIT).and_then(|status| status.code()), Some(0));
    assert_eq!(control_plane.wait_task(&id, LIMIT)["outcome"], "succeeded");

    agent.restart();
    agent.wait_until_connected(&control_plane);
    let id = scene.begin_clone(&control_plane);
    agent.terminate();
    wait_until("the agent drains", LIMIT, || agent.log().contains("draining"));
    agent.terminate();
    assert_eq!(agent.wait(LIMIT).and_then(|status| status.code()), Some(0));
    let task = control_plane.task(&id);
    assert_eq!(task["attempts"][0]["outcome"], "cancelled", "its end was told: {task:#}");
    assert_eq!(task["state"], "queued", "it waits for another agent");
    assert_eq!(entries(&agent.directory().join("state/workspaces")), 2, "the finished clone and its note");
}

#[test]
fn sigusr1_pauses_and_sigusr2_resumes() {
    let scene = Scene::generated(5_000);
    let control_plane = ControlPlane::start();
    let mut agent = scene.agent("fra1-a").start(&control_plane);
    let running = scene.begin_clone(&control_plane);
    agent.signal("USR1");
    wait_until("the agent pauses", LIMIT, || agent.log().contains("no new tasks are taken"));
    scene.server().clear_fault();
    assert_eq!(control_plane.wait_task(&running, LIMIT)["outcome"], "succeeded", "what runs goes on");
    let waiting = control_plane.post_task(&scene.test_task(json!({})));
    assert_eq!(control_plane.task(&waiting)["state"], "queued");
    assert_eq!(agent.wait(Duration::ZERO), None);
    agent.signal("USR2");
    assert_eq!(control_plane.wait_task(&waiting, LIMIT)["outcome"], "succeeded");
    agent.signal("USR1");
    agent.terminate();
    assert_eq!(
        agent.wait(LIMIT).and_then(|status| status.code()),
        Some(0),
        "a pause keeps nobody from ending"
    );
}

#[test]
fn a_container_enrolls_by_itself_and_unenroll_undoes_it() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let plan = scene.agent("fra1-a");
    let token = control_plane.enrollment_token(&["from-token"], 1);
    let file = secret_file(plan.directory(), "token", &token);
    let plan = plan.with_control_plane(&format!("enrollment_token = {{ file = \"{}\" }}", file.display()));
    let config = plan.write_config(&control_plane.url());

    let sortie = crate::support::binary::Sortie::new();
    let config = config.to_str().unwrap();
    let mut daemon = sortie.start(["run", "--config", config]);
    let task = control_plane.run_task(&scene.test_task(json!({"all": ["from-token"]})));
    assert_eq!(task["outcome"], "succeeded", "{task:#}");
    let second = crate::support::binary::sortie(["run", "--config", config]);
    assert_eq!(second.status, Some(78), "{second:?}");
    assert!(second.stderr.contains("another daemon uses the state directory"), "{second:?}");
    daemon.terminate();
    daemon.wait(LIMIT).expect("it ends");

    let released = sortie.run(["unenroll", "--config", config]);
    assert_eq!(released.status, Some(0), "{released:?}");
    let again = sortie.run(["run", "--config", config]);
    assert_eq!(again.status, Some(78), "the token was for one use: {again:?}");
}

#[test]
fn a_revoked_agent_is_told_so_and_stays_up() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let mut agent = scene.agent("fra1-a").start(&control_plane);
    let id = control_plane.agents()[0]["id"].as_str().unwrap().to_owned();
    let answer = control_plane.request(Method::DELETE, &format!("/api/v1/agents/{id}"), None);
    assert!((200..300).contains(&answer.status), "{answer:?}");
    wait_until("the agent knows", LIMIT, || agent.log().contains("refuses this agent's identity"));
    assert_eq!(agent.wait(Duration::ZERO), None);
}

#[test]
fn the_way_to_the_control_plane_leads_through_a_proxy_and_tls() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start_with_tls(&scene.authority);
    let proxy = Proxy::start("ada", "proxy-canary");
    let plan = scene.agent("fra1-a");
    let file = secret_file(plan.directory(), "proxy-auth", &proxy.credential());
    let keys = format!(
        "ca_file = \"{}\"\nproxy = \"{}\"\nproxy_auth = {{ file = \"{}\" }}",
        scene.authority.ca_file().display(),
        proxy.url(),
        file.display()
    );
    let agent = plan.with_control_plane(&keys).start(&control_plane);
    let task = control_plane.run_task(&scene.test_task(json!({})));
    assert_eq!(task["outcome"], "succeeded", "{task:#}");
    let target = control_plane.url().replace("https://", "");
    assert!(proxy.tunnels().contains(&target), "{:?}", proxy.tunnels());
    assert!(!agent.log().contains("proxy-canary"));
}

#[test]
fn a_drain_by_the_control_plane_ends_when_it_says_so() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let _agent = scene.agent("fra1-a").start(&control_plane);
    let id = control_plane.agents()[0]["id"].as_str().unwrap().to_owned();
    let say = |word: &str| {
        let answer = control_plane.request(Method::POST, &format!("/api/v1/agents/{id}/{word}"), None);
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    say("drain");
    let waiting = control_plane.post_task(&scene.test_task(json!({})));
    let explained = control_plane.request(Method::GET, &format!("/api/v1/tasks/{waiting}/explain"), None);
    assert_eq!(explained.body["agents"][0]["eligible"], false, "{explained:?}");
    say("resume");
    assert_eq!(control_plane.wait_task(&waiting, LIMIT)["outcome"], "succeeded");
}
