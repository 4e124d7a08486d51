//! GitLab: the calls, and what their answers mean.
//!
//! The API knows tokens alone: a password and the tokens of deployments and jobs are for git only.

mod answers;
mod contents;
mod place;
mod project;
mod release;
mod token;

use percent_encoding::percent_decode_str;
use reqwest::header::{AUTHORIZATION, HeaderName};

use super::Provider;
use super::rest::Api;
use crate::credential::{Credential, Material, basic};
use crate::dial::HttpClient;
use crate::secret::Secret;

pub use answers::{reason, request_id, shows_marks};
pub use contents::{blob, directory};
pub(super) use place::root_of;
pub use place::{Place, is_cloud_host};
pub use project::{Found, Project, account, first_repository, project};
pub use release::{Release, release};
pub use token::{
    RateLimit, TokenFacts, TokenKind, authenticate, days_left, git_only_kind, is_oauth, oauth, user,
};

/// Any of these scopes lets a token clone.
pub const SCOPES_GIT: [&str; 3] = ["read_repository", "write_repository", "api"];

/// Any of these scopes lets a token read projects and groups by the API.
pub const SCOPES_READ: [&str; 2] = ["read_api", "api"];

/// The scope that lets a token set statuses and manage hooks, where its user may.
pub const SCOPE_WRITE: &str = "api";

/// The least access level that may set the status of a commit: a developer's.
pub const LEVEL_FOR_STATUS: u64 = 30;

/// The least access level that may manage hooks: a maintainer's.
pub const LEVEL_FOR_HOOKS: u64 = 40;

/// Any of these scopes lets a token ask who it belongs to and which release the server is.
const SCOPES_USER: [&str; 3] = ["read_user", "read_api", "api"];

/// The user name that git wants beside an OAuth token.
const OAUTH_USER: &str = "oauth2";

const PRIVATE_TOKEN: HeaderName = HeaderName::from_static("private-token");

/// The API with a credential, where GitLab's API takes such a one.
pub fn api(client: &HttpClient, credential: &Credential) -> Option<Api> {
    let (header, value) = match &credential.material {
        Material::Pat(_) if git_only_kind(credential).is_some() => return None,
        Material::Pat(token) => (PRIVATE_TOKEN, token.clone()),
        Material::Bearer(token) => (AUTHORIZATION, Secret::new(format!("Bearer {}", token.expose()))),
        Material::Password(_) | Material::SshKey { .. } => return None,
    };
    Some(Api::with_credential(client.clone(), header, value))
}

/// The `Authorization` header for git; `None` for an SSH key.
pub fn git_authorization(credential: &Credential) -> Option<Secret> {
    match &credential.material {
        // Git on GitLab takes OAuth tokens by Basic alone.
        Material::Bearer(token) => Some(basic(OAUTH_USER, token)),
        _ if git_only_kind(credential) == Some(TokenKind::Job) => {
            credential.git_authorization(token::JOB_USER)
        }
        _ => credential.git_authorization(Provider::Gitlab.token_user()),
    }
}

/// Who is welcomed by GitLab's SSH: it says `Welcome to GitLab, @user!`.
pub fn welcomed(greeting: &str) -> Option<String> {
    let (_, after) = greeting.split_once("Welcome to GitLab, @")?;
    let (user, _) = after.split_once('!')?;
    (!user.is_empty()).then(|| user.to_owned())
}

/// Whether scopes contain one of those that will do; scopes that are not known might.
pub fn allows(scopes: Option<&[String]>, any_of: &[&str]) -> bool {
    scopes.is_none_or(|scopes| scopes.iter().any(|scope| any_of.contains(&scope.as_str())))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn git_gets_every_token_with_the_user_that_it_wants() {
        let sent = |username: Option<&str>, material: fn(Secret) -> Material, secret: &str| {
            let material = material(Secret::new(secret.to_owned()));
            let username = username.map(str::to_owned);
            let header = git_authorization(&Credential { name: "c".into(), username, material }).unwrap();
            header.expose().to_owned()
        };
        let expected =
            |user: &str, secret: &str| basic(user, &Secret::new(secret.to_owned())).expose().to_owned();
        assert_eq!(sent(None, Material::Bearer, "t"), expected("oauth2", "t"));
        assert_eq!(sent(None, Material::Pat, "x"), expected("git", "x"));
        assert_eq!(sent(None, Material::Pat, "glcbt-x"), expected("gitlab-ci-token", "glcbt-x"));
        let deploy = "gitlab+deploy-token-7";
        assert_eq!(sent(Some(deploy), Material::Pat, "gldt-x"), expected(deploy, "gldt-x"));
    }
}
