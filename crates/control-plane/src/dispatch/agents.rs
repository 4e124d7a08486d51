//! Connected agents: how they come, resume, pause and go.

use std::collections::BTreeSet;
use std::time::Duration;

use sortie_protocol::AttemptId;
use sortie_protocol::message::{
    ControlMessage, Decision, Goaway, GoawayReason, LostAttempt, Renewal, Times, Welcome,
};

use super::task::{Live, Phase, Task};
use super::{Action, Dispatcher, Mode, Transition};

/// The most characters of an agent's own words on a lost attempt that are kept.
const MAX_REASON_CHARS: usize = 200;

/// An agent that has proved who it is, and what its `hello` told.
#[derive(Debug, Clone, PartialEq)]
pub struct Connected {
    /// The session.
    pub session: String,
    /// The agent.
    pub agent_id: String,
    /// Its name.
    pub name: String,
    /// Every tag that it carries, the implicit ones included.
    pub tags: BTreeSet<String>,
    /// The tags of its own configuration alone.
    pub own_tags: Vec<String>,
    /// The version of its program.
    pub version: String,
    /// Its operating system.
    pub os: String,
    /// Its architecture.
    pub arch: String,
    /// How many attempts it runs at once.
    pub max_tasks: u32,
    /// What an administrator decided about it.
    pub mode: Mode,
    /// Attempts that it runs.
    pub running: Vec<AttemptId>,
    /// Attempts whose results it will send.
    pub unacknowledged: Vec<AttemptId>,
    /// Attempts that a restart of its own ended.
    pub lost: Vec<LostAttempt>,
}

/// A connected agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) session: String,
    pub(super) name: String,
    pub(super) tags: BTreeSet<String>,
    pub(super) max_tasks: u32,
    pub(super) mode: Mode,
    /// Whether the agent itself said that it takes nothing more.
    pub(super) draining: bool,
    /// The free slots that it told, less the offers that it accepted since.
    pub(super) credit: u32,
    /// When it got its last offer, as a count of offers.
    pub(super) last_offered: u64,
}

/// What the dispatcher knows of a connected agent.
#[derive(Debug, Clone)]
pub struct AgentView {
    /// The session.
    pub session: String,
    /// Slots that are free for offers.
    pub free_slots: u32,
    /// Whether the agent itself takes nothing more.
    pub draining: bool,
    /// The attempts that it holds.
    pub attempts: Vec<AttemptId>,
}

impl Agent {
    /// Whether offers may go to it at all, now or later.
    pub(super) fn takes_work(&self) -> bool {
        !self.draining && self.mode != Mode::Draining
    }
}

impl Dispatcher {
    pub(super) fn agent_connected(&mut self, now: Duration, connected: Connected) {
        let agent_id = connected.agent_id.clone();
        let has_older = self.agents.contains_key(&agent_id);
        if let Some(older) = self.agents.remove(&agent_id) {
            self.sessions.remove(&older.session);
            self.actions.push(Action::Close { session: older.session, goaway: superseded() });
        }
        self.persist(Transition::AgentConnected(Box::new(connected.clone())));
        let session = connected.session.clone();
        self.sessions.insert(session.clone(), agent_id.clone());
        self.agents.insert(
            agent_id.clone(),
            Agent {
                session: session.clone(),
                name: connected.name,
                tags: connected.tags,
                max_tasks: connected.max_tasks,
                mode: connected.mode,
                draining: false,
                credit: 0,
                last_offered: 0,
            },
        );
        let attempts = self.resume(now, &agent_id, connected.running);
        let welcome =
            Welcome { session, version: self.version.to_owned(), times: self.told_times(), attempts };
        self.send(&agent_id, ControlMessage::Welcome(welcome));
        self.tell_mode(&agent_id, connected.mode);
        self.drop_lost(now, &agent_id, &connected.unacknowledged, &connected.lost, has_older);
    }

    /// Decides about every attempt that the agent says it runs.
    fn resume(&mut self, now: Duration, agent_id: &str, running: Vec<AttemptId>) -> Vec<Renewal> {
        let mut renewals = Vec::with_capacity(running.len());
        for attempt in running {
            let renewal = self.renewal(now, agent_id, attempt);
            // The attempt runs, so it was accepted and started, whether these messages arrived or not.
            if renewal.decision != Decision::Abandon {
                self.mark_started(&renewal.attempt);
                self.kept(&renewal.attempt);
            }
            renewals.push(renewal);
        }
        renewals
    }

    /// Ends attempts that the agent held and does not know any more. Those that it listed as running have
    /// been marked by [`Self::resume`] already. Where an older session stood until now, the process at its other end
    /// may live, and what has effects stays with it until its lease ends.
    fn drop_lost(
        &mut self,
        now: Duration,
        agent_id: &str,
        unacknowledged: &[AttemptId],
        lost: &[LostAttempt],
        may_live: bool,
    ) {
        let held: Vec<_> = self.held.get(agent_id).into_iter().flatten().cloned().collect();
        for task_id in held {
            let lease_end = self.lease_end(now);
            let Some(task) = self.tasks.get_mut(&task_id) else { continue };
            let stays = may_live && task.may_have_effects();
            let Some(live) = task.live.as_mut() else { continue };
            if std::mem::take(&mut live.resumed) {
                continue;
            }
            let number = live.number;
            let is_this = |it: &AttemptId| it.task_id == task_id && it.attempt == number;
            if unacknowledged.iter().any(is_this) {
                live.ends_at = lease_end;
                live.failover_at = None;
                self.orphans.remove(&task_id);
                self.watch(&task_id);
                continue;
            }
            if stays {
                continue;
            }
            match lost.iter().find(|it| is_this(&it.attempt)) {
                // Whatever had arrived here of it: it ran there.
                Some(lost) => {
                    let reason = format!("{} lost it: {}", live.agent_name, told(&lost.reason));
                    self.lose(now, &task_id, &reason);
                }
                None => self.lost_on_the_way(now, &task_id),
            }
        }
    }

