//! What holds whatever happens, in whatever order.

use super::*;

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
                let acts =
                    self.may_act.iter().find(|(it, until)| it.task_id == attempt.task_id && **until > now);
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
