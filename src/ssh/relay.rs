//! The way of bytes between a connection of the door's and libssh2, which works on sockets alone.
//!
//! A connection can be more than a socket: a tunnel inside of TLS, where a proxy speaks it. And what the server
//! says in the clear is to be read beside libssh2, which keeps it to itself.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::transcript::{MAX_CLEAR_BYTES, Transcript};
use crate::dial::Stream;

/// How much is carried at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// A relay at work. It ends when either side does, and at the latest when this is dropped.
pub(super) struct Relay {
    task: JoinHandle<()>,
    heard: Heard,
    // Its sender goes when the task does.
    at_work: watch::Receiver<()>,
}

/// The beginning of what the server said.
#[derive(Clone, Default)]
struct Heard(Arc<(Mutex<Beginning>, Condvar)>);

#[derive(Default)]
struct Beginning {
    bytes: Vec<u8>,
    ended: bool,
    /// How often this side spoke after the server had.
    turns: usize,
    /// Whether this side was the last to speak.
    is_answer_due: bool,
}

impl Heard {
    fn lock(&self) -> MutexGuard<'_, Beginning> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.lock().ended = true;
        self.0.1.notify_all();
    }

    fn add(&self, bytes: &[u8]) {
        let mut heard = self.lock();
        heard.is_answer_due = false;
        let room = MAX_CLEAR_BYTES.saturating_sub(heard.bytes.len()).min(bytes.len());
        heard.bytes.extend_from_slice(&bytes[..room]);
    }

    fn note_speech(&self) {
        let mut heard = self.lock();
        if !heard.is_answer_due {
            heard.is_answer_due = true;
            heard.turns += 1;
        }
    }
}

impl Relay {
    /// Carries bytes between the connection and the socket that is returned. `first` was read from the
    /// connection already.
    ///
    /// # Errors
    /// What the system says where it gives no sockets.
    pub(super) fn start(stream: Stream, first: Vec<u8>) -> io::Result<(UnixStream, Self)> {
        let (near, far) = UnixStream::pair()?;
        far.set_nonblocking(true)?;
        let far = tokio::net::UnixStream::from_std(far)?;
        let heard = Heard::default();
        let (working, at_work) = watch::channel(());
        let carrying = carry(stream, far, first, heard.clone());
        let task = Handle::current().spawn(async move {
            carrying.await;
            drop(working);
        });
        Ok((near, Self { task, heard, at_work }))
    }

    /// What the server said in the clear so far.
    pub(super) fn transcript(&self) -> Transcript {
        let heard = self.heard.lock();
        Transcript { ended: heard.ended, ..Transcript::parse(&heard.bytes) }
    }
}

impl Relay {
    /// Ends when the connection has, or was cut because the work must stop.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut at_work = self.at_work.clone();
        async move { while at_work.changed().await.is_ok() {} }
    }

    /// How often this side spoke after the server had: what is encrypted can still be counted.
    pub(super) fn turns(&self) -> usize {
        self.heard.lock().turns
    }

    /// Waits for the end of the server's side, but not longer than this. It blocks.
    pub(super) fn ends_within(&self, limit: Duration) -> bool {
        let waited = self.heard.0.1.wait_timeout_while(self.heard.lock(), limit, |heard| !heard.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(stream: Stream, local: tokio::net::UnixStream, first: Vec<u8>, heard: Heard) {
    let (mut from_server, mut to_server) = tokio::io::split(stream);
    let (mut from_local, mut to_local) = local.into_split();
    let inward = async {
        heard.add(&first);
        to_local.write_all(&first).await?;
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            // An error is an end as well: libssh2 could not tell more from it.
            let count = from_server.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                heard.end();
                return io::Result::Ok(());
            }
            heard.add(&buffer[..count]);
            to_local.write_all(&buffer[..count]).await?;
        }
    };
    let outward = async {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = from_local.read(&mut buffer).await?;
            if count == 0 {
                return to_server.shutdown().await;
            }
            // Noted before it is sent, so that the answer comes after.
            heard.note_speech();
            to_server.write_all(&buffer[..count]).await?;
            to_server.flush().await?;
        }
    };
    // Whichever end it is, libssh2 sees it as the end of its socket; what is on its way there still arrives.
    tokio::select! {
        _ended = inward => {}
        _ended = outward => {}
    }
}
