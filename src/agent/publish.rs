//! The loop's word on what it is doing, for whoever asks `sortie status` or for its health, and for systemd.

use sortie_protocol::AgentMessage;
use sortie_protocol::message::{AttemptOutcome, AttemptResult};
use sortie_protocol::report::TaskOutput;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::Agent;
use crate::journal::Store;
use crate::pulse::{LineState, Pulse};
use crate::report::Code;
use crate::runner::Work;
use crate::session::CloseReason;
use crate::status::{Attempt, Ended, Mode, Moment};

/// What a diagnosis is counted under that this version's catalogue does not have.
const OTHER_CODE: &str = "other";

impl<S: Store, W: Work> Agent<S, W> {
    /// Publishes what the session and the runner hold, and feeds the watchdog unless something is stuck. It is done
    /// each time the loop has come around.
    pub(super) fn publish(&mut self) {
        let now = Instant::now();
        let is_open = self.session.is_open();
        let mode = match (self.session.is_draining(), self.session.is_paused()) {
            (true, _) => Mode::Draining,
            (false, true) => Mode::Paused,
            (false, false) => Mode::Running,
        };
        let transport = self.line.as_ref().filter(|_| is_open).map(|line| line.kind().as_str());
        let (attempts, results_waiting) = (self.runner.running(), self.session.unacknowledged());
        let before = self.board.read(|status| status.pulse);
        let pulse = Pulse {
            turned: Some(now),
            line: self.line_state(before.line, now),
            deadline: attempts.iter().map(|attempt| attempt.deadline).min(),
            ..before
        };
        self.board.update(|status| {
            status.transport = transport;
            if is_open && status.connected.is_none() {
                status.connected = Some(Moment::now());
                status.counters.sessions += 1;
                status.identity_refused = false;
            } else if !is_open {
                status.connected = None;
            }
            status.journal_fails = self.store_retry.is_some();
            status.dead_after = self.session.dead_after();
            status.mode = mode;
            status.attempts = attempts;
            status.results_waiting = results_waiting;
            status.pulse = Pulse { pool_asked: status.pulse.pool_asked, ..pulse };
        });
        self.notifier.alive(is_open, self.session.running(), pulse.stuck(now));
    }

    /// What the loop is at with its line, where `before` was noted the last time.
    fn line_state(&self, before: LineState, now: Instant) -> LineState {
        let dead_after = self.session.dead_after();
        match (&self.line, before) {
            (None, _) => LineState::Away { due: self.retry },
            (Some(_), LineState::Open { exchanged, .. }) => LineState::Open { exchanged, dead_after },
            (Some(_), _) => LineState::Open { exchanged: now, dead_after },
        }
    }

    /// Notes that the control plane lives.
    pub(super) fn publish_heard(&self) {
        let now = Instant::now();
        self.board.update(|status| {
            status.heard = Some(now);
            if let LineState::Open { exchanged, .. } = &mut status.pulse.line {
                *exchanged = now;
            }
        });
    }

    /// Counts what was sent, where it says that a message was not understood.
    pub(super) fn publish_sent(&self, message: &AgentMessage) {
        if matches!(message, AgentMessage::Error(_)) {
            self.board.update(|status| status.counters.protocol_errors += 1);
        }
    }

    /// Notes why the session ends.
    pub(super) fn publish_close(&self, reason: &CloseReason) {
        self.board.trouble(&reason.to_string());
        if matches!(reason, CloseReason::IdentityRefused(_)) {
            // Until a session shows that the identity is taken: a network that is down shows nothing.
            self.board.update(|status| status.identity_refused = true);
        }
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
        let diagnosis = result.result.diagnosis().map(|diagnosis| diagnosis.code.clone());
        let received = match &result.result {
            TaskOutput::Clone(clone) => clone.received_bytes,
            _ => 0,
        };
        self.board.update(|status| {
            let counters = &mut status.counters;
            *counters.ended.entry((attempt.kind, outcome)).or_default() += 1;
            if let Some(code) = &diagnosis {
                let code = Code::of_name(code).map_or(OTHER_CODE, Code::as_str);
                *counters.diagnoses.entry(code).or_default() += 1;
            }
            counters.clone_bytes = counters.clone_bytes.saturating_add(received);
        });
        self.board.ended(Ended {
            duration: attempt.started.elapsed(),
            at: OffsetDateTime::now_utc(),
            outcome,
            diagnosis,
            attempt,
        });
    }
}
