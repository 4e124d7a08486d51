//! Files at a reference without a clone, as a task: over the API or by git, and the same from both.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sortie::credential::CredentialKind;
use sortie::provider::Provider;
use stand_ins::{AzureDevOps, Fault, Gitlab, MissingScope, ServerHandle};
use tokio::runtime::Handle;

use crate::connection_test::Lab;
use crate::git_transport::{TOKEN, https};
use crate::support::process::START_LIMIT;
use crate::support::repository::SampleRepository;
use crate::support::sshd::{Key, KeyKind, Sshd};
use crate::trial::{Outcome, Trial};

const AZURE: &str = "/Coll/My%20Shop/_git/web";
const GITLAB: &str = "/shop/sub/web";

/// The bound for a cancel and a deadline, from the moment when they come true.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// One of each kind, with names that have to be escaped, and one that is not there.
const PATHS: [&str; 13] = [
    "README.md",
    "bin/start.sh",
    "docs/Größe.txt",
    "docs/with space.txt",
    "current",
    "outside",
    "assets/logo.bin",
    "assets/model.onnx",
    "empty",
    "src",
    "vendor/lib",
    "shop/cart.txt",
    "nope/CHANGELOG.md",
];

fn source(outcome: &Outcome) -> &str {
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    outcome.0["source"].as_str().expect("a source")
}

fn file<'a>(outcome: &'a Outcome, path: &str) -> &'a Value {
    let files = outcome.0["files"].as_array().expect("files");
    files.iter().find(|file| file["path"] == path).unwrap_or_else(|| panic!("no {path}: {:#}", outcome.0))
}

fn packs(server: &ServerHandle) -> usize {
    server.requests().iter().filter(|request| request.path.ends_with("/git-upload-pack")).count()
}

