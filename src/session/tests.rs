//! The session as a whole, driven by hand: every promise of the protocol on the agent's side.
#![allow(clippy::unwrap_used)]

use sortie_protocol::message::{AttemptOutcome, Decision, RejectReason, Renewal};
use sortie_protocol::report::{CloneReport, ReportOutcome, TaskOutput};

use sortie_protocol::FrameError;

use super::*;
use crate::identity::AgentKey;

const SECOND: Duration = Duration::from_secs(1);

fn session() -> Session {
    let key = AgentKey::generate().unwrap();
    let identity = Identity { agent_id: "a1".into(), control_plane: "https://sortie.example".into(), key };
    Session::new(
        Profile { name: "fra1".into(), tags: vec!["ado".into()], max_tasks: 2 },
        identity,
        vec![],
        vec![],
    )
}

fn attempt(number: u32) -> AttemptId {
    AttemptId { task_id: "t1".into(), attempt: number }
}

fn received(message: ControlMessage) -> Event {
    Event::Received(Box::new(message))
}

fn welcome(attempts: Vec<Renewal>) -> Event {
    let times = Times::default();
    received(ControlMessage::Welcome(Welcome { session: "s1".into(), version: "1".into(), times, attempts }))
}

fn challenge() -> Event {
    received(ControlMessage::Challenge(Challenge { session: "s1".into(), nonce: "bm9uY2U=".into() }))
}

fn offer(number: u32) -> Event {
    received(ControlMessage::Offer(Offer {
        attempt: attempt(number),
        task: "{}".into(),
        signature: None,
        accept_within_ms: 10_000,
        lease_ms: 60_000,
    }))
}

fn result(number: u32) -> AttemptResult {
    let clone = CloneReport {
        outcome: ReportOutcome::Succeeded,
        commit: None,
        reference: None,
        source: None,
        received_bytes: 0,
        received_objects: 0,
        files: 0,
        lfs_pointers: 0,
        submodules: vec![],
        path: None,
        artifact: None,
        missing: Vec::new(),
        duration_ms: 0.0,
        stages: vec![],
        warnings: vec![],
        diagnosis: None,
        contents: vec![],
    };
    AttemptResult {
        attempt: attempt(number),
        outcome: AttemptOutcome::Succeeded,
        result: TaskOutput::Clone(Box::new(clone)),
    }
}

fn sent(actions: &[Action]) -> Vec<&AgentMessage> {
    actions
        .iter()
        .filter_map(|action| if let Action::Send(message) = action { Some(&**message) } else { None })
        .collect()
}

/// Opens a session at a time, and gives back what it did.
fn open(session: &mut Session, at: Duration, attempts: Vec<Renewal>) -> Vec<Action> {
    session.handle(at, Event::Opened);
    let mut actions = session.handle(at, challenge());
    actions.extend(session.handle(at, welcome(attempts)));
    actions
}

fn run_attempt(session: &mut Session, at: Duration, number: u32) {
    let actions = session.handle(at, offer(number));
    assert!(actions.iter().any(|action| matches!(action, Action::Consider(_))));
    let actions = session.handle(at, Event::Admitted(attempt(number), Effects::None));
    let told = [AgentMessage::Accept(attempt(number)), AgentMessage::Start(attempt(number))];
    assert_eq!(sent(&actions)[..2], told.iter().collect::<Vec<_>>());
    assert!(actions.contains(&Action::Run(attempt(number))));
}

#[test]
fn hello_proves_the_key_for_this_session_and_this_control_plane() {
    let mut session = session();
    let actions = open(&mut session, SECOND, vec![]);
    let AgentMessage::Hello(hello) = sent(&actions)[0] else { panic!("{actions:?}") };
    assert_eq!((hello.origin.as_str(), hello.agent_id.as_str()), ("https://sortie.example", "a1"));
    let payload = identity::hello_payload(&hello.origin, "s1", "bm9uY2U=", "a1");
    assert_eq!(hello.signature, session.identity.key.sign(&payload));
    assert!(sent(&actions).contains(&&AgentMessage::Credit { slots: 2 }));
}

#[test]
fn nothing_is_done_before_welcome() {
    let mut session = session();
    session.handle(SECOND, Event::Opened);
    let actions = session.handle(SECOND, offer(1));
    assert!(matches!(sent(&actions)[..], [AgentMessage::Error(_)]), "{actions:?}");
    assert_eq!(session.running(), 0);
}

#[test]
fn slots_bound_what_is_taken() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    run_attempt(&mut session, SECOND, 1);
    run_attempt(&mut session, SECOND, 2);
    let actions = session.handle(SECOND, offer(3));
    let [AgentMessage::Reject(reject)] = sent(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!((reject.reason, reject.retryable), (RejectReason::Busy, true));
}

