//! Failures that another agent may not have.

use super::*;

pub(super) fn failed(attempt: &AttemptId, code: &str, stage: &str) -> AgentMessage {
    let AgentMessage::Result(mut failed) = result(attempt, AttemptOutcome::Failed) else { unreachable!() };
    let TaskOutput::Report(report) = &mut failed.result else { unreachable!() };
    report.outcome = ReportOutcome::Failed;
    report.diagnosis = Some(Diagnosis {
        code: code.to_owned(),
        stage: stage.to_owned(),
        summary: String::new(),
        remedies: Vec::new(),
    });
    AgentMessage::Result(failed)
}

/// A dispatcher with these agents, each with a free slot and named as its session.
fn with(agents: &[&str], limits: Limits) -> Dispatcher {
    let mut core = Dispatcher::new(Times::default(), limits, "test");
    for agent in agents {
        core.handle(at(0), connected(agent, agent, vec![], vec![]));
        core.handle(at(0), says(agent, AgentMessage::Credit { slots: 3 }));
    }
    core
}

/// The one offer of a batch and who gets it.
fn offered(actions: &[Action]) -> Option<(String, AttemptId)> {
    actions.iter().find_map(|action| match action {
        Action::Send { session, message } => match message.as_ref() {
            ControlMessage::Offer(offer) => Some((session.clone(), offer.attempt.clone())),
            _ => None,
        },
        _ => None,
    })
}

fn completion(actions: &[Action]) -> Option<(Outcome, Option<String>, Option<String>)> {
    actions.iter().find_map(|action| match action {
        Action::Persist(Transition::TaskCompleted { outcome, result, reason, .. }) => {
            let code = result.as_ref().and_then(|it| it.diagnosis()).map(|it| it.code.clone());
            Some((*outcome, code, reason.clone()))
        }
        _ => None,
    })
}

fn starts(core: &mut Dispatcher, now: u64, actions: &[Action]) -> (String, AttemptId) {
    let (agent, attempt) = offered(actions).unwrap();
    core.handle(at(now), says(&agent, AgentMessage::Accept(attempt.clone())));
    core.handle(at(now), says(&agent, AgentMessage::Start(attempt.clone())));
    (agent, attempt)
}

#[test]
fn a_server_out_of_reach_is_tried_by_the_next_agent() {
    let mut core = with(&["a", "b", "c"], Limits::default());
    let actions = core.handle(at(0), Event::TaskPosted(posted("t", "")));
    let (first, attempt) = starts(&mut core, 0, &actions);
    let actions = core.handle(at(1), says(&first, failed(&attempt, "connection_refused", "connect")));
    assert!(actions.iter().any(|action| matches!(
        action,
        Action::Persist(Transition::AttemptEnded { by_result: true, counted: false, passed_on: Some(_), .. })
    )));
    let (second, attempt) = starts(&mut core, 1, &actions);
    assert_ne!(first, second);
    let done = core.handle(at(2), says(&second, result(&attempt, AttemptOutcome::Succeeded)));
    let (outcome, code, reason) = completion(&done).unwrap();
    assert_eq!((outcome, code), (Outcome::Succeeded, None));
    let expected = format!("before that, it could not be reached: {first} saw connection_refused at connect");
    assert_eq!(reason, Some(expected));
}

#[test]
fn the_report_that_came_furthest_is_the_tasks_and_the_reason_tells_of_all() {
    let mut core = with(&["a", "b", "c", "d"], Limits::default());
    let mut actions = core.handle(at(0), Event::TaskPosted(posted("t", "")));
    let faults =
        [("tls_untrusted_issuer", "tls"), ("name_not_found", "resolve"), ("connection_timed_out", "connect")];
    let mut told = Vec::new();
    for (code, stage) in faults {
        let (agent, attempt) = starts(&mut core, 0, &actions);
        told.push(format!("{agent} saw {code} at {stage}"));
        actions = core.handle(at(1), says(&agent, failed(&attempt, code, stage)));
    }
    // Three agents are enough, though a fourth one is there.
    let (outcome, code, reason) = completion(&actions).unwrap();
    assert_eq!((outcome, code.as_deref()), (Outcome::Failed, Some("tls_untrusted_issuer")));
    assert_eq!(reason, Some(format!("3 agents could not reach the server: {}", told.join("; "))));
}

