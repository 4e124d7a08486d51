//! What can be asked of the engine.

use std::collections::HashMap;
use std::sync::Arc;

use sortie_protocol::message::{AgentMessage, Progress};
use sortie_protocol::task::TaskSpec;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::Outbound;
use crate::dispatch::{AgentView, Candidate, Connected, Explanation, Mode, Outcome, TaskState};
use crate::store::{IdempotencyKey, Millis};

/// The engine has stopped, or the store failed it. Nothing is known of what was asked.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the control plane cannot reach its store just now")]
pub struct Gone;

/// A task to be posted.
#[derive(Debug)]
pub struct NewTask {
    /// The identifier, new.
    pub id: String,
    /// What is to be done.
    pub spec: Arc<TaskSpec>,
    /// The bytes that go into every offer.
    pub bytes: Arc<str>,
    /// The idempotency key, where the caller gave one; its task is this one.
    pub key: Option<IdempotencyKey>,
}

/// What became of a post.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posting {
    /// The task is durable, since this time by the clock of the wall.
    Created(Millis),
    /// The key had been used for the same body; this is the task of then.
    Repeated(String),
    /// The key had been used for another body.
    KeyReused,
    /// There are too many live tasks.
    Full,
}

/// What happened to a task, for whoever watches it.
#[derive(Debug, Clone)]
pub struct TaskEvent {
    /// Which task.
    pub task_id: Arc<str>,
    /// What.
    pub change: TaskChange,
}

/// The kinds of [`TaskEvent`].
#[derive(Debug, Clone)]
pub enum TaskChange {
    /// It is in this state now, with an outcome where it is completed.
    State(TaskState, Option<Outcome>),
    /// An agent told how far it is.
    Progress(Arc<Progress>),
}

/// A connected agent, as seen now.
#[derive(Debug, Clone)]
pub struct ConnectedAgent {
    /// What the dispatcher knows.
    pub view: AgentView,
    /// When the session opened.
    pub connected_at: Millis,
}

/// One request to the engine. Dropping a reply means [`Gone`].
pub(super) enum Command {
    Connect { connected: Box<Connected>, outbound: mpsc::Sender<Outbound>, reply: oneshot::Sender<bool> },
    Disconnect { session: String },
    FromAgent { session: String, message: Box<AgentMessage> },
    Post { task: NewTask, reply: oneshot::Sender<Posting> },
    Cancel { task_id: String, reason: String, reply: oneshot::Sender<()> },
    SetMode { agent_id: String, mode: Mode, reply: oneshot::Sender<()> },
    Revoke { agent_id: String, reason: String, reply: oneshot::Sender<()> },
    Explain { task_id: String, candidates: Vec<Candidate>, reply: oneshot::Sender<Option<Explanation>> },
    Agents { ids: Vec<String>, reply: oneshot::Sender<HashMap<String, ConnectedAgent>> },
}

/// The way to the engine. Clones share it.
#[derive(Debug, Clone)]
pub struct EngineHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) events: broadcast::Sender<TaskEvent>,
    pub(super) ready: watch::Receiver<bool>,
}

impl EngineHandle {
    /// Whether the engine has its tasks from the store and takes commands.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// What happens to tasks from now on.
    pub fn watch(&self) -> broadcast::Receiver<TaskEvent> {
        self.events.subscribe()
    }

    /// Opens a session for an agent that has proved who it is. `false` means that it was revoked meanwhile.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn connect(
        &self,
        connected: Connected,
        outbound: mpsc::Sender<Outbound>,
    ) -> Result<bool, Gone> {
        let connected = Box::new(connected);
        self.ask(|reply| Command::Connect { connected, outbound, reply }).await
    }

    /// Tells that a session has ended.
    pub async fn disconnect(&self, session: String) {
        // Where the engine has stopped, it has no session any more.
        let _ = self.commands.send(Command::Disconnect { session }).await;
    }

    /// Hands on what an agent said. Waits while the engine is busy.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn from_agent(&self, session: String, message: AgentMessage) -> Result<(), Gone> {
        let command = Command::FromAgent { session, message: Box::new(message) };
        if let Command::FromAgent { message, .. } = &command
            && matches!(**message, AgentMessage::Progress(_))
        {
            // Progress may be dropped at any time, and is while the engine is busy.
            return match self.commands.try_send(command) {
                Err(mpsc::error::TrySendError::Closed(_)) => Err(Gone),
                Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
            };
        }
        self.commands.send(command).await.map_err(|_| Gone)
    }

    /// Posts a task; durable when this returns.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn post(&self, task: NewTask) -> Result<Posting, Gone> {
        self.ask(|reply| Command::Post { task, reply }).await
    }

    /// Asks for a task to stop. A completed one stays as it is.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn cancel(&self, task_id: String, reason: String) -> Result<(), Gone> {
        self.ask(|reply| Command::Cancel { task_id, reason, reply }).await
    }

    /// Pauses, resumes or drains an agent.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn set_mode(&self, agent_id: String, mode: Mode) -> Result<(), Gone> {
        self.ask(|reply| Command::SetMode { agent_id, mode, reply }).await
    }

    /// Ends an agent's registration and its session.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn revoke(&self, agent_id: String, reason: String) -> Result<(), Gone> {
        self.ask(|reply| Command::Revoke { agent_id, reason, reply }).await
    }

    /// Explains where a live task stands; `None` where it is completed or unknown.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn explain(
        &self,
        task_id: String,
        candidates: Vec<Candidate>,
    ) -> Result<Option<Explanation>, Gone> {
        self.ask(|reply| Command::Explain { task_id, candidates, reply }).await
    }

    /// Those of the agents that are connected.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn agents(&self, ids: Vec<String>) -> Result<HashMap<String, ConnectedAgent>, Gone> {
        self.ask(|reply| Command::Agents { ids, reply }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }
}
