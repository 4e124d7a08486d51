//! Sessions that are polled: the same messages, nothing lost and nothing doubled, and bounded.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use sortie_control::settings::{Limits, Times};
use sortie_protocol::message::{AgentMessage, AttemptOutcome, Challenge, ControlMessage, GoawayReason};
use sortie_protocol::{AttemptId, decode};

use crate::support::{Answer, Identity, Rig, Wire, request, result};

/// A session that is polled, with the numbers of both directions.
struct Poll {
    url: String,
    path: String,
    token: String,
    sent: u64,
    received: u64,
}

impl Poll {
    /// Opens one; the first message is the challenge.
    async fn open(rig: &Rig) -> (Self, Challenge) {
        let answer = rig.call(Method::POST, "/agent/v1/poll", None).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let text = |name: &str| answer.body[name].as_str().unwrap().to_owned();
        let path = format!("/agent/v1/poll/{}", text("poll"));
        let poll = Self { url: rig.url.clone(), path, token: text("token"), sent: 0, received: 1 };
        let batch = &answer.body["received"];
        assert_eq!(batch["first"], 1);
        let ControlMessage::Challenge(challenge) = message(&batch["messages"][0]) else {
            panic!("a challenge is due: {batch}")
        };
        (poll, challenge)
    }

    /// Opens one and says who it is.
    async fn connect(rig: &Rig, identity: &Identity) -> Self {
        let (mut poll, challenge) = Self::open(rig).await;
        poll.say(rig, &[AgentMessage::Hello(identity.hello(&challenge, &[]))]).await;
        let batch = poll.next(rig).await;
        assert!(matches!(&batch[..], [ControlMessage::Welcome(_)]), "{batch:?}");
        poll
    }

    async fn post(&self, rig: &Rig, route: &str, body: Value) -> Answer {
        let url = format!("{}{}{route}", self.url, self.path);
        request(&rig.client, Method::POST, &url, Some(&self.token), Some(body), &[]).await
    }

    async fn send(&self, rig: &Rig, first: u64, messages: &[AgentMessage]) -> Answer {
        self.post(rig, "/send", json!({"first": first, "messages": messages})).await
    }

    async fn say(&mut self, rig: &Rig, messages: &[AgentMessage]) {
        let answer = self.send(rig, self.sent + 1, messages).await;
        self.sent += messages.len() as u64;
        assert_eq!((answer.status, &answer.body), (200, &json!({"received": self.sent})));
    }

