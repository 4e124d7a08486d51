//! The way to the control plane, and its clock.

use super::*;

#[test]
fn a_control_plane_that_cannot_be_reached_is_diagnosed_like_a_server() {
    let scene = Scene::small();
    let at = |keys: &str| Setup::new().with(&format!("[control_plane]\n{keys}")).run(&["--json"]).json();
    let closed = at(&format!("url = \"http://127.0.0.1:{}\"", free_port()));
    assert_eq!(check(&closed, "control_plane")["facts"]["code"], "connection_refused", "{closed:#}");
    assert_eq!(status(&closed, "clock"), "skipped");
    let stages = &check(&closed, "control_plane")["report"]["stages"];
    assert_eq!(
        (&stages[0]["stage"], &stages[1]["status"]),
        (&json!("resolve"), &json!("failed")),
        "{closed:#}"
    );

    let control_plane = ControlPlane::start_with_tls(&scene.authority);
    let untrusted = at(&format!("url = \"{}\"", control_plane.url()));
    let found = check(&untrusted, "control_plane");
    assert_eq!(found["facts"]["code"], "tls_untrusted_issuer", "{untrusted:#}");
    assert!(found["remedies"].to_string().contains("[control_plane]"), "{found:#}");
    let ca_file = scene.authority.ca_file().display();
    let trusted = at(&format!("url = \"{}\"\nca_file = \"{ca_file}\"", control_plane.url()));
    assert_eq!(
        (status(&trusted, "control_plane"), status(&trusted, "clock")),
        ("passed", "passed"),
        "{trusted:#}"
    );

    let other = at(&format!("url = \"{}\"\nca_file = \"{ca_file}\"", scene.server().url()));
    let found = check(&other, "control_plane");
    assert_eq!(found["status"], "failed", "{other:#}");
    assert!(found["summary"].as_str().unwrap().contains("upgrade"), "{found:#}");
    let prefixed = at(&format!("url = \"{}/wrong\"\nca_file = \"{ca_file}\"", control_plane.url()));
    assert!(check(&prefixed, "control_plane")["remedies"].to_string().contains("/agent/v1"), "{prefixed:#}");
}

/// A control plane whose clock is wrong: it takes upgrades, and tells its date at /healthz.
async fn serve_date(listener: tokio::net::TcpListener, date: String) {
    use tokio::io::AsyncWriteExt as _;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut first = [0; 12];
        while stream.peek(&mut first).await.unwrap() < first.len() {
            stream.readable().await.unwrap();
        }
        if first.starts_with(b"GET /healthz") {
            let answer = format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            continue;
        }
        #[allow(clippy::result_large_err)]
        let subprotocol = |_: &Request, mut response: Response| {
            response.headers_mut().insert("Sec-WebSocket-Protocol", "sortie.v1".parse().unwrap());
            Ok(response)
        };
        // The connection that only measures the way is closed without a request.
        let _ = tokio_tungstenite::accept_hdr_async(stream, subprotocol).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_told_with_its_offset() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let setup =
        Setup::new().with(&format!("[control_plane]\nurl = \"http://{}\"", listener.local_addr().unwrap()));
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(serve_date(listener, "Fri, 20 Nov 2020 04:00:00 GMT".to_owned()));
    let output = tokio::task::spawn_blocking(move || setup.run(&["--json"])).await.unwrap();
    let report = output.json();
    assert_eq!(
        (status(&report, "control_plane"), status(&report, "clock")),
        ("passed", "failed"),
        "{report:#}"
    );
    let clock = check(&report, "clock");
    assert!(clock["facts"]["offset_seconds"].as_i64().unwrap() > 86_400, "{clock:#}");
    assert!(clock["remedies"].to_string().contains("timedatectl"), "{clock:#}");
}
