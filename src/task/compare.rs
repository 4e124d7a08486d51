//! Whether a reference has moved since a commit: git's list of references tells, and nothing is fetched.

use std::time::Instant;

use super::diagnose::{Failure, Subject};
use super::lookup::{self, Done};
use super::stop::{REFERENCES_TIMEOUT, within_limit};
use super::{TargetSpec, Tools, login, remote};
use crate::git::{self, Control};
use crate::provider::Provider;
use crate::report::StageLog;

/// A comparison as it was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// The repository.
    pub target: TargetSpec,
    /// The kind of server, where the client names it.
    pub provider: Option<Provider>,
    /// The name of the credential; the server's own where it is missing.
    pub credential: Option<String>,
    /// Branch, tag or full reference; the default branch where it is missing.
    pub reference: Option<String>,
    /// The commit that is known already, in hex.
    pub commit: String,
}

/// What became of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It leads to that commit still.
    Unchanged,
    /// It leads to another one.
    Moved,
    /// The server has it no more, or never had it.
    Gone,
}

/// What the comparison came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// The full name of the reference, or the name that was asked for where there is none of it.
    pub reference: Option<String>,
    /// The commit that it leads to now.
    pub head: Option<String>,
    /// Whether that is another one.
    pub state: State,
}

/// The outcome of a comparison.
pub type Report = lookup::Report<Compared>;

/// Runs a comparison to its end, good or bad.
pub async fn run(request: &Request, tools: &Tools, control: &Control, log: &StageLog) -> Report {
    let since = Instant::now();
    let mut subject = Subject { url: request.target.shown(), ..Subject::default() };
    let (tools, redaction) = super::redacting(tools, log);
    let outcome = work(request, &tools, control, log, &mut subject).await;
    lookup::report(outcome, log, &subject, since, &redaction)
}

async fn work(
    request: &Request,
    tools: &Tools,
    control: &Control,
    log: &StageLog,
    subject: &mut Subject,
) -> Result<Done<Compared>, Failure> {
    let credential = request.credential.as_deref();
    let prepared = login::prepare(&request.target, credential, tools, control, log, subject).await?;
    let reached = remote::reach(prepared, request.provider, tools, control, log, subject).await?;
    let reference = request.reference.as_deref();
    let found = within_limit(control, REFERENCES_TIMEOUT, async |control| {
        git::find(&reached.remote, reference, &control, log).await
    });
    let compared = match (found.await.map_err(Failure::Stopped)?, reference) {
        // No list tells of a bare commit.
        (Ok(git::Found { name: None, .. }), Some(name)) => {
            Compared { reference: Some(name.to_owned()), head: None, state: State::Gone }
        }
        (Ok(found), _) => {
            let known = request.commit.to_ascii_lowercase();
            // Whoever knows a tag by its own object knows where it leads as well.
            let is_same = found.commit() == known || found.target == known;
            let state = if is_same { State::Unchanged } else { State::Moved };
            let head = Some(found.commit().to_owned());
            Compared { reference: found.name, head, state }
        }
        (Err(git::Error::ReferenceNotFound { .. } | git::Error::Empty), Some(name)) => {
            Compared { reference: Some(name.to_owned()), head: None, state: State::Gone }
        }
        (Err(error), _) => return Err(Failure::of_git(error, subject.provider)),
    };
    Ok(Done { found: compared, is_plain: reached.is_plain, is_empty: false })
}
