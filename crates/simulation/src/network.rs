//! Lines between agents and the control plane: in order and without loss while they stand, as TCP's are; they stall
//! in one direction or both, and break for one side, for both, or without a word.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{Sink, Stream, sink, stream};
use sortie::session::line::{Incoming as ToAgent, LineError};
use sortie::session::transport::{Transport, Way};
use sortie_control::session::{Incoming as ToControl, Outgoing};
use sortie_protocol::{AgentMessage, ControlMessage};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::chaos::{Chaos, Process};
use crate::oracle::Oracle;

/// What may be on its way in one direction, and how many connections may wait to be taken. A line that is fuller breaks.
const QUEUE: usize = 4096;

/// How long an agent waits for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The two directions of an agent's line.
#[derive(Debug, Clone, Copy)]
pub enum Direction {
    /// From the agent.
    Up,
    /// To the agent.
    Down,
}

/// The cable between one agent and the rest: it outlives connections. Clones share it.
#[derive(Debug, Clone)]
pub struct Cable(Arc<Mutex<CableState>>);

#[derive(Debug)]
struct CableState {
    /// Until when nothing arrives, up and down.
    stalled: [Instant; 2],
    /// The connections that are open, to be cut.
    connections: Vec<CancellationToken>,
}

impl Default for Cable {
    fn default() -> Self {
        let now = Instant::now();
        Self(Arc::new(Mutex::new(CableState { stalled: [now, now], connections: Vec::new() })))
    }
}

impl Cable {
    /// Lets nothing arrive for a while.
    pub fn stall(&self, direction: Direction, time: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + time;
        let stalled = &mut state.stalled[direction as usize];
        *stalled = (*stalled).max(until);
    }

    /// Breaks all connections, so that both sides see it. What is on its way is lost.
    pub fn cut(&self) {
        let connections =
            std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).connections);
        for connection in connections {
            connection.cancel();
        }
    }

    fn stalled_until(&self, direction: Direction) -> Instant {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stalled[direction as usize]
    }

    fn opened(&self, connection: CancellationToken) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.connections.retain(|connection| !connection.is_cancelled());
        state.connections.push(connection);
    }
}

/// What travels.
#[derive(Debug)]
enum Item {
    Text(String),
    Ping,
    Pong,
    Close,
}

/// The sending end of one direction.
struct Sender {
    items: mpsc::Sender<(Instant, Item)>,
    last: Instant,
    chaos: Chaos,
    process: Process,
    cut: CancellationToken,
}

impl Sender {
    fn send(&mut self, item: Item) -> bool {
        self.last = self.last.max(Instant::now() + self.chaos.latency());
        !self.cut.is_cancelled() && self.items.try_send((self.last, item)).is_ok()
    }
}

impl Drop for Sender {
    /// The kernel of a process that has ended says goodbye for it, unless the host is gone too.
    fn drop(&mut self) {
        if !self.process.lost_power() {
            self.send(Item::Close);
        }
    }
}

/// The receiving end of one direction.
struct Receiver {
    items: mpsc::Receiver<(Instant, Item)>,
    /// What has been taken and has not arrived yet.
    next: Option<(Instant, Item)>,
    cable: Cable,
    direction: Direction,
    cut: CancellationToken,
    is_closed: bool,
}

impl Receiver {
    /// Dropping the future loses nothing.
    async fn receive(&mut self) -> Item {
        let cut = self.cut.clone();
        let arrived = async {
            if self.is_closed {
                return std::future::pending().await;
            }
            if self.next.is_none() {
                self.next = match self.items.recv().await {
                    Some(item) => Some(item),
                    // The other host is gone: nothing comes any more, and nobody says so.
                    None => std::future::pending().await,
                };
            }
            loop {
                let at = self.next.as_ref().map_or_else(Instant::now, |(at, _)| *at);
                let at = at.max(self.cable.stalled_until(self.direction));
                if at <= Instant::now() {
                    return self.next.take().map_or(Item::Close, |(_, item)| item);
                }
                sleep_until(at).await;
            }
        };
        let item = tokio::select! {
            biased;
            () = cut.cancelled() => Item::Close,
            item = arrived => item,
        };
        self.is_closed |= matches!(item, Item::Close);
        item
    }
}

/// One end of a connection.
pub struct End {
    sender: Sender,
    receiver: Receiver,
    process: Process,
}

/// Where a control plane takes connections, while it is up.
#[derive(Debug, Clone, Default)]
pub struct Door(Arc<Mutex<Option<Listening>>>);

/// The control plane that is up, and where it takes connections.
#[derive(Debug, Clone)]
struct Listening {
    ends: mpsc::Sender<End>,
    process: Process,
}

