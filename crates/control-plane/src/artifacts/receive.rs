//! The agents' side: uploads as `docs/protocol.md` describes them.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use sortie_protocol::artifact::{
    Artifact, ArtifactCompletion, ArtifactPart, ArtifactRequest, ArtifactUpload, MAX_PARTS, is_file_name,
    is_media_type,
};
use tokio::time::timeout;

use super::proof::Proven;
use super::upload::UploadError;
use super::{Artifacts, ObjectError};
use crate::api::App;
use crate::api::body::Id;
use crate::api::problem::ApiError;
use crate::api::rfc3339;
use crate::engine::wall_clock;
use crate::identity::{hex, is_sha256_hex, new_id};
use crate::store::{ArtifactError, ArtifactRecord, ArtifactState, NewArtifact};

/// The longest body that is no part, in bytes.
const MAX_DOCUMENT_BYTES: u64 = 16 * 1024;

/// After how many seconds an agent may try again whose start has not arrived yet.
const START_RETRY_SECONDS: u64 = 1;

/// After how many seconds an agent may try again that has too many uploads.
const UPLOADS_RETRY_SECONDS: u64 = 5;

/// A proven request with its body as a document.
pub(crate) struct Document<T>(Proven, T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Document<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, ApiError> {
        let (mut head, body) = request.into_parts();
        let proven = Proven::from_request_parts(&mut head, app).await?;
        let bytes = timeout(app.times.request_body, read(&head, body, MAX_DOCUMENT_BYTES, &proven));
        let bytes = bytes.await.map_err(|_| too_slow())??;
        let document = serde_json::from_slice(&bytes).map_err(|error| {
            ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", "The body is not what it should be")
                .detail(error.to_string())
        })?;
        Ok(Self(proven, document))
    }
}

/// Reads a body up to its limit and holds it to the proof.
async fn read(head: &Parts, body: Body, limit: u64, proven: &Proven) -> Result<Bytes, ApiError> {
    let told = head.headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|told| told > limit) {
        return Err(body_too_large(limit));
    }
    let limit_bytes = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut bytes = BytesMut::with_capacity(usize::try_from(told.unwrap_or(0)).unwrap_or(0));
    let mut digest = Context::new(&SHA256);
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk =
            chunk.map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "body_broken", "The body broke off"))?;
        if chunk.len() > limit_bytes - bytes.len() {
            return Err(body_too_large(limit));
        }
        digest.update(&chunk);
        bytes.extend_from_slice(&chunk);
    }
    if hex(digest.finish().as_ref()) == proven.body_sha256 {
        return Ok(bytes.freeze());
    }
    Err(ApiError::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "body_hash_mismatch",
        "The body has another SHA-256 than the proof says",
    ))
}

fn body_too_large(limit: u64) -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large")
        .detail(format!("the limit is {limit} bytes"))
}

fn too_slow() -> ApiError {
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timed_out", "The body did not arrive in time")
}

fn invalid(detail: String) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", "A field is out of form").detail(detail)
}

/// `POST /agent/v1/artifacts`.
///
/// # Errors
/// As [`ApiError`] has them for [`ArtifactError`].
pub(crate) async fn begin(
    State(app): State<Arc<App>>,
    Document(proven, wanted): Document<ArtifactRequest>,
) -> Result<(StatusCode, Json<ArtifactUpload>), ApiError> {
    if !is_file_name(&wanted.file_name) {
        return Err(invalid(
            "`file_name` has letters, digits and ._+- and does not begin with a dot".to_owned(),
        ));
    }
    if !is_media_type(&wanted.media_type) {
        return Err(invalid("`media_type` is type/subtype".to_owned()));
    }
    let artifacts = &app.artifacts;
    let new = NewArtifact {
        id: new_id("artifact")?,
        file_name: wanted.file_name,
        media_type: wanted.media_type,
        part_bytes: artifacts.0.part_bytes,
    };
    let store = &artifacts.0.store;
    let limits = &artifacts.0.limits;
    let (record, is_new) = store.begin_artifact(wall_clock(), &proven.uploader, &new, limits).await?;
    if is_new {
        tracing::info!(
            artifact.id = %record.id, task.id = %record.attempt.task_id, attempt = record.attempt.attempt,
            "an upload begins"
        );
    }
    let (record, parts) = store.artifact_upload(&proven.uploader, &record.id).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(document(artifacts, record, parts))))
}

fn document(artifacts: &Artifacts, record: ArtifactRecord, parts: Vec<ArtifactPart>) -> ArtifactUpload {
    ArtifactUpload {
        id: record.id.clone(),
        part_bytes: record.part_bytes,
        max_bytes: artifacts.0.limits.bytes,
        parts,
        artifact: (record.state == ArtifactState::Complete).then(|| artifact(record)),
    }
}

/// A complete artifact as it travels.
fn artifact(record: ArtifactRecord) -> Artifact {
    Artifact {
        id: record.id,
        file_name: record.file_name,
        media_type: record.media_type,
        bytes: record.bytes,
        sha256: record.sha256.unwrap_or_default(),
        expires_at: record.expires_at.map(rfc3339).unwrap_or_default(),
    }
}

/// `GET /agent/v1/artifacts/{id}`.
///
/// # Errors
/// 404 where the attempt has no such upload.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    proven: Proven,
    Id(id): Id,
) -> Result<Json<ArtifactUpload>, ApiError> {
    let (record, parts) = app.artifacts.0.store.artifact_upload(&proven.uploader, &id).await?;
    Ok(Json(document(&app.artifacts, record, parts)))
}

