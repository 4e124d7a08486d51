//! Deadline and cancel around work that can be dropped at any time.

use std::future::Future;

use crate::git::Control;

/// Why work was stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The task was cancelled.
    Cancelled,
    /// The task's time was over.
    DeadlineExceeded,
}

/// Waits for `work`, but not longer than `control` allows. What is stopped is dropped, so that only work
/// without anything to clean up may be given here: git's own functions watch `control` themselves.
pub(super) async fn until_stopped<T>(control: &Control, work: impl Future<Output = T>) -> Result<T, Stopped> {
    tokio::select! {
        biased;
        () = control.cancel.cancelled() => Err(Stopped::Cancelled),
        () = tokio::time::sleep_until(control.deadline) => Err(Stopped::DeadlineExceeded),
        done = work => Ok(done),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::future::pending;

    use tokio::time::{Duration, Instant};
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn control(time: Duration) -> Control {
        Control::new(Instant::now() + time, CancellationToken::new())
    }

    #[tokio::test]
    async fn a_deadline_and_a_cancel_end_what_would_never_end() {
        let late = until_stopped(&control(Duration::ZERO), pending::<()>()).await;
        assert_eq!(late, Err(Stopped::DeadlineExceeded));
        let cancelled = control(Duration::from_secs(600));
        cancelled.cancel.cancel();
        assert_eq!(until_stopped(&cancelled, pending::<()>()).await, Err(Stopped::Cancelled));
        assert_eq!(until_stopped(&control(Duration::from_secs(600)), async { 7 }).await, Ok(7));
    }
}
