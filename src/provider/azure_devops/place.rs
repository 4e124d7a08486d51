//! The grammar of Azure DevOps' URLs.

use std::fmt;

use percent_encoding::{percent_decode_str, utf8_percent_encode};

use crate::provider::Scope;
use crate::remote_url::{RemoteUrl, SEGMENT, Scheme};

/// The host of the cloud edition for HTTPS, and the one for SSH.
const CLOUD_HTTPS: &str = "dev.azure.com";
const CLOUD_SSH: &str = "ssh.dev.azure.com";

/// The older hosts of the cloud edition: one for each organization, and one for everybody's SSH.
const OLD_CLOUD_SUFFIX: &str = ".visualstudio.com";
const OLD_CLOUD_SSH: &str = "vs-ssh.visualstudio.com";

/// The one collection that each organization has at its older host, where a URL may name it or not.
const DEFAULT_COLLECTION: &str = "DefaultCollection";

/// What stands in front of a repository; `_ssh` in older URLs for SSH.
const GIT_KEYWORDS: [&str; 2] = ["_git", "_ssh"];

/// A collection, a project or a repository. Names are kept percent-encoded, as they stand in the URL.
#[derive(Debug, Clone)]
pub struct Place {
    /// The URL that it was read from.
    url: RemoteUrl,
    /// The path of the collection, such as `/tfs/DefaultCollection`; empty where the host is the organization.
    collection: String,
    project: Option<String>,
    /// Whether the URL leaves the project out, because it has the name of the repository.
    project_is_implied: bool,
    repository: Option<String>,
    /// Whether the path begins with `v3`, as it does for SSH on the cloud edition and whatever stands before it.
    is_v3: bool,
}

