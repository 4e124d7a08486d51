//! The command line as people and programs meet it: output, exit status, bad usage.

use serde_json::Value;
use stand_ins::Fault;

use crate::support::binary::{Sortie, sortie};
use crate::support::process::{wait_until, write_private};
use crate::support::repository::{git, run_git};
use crate::support::scene::{PAT, Scene};

fn access<'a>(scene: &'a Scene, pat: &'a str) -> Vec<String> {
    let file = scene.scratch().join("pat");
    write_private(&file, &format!("{pat}\n")).unwrap();
    let ca = scene.authority.ca_file().display().to_string();
    ["--provider", "gitlab", "--pat-file", file.to_str().unwrap(), "--ca-file", &ca]
        .map(ToOwned::to_owned)
        .to_vec()
}

fn with(first: &[&str], more: &[String]) -> Vec<String> {
    first.iter().map(ToString::to_string).chain(more.iter().cloned()).collect()
}

#[test]
fn a_repository_to_read_stands_beside_the_url_of_a_group() {
    let scene = Scene::small();
    let url = format!("{}/shop", scene.server().url());
    let output = sortie(with(&["test", &url, "--repository", "web", "--json"], &access(&scene, PAT)));
    assert_eq!(output.status, Some(0), "{output:?}");
    let report = output.json();
    assert_eq!(report["target"]["scope"], "account");
    assert!(report["repository"]["references"].as_u64().unwrap() > 0, "{report:#}");
    let clone = sortie(with(&["clone", &url, "web", "--repository", "web"], &access(&scene, PAT)));
    assert_eq!(clone.status, Some(2), "{clone:?}");
}

