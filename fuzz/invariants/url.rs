//! What holds for every text that is taken for a URL, and for every place that one is read as.

use sortie::provider::{Scope, azure_devops, gitlab};
use sortie::remote_url::{RemoteUrl, Scheme};

/// Checks everything about one text.
///
/// # Panics
/// Where something does not hold.
pub(crate) fn check(text: &str) {
    let shown = sortie::remote_url::scrubbed(text);
    assert!(!shown.contains(char::is_control), "{shown:?}");
    let Ok(url) = RemoteUrl::parse(text) else { return };
    check_url(&url);
    for scope in [None, Some(Scope::Account), Some(Scope::Project), Some(Scope::Repository)] {
        check_azure(&url, scope);
        check_gitlab(&url, scope);
    }
}

fn parsed(text: &str) -> RemoteUrl {
    RemoteUrl::parse(text).unwrap_or_else(|error| panic!("{text:?} was printed and is refused: {error}"))
}

fn check_url(url: &RemoteUrl) {
    let printed = url.to_string();
    let (scheme, rest) = printed.split_once("://").expect("a scheme");
    assert!(["https", "http", "ssh"].contains(&scheme), "{printed}");
    assert!(printed.chars().all(|c| c.is_ascii_graphic()), "{printed:?}");
    assert!(!rest.contains(['@', '\\', '?', '#']) && !rest.contains("//"), "{printed}");
    assert!(url.segments().iter().all(|segment| is_plain(segment)), "{printed}");
    assert!(!url.host().is_empty() && !url.host().starts_with(['-', '.']), "{printed}");
    let again = parsed(&printed);
    assert_eq!(again, url.without_user(), "{printed}");
    assert!(url.contains(&again) && again.contains(url), "{printed}");
}

/// Neither another directory nor two segments, and nothing that moves a cursor.
fn is_plain(segment: &str) -> bool {
    !segment.is_empty()
        && segment != "."
        && segment != ".."
        && !segment.contains(['/', '\\'])
        && !segment.contains(char::is_control)
}

fn check_azure(url: &RemoteUrl, scope: Option<Scope>) {
    let place = azure_devops::Place::parse(url, None, scope);
    let https = parsed(&place.canonical_https().to_string());
    let again = azure_devops::Place::parse(&https, None, Some(place.scope()));
    assert_eq!(again.canonical_https(), https, "{url} as {scope:?}");
    assert_eq!(again.names(), place.names(), "{url} as {scope:?}");
    if let Some(ssh) = place.canonical_ssh() {
        let again = azure_devops::Place::parse(&parsed(&ssh), None, None);
        assert_eq!(again.canonical_ssh().as_deref(), Some(ssh.as_str()), "{url}");
    }
    let printed = parsed(&place.to_string());
    assert_eq!(azure_devops::Place::parse(&printed, None, Some(place.scope())), place, "{url} as {scope:?}");
    if let Some(git_url) = place.git_url() {
        check_url(&git_url);
        assert_eq!((git_url.host(), git_url.port()), (url.host(), url.port()), "{url}");
        assert_eq!(azure_devops::Place::parse(&git_url, None, scope), place, "{url} as {scope:?}");
    }
}

fn check_gitlab(url: &RemoteUrl, scope: Option<Scope>) {
    for root in ["", "/gitlab"] {
        let Some(place) = gitlab::Place::parse(url, root, scope) else { continue };
        assert!(!place.encoded_path().contains('/'), "{url}");
        // SSH knows no relative root, so that a group that was read from a URL for it is printed without.
        let root = if url.scheme() == Scheme::Ssh { "" } else { root };
        let printed = parsed(&place.to_string());
        let again = gitlab::Place::parse(&printed, root, Some(place.scope()));
        assert_eq!(again.as_ref(), Some(&place), "{url} as {scope:?}");
        if let Some(git_url) = place.git_url() {
            check_url(&git_url);
            assert_eq!((git_url.host(), git_url.port()), (url.host(), url.port()), "{url}");
            assert_eq!(gitlab::Place::parse(&git_url, root, scope), Some(place), "{url} as {scope:?}");
        }
    }
}
