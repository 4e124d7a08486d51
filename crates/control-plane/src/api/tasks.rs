//! Tasks.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sortie_protocol::report::Diagnosis;
use sortie_protocol::task::{TaskKind, TaskSpec};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout, timeout_at};

use super::auth::{Caller, Dispatching, Viewing};
use super::body::{Id, Parameters, Strict};
use super::problem::ApiError;
use super::{App, rfc3339};
use crate::dispatch::{Outcome, TaskState};
use crate::engine::{NewTask, Posting, TaskChange};
use crate::identity::{new_id, sha256};
use crate::store::{AttemptRecord, IdempotencyKey, Millis, TaskFilter, TaskRecord};

/// Tasks on a page where the query does not say.
const DEFAULT_PAGE: u32 = 50;

/// The most tasks on a page.
const MAX_PAGE: u32 = 200;

/// The longest task as it goes into an offer, in bytes. An offer carries it as text within JSON, which at most
/// doubles it, so that every offer stays far below the limit of a message.
const MAX_TASK_BYTES: usize = 64 * 1024;

/// The longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// After how many seconds a client may try again where there are too many tasks.
const FULL_RETRY_SECONDS: u64 = 10;

/// A task and what became of it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TaskDocument {
    /// Its identifier.
    id: String,
    /// What was asked for.
    #[serde(flatten)]
    spec: TaskSpec,
    /// When it was posted.
    created_at: String,
    /// Where it stands.
    state: TaskState,
    /// How it ended; null until it is completed.
    outcome: Option<Outcome>,
    /// Why it ended so, or is to stop, where no result says it.
    reason: Option<String>,
    /// Its attempts, by number.
    attempts: Vec<AttemptDocument>,
    /// The report of the test or of the clone, with its `schema`.
    result: Option<Value>,
    /// When it ended.
    completed_at: Option<String>,
}

/// An attempt of a task.
#[derive(Debug, Serialize, JsonSchema)]
struct AttemptDocument {
    /// Its number, from 1.
    number: u32,
    /// The agent's name at that time.
    agent: String,
    /// The agent's identifier.
    agent_id: String,
    /// When it was offered.
    offered_at: String,
    /// When it started.
    started_at: Option<String>,
    /// When it ended.
    ended_at: Option<String>,
    /// How it ended.
    outcome: Option<Outcome>,
    /// The diagnosis.
    diagnosis: Option<Diagnosis>,
    /// Why it ended, where no result says it.
    reason: Option<String>,
}

/// One page of tasks.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct TaskList {
    /// The newest first.
    tasks: Vec<TaskDocument>,
    /// The `cursor` of the next page; null on the last one.
    next: Option<String>,
}

/// Where a task stands and why.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ExplanationDocument {
    /// The task.
    task_id: String,
    /// Where it stands.
    state: TaskState,
    /// How long ago it was posted, in seconds; null where it is completed.
    waiting_seconds: Option<u64>,
    /// One entry for each registered agent; none where it is completed.
    agents: Vec<VerdictDocument>,
    /// All of it in one sentence.
    summary: String,
}

/// What speaks for or against an agent.
#[derive(Debug, Serialize, JsonSchema)]
struct VerdictDocument {
    /// The agent's identifier.
    agent: String,
    /// The agent's name.
    name: String,
    /// Whether it could be given the task now, or has it.
    eligible: bool,
    /// Why not; or what it does with the task.
    reasons: Vec<String>,
}

/// The parameters of `GET /api/v1/tasks`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListParameters {
    /// Only tasks in this state.
    state: Option<TaskState>,
    /// Only tasks with this outcome.
    outcome: Option<Outcome>,
    /// Only tasks of this kind.
    kind: Option<TaskKind>,
    /// Only tasks with this label, as `key:value`.
    label: Option<String>,
    /// How many, 50 where it is missing and 200 at most.
    limit: Option<u32>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// The parameters of `GET /api/v1/tasks/{id}`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WaitParameters {
    /// How long to wait for the task to be completed, such as `30s`, `500ms` or `30`; 60 s at most.
    wait: Option<String>,
}

