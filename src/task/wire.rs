//! The edge to the wire: its tasks come in as ours, our reports go out as its own.

mod lookup;

use std::fmt::Write as _;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use sortie_protocol::artifact::Artifact;
use sortie_protocol::report as wire;
use sortie_protocol::task as wire_task;
use sortie_protocol::task::{Deliver, TaskKind, TaskSpec};
use sortie_protocol::{AttemptId, report::TaskOutput};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::connection_test::Capability;
use super::submodules::{Submodules, Which};
use super::{TargetSpec, Task, TaskReport, clone, connection_test};
use crate::artifact::Uploaded;
use crate::git::{ArchiveFormat, Source, Want};
use crate::provider::{Provider, Scope};
use crate::report::{Diagnosis, StageRecord, Status};

/// What of a task's identifier goes into the name of a workspace's directory, in bytes.
const MAX_WORKSPACE_NAME_BYTES: usize = 128;

/// How much of a digest tells apart what the same name would be made of, in bytes.
const WORKSPACE_DIGEST_BYTES: usize = 8;

/// A task asks for something that this version cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this agent does not support `{field}` as the task sets it")]
pub struct Unsupported {
    /// The field's name as in JSON.
    pub field: &'static str,
}

/// Takes a task over from the wire.
///
/// # Errors
/// [`Unsupported`] names the first field that asks for something that this version cannot do.
pub fn from_wire(spec: &TaskSpec, attempt: &AttemptId) -> Result<Task, Unsupported> {
    let target = match (&spec.url, &spec.server) {
        (Some(url), None) => TargetSpec::Url(url.clone()),
        (None, Some(name)) => TargetSpec::Server {
            name: name.clone(),
            project: spec.project.clone(),
            repository: spec.repository.clone(),
        },
        _ => return Err(Unsupported { field: "url" }),
    };
    let provider = spec.provider.map(provider_from_wire);
    match spec.kind {
        TaskKind::ConnectionTest => Ok(Task::ConnectionTest(connection_test::Request {
            target,
            provider,
            credential: spec.credential.clone(),
            scope: spec.scope.map(scope_from_wire),
            test_repository: spec.test_repository.clone(),
        })),
        TaskKind::Clone => Ok(Task::Clone(clone::Request {
            target,
            provider,
            credential: spec.credential.clone(),
            want: Want {
                reference: spec.reference.clone(),
                depth: spec.depth,
                all_branches: spec.all_branches == Some(true),
                tags: spec.tags == Some(true),
            },
            paths: spec.paths.iter().map(|path| path.trim_matches('/').to_owned()).collect(),
            lfs: spec.lfs == Some(true),
            submodules: clone_submodules(spec),
            destination: destination(spec, attempt),
        })),
        TaskKind::References => Ok(Task::References(lookup::references_from_wire(spec, target, provider))),
        TaskKind::Files => Ok(Task::Files(lookup::files_from_wire(spec, target, provider))),
        TaskKind::Compare => Ok(Task::Compare(lookup::compare_from_wire(spec, target, provider)?)),
    }
}

fn destination(spec: &TaskSpec, attempt: &AttemptId) -> clone::Destination {
    let delivered = || clone::Attempt { task_id: attempt.task_id.clone(), number: attempt.attempt };
    match spec.deliver {
        None | Some(Deliver::Workspace) => clone::Destination::Workspace {
            name: workspace_name(attempt),
            directory: spec.directory.as_ref().map(Into::into),
        },
        Some(Deliver::None) => clone::Destination::Nowhere,
        Some(Deliver::Archive) => {
            let format = match spec.archive_format {
                None | Some(wire_task::ArchiveFormat::TarZst) => ArchiveFormat::TarZst,
                Some(wire_task::ArchiveFormat::Zip) => ArchiveFormat::Zip,
            };
            clone::Destination::Archive(format, delivered())
        }
        Some(Deliver::Bundle) => clone::Destination::Bundle(delivered()),
        Some(Deliver::Files) => clone::Destination::Inline,
    }
}

fn clone_submodules(spec: &TaskSpec) -> Submodules {
    let named = |path: &String| path.trim_matches('/').to_owned();
    let which = match &spec.submodules {
        None | Some(wire_task::Submodules::All(false)) => Which::Nothing,
        Some(wire_task::Submodules::All(true)) => Which::All,
        Some(wire_task::Submodules::Named(paths)) => Which::Named(paths.iter().map(named).collect()),
    };
    Submodules { which, skip_refused: spec.skip_refused_submodules == Some(true) }
}

