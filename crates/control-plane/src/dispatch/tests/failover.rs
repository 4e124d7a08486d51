//! Attempts whose agents go, come back, or come back without them.

use super::*;

pub(super) fn clone(id: &str) -> Posted {
    let bytes = r#"{"kind":"clone","url":"https://a","queue_seconds":300}"#;
    Posted { id: id.to_owned(), spec: Arc::new(serde_json::from_str(bytes).unwrap()), bytes: bytes.into() }
}

/// `a` runs the task and its connection has ended at 1 s; `b` is there with a free slot.
fn with_a_gone(task: Posted) -> (Dispatcher, AttemptId) {
    let mut core = dispatcher();
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
    let attempt = offers(&core.handle(at(0), Event::TaskPosted(task))).remove(0);
    core.handle(at(0), says("s1", AgentMessage::Accept(attempt.clone())));
    core.handle(at(0), says("s1", AgentMessage::Start(attempt.clone())));
    core.handle(at(0), connected("b", "s2", vec![], vec![]));
    core.handle(at(0), says("s2", AgentMessage::Credit { slots: 1 }));
    core.handle(at(1000), Event::AgentGone { session: "s1".to_owned() });
    (core, attempt)
}

fn acknowledged(actions: &[Action]) -> Vec<Disposition> {
    let sent = actions.iter().filter_map(|action| match action {
        Action::Send { message, .. } => Some(message.as_ref()),
        _ => None,
    });
    let acknowledged = sent.filter_map(|message| match message {
        ControlMessage::ResultAck { disposition, .. } => Some(*disposition),
        _ => None,
    });
    acknowledged.collect()
}

fn decisions(actions: &[Action]) -> Vec<(Decision, u64)> {
    let sent = actions.iter().filter_map(|action| match action {
        Action::Send { message, .. } => Some(message.as_ref()),
        _ => None,
    });
    let renewals = sent.flat_map(|message| match message {
        ControlMessage::Welcome(welcome) => welcome.attempts.clone(),
        ControlMessage::Renewed { attempts } => attempts.clone(),
        _ => Vec::new(),
    });
    renewals.map(|renewal| (renewal.decision, renewal.lease_ms)).collect()
}

fn ended(actions: &[Action]) -> Option<(Outcome, bool, String)> {
    actions.iter().find_map(|action| match action {
        Action::Persist(Transition::AttemptEnded { outcome, counted, reason, .. }) => {
            Some((*outcome, *counted, reason.clone().unwrap_or_default()))
        }
        _ => None,
    })
}

#[test]
fn a_test_goes_to_another_agent_two_seconds_after_its_agent_went() {
    let (mut core, first) = with_a_gone(posted("t", ""));
    assert_eq!(core.next_deadline(), Some(at(3000)));
    assert_eq!(core.handle(at(2999), Event::Tick), []);
    let actions = core.handle(at(3000), Event::Tick);
    assert_eq!(offers(&actions), [AttemptId { task_id: "t".to_owned(), attempt: 2 }]);
    let (outcome, counted, reason) = ended(&actions).unwrap();
    assert_eq!((outcome, counted), (Outcome::Expired, true));
    assert_eq!(reason, "a lost its connection and was not back within 2 s");
    // The first one comes back with its result after all: it does not count, and is written down.
    let back = core.handle(at(4000), connected("a", "s3", vec![first.clone()], vec![]));
    assert_eq!(decisions(&back)[0].0, Decision::Abandon);
    let late = core.handle(at(4000), says("s3", result(&first, AttemptOutcome::Succeeded)));
    assert_eq!(acknowledged(&late), [Disposition::Stale]);
    assert!(late.iter().any(|it| matches!(it, Action::Persist(Transition::LateResult { .. }))));
    let second = AttemptId { attempt: 2, ..first };
    let done = core.handle(at(5000), says("s2", result(&second, AttemptOutcome::Failed)));
    assert_eq!(completions(&done), [("t".to_owned(), Outcome::Failed)]);
}

