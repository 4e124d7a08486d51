use std::collections::HashMap;
use std::sync::Arc;

use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use super::addresses::request_error;
use super::rig::{Authority, HOST, Server, closed_port, names, ok, plain, read_head, secure, server_params};
use crate::config::{Proxy, ProxyAuthorization, ProxyKind, ProxyServer};
use crate::dial::{
    Alpn, Destination, DialError, Door, Names, Obstacle, ProxyEnvironment, ProxyReply, Stream, read_limited,
};
use crate::policy::AddressRule;
use crate::report::{Stage, StageLog, Status};
use crate::secret::Secret;

fn through(port: u16, authorization: Option<ProxyAuthorization>) -> Proxy {
    Proxy::Through(ProxyServer { authorization, ..ProxyServer::new(ProxyKind::Http, "127.0.0.1", port) })
}

/// A door for which no name exists: through a proxy none is looked up.
fn nameless() -> Door {
    Door::with_names(ProxyEnvironment::none(), names(&[]))
}

/// A proxy that leads every tunnel to one port of this host.
async fn leading_to(target: u16) -> Server {
    Server::run(move |mut tcp, heads| async move {
        let Some(head) = read_head(&mut tcp).await else { return };
        heads.lock().unwrap().push(head);
        let mut server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
        tcp.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await.unwrap();
        let _ = copy_bidirectional(&mut tcp, &mut server).await;
    })
    .await
}

#[tokio::test]
async fn a_tunnel_carries_tls_and_the_name_goes_to_the_proxy() {
    let authority = Authority::new("Corp Root");
    let identity = authority.issue(server_params(&[HOST]));
    let server = Server::answering_with_tls(identity.config(), ok("hello")).await;
    let proxy = leading_to(server.port()).await;
    let authorization = ProxyAuthorization { user: "alice".into(), password: Secret::new("hunter2".into()) };
    let proxy_way = through(proxy.port(), Some(authorization));
    // The rule forbids loopback: it is for addresses that are dialled here, and the proxy is not among them.
    let destination = Destination { proxy: proxy_way, rule: AddressRule::Remote, ..secure(443, &authority) };
    let (door, log) = (nameless(), StageLog::default());
    let stream = door.connect(&destination, &log).await.unwrap();
    log.pass();
    let seen: Vec<_> = log.records().iter().map(|record| (record.stage, record.status)).collect();
    let stages = [
        (Stage::Resolve, Status::Skipped),
        (Stage::Proxy, Status::Passed),
        (Stage::Connect, Status::Passed),
        (Stage::Tls, Status::Passed),
    ];
    assert_eq!(seen, stages);
    assert_eq!(stream.facts().proxy, Some(format!("127.0.0.1:{}", proxy.port())));

    let client = door.client(&destination).await.unwrap();
    let response = client.send(client.request(Method::GET, "/")).await.unwrap();
    assert_eq!(read_limited(response, 100).await.unwrap(), b"hello");
    let heads = proxy.heads();
    assert_eq!(heads.len(), 2);
    for head in heads {
        assert!(head.starts_with(&format!("CONNECT {HOST}:443 HTTP/1.1\r\n")), "{head}");
        assert!(
            head.to_lowercase().contains("proxy-authorization: basic ywxpy2u6ahvudgvymg==\r\n"),
            "{head}"
        );
    }
    let shown = format!("{destination:?} {client:?} {:?}", log.records());
    assert!(!shown.contains("hunter2") && !shown.contains("YWxpY2U6aHVudGVyMg"), "{shown}");
}

#[tokio::test]
async fn bytes_that_come_with_the_proxys_answer_belong_to_the_tunnel() {
    let proxy = Server::run(|mut tcp, _| async move {
        let _ = read_head(&mut tcp).await;
        tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-test\r\n").await.unwrap();
    })
    .await;
    let destination = Destination { proxy: through(proxy.port(), None), alpn: Alpn::None, ..plain(22) };
    let log = StageLog::default();
    let mut stream = nameless().connect(&destination, &log).await.unwrap();
    assert!(matches!(stream, Stream::Plain(_)));
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "SSH-2.0-test\r\n");
}

fn refused(proxy: String, status: u16) -> DialError {
    DialError::ProxyRefused { proxy, reply: ProxyReply::Status(status) }
}

fn not_http(proxy: String) -> DialError {
    DialError::ProxyProtocol { proxy, kind: ProxyKind::Http }
}

