//! How long many agents need until all are back after their control plane was killed, and how hard they press.
//!
//! The control plane is the real program. The agents are sessions in this process, over real sockets: they wait as
//! the daemon does, with its own backoff and for as long as they are told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use sortie::backoff::{self, Backoff};
use sortie_protocol::message::{AgentMessage, ControlMessage};
use sortie_protocol::{SUBPROTOCOL, WEBSOCKET_PATH, decode, encode};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::effort::Effort;
use crate::figure::{Figure, Quantity, Target};
use crate::support::control_plane::ControlPlane;
use crate::throughput::Identity;

/// Within what time all must be back.
const BACK_TARGET: Target = Target::Milliseconds(60_000.0);
/// How long the control plane stays away: long enough for tries that fail.
const AWAY: Duration = Duration::from_secs(5);
/// How long is waited for all of them at the most.
const LIMIT: Duration = Duration::from_secs(300);
/// File descriptors that the programs need beside one for each agent.
const OTHER_FILES: u64 = 512;
/// Enrollments at once.
const ENROLLERS: usize = 8;
/// What a peak is counted over.
const SECOND: Duration = Duration::from_secs(1);

/// What happens to a session.
enum Event {
    /// The control plane answered an upgrade: with yes, or with the wish to be left alone.
    Answered { at: Instant, let_in: bool },
    /// It is open.
    Welcomed,
    /// It is not any more.
    Lost,
}

/// Measures all of it.
pub(crate) fn measure(effort: &Effort) -> Vec<Figure> {
    let count = effort.herd;
    raise_limit(count);
    let mut control_plane = ControlPlane::start();
    eprintln!("herd: {count} agents enroll");
    let identities = enroll(&control_plane, count);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let port = control_plane.port();
    let (events, mut seen) = mpsc::channel(16 * count);
    let (stop, stopped) = watch::channel(false);
    let mut sessions = runtime.block_on(async {
        let mut sessions = JoinSet::new();
        for identity in identities {
            sessions.spawn(live(port, Arc::new(identity), events.clone(), stopped.clone()));
        }
        sessions
    });
    drop(events);
    runtime.block_on(until_all(&mut seen, 0, count));
    eprintln!("herd: all are connected; the control plane is killed");
    control_plane.kill();
    let (_, connected) = runtime.block_on(during(&mut seen, count, AWAY));
    let begun = Instant::now();
    control_plane.restart();
    let (answers, back) = runtime.block_on(until_all(&mut seen, connected, count));
    let took = back.duration_since(begun);
    stop.send_replace(true);
    runtime.block_on(async { while sessions.join_next().await.is_some() {} });
    let peak = |wanted: bool| {
        let times = answers.iter().filter(|(_, let_in)| *let_in || !wanted).map(|(at, _)| *at);
        busiest_second(times.collect())
    };
    let (let_in, tried) = (peak(true), peak(false));
    eprintln!("  all back after {took:?}; at most {let_in} let in and {tried} at the door in a second");
    #[allow(clippy::cast_precision_loss)] // Far below what a float holds exactly.
    let rate = |number: usize| Quantity::PerSecond(number as f64);
    vec![
        Figure::alone(
            &format!(
                "{count} agents back after the control plane was killed and away for {} s",
                AWAY.as_secs()
            ),
            Quantity::of(took),
            BACK_TARGET,
        ),
        Figure::alone("the most handshakes begun in a second meanwhile", rate(let_in), Target::None),
        Figure::alone("the same with those that were told to come later", rate(tried), Target::None),
    ]
}

/// One socket for each agent is more than a shell's programs may have open. What is started from here inherits it.
fn raise_limit(count: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = count as u64 + OTHER_FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let raised = Rlimit { current: Some(wanted), ..limit };
    setrlimit(Resource::Nofile, raised).expect("the limit of open files; raise it with `ulimit -n 4096`");
}

fn enroll(control_plane: &ControlPlane, count: usize) -> Vec<Identity> {
    std::thread::scope(|scope| {
        let enrollers: Vec<_> = (0..ENROLLERS)
            .map(|first| {
                let numbers = (first..count).step_by(ENROLLERS);
                scope.spawn(move || {
                    let number = |it: usize| u32::try_from(it).expect("a small number");
                    numbers.map(|it| Identity::enroll(control_plane, number(it))).collect::<Vec<_>>()
                })
            })
            .collect();
        enrollers.into_iter().flat_map(|enroller| enroller.join().expect("an enroller")).collect()
    })
}

