//! What is going on, on standard error, where that is a terminal: a row for each stage while the work runs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::screen::{Color, Screen, padded};
use super::table;
use crate::git::{Estimate, Pace, Transfer};
use crate::report::{Stage, StageLog, StageRecord};

const REFRESH: Duration = Duration::from_millis(100);
/// The width of the stages' names, in columns.
const NAME_WIDTH: usize = 12;
/// The width of a bar, in columns.
const BAR_WIDTH: usize = 20;

/// Shows the stages that have ended, the one that runs with a bar where its end is known, and what the server says, for
/// ever. Dropping the future clears the lines, so that nothing of them stands before the answer.
pub(super) async fn show(transfer: Arc<Transfer>, log: StageLog) -> Infallible {
    if !Screen::of_stderr().live {
        return std::future::pending().await;
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let _clear = Clear(bar.clone());
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        bar.set_style(style);
    }
    let mut interval = tokio::time::interval(REFRESH);
    let (mut tick, mut pace) = (0, Pace::default());
    loop {
        interval.tick().await;
        let screen = Screen::of_stderr();
        let mut lines: Vec<String> = log.records().iter().map(|record| ended(record, &screen)).collect();
        let estimate = pace.estimate(&transfer);
        lines.extend(log.running().map(|stage| running(stage, &transfer, estimate, tick, &screen)));
        lines.extend(log.heard().map(|said| heard(&said, &screen)));
        bar.set_message(lines.join("\n"));
        tick += 1;
    }
}

fn ended(record: &StageRecord, screen: &Screen) -> String {
    let stage = crate::task::wire_stage(record);
    let (mark, color) = table::mark(stage.status, screen);
    let time = table::facts::milliseconds(stage.duration_ms);
    let seen = screen.fit(&table::facts::telling(&stage, None));
    let row = format!("{} {time:>10}  {seen}", padded(&stage.stage, NAME_WIDTH));
    // A row that the terminal broke would be counted as one line and not be cleared whole.
    format!("{} {}", screen.paint(color, mark), screen.cut(&row, screen.width.saturating_sub(3)))
}

fn running(stage: Stage, transfer: &Transfer, estimate: Estimate, tick: usize, screen: &Screen) -> String {
    const ROUND: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
    const ROUND_IN_ASCII: [&str; 4] = ["-", "\\", "|", "/"];
    let sign =
        if screen.unicode { ROUND[tick % ROUND.len()] } else { ROUND_IN_ASCII[tick % ROUND_IN_ASCII.len()] };
    let mut told = Vec::new();
    if let Some((done, total, what)) = counted(stage, transfer) {
        told.push(drawn(done, total, screen));
        told.push(format!("{done}/{total} {what}"));
    }
    if matches!(stage, Stage::Receive | Stage::Negotiate | Stage::References) && transfer.received_bytes() > 0
    {
        told.push(HumanBytes(transfer.received_bytes()).to_string());
        if estimate.bytes_per_second > 0 {
            told.push(format!("{}/s", HumanBytes(estimate.bytes_per_second)));
        }
    }
    told.extend(estimate.remaining.filter(|time| !time.is_zero()).map(|time| format!("{time:.0?} left")));
    let row = format!("{}{}", padded(stage.as_str(), NAME_WIDTH + 2), told.join("  "));
    format!(
        "{} {}",
        screen.paint(Color::Strong, sign),
        screen.cut(row.trim_end(), screen.width.saturating_sub(3))
    )
}

/// How far a stage is, in what, where its end is known.
fn counted(stage: Stage, transfer: &Transfer) -> Option<(u64, u64, &'static str)> {
    let (done, total, what) = match stage {
        Stage::Receive => (transfer.received_objects(), transfer.total_objects(), "objects"),
        Stage::Index => (transfer.indexed_objects(), transfer.total_objects(), "objects"),
        Stage::Checkout => (transfer.written_files(), transfer.total_files(), "files"),
        _ => return None,
    };
    (total > 0).then_some((done.min(total), total, what))
}

/// A bar, as full as the work is done.
fn drawn(done: u64, total: u64, screen: &Screen) -> String {
    let full = usize::try_from(done * BAR_WIDTH as u64 / total.max(1)).unwrap_or(BAR_WIDTH);
    let (full_sign, empty_sign) = if screen.unicode { ("█", "░") } else { ("#", ".") };
    format!("{}{}", full_sign.repeat(full), empty_sign.repeat(BAR_WIDTH.saturating_sub(full)))
}

/// What the server says, below what we say.
fn heard(said: &str, screen: &Screen) -> String {
    format!(
        "  {}",
        screen.cut(&format!("{}remote: {said}", " ".repeat(NAME_WIDTH + 2)), screen.width.saturating_sub(3))
    )
}

struct Clear(ProgressBar);

impl Drop for Clear {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
