//! A canary: no secret shows anywhere but where it is used.

use std::num::NonZero;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use stand_ins::Fault;

use crate::screen::Terminal;
use crate::support::binary::sortie;
use crate::support::control_plane::ControlPlane;
use crate::support::process::write_private;
use crate::support::scene::{PAT, Scene};

/// The secret in the spellings in which it could leak.
fn spellings(secret: &str) -> Vec<String> {
    let encoded = |text: &str| BASE64.encode(text).trim_end_matches('=').to_owned();
    let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    vec![
        secret.to_owned(),
        encoded(secret),
        encoded(&format!(":{secret}")),
        encoded(&format!("git:{secret}")),
        percent,
    ]
}

pub(crate) fn assert_clean(what: &str, content: &[u8], secrets: &[&str]) {
    for secret in secrets {
        for spelling in spellings(secret) {
            let found = content.windows(spelling.len()).any(|window| window == spelling.as_bytes());
            assert!(!found, "{what} holds the secret as {spelling}");
        }
    }
}

fn assert_tree_is_clean(directory: &Path, secrets: &[&str]) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            assert_tree_is_clean(&path, secrets);
        } else if let Ok(content) = std::fs::read(&path) {
            assert_clean(&path.display().to_string(), &content, secrets);
        }
    }
}

#[test]
fn no_secret_reaches_what_a_person_or_a_ticket_gets_to_see() {
    let scene = Scene::small();
    let file = scene.scratch().join("pat");
    write_private(&file, PAT).unwrap();
    let ca_file = scene.authority.ca_file().display().to_string();
    let arguments = |form: &[&str]| {
        let url = scene.url().replace("https://", "https://ada@");
        let mut all = vec!["test".to_owned(), url];
        all.extend(["--provider", "gitlab", "--pat-file"].map(ToOwned::to_owned));
        all.extend([file.display().to_string(), "--ca-file".into(), ca_file.clone()]);
        all.extend(form.iter().map(ToString::to_string));
        all
    };
    let echo = format!("https://127.0.0.1:1/steal?token={PAT}");
    // A page that repeats the request, as pages for debugging and gateways do, cut at whatever place.
    let repeated = spellings(PAT).join(" and ");
    let repeating = |status, content_type| Fault::Words {
        status,
        content_type,
        body: format!(r#"{{"message": "private-token: {PAT}"}} authorization: Basic {repeated}"#),
    };
    let faults = [
        None,
        Some(Fault::SignInPage),
        Some(Fault::Redirect { status: 302, location: echo }),
        Some(repeating(400, "text/plain")),
        Some(repeating(403, "application/json")),
        Some(repeating(200, "text/html")),
    ];
    for fault in faults {
        scene.server().clear_fault();
        if let Some(fault) = fault {
            scene.server().set_fault(fault);
        }
        for form in [&[][..], &["--markdown"], &["--json"]] {
            let output = sortie(arguments(form));
            assert_clean("the output", format!("{}{}", output.stdout, output.stderr).as_bytes(), &[PAT]);
        }
        let mut terminal = Terminal::start(NonZero::new(100).unwrap(), scene.scratch(), &arguments(&[]));
        terminal.wait();
        assert_clean("the terminal", &terminal.everything(), &[PAT]);
    }
}

#[test]
fn no_secret_reaches_a_log_a_frame_the_database_a_workspace_or_argv() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let agent = scene.agent("fra1-a").with_toml("[log]\nlevel = \"trace\"\n").start(&control_plane);
    let enrollment = control_plane.enrollment_token(&[], 1);
    let secrets = [PAT, control_plane.token(), enrollment.as_str()];

    let mut answers = vec![control_plane.run_task(&scene.test_task(json!({})))];
    answers.push(control_plane.run_task(&scene.clone_task(json!({}))));
    for more in [
        json!({"deliver": "archive"}),
        json!({"deliver": "bundle"}),
        json!({"deliver": "files", "paths": ["README.md"]}),
        json!({"deliver": "none", "all_branches": true, "tags": true}),
    ] {
        let mut task = scene.clone_task(json!({}));
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        answers.push(control_plane.run_task(&task));
        assert_eq!(answers.last().unwrap()["outcome"], "succeeded", "{:#}", answers.last().unwrap());
    }
    for fault in [
        Fault::SignInPage,
        Fault::InvalidJson,
        Fault::ServerError(500),
        Fault::Redirect { status: 302, location: "https://127.0.0.1:1/steal".into() },
    ] {
        scene.server().set_fault(fault);
        answers.push(control_plane.run_task(&scene.test_task(json!({}))));
        answers.push(control_plane.run_task(&scene.clone_task(json!({}))));
    }
    assert_eq!(answers[0]["outcome"], "succeeded", "{:#}", answers[0]);
    for answer in &answers {
        assert_clean("a result", answer.to_string().as_bytes(), &secrets);
    }
    assert_clean("the agent's log", agent.log().as_bytes(), &secrets);
    assert_clean("the control plane's log", control_plane.log().as_bytes(), &secrets);
    for suffix in ["", "-wal", "-shm"] {
        let file = format!("{}{suffix}", control_plane.database().display());
        assert_clean("the database", &std::fs::read(file).unwrap_or_default(), &secrets);
    }
    assert_tree_is_clean(&agent.directory().join("state"), &secrets);
    assert_tree_is_clean(&control_plane.artifacts(), &secrets);
    for file in ["cmdline", "environ"] {
        let content = std::fs::read(format!("/proc/{}/{file}", agent.id())).unwrap();
        assert_clean(file, &content, &secrets);
    }
}
