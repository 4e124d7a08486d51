//! The program: serves a world from a TOML file until it is told to stop.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;
use stand_ins::{Authority, Running, StandIns, World};
use tokio::signal::unix::{SignalKind, signal};

/// Serves stand-ins for Azure DevOps Server and GitLab on loopback, for tests and demonstrations.
#[derive(Parser)]
#[command(version, after_help = "Example:\n  stand-ins --config world.toml --azure-listen 127.0.0.1:8443")]
struct Arguments {
    /// The TOML file that says which users, tokens and repositories there are.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the Azure DevOps Server listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    azure_listen: SocketAddr,
    /// Where the GitLab listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    gitlab_listen: SocketAddr,
    /// The directory for the certificate authority's `ca.pem`; by default a temporary one.
    #[arg(long, value_name = "DIR")]
    authority_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match serve(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the stand-ins stopped");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let world = World::load(&arguments.config)?;
    let temporary = tempfile::tempdir()?;
    let directory = arguments.authority_dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&directory)?;
    let authority = Authority::create(&directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The signals are caught before anybody can know that the servers run.
    let stopped = runtime.block_on(async { stop_signals() })?;
    let running = StandIns::start_on(world, &authority, arguments.azure_listen, arguments.gitlab_listen)?;
    announce(&running, &authority)?;
    runtime.block_on(stopped);
    Ok(())
}

/// Writes one line of JSON for each server, for a program that started this one.
fn announce(running: &Running, authority: &Authority) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    for (provider, server) in [("azure-devops", &running.azure), ("gitlab", &running.gitlab)] {
        if let Some(server) = server {
            let line = json!({"provider": provider, "url": server.url(), "ca_file": authority.ca_file()});
            writeln!(output, "{line}")?;
        }
    }
    output.flush()
}

fn stop_signals() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
