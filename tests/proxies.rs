//! Connection tests through every kind of proxy, and what each of them can refuse.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;

use sortie::config::{Proxy as Way, ProxyAuthorization, ProxyKind, ProxyServer};
use sortie::dial::{LookupError, Names};
use sortie::provider::Provider;
use sortie::secret::Secret;
use stand_ins::{Authority, CertificateKind};

use crate::connection_test::{AZURE_PAT, Lab};
use crate::support::binary::sortie;
use crate::support::control_plane::{ControlPlane, secret_file};
use crate::support::process::write_private;
use crate::support::proxy::{Interceptor, Proxy, Socks, TlsProxy};
use crate::support::repository::SampleRepository;
use crate::support::scene::{PAT, Scene};
use crate::support::sshd::{Key, KeyKind, Sshd};
use crate::trial::{Outcome, Trial};

const REPOSITORY: &str = "/Coll/My%20Shop/_git/web";
const USER: &str = "ada";
const PASSWORD: &str = "proxy-canary";

fn expect(outcome: &Outcome, code: &str, stage: &str) {
    assert_eq!(outcome.diagnosis(), (code, stage), "{:#}", outcome.0);
}

fn way(kind: ProxyKind, port: u16, with_login: bool) -> Way {
    let password = Secret::new(PASSWORD.to_owned());
    let authorization = with_login.then(|| ProxyAuthorization { user: USER.to_owned(), password });
    Way::Through(ProxyServer { authorization, ..ProxyServer::new(kind, "127.0.0.1", port) })
}

fn through(mut trial: Trial, kind: ProxyKind, port: u16, with_login: bool) -> Trial {
    trial.server.proxy = way(kind, port, with_login);
    trial
}

/// Knows no name at all, so that names must be looked up elsewhere.
struct NoNames;

impl Names for NoNames {
    fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, LookupError> {
        Err(LookupError::NotFound)
    }
}

/// A proxy that answers every request with these bytes.
fn answering(answer: &'static str) -> (u16, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let _ = tcp.read(&mut [0; 4096]);
        tcp.write_all(answer.as_bytes()).unwrap();
    });
    (port, thread)
}

fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_proxy_carries_a_whole_test_and_looks_names_up_itself() {
    let lab = Lab::start();
    let plain = Proxy::start(USER, PASSWORD);
    // The proxy's authority is another than the server's, and vouches for the proxy alone.
    let elsewhere = tempfile::tempdir().unwrap();
    let of_proxy = Authority::create(elsewhere.path()).unwrap();
    let secured = TlsProxy::start(&of_proxy, CertificateKind::Valid, USER, PASSWORD);
    let (open, closed) = (Socks::start(None), Socks::start(Some((USER, PASSWORD))));
    let base = lab.azure().url().replace("127.0.0.1", "localhost");
    for (kind, port, login, shown) in [
        (ProxyKind::Http, plain.port(), true, "basic"),
        (ProxyKind::Https, secured.port(), true, "basic"),
        (ProxyKind::Socks5, open.port(), false, ""),
        (ProxyKind::Socks5, closed.port(), true, "password"),
    ] {
        let trial = Trial::of(Some(Provider::AzureDevops), &base, &format!("{base}{REPOSITORY}"));
        let trial = trial.trust(lab.authority.ca_file()).pat(AZURE_PAT).names(Arc::new(NoNames));
        let mut trial = through(trial, kind, port, login);
        trial.server.proxy_ca_file = Some(of_proxy.ca_file().to_owned());
        let outcome = trial.run().await;
        assert!(outcome.succeeded(), "{kind:?}: {:#}", outcome.0);
        assert_eq!(outcome.stages("skipped"), ["resolve"], "{kind:?}");
        let facts = outcome.facts("proxy");
        assert_eq!(facts["proxy"], format!("127.0.0.1:{port}"));
        assert_eq!(facts["kind"], kind.as_str());
        assert_eq!(facts["authentication"].as_str().unwrap_or_default(), shown);
        assert_eq!(facts["tls"]["version"].is_string(), kind == ProxyKind::Https, "{facts:#}");
        assert!(!outcome.0.to_string().contains(PASSWORD));
    }
    for socks in [&open, &closed] {
        assert!(socks.log().contains("localhost"), "the name went to the proxy: {}", socks.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_goes_through_every_kind_of_proxy() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&scratch.path().join("web.git"));
    let key = Key::make(scratch.path(), "key", KeyKind::Ed25519, None);
    let sshd =
        Sshd::plan(&[KeyKind::Ed25519]).authorize(&key).serve("shop/web.git", &sample.directory).start();
    let authority = Authority::create(scratch.path()).unwrap();
    let plain = Proxy::start(USER, PASSWORD);
    let secured = TlsProxy::start(&authority, CertificateKind::Valid, USER, PASSWORD);
    let socks = Socks::start(Some((USER, PASSWORD)));
    for (kind, port) in [
        (ProxyKind::Http, plain.port()),
        (ProxyKind::Https, secured.port()),
        (ProxyKind::Socks5, socks.port()),
    ] {
        let url = format!("{}/shop/web.git", sshd.url());
        let trial = Trial::of(Some(Provider::Git), &sshd.url(), &url);
        let trial = trial.key(&key.private_file, None, &sshd.known_hosts());
        let mut trial = through(trial, kind, port, true);
        trial.server.proxy_ca_file = Some(authority.ca_file().to_owned());
        let outcome = trial.run().await;
        assert!(outcome.succeeded(), "{kind:?}: {:#}", outcome.0);
        assert_eq!(outcome.facts("proxy")["kind"], kind.as_str());
    }
}

#[test]
fn the_line_to_the_control_plane_goes_through_socks_and_https_proxies() {
    let scene = Scene::small();
    let control_plane = ControlPlane::start();
    let secured = TlsProxy::start(&scene.authority, CertificateKind::Valid, USER, PASSWORD);
    let socks = Socks::start(Some((USER, PASSWORD)));
    for (name, url) in [
        ("by-https", format!("https://127.0.0.1:{}", secured.port())),
        ("by-socks", format!("socks5://127.0.0.1:{}", socks.port())),
    ] {
        let plan = scene.agent(name);
        let login = secret_file(plan.directory(), "proxy-auth", &format!("{USER}:{PASSWORD}"));
        let keys = format!(
            "proxy = \"{url}\"\nproxy_auth = {{ file = \"{}\" }}\nproxy_ca_file = \"{}\"",
            login.display(),
            scene.authority.ca_file().display()
        );
        let agent = plan.with_control_plane(&keys).start(&control_plane);
        assert!(!agent.log().contains(PASSWORD));
    }
    let port = control_plane.url().rsplit(':').next().unwrap().to_owned();
    assert!(
        !secured.inner.tunnels().is_empty() && secured.inner.tunnels().iter().all(|t| t.ends_with(&port))
    );
    assert!(socks.log().contains(&port), "{}", socks.log());
}

#[test]
fn the_flags_of_the_command_line_lead_a_test_and_a_clone_through_proxies() {
    let scene = Scene::small();
    let secured = TlsProxy::start(&scene.authority, CertificateKind::Valid, USER, PASSWORD);
    let socks = Socks::start(Some((USER, PASSWORD)));
    let ca = scene.authority.ca_file().display().to_string();
    let (pat, login) = (scene.scratch().join("pat"), scene.scratch().join("login"));
    write_private(&pat, PAT).unwrap();
    write_private(&login, &format!("{USER}:{PASSWORD}\n")).unwrap();
    let (pat, login) = (pat.display().to_string(), login.display().to_string());
    let common =
        ["--provider", "gitlab", "--pat-file", &pat, "--ca-file", &ca, "--proxy-auth-file", &login, "--json"];
    let url = scene.url();
    let proxy = format!("https://127.0.0.1:{}", secured.port());
    let by_https = ["test", &url, "--proxy", &proxy, "--proxy-ca-file", &ca];
    let output = sortie(by_https.iter().chain(&common));
    assert_eq!(output.status, Some(0), "{output:?}");
    assert!(!secured.inner.tunnels().is_empty());
    let proxy = format!("socks5h://127.0.0.1:{}", socks.port());
    let output = sortie(["clone", &url, "copy", "--proxy", &proxy].iter().chain(&common));
    assert_eq!(output.status, Some(0), "{output:?}");
    assert!(socks.log().contains("127.0.0.1"), "{}", socks.log());
    assert!(!format!("{output:?}").contains(PASSWORD));
    for wrong in [&["--proxy", "socks4://127.0.0.1:1"][..], &["--client-cert-file", &ca]] {
        assert_eq!(sortie(["test", &url].iter().chain(wrong)).status, Some(2), "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_proxy_refuses_is_told_apart() {
    let lab = Lab::start();
    let socks = Socks::start(Some((USER, "another")));
    let plain = Proxy::start(USER, PASSWORD);
    let on = |kind, port, login| through(lab.on_azure(REPOSITORY), kind, port, login);
    // tinyproxy has an answer of its own for a password that is wrong: 401.
    let other = Proxy::start(USER, "another");
    let wrong = || on(ProxyKind::Http, other.port(), true);
    let told = wrong().run().await;
    assert_eq!(told.facts("proxy")["status"], 401);
    let summary = told.0["diagnosis"]["summary"].as_str().unwrap();
    assert!(summary.contains("the proxy did not accept the user and password"), "{summary}");
    let cases = [
        (on(ProxyKind::Socks5, socks.port(), false), "proxy_auth_required"),
        (on(ProxyKind::Socks5, socks.port(), true), "proxy_auth_required"),
        (wrong(), "proxy_auth_required"),
        (on(ProxyKind::Http, closed_port(), false), "proxy_unreachable"),
        (on(ProxyKind::Socks5, closed_port(), false), "proxy_unreachable"),
    ];
    for (trial, code) in cases {
        let outcome = trial.run().await;
        expect(&outcome, code, "proxy");
        assert!(!outcome.0.to_string().contains(PASSWORD));
    }
    let (port, thread) = answering(
        "HTTP/1.1 403 Forbidden\r\nVia: 1.1 squid\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\nContent-Length: 0\r\n\r\n",
    );
    let refused = on(ProxyKind::Http, port, false).run().await;
    expect(&refused, "proxy_refused", "proxy");
    let facts = refused.facts("proxy");
    assert_eq!((&facts["status"], &facts["squid_error"]), (&403.into(), &"ERR_ACCESS_DENIED 0".into()));
    thread.join().unwrap();
    let (port, thread) = answering("HTTP/1.1 400 Bad Request\r\n\r\n");
    expect(&on(ProxyKind::Socks5, port, false).run().await, "proxy_unreachable", "proxy");
    thread.join().unwrap();
    let (port, thread) = answering("HTTP/1.1 400 Bad Request\r\n\r\n");
    expect(&on(ProxyKind::Https, port, true).run().await, "not_tls", "proxy");
    thread.join().unwrap();
    // A real one that does not reach the target says so by a status.
    let url = format!("https://127.0.0.1:{}/web.git", closed_port());
    let away = |kind, port, login| through(Trial::of(Some(Provider::Git), &url, &url), kind, port, login);
    let missed = away(ProxyKind::Http, plain.port(), true).run().await;
    expect(&missed, "proxy_refused", "proxy");
    let remedies = missed.0["diagnosis"]["remedies"].to_string();
    assert!(remedies.contains("did not reach") && !remedies.contains("its rules refuse it"), "{remedies}");
    assert_eq!(lab.azure().connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_socks_proxy_meets_behind_itself_is_the_targets() {
    let socks = Socks::start(None);
    let url = format!("https://127.0.0.1:{}/web.git", closed_port());
    let trial = through(Trial::of(Some(Provider::Git), &url, &url), ProxyKind::Socks5, socks.port(), false);
    let outcome = trial.run().await;
    expect(&outcome, "connection_refused", "connect");
    assert!(outcome.stages("passed").contains(&"proxy"), "{:#}", outcome.0);
    assert_eq!(outcome.facts("proxy")["reply"], "refused");
    let remedy = outcome.0["diagnosis"]["remedies"][0].as_str().unwrap();
    assert!(remedy.contains(&format!("127.0.0.1:{}", socks.port())), "{remedy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_offers_windows_schemes_alone_is_named_with_a_way_out() {
    let lab = Lab::start();
    let (port, thread) = answering(
        "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Negotiate\r\n\
         Proxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n",
    );
    let outcome = through(lab.on_azure(REPOSITORY), ProxyKind::Http, port, true).run().await;
    expect(&outcome, "proxy_auth_required", "proxy");
    assert_eq!(outcome.facts("proxy")["schemes"], serde_json::json!(["negotiate", "ntlm"]));
    let remedies = outcome.0["diagnosis"]["remedies"].to_string();
    assert!(remedies.contains("negotiate, ntlm") && remedies.contains("cntlm"), "{remedies}");
    thread.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trouble_with_the_proxy_itself_is_named_as_the_proxys() {
    let lab = Lab::start();
    for (kind, trusted, code) in [
        (CertificateKind::UnknownAuthority, true, "tls_untrusted_issuer"),
        (CertificateKind::Valid, false, "tls_untrusted_issuer"),
        (CertificateKind::Expired, true, "tls_expired"),
        (CertificateKind::WrongName, true, "tls_name_mismatch"),
    ] {
        let proxy = TlsProxy::start(&lab.authority, kind, USER, PASSWORD);
        let mut trial = through(lab.on_azure(REPOSITORY), ProxyKind::Https, proxy.port(), true);
        // What the server's own authority vouches for is no word on the proxy.
        trial.server.proxy_ca_file = trusted.then(|| lab.authority.ca_file().to_owned());
        let outcome = trial.run().await;
        expect(&outcome, code, "proxy");
        let summary = outcome.0["diagnosis"]["summary"].as_str().unwrap();
        assert!(summary.contains(&format!("the proxy 127.0.0.1:{}", proxy.port())), "{summary}");
        assert!(outcome.facts("proxy")["tls"]["fingerprint"].is_string(), "{:#}", outcome.0);
        assert_eq!(proxy.inner.tunnels(), Vec::<String>::new(), "the password did not go there");
    }
    assert_eq!(lab.azure().connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_opens_tls_is_found_by_the_chain_without_it() {
    let lab = Lab::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let inspection = Authority::create(elsewhere.path()).unwrap();
    let interceptor = Interceptor::start(&inspection);
    let on = |trial| through(trial, ProxyKind::Http, interceptor.port(), false);
    let outcome = on(lab.on_azure(REPOSITORY)).run().await;
    expect(&outcome, "tls_intercepted", "tls");
    let facts = outcome.facts("tls");
    let (proxied, direct) =
        (facts["fingerprint"].as_str().unwrap(), facts["direct_fingerprint"].as_str().unwrap());
    assert_ne!(proxied, direct);
    let summary = outcome.0["diagnosis"]["summary"].as_str().unwrap();
    assert!(summary.contains(proxied) && summary.contains(direct), "{summary}");
    assert_eq!(outcome.facts("proxy")["via"], "1.1 inspection");
    assert_eq!(lab.azure().requests(), [], "nothing was sent past the proxy");

    // A server whose own chain is of the same unknown issuer is not called intercepted.
    let mut unknown = on(lab.on_azure(REPOSITORY));
    unknown.server.ca_file = None;
    expect(&unknown.run().await, "tls_untrusted_issuer", "tls");
    // Without a way past the proxy, what came through it has to do.
    let url = format!("https://127.0.0.1:{}/web.git", closed_port());
    let alone = on(Trial::of(Some(Provider::Git), &url, &url));
    expect(&alone.run().await, "tls_untrusted_issuer", "tls");
}
