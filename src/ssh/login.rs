//! One login: the banner, the handshake, the host key, the user's key, the command.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ssh2::{Channel, ErrorCode, MethodType, Session};
use tokio::time::Instant as Deadline;

use super::key::{self, Description};
use super::{Error, Login};
use crate::credential::{Credential, Material};
use crate::host_key::{self, HostKeys, Verdict};
use crate::report::{Stage, StageLog};

/// How long a server may take for one step of a login.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait for a banner before our own is sent: a server that is silent may wait for it.
const BANNER_WAIT: Duration = Duration::from_millis(2000);

/// How often the first bytes are looked at while they are too few.
const BANNER_POLL: Duration = Duration::from_millis(5);

/// How much is looked at for a banner; other lines may come before it.
const MAX_BANNER_BYTES: usize = 1024;

/// The host keys that are asked for, the best first. Certificates of host keys are not among them, because
/// nothing here checks the authority that signed them.
const HOST_KEY_ALGORITHMS: [&str; 6] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
];

/// libssh2's codes that decide something here.
mod code {
    pub(super) const KEX_FAILURE: i32 = -5;
    pub(super) const TIMEOUT: i32 = -9;
    pub(super) const SOCKET_DISCONNECT: i32 = -13;
    pub(super) const FILE: i32 = -16;
    pub(super) const METHOD_NONE: i32 = -17;
    pub(super) const AUTHENTICATION_FAILED: i32 = -18;
    pub(super) const PUBLICKEY_UNVERIFIED: i32 = -19;
    pub(super) const SOCKET_TIMEOUT: i32 = -30;
    pub(super) const METHOD_NOT_SUPPORTED: i32 = -33;
    pub(super) const SOCKET_RECV: i32 = -43;
    pub(super) const SOCKET_SEND: i32 = -7;
    pub(super) const BANNER_RECV: i32 = -2;
    pub(super) const BANNER_SEND: i32 = -3;
    pub(super) const KEYFILE_AUTH_FAILED: i32 = -48;
    pub(super) const ALGO_UNSUPPORTED: i32 = -51;
}

/// A running command at a host.
pub(crate) struct Opened {
    session: Session,
    /// Its input and output.
    pub(crate) channel: Channel,
}

impl Opened {
    /// How long the next call may wait.
    pub(crate) fn set_timeout(&self, timeout: Duration) {
        set_timeout(&self.session, timeout);
    }

    /// The exit status of the command, where it has ended.
    pub(crate) fn exit_status(&mut self) -> Option<i32> {
        self.channel.wait_eof().ok()?;
        self.channel.close().ok()?;
        self.channel.wait_close().ok()?;
        self.channel.exit_status().ok()
    }
}

/// Logs in over a connection and starts a command, with the stages `host_key` and `authenticate`; after that
/// the stage `repository` runs. It blocks.
pub(crate) fn open(
    connection: TcpStream,
    login: &Login,
    command: &str,
    deadline: Deadline,
    log: &StageLog,
) -> Result<Opened, Error> {
    let limit = Limit { deadline };
    log.begin(Stage::HostKey);
    let known = read_known_hosts(login)?;
    let session = shake_hands(connection, login, &known, &limit, log)?;
    check_host_key(&session, login, &known, log)?;
    log.begin(Stage::Authenticate);
    log.fact("user", login.user.as_str());
    authenticate(&session, login, &limit, log)?;
    log.begin(Stage::Repository);
    limit.arm(&session);
    let started = session.channel_session().and_then(|mut channel| {
        channel.exec(command)?;
        Ok(channel)
    });
    let channel = started.map_err(|error| {
        let code = code_of(&error);
        lost(code, Stage::Repository, STEP_TIMEOUT).unwrap_or(Error::Channel { code })
    })?;
    Ok(Opened { session, channel })
}

struct Limit {
    deadline: Deadline,
}

impl Limit {
    /// Bounds the next call: by its own time, and by the deadline of all.
    fn arm(&self, session: &Session) {
        set_timeout(session, self.deadline.saturating_duration_since(Deadline::now()).min(STEP_TIMEOUT));
    }
}

fn set_timeout(session: &Session, timeout: Duration) {
    // Nothing would mean for ever.
    session.set_timeout(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1));
}

fn read_known_hosts(login: &Login) -> Result<HostKeys, Error> {
    let Some(path) = &login.known_hosts.file else { return Ok(HostKeys::default()) };
    match HostKeys::read(path) {
        Ok(known) => Ok(known),
        // Nobody is known yet: the same as an empty file, and said so where a host is unknown.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(HostKeys::default()),
        Err(error) => Err(Error::KnownHostsUnreadable { path: path.clone(), kind: error.kind() }),
    }
}

