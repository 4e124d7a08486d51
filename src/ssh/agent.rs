//! Keys that an SSH agent holds and signs with (draft-ietf-sshm-ssh-agent; OpenSSH's ssh-agent).
//!
//! libssh2 speaks with the agent for as long as that likes to think. So it gets a socket of ours, behind which each
//! request and its answer are passed on, and the answer has a limit.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::key::take_string;
use crate::host_key::Pin;

/// How long an agent may take for one answer. One that asks somebody for a confirmation takes longer, and nobody is
/// there to give it.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The largest message of an agent, in bytes, as OpenSSH has it.
const MAX_MESSAGE_BYTES: usize = 256 * 1024;

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
pub(super) fn choose(socket: &Path, named: Option<&Pin>) -> Result<Vec<u8>, AgentProblem> {
    let mut keys = keys(socket)?;
    match named {
        _ if keys.is_empty() => Err(AgentProblem::Empty),
        Some(pin) => keys.into_iter().find(|key| pin.is_of(key)).ok_or(AgentProblem::KeyMissing),
        None if keys.len() > 1 => Err(AgentProblem::Several),
        None => keys.pop().ok_or(AgentProblem::Empty),
    }
}

/// The public halves of all keys that an agent holds.
fn keys(socket: &Path) -> Result<Vec<Vec<u8>>, AgentProblem> {
    let answer = ask(socket).map_err(|error| match error.kind() {
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => AgentProblem::NotAnAgent,
        kind => AgentProblem::Unreachable(kind),
    })?;
    parse(&answer).ok_or(AgentProblem::NotAnAgent)
}

fn ask(socket: &Path) -> io::Result<Vec<u8>> {
    let mut agent = UnixStream::connect(socket)?;
    agent.set_read_timeout(Some(ANSWER_WAIT))?;
    agent.set_write_timeout(Some(ANSWER_WAIT))?;
    agent.write_all(&[0, 0, 0, 1, REQUEST_IDENTITIES])?;
    let mut length = [0; 4];
    agent.read_exact(&mut length)?;
    let mut answer = vec![0; checked(u32::from_be_bytes(length))?];
    agent.read_exact(&mut answer)?;
    Ok(answer)
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
    /// Opens one, for one connection.
    pub(super) fn open(socket: &Path) -> io::Result<Self> {
        // Only this user can enter the directory.
        let directory = tempfile::tempdir()?;
        let listener = UnixListener::bind(directory.path().join(SOCKET_NAME))?;
        let declined = Arc::new(AtomicBool::new(false));
        let (agent, told) = (socket.to_owned(), Arc::clone(&declined));
        let task = Handle::current().spawn(async move {
            // What goes wrong here ends the connection, and libssh2 says that it did.
            let _ = pass_on(listener, &agent, &told).await;
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
    let mut far = tokio::net::UnixStream::connect(agent).await?;
    loop {
        let request = message(&mut near).await?;
        let asks_for_signature = request.get(4) == Some(&SIGN_REQUEST);
        if asks_for_signature {
            declined.store(true, Ordering::Release);
        }
        far.write_all(&request).await?;
        let answer = timeout(ANSWER_WAIT, message(&mut far)).await??;
        if asks_for_signature && answer.get(4) == Some(&SIGN_RESPONSE) {
            declined.store(false, Ordering::Release);
        }
        near.write_all(&answer).await?;
    }
}

/// One message, with its length in front.
async fn message(stream: &mut tokio::net::UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut message = length.to_vec();
    message.resize(4 + checked(u32::from_be_bytes(length))?, 0);
    stream.read_exact(&mut message[4..]).await?;
    Ok(message)
}
