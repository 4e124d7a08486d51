#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use sortie_protocol::AttemptId;
use sortie_protocol::report::{CompareReport, ReportOutcome, TaskOutput};

use super::*;
use crate::dispatch::Outcome;
use crate::store::TaskFilter;

const AGENT: &str = "agent_a";

async fn store() -> (tempfile::TempDir, Sqlite) {
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&directory.path().join("control.db")).await.unwrap();
    (directory, store)
}

fn at(seconds: u64) -> Stamp {
    Stamp { wall: 1_000_000, elapsed: Duration::from_secs(seconds) }
}

fn attempt(task_id: &str, attempt: u32) -> AttemptId {
    AttemptId { task_id: task_id.to_owned(), attempt }
}

fn posted(task_id: &str) -> Transition {
    let bytes = r#"{"kind":"compare","url":"https://a","labels":{"team":"shop"}}"#;
    Transition::TaskPosted {
        task_id: task_id.to_owned(),
        bytes: bytes.into(),
        spec: Arc::new(serde_json::from_str(bytes).unwrap()),
    }
}

fn offered(task_id: &str, number: u32) -> Transition {
    let (agent_id, agent_name) = (AGENT.to_owned(), "a".to_owned());
    Transition::AttemptOffered { attempt: attempt(task_id, number), agent_id, agent_name }
}

fn output() -> TaskOutput {
    let report =
        r#"{"outcome":"failed","commit":"c","duration_ms":1.0,"stages":[],"warnings":[],"diagnosis":null}"#;
    let report: CompareReport = serde_json::from_str(report).unwrap();
    assert_eq!(report.outcome, ReportOutcome::Failed);
    TaskOutput::Compare(Box::new(report))
}

fn ended(task_id: &str, number: u32, outcome: Outcome, passed_on: bool) -> Transition {
    Transition::AttemptEnded {
        attempt: attempt(task_id, number),
        outcome,
        diagnosis: None,
        reason: Some("because".to_owned()),
        by_result: true,
        counted: false,
        passed_on: passed_on.then(|| Box::new(output())),
    }
}

fn completed(task_id: &str, outcome: Outcome) -> Transition {
    let (result, reason) = (Some(output()), None);
    Transition::TaskCompleted { task_id: task_id.to_owned(), outcome, result, reason }
}

#[tokio::test]
async fn a_batch_leaves_every_task_in_its_last_state() {
    let (_directory, store) = store().await;
    let queued = |task_id: &str| Transition::TaskQueued { task_id: task_id.to_owned() };
    let started = |task_id: &str| Transition::AttemptStarted { attempt: attempt(task_id, 1) };
    let cancelling =
        Transition::TaskCancelling { task_id: "stopping".to_owned(), reason: "enough".to_owned() };
    let batch = [
        posted("queued"),
        posted("again"),
        posted("running"),
        posted("stopping"),
        posted("done"),
        offered("again", 1),
        offered("running", 1),
        offered("stopping", 1),
        offered("done", 1),
        started("running"),
        started("stopping"),
        started("done"),
        ended("again", 1, Outcome::Failed, true),
        queued("again"),
        cancelling,
        ended("done", 1, Outcome::Succeeded, false),
        completed("done", Outcome::Succeeded),
    ];
    store.commit(at(5), &batch, &[]).await.unwrap();
    let states = [
        ("queued", TaskState::Queued),
        ("again", TaskState::Queued),
        ("running", TaskState::Running),
        ("stopping", TaskState::Cancelling),
        ("done", TaskState::Completed),
    ];
    for (id, state) in states {
        let task = store.task(id).await.unwrap().unwrap();
        assert_eq!(task.state, state, "{id}");
        assert_eq!(task.attempts.len(), usize::from(id != "queued"), "{id}");
        assert_eq!(task.spec.labels["team"], "shop");
    }
    let done = store.task("done").await.unwrap().unwrap();
    assert_eq!((done.outcome, done.completed_at), (Some(Outcome::Succeeded), Some(1_000_000)));
    assert!(done.attempts[0].started_at.is_some() && done.attempts[0].ended_at.is_some());
    assert_eq!(store.task("stopping").await.unwrap().unwrap().reason.as_deref(), Some("enough"));
    let labelled = TaskFilter { label: Some(("team".into(), "shop".into())), limit: 9, ..Default::default() };
    assert_eq!(store.tasks(&labelled).await.unwrap().len(), 5);
    // What the next process finds.
    assert_eq!(store.last_stamp().await.unwrap(), Some(at(5)));
    let live = store.live_tasks(Duration::from_secs(12)).await.unwrap();
    let ids: Vec<_> = live.iter().map(|task| task.posted.id.as_str()).collect();
    assert_eq!(ids, ["queued", "again", "running", "stopping"]);
    assert!(live.iter().all(|task| task.waited == Duration::from_secs(7)));
    let again = &live[1].attempts[0];
    assert_eq!(again.passed_on.as_deref(), Some(&output()));
    assert_eq!(again.reason.as_deref(), Some("because"));
    assert!(live[2].attempts[0].started && !live[2].attempts[0].ended);
}

