//! The daemon's answers on the control socket: one task for each client, all of them owned by one set.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Answer, LINE_TIMEOUT, MAX_CLIENTS, MAX_LINE_BYTES, Refusal, Request, VERSION, Versioned};
use crate::doctor::Examiner;
use crate::local_socket::Listener;
use crate::status::{Daemon, Status};

/// The pause after an error of the system, such as too many open files, before the next client is taken.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(200);

/// What the answers are made from.
pub struct Desk {
    /// What does not change while the daemon runs.
    pub daemon: Daemon,
    /// What it is doing.
    pub status: watch::Receiver<Status>,
    /// What carries out the doctor's checks.
    pub examiner: Examiner,
    /// One doctor at a time: each tries credentials, and a server counts.
    doctor: Semaphore,
}

impl Desk {
    /// A desk that answers from these.
    pub fn new(daemon: Daemon, status: watch::Receiver<Status>, examiner: Examiner) -> Self {
        Self { daemon, status, examiner, doctor: Semaphore::new(1) }
    }
}

/// Serves clients until `stop` is cancelled; what is being answered then is cut off, and the socket's file is gone.
pub async fn serve(listener: Listener, desk: Desk, stop: CancellationToken) {
    let desk = Arc::new(desk);
    let mut clients = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = clients.join_next() => continue,
            accepted = listener.listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            continue;
        };
        if clients.len() >= MAX_CLIENTS {
            refuse_at_once(&stream, Refusal::Busy, "as many clients as there may be are served already");
        } else if !is_admitted(&stream, &listener) {
            refuse_at_once(
                &stream,
                Refusal::NotAllowed,
                "this user is neither the daemon's nor in its group",
            );
        } else {
            clients.spawn(attend(stream, Arc::clone(&desk), stop.child_token()));
        }
    }
    // The tokens are cancelled, so that work on blocking threads ends by itself.
    clients.shutdown().await;
}

/// Whether the peer may ask. The kernel has let in only whom the file's mode admits; that is seen again here, for the
/// case that somebody has opened the mode.
fn is_admitted(stream: &UnixStream, listener: &Listener) -> bool {
    let Ok(peer) = stream.peer_cred() else { return false };
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // The credentials name one group of the peer's only, and the mode speaks for the others.
    let admitted = is_known(&peer, own) || listener.is_closed_to_others();
    if !admitted {
        tracing::warn!(peer.uid = peer.uid(), peer.pid = peer.pid(), "the control socket refused a user");
    }
    admitted
}

fn is_known(peer: &UCred, (user, group): (u32, u32)) -> bool {
    peer.uid() == 0 || peer.uid() == user || peer.gid() == group
}

/// Says no without waiting for anything: what does not fit into the socket's buffer is not sent.
fn refuse_at_once(stream: &UnixStream, code: Refusal, message: &str) {
    let _ = stream.try_write(&line(&refusal(code, message)));
}

fn refusal(code: Refusal, message: &str) -> Answer {
    Answer::Error { code, message: message.to_owned() }
}

fn line(answer: &Answer) -> Vec<u8> {
    let mut line = serde_json::to_vec(&Versioned::new(answer)).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Answers one client.
async fn attend(stream: UnixStream, desk: Arc<Desk>, stop: CancellationToken) {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(read);
    let answer = match request(&mut reader).await {
        Ok(request) => {
            let _cancel = stop.clone().drop_guard();
            tokio::select! {
                biased;
                answer = answer(&desk, request, &stop) => answer,
                () = gone(&mut reader) => return,
            }
        }
        Err(Some(answer)) => answer,
        Err(None) => return,
    };
    let mut text = line(&answer);
    if text.len() > MAX_LINE_BYTES {
        text = line(&refusal(Refusal::Limit, "the answer is over the limit for a line"));
    }
    let _ = tokio::time::timeout(LINE_TIMEOUT, write.write_all(&text)).await;
}

/// Reads the request; an answer instead where it is none, and nothing where the client is gone.
async fn request(reader: &mut BufReader<tokio::net::unix::OwnedReadHalf>) -> Result<Request, Option<Answer>> {
    let mut text = Vec::new();
    let mut limited = reader.take(MAX_LINE_BYTES as u64);
    let read = tokio::time::timeout(LINE_TIMEOUT, limited.read_until(b'\n', &mut text)).await;
    let seconds = LINE_TIMEOUT.as_secs();
    match read {
        Err(_) => {
            return Err(Some(refusal(Refusal::Limit, &format!("no request came within {seconds} s"))));
        }
        Ok(Err(_)) | Ok(Ok(0)) => return Err(None),
        Ok(Ok(_)) => {}
    }
    if !text.ends_with(b"\n") && text.len() >= MAX_LINE_BYTES {
        return Err(Some(refusal(Refusal::Limit, "the request is over the limit for a line")));
    }
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let not_understood = || Some(refusal(Refusal::NotUnderstood, "this is no request of the control socket"));
    match serde_json::from_slice(&text) {
        Ok(Version { version: VERSION }) => {}
        Ok(Version { version }) => {
            let message = format!("this daemon speaks version {VERSION}, and not {version}");
            return Err(Some(refusal(Refusal::Version, &message)));
        }
        Err(_) => return Err(not_understood()),
    }
    let request: Versioned<Request> = serde_json::from_slice(&text).map_err(|_| not_understood())?;
    Ok(request.message)
}

async fn answer(desk: &Desk, request: Request, stop: &CancellationToken) -> Answer {
    match request {
        Request::Status => {
            let status = desk.status.borrow().clone();
            Answer::Status { status: status.to_json(&desk.daemon) }
        }
        Request::Doctor(request) => match desk.doctor.try_acquire() {
            Ok(_permit) => Answer::Doctor { checks: desk.examiner.in_daemon(&request, stop).await },
            Err(_) => refusal(Refusal::Busy, "another doctor is at work: try again when it has ended"),
        },
    }
}

/// Waits until the client has closed its end. What else it sends is none of our business.
async fn gone(reader: &mut BufReader<tokio::net::unix::OwnedReadHalf>) {
    loop {
        match reader.fill_buf().await {
            Ok([]) | Err(_) => return,
            Ok(more) => {
                let length = more.len();
                reader.consume(length);
            }
        }
    }
}
