//! GitLab: the calls, and what their answers mean.
//!
//! The API knows tokens alone: a password and a deploy token are for git only.

mod answers;
mod place;

use percent_encoding::percent_decode_str;
use reqwest::header::{AUTHORIZATION, HeaderName};
use serde_json::Value;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::rest::{Answer, Api, name, text, texts};
use super::{Denied, Provider, ProviderError};
use crate::credential::{Credential, Material, basic};
use crate::dial::{HttpClient, HttpError};
use crate::secret::Secret;

use answers::judge;
pub use answers::shows_marks;
pub(super) use place::root_of;
pub use place::{Place, is_cloud_host};

/// Any of these scopes lets a token clone.
pub const SCOPES_GIT: [&str; 3] = ["read_repository", "write_repository", "api"];

/// Any of these scopes lets a token read projects and groups by the API.
pub const SCOPES_READ: [&str; 2] = ["read_api", "api"];

/// Any of these scopes lets a token ask who it belongs to and which release the server is.
const SCOPES_USER: [&str; 3] = ["read_user", "read_api", "api"];

/// The oldest major release that is supported.
const OLDEST_SUPPORTED_MAJOR: u32 = 14;

/// The user name that marks a deploy token, and the prefix of newer ones.
const DEPLOY_USER_PREFIX: &str = "gitlab+deploy-token-";
const DEPLOY_TOKEN_PREFIX: &str = "gldt-";

/// The user name that git wants beside an OAuth token.
const OAUTH_USER: &str = "oauth2";

const PRIVATE_TOKEN: HeaderName = HeaderName::from_static("private-token");

/// What a token says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenFacts {
    /// Its scopes; `None` where the server does not tell.
    pub scopes: Option<Vec<String>>,
    /// Its last day, as the server spells it.
    pub expires_at: Option<String>,
    /// The user's name.
    pub user: Option<String>,
}

/// A project as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// The full name of its default branch; `None` while it is empty.
    pub default_branch: Option<String>,
}

/// What is at a path that could be a project's or a group's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A project.
    Project(Project),
    /// A group.
    Group,
}

/// The API with a credential, where GitLab's API takes such a one.
pub fn api(client: &HttpClient, credential: &Credential) -> Option<Api> {
    let (header, value) = match &credential.material {
        Material::Pat(_) if is_deploy_token(credential) => return None,
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
        _ => credential.git_authorization(Provider::Gitlab.token_user()),
    }
}

/// Whether it is a deploy token, which the API does not know.
pub fn is_deploy_token(credential: &Credential) -> bool {
    let Material::Pat(token) = &credential.material else { return false };
    let by_user = credential.username.as_deref().is_some_and(|user| user.starts_with(DEPLOY_USER_PREFIX));
    by_user || token.expose().starts_with(DEPLOY_TOKEN_PREFIX)
}

/// Presents the token, for the first time in a test, and asks it about itself.
///
/// # Errors
/// [`ProviderError::Denied`] and what any call can fail with.
pub async fn authenticate(api: &Api, place: &Place, is_oauth: bool) -> Result<TokenFacts, ProviderError> {
    if !is_oauth {
        let answer = api.get(&place.api("personal_access_tokens/self")).await?;
        // Releases before 15.5 do not have this call.
        if answer.status != 404 {
            let mut facts = token_facts(&judge(&answer, "the token in JSON")?)?;
            if allows(facts.scopes.as_deref(), &SCOPES_USER) {
                facts.user = user(api, place).await?;
            }
            return Ok(facts);
        }
    }
    match user(api, place).await {
        Ok(name) => Ok(TokenFacts { user: name, ..TokenFacts::default() }),
        // The server knows the token, or it would have said 401.
        Err(error) if error.is_forbidden() => Ok(TokenFacts::default()),
        Err(error) => Err(error),
    }
}

/// The release, where the token may ask for it.
///
/// # Errors
/// [`ProviderError::TooOld`] and what any call can fail with; a refusal is `None`.
pub async fn version(api: &Api, place: &Place) -> Result<Option<String>, ProviderError> {
    let mut answer = api.get(&place.api("metadata")).await?;
    if answer.status == 404 {
        answer = api.get(&place.api("version")).await?;
    }
    let json = match judge(&answer, "the version in JSON") {
        Err(error) if error.is_forbidden() => return Ok(None),
        judged => judged?,
    };
    let version = text(&json, "version");
    let major = version.as_deref().and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match (version, major) {
        (Some(version), Some(major)) if major < OLDEST_SUPPORTED_MAJOR => {
            Err(ProviderError::TooOld { seen: format!("GitLab {version}") })
        }
        (version, _) => Ok(version),
    }
}

