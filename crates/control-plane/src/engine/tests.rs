//! The engine over a ledger in memory, with paused time: what a database could not be made to do at will.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sortie_protocol::AttemptId;
use sortie_protocol::message::{AgentMessage, AttemptOutcome, ControlMessage};
use sortie_protocol::task::TaskSpec;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::dispatch::tests::result;
use crate::dispatch::{Connected, Mode, Outcome, PastAttempt, Posted, RestoredTask, TaskState};
use crate::store::{AgentRecord, IdempotencyKey};

const HOUR: Millis = 3_600_000;

#[derive(Debug, Default)]
struct Kept {
    /// What the clock of the wall showed when the test began, with everything by which it was set since.
    wall: Millis,
    stamp: Option<Stamp>,
    commits: Vec<Vec<Transition>>,
    /// Live tasks with the `elapsed` of their posts.
    tasks: BTreeMap<String, (Posted, Duration)>,
    /// How many of the next commits fail.
    failures: u32,
    /// How often old tasks were to be removed, which always fails.
    prunes: u32,
    keys: Vec<IdempotencyKey>,
}

/// A ledger of tasks that were never offered, which is all that these tests restore.
#[derive(Debug, Clone)]
struct Memory(Arc<Mutex<Kept>>, Instant);

impl Ledger for Memory {
    async fn commit(
        &self,
        at: Stamp,
        transitions: &[Transition],
        keys: &[IdempotencyKey],
    ) -> Result<(), StoreError> {
        let mut kept = self.0.lock().unwrap();
        if kept.failures > 0 {
            kept.failures -= 1;
            return Err(StoreError::Full);
        }
        kept.stamp = Some(at);
        kept.keys.extend_from_slice(keys);
        for transition in transitions {
            match transition {
                Transition::TaskPosted { task_id, bytes, spec } => {
                    let (bytes, spec) = (Arc::clone(bytes), Arc::clone(spec));
                    let posted = Posted { id: task_id.clone(), spec, bytes };
                    kept.tasks.insert(task_id.clone(), (posted, at.elapsed));
                }
                Transition::TaskCompleted { task_id, .. } => {
                    kept.tasks.remove(task_id);
                }
                _ => {}
            }
        }
        kept.commits.push(transitions.to_vec());
        Ok(())
    }

    async fn last_stamp(&self) -> Result<Option<Stamp>, StoreError> {
        Ok(self.0.lock().unwrap().stamp)
    }

    async fn live_tasks(&self, elapsed: Duration) -> Result<Vec<RestoredTask>, StoreError> {
        let kept = self.0.lock().unwrap();
        let restored = kept.tasks.values().map(|(posted, posted_at)| RestoredTask {
            posted: posted.clone(),
            waited: elapsed.saturating_sub(*posted_at),
            cancel: None,
            attempts: Vec::new(),
        });
        Ok(restored.collect())
    }

    async fn past_attempt(&self, _: &AttemptId) -> Result<Option<PastAttempt>, StoreError> {
        Ok(None)
    }

    async fn idempotency_key(&self, token: &str, key: &str) -> Result<Option<IdempotencyKey>, StoreError> {
        let kept = self.0.lock().unwrap();
        Ok(kept.keys.iter().find(|it| it.token_id == token && it.key == key).cloned())
    }

    async fn agents(&self) -> Result<Vec<AgentRecord>, StoreError> {
        Ok(Vec::new())
    }

    async fn agent(&self, id: &str) -> Result<Option<AgentRecord>, StoreError> {
        Ok(Some(AgentRecord {
            id: id.to_owned(),
            name: id.to_owned(),
            public_key: Vec::new(),
            origin: String::new(),
            tags: Vec::new(),
            token_tags: Vec::new(),
            version: String::new(),
            os: String::new(),
            arch: String::new(),
            max_tasks: 1,
            mode: Mode::Active,
            created_at: 0,
            last_seen_at: None,
        }))
    }

    async fn rename_agent(&self, _: &str, _: &str) -> Result<bool, StoreError> {
        Ok(true)
    }

