//! Outcomes for people: short aligned tables, the diagnosis last.

use std::fmt::Write as _;

use serde_json::Value;
use sortie_protocol::report::{CloneReport, Diagnosis, Report, ReportOutcome, Stage, StageStatus};

use super::screen::{Color, Screen, padded};

/// A connection test.
pub(super) fn report(report: &Report) -> String {
    let screen = Screen::of_stdout();
    let mut out = String::new();
    row(&mut out, "target", &report.target.url);
    let scope = report.target.scope.as_ref().map(word);
    let provider = report.target.provider.as_ref().map(word);
    row(&mut out, "kind", &[provider, scope].into_iter().flatten().collect::<Vec<_>>().join(", "));
    let server =
        [&report.server.product, &report.server.version].into_iter().flatten().cloned().collect::<Vec<_>>();
    row(&mut out, "server", &server.join(" "));
    row(&mut out, "identity", report.identity.name.as_deref().unwrap_or_default());
    if let (Some(branch), Some(head)) = (&report.repository.default_branch, &report.repository.head) {
        let references = report.repository.references.unwrap_or_default();
        row(&mut out, "repository", &format!("{branch} at {}, {references} references", short(head)));
    }
    stages(&mut out, &report.stages, &screen);
    let seconds = format!("in {}", milliseconds(report.duration_ms));
    ending(&mut out, report.outcome, &seconds, &report.warnings, report.diagnosis.as_ref(), &screen);
    out
}

/// A clone.
pub(super) fn clone(clone: &CloneReport) -> String {
    let screen = Screen::of_stdout();
    let mut out = String::new();
    row(&mut out, "path", clone.path.as_deref().unwrap_or_default());
    let at = clone.commit.as_deref().map(short).unwrap_or_default();
    row(&mut out, "commit", &[clone.reference.as_deref().unwrap_or_default(), at].join(" "));
    if clone.outcome == ReportOutcome::Succeeded {
        let bytes = indicatif::HumanBytes(clone.received_bytes);
        row(
            &mut out,
            "received",
            &format!("{bytes}, {} objects, {} files", clone.received_objects, clone.files),
        );
    }
    stages(&mut out, &clone.stages, &screen);
    let seconds = format!("in {}", milliseconds(clone.duration_ms));
    ending(&mut out, clone.outcome, &seconds, &clone.warnings, clone.diagnosis.as_ref(), &screen);
    out
}

fn row(out: &mut String, name: &str, value: &str) {
    if !value.trim().is_empty() {
        let shown: String = value.trim().chars().filter(|c| !c.is_control()).collect();
        let _ = writeln!(out, "{name:<12}  {shown}");
    }
}

fn stages(out: &mut String, stages: &[Stage], screen: &Screen) {
    let _ = writeln!(out, "\n{:<12}  {:<7}  {:>10}  seen", "stage", "status", "time");
    for stage in stages {
        let (word, color) = match stage.status {
            StageStatus::Passed => ("passed", Color::Good),
            StageStatus::Warned => ("warned", Color::Warning),
            StageStatus::Failed => ("failed", Color::Bad),
            StageStatus::Skipped => ("skipped", Color::Faint),
        };
        let time = if stage.status == StageStatus::Skipped {
            String::new()
        } else {
            milliseconds(stage.duration_ms)
        };
        let line = format!(
            "{:<12}  {}  {time:>10}  {}",
            stage.stage,
            screen.paint(color, &padded(word, 7)),
            telling_fact(stage)
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// The one fact of a stage that matters most to somebody who looks at it.
fn telling_fact(stage: &Stage) -> String {
    const TELLING: [(&str, &[&str]); 13] = [
        ("policy", &["server"]),
        ("resolve", &["addresses"]),
        ("proxy", &["proxy"]),
        ("connect", &["address"]),
        ("tls", &["version", "issuer"]),
        ("host_key", &["key_type", "fingerprint"]),
        ("identify", &["provider", "product", "version"]),
        ("authenticate", &["user", "key_type"]),
        ("authorize", &["project"]),
        ("repository", &["repository", "test_repository"]),
        ("references", &["references"]),
        ("receive", &["objects"]),
        ("checkout", &["files"]),
    ];
    let names = TELLING.iter().find(|(name, _)| *name == stage.stage).map_or(&[][..], |(_, names)| names);
    let values = names.iter().filter_map(|name| stage.facts.get(*name)).map(plain);
    values.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ")
}

fn plain(value: &Value) -> String {
    match value {
        // Servers have a say in some of these, and a terminal would obey their escape codes.
        Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn ending(
    out: &mut String,
    outcome: ReportOutcome,
    time: &str,
    warnings: &[Diagnosis],
    diagnosis: Option<&Diagnosis>,
    screen: &Screen,
) {
    for warning in warnings {
        let _ = writeln!(
            out,
            "\n{}: {} ({})",
            screen.paint(Color::Warning, "warning"),
            warning.code,
            warning.stage
        );
        explain(out, warning, screen);
    }
    match (outcome, diagnosis) {
        (ReportOutcome::Failed, Some(diagnosis)) => {
            let code = format!("{} ({})", diagnosis.code, diagnosis.stage);
            let _ = writeln!(out, "\n{} {time}: {code}", screen.paint(Color::Bad, "failed"));
            explain(out, diagnosis, screen);
        }
        _ => {
            let _ = writeln!(out, "\n{} {time}", screen.paint(Color::Good, "succeeded"));
        }
    }
}

fn explain(out: &mut String, diagnosis: &Diagnosis, screen: &Screen) {
    *out += &screen.wrap("  ", "  ", &diagnosis.summary);
    for remedy in &diagnosis.remedies {
        *out += &screen.wrap("  - ", "    ", remedy);
    }
}

fn milliseconds(duration: f64) -> String {
    if duration >= 10_000.0 { format!("{:.1} s", duration / 1000.0) } else { format!("{duration:.1} ms") }
}

fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

/// A value of an enumeration as it stands in JSON.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().as_ref().map(plain).unwrap_or_default()
}
