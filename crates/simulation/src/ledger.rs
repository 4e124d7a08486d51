//! The control plane's store in memory, which looks at what it is told: nothing may be posted, offered, ended or
//! completed twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sortie_control::dispatch::{
    Mode, Outcome, PastAttempt, Posted, RestoredAttempt, RestoredTask, TaskState, Transition,
};
use sortie_control::engine::{Ledger, Stamp};
use sortie_control::settings::Limits;
use sortie_control::store::{AgentRecord, IdempotencyKey, Millis, StoreError};
use sortie_protocol::AttemptId;
use sortie_protocol::report::TaskOutput;
use tokio::time::{Instant, sleep};

use crate::chaos::{Chaos, Process};
use crate::oracle::Oracle;

/// How much earlier than it is kept something was decided at the most, and what is lost of durations in milliseconds.
const DECIDED_BEFORE: Duration = Duration::from_millis(50);

/// How long a commit takes at the most.
const SLOWEST_COMMIT: Duration = Duration::from_millis(30);

/// A task as it is kept.
#[derive(Debug, Clone)]
pub struct Row {
    posted: Posted,
    posted_elapsed: Duration,
    /// When it was posted, by the clock of the run, and what was excused before that.
    posted_at: Instant,
    excused: Duration,
    order: usize,
    /// Where it stands.
    pub state: TaskState,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Why, for people.
    pub reason: Option<String>,
    cancel: Option<String>,
    /// Its attempts, by their numbers.
    pub attempts: BTreeMap<u32, AttemptRow>,
}

impl Row {
    /// Whether a wish to stop it is kept, or it is over anyway.
    pub fn is_cancelled_or_over(&self) -> bool {
        self.cancel.is_some() || self.state == TaskState::Completed
    }

    /// Whether as many attempts were lost, or could not reach the server, as the task allows.
    pub fn has_used_its_attempts(&self) -> bool {
        let used = |attempt: &&AttemptRow| attempt.kept.counted || attempt.kept.passed_on.is_some();
        let counted = self.attempts.values().filter(used).count();
        let allowed = self.posted.spec.max_attempts.unwrap_or(Limits::default().attempts_per_task);
        counted >= usize::try_from(allowed).unwrap_or(usize::MAX)
    }
}

/// An attempt as it is kept.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    kept: RestoredAttempt,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// When, by the clock of the run.
    pub ended_at: Option<Instant>,
}

impl AttemptRow {
    /// Whether a result has ended it.
    pub fn has_result(&self) -> bool {
        self.kept.ended && self.kept.by_result
    }
}

/// All that is kept.
#[derive(Debug, Default)]
pub struct Database {
    /// The tasks, by their identifiers.
    pub tasks: BTreeMap<String, Row>,
    agents: BTreeMap<String, AgentRecord>,
    /// Agents whose registration has ended.
    revoked: BTreeSet<String>,
    keys: Vec<IdempotencyKey>,
    stamp: Option<Stamp>,
    /// When that was kept, by the clock of the run.
    stamped_at: Option<Instant>,
    /// How far the clock of the wall is off.
    wall_offset: Millis,
    /// When it was set, and by how much, as far as no process has started since.
    steps: Vec<(Instant, Millis)>,
    /// How long a process that starts may rightly believe to have been away, because the clock was set meanwhile.
    excused: Duration,
    /// Results that came for attempts that had been given up.
    pub late_results: u64,
}

/// The database, which outlives processes. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Database>>);

impl Shared {
    /// A look into it.
    pub fn look(&self) -> MutexGuard<'_, Database> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the clock of the wall by so much.
    pub fn set_clock(&self, by: Millis) {
        let mut database = self.look();
        database.wall_offset += by;
        database.steps.push((Instant::now(), by));
    }

    /// Lets every agent in again.
    pub fn reinstate_agents(&self) {
        self.look().revoked.clear();
    }

    /// Registers an agent.
    pub fn register(&self, agent: AgentRecord) {
        self.look().agents.insert(agent.id.clone(), agent);
    }
}

/// A process's way to the database.
#[derive(Clone)]
pub struct Memory {
    /// The database.
    pub shared: Shared,
    /// The chance of the run.
    pub chaos: Chaos,
    /// Whose way it is.
    pub process: Process,
    /// Who watches.
    pub oracle: Oracle,
    /// When the run began.
    pub began: Instant,
}

impl Memory {
    async fn read(&self) -> Result<(), StoreError> {
        self.process.step().await;
        if self.chaos.strikes(self.chaos.weather().store / 2) { Err(StoreError::Busy) } else { Ok(()) }
    }
}

impl Ledger for Memory {
    async fn commit(
        &self,
        at: Stamp,
        transitions: &[Transition],
        keys: &[IdempotencyKey],
    ) -> Result<(), StoreError> {
        self.process.step().await;
        sleep(self.chaos.duration(SLOWEST_COMMIT)).await;
        let failure = self.chaos.weather().store;
        if self.chaos.strikes(failure) {
            return Err(StoreError::Full);
        }
        {
            let mut database = self.shared.look();
            for transition in transitions {
                if let Err(wrong) = database.apply(at, transition) {
                    self.oracle.violated(&format!("{wrong}: {transition:?}"));
                }
            }
            database.keys.extend_from_slice(keys);
            database.stamp = Some(at);
            database.stamped_at = Some(Instant::now());
        }
        self.process.step().await;
        // It was committed, and nobody heard of it.
        if self.chaos.strikes(failure) { Err(StoreError::Locked) } else { Ok(()) }
    }

