//! What a clone is turned into for the control plane: an archive or a bundle, sent on while it is made, or single
//! files in the report itself.

use std::io::{self, Write};

use tokio::sync::oneshot;

use super::{Attempt, Request};
use crate::artifact::{Delivery, PieceWriter, UploadError, Uploaded, pieces};
use crate::git::{
    self, ArchiveFormat, ArchiveRequest, Bare, BundleRequest, Control, FetchedFiles, FilesRequest, Limits,
    Means, Remote,
};
use crate::report::{Stage, StageLog};
use crate::task::Tools;
use crate::task::diagnose::Failure;
use crate::task::files::MAX_CONTENT_BYTES;

/// How much of a commit stands in the name of a file.
const SHORT_COMMIT_DIGITS: usize = 12;

/// What is made of a repository and sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Archive(ArchiveFormat),
    Bundle,
}

impl Form {
    fn ending(self) -> &'static str {
        match self {
            Self::Archive(ArchiveFormat::TarZst) => "tar.zst",
            Self::Archive(ArchiveFormat::Zip) => "zip",
            Self::Bundle => "bundle",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Archive(ArchiveFormat::TarZst) => "application/zstd",
            Self::Archive(ArchiveFormat::Zip) => "application/zip",
            Self::Bundle => "application/x-git-bundle",
        }
    }
}

/// What was sent.
pub(super) struct Sent {
    pub(super) bare: Bare,
    pub(super) uploaded: Uploaded,
    /// Paths of the task that are not in the commit.
    pub(super) missing: Vec<String>,
}

/// What is to be made, and for whom.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) form: Form,
    pub(super) attempt: &'a Attempt,
}

/// Makes it and sends it at the same time: nothing of it touches the disk.
pub(super) async fn send(
    request: &Request,
    order: Order<'_>,
    remote: &Remote,
    means: &Means,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
) -> Result<Sent, Failure> {
    let Order { form, attempt } = order;
    let uploader = tools.uploads.as_ref().ok_or(Failure::NoUploads)?;
    let (writer, source) = pieces();
    // The name of the file tells the commit, which is known once it was fetched.
    let (begin, begun) = oneshot::channel::<String>();
    let (paths, limits) = (request.paths.clone(), control.limits);
    let (name, watched, noted) = (repository_name(remote), control.clone(), log.clone());
    let make = move |bare: &Bare| {
        noted.begin(Stage::Deliver);
        let commit = bare.commit.get(..SHORT_COMMIT_DIGITS).unwrap_or(&bare.commit);
        let _ = begin.send(format!("{name}-{commit}.{}", form.ending()));
        make(form, bare, &paths, writer, limits, &watched)
    };
    let making = git::with_bare(remote, &request.want, means, &tools.temporary, control, log, make);
    let sending = async {
        let file_name = begun.await.map_err(|_| UploadError::SourceFailed)?;
        let delivery = Delivery {
            task_id: attempt.task_id.clone(),
            attempt: attempt.number,
            file_name,
            media_type: form.media_type(),
        };
        uploader.upload(&delivery, source, control).await
    };
    let (made, sent) = Box::pin(async { tokio::join!(making, sending) }).await;
    match (made, sent) {
        (Ok((missing, bare)), Ok(uploaded)) => {
            log.fact("bytes", uploaded.bytes);
            log.pass();
            Ok(Sent { bare, uploaded, missing })
        }
        // Whoever makes it hears of a line that is cut as of a reader that is gone.
        (Ok(_) | Err(git::Error::Delivery { .. }), Err(error)) => Err(error.into()),
        (Err(error), _) => Err(error.into()),
    }
}

fn make(
    form: Form,
    bare: &Bare,
    paths: &[String],
    mut writer: PieceWriter,
    limits: Limits,
    control: &Control,
) -> Result<Vec<String>, git::Error> {
    let missing = match form {
        Form::Archive(format) => {
            let request = ArchiveRequest {
                commit: bare.commit.clone(),
                paths: paths.to_vec(),
                format,
                prefix: String::new(),
                max_bytes: limits.max_expanded_bytes,
            };
            git::archive(&bare.repository, &request, &mut writer, control)?.missing
        }
        Form::Bundle => {
            let request = BundleRequest {
                reference: bare.reference.clone().unwrap_or_else(|| "HEAD".to_owned()),
                target: bare.target.clone(),
                max_bytes: limits.max_bytes,
            };
            git::bundle(&bare.repository, &request, &mut writer, control)?;
            Vec::new()
        }
    };
    let finished = writer.flush().and_then(|()| writer.finish());
    finished.map_err(|source: io::Error| git::Error::Delivery { source })?;
    Ok(missing)
}

/// The last part of a repository's path, which names what is made of it.
fn repository_name(remote: &Remote) -> String {
    let path = remote.url.path().trim_end_matches('/');
    let name = path.rsplit('/').next().unwrap_or_default();
    let name = name.strip_suffix(".git").unwrap_or(name);
    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
    if name.is_empty() { "repository".to_owned() } else { name }
}

/// Reads single files, which need no more of the history than their commit.
pub(super) async fn read(
    request: &Request,
    remote: &Remote,
    means: &Means,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
) -> Result<FetchedFiles, git::Error> {
    let wanted = FilesRequest {
        reference: request.want.reference.clone(),
        paths: request.paths.clone(),
        max_bytes: MAX_CONTENT_BYTES,
    };
    git::fetch_files(remote, &wanted, means, &tools.temporary, control, log).await
}
