//! Doing one task from the command line: deadline, Ctrl-C, the answer and the exit status.

use std::sync::Arc;
use std::time::Duration;

use sortie_protocol::report::TaskOutput;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Exit, print, print_json, progress, table};
use crate::config::{Log, LogFormat};
use crate::git::{Control, Transfer};
use crate::report::{Code, StageLog};
use crate::task::{self, Task, Tools};
use crate::telemetry;

/// Does the task and prints its outcome.
pub(super) async fn carry_out(task: &Task, tools: &Tools, deadline: Duration, json: bool) -> Exit {
    // Warnings, about a key that others can read for example, go to standard error.
    let _ = telemetry::init(Log { level: tracing::Level::WARN, format: LogFormat::Text });
    let cancel = CancellationToken::new();
    let control = Control {
        deadline: Instant::now() + deadline,
        cancel: cancel.clone(),
        transfer: Arc::new(Transfer::default()),
        limits: tools.limits,
    };
    let log = StageLog::default();
    let work = task::run(task, tools, &control, &log);
    tokio::pin!(work);
    let interrupted = interrupt();
    tokio::pin!(interrupted);
    let showing = progress::show(Arc::clone(&control.transfer), log.clone());
    tokio::pin!(showing);
    let report = loop {
        tokio::select! {
            biased;
            report = &mut work => break report,
            () = &mut interrupted, if !cancel.is_cancelled() => cancel.cancel(),
            never = &mut showing => match never {},
        }
    };
    let output = report.to_wire();
    if json {
        print_json(&output);
    } else {
        print(&match &output {
            TaskOutput::Report(report) => table::report(report),
            TaskOutput::Clone(clone) => table::clone(clone),
        });
    }
    match report.diagnosis().map(|diagnosis| diagnosis.code) {
        None => Exit::Done,
        Some(Code::Cancelled) => Exit::Interrupted,
        Some(Code::Internal) => Exit::Bug,
        Some(_) => Exit::Failed,
    }
}

/// Waits for Ctrl-C or a request to end.
async fn interrupt() {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
