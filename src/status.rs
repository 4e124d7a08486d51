//! What the running daemon is doing, as `sortie status` tells it: a snapshot that the agent's loop publishes.
//!
//! Nothing here is secret. What a control plane or a git server said is bounded and stripped of control characters
//! before it comes here.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::pulse::{Pulse, Stuck};

/// The name of the form that `sortie status --json` prints.
pub const SCHEMA: &str = "sortie.status.v1";

/// How many attempts that have ended are remembered.
const RECENT_ATTEMPTS: usize = 20;

/// How many reasons for having no connection are remembered.
const RECENT_ERRORS: usize = 5;

/// The most characters of a text that came from elsewhere.
const MAX_TEXT_CHARS: usize = 300;

/// What the daemon is doing.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The identifier that the control plane gave; `None` before the agent is enrolled.
    pub agent_id: Option<String>,
    /// The base URL of the control plane.
    pub control_plane: Option<String>,
    /// Since when a session is open; `None` while there is none.
    pub connected: Option<Moment>,
    /// When anything was heard from the control plane, a heartbeat for example.
    pub heard: Option<Instant>,
    /// What carries the session; `None` while there is none.
    pub transport: Option<&'static str>,
    /// After how much silence the line is given up.
    pub dead_after: Duration,
    /// Why there was no connection the last few times, and when, the latest first.
    pub errors: VecDeque<(Moment, String)>,
    /// Whether the journal cannot be written, so that nothing new is taken.
    pub journal_fails: bool,
    /// Whether the control plane refused this agent's identity the last time.
    pub identity_refused: bool,
    /// Whether new tasks are taken.
    pub mode: Mode,
    /// What runs.
    pub attempts: Vec<Attempt>,
    /// How many results wait for their acknowledgment.
    pub results_waiting: usize,
    /// What has ended, the latest first.
    pub recent: VecDeque<Ended>,
    /// What readiness and the watchdog go by.
    pub pulse: Pulse,
    /// What was counted since the daemon started.
    pub counters: Counters,
}

/// What is counted from the daemon's start on. Every label is one of a closed list, so that it stays small.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Attempts that have ended, by the kind of the task and the outcome.
    pub ended: BTreeMap<(&'static str, &'static str), u64>,
    /// The same by the code of the diagnosis, where there was one.
    pub diagnoses: BTreeMap<&'static str, u64>,
    /// Sessions that were open.
    pub sessions: u64,
    /// What was told as an error: a session that could not be opened or was ended from without, or a journal that
    /// could not be written.
    pub errors: u64,
    /// Messages of the control plane that were not understood.
    pub protocol_errors: u64,
    /// Bytes that clones received from git servers.
    pub clone_bytes: u64,
}

impl Counters {
    /// Sessions that were opened after the first one.
    pub fn reconnects(&self) -> u64 {
        self.sessions.saturating_sub(1)
    }
}

/// A moment by the calendar and by the clock that no one sets.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the calendar.
    pub at: OffsetDateTime,
    /// By the clock that only goes forward.
    pub instant: Instant,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self { at: OffsetDateTime::now_utc(), instant: Instant::now() }
    }
}

/// Whether new tasks are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    #[default]
    Running,
    /// The control plane has paused or drained this agent, or the operator has paused it.
    Paused,
    /// The daemon finishes what runs and ends.
    Draining,
}

impl Mode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Draining => "draining",
        }
    }
}

/// An attempt that runs.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The task's identifier.
    pub task: String,
    /// The attempt's number.
    pub number: u32,
    /// The kind of the task.
    pub kind: &'static str,
    /// The URL, or the server with project and repository.
    pub target: String,
    /// The stage that runs.
    pub stage: Option<&'static str>,
    /// When it began.
    pub started: Instant,
    /// When it must end.
    pub deadline: Instant,
}

/// An attempt that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What it was.
    pub attempt: Attempt,
    /// When it ended.
    pub at: OffsetDateTime,
    /// How long it took.
    pub duration: Duration,
    /// `succeeded`, `failed` or `cancelled`.
    pub outcome: &'static str,
    /// The code of its diagnosis.
    pub diagnosis: Option<String>,
}

/// Where the loop publishes its status. Readers never hold it up. A clone is the same board.
#[derive(Debug, Clone)]
pub struct Board(watch::Sender<Status>);

