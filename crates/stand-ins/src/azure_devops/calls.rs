//! The REST calls of Azure DevOps Server that are in use.

use axum::http::header::ACCEPT;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::{Context, contents, is_project, same};
use crate::repository::References;
use crate::site::{guid, query_value};
use crate::world::{Release, Repository};

/// What is escaped in a name inside of a URL.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The areas that `OPTIONS _apis` lists: area, resource, route, and the identifier by which clients look a
/// resource up, which is the same on every server.
const RESOURCES: [(&str, &str, &str, &str); 6] = [
    ("Location", "ConnectionData", "_apis/{resource}", "00d9565f-ed9c-4a06-9a50-00e7896ccab4"),
    ("Location", "ResourceAreas", "_apis/{resource}/{areaId}", "e81700f7-3be2-46de-8624-2eb35882fcaa"),
    ("core", "projects", "_apis/{resource}/{*projectId}", "603fe2ac-9723-48b9-88ad-09305aa6c6e1"),
    ("core", "projectCollections", "_apis/{resource}/{collectionId}", "8031090f-ef1d-4af6-85fc-698cd75d42bf"),
    (
        "git",
        "repositories",
        "{project}/_apis/{area}/{resource}/{repositoryId}",
        "225f7195-f9c7-4d14-ab28-a83f7ff77e1f",
    ),
    (
        "git",
        "refs",
        "{project}/_apis/{area}/repositories/{repositoryId}/{resource}/{*filter}",
        "2d874a60-a811-4f62-9c9f-963a6ea0a55b",
    ),
];

/// The identifier of a project.
pub(super) fn project_id(collection: &str, project: &str) -> String {
    guid(&["project", collection, project])
}

/// The identifier of a repository.
pub(super) fn repository_id(repository: &Repository) -> String {
    guid(&["repository", &repository.collection, &repository.project, &repository.name])
}

/// Answers what follows `_apis`.
pub(super) async fn answer(
    context: &Context<'_>,
    collection: Option<&str>,
    project: Option<&str>,
    call: &[String],
    request: &Parts,
) -> Response {
    let collection = match collection {
        Some(name) => match known_collection(context, name) {
            Some(known) => Some(known),
            None => return collection_not_found(context, name),
        },
        None => None,
    };
    if request.method == Method::OPTIONS && !context.settings.lists_calls {
        return context.answers.not_found_page();
    }
    if request.method == Method::OPTIONS {
        return context.answers.json(&resources(context, call));
    }
    let lowered = call.iter().map(|part| part.to_lowercase()).collect::<Vec<_>>();
    let keywords = lowered.iter().map(String::as_str).collect::<Vec<_>>();
    if let Some(refusal) = check_version(context, request, keywords == ["connectiondata"]) {
        return refusal;
    }
    let original = |position: usize| call.get(position).map_or("", String::as_str);
    match (collection, project, keywords.as_slice()) {
        (collection, None, ["connectiondata"]) => {
            context.answers.json(&connection_data(context, collection.as_deref()))
        }
        (_, None, ["resourceareas"]) => context.answers.json(&json!({"count": 0, "value": []})),
        (None, None, ["projectcollections"]) => context.answers.json(&collections(context)),
        (Some(_), None, ["permissions", namespace, bits]) => permissions(context, namespace, bits, request),
        (Some(collection), None, ["projects"]) => projects(context, &collection, request),
        (Some(collection), None, ["projects", _]) => project_by_name(context, &collection, original(1)),
        (Some(collection), project, ["git", "repositories"]) => {
            repositories(context, &collection, project).await
        }
        (Some(collection), project, ["git", "repositories", _]) => {
            repository(context, &collection, project, original(2)).await
        }
        (Some(collection), project, ["git", "repositories", _, "refs"]) => {
            references(context, &collection, project, original(2), request).await
        }
        (Some(collection), project, ["git", "repositories", _, rest @ ..]) => {
            let answered = in_repository(context, &collection, project, original(2), rest, request).await;
            answered.unwrap_or_else(|| no_such_call(context))
        }
        _ => no_such_call(context),
    }
}

fn no_such_call(context: &Context<'_>) -> Response {
    context.answers.problem(
        StatusCode::NOT_FOUND,
        "VssResourceNotFoundException",
        "The resource cannot be found.",
    )
}

