//! A few files at a reference, without a clone: over the API where that is cheaper, else by git with one commit.
//!
//! Git's list of references comes first and names the commit that everything is read from. What the API does not
//! answer, git does: it has the last word about what is not there.

mod api;
pub(super) mod content;

use std::time::Instant;

use super::diagnose::{Failure, Subject};
use super::lookup::{self, Done};
use super::remote::Reached;
use super::stop::{REFERENCES_TIMEOUT, within_limit};
use super::{TargetSpec, Tools, login, remote};
use crate::git::{self, Control, FetchedFiles, FilesRequest};
use crate::provider::Provider;
use crate::report::{Stage, StageLog};
use crate::secret::Redaction;

pub use content::{Content, FileAnswer, Kind};

/// From how many files on git's one pack is cheaper than a call for each.
const MAX_API_FILES: usize = 20;

/// How many bytes the files of one answer have together, so that it fits a message of the protocol.
pub(super) const MAX_CONTENT_BYTES: u64 = 512 * 1024;

/// Files as they were asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The repository.
    pub target: TargetSpec,
    /// The kind of server, where the client names it.
    pub provider: Option<Provider>,
    /// The name of the credential; the server's own where it is missing.
    pub credential: Option<String>,
    /// Branch, tag, full reference or commit; the default branch where it is missing.
    pub reference: Option<String>,
    /// Paths from the repository's root.
    pub paths: Vec<String>,
}

/// How files were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Over the API.
    Api,
    /// By git.
    Git,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The commit, in hex.
    pub commit: String,
    /// The full name of the reference; `None` for a bare commit.
    pub reference: Option<String>,
    /// How they were read.
    pub source: Source,
    /// What is there, in the order of the request.
    pub files: Vec<FileAnswer>,
    /// Paths at which nothing is.
    pub missing: Vec<String>,
}

/// The outcome of reading files.
pub type Report = lookup::Report<Files>;

/// Runs the reading of files to its end, good or bad. After it nothing of it is left on the disk.
pub async fn run(request: &Request, tools: &Tools, control: &Control, log: &StageLog) -> Report {
    let since = Instant::now();
    let mut subject = Subject { url: request.target.shown(), ..Subject::default() };
    let (tools, redaction) = super::redacting(tools, log);
    let outcome = work(request, &tools, control, log, &mut subject, &redaction).await;
    lookup::report(outcome, log, &subject, since, &redaction)
}

async fn work(
    request: &Request,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
    subject: &mut Subject,
    redaction: &Redaction,
) -> Result<Done<Files>, Failure> {
    let credential = request.credential.as_deref();
    let prepared = login::prepare(&request.target, credential, tools, control, log, subject).await?;
    let identity = login::identity(prepared.credential.as_ref());
    let reached = remote::reach(prepared, request.provider, tools, control, log, subject).await?;
    let of_git = |error| Failure::of_git(error, subject.provider);
    let by_api = by_api(request, &reached, tools, control, log).await?.transpose().map_err(of_git)?;
    let (read, source) = match by_api {
        Some(read) => (read, Source::Api),
        None => {
            let read = by_git(request, &reached, &identity, tools, control, log).await;
            (read.map_err(of_git)?, Source::Git)
        }
    };
    let FetchedFiles { commit, reference, files, missing, .. } = read;
    let files = content::all(files, MAX_CONTENT_BYTES, redaction).map_err(of_git)?;
    let found = Files { commit, reference, source, files, missing };
    Ok(Done { found, is_plain: reached.is_plain, is_empty: false })
}

/// Reads over the API; `None` where that is not cheaper, or does not go.
async fn by_api(
    request: &Request,
    reached: &Reached,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
) -> Result<Option<Result<FetchedFiles, git::Error>>, Failure> {
    if request.paths.len() > MAX_API_FILES || !api::may_answer(reached) {
        return Ok(None);
    }
    let reference = request.reference.as_deref();
    let found = within_limit(control, REFERENCES_TIMEOUT, async |control| {
        git::find(&reached.remote, reference, &control, log).await
    });
    let found = match found.await.map_err(Failure::Stopped)? {
        Ok(found) => found,
        Err(error) => return Ok(Some(Err(error))),
    };
    log.begin(Stage::Receive);
    match api::read(reached, &found, &request.paths, tools, control, log).await? {
        Ok(read) => Ok(Some(Ok(read))),
        Err(api::Unusable::TooLarge) => {
            let what = git::Limit::AnswerBytes;
            Ok(Some(Err(git::Error::TooLarge { what, limit: MAX_CONTENT_BYTES })))
        }
        Err(unusable) => {
            // Git goes through these stages itself; that the API was asked stays known.
            log.take_from(Stage::References);
            log.fact_at(Stage::Repository, "api", unusable.as_str());
            Ok(None)
        }
    }
}

async fn by_git(
    request: &Request,
    reached: &Reached,
    identity: &str,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
) -> Result<FetchedFiles, git::Error> {
    let wanted = FilesRequest {
        reference: request.reference.clone(),
        paths: request.paths.clone(),
        max_bytes: MAX_CONTENT_BYTES,
    };
    // Git watches deadline and cancel itself and is awaited to its end, so that nothing is left behind.
    let means = tools.means(&reached.remote, identity);
    git::fetch_files(&reached.remote, &wanted, &means, &tools.temporary, control, log).await
}
