//! What a token is, and what it tells about itself.
//!
//! Sources: GitLab's REST documentation, pages "Personal access tokens" and "Project access tokens", and that of
//! Doorkeeper, which makes its OAuth tokens.

use serde_json::Value;
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime};

use super::answers::judge;
use super::{Place, SCOPES_USER, allows};
use crate::credential::{Credential, Material};
use crate::provider::rest::{Answer, Api, text, texts};
use crate::provider::{Denied, ProviderError};

/// The user name that marks a deploy token, and the prefix of newer ones.
const DEPLOY_USER_PREFIX: &str = "gitlab+deploy-token-";
const DEPLOY_TOKEN_PREFIX: &str = "gldt-";

/// The user name that git wants beside the token of a CI job, and the prefix of newer ones.
pub(super) const JOB_USER: &str = "gitlab-ci-token";
const JOB_TOKEN_PREFIX: &str = "glcbt-";

/// The prefix of personal, project and group access tokens, unless the server's administrator chose another.
const PERSONAL_TOKEN_PREFIX: &str = "glpat-";

/// Scopes that neither a test nor a clone nor a status or a hook needs, and that change things. `api` is not
/// among them: statuses and hooks need it.
const SCOPES_EXCESSIVE: [&str; 9] = [
    "sudo",
    "admin_mode",
    "write_repository",
    "write_registry",
    "write_virtual_registry",
    "create_runner",
    "manage_runner",
    "k8s_proxy",
    "write_observability",
];

/// What a token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A user.
    Personal,
    /// A project, which has a bot for it.
    Project,
    /// A group, which has a bot for it.
    Group,
    /// A project or a group, for git and registries alone.
    Deploy,
    /// A job of GitLab CI, while it runs.
    Job,
    /// An application that a user let in.
    Oauth,
}

impl TokenKind {
    /// The name that everybody sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Personal => "personal",
            Self::Project => "project",
            Self::Group => "group",
            Self::Deploy => "deploy",
            Self::Job => "job",
            Self::Oauth => "oauth",
        }
    }

    /// By the name of the user that a token answers as: that of a bot is made from what it belongs to.
    fn of_user(name: &str) -> Self {
        let is_bot_of = |owner: &str| {
            let number = name.strip_prefix(owner).and_then(|rest| rest.split_once("_bot"));
            number.is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        };
        match () {
            () if is_bot_of("project_") => Self::Project,
            () if is_bot_of("group_") => Self::Group,
            () => Self::Personal,
        }
    }
}

/// What the server says of its limit of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests a period, by `RateLimit-Limit`.
    pub limit: u64,
    /// How many of them are left, by `RateLimit-Remaining`.
    pub remaining: u64,
}

/// What a token says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenFacts {
    /// Its scopes; `None` where the server does not tell.
    pub scopes: Option<Vec<String>>,
    /// Its last day, or its end in RFC 3339 for a token of OAuth.
    pub expires_at: Option<String>,
    /// The user's name.
    pub user: Option<String>,
    /// What it belongs to; `None` where that cannot be told.
    pub kind: Option<TokenKind>,
    /// The limit of requests that holds for it.
    pub rate_limit: Option<RateLimit>,
}

impl TokenFacts {
    /// Whether its scopes, as far as they are known, let it ask who it belongs to and what the server is.
    pub fn may_ask_for_user(&self) -> bool {
        allows(self.scopes.as_deref(), &SCOPES_USER)
    }

    /// Its scopes that nothing here needs.
    pub fn excessive_scopes(&self) -> Vec<&str> {
        let scopes = self.scopes.iter().flatten().map(String::as_str);
        scopes.filter(|scope| SCOPES_EXCESSIVE.contains(scope)).collect()
    }

    /// Takes the name of its user, from which follows what it belongs to.
    pub fn set_user(&mut self, name: String) {
        self.kind = self.kind.or(Some(TokenKind::of_user(&name)));
        self.user = Some(name);
    }
}

