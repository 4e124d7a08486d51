//! Projects and groups: what is at a path, and what could have been meant where nothing is.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::Place;
use super::answers::judge;
use crate::dial::HttpError;
use crate::provider::ProviderError;
use crate::provider::near::near;
use crate::provider::rest::{Answer, Api, name, text};

/// Entries a page, at the most that the server gives.
const PER_PAGE: usize = 100;

/// A project as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The full name of its default branch; `None` while it is empty.
    pub default_branch: Option<String>,
    /// Whether it is archived: it can be read and not changed.
    pub is_archived: bool,
    /// The access level of the token's user, from 10 for a guest to 50 for an owner; `None` where it is not told.
    pub access_level: Option<u64>,
}

/// What is at a path that could be a project's or a group's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A project.
    Project(Project),
    /// A group.
    Group,
}

/// Asks for the project of the place, or for a group where there is no such project and the URL leaves it open.
///
/// # Errors
/// [`ProviderError::Forbidden`], [`ProviderError::RepositoryHidden`], [`ProviderError::RepositoryMoved`],
/// [`ProviderError::RepositoryDisabled`] and what any call can fail with.
pub async fn project(api: &Api, place: &Place) -> Result<Found, ProviderError> {
    let answer = api.get(&place.api(&format!("projects/{}", place.encoded_path()))).await?;
    match answer.status {
        301 | 302 | 307 | 308 => Err(moved(api, place, &answer).await),
        404 => instead_of_project(api, place).await,
        _ => Ok(Found::Project(read_project(&judge(&answer, "the project in JSON")?)?)),
    }
}

/// What there is where no project answers by its path. All of it is asked for at the same time.
async fn instead_of_project(api: &Api, place: &Place) -> Result<Found, ProviderError> {
    let as_group = async { !place.is_certainly_repository() && group_alone(api, place).await.is_ok() };
    let (searched, is_group, near) = tokio::join!(searched(api, place), as_group, near_projects(api, place));
    match searched? {
        Some(project) => Ok(Found::Project(read_project(&project)?)),
        None if is_group => Ok(Found::Group),
        None => Err(ProviderError::RepositoryHidden { name: place.full_path(), near }),
    }
}

/// Asks for the group of the place, or for the list of projects where the place is the root.
///
/// # Errors
/// [`ProviderError::Forbidden`], [`ProviderError::ProjectHidden`] and what any call can fail with.
pub async fn account(api: &Api, place: &Place) -> Result<(), ProviderError> {
    if place.full_path().is_empty() {
        let answer = api.get(&place.api("projects?membership=true&simple=true&per_page=1")).await?;
        return judge(&answer, "projects in JSON").map(|_| ());
    }
    match group_alone(api, place).await {
        Err(ProviderError::ProjectHidden { name, .. }) => {
            let near = near_groups(api, &name, place).await;
            Err(ProviderError::ProjectHidden { name, near })
        }
        answered => answered,
    }
}

/// The first repository below the place that the token may read and that is `wanted`, as a place of its own.
///
/// # Errors
/// What any call can fail with.
pub async fn first_repository(
    api: &Api,
    place: &Place,
    wanted: impl Fn(&Place) -> bool,
) -> Result<Option<Place>, ProviderError> {
    let call = match place.full_path().as_str() {
        "" => "projects?membership=true&per_page=20".to_owned(),
        _ => format!("groups/{}/projects?include_subgroups=true&per_page=20", place.encoded_path()),
    };
    let answer = api.get(&place.api(&call)).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    Ok(first_of(&judge(&answer, "projects in JSON")?, place, wanted))
}

async fn group_alone(api: &Api, place: &Place) -> Result<(), ProviderError> {
    let answer = api.get(&place.api(&format!("groups/{}?with_projects=false", place.encoded_path()))).await?;
    if answer.status == 404 {
        return Err(ProviderError::ProjectHidden { name: place.full_path(), near: vec![] });
    }
    judge(&answer, "the group in JSON").map(|_| ())
}

/// A proxy that decodes `%2F` turns every project into a 404, so that a project that is not found by its path
/// is looked for in a search as well.
async fn searched(api: &Api, place: &Place) -> Result<Option<Value>, ProviderError> {
    let full_path = place.full_path();
    // The slash is refused by such a proxy in the path of a URL only, not in a query.
    let call = format!("projects?search_namespaces=true&search={}&per_page={PER_PAGE}", place.encoded_path());
    let answer = match api.get(&place.api(&call)).await {
        // The project itself was not found already: a list too long to be searched does not change that.
        Err(ProviderError::Http(HttpError::BodyTooLarge { .. })) => return Ok(None),
        answer => answer?,
    };
    if answer.status != 200 {
        return Ok(None);
    }
    let projects = match answer.json() {
        Some(Value::Array(projects)) => projects,
        _ => return Ok(None),
    };
    let is_it = |json: &Value| {
        name(json, "path_with_namespace").is_some_and(|path| path.eq_ignore_ascii_case(&full_path))
    };
    Ok(projects.into_iter().find(is_it))
}

/// Projects whose paths are like this one: of the same name elsewhere, or of another name in the same group. It is
/// a courtesy, and what fails in it only makes the list shorter.
async fn near_projects(api: &Api, place: &Place) -> Vec<String> {
    let wanted = place.full_path();
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (parent, own) = wanted.rsplit_once('/').unwrap_or(("", &wanted));
    let page = format!("simple=true&per_page={PER_PAGE}");
    let same_name = place.api(&format!("projects?search={}&{page}", encoded(own)));
    let same_group = match parent {
        "" => place.api(&format!("projects?membership=true&{page}")),
        parent => place.api(&format!("groups/{}/projects?{page}", encoded(parent))),
    };
    let (elsewhere, beside) = tokio::join!(
        listed(api, &same_name, "path_with_namespace"),
        listed(api, &same_group, "path_with_namespace")
    );
    near(&wanted, &[elsewhere, beside].concat())
}

