//! Long polling: a session over plain requests, where something in between lets no WebSocket pass.
//!
//! Two requests are on their way at a time: one that brings what is to be sent, and one that waits for messages.
//! Messages have numbers, and what was not answered is asked again with the same ones, so that a request or an answer
//! that was cut off loses nothing and doubles nothing.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::json;
use sortie_protocol::frame::MAX_MESSAGE_BYTES;
use sortie_protocol::polling::{
    LONGEST_POLL_MS, MAX_POLL_BYTES, MAX_POLL_MESSAGES, PollBatch, PollOpened, PollSent, poll_path,
    poll_receive_path, poll_send_path,
};
use sortie_protocol::{AgentMessage, POLL_PATH, decode, encode};
use tokio::time::Instant;

use super::choice::Kind;
use super::line::{CLOSE_TIMEOUT, Incoming, LineError, OPEN_TIMEOUT, WRITE_TIMEOUT};
use super::transport::Transport;
use crate::backoff;
use crate::dial::{Destination, Door, HttpClient, read_limited};
use crate::remote_url::RemoteUrl;

/// How long an answer to what was sent may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How much longer than the control plane may wait, an answer with messages may take.
const RECEIVE_TIMEOUT: Duration = Duration::from_millis(LONGEST_POLL_MS + 10_000);

/// The waits after which a request is repeated that brought no answer, at the most. Then the line counts as cut.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(4)];

/// An answer that brings nothing within this time is early, and the next request waits for a moment: whoever answers so
/// must not make this agent ask without a pause.
const EARLY: Duration = Duration::from_secs(1);
const EARLY_PAUSE: Duration = Duration::from_millis(100);

/// How much that came may wait to be taken before more is asked for. One answer may go over it.
const MAX_INCOMING: usize = 2 * MAX_POLL_MESSAGES;

/// How many messages may wait to be sent, and their bytes.
const MAX_WAITING_MESSAGES: usize = 256;
const MAX_WAITING_BYTES: usize = 4 * MAX_MESSAGE_BYTES;

/// How many messages may wait before progress is left out. It may be dropped at any time.
const PROGRESS_WAITING_MESSAGES: usize = 16;

type Call<T> = Pin<Box<dyn Future<Output = Result<T, LineError>> + Send>>;

/// An open line.
pub struct LongPoll {
    way: Arc<Way>,
    /// What waits to be sent, encoded, with their bytes together. What is on its way stands first, until it is known
    /// to have arrived.
    waiting: VecDeque<String>,
    waiting_bytes: usize,
    /// The number of the last message that arrived there.
    sent: u64,
    sending: Option<Call<PollSent>>,
    /// How many messages are on their way.
    on_the_way: usize,
    is_ping_due: bool,
    /// The number of the last message that arrived here.
    received: u64,
    receiving: Option<Call<PollBatch>>,
    /// When that was asked for.
    receiving_since: Instant,
    /// How long to wait before the next request of each kind, where the one before was answered early with nothing.
    receive_pause: Duration,
    send_pause: Duration,
    incoming: VecDeque<Incoming>,
    /// Nothing is taken there any more, and what was said last may still come.
    is_mute: bool,
    is_over: bool,
}

/// Where the requests of one poll session go.
struct Way {
    client: HttpClient,
    base: String,
    poll: String,
    authorization: HeaderValue,
}

