//! Azure DevOps Server and Services: the calls, and what their answers mean.
//!
//! The token goes out by Basic with the first request and is never negotiated down to NTLM, which the server
//! offers beside it and which no token works with.

mod answers;
mod base_path;
mod capability;
mod contents;
mod own_urls;
mod place;
mod release;

use serde_json::Value;

use super::rest::{Answer, Api, name, text};
use super::{Denied, Provider, ProviderError};
use crate::remote_url::RemoteUrl;

pub use answers::{Greeting, evidence, shows_marks};
use answers::{Names, judge};
pub use base_path::OLD_VIRTUAL_DIRECTORY;
pub use capability::{Identifiers, Permissions, permissions};
pub use contents::{blob, directory};
pub use own_urls::OwnUrls;
pub use place::{Place, is_cloud_host, is_tfvc, looks_like};
pub use release::{Release, SUPPORT_WARNING_DAYS, release};

/// The scope that a token needs to read a repository, by the server's own name.
pub const SCOPE_CODE: &str = "vso.code";

/// The scope that a token needs to read about projects.
pub const SCOPE_PROJECT: &str = "vso.project";

/// How many names of a list are looked at to find one that is like a mistyped one.
const MAX_LISTED_NAMES: usize = 1000;

/// What the server says about itself and about who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// The user's name.
    pub user: Option<String>,
    /// Whether it is the cloud edition; `None` where the server does not tell.
    pub hosted: Option<bool>,
    /// The URLs by which the server names itself.
    pub own_urls: OwnUrls,
}

/// A project as the API shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Project {
    /// The URLs that the server gives for it.
    pub links: Vec<String>,
}

/// A repository as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its name.
    pub name: String,
    /// The full name of its default branch; `None` while it is empty.
    pub default_branch: Option<String>,
    /// The URLs that the server gives for it.
    pub links: Vec<String>,
    /// The identifiers that permissions on it are asked by.
    pub identifiers: Option<Identifiers>,
}

/// Asks without a credential whether an Azure DevOps answers at a place, and which schemes it offers.
///
/// # Errors
/// [`ProviderError::NotThisServer`], [`ProviderError::NamesItselfElsewhere`] and what is the same for every
/// server.
pub async fn identify(anonymous: &Api, place: &Place) -> Result<Greeting, ProviderError> {
    let answer = anonymous.get(&place.api("connectionData")).await?;
    let not_this = || ProviderError::NotThisServer {
        expected: Provider::AzureDevops,
        path: answer.path.clone(),
        status: answer.status,
    };
    match answer.status {
        // 203 and 302 are how the cloud edition sends those away who did not sign in.
        200 if answer.json().is_some_and(|json| json.get("instanceId").is_some()) => {
            Ok(Greeting::of(&answer))
        }
        _ if sent_to_localhost(anonymous, &answer) => {
            Err(ProviderError::NamesItselfElsewhere { named: answer.location().unwrap_or_default() })
        }
        203 | 302 if answers::is_sign_in(&answer) || shows_marks(&answer) => Ok(Greeting::of(&answer)),
        401 => Ok(Greeting::of(&answer)),
        403 if shows_marks(&answer) => Ok(Greeting::of(&answer)),
        300..=399 | 429 | 500.. => Err(answer.general_error("connectionData in JSON")),
        200 => Err(answer.unexpected("connectionData in JSON")),
        _ => Err(not_this()),
    }
}

/// What an Azure DevOps shows in the directory that many servers have; `None` where none answers there.
///
/// # Errors
/// What any call can fail with.
pub async fn identify_directory(anonymous: &Api) -> Result<Option<Greeting>, ProviderError> {
    let answer = anonymous.get(&format!("{OLD_VIRTUAL_DIRECTORY}/_apis/connectionData")).await?;
    Ok(shows_marks(&answer).then(|| Greeting::of(&answer)).filter(|_| answer.status != 404))
}

/// Whether a server that is not on this host sends us to this host: by its own links nobody can reach it.
fn sent_to_localhost(api: &Api, answer: &Answer) -> bool {
    let is_local = |url: &str| RemoteUrl::parse(url).ok().map(|url| own_urls::is_loopback(url.host()));
    let leads_here = answer.location().and_then(|location| is_local(&location)) == Some(true);
    leads_here && is_local(api.origin()) == Some(false)
}