#[test]
fn what_is_only_considered_is_not_renewed_because_the_answer_would_pass_for_one_to_its_start() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    run_attempt(&mut session, SECOND, 1);
    let actions = session.handle(25 * SECOND, offer(2));
    let renewed: Vec<_> = sent(&actions)
        .into_iter()
        .filter_map(
            |message| if let AgentMessage::Renew { attempts } = message { Some(attempts) } else { None },
        )
        .collect();
    assert_eq!(renewed, [&vec![attempt(1)]]);
    let actions = session.handle(25 * SECOND, Event::Admitted(attempt(2), Effects::Some));
    assert!(sent(&actions).contains(&&AgentMessage::Renew { attempts: vec![attempt(2)] }));
}

#[test]
fn a_result_is_told_before_the_slot_that_it_has_left() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    run_attempt(&mut session, SECOND, 1);
    let actions = session.handle(SECOND, Event::Finished(Box::new(result(1))));
    assert_eq!(actions, [Action::Record(Box::new(result(1)))]);
    let credit = Action::Send(Box::new(AgentMessage::Credit { slots: 2 }));
    let actions = session.handle(SECOND, Event::Recorded(attempt(1)));
    assert_eq!(actions, [Action::SendResult(attempt(1)), credit]);
}

#[test]
fn a_result_is_sent_again_in_every_session_until_it_is_acknowledged() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    run_attempt(&mut session, SECOND, 1);
    session.handle(SECOND, Event::Closed);
    let actions = session.handle(SECOND, Event::Finished(Box::new(result(1))));
    assert_eq!(actions, [Action::Record(Box::new(result(1)))]);
    assert_eq!(session.handle(SECOND, Event::Recorded(attempt(1))), [], "there is no connection");

    for at in [2 * SECOND, 3 * SECOND] {
        let actions = open(&mut session, at, vec![]);
        let AgentMessage::Hello(hello) = sent(&actions)[0] else { panic!("{actions:?}") };
        assert_eq!((hello.running.len(), hello.unacknowledged.clone()), (0, vec![attempt(1)]));
        assert!(actions.contains(&Action::SendResult(attempt(1))));
        session.handle(at, Event::Closed);
    }
    open(&mut session, 4 * SECOND, vec![]);
    let ack = ControlMessage::ResultAck { attempt: attempt(1), disposition: Disposition::Recorded };
    assert!(session.handle(4 * SECOND, received(ack)).contains(&Action::Forget(vec![attempt(1)])));
    assert!(session.is_idle());
}

#[test]
fn what_a_result_that_came_too_late_has_left_is_discarded() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    run_attempt(&mut session, SECOND, 1);
    session.handle(SECOND, Event::Finished(Box::new(result(1))));
    session.handle(SECOND, Event::Recorded(attempt(1)));
    let ack = ControlMessage::ResultAck { attempt: attempt(1), disposition: Disposition::Stale };
    let actions = session.handle(2 * SECOND, received(ack));
    assert!(
        actions.starts_with(&[Action::Discard(attempt(1)), Action::Forget(vec![attempt(1)])]),
        "{actions:?}"
    );
}

#[test]
fn an_offer_of_what_is_done_already_is_answered_with_its_result() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    run_attempt(&mut session, SECOND, 1);
    let again = session.handle(SECOND, offer(1));
    assert_eq!(sent(&again), [&AgentMessage::Accept(attempt(1))], "it runs once");
    session.handle(SECOND, Event::Finished(Box::new(result(1))));
    session.handle(SECOND, Event::Recorded(attempt(1)));
    assert_eq!(session.handle(SECOND, offer(1)), [Action::SendResult(attempt(1))]);
}

#[test]
fn leases_are_renewed_and_an_attempt_that_cannot_be_renewed_stops_before_its_end() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    run_attempt(&mut session, SECOND, 1);
    let actions = session.handle(21 * SECOND, Event::Tick);
    assert!(sent(&actions).contains(&&AgentMessage::Renew { attempts: vec![attempt(1)] }), "{actions:?}");
    let keep = Renewal { attempt: attempt(1), decision: Decision::Keep, lease_ms: 60_000 };
    session.handle(22 * SECOND, received(ControlMessage::Renewed { attempts: vec![keep] }));
    session.handle(23 * SECOND, Event::Closed);
    assert_eq!(
        session.wake_at(),
        Some(79 * SECOND),
        "two seconds before the end of a lease that counts from the request, not from the answer"
    );
    assert_eq!(session.handle(78 * SECOND, Event::Tick), []);
    assert_eq!(session.handle(79 * SECOND, Event::Tick), [Action::Stop(attempt(1), StopReason::Lost)]);
    assert_eq!(session.free_slots(), 1, "it cleans up, and takes its slot meanwhile");
    assert_eq!(
        session.handle(81 * SECOND, Event::Finished(Box::new(result(1)))),
        [Action::Discard(attempt(1)), Action::Forget(vec![attempt(1)])],
        "its result counts no more"
    );
    assert_eq!(session.free_slots(), 2);
}

