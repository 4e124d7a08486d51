//! What a test or a clone has to say: stages with facts and times, and a diagnosis from the catalogue.
//!
//! Everything here is the daemon's own; `task` turns it into the wire's form.

pub mod catalogue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::secret::Redaction;

pub use catalogue::Code;

/// Measured values by name, with units in the names.
pub type Facts = serde_json::Map<String, Value>;

/// The stages of a test and of a clone, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// What the operator allows.
    Policy,
    /// The lookup of the name.
    Resolve,
    /// The connection to the proxy.
    Proxy,
    /// TCP, or the proxy's tunnel.
    Connect,
    /// TLS.
    Tls,
    /// SSH up to the verified host key.
    HostKey,
    /// What kind of server it is.
    Identify,
    /// Who the server takes us for.
    Authenticate,
    /// Whether the account and the project may be read.
    Authorize,
    /// The repository.
    Repository,
    /// The list of references, by git.
    References,
    /// What git agrees on before a pack.
    Negotiate,
    /// The pack on its way.
    Receive,
    /// The index of the pack.
    Index,
    /// The files.
    Checkout,
    /// The way of the result to where it is needed.
    Deliver,
}

impl Stage {
    /// The name that everybody sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Resolve => "resolve",
            Self::Proxy => "proxy",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::HostKey => "host_key",
            Self::Identify => "identify",
            Self::Authenticate => "authenticate",
            Self::Authorize => "authorize",
            Self::Repository => "repository",
            Self::References => "references",
            Self::Negotiate => "negotiate",
            Self::Receive => "receive",
            Self::Index => "index",
            Self::Checkout => "checkout",
            Self::Deliver => "deliver",
        }
    }
}

/// How a stage went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It was exercised and is fine.
    Passed,
    /// It was exercised, and there is a warning about it.
    Warned,
    /// It failed.
    Failed,
    /// It was not exercised.
    Skipped,
}

/// One stage with its measurements.
#[derive(Debug, Clone, PartialEq)]
pub struct StageRecord {
    /// Which one.
    pub stage: Stage,
    /// How it went.
    pub status: Status,
    /// When it began, counted from the beginning of the first stage.
    pub offset: Duration,
    /// How long it took.
    pub duration: Duration,
    /// What was measured.
    pub facts: Facts,
}

impl StageRecord {
    /// A stage that was not exercised.
    pub fn skipped(stage: Stage) -> Self {
        let (offset, duration) = (Duration::ZERO, Duration::ZERO);
        Self { stage, status: Status::Skipped, offset, duration, facts: Facts::new() }
    }
}

/// A cause from the catalogue with what was seen here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// Which cause.
    pub code: Code,
    /// Where it shows.
    pub stage: Stage,
    /// The cause in one sentence, with what was seen.
    pub summary: String,
    /// What an operator can do, most likely first; never empty.
    pub remedies: Vec<String>,
}

impl Diagnosis {
    /// Takes the secrets that `redaction` knows out of it.
    pub fn redact(&mut self, redaction: &Redaction) {
        redaction.clean(&mut self.summary);
        self.remedies.iter_mut().for_each(|remedy| redaction.clean(remedy));
    }

    /// A diagnosis in the catalogue's own words, followed by what was seen (a clause, or nothing) and with
    /// remedies that name the actual thing put before the general ones.
    pub fn new(code: Code, stage: Stage, seen: &str, remedies: Vec<String>) -> Self {
        let entry = code.entry();
        let summary =
            if seen.is_empty() { format!("{}.", entry.cause) } else { format!("{}: {seen}.", entry.cause) };
        let general = entry.remedies.iter().map(ToString::to_string);
        let remedies = remedies.into_iter().chain(general).collect();
        Self { code, stage, summary, remedies }
    }
}

/// What is told to whoever watches a test or a clone while it runs.
#[derive(Debug, Clone, PartialEq)]
pub enum StageEvent {
    /// A stage has begun.
    Began(Stage),
    /// A stage has ended.
    Ended(StageRecord),
}