/// Asks for the project of the place, or for a group where there is no such project and the URL leaves it open.
///
/// # Errors
/// [`ProviderError::Forbidden`], [`ProviderError::RepositoryHidden`], [`ProviderError::RepositoryMoved`],
/// [`ProviderError::RepositoryDisabled`] and what any call can fail with.
pub async fn project(api: &Api, place: &Place) -> Result<Found, ProviderError> {
    let hidden = || ProviderError::RepositoryHidden { name: place.full_path(), near: vec![] };
    let answer = api.get(&place.api(&format!("projects/{}", place.encoded_path()))).await?;
    match answer.status {
        301 | 302 | 307 | 308 => Err(moved(api, place, &answer).await),
        404 => match searched(api, place).await? {
            Some(project) => Ok(Found::Project(read_project(&project)?)),
            None if !place.is_certainly_repository() && group(api, place).await.is_ok() => Ok(Found::Group),
            None => Err(hidden()),
        },
        _ => Ok(Found::Project(read_project(&judge(&answer, "the project in JSON")?)?)),
    }
}

/// Asks for the group of the place, or for the list of projects where the place is the root.
///
/// # Errors
/// [`ProviderError::Forbidden`], [`ProviderError::ProjectHidden`] and what any call can fail with.
pub async fn account(api: &Api, place: &Place) -> Result<(), ProviderError> {
    if !place.full_path().is_empty() {
        return group(api, place).await;
    }
    let answer = api.get(&place.api("projects?membership=true&simple=true&per_page=1")).await?;
    judge(&answer, "projects in JSON").map(|_| ())
}

/// The first repository below the place that the token may read and that is `wanted`, as a place of its own.
///
/// # Errors
/// What any call can fail with.
pub async fn first_repository(
    api: &Api,
    place: &Place,
    wanted: impl Fn(&Place) -> bool,
) -> Result<Option<Place>, ProviderError> {
    let call = match place.full_path().as_str() {
        "" => "projects?membership=true&per_page=20".to_owned(),
        _ => format!("groups/{}/projects?include_subgroups=true&per_page=20", place.encoded_path()),
    };
    let answer = api.get(&place.api(&call)).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    Ok(first_of(&judge(&answer, "projects in JSON")?, place, wanted))
}

/// Whether scopes contain one of those that will do; scopes that are not known might.
pub fn allows(scopes: Option<&[String]>, any_of: &[&str]) -> bool {
    scopes.is_none_or(|scopes| scopes.iter().any(|scope| any_of.contains(&scope.as_str())))
}

/// Days until a date as GitLab spells it; negative when it has passed.
pub fn days_left(expires_at: &str, now: OffsetDateTime) -> Option<i64> {
    let day = Date::parse(expires_at.get(..10)?, format_description!("[year]-[month]-[day]")).ok()?;
    Some((day - now.date()).whole_days())
}

async fn user(api: &Api, place: &Place) -> Result<Option<String>, ProviderError> {
    let answer = api.get(&place.api("user")).await?;
    judge(&answer, "the user in JSON").map(|json| text(&json, "username"))
}

async fn group(api: &Api, place: &Place) -> Result<(), ProviderError> {
    let answer = api.get(&place.api(&format!("groups/{}?with_projects=false", place.encoded_path()))).await?;
    if answer.status == 404 {
        return Err(ProviderError::ProjectHidden { name: place.full_path(), near: vec![] });
    }
    judge(&answer, "the group in JSON").map(|_| ())
}

/// A proxy that decodes `%2F` turns every project into a 404, so that a project that is not found by its path
/// is looked for in a search as well.
async fn searched(api: &Api, place: &Place) -> Result<Option<Value>, ProviderError> {
    let full_path = place.full_path();
    let call = format!("projects?search_namespaces=true&search={}&per_page=100", place.encoded_path());
    // The server refuses a search for a slash in the path of a URL only, not in a query.
    let answer = match api.get(&place.api(&call)).await {
        // The project itself was not found already: a list too long to be searched does not change that.
        Err(ProviderError::Http(HttpError::BodyTooLarge { .. })) => return Ok(None),
        answer => answer?,
    };
    if answer.status != 200 {
        return Ok(None);
    }
    let projects = match answer.json() {
        Some(Value::Array(projects)) => projects,
        _ => return Ok(None),
    };
    let is_it = |json: &Value| {
        name(json, "path_with_namespace").is_some_and(|path| path.eq_ignore_ascii_case(&full_path))
    };
    Ok(projects.into_iter().find(is_it))
}

/// The new path of a project, from the call that the server's redirect names. The redirect is read and not
/// followed: only a project's number on this very API is taken from it.
async fn moved(api: &Api, place: &Place, answer: &Answer) -> ProviderError {
    let location = answer.local_redirect(api.origin()).unwrap_or_default();
    let id = location.strip_prefix(&place.api("projects/"));
    let Some(id) = id.filter(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())) else {
        return answer.general_error("the project in JSON");
    };
    let named = match api.get(&place.api(&format!("projects/{id}"))).await {
        Ok(answer) => answer.json().and_then(|json| name(&json, "path_with_namespace")),
        Err(_) => None,
    };
    ProviderError::RepositoryMoved { to: named.map(|path| place.with_repository(&path).shown()) }
}

/// A group's list holds projects of other groups as well, where these share them with it.
fn first_of(json: &Value, place: &Place, wanted: impl Fn(&Place) -> bool) -> Option<Place> {
    let usable = json.as_array()?.iter().filter(|json| read_project(json).is_ok());
    let paths = usable.filter_map(|json| name(json, "path_with_namespace"));
    paths.map(|path| place.with_repository(&path)).find(wanted)
}

