//! Inputs that are refused by their code, before any socket where a URL alone decides it.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use crate::support::binary::{Output, Sortie};

/// URLs and what they are refused with.
const URLS: &[(&str, &str)] = &[
    ("ext::sh -c touch%20/tmp/x", "url_invalid"),
    ("file:///etc", "scheme_not_allowed"),
    ("git://127.0.0.1/x", "scheme_not_allowed"),
    ("ftp://127.0.0.1/x", "scheme_not_allowed"),
    ("http://127.0.0.1/x", "scheme_not_allowed"),
    ("/etc/passwd", "url_invalid"),
    ("../../x", "url_invalid"),
    ("ssh://-oProxyCommand=touch/x", "url_invalid"),
    ("ssh://-Fx@127.0.0.1/x", "url_invalid"),
    ("git@127.0.0.1:-x", "url_invalid"),
    ("https://127.0.0.1/a%0ab", "url_invalid"),
    ("https://127.0.0.1/a%0db", "url_invalid"),
    ("https://127.0.0.1/a\u{7}b", "url_invalid"),
    ("https://good?@evil/", "url_invalid"),
    ("https://good#@evil/", "url_invalid"),
    ("https://user:secret-canary@127.0.0.1/x", "url_invalid"),
    ("https://2130706433/x", "url_invalid"),
    ("https://0x7f.1/x", "url_invalid"),
    ("https://0177.0.0.1/x", "url_invalid"),
    ("https://[::ffff:127.0.0.1]/x", "url_invalid"),
    ("https://127.0.0.1:0/x", "url_invalid"),
    ("https://127.0.0.1:65536/x", "url_invalid"),
    ("https://127.0.0.1/%2e%2e/x", "url_invalid"),
    ("https://169.254.169.254/latest/meta-data", "address_not_allowed"),
    ("https://[fe80::1]/x", "address_not_allowed"),
    ("https://0.0.0.0/x", "address_not_allowed"),
    ("ssh://git@169.254.169.254/x", "address_not_allowed"),
];

fn test(url: &str) -> Output {
    let sortie = Sortie::new();
    let token = sortie.home().join("token");
    std::fs::write(&token, "token-canary").unwrap();
    let key = sortie.home().join("key");
    std::fs::write(&key, "key-canary").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (flag, file) = if url.starts_with("ssh") { ("--ssh-key", &key) } else { ("--pat-file", &token) };
    sortie.run(["test", "--json", "--provider", "git", flag, file.to_str().unwrap(), "--", url])
}

#[test]
fn hostile_urls_are_refused_by_their_code_with_a_report() {
    for (url, code) in URLS {
        let output = test(url);
        assert_eq!((output.status, output.diagnosis().as_str()), (Some(1), *code), "{url}: {output:?}");
        assert!(!output.stdout.contains("canary"), "{url}: {output:?}");
        let report = output.json();
        let target = report["target"]["url"].as_str().unwrap();
        assert!(!target.contains('@') && !target.chars().any(char::is_control), "{url}: {target}");
        assert!(!report["diagnosis"]["remedies"].as_array().unwrap().is_empty(), "{url}");
        let stages = report["stages"].as_array().unwrap();
        assert!(
            stages
                .iter()
                .any(|stage| stage["status"] == "failed" && stage["stage"] == report["diagnosis"]["stage"])
        );
    }
}

#[test]
fn a_url_of_64_kib_is_refused_and_shortened() {
    let output = test(&format!("https://127.0.0.1/{}", "a".repeat(64 * 1024)));
    assert_eq!((output.status, output.diagnosis().as_str()), (Some(1), "url_invalid"));
    assert!(output.stdout.len() < 8 * 1024, "{}", output.stdout.len());
}

#[test]
fn what_looks_like_an_option_is_never_one() {
    let output = Sortie::new().run(["test", "--json", "--upload-pack=touch"]);
    assert_eq!(output.status, Some(2), "{output:?}");
    let output = test("--upload-pack=touch");
    assert_eq!(output.diagnosis(), "url_invalid", "{output:?}");
}

#[test]
fn a_host_that_only_looks_like_another_is_shown_as_what_it_is() {
    let output = test("https://\u{430}do.invalid/x"); // The first letter is Cyrillic.
    let report = output.json();
    assert!(report["target"]["url"].as_str().unwrap().starts_with("https://xn--"), "{report:#}");
    assert_eq!(output.status, Some(1));
}

#[test]
fn secrets_in_files_have_their_own_diagnoses() {
    let sortie = Sortie::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/x", listener.local_addr().unwrap());
    let ssh = format!("ssh://git@{}/x", listener.local_addr().unwrap());
    let file = |name: &str, content: &str, mode: u32| {
        let path = sortie.home().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let empty = file("empty", "\n", 0o600);
    let open = file("open", "-----BEGIN OPENSSH PRIVATE KEY-----\n", 0o644);
    let garbage = file("garbage", "no key at all", 0o600);
    let missing = sortie.home().join("missing").display().to_string();
    for (target, flag, path, code) in [
        (&url, "--pat-file", &empty, "credential_missing"),
        (&url, "--pat-file", &missing, "credential_missing"),
        (&url, "--ssh-key", &garbage, "credential_kind_mismatch"),
        (&ssh, "--pat-file", &garbage, "credential_kind_mismatch"),
        (&ssh, "--ssh-key", &open, "ssh_key_unreadable"),
    ] {
        let output = sortie.run(["test", target, "--json", "--provider", "git", flag, path]);
        assert_eq!(
            (output.status, output.diagnosis().as_str()),
            (Some(1), code),
            "{flag} {path}: {output:?}"
        );
    }
    let output = sortie.run(["test", &ssh, "--json", "--provider", "git", "--ssh-key", &open]);
    assert!(output.stdout.contains("chmod"), "{output:?}");
}

#[test]
fn a_metadata_address_is_refused_through_a_proxy_too() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let output = Sortie::new().run([
        "test",
        "--json",
        "--provider",
        "git",
        "--proxy",
        &url,
        "--deadline",
        "5",
        "https://169.254.169.254/x",
    ]);
    assert_eq!(output.diagnosis(), "address_not_allowed", "{output:?}");
}

#[test]
fn a_refused_url_gets_its_report_whatever_else_is_missing() {
    let output =
        Sortie::new().run(["test", "--json", "https://user:pw@host.example/x", "--password-file", "f"]);
    assert_eq!((output.status, output.diagnosis().as_str()), (Some(1), "url_invalid"), "{output:?}");
}

#[test]
fn a_token_in_a_query_is_not_shown() {
    let output = test("https://host.invalid/x?private_token=query-canary");
    assert_eq!(output.diagnosis(), "url_invalid");
    assert!(!output.stdout.contains("query-canary"), "{output:?}");
}
