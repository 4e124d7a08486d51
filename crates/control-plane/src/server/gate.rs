//! The gate before sessions: how many agents may begin one in a second, and how many at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::problem::ApiError;

/// How many seconds' worth of agents may come at one moment.
const BURST: Duration = Duration::from_secs(1);

/// The longest time for which an agent is sent away.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Lets agents begin sessions. Whoever is turned away costs one look at a clock.
#[derive(Debug)]
pub struct Gate {
    pace: Mutex<Pace>,
    places: Arc<Semaphore>,
}

impl Gate {
    /// A gate for so many in a second, and so many at once that have not proved who they are.
    pub fn new(per_second: u32, places: usize) -> Self {
        let pace = Mutex::new(Pace::new(per_second, Instant::now()));
        Self { pace, places: Arc::new(Semaphore::new(places)) }
    }

    /// Lets one agent in. It keeps the place until it has proved who it is.
    ///
    /// # Errors
    /// 503 with the time after which there will be room, later for each that is turned away.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match place {
            Ok(place) if pace.admits(now) => Ok(place),
            _ => {
                let wait = pace.turn_away(now);
                Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Too many agents are connecting")
                    .retry_after(wait.as_secs_f64().ceil().max(1.0) as u64))
            }
        }
    }
}

/// A token bucket, kept as the moment at which it would be full again (the generic cell rate algorithm).
///
/// Crates for it say yes or no, and when the next token comes. Here everybody who is turned away is told a moment
/// of its own, so that those who come back do not come together: that takes the second moment below.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    full_at: Instant,
    /// Until when room has been promised to those who were turned away.
    promised: Instant,
}

impl Pace {
    fn new(per_second: u32, now: Instant) -> Self {
        Self { interval: Duration::from_secs(1) / per_second.max(1), full_at: now, promised: now }
    }

    fn admits(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.interval;
        let admitted = full_at.duration_since(now) <= BURST;
        if admitted {
            self.full_at = full_at;
        }
        admitted
    }

    /// When to come back: after all who were turned away before.
    fn turn_away(&mut self, now: Instant) -> Duration {
        self.promised = (self.promised.max(now) + self.interval).min(now + LONGEST_WAIT);
        self.promised.duration_since(now)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_admits_so_many_and_a_burst_no_more_than_that() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        let at_once = (0..100).filter(|_| pace.admits(start)).count();
        assert_eq!(at_once, 10);
        // Ten more in each further second, however often it is asked.
        let admitted = (0..=3000).filter(|ms| pace.admits(start + Duration::from_millis(*ms))).count();
        assert_eq!(admitted, 30);
        // After a long rest the burst is not larger.
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| pace.admits(later)).count(), 10);
    }

    #[test]
    fn those_who_are_turned_away_are_told_to_come_one_after_the_other() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        let waits: Vec<_> = (0..1000).map(|_| pace.turn_away(start)).collect();
        assert_eq!(waits[..3], [100, 200, 300].map(Duration::from_millis));
        assert_eq!(waits[999], LONGEST_WAIT);
        let later = start + Duration::from_secs(30);
        assert!(pace.turn_away(later) <= LONGEST_WAIT);
        let long_after = start + Duration::from_secs(3600);
        assert_eq!(pace.turn_away(long_after), Duration::from_millis(100));
    }

    #[test]
    fn the_places_are_limited_as_well() {
        let gate = Gate::new(1000, 1);
        let place = gate.enter().unwrap();
        assert!(gate.enter().is_err());
        drop(place);
        assert!(gate.enter().is_ok());
    }
}
