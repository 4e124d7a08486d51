//! The rigs that all tests share, proved with the programs that people use: git, ssh and curl.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stand_ins::{Authority, CertificateKind, Gitlab, Repository, StandIns, World};
use support::nginx::Nginx;
use support::process::{Child, require, wait_until};
use support::proxy::Proxy;
use support::repository::{SampleRepository, git, run_git};
use support::sshd::{Key, KeyKind, Sshd};

/// Runs git over TLS with this authority and this credential (`user:secret`); says whether it succeeded, and all that
/// it wrote. The credential goes as a header, because git and curl drop an empty user name from a URL.
fn git_over_tls(authority: &Authority, credential: &str, arguments: &[&str]) -> (bool, String) {
    let ca = format!("http.sslCAInfo={}", authority.ca_file().display());
    let header = format!("http.extraHeader=Authorization: Basic {}", STANDARD.encode(credential));
    let output =
        git().args(["-c", &ca, "-c", &header]).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

#[test]
fn nginx_serves_git_to_a_password_and_to_a_pat_with_an_empty_name() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&scratch.path().join("web.git"));
    let authority = Authority::create(scratch.path()).unwrap();
    let nginx = Nginx::plan(scratch.path())
        .accept_basic("ada", "pass+word/1")
        .accept_pat("token-1")
        .start(&authority);
    let url = format!("{}/web.git", nginx.url());
    for (credential, good) in
        [("ada:pass+word/1", true), (":token-1", true), (":TOKEN-1", false), ("ada:no", false)]
    {
        let (succeeded, text) = git_over_tls(&authority, credential, &["ls-remote", &url]);
        assert_eq!(succeeded, good, "{credential}: {text}\n{}", nginx.errors());
        assert_eq!(text.contains(&sample.commit("main")), good, "{credential}: {text}");
    }
    let target = scratch.path().join("clone");
    let url = format!("{}/web.git", nginx.url_with_host("localhost"));
    let (succeeded, text) =
        git_over_tls(&authority, ":token-1", &["clone", "-q", &url, target.to_str().unwrap()]);
    assert!(succeeded, "{text}");
    assert_eq!(std::fs::read_link(target.join("current")).unwrap(), Path::new("src/shop"));
    assert!(nginx.requests().iter().any(|line| line.starts_with("POST") && line.ends_with("200 yes")));
}

#[test]
fn nginx_presents_the_certificate_that_was_asked_for() {
    let scratch = tempfile::tempdir().unwrap();
    SampleRepository::empty(&scratch.path().join("web.git"));
    let authority = Authority::create(scratch.path()).unwrap();
    for (kind, good) in [
        (CertificateKind::Valid, true),
        (CertificateKind::Intermediate, true),
        (CertificateKind::Expired, false),
        (CertificateKind::NotYetValid, false),
        (CertificateKind::WrongName, false),
        (CertificateKind::UnknownAuthority, false),
        (CertificateKind::MissingIntermediate, false),
    ] {
        let nginx = Nginx::plan(scratch.path()).with_certificate(kind).start(&authority);
        let (succeeded, text) =
            git_over_tls(&authority, ":any", &["ls-remote", &format!("{}/web.git", nginx.url())]);
        assert_eq!(succeeded, good, "{kind:?}: {text}");
    }
}

