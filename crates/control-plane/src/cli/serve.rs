//! `sortie-control serve`.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{Database, Failure};
use crate::server::{self, Settings, TlsFiles};
use crate::settings::{Limits, Times};
use crate::telemetry::{self, LogFormat, LogLevel};

const SECONDS_OF_HOUR: u64 = 3600;

const EXAMPLES: &str = "\
Examples:
  sortie-control serve --listen 127.0.0.1:7800 --database sqlite:control.db
  sortie-control serve --listen 0.0.0.0:443 --tls-cert cert.pem --tls-key key.pem --database sqlite:control.db
  sortie-control serve --listen 10.0.0.5:7800 --behind-proxy --public-url https://sortie.example.com \\
      --database sqlite:control.db
  AWS_REGION=eu-central-1 sortie-control serve --database sqlite:control.db --artifacts s3://builds/sortie

For S3 the usual variables hold: AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
AWS_ENDPOINT_URL (another server than Amazon's), AWS_ALLOW_HTTP (true, where that has no TLS).";

/// Serve clients and agents until SIGTERM or SIGINT.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    /// Where to listen. Without TLS that is loopback only, unless a proxy is in front.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7800")]
    listen: String,
    #[command(flatten)]
    database: Database,
    /// The certificate with its chain, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// A proxy in front does TLS and tells about its clients in X-Forwarded-For.
    #[arg(long)]
    behind_proxy: bool,
    /// A base URL by which agents may reach this control plane; may be given several times.
    #[arg(long = "public-url", value_name = "URL")]
    public_urls: Vec<String>,
    /// Where artifacts lie, as file:PATH or s3://BUCKET[/PREFIX] [default: `artifacts` beside the database]
    #[arg(long, value_name = "URL", env = "SORTIE_ARTIFACTS_URL", hide_env_values = true)]
    artifacts: Option<String>,
    /// How long an artifact is kept, in hours.
    #[arg(long, value_name = "HOURS", default_value = "168", value_parser = clap::value_parser!(u64).range(1..=87_600))]
    artifact_hours: u64,
    /// How many bytes one artifact may have.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().artifact_bytes)]
    artifact_bytes: u64,
    /// How many bytes all artifacts may have together.
    #[arg(long, value_name = "BYTES", default_value_t = Limits::default().artifacts_total_bytes)]
    artifacts_total_bytes: u64,
    /// How long a task is kept after it was posted, once it is completed, in days; 0 for ever.
    #[arg(long, value_name = "DAYS", default_value = "30", value_parser = clap::value_parser!(u64).range(0..=36_500))]
    task_days: u64,
    /// The form of the log on standard error.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// How much is logged.
    #[arg(long, value_enum, default_value = "info")]
    log_level: LogLevel,
}

impl Serve {
    pub(super) async fn run(self) -> Result<(), Failure> {
        telemetry::init(self.log_format, self.log_level).map_err(Failure::failed)?;
        // The handlers stand before anything is announced, so that no signal is missed.
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
        let tls = self.tls_cert.zip(self.tls_key).map(|(certificate, key)| TlsFiles { certificate, key });
        let settings = Settings {
            listen: self.listen,
            tls,
            behind_proxy: self.behind_proxy,
            public_urls: self.public_urls,
            artifacts: self.artifacts,
            times: Times {
                artifact_life: Duration::from_secs(self.artifact_hours * SECONDS_OF_HOUR),
                task_life: Duration::from_secs(self.task_days * 24 * SECONDS_OF_HOUR),
                ..Times::default()
            },
            limits: Limits {
                artifact_bytes: self.artifact_bytes,
                artifacts_total_bytes: self.artifacts_total_bytes,
                ..Limits::default()
            },
        };
        let prepared = server::prepare(settings).await.map_err(Failure::configuration)?;
        let store = self.database.open().await?;
        let running = prepared.start(store).map_err(Failure::configuration)?;
        // Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        tokio::select! {
            () = running.stop() => {}
            _ = terminate.recv() => tracing::warn!("SIGTERM again: stopping at once"),
            _ = interrupt.recv() => tracing::warn!("SIGINT again: stopping at once"),
        }
        Ok(())
    }
}
