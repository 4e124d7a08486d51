//! Keys that a real ssh-agent holds, and agents that are of no use.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sortie::provider::Provider;

use crate::support::binary::Sortie;
use crate::support::process::{Child, START_LIMIT, command_line, require};
use crate::support::repository::SampleRepository;
use crate::support::sshd::{Key, KeyKind, Sshd};
use crate::trial::{Outcome, Trial};

/// An agent, and a server that knows two keys.
struct Lab {
    socket: PathBuf,
    keys: [Key; 2],
    sshd: Sshd,
    scratch: tempfile::TempDir,
    _agent: Child,
}

impl Lab {
    fn start() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(&scratch.path().join("web.git"));
        let keys = [KeyKind::Ed25519, KeyKind::Rsa]
            .map(|kind| Key::make(scratch.path(), &format!("{kind:?}"), kind, None));
        let plan = Sshd::plan(&[KeyKind::Ed25519]).authorize(&keys[0]).authorize(&keys[1]);
        let sshd = plan.serve("shop/web.git", &sample.directory).start();
        let socket = scratch.path().join("socket");
        let mut command = Command::new(require("ssh-agent", "openssh-client"));
        let mut agent = Child::start("ssh-agent", command.arg("-Da").arg(&socket), scratch.path());
        agent.wait_for("the agent listens", START_LIMIT, || socket.exists());
        Self { socket, keys, sshd, scratch, _agent: agent }
    }

    fn add(&self, key: &Key) {
        let mut command = Command::new(require("ssh-add", "openssh-client"));
        command_line(command.arg("-q").arg(&key.private_file).env("SSH_AUTH_SOCK", &self.socket));
    }

    fn trial(&self, socket: &Path, named: Option<&str>) -> Trial {
        let url = format!("{}/shop/web.git", self.sshd.url());
        let trial = Trial::of(Some(Provider::Git), &self.sshd.url(), &url);
        trial.agent(socket, named, &self.sshd.known_hosts())
    }

    async fn test(&self, named: Option<&str>) -> Outcome {
        Box::pin(self.trial(&self.socket, named).run()).await
    }
}

fn expect(outcome: &Outcome, code: &str, remedy: &str) {
    assert_eq!(outcome.diagnosis(), (code, "authenticate"), "{:#}", outcome.0);
    let diagnosis = outcome.0["diagnosis"].to_string();
    assert!(diagnosis.contains(remedy), "{diagnosis}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_signs_with_the_one_key_that_is_meant() {
    let lab = Lab::start();
    expect(&lab.test(None).await, "credential_missing", "it holds no key");
    lab.add(&lab.keys[0]);
    let outcome = lab.test(None).await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    assert_eq!(outcome.facts("authenticate")["key_type"], "ssh-ed25519");
    let clone = lab.trial(&lab.socket, None).clone_into(&lab.scratch.path().join("clone")).await;
    assert!(clone.succeeded(), "{:#}", clone.0);
    let (url, known_hosts) = (format!("{}/shop/web.git", lab.sshd.url()), lab.sshd.known_hosts());
    let arguments = ["test", &url, "--provider", "git", "--ssh-agent", "--known-hosts"];
    let arguments = arguments.into_iter().chain(known_hosts.to_str());
    let by_variable = Sortie::new().env("SSH_AUTH_SOCK", lab.socket.to_str().unwrap());
    let output = by_variable.run(arguments.clone());
    assert_eq!(output.status, Some(0), "{output:?}");
    let output = Sortie::new().run(arguments);
    assert!(output.status == Some(2) && output.stderr.contains("SSH_AUTH_SOCK"), "{output:?}");
    lab.add(&lab.keys[1]);
    expect(&lab.test(None).await, "credential_missing", "ssh-add -l");
    for (key, key_type) in lab.keys.iter().zip(["ssh-ed25519", "ssh-rsa"]) {
        let outcome = lab.test(Some(&key.public)).await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.facts("authenticate")["key_type"], key_type);
    }
    let other = Key::make(lab.scratch.path(), "other", KeyKind::Ed25519, None);
    expect(&lab.test(Some(&other.public)).await, "credential_missing", "ssh-add KEY");
    lab.add(&other);
    let before = lab.sshd.log().matches("Failed publickey").count();
    expect(&lab.test(Some(&other.public)).await, "ssh_key_rejected", "SHA256:");
    assert_eq!(lab.sshd.log().matches("Failed publickey").count(), before + 1, "{}", lab.sshd.log());
}

/// What an agent answers that holds this key: its number of keys, the key, a comment.
fn identities(key: &Key) -> Vec<u8> {
    let blob = STANDARD.decode(key.public.split(' ').nth(1).unwrap()).unwrap();
    let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    string(&[&[12, 0, 0, 0, 1][..], &string(&blob), &string(b"test")].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_none_or_does_not_sign_is_named_in_time() {
    let lab = Lab::start();
    let absent = Box::pin(lab.trial(&lab.scratch.path().join("absent"), None).run()).await;
    expect(&absent, "credential_unreadable", "absent");
    let fake = |name: &str, answer: Vec<u8>| {
        let socket = lab.scratch.path().join(name);
        let listener = UnixListener::bind(&socket).unwrap();
        // It ends with the process: nobody waits for an agent that does not answer.
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for mut connection in listener.incoming().flatten() {
                let _ = connection.read(&mut [0; 64]);
                let _ = connection.write_all(&answer);
                held.push(connection);
            }
        });
        socket
    };
    let garbled = fake("garbled", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    expect(&Box::pin(lab.trial(&garbled, None).run()).await, "credential_unreadable", "no SSH agent");
    let began = Instant::now();
    let idle = fake("idle", identities(&lab.keys[1]));
    expect(&Box::pin(lab.trial(&idle, None).run()).await, "credential_unreadable", "does not sign");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_stuck_outlasts_neither_its_limit_nor_the_deadline() {
    let lab = Lab::start();
    let path = |name: &str| lab.scratch.path().join(name);
    let full = path("full");
    let listener = UnixListener::bind(&full).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _visitor = UnixStream::connect(&full).unwrap();
    let trickling = path("trickling");
    let listener = UnixListener::bind(&trickling).unwrap();
    // One byte a second is within any limit of a single read.
    std::thread::spawn(move || {
        let mut connection = listener.accept().unwrap().0;
        let one_by_one = [0, 1, 0, 0].into_iter().chain([12; 1 << 16]);
        for byte in one_by_one {
            if connection.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::park_timeout(Duration::from_secs(1));
        }
    });
    for socket in [&full, &trickling] {
        let began = Instant::now();
        let outcome = Box::pin(lab.trial(socket, None).within(Duration::from_secs(2)).run()).await;
        expect(&outcome, "deadline_exceeded", "");
        assert!(began.elapsed() < Duration::from_secs(4), "{socket:?}: {:?}", began.elapsed());
    }
    let began = Instant::now();
    expect(&Box::pin(lab.trial(&full, None).run()).await, "credential_unreadable", "nobody answers");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