/// Presents the credential, for the first time in a test: who does the server take us for?
///
/// `before` is what the server showed without one. Where it knows no such collection, what it has is looked up.
///
/// # Errors
/// See [`ProviderError`].
pub async fn connection(
    api: &Api,
    anonymous: &Api,
    place: &Place,
    before: &Greeting,
) -> Result<Connection, ProviderError> {
    let answer = api.get(&place.api("connectionData")).await?;
    if answer.status == 404 {
        // Whoever had to sign in and is told that there is nothing has signed in.
        let is_signed_in = !before.schemes.is_empty() || answer.header("x-vss-userdata").is_some();
        return Err(match is_signed_in {
            true => base_path::find_collection(api, anonymous, place).await?,
            false => answer.unexpected("connectionData in JSON"),
        });
    }
    if answers::is_iis_basic(&answer, before) {
        return Err(ProviderError::Denied(Denied::IisBasic));
    }
    let json = judge(&answer, Names::NONE, "connectionData in JSON")?;
    if json.get("instanceId").is_none() && json.get("authenticatedUser").is_none() {
        return Err(answer.unexpected("connectionData in JSON"));
    }
    let user = json.get("authenticatedUser");
    let display_name = user.and_then(|user| text(user, "providerDisplayName"));
    let custom_name = user.and_then(|user| text(user, "customDisplayName"));
    Ok(Connection {
        user: custom_name.or(display_name).or_else(|| user_of(&answer)),
        hosted: text(&json, "deploymentType").map(|kind| kind.eq_ignore_ascii_case("hosted")),
        own_urls: OwnUrls::of_connection(&json),
    })
}

/// Asks for the place's project, or for the list of projects where the place is an account.
///
/// # Errors
/// [`ProviderError::Forbidden`], [`ProviderError::ProjectHidden`], [`ProviderError::CollectionUnknown`] and what
/// any call can fail with.
pub async fn authorize(api: &Api, place: &Place, release: &Release) -> Result<Project, ProviderError> {
    let (call, project) = match place.project() {
        Some(project) => (format!("projects/{project}"), Some(Place::decoded(project))),
        None => ("projects?$top=1".to_owned(), None),
    };
    let answer = api.get(&place.api(&release.call(&call))).await?;
    let names = Names { project: project.as_deref(), repository: None, scope: SCOPE_PROJECT };
    let judged = judge(&answer, names, "projects in JSON");
    if answer.status == 404 && !place.is_cloud() {
        // A server has projects in its collections only: the path may stop short of one.
        let missing = base_path::name_collections(api, place).await?;
        if let Some(error) = missing {
            return Err(error);
        }
    }
    judged.map(|json| Project { links: own_urls::links(&json) })
}

/// Asks for the place's repository.
///
/// # Errors
/// [`ProviderError::Forbidden`], [`ProviderError::RepositoryHidden`], [`ProviderError::RepositoryDisabled`]
/// and what any call can fail with.
pub async fn repository(api: &Api, place: &Place, release: &Release) -> Result<Repository, ProviderError> {
    let project = place.project().unwrap_or_default();
    let name = place.repository().unwrap_or_default();
    let call = release.call(&format!("git/repositories/{name}"));
    let answer = api.get(&place.project_api(project, &call)).await?;
    let (project, name) = (Place::decoded(project), Place::decoded(name));
    let names = Names { project: Some(&project), repository: Some(&name), scope: SCOPE_CODE };
    read_repository(&judge(&answer, names, "the repository in JSON")?)
}

/// The first repository of the place that the credential may read and that is `wanted`, as a place of its own.
///
/// # Errors
/// What any call can fail with.
pub async fn first_repository(
    api: &Api,
    place: &Place,
    release: &Release,
    wanted: impl Fn(&Place) -> bool,
) -> Result<Option<Place>, ProviderError> {
    let call = release.call("git/repositories");
    let path = match place.project() {
        Some(project) => place.project_api(project, &call),
        None => place.api(&call),
    };
    let answer = api.get(&path).await?;
    let project = place.project().map(Place::decoded);
    let names = Names { project: project.as_deref(), repository: None, scope: SCOPE_CODE };
    Ok(first_of(&judge(&answer, names, "repositories in JSON")?, place, wanted))
}

/// The names of the projects that the user may see; none where the server does not list them.
pub async fn project_names(api: &Api, place: &Place, release: &Release) -> Vec<String> {
    let call = release.call(&format!("projects?$top={MAX_LISTED_NAMES}"));
    listed_names(api, &place.api(&call)).await
}

/// The names of the repositories of the place's project that the user may see; none where the server does not
/// list them.
pub async fn repository_names(api: &Api, place: &Place, release: &Release) -> Vec<String> {
    let project = place.project().unwrap_or_default();
    listed_names(api, &place.project_api(project, &release.call("git/repositories"))).await
}

