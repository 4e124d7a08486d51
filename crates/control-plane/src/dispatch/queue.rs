//! Tasks that wait, and the order in which an agent gets them.
//!
//! Priority comes first. Within one priority the selectors take turns, so that ten thousand tasks of one selector
//! do not starve another one's. Within a selector the oldest task goes first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sortie_protocol::selector::Selector;

use super::task::Task;

/// What tasks of one lane have in common: every agent that may take one of them may take each.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LaneKey {
    /// The lists of the selector, each sorted.
    lists: [Vec<String>; 3],
    /// Agents that refused the task or tried it.
    excluded: BTreeSet<String>,
}

#[derive(Debug)]
struct Lane {
    selector: Selector,
    /// When it had its last turn, or came up, as a count of turns.
    turn: u64,
    /// By their order.
    tasks: BTreeMap<u64, String>,
}

/// Where a task stands in the queue.
#[derive(Debug, Clone)]
struct Place {
    priority: Reverse<i32>,
    lane: Arc<LaneKey>,
}

/// Tasks that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    levels: BTreeMap<Reverse<i32>, BTreeMap<Arc<LaneKey>, Lane>>,
    /// By the order of the task. Nothing iterates over it.
    places: HashMap<u64, Place>,
    turns: u64,
}

impl LaneKey {
    fn of(task: &Task) -> Self {
        let selector = &task.spec.selector;
        let sorted = |list: &Vec<String>| {
            let mut list = list.clone();
            list.sort();
            list
        };
        Self {
            lists: [sorted(&selector.all), sorted(&selector.any), sorted(&selector.none)],
            excluded: task.excluded(),
        }
    }
}

impl Queue {
    /// Lets a task wait. What excludes agents from it must not change while it does.
    pub(super) fn push(&mut self, task: &Task) {
        let place = Place { priority: Reverse(task.spec.priority), lane: Arc::new(LaneKey::of(task)) };
        let lanes = self.levels.entry(place.priority).or_default();
        let lane = lanes.entry(Arc::clone(&place.lane)).or_insert_with(|| Lane {
            selector: task.spec.selector.clone(),
            // At the end of the round, so that selectors that come and go do not push in before those that wait.
            turn: self.turns,
            tasks: BTreeMap::new(),
        });
        lane.tasks.insert(task.order, task.id.clone());
        self.places.insert(task.order, place);
    }

    /// Takes a task out, where it waits. Where it goes to an agent, its selector has had its turn.
    pub(super) fn remove(&mut self, order: u64, is_turn: bool) {
        let Some(Place { priority, lane: key }) = self.places.remove(&order) else { return };
        let Some(lanes) = self.levels.get_mut(&priority) else { return };
        if let Some(lane) = lanes.get_mut(&key) {
            lane.tasks.remove(&order);
            if is_turn {
                self.turns += 1;
                lane.turn = self.turns;
            }
            if lane.tasks.is_empty() {
                lanes.remove(&key);
            }
        }
        if lanes.is_empty() {
            self.levels.remove(&priority);
        }
    }

    pub(super) fn contains(&self, order: u64) -> bool {
        self.places.contains_key(&order)
    }

    /// The task that an agent is to get next. The cost grows with the number of selectors that wait, and not with
    /// the number of tasks.
    pub(super) fn next(&self, agent_id: &str, tags: &BTreeSet<String>) -> Option<&str> {
        self.levels.values().find_map(|lanes| {
            let able = lanes
                .iter()
                .filter(|(key, lane)| !key.excluded.contains(agent_id) && lane.selector.admits(tags).is_ok());
            let firsts = able.filter_map(|(_, lane)| {
                let (order, task_id) = lane.tasks.first_key_value()?;
                Some((lane.turn, *order, task_id))
            });
            firsts.min().map(|(_, _, task_id)| task_id.as_str())
        })
    }

    /// The tasks that some agent refused or tried, those together that every agent may take alike.
    pub(super) fn tried(&self) -> impl Iterator<Item = &BTreeMap<u64, String>> {
        let lanes = self.levels.values().flatten().filter(|(key, _)| !key.excluded.is_empty());
        lanes.map(|(_, lane)| &lane.tasks)
    }
}
