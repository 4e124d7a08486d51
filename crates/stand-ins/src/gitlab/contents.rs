//! Trees and blobs of GitLab's repositories.

use std::io;

use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::{Value, json};

use super::answers;
use super::calls::PER_PAGE;
use crate::contents;
use crate::site::{query_value, respond, set_header};
use crate::world::Repository;

/// A page of the entries of a directory.
pub(super) async fn tree(repository: &Repository, request: &Parts) -> io::Result<Response> {
    let value = |key| query_value(&request.uri, key).unwrap_or_default();
    let number = |key| value(key).parse::<usize>().ok();
    let (commit, path) = (value("ref"), value("path"));
    let found = contents::object_at(&repository.directory, &commit, &path).await?;
    let Some((tree, _)) = found.filter(|(_, kind)| kind == "tree") else {
        return Ok(answers::not_found("Tree"));
    };
    let entries = contents::entries(&repository.directory, &tree).await?.unwrap_or_default();
    let per_page = number("per_page").unwrap_or(PER_PAGE.0).clamp(1, PER_PAGE.1);
    let page = number("page").unwrap_or(1).max(1);
    let list = entries.iter().skip((page - 1) * per_page).take(per_page).map(|entry| {
        let full = if path.is_empty() { entry.name.clone() } else { format!("{path}/{}", entry.name) };
        json!({"id": entry.object, "name": entry.name, "type": entry.kind, "path": full, "mode": entry.mode})
    });
    let mut response = answers::json(&Value::Array(list.collect()));
    let next = if page * per_page < entries.len() { (page + 1).to_string() } else { String::new() };
    set_header(&mut response, "x-next-page", &next);
    Ok(response)
}

/// The bytes of a blob.
pub(super) async fn blob(repository: &Repository, object: &str) -> io::Result<Response> {
    Ok(match contents::blob(&repository.directory, object).await? {
        Some(bytes) => respond(StatusCode::OK, "text/plain", bytes),
        None => answers::not_found("Blob"),
    })
}
