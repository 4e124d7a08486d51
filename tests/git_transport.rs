//! Lists of references over the daemon's own transports, against servers that are not ours.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use sortie::config::Proxy;
use sortie::credential::{Credential, Material, PrivateKey, basic};
use sortie::dial::{Alpn, Destination, Door, ProxyEnvironment};
use sortie::git::{self, Access, Control, Error, Remote, summarize};
use sortie::policy::AddressRule;
use sortie::remote_url::RemoteUrl;
use sortie::report::{Stage, StageLog, Status};
use sortie::secret::Secret;
use sortie::ssh::{self, KnownHosts, Login};
use stand_ins::Authority;
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::nginx::Nginx;
use crate::support::process::require;
use crate::support::repository::SampleRepository;
use crate::support::sshd::{Key, KeyKind, Sshd};

pub(crate) const TOKEN: &str = "canary-5ecre7-pat";

pub(crate) fn control(time: Duration) -> Control {
    Control::new(Instant::now() + time, CancellationToken::new())
}

pub(crate) fn a_minute() -> Control {
    control(Duration::from_secs(60))
}

fn destination(url: &RemoteUrl, ca_file: Option<PathBuf>) -> Destination {
    let is_ssh = url.scheme() == sortie::remote_url::Scheme::Ssh;
    Destination {
        host: url.host().to_owned(),
        port: url.port(),
        tls: url.scheme() == sortie::remote_url::Scheme::Https,
        alpn: if is_ssh { Alpn::None } else { Alpn::Http2OrHttp1 },
        rule: AddressRule::RemoteOrLoopback,
        proxy: Proxy::Direct,
        ca_file,
        proxy_ca_file: None,
        client_certificate: None,
    }
}

pub(crate) async fn over_http(url: &str, token: Option<&str>, authority: Option<&Authority>) -> Remote {
    over_http_by(Alpn::Http2OrHttp1, url, token, authority).await
}

pub(crate) async fn over_http_by(
    alpn: Alpn,
    url: &str,
    token: Option<&str>,
    authority: Option<&Authority>,
) -> Remote {
    let url = RemoteUrl::parse(url).unwrap();
    let ca_file = authority.map(|authority| authority.ca_file().to_owned());
    let destination = Destination { alpn, ..destination(&url, ca_file) };
    let client = Door::new(ProxyEnvironment::none()).client(&destination).await.unwrap();
    let authorization = token.map(|token| basic("", &Secret::new(token.to_owned())));
    Remote { url, access: Access::Https { client, authorization } }
}

pub(crate) fn over_ssh(url: &str, key: &Path, passphrase: Option<&str>, known_hosts: &Path) -> Remote {
    let url = RemoteUrl::parse(url).unwrap();
    let material = Material::SshKey {
        key: PrivateKey::Text {
            text: Secret::new(fs::read_to_string(key).unwrap()),
            passphrase: passphrase.map(|text| Secret::new(text.to_owned())),
        },
        source: key.display().to_string(),
    };
    let login = Login {
        door: Arc::new(Door::new(ProxyEnvironment::none())),
        destination: destination(&url, None),
        user: url.user().unwrap_or("git").to_owned(),
        key: Credential { name: "key".into(), username: None, material },
        known_hosts: KnownHosts { file: Some(known_hosts.to_owned()), ..KnownHosts::default() },
        rsa_alone: false,
        greets: false,
        seen: Default::default(),
    };
    Remote { url, access: Access::Ssh(login) }
}

pub(crate) struct Https {
    pub(crate) nginx: Nginx,
    pub(crate) authority: Authority,
    pub(crate) sample: SampleRepository,
    pub(crate) directory: TempDir,
}

/// nginx with `/web.git`, which wants [`TOKEN`].
pub(crate) fn https(make: impl FnOnce(&Path) -> SampleRepository) -> Https {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    let sample = make(&root.join("web.git"));
    let authority = Authority::create(directory.path()).unwrap();
    let nginx = Nginx::plan(&root).accept_pat(TOKEN).start(&authority);
    Https { nginx, authority, sample, directory }
}

impl Https {
    pub(crate) async fn remote(&self, token: Option<&str>) -> Remote {
        over_http(&format!("{}/web.git", self.nginx.url()), token, Some(&self.authority)).await
    }
}

