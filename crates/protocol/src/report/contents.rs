//! A file as it travels.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What stands at a path of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileContent {
    /// The path from the repository's root.
    pub path: String,
    /// What it is.
    pub kind: FileKind,
    /// The length of its content, in bytes; null for what has none.
    pub bytes: Option<u64>,
    /// The SHA-256 of its content, in hex; null for what has none.
    pub sha256: Option<String>,
    /// How `content` is written; null for what has none.
    pub encoding: Option<Encoding>,
    /// The content of a file, or where a symbolic link leads; null for a directory and a submodule.
    pub content: Option<String>,
    /// Whether the content is a pointer of Git LFS, and not the file itself.
    #[serde(default)]
    pub lfs_pointer: bool,
}

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A file.
    File,
    /// A file that can be executed.
    Executable,
    /// A symbolic link, which is never followed.
    Symlink,
    /// A directory, which is named and not read.
    Directory,
    /// A submodule, which is named and not read.
    Submodule,
}

/// How the bytes of a file stand in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Encoding {
    /// As text, which they are.
    #[serde(rename = "utf-8")]
    Utf8,
    /// In base64 with padding (RFC 4648, section 4).
    #[serde(rename = "base64")]
    Base64,
}
