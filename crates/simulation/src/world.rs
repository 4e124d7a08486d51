//! One run: a control plane, agents, a client (`client`), and everything that a seed does to them (`weather`).

mod client;
mod weather;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sortie::agent::{Agent, Parts, Wish};
use sortie::identity::{AgentKey, Identity};
use sortie::journal::Journal;
use sortie::runner::Runner;
use sortie::session::Profile;
use sortie::status::Board;
use sortie::systemd::Notifier;
use sortie_control::dispatch::{Mode, TaskState};
use sortie_control::engine::{EngineHandle, prepare};
use sortie_control::session::{SessionContext, run as run_session};
use sortie_control::settings::{Limits, Times};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::chaos::{Chaos, Process};
use crate::disk::{Disk, DiskStore};
use crate::ledger::{Memory, Shared, registration};
use crate::network::{Cable, Door, Line, served};
use crate::oracle::{Counts, Oracle};
use crate::work::Labor;

/// The base URL of the control plane.
const ORIGIN: &str = "https://sortie.example";
/// Agents in a run.
const AGENTS: usize = 3;
/// Tasks that an agent does at once.
const SLOTS: u32 = 2;
/// How long things go wrong.
const STORM: Duration = Duration::from_secs(400);
/// How long everything may take to come to rest afterwards: longer than any task may wait and run.
const REST: Duration = Duration::from_secs(7200);
/// The longest time that a program is down after its end.
const LONGEST_DOWN: Duration = Duration::from_secs(100);
/// How long a line stalls at the most.
const LONGEST_STALL: Duration = Duration::from_secs(120);

/// What came out of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What was not as it must be.
    pub violations: Vec<String>,
    /// What happened, in numbers.
    pub counts: Counts,
    /// Tells two different runs apart.
    pub digest: u64,
}

/// Runs a seed.
pub fn run(seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    // Made inside: outside of the runtime the clock is the real one.
    runtime.block_on(async { World::new(seed).run().await })
}

/// An agent through all of its lives.
#[derive(Clone)]
struct Host {
    name: String,
    key: AgentKey,
    tags: Vec<String>,
    disk: Disk,
    cable: Cable,
    unreachable: Arc<BTreeSet<String>>,
}