fn stages(log: &StageLog) -> Vec<(Stage, Status)> {
    log.records().iter().map(|record| (record.stage, record.status)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lists_the_references_over_https() {
    let server = https(SampleRepository::small);
    let (log, control) = (StageLog::default(), a_minute());
    let list = summarize(&server.remote(Some(TOKEN)).await, &control, &log).await.unwrap();
    assert_eq!(list.head_branch.as_deref(), Some("refs/heads/main"));
    assert_eq!(list.head.as_deref(), Some(server.sample.commit("main").as_str()));
    // Two branches, a light tag and an annotated one, whose commit is no reference of its own.
    assert_eq!(list.references, 4);
    assert!(control.transfer.received_bytes() > 0, "the bytes went through our transport");
    log.pass();
    let passed = [Stage::Authenticate, Stage::Repository, Stage::References];
    assert_eq!(stages(&log), passed.map(|stage| (stage, Status::Passed)));
    // The token goes along with the first request: no 401 comes before it.
    assert_eq!(server.nginx.requests().len(), 1, "{:?}", server.nginx.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_offered_once() {
    let server = https(SampleRepository::small);
    let log = StageLog::default();
    let refused = summarize(&server.remote(Some("wrong")).await, &a_minute(), &log).await.unwrap_err();
    assert!(matches!(&refused, Error::Unauthorized { schemes, .. } if schemes == &["Basic"]), "{refused:?}");
    assert_eq!(refused.stage(log.running()), Stage::Authenticate);
    assert_eq!(server.nginx.requests().len(), 1);
    let anonymous = summarize(&server.remote(None).await, &a_minute(), &StageLog::default()).await;
    assert!(matches!(anonymous, Err(Error::Unauthorized { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_and_what_is_empty_are_told_apart() {
    let server = https(SampleRepository::empty);
    let list = summarize(&server.remote(Some(TOKEN)).await, &a_minute(), &StageLog::default()).await.unwrap();
    assert_eq!((list.references, list.head), (0, None));
    let url = format!("{}/nothing.git", server.nginx.url());
    let missing = over_http(&url, Some(TOKEN), Some(&server.authority)).await;
    let refused = summarize(&missing, &a_minute(), &StageLog::default()).await.unwrap_err();
    assert!(matches!(refused, Error::NotFound { .. }), "{refused:?}");
}

/// A server that gives each connection the next answer and hands over what it was asked.
pub(crate) struct Scripted {
    pub(crate) url: String,
    pub(crate) asked: mpsc::Receiver<String>,
    pub(crate) thread: JoinHandle<()>,
}

pub(crate) fn scripted(answers: Vec<Vec<u8>>) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (heard, asked) = mpsc::sync_channel(answers.len());
    let thread = std::thread::spawn(move || {
        for answer in answers {
            let (mut connection, _) = listener.accept().unwrap();
            heard.send(read_head(&mut connection)).unwrap();
            // A client that has heard enough may be gone.
            let _ = connection.write_all(&answer);
        }
    });
    Scripted { url, asked, thread }
}

pub(crate) fn read_head(connection: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap() > 0 {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    // What is left unread when a connection is closed takes away what was sent.
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<u64>().ok())?
    });
    std::io::copy(&mut connection.take(length.unwrap_or(0)), &mut std::io::sink()).unwrap();
    head
}

pub(crate) fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

async fn answered(answers: Vec<Vec<u8>>) -> (Error, Vec<String>) {
    let server = scripted(answers);
    let remote = over_http(&format!("{}/a/web", server.url), Some(TOKEN), None).await;
    let error = summarize(&remote, &a_minute(), &StageLog::default()).await.unwrap_err();
    server.thread.join().unwrap();
    (error, server.asked.iter().collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_off_the_origin_gets_no_secret() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        for host in [format!("127.0.0.1:{port}"), format!("user:{TOKEN}@127.0.0.1:{port}")] {
            let location = format!("Location: http://{host}/a/web.git/info/refs?service=git-upload-pack\r\n");
            let (error, asked) = answered(vec![answer(status, &location, "")]).await;
            assert_eq!(asked.len(), 1);
            let Error::Redirected { location, same_origin: false, .. } = &error else { panic!("{error:?}") };
            assert!(!location.contains(TOKEN) && !location.contains('?'), "{location}");
        }
    }
    let nobody = elsewhere.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock, "somebody followed the redirect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_the_same_repository_is_followed_once() {
    let to = |path: &str| {
        answer("301 Moved", &format!("Location: {path}/info/refs?service=git-upload-pack\r\n"), "")
    };
    let (error, asked) = answered(vec![to("/a/web.git"), to("/a/web.git.git")]).await;
    assert!(matches!(error, Error::Redirected { .. }), "{error:?}");
    assert!(asked[1].starts_with("GET /a/web.git/info/refs?service=git-upload-pack "), "{asked:?}");
    assert!(asked.iter().all(|head| head.contains("authorization: Basic ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_gits_have_names() {
    let html = "Content-Type: text/html; charset=utf-8\r\n";
    let git = "Content-Type: application/x-git-upload-pack-advertisement\r\n";
    let one = |status: &str, headers: &str, body: &str| answered(vec![answer(status, headers, body)]);
    let (error, _) = one("203 Non-Authoritative", html, "<html>").await;
    assert!(matches!(error, Error::SignInPage { status: 203, .. }), "{error:?}");
    let (error, _) = one("302 Found", "Location: /_signin?reply_to=x\r\n", "").await;
    assert!(
        matches!(&error, Error::SignInPage { status: 302, location: Some(to) } if to == "/_signin"),
        "{error:?}"
    );
    let (error, _) = one("200 OK", html, "<html>").await;
    assert!(matches!(error, Error::SignInPage { status: 200, .. }), "{error:?}");
    let (error, _) = one("200 OK", "Content-Type: text/plain\r\n", "hello\x1b[31m").await;
    assert!(
        matches!(&error, Error::UnexpectedAnswer { status: 200, first_bytes, .. } if first_bytes == "hello[31m"),
        "{error:?}"
    );
    let (error, _) = one("200 OK", git, "0000").await;
    assert!(matches!(error, Error::UnexpectedAnswer { .. }), "{error:?}");
    let (error, _) = one("200 OK", git, "001e# service=git-upload-pack\n0000garbage!").await;
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    let (error, _) = one("200 OK", git, "001e# service=git-upload-pack\n00000012ERR not for you").await;
    assert!(matches!(error, Error::RepositoryUnavailable { .. } | Error::Protocol { .. }), "{error:?}");
    let (error, _) = one("429 Too Many", "Retry-After: 1000000000\r\n", "").await;
    let hour = Duration::from_secs(3600);
    assert!(matches!(error, Error::RateLimited { retry_after: Some(wait) } if wait == hour), "{error:?}");
    let (error, _) = one("403 Forbidden", "", "no").await;
    assert!(matches!(&error, Error::Forbidden { body, .. } if body == "no"), "{error:?}");
    let (error, _) = one("503 Unavailable", html, "").await;
    assert!(matches!(error, Error::ServerError { status: 503, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_ends_with_the_deadline_and_with_a_cancel() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for scheme in ["http", "ssh"] {
        let url = format!("{scheme}://git@{}/a/web", listener.local_addr().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let key = Key::make(directory.path(), "key", KeyKind::Ed25519, None);
        let remote = match scheme {
            "http" => over_http(&url, Some(TOKEN), None).await,
            _ => over_ssh(&url, &key.private_file, None, Path::new("/nonexistent")),
        };
        let short = control(Duration::from_millis(300));
        let began = Instant::now();
        let ended = summarize(&remote, &short, &StageLog::default()).await;
        assert!(matches!(ended, Err(Error::DeadlineExceeded)), "{scheme}: {ended:?}");
        let control = a_minute();
        let cancel = control.cancel.clone();
        let log = StageLog::observed(move |_| cancel.cancel());
        let ended = summarize(&remote, &control, &log).await;
        assert!(matches!(ended, Err(Error::Cancelled)), "{scheme}: {ended:?}");
        assert!(began.elapsed() < Duration::from_secs(2), "{scheme}: {:?}", began.elapsed());
    }
}

fn of_ssh(error: &Error) -> &ssh::Error {
    let Error::Ssh(error) = error else { panic!("{error:?}") };
    error
}

struct Ssh {
    sshd: Sshd,
    sample: SampleRepository,
    directory: TempDir,
    key: Key,
}

fn sshd(kind: KeyKind, passphrase: Option<&str>, host_keys: &[KeyKind]) -> Ssh {
    let directory = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&directory.path().join("web.git"));
    let key = Key::make(directory.path(), "key", kind, passphrase);
    let sshd = Sshd::plan(host_keys).authorize(&key).serve("shop/web.git", &sample.directory).start();
    Ssh { sshd, sample, directory, key }
}

impl Ssh {
    fn remote(&self, passphrase: Option<&str>, known_hosts: &Path) -> Remote {
        let url = format!("{}/shop/web.git", self.sshd.url());
        over_ssh(&url, &self.key.private_file, passphrase, known_hosts)
    }

    async fn failure(&self, remote: &Remote) -> (Error, StageLog) {
        let log = StageLog::default();
        (summarize(remote, &a_minute(), &log).await.unwrap_err(), log)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_list_the_references_over_ssh() {
    for kind in [KeyKind::Ed25519, KeyKind::Rsa, KeyKind::Ecdsa] {
        for passphrase in [None, Some("horse battery")] {
            let server = sshd(kind, passphrase, &[KeyKind::Ed25519]);
            let log = StageLog::default();
            let remote = server.remote(passphrase, &server.sshd.known_hosts());
            let list = summarize(&remote, &a_minute(), &log).await.unwrap();
            assert_eq!(list.head.as_deref(), Some(server.sample.commit("main").as_str()), "{kind:?}");
            log.pass();
            let expected = [Stage::HostKey, Stage::Authenticate, Stage::Repository, Stage::References];
            let seen = stages(&log);
            assert!(seen.ends_with(&expected.map(|stage| (stage, Status::Passed))), "{seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_pem_work_too() {
    let server = sshd(KeyKind::Rsa, None, &[KeyKind::Ed25519]);
    let known = server.sshd.known_hosts();
    for (format, passphrase) in [("PEM", ""), ("PEM", "horse battery"), ("PKCS8", "")] {
        let copy = server.directory.path().join("copy");
        let _ = fs::remove_file(&copy);
        fs::copy(&server.key.private_file, &copy).unwrap();
        let converted = Command::new(require("ssh-keygen", "openssh-client"))
            .args(["-q", "-p", "-m", format, "-P", "", "-N", passphrase, "-f"])
            .arg(&copy)
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(converted.success());
        let passphrase = Some(passphrase).filter(|text| !text.is_empty());
        let url = format!("{}/shop/web.git", server.sshd.url());
        let listed =
            summarize(&over_ssh(&url, &copy, passphrase, &known), &a_minute(), &StageLog::default()).await;
        assert!(listed.is_ok(), "{format} {passphrase:?}: {listed:?}");
        if passphrase.is_some() {
            let (error, _) = server.failure(&over_ssh(&url, &copy, Some("wrong"), &known)).await;
            assert!(matches!(of_ssh(&error), ssh::Error::KeyPassphrase { given: true, .. }), "{error:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_known_hosts_is_understood() {
    let server = sshd(KeyKind::Ed25519, None, &[KeyKind::Ed25519, KeyKind::Rsa, KeyKind::Ecdsa]);
    let rsa_only = server.directory.path().join("rsa_only");
    let line = format!("[127.0.0.1]:{} {}\n", server.sshd.port(), server.sshd.host_keys()[1].public);
    fs::write(&rsa_only, line).unwrap();
    let files = [
        server.sshd.known_hosts(),
        server.sshd.known_hosts_without_port(),
        server.sshd.known_hosts_hashed(),
        rsa_only,
    ];
    for file in files {
        let listed = summarize(&server.remote(None, &file), &a_minute(), &StageLog::default()).await;
        assert!(listed.is_ok(), "{}: {listed:?}", file.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_or_changed_host_is_refused_before_authentication() {
    let server = sshd(KeyKind::Ed25519, None, &[KeyKind::Ed25519]);
    for file in [server.sshd.known_hosts_empty(), PathBuf::from("/nonexistent/known_hosts")] {
        let (error, log) = server.failure(&server.remote(None, &file)).await;
        let ssh::Error::HostKeyUnknown { offered, .. } = of_ssh(&error) else { panic!("{error:?}") };
        assert_eq!(offered.fingerprint, server.sshd.fingerprint(0));
        assert_eq!((error.stage(log.running()), log.running()), (Stage::HostKey, Some(Stage::HostKey)));
    }
    let (error, log) = server.failure(&server.remote(None, &server.sshd.known_hosts_changed())).await;
    let ssh::Error::HostKeyChanged { known, .. } = of_ssh(&error) else { panic!("{error:?}") };
    assert!(matches!(known, ssh::KnownKey::InFile { line: 1, revoked: false, .. }), "{known:?}");
    assert_eq!(log.running(), Some(Stage::HostKey), "authentication was not begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_do_not_work_have_names() {
    let server = sshd(KeyKind::Ed25519, Some("right"), &[KeyKind::Ed25519]);
    let known = server.sshd.known_hosts();
    for passphrase in [None, Some("wrong")] {
        let (error, log) = server.failure(&server.remote(passphrase, &known)).await;
        let given = passphrase.is_some();
        assert!(
            matches!(of_ssh(&error), ssh::Error::KeyPassphrase { given: said, .. } if *said == given),
            "{error:?}"
        );
        assert_eq!(error.stage(log.running()), Stage::Authenticate);
    }
    let other = Key::make(server.directory.path(), "other", KeyKind::Rsa, None);
    let url = format!("{}/shop/web.git", server.sshd.url());
    let (error, _) = server.failure(&over_ssh(&url, &other.private_file, None, &known)).await;
    let ssh::Error::KeyRejected { methods, .. } = of_ssh(&error) else { panic!("{error:?}") };
    assert_eq!(methods, &["publickey"]);
    let whole = fs::read_to_string(&other.private_file).unwrap();
    let broken = server.directory.path().join("broken");
    for text in [&whole[..whole.len() / 2], "hunter2", &other.public, ""] {
        fs::write(&broken, text).unwrap();
        let (error, _) = server.failure(&over_ssh(&url, &broken, None, &known)).await;
        assert!(matches!(of_ssh(&error), ssh::Error::KeyUnreadable { .. }), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_ssh_does_not_give_out_is_named_with_the_servers_words() {
    let server = sshd(KeyKind::Ed25519, None, &[KeyKind::Ed25519]);
    let url = format!("{}/shop/other.git", server.sshd.url());
    let remote = over_ssh(&url, &server.key.private_file, None, &server.sshd.known_hosts());
    let (error, log) = server.failure(&remote).await;
    let Error::RepositoryUnavailable { exit_status, message } = &error else { panic!("{error:?}") };
    assert_eq!(*exit_status, Some(128));
    assert!(message.starts_with("ERROR: The repository does not exist"), "{message}");
    assert_eq!(log.running(), Some(Stage::Repository));
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_servers_that_are_none_or_too_old_have_names() {
    let server = https(SampleRepository::empty);
    let directory = tempfile::tempdir().unwrap();
    let key = Key::make(directory.path(), "key", KeyKind::Ed25519, None);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let speaker = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        connection
    });
    for port in [port, server.nginx.port()] {
        let url = format!("ssh://git@127.0.0.1:{port}/x");
        let remote = over_ssh(&url, &key.private_file, None, Path::new("/nonexistent"));
        let error = summarize(&remote, &a_minute(), &StageLog::default()).await.unwrap_err();
        assert!(matches!(of_ssh(&error), ssh::Error::NotSsh { .. }), "{error:?}");
    }
    drop(speaker.join().unwrap());
    let old = Sshd::plan(&[KeyKind::Ed25519])
        .authorize(&key)
        .with_directive("KexAlgorithms diffie-hellman-group14-sha1")
        .start();
    let remote = over_ssh(&format!("{}/x", old.url()), &key.private_file, None, &old.known_hosts());
    let error = summarize(&remote, &a_minute(), &StageLog::default()).await.unwrap_err();
    let ssh::Error::NoCommonAlgorithm { apart, ours, offered, .. } = of_ssh(&error) else {
        panic!("{error:?}")
    };
    assert_eq!(apart, &[ssh::Kind::KeyExchange]);
    assert_eq!(offered.key_exchange, ["diffie-hellman-group14-sha1"]);
    assert!(!ours.key_exchange.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_bytes_holds_for_the_list_too() {
    let server = https(SampleRepository::small);
    let mut control = a_minute();
    control.limits.max_bytes = 100;
    let refused = summarize(&server.remote(Some(TOKEN)).await, &control, &StageLog::default()).await;
    assert!(matches!(refused, Err(Error::TooLarge { what: git::Limit::Bytes, limit: 100 })), "{refused:?}");
}
