//! How clones are made, and what of them is kept on this host.

use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use super::raw::{RawGit, RawMirrors, RawWorkspaces};
use super::validate::{absolute, in_range, invalid};
use crate::git::Engine;

const GIB: u64 = 1024 * 1024 * 1024;
const DEFAULT_MIRRORS_BYTES: u64 = 20 * GIB;
const DEFAULT_WORKSPACES_BYTES: u64 = 50 * GIB;
const DEFAULT_TTL_SECONDS: u64 = 24 * 60 * 60;
const MAX_TTL_SECONDS: u64 = 365 * 24 * 60 * 60;

/// How clones are made, and what of them is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clones {
    /// What indexes packs and writes files.
    pub engine: Engine,
    /// How much all mirrors may take together, in bytes; `None` keeps none.
    pub mirrors_bytes: Option<u64>,
    /// Where and how long the clones of tasks are kept.
    pub workspaces: WorkspaceSettings,
}

/// Where and how long the clones of tasks are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceSettings {
    /// How much all of them may take together, in bytes.
    pub max_bytes: u64,
    /// How long one is kept after it was delivered.
    pub ttl: Duration,
    /// Directories below which a task may ask for a clone, beside the agent's own.
    pub directories: Vec<PathBuf>,
}

pub(super) fn clones(
    git: &RawGit,
    mirrors: &RawMirrors,
    workspaces: RawWorkspaces,
) -> Result<Clones, ConfigError> {
    let engine = match git.engine.as_deref() {
        None => Engine::default(),
        Some(name) => [Engine::Gix, Engine::Libgit2]
            .into_iter()
            .find(|engine| engine.as_str() == name)
            .ok_or_else(|| invalid("git.engine", "gix or libgit2"))?,
    };
    let bytes =
        |key: &str, value: Option<u64>, usual| in_range(key, value.unwrap_or(usual), 1, i64::MAX as u64);
    let mirrors_bytes = bytes("mirrors.bytes", mirrors.bytes, DEFAULT_MIRRORS_BYTES)?;
    let ttl = workspaces.ttl_seconds.unwrap_or(DEFAULT_TTL_SECONDS);
    let directories = workspaces.directories.iter().map(|path| absolute("workspaces.directories", path));
    Ok(Clones {
        engine,
        mirrors_bytes: mirrors.enabled.unwrap_or(true).then_some(mirrors_bytes),
        workspaces: WorkspaceSettings {
            max_bytes: bytes("workspaces.bytes", workspaces.bytes, DEFAULT_WORKSPACES_BYTES)?,
            ttl: Duration::from_secs(in_range("workspaces.ttl_seconds", ttl, 1, MAX_TTL_SECONDS)?),
            directories: directories.collect::<Result<_, _>>()?,
        },
    })
}
