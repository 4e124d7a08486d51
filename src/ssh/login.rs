//! One login: the banner, the handshake, the host key, the user's key, the command.

use std::io::{ErrorKind, Read as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ssh2::{Channel, ErrorCode, MethodType, Session};
use tokio::time::Instant as Deadline;

use super::approach::Approached;
use super::authenticate::Attempt;
use super::relay::Relay;
use super::transcript::{Algorithms, Kind, Transcript};
use super::{Error, KnownKey, Login};
use crate::host_key::{self, Differing, HostKeys, Pin, Verdict};
use crate::report::{Stage, StageLog};

/// How long a server may take for one step of a login.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// How long after the deadline of all a step would end by itself. The deadline cuts the connection, and what it
/// ended must not look as if the server had been too slow for one step.
const DEADLINE_SLACK: Duration = Duration::from_secs(1);

/// How long a server may take to say a greeting.
const GREETING_WAIT: Duration = Duration::from_secs(3);

/// The most bytes of a greeting.
const MAX_GREETING_BYTES: usize = 1024;

/// The streams of a channel: standard output and standard error.
const OUTPUT: i32 = 0;
const ERRORS: i32 = 1;

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
pub(super) mod code {
    pub(in crate::ssh) const TIMEOUT: i32 = -9;
    pub(in crate::ssh) const SOCKET_DISCONNECT: i32 = -13;
    pub(in crate::ssh) const FILE: i32 = -16;
    pub(in crate::ssh) const METHOD_NONE: i32 = -17;
    pub(in crate::ssh) const AUTHENTICATION_FAILED: i32 = -18;
    pub(in crate::ssh) const PUBLICKEY_UNVERIFIED: i32 = -19;
    pub(in crate::ssh) const SOCKET_TIMEOUT: i32 = -30;
    pub(in crate::ssh) const SOCKET_RECV: i32 = -43;
    pub(in crate::ssh) const SOCKET_SEND: i32 = -7;
    pub(in crate::ssh) const BANNER_RECV: i32 = -2;
    pub(in crate::ssh) const BANNER_SEND: i32 = -3;
    pub(in crate::ssh) const KEYFILE_AUTH_FAILED: i32 = -48;
    pub(in crate::ssh) const AGENT_PROTOCOL: i32 = -42;
    pub(in crate::ssh) const ALGO_UNSUPPORTED: i32 = -51;
}

/// A running command at a host.
pub(crate) struct Opened {
    /// Its input and output.
    pub(crate) channel: Channel,
    session: Session,
    // What the session speaks on ends after it.
    _relay: Relay,
}

impl Opened {
    /// How long the next call may wait.
    pub(crate) fn set_timeout(&self, timeout: Duration) {
        set_timeout(&self.session, timeout);
    }

    /// What the server says to somebody who asks for a shell, as `ssh -T` would show it; nothing where it says
    /// nothing in time.
    pub(crate) fn greeting(&self, time_left: Duration) -> Option<String> {
        let until = Instant::now() + GREETING_WAIT.min(time_left);
        let time_left = || until.saturating_duration_since(Instant::now());
        self.set_timeout(time_left());
        let mut channel = self.session.channel_session().ok()?;
        self.set_timeout(time_left());
        // Who refuses a shell may have said so in words before.
        let _ = channel.shell();
        let mut heard = Vec::new();
        for mut stream in [channel.stream(OUTPUT), channel.stream(ERRORS)] {
            let mut buffer = [0; MAX_GREETING_BYTES];
            while heard.len() < MAX_GREETING_BYTES && !time_left().is_zero() {
                self.set_timeout(time_left());
                match stream.read(&mut buffer[heard.len()..]) {
                    Ok(count) if count > 0 => {
                        let start = heard.len();
                        heard.extend_from_slice(&buffer[start..start + count]);
                    }
                    _ => break,
                }
            }
        }
        let text = String::from_utf8_lossy(&heard);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let greeting: String = words.chars().filter(|c| !c.is_control()).collect();
        (!greeting.is_empty()).then_some(greeting)
    }

    /// The exit status of the command, where it has ended.
    pub(crate) fn exit_status(&mut self) -> Option<i32> {
        self.channel.wait_eof().ok()?;
        self.channel.close().ok()?;
        self.channel.wait_close().ok()?;
        self.channel.exit_status().ok()
    }
}

/// Logs in over a connection and starts a command, with the stages `host_key`, which runs already, and
/// `authenticate`; after that the stage `repository` runs. It blocks.
pub(crate) fn open(
    connection: Approached,
    login: &Login,
    command: &str,
    deadline: Deadline,
    log: &StageLog,
) -> Result<Opened, Error> {
    let limit = Limit { deadline };
    let known = read_known_hosts(login)?;
    let (session, relay) = shake_hands(connection, login, &known, &limit, log)?;
    check_host_key(&session, login, &known, log)?;
    log.begin(Stage::Authenticate);
    log.fact("user", login.user.as_str());
    Attempt { session: &session, relay: &relay, login, limit: &limit, log }.make()?;
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
    Ok(Opened { channel, session, _relay: relay })
}

pub(super) struct Limit {
    deadline: Deadline,
}

impl Limit {
    /// Bounds the next call: by its own time, and by the deadline of all.
    pub(super) fn arm(&self, session: &Session) {
        let left = self.deadline.saturating_duration_since(Deadline::now());
        set_timeout(session, (left + DEADLINE_SLACK).min(STEP_TIMEOUT));
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
    connection: Approached,
    login: &Login,
    known: &HostKeys,
    limit: &Limit,
    log: &StageLog,
) -> Result<(Session, Relay), Error> {
    let Approached { socket, relay } = connection;
    let library = |error: ssh2::Error| Error::Library { code: code_of(&error) };
    let mut session = Session::new().map_err(library)?;
    let mut known_types = known.key_types(&login.destination.host, login.destination.port);
    known_types.extend(login.known_hosts.pins.iter().filter_map(Pin::key_type));
    let preference = preference(&known_types);
    session.method_pref(MethodType::HostKey, &preference).map_err(library)?;
    session.set_tcp_stream(socket);
    limit.arm(&session);
    let shaken = session.handshake();
    let heard = relay.transcript();
    note(&session, &heard, login, log);
    shaken.map_err(|error| handshake_error(&session, code_of(&error), heard))?;
    for (name, method) in [
        ("key_exchange", MethodType::Kex),
        ("host_key_algorithm", MethodType::HostKey),
        ("cipher", MethodType::CryptCs),
    ] {
        if let Some(agreed) = session.methods(method) {
            log.fact(name, agreed);
        }
    }
    Ok((session, relay))
}

/// Notes what the server said of itself, as far as it came.
fn note(session: &Session, heard: &Transcript, login: &Login, log: &StageLog) {
    if let Some(banner) = &heard.banner {
        log.fact("server", banner.as_str());
    }
    let Some(offered) = &heard.offered else { return };
    log.fact("offered", offered.to_fact());
    log.fact("ours", ours(session).to_fact());
    // Of two logins with the same server the first is as good as the second.
    let _ = login.seen.offered.set(offered.clone());
}

fn preference(known: &[&str]) -> String {
    let is_known = |algorithm: &&str| {
        let of_rsa = algorithm.starts_with("rsa-sha2-");
        known.iter().any(|key_type| key_type == algorithm || (of_rsa && *key_type == "ssh-rsa"))
    };
    let (first, rest): (Vec<&str>, Vec<&str>) = HOST_KEY_ALGORITHMS.iter().partition(|a| is_known(a));
    [first, rest].concat().join(",")
}

/// Why there is no handshake, by what the server said in the clear; libssh2's code comes after that.
fn handshake_error(session: &Session, code: i32, heard: Transcript) -> Error {
    let Transcript { first_line, banner, offered, disconnect, ended } = heard;
    let Some(banner) = banner else { return Error::NotSsh { first_bytes: first_line } };
    let ours = ours(session);
    if let Some(offered) = offered {
        let apart = ours.apart(&offered);
        if !apart.is_empty() {
            return Error::NoCommonAlgorithm {
                banner,
                apart,
                ours: Box::new(ours),
                offered: Box::new(offered),
            };
        }
    }
    if let Some(farewell) = disconnect {
        return Error::HungUp { reason: farewell.reason, said: farewell.said };
    }
    if ended {
        return Error::Disconnected { stage: Stage::HostKey };
    }
    lost(code, Stage::HostKey, STEP_TIMEOUT).unwrap_or(Error::Handshake { code })
}

/// What this side offers.
fn ours(session: &Session) -> Algorithms {
    Algorithms::of(|kind| {
        let method = match kind {
            Kind::HostKey => return HOST_KEY_ALGORITHMS.map(str::to_owned).to_vec(),
            Kind::KeyExchange => MethodType::Kex,
            Kind::Cipher => MethodType::CryptCs,
            Kind::Mac => MethodType::MacCs,
        };
        let names = session.supported_algs(method).unwrap_or_default();
        names.into_iter().map(str::to_owned).collect()
    })
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
    log.fact("known_hosts_entry", offered.entry.as_str());
    let verdict = known.check(host, port, key);
    let pins = &login.known_hosts.pins;
    let pinned = pins.iter().find(|pin| pin.is_of(key));
    let file = login.known_hosts.file.clone();
    let host = host_key::host_form(host, port);
    let known = match (verdict, pinned) {
        (Verdict::Known(line), _) => {
            log.fact("known_hosts_line", line);
            return Ok(());
        }
        (Verdict::Unknown | Verdict::Changed(_), Some(pin)) => {
            log.fact("pinned_as", pin.to_string());
            return Ok(());
        }
        (Verdict::Unknown, None) if pins.is_empty() => {
            return Err(Error::HostKeyUnknown { host, offered, file });
        }
        (Verdict::Unknown, None) => KnownKey::Pinned {
            key: login.known_hosts.pins_key.clone(),
            pins: pins.iter().map(ToString::to_string).collect(),
        },
        (Verdict::Changed(entry), None) => in_file(file, entry, false),
        (Verdict::Revoked(entry), _) => in_file(file, entry, true),
    };
    if let KnownKey::InFile { line, fingerprint, .. } = &known {
        log.fact("known_hosts_line", *line);
        log.fact("known_fingerprint", fingerprint.as_str());
    }
    Err(Error::HostKeyChanged { host, offered, known })
}

fn in_file(file: Option<PathBuf>, entry: Differing, revoked: bool) -> KnownKey {
    let Differing { line, key_type, fingerprint } = entry;
    KnownKey::InFile { file: file.unwrap_or_default(), line, key_type, fingerprint, revoked }
}

/// What a code says of the connection, where it says that and nothing else.
pub(super) fn lost(code: i32, stage: Stage, after: Duration) -> Option<Error> {
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

pub(super) fn code_of(error: &ssh2::Error) -> i32 {
    match error.code() {
        ErrorCode::Session(code) | ErrorCode::SFTP(code) => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_known_come_first() {
        assert!(preference(&["ssh-rsa"]).starts_with("rsa-sha2-512,rsa-sha2-256,ssh-ed25519"));
        assert!(preference(&[]).starts_with("ssh-ed25519,"));
    }
}
