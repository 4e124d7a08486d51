//! Enrollment: a one-time token for a registered key, and back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use sortie_protocol::identity::{
    EnrollRequest, EnrollResponse, UnenrollRequest, enroll_payload, unenroll_payload,
};
use sortie_protocol::message::Challenge;

use crate::admission::{Refusal, check_description, check_origin};
use crate::api::App;
use crate::api::body::Lenient;
use crate::api::problem::ApiError;
use crate::engine::wall_clock;
use crate::identity::{canonical_origin, is_signed_by, new_id, new_nonce, public_key, sha256};
use crate::store::{EnrollError, NewAgent};

/// The longest base URL, in bytes.
const MAX_ORIGIN_BYTES: usize = 2048;

/// Challenges that wait for their answer, in memory: one that is lost costs one more request.
#[derive(Debug)]
pub struct Challenges {
    open: Mutex<HashMap<String, (String, Instant)>>,
    lifetime: Duration,
    limit: usize,
}

impl Challenges {
    /// None yet, and never more than `limit`.
    pub fn new(lifetime: Duration, limit: usize) -> Self {
        Self { open: Mutex::default(), lifetime, limit }
    }

    /// Keeps a challenge; `false` where there are too many.
    fn keep(&self, challenge: &Challenge) -> bool {
        let now = Instant::now();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= self.limit {
            open.retain(|_, (_, until)| *until > now);
        }
        if open.len() >= self.limit {
            return false;
        }
        open.insert(challenge.session.clone(), (challenge.nonce.clone(), now + self.lifetime));
        true
    }

    /// The nonce of a session, once.
    fn take(&self, session: &str) -> Option<String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (nonce, until) = open.remove(session)?;
        (until > Instant::now()).then_some(nonce)
    }
}

/// `POST /agent/v1/enroll`.
///
/// # Errors
/// 401 and 403 for the token and the proof, 409 for a name that is taken, 422 for a field out of form.
pub async fn enroll(
    State(app): State<Arc<App>>,
    Lenient(request): Lenient<EnrollRequest>,
) -> Result<(StatusCode, Json<EnrollResponse>), ApiError> {
    let key = public_key(&request.public_key)
        .ok_or_else(|| invalid("public_key", "is an Ed25519 key: 32 bytes in base64"))?;
    let payload = enroll_payload(&request.origin, &request.token, &request.public_key);
    if !is_signed_by(&key, &payload, &request.signature) {
        return Err(refused("signature_invalid", "The signature is not one of the public key's"));
    }
    let origin = canonical_origin(&request.origin);
    check_enrolled_origin(&app, &origin)?;
    check_description(&request.name, &request.tags, [&request.version, &request.os, &request.arch])
        .map_err(malformed)?;
    let agent = NewAgent {
        id: new_id("agent")?,
        token_hash: sha256(request.token.as_bytes()),
        public_key: key,
        origin,
        name: request.name,
        tags: request.tags,
        version: request.version,
        os: request.os,
        arch: request.arch,
    };
    let record = app.store.enroll(wall_clock(), &agent).await.map_err(not_enrolled)?;
    tracing::info!(agent.id = %record.id, agent.name = %record.name, "an agent enrolled");
    Ok((StatusCode::CREATED, Json(EnrollResponse { agent_id: record.id, tags: record.token_tags })))
}

/// Where the operator said by which URLs this control plane is reached, agents enroll by one of them.
fn check_enrolled_origin(app: &App, origin: &str) -> Result<(), ApiError> {
    let is_url = origin.starts_with("https://") || origin.starts_with("http://");
    let is_clean = origin.len() <= MAX_ORIGIN_BYTES && !origin.chars().any(|c| c.is_control() || c == ' ');
    if !is_url || !is_clean {
        return Err(invalid("origin", "is the base URL of this control plane as the agent dialed it"));
    }
    if app.public_urls.is_empty() || app.public_urls.iter().any(|url| url == origin) {
        return Ok(());
    }
    let detail = format!("dial one of: {}", app.public_urls.join(", "));
    Err(refused("origin_not_public", "The agent dialed a URL that is not this control plane's")
        .detail(detail))
}

/// `POST /agent/v1/challenge`.
///
/// # Errors
/// 503 while too many challenges are open.
pub async fn challenge(State(app): State<Arc<App>>) -> Result<Json<Challenge>, ApiError> {
    let challenge = Challenge { session: new_id("session")?, nonce: new_nonce()? };
    if !app.challenges.keep(&challenge) {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many challenges are open")
            .retry_after(app.times.challenge.as_secs()));
    }
    Ok(Json(challenge))
}

/// `POST /agent/v1/unenroll`.
///
/// # Errors
/// 403 for a challenge that is over and for a wrong proof, 404 for an agent that is not registered.
pub async fn unenroll(
    State(app): State<Arc<App>>,
    Lenient(request): Lenient<UnenrollRequest>,
) -> Result<StatusCode, ApiError> {
    let nonce = app
        .challenges
        .take(&request.session)
        .ok_or_else(|| refused("challenge_expired", "The challenge is unknown, used or too old"))?;
    let agent = app.store.agent(&request.agent_id).await?;
    let agent = agent.ok_or_else(|| {
        ApiError::new(StatusCode::NOT_FOUND, "agent_not_found", "No such agent is registered")
    })?;
    check_origin(&app.public_urls, &agent, &request.origin).map_err(malformed)?;
    let payload = unenroll_payload(&request.origin, &request.session, &nonce, &request.agent_id);
    if !is_signed_by(&agent.public_key, &payload, &request.signature) {
        return Err(refused("signature_invalid", "The signature is not one of the registered key's"));
    }
    app.engine.revoke(agent.id.clone(), "the agent gave its registration back".to_owned()).await?;
    tracing::info!(agent.id = %agent.id, agent.name = %agent.name, "an agent gave its registration back");
    Ok(StatusCode::NO_CONTENT)
}

fn refused(code: &'static str, title: &'static str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, code, title)
}

fn invalid(field: &str, problem: &str) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", "A field is out of form")
        .detail(format!("`{field}` {problem}"))
}

fn malformed(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::Origin { .. } => {
            refused("origin_mismatch", "The agent dialed another URL than at enrollment")
                .detail(refusal.to_string())
        }
        Refusal::Malformed { field, problem } => invalid(field, &problem),
        other => refused("identity_refused", "The agent is not let in").detail(other.to_string()),
    }
}

fn not_enrolled(error: EnrollError) -> ApiError {
    let make = "make a new one with POST /api/v1/enrollment-tokens";
    match error {
        EnrollError::TokenUnknown => {
            ApiError::new(StatusCode::UNAUTHORIZED, "token_unknown", "The enrollment token is not known here")
                .detail(format!("see that the token is whole and of this control plane, or {make}"))
        }
        EnrollError::TokenExpired => {
            refused("token_expired", "The enrollment token has expired").detail(make.to_owned())
        }
        EnrollError::TokenUsed => {
            refused("token_used", "The enrollment token has been used").detail(make.to_owned())
        }
        EnrollError::NameTaken => {
            ApiError::new(StatusCode::CONFLICT, "name_taken", "Another agent has this name")
                .detail("give this agent a name of its own, or delete the other one".to_owned())
        }
        EnrollError::Store(error) => error.into(),
    }
}
