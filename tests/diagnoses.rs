//! Every way to fail that a connection test must name, brought about for real: the code, the stage, the remedy.

use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use sortie::credential::CredentialKind;
use sortie::dial::{LookupError, Names, ResolverProblem};
use sortie::provider::{Provider, Scope};
use stand_ins::{Authority, AzureDevOps, BadToken, CertificateKind, Fault, Gitlab, MissingScope};

use crate::connection_test::{AZURE_PAT, Lab};
use crate::support::nginx::Nginx;
use crate::support::proxy::Proxy;
use crate::support::repository::SampleRepository;
use crate::support::sshd::{Key, KeyKind, Sshd};
use crate::trial::{Outcome, Trial};

const REPOSITORY: &str = "/Coll/My%20Shop/_git/web";
const PROJECT: &str = "/shop/sub/web";

fn expect(outcome: &Outcome, code: &str, stage: &str) {
    assert_eq!(outcome.diagnosis(), (code, stage), "{:#}", outcome.0);
}

/// How many requests carried a credential.
fn credentials_sent(server: &stand_ins::ServerHandle) -> usize {
    server.requests().iter().filter(|request| request.has_authorization).count()
}

/// Tells of no name.
struct NoNames;

impl Names for NoNames {
    fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, LookupError> {
        Err(LookupError::NotFound)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_refuses_before_anything_is_opened() {
    let lab = Lab::start();
    let base = lab.azure().url();
    let port = lab.azure().port();
    let cases = [
        ("https://user:canary@127.0.0.1/x".to_owned(), "url_invalid"),
        ("file:///etc".to_owned(), "scheme_not_allowed"),
        (format!("http://127.0.0.1:{port}/Coll"), "scheme_not_allowed"),
        (format!("{base}/Coll/$/Shop/Main"), "tfvc_not_supported"),
        (format!("https://127.0.0.1:{}/Coll", port ^ 1), "server_not_declared"),
        ("https://elsewhere.invalid/x".to_owned(), "server_not_declared"),
    ];
    for (url, code) in cases {
        let outcome = Trial::of(Some(Provider::AzureDevops), &base, &url).pat(AZURE_PAT).run().await;
        expect(&outcome, code, "policy");
        assert!(!outcome.0.to_string().contains("canary"), "{url}");
    }
    let mut other = lab.on_azure(REPOSITORY);
    other.request.credential = Some("unheard_of".into());
    expect(&other.run().await, "credential_missing", "authenticate");
    assert_eq!(lab.azure().connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_to_read_stays_below_what_the_operator_declared() {
    let lab = Lab::start();
    let below = |trial: Trial, base: String| {
        let mut trial = trial;
        trial.server.url = sortie::remote_url::RemoteUrl::parse(&base).unwrap();
        trial
    };
    let group = || below(lab.on_gitlab("/shop"), format!("{}/shop", lab.gitlab().url()));
    let project = || below(lab.on_azure("/Coll/My%20Shop"), format!("{}/Coll/My%20Shop", lab.azure().url()));
    let by_password = |trial: Trial| trial.secret(CredentialKind::Password, Some("ada"), "password-canary");
    let outside = [
        (group().reading("other/secret"), "server_not_declared"),
        (group().reading("shopping/secret"), "server_not_declared"),
        (group().reading("x/../../other/admin"), "url_invalid"),
        (by_password(group()).reading("other/secret"), "server_not_declared"),
        (project().reading("tools/tools"), "server_not_declared"),
        (project().reading("../tools"), "url_invalid"),
        (project().reading("My Shop/../tools/_git/tools"), "url_invalid"),
    ];
    for (trial, code) in outside {
        expect(&trial.run().await, code, "policy");
    }
    let asked: Vec<_> =
        [lab.gitlab(), lab.azure()].into_iter().flat_map(|server| server.requests()).collect();
    let strayed =
        |path: &str| ["info/refs", "_apis/git", "secret", "tools"].iter().any(|part| path.contains(part));
    assert!(asked.iter().all(|request| !strayed(&request.path)), "{asked:?}");
    for trial in [group().reading("shop/sub/web"), project().reading("web"), project().reading("My Shop/web")]
    {
        let outcome = trial.run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_git_did_not_tell_is_not_known() {
    let lab = Lab::start();
    for server in [lab.azure(), lab.gitlab()] {
        server.set_fault_at("info/refs", Fault::ServerError(500));
    }
    for trial in [lab.on_azure(REPOSITORY), lab.on_gitlab(PROJECT)] {
        let outcome = trial.run().await;
        assert_eq!(outcome.diagnosis().0, "server_error", "{:#}", outcome.0);
        let repository = &outcome.0["repository"];
        assert_eq!(repository["default_branch"], "main");
        assert!(repository["references"].is_null() && repository["empty"].is_null(), "{repository:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_do_not_come_about_are_told_apart() {
    let url = "https://git.example/web.git";
    let unnamed = Trial::of(Some(Provider::Git), url, url).names(Arc::new(NoNames));
    expect(&unnamed.run().await, "name_not_found", "resolve");
    let unanswered = Trial::of(Some(Provider::Git), url, url).names(Arc::new(FailingNames));
    expect(&unanswered.run().await, "resolver_failed", "resolve");
    // The system has no way to a broadcast address for a connection.
    let broadcast = "https://127.255.255.255/web.git";
    expect(
        &Trial::of(Some(Provider::Git), broadcast, broadcast).run().await,
        "network_unreachable",
        "connect",
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("https://{}/web.git", listener.local_addr().unwrap());
    drop(listener);
    expect(&Trial::of(Some(Provider::Git), &closed, &closed).run().await, "connection_refused", "connect");
    let mut loopback = Trial::of(Some(Provider::Git), "https://localhost/", "https://localhost/x");
    loopback.server.url = sortie::remote_url::RemoteUrl::parse("https://git.example").unwrap();
    loopback.server.allow_loopback = false;
    loopback.request.target = sortie::task::TargetSpec::Url("https://git.example/x".into());
    let rebinding = loopback.names(Arc::new(Loopback));
    expect(&rebinding.run().await, "address_not_allowed", "resolve");
}

/// Gives no verdict, as a resolver whose servers are away.
struct FailingNames;

impl Names for FailingNames {
    fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, LookupError> {
        Err(LookupError::Failed(ResolverProblem::Temporary))
    }
}

/// Tells that every name is this host.
pub(crate) struct Loopback;

impl Names for Loopback {
    fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, LookupError> {
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    }
}

#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods)] // The queue is filled from outside of the agent.
async fn an_address_that_drops_everything_times_out() {
    // With its queue full, the kernel drops what a firewall would drop.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    for _ in 0..8 {
        let connecting = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100));
        queued.extend(connecting.ok());
    }
    let url = format!("https://{address}/web.git");
    expect(&Trial::of(Some(Provider::Git), &url, &url).run().await, "connection_timed_out", "connect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_without_its_password_is_named() {
    let lab = Lab::start();
    let proxy = Proxy::start("user", "password");
    let outcome = lab.on_azure(REPOSITORY).proxy(proxy.port()).run().await;
    expect(&outcome, "proxy_auth_required", "proxy");
    // An address is judged by policy and needs no lookup for that; only a name goes to the proxy unjudged.
    assert_eq!(outcome.stages("passed"), ["policy", "resolve"]);
    assert_eq!(outcome.stages("skipped")[0], "connect");
    assert_eq!(lab.azure().connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_told_apart_and_get_no_secret() {
    let cases = [
        (CertificateKind::UnknownAuthority, "tls_untrusted_issuer"),
        (CertificateKind::Expired, "tls_expired"),
        (CertificateKind::NotYetValid, "tls_not_yet_valid"),
        (CertificateKind::WrongName, "tls_name_mismatch"),
    ];
    for (certificate, code) in cases {
        let lab = Lab::with(AzureDevOps { certificate, ..AzureDevOps::default() }, Gitlab::default());
        let outcome = lab.on_azure(REPOSITORY).run().await;
        expect(&outcome, code, "tls");
        assert!(outcome.facts("tls")["fingerprint"].is_string(), "{:#}", outcome.0);
        assert_eq!(lab.azure().requests(), []);
    }
    let lab = Lab::with(AzureDevOps { plain_http: true, ..AzureDevOps::default() }, Gitlab::default());
    let url = format!("https://127.0.0.1:{}{REPOSITORY}", lab.azure().port());
    expect(&Trial::of(Some(Provider::AzureDevops), &url, &url).run().await, "not_tls", "tls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_sent_once() {
    for (bad_token, code) in [
        (BadToken::Empty401, "pat_rejected"),
        (BadToken::SignInPage, "sign_in_page"),
        (BadToken::Redirect, "sign_in_page"),
    ] {
        let lab = Lab::with(AzureDevOps { bad_token, ..AzureDevOps::default() }, Gitlab::default());
        let outcome = lab.on_azure(REPOSITORY).pat("wrong-canary").run().await;
        expect(&outcome, code, "authenticate");
        assert_eq!(credentials_sent(lab.azure()), 1, "{bad_token:?}");
        assert!(!outcome.0.to_string().contains("canary"));
    }
    let lab = Lab::start();
    for (token, code) in
        [("wrong", "pat_rejected"), ("glpat-expired", "pat_expired"), ("glpat-revoked", "pat_rejected")]
    {
        lab.gitlab().clear_requests();
        let outcome = lab.on_gitlab(PROJECT).pat(token).run().await;
        expect(&outcome, code, "authenticate");
        assert_eq!(credentials_sent(lab.gitlab()), 1, "{token}");
    }
    lab.gitlab().clear_requests();
    let password = lab.on_gitlab(PROJECT).secret(CredentialKind::Password, Some("ada"), "wrong");
    expect(&password.run().await, "password_rejected", "authenticate");
    assert_eq!(credentials_sent(lab.gitlab()), 1);
    let bearer = lab.on_gitlab(PROJECT).secret(CredentialKind::Bearer, None, "wrong");
    expect(&bearer.run().await, "bearer_rejected", "authenticate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_offers_windows_schemes_alone_is_named() {
    let schemes = vec!["Negotiate".to_owned(), "NTLM".to_owned()];
    let lab = Lab::with(AzureDevOps { schemes, ..AzureDevOps::default() }, Gitlab::default());
    expect(&lab.on_azure(REPOSITORY).run().await, "basic_not_offered", "authenticate");
    assert_eq!(credentials_sent(lab.azure()), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_scope_is_named_by_the_providers_own_name() {
    for missing_scope in [MissingScope::Empty401, MissingScope::Json403] {
        let lab = Lab::with(AzureDevOps { missing_scope, ..AzureDevOps::default() }, Gitlab::default());
        let outcome = lab.on_azure(REPOSITORY).pat("azure-project-only").run().await;
        expect(&outcome, "scope_missing", "authorize");
        assert_eq!(outcome.0["credential"]["missing_scopes"], serde_json::json!(["vso.code"]));
        assert!(outcome.0["diagnosis"]["remedies"][0].as_str().unwrap().contains("vso.code"));
        assert_eq!(outcome.0["capabilities"]["read_code"], "no");
        let account = lab.on_azure("/Coll").pat("azure-work-only").run().await;
        expect(&account, "scope_missing", "authorize");
        let missing = serde_json::json!(["vso.code", "vso.project"]);
        assert_eq!(account.0["credential"]["missing_scopes"], missing);
    }
    let lab = Lab::start();
    let outcome = lab.on_gitlab(PROJECT).pat("glpat-api-only").run().await;
    expect(&outcome, "scope_missing", "authorize");
    assert_eq!(outcome.0["credential"]["missing_scopes"], serde_json::json!(["read_repository"]));
    let group = lab.on_gitlab("/shop").pat("glpat-git-only").scope(Scope::Account).run().await;
    expect(&group, "scope_missing", "authorize");
    assert_eq!(group.0["credential"]["missing_scopes"], serde_json::json!(["read_api"]));
    assert_eq!(group.0["capabilities"]["read_code"], "unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_disabled_or_moved_is_told_apart() {
    let lab = Lab::start();
    let cases = [
        (lab.on_azure("/Coll/My%20Shop/_git/nope"), "repository_not_found_or_denied", "repository"),
        (lab.on_azure("/Coll/Nope/_git/web"), "project_not_found_or_denied", "authorize"),
        (lab.on_azure("/Coll/My%20Shop/_git/old"), "repository_disabled", "repository"),
        (lab.on_azure("/Nope/My%20Shop/_git/web"), "wrong_base_path", "identify"),
        (lab.on_gitlab("/shop/nope"), "repository_not_found_or_denied", "repository"),
        (lab.on_gitlab("/shop/hidden"), "repository_not_found_or_denied", "repository"),
        (lab.on_gitlab("/old/web"), "repository_moved", "repository"),
    ];
    for (trial, code, stage) in cases {
        expect(&trial.run().await, code, stage);
    }
    let moved = lab.on_gitlab("/old/web").run().await;
    assert!(moved.0["diagnosis"]["remedies"][0].as_str().unwrap().contains("/shop/sub/web"), "{:#}", moved.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_path_that_is_missing_is_found_by_where_the_root_leads() {
    let azure = AzureDevOps { base_path: "/tfs".into(), ..AzureDevOps::default() };
    let gitlab = Gitlab { relative_root: "/gitlab".into(), ..Gitlab::default() };
    let lab = Lab::with(azure, gitlab);
    let origin = |server: &stand_ins::ServerHandle| format!("https://127.0.0.1:{}", server.port());
    for (provider, base, path, answered) in [
        (Provider::AzureDevops, origin(lab.azure()), REPOSITORY, "/tfs"),
        (Provider::Gitlab, origin(lab.gitlab()), PROJECT, "/gitlab"),
    ] {
        let trial = Trial::of(Some(provider), &base, &format!("{base}{path}"));
        let outcome = trial.trust(lab.authority.ca_file()).pat(AZURE_PAT).run().await;
        expect(&outcome, "wrong_base_path", "identify");
        assert!(outcome.0["diagnosis"]["summary"].as_str().unwrap().contains(answered));
    }
    assert_eq!(credentials_sent(lab.azure()) + credentials_sent(lab.gitlab()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn misbehaving_servers_are_bounded_and_named() {
    let lab = Lab::start();
    let elsewhere = "https://elsewhere.invalid/collect".to_owned();
    let cases = [
        (Fault::RateLimited { retry_after: 1_000_000_000 }, "rate_limited"),
        (Fault::ServerError(500), "server_error"),
        (Fault::ServerError(503), "server_unavailable"),
        (Fault::Redirect { status: 307, location: elsewhere }, "unexpected_answer"),
        (Fault::InvalidJson, "unexpected_answer"),
        (Fault::HugeBody, "unexpected_answer"),
    ];
    for (fault, code) in cases {
        for (server, trial) in
            [(lab.azure(), lab.on_azure(REPOSITORY)), (lab.gitlab(), lab.on_gitlab(PROJECT))]
        {
            server.clear_fault();
            server.set_fault(fault.clone());
            let outcome = trial.run().await;
            expect(&outcome, code, "identify");
            server.clear_fault();
        }
    }
    lab.azure().set_fault_at("/_apis/projects", Fault::RateLimited { retry_after: 1_000_000_000 });
    let limited = lab.on_azure(REPOSITORY).run().await;
    expect(&limited, "rate_limited", "authorize");
    assert!(limited.0["diagnosis"]["summary"].as_str().unwrap().contains("3600 s"), "{:#}", limited.0);
    lab.gitlab().set_fault_at("info/refs", Fault::ServerError(502));
    assert_eq!(lab.on_gitlab(PROJECT).run().await.diagnosis().0, "server_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_and_cancel_end_a_test_where_it_is() {
    let lab = Lab::start();
    lab.azure().set_fault_at("/_apis/projects", Fault::Stall);
    let late = lab.on_azure(REPOSITORY).within(Duration::from_millis(500)).run().await;
    expect(&late, "deadline_exceeded", "authorize");
    assert_eq!(late.stages("skipped"), ["repository", "references"]);
    lab.gitlab().set_fault_at("info/refs", Fault::Stall);
    let trial = lab.on_gitlab(PROJECT);
    let (cancel, server) = (trial.cancel.clone(), lab.gitlab().clone());
    let waiting = tokio::task::spawn_blocking(move || {
        let arrived = server.wait_for_request(|r| r.path.contains("info/refs"), Duration::from_secs(30));
        cancel.cancel();
        arrived
    });
    let outcome = trial.run().await;
    assert_eq!(outcome.diagnosis().0, "cancelled", "{:#}", outcome.0);
    assert!(waiting.await.unwrap(), "git was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_cannot_be_used_are_named_before_anything_is_sent() {
    let lab = Lab::start();
    let missing = lab.scratch.path().join("missing");
    let without_file =
        |path: &str| lab.on_azure(path).secret_file(CredentialKind::Pat, None, missing.clone(), None);
    expect(&without_file(REPOSITORY).run().await, "credential_missing", "authenticate");
    let by_name = without_file("").by_server(Some("Coll/My Shop"), Some("web")).run().await;
    expect(&by_name, "credential_missing", "authenticate");
    let target = &by_name.0["target"];
    assert!(target["url"].as_str().unwrap().starts_with("http"), "{target:#}");
    assert_eq!((&target["provider"], &target["scope"]), (&"azure-devops".into(), &"repository".into()));
    let key = Key::make(lab.scratch.path(), "key", KeyKind::Ed25519, None);
    let key_for_https = lab.on_azure(REPOSITORY).key(&key.private_file, None, lab.scratch.path());
    expect(&key_for_https.run().await, "credential_kind_mismatch", "authenticate");
    assert_eq!(lab.azure().connections(), 0);
    let mut nobody = lab.on_azure(REPOSITORY);
    nobody.server.credential = None;
    expect(&nobody.run().await, "credential_missing", "authenticate");
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_refusals_are_told_apart() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&scratch.path().join("web.git"));
    let known = Key::make(scratch.path(), "known", KeyKind::Ed25519, None);
    let locked = Key::make(scratch.path(), "locked", KeyKind::Ed25519, Some("open sesame"));
    let stranger = Key::make(scratch.path(), "stranger", KeyKind::Ed25519, None);
    let sshd = Sshd::plan(&[KeyKind::Ed25519])
        .authorize(&known)
        .authorize(&locked)
        .serve("shop/web.git", &sample.directory)
        .start();
    let trial = |path: &str| Trial::of(Some(Provider::Gitlab), &sshd.url(), &format!("{}{path}", sshd.url()));
    let hosts = sshd.known_hosts();
    let cases = [
        (
            trial("/shop/web.git").key(&known.private_file, None, &sshd.known_hosts_empty()),
            "host_key_unknown",
            "host_key",
        ),
        (
            trial("/shop/web.git").key(&known.private_file, None, &sshd.known_hosts_changed()),
            "host_key_changed",
            "host_key",
        ),
        (
            trial("/shop/web.git").key(&stranger.private_file, None, &hosts),
            "ssh_key_rejected",
            "authenticate",
        ),
        (
            trial("/shop/web.git").key(&locked.private_file, None, &hosts),
            "ssh_key_passphrase",
            "authenticate",
        ),
        (
            trial("/shop/web.git").key(&locked.private_file, Some("wrong"), &hosts),
            "ssh_key_passphrase",
            "authenticate",
        ),
        (
            trial("/shop/nope.git").key(&known.private_file, None, &hosts),
            "repository_not_found_or_denied",
            "repository",
        ),
        (trial("/shop/web.git").pat("token"), "credential_kind_mismatch", "authenticate"),
    ];
    for (trial, code, stage) in cases {
        expect(&trial.run().await, code, stage);
    }
    let unknown =
        trial("/shop/web.git").key(&known.private_file, None, &sshd.known_hosts_empty()).run().await;
    let remedy = unknown.0["diagnosis"]["remedies"][0].as_str().unwrap();
    assert!(remedy.contains(&sshd.fingerprint(0)) && remedy.contains("ssh-ed25519"), "{remedy}");
    let lab = Lab::start();
    let port = lab.azure().port();
    let not_ssh = Trial::of(
        Some(Provider::Git),
        &format!("ssh://127.0.0.1:{port}"),
        &format!("ssh://git@127.0.0.1:{port}/x"),
    );
    expect(&not_ssh.key(&known.private_file, None, &hosts).run().await, "not_ssh", "host_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_git_servers_are_diagnosed_by_git_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    std::fs::create_dir(&root).unwrap();
    SampleRepository::small(&root.join("web.git"));
    let authority = Authority::create(scratch.path()).unwrap();
    let nginx = Nginx::plan(&root).accept_pat("right").start(&authority);
    let trial = |path: &str| {
        Trial::of(Some(Provider::Git), &nginx.url(), &format!("{}{path}", nginx.url()))
            .trust(authority.ca_file())
    };
    expect(&trial("/web.git").pat("wrong").run().await, "pat_rejected", "authenticate");
    expect(&trial("/nope.git").pat("right").run().await, "repository_not_found_or_denied", "repository");
    expect(&trial("/web.git").run().await, "credential_missing", "authenticate");
    let rejected = trial("/web.git").pat("wrong").run().await;
    let facts = rejected.facts("authenticate");
    assert_eq!(
        (&facts["status"], &facts["schemes"]),
        (&401.into(), &serde_json::json!(["Basic"])),
        "{facts:#}"
    );
    assert!(facts["server_header"].as_str().unwrap().starts_with("nginx"), "{facts:#}");
    let mut unnamed = trial("/nope.git").pat("right");
    (unnamed.request.provider, unnamed.server.provider) = (None, None);
    let hidden = unnamed.run().await;
    expect(&hidden, "repository_not_found_or_denied", "repository");
    assert_eq!(hidden.facts("identify")["schemes"], serde_json::json!(["Basic"]));
}
