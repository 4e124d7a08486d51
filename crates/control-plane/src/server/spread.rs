//! When agents are to come back after the control plane has sent them away.

use std::time::Duration;

/// When the agent at `position`, from 0, of `count` agents is to come back: one after the other at this pace, all
/// of them within `longest`. The first one, and so a single one, comes at once.
pub(crate) fn come_back_after(position: usize, count: usize, per_second: u32, longest: Duration) -> Duration {
    let paced = count as f64 / f64::from(per_second.max(1));
    let spread = paced.min(longest.as_secs_f64());
    Duration::from_secs_f64(spread * position as f64 / count.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_grows_with_the_number_of_agents_up_to_its_limit() {
        let last = |count| come_back_after(count - 1, count, 100, Duration::from_secs(60));
        assert_eq!(last(1), Duration::ZERO);
        assert_eq!(last(11), Duration::from_millis(100));
        assert_eq!(last(1001), Duration::from_secs(10));
        assert!(last(100_000) > Duration::from_secs(59) && last(100_000) < Duration::from_secs(60));
    }

    #[test]
    fn every_agent_has_a_moment_of_its_own() {
        let moments: Vec<_> =
            (0..50).map(|at| come_back_after(at, 50, 100, Duration::from_secs(60))).collect();
        assert!(moments.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(9)));
    }
}
