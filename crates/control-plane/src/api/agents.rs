//! Registered agents.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use sortie_protocol::AttemptId;

use super::App;
use super::auth::{Administering, Caller, Viewing};
use super::body::Id;
use super::problem::ApiError;
use super::rfc3339;
use crate::dispatch::Mode;
use crate::engine::ConnectedAgent;
use crate::store::AgentRecord;

/// Where an agent stands.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum AgentState {
    /// It is connected and gets offers.
    Connected,
    /// It is not connected.
    Disconnected,
    /// It is connected and gets no offers until it is resumed.
    Paused,
    /// It is connected, finishes what it has, and gets nothing more.
    Draining,
}

/// A registered agent.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AgentDocument {
    /// Its identifier.
    id: String,
    /// Its name.
    name: String,
    /// Every tag that it carries, the implicit ones included.
    tags: Vec<String>,
    /// Where it stands.
    state: AgentState,
    /// What an administrator decided, connected or not.
    mode: Mode,
    /// The version of its program.
    version: String,
    /// Its operating system.
    os: String,
    /// Its architecture.
    arch: String,
    /// How many attempts it runs at once; 0 before its first connection.
    max_tasks: u32,
    /// How many more it takes now.
    free_slots: u32,
    /// The attempts that it holds.
    attempts: Vec<AttemptId>,
    /// When it enrolled.
    enrolled_at: String,
    /// Since when it is connected.
    connected_at: Option<String>,
    /// When it last connected or went.
    last_seen_at: Option<String>,
}

/// All agents.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct AgentList {
    /// By name.
    agents: Vec<AgentDocument>,
}

fn document(record: AgentRecord, connected: Option<ConnectedAgent>) -> AgentDocument {
    let state = match (&connected, record.mode) {
        (None, _) => AgentState::Disconnected,
        (Some(_), Mode::Draining) => AgentState::Draining,
        (Some(agent), _) if agent.view.draining => AgentState::Draining,
        (Some(_), Mode::Paused) => AgentState::Paused,
        (Some(_), Mode::Active) => AgentState::Connected,
    };
    AgentDocument {
        tags: record.candidate().tags.into_iter().collect(),
        state,
        mode: record.mode,
        free_slots: connected.as_ref().map_or(0, |it| it.view.free_slots),
        attempts: connected.as_ref().map(|it| it.view.attempts.clone()).unwrap_or_default(),
        connected_at: connected.map(|it| rfc3339(it.connected_at)),
        enrolled_at: rfc3339(record.created_at),
        last_seen_at: record.last_seen_at.map(rfc3339),
        id: record.id,
        name: record.name,
        version: record.version,
        os: record.os,
        arch: record.arch,
        max_tasks: record.max_tasks,
    }
}

pub(super) async fn list(
    _: Caller<Viewing>,
    State(app): State<Arc<App>>,
) -> Result<Json<AgentList>, ApiError> {
    let records = app.store.agents().await?;
    let ids = records.iter().map(|record| record.id.clone()).collect();
    let mut connected: HashMap<_, _> = app.engine.agents(ids).await?;
    let agents = records.into_iter().map(|record| {
        let connection = connected.remove(&record.id);
        document(record, connection)
    });
    Ok(Json(AgentList { agents: agents.collect() }))
}

pub(super) async fn one(
    _: Caller<Viewing>,
    State(app): State<Arc<App>>,
    Id(id): Id,
) -> Result<Json<AgentDocument>, ApiError> {
    show(&app, &id).await
}

async fn show(app: &App, id: &str) -> Result<Json<AgentDocument>, ApiError> {
    let record = app.store.agent(id).await?.ok_or_else(ApiError::agent_not_found)?;
    let connection = app.engine.agents(vec![record.id.clone()]).await?.remove(&record.id);
    Ok(Json(document(record, connection)))
}

pub(super) async fn delete(
    _: Caller<Administering>,
    State(app): State<Arc<App>>,
    Id(id): Id,
) -> Result<StatusCode, ApiError> {
    let record = app.store.agent(&id).await?.ok_or_else(ApiError::agent_not_found)?;
    app.engine.revoke(record.id, "an administrator revoked the agent".to_owned()).await?;
    tracing::info!(agent.id = %id, agent.name = %record.name, "an agent was revoked");
    Ok(StatusCode::NO_CONTENT)
}

async fn set_mode(app: &App, id: &str, mode: Mode) -> Result<Json<AgentDocument>, ApiError> {
    app.store.agent(id).await?.ok_or_else(ApiError::agent_not_found)?;
    app.engine.set_mode(id.to_owned(), mode).await?;
    show(app, id).await
}

pub(super) async fn pause(
    _: Caller<Administering>,
    State(app): State<Arc<App>>,
    Id(id): Id,
) -> Result<Json<AgentDocument>, ApiError> {
    set_mode(&app, &id, Mode::Paused).await
}

pub(super) async fn resume(
    _: Caller<Administering>,
    State(app): State<Arc<App>>,
    Id(id): Id,
) -> Result<Json<AgentDocument>, ApiError> {
    set_mode(&app, &id, Mode::Active).await
}

pub(super) async fn drain(
    _: Caller<Administering>,
    State(app): State<Arc<App>>,
    Id(id): Id,
) -> Result<Json<AgentDocument>, ApiError> {
    set_mode(&app, &id, Mode::Draining).await
}
