//! Whether the daemon runs, is connected, and goes by the very configuration that is looked at.

use serde_json::Value;

use super::{Check, Mark};
use crate::config::Config;
use crate::control_socket::AskError;

const NAME: &str = "daemon";

/// What asking the daemon for its status came to.
pub type Seen = Result<Value, AskError>;

/// A digest of a configuration, with which a daemon tells by which one it goes. Secrets are no part of it.
pub fn fingerprint(config: &Config) -> String {
    use std::fmt::Write as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, config.show().as_bytes());
    digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Judges what the daemon told of itself.
pub fn examine(seen: &Seen, config: &Config) -> Check {
    let status = match seen {
        Ok(status) => status,
        Err(error @ AskError::NoDaemon { .. }) => {
            return Check::new(NAME, Mark::Warned, error.to_string())
                .remedy("Start it: sudo systemctl start sortie; what it says is in journalctl -u sortie");
        }
        Err(error @ AskError::Denied(_)) => {
            return Check::new(NAME, Mark::Skipped, error.to_string())
                .remedy("Run it as the agent's user or as root: sudo -u sortie sortie doctor");
        }
        Err(error) => {
            return Check::new(NAME, Mark::Failed, error.to_string()).remedy(
                "Restart it: sudo systemctl restart sortie; what it said is in journalctl -u sortie",
            );
        }
    };
    let control_plane = &status["control_plane"];
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let running = status["attempts"].as_array().map_or(0, Vec::len);
    let mut check = if control_plane["connected"] == true {
        let summary =
            format!("connected since {}, {running} running", text(&control_plane["connected_since"]));
        Check::new(NAME, Mark::Passed, summary)
    } else {
        let why = control_plane["last_error"]["message"].as_str().unwrap_or("it has not tried yet");
        Check::new(NAME, Mark::Failed, format!("it is not connected to its control plane: {why}"))
            .remedy("See what control_plane says below; the daemon tries again by itself.")
    };
    if status["mode"] != "running" {
        let summary = format!("it takes no new tasks: {}", text(&status["mode"]));
        check.worsen(
            Mark::Warned,
            summary,
            "Resume it at the control plane, or start it again where it is stopping.",
        );
    }
    if status["configuration"].as_str().is_some_and(|digest| digest != fingerprint(config)) {
        let summary = "it goes by another configuration than these files hold now";
        check.worsen(Mark::Warned, summary, "Let it read them: sudo systemctl restart sortie");
    }
    if status["version"].as_str().is_some_and(|version| version != env!("CARGO_PKG_VERSION")) {
        let summary = format!(
            "it has version {}, this program {}",
            text(&status["version"]),
            env!("CARGO_PKG_VERSION")
        );
        check.worsen(Mark::Warned, summary, "Let the installed version run: sudo systemctl restart sortie");
    }
    check
        .fact("pid", status["pid"].clone())
        .fact("version", status["version"].clone())
        .fact("mode", status["mode"].clone())
}
