//! Outcomes for people: what was asked, a row for each stage, warnings, and the diagnosis last.

pub(super) mod facts;
mod stages;

use std::fmt::Write as _;

use sortie_protocol::report::{CloneReport, Diagnosis, Report, ReportOutcome};

use super::screen::{Color, Screen, padded};

pub(super) use stages::{Clocked, mark};

/// The width of the names before values, in columns.
const NAME_WIDTH: usize = 12;

/// A connection test. `clocked` has the times of its stages, in their order.
pub(super) fn report(report: &Report, clocked: &[Clocked], screen: &Screen) -> String {
    let mut out = String::new();
    row(&mut out, "target", &report.target.url, screen);
    row(&mut out, "kind", &facts::kind(report), screen);
    row(&mut out, "credential", &facts::credential(report), screen);
    out.push('\n');
    out += &stages::rows(&report.stages, clocked, |stage| facts::telling(stage, Some(report)), screen);
    ending(&mut out, report.outcome, report.duration_ms, &report.warnings, report.diagnosis.as_ref(), screen);
    out
}

/// A clone. `clocked` has the times of its stages, in their order.
pub(super) fn clone(clone: &CloneReport, clocked: &[Clocked], screen: &Screen) -> String {
    let mut out = String::new();
    row(&mut out, "path", clone.path.as_deref().unwrap_or_default(), screen);
    let at = clone.commit.as_deref().map(facts::short).unwrap_or_default();
    row(&mut out, "commit", &[clone.reference.as_deref().unwrap_or_default(), at].join(" "), screen);
    if clone.outcome == ReportOutcome::Succeeded {
        let bytes = indicatif::HumanBytes(clone.received_bytes);
        let received = format!("{bytes}, {} objects, {} files", clone.received_objects, clone.files);
        row(&mut out, "received", &received, screen);
    }
    out.push('\n');
    out += &stages::rows(&clone.stages, clocked, |stage| facts::telling(stage, None), screen);
    ending(&mut out, clone.outcome, clone.duration_ms, &clone.warnings, clone.diagnosis.as_ref(), screen);
    out
}

fn row(out: &mut String, name: &str, value: &str, screen: &Screen) {
    if !value.trim().is_empty() {
        let indent = " ".repeat(NAME_WIDTH + 2);
        *out += &screen.wrap(&padded(name, NAME_WIDTH + 2), &indent, value);
    }
}

fn ending(
    out: &mut String,
    outcome: ReportOutcome,
    duration_ms: f64,
    warnings: &[Diagnosis],
    diagnosis: Option<&Diagnosis>,
    screen: &Screen,
) {
    for warning in warnings {
        let word = screen.paint(Color::Warning, "warning");
        let _ = writeln!(out, "\n{word}: {} ({})", warning.code, warning.stage);
        explain(out, warning, screen);
    }
    let time = format!("in {}", facts::milliseconds(duration_ms));
    match (outcome, diagnosis) {
        (ReportOutcome::Failed, Some(diagnosis)) => {
            let word = screen.paint(Color::Bad, "failed");
            let _ = writeln!(out, "\n{word} {time}: {} ({})", diagnosis.code, diagnosis.stage);
            explain(out, diagnosis, screen);
            *out += &screen.wrap("  ", "  ", &format!("More: sortie explain {}", diagnosis.code));
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

#[cfg(test)]
mod tests;
