//! What survives: connections that break, a server that stops, a process that is killed.

use serde_json::json;
use sortie_protocol::AttemptId;
use sortie_protocol::message::ControlMessage;
use sortie_protocol::message::{AgentMessage, AttemptOutcome, Decision, Disposition, GoawayReason};

use crate::support::Rig;

#[tokio::test]
async fn an_agent_resumes_what_it_runs_after_a_broken_connection() {
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let attempt = agent.begin().await;
    rig.until_state(&id, "running").await;
    let identity = agent.identity.clone();
    drop(agent);
    let unknown = AttemptId { task_id: "task_none".to_owned(), attempt: 1 };
    let mut agent = identity.connect(&rig.url, &[], &[attempt.clone(), unknown], &[]).await;
    let decisions: Vec<_> = agent.welcome.attempts.iter().map(|it| it.decision).collect();
    assert_eq!(decisions, [Decision::Keep, Decision::Abandon]);
    agent.finish(&attempt, AttemptOutcome::Succeeded).await;
    assert_eq!(agent.acknowledged(&attempt).await, Disposition::Recorded);
    let task = rig.completed(&id).await;
    assert_eq!((&task["outcome"], task["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 1));
}

#[tokio::test]
async fn what_an_agent_comes_back_without_is_given_out_again() {
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let lost = agent.begin().await;
    rig.until_state(&id, "running").await;
    let mut agent = agent.identity.connect(&rig.url, &[], &[], &[]).await;
    agent.send(AgentMessage::Credit { slots: 1 }).await;
    let attempt = agent.begin().await;
    assert_eq!((lost.attempt, attempt.attempt), (1, 2));
    let task = rig.until_state(&id, "running").await;
    assert_eq!(task["attempts"][0]["outcome"], "expired");
}

#[tokio::test]
async fn a_result_that_waits_is_waited_for() {
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let attempt = agent.begin().await;
    rig.until_state(&id, "running").await;
    let mut agent = agent.identity.connect(&rig.url, &[], &[], std::slice::from_ref(&attempt)).await;
    assert_eq!(rig.show(&id).await["state"], "running");
    agent.finish(&attempt, AttemptOutcome::Succeeded).await;
    assert_eq!(agent.acknowledged(&attempt).await, Disposition::Recorded);
}

#[tokio::test]
async fn a_cancel_reaches_an_agent_that_was_away() {
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let attempt = agent.begin().await;
    rig.until_state(&id, "running").await;
    let identity = agent.identity.clone();
    drop(agent);
    rig.until(&format!("/api/v1/agents/{}", identity.id), |it| it["state"] == "disconnected").await;
    let path = format!("/api/v1/tasks/{id}/cancel");
    assert_eq!(rig.call(reqwest::Method::POST, &path, None).await.status, 202);
    let mut agent = identity.connect(&rig.url, &[], std::slice::from_ref(&attempt), &[]).await;
    assert_eq!(agent.welcome.attempts[0].decision, Decision::Cancel);
    agent.finish(&attempt, AttemptOutcome::Cancelled).await;
    assert_eq!(rig.completed(&id).await["outcome"], "cancelled");
}

#[tokio::test]
async fn tasks_survive_a_restart_and_a_result_after_it_counts_once() {
    let mut rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let queued = rig.task(json!({"selector": {"all": ["later"]}})).await;
    let running = rig.task(json!({"selector": {"none": ["later"]}})).await;
    let attempt = agent.begin().await;
    rig.until_state(&running, "running").await;
    let offered = rig.task(json!({"selector": {"none": ["later"]}})).await;
    agent.offer().await;
    rig.restart().await;
    let ControlMessage::Goaway(goaway) = agent.receive().await else { panic!("a goaway is due") };
    assert_eq!(goaway.reason, GoawayReason::Shutdown);
    assert_eq!(rig.show(&queued).await["state"], "queued");
    assert_eq!(rig.show(&running).await["state"], "running");
    let mut agent = agent.identity.connect(&rig.url, &["later"], std::slice::from_ref(&attempt), &[]).await;
    assert_eq!(agent.welcome.attempts[0].decision, Decision::Keep);
    for disposition in [Disposition::Recorded, Disposition::Duplicate] {
        agent.finish(&attempt, AttemptOutcome::Succeeded).await;
        assert_eq!(agent.acknowledged(&attempt).await, disposition);
    }
    // The offer that nobody answered is out again at once; its agent carries another tag now.
    assert_eq!(rig.until_state(&offered, "queued").await["attempts"][0]["outcome"], "expired");
    agent.send(AgentMessage::Credit { slots: 1 }).await;
    assert_eq!(agent.offer().await.attempt.task_id, queued);
    rig.restart().await;
    let task = rig.show(&running).await;
    assert_eq!((&task["outcome"], task["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 1));
}

#[tokio::test]
async fn an_attempt_that_was_accepted_while_nobody_listened_is_taken_up() {
    let mut rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let attempt = agent.offer().await.attempt;
    rig.restart().await;
    let mut agent = agent.identity.connect(&rig.url, &[], std::slice::from_ref(&attempt), &[]).await;
    assert_eq!(agent.welcome.attempts[0].decision, Decision::Keep);
    rig.until_state(&id, "running").await;
    agent.finish(&attempt, AttemptOutcome::Succeeded).await;
    assert_eq!(agent.acknowledged(&attempt).await, Disposition::Recorded);
}

#[tokio::test]
async fn a_store_that_fails_for_a_while_loses_nothing() {
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let attempt = agent.begin().await;
    rig.until_state(&id, "running").await;
    // Another program holds the write lock for longer than anybody waits for it.
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", rig.database().display())).await.unwrap();
    let holder = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let task = json!({"kind": "connection-test", "url": "https://a"});
    let refused = rig.post("/api/v1/tasks", task).await;
    assert_eq!((refused.status, &refused.body["code"]), (503, &json!("store_unavailable")));
    let ControlMessage::Goaway(goaway) = agent.receive().await else { panic!("a goaway is due") };
    assert_eq!(goaway.reason, GoawayReason::Shutdown);
    holder.rollback().await.unwrap();
    rig.until("/readyz", |it| it["status"] == "ok").await;
    let mut agent = agent.identity.connect(&rig.url, &[], std::slice::from_ref(&attempt), &[]).await;
    assert_eq!(agent.welcome.attempts[0].decision, Decision::Keep);
    agent.finish(&attempt, AttemptOutcome::Succeeded).await;
    assert_eq!(agent.acknowledged(&attempt).await, Disposition::Recorded);
    assert_eq!(rig.completed(&id).await["outcome"], "succeeded");
    assert_eq!(rig.get("/api/v1/tasks").await.body["tasks"].as_array().unwrap().len(), 1);
}
