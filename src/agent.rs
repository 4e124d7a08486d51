//! The daemon: a session, a runner and a journal, tied together by one loop.
//!
//! Below it: `line` (how the line comes and goes), `keep` (what goes to the disk first), `publish` (its status), and
//! `dialer` (the way out).
//!
//! The loop is the only owner of all three. It waits for the line, the runner, the clock and the operator's
//! signals, turns what comes into events of the session, and carries the session's actions out.

mod dialer;
mod keep;
mod line;
mod publish;

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sortie_protocol::AgentMessage;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::identity::Identity;
use crate::journal::{Journal, Store};
use crate::runner::{Runner, RunnerEvent, Work};
use crate::session::line::{Incoming, LineError};
use crate::session::transport::{Transport, Way};
use crate::session::{Action, Event, Profile, Session};
use crate::status::Board;
use crate::systemd::Notifier;
use crate::task::Tools;
pub use dialer::{ControlPlane, Dialer};

/// How long the last results may take to be acknowledged once everything has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How often the loop looks at the clock where nothing else is due.
const IDLE_TICK: Duration = Duration::from_secs(5);

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Go on with what runs, and take nothing new for now.
    Pause,
    /// Go on.
    Run,
    /// Finish what runs, take nothing new, then stop.
    Drain,
    /// Stop now.
    Stop,
}

/// How the daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything was finished and told.
    Drained,
    /// The operator did not want to wait, or the time for draining was over.
    Stopped,
}

/// What the daemon is made of.
pub struct Parts<S, W = Tools> {
    /// The way to where orders come from.
    pub way: Box<dyn Way>,
    /// What this agent tells of itself.
    pub profile: Profile,
    /// Who it is.
    pub identity: Identity,
    /// What does the work.
    pub runner: Runner<W>,
    /// What survives a crash.
    pub journal: Journal<S>,
    /// The word to systemd.
    pub notifier: Notifier,
    /// Where it tells what it is doing.
    pub board: Board,
    /// How long running tasks may go on once the daemon is to end.
    pub drain: Duration,
    /// Where chance comes from: numbers from 0 up to 1.
    pub jitter: Box<dyn FnMut() -> f64 + Send>,
}

/// The running daemon.
pub struct Agent<S, W = Tools> {
    way: Box<dyn Way>,
    session: Session,
    runner: Runner<W>,
    journal: Journal<S>,
    /// When the store is to be tried again that failed.
    store_retry: Option<Instant>,
    notifier: Notifier,
    board: Board,
    drain: Duration,
    jitter: Box<dyn FnMut() -> f64 + Send>,
    backoff: Backoff,
    started: Instant,
    line: Option<Box<dyn Transport>>,
    /// Whether the control plane has welcomed this agent over the line.
    is_welcome: bool,
    /// When the line was opened, and when it is to be tried again while there is none.
    opened: Instant,
    retry: Instant,
}

type Opening = BoxFuture<'static, Result<Box<dyn Transport>, LineError>>;

/// What woke the loop.
enum Woken {
    Incoming(Incoming),
    Opened(Result<Box<dyn Transport>, LineError>),
    Runner(RunnerEvent),
    Wish(Wish),
    Clock,
}

impl<S: Store, W: Work> Agent<S, W> {
    /// A daemon that has not connected yet.
    pub fn new(parts: Parts<S, W>) -> Self {
        let now = Instant::now();
        parts.board.update(|status| {
            status.agent_id = Some(parts.identity.agent_id.clone());
            status.control_plane = Some(parts.identity.control_plane.clone());
        });
        let (unacknowledged, lost) = (parts.journal.unacknowledged(), parts.journal.lost());
        let mut runner = parts.runner;
        // Nobody was told what these have made.
        lost.iter().for_each(|lost| runner.discard(&lost.attempt));
        let session = Session::new(parts.profile, parts.identity, unacknowledged, lost);
        Self {
            way: parts.way,
            session,
            runner,
            journal: parts.journal,
            store_retry: None,
            notifier: parts.notifier,
            board: parts.board,
            drain: parts.drain,
            jitter: parts.jitter,
            backoff: Backoff::default(),
            started: now,
            line: None,
            is_welcome: false,
            opened: now,
            retry: now,
        }
    }

    /// Runs until the operator wants it to end.
    pub async fn run(mut self, mut wishes: watch::Receiver<Wish>) -> Ended {
        let mut opening: Option<Opening> = None;
        let mut drain_by: Option<Instant> = None;
        loop {
            if opening.is_none() && self.opens_at().is_some_and(|at| Instant::now() >= at) {
                opening = Some(self.way.open());
            }
            let woken = self.wait(&mut opening, &mut wishes, drain_by).await;
            match woken {
                Woken::Incoming(incoming) => self.incoming(incoming).await,
                Woken::Opened(result) => {
                    opening = None;
                    self.opened(result).await;
                }
                Woken::Runner(RunnerEvent::Progressed(progress)) => {
                    self.feed(Event::Progressed(progress)).await
                }
                Woken::Runner(RunnerEvent::Finished(result)) => {
                    self.publish_end(&result);
                    self.feed(Event::Finished(result)).await;
                }
                Woken::Wish(Wish::Stop) => return self.stop().await,
                Woken::Wish(Wish::Drain) if drain_by.is_none() => {
                    self.notifier.stopping();
                    drain_by = Some(Instant::now() + self.drain + LAST_WORDS);
                    self.feed(Event::Drain).await;
                }
                Woken::Wish(Wish::Drain) => {}
                Woken::Wish(wish @ (Wish::Pause | Wish::Run)) => {
                    self.feed(Event::Hold(wish == Wish::Pause)).await;
                }
                Woken::Clock => {
                    self.retry_store().await;
                    self.feed(Event::Tick).await;
                }
            }
            self.publish();
            if let Some(by) = drain_by
                && let Some(ended) = self.drained(by).await
            {
                return ended;
            }
        }
    }