fn shake_hands(
    connection: TcpStream,
    login: &Login,
    known: &HostKeys,
    limit: &Limit,
    log: &StageLog,
) -> Result<Session, Error> {
    await_banner(&connection)?;
    let library = |error: ssh2::Error| Error::Library { code: code_of(&error) };
    let mut session = Session::new().map_err(library)?;
    let preference = preference(&known.key_types(&login.destination.host, login.destination.port));
    session.method_pref(MethodType::HostKey, &preference).map_err(library)?;
    session.set_tcp_stream(connection);
    limit.arm(&session);
    let shaken = session.handshake();
    let banner = banner(&session);
    if let Some(banner) = &banner {
        log.fact("server", banner.as_str());
    }
    shaken.map_err(|error| handshake_error(&session, code_of(&error), banner))?;
    for (name, method) in [
        ("key_exchange", MethodType::Kex),
        ("host_key_algorithm", MethodType::HostKey),
        ("cipher", MethodType::CryptCs),
    ] {
        if let Some(agreed) = session.methods(method) {
            log.fact(name, agreed);
        }
    }
    Ok(session)
}

/// Looks at the first bytes without taking them: what is no SSH server is known by them at once. One that
/// says nothing may wait for our banner, so the handshake is tried then.
fn await_banner(connection: &TcpStream) -> Result<(), Error> {
    let disconnected = |_: io::Error| Error::Disconnected { stage: Stage::HostKey };
    let until = Instant::now() + BANNER_WAIT;
    let mut buffer = [0; MAX_BANNER_BYTES];
    let mut seen = 0;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        connection.set_read_timeout(Some(left)).map_err(disconnected)?;
        let (count, ended) = match connection.peek(&mut buffer) {
            Ok(count) => (count, count == seen && seen == 0),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(disconnected(error)),
        };
        if ended {
            return Err(Error::Disconnected { stage: Stage::HostKey });
        }
        seen = count;
        match looks_like_ssh(&buffer[..seen]) {
            Some(true) => break,
            Some(false) => return Err(Error::NotSsh { first_bytes: shown(&buffer[..seen]) }),
            // A peek returns at once while there is anything, so the rest is waited for in small steps.
            None => std::thread::sleep(BANNER_POLL),
        }
    }
    connection.set_read_timeout(None).map_err(disconnected)
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

fn preference(known: &[&str]) -> String {
    let is_known = |algorithm: &&str| {
        let of_rsa = algorithm.starts_with("rsa-sha2-");
        known.iter().any(|key_type| key_type == algorithm || (of_rsa && *key_type == "ssh-rsa"))
    };
    let (first, rest): (Vec<&str>, Vec<&str>) = HOST_KEY_ALGORITHMS.iter().partition(|a| is_known(a));
    [first, rest].concat().join(",")
}

fn handshake_error(session: &Session, code: i32, banner: Option<String>) -> Error {
    let is_ssh = banner.as_ref().is_some_and(|banner| banner.starts_with("SSH-"));
    if !is_ssh {
        return Error::NotSsh { first_bytes: banner.unwrap_or_default() };
    }
    match code {
        code::KEX_FAILURE | code::METHOD_NONE | code::METHOD_NOT_SUPPORTED => Error::NoCommonAlgorithm {
            banner: banner.unwrap_or_default(),
            ours: [
                ("key exchange", MethodType::Kex),
                ("host key", MethodType::HostKey),
                ("cipher", MethodType::CryptCs),
            ]
            .into_iter()
            .filter_map(|(kind, method)| {
                let names = session.supported_algs(method).ok()?;
                Some(format!("{kind}: {}", names.join(",")))
            })
            .collect(),
        },
        _ => lost(code, Stage::HostKey, STEP_TIMEOUT).unwrap_or(Error::Handshake { code }),
    }
}

fn check_host_key(session: &Session, login: &Login, known: &HostKeys, log: &StageLog) -> Result<(), Error> {
    let (host, port) = (login.destination.host.as_str(), login.destination.port);
    let (key, _) = session.host_key().ok_or(Error::Handshake { code: 0 })?;
    let offered = Box::new(host_key::describe(host, port, key));
    log.fact("fingerprint", offered.fingerprint.as_str());
    log.fact("key_type", offered.key_type.as_str());
    log.fact("known_as", host_key::host_form(host, port));
    if let Some(file) = &login.known_hosts.file {
        log.fact("known_hosts_file", file.display().to_string());
    }
    let verdict = known.check(host, port, key);
    let revoked = matches!(verdict, Verdict::Revoked(_));
    let host = host_key::host_form(host, port);
    match verdict {
        Verdict::Known(line) => {
            log.fact("known_hosts_line", line);
            Ok(())
        }
        Verdict::Unknown => {
            Err(Error::HostKeyUnknown { host, offered, file: login.known_hosts.file.clone() })
        }
        Verdict::Changed(entry) | Verdict::Revoked(entry) => {
            log.fact("known_hosts_line", entry.line);
            log.fact("known_fingerprint", entry.fingerprint.as_str());
            Err(Error::HostKeyChanged {
                host,
                offered,
                file: login.known_hosts.file.clone().unwrap_or_default(),
                line: entry.line,
                known_type: entry.key_type,
                known_fingerprint: entry.fingerprint,
                revoked,
            })
        }
    }
}