type Observer = Box<dyn Fn(&StageEvent) + Send + Sync>;

/// The record of stages, shared by everything that works on one task.
///
/// It is written while the work goes on, so that work which is cut off in the middle, by a deadline or a
/// cancel, still leaves what was measured and the name of the stage that was running.
#[derive(Clone, Default)]
pub struct StageLog(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// When the first stage began.
    began: Option<Instant>,
    ended: Vec<StageRecord>,
    running: Option<(Stage, Instant, Facts, bool)>,
    observer: Option<Observer>,
    redaction: Option<Redaction>,
    /// What the server said last in the stage that runs.
    heard: Option<String>,
}

impl StageLog {
    /// A log whose events go to `observer` as they happen. The observer must not block.
    pub fn observed(observer: impl Fn(&StageEvent) + Send + Sync + 'static) -> Self {
        let inner = Inner { observer: Some(Box::new(observer)), ..Inner::default() };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// Takes the secrets that `redaction` knows out of all facts from now on.
    pub fn redact(&self, redaction: &Redaction) {
        self.lock().redaction = Some(redaction.clone());
    }

    /// Begins a stage. One that still runs has passed then.
    pub fn begin(&self, stage: Stage) {
        let mut inner = self.lock();
        inner.end(Status::Passed);
        inner.running = Some((stage, Instant::now(), Facts::new(), false));
        inner.tell(&StageEvent::Began(stage));
    }

    /// Keeps what the server says to people while it works, without secrets and bounded.
    pub fn hear(&self, mut line: String) {
        const MAX_CHARS: usize = 200;
        let mut inner = self.lock();
        if let Some(redaction) = &inner.redaction {
            redaction.clean(&mut line);
        }
        inner.heard = Some(line.chars().take(MAX_CHARS).collect());
    }

    /// The last that the server said in the stage that runs.
    pub fn heard(&self) -> Option<String> {
        self.lock().heard.clone()
    }

    /// Adds a fact to the stage that runs, or to the last one that ended.
    pub fn fact(&self, name: &str, value: impl Into<Value>) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let value = inner.cleaned(value.into());
        let facts = match &mut inner.running {
            Some((_, _, facts, _)) => Some(facts),
            None => inner.ended.last_mut().map(|record| &mut record.facts),
        };
        if let Some(facts) = facts {
            facts.insert(name.to_owned(), value);
        }
    }

