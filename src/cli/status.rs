//! `sortie status`: what the running daemon is doing.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::enroll::config_or_default;
use super::{Common, Exit, complain, print, print_json};
use crate::control_socket::{Answer, AskError, LINE_TIMEOUT, Request, ask, places};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo -u sortie sortie status
  sortie status --json

It asks the daemon through its control socket, which is for the daemon's user and group. The exit status is 3 where no
daemon is found.")]
pub(super) struct StatusArgs {}

pub(super) async fn execute(common: &Common, _args: StatusArgs) -> Exit {
    let config = match config_or_default(common) {
        Ok(config) => config,
        Err(error) => return complain(Exit::Configuration, &error.to_string()),
    };
    match ask(&places(&config.agent), &Request::Status, LINE_TIMEOUT).await {
        Ok(Answer::Status { status }) => {
            if common.json {
                print_json(&status);
            } else {
                print(&told(&status));
            }
            Exit::Done
        }
        Ok(_) => failed(common, &AskError::Broken),
        Err(error) => failed(common, &error),
    }
}

fn failed(common: &Common, error: &AskError) -> Exit {
    if common.json {
        print_json(&json!({ "error": error.to_string() }));
    }
    let exit = if error.is_absence() { Exit::NoDaemon } else { Exit::Failed };
    complain(exit, &format!("{error}{}", advice(error)))
}

/// What to do about it.
pub(super) fn advice(error: &AskError) -> &'static str {
    match error {
        AskError::NoDaemon { .. } => {
            ". Start it with `sudo systemctl start sortie`, or name its configuration with --config"
        }
        AskError::Denied(_) => {
            ". Run this as root or as the agent's user, `sudo -u sortie sortie status`, or join its group: `sudo usermod -aG sortie YOU`"
        }
        AskError::Version(_) => ". Restart the daemon, so that the installed version runs",
        AskError::Refused { .. } | AskError::Silent(_) | AskError::Broken => "",
    }
}

/// The status as a person reads it.
fn told(status: &Value) -> String {
    let mut out = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<14} {value}");
    };
    let tags: Vec<_> = status["agent"]["tags"].as_array().into_iter().flatten().map(text).collect();
    row(
        "agent",
        &format!(
            "{} ({})",
            text(&status["agent"]["name"]),
            known(&status["agent"]["id"], "not enrolled yet")
        ),
    );
    if !tags.is_empty() {
        row("tags", &tags.join(", "));
    }
    let since = duration(&status["uptime_seconds"]);
    row("version", &format!("{}, process {}, up {since}", text(&status["version"]), status["pid"]));
    row("control plane", &connection(&status["control_plane"]));
    row("ready", &readiness(&status["readiness"]));
    row("reconnects", &status["control_plane"]["reconnects"].to_string());
    row("mode", &text(&status["mode"]));
    row("slots", &format!("{} of {} used", status["slots"]["used"], status["slots"]["total"]));
    row("results", &format!("{} waiting to be acknowledged", status["results_waiting"]));
    errors(&mut out, &status["control_plane"]["errors"]);
    list(&mut out, "running", &status["attempts"], |attempt| {
        let stage = known(&attempt["stage"], "-");
        format!("{stage:<12} {:>8}", duration(&attempt["seconds"]))
    });
    list(&mut out, "ended lately", &status["recent"], |attempt| {
        let diagnosis = known(&attempt["diagnosis"], "");
        format!("{:<12} {:>8}  {diagnosis}", text(&attempt["outcome"]), duration(&attempt["seconds"]))
    });
    out
}

fn readiness(readiness: &Value) -> String {
    if readiness["ready"] == true {
        return "yes".to_owned();
    }
    let reasons: Vec<_> = readiness["reasons"].as_array().into_iter().flatten().map(text).collect();
    format!("no: {}", reasons.join(", "))
}

fn errors(out: &mut String, errors: &Value) {
    let errors = errors.as_array().map_or(&[][..], Vec::as_slice);
    if errors.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nlast errors");
    for error in errors {
        let _ = writeln!(out, "  {}  {}", text(&error["at"]), text(&error["message"]));
    }
}

fn connection(control_plane: &Value) -> String {
    let url = known(&control_plane["url"], "none yet");
    if control_plane["connected"] != true {
        let refused =
            if control_plane["identity_refused"] == true { ": it refuses this agent's identity" } else { "" };
        return format!("{url}, not connected{refused}");
    }
    let since = format!("connected for {}", duration(&control_plane["connected_seconds"]));
    let heard = match &control_plane["heard_seconds_ago"] {
        Value::Null => String::new(),
        heard => format!(", heard {} ago", duration(heard)),
    };
    let how = if control_plane["transport"] == "long_polling" { " by long polling" } else { "" };
    format!("{url}, {since}{how}{heard}")
}

fn list(out: &mut String, title: &str, attempts: &Value, told: impl Fn(&Value) -> String) {
    let attempts = attempts.as_array().map_or(&[][..], Vec::as_slice);
    if attempts.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}");
    for attempt in attempts {
        let id = format!("{}/{}", text(&attempt["task"]), attempt["attempt"]);
        let (kind, target) = (text(&attempt["kind"]), text(&attempt["target"]));
        let line = format!("  {}  {kind}  {target}  {id}", told(attempt));
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// A text without what a terminal would obey.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
}

fn known(value: &Value, otherwise: &str) -> String {
    if value.is_string() { text(value) } else { otherwise.to_owned() }
}

/// Seconds as a person says them.
fn duration(value: &Value) -> String {
    let seconds = value.as_f64().unwrap_or_default();
    match seconds {
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        seconds => format!("{:.0} d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_without_what_a_terminal_would_obey() {
        let status = json!({
            "agent": { "name": "a\x1b[2J", "id": null, "tags": ["x\r\ny"] },
            "control_plane": { "connected": false, "errors": [{ "at": "t", "message": "m\x1b[31m" }] },
            "readiness": { "ready": false, "reasons": ["no_session", "d\x07"] },
            "recent": [{ "task": "t\x07", "attempt": 1, "kind": "clone", "target": "u", "seconds": 3.0 }],
        });
        let told = told(&status);
        assert!(!told.contains(['\x1b', '\r', '\x07']) && told.contains("not enrolled yet"), "{told}");
        assert!(told.contains("no: no_session, d\n") && told.contains("t  m[31m\n"), "{told}");
    }

    #[test]
    fn durations_are_told_in_the_unit_that_fits() {
        let told = [3.25, 59.0, 600.0, 7200.0, 200_000.0].map(|seconds| duration(&json!(seconds)));
        assert_eq!(told, ["3.2 s", "59 s", "10 min", "2 h", "2 d"]);
    }
}
