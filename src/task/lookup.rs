//! What the tasks that look something up have in common: their report, and how it comes about.

use std::time::{Duration, Instant};

use super::diagnose::{self, Failure, Subject};
use super::stages;
use crate::report::{Code, Diagnosis, Stage, StageLog, StageRecord};
use crate::secret::Redaction;

/// The outcome of a task that looks something up.
#[derive(Debug, Clone)]
pub struct Report<T> {
    /// What was found; `None` where the task failed.
    pub found: Option<T>,
    /// How long it took.
    pub duration: Duration,
    /// The stages in their order.
    pub stages: Vec<StageRecord>,
    /// What works and should still be looked at.
    pub warnings: Vec<Diagnosis>,
    /// Why it failed.
    pub diagnosis: Option<Diagnosis>,
}

impl<T> Report<T> {
    /// The report of a task that ended before it could report.
    pub(super) fn failed(diagnosis: Diagnosis, stages: Vec<StageRecord>) -> Self {
        Self {
            found: None,
            duration: Duration::ZERO,
            stages,
            warnings: Vec::new(),
            diagnosis: Some(diagnosis),
        }
    }
}

/// What was found, with what there is to warn about.
pub(super) struct Done<T> {
    pub(super) found: T,
    /// Whether everything went over the line as it is.
    pub(super) is_plain: bool,
    /// Whether the repository has nothing in it.
    pub(super) is_empty: bool,
}

/// Makes a report of what came of the work. No secret of the task's is in it but for what was found.
pub(super) fn report<T>(
    outcome: Result<Done<T>, Failure>,
    log: &StageLog,
    subject: &Subject,
    since: Instant,
    redaction: &Redaction,
) -> Report<T> {
    let mut report = match outcome {
        Ok(done) => succeeded(done, log),
        Err(failed) => {
            let stage = failed.stage(log.current());
            let stages = stages::failed(log, stage, &[]);
            Report::failed(diagnose::failure(&failed, stage, subject), stages)
        }
    };
    report.duration = since.elapsed();
    let diagnoses = report.diagnosis.iter_mut().chain(&mut report.warnings);
    diagnoses.for_each(|diagnosis| diagnosis.redact(redaction));
    report
}

fn succeeded<T>(done: Done<T>, log: &StageLog) -> Report<T> {
    let mut warnings = Vec::new();
    let mut warn = |code, stage| {
        log.warn_at(stage);
        warnings.push(Diagnosis::new(code, stage, "", vec![]));
    };
    if done.is_plain {
        warn(Code::PlainHttp, Stage::Connect);
    }
    if done.is_empty {
        warn(Code::RepositoryEmpty, Stage::References);
    }
    let stages = stages::succeeded(log);
    Report { found: Some(done.found), duration: Duration::ZERO, stages, warnings, diagnosis: None }
}
