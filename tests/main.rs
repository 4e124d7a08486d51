//! End-to-end and integration tests: one binary, one file per capability. `support` holds the rigs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod api_credential;
mod archive;
mod artifacts;
mod attempt;
mod azure;
mod bad_input;
mod bounded;
mod broken_answers;
mod broken_transfers;
mod bundle;
mod catalogue;
mod cli;
mod clone;
mod clone_diagnoses;
mod clone_options;
mod compare;
mod connection_test;
mod daemon;
mod deliver;
mod diagnoses;
mod doctor;
mod files;
mod full_disk;
mod git_transport;
mod gitlab;
mod health;
mod hostile_control_plane;
mod journal;
mod large_files;
mod lfs;
mod line;
mod mirrors;
mod odd_repositories;
mod packs;
mod probe;
mod promises;
mod proxies;
mod published_api;
mod real_clients;
mod references;
#[path = "support/terminal.rs"]
mod screen;
mod second_git_server;
mod second_ssh_server;
mod secrets;
mod ssh;
mod ssh_agent;
mod ssh_keys;
mod status;
mod submodules;
mod support;
mod terminal;
mod tls;
mod trial;
mod url_grammar;
mod warnings;

/// A file that no `mod` names would be a test that never runs.
#[test]
fn no_test_file_is_forgotten() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.strip_suffix(".rs").unwrap_or(&name);
        assert!(module == "main" || main.contains(&format!("mod {module};")), "tests/{name} is in no module");
    }
}
