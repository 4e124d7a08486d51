//! The agent's side of the protocol as a pure state machine: events in, actions out.
//!
//! It has no socket, no clock and no randomness: time comes with every event as a duration since some
//! fixed moment, and whoever drives it carries the actions out in their order. It works on messages, so
//! any transport that carries them will do. What runs outlives a connection: attempts and results belong
//! to this state and not to a socket.

mod attempts;
pub mod choice;
mod events;
pub mod line;
pub mod long_poll;
pub mod transport;
pub mod websocket;

use std::time::Duration;

use sortie_protocol::message::MAX_TASK_ID_BYTES;
use sortie_protocol::message::{
    AttemptResult, Challenge, Disposition, Goaway, GoawayReason, Hello, LostAttempt, Offer, ProtocolError,
    Times, Welcome,
};
use sortie_protocol::{AgentMessage, AttemptId, ControlMessage, identity};

use crate::identity::Identity;
use crate::journal::MAX_WAITING_RESULTS;
use attempts::Attempts;
pub use events::{Action, CloseReason, Effects, Event, Profile, StopReason};

/// How long a session may take from the connection to `welcome`.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How many messages that are not understood a session bears.
pub const MAX_PROTOCOL_ERRORS: u32 = 8;

/// Why an agent drains by itself, for people.
const STOPPING: &str = "the agent is stopping";

/// The shortest and the longest time that a control plane may set for pings, silence and renewals.
const SHORTEST_TIME: Duration = Duration::from_millis(100);
const LONGEST_TIME: Duration = Duration::from_secs(600);

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    AwaitingChallenge,
    AwaitingWelcome,
    Open,
}

/// The state machine. One for the life of the agent.
pub struct Session {
    profile: Profile,
    identity: Identity,
    phase: Phase,
    attempts: Attempts,
    unacknowledged: Vec<AttemptId>,
    /// What an earlier process lost, until the control plane has been told.
    lost: Vec<LostAttempt>,
    journal_works: bool,
    times: Times,
    /// Whether the control plane wants no new work done.
    paused: bool,
    /// Whether the operator wants none for now.
    held: bool,
    draining: bool,
    opened_at: Duration,
    heard_at: Duration,
    pinged_at: Duration,
    renewed_at: Duration,
    told_credit: Option<u32>,
    /// Whether the runner is being asked about an offer, so that the free slots are not known.
    considering: bool,
    /// Whether a result is being kept, which is to be told before the slot that it has left.
    recording: bool,
    protocol_errors: u32,
}

impl Session {
    /// A session of an enrolled agent that has `unacknowledged` results from before, and has `lost` attempts.
    pub fn new(
        profile: Profile,
        identity: Identity,
        unacknowledged: Vec<AttemptId>,
        lost: Vec<LostAttempt>,
    ) -> Self {
        Self {
            profile,
            identity,
            phase: Phase::Closed,
            attempts: Attempts::default(),
            unacknowledged,
            lost,
            journal_works: true,
            times: Times::default(),
            paused: false,
            held: false,
            draining: false,
            opened_at: Duration::ZERO,
            heard_at: Duration::ZERO,
            pinged_at: Duration::ZERO,
            renewed_at: Duration::ZERO,
            told_credit: None,
            considering: false,
            recording: false,
            protocol_errors: 0,
        }
    }

    /// Whether the control plane has welcomed this agent and the connection stands.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// How many attempts are held.
    pub fn running(&self) -> usize {
        self.attempts.len()
    }