impl Board {
    /// A board with nothing on it, and its first reader.
    pub fn new() -> (Self, watch::Receiver<Status>) {
        let (sender, receiver) = watch::channel(Status::default());
        (Self(sender), receiver)
    }

    /// Changes what stands there.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        self.0.send_modify(change);
    }

    /// Reads from what stands there.
    pub fn read<T>(&self, look: impl FnOnce(&Status) -> T) -> T {
        look(&self.0.borrow())
    }

    /// Notes why there is no connection. The text may hold what the control plane said.
    pub fn trouble(&self, text: &str) {
        let told = (Moment::now(), shown(text));
        self.update(|status| {
            status.errors.truncate(RECENT_ERRORS - 1);
            status.errors.push_front(told);
            status.counters.errors += 1;
        });
    }

    /// Notes that an attempt has ended.
    pub fn ended(&self, ended: Ended) {
        self.update(|status| {
            status.recent.truncate(RECENT_ATTEMPTS - 1);
            status.recent.push_front(ended);
        });
    }
}

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub struct Daemon {
    /// Its name.
    pub name: String,
    /// Its own tags.
    pub tags: Vec<String>,
    /// How many attempts it runs at once.
    pub max_tasks: u32,
    /// Where it keeps its state.
    pub state_dir: String,
    /// Tells whether a file still says what this daemon goes by.
    pub configuration: String,
    /// When it started.
    pub started: Moment,
}

#[cfg(test)]
impl Daemon {
    /// One for tests of what is told.
    pub(crate) fn of_tests() -> Self {
        Self {
            name: "a".to_owned(),
            tags: Vec::new(),
            max_tasks: 4,
            state_dir: "/nonexistent".to_owned(),
            configuration: String::new(),
            started: Moment::now(),
        }
    }
}

impl Status {
    /// What is missing for tasks to be carried out at this time, each by its word; nothing where the daemon is ready.
    pub fn missing(&self, now: Instant) -> Vec<&'static str> {
        let is_open = self.connected.is_some();
        let is_silent = self.heard.is_none_or(|heard| now > heard + self.dead_after);
        [
            (!is_open, "no_session"),
            (is_open && is_silent, "silent"),
            (self.identity_refused, "identity_refused"),
            (self.mode == Mode::Draining, "draining"),
            (self.journal_fails, "journal_fails"),
        ]
        .into_iter()
        .filter_map(|(is_missing, word)| is_missing.then_some(word))
        .chain(self.pulse.stuck(now).map(Stuck::as_str))
        .collect()
    }

    /// The status as `sortie status --json` prints it, with the times of this moment.
    pub fn to_json(&self, daemon: &Daemon) -> Value {
        let now = Instant::now();
        let seconds = |since: Instant| rounded(now.saturating_duration_since(since));
        let attempts: Vec<_> = self.attempts.iter().map(|attempt| attempt.to_json(now)).collect();
        let recent: Vec<_> = self.recent.iter().map(Ended::to_json).collect();
        let errors: Vec<_> = self.errors.iter().map(error_to_json).collect();
        let missing = self.missing(now);
        json!({
            "schema": SCHEMA,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "started_at": timestamp(daemon.started.at),
            "uptime_seconds": seconds(daemon.started.instant),
            "state_dir": daemon.state_dir,
            "configuration": daemon.configuration,
            "mode": self.mode.as_str(),
            "readiness": { "ready": missing.is_empty(), "reasons": missing },
            "agent": { "id": self.agent_id, "name": daemon.name, "tags": daemon.tags },
            "control_plane": {
                "url": self.control_plane,
                "connected": self.connected.is_some(),
                "connected_since": self.connected.map(|moment| timestamp(moment.at)),
                "connected_seconds": self.connected.map(|moment| seconds(moment.instant)),
                "heard_seconds_ago": self.heard.map(seconds),
                "transport": self.transport,
                "identity_refused": self.identity_refused,
                "reconnects": self.counters.reconnects(),
                "last_error": errors.first(),
                "errors": errors,
            },
            "slots": { "total": daemon.max_tasks, "used": self.attempts.len() },
            "attempts": attempts,
            "results_waiting": self.results_waiting,
            "recent": recent,
        })
    }
}

fn error_to_json((moment, message): &(Moment, String)) -> Value {
    json!({ "at": timestamp(moment.at), "message": message })
}

