//! The loop's word on what it is doing, for whoever asks `sortie status`.

use sortie_protocol::message::{AttemptOutcome, AttemptResult};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::Agent;
use crate::journal::Store;
use crate::runner::Work;
use crate::status::{Attempt, Ended, Mode, Moment};

impl<S: Store, W: Work> Agent<S, W> {
    /// Publishes what the session and the runner hold. It is done each time the loop has come around.
    pub(super) fn publish(&self) {
        let is_open = self.session.is_open();
        let mode = match (self.session.is_draining(), self.session.is_paused()) {
            (true, _) => Mode::Draining,
            (false, true) => Mode::Paused,
            (false, false) => Mode::Running,
        };
        let transport = self.line.as_ref().filter(|_| is_open).map(|line| line.kind().as_str());
        let (attempts, results_waiting) = (self.runner.running(), self.session.unacknowledged());
        self.board.update(|status| {
            status.connected = is_open.then(|| status.connected.unwrap_or_else(Moment::now));
            status.transport = transport;
            // Only a session shows that the identity is taken: a network that is down shows nothing.
            status.identity_refused &= !is_open;
            status.mode = mode;
            status.attempts = attempts;
            status.results_waiting = results_waiting;
        });
    }

    /// Notes that the control plane lives.
    pub(super) fn publish_heard(&self) {
        self.board.update(|status| status.heard = Some(Instant::now()));
    }

    /// Notes the end of an attempt. What it was stands on the board since it began.
    pub(super) fn publish_end(&self, result: &AttemptResult) {
        let id = &result.attempt;
        let is_it = |attempt: &&Attempt| attempt.task == id.task_id && attempt.number == id.attempt;
        let Some(attempt) = self.board.read(|status| status.attempts.iter().find(is_it).cloned()) else {
            return;
        };
        let outcome = match result.outcome {
            AttemptOutcome::Succeeded => "succeeded",
            AttemptOutcome::Failed => "failed",
            AttemptOutcome::Cancelled => "cancelled",
        };
        self.board.ended(Ended {
            duration: attempt.started.elapsed(),
            at: OffsetDateTime::now_utc(),
            outcome,
            diagnosis: result.result.diagnosis().map(|diagnosis| diagnosis.code.clone()),
            attempt,
        });
    }
}
