//! What is answered to which request: a pure function of the status.

use std::net::{IpAddr, SocketAddr};

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::{Source, metrics};
use crate::pulse::Stuck;

/// Whether a request names this listener as its host, or `localhost`. A page in a browser on this host can reach a
/// loopback address by a name of its own that it points there (DNS rebinding), and the browser then sends that name.
/// Over a Unix socket, where `listener` is `None`, no browser comes.
pub(super) fn is_for<B>(request: &Request<B>, listener: Option<SocketAddr>) -> bool {
    let Some(listener) = listener else { return true };
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = Authority::try_from(host.as_bytes()) else { return false };
    // A target with a host of its own counts beside the header.
    std::iter::once(&host).chain(request.uri().authority()).all(|host| is_host(host, listener))
}

fn is_host(authority: &Authority, listener: SocketAddr) -> bool {
    let host = authority.host();
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_port = authority.port().is_none_or(|port| port.as_str().parse() == Ok(listener.port()));
    address.parse::<IpAddr>() == Ok(listener.ip()) && is_port
}

/// What a request gets that names another host.
pub(super) fn misdirected() -> Response<String> {
    text(
        StatusCode::MISDIRECTED_REQUEST,
        "the header Host names another host than health.listen and localhost\n",
    )
}

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
    fn only_the_listener_and_localhost_are_answered_for() {
        let v4 = Some("127.0.0.1:7801".parse().unwrap());
        let v6 = Some("[::1]:7801".parse().unwrap());
        let is_for = |listener, target: &str, hosts: &[&str]| {
            let request =
                hosts.iter().fold(Request::get(target), |request, host| request.header(HOST, *host));
            is_for(&request.body(()).unwrap(), listener)
        };
        for host in ["127.0.0.1:7801", "127.0.0.1", "localhost:7801", "localhost", "LocalHost:9000"] {
            assert!(is_for(v4, "/metrics", &[host]), "{host}");
        }
        assert!(is_for(v6, "/metrics", &["[::1]:7801"]) && is_for(v6, "/metrics", &["localhost:7801"]));
        assert!(is_for(v4, "http://127.0.0.1:7801/metrics", &["127.0.0.1:7801"]));
        for host in [
            "evil.example",
            "evil.example:7801",
            "localhost.evil.example",
            "127.0.0.1.evil.example:7801",
            "127.0.0.1:80",
            "127.0.0.2:7801",
            "[::1]:7801",
            "2130706433",
            "127.1:7801",
            "localhost.",
            "",
            "a b",
            "user@evil.example",
        ] {
            assert!(!is_for(v4, "/metrics", &[host]), "{host}");
        }
        assert!(!is_for(v4, "/metrics", &[]));
        assert!(!is_for(v4, "/metrics", &["localhost", "evil.example"]));
        assert!(!is_for(v4, "http://evil.example/metrics", &["127.0.0.1:7801"]));
        for hosts in [&[][..], &["sortie"], &["evil.example"]] {
            assert!(is_for(None, "/metrics", hosts));
        }
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
