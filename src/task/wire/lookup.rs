//! The tasks that look something up, as they come from the wire and go back to it.

use sortie_protocol::report as wire;
use sortie_protocol::task::{DEFAULT_REFERENCES, MAX_REFERENCES, TaskSpec};

use super::{Unsupported, milliseconds, outcome, wire_diagnosis, wire_stage};
use crate::git::{ListRequest, ListedReference};
use crate::provider::Provider;
use crate::task::files::{Content, FileAnswer, Kind, Source};
use crate::task::{TargetSpec, compare, files, references};

pub(super) fn references_from_wire(
    spec: &TaskSpec,
    target: TargetSpec,
    provider: Option<Provider>,
) -> references::Request {
    let limit = spec.limit.unwrap_or(DEFAULT_REFERENCES).min(MAX_REFERENCES);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    references::Request {
        target,
        provider,
        credential: spec.credential.clone(),
        wanted: ListRequest { patterns: spec.patterns.clone(), limit },
    }
}

pub(super) fn files_from_wire(
    spec: &TaskSpec,
    target: TargetSpec,
    provider: Option<Provider>,
) -> files::Request {
    files::Request {
        target,
        provider,
        credential: spec.credential.clone(),
        reference: spec.reference.clone(),
        paths: spec.paths.clone(),
    }
}

pub(super) fn compare_from_wire(
    spec: &TaskSpec,
    target: TargetSpec,
    provider: Option<Provider>,
) -> Result<compare::Request, Unsupported> {
    Ok(compare::Request {
        target,
        provider,
        credential: spec.credential.clone(),
        reference: spec.reference.clone(),
        commit: spec.commit.clone().ok_or(Unsupported { field: "commit" })?,
    })
}

pub(super) fn references_to_wire(report: &references::Report) -> wire::ReferencesReport {
    let found = report.found.as_ref();
    let summary = found.map(|found| &found.summary);
    let branch = summary.and_then(|summary| summary.head_branch.as_deref());
    wire::ReferencesReport {
        outcome: outcome(report.diagnosis.as_ref()),
        default_branch: branch.map(|name| name.strip_prefix("refs/heads/").unwrap_or(name).to_owned()),
        head: summary.and_then(|summary| summary.head.clone()),
        total: found.map_or(0, |found| found.total),
        truncated: found.is_some_and(|found| found.truncated),
        references: found
            .map(|found| found.references.iter().map(wire_reference).collect())
            .unwrap_or_default(),
        duration_ms: milliseconds(report.duration),
        stages: report.stages.iter().map(wire_stage).collect(),
        warnings: report.warnings.iter().map(wire_diagnosis).collect(),
        diagnosis: report.diagnosis.as_ref().map(wire_diagnosis),
    }
}

fn wire_reference(reference: &ListedReference) -> wire::Reference {
    wire::Reference {
        name: reference.name.clone(),
        target: reference.target.clone(),
        peeled: reference.peeled.clone(),
    }
}

pub(super) fn files_to_wire(report: &files::Report) -> wire::FilesReport {
    let found = report.found.as_ref();
    wire::FilesReport {
        outcome: outcome(report.diagnosis.as_ref()),
        commit: found.map(|found| found.commit.clone()),
        reference: found.and_then(|found| found.reference.clone()),
        source: found.map(|found| match found.source {
            Source::Api => wire::FilesSource::Api,
            Source::Git => wire::FilesSource::Git,
        }),
        files: found.map(|found| found.files.iter().map(wire_file).collect()).unwrap_or_default(),
        missing: found.map(|found| found.missing.clone()).unwrap_or_default(),
        duration_ms: milliseconds(report.duration),
        stages: report.stages.iter().map(wire_stage).collect(),
        warnings: report.warnings.iter().map(wire_diagnosis).collect(),
        diagnosis: report.diagnosis.as_ref().map(wire_diagnosis),
    }
}

