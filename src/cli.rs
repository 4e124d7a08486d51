//! The command line: one file for each subcommand.

mod access;
mod clone;
mod config;
mod doctor;
mod enroll;
mod explain;
mod markdown;
mod mirrors;
mod progress;
mod run;
mod screen;
mod status;
mod table;
mod test;
mod work;
mod workspaces;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError};

/// How many threads drive the network. The work is waiting, mostly.
const WORKER_THREADS: usize = 2;

/// How many blocking threads there may be at once: git, SSH, lookups, files.
const MAX_BLOCKING_THREADS: usize = 512;

/// The stack of a thread, in bytes. libgit2 and zlib need little, and an idle daemon shall stay small.
const THREAD_STACK_BYTES: usize = 1024 * 1024;

/// Runs connection tests and clones inside this network for a control plane outside of it.
#[derive(Debug, Parser)]
#[command(
    name = "sortie",
    version,
    about,
    propagate_version = true,
    after_help = "\
Examples:
  sortie test https://ado.corp.example/DefaultCollection/Shop/_git/web --provider azure-devops --pat-file pat.txt
  sortie enroll --control-plane https://sortie.example.com --token-file token.txt
  sortie run"
)]
pub struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Args)]
struct Common {
    /// The configuration; may be repeated, later files over earlier ones [default: $SORTIE_CONFIG, or else
    /// /etc/sortie/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Print one JSON object on standard output, and nothing else there
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run(run::RunArgs),
    /// Trade an enrollment token for this agent's own key
    Enroll(enroll::EnrollArgs),
    /// Give this agent's registration back and forget its key
    Unenroll(enroll::UnenrollArgs),
    /// Test a connection from this host, without a control plane
    Test(test::TestArgs),
    /// Clone a repository through the same code as a task does
    Clone(clone::CloneArgs),
    /// Judge or show the configuration
    Config(config::ConfigArgs),
    /// Say what a code of a report means, how it is measured, and how to fix it
    Explain(explain::ExplainArgs),
    /// Check configuration, files, clock, control plane, every declared server, and this host
    Doctor(doctor::DoctorArgs),
    /// Say what the running daemon is doing
    Status(status::StatusArgs),
    /// List or remove what was fetched before
    Mirrors(mirrors::MirrorsArgs),
    /// List or remove the clones that tasks left on this host
    Workspaces(workspaces::WorkspacesArgs),
}

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The test or the clone failed or was refused.
    Failed,
    /// Wrong usage.
    Usage,
    /// No daemon was found.
    NoDaemon,
    /// A bug of ours.
    Bug,
    /// The configuration is wrong.
    Configuration,
    /// Cancelled by Ctrl-C, and cleaned up.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NoDaemon => 3,
            Exit::Bug => 70,
            Exit::Configuration => 78,
            Exit::Interrupted => 130,
        })
    }
}

/// Runs the subcommand.
pub fn execute(cli: Cli) -> Exit {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_stack_size(THREAD_STACK_BYTES)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(Exit::Bug, &format!("no threads can be started: {error}")),
    };
    let common = cli.common;
    let exit = match cli.command {
        Command::Run(args) => runtime.block_on(run::execute(&common, args)),
        Command::Enroll(args) => runtime.block_on(enroll::execute(&common, args)),
        Command::Unenroll(args) => runtime.block_on(enroll::unenroll(&common, args)),
        Command::Test(args) => runtime.block_on(test::execute(&common, args)),
        Command::Clone(args) => runtime.block_on(clone::execute(&common, args)),
        Command::Config(args) => config::execute(&common, &args),
        Command::Explain(args) => explain::execute(&common, &args),
        Command::Doctor(args) => runtime.block_on(doctor::execute(&common, args)),
        Command::Mirrors(args) => mirrors::execute(&common, &args),
        Command::Workspaces(args) => workspaces::execute(&common, &args),
        Command::Status(args) => runtime.block_on(status::execute(&common, args)),
    };
    runtime.shutdown_background();
    exit
}

/// Reads the configuration that the arguments and the environment name.
fn load_config(common: &Common) -> Result<Config, ConfigError> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Config::load(&config_files(common), &variables.collect())
}

/// The files that the arguments or the environment name.
fn config_files(common: &Common) -> Vec<PathBuf> {
    let by_variable = std::env::var_os("SORTIE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    crate::config::files(&common.config, by_variable)
}

/// Says on standard error what went wrong, and gives the status back.
fn complain(exit: Exit, message: &str) -> Exit {
    let _ = writeln!(std::io::stderr(), "sortie: {message}");
    exit
}

/// Prints the answer of a command. A reader that is gone is no error of ours.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints an answer as one JSON object.
fn print_json(value: &impl serde::Serialize) {
    print(&format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default()));
}

/// Refuses a usage that clap's own rules cannot express, in clap's own form and with its status.
fn usage(message: &str) -> ! {
    use clap::CommandFactory as _;
    Cli::command().error(clap::error::ErrorKind::ArgumentConflict, message).exit()
}