#[test]
fn a_failure_without_another_agent_is_the_end_at_once() {
    let mut core = with(&["a"], Limits::default());
    let actions = core.handle(at(0), Event::TaskPosted(posted("t", "")));
    let (agent, attempt) = starts(&mut core, 0, &actions);
    let done = core.handle(at(1), says(&agent, failed(&attempt, "connection_refused", "connect")));
    let expected = (Outcome::Failed, Some("connection_refused".to_owned()), None);
    assert_eq!(completion(&done), Some(expected));
    assert!(!done.iter().any(|it| matches!(it, Action::Persist(Transition::TaskQueued { .. }))));
}

#[test]
fn what_is_the_same_from_everywhere_or_about_a_credential_does_not_go_on() {
    for (code, stage) in [
        ("tls_expired", "tls"),
        ("tls_name_mismatch", "tls"),
        ("pat_rejected", "authenticate"),
        ("account_locked", "authenticate"),
        ("proxy_auth_required", "proxy"),
        ("host_key_changed", "host_key"),
        ("server_not_declared", "policy"),
        // The way there works, and what came after it did not.
        ("connection_reset", "receive"),
        ("deadline_exceeded", "receive"),
    ] {
        let mut core = with(&["a", "b"], Limits::default());
        let actions = core.handle(at(0), Event::TaskPosted(posted("t", "")));
        let (agent, attempt) = starts(&mut core, 0, &actions);
        let done = core.handle(at(1), says(&agent, failed(&attempt, code, stage)));
        assert_eq!(completion(&done).map(|it| it.0), Some(Outcome::Failed), "{code} at {stage}");
    }
}