    async fn last_stamp(&self) -> Result<Option<Stamp>, StoreError> {
        self.read().await?;
        let mut database = self.shared.look();
        // What the clock was set by since the last stamp cannot be told from a pause.
        let since = database.stamped_at.and_then(|at| at.checked_sub(DECIDED_BEFORE));
        let forward =
            database.steps.iter().filter(|(at, by)| *by > 0 && since.is_none_or(|since| *at >= since));
        let forward: u64 = forward.filter_map(|(_, by)| u64::try_from(*by).ok()).sum();
        database.excused += Duration::from_millis(forward);
        database.steps.clear();
        Ok(database.stamp)
    }

    async fn live_tasks(&self, elapsed: Duration) -> Result<Vec<RestoredTask>, StoreError> {
        self.read().await?;
        let database = self.shared.look();
        let mut live: Vec<_> =
            database.tasks.values().filter(|row| row.state != TaskState::Completed).collect();
        live.sort_by_key(|row| row.order);
        let restored = live.into_iter().map(|row| RestoredTask {
            posted: row.posted.clone(),
            waited: elapsed.saturating_sub(row.posted_elapsed),
            cancel: row.cancel.clone(),
            attempts: row.attempts.values().map(|attempt| attempt.kept.clone()).collect(),
        });
        Ok(restored.collect())
    }

    async fn past_attempt(&self, attempt: &AttemptId) -> Result<Option<PastAttempt>, StoreError> {
        self.read().await?;
        let database = self.shared.look();
        let row = database.tasks.get(&attempt.task_id).and_then(|row| row.attempts.get(&attempt.attempt));
        Ok(row.map(|row| PastAttempt { agent_id: row.kept.agent_id.clone(), by_result: row.kept.by_result }))
    }

    async fn idempotency_key(&self, token_id: &str, key: &str) -> Result<Option<IdempotencyKey>, StoreError> {
        self.read().await?;
        let database = self.shared.look();
        Ok(database.keys.iter().find(|it| it.token_id == token_id && it.key == key).cloned())
    }

    async fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        self.read().await?;
        let database = self.shared.look();
        let registered = database.agents.values().filter(|agent| !database.revoked.contains(&agent.id));
        Ok(registered.cloned().collect())
    }

    async fn agent(&self, id: &str) -> Result<Option<AgentRecord>, StoreError> {
        self.read().await?;
        let database = self.shared.look();
        Ok(database.agents.get(id).filter(|agent| !database.revoked.contains(&agent.id)).cloned())
    }

    async fn rename_agent(&self, _: &str, _: &str) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn wall_clock(&self) -> Millis {
        let elapsed = Millis::try_from(self.began.elapsed().as_millis()).unwrap_or(Millis::MAX);
        elapsed + self.shared.look().wall_offset
    }
}

