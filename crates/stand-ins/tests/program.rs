//! The program: a world from a TOML file, one line of JSON for each server, a stop by SIGTERM.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::Command;
use std::time::Duration;

use common::support::process::{Child, START_LIMIT, require};
use common::support::repository::SampleRepository;
use stand_ins::{World, WorldError};

fn world(directory: &str) -> String {
    format!(
        r#"
[azure_devops]
base_path = "/tfs"
release = "2022.1"
bad_token = "sign-in-page"
[gitlab]
relative_root = "/gitlab"
version = "16.11.2"
[[users]]
name = "ada"
password = "secret"
[[tokens]]
user = "ada"
secret = "token"
scopes = ["vso.code"]
expires_at = "2027-01-01"
kind = "pat"
[[projects]]
provider = "azure-devops"
collection = "DefaultCollection"
name = "Shop"
[[repositories]]
provider = "gitlab"
path = "group/sub/web"
directory = "{directory}"
readers = ["ada"]
"#
    )
}

#[test]
fn the_program_serves_a_world_from_a_file_until_it_is_told_to_stop() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&scratch.path().join("web.git"));
    let config = scratch.path().join("world.toml");
    std::fs::write(&config, world(sample.directory.to_str().unwrap())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stand-ins"));
    command.arg("--config").arg(&config).arg("--authority-dir").arg(scratch.path());
    let mut child = Child::start("stand-ins", &mut command, scratch.path());
    let output = scratch.path().join("stand-ins.stdout");
    let lines = || std::fs::read_to_string(&output).unwrap_or_default();
    child.wait_for("two lines", START_LIMIT, || lines().matches('\n').count() == 2);
    for (line, provider, path) in [(0, "azure-devops", "/tfs"), (1, "gitlab", "/gitlab")] {
        let told = serde_json::from_str::<serde_json::Value>(lines().lines().nth(line).unwrap()).unwrap();
        assert_eq!(told["provider"], provider);
        let url = told["url"].as_str().unwrap();
        assert!(url.ends_with(path), "{url}");
        let ca_file = told["ca_file"].as_str().unwrap();
        let status = Command::new(require("curl", "curl"))
            .args(["-s", "-o", "/dev/null", "--cacert", ca_file, url])
            .status()
            .unwrap();
        assert!(status.success());
    }
    child.terminate();
    assert!(child.wait(Duration::from_secs(10)).unwrap().success());
}

#[test]
fn a_mistake_in_a_world_is_named() {
    let unknown_key = World::parse("[gitlab]\nroot = \"/x\"").unwrap_err();
    assert!(matches!(unknown_key, WorldError::Form(_)));
    let no_repository = World::parse(&world("/nonexistent")).unwrap_err();
    assert!(matches!(no_repository, WorldError::NotARepository { .. }));
    let nobody = World::parse("[[tokens]]\nuser = \"eve\"\nsecret = \"x\"").unwrap_err();
    assert!(matches!(nobody, WorldError::UnknownUser { .. }));
    let disabled = "[[projects]]\nprovider = \"azure-devops\"\ncollection = \"C\"\nname = \"P\"";
    assert!(matches!(World::parse(disabled).unwrap_err(), WorldError::ServerNotEnabled { .. }));
    let slash = World::parse("[gitlab]\nrelative_root = \"gitlab/\"").unwrap_err();
    assert!(matches!(slash, WorldError::BasePath { .. }));
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", World::new().with_user("ada", "pass-word").with_pat("ada", "to-ken", &[]));
    assert!(!shown.contains("pass-word") && !shown.contains("to-ken"), "{shown}");
}
