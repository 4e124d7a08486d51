//! Each declared server with its own credential: the very connection test that a task does.
//!
//! Servers with the same credential are tested one after another, and a credential that one of them has refused is
//! not sent to the next: servers count, and accounts are locked.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Check, Examiner, Mark, SERVER_TIMEOUT};
use crate::config::Server;
use crate::git::{Control, Transfer};
use crate::provider::Provider;
use crate::report::{Code, Diagnosis, Stage, StageLog};
use crate::task::connection_test::{Report, Request};
use crate::task::{self, TargetSpec, TaskReport};

/// How many servers are tested at once.
const AT_ONCE: usize = 4;

/// Tests the servers of these names, and gives the checks back in the order of the names.
pub(super) async fn examine(
    examiner: &Examiner,
    names: &[String],
    deadline: Instant,
    stop: &CancellationToken,
) -> Vec<Check> {
    let mut groups: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for name in names {
        let server = examiner.config.servers.iter().find(|server| server.name == *name);
        let credential = server.and_then(|server| server.credential.as_ref());
        // No name of a credential has a colon.
        let group = credential.map_or_else(|| format!("anonymous:{name}"), Clone::clone);
        groups.entry(group).or_default().push(name);
    }
    let slots = Semaphore::new(AT_ONCE);
    let mut tests = FuturesUnordered::new();
    for group in groups.into_values() {
        tests.push(test_group(examiner, group, &slots, deadline, stop));
    }
    let mut checks = BTreeMap::new();
    while let Some(done) = tests.next().await {
        checks.extend(done);
    }
    names.iter().filter_map(|name| checks.remove(name)).collect()
}

async fn test_group(
    examiner: &Examiner,
    names: Vec<&String>,
    slots: &Semaphore,
    deadline: Instant,
    stop: &CancellationToken,
) -> Vec<(String, Check)> {
    // The semaphore is never closed, and without a permit the tests would only be more at once.
    let _slot = slots.acquire().await;
    let mut refused_by: Option<&String> = None;
    let mut checks = Vec::new();
    for name in names {
        let check = match (examiner.config.servers.iter().find(|server| server.name == *name), refused_by) {
            (None, _) => {
                Check::new(label(name), Mark::Failed, "the daemon's configuration declares no such server")
                    .remedy("Let it read the configuration: sudo systemctl restart sortie")
            }
            (Some(_), Some(by)) => {
                let summary = format!("its credential was refused by {by} just now, and is not sent again");
                Check::new(label(name), Mark::Skipped, summary)
                    .remedy(format!("Mend the credential at {by} first."))
            }
            (Some(server), None) => {
                let report = test(examiner, server, deadline, stop).await;
                if is_credential_refused(&report) {
                    refused_by = Some(name);
                }
                judge(server, &report)
            }
        };
        checks.push((name.clone(), check));
    }
    checks
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

fn is_credential_refused(report: &Report) -> bool {
    let loading = [Code::CredentialMissing, Code::CredentialUnreadable, Code::CredentialKindMismatch];
    report
        .diagnosis
        .as_ref()
        .is_some_and(|diagnosis| diagnosis.stage == Stage::Authenticate && !loading.contains(&diagnosis.code))
}

fn judge(server: &Server, report: &Report) -> Check {
    let check = match &report.diagnosis {
        Some(diagnosis) if is_base_of_plain_git(server, diagnosis) => {
            let summary =
                format!("{} answers; git itself was not tried: its URL is no repository", report.target.url);
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

/// A plain git server has no account to ask for: below its base there are repositories, and the base is none.
fn is_base_of_plain_git(server: &Server, diagnosis: &Diagnosis) -> bool {
    let nothing_there = [Code::NotAGitServer, Code::RepositoryNotFoundOrDenied];
    server.provider == Some(Provider::Git) && nothing_there.contains(&diagnosis.code)
}

/// Servers that nobody could test, because their secrets are the daemon's and it was not to be had.
pub(super) fn out_of_reach(examiner: &Examiner, names: &[String], why: &str) -> Vec<Check> {
    let servers = examiner.config.servers.iter().filter(|server| names.contains(&server.name));
    let skipped = servers.map(|server| {
        Check::new(label(&server.name), Mark::Skipped, format!("only the daemon can read its credential, and {why}"))
            .remedy("Start the daemon, and run this again as root or as the agent's user: sudo systemctl start sortie")
            .remedy(super::secrets::with_unit_credentials(&examiner.config, server))
    });
    skipped.collect()
}
