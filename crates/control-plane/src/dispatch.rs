//! The dispatcher: which agent gets which task, and what becomes of every attempt.
//!
//! This is a pure core. Events go in with the time at which they happened, actions come out, and nothing
//! here opens a socket, reads a clock, waits or draws a random number, so that a simulation can drive it.
//! Whoever carries out the actions commits every [`Action::Persist`] of a batch before the first other
//! action of it: what was promised or acknowledged is durable then.

mod agents;
mod attempts;
mod away;
mod explain;
mod offers;
mod passing;
mod queue;
mod reach;
mod restore;
mod task;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sortie_protocol::AttemptId;
use sortie_protocol::message::{AgentMessage, AttemptResult, ControlMessage, Goaway, Progress};
use sortie_protocol::report::{Diagnosis, TaskOutput};
use sortie_protocol::task::TaskSpec;

use crate::settings::{Limits, Times};

use agents::Agent;
pub use agents::{AgentView, Connected};
use away::Away;
pub use explain::{Candidate, Explanation, Verdict};
use queue::Queue;
use reach::{Memory, Reach};
pub use restore::{RestoredAttempt, RestoredTask};
use task::Task;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// It waits for an agent.
    Queued,
    /// An agent was asked and has not started.
    Offered,
    /// An agent is at it.
    Running,
    /// An agent is at it and was told to stop.
    Cancelling,
    /// It has an outcome.
    Completed,
}

/// How a task or an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what was asked.
    Succeeded,
    /// It was tried and did not work; the diagnosis says why.
    Failed,
    /// Policy forbids it, or no agent supports it.
    Refused,
    /// Somebody stopped it.
    Cancelled,
    /// Its time was over: a task's time to wait, or an attempt's lease.
    Expired,
    /// No attempt could carry it out.
    Dead,
}

/// What an administrator decided about an agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It gets offers.
    #[default]
    Active,
    /// It gets no offers until it is resumed.
    Paused,
    /// It finishes what it has and gets nothing more.
    Draining,
}

/// A task as it enters the dispatcher.
#[derive(Debug, Clone)]
pub struct Posted {
    /// The identifier, made by the caller.
    pub id: String,
    /// What is to be done.
    pub spec: Arc<TaskSpec>,
    /// The very bytes that go into every offer.
    pub bytes: Arc<str>,
}

/// What the store knows of an attempt of a task that is completed.
#[derive(Debug, Clone)]
pub struct PastAttempt {
    /// Whose it was.
    pub agent_id: String,
    /// Whether a result of the agent's ended it.
    pub by_result: bool,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// An agent proved who it is.
    AgentConnected(Box<Connected>),
    /// A session ended.
    AgentGone {
        /// Which one.
        session: String,
    },
    /// An agent said something.
    Message {
        /// In which session.
        session: String,
        /// What.
        message: Box<AgentMessage>,
    },
    /// A client wants something done.
    TaskPosted(Posted),
    /// A client wants a task stopped.
    CancelRequested {
        /// Which one.
        task_id: String,
        /// Why, for people.
        reason: String,
    },
    /// An administrator paused, resumed or drained an agent.
    ModeSet {
        /// Which one.
        agent_id: String,
        /// What holds from now on.
        mode: Mode,
    },
    /// An agent's registration ended.
    AgentRevoked {
        /// Which one.
        agent_id: String,
        /// Why, for people.
        reason: String,
    },
    /// The answer to [`Action::Recall`].
    Recalled {
        /// The session in which the result came.
        session: String,
        /// The result.
        result: Box<AttemptResult>,
        /// What the store knows of the attempt.
        record: Option<PastAttempt>,
    },
    /// Time has passed; see [`Dispatcher::next_deadline`].
    Tick,
}

/// What is to be made durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Transition {
    /// A new task, queued.
    TaskPosted {
        /// Its identifier.
        task_id: String,
        /// Its bytes.
        bytes: Arc<str>,
        /// Its description.
        spec: Arc<TaskSpec>,
    },
    /// A new attempt; its task is offered.
    AttemptOffered {
        /// Which attempt.
        attempt: AttemptId,
        /// The agent.
        agent_id: String,
        /// The agent's name at this time.
        agent_name: String,
    },
    /// The attempt runs, and so does its task.
    AttemptStarted {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// The attempt is over.
    AttemptEnded {
        /// Which attempt.
        attempt: AttemptId,
        /// How it ended.
        outcome: Outcome,
        /// The diagnosis, where there is one.
        diagnosis: Option<Diagnosis>,
        /// Why it ended, for people, where no result says it.
        reason: Option<String>,
        /// Whether a result of the agent's ended it.
        by_result: bool,
        /// Whether it counts towards the limit of attempts.
        counted: bool,
        /// Its result, where the task goes on without it: it may become the task's in the end.
        passed_on: Option<Box<TaskOutput>>,
    },
    /// A result came for an attempt that had been given up.
    LateResult {
        /// Which attempt.
        attempt: AttemptId,
        /// What the result said.
        outcome: Outcome,
    },
    /// The task waits again.
    TaskQueued {
        /// Which task.
        task_id: String,
    },
    /// The task is to stop.
    TaskCancelling {
        /// Which task.
        task_id: String,
        /// Why, for people.
        reason: String,
    },
    /// The task is over.
    TaskCompleted {
        /// Which task.
        task_id: String,
        /// How it ended.
        outcome: Outcome,
        /// What the last attempt answered.
        result: Option<TaskOutput>,
        /// Why, for people, where no result says it.
        reason: Option<String>,
    },
    /// An agent opened a session and told about itself.
    AgentConnected(Box<Connected>),
    /// An agent's session ended.
    AgentGone {
        /// Which agent.
        agent_id: String,
    },
    /// An administrator decided about an agent.
    AgentMode {
        /// Which agent.
        agent_id: String,
        /// What holds from now on.
        mode: Mode,
    },
    /// An agent's registration ended.
    AgentRevoked {
        /// Which agent.
        agent_id: String,
    },
}