/// A list is a courtesy here: whatever is wrong with it, there is none.
async fn listed_names(api: &Api, path: &str) -> Vec<String> {
    let names = api.get(path).await.ok().and_then(|answer| names_in(&answer));
    names.unwrap_or_default()
}

/// The names in a list; `None` where the answer is none.
fn names_in(answer: &Answer) -> Option<Vec<String>> {
    if answer.status != 200 {
        return None;
    }
    let json = answer.json()?;
    let items = json.get("value")?.as_array()?;
    Some(items.iter().filter_map(|item| name(item, "name")).take(MAX_LISTED_NAMES).collect())
}

fn first_of(json: &Value, place: &Place, wanted: impl Fn(&Place) -> bool) -> Option<Place> {
    let usable = json.get("value")?.as_array()?.iter().filter(|json| read_repository(json).is_ok());
    // An empty repository proves least, so that it comes last.
    let (filled, empty): (Vec<_>, Vec<_>) = usable.partition(|json| text(json, "defaultBranch").is_some());
    let mut places = filled.into_iter().chain(empty).filter_map(|json| {
        // The list of one project holds its own repositories; the spelling of its name is the operator's.
        let project = match place.project() {
            Some(project) => Place::decoded(project),
            None => name(json.get("project")?, "name")?,
        };
        Some(place.with_repository(&project, &name(json, "name")?))
    });
    places.find(wanted)
}

fn read_repository(json: &Value) -> Result<Repository, ProviderError> {
    let says = |key| json.get(key).and_then(Value::as_bool).unwrap_or(false);
    if says("isDisabled") || says("isInMaintenance") {
        return Err(ProviderError::RepositoryDisabled);
    }
    let project = json.get("project").and_then(|project| text(project, "id"));
    let identifiers = project.zip(text(json, "id"));
    Ok(Repository {
        name: text(json, "name").unwrap_or_default(),
        default_branch: text(json, "defaultBranch"),
        links: own_urls::links(json),
        identifiers: identifiers.map(|(project, repository)| Identifiers { project, repository }),
    })
}

/// The name in `X-VSS-UserData: id:name`.
fn user_of(answer: &Answer) -> Option<String> {
    let data = answer.encoded_header("x-vss-userdata")?;
    data.split_once(':').map(|(_, name)| name.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::provider::Scope;

    #[test]
    fn a_repository_that_is_not_wanted_is_passed_over() {
        let url = RemoteUrl::parse("https://ado.corp/Coll").unwrap();
        let list =
            |project: &str, name: &str| serde_json::json!({"name": name, "project": {"name": project}});
        let json =
            serde_json::json!({"value": [list("Shop", "a\u{1b}b"), list("Shop", "web"), list("tools", "x")]});
        let first = |wanted: &str| {
            first_of(&json, &Place::parse(&url, None, None), |place| place.project() == Some(wanted))
        };
        assert_eq!(first("Shop").unwrap().names(), "Shop/web");
        assert_eq!(first("tools").unwrap().names(), "tools/x");
        assert_eq!(first("nope"), None);
    }

    #[test]
    fn an_empty_repository_is_read_where_there_is_no_other_and_a_disabled_one_never() {
        let url = RemoteUrl::parse("https://ado.corp/Coll/Shop").unwrap();
        let place = Place::parse(&url, None, Some(Scope::Project));
        let empty = serde_json::json!({"name": "empty"});
        let old = serde_json::json!({"name": "old", "defaultBranch": "refs/heads/main", "isDisabled": true});
        let web = serde_json::json!({"name": "web", "defaultBranch": "refs/heads/main"});
        let first = |list: &[&Value]| {
            first_of(&serde_json::json!({ "value": list }), &place, |_| true).map(|place| place.names())
        };
        assert_eq!(first(&[&empty, &old, &web]).as_deref(), Some("Shop/web"));
        assert_eq!(first(&[&old, &empty]).as_deref(), Some("Shop/empty"));
        assert_eq!(first(&[&old]), None);
    }

    #[test]
    fn a_disabled_repository_is_one_by_its_own_answer() {
        let json = |text| serde_json::from_str::<Value>(text).unwrap();
        assert!(matches!(
            read_repository(&json(r#"{"name":"web","isDisabled":true}"#)),
            Err(ProviderError::RepositoryDisabled)
        ));
        let read = read_repository(&json(r#"{"name":"web","defaultBranch":"refs/heads/main"}"#)).unwrap();
        assert_eq!(read.default_branch.as_deref(), Some("refs/heads/main"));
    }
}
