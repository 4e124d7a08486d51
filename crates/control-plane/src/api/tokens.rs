//! Enrollment tokens.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sortie_protocol::selector::check_own_tags;

use super::App;
use super::auth::{Administering, Caller};
use super::body::Strict;
use super::problem::ApiError;
use super::rfc3339;
use crate::engine::wall_clock;
use crate::identity::{Token, sha256};
use crate::store::EnrollmentToken;

/// The longest life of an enrollment token, in seconds (30 days).
const MAX_TTL_SECONDS: u32 = 30 * 86_400;

/// The most agents that one enrollment token enrolls.
const MAX_USES: u32 = 10_000;

/// What an enrollment token is to be like.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default)]
pub(super) struct NewEnrollmentToken {
    /// Tags that its agents get beside those of their own configuration.
    tags: Vec<String>,
    /// How long it lasts, in seconds.
    ttl_seconds: u32,
    /// How many agents it enrolls.
    max_uses: u32,
}

impl Default for NewEnrollmentToken {
    fn default() -> Self {
        Self { tags: Vec::new(), ttl_seconds: 900, max_uses: 1 }
    }
}

/// A new enrollment token. `Debug` is not implemented: the token is a secret.
#[derive(Serialize, JsonSchema)]
pub(super) struct CreatedEnrollmentToken {
    /// The secret. It is shown here and never again.
    token: String,
    /// When it ends.
    expires_at: String,
}

pub(super) async fn create(
    _: Caller<Administering>,
    State(app): State<Arc<App>>,
    Strict(wanted): Strict<NewEnrollmentToken>,
) -> Result<(StatusCode, Json<CreatedEnrollmentToken>), ApiError> {
    check_own_tags(&wanted.tags).map_err(|error| invalid("tags", error.to_string()))?;
    for (field, value, limit) in
        [("ttl_seconds", wanted.ttl_seconds, MAX_TTL_SECONDS), ("max_uses", wanted.max_uses, MAX_USES)]
    {
        if !(1..=limit).contains(&value) {
            return Err(invalid(field, format!("is between 1 and {limit}")));
        }
    }
    let token = Token::generate("sortie_enroll_")?;
    let now = wall_clock();
    let expires_at = now + i64::from(wanted.ttl_seconds) * 1000;
    let kept = EnrollmentToken {
        hash: sha256(token.expose().as_bytes()),
        tags: wanted.tags,
        max_uses: wanted.max_uses,
        expires_at,
    };
    app.store.add_enrollment_token(now, &kept).await?;
    let created =
        CreatedEnrollmentToken { token: token.expose().to_owned(), expires_at: rfc3339(expires_at) };
    Ok((StatusCode::CREATED, Json(created)))
}

fn invalid(field: &str, problem: String) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", "A field is out of form")
        .detail(format!("`{field}` {problem}"))
}
