//! Servers for the tests, certificates for them, and doors that find them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::Proxy;
use crate::dial::{Alpn, Destination, Door, LookupError, Names, ProxyEnvironment};
use crate::policy::AddressRule;

/// The name under which the tests' servers are known.
pub(super) const HOST: &str = "git.corp.example";

/// Answers with the next of its addresses, the last one again and again, and remembers what it was asked.
#[derive(Default)]
pub(super) struct Scripted {
    pub(super) answers: Mutex<Vec<Vec<IpAddr>>>,
    pub(super) asked: Mutex<Vec<String>>,
}

impl Names for Scripted {
    fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        self.asked.lock().unwrap().push(host.to_owned());
        let mut answers = self.answers.lock().unwrap();
        match answers.len() {
            0 => Err(LookupError::NotFound),
            1 => Ok(answers[0].clone()),
            _ => Ok(answers.remove(0)),
        }
    }
}

pub(super) fn names(answers: &[&[&str]]) -> Arc<Scripted> {
    let parse = |texts: &&[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Arc::new(Scripted { answers: Mutex::new(answers.iter().map(parse).collect()), ..Scripted::default() })
}

/// A door for which every name is this host.
pub(super) fn door() -> Door {
    Door::with_names(ProxyEnvironment::none(), names(&[&["127.0.0.1"]]))
}

/// The test server at a port, without TLS; loopback is allowed.
pub(super) fn plain(port: u16) -> Destination {
    Destination {
        host: HOST.into(),
        port,
        tls: false,
        alpn: Alpn::Http1,
        rule: AddressRule::RemoteOrLoopback,
        proxy: Proxy::Direct,
        ca_file: None,
        proxy_ca_file: None,
        client_certificate: None,
    }
}

/// The test server at a port, with TLS by this authority.
pub(super) fn secure(port: u16, authority: &Authority) -> Destination {
    Destination { tls: true, alpn: Alpn::Http2OrHttp1, ca_file: Some(authority.file()), ..plain(port) }
}

/// A certificate authority with its certificate in a file.
pub(super) struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) certificate: Certificate,
    directory: tempfile::TempDir,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let (params, key) = (authority_params(name), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), certificate, directory }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A certificate for a server, with its key.
    pub(super) fn issue(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }
}

pub(super) fn authority_params(name: &str) -> CertificateParams {
    let mut params = server_params(&[]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

pub(super) fn server_params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "server");
    params
}

/// The extension that names where the issuer's certificate can be had (RFC 5280, section 4.2.2.1).
pub(super) fn issuer_at(url: &str) -> CustomExtension {
    const CA_ISSUERS: [u8; 10] = [0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02];
    let length = |content: &[u8]| u8::try_from(content.len()).unwrap();
    let location = [&[0x86, length(url.as_bytes())], url.as_bytes()].concat();
    let description = [&CA_ISSUERS[..], &location].concat();
    let description = [&[0x30, length(&description)], &description[..]].concat();
    let content = [&[0x30, length(&description)], &description[..]].concat();
    CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], content)
}

/// A chain and the key of its first certificate.
pub(super) struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(super) fn config(self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        builder.unwrap().with_no_client_auth().with_single_cert(self.chain, self.key).unwrap()
    }
}

/// A server that does the same on each connection, and counts them. It ends with this value.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) heads: Arc<Mutex<Vec<String>>>,
    pub(super) connections: Arc<Mutex<usize>>,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// Runs `serve` on each connection.
    pub(super) async fn run<F, Done>(serve: F) -> Self
    where
        F: Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> Done + Send + 'static,
        Done: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heads, connections) = (Arc::default(), Arc::new(Mutex::new(0)));
        let (kept_heads, kept_connections) = (Arc::clone(&heads), Arc::clone(&connections));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut running = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                *kept_connections.lock().unwrap() += 1;
                running.spawn(serve(tcp, Arc::clone(&kept_heads)));
            }
        });
        Self { address, heads, connections, _tasks: tasks }
    }

    /// Answers each request with these bytes and closes.
    pub(super) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::run(move |tcp, heads| {
            let answer = Arc::clone(&answer);
            async move { respond(tcp, &answer, &heads).await }
        })
        .await
    }

    /// The same with TLS. What goes wrong in the handshake is the client's to tell.
    pub(super) async fn answering_with_tls(config: ServerConfig, answer: impl Into<Vec<u8>>) -> Self {
        let (acceptor, answer) = (TlsAcceptor::from(Arc::new(config)), Arc::new(answer.into()));
        Self::run(move |tcp, heads| {
            let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
            async move {
                if let Ok(tls) = acceptor.accept(tcp).await {
                    respond(tls, &answer, &heads).await;
                }
            }
        })
        .await
    }

    /// Sends these bytes once the client has said something, and holds the connection.
    pub(super) async fn saying(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = Arc::new(bytes.into());
        Self::run(move |mut tcp, _| {
            let bytes = Arc::clone(&bytes);
            async move {
                let _ = tcp.read(&mut [0; 4096]).await;
                let _ = tcp.write_all(&bytes).await;
                let _ = tcp.read(&mut [0; 4096]).await;
            }
        })
        .await
    }
}

/// Reads one head, answers, and closes in an orderly way.
async fn respond(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8], heads: &Mutex<Vec<String>>) {
    let Some(head) = read_head(&mut stream).await else { return };
    heads.lock().unwrap().push(head);
    let _ = stream.write_all(answer).await;
    let _ = stream.shutdown().await;
}

/// Reads up to the empty line.
pub(super) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// An answer with a body and its length.
pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// A port of this host's on which nothing listens.
pub(super) async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}
