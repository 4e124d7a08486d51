//! One unit of work from its request to its report: the only edge between the wire and the daemon's own words.
//!
//! [`from_wire`] takes a task in, [`admit`] asks policy about it without a socket or a file, [`run`] does it.
//! A failure of the work is a diagnosis in the report and never an error of [`run`].

pub mod clone;
pub mod connection_test;
mod diagnose;
mod login;
mod stages;
mod stop;
mod target;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use crate::artifact;
use crate::credential;
use crate::dial::Door;
use crate::git::{Control, Limits};
use crate::policy::Policy;
use crate::report::{Diagnosis, Stage, StageLog, StageRecord};
use crate::secret::Redaction;

pub use diagnose::{control_plane as control_plane_diagnosis, upload as upload_diagnosis};
pub use target::{Target, TargetError, TargetSpec};
pub use wire::{Unsupported, from_wire, wire_diagnosis, wire_stage};

/// What the work is done with: everything that outlives one task.
#[derive(Clone)]
pub struct Tools {
    /// The way out.
    pub door: Arc<Door>,
    /// The operator's word.
    pub policy: Arc<Policy>,
    /// Where secrets come from.
    pub credentials: Arc<credential::Store>,
    /// What a clone may take.
    pub limits: Limits,
    /// Below which directory clones without a directory of their own go; `None` where there is none.
    pub workspaces: Option<PathBuf>,
    /// The way of artifacts to the control plane; `None` where there is none.
    pub uploads: Option<artifact::Uploader>,
}

/// A task in the daemon's own words.
#[derive(Debug, Clone)]
pub enum Task {
    /// Connects stage by stage and reports what each saw.
    ConnectionTest(connection_test::Request),
    /// Clones one reference into a directory.
    Clone(clone::Request),
}

impl Task {
    /// The kind, as a person types it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ConnectionTest(_) => "connection-test",
            Self::Clone(_) => "clone",
        }
    }

    /// What it is aimed at.
    pub fn target(&self) -> &TargetSpec {
        match self {
            Self::ConnectionTest(request) => &request.target,
            Self::Clone(request) => &request.target,
        }
    }
}

/// The outcome of a task, good or bad.
#[derive(Debug, Clone)]
pub enum TaskReport {
    /// Of a connection test.
    Test(Box<connection_test::Report>),
    /// Of a clone.
    Clone(Box<clone::Report>),
}

impl TaskReport {
    /// Why it failed; `None` where it succeeded.
    pub fn diagnosis(&self) -> Option<&Diagnosis> {
        match self {
            Self::Test(report) => report.diagnosis.as_ref(),
            Self::Clone(report) => report.diagnosis.as_ref(),
        }
    }

    /// The stages in their order.
    pub fn stages(&self) -> &[StageRecord] {
        match self {
            Self::Test(report) => &report.stages,
            Self::Clone(report) => &report.stages,
        }
    }

    /// The report of a task that [`admit`] refused: nothing was done.
    pub fn refused(task: &Task, diagnosis: Diagnosis) -> Self {
        let log = StageLog::default();
        log.begin(Stage::Policy);
        Self::failed(task, diagnosis, &log)
    }

    /// The report of a task that came to no report of its own: what its log has, and why it failed.
    pub fn failed(task: &Task, diagnosis: Diagnosis, log: &StageLog) -> Self {
        let stages = stages::failed(log, diagnosis.stage, &[]);
        match task {
            Task::ConnectionTest(request) => {
                Self::Test(Box::new(connection_test::Report::failed(request, diagnosis, stages)))
            }
            Task::Clone(_) => Self::Clone(Box::new(clone::Report::failed(diagnosis, stages))),
        }
    }
}

/// Asks policy whether the task may be done at all. No socket is opened and no file is read.
///
/// # Errors
/// The diagnosis, at the stage `policy`, or at `authenticate` where the agent has no such credential.
pub fn admit(task: &Task, tools: &Tools) -> Result<(), Diagnosis> {
    let (spec, credential) = match task {
        Task::ConnectionTest(request) => (&request.target, &request.credential),
        Task::Clone(request) => (&request.target, &request.credential),
    };
    let mut subject = diagnose::Subject { url: spec.shown(), ..diagnose::Subject::default() };
    let admitted = login::admit(spec, credential.as_deref(), tools, &mut subject);
    admitted.map(|_| ()).map_err(|failed| diagnose::failure(&failed, failed.stage(None), &subject))
}

/// Does a task. It ends by itself, at the deadline, or soon after the cancel token of `control` is set, and
/// then it has cleaned up.
pub async fn run(task: &Task, tools: &Tools, control: &Control, log: &StageLog) -> TaskReport {
    match task {
        Task::ConnectionTest(request) => {
            TaskReport::Test(Box::new(connection_test::run(request, tools, control, log).await))
        }
        Task::Clone(request) => {
            TaskReport::Clone(Box::new(Box::pin(clone::run(request, tools, control, log)).await))
        }
    }
}

/// The tools and the log of one task whose report is to hold none of its secrets: a server may repeat in its answers
/// what it was sent.
fn redacting(tools: &Tools, log: &StageLog) -> (Tools, Redaction) {
    let redaction = Redaction::default();
    log.redact(&redaction);
    let credentials = Arc::new(tools.credentials.telling(&redaction));
    (Tools { credentials, ..tools.clone() }, redaction)
}
