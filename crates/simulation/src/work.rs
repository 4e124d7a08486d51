//! What tasks do: they take their time, touch something once a second, and answer with who did it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sortie::git::{Control, Limits};
use sortie::report::{Code, Diagnosis, Stage, StageLog};
use sortie::runner::Work;
use sortie::task::{Task, TaskReport, clone};
use sortie_protocol::AttemptId;
use tokio::time::{Instant, sleep, sleep_until};

use crate::chaos::Chaos;
use crate::oracle::Oracle;

/// The longest time that a task takes, but for those that go on until somebody stops them.
const LONGEST: Duration = Duration::from_secs(200);

/// How often something is touched.
const TOUCH: Duration = Duration::from_secs(1);

/// How long what was stopped takes to clean up at the most.
const CLEANING: Duration = Duration::from_secs(1);

/// The work of one agent.
#[derive(Clone)]
pub struct Labor {
    /// The chance of the run.
    pub chaos: Chaos,
    /// Who watches.
    pub oracle: Oracle,
    /// The agent's name.
    pub agent: String,
    /// The hosts that this agent cannot reach.
    pub unreachable: Arc<BTreeSet<String>>,
}

impl Work for Labor {
    fn admit(&self, _: &Task) -> Result<(), Diagnosis> {
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    async fn discard(self, _: AttemptId) {}

    async fn settle(self, _: Vec<AttemptId>) {}

    async fn run(&self, attempt: &AttemptId, task: &Task, control: &Control, log: &StageLog) -> TaskReport {
        self.oracle.began(attempt, task.has_effects());
        if self.chaos.strikes(self.chaos.weather().panic) {
            std::panic::resume_unwind(Box::new("simulated"));
        }
        let failed = |code, stage| {
            log.begin(stage);
            TaskReport::failed(task, Diagnosis::new(code, stage, &self.agent, vec![]), log)
        };
        let end = Instant::now() + self.chaos.duration(LONGEST);
        loop {
            tokio::select! {
                biased;
                () = control.cancel.cancelled() => {
                    sleep(self.chaos.duration(CLEANING)).await;
                    return failed(Code::Cancelled, Stage::Policy);
                }
                () = sleep_until(control.deadline) => return failed(Code::DeadlineExceeded, Stage::Policy),
                () = sleep_until(end.min(Instant::now() + TOUCH)) => {}
            }
            self.oracle.touched(attempt, task.has_effects());
            if Instant::now() >= end {
                break;
            }
        }
        match task {
            Task::Clone(_) => {
                let by = Some(self.oracle.produced(attempt, &self.agent));
                TaskReport::Clone(Box::new(clone::Report { commit: by, ..clone::Report::default() }))
            }
            other if self.unreachable.contains(&other.target().shown()) => {
                failed(Code::ConnectionRefused, Stage::Connect)
            }
            // A test that fails for a reason that is the same from everywhere.
            _ => failed(Code::NotAGitServer, Stage::Identify),
        }
    }
}
