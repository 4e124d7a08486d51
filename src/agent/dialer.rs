//! The way to the control plane through the door: by a WebSocket or, where none passes, by long polling.

use std::sync::Arc;

use tokio::time::Instant;

use super::Opening;
use crate::dial::{Destination, Door};
use crate::remote_url::RemoteUrl;
use crate::session::choice::{Choice, Kind};
use crate::session::line::LineError;
use crate::session::long_poll::LongPoll;
use crate::session::transport::{Transport, Way};
use crate::session::websocket::WebSocket;

/// Where the control plane is.
#[derive(Clone)]
pub struct ControlPlane {
    /// Its base URL.
    pub url: RemoteUrl,
    /// How it is reached.
    pub destination: Destination,
}

/// The way to a control plane through the door, by a WebSocket or, where none passes, by long polling.
pub struct Dialer {
    door: Arc<Door>,
    control_plane: ControlPlane,
    choice: Choice,
    started: Instant,
}

impl Dialer {
    /// A way that has not been gone yet.
    pub fn new(door: Arc<Door>, control_plane: ControlPlane) -> Self {
        Self { door, control_plane, choice: Choice::default(), started: Instant::now() }
    }
}

impl Way for Dialer {
    fn open(&self) -> Opening {
        let (door, destination) = (Arc::clone(&self.door), self.control_plane.destination.clone());
        let url = self.control_plane.url.clone();
        match self.choice.next() {
            Kind::WebSocket => Box::pin(async move {
                let line = WebSocket::open(&door, &destination, &url).await?;
                Ok(Box::new(line) as Box<dyn Transport>)
            }),
            Kind::LongPolling => Box::pin(async move {
                let line = LongPoll::open(&door, &destination, &url).await?;
                Ok(Box::new(line) as Box<dyn Transport>)
            }),
        }
    }

    fn opened(&mut self, result: Result<Kind, &LineError>) {
        let (tried, now) = (self.choice.next(), self.started.elapsed());
        match result {
            Ok(kind) => self.choice.opened(kind, now),
            Err(error) => self.choice.failed(tried, error.said(), now),
        }
        if tried == Kind::WebSocket && self.choice.next() == Kind::LongPolling {
            tracing::warn!("WebSockets do not pass: long polling is tried next");
        }
    }

    fn ended(&mut self) {
        self.choice.ended();
    }

    fn probe_at(&self) -> Option<Instant> {
        self.choice.probe_at().map(|at| self.started + at)
    }
}