async fn near_groups(api: &Api, wanted: &str, place: &Place) -> Vec<String> {
    let call = place.api(&format!("groups?per_page={PER_PAGE}"));
    near(wanted, &listed(api, &call, "full_path").await)
}

/// One field of each entry of a list, or nothing.
async fn listed(api: &Api, call: &str, field: &str) -> Vec<String> {
    let json = match api.get(call).await {
        Ok(answer) if answer.status == 200 => answer.json(),
        _ => None,
    };
    let Some(Value::Array(entries)) = json else { return Vec::new() };
    entries.iter().filter_map(|entry| name(entry, field)).collect()
}

/// The new path of a project, from the call that the server's redirect names. The redirect is read and not
/// followed: only a project's number on this very API is taken from it.
async fn moved(api: &Api, place: &Place, answer: &Answer) -> ProviderError {
    let location = answer.local_redirect(api.origin()).unwrap_or_default();
    let id = location.strip_prefix(&place.api("projects/"));
    let Some(id) = id.filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())) else {
        return answer.general_error("the project in JSON");
    };
    let named = match api.get(&place.api(&format!("projects/{id}"))).await {
        Ok(answer) => answer.json().and_then(|json| name(&json, "path_with_namespace")),
        Err(_) => None,
    };
    ProviderError::RepositoryMoved { to: named.map(|path| place.with_repository(&path).shown()) }
}

/// A group's list holds projects of other groups as well, where these share them with it. An empty repository
/// proves least, and an archived one is nobody's daily work, so that these come last.
fn first_of(json: &Value, place: &Place, wanted: impl Fn(&Place) -> bool) -> Option<Place> {
    let read = json.as_array()?.iter().filter_map(|json| Some((read_project(json).ok()?, json)));
    let mut usable: Vec<_> = read.collect();
    usable.sort_by_key(|(project, _)| (project.default_branch.is_none(), project.is_archived));
    let paths = usable.into_iter().filter_map(|(_, json)| name(json, "path_with_namespace"));
    paths.map(|path| place.with_repository(&path)).find(wanted)
}

fn read_project(json: &Value) -> Result<Project, ProviderError> {
    if text(json, "repository_access_level").as_deref() == Some("disabled") {
        return Err(ProviderError::RepositoryDisabled);
    }
    let branch = text(json, "default_branch");
    let level = |of: &str| json.pointer(&format!("/permissions/{of}/access_level")).and_then(Value::as_u64);
    Ok(Project {
        default_branch: branch.map(|branch| format!("refs/heads/{branch}")),
        is_archived: json.get("archived").and_then(Value::as_bool) == Some(true),
        access_level: level("project_access").max(level("group_access")),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_project_tells_nothing_that_a_terminal_would_obey() {
        let project = json!({"default_branch": format!("\u{1b}c{}", "x".repeat(100_000))});
        let branch = read_project(&project).unwrap().default_branch.unwrap();
        assert!(branch.len() < 400 && !branch.contains('\u{1b}'), "{branch}");
    }

    #[test]
    fn the_higher_level_of_access_counts() {
        let level =
            |permissions: Value| read_project(&json!({ "permissions": permissions })).unwrap().access_level;
        let access = |level: u64| json!({ "access_level": level });
        assert_eq!(level(json!({"project_access": access(30), "group_access": access(40)})), Some(40));
        assert_eq!(level(json!({"project_access": access(20), "group_access": null})), Some(20));
        assert_eq!(level(json!({"project_access": null, "group_access": null})), None);
        assert_eq!(level(Value::Null), None);
    }

    #[test]
    fn an_empty_or_archived_project_is_read_where_there_is_no_other_and_a_disabled_one_never() {
        let url = crate::remote_url::RemoteUrl::parse("https://gl.corp/shop").unwrap();
        let place = Place::parse(&url, "", None).unwrap();
        let empty = json!({"path_with_namespace": "shop/empty", "default_branch": null});
        let old = json!({"path_with_namespace": "shop/old", "default_branch": "main", "archived": true});
        let off = json!({"path_with_namespace": "shop/off", "default_branch": "main",
                         "repository_access_level": "disabled"});
        let web = json!({"path_with_namespace": "shop/web", "default_branch": "main"});
        let first = |list: &[&Value]| first_of(&json!(list), &place, |_| true).map(|found| found.full_path());
        assert_eq!(first(&[&off, &empty, &old, &web]).as_deref(), Some("shop/web"));
        assert_eq!(first(&[&off, &empty, &old]).as_deref(), Some("shop/old"));
        assert_eq!(first(&[&off, &empty]).as_deref(), Some("shop/empty"));
        assert_eq!(first(&[&off]), None);
    }

    #[test]
    fn a_project_that_is_shared_from_elsewhere_is_passed_over() {
        let url = crate::remote_url::RemoteUrl::parse("https://gl.corp/shop").unwrap();
        let place = Place::parse(&url, "", None).unwrap();
        let listed = |paths: &[&str]| {
            let projects = paths.iter().map(|path| json!({ "path_with_namespace": path })).collect();
            let is_below = |place: &Place| place.git_url().is_some_and(|git_url| url.contains(&git_url));
            first_of(&Value::Array(projects), &place, is_below).map(|found| found.full_path())
        };
        assert_eq!(listed(&["other/secret", "shop/web"]).as_deref(), Some("shop/web"));
        assert_eq!(listed(&["other/secret"]), None);
    }
}