/// An agent's life: sessions, and the waits between them.
async fn live(
    port: u16,
    identity: Arc<Identity>,
    events: mpsc::Sender<Event>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut backoff = Backoff::default();
    loop {
        let session = async {
            let wait = match open(port, &events).await {
                Ok(wire) => {
                    let begun = Instant::now();
                    let wait = session(wire, &identity, &events).await;
                    backoff.session_ended(begun.elapsed());
                    wait
                }
                Err(wait) => wait,
            };
            tokio::time::sleep(wait + backoff.next(backoff::random())).await;
        };
        tokio::select! {
            () = session => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    }
}

/// Opens a WebSocket, or says for how long it shall not be tried.
#[allow(clippy::disallowed_methods, reason = "a simulated agent does not go through the door")]
async fn open(port: u16, events: &mpsc::Sender<Event>) -> Result<WebSocketStream<TcpStream>, Duration> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|_| Duration::ZERO)?;
    let address = format!("ws://127.0.0.1:{port}{WEBSOCKET_PATH}");
    let mut request = address.into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().expect("a header"));
    let (answer, let_in) = match tokio_tungstenite::client_async(request, stream).await {
        Ok((wire, _)) => (Ok(wire), true),
        Err(Error::Http(answer)) => {
            let after =
                answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            (Err(Duration::from_secs(after.unwrap_or_default())), false)
        }
        Err(_) => return Err(Duration::ZERO),
    };
    tell(events, Event::Answered { at: Instant::now(), let_in }).await;
    answer
}

/// One session to its end. Returns for how long the control plane wants to be left alone.
async fn session(
    mut wire: WebSocketStream<TcpStream>,
    identity: &Identity,
    events: &mpsc::Sender<Event>,
) -> Duration {
    let (mut is_open, mut wait) = (false, Duration::ZERO);
    while let Some(Ok(message)) = wire.next().await {
        let Message::Text(text) = message else { continue };
        let answer = match decode::<ControlMessage>(&text).expect("a message of the protocol") {
            ControlMessage::Challenge(challenge) => {
                AgentMessage::Hello(identity.hello(&challenge.session, &challenge.nonce))
            }
            ControlMessage::Welcome(_) => {
                is_open = true;
                tell(events, Event::Welcomed).await;
                AgentMessage::Credit { slots: 1 }
            }
            ControlMessage::Goaway(goaway) => {
                wait = Duration::from_millis(goaway.reconnect_after_ms);
                break;
            }
            _ => continue,
        };
        if wire.send(Message::text(encode(&answer).expect("a frame"))).await.is_err() {
            break;
        }
    }
    if is_open {
        tell(events, Event::Lost).await;
    }
    wait
}

async fn tell(events: &mpsc::Sender<Event>, event: Event) {
    // At the end nobody listens any more.
    let _ = events.send(event).await;
}

type Answers = Vec<(Instant, bool)>;

/// Reads on until all are connected. Returns what was answered, and when the last one was welcomed.
async fn until_all(
    seen: &mut mpsc::Receiver<Event>,
    mut connected: usize,
    count: usize,
) -> (Answers, Instant) {
    let mut answers = Vec::new();
    while connected < count {
        let event =
            tokio::time::timeout(LIMIT, seen.recv()).await.expect("they come back").expect("sessions");
        note(event, &mut answers, &mut connected);
    }
    (answers, Instant::now())
}

/// Reads on for a time. Returns how many are connected then.
async fn during(seen: &mut mpsc::Receiver<Event>, mut connected: usize, time: Duration) -> (Answers, usize) {
    let (mut answers, over) = (Vec::new(), tokio::time::Instant::now() + time);
    while let Ok(Some(event)) = tokio::time::timeout_at(over, seen.recv()).await {
        note(event, &mut answers, &mut connected);
    }
    (answers, connected)
}

fn note(event: Event, answers: &mut Answers, connected: &mut usize) {
    match event {
        Event::Answered { at, let_in } => answers.push((at, let_in)),
        Event::Welcomed => *connected += 1,
        Event::Lost => *connected -= 1,
    }
}

/// How many of these moments lie within one second at the most.
fn busiest_second(mut times: Vec<Instant>) -> usize {
    times.sort_unstable();
    let within = |first: &Instant| times.iter().filter(|at| **at >= *first && **at < *first + SECOND).count();
    times.iter().map(within).max().unwrap_or_default()
}
