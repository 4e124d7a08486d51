//! What is answered to which request: a pure function of the status.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::{Source, metrics};
use crate::pulse::Stuck;

/// Answers a request for a path. The answer to a HEAD has its body still, which is left out when it is sent.
pub(super) fn answer(method: &Method, path: &str, source: &Source) -> Response<String> {
    let status = source.status.borrow().clone();
    let now = Instant::now();
    if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
        return text(StatusCode::NOT_FOUND, "there is /healthz, /readyz and /metrics\n");
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are answered\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/healthz" => {
            let is_alive = status.pulse.is_alive(now);
            let reasons: &[_] = if is_alive { &[] } else { &[Stuck::Loop.as_str()] };
            verdict("alive", reasons)
        }
        "/readyz" => verdict("ready", &status.missing(now)),
        _ => with_type(StatusCode::OK, metrics::CONTENT_TYPE, metrics::page(&status, &source.daemon, now)),
    }
}

fn verdict(name: &str, reasons: &[&str]) -> Response<String> {
    let is_well = reasons.is_empty();
    let code = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = if is_well { json!({ name: true }) } else { json!({ name: false, "reasons": reasons }) };
    with_type(code, "application/json", format!("{body}\n"))
}

fn text(code: StatusCode, body: &str) -> Response<String> {
    with_type(code, "text/plain; charset=utf-8", body.to_owned())
}

fn with_type(code: StatusCode, media_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    // It holds for this very moment.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pulse::{LOOP_LIMIT, Pulse};
    use crate::status::{Board, Daemon, Moment};

    /// A daemon that is connected, and whose loop came around so long ago.
    fn source(since_turn: Duration) -> Source {
        let (board, status) = Board::new();
        let now = Instant::now();
        board.update(|status| {
            status.connected = Some(Moment::now());
            status.heard = Some(now);
            status.dead_after = Duration::from_secs(30);
            status.pulse = Pulse { turned: Some(now - since_turn), ..Pulse::default() };
        });
        Source { daemon: Daemon::of_tests(), status }
    }

    fn get(path: &str, source: &Source) -> (u16, String) {
        let answer = answer(&Method::GET, path, source);
        (answer.status().as_u16(), answer.into_body())
    }

    #[test]
    fn a_loop_that_hangs_is_neither_alive_nor_ready() {
        let well = source(Duration::ZERO);
        assert_eq!(get("/healthz", &well), (200, "{\"alive\":true}\n".into()));
        assert_eq!(get("/readyz", &well), (200, "{\"ready\":true}\n".into()));
        let hanging = source(LOOP_LIMIT + Duration::from_secs(1));
        let loop_stuck = |name: &str| (503, format!("{{\"{name}\":false,\"reasons\":[\"loop_stuck\"]}}\n"));
        assert_eq!(get("/healthz", &hanging), loop_stuck("alive"));
        assert_eq!(get("/readyz", &hanging), loop_stuck("ready"));
        assert!(get("/metrics", &hanging).1.contains("\nsortie_ready 0\n"));
    }

    #[test]
    fn nothing_else_is_answered() {
        let source = source(Duration::ZERO);
        for path in ["/", "/healthz/", "/metrics/x", "//healthz", "/HEALTHZ"] {
            assert_eq!(get(path, &source).0, 404, "{path}");
        }
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
            let answer = answer(&method, "/healthz", &source);
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()[ALLOW]),
                (405, &HeaderValue::from_static("GET, HEAD"))
            );
        }
    }
}
