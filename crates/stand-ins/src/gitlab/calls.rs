//! The calls of GitLab's API that are in use.

use std::collections::BTreeSet;

use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::access::{self, Access, Caller};
use super::{Context, answers, contents, redirect};
use crate::repository::References;
use crate::site::{escape_path, query_value, segments, set_header};
use crate::world::{Repository, Token, TokenKind};

/// The first release with `/metadata`.
const METADATA_SINCE: (u32, u32) = (15, 2);
/// The first release with `/personal_access_tokens/self`.
const TOKEN_SELF_SINCE: (u32, u32) = (15, 5);
/// Any of these lets a token read through the API.
const READ_SCOPES: [&str; 2] = ["api", "read_api"];
/// Any of these lets a token read about its own user and the server.
const USER_SCOPES: [&str; 3] = ["api", "read_api", "read_user"];
/// Entries a page when the request names no number, and at most.
pub(super) const PER_PAGE: (usize, usize) = (20, 100);

/// Answers what follows `/api/v4/`, and adds the rate limit's headers.
pub(super) async fn answer(context: &Context<'_>, call: &str, request: &Parts) -> Response {
    let mut response = dispatch(context, call, request).await;
    let limit = context.settings.rate_limit;
    let reset = OffsetDateTime::now_utc().unix_timestamp() + 60;
    set_header(&mut response, "ratelimit-name", "throttle_authenticated_api");
    set_header(&mut response, "ratelimit-limit", &limit.to_string());
    set_header(&mut response, "ratelimit-observed", "1");
    set_header(&mut response, "ratelimit-remaining", &limit.saturating_sub(1).to_string());
    set_header(&mut response, "ratelimit-reset", &reset.to_string());
    response
}

async fn dispatch(context: &Context<'_>, call: &str, request: &Parts) -> Response {
    if context.settings.decodes_slashes && call.to_ascii_lowercase().contains("%2f") {
        return answers::no_such_call();
    }
    let Some(parts) = segments(call) else {
        return answers::message(StatusCode::BAD_REQUEST, "400 Bad Request");
    };
    if request.method != Method::GET {
        return answers::message(StatusCode::METHOD_NOT_ALLOWED, "405 Not Allowed");
    }
    let caller = match access::for_api(&context.site.world, &request.headers) {
        Access::Granted(caller) => Some(caller),
        Access::Anonymous => None,
        Access::Refused | Access::TokenNeeded => return answers::unauthorized(),
        Access::Expired => {
            return answers::invalid_token(
                "Token is expired. You can either do re-authorization or token refresh.",
            );
        }
        Access::Revoked => {
            return answers::invalid_token("Token was revoked. You have to re-authorize from the user.");
        }
    };
    let keywords = parts.iter().map(String::as_str).collect::<Vec<_>>();
    match (caller, keywords.as_slice()) {
        // The list of public projects is open to everybody, and here it is empty.
        (None, ["projects" | "groups"]) => answers::json(&json!([])),
        (None, ["projects", _, ..]) => answers::not_found("Project"),
        (None, ["groups", _, ..]) => answers::not_found("Group"),
        (None, ["metadata" | "version" | "user" | "personal_access_tokens", ..]) => answers::unauthorized(),
        (Some(caller), ["groups"]) => groups(context, &caller, request),
        (Some(caller), ["metadata"]) if context.has(METADATA_SINCE) => version(context, &caller, true),
        (Some(caller), ["version"]) => version(context, &caller, false),
        (Some(Caller::Token(number, token)), ["personal_access_tokens", "self"])
            if context.has(TOKEN_SELF_SINCE) =>
        {
            token_self(context, number, token)
        }
        (Some(caller), ["user"]) => user(context, &caller),
        (Some(caller), ["groups", path]) => group(context, &caller, path),
        (Some(caller), ["groups", wanted, "projects"]) => match group_path(context, &caller, wanted) {
            Some(path) => projects(context, &caller, &format!("{path}/"), request).await,
            None => answers::not_found("Group"),
        },
        (Some(caller), ["projects"]) => projects(context, &caller, "", request).await,
        (Some(caller), ["projects", id, rest @ ..]) => project(context, &caller, id, rest, request).await,
        _ => answers::no_such_call(),
    }
}

