//! What the dispatcher takes over from the store when it starts.

use std::time::Duration;

use sortie_protocol::report::TaskOutput;

use super::task::{Ended, Live, Passed, Phase, Task};
use super::{Dispatcher, Posted};

/// A task that was not completed when the control plane stopped.
#[derive(Debug, Clone)]
pub struct RestoredTask {
    /// The task.
    pub posted: Posted,
    /// How long ago it was posted.
    pub waited: Duration,
    /// Why it is to stop, where somebody said so.
    pub cancel: Option<String>,
    /// Its attempts, by their numbers.
    pub attempts: Vec<RestoredAttempt>,
}

/// An attempt of such a task.
#[derive(Debug, Clone)]
pub struct RestoredAttempt {
    /// Its number.
    pub number: u32,
    /// The agent.
    pub agent_id: String,
    /// The agent's name then.
    pub agent_name: String,
    /// Whether it had started.
    pub started: bool,
    /// Whether it has ended.
    pub ended: bool,
    /// Whether a result ended it.
    pub by_result: bool,
    /// Whether it counts towards the limit of attempts.
    pub counted: bool,
    /// Why it ended, where no result says it.
    pub reason: Option<String>,
    /// Its result, where the task went on without it.
    pub passed_on: Option<Box<TaskOutput>>,
}

impl Dispatcher {
    /// Takes over the live tasks of the store, in the order in which they were posted. To be called once,
    /// before the first event.
    ///
    /// A running attempt gets a fresh lease, so that its agent can come back and resume it. An attempt that
    /// was offered gets the time of an offer: its agent may have accepted while nobody was listening. Where it
    /// may have begun to have effects by then, it gets a lease too.
    pub fn restore(&mut self, now: Duration, tasks: Vec<RestoredTask>) {
        for restored in tasks {
            let task = self.restored(now, restored);
            self.insert(task);
        }
    }

    fn restored(&mut self, now: Duration, restored: RestoredTask) -> Task {
        let RestoredTask { posted, waited, cancel, attempts } = restored;
        let mut task = Task::waiting(posted, self.next_count(), now, waited);
        task.cancel = cancel;
        for attempt in attempts {
            task.last_number = task.last_number.max(attempt.number);
            task.counted += u32::from(attempt.counted);
            if attempt.ended {
                let (agent_id, agent_name) = (attempt.agent_id, attempt.agent_name);
                if let Some(result) = attempt.passed_on {
                    let (agent_id, agent_name) = (agent_id.clone(), agent_name.clone());
                    task.passed.push(Passed { agent_id, agent_name, result: *result });
                }
                let ended = Ended {
                    agent_id,
                    agent_name,
                    reason: attempt.reason,
                    by_result: attempt.by_result,
                    counted: attempt.counted,
                };
                task.ended.insert(attempt.number, ended);
                continue;
            }
            let phase = if attempt.started { Phase::Running } else { Phase::Offered };
            let may_have_effects = attempt.started || task.spec.kind.has_side_effects();
            let ends_at = if may_have_effects { self.lease_end(now) } else { now + self.times.accept };
            task.live = Some(Live {
                number: attempt.number,
                agent_id: attempt.agent_id,
                agent_name: attempt.agent_name,
                phase,
                ends_at,
                failover_at: None,
                resumed: false,
            });
        }
        task
    }
}
