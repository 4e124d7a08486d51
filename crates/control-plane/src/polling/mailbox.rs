//! What waits for an agent that long polls: kept until it has arrived.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sortie_protocol::frame::MAX_MESSAGE_BYTES;
use sortie_protocol::polling::{MAX_POLL_MESSAGES, PollBatch};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::session::Outgoing;

/// The session has ended; nothing more can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Over;

/// The agent says that it has what was never sent, or asks for what was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutOfOrder;

/// Messages to one agent, numbered from 1.
#[derive(Debug)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    max_messages: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct State {
    /// The number of the last message that has arrived and is forgotten.
    acknowledged: u64,
    /// Those after it, with their bytes together.
    messages: VecDeque<String>,
    bytes: usize,
    /// A sign of life is wanted: the request that waits is answered, so that the next one comes.
    is_pinged: bool,
    /// Nothing more will be put in.
    is_closed: bool,
    /// Everything, and that it is the end, has been handed to a request.
    is_told: bool,
    /// The request that waits, as a number. An older one gives way to it: its connection is gone most likely.
    turn: u64,
    /// How many requests wait, and when the last one went.
    listening: usize,
    left_at: Instant,
}

/// A request that waits.
struct Listening<'a>(&'a Mailbox);

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.listening -= 1;
        state.left_at = Instant::now();
        drop(state);
        self.0.changed.send_replace(());
    }
}

impl Mailbox {
    /// An empty one for so many messages and bytes. A single message fits always.
    pub(super) fn new(max_messages: usize, max_bytes: usize) -> Self {
        let state = State {
            acknowledged: 0,
            messages: VecDeque::new(),
            bytes: 0,
            is_pinged: false,
            is_closed: false,
            is_told: false,
            turn: 0,
            listening: 0,
            left_at: Instant::now(),
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()), max_messages, max_bytes }
    }

    /// Puts in what the session says. Waits while there is no room.
    pub(super) async fn put(&self, outgoing: Outgoing) -> Result<(), Over> {
        match outgoing {
            Outgoing::Text(text) => return self.put_text(text).await,
            Outgoing::Ping => self.state().is_pinged = true,
            Outgoing::Close => self.state().is_closed = true,
        }
        self.changed.send_replace(());
        Ok(())
    }

    async fn put_text(&self, text: String) -> Result<(), Over> {
        loop {
            let mut changed = self.changed.subscribe();
            {
                let mut state = self.state();
                if state.is_closed {
                    return Err(Over);
                }
                let fits = state.messages.is_empty() || state.bytes + text.len() <= self.max_bytes;
                if fits && state.messages.len() < self.max_messages {
                    state.bytes += text.len();
                    state.messages.push_back(text);
                    break;
                }
            }
            changed.changed().await.map_err(|_| Over)?;
        }
        self.changed.send_replace(());
        Ok(())
    }

    /// Nothing more will be put in.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.send_replace(());
    }

    /// Forgets what has arrived, and hands out what follows: at once where there is something, or when there is,
    /// or nothing when the time is over. What is handed out is kept until it is known to have arrived.
    pub(super) async fn take(&self, arrived: u64, wait: Duration) -> Result<PollBatch, OutOfOrder> {
        let deadline = Instant::now() + wait;
        let mut changed = self.changed.subscribe();
        let (turn, _listening) = self.begin(arrived)?;
        self.changed.send_replace(());
        loop {
            changed.mark_unchanged();
            {
                let mut state = self.state();
                if state.turn != turn {
                    return Ok(state.nothing());
                }
                if let Some(batch) = state.batch() {
                    drop(state);
                    self.changed.send_replace(());
                    return Ok(batch);
                }
            }
            if !matches!(timeout_at(deadline, changed.changed()).await, Ok(Ok(()))) {
                return Ok(self.state().nothing());
            }
        }
    }

    fn begin(&self, arrived: u64) -> Result<(u64, Listening<'_>), OutOfOrder> {
        let mut state = self.state();
        state.forget(arrived)?;
        state.turn += 1;
        state.listening += 1;
        Ok((state.turn, Listening(self)))
    }

    /// Waits until nobody has asked for so long, or the end has been told.
    pub(super) async fn abandoned(&self, after: Duration) {
        loop {
            let mut changed = self.changed.subscribe();
            let deadline = {
                let state = self.state();
                let over = state.left_at + after;
                if state.is_told || (state.listening == 0 && Instant::now() >= over) {
                    return;
                }
                (state.listening == 0).then_some(over)
            };
            match deadline {
                Some(over) => drop(timeout_at(over, changed.changed()).await),
                None => drop(changed.changed().await),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, arrived: u64) -> Result<(), OutOfOrder> {
        let count = arrived.checked_sub(self.acknowledged).and_then(|count| usize::try_from(count).ok());
        let count = count.filter(|count| *count <= self.messages.len()).ok_or(OutOfOrder)?;
        self.bytes -= self.messages.drain(..count).map(|text| text.len()).sum::<usize>();
        self.acknowledged = arrived;
        Ok(())
    }

    /// What can be said now; `None` where there is a reason to wait.
    fn batch(&mut self) -> Option<PollBatch> {
        if self.messages.is_empty() && !self.is_closed && !std::mem::take(&mut self.is_pinged) {
            return None;
        }
        self.is_pinged = false;
        let mut bytes = 0;
        let fitting = self.messages.iter().take(MAX_POLL_MESSAGES).take_while(|text| {
            bytes += text.len();
            bytes <= MAX_MESSAGE_BYTES || bytes == text.len()
        });
        // Each was encoded on this side a moment ago.
        let messages: Vec<_> = fitting.map(|text| serde_json::from_str(text).unwrap_or_default()).collect();
        let ended = self.is_closed && messages.len() == self.messages.len();
        self.is_told |= ended;
        Some(PollBatch { first: self.acknowledged + 1, messages, ended })
    }

    fn nothing(&self) -> PollBatch {
        PollBatch { first: self.acknowledged + 1, messages: Vec::new(), ended: false }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
