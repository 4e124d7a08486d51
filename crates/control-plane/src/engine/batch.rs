//! Commands that are committed together, and what follows the commit.

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::command::{Command, ConnectedAgent, NewTask, Posting, TaskChange, TaskEvent};
use super::ledger::Ledger;
use super::{Engine, Outbound, Session};
use crate::dispatch::{Action, Event, Posted, TaskState, Transition};
use crate::store::{IdempotencyKey, Millis, StoreError};

/// What one turn of the loop has collected.
#[derive(Default)]
pub(super) struct Batch {
    commands: usize,
    transitions: Vec<Transition>,
    keys: Vec<IdempotencyKey>,
    effects: Vec<Action>,
    replies: Vec<Reply>,
}

/// Answers that are due after the commit. Where it fails they are dropped, which tells their callers.
enum Reply {
    Created(oneshot::Sender<Posting>),
    Posted(oneshot::Sender<Posting>, Posting),
    Connected(oneshot::Sender<bool>),
    Done(oneshot::Sender<()>),
}

impl Reply {
    fn give(self, committed_at: Millis) {
        // A caller that has gone away misses nothing.
        let _ = match self {
            Self::Created(reply) => reply.send(Posting::Created(committed_at)).is_ok(),
            Self::Posted(reply, posting) => reply.send(posting).is_ok(),
            Self::Connected(reply) => reply.send(true).is_ok(),
            Self::Done(reply) => reply.send(()).is_ok(),
        };
    }
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.commands
    }

    /// Whether the store is about to change what an administrator decided about an agent.
    fn decides_about(&self, agent: &str) -> bool {
        self.transitions.iter().any(|transition| match transition {
            Transition::AgentMode { agent_id, .. } | Transition::AgentRevoked { agent_id } => {
                agent_id == agent
            }
            _ => false,
        })
    }

    /// Whether somebody learns something of it that must be durable by then.
    fn tells(&self) -> bool {
        let is_told = |effect: &Action| matches!(effect, Action::Send { .. } | Action::Close { .. });
        !self.replies.is_empty() || self.effects.iter().any(is_told)
    }

    /// Whether nobody waits for its commit: an attempt has started, and nothing is answered. Where such a start is
    /// lost with the process, the attempt counts as offered, and its agent tells when it is back.
    fn may_wait(&self) -> bool {
        let is_start = |transition: &Transition| matches!(transition, Transition::AttemptStarted { .. });
        !self.transitions.is_empty()
            && self.transitions.iter().all(is_start)
            && self.keys.is_empty()
            && !self.tells()
    }

    pub(super) fn add(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Persist(transition) => self.transitions.push(transition),
                effect => self.effects.push(effect),
            }
        }
    }
}

impl<L: Ledger> Engine<L> {
    /// Turns a command into an event, or answers it where it only asks.
    pub(super) async fn take(&mut self, batch: &mut Batch, command: Command) -> Result<(), StoreError> {
        batch.commands += 1;
        match command {
            Command::Connect { mut connected, outbound, reply } => {
                if batch.decides_about(&connected.agent_id) {
                    self.held = Some(Command::Connect { connected, outbound, reply });
                    return Ok(());
                }
                // The registration may have ended, or changed, while the agent was proving who it is.
                let Some(record) = self.ledger.agent(&connected.agent_id).await? else {
                    let _ = reply.send(false);
                    return Ok(());
                };
                connected.mode = record.mode;
                self.session_count += 1;
                let (number, connected_at) = (self.session_count, self.ledger.wall_clock());
                let session = Session { number, outbound, connected_at };
                self.sessions.insert(connected.session.clone(), session);
                self.feed(batch, Event::AgentConnected(connected));
                batch.replies.push(Reply::Connected(reply));
            }
            Command::Disconnect { session } => {
                self.sessions.remove(&session);
                self.feed(batch, Event::AgentGone { session });
            }
            Command::FromAgent { session, message } => {
                self.feed(batch, Event::Message { session, message });
            }
            Command::Post { task, reply } => self.post(batch, task, reply).await?,
            Command::Cancel { task_id, reason, reply } => {
                self.feed(batch, Event::CancelRequested { task_id, reason });
                batch.replies.push(Reply::Done(reply));
            }
            Command::SetMode { agent_id, mode, reply } => {
                self.feed(batch, Event::ModeSet { agent_id, mode });
                batch.replies.push(Reply::Done(reply));
            }
            Command::Revoke { agent_id, reason, reply } => {
                self.feed(batch, Event::AgentRevoked { agent_id, reason });
                batch.replies.push(Reply::Done(reply));
            }
            Command::Explain { task_id, candidates, reply } => {
                let _ = reply.send(self.dispatcher.explain(self.now(), &task_id, &candidates));
            }
            Command::Agents { ids, reply } => {
                let connected = ids.into_iter().filter_map(|id| {
                    let view = self.dispatcher.agent(&id)?;
                    let connected_at = self.sessions.get(&view.session)?.connected_at;
                    Some((id, ConnectedAgent { view, connected_at }))
                });
                let _ = reply.send(connected.collect());
            }
        }
        Ok(())
    }

