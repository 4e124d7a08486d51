//! One agent's session, over any stream of messages.
//!
//! The WebSocket is one transport for it, see [`crate::websocket`]. Nothing that one agent sends reaches
//! another one, and a session that ends, however it ends, leaves its attempts to their leases.

use futures_util::{Sink, SinkExt, Stream, StreamExt};
use sortie_protocol::message::{
    AgentMessage, Challenge, ControlMessage, Goaway, GoawayReason, ProtocolError,
};
use sortie_protocol::{FrameError, decode, encode};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Duration, Instant, interval_at, sleep_until, timeout};

use crate::admission::{Refusal, admit};
use crate::engine::{EngineHandle, Ledger, Outbound};
use crate::identity::{new_id, new_nonce};
use crate::settings::{Limits, Times};

/// How long a session that was told its end may take to close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many characters of an agent's own words go into the log.
const LOGGED_CHARS: usize = 64;

/// What comes out of a transport.
#[derive(Debug)]
pub enum Incoming {
    /// A frame of text.
    Text(String),
    /// A sign of life: a ping or a pong.
    Alive,
    /// A frame that is not text.
    NotText,
    /// The peer broke the transport's rules or limits; nothing more can be read.
    Broken(FrameError),
    /// The transport has ended.
    Closed,
}

/// What goes into a transport.
#[derive(Debug)]
pub enum Outgoing {
    /// A frame of text.
    Text(String),
    /// Asks for a sign of life.
    Ping,
    /// Ends the transport in order.
    Close,
}

/// What a session needs of the rest.
#[derive(Debug)]
pub struct SessionContext<L> {
    /// Where agents are looked up.
    pub store: L,
    /// Where messages go.
    pub engine: EngineHandle,
    /// The base URLs that agents may dial beside the one of their enrollment.
    pub public_urls: Vec<String>,
    /// Durations.
    pub times: Times,
    /// Limits.
    pub limits: Limits,
    /// The place among those who have not proved yet who they are; given up after the proof.
    pub handshake: OwnedSemaphorePermit,
}

/// Why a session ended, for the log.
#[derive(Debug, thiserror::Error)]
pub enum SessionEnd {
    /// The agent closed it or its connection broke.
    #[error("the connection ended")]
    Closed,
    /// Nothing came for too long.
    #[error("the agent was silent for too long")]
    Silent,
    /// A message could not be written in time.
    #[error("the agent does not read")]
    Stuck,
    /// No `hello` came in time.
    #[error("no hello came in time")]
    NoHello,
    /// The agent was not let in.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// The registration ended while the agent was connecting.
    #[error("the agent was revoked")]
    Revoked,
    /// The agent broke the protocol.
    #[error("the agent broke the protocol: {0}")]
    Violation(FrameError),
    /// A message to the agent does not fit the protocol.
    #[error("a message to the agent could not be sent: {0}")]
    Unsendable(FrameError),
    /// A newer session of the same agent took its place.
    #[error("superseded by a newer session of the same agent")]
    Superseded,
    /// The control plane ended it.
    #[error("told to go: {0}")]
    Told(String),
    /// The engine has stopped.
    #[error("the control plane stops")]
    Stopping,
}

/// Runs a session to its end.
pub async fn run<R, W, L>(reader: R, writer: W, context: SessionContext<L>) -> SessionEnd
where
    L: Ledger,
    R: Stream<Item = Incoming> + Unpin + Send,
    W: Sink<Outgoing> + Unpin + Send,
{
    let SessionContext { store, engine, public_urls, times, limits, handshake } = context;
    let mut peer = Peer { reader, writer, times, limits, errors: 0 };
    let (Ok(session), Ok(nonce)) = (new_id("session"), new_nonce()) else { return SessionEnd::Stopping };
    let challenge = Challenge { session: session.clone(), nonce };
    let hello = match peer.hello(&challenge).await {
        Ok(hello) => hello,
        Err(end) => return peer.end(end).await,
    };
    let connected = match admit(&store, &public_urls, &challenge, hello).await {
        Ok(connected) => connected,
        Err(refusal) => return peer.end(refusal.into()).await,
    };
    drop(handshake);
    tracing::info!(
        session.id = %session,
        agent.id = %connected.agent_id,
        agent.name = %connected.name,
        "an agent connected"
    );
    let (agent_id, name) = (connected.agent_id.clone(), connected.name.clone());
    let (outbound, messages) = mpsc::channel(peer.limits.outbound_messages);
    match engine.connect(connected, outbound).await {
        Ok(true) => {}
        Ok(false) => return peer.end(SessionEnd::Revoked).await,
        Err(_) => return peer.end(SessionEnd::Stopping).await,
    }
    let end = peer.talk(&session, &engine, messages).await;
    if matches!(end, SessionEnd::Superseded) {
        tracing::warn!(
            session.id = %session,
            agent.id = %agent_id,
            agent.name = %name,
            "a newer session of the same agent took this one's place; \
             if that is not the agent's own, revoke it: somebody may have its key"
        );
    }
    engine.disconnect(session).await;
    peer.end(end).await
}