impl LongPoll {
    /// Opens a poll session of the control plane at `base`.
    ///
    /// # Errors
    /// See [`LineError`].
    pub async fn open(door: &Door, destination: &Destination, base: &RemoteUrl) -> Result<Self, LineError> {
        let client = door.client(destination).await?;
        let request = client.request(Method::POST, &format!("{}{POLL_PATH}", base.path()));
        let response = client.send(request.timeout(OPEN_TIMEOUT)).await?;
        if response.status().as_u16() != 201 {
            return Err(LineError::of_answer(response.status().as_u16(), response.headers()));
        }
        let answer = read_limited(response, MAX_POLL_BYTES).await?;
        let PollOpened { poll, token, received } =
            serde_json::from_slice(&answer).map_err(|_| LineError::Broken)?;
        let is_id = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        if poll.is_empty() || !poll.chars().all(is_id) {
            return Err(LineError::Broken);
        }
        let mut authorization =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| LineError::Broken)?;
        authorization.set_sensitive(true);
        let way = Way { client, base: base.path().to_owned(), poll, authorization };
        let mut line = Self {
            way: Arc::new(way),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            sent: 0,
            sending: None,
            on_the_way: 0,
            is_ping_due: false,
            received: 0,
            receiving: None,
            receiving_since: Instant::now(),
            receive_pause: Duration::ZERO,
            send_pause: Duration::ZERO,
            incoming: VecDeque::new(),
            is_mute: false,
            is_over: false,
        };
        line.take(received);
        Ok(line)
    }

    /// Waits for what comes next. Dropping the future loses nothing.
    pub async fn receive(&mut self) -> Incoming {
        loop {
            if let Some(incoming) = self.incoming.pop_front() {
                return incoming;
            }
            if self.is_over {
                return Incoming::Closed;
            }
            self.go_on().await;
        }
    }

    /// Takes a message that is to be sent; waits only where too much waits already.
    ///
    /// # Errors
    /// Where the line is gone or takes nothing any more.
    pub async fn send(&mut self, message: &AgentMessage) -> Result<(), LineError> {
        let is_progress = matches!(message, AgentMessage::Progress(_));
        if is_progress && self.waiting.len() >= PROGRESS_WAITING_MESSAGES {
            return Ok(());
        }
        let text = match encode(message) {
            Ok(text) => text,
            // The line is not to blame, and another one would not help.
            Err(error) => {
                tracing::error!(%error, "a message was not sent");
                return Ok(());
            }
        };
        let has_room = async {
            while self.waiting.len() >= MAX_WAITING_MESSAGES
                || (self.waiting_bytes > 0 && self.waiting_bytes + text.len() > MAX_WAITING_BYTES)
            {
                if self.is_over || self.is_mute {
                    return Err(LineError::Broken);
                }
                self.go_on().await;
            }
            Ok(())
        };
        tokio::time::timeout(WRITE_TIMEOUT, has_room).await.map_err(|_| LineError::TimedOut)??;
        self.waiting_bytes += text.len();
        self.waiting.push_back(text);
        Ok(())
    }

    /// Asks for a sign of life: a request without messages, where none is on its way.
    ///
    /// # Errors
    /// Where the line is gone.
    pub fn ping(&mut self) -> Result<(), LineError> {
        self.is_ping_due = true;
        if self.is_over { Err(LineError::Broken) } else { Ok(()) }
    }

    /// Sends what waits and says goodbye, without waiting long.
    pub async fn close(mut self) {
        let goodbye = async {
            self.receiving = None;
            self.is_ping_due = false;
            while !self.waiting.is_empty() && !self.is_over && !self.is_mute {
                self.begin_sending();
                let Some(sending) = &mut self.sending else { break };
                let sent = sending.await;
                self.arrived(sent);
            }
            let request = self.way.request(Method::DELETE, &poll_path(&self.way.poll));
            let _ = self.way.client.send(request).await;
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }

    /// Sees to it that both requests are on their way, and waits until one is answered.
    async fn go_on(&mut self) {
        self.begin_sending();
        if self.receiving.is_none() && self.incoming.len() < MAX_INCOMING {
            self.receiving_since = Instant::now();
            let pause = self.receive_pause;
            let body = json!({ "received": self.received }).to_string();
            let path = poll_receive_path(&self.way.poll);
            self.receiving = Some(Box::pin(ask(Arc::clone(&self.way), path, body, RECEIVE_TIMEOUT, pause)));
        }
        tokio::select! {
            sent = answered(&mut self.sending) => self.arrived(sent),
            received = answered(&mut self.receiving) => {
                self.receiving = None;
                match received {
                    Ok(batch) => self.take(batch),
                    Err(error) => self.end(&error),
                }
            }
        }
    }

    fn begin_sending(&mut self) {
        if self.is_mute || self.sending.is_some() || (self.waiting.is_empty() && !self.is_ping_due) {
            return;
        }
        self.is_ping_due = false;
        let mut bytes = 0;
        let fitting = self.waiting.iter().take(MAX_POLL_MESSAGES).take_while(|text| {
            bytes += text.len();
            bytes <= MAX_MESSAGE_BYTES || bytes == text.len()
        });
        let messages: Vec<&str> = fitting.map(String::as_str).collect();
        self.on_the_way = messages.len();
        // They are JSON as they stand.
        let body = format!("{{\"first\":{},\"messages\":[{}]}}", self.sent + 1, messages.join(","));
        let path = poll_send_path(&self.way.poll);
        let pause = self.send_pause;
        self.sending = Some(Box::pin(ask(Arc::clone(&self.way), path, body, SEND_TIMEOUT, pause)));
    }

    /// Takes note of what became of messages that were on their way.
    fn arrived(&mut self, sent: Result<PollSent, LineError>) {
        self.sending = None;
        let received = match sent {
            Ok(PollSent { received }) => received,
            Err(LineError::Status(GONE)) => {
                self.is_mute = true;
                return;
            }
            Err(error) => return self.end(&error),
        };
        let count = received.checked_sub(self.sent).and_then(|count| usize::try_from(count).ok());
        let Some(count) = count.filter(|count| *count <= self.on_the_way) else {
            return self.end(&LineError::Broken);
        };
        self.send_pause = if count < self.on_the_way { EARLY_PAUSE } else { Duration::ZERO };
        self.waiting_bytes -= self.waiting.drain(..count).map(|text| text.len()).sum::<usize>();
        self.sent = received;
        self.incoming.push_back(Incoming::Alive);
    }

    fn take(&mut self, batch: PollBatch) {
        if batch.messages.len() > MAX_POLL_MESSAGES {
            return self.end(&LineError::Broken);
        }
        let is_early = batch.messages.is_empty() && self.receiving_since.elapsed() < EARLY;
        self.receive_pause = if is_early { EARLY_PAUSE } else { Duration::ZERO };
        let next = self.received + 1;
        let Some(known) = next.checked_sub(batch.first) else {
            return self.end(&LineError::Broken);
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        self.incoming.push_back(Incoming::Alive);
        for message in batch.messages.iter().skip(known) {
            self.received += 1;
            self.incoming.push_back(match decode(&message.to_string()) {
                Ok(message) => Incoming::Message(Box::new(message)),
                Err(error) => Incoming::NotUnderstood(error),
            });
        }
        self.is_over |= batch.ended;
    }

    fn end(&mut self, error: &LineError) {
        tracing::debug!(%error, "the polled session is gone");
        self.is_over = true;
    }
}

impl Transport for LongPoll {
    fn receive(&mut self) -> BoxFuture<'_, Incoming> {
        Box::pin(Self::receive(self))
    }

    fn send<'a>(&'a mut self, message: &'a AgentMessage) -> BoxFuture<'a, Result<(), LineError>> {
        Box::pin(Self::send(self, message))
    }

    fn ping(&mut self) -> BoxFuture<'_, Result<(), LineError>> {
        Box::pin(std::future::ready(Self::ping(self)))
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(Self::close(*self))
    }

    fn kind(&self) -> Kind {
        Kind::LongPolling
    }
}

