//! `/metrics` in Prometheus's text format, version 0.0.4.
//!
//! Everything is computed from the status at the moment of the question, so that there is no registry to keep, and
//! a page is a list of families: that is less than a library for it would take.

use std::fmt::{Display, Write as _};

use tokio::time::Instant;

use super::process;
use crate::status::{Daemon, Mode, Status};
use crate::task::KINDS;

/// What the page is.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// How an attempt can end.
const OUTCOMES: [&str; 3] = ["succeeded", "failed", "cancelled"];

/// The page as it is at this time.
pub(super) fn page(status: &Status, daemon: &Daemon, now: Instant) -> String {
    let mut page = Page::default();
    page.gauge_with(
        "sortie_build_info",
        "What runs here; the value is always 1.",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    page.gauge(
        "sortie_start_time_seconds",
        "When the daemon started, in seconds since 1970.",
        daemon.started.at.unix_timestamp(),
    );
    line(&mut page, status, now);
    work(&mut page, status, daemon);
    own(&mut page);
    page.0
}

/// The line to the control plane.
fn line(page: &mut Page, status: &Status, now: Instant) {
    let ready = status.missing(now).is_empty();
    page.gauge("sortie_ready", "Whether tasks can be carried out, as /readyz says.", u8::from(ready));
    page.gauge(
        "sortie_session_up",
        "Whether a session with the control plane is open.",
        u8::from(status.connected.is_some()),
    );
    if let Some(heard) = status.heard {
        let age = now.saturating_duration_since(heard).as_secs_f64();
        page.gauge("sortie_heard_age_seconds", "How long ago anything came from the control plane.", age);
    }
    if let Some(turned) = status.pulse.turned {
        let age = now.saturating_duration_since(turned).as_secs_f64();
        page.gauge("sortie_loop_age_seconds", "How long ago the agent's loop came around.", age);
    }
    page.gauge(
        "sortie_identity_refused",
        "Whether the control plane refuses this agent's identity.",
        u8::from(status.identity_refused),
    );
    let counters = &status.counters;
    page.counter(
        "sortie_reconnects_total",
        "Sessions that were opened after the first one.",
        counters.reconnects(),
    );
    page.counter(
        "sortie_errors_total",
        "Sessions that could not be opened or were ended from without, and failures of the journal.",
        counters.errors,
    );
    page.counter(
        "sortie_protocol_errors_total",
        "Messages of the control plane that were not understood.",
        counters.protocol_errors,
    );
}

/// What was done and is being done.
fn work(page: &mut Page, status: &Status, daemon: &Daemon) {
    page.gauge("sortie_slots", "How many attempts may run at once.", daemon.max_tasks);
    page.gauge("sortie_slots_used", "How many attempts run.", status.attempts.len());
    page.gauge(
        "sortie_draining",
        "Whether the daemon finishes what runs and ends.",
        u8::from(status.mode == Mode::Draining),
    );
    page.gauge(
        "sortie_paused",
        "Whether the control plane or the operator has paused this agent.",
        u8::from(status.mode == Mode::Paused),
    );
    page.gauge(
        "sortie_results_waiting",
        "Results that the control plane has not acknowledged yet.",
        status.results_waiting,
    );
    let counters = &status.counters;
    page.family("sortie_attempts_ended_total", "counter", "Attempts that have ended.");
    for kind in KINDS {
        for outcome in OUTCOMES {
            let count = counters.ended.get(&(kind, outcome)).copied().unwrap_or_default();
            page.sample("sortie_attempts_ended_total", &[("kind", kind), ("outcome", outcome)], count);
        }
    }
    page.family(
        "sortie_diagnoses_total",
        "counter",
        "Attempts that have ended with a diagnosis, by its code.",
    );
    for (code, count) in &counters.diagnoses {
        page.sample("sortie_diagnoses_total", &[("code", code)], *count);
    }
    page.counter(
        "sortie_clone_received_bytes_total",
        "Bytes that clones received from git servers.",
        counters.clone_bytes,
    );
}

/// The process, by the names that every exporter gives.
fn own(page: &mut Page) {
    let process = process::look();
    if let Some(bytes) = process.resident_bytes {
        page.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", bytes);
    }
    if let Some(fds) = process.open_fds {
        page.gauge("process_open_fds", "Number of open file descriptors.", fds);
    }
    if let Some(threads) = process.threads {
        page.gauge("process_threads", "Number of threads of the process.", threads);
    }
}

/// A page in the making.
#[derive(Default)]
struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauge_with(name, help, &[], value);
    }

    fn gauge_with(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, labels, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// Begins a family. Its samples follow at once.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            let opening = if place == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{opening}{label}=\"{}\"", escaped(text));
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{closing} {value}");
    }
}

/// The value of a label between its quotation marks.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_helps_cannot_break_out_of_their_line() {
        let mut page = Page::default();
        page.gauge_with("x", "a\\b\nc", &[("one", "a\"b\\c\nd"), ("two", "")], 1.5);
        let expected = "# HELP x a\\\\b\\nc\n# TYPE x gauge\nx{one=\"a\\\"b\\\\c\\nd\",two=\"\"} 1.5\n";
        assert_eq!(page.0, expected);
    }

    #[test]
    fn every_outcome_of_every_kind_is_there_from_the_start() {
        let mut status = Status::default();
        status.counters.ended.insert(("clone", "failed"), 3);
        status.counters.diagnoses.insert("pat_rejected", 3);
        status.counters.sessions = 4;
        let page = page(&status, &Daemon::of_tests(), Instant::now());
        let count = |start: &str| page.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(count("sortie_attempts_ended_total{"), KINDS.len() * OUTCOMES.len());
        for line in [
            "sortie_attempts_ended_total{kind=\"clone\",outcome=\"failed\"} 3",
            "sortie_attempts_ended_total{kind=\"connection-test\",outcome=\"succeeded\"} 0",
            "sortie_diagnoses_total{code=\"pat_rejected\"} 3",
            "sortie_reconnects_total 3",
            "sortie_session_up 0",
            "sortie_ready 0",
        ] {
            assert_eq!(page.lines().filter(|told| *told == line).count(), 1, "{line}\n{page}");
        }
        assert_eq!(count("sortie_heard_age_seconds"), 0, "nothing was heard yet");
    }
}
