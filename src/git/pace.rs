//! How fast the work goes, and how long it will take at that pace.

use std::time::Duration;

use tokio::time::Instant;

use super::{Phase, Transfer};

/// Over how long the pace is measured: short enough to follow a line that changes, long enough to be read.
const WINDOW: Duration = Duration::from_secs(3);

/// Looks at a transfer now and then, and tells its pace.
#[derive(Debug, Default)]
pub struct Pace {
    /// When the phase was seen first, and how far it was.
    began: Option<(Phase, Instant, u64)>,
    /// When bytes were looked at, and how many there were; the oldest first.
    seen: Vec<(Instant, u64)>,
}

/// What follows from the pace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// How fast bytes came in the last seconds.
    pub bytes_per_second: u64,
    /// How long the phase that runs will still take; `None` while that cannot be told.
    pub remaining: Option<Duration>,
}

impl Pace {
    /// Looks at the transfer as it is now.
    pub fn estimate(&mut self, transfer: &Transfer) -> Estimate {
        self.estimate_at(transfer, Instant::now())
    }

    fn estimate_at(&mut self, transfer: &Transfer, now: Instant) -> Estimate {
        let bytes = transfer.received_bytes();
        // One that is older than the window stays, so that there is always something to measure from.
        while self.seen.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.seen.remove(0);
        }
        let bytes_per_second = self.seen.first().map_or(0, |(at, before)| {
            let seconds = now.duration_since(*at).as_secs_f64();
            if seconds > 0.0 { (bytes.saturating_sub(*before) as f64 / seconds) as u64 } else { 0 }
        });
        self.seen.push((now, bytes));
        Estimate { bytes_per_second, remaining: self.remaining(transfer, now) }
    }

    fn remaining(&mut self, transfer: &Transfer, now: Instant) -> Option<Duration> {
        let phase = transfer.phase();
        let (done, total) = match phase {
            Phase::Connecting => return None,
            Phase::Receiving => (transfer.received_objects(), transfer.total_objects()),
            Phase::Indexing => (transfer.indexed_objects(), transfer.total_objects()),
            Phase::CheckingOut => (transfer.written_files(), transfer.total_files()),
        };
        let (_, since, before) = match self.began {
            Some(began) if began.0 == phase => began,
            _ => *self.began.insert((phase, now, done)),
        };
        let (gained, left) = (done.checked_sub(before)?, total.checked_sub(done)?);
        if gained == 0 || total == 0 {
            return None;
        }
        Some(now.duration_since(since).mul_f64(left as f64 / gained as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_and_what_is_left_follow_from_what_came() {
        let (transfer, mut pace, start) = (Transfer::default(), Pace::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(pace.estimate_at(&transfer, at(0)), Estimate::default());
        transfer.set_phase(Phase::Receiving);
        transfer.set_objects(0, 100);
        pace.estimate_at(&transfer, at(1));
        transfer.add_bytes(4000);
        transfer.set_objects(25, 100);
        let estimate = pace.estimate_at(&transfer, at(2));
        assert_eq!(estimate.bytes_per_second, 2000);
        assert_eq!(estimate.remaining, Some(Duration::from_secs(3)));
        // A line that has stopped is seen to have.
        for second in 3..7 {
            pace.estimate_at(&transfer, at(second));
        }
        assert_eq!(pace.estimate_at(&transfer, at(7)).bytes_per_second, 0);
        transfer.set_phase(Phase::CheckingOut);
        assert_eq!(pace.estimate_at(&transfer, at(8)).remaining, None);
    }
}
