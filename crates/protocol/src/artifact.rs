//! Artifacts: what an agent delivers that is too large for a message, uploaded in parts over HTTPS.
//!
//! An upload belongs to one attempt and one file name. Every request is idempotent and is proved by a signature
//! over what it asks for, so that one which somebody repeats changes nothing and no clock has to decide.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ARTIFACTS_PATH;
use crate::identity::payload;

/// The header that carries an [`ArtifactProof`] as JSON.
pub const PROOF_HEADER: &str = "sortie-proof";

/// The most parts of an artifact, whatever their size.
pub const MAX_PARTS: u32 = 4096;

/// The largest part that a control plane may ask for, in bytes: an agent keeps two of them in memory.
pub const MAX_PART_BYTES: u64 = 64 * 1024 * 1024;

/// The longest file name, in bytes.
pub const MAX_FILE_NAME_BYTES: usize = 200;

/// The longest media type, in bytes.
pub const MAX_MEDIA_TYPE_BYTES: usize = 100;

/// The path of one upload, below the base URL.
pub fn upload_path(id: &str) -> String {
    format!("{ARTIFACTS_PATH}/{id}")
}

/// The path of one of its parts, which are numbered from 1.
pub fn part_path(id: &str, number: u32) -> String {
    format!("{ARTIFACTS_PATH}/{id}/parts/{number}")
}

/// The path that ends an upload.
pub fn complete_path(id: &str) -> String {
    format!("{ARTIFACTS_PATH}/{id}/complete")
}

/// Whether a file name can be used: letters, digits and `._+-` of ASCII, not beginning with a dot.
pub fn is_file_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    (1..=MAX_FILE_NAME_BYTES).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_plain)
}

/// Whether a media type can be used: `type/subtype` without parameters.
pub fn is_media_type(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte);
    let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_plain);
    let parts = text.split_once('/');
    text.len() <= MAX_MEDIA_TYPE_BYTES && parts.is_some_and(|(kind, sub)| is_token(kind) && is_token(sub))
}

/// Who asks, for which attempt, with which body. Travels in [`PROOF_HEADER`] of every request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactProof {
    /// The base URL by which the agent dialed the control plane.
    pub origin: String,
    /// The identifier that enrollment gave.
    pub agent_id: String,
    /// The task.
    pub task_id: String,
    /// The attempt that delivers. It is the current one, and runs on this agent.
    pub attempt: u32,
    /// SHA-256 of the request's body, in lower-case hex; that of nothing where there is none.
    pub body_sha256: String,
    /// Ed25519 over [`ArtifactProof::payload`], in base64.
    pub signature: String,
}

impl ArtifactProof {
    /// The bytes that are signed. `method` is in capitals; `path` is below the base URL, without a query.
    pub fn payload(&self, method: &str, path: &str) -> Vec<u8> {
        let attempt = self.attempt.to_string();
        payload(
            "sortie.v1 artifact",
            &[&self.origin, method, path, &self.agent_id, &self.task_id, &attempt, &self.body_sha256],
        )
    }
}

/// The body of a POST to [`ARTIFACTS_PATH`]. The same file name of the same attempt is the same upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactRequest {
    /// The name of the file, see [`is_file_name`].
    pub file_name: String,
    /// Its media type, without parameters.
    pub media_type: String,
}

/// Where an upload stands: answers the POST that begins it, with 201 or 200, and a GET of [`upload_path`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactUpload {
    /// Its identifier, which is the artifact's too.
    pub id: String,
    /// How many bytes each part has but the last one, which may have fewer; see [`MAX_PART_BYTES`].
    pub part_bytes: u64,
    /// How many bytes the whole may have.
    pub max_bytes: u64,
    /// The parts that are there, by number.
    pub parts: Vec<ArtifactPart>,
    /// The artifact, once it is complete; `parts` is empty then.
    pub artifact: Option<Artifact>,
}

/// A part that is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactPart {
    /// Its number, from 1 to [`MAX_PARTS`].
    pub number: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256 in lower-case hex.
    pub sha256: String,
}

/// The body of a POST to [`complete_path`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactCompletion {
    /// How many parts there are.
    pub parts: u32,
    /// How many bytes they have together.
    pub bytes: u64,
    /// SHA-256 of the whole, in lower-case hex.
    pub sha256: String,
}

/// What was delivered: answers the POST to [`complete_path`], and stands in the outcome of a clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// Its identifier.
    pub id: String,
    /// The name of the file.
    pub file_name: String,
    /// Its media type.
    pub media_type: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256 in lower-case hex.
    pub sha256: String,
    /// Until when it is kept, by the control plane's clock: RFC 3339 in UTC.
    pub expires_at: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_types_are_safe_in_a_header_and_in_a_directory() {
        for good in ["web-4b825dc6.tar.zst", "a", "A_b+c-1.bundle"] {
            assert!(is_file_name(good), "{good}");
        }
        let long = "a".repeat(MAX_FILE_NAME_BYTES + 1);
        for bad in ["", ".", "..", ".ssh", "a/b", "a b", "a\"b", "a\nb", "ä", &long] {
            assert!(!is_file_name(bad), "{bad}");
        }
        assert!(is_media_type("application/zstd") && is_media_type("application/x-git-bundle"));
        for bad in ["", "zip", "/zip", "a/", "a/b; c=d", "a/b\r\nx: y", "a/b/c"] {
            assert!(!is_media_type(bad), "{bad}");
        }
    }
}