fn token_facts(json: &Value) -> Result<TokenFacts, ProviderError> {
    if json.get("revoked").and_then(Value::as_bool) == Some(true) {
        return Err(ProviderError::Denied(Denied::Revoked));
    }
    let expires_at = text(json, "expires_at");
    if json.get("active").and_then(Value::as_bool) == Some(false) {
        let is_past = expires_at.as_deref().and_then(|day| days_left(day, OffsetDateTime::now_utc()));
        let is_past = is_past.is_some_and(|days| days <= 0);
        return Err(ProviderError::Denied(if is_past { Denied::Expired } else { Denied::Rejected }));
    }
    Ok(TokenFacts { scopes: texts(json, "scopes"), expires_at, user: None })
}

fn read_project(json: &Value) -> Result<Project, ProviderError> {
    if text(json, "repository_access_level").as_deref() == Some("disabled") {
        return Err(ProviderError::RepositoryDisabled);
    }
    let branch = text(json, "default_branch");
    Ok(Project { default_branch: branch.map(|branch| format!("refs/heads/{branch}")) })
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn facts(json: &str) -> Result<TokenFacts, ProviderError> {
        token_facts(&serde_json::from_str(json).unwrap())
    }

    fn credential(username: Option<&str>, material: Material) -> Credential {
        Credential { name: "c".into(), username: username.map(str::to_owned), material }
    }

    #[test]
    fn a_token_tells_its_scopes_and_its_end() {
        let json = r#"{"active":true,"revoked":false,"scopes":["api"],"expires_at":"2027-01-01"}"#;
        let token = facts(json).unwrap();
        assert_eq!(token.scopes.unwrap(), ["api"]);
        assert_eq!(token.expires_at.as_deref(), Some("2027-01-01"));
        let now = OffsetDateTime::from_unix_timestamp(1_798_675_200).unwrap();
        assert_eq!(days_left("2027-01-01", now), Some(1));
        assert_eq!(days_left("2027-01-01T10:00:00Z", now), Some(1));
        assert_eq!(days_left("soon", now), None);
    }

    #[test]
    fn a_token_tells_nothing_that_a_terminal_would_obey() {
        let scopes = vec!["read\u{1b}[2J"; 1000];
        let json = serde_json::json!({"active": true, "scopes": scopes, "expires_at": "2027\u{1b}[2J"});
        let token = token_facts(&json).unwrap();
        assert_eq!(token.expires_at.unwrap(), "2027 [2J");
        assert_eq!(token.scopes.unwrap(), ["read [2J"; 64]);
        let project = serde_json::json!({"default_branch": format!("\u{1b}c{}", "x".repeat(100_000))});
        let branch = read_project(&project).unwrap().default_branch.unwrap();
        assert!(branch.len() < 400 && !branch.contains('\u{1b}'), "{branch}");
    }

    #[test]
    fn a_project_that_is_shared_from_elsewhere_is_passed_over() {
        let url = crate::remote_url::RemoteUrl::parse("https://gl.corp/shop").unwrap();
        let place = Place::parse(&url, "", None).unwrap();
        let listed = |paths: &[&str]| {
            let projects =
                paths.iter().map(|path| serde_json::json!({"path_with_namespace": path})).collect();
            let is_below = |place: &Place| place.git_url().is_some_and(|git_url| url.contains(&git_url));
            first_of(&Value::Array(projects), &place, is_below).map(|found| found.full_path())
        };
        assert_eq!(listed(&["other/secret", "shop/web"]).as_deref(), Some("shop/web"));
        assert_eq!(listed(&["other/secret"]), None);
    }

    #[test]
    fn a_token_that_is_over_says_why() {
        let denied = |json| match facts(json) {
            Err(ProviderError::Denied(denied)) => denied,
            other => panic!("{other:?}"),
        };
        assert_eq!(denied(r#"{"active":false,"revoked":true}"#), Denied::Revoked);
        assert_eq!(denied(r#"{"active":false,"expires_at":"2020-01-01"}"#), Denied::Expired);
        assert_eq!(denied(r#"{"active":false}"#), Denied::Rejected);
    }

    #[test]
    fn deploy_tokens_and_passwords_are_for_git_only() {
        let token = || Material::Pat(Secret::new("x".into()));
        assert!(is_deploy_token(&credential(Some("gitlab+deploy-token-7"), token())));
        assert!(is_deploy_token(&credential(None, Material::Pat(Secret::new("gldt-abc".into())))));
        assert!(!is_deploy_token(&credential(Some("ada"), token())));
        let oauth = git_authorization(&credential(None, Material::Bearer(Secret::new("t".into()))));
        assert_eq!(oauth.unwrap().expose(), "Basic b2F1dGgyOnQ=");
        let pat = git_authorization(&credential(None, token()));
        assert_eq!(pat.unwrap().expose(), "Basic Z2l0Ong=");
    }
}
