//! The messages between a Sortie agent and its control plane.
//!
//! Frames are JSON text over a WebSocket with the subprotocol [`SUBPROTOCOL`]; enrollment is plain HTTPS.
//! This crate holds the types, their limits and their JSON Schema, and does no I/O, so that anyone can
//! write either side against it. `docs/protocol.md` tells the story in order; the schema is checked in
//! beside this crate as `schema/sortie.v1.json`.
//!
//! Reading order: [`message`] (what travels), [`frame`] (how it is encoded, and what is refused),
//! [`task`] and [`selector`] (what is asked), [`report`] (what is answered), [`artifact`] (what is too
//! large for a message), [`identity`] (who asks), [`polling`] (what carries messages where no WebSocket can).
#![deny(missing_docs)]

pub mod artifact;
pub mod frame;
pub mod identity;
pub mod message;
pub mod polling;
pub mod report;
pub mod schema;
pub mod selector;
pub mod task;

pub use frame::{FrameError, decode, encode};
pub use message::{AgentMessage, AttemptId, ControlMessage};

/// The WebSocket subprotocol of this version. A peer that offers several takes the highest it shares.
pub const SUBPROTOCOL: &str = "sortie.v1";

/// The path of the agents' WebSocket, below the base URL of the control plane.
pub const WEBSOCKET_PATH: &str = "/agent/v1";

/// The path where an enrollment token is traded for a registered key, below the base URL.
pub const ENROLL_PATH: &str = "/agent/v1/enroll";

/// The path that hands out a challenge for requests outside of a session, below the base URL.
pub const CHALLENGE_PATH: &str = "/agent/v1/challenge";

/// The path where an agent gives its registration back, below the base URL.
pub const UNENROLL_PATH: &str = "/agent/v1/unenroll";

/// The path below which sessions are long polled where no WebSocket passes, below the base URL; see [`polling`].
pub const POLL_PATH: &str = "/agent/v1/poll";

/// The path below which agents upload artifacts, below the base URL; see [`artifact`].
pub const ARTIFACTS_PATH: &str = "/agent/v1/artifacts";

/// Picks the highest version both sides speak, from the names that the peer offered.
///
/// `None` means that there is no common version: the upgrade is refused, nothing is guessed.
pub fn negotiate<'a>(offered: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    offered.into_iter().any(|name| name.trim() == SUBPROTOCOL).then_some(SUBPROTOCOL)
}
