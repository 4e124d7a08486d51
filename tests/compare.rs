//! Whether a reference has moved since a commit, as a task.

use serde_json::Value;
use sortie::provider::Provider;

use crate::connection_test::Lab;
use crate::git_transport::{TOKEN, https};
use crate::support::repository::{SampleRepository, run_git};
use crate::support::sshd::{Key, KeyKind, Sshd};
use crate::trial::{Outcome, Trial};

fn state(outcome: &Outcome) -> &str {
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    outcome.0["state"].as_str().expect("a state")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_is_unchanged_then_moved_then_gone() {
    let lab = Lab::start();
    let known = lab.sample.commit("feature");
    let trials = [lab.on_azure("/Coll/My%20Shop/_git/web"), lab.on_gitlab("/shop/sub/web")];
    for trial in &trials {
        let outcome = trial.compare(Some("feature"), &known).await;
        assert_eq!(state(&outcome), "unchanged");
        assert_eq!(outcome.0["reference"], "refs/heads/feature");
        assert_eq!(
            (&outcome.0["commit"], &outcome.0["head"]),
            (&known.as_str().into(), &known.as_str().into())
        );
    }
    let head = lab.sample.add_commit("feature", "new.txt", "new\n");
    for trial in &trials {
        let outcome = trial.compare(Some("refs/heads/feature"), &known).await;
        assert_eq!((state(&outcome), &outcome.0["head"]), ("moved", &head.as_str().into()));
        assert_eq!(outcome.0["schema"], "sortie.compare.v1");
    }
    run_git(&lab.sample.directory, ["update-ref", "-d", "refs/heads/feature"]);
    for trial in &trials {
        let outcome = trial.compare(Some("feature"), &known).await;
        assert_eq!((state(&outcome), &outcome.0["head"]), ("gone", &Value::Null));
    }
    let fetched =
        lab.gitlab().requests().iter().filter(|seen| seen.path.ends_with("/git-upload-pack")).count();
    assert_eq!(fetched, 0, "the list alone tells");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_branch_and_tags_are_compared_by_their_commits() {
    let server = https(SampleRepository::small);
    let url = server.nginx.url();
    let trial = Trial::of(Some(Provider::Git), &url, &format!("{url}/web.git"))
        .trust(server.authority.ca_file())
        .pat(TOKEN);
    let main = server.sample.commit("main");
    let outcome = trial.compare(None, &main.to_uppercase()).await;
    assert_eq!((state(&outcome), &outcome.0["reference"]), ("unchanged", &"refs/heads/main".into()));
    let tagged = server.sample.commit("v1.0");
    let tag = run_git(&server.sample.directory, ["rev-parse", "refs/tags/v1.0"]);
    for known in [&tagged, &tag] {
        let outcome = trial.compare(Some("v1.0"), known).await;
        assert_eq!((state(&outcome), &outcome.0["head"]), ("unchanged", &tagged.as_str().into()));
    }
    assert_eq!(state(&trial.compare(Some("v1.0"), &main).await), "moved");
    // A commit is no reference that could move.
    assert_eq!(state(&trial.compare(Some(&main), &main).await), "gone");
    let bad = trial.compare(Some("a..b"), &main).await;
    assert_eq!(bad.diagnosis(), ("reference_not_found", "references"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_repository_has_nothing_to_compare() {
    let lab = Lab::start();
    let trial = lab.on_gitlab("/shop/empty");
    let commit = lab.sample.commit("main");
    assert_eq!(trial.compare(None, &commit).await.diagnosis().0, "repository_empty");
    assert_eq!(state(&trial.compare(Some("main"), &commit).await), "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_compares_as_well() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&scratch.path().join("web.git"));
    let key = Key::make(scratch.path(), "key", KeyKind::Ed25519, None);
    let sshd =
        Sshd::plan(&[KeyKind::Ed25519]).authorize(&key).serve("shop/web.git", &sample.directory).start();
    let trial = Trial::of(Some(Provider::Git), &sshd.url(), &format!("{}/shop/web.git", sshd.url())).key(
        &key.private_file,
        None,
        &sshd.known_hosts(),
    );
    assert_eq!(state(&trial.compare(Some("main"), &sample.commit("main")).await), "unchanged");
    assert_eq!(state(&trial.compare(Some("main"), &sample.commit("feature")).await), "moved");
}
