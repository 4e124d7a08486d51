//! The choice of an agent for a task, and of tasks for an agent.

use std::cmp::Reverse;
use std::time::Duration;

use sortie_protocol::message::{ControlMessage, Offer};

use super::agents::milliseconds;
use super::task::{Live, Phase, Task};
use super::{Dispatcher, Mode, Outcome, Transition};

impl Dispatcher {
    /// Offers a waiting task to the best agent, where there is one.
    pub(super) fn place(&mut self, now: Duration, task_id: &str) {
        let Some(task) = self.tasks.get(task_id) else { return };
        if task.live.is_some() {
            return;
        }
        if task.last_number >= self.limits.offers_per_task {
            let reason = format!("{} offers were made and none of them was carried out", task.last_number);
            return self.complete(task_id, Outcome::Dead, None, Some(reason));
        }
        // Most free slots first, then the one that has waited longest for an offer; the name makes the
        // choice the same on every run.
        let best = self
            .agents
            .iter()
            .filter(|(agent_id, _)| self.could_take(task, agent_id))
            .map(|(agent_id, agent)| (self.free_slots(agent_id), agent, agent_id))
            .filter(|(free, _, _)| *free > 0)
            .max_by_key(|(free, agent, _)| (*free, Reverse(agent.last_offered), Reverse(&agent.name)))
            .map(|(_, _, agent_id)| agent_id.clone());
        match best {
            Some(agent_id) => self.offer(now, task_id, &agent_id),
            None => self.refuse_if_nobody_is_left(now, task_id),
        }
    }

    /// Offers waiting tasks to an agent, the oldest first, while it has free slots.
    pub(super) fn fill(&mut self, now: Duration, agent_id: &str) {
        let mut free = self.free_slots(agent_id);
        if free == 0 {
            return;
        }
        let mut chosen = Vec::new();
        for task_id in self.queue.values() {
            if free == 0 {
                break;
            }
            if self.tasks.get(task_id).is_some_and(|task| self.could_take(task, agent_id)) {
                chosen.push(task_id.clone());
                free -= 1;
            }
        }
        for task_id in chosen {
            self.place(now, &task_id);
        }
    }

    /// Looks again at the tasks that some agent refused, because the last agent that might have taken them
    /// may just have gone.
    pub(super) fn place_refused(&mut self, now: Duration) {
        let refused = self.queue.values().filter(|id| {
            let task = self.tasks.get(*id);
            task.is_some_and(|task| task.refusal.is_some())
        });
        for task_id in refused.cloned().collect::<Vec<_>>() {
            self.place(now, &task_id);
        }
    }

    /// Slots of an agent that an offer could go to now.
    pub(super) fn free_slots(&self, agent_id: &str) -> u32 {
        let Some(agent) = self.agents.get(agent_id) else { return 0 };
        if !agent.takes_work() || agent.mode == Mode::Paused {
            return 0;
        }
        let unanswered = self.held.get(agent_id).into_iter().flatten().filter(|task_id| {
            let live = self.tasks.get(*task_id).and_then(|task| task.live.as_ref());
            live.is_some_and(|live| live.phase == Phase::Offered)
        });
        agent.credit.saturating_sub(u32::try_from(unanswered.count()).unwrap_or(u32::MAX))
    }

    /// Whether an agent is one that may get the task, now or when it has a free slot.
    pub(super) fn could_take(&self, task: &Task, agent_id: &str) -> bool {
        self.agents.get(agent_id).is_some_and(|agent| {
            agent.takes_work()
                && !task.refused_by.contains(agent_id)
                && task.spec.selector.admits(&agent.tags).is_ok()
        })
    }

    fn offer(&mut self, now: Duration, task_id: &str, agent_id: &str) {
        let count = self.next_count();
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let Some(task) = self.tasks.get_mut(task_id) else { return };
        agent.last_offered = count;
        task.last_number += 1;
        let attempt = task.attempt_id(task.last_number);
        let ends_at = now + self.times.accept;
        task.live = Some(Live {
            number: task.last_number,
            agent_id: agent_id.to_owned(),
            agent_name: agent.name.clone(),
            phase: Phase::Offered,
            ends_at,
            resumed: false,
        });
        let offer = Offer {
            attempt: attempt.clone(),
            task: task.bytes.to_string(),
            signature: None,
            accept_within_ms: milliseconds(self.times.accept),
            lease_ms: milliseconds(self.times.lease),
        };
        let agent_name = agent.name.clone();
        self.queue.remove(&task.order);
        self.deadlines.insert((ends_at, task_id.to_owned()));
        self.held.entry(agent_id.to_owned()).or_default().insert(task_id.to_owned());
        self.persist(Transition::AttemptOffered { attempt, agent_id: agent_id.to_owned(), agent_name });
        self.send(agent_id, ControlMessage::Offer(offer));
    }
}