/// Answers a call about what is in a repository; nothing where there is no such call.
async fn in_repository(
    context: &Context<'_>,
    collection: &str,
    project: Option<&str>,
    name: &str,
    rest: &[&str],
    request: &Parts,
) -> Option<Response> {
    if let Some(refusal) = refuse_code(context, collection, project) {
        return Some(refusal);
    }
    let found = context.find_repository(collection, project, name).filter(|repository| !repository.disabled);
    let Some(repository) = found else { return Some(context.answers.repository_not_found(name)) };
    match contents::answer(context, repository, rest, request).await {
        Ok(answer) => answer,
        Err(error) => Some(unreadable(context, &error)),
    }
}

/// Evaluates a permission of the caller. No scope opens this call: a token needs full access.
fn permissions(context: &Context<'_>, namespace: &str, bits: &str, request: &Parts) -> Response {
    const GIT_REPOSITORIES: &str = "2e9eb7ed-3c0a-47d4-87c1-0ffdd275fd87";
    const SERVICE_HOOKS: &str = "cb594ebe-87dd-4fc9-ac2c-6a10a4c92046";
    if !context.caller.has_scope("app_token") {
        return context.answers.unauthorized();
    }
    let tokens = query_value(&request.uri, "tokens").unwrap_or_default();
    let allowed = match (namespace, bits) {
        (GIT_REPOSITORIES, "4") if tokens.starts_with("repoV2/") => &context.settings.contributors,
        (SERVICE_HOOKS, "7") if tokens.starts_with("PublisherSecurity/") => &context.settings.hook_managers,
        _ => return context.answers.not_found_page(),
    };
    let is_allowed = allowed.iter().any(|name| name == context.caller.name());
    context.answers.json(&json!({"count": 1, "value": [is_allowed]}))
}

/// The collection as it is spelled on the server.
fn known_collection(context: &Context<'_>, name: &str) -> Option<String> {
    all_projects(context).into_iter().map(|(collection, _)| collection).find(|known| same(known, name))
}

fn collection_not_found(context: &Context<'_>, name: &str) -> Response {
    let message =
        format!("TF50309: The collection {name} does not exist on this server or you may not access it.");
    context.answers.problem(StatusCode::NOT_FOUND, "HostDoesNotExistException", &message)
}

/// Every project as (collection, name), whether it was declared or follows from a repository.
fn all_projects(context: &Context<'_>) -> Vec<(String, String)> {
    let world = &context.site.world;
    let declared = world.projects.iter().map(|project| (&project.collection, &project.name));
    let implied = world
        .repositories
        .iter()
        .filter(|repository| !repository.collection.is_empty())
        .map(|repository| (&repository.collection, &repository.project));
    let mut all = Vec::<(String, String)>::new();
    for (collection, name) in declared.chain(implied) {
        if !all.iter().any(|(known, project)| same(known, collection) && same(project, name)) {
            all.push((collection.clone(), name.clone()));
        }
    }
    all
}

/// Refuses an api-version that the release does not have, and a released one for a call in preview.
fn check_version(context: &Context<'_>, request: &Parts, preview_only: bool) -> Option<Response> {
    let in_accept = || {
        let accept = request.headers.get(ACCEPT)?.to_str().ok()?;
        accept.split([';', ',']).find_map(|part| part.trim().strip_prefix("api-version=").map(str::to_owned))
    };
    let asked = query_value(&request.uri, "api-version").or_else(in_accept)?;
    let number = asked.split('-').next().unwrap_or_default();
    let parsed =
        number.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    let Some(version) = parsed else {
        return Some(context.answers.problem(
            StatusCode::BAD_REQUEST,
            "VssVersionNotSpecifiedException",
            &format!("The api-version {asked} is not of a form this server knows."),
        ));
    };
    let (major, minor) = context.settings.release.highest_version();
    if version > (major, minor) {
        let message = format!(
            "The requested REST API version of {number} is out of range for this server. The latest REST API version \
             this server supports is {major}.{minor}."
        );
        return Some(context.answers.problem(
            StatusCode::BAD_REQUEST,
            "VssVersionOutOfRangeException",
            &message,
        ));
    }
    let preview_only = preview_only || version > context.settings.release.api_version();
    if preview_only && !asked.contains("-preview") {
        let message = format!(
            "The requested version \"{number}\" of the resource is under preview. The -preview flag must be supplied \
             in the api-version for such requests. For example: \"{number}-preview\""
        );
        return Some(context.answers.problem(
            StatusCode::BAD_REQUEST,
            "VssInvalidPreviewVersionException",
            &message,
        ));
    }
    None
}

