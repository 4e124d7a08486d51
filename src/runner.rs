//! The slots: attempts that run, each with its deadline, its cancel token and its progress.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sortie_protocol::message::{AttemptOutcome, AttemptResult, Offer, Progress, Reject, RejectReason};
use sortie_protocol::task::TaskSpec;
use sortie_protocol::{AgentMessage, AttemptId};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::git::{Control, Limits, Pace, Transfer};
use crate::report::{Code, Diagnosis, Stage, StageEvent, StageLog};
use crate::session::{Effects, StopReason};
use crate::status;
use crate::task::{self, Task, TaskReport, Tools};

/// How often a running attempt tells its progress at the most, beside the beginning of its stages.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// How much progress may wait to be sent. What does not fit is dropped: there is more to come.
const PROGRESS_QUEUE: usize = 64;

/// What the runner tells of its attempts.
#[derive(Debug)]
pub enum RunnerEvent {
    /// Where an attempt is.
    Progressed(Progress),
    /// An attempt has ended.
    Finished(Box<AttemptResult>),
}

/// What does tasks: the daemon's [`Tools`], or a simulation's.
pub trait Work: Clone + Send + Sync + 'static {
    /// Asks whether the task may be done at all. Nothing is opened and nothing is read for that.
    ///
    /// # Errors
    /// The diagnosis.
    fn admit(&self, task: &Task) -> Result<(), Diagnosis>;

    /// The limits for one task.
    fn limits(&self) -> Limits;

    /// Does a task. It ends by itself, at the deadline, or soon after the cancel token of `control` is set.
    fn run(
        &self,
        attempt: &AttemptId,
        task: &Task,
        control: &Control,
        log: &StageLog,
    ) -> impl Future<Output = TaskReport> + Send;

    /// Removes what an attempt has left on this host, whose result does not count. What comes later and wants its place
    /// waits for that from this call on.
    fn discard(self, attempt: AttemptId) -> impl Future<Output = ()> + Send;

    /// Nothing waits for these attempts any more. What they have left stays, unless it is being removed.
    fn settle(self, attempts: Vec<AttemptId>) -> impl Future<Output = ()> + Send;
}

impl Work for Tools {
    fn admit(&self, task: &Task) -> Result<(), Diagnosis> {
        task::admit(task, self)
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    async fn run(&self, _: &AttemptId, task: &Task, control: &Control, log: &StageLog) -> TaskReport {
        task::run(task, self, control, log).await
    }

    fn discard(self, attempt: AttemptId) -> impl Future<Output = ()> + Send {
        task::discard(&attempt, &self)
    }

    async fn settle(self, attempts: Vec<AttemptId>) {
        task::settle(&attempts, &self).await;
    }
}

/// Runs attempts. Dropping it cancels them all.
pub struct Runner<W = Tools> {
    work: W,
    /// The longest time that any attempt may take.
    max_run: Duration,
    admitted: BTreeMap<AttemptId, Admitted>,
    running: BTreeMap<AttemptId, Running>,
    tasks: JoinSet<TaskReport>,
    /// What removes what attempts have left that do not count, and notes of those that do.
    discarding: JoinSet<()>,
    progress: (mpsc::Sender<Progress>, mpsc::Receiver<Progress>),
}

struct Admitted {
    task: Task,
    run: Duration,
}

struct Running {
    id: tokio::task::Id,
    task: Task,
    log: StageLog,
    cancel: CancellationToken,
    started: Instant,
    deadline: Instant,
}

impl<W: Work> Runner<W> {
    /// A runner without work.
    pub fn new(work: W, max_run: Duration) -> Self {
        Self {
            work,
            max_run,
            admitted: BTreeMap::new(),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            discarding: JoinSet::new(),
            progress: mpsc::channel(PROGRESS_QUEUE),
        }
    }

    /// Decides whether an offered attempt will be run, and says whether it will have effects. Nothing is opened and
    /// nothing is read for that.
    ///
    /// # Errors
    /// The rejection to answer with.
    pub fn admit(&mut self, offer: &Offer) -> Result<Effects, Box<Reject>> {
        let reject = |reason, retryable, diagnosis: Diagnosis, report: Option<TaskReport>| {
            let diagnosis = Some(task::wire_diagnosis(&diagnosis));
            let result = report.map(|report| report.to_wire());
            Box::new(Reject { attempt: offer.attempt.clone(), retryable, reason, diagnosis, result })
        };
        let not_supported = |seen: String| {
            let remedy = "Update the agent, or leave out of the task what it does not support.".to_owned();
            let diagnosis = Diagnosis::new(Code::TaskNotAllowed, Stage::Policy, &seen, vec![remedy]);
            reject(RejectReason::NotSupported, true, diagnosis, None)
        };
        let spec: TaskSpec = serde_json::from_str(&offer.task)
            .map_err(|error| not_supported(format!("the agent does not understand it ({error})")))?;
        spec.validate().map_err(|error| not_supported(error.to_string()))?;
        let task =
            task::from_wire(&spec, &offer.attempt).map_err(|error| not_supported(error.to_string()))?;
        if let Err(diagnosis) = self.work.admit(&task) {
            // Another agent may have declared the server; a URL that is malformed is so everywhere.
            let retryable = matches!(diagnosis.code, Code::ServerNotDeclared | Code::CredentialMissing);
            let report = TaskReport::refused(&task, diagnosis.clone());
            return Err(reject(RejectReason::Policy, retryable, diagnosis, Some(report)));
        }
        let run = Duration::from_secs(spec.run_seconds).min(self.max_run);
        let effects = if task.has_effects() { Effects::Some } else { Effects::None };
        self.admitted.insert(offer.attempt.clone(), Admitted { task, run });
        Ok(effects)
    }

