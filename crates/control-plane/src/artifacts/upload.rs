//! What an upload does to the objects.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use sortie_protocol::artifact::{ArtifactCompletion, ArtifactPart};

use super::{Artifacts, Inner, ObjectError, Progress};
use crate::engine::wall_clock;
use crate::identity::hex;
use crate::store::{ArtifactError, ArtifactRecord, ArtifactState, Millis, Uploader};

/// How many bytes of a part are read at once where a whole is read once more.
const PIECE_BYTES: u64 = 1024 * 1024;

/// Why a request about an upload was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The database says no, or failed.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The store of objects failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// What is stored has another SHA-256 than was told.
    #[error("the SHA-256 of the whole is another one")]
    HashDiffers,
    /// The server is stopping, or the work panicked.
    #[error("the work was not finished")]
    Unfinished,
}

impl Artifacts {
    /// Keeps a part whose hash has been checked. It is durable when this returns.
    pub(super) async fn keep_part(
        &self,
        uploader: Uploader,
        id: String,
        part: ArtifactPart,
        bytes: Bytes,
    ) -> Result<(), UploadError> {
        let this = self.clone();
        self.carry_out(id.clone(), async move {
            let upload = this.0.upload(&id);
            let mut progress = upload.lock().await;
            let limits = &this.0.limits;
            if !this.0.store.reserve_part(wall_clock(), &uploader, &id, &part, limits).await? {
                return Ok(());
            }
            this.0.objects.put(&id, part.number, bytes.clone()).await?;
            if !this.0.store.part_stored(&id, part.number).await? {
                // The upload was dropped meanwhile. The sweep finds the part by its row, once the lock is free.
                return Err(ArtifactError::NotFound.into());
            }
            progress.take(part.number, bytes).await
        })
        .await
    }

    /// Checks the whole and announces it.
    pub(super) async fn complete(
        &self,
        uploader: Uploader,
        id: String,
        whole: ArtifactCompletion,
    ) -> Result<ArtifactRecord, UploadError> {
        let this = self.clone();
        self.carry_out(id.clone(), async move {
            let upload = this.0.upload(&id);
            let progress = upload.lock().await;
            let (record, parts) = this.0.store.artifact_upload(&uploader, &id).await?;
            if record.state == ArtifactState::Open {
                let bytes: u64 = parts.iter().map(|part| part.bytes).sum();
                if parts.len() as u64 != u64::from(whole.parts) || bytes != whole.bytes {
                    return Err(ArtifactError::Incomplete.into());
                }
                let digest = if progress.next == whole.parts.saturating_add(1) {
                    progress.digest.clone()
                } else {
                    this.0.read_again(&id, &parts).await?
                };
                if hex(digest.finish().as_ref()) != whole.sha256 {
                    return Err(UploadError::HashDiffers);
                }
            }
            let now = wall_clock();
            let life = Millis::try_from(this.0.times.artifact_life.as_millis()).unwrap_or(Millis::MAX);
            let expires_at = now.saturating_add(life);
            let record = this.0.store.complete_artifact(now, &uploader, &id, &whole, expires_at).await?;
            this.0.forget(&id);
            Ok(record)
        })
        .await
    }

    /// Removes the parts of an artifact that is marked for it. What fails stays marked, and the sweep comes back.
    pub(crate) async fn remove(&self, id: String) {
        let this = self.clone();
        let name = id.clone();
        let removed = self.carry_out(id.clone(), async move {
            let upload = this.0.upload(&id);
            let _alone = upload.lock().await;
            let parts = this.0.store.parts_to_remove(&id).await.map_err(ArtifactError::from)?;
            this.0.objects.remove(&id, &parts).await?;
            this.0.store.artifact_removed(&id).await.map_err(ArtifactError::from)?;
            this.0.forget(&id);
            Ok(())
        });
        if let Err(error) = removed.await {
            tracing::warn!(%error, artifact.id = %name, "an artifact could not be removed yet");
        }
    }

    /// Does work on one artifact that goes on where whoever asked for it goes away.
    async fn carry_out<T: Send + 'static>(
        &self,
        id: String,
        work: impl Future<Output = Result<T, UploadError>> + Send + 'static,
    ) -> Result<T, UploadError> {
        let done = self.0.writes.spawn(work).await.map_err(|_| UploadError::Unfinished)?;
        if let Err(UploadError::Artifact(
            ArtifactError::NotFound | ArtifactError::NotCurrent | ArtifactError::Completed,
        )) = &done
        {
            self.0.forget(&id);
        }
        done
    }
}

impl Progress {
    /// Takes the next part into the digest of the whole.
    async fn take(&mut self, number: u32, bytes: Bytes) -> Result<(), UploadError> {
        if number != self.next {
            return Ok(());
        }
        let mut digest = self.digest.clone();
        let hashed = tokio::task::spawn_blocking(move || {
            digest.update(&bytes);
            digest
        });
        self.digest = hashed.await.map_err(|_| UploadError::Unfinished)?;
        self.next += 1;
        Ok(())
    }
}

impl Inner {
    /// The digest of a whole from what the store has.
    async fn read_again(&self, id: &str, parts: &[ArtifactPart]) -> Result<Context, UploadError> {
        let mut digest = Context::new(&SHA256);
        for part in parts {
            let mut from = 0;
            while from < part.bytes {
                let to = part.bytes.min(from + PIECE_BYTES);
                digest.update(&self.objects.read(id, part.number, from..to).await?);
                from = to;
            }
        }
        Ok(digest)
    }
}
