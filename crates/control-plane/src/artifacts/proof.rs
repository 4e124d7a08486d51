//! Who uploads: the judgment on the proof that a request carries.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use sortie_protocol::AttemptId;
use sortie_protocol::artifact::{ArtifactProof, PROOF_HEADER};

use crate::admission::check_origin;
use crate::api::App;
use crate::api::problem::ApiError;
use crate::identity::{is_sha256_hex, is_signed_by};
use crate::store::Uploader;

/// The longest proof, in bytes.
const MAX_PROOF_BYTES: usize = 8 * 1024;

/// A request whose signature is right. Its body is still to be held to `body_sha256`.
#[derive(Debug)]
pub(crate) struct Proven {
    /// Who asks, for which attempt.
    pub(crate) uploader: Uploader,
    /// What the body must hash to.
    pub(crate) body_sha256: String,
}

impl FromRequestParts<Arc<App>> for Proven {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let header = parts.headers.get(PROOF_HEADER).map(|value| value.as_bytes());
        let header = header.filter(|bytes| bytes.len() <= MAX_PROOF_BYTES);
        let proof: ArtifactProof =
            header.and_then(|bytes| serde_json::from_slice(bytes).ok()).ok_or_else(|| {
                ApiError::new(StatusCode::BAD_REQUEST, "proof_missing", "The request carries no proof")
                    .detail(format!("`{PROOF_HEADER}` has an `artifact_proof` as JSON"))
            })?;
        if !is_sha256_hex(&proof.body_sha256) {
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "proof_missing", "The proof is out of form")
                .detail("`body_sha256` is 64 digits of lower-case hex".to_owned()));
        }
        let agent = app.store.agent(&proof.agent_id).await?.ok_or_else(ApiError::agent_not_found)?;
        check_origin(&app.public_urls, &agent, &proof.origin).map_err(|refusal| {
            ApiError::new(
                StatusCode::FORBIDDEN,
                "origin_mismatch",
                "The agent dialed another URL than at enrollment",
            )
            .detail(refusal.to_string())
        })?;
        let payload = proof.payload(parts.method.as_str(), parts.uri.path());
        if !is_signed_by(&agent.public_key, &payload, &proof.signature) {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "signature_invalid",
                "The signature is not one of the registered key's",
            ));
        }
        let attempt = AttemptId { task_id: proof.task_id, attempt: proof.attempt };
        Ok(Self { uploader: Uploader { agent_id: agent.id, attempt }, body_sha256: proof.body_sha256 })
    }
}
