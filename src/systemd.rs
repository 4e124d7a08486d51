//! Telling systemd that the daemon is ready, alive and stopping.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

/// Tells systemd, where it started this process; does nothing elsewhere.
pub struct Notifier {
    /// Half of the watchdog's time, where there is one.
    interval: Option<Duration>,
    told_alive: Option<Instant>,
    status: String,
}

impl Notifier {
    /// Reads what systemd asks for from the environment.
    pub fn from_environment() -> Self {
        let watchdog = sd_notify::watchdog_enabled();
        Self { interval: watchdog.map(|time| time / 2), told_alive: None, status: String::new() }
    }

    /// The configuration is loaded and the daemon works; it may not be connected yet.
    pub fn ready(&self) {
        notify(&[NotifyState::Ready]);
    }

    /// The daemon is on its way out.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    /// The loop has come around. Feeds the watchdog when it is due, and tells a changed status.
    pub fn alive(&mut self, connected: bool, running: usize) {
        let status = format!("{}, {running} running", if connected { "connected" } else { "not connected" });
        if status != self.status {
            notify(&[NotifyState::Status(&status)]);
            self.status = status;
        }
        if self.due().is_some_and(|due| Instant::now() >= due) {
            notify(&[NotifyState::Watchdog]);
            self.told_alive = Some(Instant::now());
        }
    }

    /// Does work that comes before the loop, such as enrolling, and feeds the watchdog meanwhile.
    pub async fn while_alive<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            self.alive(false, 0);
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

    /// When the watchdog is to be fed next.
    pub fn due(&self) -> Option<Instant> {
        let interval = self.interval?;
        Some(self.told_alive.map_or_else(Instant::now, |told| told + interval))
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(kind = ?error.kind(), "systemd could not be told");
    }
}