/// A name for the attempt's directory and notes, which no other attempt has. The identifier comes from the control
/// plane, which must not be able to leave the directory of workspaces with it. One that no name can be made of without
/// a change is told from others by its digest, behind a character that names of unchanged ones do not have.
pub(super) fn workspace_name(attempt: &AttemptId) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    let id: String = attempt.task_id.chars().map(safe).take(MAX_WORKSPACE_NAME_BYTES).collect();
    let number = attempt.attempt;
    if id == attempt.task_id && !id.is_empty() {
        return format!("{id}-{number}");
    }
    let digest = digest(&SHA256, attempt.task_id.as_bytes());
    let digest = digest.as_ref().iter().take(WORKSPACE_DIGEST_BYTES).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    format!("{}.{digest}-{number}", if id.is_empty() { "task" } else { &id })
}

fn provider_from_wire(provider: wire_task::Provider) -> Provider {
    match provider {
        wire_task::Provider::AzureDevops => Provider::AzureDevops,
        wire_task::Provider::Gitlab => Provider::Gitlab,
        wire_task::Provider::Git => Provider::Git,
    }
}

fn provider_to_wire(provider: Provider) -> wire_task::Provider {
    match provider {
        Provider::AzureDevops => wire_task::Provider::AzureDevops,
        Provider::Gitlab => wire_task::Provider::Gitlab,
        Provider::Git => wire_task::Provider::Git,
    }
}

fn scope_from_wire(scope: wire_task::Scope) -> Scope {
    match scope {
        wire_task::Scope::Account => Scope::Account,
        wire_task::Scope::Project => Scope::Project,
        wire_task::Scope::Repository => Scope::Repository,
    }
}

fn scope_to_wire(scope: Scope) -> wire_task::Scope {
    match scope {
        Scope::Account => wire_task::Scope::Account,
        Scope::Project => wire_task::Scope::Project,
        Scope::Repository => wire_task::Scope::Repository,
    }
}

impl TaskReport {
    /// The report as it travels and as `--json` prints it.
    pub fn to_wire(&self) -> TaskOutput {
        match self {
            Self::Test(report) => TaskOutput::Report(Box::new(test_to_wire(report))),
            Self::Clone(report) => TaskOutput::Clone(Box::new(clone_to_wire(report))),
            Self::References(report) => TaskOutput::References(Box::new(lookup::references_to_wire(report))),
            Self::Files(report) => TaskOutput::Files(Box::new(lookup::files_to_wire(report))),
            Self::Compare(report, asked) => {
                TaskOutput::Compare(Box::new(lookup::compare_to_wire(report, asked)))
            }
        }
    }
}

fn test_to_wire(report: &connection_test::Report) -> wire::Report {
    let repository = report.repository.as_ref();
    wire::Report {
        started_at: timestamp(report.started_at),
        duration_ms: milliseconds(report.duration),
        outcome: outcome(report.diagnosis.as_ref()),
        target: wire::Target {
            url: report.target.url.clone(),
            provider: report.target.provider.map(provider_to_wire),
            scope: report.target.scope.map(scope_to_wire),
        },
        server: wire::Server {
            product: report.server.product.clone(),
            version: report.server.version.clone(),
            api_version: report.server.api_version.clone(),
        },
        identity: wire::Identity { name: report.identity.clone() },
        credential: wire::Credential {
            kind: report.credential.kind.map(|kind| kind.as_str().to_owned()),
            expires_at: report.credential.expires_at.clone(),
            scopes: report.credential.scopes.clone(),
            missing_scopes: report.credential.missing_scopes.clone(),
        },
        capabilities: wire::Capabilities {
            read_code: capability(report.capabilities.read_code),
            read_projects: capability(report.capabilities.read_projects),
            set_status: capability(report.capabilities.set_status),
            manage_hooks: capability(report.capabilities.manage_hooks),
        },
        repository: wire::Repository {
            default_branch: repository.and_then(|repository| repository.default_branch.clone()),
            head: repository.and_then(|repository| repository.head.clone()),
            references: repository.and_then(|repository| repository.references),
            empty: repository.and_then(|repository| repository.references).map(|count| count == 0),
        },
        stages: report.stages.iter().map(wire_stage).collect(),
        warnings: report.warnings.iter().map(wire_diagnosis).collect(),
        diagnosis: report.diagnosis.as_ref().map(wire_diagnosis),
    }
}

fn clone_to_wire(report: &clone::Report) -> wire::CloneReport {
    wire::CloneReport {
        outcome: outcome(report.diagnosis.as_ref()),
        commit: report.commit.clone(),
        reference: report.reference.clone(),
        source: report.source.map(|source| match source {
            Source::Origin => wire::CloneSource::Origin,
            Source::Mirror => wire::CloneSource::Mirror,
        }),
        received_bytes: report.received_bytes,
        received_objects: report.received_objects,
        files: report.files,
        lfs_pointers: report.lfs_pointers,
        submodules: report.submodules.clone(),
        path: report.path.as_ref().map(|path| path.to_string_lossy().into_owned()),
        artifact: report.artifact.as_ref().map(artifact_to_wire),
        duration_ms: milliseconds(report.duration),
        stages: report.stages.iter().map(wire_stage).collect(),
        warnings: report.warnings.iter().map(wire_diagnosis).collect(),
        diagnosis: report.diagnosis.as_ref().map(wire_diagnosis),
        contents: report.contents.iter().map(lookup::wire_file).collect(),
        missing: report.missing.clone(),
    }
}

