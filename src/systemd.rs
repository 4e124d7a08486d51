//! Telling systemd that the daemon is ready, alive and stopping.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

use crate::pulse::Stuck;

/// How soon it is looked again where something is stuck. It may come loose before the watchdog's time is over.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Tells systemd, where it started this process; does nothing elsewhere.
pub struct Notifier {
    /// Half of the watchdog's time, where there is one.
    interval: Option<Duration>,
    /// When the watchdog is to be fed, or looked after, next.
    next: Option<Instant>,
    status: String,
    stuck: Option<Stuck>,
}

impl Notifier {
    /// Reads what systemd asks for from the environment.
    pub fn from_environment() -> Self {
        Self::with_interval(sd_notify::watchdog_enabled().map(|time| time / 2))
    }

    fn with_interval(interval: Option<Duration>) -> Self {
        Self { interval, next: None, status: String::new(), stuck: None }
    }

    /// The configuration is loaded and the daemon works; it may not be connected yet.
    pub fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// The daemon is on its way out.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    /// The loop has come around. Feeds the watchdog when it is due and nothing is stuck, and tells a changed status.
    pub fn alive(&mut self, connected: bool, running: usize, stuck: Option<Stuck>) {
        self.tell(connected, running, stuck);
        if self.feed(Instant::now(), stuck) {
            notify(&[NotifyState::Watchdog]);
        }
    }

    fn tell(&mut self, connected: bool, running: usize, stuck: Option<Stuck>) {
        let connection = if connected { "connected" } else { "not connected" };
        let trouble = stuck.map(|stuck| format!("; {stuck}")).unwrap_or_default();
        let status = format!("{connection}, {running} running{trouble}");
        if status != self.status {
            notify(&[NotifyState::Status(&status)]);
            self.status = status;
        }
        if stuck != self.stuck {
            match stuck {
                Some(stuck) => tracing::error!(
                    reason = stuck.as_str(),
                    watchdog = self.interval.is_some(),
                    "the daemon is stuck: {stuck}"
                ),
                None => tracing::info!("the daemon is not stuck any more"),
            }
            self.stuck = stuck;
        }
    }

    /// Whether the watchdog is to be fed now.
    fn feed(&mut self, now: Instant, stuck: Option<Stuck>) -> bool {
        let Some(interval) = self.interval else { return false };
        if self.next.is_some_and(|next| now < next) {
            return false;
        }
        self.next = Some(now + if stuck.is_none() { interval } else { LOOK_AGAIN.min(interval) });
        stuck.is_none()
    }

    /// Does work that comes before the loop, such as enrolling, and feeds the watchdog meanwhile.
    pub async fn while_alive<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            self.alive(false, 0, None);
            let due = self.due();
            let next = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                value = &mut work => return value,
                () = next => {}
            }
        }
    }

    /// When the watchdog is to be fed, or looked after, next.
    pub fn due(&self) -> Option<Instant> {
        self.interval?;
        Some(self.next.unwrap_or_else(Instant::now))
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(kind = ?error.kind(), "systemd could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);

    #[test]
    fn the_watchdog_is_fed_at_half_its_time_and_not_while_anything_is_stuck() {
        let mut notifier = Notifier::with_interval(Some(INTERVAL));
        let begun = Instant::now();
        assert!(notifier.feed(begun, None));
        assert!(!notifier.feed(begun + INTERVAL / 2, None), "it is not due");
        assert!(notifier.feed(begun + INTERVAL, None));
        let stuck = begun + INTERVAL * 2;
        for after in 0..60 {
            let now = stuck + LOOK_AGAIN * after;
            assert!(!notifier.feed(now, Some(Stuck::Runner)));
            // A time that has passed would let the loop turn without a pause.
            assert_eq!(notifier.due(), Some(now + LOOK_AGAIN));
        }
        assert!(notifier.feed(stuck + LOOK_AGAIN * 60, None), "it came loose");
    }

    #[test]
    fn without_a_watchdog_there_is_nothing_to_feed() {
        let mut notifier = Notifier::with_interval(None);
        assert!(!notifier.feed(Instant::now(), None));
        assert_eq!(notifier.due(), None);
    }
}
