//! What every line has that carries a session: what comes over it, and why there is none.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use sortie_protocol::{ControlMessage, FrameError, SUBPROTOCOL};

use super::choice::Said;
use crate::dial::{DialError, HttpError};

/// How long the opening may take once the connection stands, up to the first message.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one write may take before the peer counts as gone. The daemon's loop waits for it, so this is well
/// below the time of its watchdog and of what a lease has left when it is stopped.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the closing of a line may take.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest time for which the control plane may send this agent away.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// There is no connection.
    #[error("{0}")]
    Dial(#[from] DialError),
    /// The opening, or a write, took too long.
    #[error("the control plane did not answer the upgrade to a WebSocket, or a message, in time")]
    TimedOut,
    /// Too many agents are connecting, or too much is going on.
    #[error("the control plane is busy; it asks to be left alone for {} s", .after.as_secs())]
    Busy {
        /// When to come back.
        after: Duration,
    },
    /// The control plane itself says no to the line, without having seen a message.
    #[error("the control plane refused the line with status {0}")]
    Refused(u16),
    /// Something answered with another status than the one that opens a line.
    #[error("the upgrade to a WebSocket, or the request in its place, was answered with status {0}")]
    Status(u16),
    /// The control plane does not speak this version.
    #[error("the control plane does not speak {SUBPROTOCOL}")]
    Subprotocol,
    /// What answered does not speak the protocol, or broke off.
    #[error("the line to the control plane could not be opened or was cut off")]
    Broken,
}

impl LineError {
    /// The meaning of an answer that opens no line. What is no WebSocket's upgrade any more when it arrives is the
    /// work of something in between, even where the control plane says so.
    pub(super) fn of_answer(status: u16, headers: &HeaderMap) -> Self {
        let text =
            |name| headers.get(name).and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok());
        let after = text(RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok());
        let is_problem = text(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/problem+json"));
        match (status, after) {
            (429 | 503, Some(seconds)) => {
                Self::Busy { after: Duration::from_secs(seconds).min(MAX_RETRY_AFTER) }
            }
            (401 | 403 | 429 | 500.., _) if is_problem => Self::Refused(status),
            _ => Self::Status(status),
        }
    }

    /// How long the control plane wants to be left alone at least.
    pub fn retry_after(&self) -> Duration {
        if let Self::Busy { after } = self { *after } else { Duration::ZERO }
    }

    /// What it tells about the transport that was tried.
    pub fn said(&self) -> Said {
        match self {
            Self::Dial(_) | Self::Busy { .. } | Self::Refused(_) => Said::Nothing,
            Self::TimedOut | Self::Status(_) | Self::Subprotocol | Self::Broken => Said::Blocked,
        }
    }
}

impl From<HttpError> for LineError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Dial(error) => Self::Dial(error),
            HttpError::TimedOut { .. } => Self::TimedOut,
            HttpError::BodyTooLarge { .. }
            | HttpError::Interrupted { .. }
            | HttpError::Protocol
            | HttpError::BadRequest => Self::Broken,
        }
    }
}

/// What came over the line.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Message(Box<ControlMessage>),
    /// A frame that is no message.
    NotUnderstood(FrameError),
    /// A sign of life.
    Alive,
    /// The connection is gone.
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)]) -> LineError {
        let pairs = headers.iter().map(|(name, value)| {
            let name = reqwest::header::HeaderName::from_static(name);
            (name, reqwest::header::HeaderValue::from_static(value))
        });
        LineError::of_answer(status, &pairs.collect())
    }

    #[test]
    fn what_only_the_control_plane_says_blames_nothing_in_between() {
        let problem = ("content-type", "application/problem+json");
        for (status, headers) in [
            (503, &[problem, ("retry-after", "3")][..]),
            (403, &[problem]),
            (401, &[problem]),
            (500, &[problem]),
        ] {
            assert_eq!(answer(status, headers).said(), Said::Nothing, "{status}");
        }
        // The control plane says 426 and 400 where what arrived had lost its upgrade on the way.
        for (status, headers) in
            [(426, &[problem][..]), (400, &[problem]), (403, &[]), (502, &[]), (200, &[]), (404, &[problem])]
        {
            assert_eq!(answer(status, headers).said(), Said::Blocked, "{status}");
        }
    }

    #[test]
    fn the_wait_that_is_asked_for_is_kept_within_bounds() {
        assert_eq!(answer(503, &[("retry-after", "7")]).retry_after(), Duration::from_secs(7));
        assert_eq!(answer(503, &[("retry-after", "86400")]).retry_after(), MAX_RETRY_AFTER);
        assert_eq!(answer(503, &[("retry-after", "soon")]).retry_after(), Duration::ZERO);
        assert_eq!(answer(403, &[("retry-after", "7")]).retry_after(), Duration::ZERO);
    }
}
