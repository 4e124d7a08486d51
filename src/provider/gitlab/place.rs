//! The grammar of GitLab's URLs.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::decoded;
use crate::provider::Scope;
use crate::remote_url::{RemoteUrl, SEGMENT, Scheme, parse_path};

/// What is escaped in a path that becomes one segment: the slashes as well.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is escaped in a path of several segments.
const PATH: &AsciiSet = &SEGMENT.remove(b'/');

/// What git puts behind the path of a project.
const GIT_SUFFIX: &str = ".git";

/// Begins a page about what stands before it.
const PAGE_MARK: &str = "-";

/// Words that begin a page about a project in older URLs. No project and no subgroup may have such a name.
const OLD_PAGES: [&str; 6] = ["blame", "blob", "commits", "raw", "tree", "wikis"];

/// The first segments of GitLab's own pages, which are no groups: no group may have such a name.
const OWN_PAGES: [&str; 7] = ["admin", "dashboard", "explore", GROUP_PAGES, "help", "search", "users"];

/// The first segment of pages about groups, which stands before the group's path.
const GROUP_PAGES: &str = "groups";

/// The root, a group or a project.
#[derive(Debug, Clone)]
pub struct Place {
    /// The URL that it was read from.
    url: RemoteUrl,
    /// The relative root, such as `/gitlab`; empty where GitLab has the whole host.
    root: String,
    /// The path below the root, percent-encoded, without a slash in front and without `.git`.
    path: String,
    scope: Scope,
    /// Whether the URL or the task says that this is a repository.
    is_certainly_repository: bool,
}

/// Two places are one if they are of one scope and printed alike, however they were spelled.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.scope == other.scope && self.to_string() == other.to_string()
    }
}

impl Eq for Place {}

/// The canonical form: for HTTPS, or for SSH where it was read from a URL for that.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.canonical_ssh().filter(|_| self.url.scheme() == Scheme::Ssh) {
            Some(ssh) => f.write_str(&ssh),
            None => write!(f, "{}", self.canonical_https()),
        }
    }
}

impl Place {
    /// Reads a URL. `root` is the relative root; `None` where the URL lies outside of it.
    pub fn parse(url: &RemoteUrl, root: &str, scope: Option<Scope>) -> Option<Self> {
        // SSH knows no relative root.
        let root = if url.scheme() == Scheme::Ssh { String::new() } else { parse_path(root).ok()? };
        let below = url.path().strip_prefix(&root).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
        let mut segments: Vec<&str> = below.split('/').filter(|segment| !segment.is_empty()).collect();
        let is_page_of_group = segments.len() > 1 && segments[0] == GROUP_PAGES;
        // No group is named so: what is left must not look like such a page again.
        while segments.len() > 1 && segments[0] == GROUP_PAGES {
            segments.remove(0);
        }
        segments.truncate(length_before_pages(&segments));
        let suffixed = segments.iter().position(|segment| stem(segment).is_some());
        segments.truncate(suffixed.map_or(segments.len(), |at| at + 1));
        let path = segments.join("/");
        let path = stem(&path).unwrap_or(&path).to_owned();
        let is_repository =
            suffixed.is_some() || url.scheme() == Scheme::Ssh || scope == Some(Scope::Repository);
        let scope = match scope {
            Some(Scope::Account) if suffixed.is_none() => Scope::Account,
            _ if path.is_empty() => Scope::Account,
            _ if is_repository => Scope::Repository,
            _ if is_page_of_group || segments.len() < 2 => Scope::Account,
            _ => Scope::Repository,
        };
        let is_certainly_repository = is_repository && scope == Scope::Repository;
        Some(Self { url: url.clone(), root, path, scope, is_certainly_repository })
    }

    /// The place by HTTPS in its canonical form, and by HTTP where it was read from a URL for that. What was
    /// read from a URL for SSH is put at the host's own port and root, of which such a URL says nothing.
    pub fn canonical_https(&self) -> RemoteUrl {
        let site = match self.url.scheme() {
            Scheme::Ssh => RemoteUrl::at_host(Scheme::Https, self.url.host()),
            Scheme::Https | Scheme::Http => self.url.without_user(),
        };
        let suffix = if self.scope == Scope::Repository { GIT_SUFFIX } else { "" };
        site.with_path(&format!("{}/{}{suffix}", self.root, self.path))
    }

