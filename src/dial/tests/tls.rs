use std::sync::Arc;

use rcgen::{ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use reqwest::Method;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::addresses::request_error;
use super::rig::{
    Authority, HOST, Identity, Server, authority_params, door, issuer_at, ok, secure, server_params,
};
use crate::dial::{CaFileProblem, CertificateProblem, Destination, DialError, Stream, read_limited};
use crate::report::{Facts, Stage, StageLog};

/// The error of the measured way and the facts of its last stage. The client's way must end the same.
async fn failure(destination: &Destination) -> (DialError, Facts) {
    let (door, log) = (door(), StageLog::default());
    let error = door.connect(destination, &log).await.map(|_| ()).unwrap_err();
    log.fail_at(error.stage());
    assert_eq!(request_error(&door, destination).await, error);
    (error, log.records().pop().unwrap().facts)
}

/// The failure of a connection to a server with this identity.
async fn failure_with(identity: Identity, trusted: &Authority) -> (DialError, Facts) {
    let server = Server::answering_with_tls(identity.config(), ok("")).await;
    failure(&secure(server.port(), trusted)).await
}

#[tokio::test]
async fn a_good_certificate_passes_and_its_facts_are_recorded() {
    let authority = Authority::new("Corp Root");
    let identity = authority.issue(server_params(&[HOST, "10.1.2.3"]));
    let server = Server::answering_with_tls(identity.config(), ok("hello")).await;
    let (door, log) = (door(), StageLog::default());
    let destination = secure(server.port(), &authority);
    let stream = door.connect(&destination, &log).await.unwrap();
    log.pass();
    let records = log.records();
    let stages: Vec<_> = records.iter().map(|record| record.stage).collect();
    assert_eq!(stages, [Stage::Resolve, Stage::Connect, Stage::Tls]);
    let facts = &records[2].facts;
    assert_eq!(facts["version"], "1.3");
    assert_eq!(facts["cipher_suite"], "TLS13_AES_256_GCM_SHA384");
    assert_eq!((&facts["subject"], &facts["issuer"]), (&"CN=server".into(), &"CN=Corp Root".into()));
    assert_eq!(facts["names"], serde_json::json!([HOST, "10.1.2.3"]));
    assert_eq!(facts["fingerprint"].as_str().unwrap().len(), 32 * 3 - 1);
    assert_eq!(facts["chain"][0]["fingerprint"], facts["fingerprint"]);
    assert_eq!(stream.facts().tls.as_ref().unwrap().chain.len(), 1);
    assert!(matches!(stream, Stream::Tls(_)));

    let client = door.client(&destination).await.unwrap();
    let response = client.send(client.request(Method::GET, "/a?b=c")).await.unwrap();
    assert_eq!(read_limited(response, 100).await.unwrap(), b"hello");
    assert!(server.heads().last().unwrap().starts_with("GET /a?b=c HTTP/1.1\r\n"));
}

#[tokio::test]
async fn an_unknown_authority_is_named() {
    let (trusted, other) = (Authority::new("Corp Root"), Authority::new("Zscaler Root CA"));
    let (error, facts) = failure_with(other.issue(server_params(&[HOST])), &trusted).await;
    let DialError::UntrustedIssuer { subject, issuer, fingerprint, self_signed, inspection } = error else {
        panic!("{error:?}")
    };
    assert_eq!((subject.as_str(), issuer.as_str()), ("CN=server", "CN=Zscaler Root CA"));
    assert_eq!((self_signed, inspection), (false, Some("Zscaler")));
    assert_eq!(facts["fingerprint"], fingerprint);
}

#[tokio::test]
async fn a_self_signed_certificate_is_untrusted_with_or_without_the_mark_of_an_authority() {
    let trusted = Authority::new("Corp Root");
    let mut as_authority = authority_params("server");
    as_authority.subject_alt_names = server_params(&[HOST]).subject_alt_names;
    for params in [server_params(&[HOST]), as_authority] {
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.self_signed(&key).unwrap().der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let (error, _) = failure_with(Identity { chain, key }, &trusted).await;
        assert!(matches!(error, DialError::UntrustedIssuer { self_signed: true, .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_authoritys_certificate_that_serves_itself_is_named_where_it_is_trusted() {
    let mut params = authority_params("server");
    params.subject_alt_names = server_params(&[HOST]).subject_alt_names;
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate.pem()).unwrap();
    let chain = vec![certificate.der().clone()];
    let identity = Identity { chain, key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() };
    let server = Server::answering_with_tls(identity.config(), ok("")).await;
    let ca_file = Some(file.path().to_owned());
    let destination = Destination { ca_file, ..secure(server.port(), &Authority::new("unused")) };
    let (error, _) = failure(&destination).await;
    let problem = CertificateProblem::AuthorityAsServer;
    assert!(matches!(error, DialError::InvalidCertificate { problem: found, .. } if found == problem));
}

#[tokio::test]
async fn a_leaf_alone_whose_issuer_is_elsewhere_is_an_incomplete_chain() {
    let root = Authority::new("Corp Root");
    let mut params = server_params(&[HOST]);
    params.custom_extensions.push(issuer_at("http://pki.corp.example/sub.crt"));
    let (error, _) = failure_with(Authority::new("Corp Sub").issue(params), &root).await;
    let DialError::IncompleteChain { issuer, issuer_url, .. } = error else { panic!("{error:?}") };
    assert_eq!((issuer.as_str(), issuer_url.as_str()), ("CN=Corp Sub", "http://pki.corp.example/sub.crt"));
}

#[tokio::test]
async fn dates_names_and_purposes_are_told_apart() {
    let authority = Authority::new("Corp Root");
    let mut params = server_params(&[HOST]);
    params.not_before = date_time_ymd(2019, 1, 1);
    params.not_after = date_time_ymd(2020, 1, 1);
    let (error, facts) = failure_with(authority.issue(params), &authority).await;
    let not_after = "2020-01-01T00:00:00Z".to_owned();
    assert_eq!(facts["not_after"], not_after);
    assert_eq!(error, DialError::Expired { subject: "CN=server".into(), not_after });

    let mut params = server_params(&[HOST]);
    params.not_before = date_time_ymd(2999, 1, 1);
    params.not_after = date_time_ymd(3000, 1, 1);
    let (error, _) = failure_with(authority.issue(params), &authority).await;
    let not_before = "2999-01-01T00:00:00Z".to_owned();
    assert_eq!(error, DialError::NotYetValid { subject: "CN=server".into(), not_before });

    let (error, facts) = failure_with(authority.issue(server_params(&["other.example"])), &authority).await;
    assert_eq!(facts["names"][0], "other.example");
    assert_eq!(error, DialError::NameMismatch { host: HOST.into(), names: vec!["other.example".into()] });

    let mut params = server_params(&[HOST]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let (error, _) = failure_with(authority.issue(params), &authority).await;
    let problem = CertificateProblem::Purpose;
    assert!(matches!(error, DialError::InvalidCertificate { problem: found, .. } if found == problem));
}

#[tokio::test]
async fn what_speaks_something_else_is_not_tls() {
    let authority = Authority::new("Corp Root");
    for (said, seen) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1.1 400 Bad"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_"),
        ("220 mail\r\n", "220 mail.."),
    ] {
        let server = Server::saying(said).await;
        let (error, _) = failure(&secure(server.port(), &authority)).await;
        assert_eq!(error, DialError::NotTls { first_bytes: seen.into() });
    }
}

#[tokio::test]
async fn an_old_server_is_told_by_its_alert() {
    let authority = Authority::new("Corp Root");
    for (alert, expected) in [
        (40, DialError::LegacyOnly),
        (70, DialError::LegacyOnly),
        (71, DialError::LegacyOnly),
        (80, DialError::TlsFailed { alert: Some(80) }),
        (112, DialError::UnknownName { host: "git.corp.example".into() }),
    ] {
        let server = Server::saying([0x15, 3, 1, 0, 2, 2, alert]).await;
        let (error, _) = failure(&secure(server.port(), &authority)).await;
        assert_eq!(error, expected);
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_after_the_server_began_is_a_reset_within_tls() {
    let authority = Authority::new("Corp Root");
    let server = Server::run(|mut tcp, _| async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let _ = tcp.read(&mut [0; 4096]).await;
        // The head of a record with a ServerHello, of which no more comes.
        let _ = tcp.write_all(&[0x16, 3, 3, 0, 122, 2, 0, 0, 118, 3, 3]).await;
    })
    .await;
    let destination = secure(server.port(), &authority);
    let (error, _) = failure(&destination).await;
    assert_eq!(error, DialError::CutInHandshake { endpoint: destination.endpoint() });
    assert_eq!(error.stage(), Stage::Tls);
}

#[tokio::test]
async fn a_connection_that_is_cut_before_the_server_spoke_is_a_reset() {
    let authority = Authority::new("Corp Root");
    for hard in [false, true] {
        let server = Server::run(move |mut tcp, _| async move {
            use tokio::io::AsyncReadExt;
            let _ = tcp.read(&mut [0; 4096]).await;
            if hard {
                tcp.set_zero_linger().unwrap();
            }
        })
        .await;
        let destination = secure(server.port(), &authority);
        let (error, _) = failure(&destination).await;
        assert_eq!(error, DialError::Reset { endpoint: destination.endpoint(), during_tls: true });
        assert_eq!(error.stage(), Stage::Connect);
    }
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_is_told_in_either_version() {
    let authority = Authority::new("Corp Root");
    for (version, name) in [(&rustls::version::TLS13, "1.3"), (&rustls::version::TLS12, "1.2")] {
        let config = wanting_a_client_certificate(&authority, version);
        let server = Server::answering_with_tls(config, ok("")).await;
        let (error, facts) = failure(&secure(server.port(), &authority)).await;
        assert_eq!(
            (&error, error.stage()),
            (&DialError::ClientCertificateRequired { sent: false }, Stage::Tls)
        );
        assert_eq!((&facts["version"], &facts["client_certificate_sent"]), (&name.into(), &false.into()));
    }
}

fn wanting_a_client_certificate(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let Identity { chain, key } = authority.issue(server_params(&[HOST]));
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let builder = builder.with_client_cert_verifier(clients.build().unwrap());
    builder.with_single_cert(chain, key).unwrap()
}

#[tokio::test]
async fn a_ca_file_that_cannot_be_used_is_named_and_a_changed_one_is_read_again() {
    let authority = Authority::new("Corp Root");
    let identity = authority.issue(server_params(&[HOST]));
    let server = Server::answering_with_tls(identity.config(), ok("")).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let destination = Destination { ca_file: Some(path.clone()), ..secure(server.port(), &authority) };
    let (door, log) = (door(), StageLog::default());
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (content, problem) in [
        (None, CaFileProblem::Unreadable(std::io::ErrorKind::NotFound)),
        (Some(""), CaFileProblem::NoCertificate),
        (Some(broken), CaFileProblem::Malformed),
    ] {
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = door.connect(&destination, &log).await.map(|_| ()).unwrap_err();
        assert_eq!(error, DialError::CaFile { path: path.clone(), problem });
        assert_eq!(door.client(&destination).await.unwrap_err(), error);
    }
    std::fs::write(&path, Authority::new("Another Root With A Longer Name").certificate.pem()).unwrap();
    assert!(matches!(request_error(&door, &destination).await, DialError::UntrustedIssuer { .. }));
    std::fs::copy(authority.file(), &path).unwrap();
    let client = door.client(&destination).await.unwrap();
    assert_eq!(client.send(client.request(Method::GET, "/")).await.unwrap().status(), 200);
}
