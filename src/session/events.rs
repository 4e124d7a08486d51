//! What a session is told, and what it wants done.

use std::time::Duration;

use sortie_protocol::message::{AttemptResult, GoawayReason, Offer, Progress, Reject};
use sortie_protocol::{AgentMessage, AttemptId, ControlMessage, FrameError};

/// What this agent tells of itself.
#[derive(Debug, Clone)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Its own tags.
    pub tags: Vec<String>,
    /// How many attempts it runs at once.
    pub max_tasks: u32,
}

/// What happens to a session.
#[derive(Debug)]
pub enum Event {
    /// There is a connection.
    Opened,
    /// The connection is gone.
    Closed,
    /// A message came.
    Received(Box<ControlMessage>),
    /// A frame came that is no message.
    NotUnderstood(FrameError),
    /// Anything at all came, a pong for example: the peer lives.
    Heard,
    /// The runner takes an offer that was considered, and the journal has it.
    Admitted(AttemptId, Effects),
    /// The runner does not take it.
    Refused(Box<Reject>),
    /// An attempt tells where it is.
    Progressed(Progress),
    /// An attempt has ended.
    Finished(Box<AttemptResult>),
    /// The result is kept, so that it may be sent.
    Recorded(AttemptId),
    /// Whether the journal can be written; while it cannot, nothing new is taken.
    Journal {
        /// Whether it can.
        works: bool,
    },
    /// The operator wants no new work done until further notice, or wants it again.
    Hold(bool),
    /// The operator wants no new work done any more.
    Drain,
    /// Time has passed.
    Tick,
}

/// What is to be done, in this order.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Send a message.
    Send(Box<AgentMessage>),
    /// Send a WebSocket ping, or what does its work on another transport.
    Ping,
    /// Ask the runner about an offer, and answer with [`Event::Admitted`] or [`Event::Refused`].
    Consider(Box<Offer>),
    /// Run the attempt that was admitted.
    Run(AttemptId),
    /// Stop an attempt. Its end is still told by [`Event::Finished`], unless it was lost before it ran.
    Stop(AttemptId, StopReason),
    /// Keep a result, and answer with [`Event::Recorded`].
    Record(Box<AttemptResult>),
    /// Send the result that is kept for this attempt.
    SendResult(AttemptId),
    /// Drop what is kept for these attempts.
    Forget(Vec<AttemptId>),
    /// Remove what the attempt has left on this host: its result does not count.
    Discard(AttemptId),
    /// Close the connection.
    Close(CloseReason),
}

/// Whether a task changes anything that outlives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effects {
    /// It only looks: that two agents do it at once harms nobody.
    None,
    /// It writes. It begins only once the control plane has said that the attempt is still this agent's.
    Some,
}

/// Why an attempt is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The control plane cancelled it. A result is due.
    Cancelled,
    /// It is not ours any more, or its lease ends. No result would be taken.
    Lost,
}

/// Why a connection is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The peer was silent for too long, or did not get to `welcome` in time.
    #[error("the control plane was silent")]
    Silence,
    /// The control plane does not take this identity: its words.
    #[error("the control plane refuses this agent's identity: {0}")]
    IdentityRefused(String),
    /// The control plane ends the session; come back after so long.
    #[error("{}", match .0 {
        GoawayReason::Superseded => "another agent with this identity connected",
        _ => "the control plane ended the session",
    })]
    Goaway(GoawayReason, Duration),
    /// The peer does not keep to the protocol.
    #[error("the control plane does not keep to the protocol")]
    Protocol,
}
