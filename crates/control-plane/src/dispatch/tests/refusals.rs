//! Tasks that agents refuse while others are away.

use super::*;

fn refuses(core: &mut Dispatcher, now: u64, session: &str, attempt: &AttemptId) -> Vec<Action> {
    let reject = Reject {
        attempt: attempt.clone(),
        reason: RejectReason::Policy,
        retryable: true,
        diagnosis: None,
        result: None,
    };
    core.handle(at(now), says(session, AgentMessage::Reject(reject)))
}

/// A dispatcher in which `a` has a task and `b`, which may have it too, has just gone.
fn with_one_away(fields: &str) -> (Dispatcher, AttemptId) {
    let mut core = dispatcher();
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    core.handle(at(0), connected("b", "s2", vec![], vec![]));
    core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
    let offer = offers(&core.handle(at(0), Event::TaskPosted(posted("t", fields))));
    core.handle(at(1000), Event::AgentGone { session: "s2".to_owned() });
    (core, offer[0].clone())
}

#[test]
fn a_refusal_stands_at_once_where_nobody_else_is_expected() {
    let refused = [("t".to_owned(), Outcome::Refused)];
    let mut core = dispatcher();
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
    let offer = offers(&core.handle(at(0), Event::TaskPosted(posted("t", ""))));
    assert_eq!(completions(&refuses(&mut core, 1, "s1", &offer[0])), refused);
    // One that does not match, drains, or has been away for longer than a lease is not expected.
    let (mut core, attempt) = with_one_away(r#","selector":{"all":["name:a"]}"#);
    assert_eq!(completions(&refuses(&mut core, 1000, "s1", &attempt)), refused);
    let (mut core, attempt) = with_one_away("");
    core.handle(at(1000), Event::ModeSet { agent_id: "b".to_owned(), mode: Mode::Draining });
    assert_eq!(completions(&refuses(&mut core, 1000, "s1", &attempt)), refused);
    let (mut core, attempt) = with_one_away("");
    core.handle(at(1000), says("s1", AgentMessage::Start(attempt.clone())));
    core.handle(at(40_000), says("s1", AgentMessage::Renew { attempts: vec![attempt.clone()] }));
    assert_eq!(completions(&refuses(&mut core, 61_000, "s1", &attempt)), refused);
}

#[test]
fn a_refused_task_waits_for_an_agent_that_is_expected_back() {
    let (mut core, attempt) = with_one_away("");
    assert_eq!(completions(&refuses(&mut core, 2000, "s1", &attempt)), []);
    core.handle(at(3000), connected("b", "s3", vec![], vec![]));
    let offer = offers(&core.handle(at(40_000), says("s3", AgentMessage::Credit { slots: 1 })));
    assert_eq!(offer[0].attempt, 2);
    assert_eq!(
        completions(&refuses(&mut core, 41_000, "s3", &offer[0])),
        [("t".to_owned(), Outcome::Refused)]
    );
}

#[test]
fn a_held_refusal_stands_when_its_time_is_over_or_nobody_is_expected_any_more() {
    let refused = [("t".to_owned(), Outcome::Refused)];
    let (mut core, attempt) = with_one_away("");
    refuses(&mut core, 2000, "s1", &attempt);
    assert_eq!(completions(&core.handle(at(16_999), Event::Tick)), []);
    assert_eq!(core.next_deadline(), Some(at(17_000)));
    assert_eq!(completions(&core.handle(at(17_000), Event::Tick)), refused);
    // The time in the queue may be over before, and the refusal says more than its end.
    let (mut core, attempt) = with_one_away(r#","queue_seconds":10"#);
    refuses(&mut core, 2000, "s1", &attempt);
    assert_eq!(completions(&core.handle(at(10_000), Event::Tick)), refused);
    let (mut core, attempt) = with_one_away("");
    refuses(&mut core, 2000, "s1", &attempt);
    let revoked = Event::AgentRevoked { agent_id: "b".to_owned(), reason: "test".to_owned() };
    assert_eq!(completions(&core.handle(at(3000), revoked)), refused);
}

#[test]
fn registered_agents_are_expected_after_a_start() {
    let mut core = dispatcher();
    let agent = |name: &str| Candidate {
        agent_id: name.to_owned(),
        name: name.to_owned(),
        tags: BTreeSet::from([format!("name:{name}")]),
    };
    core.expect(at(0), ["a", "b"].map(|name| (agent(name), Mode::Active)));
    core.handle(at(0), connected("a", "s1", vec![], vec![]));
    core.handle(at(0), says("s1", AgentMessage::Credit { slots: 1 }));
    let offer = offers(&core.handle(at(0), Event::TaskPosted(posted("t", ""))));
    assert_eq!(completions(&refuses(&mut core, 1000, "s1", &offer[0])), []);
    assert_eq!(completions(&core.handle(at(31_000), Event::Tick)), [("t".to_owned(), Outcome::Refused)]);
}
