//! `sortie-control`: parses its arguments, makes the runtime, and says how it ended.

use std::process::ExitCode;

use clap::Parser;
use sortie_control::cli::{self, Arguments};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli::run(arguments)),
        // Without threads nothing can be said but that.
        Err(_) => ExitCode::from(78),
    }
}