    async fn post(
        &mut self,
        batch: &mut Batch,
        task: NewTask,
        reply: oneshot::Sender<Posting>,
    ) -> Result<(), StoreError> {
        if let Some(key) = &task.key {
            let same = |it: &IdempotencyKey| it.token_id == key.token_id && it.key == key.key;
            if batch.keys.iter().any(same) {
                // Its first use is not committed yet; the next turn finds it in the store.
                self.held = Some(Command::Post { task, reply });
                return Ok(());
            }
            if let Some(used) = self.ledger.idempotency_key(&key.token_id, &key.key).await? {
                let is_same = used.body_hash == key.body_hash;
                let posting = if is_same { Posting::Repeated(used.task_id) } else { Posting::KeyReused };
                batch.replies.push(Reply::Posted(reply, posting));
                return Ok(());
            }
        }
        if self.dispatcher.live_tasks() >= self.limits.live_tasks {
            batch.replies.push(Reply::Posted(reply, Posting::Full));
            return Ok(());
        }
        let NewTask { id, spec, bytes, key } = task;
        self.feed(batch, Event::TaskPosted(Posted { id, spec, bytes }));
        batch.keys.extend(key);
        batch.replies.push(Reply::Created(reply));
        Ok(())
    }

    /// Commits, and then does everything else.
    pub(super) async fn carry_out(&mut self, batch: Batch) -> Result<(), StoreError> {
        let (may_wait, tells) = (batch.may_wait(), batch.tells());
        let Batch { transitions, keys, effects, replies, .. } = batch;
        if may_wait {
            if self.deferred.is_empty() {
                self.deferred_at = Instant::now();
            }
            self.deferred.extend(transitions);
        } else if !transitions.is_empty() || !keys.is_empty() || (tells && !self.deferred.is_empty()) {
            self.commit(transitions, &keys).await?;
        }
        for effect in effects {
            self.effect(effect).await?;
        }
        for reply in replies {
            // Whatever was created has been committed just now.
            reply.give(self.committed_at);
        }
        Ok(())
    }

    /// Makes durable what has waited for that, and this after it.
    pub(super) async fn commit(
        &mut self,
        transitions: Vec<Transition>,
        keys: &[IdempotencyKey],
    ) -> Result<(), StoreError> {
        self.stamped = Instant::now();
        let mut all = std::mem::take(&mut self.deferred);
        all.extend(transitions);
        let at = self.stamp();
        self.ledger.commit(at, &all, keys).await?;
        self.committed_at = at.wall;
        for transition in &all {
            self.tell_watchers(transition);
        }
        Ok(())
    }

    async fn effect(&mut self, effect: Action) -> Result<(), StoreError> {
        match effect {
            // Persisting has happened by now.
            Action::Persist(_) => {}
            Action::Send { session, message } => self.hand_over(session, Outbound::Message(message)),
            Action::Close { session, goaway } => {
                if let Some(session) = self.sessions.remove(&session) {
                    // A full queue ends the session too, without a word: its sender is dropped here.
                    let _ = session.outbound.try_send(Outbound::Close(goaway));
                }
            }
            Action::Recall { session, result } => {
                let record = self.ledger.past_attempt(&result.attempt).await?;
                self.pending.push_back(Event::Recalled { session, result, record });
            }
            Action::Progress(progress) => {
                let task_id = progress.attempt.task_id.as_str().into();
                let change = TaskChange::Progress((*progress).into());
                let _ = self.events.send(TaskEvent { task_id, change });
            }
        }
        Ok(())
    }

    /// Never waits for an agent: one that does not read loses its session, and its attempts stay.
    fn hand_over(&mut self, session: String, outbound: Outbound) {
        let handed = self.sessions.get(&session).map(|it| it.outbound.try_send(outbound));
        if let Some(Err(_)) = handed {
            tracing::warn!(session.id = %session, "an agent does not read what it is sent; its session ends");
            self.sessions.remove(&session);
            self.pending.push_back(Event::AgentGone { session });
        }
    }

    fn tell_watchers(&self, transition: &Transition) {
        let (task_id, state, outcome) = match transition {
            Transition::TaskPosted { task_id, .. } | Transition::TaskQueued { task_id } => {
                (task_id, TaskState::Queued, None)
            }
            Transition::AttemptOffered { attempt, .. } => (&attempt.task_id, TaskState::Offered, None),
            Transition::AttemptStarted { attempt } => (&attempt.task_id, TaskState::Running, None),
            Transition::TaskCancelling { task_id, .. } => (task_id, TaskState::Cancelling, None),
            Transition::TaskCompleted { task_id, outcome, .. } => {
                (task_id, TaskState::Completed, Some(*outcome))
            }
            _ => return,
        };
        let change = TaskChange::State(state, outcome);
        // Without any watcher there is nobody to tell.
        let _ = self.events.send(TaskEvent { task_id: task_id.as_str().into(), change });
    }
}
