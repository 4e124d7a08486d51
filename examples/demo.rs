//! The whole of Sortie on one machine: `make demo`, or `cargo run --release --example demo`.
//!
//! Starts a control plane, two agents with different tags, servers that behave like Azure DevOps Server and GitLab,
//! and OpenSSH's sshd; submits tasks through the REST interface and compares what became of each with what is
//! expected. Then everything stays up to be looked at until Ctrl-C. With `ONCE=1` in the environment it ends
//! instead, with the status 1 when any task came out in another way than expected.
//!
//! In reading order: `scenes` (the tasks and what is expected of them), `stage` (what is started), `play` (what
//! became of each task), `screen` (how it is shown).

// It talks to whoever started it, and like the rigs it may panic with what to do about it.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used)]

use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

#[path = "demo/play.rs"]
mod play;
#[path = "demo/scenes.rs"]
mod scenes;
#[path = "demo/screen.rs"]
mod screen;
#[path = "demo/stage.rs"]
mod stage;
#[path = "../tests/support/mod.rs"]
mod support;

use stage::Stage;

/// The exit status after Ctrl-C.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    // The rigs' panics are messages to a person, who has no use for the place in the source.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("\ndemo: {}", panic.payload_as_str().unwrap_or("something went wrong"));
    }));
    let only_once = std::env::var_os("ONCE").is_some_and(|value| !value.is_empty() && value != "0");
    let scratch = tempfile::Builder::new().prefix("sortie-demo-").tempdir().expect("a private directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // Everything that the rigs make lies in this one directory, so that it can be removed at any time.
    let _ = tempfile::env::override_temp_dir(scratch.path());
    let (done, mut ended) = oneshot::channel::<()>();
    let directory = scratch.path().to_owned();
    let story = std::thread::spawn(move || {
        let _done = done;
        tell(&directory)
    });
    let was_interrupted = runtime.block_on(async {
        tokio::select! {
            // The channel never carries anything: it closes when the thread ends, in whatever way.
            _ = &mut ended => false,
            () = interrupted() => true,
        }
    });
    if was_interrupted {
        // Returning from here ends this process in the middle of whatever the thread is starting, and with this
        // process ends all that it started.
        let _ = scratch.close();
        return ExitCode::from(INTERRUPTED);
    }
    let Ok((stage, all_as_expected)) = story.join() else { return ExitCode::FAILURE };
    if !only_once {
        stage.show_around();
        runtime.block_on(interrupted());
        println!("\nStopping everything.");
    }
    drop(stage);
    if all_as_expected { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Starts everything and plays all scenes; says whether each went as expected.
fn tell(scratch: &Path) -> (Stage, bool) {
    let stage = Stage::start(scratch);
    let all_as_expected = play::all(&stage.control_plane, &scenes::scenes(&stage.places));
    (stage, all_as_expected)
}

/// Resolves at Ctrl-C or SIGTERM.
async fn interrupted() {
    let mut terminate = signal(SignalKind::terminate()).expect("a handler of SIGTERM");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
