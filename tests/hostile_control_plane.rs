//! A control plane that breaks the protocol does the agent no harm.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::support::binary::Sortie;

const LIMIT: Duration = Duration::from_secs(30);

/// A state directory of an agent that is enrolled at `url`, without a control plane that would do it.
pub(crate) fn enrolled(home: &std::path::Path, url: &str) -> std::path::PathBuf {
    use sortie::identity;
    let state = home.join("state");
    let key = identity::prepare(&state, url).unwrap();
    let identity = identity::Identity { agent_id: "a1".into(), control_plane: url.into(), key };
    identity::store(&state, &identity).unwrap();
    let config = home.join("config.toml");
    let text = format!(
        "[agent]\nname = \"a\"\nstate_dir = \"{}\"\ncontrol_socket = \"{}\"\n[control_plane]\nurl = \"{url}\"\n",
        state.display(),
        home.join("control.sock").display()
    );
    std::fs::write(&config, text).unwrap();
    config
}

// The form of the callback is tungstenite's.
#[allow(clippy::result_large_err)]
pub(crate) async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let (stream, _) =
        tokio::time::timeout(LIMIT, listener.accept()).await.expect("the agent connects").unwrap();
    let subprotocol = |_: &Request, mut response: Response| {
        response.headers_mut().insert("Sec-WebSocket-Protocol", "sortie.v1".parse().unwrap());
        Ok(response)
    };
    tokio_tungstenite::accept_hdr_async(stream, subprotocol).await.unwrap()
}

async fn open(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let mut line = accept(listener).await;
    send(&mut line, &json!({"type": "challenge", "session": "s", "nonce": "bm9uY2U="})).await;
    assert_eq!(receive(&mut line).await["type"], "hello");
    let times = json!({"ping_ms": 15_000, "dead_after_ms": 30_000, "renew_ms": 20_000});
    send(&mut line, &json!({"type": "welcome", "session": "s", "version": "1", "times": times, "new": [1]}))
        .await;
    assert_eq!(receive(&mut line).await, json!({"type": "credit", "slots": 4}));
    line
}

pub(crate) async fn send(line: &mut WebSocketStream<TcpStream>, message: &Value) {
    line.send(Message::text(message.to_string())).await.unwrap();
}