    fn lost_on_the_way(&mut self, now: Duration, task_id: &str) {
        let Some(live) = self.tasks.get(task_id).and_then(|task| task.live.as_ref()) else { return };
        let was_offered = live.phase == Phase::Offered;
        let reason = format!("{} came back without the attempt", live.agent_name);
        if was_offered {
            // The offer got lost with the connection: nothing ran, so nothing counts.
            self.end_attempt(task_id, super::task::End { counted: false, ..super::task::End::lost(&reason) });
            self.requeue(now, task_id);
        } else {
            self.lose(now, task_id, &reason);
        }
    }

    fn kept(&mut self, attempt: &AttemptId) {
        if let Some(task) = self.tasks.get_mut(&attempt.task_id)
            && let Some(live) = task.live.as_mut()
        {
            live.resumed = true;
        }
    }

    pub(super) fn agent_gone(&mut self, now: Duration, session: &str) {
        // The attempts stay: the agent may come back with them before their leases end.
        let Some(agent_id) = self.sessions.remove(session) else { return };
        self.agents.remove(&agent_id);
        self.lend(now, &agent_id);
        self.persist(Transition::AgentGone { agent_id });
        self.settle_tried(now);
    }

    pub(super) fn credited(&mut self, now: Duration, agent_id: &str, slots: u32) {
        let limit = self.limits.credit;
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.credit = slots.min(limit).min(agent.max_tasks);
        }
        self.fill(now, agent_id);
    }

    pub(super) fn agent_drains(&mut self, now: Duration, agent_id: &str) {
        if let Some(agent) = self.agents.get_mut(agent_id) {
            agent.draining = true;
            agent.credit = 0;
        }
        self.settle_tried(now);
    }

    pub(super) fn mode_set(&mut self, now: Duration, agent_id: &str, mode: Mode) {
        self.persist(Transition::AgentMode { agent_id: agent_id.to_owned(), mode });
        let Some(agent) = self.agents.get_mut(agent_id) else { return };
        let before = std::mem::replace(&mut agent.mode, mode);
        if before == mode {
            return;
        }
        if mode == Mode::Active {
            self.send(agent_id, ControlMessage::Resume {});
            self.fill(now, agent_id);
        } else {
            self.tell_mode(agent_id, mode);
            self.settle_tried(now);
        }
    }

    fn tell_mode(&mut self, agent_id: &str, mode: Mode) {
        let reason = "an administrator of the control plane said so".to_owned();
        match mode {
            Mode::Active => {}
            Mode::Paused => self.send(agent_id, ControlMessage::Pause { reason }),
            Mode::Draining => self.send(agent_id, ControlMessage::Drain { reason }),
        }
    }

    pub(super) fn agent_revoked(&mut self, now: Duration, agent_id: &str, reason: &str) {
        self.persist(Transition::AgentRevoked { agent_id: agent_id.to_owned() });
        self.reach.forget(agent_id);
        if let Some(agent) = self.agents.remove(agent_id) {
            self.sessions.remove(&agent.session);
            let goaway = Goaway {
                reason: GoawayReason::IdentityRefused,
                message: reason.to_owned(),
                reconnect_after_ms: 0,
            };
            self.actions.push(Action::Close { session: agent.session, goaway });
        }
        let held: Vec<_> = self.held.get(agent_id).into_iter().flatten().cloned().collect();
        for task_id in held {
            // It hears of it late or never, and works on until its lease ends.
            if !self.tasks.get(&task_id).is_some_and(Task::may_have_effects) {
                self.lose(now, &task_id, reason);
            }
        }
        self.settle_tried(now);
    }

    /// What the dispatcher knows of a connected agent.
    pub fn agent(&self, agent_id: &str) -> Option<AgentView> {
        let agent = self.agents.get(agent_id)?;
        let attempts = self.held.get(agent_id).into_iter().flatten();
        let attempts = attempts
            .filter_map(|id| self.tasks.get(id))
            .filter_map(|task| task.live.as_ref().map(|live: &Live| task.attempt_id(live.number)));
        Some(AgentView {
            session: agent.session.clone(),
            free_slots: self.free_slots(agent_id),
            draining: agent.draining,
            attempts: attempts.collect(),
        })
    }

    /// The sessions that are open.
    pub fn sessions(&self) -> impl Iterator<Item = &str> {
        self.sessions.keys().map(String::as_str)
    }

    fn told_times(&self) -> Times {
        Times {
            ping_ms: milliseconds(self.times.ping),
            dead_after_ms: milliseconds(self.times.dead_after),
            renew_ms: milliseconds(self.times.renew),
        }
    }
}

/// A duration for people.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

/// What an agent says, for a reason that people read: bounded, and without control characters.
pub(super) fn told(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect()
}

/// A duration as it travels.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn superseded() -> Goaway {
    Goaway {
        reason: GoawayReason::Superseded,
        message: "a newer session of the same agent has opened; \
                  if this was not you, revoke the agent: somebody may have its key"
            .to_owned(),
        reconnect_after_ms: 0,
    }
}
