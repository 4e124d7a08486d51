//! Long polling: the transport for [`crate::session`] where something in between lets no WebSocket pass.
//!
//! What an agent sends comes in by POSTs, each message with its number, so that one that is sent again is skipped.
//! What it is sent waits in a `Mailbox` until it is known to have arrived.

mod mailbox;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{FromRequest, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use futures_util::{sink, stream};
use sortie_protocol::polling::{MAX_POLL_MESSAGES, PollBatch, PollOpened, PollReceive, PollSend, PollSent};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::api::App;
use crate::api::auth::bearer;
use crate::api::body::{Id, Lenient};
use crate::api::problem::ApiError;
use crate::identity::{Token, new_id, sha256};
use crate::server::carry;
use crate::session::Incoming;
use crate::websocket::check_page;

use mailbox::Mailbox;

/// How long the last messages of a session that has ended can still be had.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long messages of an agent may wait until its session takes them; the agent sends the rest again.
const TAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Messages of an agent that wait for its session. Each may be large, and further ones wait in their requests.
const WAITING_MESSAGES: usize = 1;

/// The poll sessions.
#[derive(Debug)]
pub struct Polls {
    open: Mutex<HashMap<String, Arc<Poll>>>,
    limit: usize,
    /// Requests that wait for messages.
    waiting: AtomicUsize,
}

/// One of them.
#[derive(Debug)]
struct Poll {
    token_hash: Vec<u8>,
    upward: tokio::sync::Mutex<Upward>,
    signs: mpsc::Sender<Incoming>,
    mailbox: Mailbox,
    /// Cancelled when the agent says goodbye.
    gone: CancellationToken,
}

/// The way of an agent's messages.
#[derive(Debug)]
struct Upward {
    /// The number of the last one that was taken.
    received: u64,
    sender: mpsc::Sender<Incoming>,
}

/// What the session reads from.
struct Reader {
    poll: Arc<Poll>,
    messages: mpsc::Receiver<Incoming>,
    dead_after: Duration,
}

/// A request that waits for messages, counted.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Polls {
    /// None yet, and never more than `limit`.
    pub fn new(limit: usize) -> Self {
        Self { open: Mutex::default(), limit, waiting: AtomicUsize::new(0) }
    }

    /// How many requests wait for messages. They end with their sessions and not before.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    fn keep(&self, id: &str, poll: &Arc<Poll>) -> Result<(), ApiError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= self.limit {
            return Err(ApiError::busy());
        }
        open.insert(id.to_owned(), Arc::clone(poll));
        Ok(())
    }

    fn forget(&self, id: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// The poll session of a request that has its token. Without it nobody learns whether there is one.
    fn find(&self, id: &str, headers: &HeaderMap) -> Result<Arc<Poll>, ApiError> {
        let token = headers.get(AUTHORIZATION).and_then(bearer).unwrap_or_default();
        let hash = sha256(token.as_bytes());
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let poll = open.get(id).filter(|poll| poll.token_hash == hash).cloned();
        poll.ok_or_else(|| {
            ApiError::new(StatusCode::NOT_FOUND, "poll_not_found", "There is no such poll session")
                .detail("it has ended; open another one".to_owned())
        })
    }
}

