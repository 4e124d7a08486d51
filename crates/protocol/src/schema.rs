//! The JSON Schema of everything that travels, generated from the types.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::artifact::{Artifact, ArtifactCompletion, ArtifactProof, ArtifactRequest, ArtifactUpload};
use crate::identity::{EnrollRequest, EnrollResponse, Problem, UnenrollRequest};
use crate::message::{AgentMessage, Challenge, ControlMessage};
use crate::polling::{PollBatch, PollOpened, PollReceive, PollSend, PollSent};
use crate::report::TaskOutput;
use crate::task::TaskSpec;

/// The schema as it is checked in at `schema/sortie.v1.json`.
///
/// Its root names each document; everything else is in `$defs`.
pub fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let properties = json!({
        "agent_message": generator.subschema_for::<AgentMessage>(),
        "control_message": generator.subschema_for::<ControlMessage>(),
        "task": generator.subschema_for::<TaskSpec>(),
        "result": generator.subschema_for::<TaskOutput>(),
        "challenge": generator.subschema_for::<Challenge>(),
        "enroll_request": generator.subschema_for::<EnrollRequest>(),
        "enroll_response": generator.subschema_for::<EnrollResponse>(),
        "unenroll_request": generator.subschema_for::<UnenrollRequest>(),
        "artifact_proof": generator.subschema_for::<ArtifactProof>(),
        "artifact_request": generator.subschema_for::<ArtifactRequest>(),
        "artifact_upload": generator.subschema_for::<ArtifactUpload>(),
        "artifact_completion": generator.subschema_for::<ArtifactCompletion>(),
        "artifact": generator.subschema_for::<Artifact>(),
        "poll_opened": generator.subschema_for::<PollOpened>(),
        "poll_send": generator.subschema_for::<PollSend>(),
        "poll_sent": generator.subschema_for::<PollSent>(),
        "poll_receive": generator.subschema_for::<PollReceive>(),
        "poll_batch": generator.subschema_for::<PollBatch>(),
        "problem": generator.subschema_for::<Problem>(),
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:sortie:protocol:sortie.v1",
        "title": "Sortie, the documents of sortie.v1",
        "type": "object",
        "properties": properties,
        "$defs": generator.take_definitions(true),
    })
}