fn resources(context: &Context<'_>, call: &[String]) -> Value {
    let (major, minor) = context.settings.release.api_version();
    let version = format!("{major}.{minor}");
    let (major, minor) = context.settings.release.highest_version();
    let highest = format!("{major}.{minor}");
    let value = RESOURCES
        .iter()
        .filter(|(area, ..)| call.first().is_none_or(|wanted| same(area, wanted)))
        .map(|(area, resource, route, id)| {
            let released = if *area == "Location" { "0.0" } else { version.as_str() };
            json!({
                "id": id, "area": area, "resourceName": resource,
                "routeTemplate": route, "resourceVersion": 1, "minVersion": "1.0", "maxVersion": highest,
                "releasedVersion": released,
            })
        })
        .collect::<Vec<_>>();
    json!({"count": value.len(), "value": value})
}

fn connection_data(context: &Context<'_>, collection: Option<&str>) -> Value {
    let name = context.caller.name();
    let user = json!({
        "id": guid(&["user", name]),
        "descriptor": format!("System.Security.Principal.WindowsIdentity;S-1-5-21-{name}"),
        "subjectDescriptor": format!("win.{name}"),
        "providerDisplayName": name,
        "isActive": true,
        "properties": {"Account": {"$type": "System.String", "$value": format!("CORP\\{name}")}},
        "resourceVersion": 2,
        "metaTypeId": 0,
    });
    json!({
        "authenticatedUser": user,
        "authorizedUser": user,
        "instanceId": guid(&["instance", collection.unwrap_or_default()]),
        "deploymentId": guid(&["deployment"]),
        "deploymentType": match context.settings.release {
            Release::Services => "hosted",
            _ => "onPremises",
        },
        "locationServiceData": {
            "serviceOwner": guid(&["owner"]),
            "defaultAccessMappingMoniker": "PublicAccessMapping",
            "lastChangeId": 1,
            "accessMappings": [{
                "displayName": "Public Access Mapping", "moniker": "PublicAccessMapping",
                "accessPoint": context.public_url, "serviceOwner": guid(&["owner"]), "virtualDirectory": "",
            }],
        },
    })
}

fn collections(context: &Context<'_>) -> Value {
    let mut names = all_projects(context).into_iter().map(|(collection, _)| collection).collect::<Vec<_>>();
    names.sort();
    names.dedup();
    let value = names
        .iter()
        .map(|name| {
            let id = guid(&["instance", name]);
            json!({"id": id, "name": name, "url": format!("{}/_apis/projectCollections/{id}", context.public_url)})
        })
        .collect::<Vec<_>>();
    json!({"count": value.len(), "value": value})
}

fn project_json(context: &Context<'_>, collection: &str, name: &str) -> Value {
    let id = project_id(collection, name);
    let base = collection_url(context, collection);
    json!({
        "id": id, "name": name, "url": format!("{base}/_apis/projects/{id}"), "state": "wellFormed", "revision": 1,
        "visibility": "private", "lastUpdateTime": "2026-01-01T00:00:00Z",
    })
}

fn projects(context: &Context<'_>, collection: &str, request: &Parts) -> Response {
    if !context.caller.has_scope("vso.project") {
        return context.answers.scope_missing("vso.project");
    }
    let number = |key| query_value(&request.uri, key).and_then(|text| text.parse::<usize>().ok());
    let value = all_projects(context)
        .iter()
        .filter(|(known, _)| same(known, collection))
        .skip(number("$skip").unwrap_or(0))
        .take(number("$top").unwrap_or(100))
        .map(|(known, name)| project_json(context, known, name))
        .collect::<Vec<_>>();
    context.answers.json(&json!({"count": value.len(), "value": value}))
}

fn project_by_name(context: &Context<'_>, collection: &str, wanted: &str) -> Response {
    if !context.caller.has_scope("vso.project") {
        return context.answers.scope_missing("vso.project");
    }
    match find_project(context, collection, wanted) {
        Some(name) => context.answers.json(&project_json(context, collection, &name)),
        None => context.answers.project_not_found(wanted),
    }
}

fn find_project(context: &Context<'_>, collection: &str, wanted: &str) -> Option<String> {
    all_projects(context).into_iter().find_map(|(known, name)| {
        let found =
            same(&known, collection) && (same(&name, wanted) || same(&project_id(&known, &name), wanted));
        found.then_some(name)
    })
}

