//! Git LFS: the batch API and the downloads of both servers, with whole objects or the rest of one.
//!
//! The objects of a repository stand beside it, in `{directory without its extension}.lfs`, each under the SHA-256 that
//! pointers name. Without that directory LFS is off for the repository. Uploads are refused.

use std::io;
use std::path::{Path, PathBuf};

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::site::{Site, path_and_query, respond};
use crate::world::{Provider, Repository};

/// The type of requests and answers.
const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";
/// The largest batch request, in bytes.
const MAX_REQUEST_BYTES: usize = 1024 * 1024;
/// The most objects in one request, as GitHub has it; GitLab has no limit of its own.
const MAX_OBJECTS: usize = 100;

/// What a client wants of a repository's LFS, as the end of a path says.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum LfsRequest {
    /// `info/lfs/objects/batch`
    Batch,
    /// `info/lfs/objects/{oid}`, and `gitlab-lfs/objects/{oid}` on GitLab
    Object(String),
}

impl LfsRequest {
    /// Finds it in the last parts of a path.
    pub(crate) fn from_segments(rest: &[&str]) -> Option<Self> {
        match rest {
            ["info", "lfs", "objects", "batch"] => Some(Self::Batch),
            ["info", "lfs", "objects", oid] | ["gitlab-lfs", "objects", oid] if is_oid(oid) => {
                Some(Self::Object((*oid).to_owned()))
            }
            _ => None,
        }
    }
}

fn is_oid(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Serves one request for a repository. Who asks has been settled before; `objects_url` is what comes before an
/// object's name in the URL of its download.
pub(crate) async fn serve(
    site: &Site,
    repository: &Repository,
    wanted: LfsRequest,
    objects_url: &str,
    request: Request,
) -> Response {
    let directory = repository.directory.with_extension("lfs");
    if !directory.is_dir() {
        return match repository.provider {
            Provider::Gitlab => explained(
                StatusCode::NOT_IMPLEMENTED,
                "Git LFS is not enabled on this GitLab server, contact your admin.",
            ),
            Provider::AzureDevOps => explained(StatusCode::NOT_FOUND, "Git LFS is off for this repository."),
        };
    }
    match wanted {
        LfsRequest::Batch if request.method() == Method::POST => {
            batch(&directory, repository.provider, objects_url, request).await
        }
        LfsRequest::Object(oid) if request.method() == Method::GET => {
            let path = path_and_query(request.uri()).to_owned();
            let start = if site.faults.ignores_ranges(&path) { 0 } else { rest_from(request.headers()) };
            download(site, &path, &directory.join(oid), start).await
        }
        _ => explained(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed."),
    }
}

#[derive(Deserialize)]
struct Batch {
    operation: String,
    objects: Vec<Asked>,
}

#[derive(Deserialize)]
struct Asked {
    oid: String,
    size: u64,
}

async fn batch(directory: &Path, provider: Provider, objects_url: &str, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let accepts = head.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    if !accepts.is_some_and(|accepts| accepts.contains(MEDIA_TYPE)) {
        return explained(StatusCode::NOT_ACCEPTABLE, "Only application/vnd.git-lfs+json is served.");
    }
    let body = to_bytes(body, MAX_REQUEST_BYTES).await.unwrap_or_default();
    let Ok(asked) = serde_json::from_slice::<Batch>(&body) else {
        return explained(StatusCode::UNPROCESSABLE_ENTITY, "The request is not of the batch API's form.");
    };
    if asked.operation != "download" {
        return explained(StatusCode::FORBIDDEN, "You are not allowed to push LFS objects here.");
    }
    if asked.objects.len() > MAX_OBJECTS {
        return explained(StatusCode::PAYLOAD_TOO_LARGE, "Too many objects.");
    }
    let answered: Vec<Value> = asked
        .objects
        .iter()
        .map(|object| answer_for(object, directory, provider, objects_url, &head.headers))
        .collect();
    let answer = json!({"transfer": "basic", "objects": answered, "hash_algo": "sha256"});
    respond(StatusCode::OK, "application/vnd.git-lfs+json; charset=utf-8", answer.to_string())
}

fn answer_for(
    object: &Asked,
    directory: &Path,
    provider: Provider,
    objects_url: &str,
    headers: &HeaderMap,
) -> Value {
    let Asked { oid, size } = object;
    if !is_oid(oid) || !directory.join(oid).is_file() {
        let message = "Object does not exist on the server or you don't have permissions to access it";
        return json!({"oid": oid, "size": size, "error": {"code": 404, "message": message}});
    }
    let href = format!("{objects_url}/{oid}");
    match provider {
        // GitLab hands the client's own header back to it.
        Provider::Gitlab => {
            let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            let header = header.map_or_else(|| json!({}), |value| json!({"Authorization": value}));
            json!({"oid": oid, "size": size, "authenticated": true,
                   "actions": {"download": {"href": href, "header": header}}})
        }
        Provider::AzureDevOps => {
            json!({"oid": oid, "size": size, "actions": {"download": {"href": href}}})
        }
    }
}

/// An object, or the rest of it from where the client has it.
async fn download(site: &Site, path: &str, file: &Path, start: u64) -> Response {
    match open(file, start).await {
        Ok(Opened { file, start, size }) if start < size || size == 0 => {
            let body = site.faults.shape_pack(path, ReaderStream::new(file.take(size - start)));
            into_response(body, start, size)
        }
        Ok(Opened { size, .. }) => {
            let mut response = explained(StatusCode::RANGE_NOT_SATISFIABLE, "There is no such part.");
            set(&mut response, CONTENT_RANGE, &format!("bytes */{size}"));
            response
        }
        Err(_) => explained(StatusCode::NOT_FOUND, "Not found"),
    }
}

struct Opened {
    file: tokio::fs::File,
    start: u64,
    size: u64,
}

async fn open(path: &Path, start: u64) -> io::Result<Opened> {
    let mut file = tokio::fs::File::open(PathBuf::from(path)).await?;
    let size = file.metadata().await?.len();
    file.seek(io::SeekFrom::Start(start)).await?;
    Ok(Opened { file, start, size })
}

fn into_response(body: Body, start: u64, size: u64) -> Response {
    let status = if start > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = respond(status, "application/octet-stream", body);
    set(&mut response, CONTENT_LENGTH, &(size - start).to_string());
    if start > 0 {
        set(&mut response, CONTENT_RANGE, &format!("bytes {start}-{}/{size}", size - 1));
    }
    response
}

/// The beginning of `bytes=…-`; 0 for every other form, and without one.
fn rest_from(headers: &HeaderMap) -> u64 {
    let range = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let start =
        range.and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.strip_suffix('-'));
    start.and_then(|start| start.parse().ok()).unwrap_or(0)
}

/// A refusal in the API's own form.
fn explained(status: StatusCode, message: &str) -> Response {
    respond(status, MEDIA_TYPE, json!({"message": message}).to_string())
}

fn set(response: &mut Response, name: axum::http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}