/// What the API does not take at all, although git does: the tokens of deployments and of CI jobs.
pub fn git_only_kind(credential: &Credential) -> Option<TokenKind> {
    let Material::Pat(token) = &credential.material else { return None };
    let user = credential.username.as_deref().unwrap_or_default();
    let has_prefix = |prefix| token.expose().starts_with(prefix);
    if user.starts_with(DEPLOY_USER_PREFIX) || has_prefix(DEPLOY_TOKEN_PREFIX) {
        return Some(TokenKind::Deploy);
    }
    (user == JOB_USER || has_prefix(JOB_TOKEN_PREFIX)).then_some(TokenKind::Job)
}

/// Whether it is a token that an application got by OAuth, and not one that a person made. Both are sent as
/// bearer tokens by some.
pub fn is_oauth(credential: &Credential) -> bool {
    let Material::Bearer(token) = &credential.material else { return false };
    !token.expose().starts_with(PERSONAL_TOKEN_PREFIX)
}

/// Presents the token, for the first time in a test: one call, or two where the release is so old that a token
/// cannot ask about itself.
///
/// # Errors
/// [`ProviderError::Denied`] and what any call can fail with.
pub async fn authenticate(api: &Api, place: &Place, is_oauth: bool) -> Result<TokenFacts, ProviderError> {
    if !is_oauth {
        let answer = api.get(&place.api("personal_access_tokens/self")).await?;
        // Releases before 15.5 do not have this call.
        if answer.status != 404 {
            let mut facts = token_facts(&judge(&answer, "the token in JSON")?)?;
            facts.rate_limit = rate_limit(&answer);
            return Ok(facts);
        }
    }
    let answer = api.get(&place.api("user")).await?;
    let mut facts = TokenFacts { rate_limit: rate_limit(&answer), ..TokenFacts::default() };
    match judge(&answer, "the user in JSON") {
        Ok(json) => facts.user = text(&json, "username"),
        // The server knows the token, or it would have said 401.
        Err(error) if error.is_forbidden() => {}
        Err(error) => return Err(error),
    }
    if !is_oauth && let Some(name) = facts.user.take() {
        facts.set_user(name);
    }
    Ok(facts)
}

/// The name of the user that the token answers as.
///
/// # Errors
/// What any call can fail with.
pub async fn user(api: &Api, place: &Place) -> Result<Option<String>, ProviderError> {
    let answer = api.get(&place.api("user")).await?;
    judge(&answer, "the user in JSON").map(|json| text(&json, "username"))
}

/// Scopes and end of a token of OAuth.
///
/// # Errors
/// What any call can fail with; a token of another kind is refused.
pub async fn oauth(api: &Api, place: &Place) -> Result<TokenFacts, ProviderError> {
    let answer = api.get(&place.below_root("oauth/token/info")).await?;
    let json = judge(&answer, "the token in JSON")?;
    let seconds = json.get("expires_in").and_then(Value::as_i64);
    Ok(TokenFacts {
        scopes: texts(&json, "scope"),
        expires_at: seconds.and_then(|seconds| end_in(seconds, OffsetDateTime::now_utc())),
        kind: Some(TokenKind::Oauth),
        ..TokenFacts::default()
    })
}

/// Days until a date as GitLab spells it; negative when it has passed.
pub fn days_left(expires_at: &str, now: OffsetDateTime) -> Option<i64> {
    let day = Date::parse(expires_at.get(..10)?, format_description!("[year]-[month]-[day]")).ok()?;
    Some((day - now.date()).whole_days())
}

/// A time so many seconds from now, in RFC 3339.
fn end_in(seconds: i64, now: OffsetDateTime) -> Option<String> {
    let end = now.checked_add(Duration::seconds(seconds))?.replace_nanosecond(0).ok()?;
    end.format(&time::format_description::well_known::Rfc3339).ok()
}

