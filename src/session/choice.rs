//! Which transport carries the session: a pure decision from what became of the tries.

use std::time::Duration;

/// How many tries in a row must show that something lets no WebSocket pass before long polling is tried.
pub const BLOCKED_TRIES: u32 = 3;

/// How often a WebSocket is tried again while a session is polled.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(600);

/// What carries a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A WebSocket.
    WebSocket,
    /// Requests that wait for messages.
    LongPolling,
}

impl Kind {
    /// Its name in `sortie status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::LongPolling => "long_polling",
        }
    }
}

/// What a try that failed tells about its transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Nothing: the control plane was out of reach, or it answered itself.
    Nothing,
    /// Something in between does not let it pass.
    Blocked,
}

/// The state between tries. It has no clock of its own.
///
/// A WebSocket is what is wanted. Where tries to open one show again and again that it does not pass, long polling
/// is tried, and where that fails as well, the WebSocket again. A polled session that has ended is followed by one
/// try of a WebSocket, because ways change; so is one that has stood for long.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// Tries of a WebSocket that did not pass, since one did.
    blocked: u32,
    /// When a WebSocket is to be tried while the session is polled; `None` where it is not.
    probe_at: Option<Duration>,
}

impl Choice {
    /// What is to be tried now.
    pub fn next(&self) -> Kind {
        if self.blocked >= BLOCKED_TRIES && self.probe_at.is_none() {
            Kind::LongPolling
        } else {
            Kind::WebSocket
        }
    }

    /// When a WebSocket is to be tried beside the session that is polled.
    pub fn probe_at(&self) -> Option<Duration> {
        self.probe_at
    }

    /// A line is open.
    pub fn opened(&mut self, transport: Kind, now: Duration) {
        *self = match transport {
            Kind::WebSocket => Self::default(),
            Kind::LongPolling => Self { blocked: BLOCKED_TRIES, probe_at: Some(now + PROBE_INTERVAL) },
        };
    }

    /// A try has failed.
    pub fn failed(&mut self, transport: Kind, said: Said, now: Duration) {
        match (transport, said) {
            // The session goes on as it is.
            (Kind::WebSocket, _) if self.probe_at.is_some() => {
                self.probe_at = Some(now + PROBE_INTERVAL);
            }
            (_, Said::Nothing) => {}
            (Kind::WebSocket, Said::Blocked) => self.blocked = (self.blocked + 1).min(BLOCKED_TRIES),
            (Kind::LongPolling, Said::Blocked) => self.blocked = BLOCKED_TRIES - 1,
        }
    }

    /// The line is gone.
    pub fn ended(&mut self) {
        if self.probe_at.take().is_some() {
            self.blocked = BLOCKED_TRIES - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Kind::{LongPolling, WebSocket};
    use Said::{Blocked, Nothing};

    const NOW: Duration = Duration::from_secs(1000);

    /// One that polls.
    fn polling() -> Choice {
        let mut choice = Choice::default();
        for _ in 0..BLOCKED_TRIES {
            choice.failed(WebSocket, Blocked, NOW);
        }
        choice.opened(LongPolling, NOW);
        choice
    }

    #[test]
    fn long_polling_follows_on_three_blocked_tries_and_not_on_an_outage() {
        let mut choice = Choice::default();
        for _ in 0..100 {
            choice.failed(WebSocket, Nothing, NOW);
            assert_eq!(choice.next(), WebSocket);
        }
        for _ in 1..BLOCKED_TRIES {
            choice.failed(WebSocket, Blocked, NOW);
            assert_eq!(choice.next(), WebSocket);
        }
        choice.failed(WebSocket, Blocked, NOW);
        assert_eq!(choice.next(), LongPolling);
    }

    #[test]
    fn a_websocket_that_passes_starts_the_count_anew() {
        let mut choice = Choice::default();
        for _ in 0..5 {
            choice.failed(WebSocket, Blocked, NOW);
            choice.failed(WebSocket, Blocked, NOW);
            choice.opened(WebSocket, NOW);
            choice.ended();
            assert_eq!(choice.next(), WebSocket);
        }
    }

    #[test]
    fn where_both_are_blocked_they_take_turns() {
        let mut choice = Choice::default();
        for _ in 0..BLOCKED_TRIES {
            choice.failed(WebSocket, Blocked, NOW);
        }
        for _ in 0..3 {
            assert_eq!(choice.next(), LongPolling);
            choice.failed(LongPolling, Nothing, NOW);
            assert_eq!(choice.next(), LongPolling);
            choice.failed(LongPolling, Blocked, NOW);
            assert_eq!(choice.next(), WebSocket);
            choice.failed(WebSocket, Blocked, NOW);
        }
    }

    #[test]
    fn a_polled_session_is_probed_for_a_websocket_every_ten_minutes() {
        let mut choice = polling();
        let first = NOW + Duration::from_secs(600);
        assert_eq!((choice.probe_at(), choice.next()), (Some(first), WebSocket));
        choice.failed(WebSocket, Nothing, first);
        assert_eq!(choice.probe_at(), Some(first + PROBE_INTERVAL));
        choice.failed(WebSocket, Blocked, first + PROBE_INTERVAL);
        assert_eq!(choice.probe_at(), Some(first + 2 * PROBE_INTERVAL));
        choice.opened(WebSocket, first + 2 * PROBE_INTERVAL);
        assert_eq!((choice.probe_at(), choice.next()), (None, WebSocket));
    }

    #[test]
    fn a_polled_session_that_ends_is_followed_by_one_try_of_a_websocket() {
        let mut choice = polling();
        choice.ended();
        assert_eq!((choice.probe_at(), choice.next()), (None, WebSocket));
        choice.failed(WebSocket, Blocked, NOW);
        assert_eq!(choice.next(), LongPolling);
    }
}