    /// The repository by SSH in its canonical form, with the user that GitLab has for everybody; `None` where
    /// this is no repository.
    pub fn canonical_ssh(&self) -> Option<String> {
        if self.scope != Scope::Repository {
            return None;
        }
        let site = match self.url.scheme() {
            Scheme::Ssh => self.url.without_user(),
            Scheme::Https | Scheme::Http => RemoteUrl::at_host(Scheme::Ssh, self.url.host()),
        };
        Some(format!("ssh://git@{}/{}{GIT_SUFFIX}", site.authority(), self.path))
    }

    /// What kind of place it is.
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// Whether it cannot be a group.
    pub fn is_certainly_repository(&self) -> bool {
        self.is_certainly_repository
    }

    /// The same path as a group.
    pub fn as_group(&self) -> Self {
        Self { scope: Scope::Account, ..self.clone() }
    }

    /// The path below the root, decoded; empty for the root itself.
    pub fn full_path(&self) -> String {
        decoded(&self.path)
    }

    /// The path as one segment, as the API wants it.
    pub fn encoded_path(&self) -> String {
        utf8_percent_encode(&self.full_path(), NAME).to_string()
    }

    /// The path of a call.
    pub fn api(&self, call: &str) -> String {
        format!("{}/api/v4/{call}", self.root)
    }

    /// The path of what is no call of the API.
    pub fn below_root(&self, path: &str) -> String {
        format!("{}/{path}", self.root)
    }

    /// The URL that git uses; `None` where this is no repository.
    pub fn git_url(&self) -> Option<RemoteUrl> {
        match self.scope {
            Scope::Repository if self.url.scheme() == Scheme::Ssh => Some(self.url.clone()),
            // Without the suffix the server redirects to the path with it.
            Scope::Repository => Some(self.canonical_https()),
            Scope::Account | Scope::Project => None,
        }
    }

    /// The place as a URL without the suffix, for people.
    pub fn shown(&self) -> String {
        self.url.with_path(&format!("{}/{}", self.root, self.path)).to_string()
    }

    /// The place itself where `url`, which was asked for, leads to a page about it; `None` where it does not.
    pub fn without_page(&self, url: &RemoteUrl) -> Option<RemoteUrl> {
        if url.scheme() == Scheme::Ssh {
            return None;
        }
        let own = self.url.without_user().with_path(&format!("{}/{}", self.root, self.path));
        let asked = url.path().trim_end_matches('/');
        (asked.strip_suffix(GIT_SUFFIX).unwrap_or(asked) != own.path().trim_end_matches('/')).then_some(own)
    }

    /// A repository of this server by its decoded full path.
    pub fn with_repository(&self, full_path: &str) -> Self {
        let path = full_path.trim_matches('/');
        let path = utf8_percent_encode(path.strip_suffix(".git").unwrap_or(path), PATH).to_string();
        Self { path, scope: Scope::Repository, is_certainly_repository: true, ..self.clone() }
    }

    /// A repository as a person names it: by its full path, or by its name in this group.
    pub fn with_named_repository(&self, name: &str) -> Self {
        let group = self.full_path();
        let is_full = group.is_empty() || name.contains('/');
        if is_full { self.with_repository(name) } else { self.with_repository(&format!("{group}/{name}")) }
    }
}

/// The name in front of git's suffix.
fn stem(segment: &str) -> Option<&str> {
    segment.strip_suffix(GIT_SUFFIX).filter(|stem| !stem.is_empty() && !stem.ends_with('/'))
}

/// How many segments are the path of a group or a project; the rest is a page about it.
fn length_before_pages(segments: &[&str]) -> usize {
    if segments.first().is_some_and(|first| OWN_PAGES.contains(first)) {
        return 0;
    }
    let is_page =
        |(at, segment): (usize, &&str)| *segment == PAGE_MARK || (at >= 2 && OLD_PAGES.contains(segment));
    segments.iter().enumerate().position(is_page).unwrap_or(segments.len())
}

