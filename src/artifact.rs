//! Artifacts on their way to the control plane: streamed, in parts, taken up again after a cut.
//!
//! Whoever makes an artifact writes it into a [`PieceWriter`] on a thread of its own, and [`Uploader::upload`]
//! sends it on. At most two parts are in memory, and nothing touches the disk. An artifact is complete only where
//! its maker said that it is.

mod call;
mod source;
mod upload;

use std::sync::Arc;

use sortie_protocol::artifact::MAX_FILE_NAME_BYTES;
use tokio::sync::mpsc;

use crate::dial::{Destination, Door, HttpError};
use crate::git::Control;
use crate::identity::{AgentKey, Identity};
use crate::remote_url::RemoteUrl;

pub use source::{Piece, PieceWriter, pieces};

/// The way of artifacts to the control plane. Clones share it.
#[derive(Clone)]
pub struct Uploader(Arc<Way>);

struct Way {
    door: Arc<Door>,
    destination: Destination,
    base: RemoteUrl,
    origin: String,
    agent_id: String,
    key: AgentKey,
}

/// What is delivered, and for which attempt.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The task.
    pub task_id: String,
    /// The attempt, which is running on this agent.
    pub attempt: u32,
    /// The name of the file. What cannot stand in one becomes `_`.
    pub file_name: String,
    /// Its media type, without parameters.
    pub media_type: &'static str,
}

/// What the control plane keeps now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The artifact's identifier.
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

/// Why an artifact was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The work was cancelled.
    #[error("the upload was cancelled")]
    Cancelled,
    /// The time was over while parts were on their way.
    #[error("the time for the upload was over")]
    DeadlineExceeded,
    /// Whoever makes the artifact went away before its end.
    #[error("the artifact was not made to its end")]
    SourceFailed,
    /// The control plane could not be reached until the deadline; this was the last cause.
    #[error("the control plane could not be reached: {0}")]
    Unreachable(HttpError),
    /// The control plane did not serve until the deadline; this was its last answer.
    #[error("the control plane answered {status} ({code})")]
    Unavailable {
        /// The status.
        status: u16,
        /// Its code.
        code: String,
    },
    /// The artifact has more bytes than the control plane takes.
    #[error("the artifact has more than {limit} bytes")]
    TooLarge {
        /// How many it takes.
        limit: u64,
    },
    /// The control plane has no room.
    #[error("the artifact store is full: {message}")]
    StoreFull {
        /// Its words.
        message: String,
    },
    /// The attempt is not the current one any more.
    #[error("the control plane does not take this attempt for the current one")]
    AttemptRefused,
    /// The control plane dropped the upload.
    #[error("the control plane does not have the upload any more")]
    Gone,
    /// What arrived is not what was sent.
    #[error("what arrived at the control plane has another SHA-256")]
    Damaged,
    /// What answers knows no artifacts.
    #[error("what answers has no artifact store (status {status})")]
    NotAControlPlane {
        /// The status.
        status: u16,
    },
    /// The control plane says no for another reason.
    #[error("the control plane refused: {message} ({code}, status {status})")]
    Refused {
        /// The status.
        status: u16,
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
}

impl Uploader {
    /// The way to the control plane at `base`, at which this identity is enrolled.
    pub fn new(door: Arc<Door>, destination: Destination, base: RemoteUrl, identity: &Identity) -> Self {
        Self(Arc::new(Way {
            door,
            destination,
            base,
            origin: identity.control_plane.clone(),
            agent_id: identity.agent_id.clone(),
            key: identity.key.clone(),
        }))
    }

    /// Sends an artifact as it is made. A connection that is cut, and a control plane that is busy or away, are
    /// waited for until the deadline. Cancel and deadline end it within a second; after any failure the control
    /// plane is told to drop what it has.
    ///
    /// # Errors
    /// See [`UploadError`].
    pub async fn upload(
        &self,
        delivery: &Delivery,
        source: mpsc::Receiver<Piece>,
        control: &Control,
    ) -> Result<Uploaded, UploadError> {
        let delivery = Delivery { file_name: safe_name(&delivery.file_name), ..delivery.clone() };
        // Its buffers are on the heap; so are its states, which every task would carry along otherwise.
        Box::pin(upload::run(&self.0, &delivery, source, control)).await
    }
}

/// A name that the protocol takes.
fn safe_name(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let mut safe: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    if safe.is_empty() || safe.starts_with('.') {
        safe.insert(0, '_');
    }
    // What tells the kind of file stands at the end.
    let beyond = safe.len().saturating_sub(MAX_FILE_NAME_BYTES);
    let safe = safe.split_off(beyond);
    if safe.starts_with('.') { safe.replacen('.', "_", 1) } else { safe }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_becomes_one_that_can_be_used() {
        let long = format!(".{}.tar.zst", "a".repeat(300));
        for name in ["web-1.0.tar.zst", "", ".", "../../etc", "Grün & blau.zip", "a\r\nb: c", &long] {
            let safe = safe_name(name);
            assert!(sortie_protocol::artifact::is_file_name(&safe), "{name:?} became {safe:?}");
        }
        assert_eq!(safe_name("web-1.0.tar.zst"), "web-1.0.tar.zst");
        assert!(safe_name(&long).ends_with("a.tar.zst"));
    }
}
