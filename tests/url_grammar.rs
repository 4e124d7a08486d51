//! The grammar of URLs by its properties: what is generated is read back, and however a place is spelled it is one.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use proptest::sample::select;

use sortie::provider::{Scope, azure_devops, gitlab};
use sortie::remote_url::{RemoteUrl, SEGMENT};

#[path = "../fuzz/invariants/url.rs"]
mod invariants;

/// Names as people give them to projects: spaces, signs, composed and decomposed letters, other scripts.
fn name() -> impl Strategy<Value = String> {
    let inner = "[a-zA-Z0-9 äÖé\u{0301}日本ж&+'()~.,_!=:@;%#?-]{0,10}";
    ("[a-zA-Z0-9äé日ж]", inner, "[a-zA-Z0-9äé日ж]")
        .prop_map(|(first, inner, last)| first + &inner + &last)
        .prop_filter("these have a meaning of their own", |name| {
            !["tfs", "v3"].contains(&name.to_lowercase().as_str())
        })
}

/// Names as GitLab allows them in paths.
fn slug() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9_.-]{0,8}[a-z0-9]".prop_filter("these have a meaning of their own", |name| {
        let pages =
            ["admin", "blame", "blob", "commits", "dashboard", "explore", "groups", "help", "raw", "search"];
        !name.ends_with(".git")
            && !pages.contains(&name.as_str())
            && !["tree", "users", "wikis"].contains(&name.as_str())
    })
}

/// Writes one name in one of the ways in which it may stand in a URL.
fn spelled(name: &str, way: usize) -> String {
    match way {
        0 => utf8_percent_encode(name, SEGMENT).to_string(),
        1 => utf8_percent_encode(name, NON_ALPHANUMERIC).to_string().to_lowercase_escapes(),
        2 => name.bytes().fold(String::new(), |text, byte| text + &format!("%{byte:02X}")),
        // What may stand bare for people: only what would end the path or look like an escape is escaped.
        _ => name.replace('%', "%25").replace('?', "%3F").replace('#', "%23").replace(' ', "%20"),
    }
}

trait LowercaseEscapes {
    fn to_lowercase_escapes(self) -> String;
}

impl LowercaseEscapes for String {
    /// `%C3` as `%c3`; the letters of the name stay.
    fn to_lowercase_escapes(self) -> String {
        let mut parts = self.split('%');
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + "%" + &part[..2].to_lowercase() + &part[2..])
    }
}

