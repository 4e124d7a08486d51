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

/// The two ways to a repository.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Https,
    Ssh,
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
        // No repository and no project has a name that begins like a keyword.
        let after = if is_git { &rest[1..] } else { &[] };
        let repository = after.iter().copied().find(|segment| !is_variant(segment));
        let repository = repository.filter(|name| !name.starts_with('_'));
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
        let (site, collection) = match self.organization_by(Way::Https) {
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
        if let Some(organization) = self.organization_by(Way::Ssh) {
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

    /// The organization where the canonical form is that of the cloud edition: not where the URL itself asks for
    /// another port of its host, or for no TLS.
    fn organization_by(&self, way: Way) -> Option<String> {
        let scheme = self.url.scheme();
        let is_same_way = (scheme == Scheme::Ssh) == (way == Way::Ssh);
        let is_usual = scheme != Scheme::Http && self.url.port() == scheme.default_port();
        if is_same_way && !is_usual { None } else { self.organization() }
    }

    /// The organization, percent-encoded, on a host of the cloud edition.
    fn organization(&self) -> Option<String> {
        let host = self.url.host();
        if !is_cloud_host(host) {
            return None;
        }
        let in_path = self.collection.trim_start_matches('/');
        match host.strip_suffix(OLD_CLOUD_SUFFIX) {
            // Everybody's host: the organization is part of the path, and in the oldest form the user.
            Some(_) if host == OLD_CLOUD_SSH && !is_default_collection(in_path) && !in_path.is_empty() => {
                Some(in_path.to_owned())
            }
            Some(_) if host == OLD_CLOUD_SSH => {
                let user = self.url.user().filter(|_| self.url.scheme() == Scheme::Ssh);
                user.map(|user| utf8_percent_encode(user, SEGMENT).to_string())
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

    /// Another repository of the same project, by its decoded name.
    pub fn in_its_project(&self, repository: &str) -> Self {
        Self { repository: Some(Self::encoded(repository)), project_is_implied: false, ..self.clone() }
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
mod tests;
