//! The local control socket: how `sortie status` and `sortie doctor` ask the running daemon.
//!
//! A client connects, sends one line of JSON and gets one line of JSON; then the connection ends. A request is
//! `{"version":1,"request":"status"}` or `{"version":1,"request":"doctor",…}`, see [`Request`]; the answer has the same
//! version, see [`Answer`]. No answer holds a secret. The daemon's user and group alone may connect: the socket has
//! the mode 0660, the directory that is made for it 0750, and the daemon looks at each peer's credentials besides.

mod client;
mod serve;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use client::{AskError, ask};
pub use serve::{Desk, serve};

use crate::config::Agent;
use crate::doctor::{Check, DaemonRequest};
use crate::local_socket::{self, BindError, Listener, Purpose};

/// The version of the protocol.
pub const VERSION: u32 = 1;

/// The longest line in either direction, in bytes.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

/// How many clients are served at once; more are told so and sent away.
pub const MAX_CLIENTS: usize = 8;

/// How long a line may take to come, or to be taken.
pub const LINE_TIMEOUT: Duration = Duration::from_secs(5);

/// The socket's name where its directory is all that is known.
const FILE_NAME: &str = "control.sock";

/// The directory of the packaged service's socket.
const USUAL_DIRECTORY: &str = "/run/sortie";

/// What the socket is, in errors.
const PURPOSE: Purpose = Purpose { name: "control socket", key: "agent.control_socket" };

/// A message with the version of the protocol beside it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Versioned<T> {
    /// [`VERSION`].
    pub version: u32,
    /// The message.
    #[serde(flatten)]
    pub message: T,
}

impl<T> Versioned<T> {
    /// A message of this version.
    pub fn new(message: T) -> Self {
        Self { version: VERSION, message }
    }
}

/// What a client asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// What the daemon is doing.
    Status,
    /// Checks that need what only the daemon has.
    Doctor(DaemonRequest),
}

/// What the daemon answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// What it is doing, in the form that `sortie status --json` prints.
    Status {
        /// See [`crate::status::Status::to_json`].
        status: Value,
    },
    /// What the checks found.
    Doctor {
        /// In their order.
        checks: Vec<Check>,
    },
    /// Why there is no other answer.
    Error {
        /// Which kind of refusal.
        code: Refusal,
        /// The reason, for people.
        message: String,
    },
}

/// Why the daemon does not answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The peer is neither the daemon's user, nor root, nor in its group.
    NotAllowed,
    /// The request is no request of this protocol.
    NotUnderstood,
    /// The client speaks another version.
    Version,
    /// The request is over [`MAX_LINE_BYTES`] or took longer than [`LINE_TIMEOUT`].
    Limit,
    /// As many clients as there may be are served already, or another doctor is at work.
    Busy,
    /// A later version's word for something else.
    #[serde(other)]
    Other,
}

/// Makes the socket in the first of the places whose directory can be used.
///
/// # Errors
/// That of the last place that was tried.
pub async fn bind(places: &[PathBuf]) -> Result<Listener, BindError> {
    local_socket::bind(PURPOSE, places).await
}

/// Where the socket may be, the likeliest place first: where the configuration says, else in the directory that
/// systemd gave to this unit, else in the usual directory, or in the state directory where that cannot be used.
pub fn places(agent: &Agent) -> Vec<PathBuf> {
    // A unit with several directories has them all in the variable, with colons between.
    let given = std::env::var("RUNTIME_DIRECTORY").ok();
    let first = given.as_deref().and_then(|list| list.split(':').next()).filter(|path| !path.is_empty());
    places_with(agent, first.map(Path::new))
}

fn places_with(agent: &Agent, runtime_directory: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = &agent.control_socket {
        return vec![path.clone()];
    }
    if let Some(directory) = runtime_directory.filter(|directory| directory.is_absolute()) {
        return vec![directory.join(FILE_NAME)];
    }
    vec![Path::new(USUAL_DIRECTORY).join(FILE_NAME), agent.state_dir.join(FILE_NAME)]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_configuration_goes_before_the_unit_and_the_unit_before_the_usual_place() {
        let mut agent = Config::load(&[], &Default::default()).unwrap().agent;
        let shown = |agent: &Agent, given: Option<&str>| {
            let places = places_with(agent, given.map(Path::new));
            places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>()
        };
        let usual = ["/run/sortie/control.sock", "/var/lib/sortie/control.sock"];
        assert_eq!(shown(&agent, None), usual);
        assert_eq!(shown(&agent, Some("/run/other")), ["/run/other/control.sock"]);
        agent.control_socket = Some("/srv/x.sock".into());
        assert_eq!(shown(&agent, Some("/run/other")), ["/srv/x.sock"]);
    }

    #[test]
    fn a_later_versions_refusal_is_still_a_refusal() {
        let line = r#"{"version":1,"answer":"error","code":"of_tomorrow","message":"no"}"#;
        let answer: Versioned<Answer> = serde_json::from_str(line).unwrap();
        assert!(matches!(answer.message, Answer::Error { code: Refusal::Other, .. }));
    }
}
