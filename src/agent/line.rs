//! How the loop's line comes and goes.

use std::time::Duration;

use sortie_protocol::message::GoawayReason;
use tokio::time::Instant;

use super::Agent;
use crate::backoff::{self, SLOW_PROBE};
use crate::journal::Store;
use crate::runner::Work;
use crate::session::line::{Incoming, LineError};
use crate::session::transport::Transport;
use crate::session::{CloseReason, Event};

impl<S: Store, W: Work> Agent<S, W> {
    /// When a line is to be opened: where there is none, or where another one is to be tried beside it.
    pub(super) fn opens_at(&self) -> Option<Instant> {
        match (&self.line, self.session.is_open()) {
            (None, _) => Some(self.retry),
            (Some(_), true) => self.way.probe_at(),
            // It has to show first that it carries a session.
            (Some(_), false) => None,
        }
    }

    pub(super) async fn opened(&mut self, result: Result<Box<dyn Transport>, LineError>) {
        if let Err(error) = &result {
            self.way.opened(Err(error));
        }
        match result {
            Ok(line) => {
                self.opened = Instant::now();
                self.is_welcome = false;
                let transport = line.kind().as_str();
                if self.line.replace(line).is_some() {
                    // The session before is superseded by this one, which takes up what it had.
                    tracing::info!(transport, "a better way to the control plane is open");
                    self.feed(Event::Closed).await;
                } else {
                    tracing::debug!(transport, "the line is open");
                }
                self.feed(Event::Opened).await;
            }
            Err(error) if self.line.is_some() => {
                tracing::info!(%error, "there is no better way to the control plane yet");
            }
            Err(error) => {
                let wait = error.retry_after() + self.backoff.next((self.jitter)());
                tracing::warn!(%error, retry_in_ms = wait.as_millis() as u64, "no connection to the control plane");
                self.board.trouble(&error.to_string());
                self.retry = Instant::now() + wait;
            }
        }
    }

    pub(super) async fn incoming(&mut self, incoming: Incoming) {
        if !matches!(incoming, Incoming::Closed) {
            self.publish_heard();
        }
        match incoming {
            Incoming::Message(message) => {
                self.feed(Event::Received(message)).await;
                if !self.is_welcome
                    && self.session.is_open()
                    && let Some(line) = &self.line
                {
                    self.is_welcome = true;
                    self.way.opened(Ok(line.kind()));
                }
            }
            Incoming::NotUnderstood(error) => self.feed(Event::NotUnderstood(error)).await,
            Incoming::Alive => self.feed(Event::Heard).await,
            Incoming::Closed => self.lost("the connection to the control plane was cut").await,
        }
    }

    /// The line broke while something was written to it.
    pub(super) fn dropped(&mut self, error: &LineError) -> Event {
        self.line = None;
        self.wait_before_retry(Duration::ZERO);
        tracing::warn!(%error, running = self.session.running(), "the line broke; running tasks go on");
        self.board.trouble(&error.to_string());
        Event::Closed
    }

    pub(super) async fn lost(&mut self, what: &str) {
        self.line = None;
        let retry_within_ms = self.wait_before_retry(Duration::ZERO).as_millis() as u64;
        let retry_in_ms = self.retry.saturating_duration_since(Instant::now()).as_millis() as u64;
        tracing::warn!(
            retry_in_ms,
            retry_within_ms,
            running = self.session.running(),
            "{what}; running tasks go on"
        );
        self.board.trouble(what);
        self.feed(Event::Closed).await;
    }

    pub(super) async fn close(&mut self, reason: &CloseReason) {
        self.publish_close(reason);
        match reason {
            CloseReason::IdentityRefused(message) => {
                tracing::error!(
                    message,
                    retry_in_s = SLOW_PROBE.as_secs(),
                    "the control plane refuses this agent's identity; enroll again, or have it allowed there"
                );
                self.way.ended();
                self.retry = Instant::now() + SLOW_PROBE;
            }
            CloseReason::Goaway(GoawayReason::Superseded, _) => {
                tracing::error!("another agent with this identity connected: is the state directory copied?");
                self.wait_before_retry(backoff::LAST_WINDOW);
            }
            CloseReason::Goaway(goaway, after) => {
                tracing::info!(reason = ?goaway, "the control plane ended the session");
                self.wait_before_retry(*after);
            }
            CloseReason::Silence => {
                if !self.is_welcome {
                    // Something may let a line open and nothing more.
                    self.way.opened(Err(&LineError::TimedOut));
                }
                tracing::warn!("the control plane is silent: the connection is closed");
                self.wait_before_retry(Duration::ZERO);
            }
            CloseReason::Protocol => {
                tracing::error!("the control plane does not keep to the protocol: the connection is closed");
                self.wait_before_retry(Duration::ZERO);
            }
        }
        if let Some(line) = self.line.take() {
            line.close().await;
        }
    }

    /// Says when the next try is, and returns the window that was drawn from.
    pub(super) fn wait_before_retry(&mut self, at_least: Duration) -> Duration {
        self.way.ended();
        self.backoff.session_ended(self.opened.elapsed());
        let window = self.backoff.window();
        self.retry = Instant::now() + at_least + self.backoff.next((self.jitter)());
        window
    }
}
