//! Long polling: the same messages over plain HTTPS requests, where something in between lets no WebSocket pass.
//!
//! A poll session is opened by a POST to [`crate::POLL_PATH`]. From then on each request carries its token as a
//! `Bearer` in `Authorization`, and messages are numbered from 1, each direction for itself. What was not
//! acknowledged is sent again, and what comes again is skipped, so that a request or an answer that was cut off
//! loses nothing and doubles nothing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::POLL_PATH;
use crate::frame::MAX_MESSAGE_BYTES;
use crate::message::{AgentMessage, ControlMessage};

/// The most messages that travel in one request or answer.
pub const MAX_POLL_MESSAGES: usize = 64;

/// The largest body of a request or an answer, in bytes: one message of the largest size and what is around it.
pub const MAX_POLL_BYTES: usize = MAX_MESSAGE_BYTES + 4096;

/// How long a control plane may let a request for messages wait, in milliseconds. Many proxies cut off what is
/// silent for half a minute.
pub const LONGEST_POLL_MS: u64 = 25_000;

/// The path of one poll session, below the base URL. DELETE ends the session.
pub fn poll_path(poll: &str) -> String {
    format!("{POLL_PATH}/{poll}")
}

/// The path to which the agent posts [`PollSend`].
pub fn poll_send_path(poll: &str) -> String {
    format!("{POLL_PATH}/{poll}/send")
}

/// The path to which the agent posts [`PollReceive`].
pub fn poll_receive_path(poll: &str) -> String {
    format!("{POLL_PATH}/{poll}/receive")
}

/// The answer to a POST without a body to [`crate::POLL_PATH`], with status 201.
///
/// `Debug` is not implemented: the token is a secret.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PollOpened {
    /// The poll session's identifier, for its paths. It is not the `session` of the challenge.
    pub poll: String,
    /// Proves that a request belongs to this poll session. It is of no use elsewhere.
    pub token: String,
    /// The first message: a `challenge`.
    pub received: PollBatch,
}

/// Messages of the agent. The answer is [`PollSent`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PollSend {
    /// The number of the first of the messages. Those that were received before are skipped.
    pub first: u64,
    /// The messages, in order. None of them is a sign of life.
    #[schemars(with = "Vec<AgentMessage>")]
    pub messages: Vec<Value>,
}

/// What became of [`PollSend`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PollSent {
    /// The number of the last message that was received. What follows it is to be sent again.
    pub received: u64,
}

/// Asks for messages of the control plane. The answer is [`PollBatch`], at once where there are messages, and else
/// as soon as there are, or without any after [`LONGEST_POLL_MS`] at the latest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PollReceive {
    /// The number of the last message that arrived; the control plane may forget it and those before it.
    pub received: u64,
}

/// Messages of the control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PollBatch {
    /// The number of the first of the messages.
    pub first: u64,
    /// The messages, in order.
    #[schemars(with = "Vec<ControlMessage>")]
    pub messages: Vec<Value>,
    /// Whether the session has ended and nothing follows.
    #[serde(default)]
    pub ended: bool,
}
