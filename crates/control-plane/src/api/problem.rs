//! The one edge that turns errors into HTTP.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use sortie_protocol::identity::Problem;

use crate::engine::Gone;
use crate::identity::NoRandomness;
use crate::store::StoreError;

/// After how many seconds a client may try again where the store failed.
const STORE_RETRY_SECONDS: u64 = 1;

/// After how many seconds a client may try again where too many others ask.
const BUSY_RETRY_SECONDS: u64 = 2;

/// An error as a client sees it.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: Option<String>,
    retry_after: Option<u64>,
}

impl ApiError {
    /// An error with a stable code and a title for people.
    pub fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        Self { status, code, title, detail: None, retry_after: None }
    }

    /// Says what happened here and what to do.
    pub fn detail(mut self, detail: String) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Says after how many seconds to try again.
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A failure of this side that a client learns nothing about.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The control plane failed")
    }

    /// Too many others want the same.
    pub fn busy() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "The control plane has too much to do")
            .retry_after(BUSY_RETRY_SECONDS)
    }

    /// A task that is not there.
    pub fn task_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "task_not_found", "There is no such task")
    }

    /// An agent that is not there.
    pub fn agent_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "agent_not_found", "No such agent is registered")
    }

    /// An artifact or an upload that is not there.
    pub fn artifact_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "artifact_not_found", "There is no such artifact")
            .detail("it may have expired, or was removed".to_owned())
    }

    /// A parameter of the query that is out of form.
    pub fn invalid_parameter(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameter", "A parameter is out of form").detail(detail)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = Problem {
            kind: format!("/problems/{}", self.code),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code.to_owned(),
        };
        let mut response = (self.status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Busy) {
            tracing::warn!("a request waited too long for the store");
            return Self::busy();
        }
        tracing::error!(%error, "the store failed a request");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "The store does not answer")
            .retry_after(STORE_RETRY_SECONDS)
    }
}

impl From<Gone> for ApiError {
    fn from(_: Gone) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", "The store does not answer")
            .detail("nothing is known of what was asked; ask again with the same Idempotency-Key".to_owned())
            .retry_after(STORE_RETRY_SECONDS)
    }
}

impl From<NoRandomness> for ApiError {
    fn from(error: NoRandomness) -> Self {
        tracing::error!(%error, "no identifier could be made");
        Self::internal()
    }
}
