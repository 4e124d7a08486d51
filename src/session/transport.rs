//! What carries a session: the loop knows it by this alone, so that a simulation's network can take its place.

use futures_util::future::BoxFuture;
use sortie_protocol::AgentMessage;
use tokio::time::Instant;

use super::choice::Kind;
use super::line::{Incoming, LineError};

/// An open connection to the control plane.
pub trait Transport: Send {
    /// Waits for what comes next. Dropping the future loses nothing.
    fn receive(&mut self) -> BoxFuture<'_, Incoming>;

    /// Sends a message.
    fn send<'a>(&'a mut self, message: &'a AgentMessage) -> BoxFuture<'a, Result<(), LineError>>;

    /// Asks for a sign of life.
    fn ping(&mut self) -> BoxFuture<'_, Result<(), LineError>>;

    /// Says goodbye, without waiting long for the answer.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;

    /// Which one it is, as `sortie status` shows it.
    fn kind(&self) -> Kind {
        Kind::WebSocket
    }
}

/// The way to the control plane.
pub trait Way: Send {
    /// Opens a connection. Dropping the future gives it up.
    fn open(&self) -> BoxFuture<'static, Result<Box<dyn Transport>, LineError>>;

    /// Takes note of what became of an opening.
    fn opened(&mut self, _result: Result<Kind, &LineError>) {}

    /// Takes note of the end of the line that was open.
    fn ended(&mut self) {}

    /// When another line is to be tried beside the one that is open; it takes that one's place where it opens.
    fn probe_at(&self) -> Option<Instant> {
        None
    }
}