/// Takes an offer of what has effects, as far as the agent alone can.
fn accept_with_effects(session: &mut Session, at: Duration, number: u32) {
    session.handle(at, offer(number));
    let actions = session.handle(at, Event::Admitted(attempt(number), Effects::Some));
    let [accept, start, renew, ..] = sent(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(accept, &AgentMessage::Accept(attempt(number)));
    assert_eq!(start, &AgentMessage::Start(attempt(number)));
    assert_eq!(renew, &AgentMessage::Renew { attempts: vec![attempt(number)] });
    assert!(!actions.contains(&Action::Run(attempt(number))), "the offer may have been on its way for long");
}

fn renewed(number: u32, decision: Decision) -> Event {
    let renewal = Renewal { attempt: attempt(number), decision, lease_ms: 60_000 };
    received(ControlMessage::Renewed { attempts: vec![renewal] })
}

#[test]
fn what_has_effects_begins_once_the_control_plane_has_confirmed_it() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    accept_with_effects(&mut session, SECOND, 1);
    assert_eq!(session.handle(3 * SECOND, renewed(1, Decision::Keep)), [Action::Run(attempt(1))]);
    assert_eq!(session.attempts.next_end(), Some(59 * SECOND), "the lease counts from the request");
    assert_eq!(session.handle(3 * SECOND, renewed(1, Decision::Keep)), [], "it runs once");
    assert_eq!(session.attempts.next_end(), Some(59 * SECOND), "what was not asked for is not granted");
}

#[test]
fn what_has_effects_and_is_not_confirmed_never_begins() {
    let gone = [Action::Stop(attempt(1), StopReason::Lost), Action::Forget(vec![attempt(1)])];
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    accept_with_effects(&mut session, SECOND, 1);
    let actions = session.handle(2 * SECOND, renewed(1, Decision::Abandon));
    assert_eq!(actions[..2], gone);
    assert_eq!(session.free_slots(), 2, "there is nothing that cleans up");

    accept_with_effects(&mut session, 3 * SECOND, 2);
    session.handle(4 * SECOND, Event::Closed);
    let keep = Renewal { attempt: attempt(2), decision: Decision::Keep, lease_ms: 60_000 };
    let actions = open(&mut session, 5 * SECOND, vec![keep]);
    assert!(actions.contains(&Action::Run(attempt(2))), "the next welcome confirms it as well: {actions:?}");

    accept_with_effects(&mut session, 6 * SECOND, 1);
    session.handle(7 * SECOND, Event::Closed);
    assert_eq!(session.handle(64 * SECOND, Event::Tick)[..1], gone[..1], "its lease has ended before");
}

#[test]
fn a_cancel_before_the_start_was_confirmed_still_has_a_result() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    accept_with_effects(&mut session, SECOND, 1);
    let cancel = ControlMessage::Cancel { attempt: attempt(1), reason: "no longer wanted".into() };
    assert_eq!(session.handle(SECOND, received(cancel)), [Action::Stop(attempt(1), StopReason::Cancelled)]);
    assert_eq!(session.handle(SECOND, renewed(1, Decision::Keep)), [], "it is not begun after that");
    let actions = session.handle(SECOND, Event::Finished(Box::new(result(1))));
    assert!(matches!(actions[0], Action::Record(_)));
}

#[test]
fn what_an_earlier_process_lost_is_told_until_somebody_has_heard_it() {
    let mut session = session();
    let lost = LostAttempt { attempt: attempt(1), reason: "the agent was restarted".into() };
    session.lost = vec![lost.clone()];
    session.handle(SECOND, Event::Opened);
    for at in [SECOND, 2 * SECOND] {
        session.handle(at, Event::Opened);
        let actions = session.handle(at, challenge());
        let AgentMessage::Hello(hello) = sent(&actions)[0] else { panic!("{actions:?}") };
        assert_eq!(hello.lost, std::slice::from_ref(&lost), "no welcome has come");
    }
    let actions = session.handle(2 * SECOND, welcome(vec![]));
    assert!(actions.contains(&Action::Forget(vec![attempt(1)])));
    session.handle(3 * SECOND, Event::Opened);
    let actions = session.handle(3 * SECOND, challenge());
    let AgentMessage::Hello(hello) = sent(&actions)[0] else { panic!("{actions:?}") };
    assert_eq!(hello.lost, []);
}

