//! One transaction for a batch of the dispatcher's transitions.

mod script;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use serde_json::json;

use super::records::{to_text, word};
use super::{IdempotencyKey, Millis, Sqlite, StoreError};
use crate::dispatch::{TaskState, Transition};
use crate::engine::Stamp;
use script::{Script, Time};

/// The transaction takes the write lock at its beginning, so that it never fails in its middle over it.
pub(super) const BEGIN: &str = "BEGIN IMMEDIATE";

impl Sqlite {
    pub(super) async fn commit(
        &self,
        at: Stamp,
        transitions: &[Transition],
        keys: &[IdempotencyKey],
    ) -> Result<(), StoreError> {
        let (rows, others) = Rows::of(transitions)?;
        let mut script = Script::new(at);
        rows.write_attempts(&mut script);
        for transition in others {
            script.add(transition)?;
        }
        rows.write_states(&mut script);
        script.keys(keys);
        script.stamp();
        script.commit(&self.writer).await
    }

    pub(super) async fn last_stamp(&self) -> Result<Option<Stamp>, StoreError> {
        let row: Option<(Millis, Millis)> =
            sqlx::query_as("SELECT elapsed, wall FROM clock").fetch_optional(&self.readers).await?;
        Ok(row.map(|(elapsed, wall)| Stamp { wall, elapsed: duration(elapsed) }))
    }
}

/// What most batches are made of, as rows: each kind of row is written by one statement, however many there are.
///
/// The order of the kinds is that of an attempt's life. A task's own state is written once, the last one.
#[derive(Default)]
struct Rows {
    posted: Vec<String>,
    labels: Vec<String>,
    offered: Vec<String>,
    started: Vec<String>,
    ended: Vec<String>,
    states: Vec<String>,
    completed: Vec<String>,
}

impl Rows {
    /// The rows, and the transitions that have none.
    fn of(transitions: &[Transition]) -> Result<(Self, Vec<&Transition>), StoreError> {
        let (mut rows, mut others) = (Self::default(), Vec::new());
        let last = last_states(transitions);
        for (index, transition) in transitions.iter().enumerate() {
            if !rows.add(transition)? {
                others.push(transition);
            }
            if let Some((task_id, state)) = state_after(transition)
                && last.get(task_id) == Some(&index)
            {
                rows.states.push(json!([task_id, word(&state)]).to_string());
            }
        }
        Ok((rows, others))
    }

    /// Takes a transition in; `false` where it has no row.
    fn add(&mut self, transition: &Transition) -> Result<bool, StoreError> {
        match transition {
            Transition::TaskPosted { task_id, bytes, spec } => {
                self.posted.push(json!([task_id, word(&spec.kind), &**bytes]).to_string());
                self.labels
                    .extend(spec.labels.iter().map(|(key, value)| json!([task_id, key, value]).to_string()));
            }
            Transition::AttemptOffered { attempt, agent_id, agent_name } => {
                let row = json!([attempt.task_id, attempt.attempt, agent_id, agent_name]);
                self.offered.push(row.to_string());
            }
            Transition::AttemptStarted { attempt } => {
                self.started.push(json!([attempt.task_id, attempt.attempt]).to_string());
            }
            Transition::AttemptEnded {
                attempt,
                outcome,
                diagnosis,
                reason,
                by_result,
                counted,
                passed_on,
            } => {
                let diagnosis = diagnosis.as_ref().map(|it| to_text("diagnosis", it)).transpose()?;
                let passed_on = passed_on.as_ref().map(|it| to_text("result", it)).transpose()?;
                let (task_id, number, outcome) = (&attempt.task_id, attempt.attempt, word(outcome));
                let row = json!([task_id, number, outcome, diagnosis, reason, by_result, counted, passed_on]);
                self.ended.push(row.to_string());
            }
            Transition::TaskCompleted { task_id, outcome, result, reason } => {
                let result = result.as_ref().map(|it| to_text("result", it)).transpose()?;
                self.completed.push(json!([task_id, word(outcome), result, reason]).to_string());
            }
            // A state is all that there is to it.
            Transition::TaskQueued { .. } => {}
            Transition::LateResult { .. }
            | Transition::TaskCancelling { .. }
            | Transition::AgentConnected(_)
            | Transition::AgentGone { .. }
            | Transition::AgentMode { .. }
            | Transition::AgentRevoked { .. } => return Ok(false),
        }
        Ok(true)
    }

    fn write_attempts(&self, script: &mut Script) {
        const POSTED: &str = "INSERT INTO tasks (id, kind, spec, state, created_at, posted_elapsed) \
             SELECT value ->> 0, value ->> 1, value ->> 2, 'queued', ?, ? FROM json_each(?);";
        const LABELS: &str = "INSERT INTO task_labels (task_id, key, value) \
             SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?);";
        const OFFERED: &str = "INSERT INTO attempts (task_id, number, agent_id, agent_name, offered_at) \
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, ? FROM json_each(?);";
        const STARTED: &str = "UPDATE attempts SET started_at = ? FROM json_each(?) AS it \
             WHERE attempts.task_id = it.value ->> 0 AND attempts.number = it.value ->> 1;";
        const ENDED: &str = "UPDATE attempts SET ended_at = ?, outcome = it.value ->> 2, \
             diagnosis = it.value ->> 3, reason = it.value ->> 4, by_result = it.value ->> 5, \
             counted = it.value ->> 6, result = it.value ->> 7 FROM json_each(?) AS it \
             WHERE attempts.task_id = it.value ->> 0 AND attempts.number = it.value ->> 1;";
        script.rows(POSTED, &[Time::Wall, Time::Elapsed], &self.posted);
        script.rows(LABELS, &[], &self.labels);
        script.rows(OFFERED, &[Time::Wall], &self.offered);
        script.rows(STARTED, &[Time::Wall], &self.started);
        script.rows(ENDED, &[Time::Wall], &self.ended);
    }

    fn write_states(&self, script: &mut Script) {
        const STATES: &str = "UPDATE tasks SET state = it.value ->> 1 FROM json_each(?) AS it \
             WHERE tasks.id = it.value ->> 0;";
        const COMPLETED: &str = "UPDATE tasks SET completed_at = ?, state = 'completed', \
             outcome = it.value ->> 1, result = it.value ->> 2, reason = it.value ->> 3 \
             FROM json_each(?) AS it WHERE tasks.id = it.value ->> 0;";
        script.rows(STATES, &[], &self.states);
        script.rows(COMPLETED, &[Time::Wall], &self.completed);
    }
}

/// The transition of each task that leaves it in its last state.
fn last_states(transitions: &[Transition]) -> HashMap<&str, usize> {
    let states = transitions.iter().enumerate().filter_map(|(index, transition)| match transition {
        Transition::TaskCompleted { task_id, .. } | Transition::TaskCancelling { task_id, .. } => {
            Some((task_id.as_str(), index))
        }
        _ => state_after(transition).map(|(task_id, _)| (task_id, index)),
    });
    states.collect()
}

/// The state in which a transition leaves its task, where it does nothing else to the task's own row.
fn state_after(transition: &Transition) -> Option<(&str, TaskState)> {
    match transition {
        Transition::AttemptOffered { attempt, .. } => Some((&attempt.task_id, TaskState::Offered)),
        Transition::AttemptStarted { attempt } => Some((&attempt.task_id, TaskState::Running)),
        Transition::TaskQueued { task_id } => Some((task_id, TaskState::Queued)),
        _ => None,
    }
}

/// A duration as it is kept.
pub(super) fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

/// A kept duration.
pub(super) fn duration(millis: Millis) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
