//! Azure DevOps Server and Services: the calls, and what their answers mean.
//!
//! The token goes out by Basic with the first request and is never negotiated down to NTLM, which the server
//! offers beside it and which no token works with.

mod answers;
mod place;

use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::rest::{Answer, Api, name, text};
use super::{Provider, ProviderError};

pub use answers::shows_marks;
use answers::{Names, judge};
pub use place::{Place, is_cloud_host, is_tfvc, looks_like};

/// The scope that a token needs to read a repository, by the server's own name.
pub const SCOPE_CODE: &str = "vso.code";

/// The scope that a token needs to read about projects.
pub const SCOPE_PROJECT: &str = "vso.project";

/// Versions of the REST interface that are tried where the server does not tell its own, newest first.
const API_VERSIONS: [&str; 6] = ["7.1", "7.0", "6.0", "5.0", "4.1", "3.0"];

/// The oldest version of the REST interface that is supported: that of Azure DevOps Server 2019.
const OLDEST_SUPPORTED: (u32, u32) = (5, 0);

/// What the server says about itself and about who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connection {
    /// The user's name.
    pub user: Option<String>,
    /// Whether it is the cloud edition; `None` where the server does not tell.
    pub hosted: Option<bool>,
    /// The URL by which the server names itself.
    pub public_url: Option<String>,
}

/// Product and release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The product's name.
    pub product: &'static str,
    /// The release by its marketing name; `None` for the cloud edition.
    pub release: Option<&'static str>,
    /// The version of the REST interface to use.
    pub api_version: String,
}

/// A repository as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its name.
    pub name: String,
    /// The full name of its default branch; `None` while it is empty.
    pub default_branch: Option<String>,
}

/// Asks without a credential whether an Azure DevOps answers at a place, and which schemes it offers.
///
/// # Errors
/// [`ProviderError::NotThisServer`] and what is the same for every server.
pub async fn identify(anonymous: &Api, place: &Place) -> Result<Vec<String>, ProviderError> {
    let answer = anonymous.get(&place.api("connectionData")).await?;
    let not_this = || ProviderError::NotThisServer {
        expected: Provider::AzureDevops,
        path: answer.path.clone(),
        status: answer.status,
    };
    match answer.status {
        // 203 and 302 are how the cloud edition sends those away who did not sign in.
        200 if answer.json().is_some_and(|json| json.get("instanceId").is_some()) => Ok(Vec::new()),
        203 | 302 if answers::is_sign_in(&answer) || shows_marks(&answer) => Ok(Vec::new()),
        401 => Ok(answer.schemes()),
        403 if shows_marks(&answer) => Ok(answer.schemes()),
        300..=399 | 429 | 500.. => Err(answer.general_error("connectionData in JSON")),
        200 => Err(answer.unexpected("connectionData in JSON")),
        _ => Err(not_this()),
    }
}

/// Presents the credential, for the first time in a test: who does the server take us for?
///
/// # Errors
/// See [`ProviderError`]; a 404 here means that the collection is not part of the path.
pub async fn connection(api: &Api, place: &Place) -> Result<Connection, ProviderError> {
    let answer = api.get(&place.api("connectionData")).await?;
    if answer.status == 404 {
        let asked = if place.collection().is_empty() { "/" } else { place.collection() };
        return Err(ProviderError::WrongBasePath {
            asked: asked.to_owned(),
            answered: "no collection of that name".to_owned(),
        });
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
        public_url: public_url(&json),
    })
}

/// Finds the release by the version of the REST interface, from what the server lists, or else by probing.
///
/// # Errors
/// [`ProviderError::TooOld`], and what any call can fail with.
pub async fn release(api: &Api, place: &Place, connection: &Connection) -> Result<Release, ProviderError> {
    let listed = listed_version(&api.options(&place.api("core")).await?);
    let version = match listed {
        Some(version) => version,
        None => probed_version(api, place).await?,
    };
    let is_hosted = connection.hosted.unwrap_or_else(|| place.is_cloud());
    let release = named_release(version);
    if !is_hosted && version < OLDEST_SUPPORTED {
        return Err(ProviderError::TooOld { seen: format!("{} {}", release.0, release.1) });
    }
    Ok(Release {
        product: if is_hosted { "Azure DevOps Services" } else { release.0 },
        release: (!is_hosted).then_some(release.1),
        api_version: format!("{}.{}", version.0, version.1),
    })
}

/// Asks for the place's project, or for the list of projects where the place is an account.
///
/// # Errors
/// [`ProviderError::Forbidden`], [`ProviderError::ProjectHidden`] and what any call can fail with.
pub async fn authorize(api: &Api, place: &Place, version: &str) -> Result<(), ProviderError> {
    let (call, project) = match place.project() {
        Some(project) => (format!("projects/{project}?api-version={version}"), Some(decoded(project))),
        None => (format!("projects?$top=1&api-version={version}"), None),
    };
    let answer = api.get(&place.api(&call)).await?;
    let names = Names { project: project.as_deref(), repository: None, scope: SCOPE_PROJECT };
    judge(&answer, names, "projects in JSON").map(|_| ())
}