#[test]
fn a_task_says_itself_how_many_attempts_it_may_have() {
    let mut core = with(&["a", "b"], Limits::default());
    let actions = core.handle(at(0), Event::TaskPosted(posted("t", r#","max_attempts":1"#)));
    let (agent, attempt) = starts(&mut core, 0, &actions);
    let done = core.handle(at(1), says(&agent, failed(&attempt, "connection_refused", "connect")));
    assert_eq!(completion(&done).map(|it| it.0), Some(Outcome::Failed));
}

#[test]
fn a_failure_is_told_when_nobody_takes_the_task_on() {
    // The other agent has no slot, and the time in the queue ends.
    let mut core = with(&["a", "b"], Limits::default());
    core.handle(at(0), says("b", AgentMessage::Credit { slots: 0 }));
    let actions = core.handle(at(0), Event::TaskPosted(posted("t", r#","queue_seconds":30"#)));
    let (agent, attempt) = starts(&mut core, 0, &actions);
    let waits = core.handle(at(1), says(&agent, failed(&attempt, "connection_refused", "connect")));
    assert_eq!((completion(&waits), offered(&waits)), (None, None));
    let over = core.handle(at(30_000), Event::Tick);
    assert_eq!(completion(&over).map(|it| it.0), Some(Outcome::Failed));
    // It is paused, and nobody waits for that.
    let mut core = with(&["a", "b"], Limits::default());
    core.handle(at(0), says("b", AgentMessage::Credit { slots: 0 }));
    let actions = core.handle(at(0), Event::TaskPosted(posted("t", "")));
    let (agent, attempt) = starts(&mut core, 0, &actions);
    core.handle(at(1), says(&agent, failed(&attempt, "connection_refused", "connect")));
    let over = core.handle(at(2), Event::ModeSet { agent_id: "b".to_owned(), mode: Mode::Paused });
    assert_eq!(completion(&over).map(|it| it.0), Some(Outcome::Failed));
}

#[test]
fn what_was_passed_on_survives_a_restart() {
    let AgentMessage::Result(passed) =
        failed(&AttemptId { task_id: "t".to_owned(), attempt: 1 }, "name_not_found", "resolve")
    else {
        unreachable!()
    };
    let restored = || RestoredTask {
        posted: posted("t", ""),
        waited: at(0),
        cancel: None,
        attempts: vec![RestoredAttempt {
            number: 1,
            agent_id: "a".to_owned(),
            agent_name: "a".to_owned(),
            started: true,
            ended: true,
            by_result: true,
            counted: false,
            reason: None,
            passed_on: Some(Box::new(passed.result.clone())),
        }],
    };
    // Nobody else is registered.
    let mut core = dispatcher();
    core.restore(at(0), vec![restored()]);
    core.expect(at(0), []);
    let done = core.handle(at(0), Event::Tick);
    assert_eq!(
        completion(&done).map(|it| (it.0, it.1)),
        Some((Outcome::Failed, Some("name_not_found".to_owned())))
    );
    // Somebody is, and the first one is not asked again.
    let mut core = dispatcher();
    core.restore(at(0), vec![restored()]);
    let agent =
        |name: &str| Candidate { agent_id: name.to_owned(), name: name.to_owned(), tags: BTreeSet::new() };
    core.expect(at(0), ["a", "b"].map(|name| (agent(name), Mode::Active)));
    assert_eq!(completion(&core.handle(at(0), Event::Tick)), None);
    for name in ["a", "b"] {
        core.handle(at(1), connected(name, name, vec![], vec![]));
        let offer = offered(&core.handle(at(1), says(name, AgentMessage::Credit { slots: 1 })));
        assert_eq!(offer.is_some(), name == "b");
    }
}

#[test]
fn agents_that_reach_a_host_are_preferred_and_those_that_do_not_come_last() {
    let mut core = with(&["a", "b", "c"], Limits::default());
    let only = |name: &str| format!(r#","selector":{{"all":["name:{name}"]}}"#);
    for (name, is_good) in [("a", false), ("b", true)] {
        let actions = core.handle(at(0), Event::TaskPosted(posted(&format!("teach-{name}"), &only(name))));
        let (agent, attempt) = starts(&mut core, 0, &actions);
        let said = if is_good {
            result(&attempt, AttemptOutcome::Succeeded)
        } else {
            failed(&attempt, "connection_timed_out", "connect")
        };
        core.handle(at(0), says(&agent, said));
        // The known-good one has fewer free slots than any other, and is taken for all that.
        core.handle(at(0), says(&agent, AgentMessage::Credit { slots: if is_good { 1 } else { 3 } }));
    }
    let took = |core: &mut Dispatcher, now: u64, id: &str| {
        offered(&core.handle(at(now), Event::TaskPosted(posted(id, "")))).map(|(agent, _)| agent)
    };
    assert_eq!(took(&mut core, 1, "t1").as_deref(), Some("b"));
    for id in ["t2", "t3", "t4"] {
        assert_eq!(took(&mut core, 1, id).as_deref(), Some("c"));
    }
    // Nobody else is left, so the one that may have been mended meanwhile tries.
    let explained = core.explain(
        at(61_000),
        "t4",
        &[Candidate { agent_id: "a".to_owned(), name: "a".to_owned(), tags: BTreeSet::new() }],
    );
    let verdict = &explained.unwrap().agents[0];
    assert!(verdict.eligible);
    assert_eq!(verdict.reasons, ["it could not reach a 61 s ago"]);
    assert_eq!(took(&mut core, 61_000, "t5").as_deref(), Some("a"));
}

#[test]
fn a_task_that_is_worn_out_ends_with_what_an_agent_saw() {
    let limits = Limits { offers_per_task: 3, ..Limits::default() };
    let mut core = with(&["a", "b"], limits);
    let actions = core.handle(at(0), Event::TaskPosted(posted("t", "")));
    let (first, attempt) = starts(&mut core, 0, &actions);
    let mut actions = core.handle(at(1), says(&first, failed(&attempt, "connection_refused", "connect")));
    while let Some((agent, attempt)) = offered(&actions) {
        let busy =
            Reject { attempt, retryable: true, reason: RejectReason::Busy, diagnosis: None, result: None };
        actions = core.handle(at(2), says(&agent, AgentMessage::Reject(busy)));
        actions.extend(core.handle(at(2), says(&agent, AgentMessage::Credit { slots: 1 })));
    }
    let (outcome, code, _) = completion(&actions).unwrap();
    assert_eq!((outcome, code.as_deref()), (Outcome::Failed, Some("connection_refused")));
}

#[test]
fn a_report_that_is_too_large_to_be_kept_beside_others_is_the_last_one() {
    let mut core = with(&["a", "b"], Limits::default());
    let actions = core.handle(at(0), Event::TaskPosted(posted("t", "")));
    let (first, attempt) = starts(&mut core, 0, &actions);
    let AgentMessage::Result(mut large) = failed(&attempt, "connection_refused", "connect") else {
        unreachable!()
    };
    let TaskOutput::Report(report) = &mut large.result else { unreachable!() };
    report.target.url = "x".repeat(100_000);
    let actions = core.handle(at(1), says(&first, AgentMessage::Result(large)));
    let (outcome, code, _) = completion(&actions).unwrap();
    assert_eq!((outcome, code.as_deref()), (Outcome::Failed, Some("connection_refused")));
}
