//! What becomes of attempts: results, rejections, cancels, leases.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use sortie_control::settings::{Limits, Times};
use sortie_protocol::AttemptId;
use sortie_protocol::message::{
    AgentMessage, AttemptOutcome, ControlMessage, Decision, Disposition, Reject, RejectReason,
};

use crate::support::{Agent, Rig, diagnosis, report};

fn reject(attempt: &AttemptId, reason: RejectReason, retryable: bool) -> AgentMessage {
    let is_policy = reason == RejectReason::Policy;
    AgentMessage::Reject(Reject {
        attempt: attempt.clone(),
        retryable,
        reason,
        diagnosis: is_policy.then(|| diagnosis("server_not_declared")),
        result: is_policy.then(|| report(AttemptOutcome::Failed)),
    })
}

async fn cancel(rig: &Rig, id: &str) -> (u16, serde_json::Value) {
    let answer = rig.call(Method::POST, &format!("/api/v1/tasks/{id}/cancel"), None).await;
    (answer.status, answer.body)
}

#[tokio::test]
async fn a_result_is_counted_once_and_acknowledged_each_time() {
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let attempt = agent.begin().await;
    agent.finish(&attempt, AttemptOutcome::Succeeded).await;
    assert_eq!(agent.acknowledged(&attempt).await, Disposition::Recorded);
    // The second one says something else, which changes nothing.
    agent.finish(&attempt, AttemptOutcome::Failed).await;
    assert_eq!(agent.acknowledged(&attempt).await, Disposition::Duplicate);
    let task = rig.completed(&id).await;
    assert_eq!((&task["outcome"], task["attempts"].as_array().unwrap().len()), (&json!("succeeded"), 1));
    let unknown = AttemptId { task_id: "task_none".to_owned(), attempt: 1 };
    agent.finish(&unknown, AttemptOutcome::Succeeded).await;
    assert_eq!(agent.acknowledged(&unknown).await, Disposition::Stale);
}

#[tokio::test]
async fn nobody_speaks_for_another_agents_attempt() {
    let rig = Rig::start().await;
    let mut owner = rig.agent("a", &["own"]).await;
    let mut other = rig.agent("b", &[]).await;
    let id = rig.task(json!({"selector": {"all": ["own"]}})).await;
    let attempt = owner.begin().await;
    rig.until_state(&id, "running").await;
    other.finish(&attempt, AttemptOutcome::Succeeded).await;
    assert_eq!(other.acknowledged(&attempt).await, Disposition::Stale);
    other.send(AgentMessage::Renew { attempts: vec![attempt.clone()] }).await;
    let ControlMessage::Renewed { attempts } = other.receive().await else { panic!("an answer is due") };
    assert_eq!(attempts[0].decision, Decision::Abandon);
    other.send(AgentMessage::Start(attempt.clone())).await;
    assert!(matches!(other.receive().await, ControlMessage::Cancel { .. }));
    assert_eq!(rig.show(&id).await["state"], "running");
    owner.send(AgentMessage::Renew { attempts: vec![attempt.clone()] }).await;
    let ControlMessage::Renewed { attempts } = owner.receive().await else { panic!("an answer is due") };
    assert_eq!((attempts[0].decision, attempts[0].lease_ms), (Decision::Keep, 60_000));
}

#[tokio::test]
async fn a_final_refusal_ends_the_task_with_its_report() {
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let attempt = agent.offer().await.attempt;
    agent.send(reject(&attempt, RejectReason::Policy, false)).await;
    let task = rig.completed(&id).await;
    assert_eq!(task["outcome"], "refused");
    assert_eq!(task["attempts"][0]["outcome"], "refused");
    assert_eq!(task["attempts"][0]["diagnosis"]["code"], "server_not_declared");
    assert_eq!(task["result"]["schema"], "sortie.report.v1");
}

#[tokio::test]
async fn a_refusal_of_one_agent_goes_on_to_the_next() {
    let rig = Rig::start().await;
    let (mut one, mut two) = (rig.agent("a", &[]).await, rig.agent("b", &[]).await);
    let id = rig.task(json!({})).await;
    let attempt = one.offer().await.attempt;
    one.send(reject(&attempt, RejectReason::Policy, true)).await;
    let attempt = two.offer().await.attempt;
    assert_eq!(attempt.attempt, 2);
    two.send(reject(&attempt, RejectReason::NotSupported, true)).await;
    let task = rig.completed(&id).await;
    assert_eq!((&task["outcome"], task["attempts"].as_array().unwrap().len()), (&json!("refused"), 2));
}

#[tokio::test]
async fn the_last_agent_that_might_have_taken_it_goes_and_the_refusal_stands() {
    let times = Times { refusal_grace: Duration::from_millis(50), ..Times::default() };
    let rig = Rig::with(times, Limits::default()).await;
    let mut one = rig.agent("a", &[]).await;
    let identity = rig.enrolled("b").await;
    // It is connected and never tells a free slot.
    let two = identity.connect(&rig.url, &[], &[], &[]).await;
    let id = rig.task(json!({})).await;
    let attempt = one.offer().await.attempt;
    one.send(reject(&attempt, RejectReason::Policy, true)).await;
    rig.until_state(&id, "queued").await;
    drop(two);
    assert_eq!(rig.completed(&id).await["outcome"], "refused");
}

#[tokio::test]
async fn a_busy_agent_gets_the_task_again_when_it_has_a_slot() {
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let attempt = agent.offer().await.attempt;
    agent.send(reject(&attempt, RejectReason::Busy, true)).await;
    rig.until_state(&id, "queued").await;
    agent.send(AgentMessage::Credit { slots: 1 }).await;
    assert_eq!(agent.begin().await.attempt, 2);
    rig.until_state(&id, "running").await;
}

