//! The engine: carries out what the dispatcher decides.
//!
//! One task owns the dispatcher. It takes commands from a bounded channel, hands them in as events, commits
//! what the dispatcher wants durable, many commands in one transaction, and only then sends, acknowledges
//! and answers. Where a commit fails, or the dispatcher panics, memory and store may differ: the engine
//! drops its state, ends the sessions, and starts anew from the store, as after a restart of the process.
//!
//! Dropping it at any point is like killing the process: what was committed stands, and the rest was promised
//! to nobody.

mod batch;
mod command;
mod ledger;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use sortie_protocol::message::{ControlMessage, Goaway, GoawayReason};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::dispatch::{Dispatcher, Event, Transition};
use crate::server::come_back_after;
use crate::settings::{Limits, Times};
use crate::store::{Millis, StoreError};

use batch::Batch;
use command::Command;
pub use command::{ConnectedAgent, EngineHandle, Gone, NewTask, Posting, TaskChange, TaskEvent};
pub use ledger::{Ledger, Stamp};

/// What the engine hands to a session to be written.
#[derive(Debug)]
pub enum Outbound {
    /// A message.
    Message(Box<ControlMessage>),
    /// The end of the session.
    Close(Goaway),
}

struct Session {
    /// Counts sessions, for an order that is the same in every run.
    number: u64,
    outbound: mpsc::Sender<Outbound>,
    connected_at: Millis,
}

/// The owner of the dispatcher.
struct Engine<L> {
    ledger: L,
    times: Times,
    limits: Limits,
    started: Instant,
    /// How long the ledger had been in use at `started`; known once it has been read.
    elapsed_before: Option<Duration>,
    /// When the ledger got its last stamp.
    stamped: Instant,
    /// When the last commit was, by the clock of the wall.
    committed_at: Millis,
    dispatcher: Dispatcher,
    sessions: BTreeMap<String, Session>,
    session_count: u64,
    /// Events that follow from what was just carried out.
    pending: VecDeque<Event>,
    /// Transitions that wait for the next commit, and since when. Nobody was told of them.
    deferred: Vec<Transition>,
    deferred_at: Instant,
    /// When completed tasks are to be pruned next.
    prune_at: Instant,
    /// A command that must see the commit of the one before it.
    held: Option<Command>,
    events: broadcast::Sender<TaskEvent>,
    ready: watch::Sender<bool>,
}

/// Starts the engine. It ends when `stop` is cancelled; whoever holds the join handle waits for that.
pub fn start<L: Ledger>(
    ledger: L,
    times: Times,
    limits: Limits,
    stop: CancellationToken,
) -> (EngineHandle, JoinHandle<()>) {
    let (handle, engine) = prepare(ledger, times, limits, stop);
    (handle, tokio::spawn(engine))
}

/// The engine as a future, and the way to it. To drop the future is to kill the engine.
pub fn prepare<L: Ledger>(
    ledger: L,
    times: Times,
    limits: Limits,
    stop: CancellationToken,
) -> (EngineHandle, impl Future<Output = ()> + Send + 'static) {
    let (commands, receiver) = mpsc::channel(limits.commands);
    let (events, _) = broadcast::channel(limits.watched_events);
    let (ready, is_ready) = watch::channel(false);
    let handle = EngineHandle { commands, events: events.clone(), ready: is_ready };
    let engine = Engine {
        dispatcher: Dispatcher::new(times.clone(), limits.clone(), env!("CARGO_PKG_VERSION")),
        ledger,
        times,
        limits,
        started: Instant::now(),
        elapsed_before: None,
        stamped: Instant::now(),
        committed_at: 0,
        sessions: BTreeMap::new(),
        session_count: 0,
        pending: VecDeque::new(),
        deferred: Vec::new(),
        deferred_at: Instant::now(),
        prune_at: Instant::now(),
        held: None,
        events,
        ready,
    };
    (handle, engine.run(receiver, stop))
}

/// The present time by the clock of the wall, for the record only.
pub fn wall_clock() -> Millis {
    let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    Millis::try_from(now).unwrap_or(Millis::MAX)
}