#[test]
fn an_agent_that_is_back_in_time_keeps_its_test() {
    let (mut core, first) = with_a_gone(posted("t", ""));
    let back = core.handle(at(2500), connected("a", "s3", vec![first.clone()], vec![]));
    assert_eq!(decisions(&back), [(Decision::Keep, 60_000)]);
    assert_eq!(core.handle(at(3000), Event::Tick), []);
    assert_eq!(core.next_deadline(), Some(at(67_500)));
    let (mut core, first) = with_a_gone(posted("t", ""));
    core.handle(at(2500), connected("a", "s3", vec![], vec![first.clone()]));
    assert_eq!(core.handle(at(3000), Event::Tick), []);
    let done = core.handle(at(3000), says("s3", result(&first, AttemptOutcome::Succeeded)));
    assert_eq!(acknowledged(&done), [Disposition::Recorded]);
}

#[test]
fn a_clone_stays_with_its_agent_until_its_lease_ends() {
    let (mut core, _) = with_a_gone(clone("t"));
    assert_eq!(core.handle(at(64_999), Event::Tick), []);
    assert_eq!(offers(&core.handle(at(65_000), Event::Tick)).len(), 1);
}

#[test]
fn a_test_waits_for_its_agent_while_no_other_one_has_a_slot() {
    let (mut core, first) = with_a_gone(posted("t", ""));
    core.handle(at(2000), says("s2", AgentMessage::Credit { slots: 0 }));
    assert_eq!(core.handle(at(3000), Event::Tick), []);
    // It may come back with it as long as nobody took it.
    let mut other = dispatcher();
    std::mem::swap(&mut other, &mut core);
    let taken = offers(&other.handle(at(9000), says("s2", AgentMessage::Credit { slots: 1 })));
    assert_eq!(taken, [AttemptId { task_id: "t".to_owned(), attempt: 2 }]);
    let (mut core, _) = with_a_gone(posted("t", ""));
    core.handle(at(2000), says("s2", AgentMessage::Credit { slots: 0 }));
    core.handle(at(3000), Event::Tick);
    let back = core.handle(at(8000), connected("a", "s3", vec![first], vec![]));
    assert_eq!(decisions(&back)[0].0, Decision::Keep);
    assert_eq!(offers(&core.handle(at(9000), says("s2", AgentMessage::Credit { slots: 1 }))), []);
}

