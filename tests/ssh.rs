//! What stands between an SSH URL and a list of references, and how each obstacle is named.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use sortie::host_key::Pin;
use sortie::provider::Provider;

use crate::support::process::write_private;
use crate::support::repository::SampleRepository;
use crate::support::sshd::{Key, KeyKind, Sshd};
use crate::trial::{Outcome, Trial};

fn expect(outcome: &Outcome, code: &str, stage: &str) {
    assert_eq!(outcome.diagnosis(), (code, stage), "{:#}", outcome.0);
}

/// Speaks with whoever connects first.
struct Speaker {
    address: SocketAddr,
    thread: std::thread::JoinHandle<()>,
}

impl Speaker {
    fn start(speak: impl FnOnce(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || speak(listener.accept().unwrap().0));
        Self { address, thread }
    }

    /// One that says this, and then listens until the other side hangs up.
    fn saying(text: impl Into<Vec<u8>>) -> Self {
        let text = text.into();
        Self::start(move |mut connection| {
            // The other side may have heard enough before all is said.
            let _ = connection.write_all(&text);
            let _ = connection.read_to_end(&mut Vec::new());
        })
    }

    /// One that says this and hangs up.
    fn hanging_up_after(text: &'static [u8]) -> Self {
        Self::start(move |mut connection| connection.write_all(text).unwrap())
    }

    async fn test(self, key: &Path) -> Outcome {
        let url = format!("ssh://git@{}/shop/web.git", self.address);
        let trial = Trial::of(Some(Provider::Git), &url, &url);
        let outcome = trial.key(key, None, Path::new("/nonexistent")).run().await;
        self.thread.join().unwrap();
        outcome
    }
}

/// A packet before encryption: its length, that of its padding, payload, padding.
fn packet(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 5).unwrap().to_be_bytes();
    [&length, &[4][..], payload, &[0; 4]].concat()
}

/// The message by which a server hangs up in form.
fn farewell(reason: u8, said: &str) -> Vec<u8> {
    let length = u32::try_from(said.len()).unwrap().to_be_bytes();
    packet(&[&[1, 0, 0, 0, reason][..], &length, said.as_bytes(), &[0; 4]].concat())
}

