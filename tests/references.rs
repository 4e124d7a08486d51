//! Lists of references as tasks: filters, limits, and what servers of all kinds list.

use serde_json::Value;
use sortie::provider::Provider;
use stand_ins::Authority;

use crate::connection_test::Lab;
use crate::git_transport::{TOKEN, https};
use crate::support::repository::{SampleRepository, run_git};
use crate::support::sshd::{Key, KeyKind, Sshd};
use crate::trial::{Outcome, Trial};

fn names(outcome: &Outcome) -> Vec<&str> {
    let list = outcome.0["references"].as_array().expect("references").iter();
    list.map(|reference| reference["name"].as_str().expect("a name")).collect()
}

fn on_nginx(url: &str, authority: &Authority) -> Trial {
    Trial::of(Some(Provider::Git), url, &format!("{url}/web.git")).trust(authority.ca_file()).pat(TOKEN)
}

/// The references as git itself shows them, without `HEAD`.
fn by_git(sample: &SampleRepository) -> Vec<String> {
    let listed =
        run_git(&sample.directory, ["for-each-ref", "--format=%(refname) %(objectname) %(*objectname)"]);
    listed.lines().map(|line| line.trim().to_owned()).collect()
}

fn as_git_shows(reference: &Value) -> String {
    let text = |key: &str| reference[key].as_str().unwrap_or_default();
    [text("name"), text("target"), text("peeled")].join(" ").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_what_git_shows_over_https_and_ssh_and_on_both_providers() {
    let lab = Lab::start();
    let head = lab.sample.vary();
    let scratch = tempfile::tempdir().unwrap();
    let key = Key::make(scratch.path(), "key", KeyKind::Ed25519, None);
    let sshd =
        Sshd::plan(&[KeyKind::Ed25519]).authorize(&key).serve("shop/web.git", &lab.sample.directory).start();
    let by_ssh = Trial::of(Some(Provider::Git), &sshd.url(), &format!("{}/shop/web.git", sshd.url()));
    let trials = [
        lab.on_azure("/Coll/My%20Shop/_git/web"),
        lab.on_gitlab("/shop/sub/web"),
        by_ssh.key(&key.private_file, None, &sshd.known_hosts()),
    ];
    for trial in trials {
        let outcome = trial.references(&["refs/*"], 100).await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        let listed: Vec<_> = outcome.0["references"].as_array().unwrap().iter().map(as_git_shows).collect();
        assert_eq!(listed, by_git(&lab.sample));
        assert_eq!(
            (&outcome.0["default_branch"], &outcome.0["head"]),
            (&"main".into(), &head.as_str().into())
        );
        assert_eq!((&outcome.0["total"], &outcome.0["truncated"]), (&listed.len().into(), &false.into()));
        assert_eq!(outcome.0["schema"], "sortie.references.v1");
        assert_eq!(outcome.stages("passed").last(), Some(&"references"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_limits_hold() {
    let server = https(SampleRepository::small);
    server.sample.vary();
    let trial = on_nginx(&server.nginx.url(), &server.authority);
    let branches_and_tags =
        ["refs/heads/feature", "refs/heads/main", "refs/tags/light", "refs/tags/v1.0"].as_slice();
    let cases: [(&[&str], &[&str]); 6] = [
        (&[], branches_and_tags),
        (&["refs/heads/*"], &branches_and_tags[..2]),
        (&["refs/heads/main", "refs/tags/v?.*"], &["refs/heads/main", "refs/tags/v1.0"]),
        (&["refs/merge-requests/*"], &["refs/merge-requests/3/head"]),
        (&["refs/pull/*/merge"], &["refs/pull/7/merge"]),
        (&["refs/heads/mai"], &[]),
    ];
    for (patterns, expected) in cases {
        let outcome = trial.references(patterns, 100).await;
        assert_eq!(names(&outcome), expected, "{patterns:?}");
        assert_eq!(outcome.facts("references")["references"], 6);
    }
    let outcome = trial.references(&[], 3).await;
    assert_eq!(names(&outcome), branches_and_tags[..3]);
    assert_eq!((&outcome.0["total"], &outcome.0["truncated"]), (&4.into(), &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_thousand_references_are_filtered_while_they_come() {
    let server = https(|directory| SampleRepository::with_references(directory, 50_000));
    let trial = on_nginx(&server.nginx.url(), &server.authority);
    let outcome = trial.references(&["refs/heads/team/*"], 5000).await;
    assert!(outcome.succeeded(), "{:#}", outcome.0["diagnosis"]);
    assert_eq!((&outcome.0["total"], &outcome.0["truncated"]), (&50_000.into(), &true.into()));
    let listed = names(&outcome).len();
    assert!(listed > 1000 && listed <= 5000, "{listed}");
    let bytes = outcome.0.to_string().len();
    assert!(bytes < sortie_protocol::frame::MAX_MESSAGE_BYTES, "{bytes}");
    let one = trial.references(&["refs/heads/team/99/branch-49999"], 5000).await;
    assert_eq!(names(&one), ["refs/heads/team/99/branch-49999"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_repository_is_warned_about() {
    let lab = Lab::start();
    for trial in [lab.on_azure("/Coll/My%20Shop/_git/empty"), lab.on_gitlab("/shop/empty")] {
        let outcome = trial.references(&[], 10).await;
        assert!(outcome.succeeded() && names(&outcome).is_empty(), "{:#}", outcome.0);
        assert_eq!((outcome.warnings(), &outcome.0["head"]), (vec!["repository_empty"], &Value::Null));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_credential_is_sent_once() {
    let lab = Lab::start();
    let outcome = lab.on_gitlab("/shop/sub/web").pat("unknown").references(&[], 10).await;
    assert_eq!(outcome.diagnosis(), ("pat_rejected", "authenticate"));
    let sent = lab.gitlab().requests().iter().filter(|request| request.has_authorization).count();
    assert_eq!(sent, 1);
}
