//! The first bytes of what answers: whether it is an SSH server at all.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::Error;
use super::relay::Relay;
use super::transcript::shown;
use crate::dial::Stream;
use crate::report::{Stage, StageLog};

/// How long to wait for a banner before our own is sent: a server that is silent may wait for it.
const BANNER_WAIT: Duration = Duration::from_millis(2000);

/// How much is looked at for a banner; other lines may come before it.
const MAX_BANNER_BYTES: usize = 4096;

/// A connection to what seems to be an SSH server, in the form that libssh2 takes.
pub(crate) struct Approached {
    pub(super) socket: UnixStream,
    pub(super) relay: Relay,
}

impl Approached {
    /// The socket, to be cut where the work must stop.
    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }
}

/// Looks at the first bytes: what is no SSH server is known by them at once. One that says nothing may wait for
/// our banner, so the handshake is tried then. The stage `host_key` runs from here on.
pub(crate) async fn approach(mut stream: Stream, log: &StageLog) -> Result<Approached, Error> {
    log.begin(Stage::HostKey);
    let mut first = Vec::with_capacity(MAX_BANNER_BYTES);
    if let Ok(heard) = timeout(BANNER_WAIT, hear(&mut stream, &mut first)).await {
        heard?;
    }
    let disconnected = |_| Error::Disconnected { stage: Stage::HostKey };
    let (socket, relay) = Relay::start(stream, first).map_err(disconnected)?;
    Ok(Approached { socket, relay })
}

/// Reads until it is certain what answers.
async fn hear(stream: &mut Stream, first: &mut Vec<u8>) -> Result<(), Error> {
    loop {
        let room = (MAX_BANNER_BYTES - first.len()) as u64;
        let count = match stream.take(room).read_buf(first).await {
            Ok(count) => count,
            Err(_) if first.is_empty() => return Err(Error::Disconnected { stage: Stage::Connect }),
            Err(_) => 0,
        };
        match looks_like_ssh(first) {
            Some(true) => return Ok(()),
            Some(false) => return Err(Error::NotSsh { first_bytes: shown(first) }),
            None if count > 0 => {}
            None if first.is_empty() => return Err(Error::Disconnected { stage: Stage::Connect }),
            None => return Err(hung_up(first)),
        }
    }
}

/// Whether bytes are the beginning of an SSH server's; `None` while there are too few.
fn looks_like_ssh(bytes: &[u8]) -> Option<bool> {
    const BANNER: &[u8] = b"SSH-";
    if bytes.split(|&byte| byte == b'\n').any(|line| line.starts_with(BANNER)) {
        return Some(true);
    }
    // TLS and git's own protocol begin with bytes that no line of text has.
    let is_text =
        bytes.iter().all(|&byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || byte >= 0x80);
    let is_http = bytes.starts_with(b"HTTP/");
    let is_full = bytes.len() >= MAX_BANNER_BYTES;
    if !is_text || is_http || is_full { Some(false) } else { None }
}

/// What it means that somebody says a few words and hangs up.
fn hung_up(first: &[u8]) -> Error {
    // OpenSSH says the first where too many log in at once, and the second to an address that it punishes for
    // failed logins (`MaxStartups` and `PerSourcePenalties` in its sshd_config).
    const BUSY: [&str; 2] = ["Exceeded MaxStartups", "Not allowed at this time"];
    let said = shown(first);
    if BUSY.contains(&said.trim()) { Error::TooBusy { said } } else { Error::NotSsh { first_bytes: said } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ssh_server_is_known_by_its_first_bytes() {
        assert_eq!(looks_like_ssh(b"SSH-2.0-OpenSSH_9.2"), Some(true));
        assert_eq!(looks_like_ssh(b"Welcome\r\nSSH-2.0-x\r\n"), Some(true));
        assert_eq!(looks_like_ssh(b"SS"), None);
        assert_eq!(looks_like_ssh(b"HTTP/1.1 400 Bad Request"), Some(false));
        assert_eq!(looks_like_ssh(b"\x15\x03\x01"), Some(false));
    }
}
