//! Logs: to standard error, as text or JSON. Never logged: tokens, keys, signatures, bodies, queries.

use clap::ValueEnum;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// The form of the log.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogLevel {
    /// Failures alone.
    Error,
    /// Also what should be looked at.
    Warn,
    /// Also what goes on.
    Info,
    /// Also every request.
    Debug,
    /// Everything.
    Trace,
}

/// Sets the log of the process up.
///
/// # Errors
/// A log was set up before.
pub fn init(format: LogFormat, level: LogLevel) -> Result<(), TryInitError> {
    use std::io::IsTerminal;
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let has_colors = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(has_colors);
    let layer = match format {
        LogFormat::Text => layer.with_target(false).boxed(),
        LogFormat::Json => layer.json().boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(level)).try_init()
}