#[derive(Clone)]
struct World {
    chaos: Chaos,
    oracle: Oracle,
    shared: Shared,
    door: Door,
    began: Instant,
    /// The engine that is up.
    engine: Arc<Mutex<Option<EngineHandle>>>,
    /// What is killed next, by its number: the control plane is the last.
    processes: Arc<Mutex<BTreeMap<usize, Process>>>,
    /// Which task was accepted for which key.
    accepted: Arc<Mutex<BTreeMap<String, String>>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let shared = Shared::default();
        Self {
            chaos: Chaos::new(seed),
            oracle: Oracle::new(shared.clone()),
            shared,
            door: Door::default(),
            began: Instant::now(),
            engine: Arc::default(),
            processes: Arc::default(),
            accepted: Arc::default(),
        }
    }

    async fn run(self) -> Outcome {
        let hosts: Vec<Host> = (0..AGENTS).map(|number| self.host(number)).collect();
        let mut programs = JoinSet::new();
        programs.spawn(self.clone().control_plane());
        for (number, host) in hosts.iter().enumerate() {
            programs.spawn(self.clone().agent(number, host.clone()));
        }
        let mut storm = JoinSet::new();
        storm.spawn(self.clone().weather(hosts.clone()));
        storm.spawn(self.clone().client());
        while let Some(ended) = storm.join_next().await {
            ended.expect("a client and a storm that end");
        }
        self.chaos.calm_down();
        self.shared.reinstate_agents();
        self.resume_agents().await;
        if timeout(REST, self.at_rest()).await.is_err() {
            self.oracle.violated("it does not come to rest");
        }
        self.all_are_back(&hosts).await;
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let counts = self.oracle.judge(&accepted, self.chaos.kills());
        programs.shutdown().await;
        Outcome { violations: self.oracle.violations(), counts, digest: self.oracle.digest() }
    }

    fn host(&self, number: usize) -> Host {
        let name = format!("agent-{number}");
        let key = AgentKey::generate().expect("a key");
        let tags = if number == 0 { vec!["one".to_owned()] } else { vec!["many".to_owned()] };
        let public = BASE64.decode(key.public_key()).expect("a public key in base64");
        self.shared.register(registration(&name, public, tags.clone(), ORIGIN));
        // The first agent cannot reach the second host.
        let unreachable = (number == 0).then(|| "https://git-1.example/x".to_owned());
        Host {
            name,
            key,
            tags,
            disk: Disk::default(),
            cable: Cable::default(),
            unreachable: Arc::new(unreachable.into_iter().collect()),
        }
    }

    fn alive(&self, number: usize) -> Process {
        let process = Process::new(&self.chaos);
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).insert(number, process.clone());
        process
    }

    /// An agent, started again and again.
    async fn agent(self, number: usize, host: Host) {
        let mut after_power_loss = false;
        loop {
            let process = self.alive(number);
            let kept = host.disk.read(after_power_loss);
            let store =
                DiskStore { disk: host.disk.clone(), chaos: self.chaos.clone(), process: process.clone() };
            let (wish, wishes) = watch::channel(Wish::Run);
            let agent = self.agent_of(&host, &process, Journal::new(store, kept));
            let drained = async {
                // Some are told to end before something kills them.
                sleep(self.chaos.duration(STORM * 4)).await;
                if self.chaos.is_calm() {
                    std::future::pending::<()>().await;
                }
                let _ = wish.send(Wish::Drain);
                sleep(self.chaos.duration(LONGEST_STALL)).await;
                let _ = wish.send(Wish::Stop);
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = process.killed() => {}
                _ = agent.run(wishes) => {}
                () = drained => {}
            }
            after_power_loss = process.lost_power();
            let down = if self.chaos.is_calm() { Duration::from_secs(1) } else { LONGEST_DOWN };
            sleep(self.chaos.duration(down)).await;
        }
    }

    fn agent_of(
        &self,
        host: &Host,
        process: &Process,
        journal: Journal<DiskStore>,
    ) -> Agent<DiskStore, Labor> {
        let labor = Labor {
            chaos: self.chaos.clone(),
            oracle: self.oracle.clone(),
            agent: host.name.clone(),
            unreachable: Arc::clone(&host.unreachable),
        };
        let way = Line {
            chaos: self.chaos.clone(),
            process: process.clone(),
            cable: host.cable.clone(),
            door: self.door.clone(),
        };
        let chaos = self.chaos.clone();
        Agent::new(Parts {
            way: Box::new(way),
            profile: Profile { name: host.name.clone(), tags: host.tags.clone(), max_tasks: SLOTS },
            identity: Identity {
                agent_id: host.name.clone(),
                control_plane: ORIGIN.to_owned(),
                key: host.key.clone(),
            },
            runner: Runner::new(labor, Duration::from_secs(600)),
            journal,
            notifier: Notifier::from_environment(),
            board: Board::new().0,
            drain: Duration::from_secs(60),
            jitter: Box::new(move || chaos.fraction()),
        })
    }

    /// The control plane, started again and again.
    async fn control_plane(self) {
        loop {
            let process = self.alive(AGENTS);
            self.serve(&process).await;
            self.door.close();
            *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = None;
            let down = if self.chaos.is_calm() { Duration::from_secs(1) } else { LONGEST_DOWN };
            sleep(self.chaos.duration(down)).await;
        }
    }

    /// One life of the control plane.
    async fn serve(&self, process: &Process) {
        let ledger = Memory {
            shared: self.shared.clone(),
            chaos: self.chaos.clone(),
            process: process.clone(),
            oracle: self.oracle.clone(),
            began: self.began,
        };
        let (times, limits, stop) = (Times::default(), Limits::default(), CancellationToken::new());
        let (handle, engine) = prepare(ledger.clone(), times.clone(), limits.clone(), stop.clone());
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle.clone());
        let mut arriving = self.door.listen(process);
        let handshakes = Arc::new(Semaphore::new(limits.handshakes));
        let mut sessions = JoinSet::new();
        let stopping = sleep(self.chaos.duration(STORM * 4));
        tokio::pin!(engine, stopping);
        let mut is_stopping = false;
        loop {
            tokio::select! {
                biased;
                () = process.killed() => {
                    // First, in their order: the engine lets go of them by identifiers that no seed decides.
                    sessions.abort_all();
                    return;
                }
                () = &mut engine => break,
                Some(ended) = sessions.join_next() => {
                    if ended.is_err() {
                        self.oracle.violated("a session of the control plane panicked");
                    }
                }
                Some(end) = arriving.recv() => {
                    let (reader, writer) = served(end, self.oracle.clone());
                    let Ok(handshake) = Arc::clone(&handshakes).try_acquire_owned() else { continue };
                    let context = SessionContext {
                        store: ledger.clone(),
                        engine: handle.clone(),
                        public_urls: Vec::new(),
                        times: times.clone(),
                        limits: limits.clone(),
                        handshake,
                    };
                    sessions.spawn(run_session(reader, writer, context));
                }
                () = &mut stopping, if !is_stopping => {
                    is_stopping = true;
                    if !self.chaos.is_calm() {
                        stop.cancel();
                    }
                }
            }
        }
        // It has stopped in order: the sessions may say goodbye.
        let goodbyes = async { while sessions.join_next().await.is_some() {} };
        tokio::select! {
            biased;
            () = process.killed() => {}
            _ = timeout(times.stop_grace, goodbyes) => {}
        }
    }

    fn up(&self) -> Option<EngineHandle> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends every pause, so that what waits can be done.
    async fn resume_agents(&self) {
        for number in 0..AGENTS {
            loop {
                if let Some(engine) = self.up()
                    && engine.set_mode(format!("agent-{number}"), Mode::Active).await.is_ok()
                {
                    break;
                }
                sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Waits until every task has ended.
    async fn at_rest(&self) {
        loop {
            let is_over = |state: TaskState| state == TaskState::Completed;
            if self.shared.look().tasks.values().all(|row| is_over(row.state)) {
                return;
            }
            sleep(Duration::from_secs(5)).await;
        }
    }

    /// In the end every agent is connected with all of its slots free, and has delivered everything.
    async fn all_are_back(&self, hosts: &[Host]) {
        let names: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
        let settled = async {
            loop {
                let found = match self.up() {
                    Some(engine) => engine.agents(names.clone()).await.unwrap_or_default(),
                    None => HashMap::default(),
                };
                let are_free = found.values().all(|agent| agent.view.free_slots == SLOTS);
                let have_delivered = hosts.iter().all(|host| host.disk.is_settled());
                if found.len() == names.len() && are_free && have_delivered {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        };
        if timeout(Duration::from_secs(600), settled).await.is_err() {
            let found = match self.up() {
                Some(engine) => engine.agents(names).await.unwrap_or_default(),
                None => HashMap::default(),
            };
            let views: Vec<_> = found.values().map(|agent| &agent.view).collect();
            let disks: Vec<_> = hosts.iter().map(|host| &host.disk).collect();
            self.oracle.violated(&format!(
                "an agent is not back with all slots free and everything delivered: {views:?}, {disks:?}"
            ));
        }
    }
}
