//! Each declared server with its own credential: the very connection test that a task does.
//!
//! Servers with the same credential are tested one after another, and a credential that one of them has refused is
//! not sent to the next: servers count, and accounts are locked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::secrets::used_by;
use super::{Check, Examiner, Mark, SERVER_TIMEOUT};
use crate::config::Server;
use crate::git::{Control, Transfer};
use crate::provider::Provider;
use crate::report::{Code, Diagnosis, StageLog};
use crate::task::connection_test::{Report, Request};
use crate::task::{self, TargetSpec, TaskReport};

/// How many servers are tested at once.
const AT_ONCE: usize = 4;

/// For each credential the server that has refused it. Who tests with a credential holds its lock meanwhile.
type Refused<'a> = BTreeMap<&'a str, Mutex<Option<String>>>;

/// Tests the servers of these names, and gives the checks back in the order of the names.
pub(super) async fn examine(
    examiner: &Examiner,
    names: &[String],
    deadline: Instant,
    stop: &CancellationToken,
) -> Vec<Check> {
    let declared = &examiner.config.servers;
    let credentials = declared.iter().flat_map(used_by);
    let refused: Refused<'_> = credentials.map(|name| (name, Mutex::new(None))).collect();
    let slots = Semaphore::new(AT_ONCE);
    let mut tests = FuturesOrdered::new();
    for name in names {
        tests.push_back(examine_one(examiner, name, &refused, &slots, deadline, stop));
    }
    let mut checks = Vec::new();
    while let Some(check) = tests.next().await {
        checks.push(check);
    }
    checks
}

async fn examine_one(
    examiner: &Examiner,
    name: &str,
    refused: &Refused<'_>,
    slots: &Semaphore,
    deadline: Instant,
    stop: &CancellationToken,
) -> Check {
    let Some(server) = examiner.config.servers.iter().find(|server| server.name == name) else {
        return Check::new(label(name), Mark::Failed, "the daemon's configuration declares no such server")
            .remedy("Let it read the configuration: sudo systemctl restart sortie");
    };
    // In the order of their names, so that no two tests wait for each other.
    let used: BTreeSet<_> = used_by(server).into_iter().collect();
    let mut held = BTreeMap::new();
    for credential in used {
        let Some(lock) = refused.get(credential) else { continue };
        let lock = lock.lock().await;
        if let Some(by) = lock.as_deref() {
            let summary =
                format!("its credential {credential} was refused by {by} just now, and is not sent again");
            return Check::new(label(name), Mark::Skipped, summary)
                .remedy(format!("Mend the credential {credential} first: see server:{by}."));
        }
        held.insert(credential, lock);
    }
    // The semaphore is never closed, and without a permit there would only be more tests at once.
    let _slot = slots.acquire().await;
    let report = test(examiner, server, deadline, stop).await;
    for credential in refused_credentials(server, &report) {
        if let Some(lock) = held.get_mut(credential) {
            **lock = Some(name.to_owned());
        }
    }
    judge(server, &report)
}

fn label(name: &str) -> String {
    format!("server:{name}")
}

async fn test(examiner: &Examiner, server: &Server, deadline: Instant, stop: &CancellationToken) -> Report {
    let request = Request {
        target: TargetSpec::Server { name: server.name.clone(), project: None, repository: None },
        provider: server.provider,
        credential: None,
        scope: None,
        test_repository: None,
    };
    let control = Control {
        deadline: deadline.min(Instant::now() + SERVER_TIMEOUT),
        cancel: stop.clone(),
        transfer: Arc::new(Transfer::default()),
        limits: examiner.tools.limits,
    };
    task::connection_test::run(&request, &examiner.tools, &control, &StageLog::default()).await
}

/// The server's credentials that it looked at and said no to.
fn refused_credentials<'a>(server: &'a Server, report: &Report) -> Vec<&'a str> {
    // Beside git the API's refusal is no failure: its stage keeps the code, whatever became of the test.
    let beside = report.stages.iter().filter_map(|stage| stage.facts.get("api_refused")?.as_str());
    let is_api_refused = beside.filter_map(Code::of_name).any(is_refusal);
    let is_refused = report.diagnosis.as_ref().is_some_and(|diagnosis| is_refusal(diagnosis.code));
    let api = server.api_credential.as_deref().filter(|_| is_api_refused);
    api.into_iter().chain(server.credential.as_deref().filter(|_| is_refused)).collect()
}