    async fn wait(
        &mut self,
        opening: &mut Option<Opening>,
        wishes: &mut watch::Receiver<Wish>,
        drain_by: Option<Instant>,
    ) -> Woken {
        let now = Instant::now();
        let mut wake = now + IDLE_TICK;
        wake = self.session.wake_at().map_or(wake, |at| wake.min(self.started + at));
        wake = self.store_retry.map_or(wake, |at| wake.min(at));
        wake = self.notifier.due().map_or(wake, |at| wake.min(at));
        if let Some(at) = drain_by {
            let last_words = at - LAST_WORDS;
            wake = wake.min(if now < last_words { last_words } else { at });
        }
        if opening.is_none() {
            wake = self.opens_at().map_or(wake, |at| wake.min(at));
        }
        tokio::select! {
            biased;
            changed = wishes.changed() => match changed {
                Ok(()) => Woken::Wish(*wishes.borrow_and_update()),
                // Whoever carried the operator's wishes is gone, which is the wish to end.
                Err(_) => Woken::Wish(Wish::Stop),
            },
            incoming = receive(&mut self.line) => Woken::Incoming(incoming),
            result = finish(opening) => Woken::Opened(result),
            event = self.runner.next() => Woken::Runner(event),
            () = tokio::time::sleep_until(wake) => Woken::Clock,
        }
    }

    /// Hands an event to the session and carries out what it says, until it has nothing more to say.
    async fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.session.handle(self.started.elapsed(), event) {
                self.carry_out(action, &mut events).await;
            }
        }
    }

    async fn carry_out(&mut self, action: Action, events: &mut VecDeque<Event>) {
        match action {
            Action::Send(message) => self.send(&message, events).await,
            Action::SendResult(attempt) => {
                if let Some(result) = self.journal.result(&attempt).cloned() {
                    self.send(&AgentMessage::Result(result), events).await;
                }
            }
            Action::Ping => {
                if let Some(line) = &mut self.line
                    && let Err(error) = line.ping().await
                {
                    events.push_back(self.dropped(&error));
                }
            }
            Action::Consider(offer) => {
                let event = match self.consider(&offer, events).await {
                    Ok(effects) => Event::Admitted(offer.attempt, effects),
                    Err(reject) => Event::Refused(reject),
                };
                events.push_back(event);
            }
            Action::Run(attempt) => self.runner.start(&attempt),
            Action::Stop(attempt, reason) => self.runner.stop(&attempt, reason),
            Action::Record(result) => {
                let attempt = result.attempt.clone();
                // Where it could not be kept it is sent all the same: only the end of this process would lose it.
                let kept = self.journal.record(*result).await;
                events.extend(self.stored(kept));
                events.push_back(Event::Recorded(attempt));
            }
            Action::Forget(attempts) => {
                let kept = self.journal.forget(&attempts).await;
                events.extend(self.stored(kept));
                self.runner.settle(&attempts);
            }
            Action::Discard(attempt) => self.runner.discard(&attempt),
            Action::Close(reason) => {
                self.close(&reason).await;
                events.push_back(Event::Closed);
            }
        }
    }

    async fn send(&mut self, message: &AgentMessage, events: &mut VecDeque<Event>) {
        self.publish_sent(message);
        if let Some(line) = &mut self.line
            && let Err(error) = line.send(message).await
        {
            events.push_back(self.dropped(&error));
        }
    }

    /// Looks whether draining is over: everything is told, or the time is.
    async fn drained(&mut self, by: Instant) -> Option<Ended> {
        if self.session.is_idle() {
            tracing::info!("drained");
            // What was lost before may still be cleaning up.
            self.runner.stop_all().await;
            if let Some(line) = self.line.take() {
                line.close().await;
            }
            return Some(Ended::Drained);
        }
        let now = Instant::now();
        if now >= by - LAST_WORDS && self.session.running() > 0 {
            tracing::warn!(
                running = self.session.running(),
                "the time for draining is over: tasks are stopped"
            );
            return Some(self.stop().await);
        }
        if now < by {
            return None;
        }
        tracing::warn!("the last results were not acknowledged in time");
        self.runner.stop_all().await;
        Some(Ended::Stopped)
    }

    /// Stops every task. What can still be told is told, so that the control plane gives the tasks to another
    /// agent at once and not only when their leases end.
    async fn stop(&mut self) -> Ended {
        self.notifier.stopping();
        self.runner.cancel_all();
        let until = Instant::now() + LAST_WORDS;
        while self.session.running() > 0 || (self.line.is_some() && !self.session.is_idle()) {
            let woken = tokio::select! {
                biased;
                // First: whoever is on the line must not be able to keep this from ending.
                () = tokio::time::sleep_until(until) => break,
                incoming = receive(&mut self.line) => Woken::Incoming(incoming),
                event = self.runner.next() => Woken::Runner(event),
            };
            match woken {
                Woken::Incoming(incoming) => self.incoming(incoming).await,
                Woken::Runner(RunnerEvent::Finished(result)) => self.feed(Event::Finished(result)).await,
                _ => {}
            }
        }
        self.runner.stop_all().await;
        if let Some(line) = self.line.take() {
            line.close().await;
        }
        Ended::Stopped
    }
}

async fn receive(line: &mut Option<Box<dyn Transport>>) -> Incoming {
    match line {
        Some(line) => line.receive().await,
        None => std::future::pending().await,
    }
}

async fn finish(opening: &mut Option<Opening>) -> Result<Box<dyn Transport>, LineError> {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "agent/tests.rs"]
mod tests;
