//! Runs libgit2's work on a blocking thread, so that a cancel, the deadline or a caller who goes away stops it.

use std::sync::Arc;

use super::wire::{Cut, Wire};
use super::{Control, Error, Remote};
use crate::report::StageLog;

/// Runs `work` on a blocking thread and waits until it has ended, whatever happens: what it holds (a
/// temporary directory, a connection) is gone when this returns. Where the future is dropped instead, the work
/// is told to stop and cleans up by itself.
pub(super) async fn run<T: Send + 'static>(
    remote: &Remote,
    control: &Control,
    log: &StageLog,
    work: impl FnOnce(&Arc<Wire>) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    control.check()?;
    super::initialize().map_err(|error| Error::Internal {
        what: "setting up",
        class: 0,
        code: error.code,
    })?;
    let control = Control { cancel: control.cancel.child_token(), ..control.clone() };
    let cut = Arc::<Cut>::default();
    let _stop = StopOnDrop { control: control.clone(), cut: Arc::clone(&cut) };
    let wire = Wire::new(remote, &control, log, &cut);
    let mut running = tokio::task::spawn_blocking(move || {
        let _entered = wire.enter();
        let done = work(&wire);
        let failure = wire.take_failure();
        done.map_err(|error| failure.unwrap_or(error))
    });
    let joined = tokio::select! {
        biased;
        joined = &mut running => joined,
        () = must_stop(&control) => {
            // Waiting in libssh2 ends with the connection; everything else looks at the control.
            cut.cut();
            running.await
        }
    };
    joined.unwrap_or(Err(Error::Internal { what: "a panic", class: 0, code: 0 }))
}

/// Runs work on files alone, which nothing stops, on a blocking thread.
pub(super) async fn files<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.unwrap_or(Err(Error::Internal { what: "a panic", class: 0, code: 0 }))
}

async fn must_stop(control: &Control) {
    tokio::select! {
        () = control.cancel.cancelled() => {}
        () = tokio::time::sleep_until(control.deadline) => {}
    }
}

struct StopOnDrop {
    control: Control,
    cut: Arc<Cut>,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.control.cancel.cancel();
        self.cut.cut();
    }
}
