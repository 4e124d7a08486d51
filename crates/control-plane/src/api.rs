//! The HTTP side: routes, and what every request shares.
//!
//! `/api/v1` is for clients with API tokens, `/agent/v1` for agents, and `/healthz` and `/readyz` for
//! whoever runs the process. Every error is a problem document.

mod agents;
mod artifacts;
pub mod auth;
pub mod body;
mod events;
mod health;
pub mod openapi;
pub mod problem;
mod range;
mod tasks;
mod tokens;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use futures_util::FutureExt;
use sortie_protocol::polling::MAX_POLL_BYTES;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::artifacts::{Artifacts, receive};
use crate::engine::EngineHandle;
use crate::enroll::{self, Challenges};
use crate::polling::{self, Polls};
use crate::server::Gate;
use crate::settings::{Limits, Times};
use crate::store::{Millis, Store};
use crate::websocket;
use problem::ApiError;

/// What every request shares. Nothing in it changes but through its own parts.
#[derive(Debug)]
pub struct App {
    /// Where everything is kept.
    pub store: Store,
    /// Where everything is decided.
    pub engine: EngineHandle,
    /// What agents deliver.
    pub artifacts: Artifacts,
    /// Durations.
    pub times: Times,
    /// Limits.
    pub limits: Limits,
    /// The base URLs of this control plane in canonical form, where the operator gave any.
    pub public_urls: Vec<String>,
    /// `http` or `https`, as clients see it.
    pub scheme: &'static str,
    /// Challenges outside of sessions.
    pub challenges: Challenges,
    /// The gate before sessions.
    pub gate: Gate,
    /// Sessions that are polled.
    pub polls: Polls,
    /// Places for lists of tasks that are being read.
    pub lists: Semaphore,
    /// The sessions that run.
    pub sessions: TaskTracker,
    /// Cancelled when the server is to stop.
    pub stop: CancellationToken,
}

/// A time as it is shown: RFC 3339 in UTC.
pub(crate) fn rfc3339(millis: Millis) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// A router that remembers what was put into it, so that a test can hold the OpenAPI document to it.
#[derive(Default)]
struct Routes {
    router: Router<Arc<App>>,
    seen: Vec<(Method, &'static str)>,
}

impl Routes {
    fn add<H, T>(mut self, method: Method, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<App>>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        self.router = self.router.route(path, on(filter, handler));
        self.seen.push((method, path));
        self
    }

    fn get<H: Handler<T, Arc<App>>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add(Method::GET, path, handler)
    }

    fn post<H: Handler<T, Arc<App>>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add(Method::POST, path, handler)
    }
}

/// The routes of `sortie_protocol::artifact`, whose functions make the same addresses for one upload.
const UPLOAD_ROUTE: &str = "/agent/v1/artifacts/{id}";
const PART_ROUTE: &str = "/agent/v1/artifacts/{id}/parts/{number}";
const COMPLETE_ROUTE: &str = "/agent/v1/artifacts/{id}/complete";

/// The routes of `sortie_protocol::polling`, in the same way.
const POLL_ROUTE: &str = "/agent/v1/poll/{id}";
const POLL_SEND_ROUTE: &str = "/agent/v1/poll/{id}/send";
const POLL_RECEIVE_ROUTE: &str = "/agent/v1/poll/{id}/receive";

fn routes() -> Routes {
    Routes::default()
        .get("/healthz", health::healthz)
        .get("/readyz", health::readyz)
        .get("/api/v1/openapi.json", openapi::serve)
        .post("/api/v1/enrollment-tokens", tokens::create)
        .get("/api/v1/agents", agents::list)
        .get("/api/v1/agents/{id}", agents::one)
        .add(Method::DELETE, "/api/v1/agents/{id}", agents::delete)
        .post("/api/v1/agents/{id}/pause", agents::pause)
        .post("/api/v1/agents/{id}/resume", agents::resume)
        .post("/api/v1/agents/{id}/drain", agents::drain)
        .post("/api/v1/tasks", tasks::post)
        .get("/api/v1/tasks", tasks::list)
        .get("/api/v1/tasks/{id}", tasks::one)
        .post("/api/v1/tasks/{id}/cancel", tasks::cancel)
        .get("/api/v1/tasks/{id}/explain", tasks::explain)
        .get("/api/v1/tasks/{id}/events", events::stream)
        .get("/api/v1/artifacts", artifacts::list)
        .get("/api/v1/artifacts/{id}", artifacts::one)
        .add(Method::DELETE, "/api/v1/artifacts/{id}", artifacts::delete)
        .get("/api/v1/artifacts/{id}/content", artifacts::content)
        .post(sortie_protocol::ARTIFACTS_PATH, receive::begin)
        .get(UPLOAD_ROUTE, receive::show)
        .add(Method::DELETE, UPLOAD_ROUTE, receive::give_up)
        .add(Method::PUT, PART_ROUTE, receive::part)
        .post(COMPLETE_ROUTE, receive::complete)
        .get(sortie_protocol::WEBSOCKET_PATH, websocket::upgrade)
        .post(sortie_protocol::POLL_PATH, polling::open)
        // A message of the largest size fits, with what is around it.
        .post(POLL_SEND_ROUTE, polling::send.layer(DefaultBodyLimit::max(MAX_POLL_BYTES)))
        .post(POLL_RECEIVE_ROUTE, polling::receive)
        .add(Method::DELETE, POLL_ROUTE, polling::close)
        .post(sortie_protocol::ENROLL_PATH, enroll::enroll)
        .post(sortie_protocol::CHALLENGE_PATH, enroll::challenge)
        .post(sortie_protocol::UNENROLL_PATH, enroll::unenroll)
}

/// The router of the whole server.
pub fn router(app: Arc<App>) -> Router {
    let body_bytes = app.limits.body_bytes;
    routes()
        .router
        .fallback(|| async {
            ApiError::new(StatusCode::NOT_FOUND, "not_found", "There is nothing at this address")
                .detail("the routes are listed at /api/v1/openapi.json".to_owned())
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "The address has no such method",
            )
        })
        .layer(DefaultBodyLimit::max(body_bytes))
        .layer(from_fn(caught))
        .with_state(app)
}

/// A panic in a handler is a 500 without detail, and no other request's concern.
async fn caught(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(http.method = %method, http.path = ?path, "a handler panicked");
            ApiError::internal().into_response()
        }
    }
}
