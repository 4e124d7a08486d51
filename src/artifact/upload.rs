//! The way of one artifact: begin, parts, complete; and what follows a failure.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::Serialize;
use sortie_protocol::ARTIFACTS_PATH;
use sortie_protocol::artifact::{
    Artifact, ArtifactCompletion, ArtifactRequest, ArtifactUpload, MAX_PART_BYTES, MAX_PARTS, complete_path,
    part_path, upload_path,
};
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until, timeout};

use super::call::{Call, Trouble, parse};
use super::source::{Part, Piece, Source};
use super::{Delivery, UploadError, Uploaded, Way};
use crate::backoff::{self, Backoff};
use crate::git::Control;

/// How long the control plane may take to hear that an upload is dropped. A task that is cancelled ends within a
/// second, and what was not heard goes with the attempt's end.
const LAST_WORD: Duration = Duration::from_millis(500);

/// An upload that is going on.
struct Upload<'a> {
    way: &'a Way,
    delivery: &'a Delivery,
    control: &'a Control,
    backoff: Backoff,
    /// What has been in the way since the last good answer.
    trouble: Option<UploadError>,
}

/// What the control plane said at the beginning.
struct Terms {
    id: String,
    part_bytes: usize,
    max_bytes: u64,
}

pub(super) async fn run(
    way: &Way,
    delivery: &Delivery,
    source: mpsc::Receiver<Piece>,
    control: &Control,
) -> Result<Uploaded, UploadError> {
    let mut upload = Upload { way, delivery, control, backoff: Backoff::default(), trouble: None };
    let terms = upload.begin().await?;
    let done = upload.send(&terms, Source::new(source)).await;
    if done.is_err() {
        let gone = Call::bare(Method::DELETE, upload_path(&terms.id));
        // Nobody waits for longer than that: the control plane finds out by itself.
        let _ = timeout(LAST_WORD, way.send(delivery, &gone)).await;
    }
    done
}

impl Upload<'_> {
    async fn begin(&mut self) -> Result<Terms, UploadError> {
        let request = ArtifactRequest {
            file_name: self.delivery.file_name.clone(),
            media_type: self.delivery.media_type.to_owned(),
        };
        let call = Call::document(Method::POST, ARTIFACTS_PATH.to_owned(), body(&request));
        let begun: ArtifactUpload = parse(&self.call(&call).await?)?;
        let is_id = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let is_in_form = (1..=MAX_PART_BYTES).contains(&begun.part_bytes)
            && !begun.id.is_empty()
            && begun.id.chars().all(is_id);
        let part_bytes = usize::try_from(begun.part_bytes).ok().filter(|_| is_in_form);
        let part_bytes = part_bytes.ok_or(UploadError::NotAControlPlane { status: 200 })?;
        let most = begun.part_bytes.saturating_mul(u64::from(MAX_PARTS));
        Ok(Terms { id: begun.id, part_bytes, max_bytes: begun.max_bytes.min(most) })
    }

    /// Sends every part, the next one being made while one is on its way, and ends the upload.
    async fn send(&mut self, terms: &Terms, mut source: Source) -> Result<Uploaded, UploadError> {
        let mut parts = 0;
        let mut part = made(self.control, &mut source, terms).await?;
        loop {
            if !part.bytes.is_empty() {
                parts += 1;
            }
            if part.is_last {
                if !part.bytes.is_empty() {
                    self.put(terms, parts, &part).await?;
                }
                break;
            }
            let next = made(self.control, &mut source, terms);
            let (next, ()) = tokio::try_join!(next, self.put(terms, parts, &part))?;
            part = next;
        }
        let whole = ArtifactCompletion { parts, bytes: source.bytes, sha256: source.sha256() };
        let call = Call::document(Method::POST, complete_path(&terms.id), body(&whole));
        let artifact: Artifact = parse(&self.call(&call).await?)?;
        if (artifact.bytes, &artifact.sha256) != (whole.bytes, &whole.sha256) {
            return Err(UploadError::Damaged);
        }
        Ok(Uploaded {
            id: artifact.id,
            file_name: artifact.file_name,
            media_type: artifact.media_type,
            bytes: artifact.bytes,
            sha256: artifact.sha256,
            expires_at: artifact.expires_at,
        })
    }

    /// Sends a part until it is there. After a cut it may be: the control plane is asked before it is sent again.
    async fn put(&mut self, terms: &Terms, number: u32, part: &Part) -> Result<(), UploadError> {
        let call = Call {
            method: Method::PUT,
            path: part_path(&terms.id, number),
            body: part.bytes.clone(),
            sha256: part.sha256.clone(),
            media_type: "application/octet-stream",
        };
        let show = Call::bare(Method::GET, upload_path(&terms.id));
        while self.once(&call).await?.is_none() {
            let shown: ArtifactUpload = parse(&self.call(&show).await?)?;
            if shown.parts.iter().any(|it| it.number == number && it.sha256 == part.sha256) {
                break;
            }
        }
        Ok(())
    }

    /// Sends a request until it is answered. All of them can be repeated.
    async fn call(&mut self, call: &Call) -> Result<Vec<u8>, UploadError> {
        loop {
            if let Some(answer) = self.once(call).await? {
                return Ok(answer);
            }
        }
    }

    /// Sends a request once; `None` after a trouble that may pass, and the wait that it asks for.
    async fn once(&mut self, call: &Call) -> Result<Option<Vec<u8>>, UploadError> {
        let sent = self.until_stopped(self.way.send(self.delivery, call)).await?;
        let (cause, wait) = match sent {
            Ok(answer) => {
                (self.backoff, self.trouble) = (Backoff::default(), None);
                return Ok(Some(answer));
            }
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Passing { cause, wait }) => (cause, wait),
        };
        let wait = wait.max(self.backoff.next(backoff::random()));
        tracing::warn!(
            error = %cause, task.id = %self.delivery.task_id, attempt = self.delivery.attempt,
            retry_in_ms = wait.as_millis() as u64, "an upload is held up"
        );
        self.trouble = Some(cause);
        self.until_stopped(sleep(wait)).await?;
        Ok(None)
    }

    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, UploadError> {
        match until_stopped(self.control, work).await {
            // What was in the way all the time says more than that the time is over.
            Err(UploadError::DeadlineExceeded) => {
                Err(self.trouble.clone().unwrap_or(UploadError::DeadlineExceeded))
            }
            done => done,
        }
    }
}

/// The next part of the source.
async fn made(control: &Control, source: &mut Source, terms: &Terms) -> Result<Part, UploadError> {
    until_stopped(control, source.part(terms.part_bytes, terms.max_bytes)).await?
}

async fn until_stopped<T>(control: &Control, work: impl Future<Output = T>) -> Result<T, UploadError> {
    tokio::select! {
        biased;
        () = control.cancel.cancelled() => Err(UploadError::Cancelled),
        () = sleep_until(control.deadline) => Err(UploadError::DeadlineExceeded),
        done = work => Ok(done),
    }
}

fn body(document: &impl Serialize) -> Bytes {
    serde_json::to_vec(document).unwrap_or_default().into()
}
