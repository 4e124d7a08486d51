//! One example of everything that travels. Each is decoded, encoded again, and held to the schema.
//!
//! The files are part of the published protocol: an author of another control plane can test against them.
//! Their names are `agent.TYPE`, `control.TYPE` and `document.PROPERTY`, where a property is one of the
//! schema's root; a further part of a name tells variants apart.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sortie_protocol::artifact::{
    Artifact, ArtifactCompletion, ArtifactProof, ArtifactRequest, ArtifactUpload,
};
use sortie_protocol::frame::Message;
use sortie_protocol::identity::{
    EnrollRequest, EnrollResponse, Problem, UnenrollRequest, enroll_payload, hello_payload, unenroll_payload,
};
use sortie_protocol::message::{Challenge, ProtocolError};
use sortie_protocol::polling::{PollBatch, PollOpened, PollReceive, PollSend, PollSent};
use sortie_protocol::report::TaskOutput;
use sortie_protocol::task::TaskSpec;
use sortie_protocol::{AgentMessage, ControlMessage, FrameError, decode, encode};

/// Every golden file by its name without `.json`.
fn golden() -> BTreeMap<String, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let files = files.map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(&path).unwrap())
    });
    files.collect()
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// The set and the type or property of a golden file: `control.welcome.resumed` is (`control`, `welcome`).
fn named(name: &str) -> (&str, &str) {
    let mut parts = name.split('.');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Decodes and encodes a message of a set; the two must say the same.
fn round_trip<M: Message>(name: &str, text: &str) {
    let message: M = decode(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(value(&encode(&message).unwrap()), value(text), "{name}");
    assert_eq!(value(text)["type"], named(name).1, "{name}");
}

/// The same for a document, which has no `type` that tells what it is.
fn document_round_trip<T: Serialize + DeserializeOwned>(name: &str, text: &str) {
    let document: T = serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(serde_json::to_value(&document).unwrap(), value(text), "{name}");
}

#[test]
fn every_example_survives_decoding_and_encoding() {
    for (name, text) in golden() {
        match named(&name) {
            ("agent", _) => round_trip::<AgentMessage>(&name, &text),
            ("control", _) => round_trip::<ControlMessage>(&name, &text),
            ("document", "task") => {
                document_round_trip::<TaskSpec>(&name, &text);
                serde_json::from_str::<TaskSpec>(&text).unwrap().validate().unwrap();
            }
            ("document", "result") => document_round_trip::<TaskOutput>(&name, &text),
            ("document", "challenge") => document_round_trip::<Challenge>(&name, &text),
            ("document", "enroll_request") => document_round_trip::<EnrollRequest>(&name, &text),
            ("document", "enroll_response") => document_round_trip::<EnrollResponse>(&name, &text),
            ("document", "unenroll_request") => document_round_trip::<UnenrollRequest>(&name, &text),
            ("document", "artifact_proof") => document_round_trip::<ArtifactProof>(&name, &text),
            ("document", "artifact_request") => document_round_trip::<ArtifactRequest>(&name, &text),
            ("document", "artifact_upload") => document_round_trip::<ArtifactUpload>(&name, &text),
            ("document", "artifact_completion") => document_round_trip::<ArtifactCompletion>(&name, &text),
            ("document", "artifact") => document_round_trip::<Artifact>(&name, &text),
            ("document", "poll_opened") => document_round_trip::<PollOpened>(&name, &text),
            ("document", "poll_send") => document_round_trip::<PollSend>(&name, &text),
            ("document", "poll_sent") => document_round_trip::<PollSent>(&name, &text),
            ("document", "poll_receive") => document_round_trip::<PollReceive>(&name, &text),
            ("document", "poll_batch") => document_round_trip::<PollBatch>(&name, &text),
            ("document", "problem") => document_round_trip::<Problem>(&name, &text),
            _ => panic!("{name} is an example of nothing"),
        }
    }
}

#[test]
fn every_example_satisfies_the_schema() {
    let schema = jsonschema::validator_for(&sortie_protocol::schema::document()).unwrap();
    for (name, text) in golden() {
        let property = match named(&name) {
            ("document", property) => property.to_owned(),
            (set, _) => format!("{set}_message"),
        };
        let wrapped = json!({ property: value(&text) });
        let errors: Vec<_> = schema.iter_errors(&wrapped).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
    // A schema that takes anything would pass all of the above.
    assert!(!schema.is_valid(&json!({ "agent_message": { "type": "credit" } })));
    assert!(!schema.is_valid(&json!({ "control_message": { "type": "fly" } })));
    assert!(!schema.is_valid(&json!({ "task": { "kind": "connection_test" } })));
}

#[test]
fn nothing_that_travels_lacks_an_example() {
    let golden = golden();
    let have: BTreeSet<_> = golden.keys().map(|name| named(name)).collect();
    let messages =
        |set: &'static str, types: &'static [&'static str]| types.iter().map(move |name| (set, *name));
    let schema = sortie_protocol::schema::document();
    let documents = schema["properties"].as_object().unwrap().keys();
    let documents =
        documents.filter(|name| !name.ends_with("_message")).map(|name| ("document", name.as_str()));
    let expected: BTreeSet<_> = messages("agent", AgentMessage::TYPES)
        .chain(messages("control", ControlMessage::TYPES))
        .chain(documents)
        .collect();
    assert_eq!(have, expected);
}

/// `TYPES` is written by hand; the schema is not.
#[test]
fn the_lists_of_types_are_those_of_the_enums() {
    let schema = sortie_protocol::schema::document();
    for (definition, types) in
        [("AgentMessage", AgentMessage::TYPES), ("ControlMessage", ControlMessage::TYPES)]
    {
        let variants = schema["$defs"][definition]["oneOf"].as_array().unwrap();
        let variants: BTreeSet<_> =
            variants.iter().map(|variant| variant["properties"]["type"]["const"].as_str().unwrap()).collect();
        assert_eq!(variants, types.iter().copied().collect(), "{definition}");
    }
}

#[test]
fn fields_from_the_future_are_ignored_everywhere() {
    for (name, text) in golden() {
        let mut extended = value(&text);
        add_to_every_object(&mut extended);
        let extended = extended.to_string();
        let same = match named(&name) {
            ("agent", _) => decode::<AgentMessage>(&extended) == decode(&text),
            ("control", _) => decode::<ControlMessage>(&extended) == decode(&text),
            ("document", "task") => {
                let task: TaskSpec = serde_json::from_str(&extended).unwrap();
                task == serde_json::from_str(&text).unwrap()
            }
            _ => continue,
        };
        assert!(same, "{name}");
    }
}

/// Facts and labels are open by nature: everything in them is kept.
fn add_to_every_object(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let open = ["facts", "labels"];
            fields
                .iter_mut()
                .filter(|(key, _)| !open.contains(&key.as_str()))
                .for_each(|(_, it)| add_to_every_object(it));
            fields.insert("from_the_future".to_owned(), json!({ "nested": [1] }));
        }
        Value::Array(items) => items.iter_mut().for_each(add_to_every_object),
        _ => {}
    }
}

#[test]
fn an_unknown_type_has_an_answer() {
    let error = decode::<AgentMessage>(r#"{"type":"fly","height_m":3}"#).unwrap_err();
    assert_eq!(error, FrameError::UnknownType { name: "fly".to_owned() });
    let answer = ControlMessage::Error(ProtocolError::from(&error));
    let golden = golden();
    assert_eq!(value(&encode(&answer).unwrap())["code"], value(&golden["agent.error"])["code"]);
    // One direction's types are not the other's.
    for name in golden
        .keys()
        .filter(|name| matches!(named(name), ("agent", kind) if !ControlMessage::TYPES.contains(&kind)))
    {
        let crossed = decode::<ControlMessage>(&golden[name]);
        assert!(matches!(crossed, Err(FrameError::UnknownType { .. })), "{name}");
    }
}

/// The examples hang together, so that they are test vectors for what is signed.
#[test]
fn the_signatures_of_the_examples_are_true() {
    let golden = golden();
    let enroll: EnrollRequest = serde_json::from_str(&golden["document.enroll_request"]).unwrap();
    let unenroll: UnenrollRequest = serde_json::from_str(&golden["document.unenroll_request"]).unwrap();
    let AgentMessage::Hello(hello) = decode(&golden["agent.hello"]).unwrap() else { panic!("no hello") };
    let ControlMessage::Challenge(challenge) = decode(&golden["control.challenge"]).unwrap() else {
        panic!("no challenge")
    };
    let key = STANDARD.decode(&enroll.public_key).unwrap();
    let verify = |payload: &[u8], signature: &str| {
        let signature = STANDARD.decode(signature).unwrap();
        UnparsedPublicKey::new(&ED25519, &key).verify(payload, &signature).unwrap();
    };
    let Challenge { session, nonce } = &challenge;
    let proof: ArtifactProof = serde_json::from_str(&golden["document.artifact_proof"]).unwrap();
    let request: ArtifactRequest = serde_json::from_str(&golden["document.artifact_request"]).unwrap();
    let body = serde_json::to_vec(&request).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &body);
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(proof.body_sha256, hex);
    verify(&proof.payload("POST", sortie_protocol::ARTIFACTS_PATH), &proof.signature);
    verify(&enroll_payload(&enroll.origin, &enroll.token, &enroll.public_key), &enroll.signature);
    verify(&hello_payload(&hello.origin, session, nonce, &hello.agent_id), &hello.signature);
    verify(&unenroll_payload(&unenroll.origin, session, nonce, &unenroll.agent_id), &unenroll.signature);
    assert_eq!(
        hello_payload(&hello.origin, session, nonce, &hello.agent_id),
        b"sortie.v1 hello\n\
          26:https://sortie.example.com\n\
          32:session_3f0c2a9be4d1780c55aa21ef\n\
          44:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\
          30:agent_8d41c07e92b5a3f6104cde77\n"
    );
}
