//! The OpenAPI document: laid out here, with the schemas of the very types that travel.
//!
//! It is checked in as `openapi.json`; a test holds the file and the router to it.

mod operation;

use axum::Json;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};
use sortie_protocol::artifact::{
    Artifact, ArtifactCompletion, ArtifactRequest, ArtifactUpload, PROOF_HEADER,
};
use sortie_protocol::identity::{EnrollRequest, EnrollResponse, Problem, UnenrollRequest};
use sortie_protocol::message::Challenge;
use sortie_protocol::polling::{PollBatch, PollOpened, PollReceive, PollSend, PollSent};
use sortie_protocol::report::TaskOutput;
use sortie_protocol::task::TaskSpec;

use super::agents::{AgentDocument, AgentList};
use super::artifacts::{ArtifactDocument, ArtifactList, ArtifactParameters};
use super::health::Health;
use super::tasks::{ExplanationDocument, ListParameters, TaskDocument, TaskList, WaitParameters};
use super::tokens::{CreatedEnrollmentToken, NewEnrollmentToken};
use operation::{Access, Operation};

pub(super) async fn serve() -> Json<Value> {
    Json(document())
}

/// The whole document.
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut schemas = settings.into_generator();
    let problem = schemas.subschema_for::<Problem>().to_value();
    let mut paths: Map<String, Value> = Map::new();
    let groups = [
        process_operations(&mut schemas),
        token_and_agent_operations(&mut schemas),
        task_operations(&mut schemas),
        artifact_operations(&mut schemas),
        protocol_operations(&mut schemas),
        upload_operations(&mut schemas),
        poll_operations(&mut schemas),
    ];
    for operation in groups.into_iter().flatten() {
        let methods = paths.entry(operation.path).or_insert_with(|| json!({}));
        methods[operation.method] = operation.value(&problem);
    }
    // The forms of `result` stand on their own: a task's field takes any of them.
    schemas.subschema_for::<TaskOutput>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sortie control plane",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `sortie-control token create`.",
                },
            },
        },
    })
}

fn process_operations(schemas: &mut SchemaGenerator) -> Vec<Operation> {
    let health = schemas.subschema_for::<Health>().to_value();
    vec![
        Operation::new("get", "/healthz", "healthz", "Whether the process lives", Access::Anyone).answer(
            200,
            "It does.",
            health.clone(),
        ),
        Operation::new(
            "get",
            "/readyz",
            "readyz",
            "Whether the store answers and tasks are served",
            Access::Anyone,
        )
        .answer(200, "They are.", health),
        Operation::new("get", "/api/v1/openapi.json", "openapi", "This document", Access::Anyone).answer(
            200,
            "OpenAPI 3.1.",
            json!({ "type": "object" }),
        ),
    ]
}

fn token_and_agent_operations(schemas: &mut SchemaGenerator) -> Vec<Operation> {
    let agent = schemas.subschema_for::<AgentDocument>().to_value();
    let agents = schemas.subschema_for::<AgentList>().to_value();
    let of_agent = |method, path, id, summary, access| {
        Operation::new(method, path, id, summary, access).answer(200, "The agent.", agent.clone())
    };
    vec![
        Operation::new(
            "post",
            "/api/v1/enrollment-tokens",
            "createEnrollmentToken",
            "Make a token that enrolls agents",
            Access::Admin,
        )
        .body(schemas.subschema_for::<NewEnrollmentToken>().to_value())
        .answer(
            201,
            "The token; shown once.",
            schemas.subschema_for::<CreatedEnrollmentToken>().to_value(),
        ),
        Operation::new("get", "/api/v1/agents", "listAgents", "All registered agents", Access::Viewer)
            .answer(200, "By name.", agents),
        of_agent("get", "/api/v1/agents/{id}", "getAgent", "One agent", Access::Viewer),
        Operation::new(
            "delete",
            "/api/v1/agents/{id}",
            "revokeAgent",
            "Revoke an agent and end its session",
            Access::Admin,
        )
        .empty(204, "It is revoked."),
        of_agent(
            "post",
            "/api/v1/agents/{id}/pause",
            "pauseAgent",
            "Give an agent no offers until it is resumed",
            Access::Admin,
        ),
        of_agent(
            "post",
            "/api/v1/agents/{id}/resume",
            "resumeAgent",
            "Give an agent offers again",
            Access::Admin,
        ),
        of_agent(
            "post",
            "/api/v1/agents/{id}/drain",
            "drainAgent",
            "Let an agent finish what it has and give it nothing more",
            Access::Admin,
        ),
    ]
}