impl Database {
    fn apply(&mut self, at: Stamp, transition: &Transition) -> Result<(), &'static str> {
        match transition {
            Transition::TaskPosted { task_id, bytes, spec } => self.posted(at, task_id, bytes, spec),
            Transition::AttemptOffered { attempt, agent_id, agent_name } => {
                self.offered(attempt, agent_id, agent_name)
            }
            Transition::AttemptStarted { attempt } => {
                self.live_attempt(attempt)?.kept.started = true;
                self.task(&attempt.task_id)?.state = TaskState::Running;
                Ok(())
            }
            Transition::AttemptEnded { attempt, outcome, by_result, counted, reason, passed_on, .. } => {
                let row = self.live_attempt(attempt)?;
                row.outcome = Some(*outcome);
                row.ended_at = Some(Instant::now());
                row.kept.ended = true;
                row.kept.by_result = *by_result;
                row.kept.counted = *counted;
                row.kept.reason = reason.clone();
                row.kept.passed_on = passed_on.clone();
                Ok(())
            }
            Transition::LateResult { attempt, .. } => {
                self.late_results += 1;
                let row = self.tasks.get(&attempt.task_id).and_then(|row| row.attempts.get(&attempt.attempt));
                let is_over = row.is_some_and(|row| row.kept.ended);
                if is_over { Ok(()) } else { Err("a result is late for an attempt that is not over") }
            }
            Transition::TaskQueued { task_id } => {
                self.task(task_id)?.state = TaskState::Queued;
                Ok(())
            }
            Transition::TaskCancelling { task_id, reason } => {
                let row = self.task(task_id)?;
                row.state = TaskState::Cancelling;
                row.cancel = Some(reason.clone());
                Ok(())
            }
            Transition::TaskCompleted { task_id, outcome, result, reason } => {
                self.completed(task_id, *outcome, result.as_ref(), reason.clone())
            }
            Transition::AgentMode { agent_id, mode } => {
                if let Some(agent) = self.agents.get_mut(agent_id) {
                    agent.mode = *mode;
                }
                Ok(())
            }
            Transition::AgentRevoked { agent_id } => {
                self.revoked.insert(agent_id.clone());
                Ok(())
            }
            Transition::AgentConnected(_) | Transition::AgentGone { .. } => Ok(()),
        }
    }

    /// A task that is not completed.
    fn task(&mut self, id: &str) -> Result<&mut Row, &'static str> {
        let row = self.tasks.get_mut(id).ok_or("there is no such task")?;
        if row.state == TaskState::Completed { Err("the task is completed") } else { Ok(row) }
    }

    /// An attempt that is not over.
    fn live_attempt(&mut self, attempt: &AttemptId) -> Result<&mut AttemptRow, &'static str> {
        let row = self.task(&attempt.task_id)?;
        let row = row.attempts.get_mut(&attempt.attempt).ok_or("there is no such attempt")?;
        if row.kept.ended { Err("the attempt is over") } else { Ok(row) }
    }

    fn posted(
        &mut self,
        at: Stamp,
        id: &str,
        bytes: &Arc<str>,
        spec: &Arc<sortie_protocol::task::TaskSpec>,
    ) -> Result<(), &'static str> {
        let row = Row {
            posted: Posted { id: id.to_owned(), spec: Arc::clone(spec), bytes: Arc::clone(bytes) },
            posted_elapsed: at.elapsed,
            posted_at: Instant::now(),
            excused: self.excused,
            order: self.tasks.len(),
            state: TaskState::Queued,
            outcome: None,
            reason: None,
            cancel: None,
            attempts: BTreeMap::new(),
        };
        let before = self.tasks.insert(id.to_owned(), row);
        if before.is_some() { Err("the task was posted before") } else { Ok(()) }
    }

    fn offered(&mut self, attempt: &AttemptId, agent_id: &str, agent_name: &str) -> Result<(), &'static str> {
        let row = self.task(&attempt.task_id)?;
        if row.attempts.values().any(|attempt| !attempt.kept.ended) {
            return Err("another attempt is not over");
        }
        if row.cancel.is_some() {
            return Err("the task is to stop");
        }
        if row.attempts.keys().last().is_some_and(|last| *last >= attempt.attempt) {
            return Err("the number was used before");
        }
        row.state = TaskState::Offered;
        let kept = RestoredAttempt {
            number: attempt.attempt,
            agent_id: agent_id.to_owned(),
            agent_name: agent_name.to_owned(),
            started: false,
            ended: false,
            by_result: false,
            counted: false,
            reason: None,
            passed_on: None,
        };
        row.attempts.insert(attempt.attempt, AttemptRow { kept, outcome: None, ended_at: None });
        Ok(())
    }

    fn completed(
        &mut self,
        id: &str,
        outcome: Outcome,
        result: Option<&TaskOutput>,
        reason: Option<String>,
    ) -> Result<(), &'static str> {
        let excused = self.excused;
        let row = self.task(id)?;
        if row.attempts.values().any(|attempt| !attempt.kept.ended) {
            return Err("an attempt is not over");
        }
        let waited = row.posted_at.elapsed() + excused.saturating_sub(row.excused) + DECIDED_BEFORE;
        let may_wait = Duration::from_secs(row.posted.spec.queue_seconds);
        if outcome == Outcome::Expired && waited < may_wait {
            return Err("it has not waited for so long");
        }
        let has_failed =
            |attempt: &AttemptRow| attempt.has_result() && attempt.outcome == Some(Outcome::Failed);
        if outcome == Outcome::Failed && !row.attempts.values().any(has_failed) {
            return Err("no attempt failed");
        }
        row.state = TaskState::Completed;
        row.outcome = Some(outcome);
        row.reason = reason;
        if outcome != Outcome::Succeeded {
            return Ok(());
        }
        // The result says which attempt made it.
        let Some(TaskOutput::Clone(clone)) = result else { return Err("a success without its result") };
        let made = clone.commit.as_deref().unwrap_or_default();
        let counted = row.attempts.values().filter(|attempt| attempt.outcome == Some(Outcome::Succeeded));
        let counted: Vec<_> = counted.map(|attempt| format!("{id}/{}", attempt.kept.number)).collect();
        match counted.as_slice() {
            [one] if made.starts_with(&format!("{one}@")) => Ok(()),
            [_] => Err("the result is another attempt's"),
            [] => Err("no attempt succeeded"),
            _ => Err("more than one attempt succeeded"),
        }
    }
}

/// An agent's registration.
pub fn registration(id: &str, public_key: Vec<u8>, tags: Vec<String>, origin: &str) -> AgentRecord {
    AgentRecord {
        id: id.to_owned(),
        name: id.to_owned(),
        public_key,
        origin: origin.to_owned(),
        tags,
        token_tags: Vec::new(),
        version: String::new(),
        os: String::new(),
        arch: String::new(),
        max_tasks: 1,
        mode: Mode::Active,
        created_at: 0,
        last_seen_at: None,
    }
}