/// `POST /agent/v1/poll`: opens a session.
///
/// # Errors
/// 403 for a page of another site, 503 while too many agents connect or poll.
pub async fn open(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<(StatusCode, Json<PollOpened>), ApiError> {
    check_page(&app, &headers)?;
    let handshake = app.gate.enter()?;
    let (id, token) = (new_id("poll")?, Token::generate("sortie_poll_")?);
    let (sender, messages) = mpsc::channel(WAITING_MESSAGES);
    let poll = Arc::new(Poll {
        token_hash: sha256(token.expose().as_bytes()),
        signs: sender.clone(),
        upward: tokio::sync::Mutex::new(Upward { received: 0, sender }),
        mailbox: Mailbox::new(app.limits.outbound_messages, app.limits.poll_bytes),
        gone: CancellationToken::new(),
    });
    app.polls.keep(&id, &poll)?;
    let reader = Reader { poll: Arc::clone(&poll), messages, dead_after: app.times.dead_after };
    // The tracker keeps the server waiting at a stop until the session has ended.
    app.sessions.spawn(serve(Arc::clone(&app), id.clone(), reader, handshake));
    let received = poll.mailbox.take(0, app.times.hello).await.map_err(|_| out_of_order())?;
    tracing::debug!(poll.id = %id, "a poll session is open");
    Ok((StatusCode::CREATED, Json(PollOpened { poll: id, token: token.expose().to_owned(), received })))
}

/// `POST /agent/v1/poll/{id}/send`: takes messages of an agent.
///
/// # Errors
/// 404 without the session, 409 where messages are missing in between, 410 after the session's end.
pub async fn send(
    State(app): State<Arc<App>>,
    Id(id): Id,
    request: Request,
) -> Result<Json<PollSent>, ApiError> {
    // Nobody else's body is read.
    let poll = app.polls.find(&id, request.headers())?;
    let Lenient(sent) = Lenient::<PollSend>::from_request(request, &app).await?;
    poll.take(sent).await.map(Json)
}

/// `POST /agent/v1/poll/{id}/receive`: waits for messages to an agent.
///
/// # Errors
/// 404 without the session, 409 where the agent acknowledges what it cannot have.
pub async fn receive(
    State(app): State<Arc<App>>,
    Id(id): Id,
    request: Request,
) -> Result<Json<PollBatch>, ApiError> {
    let poll = app.polls.find(&id, request.headers())?;
    let Lenient(PollReceive { received }) = Lenient::from_request(request, &app).await?;
    poll.sign_of_life();
    let _waiting = Waiting::new(&app.polls.waiting);
    poll.mailbox.take(received, app.times.poll_wait).await.map(Json).map_err(|_| out_of_order())
}

/// `DELETE /agent/v1/poll/{id}`: the agent says goodbye.
///
/// # Errors
/// 404 without the session.
pub async fn close(
    State(app): State<Arc<App>>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    app.polls.find(&id, &headers)?.gone.cancel();
    Ok(StatusCode::NO_CONTENT)
}

async fn serve(app: Arc<App>, id: String, reader: Reader, handshake: OwnedSemaphorePermit) {
    let poll = Arc::clone(&reader.poll);
    let incoming = stream::unfold(reader, |mut reader| async move { Some((reader.next().await, reader)) });
    let outgoing = sink::unfold(Arc::clone(&poll), |poll, outgoing| async move {
        poll.mailbox.put(outgoing).await.map(|()| poll)
    });
    carry(&app, Box::pin(incoming), Box::pin(outgoing), handshake).await;
    poll.mailbox.close();
    tokio::select! {
        _ = timeout(LAST_WORDS, poll.gone.cancelled()) => {}
        // Nobody can ask any more.
        () = app.stop.cancelled() => {}
    }
    app.polls.forget(&id);
}

impl Reader {
    async fn next(&mut self) -> Incoming {
        tokio::select! {
            // What came before the goodbye counts.
            biased;
            incoming = self.messages.recv() => incoming.unwrap_or(Incoming::Closed),
            () = self.poll.gone.cancelled() => Incoming::Closed,
            () = self.poll.mailbox.abandoned(self.dead_after) => Incoming::Closed,
        }
    }
}

impl Poll {
    fn sign_of_life(&self) {
        // Where it does not fit, a message waits, which is a sign as well.
        let _ = self.signs.try_send(Incoming::Alive);
    }

    /// Hands on the messages that are new, as many as the session takes in time.
    async fn take(&self, sent: PollSend) -> Result<PollSent, ApiError> {
        if sent.first == 0 || sent.messages.len() > MAX_POLL_MESSAGES {
            let detail = format!("`first` counts from 1, and `messages` has {MAX_POLL_MESSAGES} at the most");
            return Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_field",
                "A field is out of form",
            )
            .detail(detail));
        }
        // A request that is repeated waits here for the first one.
        let mut upward = self.upward.lock().await;
        let next = upward.received + 1;
        let known = next.checked_sub(sent.first).ok_or_else(out_of_order)?;
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        self.sign_of_life();
        let deadline = Instant::now() + TAKE_TIMEOUT;
        for message in sent.messages.into_iter().skip(known) {
            match timeout_at(deadline, upward.sender.reserve()).await {
                Ok(Ok(place)) => place.send(Incoming::Text(message.to_string())),
                Ok(Err(_)) => {
                    return Err(ApiError::new(StatusCode::GONE, "poll_ended", "The session has ended")
                        .detail("its last messages can still be received".to_owned()));
                }
                Err(_) => break,
            }
            upward.received += 1;
        }
        Ok(PollSent { received: upward.received })
    }
}

fn out_of_order() -> ApiError {
    ApiError::new(StatusCode::CONFLICT, "poll_out_of_order", "The numbers do not follow on each other")
        .detail("open another session: messages of this one are missing".to_owned())
}