    async fn prune_tasks(&self, _: Duration, _: u32) -> Result<u64, StoreError> {
        self.0.lock().unwrap().prunes += 1;
        Err(StoreError::NotADatabase)
    }

    fn wall_clock(&self) -> Millis {
        self.0.lock().unwrap().wall + Millis::try_from(self.1.elapsed().as_millis()).unwrap()
    }
}

impl Memory {
    fn new() -> Self {
        Self(Arc::default(), Instant::now())
    }

    fn start(&self) -> (EngineHandle, JoinHandle<()>) {
        start(self.clone(), Times::default(), Limits::default(), CancellationToken::new())
    }

    /// Kills an engine and starts the next one after a pause by the clock of the wall alone.
    async fn restart(&self, running: JoinHandle<()>, pause: Millis) -> (EngineHandle, JoinHandle<()>) {
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
        self.set_clock(pause);
        self.start()
    }

    /// Sets the clock of the wall by this much.
    fn set_clock(&self, by: Millis) {
        self.0.lock().unwrap().wall += by;
    }

    fn is_live(&self, id: &str) -> bool {
        self.0.lock().unwrap().tasks.contains_key(id)
    }

    fn commits(&self) -> usize {
        self.0.lock().unwrap().commits.len()
    }
}

fn task(id: &str) -> NewTask {
    let bytes = r#"{"kind":"connection-test","url":"https://a","queue_seconds":600}"#;
    let spec: TaskSpec = serde_json::from_str(bytes).unwrap();
    NewTask { id: id.to_owned(), spec: Arc::new(spec), bytes: bytes.into(), key: None }
}

