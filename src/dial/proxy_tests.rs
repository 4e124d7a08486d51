#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::ProxyKind;
use crate::policy::AddressRule;
use crate::remote_url::RemoteUrl;

fn environment(pairs: &[(&str, &str)]) -> ProxyEnvironment {
    ProxyEnvironment::from_map(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
}

fn destination(url: &str) -> Destination {
    let url = RemoteUrl::parse(url).unwrap();
    Destination {
        host: url.host().into(),
        port: url.port(),
        tls: url.scheme() == crate::remote_url::Scheme::Https,
        alpn: if url.scheme() == crate::remote_url::Scheme::Ssh { Alpn::None } else { Alpn::Http2OrHttp1 },
        rule: AddressRule::Remote,
        proxy: Proxy::Environment,
        ca_file: None,
        proxy_ca_file: None,
        client_certificate: None,
    }
}

fn chosen(pairs: &[(&str, &str)], url: &str) -> Option<String> {
    let proxy = choose(&environment(pairs), &destination(url)).unwrap();
    proxy.map(|proxy| endpoint(&proxy.host, proxy.port))
}

#[test]
fn each_scheme_has_its_variable_and_lower_case_comes_first() {
    let all = [("HTTPS_PROXY", "http://up:1"), ("https_proxy", "low:2"), ("http_proxy", "plain:3")];
    assert_eq!(chosen(&all, "https://a.example").as_deref(), Some("low:2"));
    assert_eq!(chosen(&all[..1], "https://a.example").as_deref(), Some("up:1"));
    assert_eq!(chosen(&all, "http://a.example").as_deref(), Some("plain:3"));
    assert_eq!(chosen(&[("HTTP_PROXY", "up:1")], "http://a.example").as_deref(), Some("up:1"));
    // What a web server runs cannot tell a variable from a header of the request.
    assert_eq!(chosen(&[("HTTP_PROXY", "evil:1"), ("REQUEST_METHOD", "GET")], "http://a.example"), None);
    assert_eq!(chosen(&[("ALL_PROXY", "any")], "https://a.example").as_deref(), Some("any:80"));
    assert_eq!(chosen(&[("ALL_PROXY", "any")], "git@a.example:b/c"), None);
    assert_eq!(chosen(&[("https_proxy", "")], "https://a.example"), None);
}

#[test]
fn a_loopback_destination_has_no_proxy() {
    for url in ["https://localhost:1", "https://127.0.0.1:1", "https://[::1]:1", "https://x.localhost"] {
        assert_eq!(chosen(&[("https_proxy", "p:1")], url), None, "{url}");
    }
}

#[test]
fn exemptions_are_names_suffixes_ports_networks_or_everything() {
    let exempt = |list: &str, url: &str| chosen(&[("https_proxy", "p:1"), ("NO_PROXY", list)], url).is_none();
    assert!(exempt("a.example", "https://a.example"));
    assert!(exempt("A.Example", "https://a.example"));
    assert!(exempt("example", "https://a.example"));
    assert!(exempt(".example", "https://a.example"));
    assert!(exempt("*.example", "https://a.example"));
    assert!(!exempt("a.example", "https://aa.example"));
    assert!(!exempt("b.example, ,c.example", "https://a.example"));
    assert!(exempt("b.example a.example:8443", "https://a.example:8443"));
    assert!(!exempt("a.example:8443", "https://a.example"));
    assert!(exempt("10.0.0.0/8", "https://10.1.2.3"));
    assert!(!exempt("10.0.0.0/8", "https://11.1.2.3"));
    assert!(exempt("192.0.2.1:443", "https://192.0.2.1"));
    assert!(exempt("2001:db8::/32", "https://[2001:db8::1]"));
    assert!(exempt("[2001:db8::1]:443", "https://[2001:db8::1]"));
    assert!(exempt("*", "https://a.example"));
    assert!(!exempt(".", "https://a.example"));
    assert!(exempt("a.example.", "https://a.example") && exempt("*.a.example", "https://x.a.example"));
    assert!(exempt("10.1.2.3", "https://10.1.2.3:8443") && !exempt("10.1.2.3:1", "https://10.1.2.3"));
    assert!(exempt("10.0.0.0/8:8443", "https://10.1.2.3:8443"));
    assert!(exempt(".a.example:8443", "https://x.a.example:8443"));
    assert!(!exempt(".a.example:8443", "https://x.a.example"));
    assert!(!exempt("", "https://a.example") && !exempt("10.0.0.0/8", "https://a.example"));
}

#[test]
fn user_and_password_are_taken_and_never_shown() {
    let environment = environment(&[("https_proxy", "http://al%40ice:p%3Ass@proxy.example:3128/")]);
    let proxy = choose(&environment, &destination("https://a.example")).unwrap().unwrap();
    let authorization = proxy.authorization.as_ref().unwrap();
    assert_eq!((authorization.user.as_str(), authorization.password.expose()), ("al@ice", "p:ss"));
    for shown in [format!("{environment:?}"), format!("{proxy:?}")] {
        assert!(!shown.contains("p:ss") && !shown.contains("p%3Ass"), "{shown}");
    }
}

#[test]
fn a_proxy_of_another_kind_is_named_without_its_value() {
    for (value, problem) in [
        ("socks4://u:hunter2@p:1", ProxySettingProblem::Scheme("socks4".into())),
        ("ftp://p:1", ProxySettingProblem::Scheme("ftp".into())),
        ("http://p:99999", ProxySettingProblem::Form),
        ("http://", ProxySettingProblem::Form),
        ("http://u:hunter2@p:1/path", ProxySettingProblem::Form),
    ] {
        let refused = choose(&environment(&[("ALL_PROXY", value)]), &destination("https://a.example"));
        let refused = refused.unwrap_err();
        assert!(!format!("{refused} {refused:?}").contains("hunter2"));
        assert_eq!(refused, DialError::ProxySetting { variable: "ALL_PROXY", problem });
    }
}

#[test]
fn each_kind_of_proxy_has_its_scheme_and_its_port() {
    let of = |text: &str| {
        let proxy = choose(&environment(&[("ALL_PROXY", text)]), &destination("https://a.example"));
        let proxy = proxy.unwrap().unwrap();
        (proxy.kind, endpoint(&proxy.host, proxy.port), proxy.url())
    };
    let expected = |kind, endpoint: &str, url: &str| (kind, endpoint.to_owned(), url.to_owned());
    assert_eq!(of("p"), expected(ProxyKind::Http, "p:80", "http://p:80"));
    assert_eq!(of("https://p"), expected(ProxyKind::Https, "p:443", "https://p:443"));
    assert_eq!(of("SOCKS5://p/"), expected(ProxyKind::Socks5, "p:1080", "socks5://p:1080"));
    assert_eq!(of("socks5h://u:x@[::1]"), expected(ProxyKind::Socks5, "[::1]:1080", "socks5://[::1]:1080"));
    assert_eq!(of("socks5h://[::1]:99"), expected(ProxyKind::Socks5, "[::1]:99", "socks5://[::1]:99"));
    assert_eq!(of("https://p:80"), expected(ProxyKind::Https, "p:80", "https://p:80"));
}

#[test]
fn the_declared_way_wins_over_the_environment() {
    let environment = environment(&[("https_proxy", "p:1")]);
    let mut destination = destination("https://localhost");
    destination.proxy = Proxy::Through(ProxyServer::new(ProxyKind::Socks5, "q", 2));
    assert_eq!(choose(&environment, &destination).unwrap().unwrap().host, "q");
    destination.host = "a.example".into();
    destination.proxy = Proxy::Direct;
    assert!(choose(&environment, &destination).unwrap().is_none());
}