/// Whether the diagnosis says that a credential was looked at and not taken.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::PatRejected
            | Code::PatExpired
            | Code::PasswordRejected
            | Code::BearerRejected
            | Code::SshKeyRejected
            | Code::SignInPage
            | Code::BasicNotOffered
            | Code::IisBasicConflict
            | Code::AccountLocked
            | Code::TwoFactorRequired
            | Code::PolicyBlocksToken
    )
}

fn judge(server: &Server, report: &Report) -> Check {
    let check = match &report.diagnosis {
        Some(diagnosis) if is_no_repository(server, report, diagnosis) => {
            let summary =
                format!("{} answers; git itself was not tried: this is no repository", report.target.url);
            Check::new(label(&server.name), Mark::Warned, summary)
                .remedy(format!("Name a repository: sortie test --server {} --repository PATH", server.name))
        }
        Some(diagnosis) => {
            let summary =
                format!("{} ({}): {}", diagnosis.code.as_str(), diagnosis.stage.as_str(), diagnosis.summary);
            with_remedies(Check::new(label(&server.name), Mark::Failed, summary), diagnosis)
        }
        None => match report.warnings.first() {
            // A server's base is no repository, so that this one is told each time and calls for nothing.
            Some(warning) if report.warnings.iter().any(|warning| warning.code != Code::GitNotTried) => {
                let warning = report.warnings.iter().find(|w| w.code != Code::GitNotTried).unwrap_or(warning);
                let summary = format!("{}; {}: {}", good(report), warning.code.as_str(), warning.summary);
                with_remedies(Check::new(label(&server.name), Mark::Warned, summary), warning)
            }
            _ => Check::new(label(&server.name), Mark::Passed, good(report)),
        },
    };
    let wire = serde_json::to_value(TaskReport::Test(Box::new(report.clone())).to_wire()).ok();
    let mut check = check.fact("url", report.target.url.clone());
    if let Some(credential) = &server.credential {
        check = check.fact("credential", credential.clone());
    }
    Check { report: wire, ..check }
}

/// What a good test found, in one line.
fn good(report: &Report) -> String {
    let product = report.server.product.as_deref().unwrap_or(&report.target.url);
    let mut text = product.to_owned();
    if let Some(version) = &report.server.version {
        text = format!("{text} {version}");
    }
    match &report.identity {
        Some(name) => format!("{text}, signed in as {name}"),
        None => format!("{text} answers"),
    }
}

fn with_remedies(check: Check, diagnosis: &Diagnosis) -> Check {
    diagnosis.remedies.iter().fold(check, |check, remedy| check.remedy(remedy.as_str()))
}

/// A plain git server has no account to ask for, and neither has SSH: whoever got as far as this was let in, and the
/// base of a server is no repository.
fn is_no_repository(server: &Server, report: &Report, diagnosis: &Diagnosis) -> bool {
    let nothing_there = [Code::NotAGitServer, Code::RepositoryNotFoundOrDenied].contains(&diagnosis.code);
    let is_ssh = report.target.url.starts_with("ssh://");
    nothing_there && (is_ssh || server.provider == Some(Provider::Git))
}

/// Servers that nobody could test, because their secrets are the daemon's and it was not to be had.
pub(super) fn out_of_reach(examiner: &Examiner, names: &[String], why: &str) -> Vec<Check> {
    let servers = examiner.config.servers.iter().filter(|server| names.contains(&server.name));
    let skipped = servers.map(|server| {
        Check::new(label(&server.name), Mark::Skipped, format!("its credential is for the daemon to try, and {why}"))
            .remedy("Start the daemon, and run this again as root or as the agent's user: sudo systemctl start sortie")
            .remedy(super::secrets::with_unit_credentials(&examiner.config, server))
    });
    skipped.collect()
}
