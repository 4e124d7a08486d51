//! Why a task is where it is, agent by agent.

use std::collections::BTreeSet;
use std::time::Duration;

use super::agents::seconds;
use super::reach::Standing;
use super::task::Task;
use super::{Dispatcher, Mode, TaskState};

/// An agent that is registered, connected or not.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its identifier.
    pub agent_id: String,
    /// Its name.
    pub name: String,
    /// Every tag that it carries, the implicit ones included.
    pub tags: BTreeSet<String>,
}

/// What speaks against an agent, or for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its identifier.
    pub agent_id: String,
    /// Its name.
    pub name: String,
    /// Whether it could be given the task now, or has it.
    pub eligible: bool,
    /// Why not, in sentences; or what it does with the task.
    pub reasons: Vec<String>,
}

/// Where a live task stands and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The state.
    pub state: TaskState,
    /// How long ago the task was posted.
    pub waiting: Duration,
    /// One entry for each agent.
    pub agents: Vec<Verdict>,
    /// All of it in one sentence.
    pub summary: String,
}

impl Dispatcher {
    /// Explains a live task; `None` where it is completed or unknown.
    pub fn explain(&self, now: Duration, task_id: &str, candidates: &[Candidate]) -> Option<Explanation> {
        let task = self.tasks.get(task_id)?;
        Some(Explanation {
            state: task.state(),
            waiting: now.saturating_sub(task.posted_at),
            agents: candidates.iter().map(|candidate| self.verdict(now, task, candidate)).collect(),
            summary: self.summary(task),
        })
    }

    fn verdict(&self, now: Duration, task: &Task, candidate: &Candidate) -> Verdict {
        let Candidate { agent_id, name, tags } = candidate;
        let (agent_id, name) = (agent_id.clone(), name.clone());
        if let Some(live) = task.live.as_ref().filter(|live| live.agent_id == agent_id) {
            let away = if self.agents.contains_key(&agent_id) { "" } else { ", and it is not connected" };
            let reasons = vec![format!("it holds attempt {}{away}", live.number)];
            return Verdict { agent_id, name, eligible: true, reasons };
        }
        let mut reasons = Vec::new();
        if let Err(mismatch) = task.spec.selector.admits(tags) {
            reasons.push(mismatch.to_string());
        }
        if task.refused_by.contains(&agent_id) {
            reasons.push("it refused the task".to_owned());
        }
        if let Some(passed) = task.passed.iter().find(|it| it.agent_id == agent_id) {
            let code = passed.result.diagnosis().map_or("no diagnosis", |it| it.code.as_str());
            reasons.push(format!("it tried and could not reach the server: {code}"));
        }
        match self.agents.get(&agent_id) {
            None => reasons.push("it is not connected".to_owned()),
            Some(agent) if !agent.takes_work() => reasons.push("it is draining".to_owned()),
            Some(agent) if agent.mode == Mode::Paused => reasons.push("it is paused".to_owned()),
            Some(_) if self.free_slots(&agent_id) == 0 => reasons.push("it has no free slot".to_owned()),
            Some(_) => {}
        }
        let eligible = reasons.is_empty();
        // It speaks against the agent and does not exclude it.
        let target = task.target.as_deref();
        if let (Some(target), Standing::Bad(age)) = (target, self.reach.standing(now, &agent_id, target)) {
            reasons.push(format!("it could not reach {target} {} ago", seconds(age)));
        }
        Verdict { agent_id, name, eligible, reasons }
    }

    /// One sentence on a task, from what the connected agents are like.
    pub(super) fn summary(&self, task: &Task) -> String {
        match (task.state(), &task.live) {
            (TaskState::Offered, Some(live)) => format!("it was offered to {}", live.agent_name),
            (TaskState::Running, Some(live)) => format!("{} is at it", live.agent_name),
            (TaskState::Cancelling, Some(live)) => format!("{} was told to stop it", live.agent_name),
            _ => self.summary_of_queued(task),
        }
    }

    fn summary_of_queued(&self, task: &Task) -> String {
        let all = self.agents.len();
        if all == 0 {
            return "no agent is connected".to_owned();
        }
        let matching = self.agents.iter().filter(|(_, it)| task.spec.selector.admits(&it.tags).is_ok());
        let matching: Vec<_> = matching.collect();
        if matching.is_empty() {
            return format!("none of the {all} connected agents satisfies the selector");
        }
        let able = matching.iter().filter(|(id, agent)| agent.takes_work() && !task.excludes(id));
        match able.count() {
            0 => format!(
                "each of the {} connected agents that match is draining, refused it or tried it",
                matching.len()
            ),
            able => format!("{able} connected agents match and none of them is ready with a free slot"),
        }
    }
}