fn url(text: &str) -> RemoteUrl {
    RemoteUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn azure(text: &str) -> azure_devops::Place {
    azure_devops::Place::parse(&url(text), None, None)
}

fn on_gitlab(text: &str, root: &str) -> gitlab::Place {
    gitlab::Place::parse(&url(text), root, None).unwrap_or_else(|| panic!("{text} is outside of {root}"))
}

/// What people paste after a repository of Azure DevOps.
const AZURE_PAGES: [&str; 6] = [
    "",
    "/",
    "?version=GBmain&path=/src/a%20b.txt&_a=contents",
    "/branches",
    "/pullrequest/3?_a=files",
    "/commit/0123456789abcdef0123456789abcdef01234567",
];

/// What people paste after a project of GitLab.
const GITLAB_PAGES: [&str; 7] =
    ["", "/", ".git", ".git/", "/-/tree/main/src?ref_type=heads", "/-/merge_requests/1", "/blob/main/a.git"];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_breaks_the_grammar(text in any::<String>()) {
        invariants::check(&text);
    }

    #[test]
    fn no_text_that_is_nearly_a_url_breaks_the_grammar(
        head in select(vec!["https://", "http://", "ssh://", "HTTPS://", "git@", "", "https://u@", "ssh://git@"]),
        host in select(vec![
            "h", "dev.azure.com", "ssh.dev.azure.com", "org.visualstudio.com", "vs-ssh.visualstudio.com", "gitlab.com",
            "h:443", "h:8443", "h.", "h..", "[::1]", "[::1]:22", "0x7f.1..", "127.0.0.1", "bücher.example", "-h", "a..b",
        ]),
        joint in select(vec!["/", ":", ":/", "//", ""]),
        parts in prop::collection::vec(
            prop_oneof![
                select(vec![
                    "_git", "_ssh", "_full", "_optimized", "v3", "tfs", "DefaultCollection", "$", "groups", "-", "tree",
                    "gitlab", "users", "..", ".", "%2e%2e", "%2F", "%5c", "%00", "%0a", "%C2%9B", "%E2%80%AE", "", "@", "a@b",
                    "x.git", ".git", "?version=GBmain", "?token=x", "#x", "%", "%zz", "\\", "_apis", "~u", "a;b", "a%3Bb", "a+b",
                ]).prop_map(str::to_owned),
                name(),
                ".{0,6}",
            ],
            0..7,
        ),
    ) {
        invariants::check(&format!("{head}{host}{joint}{}", parts.join("/")));
    }

    #[test]
    fn a_repository_of_a_server_of_azure_is_one_however_it_is_spelled(
        names in (name(), name(), name()),
        ways in (0..4usize, 0..4usize, 0..4usize),
        base in select(vec!["", "/tfs", "/TFS"]),
        keyword in select(vec!["_git", "_GIT", "_git/_full", "_git/_optimized", "_optimized"]),
        page in select(AZURE_PAGES.to_vec()),
        authority in select(vec!["ado.corp", "ADO.corp:443", "ada@ado.corp", "ado.corp."]),
    ) {
        let (collection, project, repository) = &names;
        let plain = |name: &str| spelled(name, 0);
        let canonical = format!(
            "https://ado.corp{base}/{}/{}/_git/{}", plain(collection), plain(project), plain(repository)
        );
        let path = format!(
            "{base}/{}/{}/{keyword}/{}{page}",
            spelled(collection, ways.0), spelled(project, ways.1), spelled(repository, ways.2)
        );
        let place = azure(&format!("https://{authority}{path}"));
        prop_assert_eq!(place.to_string(), canonical.clone());
        prop_assert_eq!(place.scope(), Scope::Repository);
        prop_assert_eq!(place.names(), format!("{project}/{repository}"));
        prop_assert_eq!(place.git_url().unwrap().to_string(), canonical.clone());
        prop_assert_eq!(&azure(&canonical), &place);
        let by_ssh = azure(&place.canonical_ssh().unwrap());
        prop_assert_eq!(by_ssh.canonical_https().to_string(), canonical);
        let bare = azure(&format!("https://ado.corp{base}/{}", plain(collection)));
        prop_assert_eq!((bare.scope(), bare.with_repository(project, repository)), (Scope::Account, place));
    }

    #[test]
    fn a_repository_of_the_cloud_is_one_wherever_it_is_asked_for(
        names in (name(), name()), organization in "[a-z][a-z0-9]{2,8}", way in 0..4usize,
        page in select(AZURE_PAGES.to_vec()),
    ) {
        prop_assume!(organization != "tfs");
        let (project, repository) = (spelled(&names.0, way), spelled(&names.1, way));
        let canonical = format!(
            "https://dev.azure.com/{organization}/{}/_git/{}", spelled(&names.0, 0), spelled(&names.1, 0)
        );
        let forms = [
            format!("https://dev.azure.com/{organization}/{project}/_git/{repository}{page}"),
            format!("https://{organization}@dev.azure.com/{organization}/{project}/_git/{repository}"),
            format!("https://{organization}.visualstudio.com/{project}/_git/{repository}{page}"),
            format!("https://{organization}.visualstudio.com/DefaultCollection/{project}/_git/_full/{repository}"),
            format!("git@ssh.dev.azure.com:v3/{organization}/{project}/{repository}"),
            format!("ssh://git@ssh.dev.azure.com/v3/{organization}/{project}/{repository}/"),
            format!("{organization}@vs-ssh.visualstudio.com:v3/{organization}/{project}/{repository}"),
            format!("ssh://{organization}@vs-ssh.visualstudio.com:22/{project}/_ssh/{repository}"),
            format!("ssh://{organization}@vs-ssh.visualstudio.com/DefaultCollection/{project}/_ssh/{repository}"),
        ];
        for form in forms {
            let place = azure(&form);
            prop_assert_eq!(place.canonical_https().to_string(), canonical.clone(), "{}", form);
            let ssh = place.canonical_ssh().unwrap();
            prop_assert!(ssh.starts_with(&format!("git@ssh.dev.azure.com:v3/{organization}/")), "{}", ssh);
        }
        let one_name = format!("https://dev.azure.com/{organization}/_git/{repository}");
        let twice = format!("https://dev.azure.com/{organization}/{repository}/_git/{repository}");
        prop_assert_eq!(azure(&one_name), azure(&twice));
    }

    #[test]
    fn a_project_of_gitlab_is_one_however_it_is_spelled(
        groups in prop::collection::vec(slug(), 1..6), project in slug(), root in select(vec!["", "/gitlab", "/a/b"]),
        page in select(GITLAB_PAGES.to_vec()), port in select(vec!["", ":8443"]), way in 0..4usize,
    ) {
        let full_path = format!("{}/{project}", groups.join("/"));
        let way_of = |name: &String| spelled(name, way);
        let spelled_path = groups.iter().chain([&project]).map(way_of).collect::<Vec<_>>().join("/");
        let canonical = format!("https://gl.corp{port}{root}/{full_path}.git");
        let place = on_gitlab(&format!("https://ada@gl.corp{port}{root}/{spelled_path}{page}"), root);
        prop_assert_eq!(place.to_string(), canonical.clone());
        prop_assert_eq!(place.full_path(), full_path.clone());
        prop_assert_eq!(place.git_url().unwrap().to_string(), canonical);
        let ssh = on_gitlab(&format!("git@gl.corp:{full_path}"), root);
        prop_assert_eq!(ssh.to_string(), format!("ssh://git@gl.corp/{full_path}.git"));
        prop_assert_eq!(&on_gitlab(&ssh.to_string(), root), &ssh);
        let ported = format!("ssh://git@gl.corp:2222/{full_path}.git");
        prop_assert_eq!(on_gitlab(&ported, root).to_string(), ported);
    }

    #[test]
    fn what_policy_covers_does_not_hang_on_spelling(
        names in prop::collection::vec(name(), 1..5), base_length in 0..5usize, ways in (0..4usize, 0..4usize),
    ) {
        let written = |names: &[String], way| {
            let path = names.iter().fold(String::new(), |path, name| path + "/" + &spelled(name, way));
            url(&format!("https://ado.corp{path}"))
        };
        let base = written(&names[..base_length.min(names.len())], ways.0);
        let inner = written(&names, ways.1);
        prop_assert!(base.contains(&inner), "{} and {}", base, inner);
        prop_assert_eq!(inner.contains(&base), base_length >= names.len());
        prop_assert_eq!(written(&names, ways.0), written(&names, ways.1));
        prop_assert_eq!(&url(&inner.to_string()), &inner);
    }

    #[test]
    fn nothing_of_user_info_is_printed(
        user in "[a-z0-9]{16}", names in (name(), name()), form in 0..5usize,
    ) {
        let (project, repository) = (spelled(&names.0, 0), spelled(&names.1, 0));
        let text = match form {
            0 => format!("https://{user}@ado.corp/Coll/{project}/_git/{repository}"),
            1 => format!("https://{user}@dev.azure.com/org/{project}/_git/{repository}"),
            2 => format!("ssh://{user}@ado.corp/Coll/{project}/_git/{repository}"),
            3 => format!("{user}@gl.corp:group/{project}"),
            _ => format!("ssh://{user}@gl.corp:2222/group/{project}.git"),
        };
        let url = url(&text);
        let mut printed = vec![url.to_string(), azure(&text).to_string(), on_gitlab(&text, "").to_string()];
        printed.extend(azure(&text).canonical_ssh());
        printed.extend(on_gitlab(&text, "").canonical_ssh());
        prop_assert!(printed.iter().all(|text| !text.contains(&user)), "{:?}", printed);
    }
}

