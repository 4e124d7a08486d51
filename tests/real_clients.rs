//! The stand-ins held to the real thing: the clients that others use against Azure DevOps and GitLab call whatever
//! the connection test calls, and understand the answers.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use stand_ins::Gitlab;

use crate::connection_test::{AZURE_PAT, GITLAB_PAT, Lab};
use crate::support::node::Packages;
use crate::support::python::Environment;

/// Runs a script of clients against both stand-ins, which it trusts by `trust`, and answers with what it printed.
fn called(mut command: Command, script: &str, trust: &str, lab: &Lab) -> Value {
    let given = json!({
        "azure": {"url": format!("{}/Coll", lab.azure().url()), "token": AZURE_PAT,
                  "project": "My Shop", "repository": "web"},
        "gitlab": {"url": lab.gitlab().url(), "token": GITLAB_PAT, "project": "shop/sub/web", "group": "shop"},
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(script);
    let home = tempfile::tempdir().unwrap();
    // One of them keeps what it learned in the home directory, and no proxy stands before loopback.
    command.arg(script).env("HOME", home.path()).env("GIVEN", given.to_string());
    command.env(trust, lab.authority.ca_file()).env("NO_PROXY", "*").stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{:#?}\n{:#?}", lab.azure().requests(), lab.gitlab().requests());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn check(answers: &Value) {
    let azure = &answers["azure"];
    assert_eq!(azure["user"], "ada", "{answers:#}");
    assert_eq!(azure["projects"], json!(["My Shop", "tools"]));
    assert_eq!(azure["project"], "My Shop");
    assert!(azure["repositories"].as_array().unwrap().contains(&json!("web")), "{answers:#}");
    assert_eq!(azure["default_branch"], "refs/heads/main");
    assert!(azure["references"].as_u64().unwrap() >= 4, "{answers:#}");
    let gitlab = &answers["gitlab"];
    assert_eq!(gitlab["scopes"], json!(["read_repository", "read_api"]), "{answers:#}");
    assert_eq!((&gitlab["user"], &gitlab["version"]), (&json!("ada"), &json!(Gitlab::default().version)));
    assert_eq!((&gitlab["project"], &gitlab["group"]), (&json!("shop/sub/web"), &json!("shop")));
    assert_eq!(gitlab["branches"], json!(["feature", "main"]));
    for list in ["projects", "below"] {
        assert!(gitlab[list].as_array().unwrap().contains(&json!("shop/sub/web")), "{answers:#}");
    }
}

#[test]
fn clients_in_python_understand_the_stand_ins() {
    let lab = Lab::start();
    let python = Environment::named("providers").python();
    let answers = called(python, "python/clients.py", "REQUESTS_CA_BUNDLE", &lab);
    check(&answers);
    assert_eq!(answers["gitlab"]["version_before_metadata"], Gitlab::default().version);
}

#[test]
fn clients_in_javascript_understand_the_stand_ins() {
    let lab = Lab::start();
    check(&called(Packages::installed().node(), "node/clients.mjs", "NODE_EXTRA_CA_CERTS", &lab));
}
