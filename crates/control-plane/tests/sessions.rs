//! Opening a session, and what ends it.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use sortie_control::settings::{Limits, Times};
use sortie_protocol::message::{AgentMessage, AttemptOutcome, ControlMessage, Disposition, GoawayReason};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::{Rig, Wire, upgrade_request};

async fn goaway(wire: &mut Wire) -> (GoawayReason, String) {
    loop {
        match wire.receive().await {
            ControlMessage::Goaway(goaway) => return (goaway.reason, goaway.message),
            ControlMessage::Error(_) => {}
            other => panic!("a goaway is due, not {other:?}"),
        }
    }
}

#[tokio::test]
async fn the_times_and_the_session_are_told() {
    let rig = Rig::start().await;
    let agent = rig.enrolled("a").await.connect(&rig.url, &[], &[], &[]).await;
    let times = agent.welcome.times;
    assert_eq!((times.ping_ms, times.dead_after_ms, times.renew_ms), (15_000, 30_000, 20_000));
    assert!(agent.welcome.session.starts_with("session_"));
}

#[tokio::test]
async fn an_identity_is_refused_with_the_reason() {
    let rig = Rig::start().await;
    let identity = rig.enrolled("a").await;
    rig.enrolled("b").await;
    let stranger = crate::support::Identity { id: "agent_none".to_owned(), ..identity.clone() };
    let forger = crate::support::Identity { id: identity.id.clone(), ..crate::support::Identity::new("a") };
    let renamed = crate::support::Identity { name: "b".to_owned(), ..identity.clone() };
    let refused = GoawayReason::IdentityRefused;
    for (who, expected, word) in [
        (&stranger, refused, "no agent with this identifier"),
        (&forger, refused, "not made with the key"),
        (&renamed, refused, "another agent has the name b"),
    ] {
        let mut wire = Wire::open(&rig.url).await;
        let challenge = wire.challenge().await;
        wire.send(AgentMessage::Hello(who.hello(&challenge, &[]))).await;
        let (reason, message) = goaway(&mut wire).await;
        assert_eq!(reason, expected);
        assert!(message.contains(word), "{message}");
        assert!(wire.next().await.is_none());
    }
}

#[tokio::test]
async fn a_proof_for_another_origin_or_session_is_refused() {
    let rig = Rig::start().await;
    let identity = rig.enrolled("a").await;
    let mut wire = Wire::open(&rig.url).await;
    let challenge = wire.challenge().await;
    let mut hello = identity.hello(&challenge, &[]);
    hello.origin = "https://elsewhere.example".to_owned();
    wire.send(AgentMessage::Hello(hello)).await;
    let (reason, message) = goaway(&mut wire).await;
    assert_eq!(reason, GoawayReason::IdentityRefused);
    assert!(message.contains("--public-url https://elsewhere.example"), "{message}");
    // What was signed for one session opens no other.
    let old = identity.hello(&challenge, &[]);
    let mut wire = Wire::open(&rig.url).await;
    wire.challenge().await;
    wire.send(AgentMessage::Hello(old)).await;
    assert_eq!(goaway(&mut wire).await.0, GoawayReason::IdentityRefused);
    // Reserved tags are no tags of an agent's own.
    let mut wire = Wire::open(&rig.url).await;
    let challenge = wire.challenge().await;
    wire.send(AgentMessage::Hello(identity.hello(&challenge, &["name:other"]))).await;
    assert_eq!(goaway(&mut wire).await.0, GoawayReason::ProtocolViolation);
}

#[tokio::test]
async fn without_a_hello_a_connection_ends() {
    let times = Times { hello: Duration::from_millis(50), ..Times::default() };
    let rig = Rig::with(times, Limits::default()).await;
    let mut wire = Wire::open(&rig.url).await;
    wire.challenge().await;
    assert_eq!(goaway(&mut wire).await.0, GoawayReason::ProtocolViolation);
}

#[tokio::test]
async fn too_many_unproven_connections_are_turned_away() {
    let rig = Rig::with(Times::default(), Limits { handshakes: 1, ..Limits::default() }).await;
    let waiting = Wire::open(&rig.url).await;
    let refused = tokio_tungstenite::connect_async(upgrade_request(&rig.url)).await;
    let Err(Error::Http(response)) = refused else { panic!("it was let in") };
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (503, &"1".parse().unwrap())
    );
    drop(waiting);
}

#[tokio::test]
async fn a_newer_session_supersedes_the_older() {
    let rig = Rig::start().await;
    let mut old = rig.agent("a", &[]).await;
    let mut new = old.identity.connect(&rig.url, &[], &[], &[]).await;
    assert_eq!(goaway(&mut old.wire).await.0, GoawayReason::Superseded);
    assert!(old.wire.next().await.is_none());
    new.send(AgentMessage::Credit { slots: 1 }).await;
    let id = rig.task(json!({})).await;
    assert_eq!(new.offer().await.attempt.task_id, id);
}

#[tokio::test]
async fn agents_that_are_sent_away_together_do_not_come_back_together() {
    let mut rig = Rig::with(Times::default(), Limits { reconnects_per_second: 2, ..Limits::default() }).await;
    let mut agents = Vec::new();
    for name in ["a", "b", "c", "d"] {
        agents.push(rig.agent(name, &[]).await);
    }
    rig.running.take().unwrap().stop().await;
    let mut waits = Vec::new();
    for agent in &mut agents {
        let ControlMessage::Goaway(goaway) = agent.receive().await else { panic!("a goaway is due") };
        waits.push(goaway.reconnect_after_ms);
    }
    waits.sort_unstable();
    assert_eq!(waits, [0, 500, 1000, 1500]);
}

