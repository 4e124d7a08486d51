//! What the credential may do beside reading, found by asking and never by doing.
//!
//! The server evaluates permissions of whoever asks (`GET _apis/permissions/{namespace}/{bits}?tokens=…`, Microsoft's
//! "Permissions - Has Permissions"). No scope of a token opens that call, so that only a password or a token with
//! full access gets an answer: for one with chosen scopes nothing is known, because its scopes cannot be read and
//! trying them would leave traces. What the user may not do, no token of theirs can.

use serde_json::Value;

use super::Place;
use crate::provider::rest::Api;

/// The namespace of the permissions on git repositories.
///
/// This namespace, the next one and their bits are from Microsoft's "Security namespace and permission reference".
const GIT_REPOSITORIES: &str = "2e9eb7ed-3c0a-47d4-87c1-0ffdd275fd87";

/// `GenericContribute`, which setting the status of a commit demands.
const GENERIC_CONTRIBUTE: u32 = 4;

/// The namespace of the permissions on service hooks.
const SERVICE_HOOKS: &str = "cb594ebe-87dd-4fc9-ac2c-6a10a4c92046";

/// `ViewSubscriptions`, `EditSubscriptions` and `DeleteSubscriptions`.
const MANAGE_SUBSCRIPTIONS: u32 = 1 + 2 + 4;

/// The identifiers of a repository and its project, which the tokens of permissions are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifiers {
    /// The project's.
    pub project: String,
    /// The repository's.
    pub repository: String,
}

/// What the server says of the user's permissions; `None` where it does not answer the question.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permissions {
    /// Whether the user may set the status of a commit.
    pub set_status: Option<bool>,
    /// Whether the user may manage the project's service hooks.
    pub manage_hooks: Option<bool>,
}

/// Asks what the user may do. Nothing that goes wrong with the question is anything but an unknown answer.
pub async fn permissions(api: &Api, place: &Place, version: Option<&str>, of: &Identifiers) -> Permissions {
    let repository = format!("repoV2/{}/{}", of.project, of.repository);
    let hooks = format!("PublisherSecurity/{}", of.project);
    let (set_status, manage_hooks) = tokio::join!(
        evaluate(api, place, version, GIT_REPOSITORIES, GENERIC_CONTRIBUTE, &repository),
        evaluate(api, place, version, SERVICE_HOOKS, MANAGE_SUBSCRIPTIONS, &hooks),
    );
    Permissions { set_status, manage_hooks }
}

async fn evaluate(
    api: &Api,
    place: &Place,
    version: Option<&str>,
    namespace: &str,
    bits: u32,
    token: &str,
) -> Option<bool> {
    let version = version.map(|version| format!("&api-version={version}")).unwrap_or_default();
    let call = format!("permissions/{namespace}/{bits}?tokens={}{version}", Place::encoded(token));
    let answer = api.get(&place.api(&call)).await.ok()?;
    if answer.status != 200 {
        return None;
    }
    answer.json()?.get("value")?.as_array()?.first().and_then(Value::as_bool)
}