fn version(context: &Context<'_>, caller: &Caller<'_>, metadata: bool) -> Response {
    if !caller.has_any_scope(&USER_SCOPES) {
        return answers::insufficient_scope(&USER_SCOPES);
    }
    let mut json = json!({"version": context.settings.version, "revision": "0123456789a"});
    if metadata {
        json["enterprise"] = Value::Bool(context.settings.enterprise);
        json["kas"] = json!({"enabled": false, "externalUrl": null, "version": null});
    }
    answers::json(&json)
}

/// Every token may ask about itself, whatever its scopes.
fn token_self(context: &Context<'_>, number: usize, token: &Token) -> Response {
    if token.kind == TokenKind::Oauth {
        return answers::message(StatusCode::BAD_REQUEST, "400 Bad request");
    }
    answers::json(&json!({
        "id": number, "name": "stand-in", "revoked": token.revoked, "created_at": "2026-01-01T00:00:00.000Z",
        "description": null, "scopes": token.scopes, "user_id": user_id(context, &token.user), "last_used_at": null,
        "active": true, "expires_at": token.expires_at.map(|day| day.to_string()),
    }))
}

/// What Doorkeeper, which makes GitLab's OAuth tokens, tells about one; other tokens are none to it.
pub(super) fn oauth_token(context: &Context<'_>, request: &Parts) -> Response {
    match access::for_api(&context.site.world, &request.headers) {
        Access::Granted(Caller::Token(number, token)) if token.kind == TokenKind::Oauth => {
            answers::json(&json!({
                "resource_owner_id": user_id(context, &token.user), "scope": token.scopes, "scopes": token.scopes,
                "expires_in": 7200, "expires_in_seconds": 7200, "application": {"uid": format!("{number:064x}")},
                "created_at": OffsetDateTime::now_utc().unix_timestamp(),
            }))
        }
        _ => answers::invalid_token("The access token is invalid"),
    }
}

fn user(context: &Context<'_>, caller: &Caller<'_>) -> Response {
    if !caller.has_any_scope(&USER_SCOPES) {
        return answers::insufficient_scope(&USER_SCOPES);
    }
    let bot_of = match caller {
        Caller::Token(_, Token { kind: TokenKind::Project, .. }) => Some("project"),
        Caller::Token(_, Token { kind: TokenKind::Group, .. }) => Some("group"),
        _ => None,
    };
    let is_bot = bot_of.is_some();
    let name = bot_of.map_or(caller.name().to_owned(), |owner| format!("{owner}_1_bot_{}", caller.name()));
    answers::json(&json!({
        "id": user_id(context, caller.name()), "username": name, "name": name, "state": "active", "bot": is_bot,
        "web_url": format!("{}/{name}", context.public_url),
    }))
}

fn user_id(context: &Context<'_>, name: &str) -> usize {
    context.site.world.users.iter().position(|user| user.name == name).map_or(0, |position| position + 1)
}

/// Groups follow from the paths of the repositories that the caller may read.
fn readable_groups(context: &Context<'_>, caller: &Caller<'_>) -> BTreeSet<String> {
    let mut groups = BTreeSet::new();
    for (_, repository) in context.repositories().filter(|(_, repository)| caller.may_read(repository)) {
        let slashes = repository.path.match_indices('/').map(|(position, _)| position);
        groups.extend(slashes.map(|position| repository.path[..position].to_owned()));
    }
    groups
}

fn groups(context: &Context<'_>, caller: &Caller<'_>, request: &Parts) -> Response {
    if !caller.has_any_scope(&READ_SCOPES) {
        return answers::insufficient_scope(&READ_SCOPES);
    }
    let search = query_value(&request.uri, "search").unwrap_or_default().to_lowercase();
    let groups = readable_groups(context, caller);
    let found = groups
        .iter()
        .enumerate()
        .filter(|(_, path)| path.rsplit('/').next().unwrap_or_default().to_lowercase().contains(&search));
    let list = found.map(|(position, path)| group_json(context, position, path)).collect();
    answers::json(&Value::Array(list))
}

