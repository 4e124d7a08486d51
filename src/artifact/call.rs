//! One request about an upload: proved, sent once, and its answer judged.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde::de::DeserializeOwned;
use sortie_protocol::artifact::{ArtifactProof, PROOF_HEADER};
use sortie_protocol::identity::Problem;

use super::source::hex;
use super::{Delivery, UploadError, Way};
use crate::dial::{HttpError, read_limited};

/// The largest answer, in bytes: the list of the most parts that there can be.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The longest wait that the control plane may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// A request.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Below the base URL.
    pub(super) path: String,
    pub(super) body: Bytes,
    /// SHA-256 of the body in hex.
    pub(super) sha256: String,
    pub(super) media_type: &'static str,
}

/// Why a request brought nothing.
pub(super) enum Trouble {
    /// It may be over soon.
    Passing {
        /// What it was.
        cause: UploadError,
        /// How long the control plane wants to be left alone.
        wait: Duration,
    },
    /// It stays so.
    Final(UploadError),
}

impl Call {
    /// A request without a body.
    pub(super) fn bare(method: Method, path: String) -> Self {
        Self::document(method, path, Bytes::new())
    }

    /// A request with a small document.
    pub(super) fn document(method: Method, path: String, body: Bytes) -> Self {
        let sha256 = hex(digest(&SHA256, &body).as_ref());
        Self { method, path, body, sha256, media_type: "application/json" }
    }
}

impl Way {
    /// Sends a request once.
    pub(super) async fn send(&self, delivery: &Delivery, call: &Call) -> Result<Vec<u8>, Trouble> {
        let unreachable = |error: HttpError| match error {
            HttpError::BadRequest => Trouble::Final(UploadError::Unreachable(error)),
            error => Trouble::Passing { cause: UploadError::Unreachable(error), wait: Duration::ZERO },
        };
        let client = self.door.client(&self.destination).await.map_err(|error| unreachable(error.into()))?;
        let proof = self.proof(delivery, call).ok_or_else(|| unreachable(HttpError::BadRequest))?;
        let path = format!("{}{}", self.base.path(), call.path);
        let request = client
            .request(call.method.clone(), &path)
            .header(PROOF_HEADER, proof)
            .header(CONTENT_TYPE, call.media_type)
            .body(call.body.clone());
        let response = client.send(request).await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let wait = response.headers().get(RETRY_AFTER).and_then(seconds).unwrap_or_default();
        let answer = read_limited(response, MAX_ANSWER_BYTES).await.map_err(unreachable)?;
        if (200..300).contains(&status) { Ok(answer) } else { Err(judged(status, &answer, wait)) }
    }

    fn proof(&self, delivery: &Delivery, call: &Call) -> Option<HeaderValue> {
        let mut proof = ArtifactProof {
            origin: self.origin.clone(),
            agent_id: self.agent_id.clone(),
            task_id: delivery.task_id.clone(),
            attempt: delivery.attempt,
            body_sha256: call.sha256.clone(),
            signature: String::new(),
        };
        proof.signature = self.key.sign(&proof.payload(call.method.as_str(), &call.path));
        HeaderValue::from_str(&serde_json::to_string(&proof).ok()?).ok()
    }
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    let seconds = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// The meaning of an answer that is not a good one.
fn judged(status: u16, answer: &[u8], wait: Duration) -> Trouble {
    let problem = serde_json::from_slice::<Problem>(answer).ok();
    let code = problem.as_ref().map(|problem| printable(&problem.code)).unwrap_or_default();
    let message = || {
        let said = problem.as_ref().map(|it| it.detail.as_deref().unwrap_or(&it.title));
        printable(said.unwrap_or_default())
    };
    let is_cut = [(400, "body_broken"), (408, "body_timed_out")].contains(&(status, code.as_str()));
    match (status, code.as_str()) {
        (507, _) => Trouble::Final(UploadError::StoreFull { message: message() }),
        (429 | 500.., _) => Trouble::Passing { cause: UploadError::Unavailable { status, code }, wait },
        _ if is_cut => Trouble::Passing { cause: UploadError::Unavailable { status, code }, wait },
        (_, "attempt_not_current") => Trouble::Final(UploadError::AttemptRefused),
        (_, "artifact_not_found" | "upload_dropped") => Trouble::Final(UploadError::Gone),
        (_, "artifact_hash_mismatch" | "body_hash_mismatch") => Trouble::Final(UploadError::Damaged),
        _ if problem.is_none() || code == "not_found" => {
            Trouble::Final(UploadError::NotAControlPlane { status })
        }
        _ => Trouble::Final(UploadError::Refused { status, code, message: message() }),
    }
}

/// A document of the control plane's.
pub(super) fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, UploadError> {
    serde_json::from_slice(answer).map_err(|_| UploadError::NotAControlPlane { status: 200 })
}

/// What came over the network is shown without control characters and not at any length.
fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
}