/// The status that says that the session has ended, and that its last messages can still be had.
const GONE: u16 = 410;

impl Way {
    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, &format!("{}{path}", self.base));
        request.header(AUTHORIZATION, self.authorization.clone())
    }

    async fn ask_once<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &str,
        limit: Duration,
    ) -> Result<T, LineError> {
        let request = self.request(Method::POST, path).header(CONTENT_TYPE, "application/json");
        let response = self.client.send(request.body(body.to_owned()).timeout(limit)).await?;
        if response.status().as_u16() != 200 {
            return Err(LineError::of_answer(response.status().as_u16(), response.headers()));
        }
        let answer = read_limited(response, MAX_POLL_BYTES).await?;
        serde_json::from_slice(&answer).map_err(|_| LineError::Broken)
    }
}

/// Asks until there is an answer, or for as long as there may be one.
async fn ask<T: DeserializeOwned>(
    way: Arc<Way>,
    path: String,
    body: String,
    limit: Duration,
    pause_before: Duration,
) -> Result<T, LineError> {
    tokio::time::sleep(pause_before).await;
    for pause in PAUSES {
        match way.ask_once(&path, &body, limit).await {
            Err(error) if is_passing(&error) => {
                tracing::debug!(%error, "a request of a polled session is repeated");
                let pause = pause.mul_f64(0.5 + backoff::random() / 2.0);
                tokio::time::sleep(pause.max(error.retry_after())).await;
            }
            answer => return answer,
        }
    }
    way.ask_once(&path, &body, limit).await
}

/// Whether the same request may be answered later. What the control plane itself says is its last word.
fn is_passing(error: &LineError) -> bool {
    match error {
        LineError::Dial(_) | LineError::TimedOut | LineError::Broken | LineError::Busy { .. } => true,
        LineError::Status(status) | LineError::Refused(status) => *status >= 500,
        LineError::Subprotocol => false,
    }
}

async fn answered<T>(call: &mut Option<Call<T>>) -> Result<T, LineError> {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}
