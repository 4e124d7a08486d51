//! The connection test: from policy to the list of references, stage by stage, and a report about each.
//!
//! The stages measure what a task would do later with the same target and credential. A credential that was
//! refused is not sent again: the test ends there.

mod azure_devops;
mod beside;
mod channel;
mod gitlab;
mod https;
mod reach;
mod report;
mod slow;
mod ssh;

use std::time::Instant;

use time::OffsetDateTime;

use super::diagnose::{self, Failure, Subject};
use super::login::Prepared;
use super::stop::{REFERENCES_TIMEOUT, within_limit};
use super::{TargetSpec, Tools, stages};
use crate::git::{self, Control, Remote, Summary};
use crate::provider;
use crate::provider::rest::{MAX_TEXT_CHARS, shown};
use crate::provider::{Place, Provider, ProviderError, Scope};
use crate::remote_url::RemoteUrl;
use crate::report::{Code, Stage, StageLog, StageRecord};

pub use channel::CLOCK_WARNING_SECONDS;
pub use report::{
    Capabilities, Capability, CredentialFacts, Report, RepositoryFacts, ServerFacts, TargetFacts,
};

/// How many days before its end a token or a certificate is warned about.
pub const EXPIRY_WARNING_DAYS: i64 = 30;

/// A connection test as it was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is tested.
    pub target: TargetSpec,
    /// The kind of server; found by looking where it is missing.
    pub provider: Option<Provider>,
    /// The name of the credential; the server's own where it is missing.
    pub credential: Option<String>,
    /// What the target is, where the URL alone must not decide.
    pub scope: Option<Scope>,
    /// The repository to read where the target is an account or a project.
    pub test_repository: Option<String>,
}

/// Runs a test to its end, good or bad.
pub async fn run(request: &Request, tools: &Tools, control: &Control, log: &StageLog) -> Report {
    let (started_at, since) = (OffsetDateTime::now_utc(), Instant::now());
    let mut report = Report::new(&request.target, started_at);
    report.target.provider = request.provider;
    let subject =
        Subject { url: report.target.url.clone(), provider: request.provider, ..Subject::default() };
    let planned = Vec::new();
    let (tools, redaction) = super::redacting(tools, log);
    let mut test = Test {
        request,
        tools: &tools,
        control,
        log,
        report,
        subject,
        planned,
        declared: None,
        list_too_long: false,
        was_challenged: false,
        api_accepted: false,
        refused: Vec::new(),
        refused_beside: None,
        other_way: Vec::new(),
    };
    // Everything that a test may come to lives in this future, and whoever runs it need not carry its size.
    let outcome = Box::pin(test.work()).await;
    let mut report = test.finish(outcome, since);
    report.redact(&redaction);
    report
}

/// A test while it runs.
struct Test<'a> {
    request: &'a Request,
    tools: &'a Tools,
    control: &'a Control,
    log: &'a StageLog,
    report: Report,
    subject: Subject,
    /// The stages that apply, as far as the target is known.
    planned: Vec<Stage>,
    /// What policy admitted, once it is known what it means to the server.
    declared: Option<reach::Declared>,
    /// Whether there were more repositories to choose from than an answer may hold.
    list_too_long: bool,
    /// Whether the server asked for a credential when it was asked without one.
    was_challenged: bool,
    /// Whether the API has accepted the credential, so that a later refusal is one of scope.
    api_accepted: bool,
    /// What the API refused to the credential that it had accepted.
    refused: Vec<Refused>,
    /// Why the API was of no use beside git with a credential of its own.
    refused_beside: Option<beside::RefusedBeside>,
    /// The stages of the API where git goes another way.
    other_way: Vec<StageRecord>,
}

/// A call that was refused to somebody who is signed in.
struct Refused {
    stage: Stage,
    /// What was asked for, as the subject of a sentence.
    call: &'static str,
    scopes: Vec<String>,
    said: Option<String>,
}

