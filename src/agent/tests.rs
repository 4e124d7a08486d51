//! The loop with a line that is made by hand, under paused time.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use sortie_protocol::AttemptId;
use sortie_protocol::message::{Challenge, ControlMessage};

use super::*;
use crate::git::{Control, Limits};
use crate::identity::AgentKey;
use crate::journal::{Change, Durability, Kept, StoreError};
use crate::report::{Diagnosis, StageLog};
use crate::session::choice::Kind;
use crate::task::{Task, TaskReport};

/// A store that keeps nothing.
struct Nothing;

impl Store for Nothing {
    async fn keep(&mut self, _: Vec<Change>, _: Durability) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Work that is never asked for.
#[derive(Clone)]
struct Idle;

impl Work for Idle {
    fn admit(&self, _: &Task) -> Result<(), Diagnosis> {
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }

    async fn run(&self, _: &AttemptId, _: &Task, _: &Control, _: &StageLog) -> TaskReport {
        std::future::pending().await
    }

    async fn discard(self, _: AttemptId) {}

    async fn settle(self, _: Vec<AttemptId>) {}
}

/// A line that lets the challenge through and nothing after it.
struct Deaf {
    challenge: Option<Challenge>,
}

impl Transport for Deaf {
    fn receive(&mut self) -> BoxFuture<'_, Incoming> {
        Box::pin(async {
            match self.challenge.take() {
                Some(challenge) => Incoming::Message(Box::new(ControlMessage::Challenge(challenge))),
                None => std::future::pending().await,
            }
        })
    }

    fn send<'a>(&'a mut self, _: &'a AgentMessage) -> BoxFuture<'a, Result<(), LineError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn ping(&mut self) -> BoxFuture<'_, Result<(), LineError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// What the way was told of its lines: whether one was open.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<bool>>>);

impl Way for Told {
    fn open(&self) -> Opening {
        let challenge = Challenge { session: "s".into(), nonce: "bm9uY2U=".into() };
        Box::pin(async { Ok(Box::new(Deaf { challenge: Some(challenge) }) as Box<dyn Transport>) })
    }

    fn opened(&mut self, result: Result<Kind, &LineError>) {
        self.0.lock().unwrap().push(result.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_opens_and_carries_no_session_is_told_as_one_that_does_not_pass() {
    let told = Told::default();
    let key = AgentKey::generate().unwrap();
    let agent = Agent::new(Parts {
        way: Box::new(told.clone()),
        profile: Profile { name: "a".into(), tags: vec![], max_tasks: 1 },
        identity: Identity { agent_id: "a1".into(), control_plane: "https://sortie.example".into(), key },
        runner: Runner::new(Idle, Duration::from_secs(60)),
        journal: Journal::new(Nothing, Kept::default()),
        notifier: Notifier::from_environment(),
        board: Board::new().0,
        drain: Duration::from_secs(1),
        jitter: Box::new(|| 1.0),
    });
    let (_wishes, wish) = watch::channel(Wish::Run);
    let _ = tokio::time::timeout(Duration::from_secs(60), agent.run(wish)).await;
    let told = told.0.lock().unwrap();
    assert!(told.len() >= 3 && told.iter().all(|is_open| !is_open), "{told:?}");
}
