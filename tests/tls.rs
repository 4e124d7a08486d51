//! TLS as servers get it wrong, client certificates, and clocks: each provoked by a real server.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sortie::config::ClientCertificate;
use sortie::provider::Provider;
use stand_ins::{Authority, AzureDevOps, CertificateKind, Gitlab};
use tempfile::TempDir;

use crate::connection_test::Lab;
use crate::support::nginx::{Nginx, NginxPlan};
use crate::support::process::{Child, require, start_on_free_port};
use crate::support::repository::SampleRepository;
use crate::trial::{Outcome, Trial};

const REPOSITORY: &str = "/Coll/My%20Shop/_git/web";

fn expect(outcome: &Outcome, code: &str, stage: &str) {
    assert_eq!(outcome.diagnosis(), (code, stage), "{:#}", outcome.0);
}

/// `openssl s_server`, which can speak as no library of today does any more.
struct OpenSsl {
    port: u16,
    _child: Child,
    _directory: TempDir,
}

impl OpenSsl {
    fn start(authority: &Authority, arguments: &[&str]) -> Self {
        let openssl = require("openssl", "openssl");
        let directory = tempfile::tempdir().unwrap();
        let issued = authority.issue(CertificateKind::Valid).unwrap();
        let (cert, key) = issued.write(directory.path(), "server").unwrap();
        let (child, port) = start_on_free_port("openssl", directory.path(), |port| {
            let mut command = Command::new(&openssl);
            command.args(["s_server", "-quiet", "-www", "-accept", &format!("127.0.0.1:{port}")]);
            command.arg("-cert").arg(&cert).arg("-key").arg(&key).args(arguments);
            command
        });
        Self { port, _child: child, _directory: directory }
    }

    fn trial(&self, authority: &Authority) -> Trial {
        let url = format!("https://127.0.0.1:{}/web.git", self.port);
        Trial::of(Some(Provider::Git), &url, &url).trust(authority.ca_file())
    }
}

/// A bare repository behind an nginx, and an authority.
struct Site {
    authority: Authority,
    scratch: TempDir,
}

impl Site {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir(scratch.path().join("root")).unwrap();
        SampleRepository::small(&scratch.path().join("root/web.git"));
        Self { authority: Authority::create(scratch.path()).unwrap(), scratch }
    }

    fn plan(&self) -> NginxPlan {
        Nginx::plan(&self.scratch.path().join("root"))
    }

    fn trial(&self, nginx: &Nginx) -> Trial {
        let url = format!("{}/web.git", nginx.url());
        Trial::of(Some(Provider::Git), &nginx.url(), &url).trust(self.authority.ca_file())
    }

    /// A client certificate of this authority with its key.
    fn client(&self, authority: &Authority, name: &str) -> ClientCertificate {
        let issued = authority.issue_client(name).unwrap();
        let (cert_file, key_file) = issued.write(self.scratch.path(), name).unwrap();
        ClientCertificate { cert_file, key_file, strict_modes: true }
    }
}

fn showing(mut trial: Trial, certificate: Option<&ClientCertificate>) -> Trial {
    trial.server.client_certificate = certificate.cloned();
    trial
}