fn group(context: &Context<'_>, caller: &Caller<'_>, wanted: &str) -> Response {
    if !caller.has_any_scope(&READ_SCOPES) {
        return answers::insufficient_scope(&READ_SCOPES);
    }
    let groups = readable_groups(context, caller);
    find_group(&groups, wanted).map_or_else(
        || answers::not_found("Group"),
        |(position, path)| answers::json(&group_json(context, position, path)),
    )
}

/// By the full path or by the number.
fn find_group<'a>(groups: impl IntoIterator<Item = &'a String>, wanted: &str) -> Option<(usize, &'a String)> {
    let is_it = |(position, path): &(usize, &String)| {
        path.eq_ignore_ascii_case(wanted) || (position + 1).to_string() == wanted
    };
    groups.into_iter().enumerate().find(is_it)
}

fn group_path(context: &Context<'_>, caller: &Caller<'_>, wanted: &str) -> Option<String> {
    find_group(&readable_groups(context, caller), wanted).map(|(_, path)| path.clone())
}

fn group_json(context: &Context<'_>, position: usize, path: &str) -> Value {
    let name = path.rsplit('/').next().unwrap_or_default();
    json!({
        "id": position + 1, "name": name, "path": name, "full_path": path, "full_name": path.replace('/', " / "),
        "visibility": "private", "web_url": format!("{}/groups/{}", context.public_url, escape_path(path)),
    })
}

