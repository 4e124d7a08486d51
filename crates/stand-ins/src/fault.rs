//! Misbehavior on demand, switched on and off while a server runs.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::watch;

use crate::site::respond;
use crate::world::Provider;

/// Size of the body of [`Fault::HugeBody`] in bytes.
const HUGE_BODY_BYTES: usize = 256 * 1024 * 1024;
/// Size of one piece of that body in bytes.
const HUGE_PIECE_BYTES: usize = 64 * 1024;
/// Time between two bytes of [`Fault::SlowBody`].
const SLOW_BODY_PAUSE: Duration = Duration::from_secs(1);
/// Time between two pieces of a pack under [`Fault::SlowPack`].
const SLOW_PACK_PAUSE: Duration = Duration::from_millis(100);

/// One way to misbehave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 429 in the server's own form.
    RateLimited {
        /// Seconds in `Retry-After`.
        retry_after: u64,
    },
    /// This status with an HTML page; a number that is no status becomes 500.
    ServerError(u16),
    /// A redirect.
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// The value of `Location`.
        location: String,
    },
    /// 200 with the type of JSON and a body that is not.
    InvalidJson,
    /// 200 with JSON of 256 MiB and no length given.
    HugeBody,
    /// 200 with JSON that trickles in, one byte a second.
    SlowBody,
    /// These words with this status and type.
    Words {
        /// The status; a number that is none becomes 500.
        status: u16,
        /// The type of the body.
        content_type: &'static str,
        /// The body.
        body: String,
    },
    /// 203 with the HTML of a sign-in page.
    SignInPage,
    /// The request is accepted and never answered.
    Stall,
    /// The connection is cut after so many bytes of an answer that carries a git pack or an LFS object.
    CutAfter {
        /// How many bytes are sent before.
        bytes: usize,
    },
    /// An answer that carries a git pack or an LFS object stops after so many bytes, and goes on when the fault is cleared.
    PauseAfter {
        /// How many bytes are sent before.
        bytes: usize,
    },
    /// An answer that carries a git pack or an LFS object comes at about this speed.
    SlowPack {
        /// Bytes a second.
        bytes_per_second: usize,
    },
    /// LFS objects come from their beginning, whatever part of one is asked for.
    RangeIgnored,
}

impl Fault {
    /// Whether it changes a git pack on its way instead of replacing an answer.
    fn shapes_packs(&self) -> bool {
        matches!(self, Self::CutAfter { .. } | Self::PauseAfter { .. } | Self::SlowPack { .. })
    }
}

struct Rule {
    path_part: String,
    fault: Fault,
}

/// The faults of one server.
pub(crate) struct Faults {
    rules: Mutex<Vec<Rule>>,
    cleared: watch::Sender<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { rules: Mutex::default(), cleared: watch::Sender::new(0) }
    }
}

impl Faults {
    /// Adds a fault for the requests whose path with query contains `path_part`.
    pub(crate) fn add(&self, path_part: &str, fault: Fault) {
        self.lock().push(Rule { path_part: path_part.to_owned(), fault });
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
        self.cleared.send_modify(|generation| *generation += 1);
    }

    /// The answer that replaces the real one, when a fault says so.
    pub(crate) async fn replace(&self, provider: Provider, path: &str) -> Option<Response> {
        let fault = self.find(path, false)?;
        Some(answer(fault, provider).await)
    }

    /// Passes a pack on, changed as a fault says.
    pub(crate) fn shape_pack<S>(&self, path: &str, pack: S) -> Body
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        match self.find(path, true) {
            Some(Fault::CutAfter { bytes }) => Body::from_stream(cut_after(pack, bytes)),
            Some(Fault::PauseAfter { bytes }) => {
                Body::from_stream(pause_after(pack, bytes, self.cleared.subscribe()))
            }
            Some(Fault::SlowPack { bytes_per_second }) => Body::from_stream(slow(pack, bytes_per_second)),
            _ => Body::from_stream(pack),
        }
    }

    /// Whether requests for a part of an LFS object are answered with all of it.
    pub(crate) fn ignores_ranges(&self, path: &str) -> bool {
        let rules = self.lock();
        rules.iter().any(|rule| rule.fault == Fault::RangeIgnored && path.contains(&rule.path_part))
    }

    fn find(&self, path: &str, for_packs: bool) -> Option<Fault> {
        self.lock()
            .iter()
            .filter(|rule| rule.fault != Fault::RangeIgnored)
            .find(|rule| rule.fault.shapes_packs() == for_packs && path.contains(&rule.path_part))
            .map(|rule| rule.fault.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(fault: Fault, provider: Provider) -> Response {
    match fault {
        Fault::RateLimited { retry_after } => rate_limited(provider, retry_after),
        Fault::ServerError(status) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            respond(status, "text/html", format!("<html><body><h1>{status}</h1></body></html>"))
        }
        Fault::Redirect { status, location } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND);
            let mut response = respond(status, "text/html", "<html><body>Moved</body></html>");
            if let Ok(value) = HeaderValue::from_str(&location) {
                response.headers_mut().insert(LOCATION, value);
            }
            response
        }
        Fault::Words { status, content_type, body } => respond(
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            content_type,
            body,
        ),
        Fault::InvalidJson => respond(StatusCode::OK, "application/json; charset=utf-8", "{\"value\": [1, 2"),
        Fault::HugeBody => streamed(huge()),
        Fault::SlowBody => streamed(trickle()),
        Fault::SignInPage => crate::azure_devops::sign_in_page(),
        // A pending future ends when the client goes away or the server stops: both drop it.
        Fault::Stall
        | Fault::CutAfter { .. }
        | Fault::PauseAfter { .. }
        | Fault::SlowPack { .. }
        | Fault::RangeIgnored => std::future::pending().await,
    }
}

