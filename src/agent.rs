//! The daemon: a session, a runner and a journal, tied together by one loop.
//!
//! The loop is the only owner of all three. It waits for the line, the runner, the clock and the operator's
//! signals, turns what comes into events of the session, and carries the session's actions out.

mod publish;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sortie_protocol::AgentMessage;
use sortie_protocol::message::{GoawayReason, Offer, Reject, RejectReason};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backoff::{self, Backoff, SLOW_PROBE};
use crate::dial::{Destination, Door};
use crate::identity::Identity;
use crate::journal::{Durability, Journal, Store, StoreError};
use crate::remote_url::RemoteUrl;
use crate::runner::{Runner, RunnerEvent, Work};
use crate::session::choice::{Choice, Kind};
use crate::session::line::{Incoming, LineError};
use crate::session::long_poll::LongPoll;
use crate::session::transport::{Transport, Way};
use crate::session::websocket::WebSocket;
use crate::session::{Action, CloseReason, Effects, Event, Profile, Session};
use crate::status::Board;
use crate::systemd::Notifier;
use crate::task::Tools;

/// How long the last results may take to be acknowledged once everything has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long until a journal that could not be written is tried again.
const STORE_RETRY: Duration = Duration::from_secs(5);

/// How often the loop looks at the clock where nothing else is due.
const IDLE_TICK: Duration = Duration::from_secs(5);

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
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

/// Where the control plane is.
#[derive(Clone)]
pub struct ControlPlane {
    /// Its base URL.
    pub url: RemoteUrl,
    /// How it is reached.
    pub destination: Destination,
}

/// The way to a control plane through the door, by a WebSocket or, where none passes, by long polling.
pub struct Dialer {
    door: Arc<Door>,
    control_plane: ControlPlane,
    choice: Choice,
    started: Instant,
}

impl Dialer {
    /// A way that has not been gone yet.
    pub fn new(door: Arc<Door>, control_plane: ControlPlane) -> Self {
        Self { door, control_plane, choice: Choice::default(), started: Instant::now() }
    }
}

impl Way for Dialer {
    fn open(&self) -> Opening {
        let (door, destination) = (Arc::clone(&self.door), self.control_plane.destination.clone());
        let url = self.control_plane.url.clone();
        match self.choice.next() {
            Kind::WebSocket => Box::pin(async move {
                let line = WebSocket::open(&door, &destination, &url).await?;
                Ok(Box::new(line) as Box<dyn Transport>)
            }),
            Kind::LongPolling => Box::pin(async move {
                let line = LongPoll::open(&door, &destination, &url).await?;
                Ok(Box::new(line) as Box<dyn Transport>)
            }),
        }
    }

    fn opened(&mut self, result: Result<Kind, &LineError>) {
        let (tried, now) = (self.choice.next(), self.started.elapsed());
        match result {
            Ok(kind) => self.choice.opened(kind, now),
            Err(error) => self.choice.failed(tried, error.said(), now),
        }
        if tried == Kind::WebSocket && self.choice.next() == Kind::LongPolling {
            tracing::warn!("WebSockets do not pass: long polling is tried next");
        }
    }

    fn ended(&mut self) {
        self.choice.ended();
    }

    fn probe_at(&self) -> Option<Instant> {
        self.choice.probe_at().map(|at| self.started + at)
    }
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
                Woken::Wish(_) => {}
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

    /// When a line is to be opened: where there is none, or where another one is to be tried beside it.
    fn opens_at(&self) -> Option<Instant> {
        if self.line.is_none() { Some(self.retry) } else { self.way.probe_at() }
    }

    async fn opened(&mut self, result: Result<Box<dyn Transport>, LineError>) {
        self.way.opened(result.as_ref().map(|line| line.kind()));
        match result {
            Ok(line) => {
                self.opened = Instant::now();
                let transport = line.kind().as_str();
                if self.line.replace(line).is_some() {
                    // The session before is superseded by this one, which takes up what it had.
                    tracing::info!(transport, "a better way to the control plane is open");
                    self.feed(Event::Closed).await;
                } else {
                    tracing::debug!(transport, "the line is open");
                }
                self.feed(Event::Opened).await;
            }
            Err(error) if self.line.is_some() => {
                tracing::info!(%error, "there is no better way to the control plane yet");
            }
            Err(error) => {
                let wait = error.retry_after() + self.backoff.next((self.jitter)());
                tracing::warn!(%error, retry_in_ms = wait.as_millis() as u64, "no connection to the control plane");
                self.board.trouble(&error.to_string());
                self.retry = Instant::now() + wait;
            }
        }
    }

    async fn incoming(&mut self, incoming: Incoming) {
        if !matches!(incoming, Incoming::Closed) {
            self.publish_heard();
        }
        match incoming {
            Incoming::Message(message) => self.feed(Event::Received(message)).await,
            Incoming::NotUnderstood(error) => self.feed(Event::NotUnderstood(error)).await,
            Incoming::Alive => self.feed(Event::Heard).await,
            Incoming::Closed => self.lost("the connection to the control plane was cut").await,
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
                    && line.ping().await.is_err()
                {
                    events.push_back(self.dropped());
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
            }
            Action::Discard(attempt) => self.runner.discard(&attempt),
            Action::Close(reason) => {
                self.close(&reason).await;
                events.push_back(Event::Closed);
            }
        }
    }