/// Asks for the place's repository.
///
/// # Errors
/// [`ProviderError::Forbidden`], [`ProviderError::RepositoryHidden`], [`ProviderError::RepositoryDisabled`]
/// and what any call can fail with.
pub async fn repository(api: &Api, place: &Place, version: &str) -> Result<Repository, ProviderError> {
    let project = place.project().unwrap_or_default();
    let name = place.repository().unwrap_or_default();
    let call = format!("git/repositories/{name}?api-version={version}");
    let answer = api.get(&place.project_api(project, &call)).await?;
    let (project, name) = (decoded(project), decoded(name));
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
    version: &str,
    wanted: impl Fn(&Place) -> bool,
) -> Result<Option<Place>, ProviderError> {
    let call = format!("git/repositories?api-version={version}");
    let path = match place.project() {
        Some(project) => place.project_api(project, &call),
        None => place.api(&call),
    };
    let answer = api.get(&path).await?;
    let project = place.project().map(decoded);
    let names = Names { project: project.as_deref(), repository: None, scope: SCOPE_CODE };
    Ok(first_of(&judge(&answer, names, "repositories in JSON")?, place, wanted))
}

fn first_of(json: &Value, place: &Place, wanted: impl Fn(&Place) -> bool) -> Option<Place> {
    let usable = json.get("value")?.as_array()?.iter().filter(|json| read_repository(json).is_ok());
    let mut places = usable.filter_map(|json| {
        // The list of one project holds its own repositories; the spelling of its name is the operator's.
        let project = match place.project() {
            Some(project) => decoded(project),
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
    Ok(Repository {
        name: text(json, "name").unwrap_or_default(),
        default_branch: text(json, "defaultBranch"),
    })
}

/// The version of the calls about projects, from the list that the server gives of its calls.
fn listed_version(answer: &Answer) -> Option<(u32, u32)> {
    if answer.status != 200 {
        return None;
    }
    let json = answer.json()?;
    let locations = json.get("value")?.as_array()?;
    let is_projects = |location: &&Value| {
        let is = |key, wanted| text(location, key).is_some_and(|text| text.eq_ignore_ascii_case(wanted));
        is("area", "core") && is("resourceName", "projects")
    };
    let projects = locations.iter().find(is_projects)?;
    // A call that is still in preview has the released version 0.0.
    let version = |key| number(&text(projects, key)?).filter(|version| *version > (0, 0));
    version("releasedVersion").or_else(|| version("maxVersion"))
}

/// Steps down from the newest version until the server stops to refuse the version itself.
async fn probed_version(api: &Api, place: &Place) -> Result<(u32, u32), ProviderError> {
    for version in API_VERSIONS {
        let answer = api.get(&place.api(&format!("projects?$top=1&api-version={version}"))).await?;
        match answer.status {
            400 => {}
            429 | 500.. => return Err(answer.general_error("projects in JSON")),
            // Whatever else it says, it took the version.
            _ => return Ok(number(version).unwrap_or_default()),
        }
    }
    Err(ProviderError::TooOld { seen: "a Team Foundation Server older than 2017".to_owned() })
}

fn named_release(version: (u32, u32)) -> (&'static str, &'static str) {
    const AZURE: &str = "Azure DevOps Server";
    const TFS: &str = "Team Foundation Server";
    match version {
        (..=2, _) => (TFS, "2015 or older"),
        (3, _) => (TFS, "2017"),
        (4, _) => (TFS, "2018"),
        (5, _) => (AZURE, "2019"),
        (6, _) => (AZURE, "2020"),
        (7, 0) => (AZURE, "2022"),
        (7, 1) => (AZURE, "2022.1"),
        _ => (AZURE, "2022.2 or newer"),
    }
}

fn number(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn public_url(json: &Value) -> Option<String> {
    let mappings = json.get("locationServiceData")?.get("accessMappings")?.as_array()?;
    let public =
        mappings.iter().find(|mapping| text(mapping, "moniker").as_deref() == Some("PublicAccessMapping"))?;
    text(public, "accessPoint")
}

/// The name in `X-VSS-UserData: id:name`.
fn user_of(answer: &Answer) -> Option<String> {
    let data = answer.encoded_header("x-vss-userdata")?;
    data.split_once(':').map(|(_, name)| name.to_owned())
}

fn decoded(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::provider::rest::tests::answer;

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    #[test]
    fn the_release_follows_from_the_version_of_the_calls() {
        let listed = |released: &str, max: &str| {
            let body = format!(
                r#"{{"value":[{{"area":"Location","resourceName":"x"}},
                    {{"area":"core","resourceName":"projects","releasedVersion":"{released}","maxVersion":"{max}"}}]}}"#
            );
            listed_version(&answer(200, &[JSON], &body))
        };
        assert_eq!(listed("7.0", "7.1"), Some((7, 0)));
        assert_eq!(listed("0.0", "6.0"), Some((6, 0)));
        assert_eq!(listed_version(&answer(401, &[], "")), None);
        assert_eq!(named_release((7, 0)), ("Azure DevOps Server", "2022"));
        assert_eq!(named_release((4, 1)).0, "Team Foundation Server");
    }

    #[test]
    fn a_repository_that_is_not_wanted_is_passed_over() {
        let url = crate::remote_url::RemoteUrl::parse("https://ado.corp/Coll").unwrap();
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
