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
mod promises;
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

/// The result of a connection test that has nothing to tell.
pub(crate) fn result(attempt: &AttemptId, outcome: AttemptOutcome) -> AgentMessage {
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