fn after_a_banner(rest: &[u8]) -> Vec<u8> {
    [b"SSH-2.0-Lab_1.0\r\n", rest].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_ssh_server_or_breaks_off_is_told_apart() {
    let scratch = tempfile::tempdir().unwrap();
    let key = Key::make(scratch.path(), "key", KeyKind::Ed25519, None).private_file;
    let huge = [b"SSH-2.0-".to_vec(), vec![b'x'; 1 << 20]].concat();
    let endless = b"Welcome to the server of the shop\r\n".repeat(1 << 15);
    let garbled = packet(&[&[20][..], &[0xff; 400]].concat());
    let cases = [
        ("cut at once", Speaker::hanging_up_after(b""), "connection_reset", "connect"),
        ("cut after the banner", Speaker::hanging_up_after(b"SSH-2.0-x\r\n"), "connection_reset", "host_key"),
        ("another protocol", Speaker::saying(*b"220 mail.example ESMTP\r\n\0"), "not_ssh", "host_key"),
        ("words and an end", Speaker::hanging_up_after(b"Go away\r\n"), "not_ssh", "host_key"),
        ("TLS", Speaker::saying(*b"\x15\x03\x01\x00\x02\x02\x0a"), "not_ssh", "host_key"),
        ("lines without an end", Speaker::saying(endless), "not_ssh", "host_key"),
        ("a banner without an end", Speaker::saying(huge), "not_ssh", "host_key"),
        ("garbled lists", Speaker::saying(after_a_banner(&garbled)), "unexpected_answer", "host_key"),
        ("garbage", Speaker::saying(after_a_banner(&[0xff; 4096])), "unexpected_answer", "host_key"),
        ("too many", Speaker::hanging_up_after(b"Exceeded MaxStartups\r\n"), "rate_limited", "host_key"),
        ("punished", Speaker::hanging_up_after(b"Not allowed at this time\r\n"), "rate_limited", "host_key"),
    ];
    for (name, speaker, code, stage) in cases {
        let began = Instant::now();
        let outcome = Box::pin(speaker.test(&key)).await;
        assert_eq!(outcome.diagnosis(), (code, stage), "{name}: {:#}", outcome.0);
        assert!(began.elapsed() < Duration::from_secs(10), "{name} took {:?}", began.elapsed());
        assert!(outcome.0.to_string().len() < 16 * 1024, "{name} makes a long report");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_up_in_form_is_quoted() {
    let scratch = tempfile::tempdir().unwrap();
    let key = Key::make(scratch.path(), "key", KeyKind::Ed25519, None).private_file;
    for (reason, code) in [
        (2, "connection_reset"),
        (3, "ssh_no_common_algorithm"),
        (7, "server_unavailable"),
        (12, "rate_limited"),
    ] {
        let speaker = Speaker::start(move |mut connection| {
            connection.write_all(&after_a_banner(&farewell(reason, "Closed for\x1b[31m today"))).unwrap();
            let _ = connection.read(&mut [0; 64]);
        });
        let outcome = Box::pin(speaker.test(&key)).await;
        expect(&outcome, code, "host_key");
        let summary = outcome.0["diagnosis"]["summary"].as_str().unwrap();
        assert!(summary.contains("Closed for[31m today"), "{summary}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_is_given_up_by_the_deadline_with_its_stage() {
    let scratch = tempfile::tempdir().unwrap();
    let key = Key::make(scratch.path(), "key", KeyKind::Ed25519, None).private_file;
    for spoken in [&b""[..], b"SSH-2.0-Lab_1.0\r\n"] {
        let speaker = Speaker::saying(spoken);
        let url = format!("ssh://git@{}/x", speaker.address);
        let trial = Trial::of(Some(Provider::Git), &url, &url).key(&key, None, Path::new("/nonexistent"));
        let outcome = trial.within(Duration::from_secs(3)).run().await;
        expect(&outcome, "deadline_exceeded", "host_key");
        speaker.thread.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn algorithms_that_do_not_meet_are_named_on_both_sides() {
    let scratch = tempfile::tempdir().unwrap();
    let key = Key::make(scratch.path(), "key", KeyKind::Ed25519, None);
    for (directive, kind, theirs, ours) in [
        (
            "KexAlgorithms diffie-hellman-group14-sha1",
            "key_exchange",
            "diffie-hellman-group14-sha1",
            "curve25519-sha256",
        ),
        ("HostKeyAlgorithms ssh-rsa", "host_key", "ssh-rsa", "rsa-sha2-512"),
        ("Ciphers aes128-cbc\nMACs hmac-sha1", "mac", "hmac-sha1", "hmac-sha2-256"),
    ] {
        let sshd = Sshd::plan(&[KeyKind::Rsa]).authorize(&key).with_directive(directive).start();
        let trial = Trial::of(Some(Provider::Git), &sshd.url(), &format!("{}/x", sshd.url()));
        let outcome = trial.key(&key.private_file, None, &sshd.known_hosts()).run().await;
        expect(&outcome, "ssh_no_common_algorithm", "host_key");
        let facts = outcome.facts("host_key");
        assert!(facts["offered"][kind].to_string().contains(theirs), "{facts:#}");
        assert!(facts["ours"][kind].to_string().contains(ours), "{facts:#}");
        let summary = outcome.0["diagnosis"]["summary"].as_str().unwrap();
        for word in [kind, theirs, ours, "SSH-2.0-OpenSSH"] {
            assert!(summary.contains(word), "{word} is missing: {summary}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_has_an_rsa_key_alone_is_warned_about() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&scratch.path().join("web.git"));
    let key = Key::make(scratch.path(), "key", KeyKind::Ed25519, None);
    let cases: [(&[KeyKind], &[&str]); 2] =
        [(&[KeyKind::Rsa], &["host_key_rsa_only"]), (&[KeyKind::Rsa, KeyKind::Ecdsa], &[])];
    for (host_keys, expected) in cases {
        let plan = Sshd::plan(host_keys).authorize(&key).serve("shop/web.git", &sample.directory);
        let sshd = plan.start();
        let trial = Trial::of(Some(Provider::Git), &sshd.url(), &format!("{}/shop/web.git", sshd.url()));
        let outcome = trial.key(&key.private_file, None, &sshd.known_hosts()).run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.warnings(), expected);
        assert_eq!(outcome.stages("warned").len(), expected.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_host_keys_and_the_file_add_up() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&scratch.path().join("web.git"));
    let key = Key::make(scratch.path(), "key", KeyKind::Ed25519, None);
    let sshd = Sshd::plan(&[KeyKind::Ed25519, KeyKind::Rsa])
        .authorize(&key)
        .serve("shop/web.git", &sample.directory)
        .start();
    let pinned = |known_hosts: &Path, pins: &[&str]| {
        let trial = Trial::of(Some(Provider::Git), &sshd.url(), &format!("{}/shop/web.git", sshd.url()));
        let mut trial = trial.key(&key.private_file, None, known_hosts);
        trial.server.host_keys = pins.iter().map(|pin| Pin::parse(pin).unwrap()).collect();
        trial
    };
    let (empty, changed) = (sshd.known_hosts_empty(), sshd.known_hosts_changed());
    let typed = format!("ssh-rsa {}", sshd.fingerprint(1));
    let wrong = Key::make(scratch.path(), "wrong", KeyKind::Ed25519, None).public;
    for (file, pins) in [
        (&empty, vec![sshd.host_keys()[0].public.as_str()]),
        (&empty, vec![&sshd.fingerprint(0)]),
        (&empty, vec![&typed]),
        (&empty, vec![&wrong, &sshd.fingerprint(0)]),
        (&changed, vec![&sshd.fingerprint(0)]),
        (&sshd.known_hosts_hashed(), vec![&wrong]),
    ] {
        let outcome = pinned(file, &pins).run().await;
        assert!(outcome.succeeded(), "{pins:?}: {:#}", outcome.0["diagnosis"]);
    }
    let outcome = pinned(&empty, &[&wrong]).run().await;
    expect(&outcome, "host_key_changed", "host_key");
    let diagnosis = outcome.0["diagnosis"].to_string();
    assert!(
        diagnosis.contains("servers.lab.host_keys") && diagnosis.contains(&sshd.fingerprint(0)),
        "{diagnosis}"
    );
    let revoking = scratch.path().join("revoking");
    let line = format!("@revoked * {}\n", sshd.host_keys()[0].public);
    write_private(&revoking, &line).unwrap();
    let outcome = pinned(&revoking, &[&sshd.fingerprint(0)]).run().await;
    expect(&outcome, "host_key_changed", "host_key");
    assert!(outcome.0["diagnosis"]["summary"].as_str().unwrap().contains("revokes it"), "{:#}", outcome.0);
    assert!(!sshd.log().contains("Failed"), "{}", sshd.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_comes_with_its_entry_and_the_place_to_compare_it() {
    let scratch = tempfile::tempdir().unwrap();
    let key = Key::make(scratch.path(), "key", KeyKind::Ed25519, None);
    let sshd = Sshd::plan(&[KeyKind::Ed25519]).authorize(&key).start();
    let entry = format!("[127.0.0.1]:{} {}", sshd.port(), sshd.host_keys()[0].public);
    for (provider, base, place) in [
        (Provider::Gitlab, "https://127.0.0.1/git", "https://127.0.0.1/git/help/instance_configuration"),
        (Provider::AzureDevops, "https://127.0.0.1/tfs", "SSH public keys"),
        (Provider::Git, "https://127.0.0.1", "ssh-keygen -lf"),
    ] {
        let mut trial = Trial::of(Some(provider), base, &format!("{}/git/shop/web.git", sshd.url()));
        trial.server.ssh = Some(sortie::remote_url::RemoteUrl::parse(&sshd.url()).unwrap());
        let outcome = trial.key(&key.private_file, None, &sshd.known_hosts_empty()).run().await;
        expect(&outcome, "host_key_unknown", "host_key");
        assert_eq!(outcome.facts("host_key")["known_hosts_entry"], entry);
        let remedy = outcome.0["diagnosis"]["remedies"][0].as_str().unwrap();
        assert!(remedy.contains(place) && remedy.contains(&entry), "{remedy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_is_tried_once() {
    let scratch = tempfile::tempdir().unwrap();
    let stranger = Key::make(scratch.path(), "stranger", KeyKind::Ed25519, None);
    // A second attempt of whatever kind would end the connection before its answer.
    let strict = Sshd::plan(&[KeyKind::Ed25519]).with_directive("MaxAuthTries 2").start();
    let trial = |sshd: &Sshd, key: &Path| {
        let trial = Trial::of(Some(Provider::Git), &sshd.url(), &format!("{}/shop/web.git", sshd.url()));
        trial.key(key, None, &sshd.known_hosts())
    };
    let outcome = trial(&strict, &stranger.private_file).run().await;
    expect(&outcome, "ssh_key_rejected", "authenticate");
    let log = strict.log();
    assert_eq!((log.matches("Failed ").count(), log.matches("Failed publickey").count()), (1, 1), "{log}");
    assert!(!log.contains("maximum authentication attempts"), "{log}");
    let summary = outcome.0["diagnosis"]["summary"].as_str().unwrap();
    assert!(summary.contains("SHA256:") && summary.contains("the server offers publickey"), "{summary}");
    let stricter = Sshd::plan(&[KeyKind::Ed25519]).with_directive("MaxAuthTries 1").start();
    let rsa = Key::make(scratch.path(), "rsa", KeyKind::Rsa, None);
    let outcome = trial(&stricter, &rsa.private_file).run().await;
    expect(&outcome, "ssh_key_rejected", "authenticate");
    assert!(outcome.0["diagnosis"]["summary"].as_str().unwrap().contains("hung up"), "{:#}", outcome.0);
    for key in [&rsa, &stranger] {
        let more = Sshd::plan(&[KeyKind::Ed25519]).authorize(key).with_directive("MaxAuthTries 2");
        let more =
            more.with_directive("HostbasedAuthentication yes\nAuthenticationMethods publickey,hostbased");
        let more = more.start();
        let outcome = trial(&more, &key.private_file).run().await;
        expect(&outcome, "ssh_key_rejected", "authenticate");
        let summary = outcome.0["diagnosis"]["summary"].as_str().unwrap();
        assert!(summary.contains("another factor") && !summary.contains("does not accept"), "{summary}");
        let log = more.log();
        assert!(log.contains("Partial publickey") && !log.contains("Failed publickey"), "{log}");
        assert!(!log.contains("Failed hostbased"), "{log}");
    }
    let without_keys = Sshd::plan(&[KeyKind::Ed25519])
        .with_directive("Match all\nPubkeyAuthentication no\nPasswordAuthentication yes")
        .start();
    let outcome = trial(&without_keys, &stranger.private_file).run().await;
    expect(&outcome, "ssh_key_rejected", "authenticate");
    assert_eq!(outcome.facts("authenticate")["methods"], serde_json::json!(["password"]));
    assert!(!without_keys.log().contains("Failed publickey"), "{}", without_keys.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_heard_on_the_same_login_and_a_plain_server_is_not_asked() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&scratch.path().join("web.git"));
    let key = Key::make(scratch.path(), "key", KeyKind::Rsa, None);
    for (provider, greeting, name, sessions) in [
        (Provider::Gitlab, "Welcome to GitLab, @ada!", Some("ada"), 2),
        (Provider::AzureDevops, "remote: Shell access is not supported.", None, 2),
        (Provider::Git, "Welcome to GitLab, @ada!", None, 1),
    ] {
        let plan = Sshd::plan(&[KeyKind::Ed25519]).authorize(&key).with_greeting(greeting);
        let sshd = plan.serve("Coll/Shop/_git/web", &sample.directory).start();
        let url = format!("{}/Coll/Shop/_git/web", sshd.url());
        let trial = Trial::of(Some(provider), &sshd.url(), &url);
        let outcome = trial.key(&key.private_file, None, &sshd.known_hosts()).run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["identity"]["name"].as_str(), name);
        let heard = outcome.facts("authenticate")["greeting"].as_str();
        assert_eq!(heard, (sessions == 2).then_some(greeting));
        let log = sshd.log();
        assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
        assert_eq!(log.matches("Starting session").count(), sessions, "{log}");
    }
}
