//! The lines between everybody: a relay that delays, cuts, truncates and swallows what goes through it.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::random::Random;

/// What is passed on at once, in bytes. Small pieces let a limit fall anywhere.
const PIECE_BYTES: usize = 2048;
/// For how long a line that has fallen silent stays. Both ends find it out before.
const SILENCE: Duration = Duration::from_secs(120);

/// What becomes of a connection.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Pass,
    /// Every piece comes later.
    Delay(Duration),
    /// It is reset after so many bytes.
    Cut(u64),
    /// It ends, as if its end were meant, after so many bytes.
    Truncate(u64),
    /// Nothing passes any more after so many bytes, and neither end is told.
    Swallow(u64),
}

/// How often what came true.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections: AtomicU64,
    pub(crate) delayed: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) truncated: AtomicU64,
    pub(crate) swallowed: AtomicU64,
}

/// What holds for all lines.
#[derive(Debug, Default)]
pub(crate) struct Weather {
    /// Whether new connections are harmed.
    is_stormy: AtomicBool,
    pub(crate) counts: Counts,
}

impl Weather {
    pub(crate) fn set_stormy(&self, is_stormy: bool) {
        self.is_stormy.store(is_stormy, Ordering::SeqCst);
    }

    fn is_stormy(&self) -> bool {
        self.is_stormy.load(Ordering::SeqCst)
    }
}

/// A relay to a port on loopback. It ends when it is dropped.
pub(crate) struct Wire {
    port: u16,
    _serving: JoinSet<()>,
}

struct Relay {
    target: u16,
    /// The most bytes after which something happens.
    reach: u64,
    weather: Arc<Weather>,
    random: Mutex<Random>,
}

impl Wire {
    /// Starts a relay to `target`; what happens on it happens within about `reach` bytes.
    ///
    /// # Panics
    /// When it cannot listen.
    pub(crate) fn start(
        handle: &Handle,
        target: u16,
        reach: u64,
        weather: &Arc<Weather>,
        random: Random,
    ) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
        listener.set_nonblocking(true).expect("a listener of the runtime");
        let port = listener.local_addr().expect("the bound address").port();
        let relay =
            Arc::new(Relay { target, reach, weather: Arc::clone(weather), random: Mutex::new(random) });
        let mut serving = JoinSet::new();
        serving.spawn_on(serve(listener, relay), handle);
        Self { port, _serving: serving }
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

async fn serve(listener: std::net::TcpListener, relay: Arc<Relay>) {
    let listener = TcpListener::from_std(listener).expect("a listener of the runtime");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    let relay = Arc::clone(&relay);
                    connections.spawn(async move { relay.carry(client).await });
                }
                // Too many open files, for example.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Relay {
    fn fate(&self) -> Fate {
        if !self.weather.is_stormy() {
            return Fate::Pass;
        }
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        // Small numbers are as likely as large ones: much happens in the first message of a line.
        let most = random.below(self.reach) + 1;
        let after = random.below(most);
        match random.below(100) {
            0..60 => Fate::Pass,
            60..75 => Fate::Delay(random.milliseconds(1, 40)),
            75..87 => Fate::Cut(after),
            87..96 => Fate::Truncate(after),
            _ => Fate::Swallow(after),
        }
    }

    /// One connection to its end.
    async fn carry(&self, client: TcpStream) {
        let counts = &self.weather.counts;
        counts.connections.fetch_add(1, Ordering::Relaxed);
        let fate = self.fate();
        // A server that is not there is what the client gets to see.
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.target)).await else { return };
        let (delay, limit) = match fate {
            Fate::Pass => (Duration::ZERO, u64::MAX),
            Fate::Delay(delay) => (delay, u64::MAX),
            Fate::Cut(after) | Fate::Truncate(after) | Fate::Swallow(after) => (Duration::ZERO, after),
        };
        if matches!(fate, Fate::Delay(_)) {
            counts.delayed.fetch_add(1, Ordering::Relaxed);
        }
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
            if matches!(fate, Fate::Cut(_)) {
                let _ = stream.set_zero_linger();
            }
        }
        let left = AtomicU64::new(limit);
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let both = tokio::try_join!(
            pass(&mut from_client, &mut to_server, delay, &left),
            pass(&mut from_server, &mut to_client, delay, &left)
        );
        if !matches!(both, Err(End::Limit)) {
            return;
        }
        match fate {
            Fate::Truncate(_) => {
                counts.truncated.fetch_add(1, Ordering::Relaxed);
                let _ = (to_client.shutdown().await, to_server.shutdown().await);
            }
            Fate::Swallow(_) => {
                counts.swallowed.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(SILENCE).await;
            }
            _ => {
                counts.cut.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Why a direction has ended.
enum End {
    /// The bytes of this connection are used up.
    Limit,
    /// One of its ends is gone.
    Gone,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// Passes on whatever comes until it ends, or both directions together have used up what is left.
async fn pass(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    delay: Duration,
    left: &AtomicU64,
) -> Result<(), End> {
    let mut piece = [0; PIECE_BYTES];
    loop {
        let count = from.read(&mut piece).await?;
        if count == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let had = left.load(Ordering::SeqCst);
        let passed = count.min(usize::try_from(had).unwrap_or(usize::MAX));
        to.write_all(&piece[..passed]).await?;
        if passed < count {
            return Err(End::Limit);
        }
        if had != u64::MAX {
            left.fetch_sub(u64::try_from(passed).unwrap_or(0), Ordering::SeqCst);
        }
    }
}