#[test]
fn the_last_attempt_that_a_task_may_have_is_not_taken_away() {
    let (mut core, first) = with_a_gone(posted("t", r#","max_attempts":1"#));
    assert_eq!(core.handle(at(3000), Event::Tick), []);
    core.handle(at(4000), connected("a", "s3", vec![], vec![first.clone()]));
    let done = core.handle(at(4000), says("s3", result(&first, AttemptOutcome::Succeeded)));
    assert_eq!(completions(&done), [("t".to_owned(), Outcome::Succeeded)]);
}

#[test]
fn an_attempt_that_a_restart_ended_goes_elsewhere_at_once_with_its_reason() {
    let (mut core, first) = with_a_gone(clone("t"));
    let lost = vec![LostAttempt { attempt: first, reason: "the agent was\nrestarted".to_owned() }];
    let Event::AgentConnected(mut back) = connected("a", "s3", vec![], vec![]) else { unreachable!() };
    back.lost = lost;
    let actions = core.handle(at(2000), Event::AgentConnected(back));
    let (outcome, counted, reason) = ended(&actions).unwrap();
    assert_eq!((outcome, counted), (Outcome::Expired, true));
    assert_eq!(reason, "a lost it: the agent wasrestarted");
    assert_eq!(offers(&actions), [AttemptId { task_id: "t".to_owned(), attempt: 2 }]);
}

#[test]
fn a_lost_attempt_counts_though_its_start_never_arrived() {
    let mut core = dispatcher();
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
    let task = posted("t", r#","max_attempts":1"#);
    let attempt = offers(&core.handle(at(0), Event::TaskPosted(task))).remove(0);
    let Event::AgentConnected(mut back) = connected("a", "s2", vec![], vec![]) else { unreachable!() };
    back.lost = vec![LostAttempt { attempt, reason: "killed".to_owned() }];
    let actions = core.handle(at(2000), Event::AgentConnected(back));
    assert_eq!(completions(&actions), [("t".to_owned(), Outcome::Dead)]);
    assert_eq!(reason_of(&actions), "1 attempts were lost: attempt 1 on a: a lost it: killed");
}

fn reason_of(actions: &[Action]) -> String {
    let reason = actions.iter().find_map(|action| match action {
        Action::Persist(Transition::TaskCompleted { reason, .. }) => reason.clone(),
        _ => None,
    });
    reason.unwrap_or_default()
}

#[test]
fn a_dead_task_tells_of_every_attempt() {
    let limits = Limits { attempts_per_task: 2, ..Limits::default() };
    let mut core = Dispatcher::new(Times::default(), limits, "test");
    core.handle(at(0), Event::TaskPosted(clone("t")));
    let mut now = 0;
    for agent in ["a", "b"] {
        core.handle(at(now), connected(agent, agent, vec![], vec![]));
        let attempt = offers(&core.handle(at(now), says(agent, AgentMessage::Credit { slots: 1 })));
        core.handle(at(now), says(agent, AgentMessage::Start(attempt[0].clone())));
        core.handle(at(now), Event::AgentGone { session: agent.to_owned() });
        now += 65_000;
        let over = core.handle(at(now), Event::Tick);
        if agent == "b" {
            assert_eq!(completions(&over), [("t".to_owned(), Outcome::Dead)]);
            assert_eq!(
                reason_of(&over),
                "2 attempts were lost: attempt 1 on a: a did not renew its lease in time; \
                 attempt 2 on b: b did not renew its lease in time"
            );
        }
    }
}

#[test]
fn a_renewal_right_behind_the_start_is_kept_with_a_full_lease() {
    for phase in 0..3 {
        let mut core = dispatcher();
        core.handle(at(0), connected("a", "s1", vec![], vec![]));
        core.handle(at(0), connected("b", "s2", vec![], vec![]));
        core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
        let attempts = offers(&core.handle(at(0), Event::TaskPosted(clone("t"))));
        if phase > 0 {
            core.handle(at(5000), says("s1", AgentMessage::Accept(attempts[0].clone())));
        }
        if phase > 1 {
            core.handle(at(5000), says("s1", AgentMessage::Start(attempts[0].clone())));
        }
        let renew = AgentMessage::Renew { attempts: attempts.clone() };
        let foreign = core.handle(at(5000), says("s2", renew.clone()));
        assert_eq!(decisions(&foreign), [(Decision::Abandon, 0)]);
        let kept = core.handle(at(5000), says("s1", renew));
        assert_eq!(decisions(&kept), [(Decision::Keep, 60_000)], "{phase}");
        assert_eq!(core.next_deadline(), Some(at(70_000)), "{phase}");
    }
}

#[test]
fn a_cancel_ends_a_test_whose_agent_is_away_and_a_clone_with_its_lease() {
    let cancel = || Event::CancelRequested { task_id: "t".to_owned(), reason: "enough".to_owned() };
    let cancelled = [("t".to_owned(), Outcome::Cancelled)];
    let (mut core, _) = with_a_gone(posted("t", ""));
    assert_eq!(completions(&core.handle(at(1500), cancel())), []);
    assert_eq!(completions(&core.handle(at(3000), Event::Tick)), cancelled);
    let (mut core, first) = with_a_gone(clone("t"));
    core.handle(at(1500), cancel());
    assert_eq!(completions(&core.handle(at(64_999), Event::Tick)), []);
    assert_eq!(completions(&core.handle(at(65_000), Event::Tick)), cancelled);
    let (mut core, _) = with_a_gone(clone("t"));
    core.handle(at(1500), cancel());
    let back = core.handle(at(5000), connected("a", "s3", vec![first], vec![]));
    assert_eq!(decisions(&back)[0].0, Decision::Cancel);
}

#[test]
fn a_restored_clone_that_was_offered_may_be_running_and_keeps_a_lease() {
    let restored = |posted| RestoredTask {
        posted,
        waited: at(0),
        cancel: None,
        attempts: vec![RestoredAttempt {
            number: 1,
            agent_id: "a".to_owned(),
            agent_name: "a".to_owned(),
            started: false,
            ended: false,
            by_result: false,
            counted: false,
            reason: None,
            passed_on: None,
        }],
    };
    let mut core = dispatcher();
    core.restore(at(0), vec![restored(clone("t"))]);
    assert_eq!(core.next_deadline(), Some(at(65_000)));
    let mut core = dispatcher();
    core.restore(at(0), vec![restored(posted("t", ""))]);
    assert_eq!(core.next_deadline(), Some(at(10_000)));
}

#[test]
fn a_clone_of_a_revoked_agent_stays_until_its_lease_ends_and_a_test_does_not() {
    let revoked = || Event::AgentRevoked { agent_id: "a".to_owned(), reason: "not trusted".to_owned() };
    let (mut core, _) = with_a_gone(clone("t"));
    assert_eq!(offers(&core.handle(at(2000), revoked())), [], "it may be at work, and does not hear of it");
    assert_eq!(offers(&core.handle(at(64_999), Event::Tick)), []);
    assert_eq!(offers(&core.handle(at(65_000), Event::Tick)).len(), 1);
    let (mut core, _) = with_a_gone(posted("t", ""));
    assert_eq!(offers(&core.handle(at(2000), revoked())).len(), 1);
}

#[test]
fn a_clone_stays_where_another_process_of_its_agent_comes_while_the_first_one_is_there() {
    let mut core = dispatcher();
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
    let attempt = offers(&core.handle(at(0), Event::TaskPosted(clone("t")))).remove(0);
    core.handle(at(0), says("s1", AgentMessage::Accept(attempt.clone())));
    core.handle(at(0), says("s1", AgentMessage::Start(attempt)));
    core.handle(at(1000), connected("a", "s2", vec![], vec![]));
    assert_eq!(offers(&core.handle(at(1000), says("s2", AgentMessage::Credit { slots: 1 }))), []);
    assert_eq!(offers(&core.handle(at(64_999), Event::Tick)), []);
    assert_eq!(offers(&core.handle(at(65_000), Event::Tick)).len(), 1, "its lease has ended");
}

#[test]
fn what_stays_with_its_agent_takes_no_slot_from_what_does_not() {
    let mut core = dispatcher();
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    core.handle(at(0), says("s1", AgentMessage::Credit { slots: 2 }));
    for (id, fields) in [("last", r#","max_attempts":1"#), ("more", "")] {
        let attempt = offers(&core.handle(at(0), Event::TaskPosted(posted(id, fields)))).remove(0);
        core.handle(at(0), says("s1", AgentMessage::Accept(attempt.clone())));
        core.handle(at(0), says("s1", AgentMessage::Start(attempt)));
    }
    core.handle(at(0), connected("b", "s2", vec![], vec![]));
    core.handle(at(1000), Event::AgentGone { session: "s1".to_owned() });
    core.handle(at(3000), Event::Tick);
    let taken = offers(&core.handle(at(4000), says("s2", AgentMessage::Credit { slots: 1 })));
    assert_eq!(taken, [AttemptId { task_id: "more".to_owned(), attempt: 2 }]);
}

#[test]
fn an_agent_that_is_busy_again_and_again_leaves_a_bounded_history() {
    let mut core = dispatcher();
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
    let attempt = offers(&core.handle(at(0), Event::TaskPosted(posted("t", "")))).remove(0);
    let diagnosis = Diagnosis {
        code: "busy".to_owned(),
        stage: "policy".to_owned(),
        summary: "x\n".repeat(100_000),
        remedies: vec!["x".repeat(100_000)],
    };
    let reject = Reject {
        attempt,
        retryable: true,
        reason: RejectReason::Busy,
        diagnosis: Some(diagnosis),
        result: None,
    };
    let actions = core.handle(at(0), says("s1", AgentMessage::Reject(reject)));
    let kept = actions.iter().find_map(|action| match action {
        Action::Persist(Transition::AttemptEnded { diagnosis, reason, .. }) => {
            Some((diagnosis.is_none(), reason.as_ref().map(String::len)))
        }
        _ => None,
    });
    assert_eq!(kept, Some((true, Some(200))));
}
