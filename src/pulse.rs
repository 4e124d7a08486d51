//! Whether the daemon works, judged by what it has done and not by a timer.
//!
//! The agent's loop notes here what has happened, and one pure function says what is stuck. Readiness and systemd's
//! watchdog both go by it. It must not call what is merely away stuck: a restart ends the tasks that run, so that a
//! control plane that is down for an hour, or that refuses this agent, is no reason for one. A try to connect that
//! ends in an error has shown that the agent does its part.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

/// How long ago the loop may have come around last. It does so every 5 s at the latest, and a write to a line that
/// takes nothing holds it up for 5 s more.
pub const LOOP_LIMIT: Duration = Duration::from_secs(20);

/// How much later than is due the loop may give a silent line up.
pub const LINE_GRACE: Duration = Duration::from_secs(15);

/// How long after it is due a try to connect may take. Lookup, proxy, connection, TLS and the opening of a session each have limits
/// of their own, which come to about half of this.
pub const OPENING_LIMIT: Duration = Duration::from_secs(150);

/// How long after its deadline an attempt may still be at work. It stops within a second; removing what it made of a
/// large repository takes longer.
pub const RUNNER_GRACE: Duration = Duration::from_secs(120);

/// How long the threads for blocking work may owe an answer.
pub const POOL_LIMIT: Duration = Duration::from_secs(120);

/// How often these threads are asked.
const POOL_INTERVAL: Duration = Duration::from_secs(5);

/// What the loop has done and is about to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pulse {
    /// When the loop came around last; `None` before it has begun.
    pub turned: Option<Instant>,
    /// What it is at with its line to the control plane.
    pub line: LineState,
    /// The earliest deadline of the attempts that run.
    pub deadline: Option<Instant>,
    /// Since when the threads for blocking work owe an answer.
    pub pool_asked: Option<Instant>,
}

/// What the loop is at with its line to the control plane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LineState {
    /// It has not begun.
    #[default]
    Idle,
    /// There is none. It is tried, or will be, from this time on; a try that ends without one sets another time.
    Away {
        /// When the try begins.
        due: Instant,
    },
    /// There is one.
    Open {
        /// When anything came over it the last time, its opening included.
        exchanged: Instant,
        /// After how much silence the session gives it up.
        dead_after: Duration,
    },
}

/// What does not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// The agent's loop.
    Loop,
    /// The line to the control plane: it is silent and not given up, or it is neither opened nor tried again.
    Line,
    /// The runner: an attempt is far over its deadline and has not ended.
    Runner,
    /// The threads for blocking work: none of them has been free for long.
    Pool,
}

impl Stuck {
    /// The word for it in `/readyz` and in `sortie status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loop => "loop_stuck",
            Self::Line => "line_stuck",
            Self::Runner => "runner_stuck",
            Self::Pool => "pool_stuck",
        }
    }
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Loop => "the agent's loop does not come around",
            Self::Line => "the line to the control plane is neither used, nor given up, nor tried again",
            Self::Runner => "an attempt is far over its deadline and has not ended",
            Self::Pool => "no thread for blocking work has been free for long",
        })
    }
}

impl Pulse {
    /// Whether the loop came around lately. Before it has begun, nothing is expected of it.
    pub fn is_alive(&self, now: Instant) -> bool {
        self.turned.is_none_or(|turned| now <= turned + LOOP_LIMIT)
    }

    /// What is stuck at this time, if anything is.
    pub fn stuck(&self, now: Instant) -> Option<Stuck> {
        let is_over = |limit: Option<Instant>| limit.is_some_and(|limit| now > limit);
        if !self.is_alive(now) {
            return Some(Stuck::Loop);
        }
        let line_limit = match self.line {
            LineState::Idle => None,
            LineState::Away { due } => Some(due + OPENING_LIMIT),
            LineState::Open { exchanged, dead_after } => Some(exchanged + dead_after + LINE_GRACE),
        };
        if is_over(line_limit) {
            return Some(Stuck::Line);
        }
        if is_over(self.deadline.map(|deadline| deadline + RUNNER_GRACE)) {
            return Some(Stuck::Runner);
        }
        is_over(self.pool_asked.map(|asked| asked + POOL_LIMIT)).then_some(Stuck::Pool)
    }
}

