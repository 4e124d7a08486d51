//! What is going on, on standard error, where that is a terminal: a row for each stage while the work runs.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::screen::{Color, Screen, padded};
use super::table;
use crate::git::Transfer;
use crate::report::{StageLog, StageRecord};

const REFRESH: Duration = Duration::from_millis(100);
/// The width of the stages' names, in columns.
const NAME_WIDTH: usize = 12;

/// Shows the stages that have ended, the one that runs, and what has been received, for ever. Dropping the future
/// clears the lines, so that nothing of them stands before the answer.
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
    let mut tick = 0;
    loop {
        interval.tick().await;
        let screen = Screen::of_stderr();
        let mut lines: Vec<String> = log.records().iter().map(|record| ended(record, &screen)).collect();
        lines.extend(log.running().map(|stage| running(stage.as_str(), &transfer, tick, &screen)));
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

fn running(stage: &str, transfer: &Transfer, tick: usize, screen: &Screen) -> String {
    const ROUND: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
    const ROUND_IN_ASCII: [&str; 4] = ["-", "\\", "|", "/"];
    let sign =
        if screen.unicode { ROUND[tick % ROUND.len()] } else { ROUND_IN_ASCII[tick % ROUND_IN_ASCII.len()] };
    let (objects, total) = (transfer.received_objects(), transfer.total_objects());
    let received = match (total, transfer.received_bytes()) {
        (0, 0) => String::new(),
        (0, bytes) => HumanBytes(bytes).to_string(),
        (total, bytes) => format!("{objects}/{total} objects, {}", HumanBytes(bytes)),
    };
    let row = format!("{}{received}", padded(stage, NAME_WIDTH + 2));
    format!(
        "{} {}",
        screen.paint(Color::Strong, sign),
        screen.cut(row.trim_end(), screen.width.saturating_sub(3))
    )
}

struct Clear(ProgressBar);

impl Drop for Clear {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