impl Refused {
    fn seen(&self) -> String {
        let mut seen = match self.scopes.first() {
            Some(scope) => format!("{} needs the scope {scope}", self.call),
            None => format!("{} was refused", self.call),
        };
        if let Some(said) = &self.said {
            seen += &format!("; it says `{}`", said.trim_end_matches('.'));
        }
        seen
    }
}

impl Test<'_> {
    async fn work(&mut self) -> Result<(), Failure> {
        let prepared = self.prepare().await?;
        if prepared.target.is_ssh() { self.over_ssh(prepared).await } else { self.over_https(prepared).await }
    }

    async fn prepare(&mut self) -> Result<Prepared, Failure> {
        let credential = self.request.credential.as_deref();
        let prepared = super::login::prepare(
            &self.request.target,
            credential,
            self.tools,
            self.control,
            self.log,
            &mut self.subject,
        )
        .await;
        self.report.target.url = self.subject.url.clone();
        self.report.credential.kind = self.subject.kind;
        // What policy admitted is known by its declaration, although its credential cannot be had.
        if prepared.is_err()
            && let Ok(target) = self.request.target.resolve(&self.tools.policy)
        {
            self.expect_place(&target, self.subject.provider);
        }
        prepared
    }

    fn set_place(&mut self, place: &Place) {
        self.subject.provider = Some(place.provider());
        self.report.target.provider = Some(place.provider());
        self.report.target.scope = Some(place.scope());
        let url = match place {
            Place::AzureDevops(place) => place.git_url(),
            Place::Gitlab(place) => {
                RemoteUrl::parse(&self.subject.url).ok().and_then(|url| place.without_page(&url))
            }
            Place::Git(_) => None,
        };
        if let Some(url) = url {
            self.report.target.url = url.to_string();
            self.subject.url = url.to_string();
        }
    }

    /// Notes a refusal to somebody who is signed in, which counts only if git is refused as well; every other
    /// error is the end.
    fn note_refusal<T>(
        &mut self,
        stage: Stage,
        call: &'static str,
        result: Result<T, ProviderError>,
    ) -> Result<Option<T>, Failure> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(ProviderError::Forbidden { scopes, said }) => {
                self.refused.push(Refused { stage, call, scopes, said });
                Ok(None)
            }
            Err(error) => Err(Failure::Provider(error)),
        }
    }

    /// Lists the references by git: the proof that the repository can be read.
    async fn read_references(&mut self, remote: &Remote, git_scope: &str) -> Result<(), Failure> {
        let listed = within_limit(self.control, REFERENCES_TIMEOUT, async |control| {
            git::summarize(remote, &control, self.log).await
        });
        match listed.await.map_err(Failure::Stopped)? {
            Ok(summary) => {
                self.log.pass();
                self.take_references(&summary);
                Ok(())
            }
            Err(error) if self.is_no_git_server(&error) => {
                self.report.target.provider = None;
                Err(Failure::Provider(ProviderError::NotThisServer {
                    expected: Provider::Git,
                    path: format!("{}/info/refs", remote.url.path()),
                    status: error.status().unwrap_or_default(),
                }))
            }
            Err(error) => {
                match Failure::of_git(error, self.subject.provider) {
                    Failure::Git(
                        git::Error::Unauthorized { body, .. } | git::Error::Forbidden { body, .. },
                    ) if self.api_accepted => Err(self.scope_missing(git_scope, Some(body))),
                    failed => Err(failed),
                }
            }
        }
    }

    /// Whether nothing speaks for a git server but that nothing spoke for another: nobody named the kind, no
    /// credential was ever asked for, and git got what any web server has for a path that it does not know.
    fn is_no_git_server(&self, error: &git::Error) -> bool {
        let is_assumed = self.subject.provider == Some(Provider::Git)
            && self.request.provider.is_none()
            && self.declared.as_ref().is_some_and(|declared| declared.server.provider.is_none());
        is_assumed && !self.was_challenged && error.is_of_web_server()
    }

    /// The scope that git needs, and those that the API missed before.
    fn scope_missing(&mut self, needed: &str, said: Option<String>) -> Failure {
        let mut scopes = vec![needed.to_owned()];
        let refused: Vec<_> = std::mem::take(&mut self.refused);
        let mut said = said.filter(|said| !said.is_empty());
        for refused in refused {
            said = refused.said.or(said);
            // Of several scopes that would do, the first that is not there yet.
            scopes.extend(refused.scopes.into_iter().filter(|scope| scope.starts_with("vso.")));
        }
        scopes.sort();
        scopes.dedup();
        Failure::ScopeMissing { scopes, said }
    }

    fn take_references(&mut self, summary: &Summary) {
        let branch = summary.head_branch.as_deref();
        let api_branch = self.report.repository.take().and_then(|repository| repository.default_branch);
        let default_branch =
            branch.map(|branch| shown(branch.strip_prefix("refs/heads/").unwrap_or(branch), MAX_TEXT_CHARS));
        self.report.repository = Some(RepositoryFacts {
            default_branch: default_branch.or(api_branch),
            head: summary.head.clone(),
            references: Some(summary.references),
        });
        self.report.capabilities.read_code = Capability::Yes;
        if summary.references == 0 {
            self.warn(Code::RepositoryEmpty, Stage::References, "", vec![]);
        }
        for refused in std::mem::take(&mut self.refused) {
            self.warn(Code::ApiRefused, refused.stage, &refused.seen(), vec![]);
        }
        if let Some(refused) = self.refused_beside.take() {
            self.warn(Code::ApiRefused, refused.stage, &refused.reason, refused.remedies);
        }
    }

    fn warn(&mut self, code: Code, stage: Stage, seen: &str, remedies: Vec<String>) {
        self.log.warn_at(stage);
        self.warn_other_way(stage);
        self.report.warnings.push(diagnose::advised(code, stage, seen, remedies, &self.subject));
    }

    /// Names the slowest stage of a test that succeeded, where it is unusual.
    fn warn_if_slow(&mut self) {
        self.log.pass();
        let records = self.log.records();
        let Some(slow) = slow::slowest(&records) else { return };
        let (took, usual) = (slow.duration.as_secs_f64(), slow::threshold(slow.stage).as_secs());
        let stage = slow.stage.as_str();
        let seen = format!("{stage} took {took:.1} s, where less than {usual} s is usual");
        self.warn(Code::Slow, slow.stage, &seen, vec![slow::usual_reason(slow.stage).to_owned()]);
    }

    fn finish(mut self, outcome: Result<(), Failure>, since: Instant) -> Report {
        match outcome {
            Ok(()) => {
                self.warn_if_slow();
                self.report.stages = stages::succeeded(self.log);
            }
            Err(failed) => {
                let stage = failed.stage(self.log.current());
                self.report.stages = stages::failed(self.log, stage, &self.planned);
                self.report.diagnosis = Some(diagnose::failure(&failed, stage, &self.subject));
                if let Failure::ScopeMissing { scopes, .. } = failed {
                    if scopes.iter().any(|scope| is_for_code(scope)) {
                        self.report.capabilities.read_code = Capability::No;
                    }
                    self.report.credential.missing_scopes = scopes;
                }
            }
        }
        self.report.stages = stages::with_other_way(self.report.stages, self.other_way);
        self.report.duration = since.elapsed();
        self.report
    }
}

/// Whether a scope is one that lets a token read code, by either provider's name for it.
fn is_for_code(scope: &str) -> bool {
    // Azure DevOps names the broader ones after the least: vso.code_write, vso.code_manage, vso.code_full.
    scope.starts_with(provider::azure_devops::SCOPE_CODE) || provider::gitlab::SCOPES_GIT.contains(&scope)
}
