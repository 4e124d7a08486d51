//! Waiting before the next try to connect: full jitter over a window that doubles.

use std::time::Duration;

/// The first window.
pub const FIRST_WINDOW: Duration = Duration::from_secs(1);

/// The largest window.
pub const LAST_WINDOW: Duration = Duration::from_secs(60);

/// How long a session must have stayed up before the window starts anew. A session that is cut right after
/// it opened, again and again, must not turn into a storm.
pub const GOOD_SESSION: Duration = Duration::from_secs(60);

/// How often a refused identity asks again: the operator may have mended it, and nobody is to be flooded.
pub const SLOW_PROBE: Duration = Duration::from_secs(300);

/// The state between tries. It has no clock and no randomness of its own.
#[derive(Debug, Clone)]
pub struct Backoff {
    window: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { window: FIRST_WINDOW }
    }
}

impl Backoff {
    /// How long the next wait is at the most.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// How long to wait now, for a random number from 0 up to 1.
    pub fn next(&mut self, random: f64) -> Duration {
        let wait = self.window.mul_f64(random.clamp(0.0, 1.0));
        self.window = (self.window * 2).min(LAST_WINDOW);
        wait
    }

    /// Takes note of a session that has ended.
    pub fn session_ended(&mut self, lasted: Duration) {
        if lasted >= GOOD_SESSION {
            self.window = FIRST_WINDOW;
        }
    }
}

/// A random number from 0 up to 1, for jitter.
pub fn random() -> f64 {
    let mut bytes = [0_u8; 4];
    // Without randomness every agent would wait the longest: the herd is the lesser evil then.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 1.0;
    }
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_doubles_up_to_its_limit() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.next(1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.next(0.0), Duration::ZERO);
    }

    #[test]
    fn only_a_good_session_starts_the_window_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..4 {
            backoff.next(1.0);
        }
        backoff.session_ended(GOOD_SESSION - Duration::from_millis(1));
        assert_eq!(backoff.next(1.0).as_secs(), 16);
        backoff.session_ended(GOOD_SESSION);
        assert_eq!(backoff.next(1.0).as_secs(), 1);
    }
}