    /// Decides about an offer: the journal first, because nothing is done twice, then the runner. What is taken is
    /// kept before anybody hears of it.
    async fn consider(
        &mut self,
        offer: &Offer,
        events: &mut VecDeque<Event>,
    ) -> Result<Effects, Box<Reject>> {
        let attempt = &offer.attempt;
        let reject = |reason| {
            let attempt = attempt.clone();
            Box::new(Reject { attempt, retryable: true, reason, diagnosis: None, result: None })
        };
        if self.journal.has_taken(attempt) {
            tracing::warn!(%attempt, "an attempt was offered again that was taken before");
            return Err(reject(RejectReason::Duplicate));
        }
        let effects = self.runner.admit(offer)?;
        let durability = match effects {
            // An attempt that is not listed after a power failure is one that was lost, which is what it is.
            Effects::None => Durability::Process,
            Effects::Some => Durability::Disk,
        };
        let kept = self.journal.begin(attempt, durability).await;
        if kept.is_err() {
            self.runner.dismiss(attempt);
        }
        let is_kept = kept.is_ok();
        events.extend(self.stored(kept));
        if is_kept { Ok(effects) } else { Err(reject(RejectReason::Busy)) }
    }

    /// Takes note of whether the journal could be written, and tells the session where that has changed.
    fn stored(&mut self, kept: Result<(), StoreError>) -> Option<Event> {
        let did_work = self.store_retry.is_none();
        let works = kept.is_ok();
        self.store_retry = (!works).then(|| Instant::now() + STORE_RETRY);
        match kept {
            Err(error) if did_work => {
                tracing::error!(%error, "no new tasks are taken until the journal can be written");
                self.board.trouble(&error.to_string());
            }
            Ok(()) if !did_work => tracing::info!("the journal can be written again"),
            _ => {}
        }
        (did_work != works).then_some(Event::Journal { works })
    }

    async fn retry_store(&mut self) {
        if self.store_retry.is_some_and(|at| Instant::now() >= at) {
            let kept = self.journal.catch_up().await;
            if let Some(event) = self.stored(kept) {
                self.feed(event).await;
            }
        }
    }

    async fn send(&mut self, message: &AgentMessage, events: &mut VecDeque<Event>) {
        self.publish_sent(message);
        if let Some(line) = &mut self.line
            && line.send(message).await.is_err()
        {
            events.push_back(self.dropped());
        }
    }

    /// The line broke while something was written to it.
    fn dropped(&mut self) -> Event {
        self.line = None;
        self.wait_before_retry(Duration::ZERO);
        Event::Closed
    }

    async fn lost(&mut self, what: &str) {
        self.line = None;
        let retry_within_ms = self.wait_before_retry(Duration::ZERO).as_millis() as u64;
        let retry_in_ms = self.retry.saturating_duration_since(Instant::now()).as_millis() as u64;
        tracing::warn!(
            retry_in_ms,
            retry_within_ms,
            running = self.session.running(),
            "{what}; running tasks go on"
        );
        self.board.trouble(what);
        self.feed(Event::Closed).await;
    }

    async fn close(&mut self, reason: &CloseReason) {
        self.publish_close(reason);
        match reason {
            CloseReason::IdentityRefused(message) => {
                tracing::error!(
                    message,
                    retry_in_s = SLOW_PROBE.as_secs(),
                    "the control plane refuses this agent's identity; enroll again, or have it allowed there"
                );
                self.way.ended();
                self.retry = Instant::now() + SLOW_PROBE;
            }
            CloseReason::Goaway(GoawayReason::Superseded, _) => {
                tracing::error!("another agent with this identity connected: is the state directory copied?");
                self.wait_before_retry(backoff::LAST_WINDOW);
            }
            CloseReason::Goaway(goaway, after) => {
                tracing::info!(reason = ?goaway, "the control plane ended the session");
                self.wait_before_retry(*after);
            }
            CloseReason::Silence => {
                tracing::warn!("the control plane is silent: the connection is closed");
                self.wait_before_retry(Duration::ZERO);
            }
            CloseReason::Protocol => {
                tracing::error!("the control plane does not keep to the protocol: the connection is closed");
                self.wait_before_retry(Duration::ZERO);
            }
        }
        if let Some(line) = self.line.take() {
            line.close().await;
        }
    }

    /// Says when the next try is, and returns the window that was drawn from.
    fn wait_before_retry(&mut self, at_least: Duration) -> Duration {
        self.way.ended();
        self.backoff.session_ended(self.opened.elapsed());
        let window = self.backoff.window();
        self.retry = Instant::now() + at_least + self.backoff.next((self.jitter)());
        window
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
                incoming = receive(&mut self.line) => Woken::Incoming(incoming),
                event = self.runner.next() => Woken::Runner(event),
                () = tokio::time::sleep_until(until) => break,
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
