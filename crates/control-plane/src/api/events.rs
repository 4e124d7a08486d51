//! What happens to one task, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::stream::{self, Stream};
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::App;
use super::auth::{Caller, Viewing};
use super::body::Id;
use super::problem::ApiError;
use crate::dispatch::{Outcome, TaskState};
use crate::engine::{TaskChange, TaskEvent};

/// How often a comment keeps a silent stream alive through proxies.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

struct Watch {
    app: Arc<App>,
    id: String,
    events: Receiver<TaskEvent>,
    /// The store is to be read, because the stream begins here or events were missed.
    look: bool,
    over: bool,
}

/// `state` events with `state` and `outcome`, and `progress` events as agents send them. The first event
/// tells the present state; the stream ends when the task is completed.
pub(super) async fn stream(
    _: Caller<Viewing>,
    State(app): State<Arc<App>>,
    Id(id): Id,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let events = app.engine.watch();
    app.store.task(&id).await?.ok_or_else(ApiError::task_not_found)?;
    let watch = Watch { app, id, events, look: true, over: false };
    let events = stream::unfold(watch, |watch| async move {
        let (event, watch) = watch.next().await?;
        Some((Ok(event), watch))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

impl Watch {
    async fn next(mut self) -> Option<(Event, Self)> {
        loop {
            if self.over {
                return None;
            }
            if std::mem::take(&mut self.look) {
                let task = self.app.store.task(&self.id).await.ok().flatten()?;
                return Some(self.state(task.state, task.outcome));
            }
            let received = tokio::select! {
                received = self.events.recv() => received,
                () = self.app.stop.cancelled() => return None,
            };
            match received {
                Ok(event) if *event.task_id != *self.id => {}
                Ok(TaskEvent { change: TaskChange::State(state, outcome), .. }) => {
                    return Some(self.state(state, outcome));
                }
                Ok(TaskEvent { change: TaskChange::Progress(progress), .. }) => {
                    let event = Event::default().event("progress").json_data(&*progress).ok()?;
                    return Some((event, self));
                }
                Err(RecvError::Lagged(_)) => self.look = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn state(mut self, state: TaskState, outcome: Option<Outcome>) -> (Event, Self) {
        self.over = state == TaskState::Completed;
        let data = json!({ "state": state, "outcome": outcome }).to_string();
        (Event::default().event("state").data(data), self)
    }
}
