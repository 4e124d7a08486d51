//! The examples in `docs/protocol.md` are the golden files, so that the manual cannot fall behind the code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use serde_json::Value;
use sortie_protocol::frame::Message as _;
use sortie_protocol::{AgentMessage, ControlMessage};

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The blocks of JSON in the manual.
fn blocks(manual: &str) -> Vec<Value> {
    let starts = manual.split("```json\n").skip(1);
    let blocks = starts.map(|rest| rest.split("\n```").next().unwrap());
    blocks
        .map(|block| serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}: {block}")))
        .collect()
}

#[test]
fn every_example_in_the_manual_is_a_golden_file() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let golden: Vec<Value> = files.map(|path| serde_json::from_str(&read(path)).unwrap()).collect();
    for block in blocks(&read("../../docs/protocol.md")) {
        assert!(golden.contains(&block), "no golden file has the example {block:#}");
    }
}

#[test]
fn the_manual_shows_every_type_of_message() {
    let manual = read("../../docs/protocol.md");
    let blocks = blocks(&manual);
    for name in AgentMessage::TYPES.iter().chain(ControlMessage::TYPES) {
        assert!(blocks.iter().any(|block| block["type"] == **name), "there is no example of `{name}`");
    }
    // Numbers of the manual that the code has as constants.
    for (words, holds) in [
        ("| message | 1 MiB", sortie_protocol::frame::MAX_MESSAGE_BYTES == 1024 * 1024),
        ("| WebSocket frame | 256 KiB", sortie_protocol::frame::MAX_FRAME_BYTES == 256 * 1024),
        ("| nesting of objects and arrays | 32", sortie_protocol::frame::MAX_DEPTH == 32),
    ] {
        assert!(holds && manual.contains(words), "{words}");
    }
}
