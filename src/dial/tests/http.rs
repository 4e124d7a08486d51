use std::io;
use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, LOCATION};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::http::Response;

use super::rig::{Authority, HOST, Server, door, ok, plain, read_head, secure, server_params};
use crate::dial::{Alpn, HttpClient, HttpError, READ_TIMEOUT, read_limited, tls};
use crate::report::StageLog;

async fn client_of(server: &Server) -> HttpClient {
    door().client(&plain(server.port())).await.unwrap()
}

#[tokio::test]
async fn no_redirect_is_followed_and_no_secret_goes_elsewhere() {
    let elsewhere = Server::answering(ok("stolen")).await;
    for status in [301, 302, 303, 307, 308] {
        let location = format!("http://{HOST}:{}/login", elsewhere.port());
        let answer = format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let server = Server::answering(answer).await;
        let client = client_of(&server).await;
        let request = client.request(Method::POST, "/x").header(AUTHORIZATION, "Bearer canary").body("b");
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()[LOCATION], location);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn no_path_leads_off_the_origin() {
    let server = Server::answering(ok("")).await;
    let client = client_of(&server).await;
    assert_eq!(client.origin(), format!("http://{HOST}:{}", server.port()));
    for path in [
        "//evil.example/x",
        "https://evil.example/",
        "/\\evil.example",
        "\\\\evil.example",
        "@evil.example/",
        ":1/",
        "?a=//evil.example",
        "/#@evil.example",
        "",
        "/../../x",
        "/a%2f..%2fb?c=%0d%0aX: y",
    ] {
        let request = client.request(Method::GET, path).build().unwrap();
        let url = request.url();
        assert_eq!(url.origin().ascii_serialization(), client.origin(), "{path}");
        assert!(url.username().is_empty() && url.path().starts_with('/'), "{path}");
    }
    let foreign = reqwest::Request::new(Method::GET, "http://evil.example/".parse().unwrap());
    let library = reqwest::Client::builder();
    let (config, _) = tls::for_client(&tls::Setup::default(), Alpn::Http1).unwrap();
    let library = library.tls_backend_preconfigured(config);
    let foreign = reqwest::RequestBuilder::from_parts(library.build().unwrap(), foreign);
    assert_eq!(client.send(foreign).await.unwrap_err(), HttpError::BadRequest);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_compressed_body_stays_compressed() {
    // The head of a gzip stream; what it would unfold to is never asked.
    let bomb = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03bomb";
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bomb.len()
    );
    let server = Server::answering([head.as_bytes(), bomb].concat()).await;
    let client = client_of(&server).await;
    let response = client.send(client.request(Method::GET, "/")).await.unwrap();
    assert_eq!(read_limited(response, bomb.len()).await.unwrap(), bomb);
    assert!(!server.heads()[0].to_lowercase().contains("accept-encoding"));
}

#[tokio::test]
async fn a_body_is_limited_with_and_without_its_length() {
    let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n";
    for answer in [ok("helloworld"), chunked.to_owned()] {
        let server = Server::answering(answer).await;
        let client = client_of(&server).await;
        let response = client.send(client.request(Method::GET, "/")).await.unwrap();
        assert_eq!(read_limited(response, 10).await.unwrap(), b"helloworld");
        let response = client.send(client.request(Method::GET, "/")).await.unwrap();
        let error = read_limited(response, 9).await.unwrap_err();
        assert_eq!(error, HttpError::BodyTooLarge { max_bytes: 9 });
    }
}

#[tokio::test]
async fn a_cut_and_a_garbled_answer_are_two_things() {
    let cut = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello").await;
    let client = client_of(&cut).await;
    let response = client.send(client.request(Method::GET, "/")).await.unwrap();
    let error = read_limited(response, 100).await.unwrap_err();
    assert_eq!(error, HttpError::Interrupted { kind: io::ErrorKind::UnexpectedEof });

    for (said, expected) in [
        ("", HttpError::Interrupted { kind: io::ErrorKind::UnexpectedEof }),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", HttpError::Protocol),
    ] {
        let server = Server::answering(said).await;
        let client = client_of(&server).await;
        let error = client.send(client.request(Method::GET, "/")).await.unwrap_err();
        assert_eq!(error, expected, "{said}");
    }
}

#[tokio::test]
async fn silence_is_bounded() {
    let asked = Arc::new(Notify::new());
    let told = Arc::clone(&asked);
    let server = Server::run(move |mut tcp, _| {
        let told = Arc::clone(&told);
        async move {
            let _ = read_head(&mut tcp).await;
            told.notify_one();
            let _ = tcp.read_u8().await;
        }
    })
    .await;
    let client = client_of(&server).await;
    let sending = client.send(client.request(Method::GET, "/"));
    let waiting = async {
        asked.notified().await;
        // From here on time passes as soon as there is nothing to do.
        tokio::time::pause();
    };
    let (outcome, ()) = tokio::join!(sending, waiting);
    assert_eq!(outcome.unwrap_err(), HttpError::TimedOut { after: READ_TIMEOUT });
}

/// Serves HTTP/2 where the client offers it, on which `refuse` decides, and HTTP/1.1 otherwise.
async fn http2_server(authority: &Authority, refuse: Option<h2::Reason>) -> Server {
    let mut config = authority.issue(server_params(&[HOST])).config();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Server::run(move |tcp, heads| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut tls) = acceptor.accept(tcp).await else { return };
            if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
                serve_http2(tls, refuse).await;
                return;
            }
            while let Some(head) = read_head(&mut tls).await {
                heads.lock().unwrap().push(head);
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none";
                tls.write_all(answer).await.unwrap();
            }
        }
    })
    .await
}