#[tokio::test]
async fn a_revoked_agent_is_gone_at_once_and_its_work_goes_elsewhere() {
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    agent.begin().await;
    rig.until_state(&id, "running").await;
    let mut other = rig.agent("b", &[]).await;
    let path = format!("/api/v1/agents/{}", agent.identity.id);
    assert_eq!(rig.call(Method::DELETE, &path, None).await.status, 204);
    assert_eq!(goaway(&mut agent.wire).await.0, GoawayReason::IdentityRefused);
    assert_eq!(rig.get(&path).await.status, 404);
    assert_eq!(other.begin().await.attempt, 2);
    let mut wire = Wire::open(&rig.url).await;
    let challenge = wire.challenge().await;
    wire.send(AgentMessage::Hello(agent.identity.hello(&challenge, &[]))).await;
    assert_eq!(goaway(&mut wire).await.0, GoawayReason::IdentityRefused);
}

#[tokio::test]
async fn garbage_is_answered_and_harms_nobody() {
    let rig = Rig::start().await;
    let mut well = rig.agent("well", &[]).await;
    let mut agent = rig.agent("a", &["only"]).await;
    let deep = format!(r#"{{"type":"renew","x":{}{}}}"#, "[".repeat(64), "]".repeat(64));
    let cases = [
        ("no json", "not_a_message"),
        (r#"{"type":"fly"}"#, "unknown_type"),
        (r#"{"type":"accept"}"#, "malformed"),
        (deep.as_str(), "message_too_deep"),
    ];
    for (text, code) in cases {
        agent.wire.send_text(text.to_owned()).await;
        let ControlMessage::Error(error) = agent.receive().await else { panic!("an error is due") };
        assert_eq!(error.code, code);
    }
    let again = agent
        .identity
        .hello(&sortie_protocol::message::Challenge { session: "s".to_owned(), nonce: "n".to_owned() }, &[]);
    agent.send(AgentMessage::Hello(again)).await;
    let ControlMessage::Error(error) = agent.receive().await else { panic!("an error is due") };
    assert_eq!(error.code, "unexpected_message");
    // The session has stayed open all the while.
    let id = rig.task(json!({"selector": {"all": ["only"]}})).await;
    assert_eq!(agent.offer().await.attempt.task_id, id);
    // Eight are borne, five of which there have been; the ninth is too much.
    for _ in 5..8 {
        agent.wire.send_text("no json".to_owned()).await;
        assert!(matches!(agent.receive().await, ControlMessage::Error(_)));
    }
    agent.send(AgentMessage::Renew { attempts: Vec::new() }).await;
    assert!(matches!(agent.receive().await, ControlMessage::Renewed { .. }));
    agent.wire.send_text("no json".to_owned()).await;
    assert_eq!(goaway(&mut agent.wire).await.0, GoawayReason::ProtocolViolation);
    let id = rig.task(json!({})).await;
    let attempt = well.begin().await;
    assert_eq!(attempt.task_id, id);
    well.finish(&attempt, AttemptOutcome::Succeeded).await;
    assert_eq!(well.acknowledged(&attempt).await, Disposition::Recorded);
}

#[tokio::test]
async fn a_huge_message_and_one_that_is_not_text_end_in_words() {
    use futures_util::SinkExt;
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    agent.wire.socket.send(Message::binary(vec![0_u8; 16])).await.unwrap();
    let ControlMessage::Error(error) = agent.receive().await else { panic!("an error is due") };
    assert_eq!(error.code, "not_a_message");
    let huge = format!(r#"{{"type":"credit","slots":1,"x":"{}"}}"#, "a".repeat(300 * 1024));
    // The limit of a frame is met before the whole has been read, so that sending may fail.
    let _ = agent.wire.socket.send(Message::text(huge)).await;
    let ControlMessage::Error(error) = agent.receive().await else { panic!("an error is due") };
    assert_eq!(error.code, "message_too_large");
    assert_eq!(goaway(&mut agent.wire).await.0, GoawayReason::ProtocolViolation);
}

#[tokio::test]
async fn a_silent_agent_is_taken_for_dead() {
    let short = Duration::from_millis(100);
    let rig = Rig::with(Times { dead_after: short, ..Times::default() }, Limits::default()).await;
    let identity = rig.enrolled("a").await;
    let agent = identity.connect(&rig.url, &[], &[], &[]).await;
    // Nobody reads here, so that no pong goes out.
    rig.until(&format!("/api/v1/agents/{}", identity.id), |it| it["state"] == "disconnected").await;
    drop(agent);
}

#[tokio::test]
async fn pages_of_other_sites_and_other_protocols_are_refused() {
    let rig = Rig::start().await;
    let host = rig.url.strip_prefix("http://").unwrap();
    let cases = [
        ("https://evil.example", "sortie.v1", 403),
        ("null", "sortie.v1", 403),
        (rig.url.as_str(), "sortie.v1", 101),
        (&format!("https://{host}"), "sortie.v1", 403),
        (rig.url.as_str(), "sortie.v2", 400),
    ];
    for (origin, protocol, status) in cases {
        let mut request = upgrade_request(&rig.url);
        request.headers_mut().insert("origin", origin.parse().unwrap());
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
        let got = match tokio_tungstenite::connect_async(request).await {
            Ok((_, response)) => response.status().as_u16(),
            Err(Error::Http(response)) => response.status().as_u16(),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(got, status, "{origin} {protocol}");
    }
}
