//! Agents that are registered and not connected just now, as far as somebody waits for them.
//!
//! A task that every connected agent refused may still suit one that restarts or lost its connection. It is
//! kept for a moment while such an agent is expected back, and refused at once where none is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::explain::Candidate;
use super::task::Task;
use super::{Connected, Dispatcher, Mode, Outcome};

/// An agent that went, or that has not been seen since the control plane started.
#[derive(Debug)]
pub(super) struct Away {
    tags: BTreeSet<String>,
    /// Whether an administrator lets it have offers when it is back.
    takes_work: bool,
    /// Until when it is expected: as long as a lease, which is how long its attempts are kept too.
    until: Duration,
}

impl Dispatcher {
    /// Expects agents that are registered. To be called once, with [`Self::restore`].
    pub fn expect(&mut self, now: Duration, agents: impl IntoIterator<Item = (Candidate, Mode)>) {
        let until = now + self.times.lease;
        let agents = agents.into_iter().map(|(agent, mode)| {
            let takes_work = mode != Mode::Draining;
            (agent.agent_id, Away { tags: agent.tags, takes_work, until })
        });
        self.away.extend(agents);
    }

    /// Notes that the agent of a session goes. To be called while it is still known.
    pub(super) fn leaves(&mut self, now: Duration, session: &str) {
        let Some(agent_id) = self.sessions.get(session) else { return };
        let Some(agent) = self.agents.get(agent_id) else { return };
        // One that drains by itself restarts as a rule, and takes work again when it is back.
        let away = Away {
            tags: agent.tags.clone(),
            takes_work: agent.mode != Mode::Draining,
            until: now + self.times.lease,
        };
        self.away.insert(agent_id.clone(), away);
    }

    /// Notes that an agent is back; `true` where its tags are others than it was expected with.
    pub(super) fn returns(&mut self, connected: &Connected) -> bool {
        self.away.remove(&connected.agent_id).is_some_and(|away| away.tags != connected.tags)
    }

    /// Notes what an administrator decided about an agent that is away.
    pub(super) fn decided_while_away(&mut self, agent_id: &str, mode: Mode) {
        if let Some(away) = self.away.get_mut(agent_id) {
            away.takes_work = mode != Mode::Draining;
        }
    }

    /// Until when an agent is expected back that may take the task; `None` where there is none.
    fn expected(&self, now: Duration, task: &Task) -> Option<Duration> {
        let able = self.away.iter().filter(|(agent_id, away)| {
            away.takes_work
                && now < away.until
                && !task.refused_by.contains(*agent_id)
                && task.spec.selector.admits(&away.tags).is_ok()
        });
        able.map(|(_, away)| away.until).max()
    }

    /// Ends a task that no agent is left for, once nobody is expected back either.
    pub(super) fn refuse_if_nobody_is_left(&mut self, now: Duration, task_id: &str) {
        let Some(task) = self.tasks.get(task_id).filter(|task| task.refusal.is_some()) else { return };
        let is_somebody_left = self.somebody_is_left(task);
        let expected = self.expected(now, task);
        let queue_until = task.queue_until;
        let Some(refusal) = self.tasks.get_mut(task_id).and_then(|task| task.refusal.as_mut()) else {
            return;
        };
        if is_somebody_left {
            refusal.held_until = None;
            return;
        }
        let held_until = match (refusal.held_until, expected) {
            (_, None) => now,
            (Some(held_until), Some(_)) => held_until,
            (None, Some(until)) => until.min(now + self.times.refusal_grace).min(queue_until),
        };
        refusal.held_until = Some(held_until);
        if held_until <= now {
            self.refuse(task_id);
        } else {
            self.deadlines.insert((held_until, task_id.to_owned()));
        }
    }

    /// Whether some connected agent may still take the task, now or later.
    pub(super) fn somebody_is_left(&self, task: &Task) -> bool {
        self.agents.keys().any(|agent_id| self.could_take(task, agent_id))
    }

    /// Ends a task with the last refusal that it got.
    pub(super) fn refuse(&mut self, task_id: &str) {
        let refusal = self.tasks.get_mut(task_id).and_then(|task| task.refusal.take());
        let Some(refusal) = refusal else { return };
        self.complete(task_id, Outcome::Refused, refusal.result, Some(refusal.reason));
    }
}