/// What stands in the way of a call about repositories: the scope, or a project that does not exist.
fn refuse_code(context: &Context<'_>, collection: &str, project: Option<&str>) -> Option<Response> {
    if !context.caller.has_scope("vso.code") {
        return Some(context.answers.scope_missing("vso.code"));
    }
    let missing = project.filter(|project| find_project(context, collection, project).is_none());
    missing.map(|project| context.answers.project_not_found(project))
}

async fn repositories(context: &Context<'_>, collection: &str, project: Option<&str>) -> Response {
    if let Some(refusal) = refuse_code(context, collection, project) {
        return refusal;
    }
    let mut value = Vec::new();
    let chosen = context.readable().filter(|repository| {
        same(&repository.collection, collection)
            && project.is_none_or(|project| is_project(repository, project))
    });
    for repository in chosen {
        match repository_json(context, repository).await {
            Ok(json) => value.push(json),
            Err(error) => return unreadable(context, &error),
        }
    }
    context.answers.json(&json!({"value": value, "count": value.len()}))
}

async fn repository(context: &Context<'_>, collection: &str, project: Option<&str>, name: &str) -> Response {
    if let Some(refusal) = refuse_code(context, collection, project) {
        return refusal;
    }
    let Some(repository) = context.find_repository(collection, project, name) else {
        return context.answers.repository_not_found(name);
    };
    match repository_json(context, repository).await {
        Ok(json) => context.answers.json(&json),
        Err(error) => unreadable(context, &error),
    }
}

async fn references(
    context: &Context<'_>,
    collection: &str,
    project: Option<&str>,
    name: &str,
    request: &Parts,
) -> Response {
    if let Some(refusal) = refuse_code(context, collection, project) {
        return refusal;
    }
    let found = context.find_repository(collection, project, name).filter(|repository| !repository.disabled);
    let Some(repository) = found else {
        return context.answers.repository_not_found(name);
    };
    let references = match References::read(&repository.directory).await {
        Ok(references) => references,
        Err(error) => return unreadable(context, &error),
    };
    let prefix = format!("refs/{}", query_value(&request.uri, "filter").unwrap_or_default());
    let value = references
        .all
        .iter()
        .filter(|reference| reference.name.starts_with(&prefix))
        .map(|reference| json!({"name": reference.name, "objectId": reference.object}))
        .collect::<Vec<_>>();
    context.answers.json(&json!({"value": value, "count": value.len()}))
}

async fn repository_json(context: &Context<'_>, repository: &Repository) -> std::io::Result<Value> {
    let references = References::read(&repository.directory).await?;
    let base = collection_url(context, &repository.collection);
    let id = repository_id(repository);
    let (project, name) = (escape(&repository.project), escape(&repository.name));
    let remote_url = format!("{base}/{project}/_git/{name}");
    let ssh_base = context.settings.ssh_url.clone().unwrap_or_else(|| ssh_base(&context.public_url));
    let collection = escape(&repository.collection);
    let ssh_url = format!("{ssh_base}{}/{collection}/{project}/_git/{name}", context.settings.base_path);
    let mut json = json!({
        "id": id, "name": repository.name, "url": format!("{base}/_apis/git/repositories/{id}"),
        "project": project_json(context, &repository.collection, &repository.project),
        "size": 0, "remoteUrl": remote_url, "sshUrl": ssh_url, "webUrl": remote_url,
        "isDisabled": repository.disabled, "isInMaintenance": false,
    });
    // An empty repository has no such key on the real server either.
    if let Some(branch) = references.default_branch {
        json["defaultBranch"] = Value::String(branch);
    }
    Ok(json)
}

fn unreadable(context: &Context<'_>, error: &std::io::Error) -> Response {
    tracing::warn!(%error, "a repository could not be read");
    context.answers.problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        "GitNeedsPermissionException",
        "TF400898: An Internal Error Occurred.",
    )
}

fn collection_url(context: &Context<'_>, collection: &str) -> String {
    format!("{}/{}", context.public_url, escape(collection))
}

fn ssh_base(public_url: &str) -> String {
    let host = public_url.split("://").nth(1).and_then(|rest| rest.split(['/', ':']).next());
    format!("ssh://{}:22", host.unwrap_or("localhost"))
}

fn escape(name: &str) -> String {
    utf8_percent_encode(name, NAME).to_string()
}