#[test]
fn a_good_test_prints_the_pinned_report_and_exits_with_0() {
    let scene = Scene::small();
    let url = scene.url();
    let output = sortie(with(&["test", &url, "--json"], &access(&scene, PAT)));
    assert_eq!(output.status, Some(0), "{output:?}");
    let report = output.json();
    let keys: Vec<&String> = report.as_object().unwrap().keys().collect();
    let mut pinned = vec![
        "schema",
        "started_at",
        "duration_ms",
        "outcome",
        "target",
        "server",
        "identity",
        "credential",
        "capabilities",
        "repository",
        "stages",
        "warnings",
        "diagnosis",
    ];
    pinned.sort_unstable();
    assert_eq!(keys, pinned);
    assert_eq!(
        (report["schema"].as_str(), report["outcome"].as_str()),
        (Some("sortie.report.v1"), Some("succeeded"))
    );
    assert_eq!(report["diagnosis"], Value::Null);
    assert_eq!(report["target"]["scope"], "repository");
    let stages: Vec<_> =
        report["stages"].as_array().unwrap().iter().map(|s| s["stage"].as_str().unwrap()).collect();
    assert_eq!(
        stages,
        [
            "policy",
            "resolve",
            "connect",
            "tls",
            "identify",
            "authenticate",
            "authorize",
            "repository",
            "references"
        ]
    );
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn people_get_a_table_with_the_diagnosis_last() {
    let scene = Scene::small();
    let url = scene.url();
    let good = sortie(with(&["test", &url], &access(&scene, PAT)));
    assert!(
        good.stdout.contains("references")
            && good.stdout.trim_end().lines().last().unwrap().starts_with("succeeded")
    );
    let bad = sortie(with(&["test", &url], &access(&scene, "wrong")));
    assert_eq!(bad.status, Some(1), "{bad:?}");
    let diagnosis = bad.stdout.lines().position(|line| line.starts_with("failed")).expect("a diagnosis");
    assert!(bad.stdout.contains("pat_rejected (authenticate)"), "{}", bad.stdout);
    assert!(bad.stdout.lines().skip(diagnosis).any(|line| line.starts_with("  - ")), "{}", bad.stdout);
    assert!(!bad.stdout.contains('\u{1b}') && !bad.stdout.contains("wrong"));
}

#[test]
fn a_ticket_has_the_diagnosis_and_all_facts() {
    let scene = Scene::small();
    let url = scene.url();
    let good = sortie(with(&["test", &url, "--markdown"], &access(&scene, PAT)));
    assert_eq!(good.status, Some(0), "{good:?}");
    assert!(good.stdout.starts_with("## Connection test succeeded\n") && good.stdout.contains("<details>"));
    let bad = sortie(with(&["test", &url, "--markdown"], &access(&scene, "wrong")));
    assert_eq!(bad.status, Some(1), "{bad:?}");
    assert!(bad.stdout.contains("### Diagnosis: `pat_rejected` at `authenticate`"), "{}", bad.stdout);
    assert!(bad.stdout.contains("| tls | `issuer` |"), "{}", bad.stdout);
    let both = sortie(with(&["test", &url, "--markdown", "--json"], &access(&scene, PAT)));
    assert_eq!((both.status, both.stdout.as_str()), (Some(2), ""), "{both:?}");
}

#[test]
fn the_table_keeps_to_the_screen_that_the_environment_tells() {
    let scene = Scene::small();
    let url = scene.url();
    let arguments = with(&["test", &url], &access(&scene, "wrong"));
    let plain = Sortie::new().env("LC_ALL", "C").env("COLUMNS", "50").run(&arguments);
    assert!(plain.stdout.is_ascii() && plain.stdout.contains("\nx authenticate"), "{}", plain.stdout);
    let too_long = |line: &&str| line.chars().count() > 50 && line.trim().contains(' ');
    let long: Vec<_> = plain.stdout.lines().filter(too_long).collect();
    assert!(long.iter().all(|line| line.contains("https://") || line.contains("SHA256")), "{long:?}");
    let dumb = Sortie::new().env("TERM", "dumb").run(&arguments);
    assert!(dumb.stdout.contains("\nx authenticate"), "{}", dumb.stdout);
    let wide = Sortie::new().env("COLUMNS", "400").run(&arguments);
    assert!(wide.stdout.lines().all(|line| line.chars().count() <= 120), "{}", wide.stdout);
}

#[test]
fn a_clone_is_what_git_calls_clean() {
    let scene = Scene::small();
    let sortie = Sortie::new();
    let url = scene.url();
    let output = sortie.run(with(&["clone", &url, "new/parent/web", "--json"], &access(&scene, PAT)));
    assert_eq!(output.status, Some(0), "{output:?}");
    let clone = output.json();
    assert_eq!(
        (clone["schema"].as_str(), clone["source"].as_str()),
        (Some("sortie.clone.v1"), Some("origin"))
    );
    assert_eq!(
        (clone["commit"].as_str(), clone["reference"].as_str()),
        (Some(scene.sample.commit("main").as_str()), Some("refs/heads/main"))
    );
    let directory = sortie.home().join("new/parent/web");
    assert_eq!(run_git(&directory, ["status", "--porcelain"]), "");
    assert!(git().current_dir(&directory).args(["fsck", "--strict"]).status().unwrap().success());
    let again = sortie.run(with(&["clone", &url, "new/parent/web", "--json"], &access(&scene, PAT)));
    assert_eq!((again.status, again.diagnosis().as_str()), (Some(1), "target_not_empty"));
}

#[test]
fn ctrl_c_cancels_cleans_up_and_exits_with_130() {
    let scene = Scene::generated(5_000);
    let sortie = Sortie::new();
    let url = scene.url();
    scene.server().set_fault_at("git-upload-pack", Fault::PauseAfter { bytes: 100_000 });
    let mut clone = sortie.start(with(&["clone", &url, "web", "--json"], &access(&scene, PAT)));
    scene.wait_for_request("the clone has begun", |request| request.path.ends_with("git-upload-pack"));
    let listed = || std::fs::read_dir(sortie.home()).unwrap().count();
    wait_until("the clone writes", std::time::Duration::from_secs(30), || listed() > 0);
    clone.interrupt();
    let status = clone.wait(std::time::Duration::from_secs(30)).expect("it ends");
    assert_eq!(status.code(), Some(130), "{}", clone.tail());
    assert_eq!(listed(), 0, "nothing is left behind");
    let report: Value = serde_json::from_str(&clone.stdout()).unwrap();
    assert_eq!(report["diagnosis"]["code"], "cancelled");
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in [
        &["test"][..],
        &["test", "https://a.example/x", "--server", "lab"],
        &["test", "https://a.example/x", "--pat-file", "a", "--bearer-file", "b"],
        &["test", "https://a.example/x", "--password-file", "a"],
        &["test", "https://a.example/x", "--provider", "svn"],
        &["test", "https://a.example/x", "--deadline", "0"],
        &["test", "https://a.example/x", "--deadline", "inf"],
        &["test", "https://a.example/x", "--proxy-auth-file", "a"],
        &["test", "https://a.example/x", "--proxy", "https://user:pass@proxy.example"],
        &["test", "https://a.example/x", "--project", "p"],
        &["clone", "https://a.example/x"],
        &["clone", "https://a.example/x", "dir", "--depth", "0"],
        &["fly"],
    ] {
        let output = sortie(arguments);
        assert_eq!(output.status, Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.contains("user:pass"), "{output:?}");
    }
}

#[test]
fn the_configuration_is_judged_and_shown() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.toml");
    std::fs::write(&file, include_str!("../config.example.toml")).unwrap();
    let path = file.to_str().unwrap();
    let good = sortie(["config", "check", "--config", path]);
    assert_eq!((good.status, good.stdout.as_str()), (Some(0), "The configuration is valid.\n"));
    let shown = sortie(["config", "show", "--config", path, "--json"]).json();
    assert_eq!(shown["credentials"]["ado_pat"]["secret"], serde_json::json!({"systemd": "ado-pat"}));
    std::fs::write(&file, "[agent]\nnmae = \"x\"\n").unwrap();
    let bad = sortie(["config", "check", "--config", path]);
    assert_eq!(bad.status, Some(78));
    let expected = format!("sortie: {path}: `agent.nmae` is not a key; is `name` meant?\n");
    assert_eq!(bad.stderr, expected);
    let missing = sortie(["config", "check", "--config", "/nonexistent/config.toml"]);
    assert_eq!(missing.status, Some(78), "{missing:?}");
}

