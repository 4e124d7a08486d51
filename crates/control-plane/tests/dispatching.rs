//! Which agent gets a task, and why not another.

use reqwest::Method;
use serde_json::{Value, json};
use sortie_protocol::AttemptId;
use sortie_protocol::message::{AgentMessage, AttemptOutcome, AttemptResult, ControlMessage};
use sortie_protocol::report::{Diagnosis, TaskOutput};

use crate::support::{Rig, report, result};

fn reasons<'a>(explanation: &'a Value, name: &str) -> (bool, &'a str) {
    let agents = explanation["agents"].as_array().unwrap();
    let agent = agents.iter().find(|agent| agent["name"] == name).unwrap();
    (agent["eligible"].as_bool().unwrap(), agent["reasons"][0].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_selector_chooses_by_own_given_and_implicit_tags() {
    let rig = Rig::start().await;
    let token = rig.enrollment_token(json!({"tags": ["dc:given"]})).await;
    let mut identity = crate::support::Identity::new("given");
    identity.id = identity.enroll(&rig, &token).await.body["agent_id"].as_str().unwrap().to_owned();
    let mut given = identity.connect(&rig.url, &[], &[], &[]).await;
    given.send(AgentMessage::Credit { slots: 4 }).await;
    let mut own = rig.agent("own", &["ado"]).await;
    let cases = [
        (json!({"all": ["dc:given"]}), true),
        (json!({"any": ["nothing", "ado"]}), false),
        (json!({"none": ["ado"]}), true),
        (json!({"all": ["name:own", "os:linux", "arch:x86_64", "version:0.1.0"]}), false),
    ];
    for (selector, goes_to_given) in cases {
        let id = rig.task(json!({ "selector": selector })).await;
        let offer = if goes_to_given { given.offer().await } else { own.offer().await };
        assert_eq!(offer.attempt.task_id, id);
        let task: Value = serde_json::from_str(&offer.task).unwrap();
        assert_eq!(task["selector"], selector);
    }
}

#[tokio::test]
async fn the_freest_agent_is_taken_and_among_equals_the_one_that_waited() {
    let rig = Rig::start().await;
    let (mut a, mut b) = (rig.agent("a", &[]).await, rig.agent("b", &[]).await);
    b.send(AgentMessage::Credit { slots: 2 }).await;
    rig.until(&format!("/api/v1/agents/{}", b.identity.id), |it| it["free_slots"] == 2).await;
    for _ in 0..2 {
        let id = rig.task(json!({})).await;
        assert_eq!(a.offer().await.attempt.task_id, id);
    }
    // Two and two: the one without an offer is next.
    let id = rig.task(json!({})).await;
    assert_eq!(b.offer().await.attempt.task_id, id);
}

#[tokio::test]
async fn waiting_tasks_are_served_by_age() {
    let rig = Rig::start().await;
    let (first, second) = (rig.task(json!({})).await, rig.task(json!({})).await);
    let identity = rig.enrolled("a").await;
    let mut agent = identity.connect(&rig.url, &[], &[], &[]).await;
    agent.send(AgentMessage::Credit { slots: 1 }).await;
    let offer = agent.offer().await;
    assert_eq!(offer.attempt.task_id, first);
    assert_eq!(rig.show(&second).await["state"], "queued");
    agent.send(AgentMessage::Accept(offer.attempt)).await;
    agent.send(AgentMessage::Credit { slots: 1 }).await;
    assert_eq!(agent.offer().await.attempt.task_id, second);
}

#[tokio::test]
async fn explain_says_for_each_agent_why_not() {
    let rig = Rig::start().await;
    let id = rig.task(json!({"selector": {"all": ["gpu"]}})).await;
    let path = format!("/api/v1/tasks/{id}/explain");
    assert_eq!(rig.get(&path).await.body["summary"], "no agent is connected");
    let _other = rig.agent("other", &["ado"]).await;
    let away = rig.agent("away", &["gpu"]).await;
    let attempt = rig.until_state(&id, "offered").await["attempts"][0].clone();
    assert_eq!(attempt["agent"], "away");
    let explanation = rig.get(&path).await.body;
    assert_eq!(explanation["state"], "offered");
    assert_eq!(reasons(&explanation, "away"), (true, "it holds attempt 1"));
    assert_eq!(reasons(&explanation, "other"), (false, "it lacks the tags gpu"));
    drop(away);
    let second = rig.task(json!({"selector": {"all": ["gpu"]}})).await;
    let path = format!("/api/v1/tasks/{second}/explain");
    let explanation = rig
        .until(&path, |it| it["agents"].as_array().unwrap().iter().all(|agent| agent["eligible"] == false))
        .await;
    assert_eq!(reasons(&explanation, "away"), (false, "it is not connected"));
    assert_eq!(explanation["summary"], "none of the 1 connected agents satisfies the selector");
    rig.call(Method::POST, &format!("/api/v1/tasks/{second}/cancel"), None).await;
    let over = rig.get(&path).await.body;
    assert_eq!((&over["state"], &over["waiting_seconds"]), (&json!("completed"), &Value::Null));
}

#[tokio::test]
async fn paused_agents_get_nothing_until_they_are_resumed() {
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let path = format!("/api/v1/agents/{}", agent.identity.id);
    let paused = rig.call(Method::POST, &format!("{path}/pause"), None).await;
    assert_eq!((paused.status, &paused.body["state"]), (200, &json!("paused")));
    assert!(matches!(agent.receive().await, ControlMessage::Pause { .. }));
    let id = rig.task(json!({})).await;
    let explanation = rig.get(&format!("/api/v1/tasks/{id}/explain")).await.body;
    assert_eq!(reasons(&explanation, "a"), (false, "it is paused"));
    // It stays paused when it comes back.
    let mut agent = agent.identity.connect(&rig.url, &[], &[], &[]).await;
    assert!(matches!(agent.receive().await, ControlMessage::Pause { .. }));
    agent.send(AgentMessage::Credit { slots: 4 }).await;
    rig.call(Method::POST, &format!("{path}/resume"), None).await;
    assert!(matches!(agent.receive().await, ControlMessage::Resume {}));
    assert_eq!(agent.offer().await.attempt.task_id, id);
    rig.call(Method::POST, &format!("{path}/drain"), None).await;
    assert!(matches!(agent.receive().await, ControlMessage::Drain { .. }));
    assert_eq!(rig.get(&path).await.body["state"], "draining");
}

#[tokio::test]
async fn agents_are_shown_with_what_they_hold() {
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &["ado"]).await;
    let id = rig.task(json!({})).await;
    let attempt = agent.begin().await;
    rig.until_state(&id, "running").await;
    let list = rig.get("/api/v1/agents").await.body;
    let shown = &list["agents"][0];
    assert_eq!(
        (&shown["name"], &shown["state"], &shown["max_tasks"]),
        (&json!("a"), &json!("connected"), &json!(4))
    );
    assert_eq!(shown["free_slots"], 3);
    assert_eq!(shown["attempts"], json!([{"task_id": attempt.task_id, "attempt": 1}]));
    assert!(shown["tags"].as_array().unwrap().contains(&json!("name:a")));
    assert!(shown["connected_at"].is_string());
    let path = format!("/api/v1/agents/{}", agent.identity.id);
    drop(agent);
    let gone = rig.until(&path, |it| it["state"] == "disconnected").await;
    assert!(gone["last_seen_at"].is_string());
}

/// A result that says that the server was out of this agent's reach.
fn out_of_reach(attempt: &AttemptId) -> AgentMessage {
    let TaskOutput::Report(mut failed) = report(AttemptOutcome::Failed) else { unreachable!() };
    failed.diagnosis = Some(Diagnosis {
        code: "connection_timed_out".to_owned(),
        stage: "connect".to_owned(),
        summary: "nothing answered".to_owned(),
        remedies: Vec::new(),
    });
    let (attempt, result) = (attempt.clone(), TaskOutput::Report(failed));
    AgentMessage::Result(AttemptResult { attempt, outcome: AttemptOutcome::Failed, result })
}

#[tokio::test]
async fn a_server_out_of_one_agents_reach_is_tried_by_the_next_and_the_task_shows_both() {
    let mut rig = Rig::start().await;
    let mut near = rig.agent("near", &[]).await;
    let id = rig.task(json!({})).await;
    let attempt = near.begin().await;
    let mut far = rig.agent("far", &[]).await;
    near.send(out_of_reach(&attempt)).await;
    near.acknowledged(&attempt).await;
    let second = far.begin().await;
    assert_eq!(second, AttemptId { task_id: id.clone(), attempt: 2 });
    let explained = rig.until(&format!("/api/v1/tasks/{id}/explain"), |it| it["state"] == "running").await;
    let tried = "it tried and could not reach the server: connection_timed_out";
    assert_eq!(reasons(&explained, "near"), (false, tried));
    // What the first one saw outlives the control plane, and so does that it is not to be asked again.
    rig.restart().await;
    let mut far = far.identity.connect(&rig.url, &[], std::slice::from_ref(&second), &[]).await;
    far.send(out_of_reach(&second)).await;
    far.acknowledged(&second).await;
    let mut near = near.identity.connect(&rig.url, &[], &[], &[]).await;
    near.send(AgentMessage::Credit { slots: 4 }).await;
    let task = rig.completed(&id).await;
    assert_eq!((&task["outcome"], task["attempts"].as_array().unwrap().len()), (&json!("failed"), 2));
    for (attempt, agent) in task["attempts"].as_array().unwrap().iter().zip(["near", "far"]) {
        assert_eq!(attempt["agent"], agent);
        assert_eq!(attempt["diagnosis"]["code"], "connection_timed_out");
    }
    assert_eq!(task["result"]["diagnosis"]["code"], "connection_timed_out");
    let reason = "2 agents could not reach the server: near saw connection_timed_out at connect; \
                  far saw connection_timed_out at connect";
    assert_eq!(task["reason"], reason);
}

#[tokio::test]
async fn a_test_whose_agent_is_cut_off_is_done_by_another_one_and_counted_once() {
    let rig = Rig::start().await;
    let mut first = rig.agent("first", &[]).await;
    let id = rig.task(json!({"priority": 5, "max_attempts": 3})).await;
    let attempt = first.begin().await;
    let mut second = rig.agent("second", &[]).await;
    let identity = first.identity.clone();
    drop(first);
    let next = second.begin().await;
    assert_eq!(next.attempt, 2);
    let mut back = identity.connect(&rig.url, &[], &[], std::slice::from_ref(&attempt)).await;
    back.send(AgentMessage::Result(result(&attempt, AttemptOutcome::Failed))).await;
    assert_eq!(back.acknowledged(&attempt).await, sortie_protocol::message::Disposition::Stale);
    second.finish(&next, AttemptOutcome::Succeeded).await;
    let task = rig.completed(&id).await;
    assert_eq!((&task["outcome"], &task["priority"]), (&json!("succeeded"), &json!(5)));
    assert_eq!(task["attempts"][0]["reason"], "first lost its connection and was not back within 2 s");
}
