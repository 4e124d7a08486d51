//! How GitLab says no, in its statuses and documented fields.

use serde_json::Value;

use crate::provider::rest::{Answer, MAX_TEXT_CHARS, shown};
use crate::provider::{Denied, ProviderError};

/// What a sentence of GitLab's comes to.
#[derive(Clone, Copy)]
enum Means {
    TokenNeeded,
    Locked,
    PolicyBlocks,
}

/// Parts of the sentences by which GitLab says why somebody whom it knows may not go on, in lower case. Git gets them
/// as the whole body, the API in `message`, behind the status. Sources: its manual ("Two-factor authentication:
/// troubleshooting", "Git over HTTP: access denied", "SAML SSO for groups", "Terms of service") and the messages of
/// its classes `UserAccessDeniedReason` and `GitAccess`.
const SENTENCES: [(&str, Means); 12] = [
    ("must use a personal access token", Means::TokenNeeded),
    ("account has been blocked", Means::Locked),
    ("account has been deactivated", Means::Locked),
    ("account is pending approval", Means::Locked),
    ("account is locked", Means::Locked),
    ("account has been locked", Means::Locked),
    ("your password expired", Means::Locked),
    ("email address is not confirmed", Means::Locked),
    ("valid sso session", Means::PolicyBlocks),
    ("over http is not allowed", Means::PolicyBlocks),
    ("must accept the terms of service", Means::PolicyBlocks),
    ("ip address is not allowed", Means::PolicyBlocks),
];

/// The whole body with which GitLab turns away an address from which too many attempts to sign in have failed.
const BANNED_ADDRESS: &str = "Forbidden";

/// What GitLab's own words in an answer of 401 or 403 mean, where they are more than a no.
pub fn reason(said: &str) -> Option<Denied> {
    let lower = said.to_lowercase();
    let words = || shown(said, MAX_TEXT_CHARS);
    if said.trim() == BANNED_ADDRESS {
        return Some(Denied::Locked { said: words() });
    }
    let (_, means) = SENTENCES.iter().find(|(part, _)| lower.contains(part))?;
    Some(match means {
        Means::TokenNeeded => Denied::TokenNeeded { said: words() },
        Means::Locked => Denied::Locked { said: words() },
        Means::PolicyBlocks => Denied::PolicyBlocks { said: words() },
    })
}

/// Whether the answer carries what only GitLab sends.
pub fn shows_marks(answer: &Answer) -> bool {
    answer.header("x-gitlab-meta").is_some()
}

/// The number by which the server's log knows the request.
pub fn request_id(answer: &Answer) -> Option<String> {
    Some(shown(answer.header("x-request-id")?, MAX_TEXT_CHARS)).filter(|id| !id.is_empty())
}

/// The JSON of a good answer, or what the answer means.
pub(super) fn judge(answer: &Answer, expected: &'static str) -> Result<Value, ProviderError> {
    match answer.status {
        200 => answer.good_json(expected),
        203 => Err(ProviderError::SignInPage { status: 203 }),
        302 if is_sign_in(answer) => Err(ProviderError::SignInPage { status: 302 }),
        401 => Err(ProviderError::Denied(unauthorized(answer))),
        403 => Err(forbidden(answer)),
        _ => Err(answer.general_error(expected)),
    }
}

fn is_sign_in(answer: &Answer) -> bool {
    answer.location().is_some_and(|location| location.ends_with("/users/sign_in"))
}

/// An answer in the form of OAuth describes what is wrong with the token; its two sentences are documented.
fn unauthorized(answer: &Answer) -> Denied {
    let description = answer.field("error_description").unwrap_or_default();
    if let Some(denied) = answer.field("message").as_deref().and_then(reason) {
        return denied;
    }
    match answer.field("error").as_deref() {
        Some("dpop_error") => Denied::PolicyBlocks { said: description },
        Some("invalid_token") if description.starts_with("Token is expired") => Denied::Expired,
        Some("invalid_token") if description.starts_with("Token was revoked") => Denied::Revoked,
        _ => Denied::Rejected,
    }
}