fn summary(outcome: &Outcome) -> &str {
    outcome.0["diagnosis"]["summary"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_demands_a_client_certificate_gets_it_or_is_named() {
    let site = Site::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Authority::create(elsewhere.path()).unwrap();
    let (own, foreign) = (site.client(&site.authority, "agent"), site.client(&stranger, "stranger"));
    let ca = site.authority.ca_file().display();
    for version in ["TLSv1.2", "TLSv1.3"] {
        let nginx = site
            .plan()
            .with_directive(&format!("ssl_client_certificate {ca};"))
            .with_directive("ssl_verify_client on;")
            .with_directive(&format!("ssl_protocols {version};"))
            .start(&site.authority);
        let good = showing(site.trial(&nginx), Some(&own)).run().await;
        assert!(good.succeeded(), "{version}: {:#}", good.0);
        assert_eq!(good.facts("tls")["client_certificate_sent"], true);
        assert!(good.facts("tls")["client_certificate"]["subject"].as_str().unwrap().contains("agent"));

        let without = showing(site.trial(&nginx), None).run().await;
        expect(&without, "tls_client_certificate_required", "tls");
        assert!(summary(&without).contains("none was sent"), "{}", summary(&without));
        let refused = showing(site.trial(&nginx), Some(&foreign)).run().await;
        expect(&refused, "tls_client_certificate_required", "tls");
        assert!(summary(&refused).contains("did not accept"), "{}", summary(&refused));
    }
    for version in ["-tls1_2", "-tls1_3"] {
        let ca = ca.to_string();
        let arguments = ["-Verify", "1", "-verify_return_error", "-CAfile", &ca, version];
        let server = OpenSsl::start(&site.authority, &arguments);
        for (certificate, said) in [(None, "none was sent"), (Some(&foreign), "did not accept")] {
            let outcome = showing(server.trial(&site.authority), certificate).run().await;
            expect(&outcome, "tls_client_certificate_required", "tls");
            assert!(summary(&outcome).contains(said), "{version}: {}", summary(&outcome));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_cannot_be_used_is_named_and_nothing_is_sent() {
    let site = Site::new();
    let nginx = site.plan().start(&site.authority);
    let good = site.client(&site.authority, "agent");
    let other = site.client(&site.authority, "other");
    let file = |name: &str, text: &str| -> PathBuf {
        let path = site.scratch.path().join(name);
        crate::support::process::write_private(&path, text).unwrap();
        path
    };
    let open = file("open.key", &std::fs::read_to_string(&good.key_file).unwrap());
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let encrypted = file(
        "encrypted.key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let missing = Path::new("/nonexistent/agent.key").to_owned();
    let key = |key_file: &Path| ClientCertificate { key_file: key_file.to_owned(), ..good.clone() };
    let cases = [
        (key(&open), "credential_unreadable", "chmod 600"),
        (key(&encrypted), "credential_unreadable", "openssl pkey"),
        (key(&good.cert_file), "credential_unreadable", "chmod 600"),
        (key(&file("no.key", "no key\n")), "credential_unreadable", "BEGIN PRIVATE KEY"),
        (key(&other.key_file), "credential_unreadable", "client_key_file"),
        (key(&missing), "credential_missing", "/nonexistent/agent.key"),
        (
            ClientCertificate { cert_file: good.key_file.clone(), ..good.clone() },
            "credential_unreadable",
            "BEGIN CERTIFICATE",
        ),
    ];
    for (certificate, code, remedy) in cases {
        let outcome = showing(site.trial(&nginx), Some(&certificate)).run().await;
        expect(&outcome, code, "tls");
        let remedies = outcome.0["diagnosis"]["remedies"].to_string();
        assert!(remedies.contains(remedy), "{remedies}");
    }
    assert_eq!(nginx.requests(), Vec::<String>::new());
    let lax = ClientCertificate { strict_modes: false, ..key(&open) };
    let outcome = showing(site.trial(&nginx), Some(&lax)).run().await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_only_what_is_not_safe_any_more_is_named() {
    let site = Site::new();
    for arguments in [
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"][..],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"],
    ] {
        let server = OpenSsl::start(&site.authority, arguments);
        let outcome = server.trial(&site.authority).run().await;
        expect(&outcome, "tls_legacy_only", "tls");
        assert_eq!(outcome.facts("tls")["versions_accepted"][0], "1.2", "{:#}", outcome.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_fails_for_other_reasons_than_versions_says_so() {
    let site = Site::new();
    let nginx = site.plan().with_directive("ssl_reject_handshake on;").start(&site.authority);
    let outcome = site.trial(&nginx).run().await;
    expect(&outcome, "tls_name_mismatch", "tls");
    assert!(summary(&outcome).contains("no site of that name"), "{}", summary(&outcome));

    let said: [(&[u8], &str, &str); 2] = [
        (&[0x16, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3], "connection_reset", "in the middle"),
        (&[0x15, 3, 3, 0, 2, 2, 80], "unexpected_answer", "the alert 80"),
    ];
    for (said, code, words) in said {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/web.git", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let mut tcp = listener.accept().unwrap().0;
            let _ = tcp.read(&mut [0; 4096]);
            tcp.write_all(said).unwrap();
        });
        let outcome = Trial::of(Some(Provider::Git), &url, &url).run().await;
        expect(&outcome, code, "tls");
        assert!(summary(&outcome).contains(words), "{}", summary(&outcome));
        server.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_or_not_tls_or_incomplete_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/web.git", listener.local_addr().unwrap());
    let cutting = std::thread::spawn(move || {
        for tcp in listener.incoming().take(1) {
            // What is closed with bytes unread is closed by a reset.
            let _ = tcp.unwrap().read(&mut [0; 1]);
        }
    });
    expect(&Trial::of(Some(Provider::Git), &url, &url).run().await, "connection_reset", "connect");
    cutting.join().unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/web.git", listener.local_addr().unwrap());
    let plain = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let _ = tcp.read(&mut [0; 4096]);
        tcp.write_all(b"220 mail.corp.example ESMTP\r\n").unwrap();
    });
    let outcome = Trial::of(Some(Provider::Git), &url, &url).run().await;
    expect(&outcome, "not_tls", "tls");
    assert!(outcome.facts("tls")["first_bytes"].is_string(), "{:#}", outcome.0);
    assert!(summary(&outcome).contains("220 mail.corp"), "{}", summary(&outcome));
    plain.join().unwrap();

    let azure = AzureDevOps { certificate: CertificateKind::MissingIntermediate, ..AzureDevOps::default() };
    let lab = Lab::with(azure, Gitlab::default());
    let outcome = lab.on_azure(REPOSITORY).run().await;
    expect(&outcome, "tls_incomplete_chain", "tls");
    assert!(outcome.0["diagnosis"]["remedies"][0].as_str().unwrap().contains("intermediate.crt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_is_reported_as_the_server_sent_it_whether_it_is_good_or_not() {
    let azure = AzureDevOps { certificate: CertificateKind::Intermediate, ..AzureDevOps::default() };
    let lab = Lab::with(azure, Gitlab::default());
    let mut untrusting = lab.on_azure(REPOSITORY);
    untrusting.server.ca_file = None;
    let good = lab.on_azure(REPOSITORY).run().await;
    let bad = untrusting.run().await;
    assert!(good.succeeded(), "{:#}", good.0);
    expect(&bad, "tls_untrusted_issuer", "tls");
    for outcome in [&good, &bad] {
        let facts = outcome.facts("tls");
        let chain = facts["chain"].as_array().unwrap();
        assert_eq!(chain.len(), 2, "{facts:#}");
        assert_eq!(chain[0]["issuer"], chain[1]["subject"]);
        for certificate in chain {
            for fact in ["subject", "issuer", "not_before", "not_after", "fingerprint"] {
                assert!(certificate[fact].is_string(), "{fact}: {facts:#}");
            }
            assert!(certificate["names"].is_array());
        }
        assert_eq!(facts["version"], "1.3");
        assert!(facts["cipher_suite"].as_str().unwrap().starts_with("TLS13_"), "{facts:#}");
        assert_eq!(facts["key_exchange"], "X25519MLKEM768");
    }
    assert_eq!(good.facts("tls")["chain"], bad.facts("tls")["chain"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_end_soon_and_clocks_that_differ_are_warned_about() {
    let azure = AzureDevOps { certificate: CertificateKind::EndsSoon, ..AzureDevOps::default() };
    let lab = Lab::with(azure, Gitlab::default());
    let outcome = lab.on_azure(REPOSITORY).run().await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    assert_eq!(outcome.warnings(), ["certificate_expires_soon"]);
    assert_eq!(outcome.stages("warned"), ["tls"]);
    assert!(outcome.facts("identify")["clock_offset_seconds"].as_i64().unwrap().abs() <= 2);

    for (offset, said) in [(3600, "ahead of"), (-3600, "behind")] {
        lab.gitlab().set_clock_offset(offset);
        let outcome = lab.on_gitlab("/shop/sub/web").run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.warnings(), ["clock_offset"]);
        assert!(outcome.0["warnings"][0]["summary"].as_str().unwrap().contains(said), "{:#}", outcome.0);
        let seen = outcome.facts("identify")["clock_offset_seconds"].as_i64().unwrap();
        assert!((seen - offset).abs() <= 2, "{seen}");
    }
    let site = Site::new();
    let nginx = site.plan().start(&site.authority);
    let plain_git = site.trial(&nginx).run().await;
    let stages = plain_git.0["stages"].as_array().unwrap();
    assert!(stages.iter().any(|stage| stage["facts"]["clock_offset_seconds"].is_i64()), "{:#}", plain_git.0);
}
