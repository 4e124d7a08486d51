//! Agents that are registered and not connected just now, as far as somebody waits for them.
//!
//! A task that every connected agent refused, or tried in vain, may still suit one that restarts or lost its connection. It is
//! kept for a moment while such an agent is expected back, and ends at once where none is.

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
    /// Expects agents that are registered. To be called once, after [`Self::restore`]; what follows from it
    /// comes with the actions of the first event.
    pub fn expect(&mut self, now: Duration, agents: impl IntoIterator<Item = (Candidate, Mode)>) {
        let until = now + self.times.lease;
        let agents = agents.into_iter().map(|(agent, mode)| {
            let takes_work = mode != Mode::Draining;
            (agent.agent_id, Away { tags: agent.tags, takes_work, until })
        });
        self.away.extend(agents);
        self.settle_tried(now);
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
    pub(super) fn expected(&self, now: Duration, task: &Task) -> Option<Duration> {
        let able = self.away.iter().filter(|(agent_id, away)| {
            away.takes_work
                && now < away.until
                && !task.excludes(agent_id)
                && task.spec.selector.admits(&away.tags).is_ok()
        });
        able.map(|(_, away)| away.until).max()
    }

    /// Ends a task that agents refused or tried and that no agent is left for, once nobody is expected back either.
    pub(super) fn settle_if_nobody_is_left(&mut self, now: Duration, task_id: &str) {
        let Some(task) = self.tasks.get(task_id).filter(|task| task.was_tried()) else { return };
        let is_somebody_left = self.somebody_is_left(task);
        let expected = self.expected(now, task);
        let grace_end = now + self.times.refusal_grace;
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        task.held_until = match (task.held_until, expected) {
            _ if is_somebody_left => None,
            (_, None) => Some(now),
            (Some(held_until), Some(_)) => Some(held_until),
            (None, Some(until)) => Some(until.min(grace_end).min(task.queue_until)),
        };
        if task.held_until.is_some_and(|at| at <= now) {
            self.settle(task_id);
        } else {
            self.watch(task_id);
        }
    }

    /// Whether some connected agent may still take the task, now or later. What has failed already does not wait for
    /// an agent that is paused.
    pub(super) fn somebody_is_left(&self, task: &Task) -> bool {
        let waits_for_paused = task.passed.is_empty();
        self.agents.iter().any(|(agent_id, agent)| {
            (waits_for_paused || agent.mode == Mode::Active) && self.could_take(task, agent_id)
        })
    }

    /// Ends a task with what the agents that had it said.
    pub(super) fn settle(&mut self, task_id: &str) {
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        if let Some((result, reason)) = task.most_telling() {
            return self.complete(task_id, Outcome::Failed, Some(result), reason);
        }
        let Some(refusal) = task.refusal.take() else { return };
        self.complete(task_id, Outcome::Refused, refusal.result, Some(refusal.reason));
    }
}