impl Door {
    /// Begins to take connections for a process.
    pub fn listen(&self, process: &Process) -> mpsc::Receiver<End> {
        let (ends, receiver) = mpsc::channel(QUEUE);
        let listening = Listening { ends, process: process.clone() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(listening);
        receiver
    }

    /// Takes none any more.
    pub fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// An agent's way to the control plane.
pub struct Line {
    /// The chance of the run.
    pub chaos: Chaos,
    /// Whose way it is.
    pub process: Process,
    /// Over which cable.
    pub cable: Cable,
    /// Where to.
    pub door: Door,
}

impl Line {
    async fn connect(
        chaos: Chaos,
        process: Process,
        cable: Cable,
        door: Door,
    ) -> Result<Box<dyn Transport>, LineError> {
        process.step().await;
        sleep(chaos.latency()).await;
        let reachable = cable.stalled_until(Direction::Up).max(cable.stalled_until(Direction::Down));
        timeout(CONNECT_TIMEOUT, sleep_until(reachable)).await.map_err(|_| LineError::TimedOut)?;
        let listening = door.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Listening { ends, process: control } = listening.ok_or(LineError::Broken)?;
        let cut = CancellationToken::new();
        cable.opened(cut.clone());
        let pipe = |process: &Process, direction| {
            let (items, arrived) = mpsc::channel(QUEUE);
            let (chaos, process, last) = (chaos.clone(), process.clone(), Instant::now());
            let sender = Sender { items, last, chaos, process, cut: cut.clone() };
            let (cable, cut) = (cable.clone(), cut.clone());
            (sender, Receiver { items: arrived, next: None, cable, direction, cut, is_closed: false })
        };
        let (agents_sender, controls_receiver) = pipe(&process, Direction::Up);
        let (controls_sender, agents_receiver) = pipe(&control, Direction::Down);
        let theirs = End { sender: controls_sender, receiver: controls_receiver, process: control };
        ends.try_send(theirs).map_err(|_| LineError::Broken)?;
        let ours = End { sender: agents_sender, receiver: agents_receiver, process };
        Ok(Box::new(ours) as Box<dyn Transport>)
    }
}

impl Way for Line {
    fn open(&self) -> BoxFuture<'static, Result<Box<dyn Transport>, LineError>> {
        let (chaos, process) = (self.chaos.clone(), self.process.clone());
        Box::pin(Self::connect(chaos, process, self.cable.clone(), self.door.clone()))
    }
}

impl Transport for End {
    fn receive(&mut self) -> BoxFuture<'_, ToAgent> {
        Box::pin(async {
            match self.receiver.receive().await {
                Item::Text(text) => {
                    let text = sortie_protocol::decode::<ControlMessage>(&text);
                    self.process.step().await;
                    match text {
                        Ok(message) => ToAgent::Message(Box::new(message)),
                        Err(error) => ToAgent::NotUnderstood(error),
                    }
                }
                Item::Ping => {
                    self.sender.send(Item::Pong);
                    ToAgent::Alive
                }
                Item::Pong => ToAgent::Alive,
                Item::Close => ToAgent::Closed,
            }
        })
    }

    fn send<'a>(&'a mut self, message: &'a AgentMessage) -> BoxFuture<'a, Result<(), LineError>> {
        Box::pin(async {
            self.process.step().await;
            let text = sortie_protocol::encode(message).expect("a message that fits");
            let sent = self.sender.send(Item::Text(text));
            self.process.step().await;
            if sent { Ok(()) } else { Err(LineError::Broken) }
        })
    }

    fn ping(&mut self) -> BoxFuture<'_, Result<(), LineError>> {
        let sent = self.sender.send(Item::Ping);
        Box::pin(async move { if sent { Ok(()) } else { Err(LineError::Broken) } })
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { drop(self) })
    }
}

/// What a session of the control plane's reads.
pub type Reader = Pin<Box<dyn Stream<Item = ToControl> + Send>>;
/// What it writes to.
pub type Writer = Pin<Box<dyn Sink<Outgoing, Error = LineError> + Send>>;

/// Takes an end apart for a session of the control plane's. The oracle hears what is granted to agents.
pub fn served(end: End, oracle: Oracle) -> (Reader, Writer) {
    let End { sender, receiver, process } = end;
    let sender = Arc::new(Mutex::new(sender));
    let answering = Arc::clone(&sender);
    let reader =
        stream::unfold((receiver, answering, process.clone()), |(mut receiver, sender, process)| async {
            let incoming = match receiver.receive().await {
                Item::Text(text) => {
                    process.step().await;
                    ToControl::Text(text)
                }
                Item::Ping => {
                    sender.lock().unwrap_or_else(PoisonError::into_inner).send(Item::Pong);
                    ToControl::Alive
                }
                Item::Pong => ToControl::Alive,
                Item::Close => ToControl::Closed,
            };
            Some((incoming, (receiver, sender, process)))
        });
    let writer = sink::unfold((sender, process, oracle), |(sender, process, oracle), outgoing| async {
        process.step().await;
        let item = match outgoing {
            Outgoing::Text(text) => {
                if let Ok(message) = sortie_protocol::decode::<ControlMessage>(&text) {
                    oracle.granted(&message);
                }
                Item::Text(text)
            }
            Outgoing::Ping => Item::Ping,
            Outgoing::Close => Item::Close,
        };
        let sent = sender.lock().unwrap_or_else(PoisonError::into_inner).send(item);
        process.step().await;
        if sent { Ok((sender, process, oracle)) } else { Err(LineError::Broken) }
    });
    (Box::pin(reader), Box::pin(Breakable(Some(Box::pin(writer)))))
}

/// A sink that may be asked again after it has failed.
struct Breakable(Option<Writer>);

impl Breakable {
    fn poll(
        &mut self,
        poll: impl FnOnce(Pin<&mut (dyn Sink<Outgoing, Error = LineError> + Send)>) -> Poll<Result<(), LineError>>,
    ) -> Poll<Result<(), LineError>> {
        let Some(sink) = &mut self.0 else { return Poll::Ready(Err(LineError::Broken)) };
        let polled = poll(sink.as_mut());
        if matches!(polled, Poll::Ready(Err(_))) {
            self.0 = None;
        }
        polled
    }
}

impl Sink<Outgoing> for Breakable {
    type Error = LineError;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), LineError>> {
        self.poll(|sink| sink.poll_ready(context))
    }

    fn start_send(mut self: Pin<&mut Self>, item: Outgoing) -> Result<(), LineError> {
        self.0.as_mut().map_or(Err(LineError::Broken), |sink| sink.as_mut().start_send(item))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), LineError>> {
        self.poll(|sink| sink.poll_flush(context))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), LineError>> {
        self.poll(|sink| sink.poll_close(context))
    }
}