/// Lets time pass, in steps that are short enough for every timer to fire by itself.
async fn pass(seconds: u64) {
    for _ in 0..seconds {
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_while_the_server_runs_neither_ends_a_task_early_nor_keeps_it() {
    for step in [HOUR, -HOUR] {
        let ledger = Memory::new();
        ledger.set_clock(10 * HOUR);
        let (engine, running) = ledger.start();
        assert_eq!(engine.post(task("t")).await.unwrap(), Posting::Created(10 * HOUR));
        pass(60).await;
        ledger.set_clock(step);
        // Nobody does anything, and the ledger is told the time for all that.
        pass(60).await;
        let (_engine, _running) = ledger.restart(running, 0).await;
        pass(470).await;
        assert!(ledger.is_live("t"), "{step}");
        pass(20).await;
        assert!(!ledger.is_live("t"), "{step}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_between_two_processes_counts() {
    let ledger = Memory::new();
    let (engine, running) = ledger.start();
    engine.post(task("t")).await.unwrap();
    let (engine, running) = ledger.restart(running, 500_000).await;
    engine.post(task("later")).await.unwrap();
    pass(90).await;
    assert!(ledger.is_live("t"));
    pass(20).await;
    assert!(!ledger.is_live("t"));
    // A clock that was set back meanwhile adds nothing, and takes away what came after the last stamp at the most.
    let (_engine, _running) = ledger.restart(running, -HOUR).await;
    pass(480).await;
    assert!(ledger.is_live("later"));
    pass(20 + Times::default().stamp.as_secs()).await;
    assert!(!ledger.is_live("later"));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_answers_nobody_and_the_engine_goes_on_from_the_ledger() {
    let ledger = Memory::new();
    let (engine, _running) = ledger.start();
    engine.post(task("first")).await.unwrap();
    ledger.0.lock().unwrap().failures = 1;
    assert!(engine.post(task("second")).await.is_err());
    pass(2).await;
    assert!(engine.is_ready());
    assert!(matches!(engine.post(task("third")).await.unwrap(), Posting::Created(_)));
    let live = ["first", "second", "third"].map(|id| ledger.is_live(id));
    assert_eq!(live, [true, false, true]);
}

fn connected() -> Connected {
    Connected {
        session: "s".to_owned(),
        agent_id: "a".to_owned(),
        name: "a".to_owned(),
        tags: BTreeSet::new(),
        own_tags: Vec::new(),
        version: String::new(),
        os: String::new(),
        arch: String::new(),
        max_tasks: 1,
        mode: Mode::Active,
        running: Vec::new(),
        unacknowledged: Vec::new(),
        lost: Vec::new(),
    }
}

async fn offer(messages: &mut mpsc::Receiver<Outbound>) -> AttemptId {
    loop {
        if let Some(Outbound::Message(message)) = messages.recv().await
            && let ControlMessage::Offer(offer) = *message
        {
            return offer.attempt;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_start_of_an_attempt_waits_for_a_commit_that_somebody_waits_for() {
    let ledger = Memory::new();
    let (engine, _running) = ledger.start();
    let (outbound, mut messages) = mpsc::channel(16);
    assert!(engine.connect(connected(), outbound).await.unwrap());
    for renews in [false, true] {
        engine.from_agent("s".to_owned(), AgentMessage::Credit { slots: 1 }).await.unwrap();
        let id = format!("t{renews}");
        engine.post(task(&id)).await.unwrap();
        let attempt = offer(&mut messages).await;
        let mut events = engine.watch();
        let before = ledger.commits();
        for message in [AgentMessage::Accept(attempt.clone()), AgentMessage::Start(attempt.clone())] {
            engine.from_agent("s".to_owned(), message).await.unwrap();
        }
        sleep(Duration::from_millis(40)).await;
        assert_eq!(ledger.commits(), before);
        if renews {
            // Whoever is told to go on may rely on the start: it is durable by then.
            let renew = AgentMessage::Renew { attempts: vec![attempt.clone()] };
            engine.from_agent("s".to_owned(), renew).await.unwrap();
            while !matches!(
                messages.recv().await,
                Some(Outbound::Message(message)) if matches!(*message, ControlMessage::Renewed { .. })
            ) {}
        } else {
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(ledger.commits(), before + 1);
        let started = Transition::AttemptStarted { attempt: attempt.clone() };
        assert_eq!(ledger.0.lock().unwrap().commits[before], [started]);
        assert!(matches!(events.recv().await.unwrap().change, TaskChange::State(TaskState::Running, None)));
        engine.from_agent("s".to_owned(), result(&attempt, AttemptOutcome::Succeeded)).await.unwrap();
        let done = events.recv().await.unwrap().change;
        assert!(matches!(done, TaskChange::State(TaskState::Completed, Some(Outcome::Succeeded))));
    }
}

#[tokio::test(start_paused = true)]
async fn old_tasks_that_cannot_be_removed_end_nothing() {
    let times =
        Times { task_life: Duration::from_secs(10), prune: Duration::from_secs(60), ..Times::default() };
    let ledger = Memory::new();
    let (engine, _running) = start(ledger.clone(), times, Limits::default(), CancellationToken::new());
    let (outbound, mut messages) = mpsc::channel(16);
    assert!(engine.connect(connected(), outbound).await.unwrap());
    pass(200).await;
    let prunes = ledger.0.lock().unwrap().prunes;
    assert!((2..=4).contains(&prunes), "it is tried at its times: {prunes}");
    let is_closed =
        std::iter::from_fn(|| messages.try_recv().ok()).any(|it| matches!(it, Outbound::Close(_)));
    assert!(!is_closed && engine.is_ready(), "and nobody else is concerned");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_while_nothing_waits_does_not_pass_for_a_pause() {
    let ledger = Memory::new();
    ledger.set_clock(10 * HOUR);
    let (engine, running) = ledger.start();
    engine.post(task("t")).await.unwrap();
    engine.cancel("t".to_owned(), "enough".to_owned()).await.unwrap();
    ledger.set_clock(1000 * HOUR);
    pass(60).await;
    let (_engine, _running) = ledger.restart(running, 0).await;
    pass(60).await;
    let elapsed = ledger.0.lock().unwrap().stamp.unwrap().elapsed;
    assert!(elapsed < Duration::from_secs(200), "{elapsed:?}");
}
