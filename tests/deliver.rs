//! What becomes of a clone task: an archive, a bundle, files in the report, a directory, or nothing; from a real agent
//! to a real control plane and into the hands of whoever asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::clone::{assert_whole, entries};
use crate::support::agent::Agent;
use crate::support::binary::{binary, isolate};
use crate::support::control_plane::{ControlPlane, secret_file};
use crate::support::process::{START_LIMIT, command_line, require, wait_until};
use crate::support::repository::{git, run_git};
use crate::support::scene::Scene;

struct Delivering {
    scene: Scene,
    control_plane: ControlPlane,
    agent: Agent,
}

impl Delivering {
    fn start(toml: &str) -> Self {
        let scene = Scene::small();
        let control_plane = ControlPlane::start();
        let agent = scene.agent("fra1-a").with_toml(toml).start(&control_plane);
        Self { scene, control_plane, agent }
    }

    fn run(&self, more: Value) -> Value {
        let mut task = self.scene.clone_task(json!({}));
        task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.control_plane.run_task(&task)
    }

    fn succeeded(&self, more: Value) -> Value {
        let done = self.run(more);
        assert_eq!(done["outcome"], "succeeded", "{done:#}");
        assert_eq!(done["result"]["commit"], self.scene.sample.commit("main"));
        done["result"].clone()
    }

    /// Gets an artifact as an operator does.
    fn get(&self, result: &Value) -> PathBuf {
        let artifact = &result["artifact"];
        let output = self.scene.scratch().join(artifact["file_name"].as_str().unwrap());
        let token = secret_file(self.scene.scratch(), "get-token", self.control_plane.token());
        let mut command = Command::new(binary("sortie-control"));
        isolate(&mut command, self.scene.scratch())
            .args(["artifact", "get", artifact["id"].as_str().unwrap(), "--url", &self.control_plane.url()])
            .arg("--token-file")
            .arg(token)
            .arg("--output")
            .arg(&output);
        command_line(&mut command);
        assert_eq!(fs::metadata(&output).unwrap().len(), artifact["bytes"].as_u64().unwrap());
        output
    }

    fn state(&self, directory: &str) -> Vec<String> {
        let path = self.agent.directory().join("state").join(directory);
        if path.exists() { entries(&path) } else { Vec::new() }
    }
}

