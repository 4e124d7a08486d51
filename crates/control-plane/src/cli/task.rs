//! `sortie-control task submit`: a client of the REST interface.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use sortie_protocol::identity::Problem;
use sortie_protocol::task::TaskSpec;
use tokio::time::{Instant, sleep};

use super::{Failure, note, print};
use crate::identity::new_id;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one request may take; longer than the longest wait of the server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);

/// How much longer than its own times a task may take before its control plane is given up: for the way to an
/// agent and back, and for a restart.
const OUTAGE_MARGIN: Duration = Duration::from_secs(120);

/// How long to wait before the first repetition of a request; each further one waits twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest wait between two repetitions.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The longest task file, in bytes, which is the server's limit too.
const MAX_TASK_BYTES: u64 = 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Submit a task and print it as JSON.
    #[command(after_help = "\
Example:
  sortie-control task submit --file task.json --wait --url https://sortie.example.com --token-file ci.token

With --wait the exit status is 1 where the outcome is not `succeeded`. A control plane that restarts
meanwhile is waited for, as long as the task may queue and run.")]
    Submit(Submit),
}

#[derive(Debug, clap::Args)]
pub(super) struct Submit {
    /// The task, a JSON file.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Wait until the task is completed.
    #[arg(long)]
    wait: bool,
    /// The base URL of the control plane.
    #[arg(long, value_name = "URL", env = "SORTIE_CONTROL_URL")]
    url: Url,
    /// A file with a token whose role is dispatcher or admin.
    #[arg(long, value_name = "FILE", env = "SORTIE_CONTROL_TOKEN_FILE")]
    token_file: PathBuf,
    /// Certificates to trust beside those of the platform, in PEM.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl TaskCommand {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Submit(submit) => submit.run().await,
        }
    }
}

/// The way to one control plane.
struct ControlPlane {
    client: Client,
    tasks: String,
    authorization: HeaderValue,
}

impl Submit {
    async fn run(self) -> Result<(), Failure> {
        let body = read(&self.file, "--file").await?;
        let control_plane = self.connect().await?;
        // A key of its own lets the request be repeated without making two tasks.
        let key = new_id("submit").map_err(Failure::failed)?;
        let patience = if self.wait { patience(&body) } else { Duration::ZERO };
        let mut task = persist(patience, || control_plane.post(body.clone(), &key)).await?;
        let id = task["id"].as_str().unwrap_or_default().to_owned();
        while self.wait && task["state"] != "completed" {
            task = persist(patience, || control_plane.wait(&id)).await.map_err(|failure| match failure {
                Failure::Failed(message) => {
                    Failure::Failed(format!("{message}; the task is {id} and may go on"))
                }
                other => other,
            })?;
        }
        print(&serde_json::to_string_pretty(&task).map_err(Failure::failed)?);
        match task["outcome"].as_str() {
            Some("succeeded") => Ok(()),
            Some(outcome) if self.wait => Err(Failure::Failed(format!("the outcome is {outcome}"))),
            _ => Ok(()),
        }
    }