#[tokio::test]
async fn texts_come_back_as_they_were_however_strange_and_large() {
    let (_directory, store) = store().await;
    let strange = "a\u{0}b\"\\\u{1F600}\u{7f}\n, ']";
    let bytes = serde_json::json!({"kind": "clone", "url": "https://a", "labels": {strange: strange}});
    let spec = Arc::new(serde_json::from_value(bytes.clone()).unwrap());
    let large = "x\"".repeat(script::ARRAY_BYTES / 4);
    let mut batch = Vec::new();
    for id in ["t1", "t2", "t3"] {
        let (bytes, spec) = (bytes.to_string().into(), Arc::clone(&spec));
        batch.push(Transition::TaskPosted { task_id: id.to_owned(), bytes, spec });
        let (result, reason) = (Some(output()), Some(format!("{id}{strange}{large}")));
        let outcome = Outcome::Failed;
        batch.push(Transition::TaskCompleted { task_id: id.to_owned(), outcome, result, reason });
    }
    store.commit(at(0), &batch, &[]).await.unwrap();
    let label = Some((strange.to_owned(), strange.to_owned()));
    let found = store.tasks(&TaskFilter { label, limit: 9, ..Default::default() }).await.unwrap();
    assert_eq!(found.len(), 3);
    for task in found {
        assert_eq!(task.reason, Some(format!("{}{strange}{large}", task.id)));
        assert_eq!(task.spec, *spec);
        assert_eq!(task.result, Some(serde_json::to_value(output()).unwrap()));
    }
}

#[tokio::test]
async fn the_uses_of_idempotency_keys_come_back_as_they_were() {
    let (_directory, store) = store().await;
    let uses = ["a", "b\"; --", "ä…"].map(|key| IdempotencyKey {
        token_id: "token_1".to_owned(),
        key: key.to_owned(),
        body_hash: vec![0, 255, key.len() as u8],
        task_id: format!("task_{}", key.len()),
    });
    let tasks: Vec<_> = uses.iter().map(|key| posted(&key.task_id)).collect();
    store.commit(at(0), &tasks, &uses).await.unwrap();
    for key in uses {
        let kept = store.idempotency_key("token_1", &key.key).await.unwrap().unwrap();
        assert_eq!((kept.body_hash, kept.task_id), (key.body_hash, key.task_id));
    }
    assert!(store.idempotency_key("token_2", "a").await.unwrap().is_none());
}

#[tokio::test]
async fn the_next_batch_goes_on_where_the_last_one_ended() {
    let (_directory, store) = store().await;
    store.commit(at(1), &[posted("t"), offered("t", 1)], &[]).await.unwrap();
    let started = Transition::AttemptStarted { attempt: attempt("t", 1) };
    store.commit(at(2), &[started], &[]).await.unwrap();
    assert_eq!(store.task("t").await.unwrap().unwrap().state, TaskState::Running);
    let second = [ended("t", 1, Outcome::Expired, false), offered("t", 2)];
    store.commit(at(3), &second, &[]).await.unwrap();
    let task = store.task("t").await.unwrap().unwrap();
    assert_eq!((task.state, task.attempts.len()), (TaskState::Offered, 2));
    let last = [ended("t", 2, Outcome::Failed, false), completed("t", Outcome::Failed)];
    store.commit(at(4), &last, &[]).await.unwrap();
    let task = store.task("t").await.unwrap().unwrap();
    assert_eq!((task.state, task.outcome), (TaskState::Completed, Some(Outcome::Failed)));
    let outcomes: Vec<_> = task.attempts.iter().map(|it| it.outcome).collect();
    assert_eq!(outcomes, [Some(Outcome::Expired), Some(Outcome::Failed)]);
}

