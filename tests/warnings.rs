//! Warnings of tests that succeed, and failures that need a rig of their own, brought about for real.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use sortie::credential::CredentialKind;
use sortie::dial::{LookupError, Names};
use sortie::provider::Provider;
use sortie::remote_url::RemoteUrl;
use stand_ins::{Authority, AzureDevOps, Gitlab};

use crate::connection_test::Lab;
use crate::support::binary::Sortie;
use crate::support::nginx::Nginx;
use crate::support::process::write_private;
use crate::support::scene::{PAT, Scene};
use crate::trial::Trial;

/// A resolver whose first nameserver is dead: it answers after a pause.
struct SlowNames;

impl Names for SlowNames {
    fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, LookupError> {
        std::thread::sleep(Duration::from_millis(1100));
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_that_takes_unusually_long_is_named_with_the_usual_reason() {
    let lab = Lab::start();
    let mut trial = lab.on_gitlab("/shop/sub/web").names(Arc::new(SlowNames));
    let base = format!("https://localhost:{}", lab.gitlab().port());
    trial.server.url = RemoteUrl::parse(&base).unwrap();
    trial.request.target = sortie::task::TargetSpec::Url(format!("{base}/shop/sub/web"));
    let outcome = trial.run().await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    let warning = &outcome.0["warnings"][0];
    assert_eq!((&warning["code"], &warning["stage"]), (&"slow".into(), &"resolve".into()), "{:#}", outcome.0);
    assert_eq!(outcome.stages("warned"), ["resolve"]);
    assert!(warning["remedies"][0].as_str().unwrap().contains("nameserver"), "{warning:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_warned_about_each_time() {
    let lab = Lab::with(AzureDevOps { plain_http: true, ..AzureDevOps::default() }, Gitlab::default());
    let outcome = lab.on_azure("/Coll/My%20Shop/_git/web").run().await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    assert!(outcome.warnings().contains(&"plain_http"), "{:#}", outcome.0);
    assert!(outcome.stages("warned").contains(&"connect"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_that_is_no_git_server_is_named_without_any_secret() {
    let scratch = tempfile::tempdir().unwrap();
    let authority = Authority::create(scratch.path()).unwrap();
    let nginx = Nginx::plan(scratch.path()).with_directive("return 404;").start(&authority);
    for provider in [Provider::AzureDevops, Provider::Gitlab] {
        let url = format!("{}/coll/project/_git/web", nginx.url());
        let trial = Trial::of(Some(provider), &nginx.url(), &url).trust(authority.ca_file());
        let outcome = trial.pat("token-canary").run().await;
        assert_eq!(outcome.diagnosis(), ("not_a_git_server", "identify"), "{:#}", outcome.0);
    }
    let unnamed = Trial::of(None, &nginx.url(), &format!("{}/team/web.git", nginx.url()));
    let outcome = unnamed.trust(authority.ca_file()).run().await;
    assert_eq!(outcome.diagnosis(), ("not_a_git_server", "identify"), "{:#}", outcome.0);
    let requests = nginx.requests();
    assert!(!requests.is_empty() && requests.iter().all(|line| line.ends_with(" no")), "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_server_is_taken_for_git_by_nobody_without_a_reason() {
    let scratch = tempfile::tempdir().unwrap();
    let authority = Authority::create(scratch.path()).unwrap();
    let page = "default_type text/html; return 200 '<html>welcome</html>';";
    for directive in ["return 403;", "return 404;", page, "return 301 https://elsewhere.example$request_uri;"]
    {
        let nginx = Nginx::plan(scratch.path()).with_directive(directive).start(&authority);
        let url = format!("{}/team/web.git", nginx.url());
        let trial =
            |provider| Trial::of(provider, &nginx.url(), &url).trust(authority.ca_file()).pat("canary");
        let outcome = trial(None).run().await;
        assert_eq!(outcome.diagnosis(), ("not_a_git_server", "identify"), "{directive}: {:#}", outcome.0);
        assert_eq!(outcome.0["target"]["provider"], serde_json::Value::Null);
        assert!(outcome.facts("identify")["server_header"].as_str().unwrap().starts_with("nginx"));
        assert!(!outcome.stages("passed").contains(&"authenticate"), "{:#}", outcome.0);
        if directive == "return 403;" {
            // Whoever names the kind is told what is known, which is nothing of scopes.
            let outcome = trial(Some(Provider::Git)).run().await;
            assert_eq!(
                outcome.diagnosis(),
                ("repository_not_found_or_denied", "repository"),
                "{:#}",
                outcome.0
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_none_is_not_sent() {
    let lab = Lab::start();
    let file = lab.scratch.path().join("binary");
    std::fs::write(&file, [0xff, 0xfe, 0x00, 0x80]).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let trial = lab.on_azure("/Coll/My%20Shop/_git/web").secret_file(CredentialKind::Pat, None, file, None);
    let outcome = trial.run().await;
    assert_eq!(outcome.diagnosis(), ("credential_unreadable", "authenticate"), "{:#}", outcome.0);
    assert_eq!(lab.azure().connections(), 0);
}

#[test]
fn a_reference_that_is_not_there_is_named_with_near_ones() {
    let scene = Scene::small();
    let file = scene.scratch().join("pat");
    write_private(&file, PAT).unwrap();
    let (url, ca_file) = (scene.url(), scene.authority.ca_file().display().to_string());
    let file = file.display().to_string();
    let arguments =
        ["clone", &url, "web", "--provider", "gitlab", "--pat-file", &file, "--ca-file", &ca_file];
    let output = Sortie::new().run(arguments.into_iter().chain(["--ref", "mian", "--json"]));
    assert_eq!((output.status, output.diagnosis().as_str()), (Some(1), "reference_not_found"), "{output:?}");
    let diagnosis = &output.json()["diagnosis"];
    assert_eq!(diagnosis["stage"], "references");
    assert!(diagnosis["remedies"][0].as_str().unwrap().contains("main"), "{diagnosis:#}");
}
