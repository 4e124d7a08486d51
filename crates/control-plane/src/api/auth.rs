//! Who calls, and what the caller may do.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};

use super::App;
use super::problem::ApiError;
use crate::identity::sha256;
use crate::store::Role;

/// The role that a route needs.
pub trait Needs {
    /// The least role.
    const ROLE: Role;
}

/// Reading.
#[derive(Debug)]
pub struct Viewing;
impl Needs for Viewing {
    const ROLE: Role = Role::Viewer;
}

/// Posting and cancelling tasks.
#[derive(Debug)]
pub struct Dispatching;
impl Needs for Dispatching {
    const ROLE: Role = Role::Dispatcher;
}

/// Enrollment tokens and agents.
#[derive(Debug)]
pub struct Administering;
impl Needs for Administering {
    const ROLE: Role = Role::Admin;
}

/// A caller whose token has the role that the route needs. It stands first among a handler's arguments, so
/// that nobody else's body is read.
#[derive(Debug)]
pub struct Caller<N> {
    /// The token's identifier.
    pub token_id: String,
    needs: PhantomData<N>,
}

impl<N: Needs> FromRequestParts<Arc<App>> for Caller<N> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let secret =
            parts.headers.get(AUTHORIZATION).and_then(bearer).ok_or_else(|| {
                unauthorized().detail("send a token as `Authorization: Bearer …`".to_owned())
            })?;
        let token = app.store.api_token(&sha256(secret.as_bytes())).await?;
        let token = token.ok_or_else(|| {
            let detail =
                "the token is not known here or was revoked; make one with `sortie-control token create`";
            unauthorized().detail(detail.to_owned())
        })?;
        if token.role < N::ROLE {
            let detail = format!("this needs a token with the role {:?}", N::ROLE).to_lowercase();
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "role_missing",
                "The token's role does not allow this",
            )
            .detail(detail));
        }
        Ok(Self { token_id: token.id, needs: PhantomData })
    }
}

/// The secret of an `Authorization` header.
pub(crate) fn bearer(header: &HeaderValue) -> Option<&str> {
    let (scheme, secret) = header.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(secret.trim())
}

fn unauthorized() -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is needed")
}
