//! The engine: carries out what the dispatcher decides.
//!
//! One task owns the dispatcher. It takes commands from a bounded channel, hands them in as events, commits
//! what the dispatcher wants durable, many commands in one transaction, and only then sends, acknowledges
//! and answers. Where a commit fails, or the dispatcher panics, memory and store may differ: the engine
//! drops its state, ends the sessions, and starts anew from the store, as after a restart of the process.

mod batch;
mod command;

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use sortie_protocol::message::{ControlMessage, Goaway, GoawayReason};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::dispatch::{Dispatcher, Event};
use crate::server::come_back_after;
use crate::settings::{Limits, Times};
use crate::store::{Millis, Store, StoreError};

use batch::Batch;
use command::Command;
pub use command::{ConnectedAgent, EngineHandle, Gone, NewTask, Posting, TaskChange, TaskEvent};

/// What the engine hands to a session to be written.
#[derive(Debug)]
pub enum Outbound {
    /// A message.
    Message(Box<ControlMessage>),
    /// The end of the session.
    Close(Goaway),
}

struct Session {
    outbound: mpsc::Sender<Outbound>,
    connected_at: Millis,
}

/// The owner of the dispatcher.
struct Engine {
    store: Store,
    times: Times,
    limits: Limits,
    started: Instant,
    dispatcher: Dispatcher,
    sessions: HashMap<String, Session>,
    /// Events that follow from what was just carried out.
    pending: VecDeque<Event>,
    /// A command that must see the commit of the one before it.
    held: Option<Command>,
    events: broadcast::Sender<TaskEvent>,
    ready: watch::Sender<bool>,
}

/// Starts the engine. It ends when `stop` is cancelled; whoever holds the join handle waits for that.
pub fn start(
    store: Store,
    times: Times,
    limits: Limits,
    stop: CancellationToken,
) -> (EngineHandle, JoinHandle<()>) {
    let (commands, receiver) = mpsc::channel(limits.commands);
    let (events, _) = broadcast::channel(limits.watched_events);
    let (ready, is_ready) = watch::channel(false);
    let handle = EngineHandle { commands, events: events.clone(), ready: is_ready };
    let engine = Engine {
        dispatcher: Dispatcher::new(times.clone(), limits.clone(), env!("CARGO_PKG_VERSION")),
        store,
        times,
        limits,
        started: Instant::now(),
        sessions: HashMap::new(),
        pending: VecDeque::new(),
        held: None,
        events,
        ready,
    };
    (handle, tokio::spawn(engine.run(receiver, stop)))
}

/// The present time by the clock of the wall, for the record only.
pub fn wall_clock() -> Millis {
    let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    Millis::try_from(now).unwrap_or(Millis::MAX)
}

impl Engine {
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
                () = &mut over => return true,
                () = stop.cancelled() => return false,
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
        let tasks = self.store.live_tasks(wall_clock()).await?;
        let agents = self.store.agents().await?;
        tracing::info!(tasks.live = tasks.len(), "the dispatcher is ready");
        self.dispatcher.restore(self.now(), tasks);
        self.dispatcher.expect(self.now(), agents.iter().map(|agent| (agent.candidate(), agent.mode)));
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
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = until(self.dispatcher.next_deadline().map(|at| self.started + at)) => {
                        self.feed(&mut batch, Event::Tick);
                    }
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

    /// Hands one event to the dispatcher.
    fn feed(&mut self, batch: &mut Batch, event: Event) {
        let now = self.now();
        batch.add(self.dispatcher.handle(now, event));
    }

    fn end_sessions(&mut self, message: &str) {
        let (count, pace) = (self.sessions.len(), self.limits.reconnects_per_second);
        for (position, (_, session)) in self.sessions.drain().enumerate() {
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
