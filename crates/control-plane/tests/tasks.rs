//! Posting, reading, waiting, listing.

use reqwest::Method;
use serde_json::{Value, json};
use sortie_control::store::Role;
use sortie_protocol::message::{AgentMessage, AttemptOutcome, Progress};

use crate::support::{PATIENCE, Rig, request};

#[tokio::test]
async fn a_task_is_answered_as_it_was_given() {
    let rig = Rig::start().await;
    let task = json!({"kind": "clone", "server": "ado", "project": "Shop", "repository": "web", "depth": 1,
        "selector": {"all": ["x"]}, "labels": {"team": "shop"}});
    let answer = rig.post("/api/v1/tasks", task.clone()).await;
    assert_eq!(answer.status, 201);
    let id = answer.body["id"].as_str().unwrap();
    assert_eq!(answer.location.as_deref(), Some(format!("/api/v1/tasks/{id}").as_str()));
    for (field, value) in task.as_object().unwrap() {
        assert_eq!(&answer.body[field], value);
    }
    assert_eq!((&answer.body["state"], &answer.body["outcome"]), (&json!("queued"), &Value::Null));
    assert_eq!((&answer.body["attempts"], &answer.body["result"]), (&json!([]), &Value::Null));
    assert_eq!(rig.show(id).await, answer.body);
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_a_caller_and_a_body() {
    let rig = Rig::start().await;
    let other = rig.token("other", Role::Dispatcher).await;
    let url = format!("{}/api/v1/tasks", rig.url);
    let task = json!({"kind": "connection-test", "url": "https://a", "queue_seconds": 60});
    let post = |token: String, body: Value| {
        let (client, url) = (rig.client.clone(), url.clone());
        async move {
            request(&client, Method::POST, &url, Some(&token), Some(body), &[("idempotency-key", "k")]).await
        }
    };
    // Both at once: one makes the task, the other one gets it.
    let (one, two) =
        tokio::join!(post(rig.admin.clone(), task.clone()), post(rig.admin.clone(), task.clone()));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201]);
    assert_eq!(one.body["id"], two.body["id"]);
    let changed = json!({"kind": "connection-test", "url": "https://b"});
    let reused = post(rig.admin.clone(), changed).await;
    assert_eq!((reused.status, &reused.body["code"]), (422, &json!("idempotency_key_reused")));
    let elsewhere = post(other, task).await;
    assert_eq!(elsewhere.status, 201);
    assert_ne!(elsewhere.body["id"], one.body["id"]);
}

#[tokio::test]
async fn waiting_ends_with_the_task_or_the_time() {
    let rig = Rig::start().await;
    let id = rig.task(json!({})).await;
    let early = rig.get(&format!("/api/v1/tasks/{id}?wait=50ms")).await;
    assert_eq!(early.body["state"], "queued");
    assert_eq!(rig.get(&format!("/api/v1/tasks/{id}?wait=soon")).await.status, 400);
    let path = format!("/api/v1/tasks/{id}?wait=60s");
    let waiting = rig.get(&path);
    let work = async {
        let mut agent = rig.agent("a", &[]).await;
        let attempt = agent.begin().await;
        agent.finish(&attempt, AttemptOutcome::Failed).await;
        agent.acknowledged(&attempt).await;
    };
    let (answer, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(waiting, work) }).await.unwrap();
    assert_eq!((&answer.body["state"], &answer.body["outcome"]), (&json!("completed"), &json!("failed")));
    assert_eq!(answer.body["result"]["schema"], "sortie.report.v1");
    let attempt = &answer.body["attempts"][0];
    assert_eq!((&attempt["number"], &attempt["agent"]), (&json!(1), &json!("a")));
    assert_eq!(attempt["diagnosis"]["code"], "pat_rejected");
    for time in ["offered_at", "started_at", "ended_at"] {
        assert!(attempt[time].is_string(), "{time}");
    }
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let rig = Rig::start().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let team = if number % 2 == 0 { "even" } else { "odd" };
        ids.push(rig.task(json!({"labels": {"team": team}})).await);
    }
    rig.call(Method::POST, &format!("/api/v1/tasks/{}/cancel", ids[0]), None).await;
    let list = async |query: &str| {
        let body = rig.get(&format!("/api/v1/tasks?{query}")).await.body;
        let ids =
            body["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned());
        (ids.collect::<Vec<_>>(), body["next"].as_str().map(ToOwned::to_owned))
    };
    let (all, next) = list("").await;
    assert_eq!(all, ids.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(next, None);
    let (first, next) = list("limit=2").await;
    let (second, next) = list(&format!("limit=2&cursor={}", next.unwrap())).await;
    let (third, last) = list(&format!("limit=2&cursor={}", next.unwrap())).await;
    assert_eq!([first, second, third].concat(), all);
    assert_eq!(last, None);
    assert_eq!(list("label=team:odd").await.0, [ids[3].clone(), ids[1].clone()]);
    assert_eq!(list("outcome=cancelled").await.0, [ids[0].clone()]);
    assert_eq!(list("state=queued&label=team:even").await.0, [ids[4].clone(), ids[2].clone()]);
    assert_eq!(list("kind=clone").await.0, Vec::<String>::new());
}

#[tokio::test]
async fn events_tell_states_and_progress_to_the_end() {
    let rig = Rig::start().await;
    let id = rig.task(json!({})).await;
    let url = format!("{}/api/v1/tasks/{id}/events", rig.url);
    let authorization = format!("Bearer {}", rig.admin);
    let mut response = rig.client.get(url).header("authorization", authorization).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut seen = String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    let mut agent = rig.agent("a", &[]).await;
    let attempt = agent.begin().await;
    let progress = Progress {
        attempt: attempt.clone(),
        stage: "receive".to_owned(),
        received_bytes: 7,
        received_objects: 1,
        total_objects: None,
        indexed_objects: 0,
        written_files: 0,
        total_files: None,
        bytes_per_second: 0,
        remaining_ms: None,
        said: None,
    };
    agent.send(AgentMessage::Progress(progress)).await;
    while !seen.contains("event: progress") {
        let chunk = tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap().unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    agent.finish(&attempt, AttemptOutcome::Succeeded).await;
    // The stream ends by itself after the last event.
    while let Some(chunk) = tokio::time::timeout(PATIENCE, response.chunk()).await.unwrap().unwrap() {
        seen.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    for expected in ["\"queued\"", "\"offered\"", "\"running\"", "\"received_bytes\":7", "\"succeeded\""] {
        assert!(seen.contains(expected), "{expected} is missing in {seen}");
    }
}

#[tokio::test]
async fn a_task_that_nobody_takes_expires() {
    let rig = Rig::start().await;
    let id = rig.task(json!({"queue_seconds": 1, "selector": {"all": ["nowhere"]}})).await;
    let task = rig.completed(&id).await;
    assert_eq!((&task["outcome"], &task["attempts"]), (&json!("expired"), &json!([])));
    assert!(task["reason"].as_str().unwrap().contains("no agent is connected"), "{}", task["reason"]);
}
