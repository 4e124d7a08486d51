//! The way of the client commands to a control plane.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use sortie_protocol::identity::Problem;
use tokio::time::{Instant, sleep};

use super::{Failure, note};
use crate::tls_client;

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an answer may be silent; longer than the longest wait of the server.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// How long to wait before the first repetition of a request; each further one waits twice as long.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest wait between two repetitions.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The longest file that is read, in bytes, which is the server's limit for a body too.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Where the control plane is, and who asks.
#[derive(Debug, clap::Args)]
pub(super) struct Access {
    /// The base URL of the control plane.
    #[arg(long, value_name = "URL", env = "SORTIE_CONTROL_URL")]
    url: Url,
    /// A file with a token whose role allows it.
    #[arg(long, value_name = "FILE", env = "SORTIE_CONTROL_TOKEN_FILE")]
    token_file: PathBuf,
    /// Certificates to trust beside those of the platform, in PEM.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// The way to one control plane.
pub(super) struct ControlPlane {
    client: Client,
    base: String,
    authorization: HeaderValue,
}

impl Access {
    pub(super) async fn connect(&self) -> Result<ControlPlane, Failure> {
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
        let tls = tls_client::config(self.ca_file.as_deref())
            .map_err(|error| Failure::Configuration(format!("--ca-file {error}")))?;
        let client = builder
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(concat!("sortie-control/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Failure::failed)?;
        let base = self.url.as_str().trim_end_matches('/').to_owned();
        Ok(ControlPlane { client, base, authorization })
    }
}

impl ControlPlane {
    /// A request to a path below the base URL, with the token.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        request.header(AUTHORIZATION, self.authorization.clone())
    }
}

/// Repeats a request while nobody answers it, until the outage has lasted too long.
pub(super) async fn persist<T, F>(patience: Duration, mut request: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, CallError>>,
{
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match request().await {
            Ok(answer) => return Ok(answer),
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

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) enum CallError {
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

pub(super) async fn read(path: &Path, flag: &str) -> Result<Vec<u8>, Failure> {
    use tokio::io::AsyncReadExt;
    let failed = |error| Failure::Configuration(format!("{flag} {}: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).await.map_err(failed)?;
    Ok(bytes)
}

pub(super) fn not_reached(error: reqwest::Error) -> CallError {
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

/// The document in an answer.
pub(super) async fn document<T: DeserializeOwned>(response: Response) -> Result<T, CallError> {
    let response = checked(response).await?;
    let body = response.bytes().await.map_err(not_reached)?;
    serde_json::from_slice(&body).map_err(|_| {
        CallError::Refused(
            "the answer is not what it should be; is this the URL of a control plane?".to_owned(),
        )
    })
}

/// The answer, where it is a good one.
pub(super) async fn checked(response: Response) -> Result<Response, CallError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.map_err(not_reached)?;
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
