//! Keys that an SSH agent holds and signs with (draft-ietf-sshm-ssh-agent; OpenSSH's ssh-agent).
//!
//! libssh2 speaks with the agent for as long as that likes to think. So it gets a socket of ours, behind which each
//! request and its answer are passed on, and the answer has a limit.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::key::take_string;
use crate::host_key::Pin;

/// How long an agent may take for one answer, from the first byte of the request to the last of the answer, and
/// with the connection where there is none yet. One that asks somebody for a confirmation takes longer, and nobody is
/// there to give it.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// How long to wait where an agent has more visitors than its socket takes.
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// The largest message of an agent, in bytes, as OpenSSH has it.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// The bytes of the length in front of a message.
const LENGTH_BYTES: usize = 4;

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Why an agent is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentProblem {
    /// Nobody answers at the socket.
    Unreachable(ErrorKind),
    /// What answers is no SSH agent.
    NotAnAgent,
    /// It holds no key.
    Empty,
    /// It does not hold the key that is named.
    KeyMissing,
    /// It holds several keys, and none is named.
    Several,
    /// It holds the key and does not sign with it.
    Declined,
    /// This host has no place for the socket that leads to it.
    NoTemporaryDirectory(ErrorKind),
}

impl AgentProblem {
    /// The problem, in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable(_) => "nobody answers there",
            Self::NotAnAgent => "what answers there is no SSH agent",
            Self::Empty => "it holds no key",
            Self::KeyMissing => "it does not hold the key that is named",
            Self::Several => "it holds several keys, and only one is ever shown to a server",
            Self::Declined => "it holds the key and does not sign with it",
            Self::NoTemporaryDirectory(_) => {
                "the way to it needs a temporary directory, and none can be made"
            }
        }
    }
}

/// The public half of the one key to use.
pub(super) async fn choose(socket: &Path, named: Option<&Pin>) -> Result<Vec<u8>, AgentProblem> {
    let mut keys = keys(socket).await?;
    match named {
        _ if keys.is_empty() => Err(AgentProblem::Empty),
        Some(pin) => keys.into_iter().find(|key| pin.is_of(key)).ok_or(AgentProblem::KeyMissing),
        None if keys.len() > 1 => Err(AgentProblem::Several),
        None => keys.pop().ok_or(AgentProblem::Empty),
    }
}

/// The public halves of all keys that an agent holds.
async fn keys(socket: &Path) -> Result<Vec<Vec<u8>>, AgentProblem> {
    let answer = timeout(ANSWER_WAIT, ask(socket)).await.unwrap_or_else(|late| Err(late.into()));
    let answer = answer.map_err(|error| match error.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => AgentProblem::NotAnAgent,
        kind => AgentProblem::Unreachable(kind),
    })?;
    parse(answer.get(LENGTH_BYTES..).unwrap_or_default()).ok_or(AgentProblem::NotAnAgent)
}

async fn ask(socket: &Path) -> io::Result<Vec<u8>> {
    let mut agent = reach(socket).await?;
    agent.write_all(&[0, 0, 0, 1, REQUEST_IDENTITIES]).await?;
    message(&mut agent).await
}

/// A connection to the agent. A socket whose queue is full says so at once, and is asked again then: for how long
/// is the caller's to say.
async fn reach(socket: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(BUSY_WAIT).await,
            reached => return reached,
        }
    }
}

fn checked(length: u32) -> io::Result<usize> {
    let length = length as usize;
    if length <= MAX_MESSAGE_BYTES { Ok(length) } else { Err(ErrorKind::InvalidData.into()) }
}

/// The answer with the identities: their number, then key and comment of each.
fn parse(answer: &[u8]) -> Option<Vec<Vec<u8>>> {
    let rest = answer.strip_prefix(&[IDENTITIES_ANSWER])?;
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let mut keys = Vec::new();
    for _ in 0..u32::from_be_bytes(*count) {
        let (key, after) = take_string(rest)?;
        let (_comment, after) = take_string(after)?;
        keys.push(key.to_vec());
        rest = after;
    }
    Some(keys)
}

/// The way to an agent that libssh2 gets. It ends when this is dropped.
pub(super) struct Bridge {
    task: JoinHandle<()>,
    declined: Arc<AtomicBool>,
    directory: TempDir,
}

impl Bridge {
    /// Opens one, for one connection. It ends early where `end` does.
    pub(super) fn open(socket: &Path, end: impl Future<Output = ()> + Send + 'static) -> io::Result<Self> {
        // Only this user can enter the directory.
        let directory = tempfile::tempdir()?;
        let listener = UnixListener::bind(directory.path().join(SOCKET_NAME))?;
        let declined = Arc::new(AtomicBool::new(false));
        let (agent, told) = (socket.to_owned(), Arc::clone(&declined));
        let task = Handle::current().spawn(async move {
            // What goes wrong here ends the connection, and libssh2 says that it did.
            tokio::select! {
                _broken = pass_on(listener, &agent, &told) => {}
                () = end => {}
            }
        });
        Ok(Self { task, declined, directory })
    }

    /// Where libssh2 finds the agent.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join(SOCKET_NAME)
    }

    /// Whether the agent was asked for a signature and gave none.
    pub(super) fn declined(&self) -> bool {
        self.declined.load(Ordering::Acquire)
    }
}

/// The name of the socket in its directory.
const SOCKET_NAME: &str = "agent";

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(listener: UnixListener, agent: &Path, declined: &AtomicBool) -> io::Result<()> {
    let (mut near, _) = listener.accept().await?;
    let mut far = timeout(ANSWER_WAIT, reach(agent)).await??;
    loop {
        let request = message(&mut near).await?;
        let asks_for_signature = request.get(4) == Some(&SIGN_REQUEST);
        if asks_for_signature {
            declined.store(true, Ordering::Release);
        }
        let exchange = async {
            far.write_all(&request).await?;
            message(&mut far).await
        };
        let answer = timeout(ANSWER_WAIT, exchange).await??;
        if asks_for_signature && answer.get(4) == Some(&SIGN_RESPONSE) {
            declined.store(false, Ordering::Release);
        }
        near.write_all(&answer).await?;
    }
}

/// One message, with its length in front.
async fn message(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await?;
    let mut message = length.to_vec();
    message.resize(LENGTH_BYTES + checked(u32::from_be_bytes(length))?, 0);
    stream.read_exact(&mut message[LENGTH_BYTES..]).await?;
    Ok(message)
}