    /// Takes an admission back.
    pub fn dismiss(&mut self, attempt: &AttemptId) {
        self.admitted.remove(attempt);
    }

    /// Starts an attempt that was admitted.
    pub fn start(&mut self, attempt: &AttemptId) {
        self.start_with(attempt, CancellationToken::new());
    }

    fn start_with(&mut self, attempt: &AttemptId, cancel: CancellationToken) {
        let Some(Admitted { task, run }) = self.admitted.remove(attempt) else { return };
        let transfer = Arc::new(Transfer::default());
        let log = self.observed_log(attempt);
        let started = Instant::now();
        let deadline = started + run;
        let control = Control {
            deadline,
            cancel: cancel.clone(),
            transfer: Arc::clone(&transfer),
            limits: self.work.limits(),
        };
        let work = carry_out(attempt.clone(), task.clone(), self.work.clone(), control, log.clone());
        let reporting = report_progress(attempt.clone(), transfer, log.clone(), self.progress.0.clone());
        let span = tracing::info_span!("task", task.id = attempt.task_id, task.attempt = attempt.attempt);
        let both = async move {
            tokio::select! {
                biased;
                report = work => report,
                never = reporting => match never {},
            }
        };
        let id = self.tasks.spawn(both.instrument(span)).id();
        self.running.insert(attempt.clone(), Running { id, task, log, cancel, started, deadline });
    }

    /// Stops an attempt. Its end is still told, but for one that is lost before it has started.
    pub fn stop(&mut self, attempt: &AttemptId, reason: StopReason) {
        match reason {
            StopReason::Lost => self.dismiss(attempt),
            // The report of one that has not started says so in the form of its kind.
            StopReason::Cancelled if self.admitted.contains_key(attempt) => {
                let cancel = CancellationToken::new();
                cancel.cancel();
                return self.start_with(attempt, cancel);
            }
            StopReason::Cancelled => {}
        }
        if let Some(running) = self.running.get(attempt) {
            tracing::info!(%attempt, ?reason, "stopping an attempt");
            running.cancel.cancel();
        }
    }

    /// Stops everything, what has not started included. Each end is still told.
    pub fn cancel_all(&mut self) {
        for attempt in self.admitted.keys().cloned().collect::<Vec<_>>() {
            self.stop(&attempt, StopReason::Cancelled);
        }
        for running in self.running.values() {
            running.cancel.cancel();
        }
    }

    /// Stops everything and waits until it has cleaned up.
    pub async fn stop_all(&mut self) {
        self.cancel_all();
        while self.tasks.join_next().await.is_some() {}
        while self.discarding.join_next().await.is_some() {}
        self.running.clear();
    }

    /// Removes what an attempt has left on this host, whose result does not count. It is done beside the attempts.
    pub fn discard(&mut self, attempt: &AttemptId) {
        self.discarding.spawn(self.work.clone().discard(attempt.clone()));
    }

    /// Leaves what attempts have made as it is, because nothing waits for them any more. It is done beside the attempts.
    pub fn settle(&mut self, attempts: &[AttemptId]) {
        self.discarding.spawn(self.work.clone().settle(attempts.to_vec()));
    }

    /// What runs, as the status tells it.
    pub fn running(&self) -> Vec<status::Attempt> {
        let view = |(attempt, running): (&AttemptId, &Running)| status::Attempt {
            task: attempt.task_id.clone(),
            number: attempt.attempt,
            kind: running.task.kind(),
            target: running.task.target().shown(),
            stage: running.log.running().map(Stage::as_str),
            started: running.started,
            deadline: running.deadline,
        };
        let mut running: Vec<_> = self.running.iter().map(view).collect();
        running.sort_by_key(|attempt| attempt.started);
        running
    }

