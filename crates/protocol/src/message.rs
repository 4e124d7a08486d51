//! What travels in a session: one enum for each direction.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::frame::Message;
use crate::report::{Diagnosis, TaskOutput};

/// The longest identifier of a task, in bytes.
pub const MAX_TASK_ID_BYTES: usize = 128;

/// The pair that fences everything: one try of one task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct AttemptId {
    /// The task's identifier, of at most [`MAX_TASK_ID_BYTES`].
    pub task_id: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
}

impl std::fmt::Display for AttemptId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.task_id, self.attempt)
    }
}

/// From the agent to the control plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentMessage {
    /// Answers `challenge`; the first message of an agent.
    Hello(Hello),
    /// The agent will run the attempt. Due within the offer's `accept_within_ms`.
    Accept(AttemptId),
    /// The agent will not run the attempt.
    Reject(Reject),
    /// The attempt is about to have effects. `run_seconds` counts from here.
    Start(AttemptId),
    /// What the attempt is doing. May be dropped, by either side, at any time.
    Progress(Progress),
    /// Asks for another lease time for every attempt listed.
    Renew {
        /// The attempts that still run.
        attempts: Vec<AttemptId>,
    },
    /// The attempt has ended. Sent again, in each session, until `result_ack` comes.
    Result(AttemptResult),
    /// How many more attempts the agent takes now. Replaces the number told before.
    Credit {
        /// Free slots.
        slots: u32,
    },
    /// The agent finishes what it has and takes nothing more.
    Drain {
        /// Why, for people.
        reason: String,
    },
    /// Something that the control plane sent was not understood.
    Error(ProtocolError),
}

/// From the control plane to the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ControlMessage {
    /// The first message of a session.
    Challenge(Challenge),
    /// The agent is who it says; the session is open.
    Welcome(Welcome),
    /// Work for one free slot.
    Offer(Offer),
    /// Answers `renew`.
    Renewed {
        /// One entry for each attempt that was listed.
        attempts: Vec<Renewal>,
    },
    /// The attempt is to stop. Its result, with the outcome `cancelled`, is still due.
    Cancel {
        /// Which one.
        #[serde(flatten)]
        attempt: AttemptId,
        /// Why, for people.
        reason: String,
    },
    /// The result is durable here; the agent may forget it.
    ResultAck {
        /// Which one.
        #[serde(flatten)]
        attempt: AttemptId,
        /// What became of it.
        disposition: Disposition,
    },
    /// No offers until `resume`; running attempts go on.
    Pause {
        /// Why, for people.
        reason: String,
    },
    /// Ends `pause` and this side's `drain`.
    Resume {},
    /// The agent is to finish what it has and take nothing more until `resume`.
    Drain {
        /// Why, for people.
        reason: String,
    },
    /// The control plane ends the session.
    Goaway(Goaway),
    /// Something that the agent sent was not understood, or not allowed.
    Error(ProtocolError),
}

impl ControlMessage {
    /// The name of its type.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Challenge(_) => "challenge",
            Self::Welcome(_) => "welcome",
            Self::Offer(_) => "offer",
            Self::Renewed { .. } => "renewed",
            Self::Cancel { .. } => "cancel",
            Self::ResultAck { .. } => "result_ack",
            Self::Pause { .. } => "pause",
            Self::Resume {} => "resume",
            Self::Drain { .. } => "drain",
            Self::Goaway(_) => "goaway",
            Self::Error(_) => "error",
        }
    }
}

impl Message for AgentMessage {
    const TYPES: &'static [&'static str] =
        &["hello", "accept", "reject", "start", "progress", "renew", "result", "credit", "drain", "error"];
}

impl Message for ControlMessage {
    const TYPES: &'static [&'static str] = &[
        "challenge",
        "welcome",
        "offer",
        "renewed",
        "cancel",
        "result_ack",
        "pause",
        "resume",
        "drain",
        "goaway",
        "error",
    ];
}

/// Proves that whoever answers holds the agent's key now, for this session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Challenge {
    /// The session's identifier, made by the control plane.
    pub session: String,
    /// 32 random bytes in base64.
    pub nonce: String,
}

/// Who the agent is and what it still has from before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hello {
    /// The identifier that enrollment gave.
    pub agent_id: String,
    /// The base URL by which the agent dialed the control plane. The signature covers it, so that a control
    /// plane cannot pass a challenge on to another one.
    pub origin: String,
    /// Ed25519 over [`crate::identity::hello_payload`], in base64.
    pub signature: String,
    /// The agent's name.
    pub name: String,
    /// The version of the agent's program.
    pub version: String,
    /// The operating system, such as `linux`.
    pub os: String,
    /// The architecture, such as `x86_64`.
    pub arch: String,
    /// The tags of the agent's own configuration.
    pub tags: Vec<String>,
    /// How many attempts it runs at once.
    pub max_tasks: u32,
    /// Attempts that are running.
    #[serde(default)]
    pub running: Vec<AttemptId>,
    /// Attempts whose results have not been acknowledged; the results follow once the session is open.
    #[serde(default)]
    pub unacknowledged: Vec<AttemptId>,
    /// Attempts that a restart of the agent or of its host ended. They will never have a result.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostAttempt>,
}

