//! What carries a session: the loop knows it by this alone, so that a simulation's network can take its place.

use futures_util::future::BoxFuture;
use sortie_protocol::AgentMessage;

use super::websocket::{Incoming, LineError};

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
}

/// The way to the control plane.
pub trait Way: Send {
    /// Opens a connection. Dropping the future gives it up.
    fn open(&self) -> BoxFuture<'static, Result<Box<dyn Transport>, LineError>>;
}