#[tokio::test]
async fn each_refusal_of_a_proxy_has_its_name() {
    let authority = Authority::new("unused");
    let basic_and_ntlm = "HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\n\
        Proxy-Authenticate: Basic realm=\"corp\"\r\nContent-Length: 0\r\n\r\n";
    let endless = format!("HTTP/1.1 200 OK\r\nX-Long: {}", "x".repeat(20 * 1024));
    for (answer, expected) in [
        (
            basic_and_ntlm,
            (|proxy| DialError::ProxyAuthRequired {
                proxy,
                kind: ProxyKind::Http,
                schemes: vec!["basic".into(), "ntlm".into()],
                credentials_sent: false,
            }) as fn(String) -> DialError,
        ),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", |proxy| refused(proxy, 403)),
        ("HTTP/1.0 503 Nope\r\n\r\n", |proxy| refused(proxy, 503)),
        ("SSH-2.0-OpenSSH\r\n\r\n", not_http),
        ("HTTP/1.1 200 OK\r\n", not_http),
        (&endless, not_http),
    ] {
        let proxy = Server::answering(answer).await;
        let destination = Destination { proxy: through(proxy.port(), None), ..secure(443, &authority) };
        let expected = expected(proxy.address.to_string());
        let log = StageLog::default();
        let error = nameless().connect(&destination, &log).await.map(|_| ()).unwrap_err();
        assert_eq!((&error, error.stage()), (&expected, Stage::Proxy));
        assert_eq!(log.running(), Some(Stage::Proxy));
        assert_eq!(request_error(&nameless(), &destination).await, expected);
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let (port, authority) = (closed_port().await, Authority::new("unused"));
    let destination = Destination { proxy: through(port, None), ..secure(443, &authority) };
    let refused =
        DialError::ProxyUnreachable { proxy: format!("127.0.0.1:{port}"), problem: Obstacle::Refused };
    assert_eq!(request_error(&nameless(), &destination).await, refused);

    let proxy = Proxy::Through(ProxyServer::new(ProxyKind::Http, "proxy.corp.example", 3128));
    let destination = Destination { proxy, ..destination };
    let missing = DialError::ProxyUnreachable {
        proxy: "proxy.corp.example:3128".into(),
        problem: Obstacle::NameNotFound,
    };
    let error = nameless().connect(&destination, &StageLog::default()).await.map(|_| ()).unwrap_err();
    assert_eq!(error, missing);
    assert_eq!(request_error(&nameless(), &destination).await, missing);
}

#[tokio::test(start_paused = true)]
async fn a_socks_proxy_that_says_nothing_at_all_is_none() {
    // Its queue of connections is never looked at.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = Proxy::Through(ProxyServer::new(ProxyKind::Socks5, "127.0.0.1", address.port()));
    let destination = Destination { proxy, ..plain(22) };
    let error = nameless().connect(&destination, &StageLog::default()).await.map(|_| ()).unwrap_err();
    assert_eq!(error, DialError::ProxyProtocol { proxy: address.to_string(), kind: ProxyKind::Socks5 });
}

#[tokio::test]
async fn a_plain_request_that_the_proxy_itself_refuses_is_the_proxys_refusal() {
    let proxy = Server::answering(
        "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"a\"\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let destination = Destination { proxy: through(proxy.port(), None), ..plain(8080) };
    let error = request_error(&nameless(), &destination).await;
    assert!(matches!(error, DialError::ProxyAuthRequired { .. }), "{error:?}");
    assert!(proxy.heads()[0].starts_with(&format!("GET http://{HOST}:8080/ HTTP/1.1\r\n")));
}

#[tokio::test]
async fn the_environments_proxy_is_used_and_a_bad_one_is_refused() {
    let variables = |value: String| HashMap::from([("HTTPS_PROXY".to_owned(), value)]);
    let proxy = Server::answering("HTTP/1.1 403 No\r\n\r\n").await;
    let environment = ProxyEnvironment::from_map(&variables(format!("http://{}", proxy.address)));
    let names = names(&[]);
    let door = Door::with_names(environment, Arc::clone(&names) as Arc<dyn Names>);
    let authority = Authority::new("unused");
    let destination = Destination { proxy: Proxy::Environment, ..secure(443, &authority) };
    assert!(matches!(
        request_error(&door, &destination).await,
        DialError::ProxyRefused { reply: ProxyReply::Status(403), .. }
    ));
    assert!(names.asked.lock().unwrap().is_empty());

    let environment = ProxyEnvironment::from_map(&variables("socks4://127.0.0.1:1".into()));
    let log = StageLog::default();
    let door = Door::with_names(environment, names);
    let error = door.connect(&destination, &log).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, DialError::ProxySetting { variable: "HTTPS_PROXY", .. }), "{error:?}");
    assert_eq!((error.stage(), log.running()), (Stage::Proxy, Some(Stage::Proxy)));
}