fn forbidden(answer: &Answer) -> ProviderError {
    let message = answer.field("message").unwrap_or_else(|| answer.beginning(BANNED_ADDRESS.len() + 2));
    if let Some(denied) = reason(&message) {
        return ProviderError::Denied(denied);
    }
    let scope = answer.field("scope").unwrap_or_default();
    let scopes = scope.split([' ', ',']).filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
    ProviderError::Forbidden {
        scopes,
        said: answer.field("error_description").or_else(|| answer.field("message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::rest::tests::answer;

    const JSON: (&str, &str) = ("content-type", "application/json");

    fn judged(status: u16, body: &str) -> ProviderError {
        match judge(&answer(status, &[JSON], body), "JSON") {
            Ok(json) => panic!("taken as good: {json}"),
            Err(error) => error,
        }
    }

    #[test]
    fn documented_fields_tell_expired_from_revoked() {
        let denied = |body| match judged(401, body) {
            ProviderError::Denied(denied) => denied,
            other => panic!("{other:?}"),
        };
        let expired = r#"{"error":"invalid_token","error_description":"Token is expired. You can either…"}"#;
        let revoked = r#"{"error":"invalid_token","error_description":"Token was revoked. You have to…"}"#;
        assert_eq!(denied(expired), Denied::Expired);
        assert_eq!(denied(revoked), Denied::Revoked);
        assert_eq!(denied(r#"{"message":"401 Unauthorized"}"#), Denied::Rejected);
    }

    #[test]
    fn sentences_of_its_own_tell_why_somebody_known_may_not_go_on() {
        let kind = |said: &str| match reason(said) {
            Some(Denied::TokenNeeded { .. }) => "token",
            Some(Denied::Locked { .. }) => "locked",
            Some(Denied::PolicyBlocks { .. }) => "policy",
            _ => "",
        };
        let older =
            "HTTP Basic: Access denied\nYou must use a personal access token with 'read_repository' …";
        let old = "HTTP Basic: Access denied. The provided password or token is incorrect or your account has 2FA \
                   enabled and you must use a personal access token instead of a password.";
        let newer = "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was \
                     incorrect or you're required to use a token instead of a password.";
        assert_eq!([kind(older), kind(old), kind(newer)], ["token", "token", ""]);
        assert_eq!(kind("403 Forbidden - Your account has been blocked."), "locked");
        assert_eq!(kind("Forbidden\n"), "locked");
        assert_eq!(kind("403 Forbidden"), "");
        assert_eq!(kind("Pulling over HTTP is not allowed."), "policy");
        assert_eq!(
            kind("Cannot find valid SSO session. Please login via your group's SSO at https://…"),
            "policy"
        );
        assert_eq!(kind("You are not allowed to download code from this project."), "");
    }

    #[test]
    fn the_api_gives_its_reason_in_the_message() {
        let blocked = judged(403, r#"{"message":"403 Forbidden - Your account has been blocked."}"#);
        assert!(matches!(blocked, ProviderError::Denied(Denied::Locked { .. })), "{blocked:?}");
        let dpop = judged(401, r#"{"error":"dpop_error","error_description":"DPoP header is missing"}"#);
        assert!(matches!(dpop, ProviderError::Denied(Denied::PolicyBlocks { .. })), "{dpop:?}");
        assert!(judged(403, r#"{"message":"403 Forbidden"}"#).is_forbidden());
    }

    #[test]
    fn a_missing_scope_is_named_by_the_server() {
        let body = r#"{"error":"insufficient_scope","error_description":"x","scope":"api read_api"}"#;
        let ProviderError::Forbidden { scopes, .. } = judged(403, body) else { panic!() };
        assert_eq!(scopes, ["api", "read_api"]);
    }

    #[test]
    fn what_any_server_says_is_told_apart() {
        assert!(matches!(judged(429, ""), ProviderError::RateLimited { .. }));
        assert!(matches!(judged(503, ""), ProviderError::ServerError { status: 503 }));
        assert!(matches!(judged(200, "not json"), ProviderError::Unexpected { .. }));
    }
}
