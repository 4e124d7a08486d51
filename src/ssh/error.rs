//! Why SSH did not get as far as git, by meaning.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::agent::AgentProblem;
use super::key::{KeyProblem, TypeProblem};
use super::transcript::{Algorithms, Kind};
use crate::dial::DialError;
use crate::host_key::OfferedKey;
use crate::report::Stage;

/// What speaks against a key that a server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownKey {
    /// An entry of the file of known hosts.
    InFile {
        /// The file.
        file: PathBuf,
        /// The line of the entry, from 1.
        line: usize,
        /// The type of the entry's key.
        key_type: String,
        /// The fingerprint of the entry's key.
        fingerprint: String,
        /// Whether the entry revokes the key that was shown.
        revoked: bool,
    },
    /// The pins of the configuration.
    Pinned {
        /// The key of the configuration where they stand.
        key: String,
        /// The pins.
        pins: Vec<String>,
    },
}

/// Why there is no SSH session.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection could not be made.
    #[error(transparent)]
    Dial(DialError),
    /// No SSH banner came.
    #[error("what answers is not an SSH server")]
    NotSsh {
        /// What came instead, as text; empty where nothing did.
        first_bytes: String,
    },
    /// The algorithms of both sides do not meet.
    #[error("no algorithm in common with the SSH server")]
    NoCommonAlgorithm {
        /// The server's banner.
        banner: String,
        /// The kinds of which there is none in common.
        apart: Vec<Kind>,
        /// What this side offers.
        ours: Box<Algorithms>,
        /// What the server offers.
        offered: Box<Algorithms>,
    },
    /// The server lets nobody in for now.
    #[error("the SSH server takes no more logins for now: `{said}`")]
    TooBusy {
        /// Its own words.
        said: String,
    },
    /// The server said why it hung up, before anything was encrypted.
    #[error("the SSH server hung up: `{said}` (reason {reason})")]
    HungUp {
        /// The number of the reason in RFC 4253, section 11.1.
        reason: u32,
        /// Its own words.
        said: String,
    },
    /// The handshake failed otherwise.
    #[error("the SSH handshake failed (libssh2 code {code})")]
    Handshake {
        /// The library's code.
        code: i32,
    },
    /// The server did not answer in time.
    #[error("the SSH server did not answer within {} s", after.as_secs())]
    TimedOut {
        /// The stage that waited.
        stage: Stage,
        /// How long was waited.
        after: Duration,
    },
    /// The server cut the connection.
    #[error("the SSH server cut the connection")]
    Disconnected {
        /// The stage that was running.
        stage: Stage,
    },
    /// The file of known hosts cannot be read.
    #[error("cannot read {}: {kind}", path.display())]
    KnownHostsUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// No entry vouches for the host.
    #[error("no known_hosts entry for {host}")]
    HostKeyUnknown {
        /// The host as it stands in known_hosts: `host` or `[host]:port`.
        host: String,
        /// The key that the server showed.
        offered: Box<OfferedKey>,
        /// The file that was searched.
        file: Option<PathBuf>,
    },
    /// An entry for the host has another key or revokes this one, or another one is pinned.
    #[error("the host key of {host} is not the known one")]
    HostKeyChanged {
        /// The host as it stands in known_hosts: `host` or `[host]:port`.
        host: String,
        /// The key that the server showed.
        offered: Box<OfferedKey>,
        /// What speaks against it.
        known: KnownKey,
    },
    /// The credential is no SSH key.
    #[error("the credential is not an SSH key")]
    NotAKey {
        /// The kind that it is.
        kind: &'static str,
    },
    /// The key's file is not a private key in a format that is understood.
    #[error("{source_name} is not a usable private key: {}", problem.as_str())]
    KeyUnreadable {
        /// Where the key came from.
        source_name: String,
        /// What was found there.
        problem: KeyProblem,
    },
    /// The SSH agent that should sign does not.
    #[error("the SSH agent at {}: {}", socket.display(), problem.as_str())]
    Agent {
        /// Where it should listen.
        socket: PathBuf,
        /// Why not.
        problem: AgentProblem,
    },
    /// Keys of that type are not used, here or at the server.
    #[error("the key is {key_type}: {}", problem.as_str())]
    KeyTypeUnsupported {
        /// The type, as in `ssh-dss`.
        key_type: String,
        /// Why not.
        problem: TypeProblem,
    },
    /// The key is encrypted, and there is no passphrase or a wrong one.
    #[error("the passphrase of {source_name} is missing or wrong")]
    KeyPassphrase {
        /// Where the key came from.
        source_name: String,
        /// Whether a passphrase was given.
        given: bool,
    },
    /// The server does not accept the key.
    #[error("the SSH server does not accept the key for the user {user}")]
    KeyRejected {
        /// The user at the host.
        user: String,
        /// The key's type, where its file tells.
        key_type: Option<String>,
        /// The key's fingerprint, where its file tells.
        fingerprint: Option<String>,
        /// The ways to authenticate that the server offers.
        methods: Vec<String>,
        /// Whether it hung up when the key was shown.
        hung_up: bool,
    },
    /// The server knows the key, took its signature or looked at it, and still does not let the user in.
    #[error(
        "the key was taken for the user {user}; the SSH server asks for another factor besides, or refuses the account"
    )]
    KeyNotEnough {
        /// The user at the host.
        user: String,
        /// The key's fingerprint, where its file tells.
        fingerprint: Option<String>,
        /// The ways to authenticate that the server offered before.
        methods: Vec<String>,
    },
    /// The key is of RSA, and the server does not announce signatures that are still in use.
    #[error("the SSH server does not announce rsa-sha2 signatures")]
    RsaSha2NotAnnounced {
        /// The server's banner.
        banner: String,
    },
    /// Authentication failed otherwise.
    #[error("SSH authentication failed (libssh2 code {code})")]
    Authentication {
        /// The library's code.
        code: i32,
    },
    /// The server does not open a channel or run the command.
    #[error("the SSH server does not run git (libssh2 code {code})")]
    Channel {
        /// The library's code.
        code: i32,
    },
    /// libssh2 could not be set up.
    #[error("libssh2 failed (code {code})")]
    Library {
        /// The library's code.
        code: i32,
    },
}

impl Error {
    /// The stage where this shows.
    pub fn stage(&self) -> Stage {
        match self {
            Self::Dial(error) => error.stage(),
            Self::TimedOut { stage, .. } | Self::Disconnected { stage } => *stage,
            Self::NotAKey { .. }
            | Self::KeyUnreadable { .. }
            | Self::KeyTypeUnsupported { .. }
            | Self::Agent { .. }
            | Self::KeyPassphrase { .. }
            | Self::KeyRejected { .. }
            | Self::KeyNotEnough { .. }
            | Self::RsaSha2NotAnnounced { .. }
            | Self::Authentication { .. } => Stage::Authenticate,
            Self::Channel { .. } => Stage::Repository,
            _ => Stage::HostKey,
        }
    }
}