#[test]
fn a_query_is_dropped_where_a_page_has_it_and_refused_everywhere_else() {
    let taken = [
        "https://ado.corp/Coll/Shop/_git/web?version=GBmain&path=/x&_a=contents",
        "https://gl.corp/group/web/-/tree/main?ref_type=heads",
    ];
    for text in taken {
        assert!(!url(text).to_string().contains('?'), "{text}");
    }
    let refused = [
        "https://gl.corp/group/web?private_token=hunter2",
        "https://gl.corp/group/web?version=1&private_token=hunter2",
        "https://gl.corp/group/web?",
        "https://gl.corp?path=/x",
        "https://good?path=@evil/",
        "https://gl.corp/group/web?path=/x#y",
        "ssh://git@gl.corp/group/web?path=/x",
        "git@gl.corp:group/web?path=/x",
    ];
    for text in refused {
        let error = RemoteUrl::parse(text).map(|url| url.to_string());
        assert_eq!(error, Err(sortie::remote_url::UrlError::QueryOrFragment), "{text}");
    }
}

/// Among them is what fuzzing has found.
#[test]
fn the_seeds_of_the_fuzzer_hold() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/url");
    for seed in std::fs::read_dir(seeds).unwrap() {
        invariants::check(&String::from_utf8_lossy(&std::fs::read(seed.unwrap().path()).unwrap()));
    }
}
