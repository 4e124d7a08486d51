//! A line with a limit: a relay on loopback in front of a server that lets so many bytes pass in a second, each way.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What is passed on at once, in bytes.
const PIECE_BYTES: usize = 16 * 1024;
/// How far a line may be behind: what was not sent for this long is not made up for.
const BURST: Duration = Duration::from_millis(5);

/// A running relay. All connections through it share the line.
pub struct Line {
    port: u16,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// One direction of the line: when it is free again.
struct Pace {
    bytes_a_second: f64,
    free_at: Mutex<Instant>,
}

impl Line {
    /// Starts a relay to a port on loopback.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(server_port: u16, bytes_a_second: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("the bound address").port();
        let stopped = Arc::new(AtomicBool::new(false));
        let asked_to_stop = Arc::clone(&stopped);
        let up = Arc::new(Pace::new(bytes_a_second));
        let down = Arc::new(Pace::new(bytes_a_second));
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if asked_to_stop.load(Ordering::Relaxed) {
                    return;
                }
                // A client that has gone already, or a server that is not there, is what the client gets to see.
                let _ = connection.and_then(|client| relay(client, server_port, &up, &down));
            }
        });
        Self { port, stopped, thread: Some(thread) }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread, which then sees that it shall end.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Pace {
    fn new(bytes_a_second: u32) -> Self {
        Self { bytes_a_second: f64::from(bytes_a_second), free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until the line has room for so many bytes, in the order of whoever asks.
    fn wait(&self, bytes: usize) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_a_second);
        let now = Instant::now();
        let passed_at = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = now.checked_sub(BURST).map_or(*free_at, |earliest| earliest.max(*free_at));
            *free_at = begin + takes;
            *free_at
        };
        // Being slow is what it is for.
        std::thread::sleep(passed_at.saturating_duration_since(now));
    }
}

/// Serves one connection by two threads, which end with its two ends.
fn relay(client: TcpStream, server_port: u16, up: &Arc<Pace>, down: &Arc<Pace>) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server_port))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    for (from, to, pace) in
        [(client.try_clone()?, server.try_clone()?, Arc::clone(up)), (server, client, Arc::clone(down))]
    {
        std::thread::spawn(move || pass(from, to, &pace));
    }
    Ok(())
}

/// Passes on whatever comes until one of the ends has enough.
fn pass(mut from: TcpStream, mut to: TcpStream, pace: &Pace) {
    let mut piece = [0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        pace.wait(count);
        if to.write_all(&piece[..count]).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