/// Asks the runtime's threads for blocking work, for ever, whether one of them is free, and tells since when an answer
/// is owed.
pub async fn ask_pool(tell: impl Fn(Option<Instant>)) {
    let mut interval = tokio::time::interval(POOL_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        tell(Some(Instant::now()));
        let answered = tokio::task::spawn_blocking(|| ()).await;
        if answered.is_ok() {
            tell(None);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const DEAD_AFTER: Duration = Duration::from_secs(30);

    /// A loop that has just come around, with nothing else to judge.
    fn turning(now: Instant, line: LineState) -> Pulse {
        Pulse { turned: Some(now), line, deadline: None, pool_asked: None }
    }

    #[test]
    fn a_daemon_that_has_not_begun_is_not_stuck() {
        assert_eq!(Pulse::default().stuck(Instant::now()), None);
    }

    #[test]
    fn a_loop_that_hangs_is_stuck_whatever_else_is_well() {
        let begun = Instant::now();
        let mut pulse = turning(begun, LineState::Open { exchanged: begun, dead_after: DEAD_AFTER });
        pulse.turned = Some(begun);
        assert_eq!(pulse.stuck(begun + LOOP_LIMIT), None);
        assert_eq!(pulse.stuck(begun + LOOP_LIMIT + SECOND), Some(Stuck::Loop));
    }

    #[test]
    fn a_line_is_stuck_when_it_is_silent_and_was_not_given_up() {
        let begun = Instant::now();
        let at = |after: Duration| {
            let line = LineState::Open { exchanged: begun, dead_after: DEAD_AFTER };
            turning(begun + after, line).stuck(begun + after)
        };
        // The session gives it up after `dead_after`, and not a moment before is anything wrong.
        assert_eq!(at(DEAD_AFTER), None);
        assert_eq!(at(DEAD_AFTER + LINE_GRACE), None);
        assert_eq!(at(DEAD_AFTER + LINE_GRACE + SECOND), Some(Stuck::Line));
    }

    #[test]
    fn a_control_plane_that_is_away_for_an_hour_is_no_reason_for_a_restart() {
        let mut now = Instant::now();
        let end = now + Duration::from_secs(3600);
        while now < end {
            // The longest wait that there is between two tries, and a try that takes its time.
            let line = LineState::Away { due: now + crate::backoff::SLOW_PROBE };
            assert_eq!(turning(now, line).stuck(now), None);
            now += crate::backoff::SLOW_PROBE + Duration::from_secs(70);
            assert_eq!(turning(now, line).stuck(now), None);
        }
    }

    #[test]
    fn a_try_that_does_not_end_and_one_that_is_not_made_are_stuck() {
        let due = Instant::now();
        let late = due + OPENING_LIMIT;
        assert_eq!(turning(late, LineState::Away { due }).stuck(late), None);
        let late = late + SECOND;
        assert_eq!(turning(late, LineState::Away { due }).stuck(late), Some(Stuck::Line));
    }

    #[test]
    fn an_attempt_that_does_not_end_and_a_pool_that_does_not_answer_are_stuck() {
        let begun = Instant::now();
        let line = |now| LineState::Away { due: now };
        let overdue = |now| Pulse { deadline: Some(begun), ..turning(now, line(now)) }.stuck(now);
        assert_eq!(overdue(begun + RUNNER_GRACE), None);
        assert_eq!(overdue(begun + RUNNER_GRACE + SECOND), Some(Stuck::Runner));
        let owed = |now| Pulse { pool_asked: Some(begun), ..turning(now, line(now)) }.stuck(now);
        assert_eq!(owed(begun + POOL_LIMIT), None);
        assert_eq!(owed(begun + POOL_LIMIT + SECOND), Some(Stuck::Pool));
    }

    #[test]
    fn a_pool_without_a_free_thread_owes_an_answer_until_one_is_free() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (release, held) = std::sync::mpsc::sync_channel::<()>(0);
            let holding = tokio::task::spawn_blocking(move || held.recv());
            let (told, mut telling) = tokio::sync::mpsc::channel(4);
            let mut asking = tokio::task::JoinSet::new();
            asking.spawn(ask_pool(move |since| told.try_send(since).unwrap()));
            assert!(telling.recv().await.unwrap().is_some());
            tokio::time::timeout(SECOND / 10, telling.recv()).await.expect_err("the thread is taken");
            release.send(()).unwrap();
            holding.await.unwrap().unwrap();
            assert_eq!(telling.recv().await.unwrap(), None, "it answered");
        });
    }
}
