//! A line whose peer can vanish: connections that swallow everything and never end, as when a host loses its power
//! or a firewall forgets what it let through.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::forward::Forwarder;

/// A forwarder on loopback. Every connection to it goes on to the target's port.
pub struct Hole {
    forwarder: Forwarder,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Connections are numbered from 1; those up to this number swallow what they get.
    swallowed: AtomicU64,
    opened: AtomicU64,
    /// Both ends of all connections stay open as long as this lives, so that nobody sees an end.
    held: Mutex<Vec<TcpStream>>,
}

impl Hole {
    /// Forwards to this port on loopback.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn start(target: u16) -> Self {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let forwarder = Forwarder::start(target, move |client, server| forward(client, server, &shared));
        Self { forwarder, state }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.forwarder.port()
    }

    /// How many connections there have been.
    pub fn opened(&self) -> u64 {
        self.state.opened.load(Ordering::SeqCst)
    }

    /// From now on nothing passes on the connections that are open, either way, and no end of them is seen. New ones
    /// work.
    pub fn swallow(&self) {
        self.state.swallowed.store(self.opened(), Ordering::SeqCst);
    }
}

impl Drop for Hole {
    fn drop(&mut self) {
        // The threads of connections end with these.
        for stream in self.state.held.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn forward(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let number = state.opened.fetch_add(1, Ordering::SeqCst) + 1;
    for (from, to) in [(&client, &server), (&server, &client)] {
        let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
        let state = Arc::clone(state);
        std::thread::spawn(move || copy(from, to, number, &state));
    }
    state.held.lock().unwrap_or_else(PoisonError::into_inner).extend([client, server]);
}

fn copy(mut from: TcpStream, mut to: TcpStream, number: u64, state: &State) {
    let mut buffer = [0; 16 * 1024];
    let is_swallowed = || number <= state.swallowed.load(Ordering::SeqCst);
    while let Ok(count) = from.read(&mut buffer) {
        if is_swallowed() {
            if count == 0 {
                return;
            }
            continue;
        }
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    if !is_swallowed() {
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}