    async fn connect(&self) -> Result<ControlPlane, Failure> {
        check_url(&self.url)?;
        let token = read(&self.token_file, "--token-file").await?;
        let token = String::from_utf8(token).unwrap_or_default();
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| Failure::Configuration("--token-file: this is no token".to_owned()))?;
        authorization.set_sensitive(true);
        let mut builder = Client::builder();
        if self.url.scheme() == "http" {
            // Plain HTTP goes to this host alone, and a proxy that the environment names is another one.
            builder = builder.no_proxy();
        }
        let client = builder
            .tls_backend_preconfigured(self.tls()?)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .user_agent(concat!("sortie-control/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Failure::failed)?;
        let tasks = format!("{}/api/v1/tasks", self.url.as_str().trim_end_matches('/'));
        Ok(ControlPlane { client, tasks, authorization })
    }

    fn tls(&self) -> Result<rustls::ClientConfig, Failure> {
        let mut roots = rustls::RootCertStore::empty();
        // A root of the platform that cannot be read is one root less, and not the end.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &self.ca_file {
            let failed = |error| Failure::Configuration(format!("--ca-file {}: {error}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
                roots.add(certificate.map_err(failed)?).map_err(Failure::configuration)?;
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Failure::configuration)?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

/// How long an outage may last before the task is over in any case.
fn patience(body: &[u8]) -> Duration {
    // The control plane says what is wrong with a task that cannot be read here.
    let times = serde_json::from_slice::<TaskSpec>(body).ok();
    let seconds = times.map_or(0, |task| task.queue_seconds.saturating_add(task.run_seconds));
    OUTAGE_MARGIN.saturating_add(Duration::from_secs(seconds))
}

/// Repeats a request while nobody answers it, until the outage has lasted too long.
async fn persist<F>(patience: Duration, mut request: impl FnMut() -> F) -> Result<Value, Failure>
where
    F: Future<Output = Result<Value, CallError>>,
{
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match request().await {
            Ok(task) => return Ok(task),
            Err(CallError::Refused(message)) => return Err(Failure::Failed(message)),
            Err(CallError::Unavailable(message)) if begun.elapsed() + pause > patience => {
                return Err(Failure::Failed(message));
            }
            Err(CallError::Unavailable(message)) => {
                if pause == FIRST_PAUSE {
                    note(&format!("{message}; trying again"));
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Why a request brought no task.
#[derive(Debug)]
enum CallError {
    /// The answer is no, and stays so.
    Refused(String),
    /// Nobody answers just now.
    Unavailable(String),
}

/// A token goes over plain HTTP to this host alone.
fn check_url(url: &Url) -> Result<(), Failure> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback => Ok(()),
        _ => Err(Failure::Configuration(
            "--url: it is https://HOST; http:// is for a control plane on this host alone".to_owned(),
        )),
    }
}

async fn read(path: &Path, flag: &str) -> Result<Vec<u8>, Failure> {
    use tokio::io::AsyncReadExt;
    let failed = |error| Failure::Configuration(format!("{flag} {}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.take(MAX_TASK_BYTES).read_to_end(&mut bytes).await.map_err(failed)?;
    Ok(bytes)
}

impl ControlPlane {
    async fn post(&self, body: Vec<u8>, key: &str) -> Result<Value, CallError> {
        let request = self.client.post(&self.tasks).header(AUTHORIZATION, self.authorization.clone());
        let request = request.header(CONTENT_TYPE, "application/json").header("idempotency-key", key);
        document(request.body(body).send().await.map_err(not_reached)?).await
    }

    async fn wait(&self, id: &str) -> Result<Value, CallError> {
        let url = format!("{}/{id}?wait=60s", self.tasks);
        let request = self.client.get(url).header(AUTHORIZATION, self.authorization.clone());
        document(request.send().await.map_err(not_reached)?).await
    }
}

fn not_reached(error: reqwest::Error) -> CallError {
    // The chain names the cause, such as a refused connection or an unknown issuer.
    let mut message = format!("the control plane was not reached: {error}");
    let mut source = std::error::Error::source(&error);
    let mut is_untrusted = false;
    while let Some(error) = source {
        message.push_str(&format!(": {error}"));
        is_untrusted |= is_tls_error(error);
        source = error.source();
    }
    // A certificate does not become right by asking again.
    if is_untrusted || error.is_builder() {
        CallError::Refused(message)
    } else {
        CallError::Unavailable(message)
    }
}

fn is_tls_error(error: &(dyn std::error::Error + 'static)) -> bool {
    let within = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>() || within.is_some_and(|within| is_tls_error(within))
}

async fn document(response: Response) -> Result<Value, CallError> {
    let status = response.status();
    let body = response.bytes().await.map_err(not_reached)?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|_| {
            CallError::Refused("the answer is not a task; is this the URL of a control plane?".to_owned())
        });
    }
    let message = match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => {
            let detail = problem.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
            format!("{} ({}){detail}", problem.title, problem.code)
        }
        Err(_) => format!("the answer was {status}; is this the URL of a control plane?"),
    };
    let is_passing = matches!(
        status,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    );
    Err(if is_passing { CallError::Unavailable(message) } else { CallError::Refused(message) })
}
