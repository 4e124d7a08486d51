//! The choice of an agent for a task, and of tasks for an agent.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use sortie_protocol::message::{ControlMessage, Offer};

use super::agents::milliseconds;
use super::task::{Live, Phase, Task};
use super::{Dispatcher, Mode, Transition};

impl Dispatcher {
    /// Offers a waiting task to the best agent, where there is one.
    pub(super) fn place(&mut self, now: Duration, task_id: &str) {
        let Some(task) = self.tasks.get(task_id) else { return };
        if task.live.is_some() {
            return;
        }
        if task.last_number >= self.limits.offers_per_task {
            return self.wear_out(task_id);
        }
        // Those that are not known to be unable to reach the server, then those that are known to reach it, then
        // most free slots, then the one that has waited longest for an offer; the name makes the choice the same
        // on every run.
        let target = task.target.as_deref();
        let best = self
            .agents
            .iter()
            .map(|(agent_id, agent)| (self.free_slots(agent_id), agent, agent_id))
            .filter(|(free, _, agent_id)| *free > 0 && self.could_take(task, agent_id))
            .max_by_key(|(free, agent, agent_id)| {
                let rank = self.reach.standing(now, agent_id, target).rank();
                (rank, *free, Reverse(agent.last_offered), Reverse(&agent.name))
            })
            .map(|(_, _, agent_id)| agent_id.clone());
        match best {
            Some(agent_id) => self.offer(now, task_id, &agent_id),
            None => self.settle_if_nobody_is_left(now, task_id),
        }
    }

    /// Offers tasks to an agent while it has free slots: those whose agents were not heard of any more, and then
    /// those that wait, in the queue's order.
    pub(super) fn fill(&mut self, now: Duration, agent_id: &str) {
        self.adopt(now, agent_id);
        while self.free_slots(agent_id) > 0 {
            let Some(agent) = self.agents.get(agent_id) else { return };
            let Some(task_id) = self.queue.next(agent_id, &agent.tags).map(str::to_owned) else { return };
            self.place(now, &task_id);
            let still_waits = self.tasks.get(&task_id).is_some_and(|task| self.queue.contains(task.order));
            if still_waits {
                return;
            }
        }
    }

    /// Ends the tasks that some agent refused or tried and that the last agent has gone for that might have taken them.
    /// One look serves all that are alike: as a rule somebody is left, and then none of them is looked at.
    pub(super) fn settle_tried(&mut self, now: Duration) {
        let is_left = |task_id: &String| {
            self.tasks.get(task_id).is_some_and(|task| {
                self.agents.iter().any(|(id, it)| it.mode == Mode::Active && self.could_take(task, id))
            })
        };
        let left_alone = self.queue.tried().filter(|tasks| !tasks.values().next().is_some_and(is_left));
        for task_id in left_alone.flat_map(BTreeMap::values).cloned().collect::<Vec<String>>() {
            self.settle_if_nobody_is_left(now, &task_id);
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
            agent.takes_work() && !task.excludes(agent_id) && task.spec.selector.admits(&agent.tags).is_ok()
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
            failover_at: None,
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
        self.queue.remove(task.order, true);
        self.watch(task_id);
        self.held.entry(agent_id.to_owned()).or_default().insert(task_id.to_owned());
        self.persist(Transition::AttemptOffered { attempt, agent_id: agent_id.to_owned(), agent_name });
        self.send(agent_id, ControlMessage::Offer(offer));
    }
}
