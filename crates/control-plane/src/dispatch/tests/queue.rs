//! The order in which tasks that wait are served.

use super::*;

/// The tasks that an agent with one slot at a time gets, in order, each done before the next.
fn served(core: &mut Dispatcher, agent: &str, count: u64) -> Vec<String> {
    core.handle(at(0), connected(agent, "s1", vec![], vec![]));
    let mut served = Vec::new();
    for step in 0..count {
        let offer = offers(&core.handle(at(step), says("s1", AgentMessage::Credit { slots: 1 })));
        let Some(attempt) = offer.first() else { break };
        core.handle(at(step), says("s1", AgentMessage::Accept(attempt.clone())));
        core.handle(at(step), says("s1", result(attempt, AttemptOutcome::Succeeded)));
        served.push(attempt.task_id.clone());
    }
    served
}

fn post(core: &mut Dispatcher, id: &str, fields: &str) {
    core.handle(at(0), Event::TaskPosted(posted(id, fields)));
}

#[test]
fn a_higher_priority_goes_first_and_age_decides_within_it() {
    let mut core = dispatcher();
    for (id, fields) in [
        ("low", r#","priority":-5"#),
        ("old", ""),
        ("high", r#","priority":7"#),
        ("young", ""),
        ("higher", r#","priority":100"#),
    ] {
        post(&mut core, id, fields);
    }
    assert_eq!(served(&mut core, "a", 9), ["higher", "high", "old", "young", "low"]);
}

#[test]
fn selectors_take_turns_so_that_one_of_many_tasks_starves_nobody() {
    let mut core = dispatcher();
    for number in 0..10_000 {
        post(&mut core, &format!("many{number}"), "");
    }
    for number in 0..3 {
        // The same selector, however it is spelled.
        let selector = if number == 1 { r#"["os:x","name:b"]"# } else { r#"["name:b","os:x"]"# };
        post(&mut core, &format!("few{number}"), &format!(r#","selector":{{"any":{selector}}}"#));
    }
    let served = served(&mut core, "b", 7);
    assert_eq!(served, ["many0", "few0", "many1", "few1", "many2", "few2", "many3"]);
}

#[test]
fn a_slot_is_given_away_without_a_look_at_every_task() {
    let mut core = dispatcher();
    for number in 0..20_000 {
        post(&mut core, &format!("other{number}"), r#","selector":{"all":["nobody"]}"#);
    }
    let begin = std::time::Instant::now();
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    for step in 0..2000 {
        core.handle(at(step), says("s1", AgentMessage::Credit { slots: 1 }));
    }
    // One look at every task for each credit would be 40 million looks.
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[test]
fn tasks_that_are_over_leave_no_deadline_behind() {
    let mut core = dispatcher();
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    for number in 0..100 {
        core.handle(at(number), says("s1", AgentMessage::Credit { slots: 1 }));
        let task = posted(&format!("t{number}"), "");
        let offer = offers(&core.handle(at(number), Event::TaskPosted(task)));
        core.handle(at(number), says("s1", AgentMessage::Start(offer[0].clone())));
        core.handle(at(number), says("s1", AgentMessage::Renew { attempts: offer.clone() }));
        core.handle(at(number), says("s1", result(&offer[0], AttemptOutcome::Succeeded)));
        assert_eq!(core.next_deadline(), None);
    }
}

#[test]
fn explain_tells_how_long_a_task_has_waited_and_what_each_agent_has_against_it() {
    let mut core = dispatcher();
    let candidates = ["full", "paused", "draining", "away", "other", "refuses"].map(|name| Candidate {
        agent_id: name.to_owned(),
        name: name.to_owned(),
        tags: BTreeSet::from([format!("name:{name}")]),
    });
    for name in ["full", "paused", "draining", "other", "refuses"] {
        core.handle(at(0), connected(name, name, vec![], vec![]));
    }
    core.handle(at(0), says("refuses", AgentMessage::Credit { slots: 1 }));
    post(&mut core, "t", r#","selector":{"none":["name:other"]}"#);
    let reject = Reject {
        attempt: AttemptId { task_id: "t".to_owned(), attempt: 1 },
        reason: RejectReason::Policy,
        retryable: true,
        diagnosis: None,
        result: None,
    };
    core.handle(at(0), says("refuses", AgentMessage::Reject(reject)));
    core.handle(at(0), Event::ModeSet { agent_id: "paused".to_owned(), mode: Mode::Paused });
    core.handle(at(0), says("draining", AgentMessage::Drain { reason: String::new() }));
    let explained = core.explain(at(7000), "t", &candidates).unwrap();
    assert_eq!((explained.state, explained.waiting), (TaskState::Queued, at(7000)));
    let told: Vec<_> = explained.agents.iter().map(|it| (it.eligible, it.reasons[0].as_str())).collect();
    assert_eq!(
        told,
        [
            (false, "it has no free slot"),
            (false, "it is paused"),
            (false, "it is draining"),
            (false, "it is not connected"),
            (false, "it carries the excluded tags name:other"),
            (false, "it refused the task"),
        ]
    );
}

#[test]
fn a_selector_that_comes_up_again_and_again_does_not_push_in() {
    let mut core = dispatcher();
    for number in 0..10 {
        post(&mut core, &format!("many{number}"), "");
    }
    core.handle(at(0), connected("b", "s1", vec![], vec![]));
    let mut served = Vec::new();
    for number in 0..6 {
        // One task of its own selector is there each time that a slot comes free.
        post(&mut core, &format!("one{number}"), r#","selector":{"any":["name:b"]}"#);
        let offer = offers(&core.handle(at(number), says("s1", AgentMessage::Credit { slots: 1 }))).remove(0);
        core.handle(at(number), says("s1", AgentMessage::Accept(offer.clone())));
        core.handle(at(number), says("s1", result(&offer, AttemptOutcome::Succeeded)));
        served.push(offer.task_id);
    }
    let of_many = served.iter().filter(|id| id.starts_with("many")).count();
    assert!((2..=4).contains(&of_many), "they take turns: {served:?}");
}
