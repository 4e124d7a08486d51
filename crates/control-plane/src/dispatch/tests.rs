#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sortie_protocol::AttemptId;
use sortie_protocol::message::{
    AgentMessage, AttemptOutcome, AttemptResult, ControlMessage, Decision, Disposition, LostAttempt, Reject,
    RejectReason,
};
use sortie_protocol::report::{Report, ReportOutcome, Target, TaskOutput};

use super::*;

mod failover;
mod passing;
mod queue;
mod refusals;

fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn posted(id: &str, fields: &str) -> Posted {
    let bytes = format!(r#"{{"kind":"connection-test","url":"https://a"{fields}}}"#);
    Posted { id: id.to_owned(), spec: Arc::new(serde_json::from_str(&bytes).unwrap()), bytes: bytes.into() }
}

fn connected(agent: &str, session: &str, running: Vec<AttemptId>, unacknowledged: Vec<AttemptId>) -> Event {
    Event::AgentConnected(Box::new(Connected {
        session: session.to_owned(),
        agent_id: agent.to_owned(),
        name: agent.to_owned(),
        tags: BTreeSet::from([format!("name:{agent}")]),
        own_tags: Vec::new(),
        version: "0".to_owned(),
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        max_tasks: 3,
        mode: Mode::Active,
        running,
        unacknowledged,
        lost: Vec::new(),
    }))
}

fn says(session: &str, message: AgentMessage) -> Event {
    Event::Message { session: session.to_owned(), message: Box::new(message) }
}

fn result(attempt: &AttemptId, outcome: AttemptOutcome) -> AgentMessage {
    let report = Report {
        started_at: String::new(),
        duration_ms: 0.0,
        outcome: ReportOutcome::Succeeded,
        target: Target { url: String::new(), provider: None, scope: None },
        server: Default::default(),
        identity: Default::default(),
        credential: Default::default(),
        capabilities: Default::default(),
        repository: Default::default(),
        stages: Vec::new(),
        warnings: Vec::new(),
        diagnosis: None,
    };
    let result = TaskOutput::Report(Box::new(report));
    AgentMessage::Result(AttemptResult { attempt: attempt.clone(), outcome, result })
}

fn dispatcher() -> Dispatcher {
    Dispatcher::new(Times::default(), Limits::default(), "test")
}

fn offers(actions: &[Action]) -> Vec<AttemptId> {
    let messages = actions.iter().filter_map(|action| match action {
        Action::Send { message, .. } => Some(message.as_ref()),
        _ => None,
    });
    let offers = messages.filter_map(|message| match message {
        ControlMessage::Offer(offer) => Some(offer.attempt.clone()),
        _ => None,
    });
    offers.collect()
}

fn completions(actions: &[Action]) -> Vec<(String, Outcome)> {
    let completions = actions.iter().filter_map(|action| match action {
        Action::Persist(Transition::TaskCompleted { task_id, outcome, .. }) => {
            Some((task_id.clone(), *outcome))
        }
        _ => None,
    });
    completions.collect()
}

#[test]
fn an_offer_is_durable_before_it_is_sent() {
    let mut core = dispatcher();
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
    let actions = core.handle(at(1), Event::TaskPosted(posted("t", "")));
    let kinds: Vec<_> = actions.iter().map(|action| matches!(action, Action::Persist(_))).collect();
    assert_eq!(kinds, [true, true, false]);
    assert_eq!(offers(&actions).len(), 1);
}

#[test]
fn credit_that_crosses_an_offer_is_not_spent_twice() {
    let mut core = dispatcher();
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
    let first = offers(&core.handle(at(0), Event::TaskPosted(posted("t1", ""))));
    // The agent had not seen the offer when it said this.
    let crossed = core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
    assert!(offers(&crossed).is_empty());
    core.handle(at(0), says("s1", AgentMessage::Accept(first[0].clone())));
    assert!(offers(&core.handle(at(0), Event::TaskPosted(posted("t2", "")))).is_empty());
    let after = core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
    assert_eq!(offers(&after).len(), 1);
}

#[test]
fn offers_at_once_leave_room_in_the_queue_to_the_agent() {
    let limits = Limits { outbound_messages: 4, ..Limits::default() };
    let mut core = Dispatcher::new(Times::default(), limits, "test");
    for id in ["t1", "t2", "t3"] {
        core.handle(at(0), Event::TaskPosted(posted(id, "")));
    }
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    assert_eq!(offers(&core.handle(at(0), says("s1", AgentMessage::Credit { slots: 3 }))).len(), 2);
}

#[test]
fn time_alone_ends_offers_leases_and_waiting() {
    let mut core = dispatcher();
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
    core.handle(at(0), Event::TaskPosted(posted("t", r#","queue_seconds":200"#)));
    assert_eq!(core.next_deadline(), Some(at(10_000)));
    core.handle(at(10_000), Event::Tick);
    // The agent was silent, so it gets the task again only when it tells a free slot.
    let offer = offers(&core.handle(at(11_000), says("s1", AgentMessage::Credit { slots: 1 })));
    assert_eq!(offer[0].attempt, 2);
    core.handle(at(11_000), says("s1", AgentMessage::Start(offer[0].clone())));
    core.handle(at(30_000), says("s1", AgentMessage::Renew { attempts: offer.clone() }));
    assert!(core.handle(at(94_999), Event::Tick).is_empty());
    let lost = core.handle(at(95_000), Event::Tick);
    assert!(matches!(
        &lost[0],
        Action::Persist(Transition::AttemptEnded { outcome: Outcome::Expired, counted: true, .. })
    ));
    assert!(core.handle(at(199_999), Event::Tick).is_empty());
    assert_eq!(completions(&core.handle(at(200_000), Event::Tick)), [("t".to_owned(), Outcome::Expired)]);
    assert_eq!(core.live_tasks(), 0);
}

#[test]
fn a_restored_task_goes_on_where_it_was() {
    let mut core = dispatcher();
    let attempt = |number, started, ended| RestoredAttempt {
        number,
        agent_id: "a".to_owned(),
        agent_name: "a".to_owned(),
        started,
        ended,
        by_result: false,
        counted: ended,
        reason: None,
        passed_on: None,
    };
    let task = |id, waited, attempts| RestoredTask {
        posted: posted(id, r#","queue_seconds":100"#),
        waited: at(waited),
        cancel: None,
        attempts,
    };
    core.restore(
        at(0),
        vec![
            task("old", 150_000, vec![]),
            task("running", 50_000, vec![attempt(1, true, true), attempt(2, true, false)]),
            task("offered", 50_000, vec![attempt(1, false, false)]),
        ],
    );
    assert_eq!(completions(&core.handle(at(1), Event::Tick)), [("old".to_owned(), Outcome::Expired)]);
    let running = AttemptId { task_id: "running".to_owned(), attempt: 2 };
    let welcome = core.handle(at(1), connected("a", "s1", vec![running.clone()], vec![]));
    assert!(welcome.iter().any(|action| matches!(
        action,
        Action::Persist(Transition::AttemptEnded { attempt, counted: false, .. })
            if attempt.task_id == "offered"
    )));
    let done = core.handle(at(2), says("s1", result(&running, AttemptOutcome::Succeeded)));
    assert_eq!(completions(&done), [("running".to_owned(), Outcome::Succeeded)]);
    let again = core.handle(at(3), says("s1", AgentMessage::Credit { slots: 1 }));
    assert_eq!(offers(&again), [AttemptId { task_id: "offered".to_owned(), attempt: 2 }]);
}

/// A small generator of numbers, the same on every run for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What a store would hold, and what every agent was told.
#[derive(Default)]
struct World {
    posted: u64,
    completed: BTreeMap<String, Outcome>,
    open: BTreeMap<String, AttemptId>,
    numbers: BTreeSet<AttemptId>,
    owners: BTreeMap<AttemptId, String>,
    by_result: BTreeSet<AttemptId>,
    passed_on: BTreeMap<AttemptId, Box<TaskOutput>>,
    clones: BTreeSet<String>,
    /// Until when an attempt of a clone may have effects, by the leases that its agent was given.
    may_act: BTreeMap<AttemptId, Duration>,
    recorded: BTreeSet<AttemptId>,
    /// The session of each agent, and what each agent runs.
    sessions: BTreeMap<String, String>,
    runs: BTreeMap<String, Vec<AttemptId>>,
    acknowledged: Vec<AttemptId>,
}

impl World {
    fn carry_out(&mut self, core: &mut Dispatcher, now: Duration, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Persist(transition) => self.persist(now, transition),
                Action::Send { session, message } => self.deliver(now, &session, *message),
                Action::Close { session, .. } => self.sessions.retain(|_, open| *open != session),
                Action::Recall { session, result } => {
                    let record = self.owners.get(&result.attempt).map(|agent_id| PastAttempt {
                        agent_id: agent_id.clone(),
                        by_result: self.by_result.contains(&result.attempt),
                    });
                    let actions = core.handle(now, Event::Recalled { session, result, record });
                    self.carry_out(core, now, actions);
                }
                Action::Progress(_) => {}
            }
        }
    }

    fn persist(&mut self, now: Duration, transition: Transition) {
        match transition {
            Transition::AttemptOffered { attempt, agent_id, .. } => {
                assert!(self.numbers.insert(attempt.clone()), "{attempt} was given out twice");
                assert!(!self.completed.contains_key(&attempt.task_id), "{attempt} of a completed task");
                let before = self.open.insert(attempt.task_id.clone(), attempt.clone());
                assert_eq!(before, None, "two attempts of one task at once");
                let others = self.may_act.iter().filter(|(it, _)| it.task_id == attempt.task_id);
                let acts = others.filter(|(_, until)| **until > now).next();
                assert_eq!(acts, None, "{attempt} at {now:?} while another one may have effects");
                self.owners.insert(attempt, agent_id);
            }
            Transition::AttemptEnded { attempt, by_result, passed_on, .. } => {
                self.passed_on.extend(passed_on.map(|result| (attempt.clone(), result)));
                assert_eq!(self.open.remove(&attempt.task_id), Some(attempt.clone()));
                if by_result {
                    self.by_result.insert(attempt);
                }
            }
            Transition::TaskCompleted { task_id, outcome, .. } => {
                assert!(!self.open.contains_key(&task_id), "{task_id} ended under a live attempt");
                assert_eq!(self.completed.insert(task_id, outcome), None, "a task was completed twice");
            }
            _ => {}
        }
    }

    fn deliver(&mut self, now: Duration, session: &str, message: ControlMessage) {
        let renewals = match &message {
            ControlMessage::Welcome(welcome) => welcome.attempts.clone(),
            ControlMessage::Renewed { attempts } => attempts.clone(),
            _ => Vec::new(),
        };
        for renewal in renewals {
            let is_kept = renewal.decision == Decision::Keep;
            if is_kept && self.clones.contains(&renewal.attempt.task_id) {
                self.may_act.insert(renewal.attempt, now + at(renewal.lease_ms));
            }
        }
        match message {
            ControlMessage::ResultAck { attempt, disposition } => {
                if disposition == Disposition::Recorded {
                    assert!(self.by_result.contains(&attempt), "{attempt} was acknowledged and not kept");
                    assert!(self.recorded.insert(attempt.clone()), "{attempt} was counted twice");
                }
                self.acknowledged.push(attempt);
            }
            ControlMessage::Offer(offer) => {
                let agent =
                    self.sessions.iter().find(|(_, open)| *open == session).map(|(agent, _)| agent.clone());
                let agent = agent.expect("an offer to a session that is not open");
                self.runs.entry(agent).or_default().push(offer.attempt);
            }
            _ => {}
        }
    }

    fn restored(&self, posted_tasks: &BTreeMap<String, Posted>) -> Vec<RestoredTask> {
        let live = posted_tasks.iter().filter(|(id, _)| !self.completed.contains_key(*id));
        let restored = live.map(|(id, posted)| {
            let attempts = self.numbers.iter().filter(|attempt| attempt.task_id == *id);
            let attempts = attempts.map(|attempt| RestoredAttempt {
                number: attempt.attempt,
                agent_id: self.owners[attempt].clone(),
                agent_name: self.owners[attempt].clone(),
                started: true,
                ended: self.open.get(id) != Some(attempt),
                by_result: self.by_result.contains(attempt),
                counted: false,
                reason: None,
                passed_on: self.passed_on.get(attempt).cloned(),
            });
            RestoredTask {
                posted: posted.clone(),
                waited: Duration::ZERO,
                cancel: None,
                attempts: attempts.collect(),
            }
        });
        restored.collect()
    }
}

/// Whatever agents say, in whatever order, with connections and the control plane itself coming and going:
/// no attempt is given out twice, no two attempts of a task live at once, no clone is given away while the lease of
/// another attempt lasts, no task ends twice, no result is counted twice, and in the end every task has an outcome.
#[test]
fn no_sequence_of_events_breaks_a_promise() {
    for seed in 1..=150 {
        let mut random = Numbers(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let (mut core, mut world) = (dispatcher(), World::default());
        let mut tasks = BTreeMap::new();
        let mut now = Duration::ZERO;
        for step in 0..300 {
            now += at(random.below(4000));
            let agent = format!("agent{}", random.below(3));
            let session = world.sessions.get(&agent).cloned().unwrap_or_default();
            let runs = world.runs.get(&agent).cloned().unwrap_or_default();
            let pick = |random: &mut Numbers| {
                let all: Vec<_> = world.numbers.iter().cloned().collect();
                let known = if random.below(4) == 0 { &all } else { &runs };
                let unknown = AttemptId { task_id: "none".to_owned(), attempt: 1 };
                let count = u64::try_from(known.len()).unwrap().max(1);
                known.get(usize::try_from(random.below(count)).unwrap()).cloned().unwrap_or(unknown)
            };
            let attempt = pick(&mut random);
            let event = match random.below(14) {
                0..=2 => {
                    world.posted += 1;
                    let id = format!("t{}", world.posted);
                    let max_attempts = random.below(6) + 1;
                    let fields = format!(
                        r#","queue_seconds":300,"priority":{},"max_attempts":{max_attempts}"#,
                        random.below(3)
                    );
                    let task = if random.below(3) == 0 {
                        world.clones.insert(id.clone());
                        failover::clone(&id)
                    } else {
                        posted(&id, &fields)
                    };
                    tasks.insert(id, task.clone());
                    Event::TaskPosted(task)
                }
                3 => {
                    let session = format!("s{step}");
                    world.sessions.insert(agent.clone(), session.clone());
                    // Now and then it comes back without what it ran.
                    let keeps = random.below(3) > 0;
                    let (running, gone) = if keeps { (runs, Vec::new()) } else { (Vec::new(), runs) };
                    world.runs.insert(agent.clone(), running.clone());
                    for attempt in &gone {
                        world.may_act.remove(attempt);
                    }
                    let Event::AgentConnected(mut hello) = connected(&agent, &session, running, Vec::new())
                    else {
                        unreachable!()
                    };
                    if random.below(2) == 0 {
                        let lost = |attempt| LostAttempt { attempt, reason: "killed".to_owned() };
                        hello.lost = gone.into_iter().map(lost).collect();
                    }
                    Event::AgentConnected(hello)
                }
                4 => {
                    world.sessions.remove(&agent);
                    Event::AgentGone { session }
                }
                5 | 6 => {
                    let slots = u32::try_from(random.below(4)).unwrap();
                    says(&session, AgentMessage::Credit { slots })
                }
                7 => says(&session, AgentMessage::Accept(attempt)),
                8 => says(&session, AgentMessage::Start(attempt)),
                9 => says(&session, AgentMessage::Renew { attempts: runs }),
                10 | 11 => {
                    if world.owners.get(&attempt) == Some(&agent) {
                        world.may_act.remove(&attempt);
                    }
                    let outcome = match random.below(3) {
                        0 => AttemptOutcome::Succeeded,
                        1 => AttemptOutcome::Failed,
                        _ => AttemptOutcome::Cancelled,
                    };
                    let is_out_of_reach = outcome == AttemptOutcome::Failed && random.below(2) == 0;
                    let said = if is_out_of_reach {
                        passing::failed(&attempt, "name_not_found", "resolve")
                    } else {
                        result(&attempt, outcome)
                    };
                    says(&session, said)
                }
                12 => {
                    let reason = if random.below(2) == 0 { RejectReason::Policy } else { RejectReason::Busy };
                    let retryable = random.below(2) == 0;
                    if world.owners.get(&attempt) == Some(&agent) {
                        world.may_act.remove(&attempt);
                    }
                    let reject = Reject { attempt, retryable, reason, diagnosis: None, result: None };
                    says(&session, AgentMessage::Reject(reject))
                }
                _ if random.below(8) == 0 => {
                    // The control plane is killed and starts again from what was durable.
                    core = dispatcher();
                    world.sessions.clear();
                    core.restore(now, world.restored(&tasks));
                    let agents = ["agent0", "agent1", "agent2"].map(|name| {
                        let tags = BTreeSet::from([format!("name:{name}")]);
                        (Candidate { agent_id: name.to_owned(), name: name.to_owned(), tags }, Mode::Active)
                    });
                    core.expect(now, agents);
                    Event::Tick
                }
                _ => Event::CancelRequested {
                    task_id: format!("t{}", random.below(world.posted + 1)),
                    reason: "test".to_owned(),
                },
            };
            let actions = core.handle(now, event);
            world.carry_out(&mut core, now, actions);
        }
        // With every agent silent, time alone ends everything.
        for _ in 0..200 {
            now += at(10_000);
            let actions = core.handle(now, Event::Tick);
            world.carry_out(&mut core, now, actions);
        }
        assert_eq!(core.live_tasks(), 0, "seed {seed}");
        assert_eq!(u64::try_from(world.completed.len()).unwrap(), world.posted, "seed {seed}");
        assert!(core.next_deadline().is_none(), "seed {seed}");
    }
}