/// `PUT /agent/v1/artifacts/{id}/parts/{number}`.
///
/// # Errors
/// 409 for another content under the number, 413 over a limit, 422 for a wrong hash or number.
pub(crate) async fn part(
    State(app): State<Arc<App>>,
    proven: Proven,
    Path((id, number)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let number = number.parse::<u32>().ok().filter(|number| (1..=MAX_PARTS).contains(number));
    let number = number.ok_or_else(|| invalid(format!("a part's number is between 1 and {MAX_PARTS}")))?;
    let artifacts = &app.artifacts;
    let place = timeout(app.times.list_wait, artifacts.0.arriving.acquire()).await;
    let _place = place.map_err(|_| ApiError::busy())?;
    // The size is that of the upload's beginning, whatever the settings have become.
    let (record, _) = artifacts.0.store.artifact_upload(&proven.uploader, &id).await?;
    let (head, body) = request.into_parts();
    let bytes = timeout(app.times.artifact_part, read(&head, body, record.part_bytes, &proven));
    let bytes = bytes.await.map_err(|_| too_slow())??;
    if bytes.is_empty() {
        return Err(invalid("a part has at least one byte".to_owned()));
    }
    let part = ArtifactPart { number, bytes: bytes.len() as u64, sha256: proven.body_sha256 };
    artifacts.keep_part(proven.uploader, id, part, bytes).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /agent/v1/artifacts/{id}/complete`.
///
/// # Errors
/// 409 where parts are missing, 422 where the whole has another hash.
pub(crate) async fn complete(
    State(app): State<Arc<App>>,
    Id(id): Id,
    Document(proven, whole): Document<ArtifactCompletion>,
) -> Result<Json<Artifact>, ApiError> {
    if !is_sha256_hex(&whole.sha256) {
        return Err(invalid("`sha256` is 64 digits of lower-case hex".to_owned()));
    }
    let record = app.artifacts.complete(proven.uploader, id, whole).await?;
    tracing::info!(
        artifact.id = %record.id, artifact.bytes = record.bytes, task.id = %record.attempt.task_id,
        attempt = record.attempt.attempt, "an artifact is complete"
    );
    Ok(Json(artifact(record)))
}

/// `DELETE /agent/v1/artifacts/{id}`.
///
/// # Errors
/// 404 where the attempt has no such upload, 409 where its result may name it already.
pub(crate) async fn give_up(
    State(app): State<Arc<App>>,
    proven: Proven,
    Id(id): Id,
) -> Result<StatusCode, ApiError> {
    app.artifacts.0.store.drop_upload(&proven.uploader, &id).await?;
    app.artifacts.remove(id).await;
    Ok(StatusCode::NO_CONTENT)
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Artifact(error) => error.into(),
            UploadError::Object(error) => error.into(),
            UploadError::HashDiffers => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "artifact_hash_mismatch",
                "What is stored has another SHA-256 than was told",
            ),
            UploadError::Unfinished => Self::internal(),
        }
    }
}

impl From<ObjectError> for ApiError {
    fn from(error: ObjectError) -> Self {
        match error {
            ObjectError::Full => full("the artifact store has no space left".to_owned()),
            ObjectError::Missing | ObjectError::Failed(_) => {
                tracing::error!(%error, "the artifact store failed a request");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "artifact_store_unavailable",
                    "The artifact store does not do what it should",
                )
                .retry_after(START_RETRY_SECONDS)
            }
        }
    }
}

fn full(detail: String) -> ApiError {
    ApiError::new(StatusCode::INSUFFICIENT_STORAGE, "artifact_store_full", "The artifact store is full")
        .detail(detail)
}

impl From<ArtifactError> for ApiError {
    fn from(error: ArtifactError) -> Self {
        let said = error.to_string();
        let (status, code, title) = match error {
            ArtifactError::NotCurrent => {
                (StatusCode::CONFLICT, "attempt_not_current", "The attempt is not the one that may deliver")
            }
            ArtifactError::NotStarted => {
                return Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "attempt_not_started",
                    "The attempt's start has not arrived yet",
                )
                .retry_after(START_RETRY_SECONDS);
            }
            ArtifactError::NotFound => return Self::artifact_not_found(),
            ArtifactError::Dropped => (StatusCode::CONFLICT, "upload_dropped", "The upload was dropped"),
            ArtifactError::Differs => (StatusCode::CONFLICT, "upload_differs", "The upload is another one"),
            ArtifactError::TooManyOfAttempt(_) => {
                (StatusCode::CONFLICT, "too_many_artifacts", "The attempt delivers too much")
            }
            ArtifactError::TooManyOpen(_) => {
                return Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too_many_uploads",
                    "The agent has too many open uploads",
                )
                .detail(said)
                .retry_after(UPLOADS_RETRY_SECONDS);
            }
            ArtifactError::PartDiffers => {
                (StatusCode::CONFLICT, "part_differs", "The part is there with another content")
            }
            ArtifactError::TooLarge(_) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "artifact_too_large", "The artifact is too large")
            }
            ArtifactError::Full(_) => return full(said),
            ArtifactError::Completed => {
                (StatusCode::CONFLICT, "artifact_complete", "The artifact is complete")
            }
            ArtifactError::Incomplete => {
                (StatusCode::CONFLICT, "parts_missing", "The parts are not those that were told")
            }
            ArtifactError::Store(error) => return error.into(),
        };
        Self::new(status, code, title).detail(said)
    }
}
