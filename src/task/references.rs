//! The list of references: policy, a measured connection, and git's own list through a filter.

use std::time::Instant;

use super::diagnose::{Failure, Subject};
use super::lookup::{self, Done};
use super::stop::{REFERENCES_TIMEOUT, within_limit};
use super::{TargetSpec, Tools, login, remote};
use crate::git::{self, Control, ListRequest, Listed};
use crate::provider::Provider;
use crate::report::StageLog;

/// A list of references as it was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The repository.
    pub target: TargetSpec,
    /// The kind of server, where the client names it.
    pub provider: Option<Provider>,
    /// The name of the credential; the server's own where it is missing.
    pub credential: Option<String>,
    /// Which of them, and how many.
    pub wanted: ListRequest,
}

/// The outcome of a list of references.
pub type Report = lookup::Report<Listed>;

/// Runs a list of references to its end, good or bad.
pub async fn run(request: &Request, tools: &Tools, control: &Control, log: &StageLog) -> Report {
    let since = Instant::now();
    let mut subject = Subject { url: request.target.shown(), ..Subject::default() };
    let (tools, redaction) = super::redacting(tools, log);
    let mut outcome = work(request, &tools, control, log, &mut subject).await;
    if let Ok(done) = &mut outcome {
        // A server may name a reference after what it was sent.
        done.found.references.iter_mut().for_each(|reference| redaction.clean(&mut reference.name));
        done.found.summary.head_branch.iter_mut().for_each(|name| redaction.clean(name));
    }
    lookup::report(outcome, log, &subject, since, &redaction)
}

async fn work(
    request: &Request,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
    subject: &mut Subject,
) -> Result<Done<Listed>, Failure> {
    let credential = request.credential.as_deref();
    let prepared = login::prepare(&request.target, credential, tools, control, log, subject).await?;
    let reached = remote::reach(prepared, request.provider, tools, control, log, subject).await?;
    let listed = within_limit(control, REFERENCES_TIMEOUT, async |control| {
        git::list(&reached.remote, &request.wanted, &control, log).await
    });
    let listed = listed.await.map_err(Failure::Stopped)?;
    let found = listed.map_err(|error| Failure::of_git(error, subject.provider))?;
    let is_empty = found.summary.references == 0;
    Ok(Done { found, is_plain: reached.is_plain, is_empty })
}
