//! The rows of stages: a mark, the time, where the time lies in the whole, and what was seen.

use std::fmt::Write as _;
use std::time::Duration;

use sortie_protocol::report::{Stage, StageStatus};

use super::super::screen::{Color, Screen, padded};
use super::{NAME_WIDTH, facts};
use crate::report::StageRecord;

/// The width of times, in columns.
const TIME_WIDTH: usize = 10;
/// The width of the bars of the waterfall where there is room for it, in columns.
const BAR_WIDTH: usize = 20;
/// The same on a screen of less than [`ROOMY`] columns.
const SMALL_BAR_WIDTH: usize = 10;
/// From how many columns on the bars have their full width.
const ROOMY: usize = 96;
/// Below how many columns there is no waterfall.
const TIGHT: usize = 64;
/// The least width for what was seen beside the row, in columns; with less it goes below.
const MIN_SEEN_WIDTH: usize = 24;
/// How far what stands below a row is indented, in columns.
const INDENT: usize = 4;

/// When a stage began and how long it took.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Clocked {
    offset: Duration,
    duration: Duration,
}

impl From<&StageRecord> for Clocked {
    fn from(record: &StageRecord) -> Self {
        Self { offset: record.offset, duration: record.duration }
    }
}

/// All rows, each with its line end; those of a failed stage with the evidence below it.
pub(super) fn rows(
    stages: &[Stage],
    clocked: &[Clocked],
    seen: impl Fn(&Stage) -> String,
    screen: &Screen,
) -> String {
    let whole = clocked.iter().map(|stage| stage.offset + stage.duration).max().unwrap_or_default();
    let bars = bar_width(screen);
    let mut out = String::new();
    for (position, stage) in stages.iter().enumerate() {
        let bar = clocked.get(position).map(|clocked| bar(*clocked, whole, bars, screen)).unwrap_or_default();
        out += &row(stage, &padded(&bar, bars), &seen(stage), screen);
        if stage.status == StageStatus::Failed {
            out += &evidence(stage, screen);
        }
    }
    out
}

/// The sign of a status, and its color.
pub(in crate::cli) fn mark(status: StageStatus, screen: &Screen) -> (&'static str, Color) {
    let (sign, ascii, color) = match status {
        StageStatus::Passed => ("✔", "+", Color::Good),
        StageStatus::Warned => ("!", "!", Color::Warning),
        StageStatus::Failed => ("✘", "x", Color::Bad),
        StageStatus::Skipped => ("–", "-", Color::Faint),
    };
    (if screen.unicode { sign } else { ascii }, color)
}

fn row(stage: &Stage, bar: &str, seen: &str, screen: &Screen) -> String {
    let (mark, color) = mark(stage.status, screen);
    let is_skipped = stage.status == StageStatus::Skipped;
    let (time, bar) = if is_skipped {
        (String::new(), " ".repeat(bar.chars().count()))
    } else {
        (facts::milliseconds(stage.duration_ms), screen.paint(color, bar))
    };
    let name = padded(&stage.stage, NAME_WIDTH);
    let name = if is_skipped { screen.paint(color, &name) } else { name };
    let gap = if bar_width(screen) == 0 { "" } else { "  " };
    let start = format!("{} {name}{time:>TIME_WIDTH$}{gap}{bar}", screen.paint(color, mark));
    let column = 2 + NAME_WIDTH + TIME_WIDTH + gap.len() + bar_width(screen) + 2;
    let room = screen.width.saturating_sub(column);
    let mut out = String::new();
    if room < MIN_SEEN_WIDTH {
        let _ = writeln!(out, "{}", start.trim_end());
        if !seen.is_empty() {
            let indent = " ".repeat(INDENT);
            out += &screen.wrap(&indent, &indent, seen);
        }
        return out;
    }
    let mut lines = screen.lines("", "", seen, room).into_iter();
    let _ = writeln!(out, "{}", format!("{start}  {}", lines.next().unwrap_or_default()).trim_end());
    for line in lines {
        let _ = writeln!(out, "{}{line}", " ".repeat(column));
    }
    out
}

/// How wide the bars are.
fn bar_width(screen: &Screen) -> usize {
    match screen.width {
        ..TIGHT => 0,
        TIGHT..ROOMY => SMALL_BAR_WIDTH,
        ROOMY.. => BAR_WIDTH,
    }
}

/// Where a stage lies in the whole: spaces up to its beginning, then a bar as long as it took. What took less than
/// half a column is a thin line.
fn bar(stage: Clocked, whole: Duration, width: usize, screen: &Screen) -> String {
    if whole.is_zero() || width == 0 {
        return String::new();
    }
    let columns = |time: Duration| time.as_secs_f64() / whole.as_secs_f64() * as_f64(width);
    let (start, length) = (columns(stage.offset), columns(stage.duration));
    // A width is a small number, so that the nearest column is one of the screen's.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let (before, filled) = ((start.floor() as usize).min(width - 1), length.round() as usize);
    let (full, thin) = if screen.unicode { ("█", "▏") } else { ("=", "|") };
    let drawn = if filled == 0 { thin.to_owned() } else { full.repeat(filled.min(width - before)) };
    format!("{}{drawn}", " ".repeat(before))
}

fn as_f64(width: usize) -> f64 {
    u32::try_from(width).map_or(f64::MAX, f64::from)
}

fn evidence(stage: &Stage, screen: &Screen) -> String {
    let facts = facts::evidence(stage);
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 2;
    let rest = " ".repeat(INDENT + width);
    let line = |(name, value): &(String, String)| {
        let first = format!("{}{}", " ".repeat(INDENT), padded(&screen.fit(name), width));
        screen.wrap(&first, &rest, value)
    };
    facts.iter().map(line).collect()
}