/// An attempt that ended with the process that was at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LostAttempt {
    /// Which one.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// Why, for people.
    pub reason: String,
}

/// The session is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Welcome {
    /// The session's identifier again.
    pub session: String,
    /// The version of the control plane's program.
    pub version: String,
    /// The times that hold in this session.
    pub times: Times,
    /// What is to become of every attempt that `hello` listed as running.
    #[serde(default)]
    pub attempts: Vec<Renewal>,
}

/// Durations of a session, in milliseconds. Only durations travel: clocks decide nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Times {
    /// How often either side sends a WebSocket ping.
    pub ping_ms: u64,
    /// After how much silence a side takes the other for dead.
    pub dead_after_ms: u64,
    /// How often a running attempt's lease is to be renewed.
    pub renew_ms: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { ping_ms: 15_000, dead_after_ms: 30_000, renew_ms: 20_000 }
    }
}

/// Work for one free slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Offer {
    /// Which attempt.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// The exact bytes of the task, a JSON document of [`crate::task::TaskSpec`] as a string, so that a
    /// signature can cover them.
    pub task: String,
    /// A signature over `task`, where the control plane has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<TaskSignature>,
    /// How long the agent may think before the offer goes elsewhere, in milliseconds.
    pub accept_within_ms: u64,
    /// How long the lease lasts from the moment of this message, and from each renewal, in milliseconds.
    pub lease_ms: u64,
}

/// Who vouches for a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskSignature {
    /// The signer's name, one that the operator trusts.
    pub signer: String,
    /// Ed25519 in base64.
    pub signature: String,
}

/// Why the agent will not run the attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reject {
    /// Which attempt.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// Whether another agent, or this one later, may do it.
    pub retryable: bool,
    /// Whether this is policy's last word (outcome `refused`), or the agent just cannot now.
    pub reason: RejectReason,
    /// The cause and the remedies; none for `busy` and `duplicate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnosis: Option<Diagnosis>,
    /// The report in the form that the kind of task has, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskOutput>,
}

/// The classes of rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// The agent's policy forbids it.
    Policy,
    /// The task is of a kind or has a field that this agent does not know or support.
    NotSupported,
    /// No slot is free, or the agent is draining or paused.
    Busy,
    /// The very attempt is known here already.
    Duplicate,
}

/// What an attempt is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Which attempt.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// The stage that runs.
    pub stage: String,
    /// Bytes received so far.
    #[serde(default)]
    pub received_bytes: u64,
    /// Objects received so far.
    #[serde(default)]
    pub received_objects: u64,
    /// Objects in all, once it is known.
    #[serde(default)]
    pub total_objects: Option<u64>,
    /// Objects indexed so far.
    #[serde(default)]
    pub indexed_objects: u64,
    /// Files written so far.
    #[serde(default)]
    pub written_files: u64,
    /// Files in all, once it is known.
    #[serde(default)]
    pub total_files: Option<u64>,
    /// How fast bytes came since the last progress of the attempt.
    #[serde(default)]
    pub bytes_per_second: u64,
    /// How long the phase that runs will take at the pace of now, in milliseconds, where that can be told.
    #[serde(default)]
    pub remaining_ms: Option<u64>,
    /// What the server says to people, as it is: for example how many objects it has counted.
    #[serde(default)]
    pub said: Option<String>,
}

/// The control plane's word on an attempt that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Renewal {
    /// Which attempt.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// What to do with it.
    pub decision: Decision,
    /// For `keep`: how long the lease lasts from this message, in milliseconds.
    #[serde(default)]
    pub lease_ms: u64,
}

/// What to do with an attempt that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Go on.
    Keep,
    /// Stop; a result with the outcome `cancelled` is due.
    Cancel,
    /// Stop; the attempt is not this agent's any more and its result would be refused.
    Abandon,
}

/// How an attempt ended, as the agent says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// It did what was asked.
    Succeeded,
    /// It did not; the result says why.
    Failed,
    /// It was stopped because the control plane or the operator said so.
    Cancelled,
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptResult {
    /// Which attempt.
    #[serde(flatten)]
    pub attempt: AttemptId,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// The report or the clone's outcome.
    pub result: TaskOutput,
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// It is the attempt's result from now on.
    Recorded,
    /// It was recorded before; nothing changed.
    Duplicate,
    /// The attempt is not current any more; the result was not counted.
    Stale,
}

/// The end of a session, said by the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Goaway {
    /// Why.
    pub reason: GoawayReason,
    /// For people.
    pub message: String,
    /// The earliest time to come back, in milliseconds.
    #[serde(default)]
    pub reconnect_after_ms: u64,
}

/// Why the control plane ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GoawayReason {
    /// The control plane stops or restarts; come back.
    Shutdown,
    /// Another session of the same agent is newer.
    Superseded,
    /// The identity is unknown, revoked, or its proof was wrong.
    IdentityRefused,
    /// The peer broke the protocol.
    ProtocolViolation,
}

/// Answers what was not understood. It never answers an `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProtocolError {
    /// A stable code, see [`crate::FrameError::code`].
    pub code: String,
    /// For people.
    pub message: String,
}

impl From<&crate::FrameError> for ProtocolError {
    fn from(error: &crate::FrameError) -> Self {
        Self { code: error.code().to_owned(), message: error.to_string() }
    }
}