#[test]
fn an_acknowledgment_of_what_does_not_wait_touches_nothing() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    run_attempt(&mut session, SECOND, 1);
    for disposition in [Disposition::Recorded, Disposition::Duplicate, Disposition::Stale] {
        for number in [1, 7] {
            let ack = ControlMessage::ResultAck { attempt: attempt(number), disposition };
            assert_eq!(session.handle(SECOND, received(ack)), [], "{number} {disposition:?}");
        }
    }
    assert_eq!(session.running(), 1);
}

#[test]
fn an_identifier_that_is_too_long_is_no_offer() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    let attempt = AttemptId { task_id: "x".repeat(MAX_TASK_ID_BYTES + 1), attempt: 1 };
    let (task, accept_within_ms, lease_ms) = ("{}".into(), 10_000, 60_000);
    let offer = Offer { attempt, task, signature: None, accept_within_ms, lease_ms };
    let actions = session.handle(SECOND, received(ControlMessage::Offer(offer)));
    assert!(matches!(sent(&actions)[..], [AgentMessage::Error(_)]), "{actions:?}");
}

#[test]
fn what_still_cleans_up_keeps_its_slot_though_it_is_offered_again() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    run_attempt(&mut session, SECOND, 1);
    session.attempts.asks(SECOND);
    session.handle(SECOND, renewed(1, Decision::Abandon));
    assert_eq!(session.free_slots(), 1);
    session.handle(SECOND, offer(1));
    session.handle(SECOND, Event::Refused(Box::new(attempts::busy(attempt(1)))));
    assert_eq!(session.free_slots(), 1, "it is at work still");
}

#[test]
fn nothing_new_is_taken_while_the_journal_fails_or_is_full() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    let none = AgentMessage::Credit { slots: 0 };
    assert_eq!(sent(&session.handle(SECOND, Event::Journal { works: false })), [&none]);
    let actions = session.handle(SECOND, offer(1));
    let [AgentMessage::Reject(reject)] = sent(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!((reject.reason, reject.retryable), (RejectReason::Busy, true));
    let all = AgentMessage::Credit { slots: 2 };
    assert_eq!(sent(&session.handle(SECOND, Event::Journal { works: true })), [&all]);

    session.unacknowledged = (1..=MAX_WAITING_RESULTS as u32).map(attempt).collect();
    assert_eq!(sent(&session.handle(SECOND, Event::Tick)), [&none]);
    let ack = ControlMessage::ResultAck { attempt: attempt(1), disposition: Disposition::Recorded };
    assert_eq!(sent(&session.handle(SECOND, received(ack))), [&all]);
}

#[test]
fn cancel_stops_and_the_result_is_still_due() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    run_attempt(&mut session, SECOND, 1);
    let cancel = ControlMessage::Cancel { attempt: attempt(1), reason: "no longer wanted".into() };
    assert_eq!(session.handle(SECOND, received(cancel)), [Action::Stop(attempt(1), StopReason::Cancelled)]);
    let actions = session.handle(SECOND, Event::Finished(Box::new(result(1))));
    assert!(matches!(actions[0], Action::Record(_)));
}

#[test]
fn welcome_decides_what_becomes_of_attempts_that_run() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    run_attempt(&mut session, SECOND, 1);
    run_attempt(&mut session, SECOND, 2);
    session.handle(2 * SECOND, Event::Closed);
    let keep = Renewal { attempt: attempt(1), decision: Decision::Keep, lease_ms: 60_000 };
    let abandon = Renewal { attempt: attempt(2), decision: Decision::Abandon, lease_ms: 0 };
    let actions = open(&mut session, 50 * SECOND, vec![keep, abandon]);
    assert!(actions.contains(&Action::Stop(attempt(2), StopReason::Lost)));
    assert_eq!(session.attempts.started(), [attempt(1)]);
    assert_eq!(session.attempts.next_end(), Some(108 * SECOND));
}

#[test]
fn silence_is_noticed_and_pings_are_sent() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    assert_eq!(session.wake_at(), Some(16 * SECOND));
    assert_eq!(session.handle(16 * SECOND, Event::Tick), [Action::Ping]);
    session.handle(17 * SECOND, Event::Heard);
    assert_eq!(session.handle(31 * SECOND, Event::Tick), [Action::Ping]);
    assert_eq!(session.handle(47 * SECOND, Event::Tick), [Action::Close(CloseReason::Silence)]);
    assert_eq!(session.handle(48 * SECOND, Event::Tick), [], "it is closed once");
}

