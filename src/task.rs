//! One unit of work from its request to its report: the only edge between the wire and the daemon's own words.
//!
//! [`from_wire`] takes a task in, [`admit`] asks policy about it without a socket or a file, [`run`] does it.
//! A failure of the work is a diagnosis in the report and never an error of [`run`].

pub mod clone;
pub mod compare;
pub mod connection_test;
mod diagnose;
pub mod files;
mod lfs;
mod login;
mod lookup;
pub mod references;
mod remote;
mod stages;
mod stop;
pub mod submodules;
mod target;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use sortie_protocol::AttemptId;

use crate::artifact;
use crate::credential;
use crate::dial::Door;
use crate::git::{Control, Engine, Limits, Means, Mirrors, Remote};
use crate::policy::Policy;
use crate::report::{Diagnosis, Stage, StageLog, StageRecord};
use crate::secret::Redaction;
use crate::workspace::Workspaces;

pub use diagnose::{control_plane as control_plane_diagnosis, upload as upload_diagnosis};
pub use lookup::Report as LookupReport;
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
    /// What indexes packs and writes files.
    pub engine: Engine,
    /// What was fetched before; `None` fetches everything each time.
    pub mirrors: Option<Arc<Mirrors>>,
    /// Where what is needed for a moment is put.
    pub temporary: PathBuf,
    /// Where clones of tasks are kept; `None` where there is no such place.
    pub workspaces: Option<Arc<Workspaces>>,
    /// The way of artifacts to the control plane; `None` where there is none.
    pub uploads: Option<artifact::Uploader>,
}

impl Tools {
    /// How a repository is fetched for somebody.
    fn means(&self, remote: &Remote, identity: &str) -> Means {
        let mirror = self.mirrors.as_ref().map(|mirrors| mirrors.place(&remote.url, identity));
        Means { engine: self.engine, mirror }
    }
}

/// Removes what an attempt has left on this host, because its result does not count. What comes later and wants its
/// place waits for that from this call on.
pub fn discard(attempt: &AttemptId, tools: &Tools) -> impl Future<Output = ()> + Send + use<> {
    let name = wire::workspace_name(attempt);
    let removal = tools.workspaces.as_ref().map(|workspaces| workspaces.remove_soon(&name));
    async move {
        if let Some(removal) = removal {
            // A panic in it is in the log, and the workspace goes when its time is over.
            let _ = tokio::task::spawn_blocking(move || removal.run()).await;
        }
    }
}

/// Leaves what attempts have put on this host to whoever asked for it: their results count.
pub async fn settle(attempts: &[AttemptId], tools: &Tools) {
    let Some(workspaces) = tools.workspaces.clone() else { return };
    let names: Vec<String> = attempts.iter().map(wire::workspace_name).collect();
    // A panic in it is in the log, and the note goes when it is old.
    let _ = tokio::task::spawn_blocking(move || names.iter().for_each(|name| workspaces.settle(name))).await;
}

/// Every word that [`Task::kind`] can say.
pub const KINDS: [&str; 5] = ["connection-test", "clone", "references", "files", "compare"];

/// A task in the daemon's own words.
#[derive(Debug, Clone)]
pub enum Task {
    /// Connects stage by stage and reports what each saw.
    ConnectionTest(connection_test::Request),
    /// Clones one reference into a directory.
    Clone(clone::Request),
    /// Lists references.
    References(references::Request),
    /// Reads a few files.
    Files(files::Request),
    /// Compares a reference with a commit.
    Compare(compare::Request),
}

impl Task {
    /// The kind, as a person types it.
    pub fn kind(&self) -> &'static str {
        // `KINDS` has all of these.
        match self {
            Self::ConnectionTest(_) => "connection-test",
            Self::Clone(_) => "clone",
            Self::References(_) => "references",
            Self::Files(_) => "files",
            Self::Compare(_) => "compare",
        }
    }

    /// Whether it changes anything that outlives it, here or at the control plane.
    pub fn has_effects(&self) -> bool {
        matches!(self, Self::Clone(_))
    }

    /// What it is aimed at.
    pub fn target(&self) -> &TargetSpec {
        match self {
            Self::ConnectionTest(request) => &request.target,
            Self::Clone(request) => &request.target,
            Self::References(request) => &request.target,
            Self::Files(request) => &request.target,
            Self::Compare(request) => &request.target,
        }
    }

    /// The name of the credential that it is to be done with, where it names one.
    fn credential(&self) -> Option<&str> {
        match self {
            Self::ConnectionTest(request) => request.credential.as_deref(),
            Self::Clone(request) => request.credential.as_deref(),
            Self::References(request) => request.credential.as_deref(),
            Self::Files(request) => request.credential.as_deref(),
            Self::Compare(request) => request.credential.as_deref(),
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
    /// Of a list of references.
    References(Box<references::Report>),
    /// Of files that were read.
    Files(Box<files::Report>),
    /// Of a comparison with this commit.
    Compare(Box<compare::Report>, String),
}

impl TaskReport {
    /// Why it failed; `None` where it succeeded.
    pub fn diagnosis(&self) -> Option<&Diagnosis> {
        match self {
            Self::Test(report) => report.diagnosis.as_ref(),
            Self::Clone(report) => report.diagnosis.as_ref(),
            Self::References(report) => report.diagnosis.as_ref(),
            Self::Files(report) => report.diagnosis.as_ref(),
            Self::Compare(report, _) => report.diagnosis.as_ref(),
        }
    }

    /// The stages in their order.
    pub fn stages(&self) -> &[StageRecord] {
        match self {
            Self::Test(report) => &report.stages,
            Self::Clone(report) => &report.stages,
            Self::References(report) => &report.stages,
            Self::Files(report) => &report.stages,
            Self::Compare(report, _) => &report.stages,
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
            Task::References(_) => Self::References(Box::new(references::Report::failed(diagnosis, stages))),
            Task::Files(_) => Self::Files(Box::new(files::Report::failed(diagnosis, stages))),
            Task::Compare(request) => {
                let report = compare::Report::failed(diagnosis, stages);
                Self::Compare(Box::new(report), request.commit.clone())
            }
        }
    }
}

/// Asks policy whether the task may be done at all. No socket is opened and no file is read.
///
/// # Errors
/// The diagnosis, at the stage `policy`, or at `authenticate` where the agent has no such credential.
pub fn admit(task: &Task, tools: &Tools) -> Result<(), Diagnosis> {
    let (spec, credential) = (task.target(), task.credential());
    let mut subject = diagnose::Subject { url: spec.shown(), ..diagnose::Subject::default() };
    let admitted = login::admit(spec, credential, tools, &mut subject);
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
        Task::References(request) => {
            TaskReport::References(Box::new(Box::pin(references::run(request, tools, control, log)).await))
        }
        Task::Files(request) => {
            TaskReport::Files(Box::new(Box::pin(files::run(request, tools, control, log)).await))
        }
        Task::Compare(request) => {
            let report = Box::pin(compare::run(request, tools, control, log)).await;
            TaskReport::Compare(Box::new(report), request.commit.clone())
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