/// Two places are one if they are printed alike: however they were spelled, and wherever the cloud edition
/// was asked for them.
impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.scope() == other.scope() && self.to_string() == other.to_string()
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
    /// Reads a URL. `base` is the URL that the operator declared for the server, where there is one that is
    /// shorter than this; `scope` settles what the URL alone leaves open.
    pub fn parse(url: &RemoteUrl, base: Option<&RemoteUrl>, scope: Option<Scope>) -> Self {
        let segments: Vec<&str> = url.path().split('/').filter(|segment| !segment.is_empty()).collect();
        if let Some(place) = Self::parse_v3(url, &segments) {
            return place;
        }
        let keyword = segments.iter().position(|segment| segment.starts_with('_'));
        let (names, rest) = segments.split_at(keyword.unwrap_or(segments.len()));
        // What follows a repository is a page about it: its branches, a commit, a pull request.
        let is_git = rest.first().is_some_and(|keyword| is_git_keyword(keyword) || is_variant(keyword));
        let repository =
            if is_git { rest[1..].iter().copied().find(|segment| !is_variant(segment)) } else { None };
        let declared = base.filter(|base| base.contains(url) && base.path() != url.path());
        let declared = declared.map(|base| base.segments().len()).filter(|length| *length > 0);
        let collection = collection_length(url.host(), names, declared, scope, repository.is_some());
        let project = names.get(collection).copied();
        Self {
            url: url.clone(),
            collection: path_of(&names[..collection]),
            project: project.or(repository).map(str::to_owned),
            project_is_implied: project.is_none(),
            repository: repository.map(str::to_owned),
            is_v3: false,
        }
    }

    /// `v3/{organization}/{project}/{repository}`, as the cloud edition spells paths for SSH.
    fn parse_v3(url: &RemoteUrl, segments: &[&str]) -> Option<Self> {
        let [version, organization, project, repository] = segments else { return None };
        // A server's own collection may be named v3, and then a keyword follows.
        let has_keyword = segments.iter().any(|segment| segment.starts_with('_'));
        if url.scheme() != Scheme::Ssh || !version.eq_ignore_ascii_case("v3") || has_keyword {
            return None;
        }
        Some(Self {
            url: url.clone(),
            collection: path_of(&[organization]),
            project: Some((*project).to_owned()),
            project_is_implied: false,
            repository: Some((*repository).to_owned()),
            is_v3: true,
        })
    }

    /// The place by HTTPS in its canonical form, and by HTTP where it was read from a URL for that. A server's
    /// port for SSH says nothing about its port for HTTPS, which is then the scheme's own.
    pub fn canonical_https(&self) -> RemoteUrl {
        let (site, collection) = match self.organization() {
            Some(organization) => {
                (RemoteUrl::at_host(Scheme::Https, CLOUD_HTTPS), format!("/{organization}"))
            }
            None if self.url.scheme() == Scheme::Ssh => {
                (RemoteUrl::at_host(Scheme::Https, self.url.host()), self.collection.clone())
            }
            None => (self.url.without_user(), self.collection.clone()),
        };
        site.with_path(&format!("{collection}{}", self.below_collection()))
    }

    /// The repository by SSH in its canonical form, with the user where there is only one; `None` where this
    /// is no repository.
    pub fn canonical_ssh(&self) -> Option<String> {
        let (project, repository) = (self.project()?, self.repository()?);
        if let Some(organization) = self.organization() {
            return Some(format!("git@{CLOUD_SSH}:v3/{organization}/{project}/{repository}"));
        }
        let site = match self.url.scheme() {
            Scheme::Ssh => self.url.without_user(),
            Scheme::Https | Scheme::Http => RemoteUrl::at_host(Scheme::Ssh, self.url.host()),
        };
        if self.is_v3 {
            return Some(format!("{}/v3{}/{project}/{repository}", site.origin(), self.collection));
        }
        Some(format!("{}{}{}", site.origin(), self.collection, self.below_collection()))
    }

    /// The organization, percent-encoded, on the cloud edition and at its usual ports.
    fn organization(&self) -> Option<String> {
        let host = self.url.host();
        let is_usual =
            self.url.scheme() != Scheme::Http && self.url.port() == self.url.scheme().default_port();
        if !is_cloud_host(host) || !is_usual {
            return None;
        }
        let in_path = self.collection.trim_start_matches('/');
        match host.strip_suffix(OLD_CLOUD_SUFFIX) {
            // Everybody's host: the organization is part of the path, and in the oldest form the user.
            Some(_) if host == OLD_CLOUD_SSH && !is_default_collection(in_path) && !in_path.is_empty() => {
                Some(in_path.to_owned())
            }
            Some(_) if host == OLD_CLOUD_SSH => {
                self.url.user().map(|user| utf8_percent_encode(user, SEGMENT).to_string())
            }
            Some(organization) => Some(organization.to_owned()),
            None => Some(in_path.to_owned()).filter(|name| !name.is_empty()),
        }
    }

    fn below_collection(&self) -> String {
        // Where no collection is named the project's name would be taken for one.
        let is_nameless = self.organization().is_none()
            && (self.collection.is_empty() || self.collection.eq_ignore_ascii_case("/tfs"));
        let is_left_out = self.project_is_implied && is_nameless;
        let project = self.project().filter(|_| !is_left_out);
        let project = project.map(|project| format!("/{project}")).unwrap_or_default();
        let repository =
            self.repository().map(|repository| format!("/_git/{repository}")).unwrap_or_default();
        project + &repository
    }

    /// What kind of place it is.
    pub fn scope(&self) -> Scope {
        match (&self.project, &self.repository) {
            (_, Some(_)) => Scope::Repository,
            (Some(_), None) => Scope::Project,
            (None, None) => Scope::Account,
        }
    }

    /// The path of the collection, percent-encoded; empty where the host is the organization.
    pub fn collection(&self) -> &str {
        &self.collection
    }

    /// The project, percent-encoded.
    pub fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// The repository, percent-encoded.
    pub fn repository(&self) -> Option<&str> {
        self.repository.as_deref()
    }

    /// The names of project and repository, decoded and joined, for people.
    pub fn names(&self) -> String {
        let names = [self.project(), self.repository()].into_iter().flatten();
        let names: Vec<_> = names.map(Self::decoded).collect();
        names.join("/")
    }

    /// A segment of this place's path, decoded, for people and for comparisons.
    pub fn decoded(segment: &str) -> String {
        percent_decode_str(segment).decode_utf8_lossy().into_owned()
    }

    /// A name as a segment of a path.
    pub(super) fn encoded(name: &str) -> String {
        utf8_percent_encode(name, SEGMENT).to_string()
    }

    /// Whether the URL leaves room for a project that it does not name.
    pub(super) fn lacks_project(&self) -> bool {
        self.project_is_implied || self.project.is_none()
    }

    /// The path of the same target below another collection, and with this project where it lacks one.
    pub(super) fn path_below(&self, collection: &str, project: Option<&str>) -> String {
        let own = self.project().filter(|_| !self.project_is_implied);
        let project = own.or(project).map(|project| format!("/{project}")).unwrap_or_default();
        let repository = self.repository().map(|name| format!("/_git/{name}")).unwrap_or_default();
        format!("{collection}{project}{repository}")
    }

    /// Whether it is on the cloud edition.
    pub fn is_cloud(&self) -> bool {
        is_cloud_host(self.url.host())
    }

    /// The path of a call on the collection.
    pub fn api(&self, call: &str) -> String {
        format!("{}/_apis/{call}", self.collection)
    }

    /// The path of a call on a project, which is percent-encoded.
    pub fn project_api(&self, project: &str, call: &str) -> String {
        format!("{}/{project}/_apis/{call}", self.collection)
    }

    /// The URL that git uses; `None` where this is no repository. It stays on the host and below the base by
    /// which policy admitted the place, so that it is shorter than the URL that was read but spelled like it.
    pub fn git_url(&self) -> Option<RemoteUrl> {
        let repository = self.repository()?;
        if self.url.scheme() == Scheme::Ssh {
            return Some(self.url.clone());
        }
        let project = match self.project() {
            Some(project) if !self.project_is_implied => format!("/{project}"),
            _ => String::new(),
        };
        Some(self.url.without_user().with_path(&format!("{}{project}/_git/{repository}", self.collection)))
    }

    /// A repository of this place by its decoded names.
    pub fn with_repository(&self, project: &str, repository: &str) -> Self {
        Self {
            project: Some(Self::encoded(project)),
            project_is_implied: false,
            repository: Some(Self::encoded(repository)),
            ..self.clone()
        }
    }

    /// A repository of this place as a person names it: `repository`, or `project/repository`.
    pub fn with_named_repository(&self, name: &str) -> Self {
        let project = self.project().map(Self::decoded);
        match (name.split_once('/'), project) {
            (Some((project, repository)), _) => self.with_repository(project, repository),
            (None, Some(project)) => self.with_repository(&project, name),
            (None, None) => self.with_repository(name, name),
        }
    }
}

