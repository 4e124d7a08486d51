//! Deadline and cancel around work that can be dropped at any time.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::git::{self, Control};

/// How long a server may take for one step of a test: a call to its API, or a few at once. The door, and SSH, have
/// limits of their own.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long git may take for the list of references. A million of them over a slow line take their time.
pub(super) const REFERENCES_TIMEOUT: Duration = Duration::from_secs(120);

/// Why work was stopped before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The task was cancelled.
    Cancelled,
    /// The task's time was over.
    DeadlineExceeded,
    /// One step took longer than a step may, though the task had time left.
    StepTooLong {
        /// How long it may take.
        limit: Duration,
    },
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

/// As [`until_stopped`], for one step of work on a server, which may take [`STEP_TIMEOUT`] at the most.
pub(super) async fn within_step<T>(control: &Control, work: impl Future<Output = T>) -> Result<T, Stopped> {
    match until_stopped(control, tokio::time::timeout(STEP_TIMEOUT, work)).await? {
        Ok(done) => Ok(done),
        Err(_) => Err(Stopped::StepTooLong { limit: STEP_TIMEOUT }),
    }
}

/// Lets git, which watches its control itself, work for `limit` at the most.
pub(super) async fn within_limit<T, F>(
    control: &Control,
    limit: Duration,
    work: impl FnOnce(Control) -> F,
) -> Result<Result<T, git::Error>, Stopped>
where
    F: Future<Output = Result<T, git::Error>>,
{
    let deadline = control.deadline.min(Instant::now() + limit);
    let done = work(Control { deadline, ..control.clone() }).await;
    match done {
        Err(git::Error::DeadlineExceeded) if deadline < control.deadline => {
            Err(Stopped::StepTooLong { limit })
        }
        done => Ok(done),
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

    #[tokio::test(start_paused = true)]
    async fn a_step_ends_by_its_own_limit_where_the_task_has_time_left() {
        let long = control(Duration::from_secs(3600));
        let slow = within_step(&long, pending::<()>()).await;
        assert_eq!(slow, Err(Stopped::StepTooLong { limit: STEP_TIMEOUT }));
        let short = within_step(&control(Duration::from_secs(1)), pending::<()>()).await;
        assert_eq!(short, Err(Stopped::DeadlineExceeded));
        let until_deadline = async |control: Control| -> Result<(), git::Error> {
            tokio::time::sleep_until(control.deadline).await;
            Err(git::Error::DeadlineExceeded)
        };
        let limited = within_limit(&long, STEP_TIMEOUT, until_deadline).await;
        assert!(matches!(limited, Err(Stopped::StepTooLong { .. })));
        let over = within_limit(&control(Duration::from_secs(1)), STEP_TIMEOUT, until_deadline).await;
        assert!(matches!(over, Ok(Err(git::Error::DeadlineExceeded))));
    }
}