fn task_operations(schemas: &mut SchemaGenerator) -> Vec<Operation> {
    let task = schemas.subschema_for::<TaskDocument>().to_value();
    let list = schemas.root_schema_for::<ListParameters>().to_value();
    let wait = schemas.root_schema_for::<WaitParameters>().to_value();
    vec![
        Operation::new("post", "/api/v1/tasks", "postTask", "Post a task", Access::Dispatcher)
            .header("Idempotency-Key", "Makes a repetition return the first task.")
            .body(schemas.subschema_for::<TaskSpec>().to_value())
            .answer(201, "The task; it is durable.", task.clone())
            .answer(200, "The task that the same Idempotency-Key made before.", task.clone()),
        Operation::new("get", "/api/v1/tasks", "listTasks", "Tasks, the newest first", Access::Viewer)
            .query(list)
            .answer(200, "One page.", schemas.subschema_for::<TaskList>().to_value()),
        Operation::new(
            "get",
            "/api/v1/tasks/{id}",
            "getTask",
            "One task, at once or when it is completed",
            Access::Viewer,
        )
        .query(wait)
        .answer(200, "The task.", task.clone()),
        Operation::new("post", "/api/v1/tasks/{id}/cancel", "cancelTask", "Stop a task", Access::Dispatcher)
            .answer(200, "The task is completed.", task.clone())
            .answer(202, "Its agent was told to stop.", task),
        Operation::new(
            "get",
            "/api/v1/tasks/{id}/explain",
            "explainTask",
            "Why a task is where it is, agent by agent",
            Access::Viewer,
        )
        .answer(200, "The explanation.", schemas.subschema_for::<ExplanationDocument>().to_value()),
        Operation::new(
            "get",
            "/api/v1/tasks/{id}/events",
            "watchTask",
            "What happens to a task: `state` and `progress` events, until it is completed",
            Access::Viewer,
        )
        .answer(200, "Server-sent events.", json!({ "type": "string" })),
    ]
}

fn artifact_operations(schemas: &mut SchemaGenerator) -> Vec<Operation> {
    let bytes = json!({ "type": "string", "format": "binary" });
    vec![
        Operation::new(
            "get",
            "/api/v1/artifacts",
            "listArtifacts",
            "What agents delivered, the newest first",
            Access::Viewer,
        )
        .query(schemas.root_schema_for::<ArtifactParameters>().to_value())
        .answer(200, "One page.", schemas.subschema_for::<ArtifactList>().to_value()),
        Operation::new("get", "/api/v1/artifacts/{id}", "getArtifact", "What an artifact is", Access::Viewer)
            .answer(200, "The artifact.", schemas.subschema_for::<ArtifactDocument>().to_value()),
        Operation::new(
            "delete",
            "/api/v1/artifacts/{id}",
            "deleteArtifact",
            "Remove an artifact before it expires",
            Access::Dispatcher,
        )
        .empty(204, "It is removed."),
        Operation::new(
            "get",
            "/api/v1/artifacts/{id}/content",
            "readArtifact",
            "An artifact's bytes, all or a range",
            Access::Viewer,
        )
        .header("Range", "One range of bytes.")
        .header("If-Range", "The `ETag` of what the client has a part of.")
        .answer(200, "All of it.", bytes.clone())
        .answer(206, "The range.", bytes)
        .empty(416, "There are no such bytes; `Content-Range` says how many there are."),
    ]
}