fn artifact_to_wire(uploaded: &Uploaded) -> Artifact {
    Artifact {
        id: uploaded.id.clone(),
        file_name: uploaded.file_name.clone(),
        media_type: uploaded.media_type.clone(),
        bytes: uploaded.bytes,
        sha256: uploaded.sha256.clone(),
        expires_at: uploaded.expires_at.clone(),
    }
}

fn outcome(diagnosis: Option<&Diagnosis>) -> wire::ReportOutcome {
    if diagnosis.is_some() { wire::ReportOutcome::Failed } else { wire::ReportOutcome::Succeeded }
}

/// A diagnosis in the wire's form.
pub fn wire_diagnosis(diagnosis: &Diagnosis) -> wire::Diagnosis {
    wire::Diagnosis {
        code: diagnosis.code.as_str().to_owned(),
        stage: diagnosis.stage.as_str().to_owned(),
        summary: diagnosis.summary.clone(),
        remedies: diagnosis.remedies.clone(),
    }
}

/// A stage in the wire's form.
pub fn wire_stage(record: &StageRecord) -> wire::Stage {
    wire::Stage {
        stage: record.stage.as_str().to_owned(),
        status: match record.status {
            Status::Passed => wire::StageStatus::Passed,
            Status::Warned => wire::StageStatus::Warned,
            Status::Failed => wire::StageStatus::Failed,
            Status::Skipped => wire::StageStatus::Skipped,
        },
        duration_ms: milliseconds(record.duration),
        facts: record.facts.clone(),
    }
}

fn capability(capability: Capability) -> wire::Capability {
    match capability {
        Capability::Yes => wire::Capability::Yes,
        Capability::No => wire::Capability::No,
        Capability::Unknown => wire::Capability::Unknown,
    }
}

/// Milliseconds, rounded to a thousandth: what is finer is noise.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// RFC 3339 in UTC, to the second.
fn timestamp(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn spec(json: &str) -> TaskSpec {
        serde_json::from_str(json).unwrap()
    }

    fn attempt(task_id: &str) -> AttemptId {
        AttemptId { task_id: task_id.into(), attempt: 2 }
    }

    #[test]
    fn a_workspace_is_named_by_its_attempt_and_stays_in_its_directory() {
        let task = from_wire(&spec(r#"{"kind":"clone","url":"https://a/b"}"#), &attempt("0192-ab")).unwrap();
        let Task::Clone(request) = task else { panic!("a clone") };
        assert_eq!(
            request.destination,
            clone::Destination::Workspace { name: "0192-ab-2".into(), directory: None }
        );
        assert_eq!(workspace_name(&attempt("../../etc")), "______etc.74ccf3c5b4c19a81-2");
        assert_eq!(workspace_name(&attempt("")), "task.e3b0c44298fc1c14-2");
    }

    #[test]
    fn no_two_attempts_have_one_name() {
        let long = "x".repeat(MAX_WORKSPACE_NAME_BYTES);
        let ids = ["a_b", "a.b", "a/b", "", "task", "_", &long, &format!("{long}y"), &format!("{long}z")];
        let names: BTreeSet<String> = ids.iter().map(|id| workspace_name(&attempt(id))).collect();
        assert_eq!(names.len(), ids.len(), "{names:?}");
        // What a changed one is called is a changed one itself.
        let taken = workspace_name(&attempt("a.b"));
        assert_ne!(workspace_name(&attempt(taken.strip_suffix("-2").unwrap())), taken);
        assert!(names.iter().all(|name| name.len() < 160), "{names:?}");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let field = |rest: &str| {
            let json = format!(r#"{{"kind":"clone","url":"https://a/b",{rest}}}"#);
            from_wire(&spec(&json), &attempt("t")).err().map(|error| error.field)
        };
        assert_eq!(field(r#""deliver":"workspace""#), None);
    }

    #[test]
    fn durations_have_microseconds_and_times_are_utc() {
        assert!((milliseconds(Duration::from_nanos(1_234_567)) - 1.235).abs() < 1e-9);
        let time = OffsetDateTime::from_unix_timestamp(1_795_233_600).unwrap();
        assert_eq!(timestamp(time + Duration::from_millis(250)), "2026-11-21T04:00:00Z");
    }
}