    async fn ask(&self, rig: &Rig, received: u64) -> Value {
        let answer = self.post(rig, "/receive", json!({"received": received})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    /// The next messages, at least one.
    async fn next(&mut self, rig: &Rig) -> Vec<ControlMessage> {
        loop {
            let batch = self.ask(rig, self.received).await;
            let messages: Vec<_> = batch["messages"].as_array().unwrap().iter().map(message).collect();
            assert_eq!(batch["first"], self.received + 1, "{batch}");
            self.received += messages.len() as u64;
            if !messages.is_empty() {
                return messages;
            }
        }
    }

    async fn offer(&mut self, rig: &Rig) -> AttemptId {
        let messages = self.next(rig).await;
        let [ControlMessage::Offer(offer)] = &messages[..] else { panic!("an offer is due: {messages:?}") };
        offer.attempt.clone()
    }
}

fn message(value: &Value) -> ControlMessage {
    decode(&value.to_string()).unwrap()
}

#[tokio::test]
async fn a_task_goes_out_and_its_result_comes_back() {
    let rig = Rig::start().await;
    let identity = rig.enrolled("a").await;
    let mut poll = Poll::connect(&rig, &identity).await;
    poll.say(&rig, &[AgentMessage::Credit { slots: 1 }]).await;
    let id = rig.task(json!({})).await;
    let attempt = poll.offer(&rig).await;
    poll.say(&rig, &[AgentMessage::Accept(attempt.clone()), AgentMessage::Start(attempt.clone())]).await;
    rig.until_state(&id, "running").await;
    poll.say(&rig, &[AgentMessage::Result(result(&attempt, AttemptOutcome::Succeeded))]).await;
    assert!(matches!(poll.next(&rig).await[..], [ControlMessage::ResultAck { .. }]));
    assert_eq!(rig.completed(&id).await["outcome"], "succeeded");
    // A cancel reaches a request that waits.
    poll.say(&rig, &[AgentMessage::Credit { slots: 1 }]).await;
    let id = rig.task(json!({})).await;
    let attempt = poll.offer(&rig).await;
    poll.say(&rig, &[AgentMessage::Accept(attempt.clone()), AgentMessage::Start(attempt)]).await;
    let path = format!("/api/v1/tasks/{id}/cancel");
    let (messages, cancelled) = tokio::join!(poll.next(&rig), rig.call(Method::POST, &path, None));
    assert_eq!(cancelled.status, 202);
    assert!(matches!(messages[..], [ControlMessage::Cancel { .. }]), "{messages:?}");
}

#[tokio::test]
async fn what_is_posted_again_is_taken_once_and_what_has_not_arrived_is_given_again() {
    let rig = Rig::start().await;
    let identity = rig.enrolled("a").await;
    let mut poll = Poll::connect(&rig, &identity).await;
    poll.say(&rig, &[AgentMessage::Credit { slots: 4 }]).await;
    let id = rig.task(json!({})).await;
    // The answer with the offer is lost: it comes again until it is acknowledged.
    let before = poll.received;
    let attempt = poll.offer(&rig).await;
    let again = poll.ask(&rig, before).await;
    assert_eq!(again["messages"][0]["task_id"], attempt.task_id, "{again}");
    // A `hello` in an open session is answered with an error, once for each time that it is taken.
    let stray = identity.hello(&Challenge { session: "s".to_owned(), nonce: "n".to_owned() }, &[]);
    let messages =
        [AgentMessage::Accept(attempt.clone()), AgentMessage::Start(attempt), AgentMessage::Hello(stray)];
    for _ in 0..3 {
        let answer = poll.send(&rig, poll.sent + 1, &messages).await;
        assert_eq!(answer.body["received"], poll.sent + 3, "{}", answer.body);
    }
    // Half of it is new.
    let answer = poll.send(&rig, poll.sent + 3, &[messages[2].clone(), messages[2].clone()]).await;
    assert_eq!(answer.body["received"], poll.sent + 4, "{}", answer.body);
    rig.until_state(&id, "running").await;
    poll.sent += 4;
    let mut errors = 0;
    while errors < 2 {
        errors += poll.next(&rig).await.len();
    }
    poll.say(&rig, &[AgentMessage::Drain { reason: "test".to_owned() }]).await;
    rig.until(&format!("/api/v1/agents/{}", identity.id), |it| it["state"] == "draining").await;
    let late = tokio::time::timeout(Duration::from_millis(200), poll.next(&rig)).await;
    assert!(late.is_err(), "a third error: {late:?}");
}

#[tokio::test]
async fn numbers_that_do_not_follow_and_tokens_that_are_not_its_own_are_refused() {
    let rig = Rig::start().await;
    let identity = rig.enrolled("a").await;
    let mut poll = Poll::connect(&rig, &identity).await;
    let gap = poll.send(&rig, poll.sent + 2, &[AgentMessage::Credit { slots: 1 }]).await;
    assert_eq!((gap.status, &gap.body["code"]), (409, &json!("poll_out_of_order")));
    let ahead = poll.post(&rig, "/receive", json!({"received": poll.received + 1})).await;
    assert_eq!((ahead.status, &ahead.body["code"]), (409, &json!("poll_out_of_order")));
    let zero = poll.send(&rig, 0, &[]).await;
    assert_eq!(zero.status, 422);
    let large = json!({"first": poll.sent + 1, "messages": ["x".repeat(1024 * 1024 + 8192)]});
    assert_eq!(poll.post(&rig, "/send", large).await.status, 413);
    let token = std::mem::replace(&mut poll.token, rig.admin.clone());
    for route in ["/send", "/receive"] {
        let answer = poll.post(&rig, route, json!({"first": 1, "messages": [], "received": 0})).await;
        assert_eq!((answer.status, &answer.body["code"]), (404, &json!("poll_not_found")));
    }
    poll.token = token;
    poll.say(&rig, &[AgentMessage::Credit { slots: 1 }]).await;
}

#[tokio::test]
async fn the_largest_message_passes_and_what_is_none_is_answered() {
    let rig = Rig::start().await;
    let identity = rig.enrolled("a").await;
    let mut poll = Poll::connect(&rig, &identity).await;
    let (reason, rest) = ("y".repeat(1024 * 1024 - 64), json!({"type": "drain"}));
    let mut large = rest;
    large["reason"] = json!(reason);
    let answer = poll
        .post(&rig, "/send", json!({"first": poll.sent + 1, "messages": [large, {"type": "fly"}, 7]}))
        .await;
    assert_eq!(answer.body["received"], poll.sent + 3, "{}", answer.body);
    rig.until(&format!("/api/v1/agents/{}", identity.id), |it| it["state"] == "draining").await;
    let mut codes = Vec::new();
    while codes.len() < 2 {
        for message in poll.next(&rig).await {
            let ControlMessage::Error(error) = message else { panic!("an error is due: {message:?}") };
            codes.push(error.code);
        }
    }
    assert_eq!(codes, ["unknown_type", "not_a_message"]);
}

#[tokio::test]
async fn an_agent_that_sends_and_does_not_ask_is_taken_for_dead() {
    let times = Times { dead_after: Duration::from_millis(300), ..Times::default() };
    let rig = Rig::with(times, Limits::default()).await;
    let identity = rig.enrolled("a").await;
    let poll = Poll::connect(&rig, &identity).await;
    let path = format!("/api/v1/agents/{}", identity.id);
    let signs = async {
        loop {
            let _ = poll.send(&rig, poll.sent + 1, &[]).await;
        }
    };
    tokio::select! {
        _ = rig.until(&path, |it| it["state"] == "disconnected") => {}
        () = signs => {}
    }
}

#[tokio::test]
async fn one_that_asks_lives_by_its_requests_alone() {
    let times = Times {
        dead_after: Duration::from_millis(600),
        ping: Duration::from_millis(200),
        ..Times::default()
    };
    let rig = Rig::with(times, Limits::default()).await;
    let identity = rig.enrolled("a").await;
    let mut poll = Poll::connect(&rig, &identity).await;
    // The server's pings end the waits, so that the next request comes; without them this one would be dead.
    let asked = tokio::time::timeout(Duration::from_secs(2), poll.next(&rig)).await;
    assert!(asked.is_err(), "nothing was to be said: {asked:?}");
    poll.say(&rig, &[AgentMessage::Credit { slots: 1 }]).await;
    assert_eq!(rig.get(&format!("/api/v1/agents/{}", identity.id)).await.body["state"], "connected");
}

#[tokio::test]
async fn goodbye_ends_it_at_once_and_their_number_is_limited() {
    let rig = Rig::with(Times::default(), Limits { poll_sessions: 1, ..Limits::default() }).await;
    let identity = rig.enrolled("a").await;
    let poll = Poll::connect(&rig, &identity).await;
    let full = rig.call(Method::POST, "/agent/v1/poll", None).await;
    assert_eq!((full.status, &full.body["code"]), (503, &json!("busy")));
    let url = format!("{}{}", poll.url, poll.path);
    let gone = request(&rig.client, Method::DELETE, &url, Some(&poll.token), None, &[]).await;
    assert_eq!(gone.status, 204);
    rig.until(&format!("/api/v1/agents/{}", identity.id), |it| it["state"] == "disconnected").await;
    let until_room = async { while rig.call(Method::POST, "/agent/v1/poll", None).await.status != 201 {} };
    tokio::time::timeout(Duration::from_secs(3), until_room).await.expect("its place is free");
}

#[tokio::test]
async fn a_websocket_supersedes_it_and_it_supersedes_a_websocket() {
    let rig = Rig::start().await;
    let identity = rig.enrolled("a").await;
    let mut poll = Poll::connect(&rig, &identity).await;
    let mut agent = identity.connect(&rig.url, &[], &[], &[]).await;
    let messages = poll.next(&rig).await;
    let [ControlMessage::Goaway(goaway)] = &messages[..] else { panic!("a goaway is due: {messages:?}") };
    assert_eq!(goaway.reason, GoawayReason::Superseded);
    assert_eq!(poll.ask(&rig, poll.received).await["ended"], true);
    let late = poll.send(&rig, poll.sent + 1, &[AgentMessage::Credit { slots: 1 }]).await;
    assert_eq!((late.status, &late.body["code"]), (410, &json!("poll_ended")));
    let _poll = Poll::connect(&rig, &identity).await;
    let ControlMessage::Goaway(goaway) = agent.receive().await else { panic!("a goaway is due") };
    assert_eq!(goaway.reason, GoawayReason::Superseded);
}

#[tokio::test]
async fn a_stop_is_told_to_a_request_that_waits() {
    let mut rig = Rig::start().await;
    let identity = rig.enrolled("a").await;
    let poll = Poll::connect(&rig, &identity).await;
    let running = rig.running.take().unwrap();
    let asked = async {
        let batch = poll.ask(&rig, poll.received).await;
        let ControlMessage::Goaway(goaway) = message(&batch["messages"][0]) else {
            panic!("a goaway is due: {batch}")
        };
        assert_eq!(goaway.reason, GoawayReason::Shutdown);
    };
    let stop = async {
        // The request waits already when the stop begins, or is turned away with the connection.
        rig.until(&format!("/api/v1/agents/{}", identity.id), |it| it["state"] == "connected").await;
        running.stop().await;
    };
    let begun = std::time::Instant::now();
    tokio::join!(asked, stop);
    assert!(begun.elapsed() < Duration::from_secs(8), "the stop waits for nobody: {:?}", begun.elapsed());
}

#[tokio::test]
async fn both_transports_pass_the_same_gate() {
    let limits = Limits { handshakes_per_second: 1, ..Limits::default() };
    let rig = Rig::with(Times::default(), limits).await;
    let _open = Wire::open(&rig.url).await;
    let url = format!("{}/agent/v1/poll", rig.url);
    let mut waits = Vec::new();
    for _ in 0..3 {
        let answer = rig.client.post(&url).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 503);
        waits.push(answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap());
    }
    // Each is told a later moment, so that they do not come back together.
    assert!(waits[0] >= 1 && waits.is_sorted() && waits[2] > waits[0], "{waits:?}");
    let refused =
        tokio_tungstenite::connect_async(crate::support::upgrade_request(&rig.url)).await.unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(refused) = refused else { panic!("{refused}") };
    assert_eq!(refused.status().as_u16(), 503);
    assert!(refused.headers().contains_key("retry-after"));
}