fn authenticate(session: &Session, login: &Login, limit: &Limit, log: &StageLog) -> Result<(), Error> {
    let Credential { material: Material::SshKey { key, passphrase, source }, .. } = &login.key else {
        return Err(Error::NotAKey { kind: login.key.kind().as_str() });
    };
    let described = key::describe(key.expose());
    if let Some(fingerprint) = &described.fingerprint {
        log.fact("key_fingerprint", fingerprint.as_str());
    }
    if let Some(key_type) = &described.key_type {
        log.fact("key_type", key_type.as_str());
    }
    let unreadable =
        || Error::KeyUnreadable { source_name: source.clone(), format: described.format.as_str() };
    let wrong_passphrase =
        || Error::KeyPassphrase { source_name: source.clone(), given: passphrase.is_some() };
    if !described.format.is_private() {
        return Err(unreadable());
    }
    if described.encrypted && passphrase.is_none() {
        return Err(wrong_passphrase());
    }
    let text = key::normalized(key.expose());
    let passphrase = passphrase.as_ref().filter(|_| described.encrypted);
    limit.arm(session);
    let answered =
        session.userauth_pubkey_memory(&login.user, None, &text, passphrase.map(|secret| secret.expose()));
    let Err(error) = answered else { return Ok(()) };
    match code_of(&error) {
        code::FILE | code::KEYFILE_AUTH_FAILED if described.encrypted => Err(wrong_passphrase()),
        code::FILE | code::KEYFILE_AUTH_FAILED => Err(unreadable()),
        code => Err(refusal(session, login, &described, limit, code)),
    }
}

/// Why the server did not take the key.
fn refusal(session: &Session, login: &Login, key: &Description, limit: &Limit, code: i32) -> Error {
    // A server that announces other signatures alone, or that announces none: libssh2 falls back to SHA-1 then,
    // which is compiled out of it.
    let is_signature =
        matches!(code, code::METHOD_NONE | code::PUBLICKEY_UNVERIFIED | code::ALGO_UNSUPPORTED);
    if is_signature && key.is_rsa() {
        return Error::RsaSha2NotAnnounced { banner: banner(session).unwrap_or_default() };
    }
    match code {
        code::AUTHENTICATION_FAILED | code::PUBLICKEY_UNVERIFIED | code::ALGO_UNSUPPORTED => {
            limit.arm(session);
            let methods = session.auth_methods(&login.user).unwrap_or_default();
            Error::KeyRejected {
                user: login.user.clone(),
                key_type: key.key_type.clone(),
                fingerprint: key.fingerprint.clone(),
                methods: methods.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect(),
            }
        }
        code => lost(code, Stage::Authenticate, STEP_TIMEOUT).unwrap_or(Error::Authentication { code }),
    }
}

/// What a code says of the connection, where it says that and nothing else.
fn lost(code: i32, stage: Stage, after: Duration) -> Option<Error> {
    match code {
        code::TIMEOUT | code::SOCKET_TIMEOUT => Some(Error::TimedOut { stage, after }),
        code::SOCKET_DISCONNECT
        | code::SOCKET_RECV
        | code::SOCKET_SEND
        | code::BANNER_RECV
        | code::BANNER_SEND => Some(Error::Disconnected { stage }),
        _ => None,
    }
}

fn code_of(error: &ssh2::Error) -> i32 {
    match error.code() {
        ErrorCode::Session(code) | ErrorCode::SFTP(code) => code,
    }
}

fn banner(session: &Session) -> Option<String> {
    session.banner_bytes().map(shown).filter(|banner| !banner.is_empty())
}

/// A server's bytes as they may be shown.
fn shown(bytes: &[u8]) -> String {
    const MAX_SHOWN_CHARS: usize = 120;
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(MAX_SHOWN_CHARS).collect()
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

    #[test]
    fn keys_that_are_known_come_first() {
        assert!(preference(&["ssh-rsa"]).starts_with("rsa-sha2-512,rsa-sha2-256,ssh-ed25519"));
        assert!(preference(&[]).starts_with("ssh-ed25519,"));
    }
}