fn check_contents(outcome: &Outcome) {
    let content = |path: &str| {
        let file = file(outcome, path);
        let text = |key: &str| file[key].as_str().unwrap_or_default().to_owned();
        (text("kind"), text("encoding"), text("content"))
    };
    let of = |kind: &str, encoding: &str, content: &str| {
        (kind.to_owned(), encoding.to_owned(), content.to_owned())
    };
    assert_eq!(content("README.md"), of("file", "utf-8", "# Web\n\nA small shop with a cart.\n"));
    assert_eq!(content("bin/start.sh"), of("executable", "utf-8", "#!/bin/sh\nexec true\n"));
    assert_eq!(content("docs/Größe.txt"), of("file", "utf-8", "Ä ö ü\n"));
    assert_eq!(content("docs/with space.txt"), of("file", "utf-8", "space\n"));
    assert_eq!(content("current"), of("symlink", "utf-8", "src/shop"));
    assert_eq!(content("outside"), of("symlink", "utf-8", "../../etc/passwd"));
    assert_eq!(content("assets/logo.bin"), of("file", "base64", "AP/+CoA="));
    assert_eq!(content("empty"), of("file", "utf-8", ""));
    assert_eq!(content("src"), of("directory", "", ""));
    assert_eq!(content("vendor/lib"), of("submodule", "", ""));
    assert_eq!(file(outcome, "assets/model.onnx")["lfs_pointer"], true);
    assert_eq!((&file(outcome, "empty")["bytes"], &file(outcome, "src")["bytes"]), (&json!(0), &Value::Null));
    // A link is never followed, so that nothing is behind it.
    assert_eq!(outcome.0["missing"], json!(["shop/cart.txt", "nope/CHANGELOG.md"]));
    assert_eq!(outcome.0["schema"], "sortie.files.v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_and_git_give_the_same() {
    let lab = Lab::start();
    let commit = lab.sample.vary();
    let cases = [
        (lab.on_azure(AZURE), lab.on_azure(AZURE), lab.azure()),
        (lab.on_gitlab(GITLAB), lab.on_gitlab(GITLAB).pat("glpat-git-only"), lab.gitlab()),
    ];
    let many: Vec<&str> = PATHS.iter().chain([&"README.md"; 20]).copied().collect();
    for (by_api, by_git, server) in cases {
        server.clear_requests();
        let api = by_api.files(None, &PATHS).await;
        assert_eq!((source(&api), packs(server)), ("api", 0));
        assert_eq!((&api.0["commit"], &api.0["reference"]), (&json!(commit), &json!("refs/heads/main")));
        assert_eq!(api.stages("passed").last(), Some(&"receive"));
        check_contents(&api);
        // So many that one pack is cheaper.
        let git = by_git.files(Some("main"), &many).await;
        assert_eq!(source(&git), "git");
        assert_eq!(git.stages("passed").last(), Some(&"checkout"));
        check_contents(&git);
        let first = |outcome: &Outcome| outcome.0["files"].as_array().unwrap()[..11].to_vec();
        assert_eq!(first(&api), first(&git));
        assert_eq!(api.0["commit"], git.0["commit"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn git_reads_where_the_api_refuses_or_is_not_there() {
    let slashes = Gitlab { decodes_slashes: true, ..Gitlab::default() };
    let strict = AzureDevOps { missing_scope: MissingScope::Json403, ..AzureDevOps::default() };
    let lab = Lab::with(strict, slashes);
    lab.sample.vary();
    let decoded = lab.on_gitlab(GITLAB).files(Some("main"), &PATHS).await;
    assert_eq!((source(&decoded), &decoded.facts("repository")["api"]), ("git", &json!("nothing")));
    check_contents(&decoded);
    let lab = Lab::start();
    lab.sample.vary();
    let git_only = lab.on_gitlab(GITLAB).pat("glpat-git-only").files(None, &PATHS).await;
    assert_eq!((source(&git_only), &git_only.facts("repository")["api"]), ("git", &json!("refused")));
    let user = Some("gitlab+deploy-token-1");
    let deploy = lab.on_gitlab(GITLAB).secret(CredentialKind::Pat, user, "gldt-canary-token");
    lab.gitlab().clear_requests();
    let deployed = deploy.files(None, &PATHS).await;
    assert_eq!((source(&deployed), &deployed.facts("repository")["api"]), ("git", &Value::Null));
    assert!(lab.gitlab().requests().iter().all(|request| !request.path.contains("/api/")));
    for (path, trial, server) in [
        ("/_apis/git/", lab.on_azure(AZURE), lab.azure()),
        ("/repository/", lab.on_gitlab(GITLAB), lab.gitlab()),
    ] {
        server.set_fault_at(path, Fault::RateLimited { retry_after: 1 });
        let limited = trial.files(None, &PATHS).await;
        assert_eq!(source(&limited), "git");
        check_contents(&limited);
        server.clear_fault();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_api_answers_wrongly_is_read_by_git() {
    let lab = Lab::start();
    lab.sample.vary();
    let altered = || Fault::Words { status: 200, content_type: "text/plain", body: "another file".into() };
    let faults = [
        ("/trees/", "/repository/tree", Fault::InvalidJson, "refused"),
        ("/trees/", "/repository/tree", Fault::HugeBody, "refused"),
        ("/trees/", "/repository/tree", Fault::SignInPage, "refused"),
        ("/blobs/", "/blobs/", altered(), "altered"),
        ("/blobs/", "/blobs/", Fault::ServerError(500), "refused"),
    ];
    for (on_azure, on_gitlab, fault, word) in faults {
        for (trial, server, at) in
            [(lab.on_azure(AZURE), lab.azure(), on_azure), (lab.on_gitlab(GITLAB), lab.gitlab(), on_gitlab)]
        {
            server.set_fault_at(at, fault.clone());
            let outcome = trial.files(None, &PATHS).await;
            let seen = (source(&outcome), &outcome.facts("repository")["api"]);
            assert_eq!(seen, ("git", &json!(word)), "{at} {fault:?}");
            check_contents(&outcome);
            server.clear_fault();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_its_own_for_the_api_is_used_there() {
    let lab = Lab::start();
    lab.sample.vary();
    let by_password = lab.on_gitlab(GITLAB).secret(CredentialKind::Password, Some("ada"), "password-canary");
    assert_eq!(source(&by_password.files(None, &PATHS).await), "git");
    let beside = by_password.api_pat("glpat-api-only").files(None, &PATHS).await;
    assert_eq!(source(&beside), "api");
    check_contents(&beside);
    let refused = lab.on_gitlab(GITLAB).api_pat("wrong");
    lab.gitlab().clear_requests();
    assert_eq!(source(&refused.files(None, &PATHS).await), "git");
    let is_api = |path: &str| path.contains("/api/v4/projects/");
    let sent = lab.gitlab().requests().iter().filter(|request| is_api(&request.path)).count();
    assert_eq!(sent, 1, "a refused token is sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relative_root_is_found_and_directories_have_pages() {
    let lab =
        Lab::with(AzureDevOps::default(), Gitlab { relative_root: "/gitlab".into(), ..Gitlab::default() });
    for number in 0..101 {
        lab.sample.add_commit("main", &format!("wide/{number:03}"), "x\n");
    }
    let trial = lab.on_gitlab("/shop/sub/web");
    let outcome = trial.files(None, &["wide/000", "wide/100", "wide/101"]).await;
    assert_eq!((source(&outcome), &outcome.0["missing"]), ("api", &json!(["wide/101"])));
    assert_eq!(outcome.0["files"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_name_a_commit_works_on_every_server() {
    let scratch = tempfile::tempdir().unwrap();
    let key = Key::make(scratch.path(), "key", KeyKind::Ed25519, None);
    let lab = Lab::start();
    let server = https(SampleRepository::small);
    let sshd =
        Sshd::plan(&[KeyKind::Ed25519]).authorize(&key).serve("shop/web.git", &lab.sample.directory).start();
    let url = server.nginx.url();
    let plain = Trial::of(Some(Provider::Git), &url, &format!("{url}/web.git"));
    let by_ssh = Trial::of(Some(Provider::Gitlab), &sshd.url(), &format!("{}/shop/web.git", sshd.url()));
    let trials = [
        (lab.on_azure(AZURE), "api"),
        (lab.on_gitlab(GITLAB), "api"),
        (plain.trust(server.authority.ca_file()).pat(TOKEN), "git"),
        (by_ssh.key(&key.private_file, None, &sshd.known_hosts()), "git"),
    ];
    let tagged = lab.sample.commit("v1.0");
    let feature = lab.sample.commit("feature");
    for (trial, expected) in trials {
        for (reference, commit, cart) in [
            ("v1.0", &tagged, "empty\n"),
            ("refs/heads/feature", &feature, "one apple\n"),
            (feature.as_str(), &feature, "one apple\n"),
            (tagged.as_str(), &tagged, "empty\n"),
        ] {
            let outcome = trial.files(Some(reference), &["src/shop/cart.txt"]).await;
            assert_eq!(source(&outcome), expected);
            assert_eq!(outcome.0["commit"], commit.as_str(), "{reference}: {:#}", outcome.0);
            assert_eq!(file(&outcome, "src/shop/cart.txt")["content"], cart, "{reference}");
            let is_commit = reference.len() == 40;
            assert_eq!(outcome.0["reference"].is_null(), is_commit, "{reference}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    let lab = Lab::start();
    for trial in [lab.on_azure(AZURE), lab.on_gitlab(GITLAB)] {
        let nothing = trial.files(None, &["NOPE.md", "bin/nope"]).await;
        assert_eq!(nothing.diagnosis(), ("path_not_found", "checkout"), "{:#}", nothing.0);
        assert!(nothing.0["diagnosis"]["summary"].as_str().unwrap().contains("NOPE.md, bin/nope"));
        let misspelled = trial.files(Some("feautre"), &["README.md"]).await;
        assert_eq!(misspelled.diagnosis(), ("reference_not_found", "references"));
        assert!(misspelled.0["diagnosis"]["remedies"][0].as_str().unwrap().contains("feature"));
    }
    for trial in [lab.on_azure("/Coll/My%20Shop/_git/empty"), lab.on_gitlab("/shop/empty")] {
        assert_eq!(trial.files(None, &["README.md"]).await.diagnosis().0, "repository_empty");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_too_large_on_both_ways() {
    let lab = Lab::start();
    lab.sample.vary();
    for trial in [lab.on_azure(AZURE), lab.on_gitlab(GITLAB)] {
        let api = trial.files(None, &["README.md", "large.txt"]).await;
        assert_eq!(api.diagnosis(), ("too_large", "receive"), "{:#}", api.0);
        assert!(api.0["diagnosis"]["remedies"][0].as_str().unwrap().contains("fewer"));
    }
    let git = lab.on_gitlab(GITLAB).pat("glpat-git-only").files(None, &["large.txt"]).await;
    assert_eq!(git.diagnosis(), ("too_large", "checkout"), "{:#}", git.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_credential_is_sent_once_and_no_secret_comes_back() {
    let lab = Lab::start();
    for (trial, server) in [(lab.on_azure(AZURE), lab.azure()), (lab.on_gitlab(GITLAB), lab.gitlab())] {
        let outcome = trial.pat("unknown").files(None, &["README.md"]).await;
        assert_eq!(outcome.diagnosis(), ("pat_rejected", "authenticate"));
        let sent = server.requests().iter().filter(|request| request.has_authorization).count();
        assert_eq!(sent, 1);
    }
    lab.sample.add_commit("main", "echo.txt", "the token is glpat-canary-token\n");
    let outcome = lab.on_gitlab(GITLAB).files(None, &["echo.txt"]).await;
    assert!(outcome.succeeded() && !outcome.0.to_string().contains("glpat-canary-token"), "{:#}", outcome.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_and_deadline_end_both_ways() {
    let lab = Lab::start();
    let limit = Duration::from_millis(800);
    for (at, token) in [("/repository/", "glpat-canary-token"), ("/git-upload-pack", "glpat-git-only")] {
        lab.gitlab().set_fault_at(at, Fault::Stall);
        let since = Instant::now();
        let late = lab.on_gitlab(GITLAB).pat(token).within(limit).files(None, &["README.md"]).await;
        assert_eq!(late.diagnosis().0, "deadline_exceeded", "{:#}", late.0);
        assert!(since.elapsed() < limit + STOP_LIMIT);
        lab.gitlab().clear_requests();
        let trial = lab.on_gitlab(GITLAB).pat(token);
        let stop = || {
            let begun = lab.gitlab().wait_for_request(|request| request.path.contains(at), START_LIMIT);
            trial.cancel.cancel();
            (begun, Instant::now())
        };
        let (outcome, (begun, since)) = tokio::task::block_in_place(|| {
            std::thread::scope(|scope| {
                let stopper = scope.spawn(stop);
                let outcome = Handle::current().block_on(trial.files(None, &["README.md"]));
                (outcome, stopper.join().unwrap())
            })
        });
        assert!(begun && since.elapsed() < STOP_LIMIT);
        assert_eq!(outcome.diagnosis().0, "cancelled", "{:#}", outcome.0);
        lab.gitlab().clear_fault();
    }
}