async fn serve_http2(tls: impl AsyncRead + AsyncWrite + Unpin, refuse: Option<h2::Reason>) {
    let Ok(mut connection) = h2::server::handshake(tls).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        if let Some(reason) = refuse {
            respond.send_reset(reason);
            continue;
        }
        let mut body = respond.send_response(Response::new(()), false).unwrap();
        body.send_data("two".into(), true).unwrap();
    }
}

#[tokio::test]
async fn http2_is_spoken_where_the_server_offers_it() {
    let authority = Authority::new("Corp Root");
    let server = http2_server(&authority, None).await;
    let (door, destination) = (door(), secure(server.port(), &authority));
    let stream = door.connect(&destination, &StageLog::default()).await.unwrap();
    assert_eq!(stream.facts().tls.as_ref().unwrap().alpn.as_deref(), Some("h2"));
    let client = door.client(&destination).await.unwrap();
    for _ in 0..2 {
        let response = client.send(client.request(Method::GET, "/")).await.unwrap();
        assert_eq!(response.version(), reqwest::Version::HTTP_2);
        assert_eq!(read_limited(response, 100).await.unwrap(), b"two");
    }
    // One for the stream, one for both requests.
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_server_that_demands_http1_gets_it() {
    let authority = Authority::new("Corp Root");
    let server = http2_server(&authority, Some(h2::Reason::HTTP_1_1_REQUIRED)).await;
    let client = door().client(&secure(server.port(), &authority)).await.unwrap();
    for _ in 0..2 {
        let response = client.send(client.request(Method::GET, "/x")).await.unwrap();
        assert_eq!(response.version(), reqwest::Version::HTTP_11);
        assert_eq!(read_limited(response, 100).await.unwrap(), b"one");
    }
    assert_eq!((server.heads().len(), server.connections()), (2, 2));
    let refusing = http2_server(&authority, Some(h2::Reason::REFUSED_STREAM)).await;
    let client = door().client(&secure(refusing.port(), &authority)).await.unwrap();
    let error = client.send(client.request(Method::GET, "/")).await.unwrap_err();
    assert_eq!(error, HttpError::Interrupted { kind: io::ErrorKind::ConnectionReset });
}
