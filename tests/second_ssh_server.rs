//! Tests and clones against an SSH server that is not OpenSSH's.

use std::time::{Duration, Instant};

use serde_json::json;
use sortie::provider::Provider;

use crate::support::asyncssh::{AsyncSsh, AsyncSshPlan};
use crate::support::repository::SampleRepository;
use crate::support::sshd::{Key, KeyKind};
use crate::trial::Trial;

/// A server with one repository, and what tests of it need.
struct Lab {
    sample: SampleRepository,
    key: Key,
    server: AsyncSsh,
    scratch: tempfile::TempDir,
}

impl Lab {
    fn start(kind: KeyKind, adjust: impl FnOnce(AsyncSshPlan) -> AsyncSshPlan) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(&scratch.path().join("web.git"));
        let key = Key::make(scratch.path(), "key", kind, None);
        let plan = AsyncSsh::plan(KeyKind::Ed25519).authorize(&key);
        let server = adjust(plan.serve("shop/web.git", &sample.directory)).start();
        Self { sample, key, server, scratch }
    }

    fn trial(&self) -> Trial {
        let url = format!("{}/shop/web.git", self.server.url());
        let trial = Trial::of(Some(Provider::Gitlab), &self.server.url(), &url);
        trial.key(&self.key.private_file, None, &self.server.known_hosts())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_are_taken_and_a_clone_comes_out_whole() {
    for kind in [KeyKind::Ed25519, KeyKind::Ecdsa, KeyKind::Rsa] {
        let lab = Lab::start(kind, |plan| plan);
        let outcome = lab.trial().run().await;
        assert!(outcome.succeeded(), "{kind:?}: {:#}\n{}", outcome.0, lab.server.log());
        assert_eq!(outcome.0["repository"]["head"], lab.sample.commit("main"));
        assert_eq!(outcome.0["identity"]["name"], "ada");
        let clone = lab.trial().clone_into(&lab.scratch.path().join("clone")).await;
        assert!(clone.succeeded(), "{kind:?}: {:#}\n{}", clone.0, lab.server.log());
        assert_eq!(clone.0["commit"], lab.sample.commit("main"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rsa_key_without_announced_rsa_sha2_is_named() {
    let other_alone =
        |plan: AsyncSshPlan| plan.with_option("signature_algs", json!(["ssh-ed25519", "ssh-rsa"]));
    let none = AsyncSshPlan::without_signature_algorithms;
    for lab in [Lab::start(KeyKind::Rsa, other_alone), Lab::start(KeyKind::Rsa, none)] {
        let outcome = lab.trial().run().await;
        assert_eq!(outcome.diagnosis(), ("ssh_rsa_sha2_not_announced", "authenticate"), "{:#}", outcome.0);
        let summary = outcome.0["diagnosis"]["summary"].as_str().unwrap();
        assert!(summary.contains("AsyncSSH"), "{summary}");
        assert!(lab.server.keys_shown() <= 1, "the key was tried again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_that_says_nothing_does_not_fail_a_test() {
    let lab = Lab::start(KeyKind::Ed25519, AsyncSshPlan::without_greeting);
    let began = Instant::now();
    let outcome = lab.trial().run().await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    assert!(outcome.0["identity"]["name"].is_null() && outcome.facts("authenticate")["greeting"].is_null());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