/// Whether the host is one of the cloud edition's.
pub fn is_cloud_host(host: &str) -> bool {
    matches!(host, CLOUD_HTTPS | CLOUD_SSH) || host.ends_with(OLD_CLOUD_SUFFIX)
}

/// Whether a URL has a form that only Azure DevOps has.
pub fn looks_like(url: &RemoteUrl) -> bool {
    let segments = url.segments();
    is_cloud_host(url.host()) || segments.iter().any(|segment| is_git_keyword(segment))
}

/// Whether a URL names a path of Team Foundation Version Control, which is no git.
pub fn is_tfvc(url: &RemoteUrl) -> bool {
    url.segments()
        .iter()
        .any(|segment| segment.starts_with('$') || segment.eq_ignore_ascii_case("_versionControl"))
}

fn is_git_keyword(segment: &str) -> bool {
    GIT_KEYWORDS.iter().any(|keyword| segment.eq_ignore_ascii_case(keyword))
}

fn is_default_collection(name: &str) -> bool {
    name.eq_ignore_ascii_case(DEFAULT_COLLECTION)
}

/// `_full` and `_optimized` stand between `_git` and the repository in some URLs and mean the same repository.
fn is_variant(segment: &str) -> bool {
    segment.eq_ignore_ascii_case("_full") || segment.eq_ignore_ascii_case("_optimized")
}

/// How many of the names belong to the collection's path; what follows is the project.
fn collection_length(
    host: &str,
    names: &[&str],
    declared: Option<usize>,
    scope: Option<Scope>,
    has_repository: bool,
) -> usize {
    let all = names.len();
    if host.ends_with(OLD_CLOUD_SUFFIX) {
        return usize::from(names.first().is_some_and(|name| is_default_collection(name)));
    }
    if is_cloud_host(host) {
        return all.min(1);
    }
    match scope {
        Some(Scope::Account) if !has_repository => return all,
        Some(Scope::Project) if !has_repository => return all.saturating_sub(1),
        _ => {}
    }
    let virtual_directory = usize::from(names.first().is_some_and(|name| name.eq_ignore_ascii_case("tfs")));
    let by_convention = match all.saturating_sub(virtual_directory) {
        // More than collection and project: the rest in front is a virtual directory of another name.
        3.. => all - 1,
        0 => all,
        _ => virtual_directory + 1,
    };
    match declared {
        // One name more than what was declared: a project, unless what was declared is the virtual directory.
        Some(base) if base > virtual_directory && all == base + 1 => base,
        // Two names more: collection and project.
        Some(base) if all == base + 2 => base + 1,
        _ => by_convention,
    }
}

fn path_of(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |path, segment| path + "/" + segment)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
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
            (
                "https://ado.corp/tfs/Coll/_git/web",
                Some("https://ado.corp"),
                place("/tfs/Coll", "web", "web"),
            ),
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
}