/// What is to be done about it.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make this durable before anything else of the batch is done.
    Persist(Transition),
    /// Send a message.
    Send {
        /// In which session.
        session: String,
        /// What.
        message: Box<ControlMessage>,
    },
    /// End a session.
    Close {
        /// Which one.
        session: String,
        /// Why.
        goaway: Goaway,
    },
    /// Look an attempt up in the store and answer with [`Event::Recalled`].
    Recall {
        /// The session in which the result came.
        session: String,
        /// The result.
        result: Box<AttemptResult>,
    },
    /// Tell whoever watches the task.
    Progress(Box<Progress>),
}

/// The state of all live tasks and connected agents.
#[derive(Debug)]
pub struct Dispatcher {
    times: Times,
    limits: Limits,
    version: &'static str,
    agents: BTreeMap<String, Agent>,
    sessions: BTreeMap<String, String>,
    /// Agents that are registered and not connected.
    away: BTreeMap<String, Away>,
    tasks: HashMap<String, Task>,
    /// Tasks that wait.
    queue: Queue,
    /// Tasks whose agents lost their connections and that another agent may take over.
    orphans: BTreeSet<String>,
    /// What agents reached.
    reach: Reach,
    /// The tasks of every agent that has a live attempt, connected or not.
    held: BTreeMap<String, BTreeSet<String>>,
    /// When to look at a task again: one entry for each, see [`Dispatcher::watch`].
    deadlines: BTreeSet<(Duration, String)>,
    /// Counts tasks and offers, for their order.
    counter: u64,
    actions: Vec<Action>,
}

/// Half of a number, at least one.
fn half(number: usize) -> u32 {
    u32::try_from(number / 2).unwrap_or(u32::MAX).max(1)
}

impl Dispatcher {
    /// A dispatcher without tasks and agents. `version` is told to the agents.
    pub fn new(times: Times, limits: Limits, version: &'static str) -> Self {
        let memory = Memory { good: times.reach_good, bad: times.reach_bad, entries: limits.reach_entries };
        Self {
            times,
            // Every free slot may get an offer at once, and the queue to an agent must hold them beside the
            // other messages.
            limits: Limits { credit: limits.credit.min(half(limits.outbound_messages)), ..limits },
            version,
            agents: BTreeMap::new(),
            sessions: BTreeMap::new(),
            away: BTreeMap::new(),
            tasks: HashMap::new(),
            queue: Queue::default(),
            orphans: BTreeSet::new(),
            reach: Reach::new(memory),
            held: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            counter: 0,
            actions: Vec::new(),
        }
    }

    /// Takes one event in and says what is to be done, in order.
    ///
    /// `now` is the time since any fixed moment and never goes back.
    pub fn handle(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::AgentConnected(connected) => {
                let has_changed = self.returns(&connected);
                self.agent_connected(now, *connected);
                if has_changed {
                    // A refusal may have been held back for the tags that it had.
                    self.settle_tried(now);
                }
            }
            Event::AgentGone { session } => {
                self.leaves(now, &session);
                self.agent_gone(now, &session);
            }
            Event::Message { session, message } => self.message(now, &session, *message),
            Event::TaskPosted(posted) => self.task_posted(now, posted),
            Event::CancelRequested { task_id, reason } => self.cancel_requested(now, &task_id, &reason),
            Event::ModeSet { agent_id, mode } => {
                self.decided_while_away(&agent_id, mode);
                self.mode_set(now, &agent_id, mode);
            }
            Event::AgentRevoked { agent_id, reason } => {
                self.away.remove(&agent_id);
                self.agent_revoked(now, &agent_id, &reason);
            }
            Event::Recalled { session, result, record } => self.recalled(&session, &result, record),
            Event::Tick => {}
        }
        self.run_out(now);
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] is due at the latest, where nothing else happens before.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// How many tasks are not completed.
    pub fn live_tasks(&self) -> usize {
        self.tasks.len()
    }

    fn message(&mut self, now: Duration, session: &str, message: AgentMessage) {
        // A message may have been on its way when its session was superseded. It is dropped: the newer
        // session's `hello` told everything that counts.
        let Some(agent_id) = self.sessions.get(session).cloned() else { return };
        match message {
            AgentMessage::Accept(attempt) => self.accepted(now, &agent_id, &attempt),
            AgentMessage::Reject(reject) => self.rejected(now, &agent_id, reject),
            AgentMessage::Start(attempt) => self.started(now, &agent_id, &attempt),
            AgentMessage::Progress(progress) => self.progressed(&agent_id, progress),
            AgentMessage::Renew { attempts } => self.renewed(now, &agent_id, attempts),
            AgentMessage::Result(result) => self.resulted(now, session, &agent_id, result),
            AgentMessage::Credit { slots } => self.credited(now, &agent_id, slots),
            AgentMessage::Drain { .. } => self.agent_drains(now, &agent_id),
            AgentMessage::Hello(_) | AgentMessage::Error(_) => {}
        }
    }

    fn persist(&mut self, transition: Transition) {
        self.actions.push(Action::Persist(transition));
    }

    /// Sends to an agent, where it is connected.
    fn send(&mut self, agent_id: &str, message: ControlMessage) {
        if let Some(agent) = self.agents.get(agent_id) {
            let session = agent.session.clone();
            self.actions.push(Action::Send { session, message: Box::new(message) });
        }
    }
}