    /// How many results wait for their acknowledgment.
    pub fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }

    /// After how much silence the line is given up.
    pub fn dead_after(&self) -> Duration {
        time(self.times.dead_after_ms)
    }

    /// Whether the control plane or the operator wants no new work done here for now.
    pub fn is_paused(&self) -> bool {
        self.paused || self.held
    }

    /// Whether the operator wants no new work done.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether there is nothing left to do or to tell.
    pub fn is_idle(&self) -> bool {
        self.attempts.is_empty() && self.unacknowledged.is_empty()
    }

    /// Takes one event at the time `now` and says what is to be done.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Opened => self.opened(now),
            Event::Closed => self.phase = Phase::Closed,
            Event::Heard => self.heard_at = now,
            Event::Received(message) => {
                self.heard_at = now;
                self.received(now, *message, &mut actions);
            }
            Event::NotUnderstood(error) => {
                self.heard_at = now;
                self.not_understood(&ProtocolError::from(&error), &mut actions);
            }
            Event::Admitted(attempt, effects) => self.admitted(now, attempt, effects, &mut actions),
            Event::Refused(reject) => {
                self.considering = false;
                self.attempts.dismiss(&reject.attempt);
                self.send(AgentMessage::Reject(*reject), &mut actions);
            }
            Event::Progressed(progress) => self.send(AgentMessage::Progress(progress), &mut actions),
            Event::Finished(result) => self.finished(*result, &mut actions),
            Event::Recorded(attempt) => {
                self.recording = false;
                self.unacknowledged.push(attempt.clone());
                if self.is_open() {
                    actions.push(Action::SendResult(attempt));
                }
            }
            Event::Journal { works } => self.journal_works = works,
            Event::Hold(held) => self.hold(held),
            Event::Drain => self.drain(&mut actions),
            Event::Tick => {}
        }
        self.keep_times(now, &mut actions);
        self.tell_credit(&mut actions);
        actions
    }

    /// When the next [`Event::Tick`] is due at the latest.
    pub fn wake_at(&self) -> Option<Duration> {
        let lease = self.attempts.next_end();
        let line = match self.phase {
            Phase::Closed => None,
            Phase::AwaitingChallenge | Phase::AwaitingWelcome => Some(self.opened_at + HANDSHAKE_TIMEOUT),
            Phase::Open => {
                let renewal =
                    (!self.attempts.is_empty()).then(|| self.renewed_at + time(self.times.renew_ms));
                let dead = self.heard_at + time(self.times.dead_after_ms);
                let ping = self.pinged_at + time(self.times.ping_ms);
                Some(dead.min(ping)).into_iter().chain(renewal).min()
            }
        };
        lease.into_iter().chain(line).min()
    }

    fn opened(&mut self, now: Duration) {
        self.phase = Phase::AwaitingChallenge;
        (self.opened_at, self.heard_at, self.pinged_at, self.renewed_at) = (now, now, now, now);
        self.attempts.opened();
        self.told_credit = None;
        self.protocol_errors = 0;
        // A pause, or a drain by the control plane, belongs to the session that told it; it is told again.
        self.paused = false;
    }

    fn received(&mut self, now: Duration, message: ControlMessage, actions: &mut Vec<Action>) {
        use ControlMessage as M;
        match (self.phase, message) {
            (Phase::Closed, _) => {}
            (_, M::Goaway(goaway)) => self.goaway(goaway, actions),
            (_, M::Error(error)) => {
                tracing::warn!(
                    error.code = error.code,
                    error.message = error.message,
                    "the control plane did not understand a message"
                );
            }
            (Phase::AwaitingChallenge, M::Challenge(challenge)) => self.challenged(now, &challenge, actions),
            (Phase::AwaitingWelcome, M::Welcome(welcome)) => self.welcomed(now, welcome, actions),
            (Phase::Open, M::Offer(offer)) => self.offered(now, offer, actions),
            (Phase::Open, M::Renewed { attempts }) => self.attempts.answered(&attempts, actions),
            (Phase::Open, M::Cancel { attempt, reason }) => {
                tracing::info!(%attempt, reason, "cancelled by the control plane");
                self.attempts.cancel(&attempt, actions);
            }
            (Phase::Open, M::ResultAck { attempt, disposition }) => {
                self.acknowledged(&attempt, disposition, actions)
            }
            (Phase::Open, M::Pause { .. }) => self.paused = true,
            (Phase::Open, M::Resume {}) => self.paused = false,
            (Phase::Open, M::Drain { reason }) => {
                tracing::info!(reason, "no new tasks are taken until the control plane says so");
                self.paused = true;
            }
            (_, out_of_turn) => {
                let message = format!("this message does not belong here: {}", out_of_turn.name());
                self.not_understood(&ProtocolError { code: "out_of_turn".into(), message }, actions);
            }
        }
    }

    fn challenged(&mut self, now: Duration, challenge: &Challenge, actions: &mut Vec<Action>) {
        let Identity { agent_id, control_plane, key } = &self.identity;
        let payload = identity::hello_payload(control_plane, &challenge.session, &challenge.nonce, agent_id);
        let hello = Hello {
            agent_id: agent_id.clone(),
            origin: control_plane.clone(),
            signature: key.sign(&payload),
            name: self.profile.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            tags: self.profile.tags.clone(),
            max_tasks: self.profile.max_tasks,
            running: self.attempts.started(),
            unacknowledged: self.unacknowledged.clone(),
            lost: self.lost.clone(),
        };
        // It asks for the renewal of all that runs.
        self.attempts.asks(now);
        self.phase = Phase::AwaitingWelcome;
        actions.push(Action::Send(Box::new(AgentMessage::Hello(hello))));
    }

    fn welcomed(&mut self, now: Duration, welcome: Welcome, actions: &mut Vec<Action>) {
        tracing::info!(session = welcome.session, control_plane.version = welcome.version, "session is open");
        self.phase = Phase::Open;
        self.times = welcome.times;
        (self.pinged_at, self.renewed_at) = (now, now);
        self.attempts.answered(&welcome.attempts, actions);
        let told: Vec<_> = self.lost.drain(..).map(|lost| lost.attempt).collect();
        if !told.is_empty() {
            actions.push(Action::Forget(told));
        }
        actions.extend(self.unacknowledged.iter().cloned().map(Action::SendResult));
        if self.draining {
            self.send(AgentMessage::Drain { reason: STOPPING.to_owned() }, actions);
        }
    }

    fn offered(&mut self, now: Duration, offer: Offer, actions: &mut Vec<Action>) {
        let attempt = &offer.attempt;
        if attempt.task_id.len() > MAX_TASK_ID_BYTES {
            let message = format!("a task's identifier has {MAX_TASK_ID_BYTES} bytes at the most");
            return self.not_understood(&ProtocolError { code: "malformed".into(), message }, actions);
        }
        if self.unacknowledged.contains(attempt) {
            // The work is done already: the result answers the offer, whatever became of the acceptance.
            return actions.push(Action::SendResult(attempt.clone()));
        }
        if self.attempts.contains(attempt) {
            return self.send(AgentMessage::Accept(attempt.clone()), actions);
        }
        if self.free_slots() == 0 {
            return self.send(AgentMessage::Reject(attempts::busy(attempt.clone())), actions);
        }
        self.attempts.consider(attempt.clone(), now, Duration::from_millis(offer.lease_ms));
        self.considering = true;
        actions.push(Action::Consider(Box::new(offer)));
    }

    fn admitted(&mut self, now: Duration, attempt: AttemptId, effects: Effects, actions: &mut Vec<Action>) {
        self.considering = false;
        self.attempts.start(&attempt);
        if effects == Effects::None {
            // It only looks, and need not wait until the messages are written.
            self.attempts.run(&attempt, actions);
        }
        self.send(AgentMessage::Accept(attempt.clone()), actions);
        self.send(AgentMessage::Start(attempt.clone()), actions);
        // The offer may have been on its way for long. What has effects runs when the answer says that it is still ours;
        // where the line breaks before, the next welcome says so.
        if effects == Effects::Some && self.attempts.asks(now) {
            self.send(AgentMessage::Renew { attempts: vec![attempt] }, actions);
        }
    }

    fn finished(&mut self, result: AttemptResult, actions: &mut Vec<Action>) {
        // One that was lost has a successor elsewhere by now; its result would only be refused.
        if self.attempts.remove(&result.attempt) {
            self.recording = true;
            return actions.push(Action::Record(Box::new(result)));
        }
        actions.push(Action::Discard(result.attempt.clone()));
        actions.push(Action::Forget(vec![result.attempt]));
    }

    fn acknowledged(&mut self, attempt: &AttemptId, disposition: Disposition, actions: &mut Vec<Action>) {
        // What does not wait was acknowledged before, or was never said here: nothing of it is touched.
        if !self.unacknowledged.contains(attempt) {
            return;
        }
        if disposition == Disposition::Stale {
            tracing::warn!(%attempt, "the control plane did not count this result: the attempt was given away");
            actions.push(Action::Discard(attempt.clone()));
        }
        self.unacknowledged.retain(|waiting| waiting != attempt);
        actions.push(Action::Forget(vec![attempt.clone()]));
    }

    fn goaway(&mut self, goaway: Goaway, actions: &mut Vec<Action>) {
        let after = Duration::from_millis(goaway.reconnect_after_ms).min(LONGEST_TIME);
        self.phase = Phase::Closed;
        actions.push(Action::Close(match goaway.reason {
            GoawayReason::IdentityRefused => CloseReason::IdentityRefused(goaway.message),
            reason => CloseReason::Goaway(reason, after),
        }));
    }

    fn not_understood(&mut self, error: &ProtocolError, actions: &mut Vec<Action>) {
        tracing::warn!(
            error.code = error.code,
            error.message = error.message,
            "a message was not understood"
        );
        self.protocol_errors += 1;
        actions.push(Action::Send(Box::new(AgentMessage::Error(error.clone()))));
        if self.protocol_errors > MAX_PROTOCOL_ERRORS {
            self.phase = Phase::Closed;
            actions.push(Action::Close(CloseReason::Protocol));
        }
    }

    /// The operator's own wish, which the control plane's `resume` does not end.
    fn hold(&mut self, held: bool) {
        if std::mem::replace(&mut self.held, held) != held {
            tracing::info!("{}", if held { "paused: no new tasks are taken" } else { "resumed" });
        }
    }

    /// The operator's own wish: nothing takes it back.
    fn drain(&mut self, actions: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.draining, true) {
            tracing::info!("draining: no new tasks are taken");
            self.send(AgentMessage::Drain { reason: STOPPING.to_owned() }, actions);
        }
    }

    /// What is due because of the time: silence, pings, renewals, leases.
    fn keep_times(&mut self, now: Duration, actions: &mut Vec<Action>) {
        self.attempts.end_leases(now, actions);
        match self.phase {
            Phase::Closed => {}
            Phase::AwaitingChallenge | Phase::AwaitingWelcome => {
                if now >= self.opened_at + HANDSHAKE_TIMEOUT {
                    self.phase = Phase::Closed;
                    actions.push(Action::Close(CloseReason::Silence));
                }
            }
            Phase::Open if now >= self.heard_at + time(self.times.dead_after_ms) => {
                self.phase = Phase::Closed;
                actions.push(Action::Close(CloseReason::Silence));
            }
            Phase::Open => {
                if now >= self.pinged_at + time(self.times.ping_ms) {
                    self.pinged_at = now;
                    actions.push(Action::Ping);
                }
                if now >= self.renewed_at + time(self.times.renew_ms) {
                    self.renewed_at = now;
                    let attempts = self.attempts.started();
                    if !attempts.is_empty() && self.attempts.asks(now) {
                        self.send(AgentMessage::Renew { attempts }, actions);
                    }
                }
            }
        }
    }

    fn tell_credit(&mut self, actions: &mut Vec<Action>) {
        let slots = self.free_slots();
        let is_settled = !self.considering && !self.recording;
        if self.is_open() && is_settled && self.told_credit != Some(slots) {
            self.told_credit = Some(slots);
            self.send(AgentMessage::Credit { slots }, actions);
        }
    }

    fn free_slots(&self) -> u32 {
        if self.is_paused()
            || self.draining
            || !self.journal_works
            || self.unacknowledged.len() >= MAX_WAITING_RESULTS
        {
            return 0;
        }
        self.profile.max_tasks.saturating_sub(u32::try_from(self.attempts.occupied()).unwrap_or(u32::MAX))
    }

    /// Only an open session carries messages; what was missed is told by the next `hello`.
    fn send(&self, message: AgentMessage, actions: &mut Vec<Action>) {
        if self.is_open() {
            actions.push(Action::Send(Box::new(message)));
        }
    }
}

/// A duration that the control plane sent, within reason.
fn time(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds).clamp(SHORTEST_TIME, LONGEST_TIME)
}

#[cfg(test)]
#[path = "session/tests.rs"]
mod tests;
