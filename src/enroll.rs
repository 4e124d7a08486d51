//! Trading an enrollment token for a registered key, and giving the registration back.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use sortie_protocol::identity::{
    EnrollRequest, EnrollResponse, Problem, UnenrollRequest, enroll_payload, unenroll_payload,
};
use sortie_protocol::message::Challenge;
use sortie_protocol::{CHALLENGE_PATH, ENROLL_PATH, UNENROLL_PATH};

use crate::dial::{Destination, DialError, Door, HttpError, read_limited};
use crate::identity::{AgentKey, Identity};
use crate::remote_url::RemoteUrl;
use crate::secret::Secret;
use crate::session::Profile;

/// The largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Why enrollment did not come about.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The control plane cannot be reached.
    #[error("the control plane cannot be reached: {0}")]
    Dial(#[from] DialError),
    /// The request broke off.
    #[error("the request to the control plane failed: {0}")]
    Http(#[from] HttpError),
    /// The control plane says no.
    #[error("the control plane refused: {message} ({code}, status {status})")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// Its code.
        code: String,
        /// Its words.
        message: String,
    },
    /// What answered is no control plane.
    #[error("what answers at this URL is no control plane (status {status})")]
    NotAControlPlane {
        /// The status of its answer.
        status: u16,
    },
}

/// Registers a key. Repeating it with the same token and key is the same agent.
///
/// # Errors
/// See [`EnrollError`].
pub async fn enroll(
    door: &Door,
    destination: &Destination,
    base: &RemoteUrl,
    token: &Secret,
    key: &AgentKey,
    profile: &Profile,
) -> Result<EnrollResponse, EnrollError> {
    let (origin, public_key) = (base.to_string(), key.public_key());
    let signature = key.sign(&enroll_payload(&origin, token.expose(), &public_key));
    let request = EnrollRequest {
        token: token.expose().to_owned(),
        public_key,
        origin,
        signature,
        name: profile.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: std::env::consts::OS.to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        tags: profile.tags.clone(),
    };
    let body = serde_json::to_vec(&request).unwrap_or_default();
    let (status, answer) = post(door, destination, base, ENROLL_PATH, body).await?;
    parse(status, &answer)
}

/// Gives a registration back: afterwards the control plane does not know this key any more.
///
/// # Errors
/// See [`EnrollError`].
pub async fn unenroll(
    door: &Door,
    destination: &Destination,
    base: &RemoteUrl,
    identity: &Identity,
) -> Result<(), EnrollError> {
    let (status, answer) = post(door, destination, base, CHALLENGE_PATH, Vec::new()).await?;
    let challenge: Challenge = parse(status, &answer)?;
    let origin = identity.control_plane.clone();
    let payload = unenroll_payload(&origin, &challenge.session, &challenge.nonce, &identity.agent_id);
    let request = UnenrollRequest {
        agent_id: identity.agent_id.clone(),
        origin,
        session: challenge.session,
        signature: identity.key.sign(&payload),
    };
    let body = serde_json::to_vec(&request).unwrap_or_default();
    match post(door, destination, base, UNENROLL_PATH, body).await? {
        (204, _) => Ok(()),
        (status, answer) => Err(refusal(status, &answer)),
    }
}

async fn post(
    door: &Door,
    destination: &Destination,
    base: &RemoteUrl,
    path: &str,
    body: Vec<u8>,
) -> Result<(u16, Vec<u8>), EnrollError> {
    let client = door.client(destination).await?;
    let request = client.request(Method::POST, &format!("{}{path}", base.path()));
    let response = client.send(request.header(CONTENT_TYPE, "application/json").body(body)).await?;
    let status = response.status().as_u16();
    Ok((status, read_limited(response, MAX_ANSWER_BYTES).await?))
}

fn parse<T: DeserializeOwned>(status: u16, answer: &[u8]) -> Result<T, EnrollError> {
    if !(200..300).contains(&status) {
        return Err(refusal(status, answer));
    }
    serde_json::from_slice(answer).map_err(|_| EnrollError::NotAControlPlane { status })
}

fn refusal(status: u16, answer: &[u8]) -> EnrollError {
    match serde_json::from_slice::<Problem>(answer) {
        Ok(problem) => EnrollError::Refused {
            status,
            message: printable(&problem.detail.unwrap_or(problem.title)),
            code: printable(&problem.code),
        },
        Err(_) => EnrollError::NotAControlPlane { status },
    }
}

/// What came over the network is shown without control characters and not at any length.
fn printable(text: &str) -> String {
    const MAX_CHARS: usize = 300;
    text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
}
