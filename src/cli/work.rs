//! Doing one task from the command line: deadline, Ctrl-C, the answer and the exit status.

use std::sync::Arc;
use std::time::Duration;

use sortie_protocol::report::TaskOutput;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::screen::Screen;
use super::{Exit, markdown, print, print_json, progress, table};
use crate::config::{Log, LogFormat};
use crate::git::{Control, Transfer};
use crate::report::{Code, StageLog};
use crate::task::{self, Task, TaskReport, Tools};
use crate::telemetry;

/// How the outcome is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// For the person at the terminal.
    Table,
    /// For programs.
    Json,
    /// For a ticket.
    Markdown,
}

impl Form {
    /// As the flag `--json` says.
    pub(super) fn of(json: bool) -> Self {
        if json { Self::Json } else { Self::Table }
    }
}

/// Does the task and prints its outcome.
pub(super) async fn carry_out(task: &Task, tools: &Tools, deadline: Duration, form: Form) -> Exit {
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
    // What is shown meanwhile is gone before the outcome is printed, since both may be on one terminal.
    let mut showing = Box::pin(progress::show(Arc::clone(&control.transfer), log.clone()));
    let report = loop {
        tokio::select! {
            biased;
            report = &mut work => break report,
            () = &mut interrupted, if !cancel.is_cancelled() => cancel.cancel(),
            never = &mut showing => match never {},
        }
    };
    drop(showing);
    print_outcome(&report, form);
    match report.diagnosis().map(|diagnosis| diagnosis.code) {
        None => Exit::Done,
        Some(Code::Cancelled) => Exit::Interrupted,
        Some(Code::Internal) => Exit::Bug,
        Some(_) => Exit::Failed,
    }
}

fn print_outcome(report: &TaskReport, form: Form) {
    let output = report.to_wire();
    let clocked: Vec<_> = report.stages().iter().map(table::Clocked::from).collect();
    match (&output, form) {
        // The command line asks for tests and clones alone; whatever else there is has no table.
        (
            output @ (TaskOutput::References(_) | TaskOutput::Files(_) | TaskOutput::Compare(_)),
            Form::Table | Form::Markdown,
        )
        | (output, Form::Json) => print_json(output),
        (TaskOutput::Report(report), Form::Markdown) => print(&markdown::report(report)),
        (TaskOutput::Report(report), Form::Table) => {
            print(&table::report(report, &clocked, &Screen::of_stdout()));
        }
        (TaskOutput::Clone(clone), Form::Table | Form::Markdown) => {
            print(&table::clone(clone, &clocked, &Screen::of_stdout()));
        }
    }
}

/// Waits for Ctrl-C or a request to end.
pub(super) async fn interrupt() {
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
