//! The program's arguments, one file for each subcommand.

mod artifact;
mod client;
mod serve;
mod task;
mod token;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use futures_util::FutureExt;

/// Exit statuses, after `sysexits.h` where it has one.
mod status {
    /// The task failed, or the control plane said no.
    pub(super) const FAILED: u8 = 1;
    /// A bug of this program's.
    pub(super) const BUG: u8 = 70;
    /// Something outside of the program is to be set right first.
    pub(super) const CONFIGURATION: u8 = 78;
}

/// The control plane of Sortie.
#[derive(Debug, Parser)]
#[command(name = "sortie-control", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  sortie-control token create --name ops --role admin --database sqlite:control.db > ops.token
  sortie-control serve --listen 127.0.0.1:7800 --database sqlite:control.db
  sortie-control task submit --file task.json --wait --url http://127.0.0.1:7800 --token-file ops.token
  sortie-control artifact get ID --output web.tar.zst --url http://127.0.0.1:7800 --token-file ops.token

Exit status: 0 done; 1 failed; 2 wrong usage; 70 a bug; 78 wrong configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve clients and agents.
    Serve(serve::Serve),
    /// Make, list and revoke the tokens of clients.
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Submit tasks.
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// List and download what agents delivered.
    #[command(subcommand)]
    Artifact(artifact::ArtifactCommand),
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// It was not done. The text says why.
    Failed(String),
    /// It could not begin. The text says the cause and what to do.
    Configuration(String),
}

impl Failure {
    fn configuration(error: impl std::fmt::Display) -> Self {
        Self::Configuration(error.to_string())
    }

    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Runs a command to its exit status. A panic is a bug and has a status of its own.
pub async fn run(arguments: Arguments) -> ExitCode {
    let command = async {
        match arguments.command {
            Command::Serve(serve) => serve.run().await,
            Command::Token(token) => token.run().await,
            Command::Task(task) => task.run().await,
            Command::Artifact(artifact) => artifact.run().await,
        }
    };
    match AssertUnwindSafe(Box::pin(command)).catch_unwind().await {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(Failure::Failed(message))) => fail(&message, status::FAILED),
        Ok(Err(Failure::Configuration(message))) => fail(&message, status::CONFIGURATION),
        Err(_) => fail("this is a bug; please report it with the lines above", status::BUG),
    }
}

fn fail(message: &str, status: u8) -> ExitCode {
    note(message);
    ExitCode::from(status)
}

/// Tells people something that is not the answer.
#[allow(clippy::print_stderr, reason = "this is where the program speaks to people")]
fn note(message: &str) {
    eprintln!("sortie-control: {message}");
}

/// Prints what a command answers.
#[allow(clippy::print_stdout, reason = "standard output is the answer's place")]
fn print(text: &str) {
    println!("{text}");
}

/// The database, for those commands that open it.
#[derive(Debug, clap::Args)]
struct Database {
    /// The database, as sqlite:PATH.
    #[arg(long = "database", value_name = "URL", env = "SORTIE_DATABASE_URL", hide_env_values = true)]
    url: String,
}

impl Database {
    async fn open(&self) -> Result<crate::store::Store, Failure> {
        crate::store::Store::open(&self.url)
            .await
            .map_err(|error| Failure::Configuration(format!("--database: {error}")))
    }
}
