//! Items, trees and blobs of Azure DevOps' repositories.

use std::io;

use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::json;

use super::Context;
use crate::contents;
use crate::site::{query_value, respond};
use crate::world::Repository;

/// Answers what follows the repository in a call; nothing where there is no such call.
pub(super) async fn answer(
    context: &Context<'_>,
    repository: &Repository,
    call: &[&str],
    request: &Parts,
) -> io::Result<Option<Response>> {
    Ok(match call {
        ["items"] => Some(item(context, repository, request).await?),
        ["trees", object] => Some(tree(context, repository, object).await?),
        ["blobs", object] => Some(blob(context, repository, object).await?),
        _ => None,
    })
}

/// What is at a path of a commit, without its content.
async fn item(context: &Context<'_>, repository: &Repository, request: &Parts) -> io::Result<Response> {
    let value = |key| query_value(&request.uri, key).unwrap_or_default();
    let (path, commit) = (value("path"), value("versionDescriptor.version"));
    if !value("versionDescriptor.versionType").eq_ignore_ascii_case("commit") {
        return Ok(not_found(
            context,
            "GitUnresolvableToCommitException",
            "TF401175: The version cannot be resolved.",
        ));
    }
    let found = contents::object_at(&repository.directory, &commit, path.trim_matches('/')).await?;
    let Some((object, kind)) = found else {
        let message = format!(
            "TF401174: The item {path} could not be found in the repository at the version {commit}."
        );
        return Ok(not_found(context, "GitItemNotFoundException", &message));
    };
    let is_folder = kind == "tree";
    Ok(context.answers.json(&json!({
        "objectId": object, "gitObjectType": kind, "commitId": commit, "path": path, "isFolder": is_folder,
        "url": context.public_url,
    })))
}

async fn tree(context: &Context<'_>, repository: &Repository, object: &str) -> io::Result<Response> {
    let Some(entries) = contents::entries(&repository.directory, object).await? else {
        return Ok(not_found(
            context,
            "GitObjectDoesNotExistException",
            "TF401035: The object does not exist.",
        ));
    };
    let list: Vec<_> = entries
        .iter()
        .map(|entry| {
            json!({
                "objectId": entry.object, "relativePath": entry.name, "mode": entry.mode.trim_start_matches('0'),
                "gitObjectType": entry.kind, "url": context.public_url, "size": entry.size.unwrap_or(0),
            })
        })
        .collect();
    Ok(context
        .answers
        .json(&json!({"objectId": object, "url": context.public_url, "treeEntries": list, "size": 0})))
}

async fn blob(context: &Context<'_>, repository: &Repository, object: &str) -> io::Result<Response> {
    Ok(match contents::blob(&repository.directory, object).await? {
        Some(bytes) => respond(StatusCode::OK, "application/octet-stream", bytes),
        None => not_found(context, "GitObjectDoesNotExistException", "TF401035: The object does not exist."),
    })
}

fn not_found(context: &Context<'_>, kind: &str, message: &str) -> Response {
    context.answers.problem(StatusCode::NOT_FOUND, kind, message)
}
