//! How an agent proves who it is: what is signed, and the bodies of the enrollment requests.
//!
//! An agent makes an Ed25519 key on its own host; the private half never leaves it. Every payload begins
//! with a purpose, so that a signature for one cannot serve for another, and covers the base URL that the
//! agent dialed, so that a challenge cannot be passed on to another control plane.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The bytes that an agent signs in `hello`.
pub fn hello_payload(origin: &str, session: &str, nonce: &str, agent_id: &str) -> Vec<u8> {
    payload("sortie.v1 hello", &[origin, session, nonce, agent_id])
}

/// The bytes that an agent signs to enroll.
pub fn enroll_payload(origin: &str, token: &str, public_key: &str) -> Vec<u8> {
    payload("sortie.v1 enroll", &[origin, token, public_key])
}

/// The bytes that an agent signs to give its registration back.
pub fn unenroll_payload(origin: &str, session: &str, nonce: &str, agent_id: &str) -> Vec<u8> {
    payload("sortie.v1 unenroll", &[origin, session, nonce, agent_id])
}

/// Each part is preceded by its length in bytes, so that no two lists of parts give the same payload.
pub(crate) fn payload(purpose: &str, parts: &[&str]) -> Vec<u8> {
    let mut bytes = format!("{purpose}\n").into_bytes();
    for part in parts {
        bytes.extend_from_slice(format!("{}:", part.len()).as_bytes());
        bytes.extend_from_slice(part.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// The body of a POST to [`crate::ENROLL_PATH`].
///
/// Repeating it with the same token and key, after an answer that was lost, gives the same agent again.
/// `Debug` is not implemented: the token is a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnrollRequest {
    /// The enrollment token.
    pub token: String,
    /// The agent's public key: 32 bytes in base64.
    pub public_key: String,
    /// The base URL by which the agent dialed the control plane.
    pub origin: String,
    /// Ed25519 over [`enroll_payload`], in base64: proves that the agent holds the key.
    pub signature: String,
    /// The agent's name.
    pub name: String,
    /// The version of the agent's program.
    pub version: String,
    /// The operating system.
    pub os: String,
    /// The architecture.
    pub arch: String,
    /// The tags of the agent's own configuration.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// The answer to [`EnrollRequest`], with status 201.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnrollResponse {
    /// The agent's identifier from now on.
    pub agent_id: String,
    /// Tags that the enrollment token gave.
    pub tags: Vec<String>,
}

/// The body of a POST to [`crate::UNENROLL_PATH`], answering a challenge from [`crate::CHALLENGE_PATH`]
/// (a POST without a body, answered by [`crate::message::Challenge`]). The answer is 204.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnenrollRequest {
    /// The identifier that enrollment gave.
    pub agent_id: String,
    /// The base URL by which the agent dialed the control plane.
    pub origin: String,
    /// The challenge's session.
    pub session: String,
    /// Ed25519 over [`unenroll_payload`], in base64.
    pub signature: String,
}

/// The body of an error, `application/problem+json` as in RFC 9457.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// A relative URI that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem for people.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What happened here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// A stable code for programs.
    pub code: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        assert_ne!(hello_payload("ab", "c", "n", "i"), hello_payload("a", "bc", "n", "i"));
        assert_ne!(hello_payload("o", "s", "n", "i"), unenroll_payload("o", "s", "n", "i"));
    }
}
