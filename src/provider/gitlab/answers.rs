//! How GitLab says no, in its statuses and documented fields.

use serde_json::Value;

use crate::provider::rest::Answer;
use crate::provider::{Denied, ProviderError};

/// Whether the answer carries what only GitLab sends.
pub fn shows_marks(answer: &Answer) -> bool {
    answer.header("x-gitlab-meta").is_some()
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
    match answer.field("error").as_deref() {
        Some("invalid_token") if description.starts_with("Token is expired") => Denied::Expired,
        Some("invalid_token") if description.starts_with("Token was revoked") => Denied::Revoked,
        _ => Denied::Rejected,
    }
}

fn forbidden(answer: &Answer) -> ProviderError {
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