pub(crate) async fn receive(line: &mut WebSocketStream<TcpStream>) -> Value {
    loop {
        let message = tokio::time::timeout(LIMIT, line.next()).await.expect("a message in time");
        if let Message::Text(text) = message.expect("an open line").unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_not_understood_is_answered_and_bounded() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sortie = Sortie::new();
    let config = enrolled(sortie.home(), &url);
    let mut daemon = sortie.start(["run", "--config", config.to_str().unwrap()]);

    let mut line = open(&listener).await;
    let deep = format!("{{\"type\":\"offer\",\"x\":{}{}}}", "[".repeat(64), "]".repeat(64));
    for (text, code) in [
        ("not json", "not_a_message"),
        ("{\"type\":\"fly\"}", "unknown_type"),
        ("{\"type\":\"offer\"}", "malformed"),
        (
            "{\"type\":\"welcome\",\"session\":\"s\",\"version\":\"1\",\"times\":{\"ping_ms\":1,\"dead_after_ms\":1,\"renew_ms\":1}}",
            "out_of_turn",
        ),
        (&deep, "message_too_deep"),
    ] {
        line.send(Message::text(text)).await.unwrap();
        let answer = receive(&mut line).await;
        assert_eq!((answer["type"].as_str(), answer["code"].as_str()), (Some("error"), Some(code)), "{text}");
    }
    // A task that is none is rejected, and its slot is free again.
    let offer = json!({"type": "offer", "task_id": "t", "attempt": 1, "task": "{\"kind\":\"dig\"}",
        "accept_within_ms": 10_000, "lease_ms": 60_000});
    send(&mut line, &offer).await;
    let answer = receive(&mut line).await;
    assert_eq!((answer["type"].as_str(), answer["reason"].as_str()), (Some("reject"), Some("not_supported")));

    // A message over the limit closes the line, and the agent comes back for another try.
    let _ = line.send(Message::text(format!("{{\"type\":\"{}\"}}", "x".repeat(4 * 1024 * 1024)))).await;
    let mut line = open(&listener).await;
    for _ in 0..9 {
        line.send(Message::text("garbage")).await.unwrap();
    }
    let mut line = open(&listener).await;
    let goaway = json!({"type": "goaway", "reason": "identity_refused", "message": "unknown agent"});
    send(&mut line, &goaway).await;
    let closed = tokio::time::timeout(LIMIT, async { while let Some(Ok(_)) = line.next().await {} }).await;
    assert!(closed.is_ok(), "the agent closes the line");
    assert!(daemon.is_running());
    assert!(daemon.stderr().contains("unknown agent"), "{}", daemon.stderr());
}

#[tokio::test]
async fn something_that_is_no_control_plane_is_tried_again() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sortie = Sortie::new();
    let config = enrolled(sortie.home(), &url);
    let mut daemon = sortie.start(["run", "--config", config.to_str().unwrap()]);
    let not_found = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    // The last one answers the try to poll that follows on three upgrades that did not pass.
    for answer in [not_found, "garbage\r\n\r\n", "", not_found] {
        let (mut stream, _) =
            tokio::time::timeout(LIMIT, listener.accept()).await.expect("it comes back").unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
    let _line = open(&listener).await;
    assert!(daemon.is_running());
    assert!(daemon.stderr().contains("status 404"), "{}", daemon.stderr());
}

/// Offers one attempt of a connection test, whoever had it before.
async fn offer_again(line: &mut WebSocketStream<TcpStream>, port: u16) {
    let task = json!({"kind": "connection-test", "url": format!("https://127.0.0.1:{port}/x")}).to_string();
    let offer = json!({"type": "offer", "task_id": "t", "attempt": 1, "task": task,
        "accept_within_ms": 10_000, "lease_ms": 60_000});
    send(line, &offer).await;
}

/// Waits for a message of a type.
async fn receive_type(line: &mut WebSocketStream<TcpStream>, wanted: &str) -> Value {
    loop {
        let message = receive(line).await;
        if message["type"] == wanted {
            return message;
        }
    }
}

#[tokio::test]
async fn an_attempt_that_was_taken_is_not_taken_again_even_by_the_next_process() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // A server that hangs up on everybody, so that the test has its result at once.
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = server.local_addr().unwrap().port();
    let hangs_up = async {
        loop {
            drop(server.accept().await.unwrap());
        }
    };
    let url = format!("http://{}", listener.local_addr().unwrap());
    let sortie = Sortie::new();
    let config = enrolled(sortie.home(), &url);
    let mut text = std::fs::read_to_string(&config).unwrap();
    text.push_str(&format!("[servers.lab]\nprovider = \"git\"\nurl = \"https://127.0.0.1:{port}\"\n"));
    std::fs::write(&config, text).unwrap();

    let replayed = async {
        let mut daemon = sortie.start(["run", "--config", config.to_str().unwrap()]);
        let mut line = open(&listener).await;
        offer_again(&mut line, port).await;
        let result = receive_type(&mut line, "result").await;
        offer_again(&mut line, port).await;
        assert_eq!(receive_type(&mut line, "result").await, result, "nobody has acknowledged it");
        let acknowledged =
            json!({"type": "result_ack", "task_id": "t", "attempt": 1, "disposition": "recorded"});
        send(&mut line, &acknowledged).await;
        offer_again(&mut line, port).await;
        assert_eq!(receive_type(&mut line, "reject").await["reason"], "duplicate");

        daemon.kill();
        let _daemon = sortie.start(["run", "--config", config.to_str().unwrap()]);
        let mut line = open(&listener).await;
        offer_again(&mut line, port).await;
        assert_eq!(receive_type(&mut line, "reject").await["reason"], "duplicate");
    };
    tokio::select! {
        () = replayed => {}
        () = hangs_up => {}
    }
}
