//! Every duration and every limit that the server holds to, in two structs that are handed in.

use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// The durations that the server and its dispatcher keep.
#[derive(Debug, Clone)]
pub struct Times {
    /// How long an agent may think about an offer.
    pub accept: Duration,
    /// How long a lease lasts from the offer and from each renewal, as the agent is told.
    pub lease: Duration,
    /// How much longer the control plane waits than the agent was told. The agent counts from the moment
    /// when a message arrives, which is later than the moment when it was sent.
    pub lease_margin: Duration,
    /// How long a task that every connected agent refused waits for another one that is expected back.
    pub refusal_grace: Duration,
    /// How long after the end of an agent's connection another agent may take over what it had, where that has no
    /// effects.
    pub failover: Duration,
    /// How long it counts that an agent reached a server.
    pub reach_good: Duration,
    /// How long it counts that an agent could not reach a server.
    pub reach_bad: Duration,
    /// How often an agent is to renew its leases.
    pub renew: Duration,
    /// How often a ping is sent.
    pub ping: Duration,
    /// After how much silence an agent is taken for dead.
    pub dead_after: Duration,
    /// How long a new connection may take until its `hello` has arrived.
    pub hello: Duration,
    /// How long one message to an agent may take to be written, and how long a client may read nothing while
    /// something is to be written to it.
    pub write: Duration,
    /// How long a client may take to send the head of a request, and a TLS handshake may take.
    pub request_head: Duration,
    /// How long a client may take to send the body of a request.
    pub request_body: Duration,
    /// How long a challenge outside of a session can be answered.
    pub challenge: Duration,
    /// The longest `?wait=` that is kept; longer ones are shortened to it.
    pub longest_wait: Duration,
    /// How long a list of tasks waits for its turn.
    pub list_wait: Duration,
    /// How long requests may go on after a stop was asked for.
    pub stop_grace: Duration,
    /// Over how long the agents' reconnections are spread after a stop.
    pub reconnect_spread: Duration,
    /// How long a client may take to send one part of an artifact.
    pub artifact_part: Duration,
    /// How long an artifact is kept after its completion.
    pub artifact_life: Duration,
    /// How long an upload may lie still before it is abandoned.
    pub artifact_idle: Duration,
    /// How often artifacts are looked for that are to go.
    pub artifact_sweep: Duration,
    /// How long the engine pauses after a failure of the store before it starts anew.
    pub store_pause: Duration,
    /// How long the start of an attempt may wait for a commit that somebody waits for.
    pub write_behind: Duration,
    /// How long tasks are kept after they were posted, once they are completed; zero for ever.
    pub task_life: Duration,
    /// How often tasks are looked for that are to go.
    pub prune: Duration,
    /// How long others may write between two batches of tasks that go.
    pub prune_pause: Duration,
    /// How often the store is told the time while tasks wait and nothing else is written.
    pub stamp: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            accept: seconds(10),
            lease: seconds(60),
            lease_margin: seconds(5),
            refusal_grace: seconds(15),
            failover: seconds(2),
            reach_good: seconds(6 * 3600),
            reach_bad: seconds(300),
            renew: seconds(20),
            ping: seconds(15),
            dead_after: seconds(30),
            hello: seconds(10),
            write: seconds(10),
            request_head: seconds(10),
            request_body: seconds(30),
            challenge: seconds(60),
            longest_wait: seconds(60),
            list_wait: seconds(5),
            stop_grace: seconds(10),
            reconnect_spread: seconds(5),
            artifact_part: seconds(120),
            artifact_life: seconds(7 * 24 * 3600),
            artifact_idle: seconds(3600),
            artifact_sweep: seconds(60),
            store_pause: seconds(1),
            write_behind: Duration::from_millis(50),
            task_life: seconds(30 * 24 * 3600),
            prune: seconds(60),
            prune_pause: Duration::from_millis(100),
            stamp: seconds(30),
        }
    }
}

/// How much of anything there may be.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Attempts that were lost before a task is dead, where it does not say itself.
    pub attempts_per_task: u32,
    /// Agents that try to reach the server of one task.
    pub agents_per_task: usize,
    /// Servers and hosts of which is known whether an agent reaches them, of all agents together.
    pub reach_entries: usize,
    /// Offers, lost or rejected, before a task is dead.
    pub offers_per_task: u32,
    /// Completed tasks that are removed in one go.
    pub prune_batch: u32,
    /// Tasks that are not completed yet.
    pub live_tasks: usize,
    /// Connections at once, of agents and clients together.
    pub connections: usize,
    /// Agents that have connected and not proved yet who they are.
    pub handshakes: usize,
    /// Challenges outside of a session that wait for their answer.
    pub challenges: usize,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Messages that one agent may send that are not understood, before its session ends.
    pub protocol_errors: u32,
    /// Messages that wait to be written to one agent, before it is taken for stuck.
    pub outbound_messages: usize,
    /// Bytes that wait to be written to one agent.
    pub outbound_bytes: usize,
    /// Commands that wait for the engine.
    pub commands: usize,
    /// Commands that are committed together.
    pub batch: usize,
    /// Events that a slow watcher may fall behind before it reads the store instead.
    pub watched_events: usize,
    /// Lists of tasks that are read at once; fewer than there are connections to the store, so that checks of
    /// tokens never wait for lists.
    pub lists: usize,
    /// Bytes of one part of an artifact; each part that arrives is in memory.
    pub artifact_part_bytes: u64,
    /// Parts of artifacts that arrive at once.
    pub artifact_parts_at_once: usize,
    /// Artifacts that are read at once; each reader has a piece of a part in memory.
    pub artifact_readers: usize,
    /// Bytes of one artifact; `sortie_protocol::artifact::MAX_PARTS` holds beside it.
    pub artifact_bytes: u64,
    /// Bytes of all artifacts together.
    pub artifacts_total_bytes: u64,
    /// Artifacts of one attempt, those included that it dropped.
    pub artifacts_per_attempt: u32,
    /// Uploads that one agent may have open.
    pub artifact_uploads_per_agent: u32,
    /// Slots that an agent can offer at once; half of `outbound_messages` at most.
    pub credit: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            attempts_per_task: 5,
            agents_per_task: 3,
            reach_entries: 10_000,
            offers_per_task: 100,
            prune_batch: 200,
            live_tasks: 100_000,
            connections: 16_384,
            handshakes: 512,
            challenges: 1024,
            body_bytes: 1024 * 1024,
            protocol_errors: 8,
            outbound_messages: 256,
            outbound_bytes: 4 * 1024 * 1024,
            commands: 1024,
            batch: 256,
            watched_events: 1024,
            lists: 2,
            artifact_part_bytes: 8 * MIB,
            artifact_parts_at_once: 16,
            artifact_readers: 32,
            artifact_bytes: 20 * 1024 * MIB,
            artifacts_total_bytes: 100 * 1024 * MIB,
            artifacts_per_attempt: 8,
            artifact_uploads_per_agent: 64,
            credit: 1024,
        }
    }
}
