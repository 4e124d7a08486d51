//! The agent's own key: made on this host, never sent, proved at every connection.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The file below the state directory.
const FILE_NAME: &str = "identity.json";

/// The largest identity file, in bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The agent has not been enrolled.
    #[error("this agent is not enrolled: {} does not exist", .0.display())]
    NotEnrolled(PathBuf),
    /// The state directory or the file in it cannot be used.
    #[error("{}: {kind}", path.display())]
    State {
        /// What could not be used.
        path: PathBuf,
        /// The class of the system's error.
        kind: io::ErrorKind,
    },
    /// The file is no identity.
    #[error("{} is damaged: move it away and enroll again", .0.display())]
    Damaged(PathBuf),
    /// The system gave no randomness.
    #[error("the system's source of randomness failed")]
    Randomness,
}

/// A key that is not registered anywhere yet, or is. Clones share it.
#[derive(Clone)]
pub struct AgentKey {
    pair: Arc<Ed25519KeyPair>,
    pkcs8: Arc<Zeroizing<Vec<u8>>>,
}

impl AgentKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`IdentityError::Randomness`].
    pub fn generate() -> Result<Self, IdentityError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| IdentityError::Randomness)?;
        let pkcs8 = Zeroizing::new(document.as_ref().to_vec());
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| IdentityError::Randomness)?;
        Ok(Self::of(pair, pkcs8))
    }

    fn of(pair: Ed25519KeyPair, pkcs8: Zeroizing<Vec<u8>>) -> Self {
        Self { pair: Arc::new(pair), pkcs8: Arc::new(pkcs8) }
    }

    /// The public half: 32 bytes in base64.
    pub fn public_key(&self) -> String {
        BASE64.encode(self.pair.public_key().as_ref())
    }

    /// An Ed25519 signature in base64.
    pub fn sign(&self, payload: &[u8]) -> String {
        BASE64.encode(self.pair.sign(payload).as_ref())
    }
}

/// What enrollment left: who this agent is, at which control plane, and its key.
pub struct Identity {
    /// The identifier that the control plane gave.
    pub agent_id: String,
    /// The base URL of the control plane.
    pub control_plane: String,
    /// The agent's key.
    pub key: AgentKey,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    agent_id: Option<String>,
    control_plane: String,
    private_key: Zeroizing<String>,
}

/// The version of the file's form.
const STORED_VERSION: u32 = 1;

/// Reads the identity of an enrolled agent.
///
/// # Errors
/// See [`IdentityError`].
pub fn load(state_dir: &Path) -> Result<Identity, IdentityError> {
    let path = state_dir.join(FILE_NAME);
    let (agent_id, control_plane, key) = read(&path)?;
    match agent_id {
        Some(agent_id) => Ok(Identity { agent_id, control_plane, key }),
        None => Err(IdentityError::NotEnrolled(path)),
    }
}

/// The key for an enrollment at `control_plane`: the one of an enrollment whose answer was lost, so that
/// repeating it is the same agent, or a new one, kept before it is sent anywhere.
///
/// # Errors
/// See [`IdentityError`].
pub fn prepare(state_dir: &Path, control_plane: &str) -> Result<AgentKey, IdentityError> {
    make_state_dir(state_dir)?;
    match read(&state_dir.join(FILE_NAME)) {
        Ok((None, url, key)) if url == control_plane => return Ok(key),
        Ok(_) | Err(IdentityError::NotEnrolled(_)) => {}
        Err(error) => return Err(error),
    }
    let key = AgentKey::generate()?;
    write(state_dir, None, control_plane, &key)?;
    Ok(key)
}

/// Keeps the identity that enrollment gave.
///
/// # Errors
/// See [`IdentityError`].
pub fn store(state_dir: &Path, identity: &Identity) -> Result<(), IdentityError> {
    write(state_dir, Some(&identity.agent_id), &identity.control_plane, &identity.key)
}

/// Forgets the identity.
///
/// # Errors
/// See [`IdentityError`].
pub fn remove(state_dir: &Path) -> Result<(), IdentityError> {
    let path = state_dir.join(FILE_NAME);
    fs::remove_file(&path).map_err(|error| IdentityError::State { path, kind: error.kind() })
}

/// Makes the state directory where it is missing, for this user alone, and checks that it can be written.
///
/// # Errors
/// See [`IdentityError`].
pub fn make_state_dir(state_dir: &Path) -> Result<(), IdentityError> {
    let failed = |error: io::Error| IdentityError::State { path: state_dir.to_owned(), kind: error.kind() };
    if !state_dir.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(failed)?;
    }
    tempfile::tempfile_in(state_dir).map(drop).map_err(failed)
}

fn read(path: &Path) -> Result<(Option<String>, String, AgentKey), IdentityError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => IdentityError::NotEnrolled(path.to_owned()),
        kind => IdentityError::State { path: path.to_owned(), kind },
    };
    let damaged = || IdentityError::Damaged(path.to_owned());
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(damaged());
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(failed)?);
    let stored: Stored = serde_json::from_str(&text).map_err(|_| damaged())?;
    if stored.version != STORED_VERSION {
        return Err(damaged());
    }
    let pkcs8 = Zeroizing::new(BASE64.decode(stored.private_key.as_bytes()).map_err(|_| damaged())?);
    let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| damaged())?;
    Ok((stored.agent_id, stored.control_plane, AgentKey::of(pair, pkcs8)))
}

/// Writes a new file beside the old one, syncs it and renames it, so that there is always a whole one.
fn write(state_dir: &Path, agent_id: Option<&str>, url: &str, key: &AgentKey) -> Result<(), IdentityError> {
    let stored = Stored {
        version: STORED_VERSION,
        agent_id: agent_id.map(ToOwned::to_owned),
        control_plane: url.to_owned(),
        private_key: Zeroizing::new(BASE64.encode(key.pkcs8.as_slice())),
    };
    let path = state_dir.join(FILE_NAME);
    let failed = |error: io::Error| IdentityError::State { path: path.clone(), kind: error.kind() };
    let text = serde_json::to_vec_pretty(&stored)
        .map(Zeroizing::new)
        .map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    let temporary = state_dir.join(format!("{FILE_NAME}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&temporary, &path).map_err(failed)?;
    fs::File::open(state_dir).and_then(|directory| directory.sync_all()).map_err(failed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_enrollment_that_is_repeated_uses_the_same_key() {
        let state = tempfile::tempdir().unwrap();
        let first = prepare(state.path(), "https://a").unwrap().public_key();
        assert_eq!(prepare(state.path(), "https://a").unwrap().public_key(), first);
        assert!(matches!(load(state.path()), Err(IdentityError::NotEnrolled(_))));
        let key = prepare(state.path(), "https://a").unwrap();
        store(state.path(), &Identity { agent_id: "a1".into(), control_plane: "https://a".into(), key })
            .unwrap();
        let loaded = load(state.path()).unwrap();
        assert_eq!((loaded.agent_id.as_str(), loaded.key.public_key()), ("a1", first));
        let mode = fs::metadata(state.path().join(FILE_NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join(FILE_NAME), "{}").unwrap();
        assert!(matches!(load(state.path()), Err(IdentityError::Damaged(_))));
        assert!(matches!(prepare(state.path(), "https://a"), Err(IdentityError::Damaged(_))));
        assert_eq!(fs::read_to_string(state.path().join(FILE_NAME)).unwrap(), "{}");
    }
}
