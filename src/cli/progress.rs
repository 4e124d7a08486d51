//! What is going on, on standard error, where that is a terminal.

use std::convert::Infallible;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::git::Transfer;
use crate::report::StageLog;

const REFRESH: Duration = Duration::from_millis(100);

/// Shows the stage that runs and what has been received, for ever. Dropping the future clears the line.
pub(super) async fn show(transfer: Arc<Transfer>, log: StageLog) -> Infallible {
    if !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let _clear = Clear(bar.clone());
    let mut interval = tokio::time::interval(REFRESH);
    loop {
        interval.tick().await;
        let stage = log.running().map_or("", |stage| stage.as_str());
        let (objects, total) = (transfer.received_objects(), transfer.total_objects());
        let style = if total > 0 {
            "{msg:<12} [{bar:30}] {pos}/{len} objects, {prefix}"
        } else {
            "{msg:<12} {prefix}"
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(stage);
        bar.set_prefix(HumanBytes(transfer.received_bytes()).to_string());
        bar.set_length(total);
        bar.set_position(objects);
    }
}

struct Clear(ProgressBar);

impl Drop for Clear {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