fn rate_limit(answer: &Answer) -> Option<RateLimit> {
    let number = |name| answer.header(name)?.trim().parse::<u64>().ok();
    Some(RateLimit { limit: number("ratelimit-limit")?, remaining: number("ratelimit-remaining")? })
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
    Ok(TokenFacts { scopes: texts(json, "scopes"), expires_at, ..TokenFacts::default() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::provider::rest::tests::answer;
    use crate::secret::Secret;

    fn facts(json: &str) -> Result<TokenFacts, ProviderError> {
        token_facts(&serde_json::from_str(json).unwrap())
    }

    fn credential(username: Option<&str>, material: fn(Secret) -> Material, secret: &str) -> Credential {
        let material = material(Secret::new(secret.to_owned()));
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
        assert_eq!(end_in(60, now).as_deref(), Some("2026-12-31T00:01:00Z"));
        assert_eq!(end_in(i64::MAX, now), None);
    }

    #[test]
    fn a_token_tells_nothing_that_a_terminal_would_obey() {
        let scopes = vec!["read\u{1b}[2J"; 1000];
        let json = serde_json::json!({"active": true, "scopes": scopes, "expires_at": "2027\u{1b}[2J"});
        let token = token_facts(&json).unwrap();
        assert_eq!(token.expires_at.unwrap(), "2027 [2J");
        assert_eq!(token.scopes.unwrap(), ["read [2J"; 64]);
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
    fn tokens_that_the_api_does_not_take_are_known_by_user_or_prefix() {
        let kind = |user, secret| git_only_kind(&credential(user, Material::Pat, secret));
        assert_eq!(kind(Some("gitlab+deploy-token-7"), "x"), Some(TokenKind::Deploy));
        assert_eq!(kind(None, "gldt-abc"), Some(TokenKind::Deploy));
        assert_eq!(kind(Some("gitlab-ci-token"), "x"), Some(TokenKind::Job));
        assert_eq!(kind(None, "glcbt-64_x"), Some(TokenKind::Job));
        assert_eq!(kind(Some("ada"), "glpat-x"), None);
        assert!(is_oauth(&credential(None, Material::Bearer, "x")));
        assert!(!is_oauth(&credential(None, Material::Bearer, "glpat-x")));
        assert!(!is_oauth(&credential(None, Material::Pat, "x")));
    }

    #[test]
    fn bots_tell_what_their_token_belongs_to() {
        let of = TokenKind::of_user;
        assert_eq!(of("project_42_bot_4ffca233d8298ea1"), TokenKind::Project);
        assert_eq!(of("project_42_bot2"), TokenKind::Project);
        assert_eq!(of("group_7_bot_4ffca233d8298ea1"), TokenKind::Group);
        for person in ["ada", "project_bot", "project_x_bot_y", "group__bot"] {
            assert_eq!(of(person), TokenKind::Personal, "{person}");
        }
    }

    #[test]
    fn the_limit_of_requests_is_read_where_it_is_whole() {
        let limit = |headers: &[(&'static str, &str)]| rate_limit(&answer(200, headers, ""));
        let whole = [("ratelimit-limit", "2000"), ("ratelimit-remaining", "1999")];
        assert_eq!(limit(&whole), Some(RateLimit { limit: 2000, remaining: 1999 }));
        assert_eq!(limit(&whole[..1]), None);
        assert_eq!(limit(&[("ratelimit-limit", "many"), whole[1]]), None);
    }

    #[test]
    fn scopes_that_nothing_needs_are_found() {
        let scopes =
            ["api", "read_repository", "sudo", "self_rotate", "k8s_proxy"].map(str::to_owned).to_vec();
        let token = TokenFacts { scopes: Some(scopes), ..TokenFacts::default() };
        assert_eq!(token.excessive_scopes(), ["sudo", "k8s_proxy"]);
    }
}
