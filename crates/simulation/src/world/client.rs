//! Who wants something done.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sortie_control::engine::{NewTask, Posting};
use sortie_control::store::IdempotencyKey;
use sortie_protocol::task::TaskSpec;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{STORM, World};

/// The most tasks of a run.
const MOST_TASKS: u64 = 25;

impl World {
    /// Posts tasks, again until it hears that they are accepted, and cancels some.
    pub(super) async fn client(self) {
        let mut requests = JoinSet::new();
        for number in 0..1 + self.chaos.below(MOST_TASKS) {
            sleep(self.chaos.duration(Duration::from_secs(40))).await;
            requests.spawn(self.clone().post(number));
        }
        while requests.join_next().await.is_some() {}
    }

    pub(super) async fn post(self, number: u64) {
        let json = self.task();
        let spec: TaskSpec = serde_json::from_str(&json).expect("a task");
        let key = format!("key-{number}");
        for repetition in 0_u32.. {
            // As over REST, each request has an identifier of its own, and the key makes them one.
            let task = NewTask {
                id: format!("task-{number}-{repetition}"),
                spec: Arc::new(spec.clone()),
                bytes: Arc::from(json.as_str()),
                key: Some(IdempotencyKey {
                    token_id: "client".to_owned(),
                    key: key.clone(),
                    body_hash: vec![1],
                    task_id: format!("task-{number}-{repetition}"),
                }),
            };
            let id = task.id.clone();
            if let Some(engine) = self.up()
                && let Ok(Ok(posting)) = timeout(Duration::from_secs(30), engine.post(task)).await
            {
                let id = match posting {
                    Posting::Created(_) => id,
                    Posting::Repeated(first) => first,
                    other => return self.oracle.violated(&format!("a post came to {other:?}")),
                };
                self.accepted.lock().unwrap_or_else(PoisonError::into_inner).insert(key, id.clone());
                return self.cancel_some(id).await;
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    pub(super) async fn cancel_some(&self, id: String) {
        if self.chaos.below(5) > 0 {
            return;
        }
        sleep(self.chaos.duration(STORM)).await;
        if let Some(engine) = self.up() {
            self.oracle.cancel_asked(&id);
            let cancel = engine.cancel(id.clone(), "no longer wanted".to_owned());
            if let Ok(Ok(())) = timeout(Duration::from_secs(30), cancel).await {
                self.oracle.cancel_confirmed(&id);
            }
        }
    }

    /// A task of some kind, as a client writes it.
    pub(super) fn task(&self) -> String {
        let kind = ["clone", "clone", "connection-test"][usize::try_from(self.chaos.below(3)).unwrap_or(0)];
        let selector = ["{}", r#"{"all":["many"]}"#, r#"{"any":["one","many"]}"#]
            [usize::try_from(self.chaos.below(3)).unwrap_or(0)];
        let queue = [60, 3600][usize::try_from(self.chaos.below(2)).unwrap_or(0)];
        let run = [10, 60, 300][usize::try_from(self.chaos.below(3)).unwrap_or(0)];
        let host = self.chaos.below(2);
        let most = ["", "", r#","max_attempts":1"#][usize::try_from(self.chaos.below(3)).unwrap_or(0)];
        let priority = self.chaos.below(3);
        format!(
            r#"{{"kind":"{kind}","url":"https://git-{host}.example/x","selector":{selector},"queue_seconds":{queue},"run_seconds":{run},"priority":{priority}{most}}}"#
        )
    }
}