impl TaskDocument {
    /// A task as it was posted just now.
    fn posted(id: String, spec: &TaskSpec, at: Millis) -> Self {
        Self {
            id,
            spec: spec.clone(),
            created_at: rfc3339(at),
            state: TaskState::Queued,
            outcome: None,
            reason: None,
            attempts: Vec::new(),
            result: None,
            completed_at: None,
        }
    }
}

impl From<TaskRecord> for TaskDocument {
    fn from(record: TaskRecord) -> Self {
        Self {
            id: record.id,
            spec: record.spec,
            created_at: rfc3339(record.created_at),
            state: record.state,
            outcome: record.outcome,
            reason: record.reason,
            attempts: record.attempts.into_iter().map(AttemptDocument::from).collect(),
            result: record.result,
            completed_at: record.completed_at.map(rfc3339),
        }
    }
}

impl From<AttemptRecord> for AttemptDocument {
    fn from(record: AttemptRecord) -> Self {
        Self {
            number: record.number,
            agent: record.agent_name,
            agent_id: record.agent_id,
            offered_at: rfc3339(record.offered_at),
            started_at: record.started_at.map(rfc3339),
            ended_at: record.ended_at.map(rfc3339),
            outcome: record.outcome,
            diagnosis: record.diagnosis,
            reason: record.reason,
        }
    }
}

pub(super) async fn post(
    caller: Caller<Dispatching>,
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Strict(spec): Strict<TaskSpec>,
) -> Result<Response, ApiError> {
    spec.validate().map_err(|error| {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", "A field is out of form")
            .detail(error.to_string())
    })?;
    let bytes = serde_json::to_string(&spec).map_err(|_| ApiError::internal())?;
    if bytes.len() > MAX_TASK_BYTES {
        return Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "task_too_large",
            "The task is too large",
        )
        .detail(format!("it has {} bytes as JSON and the limit is {MAX_TASK_BYTES}", bytes.len())));
    }
    let id = new_id("task")?;
    let key = idempotency_key(&headers)?.map(|key| IdempotencyKey {
        token_id: caller.token_id,
        key,
        // What the task means is compared, not how it was spelled.
        body_hash: sha256(bytes.as_bytes()),
        task_id: id.clone(),
    });
    let spec = Arc::new(spec);
    let task = NewTask { id: id.clone(), spec: Arc::clone(&spec), bytes: bytes.into(), key };
    let (status, document) = match app.engine.post(task).await? {
        // What is known of it needs no look into the store.
        Posting::Created(at) => (StatusCode::CREATED, TaskDocument::posted(id, &spec, at)),
        Posting::Repeated(first) => (StatusCode::OK, read(&app, &first).await?),
        Posting::KeyReused => {
            return Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "The Idempotency-Key was used for another task",
            )
            .detail("take a new key for a new task".to_owned()));
        }
        Posting::Full => {
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "queue_full",
                "Too many tasks are waiting",
            )
            .retry_after(FULL_RETRY_SECONDS));
        }
    };
    let location = format!("/api/v1/tasks/{}", document.id);
    Ok((status, [(LOCATION, location)], Json(document)).into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= MAX_KEY_BYTES);
    key.map(|key| Some(key.to_owned())).ok_or_else(|| {
        let detail = format!("`Idempotency-Key` has 1 to {MAX_KEY_BYTES} visible ASCII characters");
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_header", "A header is out of form").detail(detail)
    })
}

async fn read(app: &App, id: &str) -> Result<TaskDocument, ApiError> {
    app.store.task(id).await?.map(TaskDocument::from).ok_or_else(ApiError::task_not_found)
}

pub(super) async fn list(
    _: Caller<Viewing>,
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<TaskList>, ApiError> {
    let limit = parameters.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::invalid_parameter(format!("`limit` is between 1 and {MAX_PAGE}")));
    }
    let label = parameters.label.as_deref().map(|label| {
        let pair = label.split_once(':').map(|(key, value)| (key.to_owned(), value.to_owned()));
        pair.ok_or_else(|| ApiError::invalid_parameter("`label` is key:value".to_owned()))
    });
    let before = parameters.cursor.as_deref().map(|cursor| {
        let parsed = cursor.parse::<i64>();
        parsed.map_err(|_| ApiError::invalid_parameter("`cursor` is `next` of the page before".to_owned()))
    });
    let filter = TaskFilter {
        state: parameters.state,
        outcome: parameters.outcome,
        kind: parameters.kind,
        label: label.transpose()?,
        before: before.transpose()?,
        // One more than is shown tells whether there is another page.
        limit: limit + 1,
    };
    let place = timeout(app.times.list_wait, app.lists.acquire()).await.map_err(|_| ApiError::busy())?;
    let mut records = app.store.tasks(&filter).await?;
    drop(place);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| has_more).map(|last| last.seq.to_string());
    Ok(Json(TaskList { tasks: records.into_iter().map(TaskDocument::from).collect(), next }))
}