pub(super) fn wire_file(file: &FileAnswer) -> wire::FileContent {
    let (encoding, content) = match &file.content {
        Some(Content::Text(text)) => (Some(wire::Encoding::Utf8), Some(text.clone())),
        Some(Content::Base64(text)) => (Some(wire::Encoding::Base64), Some(text.clone())),
        None => (None, None),
    };
    wire::FileContent {
        path: file.path.clone(),
        kind: match file.kind {
            Kind::File => wire::FileKind::File,
            Kind::Executable => wire::FileKind::Executable,
            Kind::Symlink => wire::FileKind::Symlink,
            Kind::Directory => wire::FileKind::Directory,
            Kind::Submodule => wire::FileKind::Submodule,
        },
        bytes: file.measures.as_ref().map(|(bytes, _)| *bytes),
        sha256: file.measures.as_ref().map(|(_, sha256)| sha256.clone()),
        encoding,
        content,
        lfs_pointer: file.is_lfs_pointer,
    }
}

/// `asked` is the commit of the request, which stands in the answer however it went.
pub(super) fn compare_to_wire(report: &compare::Report, asked: &str) -> wire::CompareReport {
    let found = report.found.as_ref();
    wire::CompareReport {
        outcome: outcome(report.diagnosis.as_ref()),
        reference: found.and_then(|found| found.reference.clone()),
        commit: asked.to_owned(),
        head: found.and_then(|found| found.head.clone()),
        state: found.map(|found| match found.state {
            compare::State::Unchanged => wire::Moved::Unchanged,
            compare::State::Moved => wire::Moved::Moved,
            compare::State::Gone => wire::Moved::Gone,
        }),
        // The list of references does not tell, and nothing is fetched for it.
        ahead: None,
        duration_ms: milliseconds(report.duration),
        stages: report.stages.iter().map(wire_stage).collect(),
        warnings: report.warnings.iter().map(wire_diagnosis).collect(),
        diagnosis: report.diagnosis.as_ref().map(wire_diagnosis),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;
    use sortie_protocol::AttemptId;
    use sortie_protocol::report::TaskOutput;

    use super::*;
    use crate::report::{Code, Diagnosis, Stage, StageLog};
    use crate::task::{Task, TaskReport, from_wire};

    fn taken(json: serde_json::Value) -> Task {
        let spec: TaskSpec = serde_json::from_value(json).unwrap();
        spec.validate().unwrap();
        from_wire(&spec, &AttemptId { task_id: "../0192-ab".into(), attempt: 2 }).unwrap()
    }

    fn all() -> [Task; 3] {
        let url = "https://a/b";
        [
            taken(json!({"kind": "references", "url": url, "patterns": ["refs/tags/*"]})),
            taken(json!({"kind": "files", "url": url, "reference": "main", "paths": ["a/b"]})),
            taken(json!({"kind": "compare", "url": url, "commit": "a".repeat(40), "credential": "pat"})),
        ]
    }

    #[test]
    fn tasks_come_in_with_everything_that_they_name() {
        let [Task::References(list), Task::Files(files), Task::Compare(compare)] = all() else {
            panic!("the kinds")
        };
        assert_eq!(list.wanted, ListRequest { patterns: vec!["refs/tags/*".into()], limit: 1000 });
        assert_eq!((files.reference.as_deref(), files.paths), (Some("main"), vec!["a/b".to_owned()]));
        assert_eq!((compare.credential.as_deref(), compare.commit.len()), (Some("pat"), 40));
    }

    #[test]
    fn a_task_that_came_to_nothing_has_a_report_of_its_own_kind() {
        for task in all() {
            let diagnosis = Diagnosis::new(Code::ServerNotDeclared, Stage::Policy, "", vec![]);
            let output = TaskReport::failed(&task, diagnosis, &StageLog::default()).to_wire();
            let json = serde_json::to_value(&output).unwrap();
            assert_eq!(json["schema"], format!("sortie.{}.v1", task.kind()));
            assert_eq!(json["outcome"], "failed");
            assert_eq!(serde_json::from_value::<TaskOutput>(json).unwrap(), output);
            assert_eq!(output.diagnosis().unwrap().code, "server_not_declared");
        }
    }
}