#[test]
fn a_control_plane_that_never_welcomes_is_left() {
    let mut session = session();
    session.handle(SECOND, Event::Opened);
    assert_eq!(session.wake_at(), Some(11 * SECOND));
    assert_eq!(session.handle(11 * SECOND, Event::Tick), [Action::Close(CloseReason::Silence)]);
}

#[test]
fn garbage_is_answered_a_bounded_number_of_times() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    for _ in 0..MAX_PROTOCOL_ERRORS {
        let actions = session.handle(SECOND, Event::NotUnderstood(FrameError::NotAMessage));
        assert!(matches!(sent(&actions)[..], [AgentMessage::Error(_)]), "{actions:?}");
    }
    let actions = session.handle(SECOND, Event::NotUnderstood(FrameError::NotAMessage));
    assert!(actions.contains(&Action::Close(CloseReason::Protocol)));
}

#[test]
fn times_from_the_control_plane_are_kept_within_reason() {
    let mut session = session();
    session.handle(SECOND, Event::Opened);
    session.handle(SECOND, challenge());
    let times = Times { ping_ms: 0, dead_after_ms: u64::MAX, renew_ms: 0 };
    let welcome = Welcome { session: "s1".into(), version: "1".into(), times, attempts: vec![] };
    session.handle(SECOND, received(ControlMessage::Welcome(welcome)));
    assert_eq!(session.wake_at(), Some(SECOND + SHORTEST_TIME));
}

#[test]
fn draining_and_pausing_take_the_credit_away() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    let none = AgentMessage::Credit { slots: 0 };
    let actions = session.handle(SECOND, received(ControlMessage::Pause { reason: "update".into() }));
    assert_eq!(sent(&actions), [&none]);
    let actions = session.handle(SECOND, received(ControlMessage::Resume {}));
    assert_eq!(sent(&actions), [&AgentMessage::Credit { slots: 2 }]);
    let actions = session.handle(SECOND, received(ControlMessage::Drain { reason: "update".into() }));
    assert_eq!(sent(&actions), [&none]);
    let actions = session.handle(SECOND, received(ControlMessage::Resume {}));
    assert_eq!(
        sent(&actions),
        [&AgentMessage::Credit { slots: 2 }],
        "what the control plane began it may end"
    );
    let actions = session.handle(SECOND, Event::Drain);
    assert!(matches!(sent(&actions)[..], [AgentMessage::Drain { .. }, AgentMessage::Credit { slots: 0 }]));
    assert_eq!(session.handle(SECOND, Event::Drain), [], "once is enough");
    let actions = session.handle(SECOND, received(ControlMessage::Resume {}));
    assert_eq!(sent(&actions), [] as [&AgentMessage; 0], "the operator's own drain stays");
}

#[test]
fn a_pause_of_the_operators_lasts_until_the_operator_ends_it() {
    let mut session = session();
    open(&mut session, SECOND, vec![]);
    let (none, all) = (AgentMessage::Credit { slots: 0 }, AgentMessage::Credit { slots: 2 });
    assert_eq!(sent(&session.handle(SECOND, Event::Hold(true))), [&none]);
    assert_eq!(sent(&session.handle(SECOND, received(ControlMessage::Resume {}))), [] as [&AgentMessage; 0]);
    assert!(session.is_paused());
    session.handle(2 * SECOND, Event::Closed);
    let actions = open(&mut session, 3 * SECOND, vec![]);
    assert!(sent(&actions).contains(&&none), "it belongs to the agent and not to a session: {actions:?}");
    assert_eq!(sent(&session.handle(4 * SECOND, Event::Hold(false))), [&all]);
}

#[test]
fn a_refused_identity_is_told_from_other_goodbyes() {
    let goaway = |reason| {
        received(ControlMessage::Goaway(Goaway { reason, message: "no".into(), reconnect_after_ms: 500 }))
    };
    let mut session = session();
    session.handle(SECOND, Event::Opened);
    let refused = session.handle(SECOND, goaway(GoawayReason::IdentityRefused));
    assert_eq!(refused, [Action::Close(CloseReason::IdentityRefused("no".into()))]);
    open(&mut session, SECOND, vec![]);
    let shutdown = session.handle(SECOND, goaway(GoawayReason::Shutdown));
    assert_eq!(
        shutdown,
        [Action::Close(CloseReason::Goaway(GoawayReason::Shutdown, Duration::from_millis(500)))]
    );
}