#[tokio::test]
async fn old_tasks_that_are_completed_go_in_small_batches_with_what_belongs_to_them() {
    let (_directory, store) = store().await;
    let key = |task_id: &str| IdempotencyKey {
        token_id: "token".to_owned(),
        key: task_id.to_owned(),
        body_hash: vec![1],
        task_id: task_id.to_owned(),
    };
    for (seconds, id, is_done) in
        [(1, "old", true), (2, "old too", true), (3, "old and live", false), (50, "young", true)]
    {
        let mut batch = vec![posted(id), offered(id, 1)];
        if is_done {
            batch.push(completed(id, Outcome::Failed));
        }
        store.commit(at(seconds), &batch, &[key(id)]).await.unwrap();
    }
    let before = Duration::from_secs(50);
    assert_eq!(store.prune_tasks(before, 1).await.unwrap(), 1);
    assert!(store.task("old").await.unwrap().is_none());
    assert_eq!(store.prune_tasks(before, 9).await.unwrap(), 1);
    assert_eq!(store.prune_tasks(before, 9).await.unwrap(), 0);
    for (id, is_there) in [("old too", false), ("old and live", true), ("young", true)] {
        assert_eq!(store.task(id).await.unwrap().is_some(), is_there, "{id}");
        assert_eq!(store.idempotency_key("token", id).await.unwrap().is_some(), is_there, "{id}");
        assert_eq!(store.past_attempt(&attempt(id, 1)).await.unwrap().is_some(), is_there, "{id}");
    }
}

#[tokio::test]
async fn a_full_disk_fails_one_commit_and_not_those_after_it() {
    let (_directory, store) = store().await;
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&store.writer).await.unwrap();
    let room = |pages: i64| format!("PRAGMA max_page_count = {pages}");
    sqlx::query(sqlx::AssertSqlSafe(room(pages))).execute(&store.writer).await.unwrap();
    let many: Vec<_> = (0..500).map(|number| posted(&format!("task_{number}"))).collect();
    let full = store.commit(at(1), &many, &[]).await;
    assert!(matches!(full, Err(StoreError::Full)), "{full:?}");
    // There is room again.
    sqlx::query(sqlx::AssertSqlSafe(room(pages * 100))).execute(&store.writer).await.unwrap();
    store.commit(at(2), &many, &[]).await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM tasks").fetch_one(&store.readers).await.unwrap();
    assert_eq!(kept, 500, "all of the second batch, and nothing of the first");
}

/// As after a disk that was full at a commit.
#[tokio::test]
async fn a_transaction_that_the_database_has_ended_by_itself_stops_none_after_it() {
    let (_directory, store) = store().await;
    let mut tx = store.writer.begin_with(BEGIN).await.unwrap();
    sqlx::query("ROLLBACK").execute(&mut *tx).await.unwrap();
    drop(tx);
    store.commit(at(1), &[posted("task_a")], &[]).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_any_more_stops_none_after_it() {
    let (_directory, store) = store().await;
    for number in 0..400 {
        let (before, after) = ([posted(&format!("before_{number}"))], [posted(&format!("after_{number}"))]);
        // Each time a little later: before the transaction, within it, and after it.
        let until = std::time::Instant::now() + Duration::from_micros(number * 2);
        let late = async {
            while std::time::Instant::now() < until {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            _ = store.commit(at(1), &before, &[]) => {}
            () = late => {}
        }
        store.commit(at(2), &after, &[]).await.unwrap();
    }
}

#[tokio::test]
async fn a_statement_that_fails_takes_back_those_before_it() {
    let (_directory, store) = store().await;
    store.commit(at(1), &[posted("task_a")], &[]).await.unwrap();
    let twice = [posted("task_b"), offered("task_b", 1), offered("task_b", 1)];
    assert!(store.commit(at(2), &twice, &[]).await.is_err());
    assert!(store.task("task_b").await.unwrap().is_none());
    store.commit(at(3), &[posted("task_c")], &[]).await.unwrap();
}