impl<L: Ledger> Engine<L> {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        loop {
            let served = AssertUnwindSafe(self.serve(&mut commands, &stop)).catch_unwind().await;
            self.ready.send_replace(false);
            match served {
                Ok(Ok(())) => break,
                Ok(Err(error)) => tracing::error!(%error, "the store failed; starting anew from it"),
                Err(_) => tracing::error!("the dispatcher panicked; starting anew from the store"),
            }
            self.end_sessions("the control plane starts anew");
            if !self.pause(&mut commands, &stop).await {
                break;
            }
        }
        self.end_sessions("the control plane stops");
    }

    /// Waits before a new start. Commands are turned down meanwhile: dropping them answers their callers.
    async fn pause(&mut self, commands: &mut mpsc::Receiver<Command>, stop: &CancellationToken) -> bool {
        self.held = None;
        let over = sleep(self.times.store_pause);
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                () = &mut over => return true,
                command = commands.recv() => if command.is_none() { return false },
            }
        }
    }

    async fn serve(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        self.dispatcher = Dispatcher::new(self.times.clone(), self.limits.clone(), env!("CARGO_PKG_VERSION"));
        self.pending.clear();
        self.deferred.clear();
        if self.elapsed_before.is_none() {
            let last = self.ledger.last_stamp().await?;
            let elapsed = Stamp::resumed(last, self.ledger.wall_clock());
            self.elapsed_before = Some(elapsed.saturating_sub(self.now()));
        }
        let tasks = self.ledger.live_tasks(self.stamp().elapsed).await?;
        let agents = self.ledger.agents().await?;
        tracing::info!(tasks.live = tasks.len(), "the dispatcher is ready");
        self.dispatcher.restore(self.now(), tasks);
        self.dispatcher.expect(self.now(), agents.iter().map(|agent| (agent.candidate(), agent.mode)));
        // What follows from both comes with the first event.
        self.pending.push_back(Event::Tick);
        self.ready.send_replace(true);
        loop {
            let mut batch = Batch::default();
            if !self.pending.is_empty() {
                while let Some(event) = self.pending.pop_front() {
                    self.feed(&mut batch, event);
                }
            } else if let Some(held) = self.held.take() {
                self.take(&mut batch, held).await?;
            } else {
                // In this order, so that a run that is repeated with the same seed goes the same way.
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return self.commit(Vec::new(), &[]).await,
                    () = until(self.dispatcher.next_deadline().map(|at| self.started + at)) => {
                        self.feed(&mut batch, Event::Tick);
                    }
                    () = until(self.write_due()) => self.commit(Vec::new(), &[]).await?,
                    () = until(self.prune_due()) => self.prune().await,
                    command = commands.recv() => {
                        let Some(command) = command else { return Ok(()) };
                        self.take(&mut batch, command).await?;
                    }
                }
            }
            while self.held.is_none() && batch.len() < self.limits.batch {
                let Ok(command) = commands.try_recv() else { break };
                self.take(&mut batch, command).await?;
            }
            self.carry_out(batch).await?;
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn stamp(&self) -> Stamp {
        let elapsed = self.elapsed_before.unwrap_or_default() + self.now();
        Stamp { wall: self.ledger.wall_clock(), elapsed }
    }

    /// When something is to be written though nothing else is: transitions that nobody waits for; and a stamp, so
    /// that a clock that is set meanwhile does not pass for a pause of the server's, by which tasks expire and old ones
    /// are removed.
    fn write_due(&self) -> Option<Instant> {
        let has_deferred = !self.deferred.is_empty();
        Some(if has_deferred {
            self.deferred_at + self.times.write_behind
        } else {
            self.stamped + self.times.stamp
        })
    }

    fn prune_due(&self) -> Option<Instant> {
        (!self.times.task_life.is_zero()).then_some(self.prune_at)
    }

    /// Removes old tasks, a few at a time, so that no client waits for long behind it. Nothing depends on it: where it
    /// fails it is tried again at the next time.
    async fn prune(&mut self) {
        let limit = self.limits.prune_batch;
        let pruned = match self.stamp().elapsed.checked_sub(self.times.task_life) {
            Some(posted_before) => self.ledger.prune_tasks(posted_before, limit).await,
            None => Ok(0),
        };
        let pruned = pruned.unwrap_or_else(|error| {
            tracing::error!(%error, "old tasks could not be removed; they are kept until the next try");
            0
        });
        let is_more = pruned >= u64::from(limit);
        let pause = if is_more { self.times.prune_pause } else { self.times.prune };
        self.prune_at = Instant::now() + pause;
    }

    /// Hands one event to the dispatcher.
    fn feed(&mut self, batch: &mut Batch, event: Event) {
        let now = self.now();
        batch.add(self.dispatcher.handle(now, event));
    }

    fn end_sessions(&mut self, message: &str) {
        let (count, pace) = (self.sessions.len(), self.limits.reconnects_per_second);
        let mut sessions: Vec<_> = std::mem::take(&mut self.sessions).into_values().collect();
        sessions.sort_by_key(|session| session.number);
        for (position, session) in sessions.into_iter().enumerate() {
            let after = come_back_after(position, count, pace, self.times.reconnect_spread);
            let goaway = Goaway {
                reason: GoawayReason::Shutdown,
                message: message.to_owned(),
                reconnect_after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
            };
            // A session whose queue is full ends as well: its sender is dropped here.
            let _ = session.outbound.try_send(Outbound::Close(goaway));
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