fn upload_operations(schemas: &mut SchemaGenerator) -> Vec<Operation> {
    let upload = schemas.subschema_for::<ArtifactUpload>().to_value();
    let proven = |method, path, id, summary| {
        Operation::new(method, path, id, summary, Access::Anyone)
            .header(PROOF_HEADER, "An `artifact_proof` of the protocol, as JSON; it is required.")
    };
    vec![
        proven("post", sortie_protocol::ARTIFACTS_PATH, "beginUpload", "Begin an upload, or find it again")
            .body(schemas.subschema_for::<ArtifactRequest>().to_value())
            .answer(201, "It has begun.", upload.clone())
            .answer(200, "It began before.", upload.clone()),
        proven("get", super::UPLOAD_ROUTE, "getUpload", "Which parts are there").answer(
            200,
            "Where it stands.",
            upload,
        ),
        proven("delete", super::UPLOAD_ROUTE, "dropUpload", "Give an upload up").empty(204, "It is dropped."),
        proven("put", super::PART_ROUTE, "putPart", "Send a part")
            .body(json!({ "type": "string", "format": "binary" }))
            .empty(204, "It is durable."),
        proven("post", super::COMPLETE_ROUTE, "completeUpload", "End an upload")
            .body(schemas.subschema_for::<ArtifactCompletion>().to_value())
            .answer(200, "The artifact.", schemas.subschema_for::<Artifact>().to_value()),
    ]
}

fn poll_operations(schemas: &mut SchemaGenerator) -> Vec<Operation> {
    // Each takes the poll session's own token as a `Bearer`; OpenAPI has no header parameter of that name.
    let of_session = |method, path, id, summary| Operation::new(method, path, id, summary, Access::Anyone);
    vec![
        Operation::new(
            "post",
            sortie_protocol::POLL_PATH,
            "openPoll",
            "Open a session that is polled, where no WebSocket passes",
            Access::Anyone,
        )
        .answer(201, "It begins with a challenge.", schemas.subschema_for::<PollOpened>().to_value()),
        of_session("post", super::POLL_SEND_ROUTE, "sendPoll", "Send messages of an agent, with its token")
            .body(schemas.subschema_for::<PollSend>().to_value())
            .answer(200, "What arrived.", schemas.subschema_for::<PollSent>().to_value()),
        of_session(
            "post",
            super::POLL_RECEIVE_ROUTE,
            "receivePoll",
            "Wait for messages to an agent, with its token",
        )
        .body(schemas.subschema_for::<PollReceive>().to_value())
        .answer(200, "The messages.", schemas.subschema_for::<PollBatch>().to_value()),
        of_session("delete", super::POLL_ROUTE, "closePoll", "End a session that is polled, with its token")
            .empty(204, "It ends."),
    ]
}

fn protocol_operations(schemas: &mut SchemaGenerator) -> Vec<Operation> {
    vec![
        Operation::new(
            "get",
            sortie_protocol::WEBSOCKET_PATH,
            "openSession",
            "The agents' WebSocket, with the subprotocol sortie.v1",
            Access::Anyone,
        )
        .empty(101, "The session begins with a challenge."),
        Operation::new(
            "post",
            sortie_protocol::ENROLL_PATH,
            "enroll",
            "Trade an enrollment token for a registered key",
            Access::Anyone,
        )
        .body(schemas.subschema_for::<EnrollRequest>().to_value())
        .answer(
            201,
            "The agent is registered.",
            schemas.subschema_for::<EnrollResponse>().to_value(),
        ),
        Operation::new(
            "post",
            sortie_protocol::CHALLENGE_PATH,
            "challenge",
            "A challenge to be answered outside of a session",
            Access::Anyone,
        )
        .answer(200, "The challenge.", schemas.subschema_for::<Challenge>().to_value()),
        Operation::new(
            "post",
            sortie_protocol::UNENROLL_PATH,
            "unenroll",
            "Give a registration back",
            Access::Anyone,
        )
        .body(schemas.subschema_for::<UnenrollRequest>().to_value())
        .empty(204, "The agent is not registered any more."),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// `SORTIE_UPDATE_OPENAPI=1 cargo test -p sortie-control openapi` writes the file anew.
    #[test]
    fn the_file_is_what_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let served = format!("{:#}\n", document());
        if std::env::var_os("SORTIE_UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &served).unwrap();
        }
        let file = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            file == served,
            "openapi.json is stale; write it with: \
             SORTIE_UPDATE_OPENAPI=1 cargo test -p sortie-control openapi"
        );
    }

    #[test]
    fn every_route_is_in_the_document_and_no_other() {
        let routed: BTreeSet<String> = super::super::routes()
            .seen
            .iter()
            .map(|(method, path)| format!("{} {path}", method.as_str().to_lowercase()))
            .collect();
        let document = document();
        let described: BTreeSet<String> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
            })
            .collect();
        assert_eq!(routed, described);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
        }
        assert!(text.contains("sortie.report.v1"));
    }
}