/// A client in Python writes `True`.
fn is_true(request: &Parts, key: &str) -> bool {
    query_value(&request.uri, key).is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

/// The projects whose paths begin so, with those of subgroups only where the request wants them.
async fn projects(context: &Context<'_>, caller: &Caller<'_>, below: &str, request: &Parts) -> Response {
    if !caller.has_any_scope(&READ_SCOPES) {
        return answers::insufficient_scope(&READ_SCOPES);
    }
    let search = query_value(&request.uri, "search").unwrap_or_default().to_lowercase();
    let with_namespaces = is_true(request, "search_namespaces");
    let with_subgroups = is_true(request, "include_subgroups");
    let number = |key| query_value(&request.uri, key).and_then(|text| text.parse::<usize>().ok());
    let per_page = number("per_page").unwrap_or(PER_PAGE.0).clamp(1, PER_PAGE.1);
    let page = number("page").unwrap_or(1).max(1);
    let matching = context
        .repositories()
        .filter(|(_, repository)| {
            let text = if with_namespaces { &repository.path } else { &repository.name };
            let rest = repository.path.get(below.len()..).unwrap_or_default();
            let is_below = repository.path.starts_with(below)
                && (below.is_empty() || with_subgroups || !rest.contains('/'));
            is_below && caller.may_read(repository) && text.to_lowercase().contains(&search)
        })
        .collect::<Vec<_>>();
    let first = (page - 1) * per_page;
    let mut list = Vec::new();
    for (id, repository) in matching.iter().skip(first).take(per_page) {
        match project_json(context, *id, repository).await {
            Ok(json) => list.push(json),
            Err(error) => return unreadable(&error),
        }
    }
    let mut response = answers::json(&Value::Array(list));
    set_header(&mut response, "x-total", &matching.len().to_string());
    set_header(&mut response, "x-page", &page.to_string());
    if first + per_page < matching.len() {
        let next = format!("{}/api/v4/projects?page={}&per_page={per_page}", context.public_url, page + 1);
        set_header(&mut response, "x-next-page", &(page + 1).to_string());
        set_header(&mut response, "link", &format!("<{next}>; rel=\"next\""));
    }
    response
}

async fn project(
    context: &Context<'_>,
    caller: &Caller<'_>,
    id: &str,
    rest: &[&str],
    request: &Parts,
) -> Response {
    if !caller.has_any_scope(&READ_SCOPES) {
        return answers::insufficient_scope(&READ_SCOPES);
    }
    let found = context.repositories().find(|(number, repository)| {
        caller.may_read(repository) && (number.to_string() == id || repository.path.eq_ignore_ascii_case(id))
    });
    let Some((number, repository)) = found else {
        return moved_or_missing(context, caller, id);
    };
    let answered = match rest {
        [] => project_json(context, number, repository).await.map(|json| answers::json(&json)),
        ["repository", "branches"] => branches(repository, None).await,
        ["repository", "branches", name] => branches(repository, Some(name)).await,
        ["repository", "tree"] => contents::tree(repository, request).await,
        ["repository", "blobs", object, "raw"] => contents::blob(repository, object).await,
        _ => Ok(answers::no_such_call()),
    };
    answered.unwrap_or_else(|error| unreadable(&error))
}

/// A project that moved is named by its number; everything else is hidden.
fn moved_or_missing(context: &Context<'_>, caller: &Caller<'_>, id: &str) -> Response {
    let Some(repository) = context.moved(id).filter(|repository| caller.may_read(repository)) else {
        return answers::not_found("Project");
    };
    let number =
        context.repositories().find(|(_, known)| known.path == repository.path).map_or(0, |(id, _)| id);
    redirect(StatusCode::MOVED_PERMANENTLY, &format!("{}/api/v4/projects/{number}", context.public_url))
}

async fn branches(repository: &Repository, wanted: Option<&str>) -> std::io::Result<Response> {
    let references = References::read(&repository.directory).await?;
    let default = references.default_branch.as_deref();
    let mut list = references
        .branches()
        .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name))
        .map(|(name, object)| {
            let is_default = default.and_then(|full| full.strip_prefix("refs/heads/")) == Some(name);
            let short = object.get(..8).unwrap_or(object);
            json!({
                "name": name, "commit": {"id": object, "short_id": short}, "merged": false, "protected": is_default,
                "default": is_default, "can_push": false,
            })
        })
        .collect::<Vec<_>>();
    Ok(match (wanted, list.pop()) {
        (Some(_), Some(branch)) => answers::json(&branch),
        (Some(_), None) => answers::not_found("Branch"),
        (None, last) => {
            list.extend(last);
            answers::json(&Value::Array(list))
        }
    })
}

async fn project_json(context: &Context<'_>, id: usize, repository: &Repository) -> std::io::Result<Value> {
    let references = References::read(&repository.directory).await?;
    let branch = references.default_branch.as_deref().and_then(|full| full.strip_prefix("refs/heads/"));
    let url = format!("{}/{}", context.public_url, escape_path(&repository.path));
    let ssh_url = match &context.settings.ssh_url {
        Some(base) => format!("{base}/{}.git", repository.path),
        None => format!("git@localhost:{}.git", repository.path),
    };
    let access = if repository.disabled { "disabled" } else { "enabled" };
    let level = (repository.access_level > 0)
        .then(|| json!({"access_level": repository.access_level, "notification_level": 3}));
    Ok(json!({
        "id": id, "description": null, "name": repository.name, "path": repository.path.rsplit('/').next(),
        "name_with_namespace": repository.path.replace('/', " / "), "path_with_namespace": repository.path,
        "created_at": "2026-01-01T00:00:00.000Z", "default_branch": branch, "ssh_url_to_repo": ssh_url,
        "http_url_to_repo": format!("{url}.git"), "web_url": url, "visibility": "private",
        "archived": repository.archived,
        "empty_repo": references.all.is_empty(), "repository_access_level": access,
        "permissions": {"project_access": level, "group_access": null},
    }))
}

fn unreadable(error: &std::io::Error) -> Response {
    tracing::warn!(%error, "a repository could not be read");
    answers::message(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error")
}

impl Context<'_> {
    /// Whether the server's release has what came with `since`.
    fn has(&self, since: (u32, u32)) -> bool {
        let mut numbers = self.settings.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= since
    }
}
