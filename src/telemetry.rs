//! The log: lines for people, JSON, or the journal.
//!
//! Never logged: secrets, `Authorization` values, user info of URLs, what a server says before it has been
//! stripped of control characters.

use std::io::IsTerminal as _;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::config::{Log, LogFormat};

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The journal's socket is not there.
    #[error("the journal does not answer ({0}): choose log.format text or json")]
    Journal(std::io::ErrorKind),
    /// There is a log already.
    #[error("the log is set up already")]
    Twice,
}

/// Sets the log of this process up.
///
/// # Errors
/// See [`LogError`].
pub fn init(log: Log) -> Result<(), LogError> {
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match log.format {
        LogFormat::Text => {
            let colors = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            fmt::layer().with_writer(std::io::stderr).with_ansi(colors).boxed()
        }
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).with_ansi(false).boxed()
        }
        LogFormat::Journald => {
            tracing_journald::layer().map_err(|error| LogError::Journal(error.kind()))?.boxed()
        }
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter(log.level)))
        .try_init()
        .map_err(|_| LogError::Twice)
}

/// Libraries speak only where something is wrong: at their lower levels some of them log headers and frames.
fn filter(level: Level) -> Targets {
    Targets::new().with_default(LevelFilter::WARN).with_target("sortie", level)
}