    /// Waits for what happens next. Dropping the future loses nothing.
    pub async fn next(&mut self) -> RunnerEvent {
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.tasks.join_next_with_id() => {
                    if let Some(result) = self.ended(ended) {
                        return RunnerEvent::Finished(Box::new(result));
                    }
                }
                Some(_) = self.discarding.join_next() => {}
                // The sender lives as long as this receiver, so that there is always something to wait for.
                Some(progress) = self.progress.1.recv() => return RunnerEvent::Progressed(progress),
            }
        }
    }

    fn ended(&mut self, ended: Result<(tokio::task::Id, TaskReport), JoinError>) -> Option<AttemptResult> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let attempt =
            self.running.iter().find(|(_, running)| running.id == id).map(|(key, _)| key.clone())?;
        let running = self.running.remove(&attempt)?;
        let report = match ended {
            Ok((_, report)) => report,
            Err(_) => panicked(&attempt, &running),
        };
        let outcome = match report.diagnosis().map(|diagnosis| diagnosis.code) {
            None => AttemptOutcome::Succeeded,
            Some(Code::Cancelled) => AttemptOutcome::Cancelled,
            Some(_) => AttemptOutcome::Failed,
        };
        tracing::info!(
            task.id = attempt.task_id,
            task.attempt = attempt.attempt,
            outcome = ?outcome,
            diagnosis = report.diagnosis().map(|diagnosis| diagnosis.code.as_str()),
            "an attempt has ended"
        );
        let result = AttemptResult { attempt, outcome, result: report.to_wire() };
        Some(if fits(&result) { result } else { too_large(result.attempt, &running.task) })
    }

    fn observed_log(&self, attempt: &AttemptId) -> StageLog {
        let (sender, attempt) = (self.progress.0.clone(), attempt.clone());
        StageLog::observed(move |event| {
            if let StageEvent::Began(stage) = event {
                let _ = sender.try_send(progress(&attempt, *stage, &Transfer::default()));
            }
        })
    }
}

async fn carry_out<W: Work>(
    attempt: AttemptId,
    task: Task,
    work: W,
    control: Control,
    log: StageLog,
) -> TaskReport {
    if control.cancel.is_cancelled() {
        // It was stopped before it began, so that nothing of it is to happen.
        let seen = "it was cancelled before it began";
        let diagnosis = Diagnosis::new(Code::Cancelled, Stage::Policy, seen, vec![]);
        return TaskReport::refused(&task, diagnosis);
    }
    work.run(&attempt, &task, &control, &log).await
}

async fn report_progress(
    attempt: AttemptId,
    transfer: Arc<Transfer>,
    log: StageLog,
    sender: mpsc::Sender<Progress>,
) -> std::convert::Infallible {
    let mut interval = tokio::time::interval(PROGRESS_INTERVAL);
    let mut pace = Pace::default();
    let mut told = None;
    loop {
        interval.tick().await;
        let Some(stage) = log.running() else { continue };
        let estimate = pace.estimate(&transfer);
        let mut progress = progress(&attempt, stage, &transfer);
        progress.said = log.heard();
        // What only the clock has changed is not told.
        if told.as_ref() != Some(&progress) {
            told = Some(progress.clone());
            progress.bytes_per_second = estimate.bytes_per_second;
            progress.remaining_ms =
                estimate.remaining.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
            let _ = sender.try_send(progress);
        }
    }
}

fn progress(attempt: &AttemptId, stage: Stage, transfer: &Transfer) -> Progress {
    Progress {
        attempt: attempt.clone(),
        stage: stage.as_str().to_owned(),
        received_bytes: transfer.received_bytes(),
        received_objects: transfer.received_objects(),
        total_objects: Some(transfer.total_objects()).filter(|total| *total > 0),
        indexed_objects: transfer.indexed_objects(),
        written_files: transfer.written_files(),
        total_files: Some(transfer.total_files()).filter(|total| *total > 0),
        bytes_per_second: 0,
        remaining_ms: None,
        said: None,
    }
}

/// Whether a result can be sent at all. It is judged here, before anybody counts on it.
fn fits(result: &AttemptResult) -> bool {
    sortie_protocol::encode(&AgentMessage::Result(result.clone())).is_ok()
}

fn too_large(attempt: AttemptId, task: &Task) -> AttemptResult {
    tracing::error!(%attempt, internal.id = %attempt, "the report of a task is over the limit for messages");
    let seen = format!("its report was too large to be sent; the agent's log has internal.id={attempt}");
    let diagnosis = Diagnosis::new(Code::Internal, Stage::Policy, &seen, vec![]);
    let report = TaskReport::failed(task, diagnosis, &StageLog::default());
    AttemptResult { attempt, outcome: AttemptOutcome::Failed, result: report.to_wire() }
}

/// A panic in a task is a bug of ours: it is a diagnosis of that task and nothing else.
fn panicked(attempt: &AttemptId, running: &Running) -> TaskReport {
    tracing::error!(%attempt, internal.id = %attempt, "a task panicked");
    let stage = running.log.running().unwrap_or(Stage::Policy);
    let seen = format!("the agent's log has more under internal.id={attempt}");
    let diagnosis = Diagnosis::new(Code::Internal, stage, &seen, vec![]);
    TaskReport::failed(&running.task, diagnosis, &running.log)
}

#[cfg(test)]
#[path = "runner/tests.rs"]
mod tests;