#[test]
fn a_daemon_that_cannot_start_says_why_and_exits_with_78() {
    let home = tempfile::tempdir().unwrap();
    let config = |text: &str| {
        let file = home.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        let output = sortie(["run", "--config", file.to_str().unwrap()]);
        assert_eq!(output.status, Some(78), "{output:?}");
        output.stderr
    };
    let state = home.path().join("state");
    let agent = format!("[agent]\nstate_dir = \"{}\"\n", state.display());
    assert!(config(&agent).contains("not enrolled: run `sortie enroll`"));
    assert!(config("[agent]\nstate_dir = \"/proc/none\"\n").contains("/proc/none"));
    assert!(config("[control_plane]\nurl = \"http://sortie.example\"\n").contains("plain http"));
    std::fs::write(state.join("identity.json"), "damaged").unwrap();
    assert!(config(&agent).contains("is damaged"));
}

#[test]
fn a_code_is_explained_without_any_connection() {
    let entry = sortie(["explain", "tls_untrusted_issuer"]);
    assert_eq!(entry.status, Some(0), "{entry:?}");
    assert!(
        entry.stdout.contains("update-ca-certificates") && entry.stdout.contains("On GitLab"),
        "{entry:?}"
    );
    let listed = sortie(["explain", "--json"]).json();
    assert!(listed.as_array().unwrap().iter().any(|entry| entry["code"] == "pat_expired"));
    let unknown = sortie(["explain", "tls_expird"]);
    assert_eq!((unknown.status, unknown.stdout.as_str()), (Some(2), ""), "{unknown:?}");
    assert!(unknown.stderr.contains("tls_expired"), "{unknown:?}");
}

#[test]
fn version_and_help_are_there() {
    let version = sortie(["--version"]);
    assert_eq!(
        (version.status, version.stdout.trim()),
        (Some(0), concat!("sortie ", env!("CARGO_PKG_VERSION")))
    );
    for command in ["run", "enroll", "unenroll", "test", "clone", "config", "explain", "doctor", "status"] {
        let help = sortie([command, "--help"]);
        assert!(help.status == Some(0) && help.stdout.contains("Example"), "{command}: {help:?}");
    }
}
