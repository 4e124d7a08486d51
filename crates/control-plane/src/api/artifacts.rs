//! Artifacts for those who may read them.

use std::ops::Range;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::auth::{Caller, Dispatching, Viewing};
use super::body::{Id, Parameters};
use super::problem::ApiError;
use super::range::{self, Wanted};
use super::{App, rfc3339};
use crate::artifacts::{Artifacts, ObjectError};
use crate::engine::wall_clock;
use crate::store::{ArtifactFilter, ArtifactRecord};

/// Artifacts on a page where the query does not say.
const DEFAULT_PAGE: u32 = 50;

/// The most artifacts on a page.
const MAX_PAGE: u32 = 200;

/// How many bytes of a part one reader has in memory.
const PIECE_BYTES: u64 = 1024 * 1024;

/// An artifact.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ArtifactDocument {
    /// Its identifier.
    id: String,
    /// The task that it came of.
    task_id: String,
    /// The number of the attempt.
    attempt: u32,
    /// The agent that delivered it.
    agent_id: String,
    /// The name of the file.
    file_name: String,
    /// Its media type.
    media_type: String,
    /// Its size in bytes.
    bytes: u64,
    /// Its SHA-256 in lower-case hex.
    sha256: String,
    /// When it was complete.
    created_at: String,
    /// Until when it is kept.
    expires_at: String,
}

/// One page of artifacts.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ArtifactList {
    /// The newest first.
    artifacts: Vec<ArtifactDocument>,
    /// The `cursor` of the next page; null on the last one.
    next: Option<String>,
}

/// The parameters of `GET /api/v1/artifacts`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ArtifactParameters {
    /// Only artifacts of this task.
    task: Option<String>,
    /// How many, 50 where it is missing and 200 at most.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

impl From<ArtifactRecord> for ArtifactDocument {
    fn from(record: ArtifactRecord) -> Self {
        Self {
            id: record.id,
            task_id: record.attempt.task_id,
            attempt: record.attempt.attempt,
            agent_id: record.agent_id,
            file_name: record.file_name,
            media_type: record.media_type,
            bytes: record.bytes,
            sha256: record.sha256.unwrap_or_default(),
            created_at: record.completed_at.map(rfc3339).unwrap_or_default(),
            expires_at: record.expires_at.map(rfc3339).unwrap_or_default(),
        }
    }
}

pub(super) async fn list(
    _: Caller<Viewing>,
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<ArtifactParameters>,
) -> Result<Json<ArtifactList>, ApiError> {
    let limit = parameters.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::invalid_parameter(format!("`limit` is between 1 and {MAX_PAGE}")));
    }
    let before = parameters.cursor.as_deref().map(|cursor| {
        let parsed = cursor.parse::<i64>();
        parsed.map_err(|_| ApiError::invalid_parameter("`cursor` is `next` of the page before".to_owned()))
    });
    // One more than is shown tells whether there is another page.
    let filter = ArtifactFilter { task_id: parameters.task, before: before.transpose()?, limit: limit + 1 };
    let place = timeout(app.times.list_wait, app.lists.acquire()).await.map_err(|_| ApiError::busy())?;
    let mut records = app.store.artifacts(wall_clock(), &filter).await?;
    drop(place);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| has_more).map(|last| last.seq.to_string());
    Ok(Json(ArtifactList { artifacts: records.into_iter().map(ArtifactDocument::from).collect(), next }))
}

async fn find(app: &App, id: &str) -> Result<ArtifactRecord, ApiError> {
    app.store.artifact(wall_clock(), id).await?.ok_or_else(ApiError::artifact_not_found)
}

pub(super) async fn one(
    _: Caller<Viewing>,
    State(app): State<Arc<App>>,
    Id(id): Id,
) -> Result<Json<ArtifactDocument>, ApiError> {
    Ok(Json(find(&app, &id).await?.into()))
}

pub(super) async fn delete(
    _: Caller<Dispatching>,
    State(app): State<Arc<App>>,
    Id(id): Id,
) -> Result<StatusCode, ApiError> {
    if !app.store.remove_artifact(wall_clock(), &id).await? {
        return Err(ApiError::artifact_not_found());
    }
    tracing::info!(artifact.id = %id, "a client removes an artifact");
    app.artifacts.remove(id).await;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn content(
    _: Caller<Viewing>,
    State(app): State<Arc<App>>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let record = find(&app, &id).await?;
    let sha256 = record.sha256.as_deref().unwrap_or_default();
    let etag = format!("\"{sha256}\"");
    let header = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    // A part of something else than what the client has is of no use to it.
    let is_same = header(IF_RANGE).is_none_or(|tag| tag == etag);
    let asked = if is_same { range::wanted(header(RANGE), record.bytes) } else { Wanted::Whole };
    let (status, range) = match asked {
        Wanted::Whole => (StatusCode::OK, 0..record.bytes),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Unsatisfiable => {
            let error = ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "range_not_satisfiable",
                "The artifact has no such bytes",
            )
            .detail(format!("it has {} bytes", record.bytes));
            let length = format!("bytes */{}", record.bytes);
            return Ok(([(CONTENT_RANGE, length)], error).into_response());
        }
    };
    let place = timeout(app.times.list_wait, app.artifacts.readers().acquire_owned()).await;
    let place = place.ok().and_then(Result::ok).ok_or_else(ApiError::busy)?;
    let described = [
        (CONTENT_TYPE, record.media_type.clone()),
        (CONTENT_LENGTH, (range.end - range.start).to_string()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", record.file_name)),
        (ETAG, etag),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (CACHE_CONTROL, "private".to_owned()),
    ];
    let partial = (status == StatusCode::PARTIAL_CONTENT)
        .then(|| [(CONTENT_RANGE, format!("bytes {}-{}/{}", range.start, range.end - 1, record.bytes))]);
    let body = Body::from_stream(pieces(app.artifacts.clone(), record, range, place));
    Ok(match partial {
        Some(partial) => (status, described, partial, body).into_response(),
        None => (status, described, body).into_response(),
    })
}

/// The bytes of a range, piece by piece. A piece that cannot be had breaks the answer off.
fn pieces(
    artifacts: Artifacts,
    record: ArtifactRecord,
    range: Range<u64>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, ObjectError>> {
    stream::try_unfold((artifacts, record, range, place), |(artifacts, record, left, place)| async move {
        if left.start >= left.end {
            return Ok(None);
        }
        let part = left.start / record.part_bytes;
        let from = left.start % record.part_bytes;
        let to = record.part_bytes.min(from + PIECE_BYTES).min(from + (left.end - left.start));
        let number = u32::try_from(part + 1).map_err(|_| ObjectError::Missing)?;
        let bytes = artifacts.read(&record.id, number, from..to).await.inspect_err(|error| {
            tracing::error!(%error, artifact.id = %record.id, part = number, "an artifact cannot be read");
        })?;
        let rest = left.start + bytes.len() as u64..left.end;
        Ok(Some((bytes, (artifacts, record, rest, place))))
    })
}