fn rate_limited(provider: Provider, retry_after: u64) -> Response {
    let mut response = match provider {
        Provider::Gitlab => respond(StatusCode::TOO_MANY_REQUESTS, "text/plain", "Retry later\n"),
        Provider::AzureDevOps => respond(
            StatusCode::TOO_MANY_REQUESTS,
            "application/json; charset=utf-8",
            "{\"$id\":\"1\",\"message\":\"TF400733: The request has been canceled: Request was blocked due to \
             exceeding usage of resource 'Concurrency' in namespace 'User'.\",\
             \"typeKey\":\"RequestBlockedException\",\"errorCode\":0,\"eventId\":3000}",
        ),
    };
    let reset = time::OffsetDateTime::now_utc().unix_timestamp() + i64::try_from(retry_after).unwrap_or(0);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from(retry_after));
    let [limit, remaining, reset_name] = match provider {
        Provider::Gitlab => ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
        Provider::AzureDevOps => ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"],
    };
    headers.insert(limit, HeaderValue::from_static("200"));
    headers.insert(remaining, HeaderValue::from_static("0"));
    headers.insert(reset_name, HeaderValue::from(reset));
    response
}

fn streamed(body: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response {
    let mut response = Response::new(Body::from_stream(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    response
}

fn huge() -> impl Stream<Item = io::Result<Bytes>> + Send {
    let piece = Bytes::from("0,".repeat(HUGE_PIECE_BYTES / 2));
    stream::once(async { Ok(Bytes::from_static(b"{\"value\":[")) })
        .chain(stream::iter((0..HUGE_BODY_BYTES / HUGE_PIECE_BYTES).map(move |_| Ok(piece.clone()))))
        .chain(stream::once(async { Ok(Bytes::from_static(b"0]}")) }))
}

fn trickle() -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::once(async { Ok(Bytes::from_static(b"{")) }).chain(stream::unfold((), |()| async {
        tokio::time::sleep(SLOW_BODY_PAUSE).await;
        Some((Ok(Bytes::from_static(b" ")), ()))
    }))
}

/// What is left of a pack, and how much of it may still pass before something happens.
struct Shaped<T> {
    pack: std::pin::Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    left: usize,
    extra: T,
}

fn cut_after(
    pack: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    bytes: usize,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let state = Some(Shaped { pack: Box::pin(pack), left: bytes, extra: () });
    stream::unfold(state, |state| async {
        let mut state = state?;
        if state.left == 0 {
            // An error in a body makes the HTTP library cut the connection instead of ending the answer.
            return Some((Err(io::Error::from(io::ErrorKind::ConnectionAborted)), None));
        }
        let piece = match state.pack.next().await? {
            Ok(mut piece) => {
                piece.truncate(state.left);
                piece
            }
            Err(error) => return Some((Err(error), None)),
        };
        state.left -= piece.len();
        Some((Ok(piece), Some(state)))
    })
}

fn pause_after(
    pack: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    bytes: usize,
    cleared: watch::Receiver<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let state = Shaped { pack: Box::pin(pack), left: bytes, extra: (cleared, Bytes::new(), false) };
    stream::unfold(state, |mut state| async {
        let (cleared, held, released) = &mut state.extra;
        if *released {
            let piece = state.pack.next().await?;
            return Some((piece, state));
        }
        if state.left == 0 {
            // A sender that is gone means that the server stops; going on is right then, too.
            let _ = cleared.changed().await;
            *released = true;
            let piece = std::mem::take(held);
            return Some((Ok(piece), state));
        }
        match state.pack.next().await? {
            Ok(mut piece) => {
                if piece.len() > state.left {
                    *held = piece.split_off(state.left);
                }
                state.left -= piece.len();
                Some((Ok(piece), state))
            }
            Err(error) => Some((Err(error), state)),
        }
    })
}

fn slow(
    pack: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    bytes_per_second: usize,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let pauses_a_second = usize::try_from(1000 / SLOW_PACK_PAUSE.as_millis()).unwrap_or(1);
    let piece_bytes = (bytes_per_second / pauses_a_second).max(1);
    let state = Shaped { pack: Box::pin(pack), left: piece_bytes, extra: Bytes::new() };
    stream::unfold(state, |mut state| async {
        if state.extra.is_empty() {
            match state.pack.next().await? {
                Ok(piece) => state.extra = piece,
                Err(error) => return Some((Err(error), state)),
            }
        }
        let piece = state.extra.split_to(state.left.min(state.extra.len()));
        tokio::time::sleep(SLOW_PACK_PAUSE).await;
        Some((Ok(piece), state))
    })
}