#[tokio::test]
async fn a_task_is_cancelled_in_every_state() {
    let rig = Rig::start().await;
    let queued = rig.task(json!({})).await;
    let (status, task) = cancel(&rig, &queued).await;
    assert_eq!((status, &task["outcome"]), (200, &json!("cancelled")));

    let mut agent = rig.agent("a", &[]).await;
    let offered = rig.task(json!({})).await;
    let attempt = agent.offer().await.attempt;
    let (status, task) = cancel(&rig, &offered).await;
    assert_eq!((status, &task["outcome"]), (200, &json!("cancelled")));
    assert_eq!(task["attempts"][0]["outcome"], "cancelled");
    expect_cancel(&mut agent, &attempt).await;

    let running = rig.task(json!({})).await;
    let attempt = agent.begin().await;
    rig.until_state(&running, "running").await;
    let (status, task) = cancel(&rig, &running).await;
    assert_eq!((status, &task["state"], &task["outcome"]), (202, &json!("cancelling"), &json!(null)));
    expect_cancel(&mut agent, &attempt).await;
    // The word is repeated where the agent asks for time.
    agent.send(AgentMessage::Renew { attempts: vec![attempt.clone()] }).await;
    let ControlMessage::Renewed { attempts } = agent.receive().await else { panic!("an answer is due") };
    assert_eq!(attempts[0].decision, Decision::Cancel);
    let (status, _) = cancel(&rig, &running).await;
    assert_eq!(status, 202);
    agent.finish(&attempt, AttemptOutcome::Cancelled).await;
    agent.acknowledged(&attempt).await;
    let task = rig.completed(&running).await;
    assert_eq!(
        (&task["outcome"], &task["attempts"][0]["outcome"]),
        (&json!("cancelled"), &json!("cancelled"))
    );

    let (status, again) = cancel(&rig, &running).await;
    assert_eq!((status, &again), (200, &task));
}

async fn expect_cancel(agent: &mut Agent, expected: &AttemptId) {
    match agent.receive().await {
        ControlMessage::Cancel { attempt, .. } => assert_eq!(&attempt, expected),
        other => panic!("a cancel is due, not {other:?}"),
    }
}

#[tokio::test]
async fn work_that_was_done_before_the_cancel_came_counts() {
    let rig = Rig::start().await;
    let mut agent = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let attempt = agent.begin().await;
    rig.until_state(&id, "running").await;
    cancel(&rig, &id).await;
    agent.finish(&attempt, AttemptOutcome::Succeeded).await;
    assert_eq!(rig.completed(&id).await["outcome"], "succeeded");
}

#[tokio::test]
async fn an_unanswered_offer_goes_elsewhere_and_its_late_result_is_stale() {
    let times = Times { accept: Duration::from_secs(1), ..Times::default() };
    let rig = Rig::with(times, Limits::default()).await;
    let mut slow = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let first = slow.offer().await.attempt;
    expect_cancel(&mut slow, &first).await;
    rig.until_state(&id, "queued").await;
    let mut other = rig.agent("b", &[]).await;
    let second = other.begin().await;
    assert_eq!(second.attempt, 2);
    slow.send(AgentMessage::Accept(first.clone())).await;
    expect_cancel(&mut slow, &first).await;
    slow.finish(&first, AttemptOutcome::Succeeded).await;
    assert_eq!(slow.acknowledged(&first).await, Disposition::Stale);
    other.finish(&second, AttemptOutcome::Failed).await;
    assert_eq!(other.acknowledged(&second).await, Disposition::Recorded);
    assert_eq!(rig.completed(&id).await["outcome"], "failed");
    // Nor does it count after the end of the task.
    slow.finish(&first, AttemptOutcome::Succeeded).await;
    assert_eq!(slow.acknowledged(&first).await, Disposition::Stale);
    assert_eq!(rig.show(&id).await["outcome"], "failed");
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_ends_and_the_task_dies_in_the_end() {
    let short = Duration::from_millis(50);
    let times = Times { lease: short, lease_margin: short, ..Times::default() };
    let rig = Rig::with(times, Limits { attempts_per_task: 2, ..Limits::default() }).await;
    let mut agent = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let first = agent.begin().await;
    let second = agent.begin().await;
    assert_eq!((first.attempt, second.attempt), (1, 2));
    let task = rig.completed(&id).await;
    assert_eq!(task["outcome"], "dead");
    for attempt in task["attempts"].as_array().unwrap() {
        assert_eq!(attempt["outcome"], "expired");
        assert!(attempt["reason"].as_str().unwrap().contains("lease"));
    }
    agent.finish(&second, AttemptOutcome::Succeeded).await;
    assert_eq!(agent.acknowledged(&second).await, Disposition::Stale);
    assert_eq!(rig.show(&id).await["outcome"], "dead");
}

#[tokio::test]
async fn a_task_that_its_agent_stopped_by_itself_goes_elsewhere() {
    let rig = Rig::start().await;
    let mut leaving = rig.agent("a", &[]).await;
    let id = rig.task(json!({})).await;
    let attempt = leaving.begin().await;
    leaving.send(AgentMessage::Drain { reason: "SIGTERM".to_owned() }).await;
    leaving.finish(&attempt, AttemptOutcome::Cancelled).await;
    assert_eq!(leaving.acknowledged(&attempt).await, Disposition::Recorded);
    let mut other = rig.agent("b", &[]).await;
    let attempt = other.begin().await;
    other.finish(&attempt, AttemptOutcome::Succeeded).await;
    let task = rig.completed(&id).await;
    assert_eq!(task["outcome"], "succeeded");
    assert_eq!(task["attempts"][0]["outcome"], "cancelled");
}