/// The other side of the transport.
struct Peer<R, W> {
    reader: R,
    writer: W,
    times: Times,
    limits: Limits,
    /// Frames that were not understood.
    errors: u32,
}

impl<R, W> Peer<R, W>
where
    R: Stream<Item = Incoming> + Unpin + Send,
    W: Sink<Outgoing> + Unpin + Send,
{
    async fn hello(&mut self, challenge: &Challenge) -> Result<sortie_protocol::message::Hello, SessionEnd> {
        let deadline = Instant::now() + self.times.hello;
        self.send(&ControlMessage::Challenge(challenge.clone())).await?;
        loop {
            let incoming = tokio::time::timeout_at(deadline, self.reader.next()).await;
            let incoming = incoming.map_err(|_| SessionEnd::NoHello)?.unwrap_or(Incoming::Closed);
            match self.understand(incoming).await? {
                Some(AgentMessage::Hello(hello)) => return Ok(hello),
                Some(_) => self.complain(unexpected("a `hello` is due first")).await?,
                None => {}
            }
        }
    }

    /// The one loop of a session.
    async fn talk(
        &mut self,
        session: &str,
        engine: &EngineHandle,
        mut messages: mpsc::Receiver<Outbound>,
    ) -> SessionEnd {
        let mut ping = interval_at(Instant::now() + self.times.ping, self.times.ping);
        let mut heard = Instant::now();
        loop {
            // In this order, so that a run that is repeated with the same seed goes the same way.
            let step = tokio::select! {
                biased;
                _ = ping.tick() => self.write(Outgoing::Ping).await,
                outbound = messages.recv() => match outbound {
                    Some(Outbound::Message(message)) => self.send(&message).await,
                    Some(Outbound::Close(goaway)) => {
                        let (reason, message) = (goaway.reason, goaway.message.clone());
                        let _ = self.send(&ControlMessage::Goaway(goaway)).await;
                        Err(match reason {
                            GoawayReason::Superseded => SessionEnd::Superseded,
                            _ => SessionEnd::Told(message),
                        })
                    }
                    None => Err(SessionEnd::Stopping),
                },
                incoming = self.reader.next() => {
                    heard = Instant::now();
                    self.take(session, engine, incoming.unwrap_or(Incoming::Closed)).await
                }
                () = sleep_until(heard + self.times.dead_after) => Err(SessionEnd::Silent),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn take(
        &mut self,
        session: &str,
        engine: &EngineHandle,
        incoming: Incoming,
    ) -> Result<(), SessionEnd> {
        match self.understand(incoming).await? {
            None => Ok(()),
            Some(AgentMessage::Hello(_)) => self.complain(unexpected("this session is open already")).await,
            Some(AgentMessage::Error(error)) => {
                // The text is the agent's and may be of any length.
                let code: String = error.code.chars().take(LOGGED_CHARS).collect();
                tracing::warn!(session.id = %session, error.code = ?code, "a message was not understood");
                Ok(())
            }
            Some(message) => {
                engine.from_agent(session.to_owned(), message).await.map_err(|_| SessionEnd::Stopping)
            }
        }
    }

    /// Reads a frame; answers what is not understood and goes on, until it is too much.
    async fn understand(&mut self, incoming: Incoming) -> Result<Option<AgentMessage>, SessionEnd> {
        let error = match incoming {
            Incoming::Text(text) => match decode::<AgentMessage>(&text) {
                Ok(message) => return Ok(Some(message)),
                Err(error) => error,
            },
            Incoming::Alive => return Ok(None),
            Incoming::NotText => FrameError::NotAMessage,
            Incoming::Broken(error) => {
                let _ = self.send(&ControlMessage::Error((&error).into())).await;
                return Err(SessionEnd::Violation(error));
            }
            Incoming::Closed => return Err(SessionEnd::Closed),
        };
        self.complain((&error).into()).await?;
        Ok(None)
    }

    /// Answers what was not understood or not expected.
    async fn complain(&mut self, error: ProtocolError) -> Result<(), SessionEnd> {
        self.errors += 1;
        self.send(&ControlMessage::Error(error)).await?;
        if self.errors > self.limits.protocol_errors {
            return Err(SessionEnd::Violation(FrameError::NotAMessage));
        }
        Ok(())
    }

    async fn send(&mut self, message: &ControlMessage) -> Result<(), SessionEnd> {
        match encode(message) {
            Ok(text) => self.write(Outgoing::Text(text)).await,
            // A message over the limit is a bug on this side. Without it the two sides would disagree about
            // who owes what; the agent's next `hello` and its credit make them agree again.
            Err(error) => {
                tracing::error!(%error, "a message could not be sent; the session ends");
                Err(SessionEnd::Unsendable(error))
            }
        }
    }

    async fn write(&mut self, outgoing: Outgoing) -> Result<(), SessionEnd> {
        match timeout(self.times.write, self.writer.send(outgoing)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SessionEnd::Closed),
            Err(_) => Err(SessionEnd::Stuck),
        }
    }

    /// Says goodbye where there is something to say, and closes in order: a connection that is dropped with
    /// unread bytes could take the last message with it.
    async fn end(&mut self, end: SessionEnd) -> SessionEnd {
        if let Some(goaway) = goaway(&end) {
            let _ = self.send(&ControlMessage::Goaway(goaway)).await;
        }
        if !matches!(end, SessionEnd::Closed | SessionEnd::Stuck) && self.write(Outgoing::Close).await.is_ok()
        {
            let drained = async {
                while let Some(incoming) = self.reader.next().await {
                    if matches!(incoming, Incoming::Closed | Incoming::Broken(_)) {
                        break;
                    }
                }
            };
            let _ = timeout(CLOSE_TIMEOUT, drained).await;
        }
        end
    }
}

fn unexpected(message: &str) -> ProtocolError {
    ProtocolError { code: "unexpected_message".to_owned(), message: message.to_owned() }
}

/// The last message of a session; `None` where it was sent already or nobody listens.
fn goaway(end: &SessionEnd) -> Option<Goaway> {
    let (reason, message) = match end {
        SessionEnd::Refused(refusal) => return Some(refusal.goaway()),
        SessionEnd::Revoked => (GoawayReason::IdentityRefused, "the agent was revoked".to_owned()),
        SessionEnd::NoHello => (GoawayReason::ProtocolViolation, end.to_string()),
        SessionEnd::Violation(error) => (GoawayReason::ProtocolViolation, error.to_string()),
        SessionEnd::Unsendable(_) | SessionEnd::Stopping => (GoawayReason::Shutdown, end.to_string()),
        SessionEnd::Closed
        | SessionEnd::Silent
        | SessionEnd::Stuck
        | SessionEnd::Superseded
        | SessionEnd::Told(_) => return None,
    };
    Some(Goaway { reason, message, reconnect_after_ms: 0 })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_that_does_not_fit_ends_the_session() {
        let (sink, written) = keeping();
        let reader = futures_util::stream::iter([Incoming::Closed]);
        let (times, limits) = (Times::default(), Limits::default());
        let mut peer = Peer { reader, writer: sink, times, limits, errors: 0 };
        let message = "x".repeat(sortie_protocol::frame::MAX_MESSAGE_BYTES);
        let end = peer.send(&ControlMessage::Error(unexpected(&message))).await.unwrap_err();
        assert!(matches!(peer.end(end).await, SessionEnd::Unsendable(_)));
        let written = written.lock().unwrap();
        assert!(
            matches!(&written[..], [Outgoing::Text(goaway), Outgoing::Close] if goaway.contains("shutdown"))
        );
    }

    type Written = std::sync::Arc<std::sync::Mutex<Vec<Outgoing>>>;

    /// A transport that keeps what is written to it.
    fn keeping() -> (impl Sink<Outgoing, Error = SessionEnd> + Unpin + Send, Written) {
        let written = Written::default();
        let kept = Written::clone(&written);
        let sink = futures_util::sink::unfold(kept, |kept, outgoing| async {
            kept.lock().unwrap().push(outgoing);
            Ok(kept)
        });
        (Box::pin(sink), written)
    }
}