    /// Adds a fact to a certain stage, which runs or has ended.
    pub fn fact_at(&self, stage: Stage, name: &str, value: impl Into<Value>) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let value = inner.cleaned(value.into());
        let facts = match &mut inner.running {
            Some((running, _, facts, _)) if *running == stage => Some(facts),
            _ => inner.ended.iter_mut().find(|record| record.stage == stage).map(|record| &mut record.facts),
        };
        if let Some(facts) = facts {
            facts.insert(name.to_owned(), value);
        }
    }

    /// Ends the stage that runs as passed, or as warned where [`Self::warn_at`] named it.
    pub fn pass(&self) {
        self.lock().end(Status::Passed);
    }

    /// Ends the stage that runs as failed.
    pub fn fail(&self) {
        self.lock().end(Status::Failed);
    }

    /// Records that a stage was not exercised.
    pub fn skip(&self, stage: Stage) {
        let mut inner = self.lock();
        inner.end(Status::Passed);
        let record = StageRecord::skipped(stage);
        inner.tell(&StageEvent::Ended(record.clone()));
        inner.ended.push(record);
    }

    /// Marks a stage that runs, or that has passed, as one with a warning.
    pub fn warn_at(&self, stage: Stage) {
        let mut inner = self.lock();
        if let Some((running, _, _, warned)) = &mut inner.running
            && *running == stage
        {
            *warned = true;
            return;
        }
        if let Some(record) = inner.ended.iter_mut().find(|r| r.stage == stage && r.status == Status::Passed)
        {
            record.status = Status::Warned;
        }
    }

    /// Records that `stage` failed: the one that runs if it is that one, or else a new one of no duration.
    pub fn fail_at(&self, stage: Stage) {
        let mut inner = self.lock();
        match inner.running {
            Some((running, ..)) if running == stage => inner.end(Status::Failed),
            _ => {
                inner.end(Status::Passed);
                if let Some(record) = inner.ended.iter_mut().find(|record| record.stage == stage) {
                    record.status = Status::Failed;
                } else {
                    inner.running = Some((stage, Instant::now(), Facts::new(), false));
                    inner.end(Status::Failed);
                }
            }
        }
    }

    /// Ends the stage that runs as passed, and takes out that stage or later ones: a second way to the same target
    /// goes through some of them again.
    pub fn take_from(&self, stage: Stage) -> Vec<StageRecord> {
        let mut inner = self.lock();
        inner.end(Status::Passed);
        let (taken, kept) =
            std::mem::take(&mut inner.ended).into_iter().partition(|record| record.stage >= stage);
        inner.ended = kept;
        taken
    }

    /// The stage that runs.
    pub fn running(&self) -> Option<Stage> {
        self.lock().running.as_ref().map(|(stage, ..)| *stage)
    }

    /// The stage that runs, or the last one that was exercised.
    pub fn current(&self) -> Option<Stage> {
        let inner = self.lock();
        let last = inner.ended.iter().rev().find(|record| record.status != Status::Skipped);
        inner.running.as_ref().map(|(stage, ..)| *stage).or(last.map(|record| record.stage))
    }

    /// Everything that was recorded so far.
    pub fn records(&self) -> Vec<StageRecord> {
        self.lock().ended.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere must not take the report with it: what is recorded is whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn cleaned(&self, mut value: Value) -> Value {
        if let Some(redaction) = &self.redaction {
            redaction.clean_value(&mut value);
        }
        value
    }

    fn end(&mut self, status: Status) {
        self.heard = None;
        let Some((stage, since, facts, warned)) = self.running.take() else { return };
        let status = if warned && status == Status::Passed { Status::Warned } else { status };
        let began = *self.began.get_or_insert(since);
        let offset = since.saturating_duration_since(began);
        let record = StageRecord { stage, status, offset, duration: since.elapsed(), facts };
        self.tell(&StageEvent::Ended(record.clone()));
        self.ended.push(record);
    }

    fn tell(&self, event: &StageEvent) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_cut_off_names_the_stage_that_ran() {
        let log = StageLog::default();
        log.begin(Stage::Resolve);
        log.fact("addresses", vec!["192.0.2.1"]);
        log.begin(Stage::Connect);
        assert_eq!(log.running(), Some(Stage::Connect));
        log.fail();
        let records = log.records();
        let seen: Vec<_> = records.iter().map(|record| (record.stage, record.status)).collect();
        assert_eq!(seen, [(Stage::Resolve, Status::Passed), (Stage::Connect, Status::Failed)]);
        assert_eq!(records[0].facts["addresses"][0], "192.0.2.1");
    }

    #[test]
    fn a_warning_marks_its_stage_before_and_after_it_ended() {
        let log = StageLog::default();
        log.begin(Stage::Tls);
        log.warn_at(Stage::Tls);
        log.begin(Stage::References);
        log.pass();
        log.warn_at(Stage::References);
        assert!(log.records().iter().all(|record| record.status == Status::Warned));
    }

    #[test]
    fn every_diagnosis_has_a_cause_and_a_remedy() {
        for code in Code::ALL.iter().copied() {
            let diagnosis = Diagnosis::new(code, Stage::Policy, "", vec![]);
            assert!(!diagnosis.summary.is_empty() && !diagnosis.remedies.is_empty(), "{}", code.as_str());
        }
    }
}