/// What git's own archive holds, by its list of names.
fn names_of(tar: &Path) -> Vec<String> {
    let listed = command_line(Command::new(require("tar", "tar")).arg("-tf").arg(tar));
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn an_archive_comes_to_whoever_asked_and_touches_no_disk_of_the_agents() {
    let all = Delivering::start("");
    let result = all.succeeded(json!({"deliver": "archive"}));
    let commit = all.scene.sample.commit("main");
    assert_eq!(result["artifact"]["file_name"], format!("web-{}.tar.zst", &commit[..12]));
    assert!(result["path"].is_null(), "{result:#}");
    let stages: Vec<&str> =
        result["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(&stages[stages.len() - 2..], ["checkout", "deliver"], "{stages:?}");
    let file = all.get(&result);
    let tar = all.scene.scratch().join("ours.tar");
    command_line(
        Command::new(require("zstd", "zstd")).args(["-q", "-d", "-f"]).arg(&file).arg("-o").arg(&tar),
    );
    let theirs = all.scene.scratch().join("theirs.tar");
    run_git(&all.scene.sample.directory, ["archive", "-o", theirs.to_str().unwrap(), "main"]);
    assert!(fs::read(&tar).unwrap() == fs::read(&theirs).unwrap(), "git's own archive is another one");
    // The same commit is the same file, also out of a mirror.
    let again = all.succeeded(json!({"deliver": "archive"}));
    assert_eq!(again["artifact"]["sha256"], result["artifact"]["sha256"]);
    assert_eq!(again["source"], "mirror");
    let some = all.succeeded(json!({"deliver": "archive", "paths": ["src", "no/such"]}));
    assert_eq!(some["missing"], json!(["no/such"]));
    let zip = all.succeeded(json!({"deliver": "archive", "archive_format": "zip", "paths": ["src"]}));
    let zip = all.get(&zip);
    let listed = command_line(Command::new(require("unzip", "unzip")).arg("-Z1").arg(&zip));
    assert!(listed.lines().any(|name| name == "src/shop/cart.txt"), "{listed}");
    assert!(names_of(&theirs).len() > listed.lines().count());
    assert!(all.state("workspaces").is_empty() && all.state("tmp").is_empty());
}

#[test]
fn a_bundle_is_one_that_git_clones() {
    let all = Delivering::start("");
    let result = all.succeeded(json!({"deliver": "bundle"}));
    assert_eq!(result["reference"], "refs/heads/main");
    let file = all.get(&result);
    let target = all.scene.scratch().join("unbundled");
    let status = git().args(["clone", "-q"]).arg(&file).arg(&target).status().unwrap();
    assert!(status.success());
    assert_eq!(run_git(&target, ["rev-parse", "HEAD"]), all.scene.sample.commit("main"));
    assert_whole(&target);
    assert!(all.state("tmp").is_empty());
}

#[test]
fn files_stand_in_the_report_and_what_is_not_there_is_named() {
    let all = Delivering::start("");
    let paths = json!(["README.md", "current", "docs", "no/such"]);
    let result = all.succeeded(json!({"deliver": "files", "paths": paths}));
    let contents = result["contents"].as_array().unwrap();
    let seen: Vec<_> = contents
        .iter()
        .map(|file| (file["path"].as_str().unwrap(), file["kind"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [("README.md", "file"), ("current", "symlink"), ("docs", "directory")]);
    assert_eq!(contents[0]["content"], "# Web\n\nA small shop with a cart.\n");
    assert_eq!(result["missing"], json!(["no/such"]));
    let none = all.run(json!({"deliver": "files", "paths": ["no/such"]}));
    assert_eq!(none["result"]["diagnosis"]["code"], "path_not_found", "{none:#}");
}

#[test]
fn a_check_keeps_nothing() {
    let all = Delivering::start("");
    let result = all.succeeded(json!({"deliver": "none"}));
    assert_eq!((&result["path"], &result["files"]), (&Value::Null, &json!(7)));
    assert!(all.state("workspaces").is_empty() && all.state("tmp").is_empty());
}

#[test]
fn a_workspace_is_listed_stays_for_its_time_and_goes() {
    let all = Delivering::start("[workspaces]\nttl_seconds = 3600\n");
    let result = all.succeeded(json!({}));
    let path = PathBuf::from(result["path"].as_str().unwrap());
    assert_whole(&path);
    let sortie = |arguments: &[&str]| {
        let mut command = Command::new(binary("sortie"));
        isolate(&mut command, all.scene.scratch());
        let text =
            command_line(command.args(arguments).arg("--json").arg("--config").arg(all.agent.config()));
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let listed = sortie(&["workspaces"]);
    assert_eq!(listed["workspaces"][0]["commit"], result["commit"], "{listed:#}");
    assert_eq!(sortie(&["workspaces", "prune"])["workspaces"], json!([]));
    assert!(path.exists());
    assert_eq!(sortie(&["workspaces", "prune", "--all"])["workspaces"].as_array().unwrap().len(), 1);
    assert!(!path.exists());
    let mirrors = sortie(&["mirrors", "list"]);
    assert_eq!(mirrors["mirrors"][0]["url"], all.scene.url(), "{mirrors:#}");
    assert_eq!(sortie(&["mirrors", "prune"])["mirrors"].as_array().unwrap().len(), 1);
    assert_eq!(sortie(&["mirrors", "list"])["mirrors"], json!([]));
    // The daemon makes a new one when it needs it.
    assert_eq!(all.succeeded(json!({}))["source"], "mirror");
}

#[test]
fn a_workspace_expires_by_itself() {
    let all = Delivering::start("[workspaces]\nttl_seconds = 1\n");
    let result = all.succeeded(json!({}));
    let path = PathBuf::from(result["path"].as_str().unwrap());
    // Whoever needs room looks first for what has expired.
    wait_until("the workspace is gone", START_LIMIT, || {
        all.succeeded(json!({}));
        !path.exists()
    });
}

#[test]
fn a_directory_of_the_operators_is_used_where_it_is_allowed() {
    let allowed = tempfile::tempdir().unwrap();
    let all = Delivering::start(&format!("[workspaces]\ndirectories = [\"{}\"]\n", allowed.path().display()));
    let place = allowed.path().join("builds/web");
    let result = all.succeeded(json!({"directory": place}));
    assert_eq!(result["path"], json!(place.canonicalize().unwrap()));
    assert_whole(&place);
    let refused = all.run(json!({"directory": "/etc/sortie-is-not-allowed-here"}));
    assert_eq!(refused["result"]["diagnosis"]["code"], "task_not_allowed", "{refused:#}");
    let taken = all.run(json!({"directory": place}));
    assert_eq!(taken["result"]["diagnosis"]["code"], "target_not_empty", "{taken:#}");
}