pub(super) async fn one(
    _: Caller<Viewing>,
    State(app): State<Arc<App>>,
    Id(id): Id,
    Parameters(parameters): Parameters<WaitParameters>,
) -> Result<Json<TaskDocument>, ApiError> {
    let wait = match parameters.wait.as_deref() {
        None => Duration::ZERO,
        Some(text) => parse_wait(text).ok_or_else(|| {
            ApiError::invalid_parameter("`wait` is a time such as 30s, 500ms or 30".to_owned())
        })?,
    };
    // Listening begins before the first look, so that no completion falls in between.
    let mut events = app.engine.watch();
    let deadline = Instant::now() + wait.min(app.times.longest_wait);
    loop {
        let document = read(&app, &id).await?;
        if document.state == TaskState::Completed || Instant::now() >= deadline {
            return Ok(Json(document));
        }
        tokio::select! {
            completed = timeout_at(deadline, completion(&mut events, &id)) => {
                if completed.is_err() {
                    return read(&app, &id).await.map(Json);
                }
            }
            () = app.stop.cancelled() => return Ok(Json(document)),
        }
    }
}

/// Returns when the task may have been completed.
async fn completion(events: &mut tokio::sync::broadcast::Receiver<crate::engine::TaskEvent>, id: &str) {
    loop {
        match events.recv().await {
            Ok(event) if &*event.task_id != id => {}
            Ok(event) if matches!(event.change, TaskChange::State(TaskState::Completed, _)) => return,
            Ok(_) => {}
            // Events were missed; the store knows.
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Reads `30s`, `500ms`, `2m` or `30`.
fn parse_wait(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "" | "s" => Some(Duration::from_secs(number)),
        "ms" => Some(Duration::from_millis(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

pub(super) async fn cancel(
    _: Caller<Dispatching>,
    State(app): State<Arc<App>>,
    Id(id): Id,
) -> Result<(StatusCode, Json<TaskDocument>), ApiError> {
    read(&app, &id).await?;
    app.engine.cancel(id.clone(), "a client of the control plane cancelled it".to_owned()).await?;
    let document = read(&app, &id).await?;
    let is_over = document.state == TaskState::Completed;
    Ok((if is_over { StatusCode::OK } else { StatusCode::ACCEPTED }, Json(document)))
}

pub(super) async fn explain(
    _: Caller<Viewing>,
    State(app): State<Arc<App>>,
    Id(id): Id,
) -> Result<Json<ExplanationDocument>, ApiError> {
    let candidates = app.store.agents().await?.iter().map(|agent| agent.candidate()).collect();
    if let Some(live) = app.engine.explain(id.clone(), candidates).await? {
        let verdicts = live.agents.into_iter().map(|it| VerdictDocument {
            agent: it.agent_id,
            name: it.name,
            eligible: it.eligible,
            reasons: it.reasons,
        });
        return Ok(Json(ExplanationDocument {
            task_id: id,
            state: live.state,
            waiting_seconds: Some(live.waiting.as_secs()),
            agents: verdicts.collect(),
            summary: live.summary,
        }));
    }
    let task = read(&app, &id).await?;
    let outcome = task.outcome.map(|it| format!("{it:?}").to_lowercase()).unwrap_or_default();
    let why = task.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Ok(Json(ExplanationDocument {
        task_id: id,
        state: task.state,
        waiting_seconds: None,
        agents: Vec::new(),
        summary: format!("it is completed with the outcome {outcome}{why}"),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_in_their_units() {
        assert_eq!(parse_wait("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_wait("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_wait("30"), Some(Duration::from_secs(30)));
        for bad in ["", "s", "-1s", "1.5s", "30 s", "1h", "99999999999999999999s"] {
            assert_eq!(parse_wait(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_500), "1970-01-01T00:00:01.5Z");
    }
}
