//! Clients that send too much, too slowly, or nonsense.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use sortie_control::settings::{Limits, Times};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{PATIENCE, Rig};

#[allow(clippy::disallowed_methods, reason = "a test plays the client")]
/// Sends bytes and reads what comes until the server closes the connection.
async fn raw(rig: &Rig, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(rig.url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset counts as an end.
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_body_is_limited_typed_and_understood() {
    let rig = Rig::with(Times::default(), Limits { body_bytes: 1024, ..Limits::default() }).await;
    let url = format!("{}/api/v1/tasks", rig.url);
    let cases = [
        ("application/json", "x".repeat(2048), 413, "body_too_large"),
        ("text/plain", "{}".to_owned(), 415, "json_required"),
        ("application/json", "{".to_owned(), 400, "invalid_json"),
        ("application/json", "\u{0}".to_owned(), 400, "invalid_json"),
        ("application/json; charset=utf-8", r#"{"kind":"fly"}"#.to_owned(), 400, "invalid_field"),
        ("application/json", format!("{}1{}", "[".repeat(500), "]".repeat(500)), 400, "invalid_json"),
    ];
    for (media, body, status, code) in cases {
        let request = rig.client.post(&url).header("authorization", format!("Bearer {}", rig.admin));
        let response = request.header("content-type", media).body(body).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{code}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        let problem: serde_json::Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(problem["code"], code);
    }
}

#[tokio::test]
async fn fields_out_of_form_are_named() {
    let rig = Rig::start().await;
    let cases = [
        (json!({"run_seconds": 0}), 422, "`run_seconds`"),
        (json!({"queue_seconds": -1}), 400, "`queue_seconds`"),
        (json!({"selector": {"all": ["a b"]}}), 422, "`selector`"),
        (json!({"selector": {"al": []}}), 400, "did you mean `all`?"),
        (json!({"credentials": "x"}), 400, "did you mean `credential`?"),
        (json!({"provider": "github"}), 400, "`provider`"),
        (json!({"depth": 1}), 422, "`depth`"),
    ];
    for (fields, status, word) in cases {
        let mut task = json!({"kind": "connection-test", "url": "https://a"});
        task.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = rig.post("/api/v1/tasks", task).await;
        let detail = answer.body["detail"].as_str().unwrap();
        assert_eq!(answer.status, status, "{detail}");
        assert!(detail.contains(word), "{detail}");
    }
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let rig = Rig::with(Times::default(), Limits { live_tasks: 1, ..Limits::default() }).await;
    rig.task(json!({})).await;
    let task = json!({"kind": "connection-test", "url": "https://a"});
    let full = rig.call(Method::POST, "/api/v1/tasks", Some(task)).await;
    assert_eq!((full.status, &full.body["code"]), (503, &json!("queue_full")));
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_end() {
    let short = Duration::from_millis(100);
    let times = Times { request_head: short, request_body: short, ..Times::default() };
    let rig = Rig::with(times, Limits::default()).await;
    raw(&rig, b"").await;
    raw(&rig, b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-slow:").await;
    let head = format!(
        "POST /api/v1/tasks HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: 10\r\n\r\n{{",
        rig.admin
    );
    let answer = raw(&rig, head.as_bytes()).await;
    assert!(answer.contains("408") && answer.contains("body_timed_out"), "{answer}");
}

#[tokio::test]
async fn what_is_no_http_harms_nobody() {
    let rig = Rig::start().await;
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET\r\n\r\n", &[0xff; 4096]] {
        let answer = raw(&rig, &[bytes, b"\r\n\r\n"].concat()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(80 * 1024));
    let answer = raw(&rig, long.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 414") || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(rig.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn agents_count_among_the_connections() {
    let rig = Rig::with(Times::default(), Limits { connections: 2, ..Limits::default() }).await;
    let identity = rig.enrolled("a").await;
    let agent = identity.connect(&rig.url, &[], &[], &[]).await;
    // The client keeps its own connection, so that no place is left: the next one waits to be accepted.
    assert_eq!(rig.get("/healthz").await.status, 200);
    let address = rig.url.strip_prefix("http://").unwrap().to_owned();
    let waiting = tokio::spawn(async move { get_health(&address).await });
    assert_eq!(rig.get("/healthz").await.status, 200);
    assert!(!waiting.is_finished());
    drop(agent);
    let answer = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[allow(clippy::disallowed_methods, reason = "a test plays the client")]
async fn get_health(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_list_that_waits_too_long_is_put_off_and_everything_else_goes_on() {
    let times = Times { list_wait: Duration::from_millis(1), ..Times::default() };
    let rig = Rig::with(times, Limits { lists: 0, ..Limits::default() }).await;
    let answer = rig.get("/api/v1/tasks").await;
    assert_eq!((answer.status, &answer.body["code"]), (503, &json!("busy")));
    rig.task(json!({})).await;
}

#[allow(clippy::disallowed_methods, reason = "a test plays the client")]
#[tokio::test]
async fn a_client_that_does_not_read_gives_its_place_back() {
    let times = Times { write: Duration::from_millis(50), ..Times::default() };
    let rig = Rig::with(times, Limits { connections: 1, ..Limits::default() }).await;
    let address = rig.url.strip_prefix("http://").unwrap();
    let mut stuck = TcpStream::connect(address).await.unwrap();
    // Requests go out until nothing more is taken, because no answer is read.
    let request = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: a\r\n\r\n".repeat(64);
    let flood = async { while stuck.write_all(&request).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood).await.expect("the connection stays open");
    let answer = tokio::time::timeout(PATIENCE, rig.get("/healthz")).await.expect("the place stays taken");
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_task_that_would_not_fit_into_an_offer_is_refused() {
    let rig = Rig::start().await;
    let labels: serde_json::Map<_, _> =
        (0..32).map(|number| (format!("label{number}"), json!("x".repeat(4000)))).collect();
    let task = json!({"kind": "connection-test", "url": "https://git.example/a", "labels": labels});
    let answer = rig.post("/api/v1/tasks", task).await;
    assert_eq!((answer.status, &answer.body["code"]), (422, &json!("task_too_large")));
}
