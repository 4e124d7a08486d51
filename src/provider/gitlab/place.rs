//! The grammar of GitLab's URLs.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::decoded;
use crate::provider::Scope;
use crate::remote_url::{RemoteUrl, Scheme};

/// What is escaped in a path that becomes one segment: the slashes as well.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is escaped in a path of several segments.
const PATH: &AsciiSet = &NAME.remove(b'/');

/// The root, a group or a project.
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl Place {
    /// Reads a URL. `root` is the relative root; `None` where the URL lies outside of it.
    pub fn parse(url: &RemoteUrl, root: &str, scope: Option<Scope>) -> Option<Self> {
        // SSH knows no relative root.
        let root = if url.scheme() == Scheme::Ssh { "" } else { root.trim_end_matches('/') };
        let below = url.path().strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/'))?;
        // `/-/` begins a page about a project or a group.
        let below = below.split("/-/").next().unwrap_or_default().trim_matches('/');
        let bare = below.strip_suffix(".git");
        let path = bare.unwrap_or(below);
        let is_repository = bare.is_some() || url.scheme() == Scheme::Ssh || scope == Some(Scope::Repository);
        let scope = match scope {
            Some(Scope::Account) if bare.is_none() => Scope::Account,
            _ if is_repository || path.contains('/') => Scope::Repository,
            _ => Scope::Account,
        };
        let (root, path) = (root.to_owned(), path.to_owned());
        Some(Self { url: url.clone(), root, path, scope, is_certainly_repository: is_repository })
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

    /// The URL that git uses; `None` where this is no repository.
    pub fn git_url(&self) -> Option<RemoteUrl> {
        match self.scope {
            Scope::Repository if self.url.scheme() == Scheme::Ssh => Some(self.url.clone()),
            // Without the suffix the server redirects to the path with it.
            Scope::Repository => Some(self.url.with_path(&format!("{}/{}.git", self.root, self.path))),
            Scope::Account | Scope::Project => None,
        }
    }

    /// The place as a URL without the suffix, for people.
    pub fn shown(&self) -> String {
        self.url.with_path(&format!("{}/{}", self.root, self.path)).to_string()
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
