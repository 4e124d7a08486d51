//! A line that is cut, or falls silent, after a number of bytes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::forward::Forwarder;

/// Without a plan a direction lets everything pass.
const UNLIMITED: u64 = u64::MAX;

/// A forwarder on loopback. Every connection to it goes on to the target's port.
pub struct Cutter {
    forwarder: Forwarder,
    plans: Arc<Plans>,
}

#[derive(Default)]
struct Plans {
    up: Direction,
    down: Direction,
}

/// One direction of all connections together.
struct Direction {
    passed: AtomicU64,
    /// At how many bytes something happens, once.
    limit: AtomicU64,
    /// Whether the connection that reaches the limit falls silent instead of being cut.
    is_silent: AtomicBool,
    reached: AtomicU64,
}

impl Default for Direction {
    fn default() -> Self {
        Self {
            passed: AtomicU64::new(0),
            limit: AtomicU64::new(UNLIMITED),
            is_silent: AtomicBool::new(false),
            reached: AtomicU64::new(0),
        }
    }
}

impl Cutter {
    /// Forwards to this port on loopback.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn start(target: u16) -> Self {
        let plans = Arc::new(Plans::default());
        let shared = Arc::clone(&plans);
        let forwarder = Forwarder::start(target, move |client, server| forward(&client, &server, &shared));
        Self { forwarder, plans }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.forwarder.port()
    }

    /// Cuts the connection in whose middle the client's bytes, all of them together, reach this number from now on.
    pub fn cut_upload_after(&self, bytes: u64) {
        self.plans.up.plan(bytes, false);
    }

    /// Lets that connection fall silent instead: it stays, and nothing passes any more from the client.
    pub fn silence_upload_after(&self, bytes: u64) {
        self.plans.up.plan(bytes, true);
    }

    /// Cuts the connection in whose middle the server's bytes reach this number from now on.
    pub fn cut_download_after(&self, bytes: u64) {
        self.plans.down.plan(bytes, false);
    }

    /// How often a plan came true.
    pub fn reached(&self) -> u64 {
        self.plans.up.reached.load(Ordering::SeqCst) + self.plans.down.reached.load(Ordering::SeqCst)
    }

    /// How many bytes of clients have passed.
    pub fn uploaded(&self) -> u64 {
        self.plans.up.passed.load(Ordering::SeqCst)
    }
}

impl Direction {
    fn plan(&self, bytes: u64, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::SeqCst);
        self.limit.store(self.passed.load(Ordering::SeqCst) + bytes, Ordering::SeqCst);
    }

    /// How many of these bytes may pass; fewer where the plan comes true within them.
    fn admit(&self, count: usize) -> usize {
        let passed = self.passed.load(Ordering::SeqCst);
        let limit = self.limit.load(Ordering::SeqCst);
        let count = count as u64;
        if passed + count < limit {
            self.passed.fetch_add(count, Ordering::SeqCst);
            return count as usize;
        }
        self.limit.store(UNLIMITED, Ordering::SeqCst);
        self.reached.fetch_add(1, Ordering::SeqCst);
        let admitted = limit.saturating_sub(passed).min(count);
        self.passed.fetch_add(admitted, Ordering::SeqCst);
        admitted as usize
    }
}

fn forward(client: &TcpStream, server: &TcpStream, plans: &Arc<Plans>) {
    for (from, to, is_up) in [(client, server, true), (server, client, false)] {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let plans = Arc::clone(plans);
        std::thread::spawn(move || {
            copy(from, to, if is_up { &plans.up } else { &plans.down });
        });
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, direction: &Direction) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        let admitted = direction.admit(count);
        let is_written = to.write_all(&buffer[..admitted]).is_ok();
        if admitted < count && direction.is_silent.load(Ordering::SeqCst) {
            // Nobody reads any more; the other side finds out when the sender goes.
            let mut byte = [0; 1];
            while to.read(&mut byte).is_ok_and(|count| count > 0) {}
            break;
        }
        if !is_written || admitted < count {
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
