//! The `sortie` program: parses its arguments, runs the subcommand and exits with its status.

use std::process::ExitCode;

use clap::Parser as _;
use sortie::cli::{Cli, Exit};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A panic that reaches this place is a bug of ours, and has its own exit status.
    std::panic::catch_unwind(|| sortie::cli::execute(cli)).unwrap_or(Exit::Bug).into()
}