/// Runs git over SSH with this key and these known hosts; says whether it succeeded, and all that it wrote.
fn git_over_ssh(key: &Key, known_hosts: &Path, arguments: &[&str]) -> (bool, String) {
    let ssh = format!(
        "{} -F /dev/null -o IdentitiesOnly=yes -o IdentityAgent=none -o BatchMode=yes -o StrictHostKeyChecking=yes \
         -o GlobalKnownHostsFile=/dev/null -o UserKnownHostsFile={} -i {}",
        require("ssh", "openssh-client").display(),
        known_hosts.display(),
        key.private_file.display()
    );
    let output = git().env("GIT_SSH_COMMAND", ssh).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

#[test]
fn sshd_serves_named_repositories_to_known_keys_only() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::small(&scratch.path().join("web.git"));
    let keys = [KeyKind::Ed25519, KeyKind::Rsa, KeyKind::Ecdsa]
        .map(|kind| Key::make(scratch.path(), &format!("{kind:?}"), kind, None));
    let stranger = Key::make(scratch.path(), "stranger", KeyKind::Ed25519, None);
    let mut plan = Sshd::plan(&[KeyKind::Ed25519, KeyKind::Rsa])
        .serve("group/web.git", &sample.directory)
        .serve("DefaultCollection/Shop/_git/web", &sample.directory);
    for key in &keys {
        plan = plan.authorize(key);
    }
    let sshd = plan.start();
    let known = sshd.known_hosts();
    let azure = format!("{}/DefaultCollection/Shop/_git/web", sshd.url());
    let gitlab = format!("{}/group/web.git", sshd.url());
    for (key, url) in keys.iter().zip([&azure, &gitlab, &azure]) {
        let (succeeded, text) = git_over_ssh(key, &known, &["ls-remote", url]);
        assert!(succeeded && text.contains(&sample.commit("feature")), "{url}: {text}\n{}", sshd.log());
    }
    let hashed = sshd.known_hosts_hashed();
    assert!(git_over_ssh(&keys[0], &hashed, &["ls-remote", &gitlab]).0);
    for (key, known, url) in [
        (&stranger, &known, &gitlab),
        (&keys[0], &sshd.known_hosts_changed(), &gitlab),
        (&keys[0], &sshd.known_hosts_empty(), &gitlab),
        (&keys[0], &known, &format!("{}/etc", sshd.url())),
        (&keys[0], &known, &format!("{}/group/web.git$(id)", sshd.url())),
    ] {
        let (succeeded, text) = git_over_ssh(key, known, &["ls-remote", url]);
        assert!(!succeeded, "{url}: {text}");
    }
    assert!(sshd.fingerprint(0).starts_with("SHA256:"));
}

#[test]
fn tinyproxy_tunnels_for_its_user_only_and_logs_it() {
    let scratch = tempfile::tempdir().unwrap();
    SampleRepository::small(&scratch.path().join("web.git"));
    let authority = Authority::create(scratch.path()).unwrap();
    let nginx = Nginx::plan(scratch.path()).start(&authority);
    let proxy = Proxy::start("out", "side");
    let url = format!("{}/web.git/info/refs?service=git-upload-pack", nginx.url());
    // Tinyproxy answers 407 to nobody and 401 to a wrong password.
    for (credential, answers) in
        [("out:side", "200 200"), ("out:wrong", "000 401"), (":", "000 401"), ("", "000 407")]
    {
        let mut curl = Command::new(require("curl", "curl"));
        if !credential.is_empty() {
            curl.args(["--proxy-user", credential]);
        }
        let output = curl
            .args([
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code} %{http_connect}",
                "--noproxy",
                "",
                "--max-time",
                "20",
            ])
            .args(["--proxy", &proxy.url(), "--cacert"])
            .arg(authority.ca_file())
            .arg(&url)
            .output()
            .unwrap();
        let answered = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(answered, answers, "{}", proxy.log());
    }
    assert!(proxy.tunnels().contains(&format!("127.0.0.1:{}", nginx.port())), "{}", proxy.log());
}

#[test]
fn a_generated_repository_has_the_objects_asked_for() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::generated(&scratch.path().join("big.git"), 2_000);
    assert!(sample.object_count() >= 2_000);
    let before = sample.commit("main");
    assert_ne!(sample.add_commit("main", "new.txt", "new\n"), before);
}

