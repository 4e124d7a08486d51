//! Which texts are URLs, what they come to, and which are refused by which reason.
#![allow(clippy::unwrap_used)]

use super::*;

fn shown(text: &str) -> String {
    RemoteUrl::parse(text).unwrap().to_string()
}

#[test]
fn one_place_has_one_spelling() {
    assert_eq!(
        shown("HTTPS://Ado.Corp.Example:443/tfs//Default/_git/web/"),
        "https://ado.corp.example/tfs/Default/_git/web"
    );
    assert_eq!(
        shown("https://ado@dev.azure.com/org/My%20Shop/_git/web"),
        "https://dev.azure.com/org/My%20Shop/_git/web"
    );
    assert_eq!(shown("git@gitlab.example:group/sub/web.git"), "ssh://gitlab.example/group/sub/web.git");
    assert_eq!(
        shown("ssh://git@gitlab.example:2222/group/web.git"),
        "ssh://gitlab.example:2222/group/web.git"
    );
    assert_eq!(shown("https://[2001:DB8::1]:8443/x"), "https://[2001:db8::1]:8443/x");
    assert_eq!(shown("https://bücher.example/größe"), "https://xn--bcher-kva.example/gr%C3%B6%C3%9Fe");
}

#[test]
fn the_short_form_of_ssh_keeps_its_path_as_it_was_written() {
    let short = RemoteUrl::parse("git@host.example:v3/org/My%20Shop/web").unwrap();
    assert_eq!(short.short_path(), Some("v3/org/My%20Shop/web"));
    assert_eq!(short.to_string(), "ssh://host.example/v3/org/My%20Shop/web");
    assert_eq!(RemoteUrl::parse("ssh://git@host.example/v3/org").unwrap().short_path(), None);
}

#[test]
fn hostile_texts_are_refused_by_their_reason() {
    let cases = [
        ("ext::sh -c touch%20x", UrlError::ControlCharacters),
        ("ext::sh", UrlError::NotAUrl),
        ("file:///etc", UrlError::Scheme("file".into())),
        ("git://host/x", UrlError::Scheme("git".into())),
        ("/etc/passwd", UrlError::NotAUrl),
        ("C:\\repo", UrlError::NotAUrl),
        ("--upload-pack=touch", UrlError::OptionLike("beginning")),
        ("ssh://-oProxyCommand=x/y", UrlError::OptionLike("host")),
        ("ssh://-Fx@host/y", UrlError::OptionLike("user")),
        ("git@host:-x", UrlError::OptionLike("path")),
        ("https://host/a%0ab", UrlError::ControlCharacters),
        ("https://host/a%0Db", UrlError::ControlCharacters),
        ("https://good?@evil/", UrlError::QueryOrFragment),
        ("https://good#@evil", UrlError::QueryOrFragment),
        ("https://user:pass@host/x", UrlError::Password),
        ("https://2130706433/x", UrlError::AmbiguousAddress),
        ("https://0x7f.1/x", UrlError::AmbiguousAddress),
        ("https://0177.0.0.1/x", UrlError::AmbiguousAddress),
        ("https://[::ffff:127.0.0.1]/x", UrlError::AmbiguousAddress),
        ("https://host/../x", UrlError::Path),
        ("https://host/%2e%2e/x", UrlError::Path),
        ("https://host/a%zz", UrlError::Path),
        ("https://host:0/x", UrlError::Port),
        ("https://host:70000/x", UrlError::Port),
        ("https:///x", UrlError::Host),
        ("https://a;b/x", UrlError::Host),
        ("https://a$b/x", UrlError::Host),
        ("https://a..b/x", UrlError::Host),
        ("", UrlError::NotAUrl),
    ];
    for (text, error) in cases {
        assert_eq!(RemoteUrl::parse(text), Err(error), "{text}");
    }
    let long = format!("https://host/{}", "a".repeat(64 * 1024));
    assert_eq!(RemoteUrl::parse(&long), Err(UrlError::TooLong(long.len())));
}

#[test]
fn a_prefix_is_one_of_whole_segments() {
    let base = RemoteUrl::parse("https://ado.example/Default").unwrap();
    let contains = |text| base.contains(&RemoteUrl::parse(text).unwrap());
    assert!(contains("https://ado.example/Default/Shop/_git/web"));
    assert!(contains("https://ado.example/%44efault/Shop"));
    assert!(!contains("https://ado.example/DefaultCollection/Shop"));
    assert!(!contains("http://ado.example/Default/Shop"));
    assert!(!contains("https://ado.example:444/Default/Shop"));
}

#[test]
fn what_could_not_be_parsed_is_scrubbed() {
    assert_eq!(scrubbed("https://user:hunter2@host/x"), "https://host/x");
    assert_eq!(scrubbed("https://user:hun/ter2@host/x"), "https://host/x");
    assert_eq!(scrubbed("https://host/x?private_token=hunter2#y"), "https://host/x");
    assert_eq!(scrubbed("\u{1b}[31mred"), "[31mred");
    assert!(scrubbed(&"a".repeat(5000)).chars().count() <= 201);
}
