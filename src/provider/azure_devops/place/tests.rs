//! What the forms of a URL mean, one by one.
#![allow(clippy::unwrap_used)]

use super::*;

fn url(text: &str) -> RemoteUrl {
    RemoteUrl::parse(text).unwrap()
}

fn parsed(text: &str, base: Option<&str>) -> Place {
    Place::parse(&url(text), base.map(url).as_ref(), None)
}

fn read(text: &str, base: Option<&str>) -> (String, Option<String>, Option<String>) {
    let place = parsed(text, base);
    (place.collection, place.project, place.repository)
}

fn place(collection: &str, project: &str, repository: &str) -> (String, Option<String>, Option<String>) {
    let some = |name: &str| Some(name.to_owned()).filter(|name| !name.is_empty());
    (collection.to_owned(), some(project), some(repository))
}

#[test]
fn every_form_of_a_url_is_read() {
    let cases = [
        ("https://ado.corp/Coll/Shop/_git/web", None, place("/Coll", "Shop", "web")),
        ("https://ado.corp/tfs/Coll/Shop/_git/web", None, place("/tfs/Coll", "Shop", "web")),
        ("https://ado.corp/TFS/Coll/Shop/_GIT/web", None, place("/TFS/Coll", "Shop", "web")),
        ("https://ado.corp/ado/Coll/Shop/_git/web", None, place("/ado/Coll", "Shop", "web")),
        ("https://ado.corp/Coll/_git/web", None, place("/Coll", "web", "web")),
        ("https://ado.corp/tfs/Coll/_git/web", None, place("/tfs/Coll", "web", "web")),
        ("https://ado.corp/tfs/Coll/_git/web", Some("https://ado.corp"), place("/tfs/Coll", "web", "web")),
        (
            "https://ado.corp/tfs/Coll/_git/web",
            Some("https://ado.corp/tfs"),
            place("/tfs/Coll", "web", "web"),
        ),
        ("https://ado.corp/Coll/Shop/_git/_full/web", None, place("/Coll", "Shop", "web")),
        ("https://ado.corp/Coll/Shop/_git/_optimized/web", None, place("/Coll", "Shop", "web")),
        ("https://ado.corp/Coll/My%20Shop/_git/a%20b", None, place("/Coll", "My%20Shop", "a%20b")),
        ("https://ado.corp/Coll/Shop/_git", None, place("/Coll", "Shop", "")),
        ("https://ado.corp/Coll/Shop", None, place("/Coll", "Shop", "")),
        ("https://ado.corp/Coll/Shop/_build", None, place("/Coll", "Shop", "")),
        ("https://ado.corp/Coll", None, place("/Coll", "", "")),
        ("https://ado.corp/tfs/Coll", None, place("/tfs/Coll", "", "")),
        ("https://ado.corp/Coll/Shop", Some("https://ado.corp/Coll"), place("/Coll", "Shop", "")),
        ("https://dev.azure.com/org/Shop/_git/web", None, place("/org", "Shop", "web")),
        ("https://ada@dev.azure.com/org/_git/web", None, place("/org", "web", "web")),
        ("https://dev.azure.com/org/Shop", None, place("/org", "Shop", "")),
        ("https://dev.azure.com/org", None, place("/org", "", "")),
        ("https://org.visualstudio.com/Shop/_git/web", None, place("", "Shop", "web")),
        (
            "https://org.visualstudio.com/DefaultCollection/Shop/_git/web",
            None,
            place("/DefaultCollection", "Shop", "web"),
        ),
        ("git@ssh.dev.azure.com:v3/org/Shop/web", None, place("/org", "Shop", "web")),
        ("org@vs-ssh.visualstudio.com:v3/org/Shop/web", None, place("/org", "Shop", "web")),
        ("https://ado.corp/Coll/Shop/_git/web/pullrequest/3", None, place("/Coll", "Shop", "web")),
        ("https://ado.corp/Coll/Shop/_optimized/web", None, place("/Coll", "Shop", "web")),
        ("https://ado.corp/Coll/Shop/_git/_apis", None, place("/Coll", "Shop", "")),
        ("ssh://ado.corp/v3/Shop/_git/web", None, place("/v3", "Shop", "web")),
        ("ssh://org@org.visualstudio.com:22/Shop/_ssh/web", None, place("", "Shop", "web")),
        ("ssh://ado.corp:22/Coll/Shop/_git/web", None, place("/Coll", "Shop", "web")),
        ("ssh://ado.corp:22/tfs/Coll/Shop/_git/web", None, place("/tfs/Coll", "Shop", "web")),
    ];
    for (text, base, expected) in cases {
        assert_eq!(read(text, base), expected, "{text}");
    }
}

#[test]
fn the_url_for_git_is_canonical() {
    let git_url = |text: &str| parsed(text, None).git_url().map(|url| url.to_string());
    let canonical = "https://ado.corp/Coll/Shop/_git/web";
    assert_eq!(git_url("https://ado.corp/Coll/Shop/_git/_full/web").as_deref(), Some(canonical));
    let implied = "https://ado.corp/tfs/Coll/_git/web";
    assert_eq!(git_url(implied).as_deref(), Some(implied));
    let ssh = "ssh://ado.corp/Coll/Shop/_git/web";
    assert_eq!(git_url(ssh).as_deref(), Some(ssh));
    assert_eq!(git_url("https://ado.corp/Coll/Shop"), None);
}

#[test]
fn a_scope_settles_what_the_url_leaves_open() {
    let scoped = |scope| Place::parse(&url("https://ado.corp/ado/Coll"), None, Some(scope));
    assert_eq!(scoped(Scope::Account).collection(), "/ado/Coll");
    assert_eq!(scoped(Scope::Project).project(), Some("Coll"));
}

#[test]
fn a_test_repository_is_named_with_or_without_its_project() {
    let git_url = |text: &str, name: &str| {
        parsed(text, None).with_named_repository(name).git_url().map(|url| url.to_string()).unwrap()
    };
    assert_eq!(git_url("https://ado.corp/Coll", "Shop/a b"), "https://ado.corp/Coll/Shop/_git/a%20b");
    assert_eq!(git_url("https://ado.corp/Coll/Shop", "web"), "https://ado.corp/Coll/Shop/_git/web");
    assert_eq!(git_url("https://ado.corp/Coll", "web"), "https://ado.corp/Coll/web/_git/web");
}

#[test]
fn version_control_that_is_no_git_is_told_apart() {
    assert!(is_tfvc(&url("https://ado.corp/Coll/$/Shop/Main")));
    assert!(is_tfvc(&url("https://ado.corp/Coll/Shop/_versionControl")));
    assert!(!is_tfvc(&url("https://ado.corp/Coll/Shop/_git/web")));
}

#[test]
fn the_shape_gives_azure_away() {
    assert!(looks_like(&url("https://ado.corp/Coll/Shop/_git/web")));
    assert!(looks_like(&url("git@ssh.dev.azure.com:v3/org/Shop/web")));
    assert!(!looks_like(&url("https://gitlab.corp/group/web.git")));
}