/// Whether the host is that of the cloud edition.
pub fn is_cloud_host(host: &str) -> bool {
    host == "gitlab.com"
}

/// The relative root, from where the server's own root leads: `/gitlab/users/sign_in` and `/gitlab` are both
/// the root `/gitlab`. It stays percent-encoded, as it stands in URLs.
pub(in crate::provider) fn root_of(redirect: &str) -> String {
    let path = redirect.trim_end_matches('/');
    for page in ["/users/sign_in", "/explore", "/dashboard/projects"] {
        if let Some(root) = path.strip_suffix(page) {
            return root.to_owned();
        }
    }
    path.to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn place(text: &str, root: &str) -> Place {
        Place::parse(&RemoteUrl::parse(text).unwrap(), root, None).unwrap()
    }

    #[test]
    fn every_form_of_a_url_is_read() {
        let cases = [
            ("https://gl.corp/group/web", "", "group/web", Scope::Repository),
            ("https://gl.corp/group/sub/web.git", "", "group/sub/web", Scope::Repository),
            ("https://gl.corp/gitlab/group/web", "/gitlab", "group/web", Scope::Repository),
            ("https://gl.corp/gitlab/group", "/gitlab", "group", Scope::Account),
            ("https://gl.corp/gitlab", "/gitlab", "", Scope::Account),
            ("https://gl.corp", "", "", Scope::Account),
            ("https://gl.corp/group/web/-/tree/main", "", "group/web", Scope::Repository),
            ("https://gl.corp/groups/group/sub/-/issues", "", "group/sub", Scope::Account),
            ("https://gl.corp/group/web/blob/main/a.git", "", "group/web", Scope::Repository),
            ("https://gl.corp/group/tree/web", "", "group/tree/web", Scope::Repository),
            ("https://gl.corp/gitlab/users/sign_in", "/gitlab", "", Scope::Account),
            ("git@gl.corp:group/web.git", "/gitlab", "group/web", Scope::Repository),
            ("ssh://git@gl.corp:2222/group/web.git", "", "group/web", Scope::Repository),
        ];
        for (text, root, path, scope) in cases {
            let place = place(text, root);
            assert_eq!((place.full_path().as_str(), place.scope()), (path, scope), "{text}");
        }
        let outside = RemoteUrl::parse("https://gl.corp/group/web").unwrap();
        assert_eq!(Place::parse(&outside, "/gitlab", None), None);
    }

    #[test]
    fn calls_stay_below_the_relative_root_and_encode_the_whole_path() {
        let place = place("https://gl.corp/gitlab/group/sub/web", "/gitlab");
        assert_eq!(place.api("metadata"), "/gitlab/api/v4/metadata");
        assert_eq!(place.encoded_path(), "group%2Fsub%2Fweb");
        assert_eq!(place.git_url().unwrap().to_string(), "https://gl.corp/gitlab/group/sub/web.git");
    }

    #[test]
    fn a_forced_scope_and_a_named_repository_are_followed() {
        let url = RemoteUrl::parse("https://gl.corp/group/sub").unwrap();
        let group = Place::parse(&url, "", Some(Scope::Account)).unwrap();
        assert_eq!((group.scope(), group.git_url()), (Scope::Account, None));
        let named = |name| group.with_named_repository(name).git_url().unwrap().to_string();
        assert_eq!(named("web"), "https://gl.corp/group/sub/web.git");
        assert_eq!(named("other/web"), "https://gl.corp/other/web.git");
    }

    #[test]
    fn the_root_follows_from_where_the_host_leads() {
        assert_eq!(root_of("/gitlab"), "/gitlab");
        assert_eq!(root_of("/gitlab/users/sign_in"), "/gitlab");
        assert_eq!(root_of("/users/sign_in"), "");
        assert_eq!(root_of("/git%1Blab/explore"), "/git%1Blab");
    }
}
