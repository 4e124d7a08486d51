//! Encoding, decoding, and the limits that hold before a parser sees a byte.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest message, in bytes of UTF-8. Anything bulky travels as an artifact over HTTPS instead.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// The largest single WebSocket frame, in bytes. A message may span several.
pub const MAX_FRAME_BYTES: usize = 256 * 1024;

/// How deeply arrays and objects may nest in a message.
pub const MAX_DEPTH: usize = 32;

/// Why a frame was not understood, or not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is over [`MAX_MESSAGE_BYTES`].
    #[error("the message has {bytes} bytes, more than the limit of {MAX_MESSAGE_BYTES}")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
    },
    /// Arrays and objects nest deeper than [`MAX_DEPTH`].
    #[error("the message nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// The text is no JSON object with a string in `type`.
    #[error("the message is no JSON object with a `type`")]
    NotAMessage,
    /// The `type` is none of this version.
    #[error("the message type `{name}` is not known to {}", crate::SUBPROTOCOL)]
    UnknownType {
        /// The type as it stood in the message, shortened and without control characters.
        name: String,
    },
    /// The `type` is known and its fields are not as they must be.
    #[error("a message of type `{name}` is malformed: {problem}")]
    Malformed {
        /// The type of the message.
        name: String,
        /// What the decoder expected, in its own words.
        problem: String,
    },
}

impl FrameError {
    /// The code that goes into the `error` message that answers such a frame.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "message_too_large",
            Self::TooDeep => "message_too_deep",
            Self::NotAMessage => "not_a_message",
            Self::UnknownType { .. } => "unknown_type",
            Self::Malformed { .. } => "malformed",
        }
    }
}

/// A set of messages that share one direction; tells known types from unknown ones.
pub trait Message: Serialize + DeserializeOwned {
    /// The `type` of every message in the set.
    const TYPES: &'static [&'static str];
}

/// Encodes a message as one text frame.
///
/// # Errors
/// [`FrameError::TooLarge`] where the encoded message is over the limit: it is refused here, at its
/// source, because the peer would close the session over it.
pub fn encode<M: Message>(message: &M) -> Result<String, FrameError> {
    let text = serde_json::to_string(message)
        .map_err(|error| FrameError::Malformed { name: String::new(), problem: error.to_string() })?;
    if text.len() > MAX_MESSAGE_BYTES {
        return Err(FrameError::TooLarge { bytes: text.len() });
    }
    Ok(text)
}

/// Decodes one text frame. Unknown fields are ignored; an unknown type is an error of its own.
///
/// # Errors
/// Every way in which the text is not a message of the set, see [`FrameError`].
pub fn decode<M: Message>(text: &str) -> Result<M, FrameError> {
    if text.len() > MAX_MESSAGE_BYTES {
        return Err(FrameError::TooLarge { bytes: text.len() });
    }
    if depth(text) > MAX_DEPTH {
        return Err(FrameError::TooDeep);
    }
    let value: serde_json::Value = serde_json::from_str(text).map_err(|_| FrameError::NotAMessage)?;
    let Some(name) = value.get("type").and_then(|name| name.as_str()) else {
        return Err(FrameError::NotAMessage);
    };
    if !M::TYPES.contains(&name) {
        return Err(FrameError::UnknownType { name: shortened(name) });
    }
    let name = name.to_owned();
    serde_json::from_value(value)
        .map_err(|error| FrameError::Malformed { name, problem: shortened(&error.to_string()) })
}

/// The deepest nesting of brackets outside of strings. It is measured before parsing, so that a hostile
/// frame costs one pass over its bytes and no allocation.
fn depth(text: &str) -> usize {
    let (mut deepest, mut level, mut in_string, mut escaped) = (0_usize, 0_usize, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                level += 1;
                deepest = deepest.max(level);
            }
            b'}' | b']' => level = level.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// What a peer sent may be quoted in an answer or a log only in this form.
fn shortened(text: &str) -> String {
    const MAX_QUOTED_CHARS: usize = 200;
    text.chars().filter(|c| !c.is_control()).take(MAX_QUOTED_CHARS).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::message::{AgentMessage, ControlMessage};

    #[test]
    fn brackets_inside_strings_do_not_count_as_depth() {
        assert_eq!(depth(r#"{"a":"[[[[\"[["}"#), 1);
        assert_eq!(depth("[[{}]]"), 3);
    }

    #[test]
    fn frames_over_a_limit_are_refused_before_parsing() {
        let deep = format!(r#"{{"type":"hello","x":{}{}}}"#, "[".repeat(100), "]".repeat(100));
        assert_eq!(decode::<AgentMessage>(&deep), Err(FrameError::TooDeep));
        let large = format!(r#"{{"type":"hello","x":"{}"}}"#, "a".repeat(MAX_MESSAGE_BYTES));
        assert!(matches!(decode::<AgentMessage>(&large), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn what_is_no_message_gets_a_typed_error() {
        for text in ["", "null", "[]", "{}", r#"{"type":1}"#, "not json", "{\"type\":\"hello\""] {
            assert_eq!(decode::<AgentMessage>(text), Err(FrameError::NotAMessage), "{text}");
        }
        let unknown = decode::<ControlMessage>(r#"{"type":"fly\u0007"}"#);
        assert_eq!(unknown, Err(FrameError::UnknownType { name: "fly".into() }));
        let malformed = decode::<ControlMessage>(r#"{"type":"offer"}"#).unwrap_err();
        assert_eq!(malformed.code(), "malformed");
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let message =
            decode::<ControlMessage>(r#"{"type":"pause","reason":"maintenance","from_the_future":1}"#);
        assert_eq!(message, Ok(ControlMessage::Pause { reason: "maintenance".into() }));
    }
}