#[test]
fn a_dropped_child_takes_along_what_it_started() {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 600 & echo $!; wait"]);
    let mut child = Child::start("parent", &mut command, scratch.path());
    let log = scratch.path().join("parent.stdout");
    let number = || std::fs::read_to_string(&log).unwrap_or_default().trim().to_owned();
    child.wait_for("the number of the grandchild", Duration::from_secs(10), || !number().is_empty());
    let alive = |number: &str| {
        // A zombie that nobody has collected yet counts as ended.
        let status = std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        !status.is_empty() && !status.contains(") Z ")
    };
    let grandchild = number();
    assert!(alive(&grandchild));
    drop(child);
    wait_until("the grandchild is gone", Duration::from_secs(10), || !alive(&grandchild));
}

#[test]
fn a_large_clone_streams_through_a_stand_in_and_through_nginx() {
    let scratch = tempfile::tempdir().unwrap();
    let sample = SampleRepository::generated(&scratch.path().join("big.git"), 20_000);
    let authority = Authority::create(scratch.path()).unwrap();
    let nginx = Nginx::plan(scratch.path()).start(&authority);
    let world = World::new()
        .with_gitlab(Gitlab::default())
        .with_user("ada", "secret")
        .with_repository(Repository::gitlab("group/big", &sample.directory).read_by("ada"));
    let running = StandIns::start(world, &authority).unwrap();
    let stand_in = format!("{}/group/big.git", running.gitlab.as_ref().unwrap().url());
    for (name, url) in [("a", stand_in), ("b", format!("{}/big.git", nginx.url()))] {
        let target = scratch.path().join(name);
        let arguments = ["clone", "-q", "--bare", &url, target.to_str().unwrap()];
        let (succeeded, text) = git_over_tls(&authority, "ada:secret", &arguments);
        assert!(succeeded, "{url}: {text}");
        assert_eq!(run_git(&target, ["rev-parse", "main"]), sample.commit("main"));
    }
}

/// Where the test below tells its second process to leave the number of a program.
const HOLDER_DIRECTORY: &str = "RIGS_HOLDER_DIRECTORY";

#[test]
fn a_killed_test_takes_along_what_it_started() {
    if let Some(directory) = std::env::var_os(HOLDER_DIRECTORY) {
        // This is the second process: it starts a program and waits to be killed.
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$; exec sleep 600"]);
        let mut held = Child::start("held", &mut command, Path::new(&directory));
        // Before this the program may run already, and nobody watches over it yet.
        std::fs::write(Path::new(&directory).join("started"), "").unwrap();
        held.wait(Duration::from_secs(600));
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut second = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_test_takes_along_what_it_started"])
        .env(HOLDER_DIRECTORY, scratch.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let number = || std::fs::read_to_string(scratch.path().join("held.stdout")).unwrap_or_default();
    wait_until("the number of the program", Duration::from_secs(10), || {
        number().ends_with('\n') && scratch.path().join("started").exists()
    });
    let process = format!("/proc/{}/stat", number().trim());
    // The 22nd field, which is the 20th behind the name, is the moment when it began: numbers are used again.
    let begun = |status: &str| {
        status.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).map(str::to_owned)
    };
    let began = begun(&std::fs::read_to_string(&process).unwrap());
    second.kill().unwrap();
    second.wait().unwrap();
    wait_until("the program is gone", Duration::from_secs(10), || {
        let status = std::fs::read_to_string(&process).unwrap_or_default();
        status.is_empty() || status.contains(") Z ") || begun(&status) != began
    });
}

#[test]
fn keys_with_a_passphrase_are_encrypted() {
    let scratch = tempfile::tempdir().unwrap();
    for kind in [KeyKind::Ed25519, KeyKind::Rsa, KeyKind::Ecdsa] {
        let key = Key::make(scratch.path(), &format!("{kind:?}"), kind, Some("pass phrase"));
        let text = std::fs::read_to_string(&key.private_file).unwrap();
        assert!(text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----"));
        for (passphrase, good) in [("pass phrase", true), ("wrong", false)] {
            let mut command = Command::new(require("ssh-keygen", "openssh-client"));
            let output =
                command.args(["-y", "-P", passphrase, "-f"]).arg(&key.private_file).output().unwrap();
            assert_eq!(output.status.success(), good, "{kind:?}");
        }
    }
}