impl Attempt {
    fn to_json(&self, now: Instant) -> Value {
        json!({
            "task": shown(&self.task),
            "attempt": self.number,
            "kind": self.kind,
            "target": shown(&self.target),
            "stage": self.stage,
            "seconds": rounded(now.saturating_duration_since(self.started)),
        })
    }
}

impl Ended {
    fn to_json(&self) -> Value {
        json!({
            "task": shown(&self.attempt.task),
            "attempt": self.attempt.number,
            "kind": self.attempt.kind,
            "target": shown(&self.attempt.target),
            "outcome": self.outcome,
            "diagnosis": self.diagnosis,
            "ended_at": timestamp(self.at),
            "seconds": rounded(self.duration),
        })
    }
}

/// A text that may have come from elsewhere, without control characters and of a bounded length.
fn shown(text: &str) -> String {
    let plain = text.chars().filter(|c| !c.is_control());
    plain.take(MAX_TEXT_CHARS).collect()
}

/// Seconds to a tenth.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

/// RFC 3339 in UTC, to the second.
pub(crate) fn timestamp(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(task: &str) -> Attempt {
        Attempt {
            task: task.to_owned(),
            number: 1,
            kind: "clone",
            target: "https://git.example/x".to_owned(),
            stage: None,
            started: Instant::now(),
            deadline: Instant::now(),
        }
    }

    #[test]
    fn what_has_ended_is_remembered_within_bounds_and_the_latest_first() {
        let (board, reader) = Board::new();
        for number in 0..RECENT_ATTEMPTS + 5 {
            let (at, duration) = (OffsetDateTime::UNIX_EPOCH, Duration::ZERO);
            let attempt = attempt(&number.to_string());
            board.ended(Ended { attempt, at, duration, outcome: "succeeded", diagnosis: None });
        }
        let status = reader.borrow();
        assert_eq!(status.recent.len(), RECENT_ATTEMPTS);
        assert_eq!(status.recent[0].attempt.task, (RECENT_ATTEMPTS + 4).to_string());
    }

    #[test]
    fn what_others_said_is_stripped_and_shortened() {
        let (board, reader) = Board::new();
        board.trouble(&format!("\x1b[31m{}", "x".repeat(10_000)));
        let status = reader.borrow();
        let message = status.errors.front().map(|(_, text)| text.as_str()).unwrap_or_default();
        assert_eq!((message.starts_with("[31mx"), message.chars().count()), (true, MAX_TEXT_CHARS));
    }

    #[test]
    fn the_last_errors_are_remembered_within_bounds_and_the_latest_first() {
        let (board, reader) = Board::new();
        for number in 0..RECENT_ERRORS + 2 {
            board.trouble(&number.to_string());
        }
        let status = reader.borrow();
        assert_eq!(status.errors.len(), RECENT_ERRORS);
        assert_eq!(status.errors[0].1, (RECENT_ERRORS + 1).to_string());
        assert_eq!(status.counters.errors, RECENT_ERRORS as u64 + 2);
    }

    #[test]
    fn readiness_takes_a_session_in_which_something_was_heard_lately() {
        let now = Instant::now();
        let dead_after = Duration::from_secs(30);
        let ready = Status {
            connected: Some(Moment::now()),
            heard: Some(now),
            dead_after,
            pulse: Pulse { turned: Some(now + dead_after * 2), ..Pulse::default() },
            ..Status::default()
        };
        assert_eq!(ready.missing(now + dead_after), Vec::<&str>::new());
        assert_eq!(ready.missing(now + dead_after + Duration::from_millis(1)), ["silent"]);
        assert_eq!(Status { connected: None, ..ready.clone() }.missing(now), ["no_session"]);
        assert_eq!(Status { mode: Mode::Draining, ..ready.clone() }.missing(now), ["draining"]);
        assert_eq!(Status { journal_fails: true, ..ready.clone() }.missing(now), ["journal_fails"]);
        // A pause is somebody's wish: they know, and nothing is wrong here.
        assert_eq!(Status { mode: Mode::Paused, ..ready.clone() }.missing(now), Vec::<&str>::new());
        let refused = Status { connected: None, identity_refused: true, ..ready.clone() };
        assert_eq!(refused.missing(now), ["no_session", "identity_refused"]);
        let mut hanging = ready;
        hanging.pulse.turned = Some(now - crate::pulse::LOOP_LIMIT * 2);
        assert_eq!(hanging.missing(now), ["loop_stuck"]);
    }
}
