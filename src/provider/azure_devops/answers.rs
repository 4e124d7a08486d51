//! How Azure DevOps says no, in its statuses, headers and documented codes.

use serde_json::Value;

use crate::provider::rest::Answer;
use crate::provider::{Denied, ProviderError};

/// Headers that only Azure DevOps sends.
const MARKS: [&str; 4] = ["x-tfs-processid", "x-tfs-serviceerror", "x-vss-e2eid", "x-vss-userdata"];

/// What a call was about, for the words of its errors.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) project: Option<&'a str>,
    pub(super) repository: Option<&'a str>,
    /// The scope that the call needs, or nothing where any token will do.
    pub(super) scope: &'static str,
}

impl Names<'_> {
    pub(super) const NONE: Self = Self { project: None, repository: None, scope: "" };
}

/// Whether the answer carries what only Azure DevOps sends.
pub fn shows_marks(answer: &Answer) -> bool {
    MARKS.iter().any(|mark| answer.header(mark).is_some())
}

/// Whether the answer is a page to sign in on, or the way to one.
pub(super) fn is_sign_in(answer: &Answer) -> bool {
    if answer.status == 203 {
        return true;
    }
    answer.location().is_some_and(|location| {
        let location = location.to_ascii_lowercase();
        let host = location.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(""));
        let is_entra = host == "login.microsoftonline.com" || host.ends_with(".vssps.visualstudio.com");
        is_entra || location.split('/').any(|segment| segment == "_signin")
    })
}

/// The JSON of a good answer, or what the answer means.
pub(super) fn judge(
    answer: &Answer,
    names: Names<'_>,
    expected: &'static str,
) -> Result<Value, ProviderError> {
    match answer.status {
        200 => answer.good_json(expected),
        _ if is_sign_in(answer) => Err(ProviderError::SignInPage { status: answer.status }),
        401 => Err(unauthorized(answer, names)),
        // A 403 that names no user comes from something in front of the server.
        403 if names.scope.is_empty() && answer.header("x-vss-userdata").is_none() => {
            Err(answer.unexpected(expected))
        }
        403 => Err(forbidden(answer, names)),
        404 => Err(not_found(answer, names, expected)),
        _ => Err(answer.general_error(expected)),
    }
}

/// A 401 to the first call refuses the credential; a later one can only mean that the credential, which was
/// accepted before, does not reach so far. Which it is, the caller tells by naming a scope.
fn unauthorized(answer: &Answer, names: Names<'_>) -> ProviderError {
    if !names.scope.is_empty() {
        return forbidden(answer, names);
    }
    let schemes = answer.schemes();
    let offers = |name: &str| schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case(name));
    let only_windows = (offers("NTLM") || offers("Negotiate")) && !offers("Basic") && !offers("Bearer");
    if only_windows {
        return ProviderError::Denied(Denied::BasicNotOffered { schemes });
    }
    ProviderError::Denied(Denied::Rejected)
}

fn forbidden(answer: &Answer, names: Names<'_>) -> ProviderError {
    let scopes = if names.scope.is_empty() { Vec::new() } else { vec![names.scope.to_owned()] };
    ProviderError::Forbidden { scopes, said: said(answer) }
}

fn not_found(answer: &Answer, names: Names<'_>, expected: &'static str) -> ProviderError {
    // `typeKey` is the documented class of an error; the codes at the beginning of messages are documented too.
    let kind = answer.field("typeKey").unwrap_or_default();
    let message = said(answer).unwrap_or_default();
    let is_project = kind.starts_with("ProjectDoesNotExist")
        || ["TF200016", "VS800075"].iter().any(|code| message.starts_with(code));
    match (names.project, names.repository) {
        (Some(name), _) if is_project => ProviderError::ProjectHidden { name: name.to_owned(), near: vec![] },
        (_, Some(name)) => ProviderError::RepositoryHidden { name: name.to_owned(), near: vec![] },
        (Some(name), None) => ProviderError::ProjectHidden { name: name.to_owned(), near: vec![] },
        (None, None) => answer.unexpected(expected),
    }
}

fn said(answer: &Answer) -> Option<String> {
    answer.field("message").or_else(|| answer.encoded_header("x-tfs-serviceerror"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::rest::tests::answer;

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    fn judged(status: u16, headers: &[(&'static str, &str)], body: &str, names: Names<'_>) -> ProviderError {
        match judge(&answer(status, headers, body), names, "JSON") {
            Ok(json) => panic!("taken as good: {json}"),
            Err(error) => error,
        }
    }

    #[test]
    fn a_refused_token_has_four_faces() {
        let rejected = |error| matches!(error, ProviderError::Denied(Denied::Rejected));
        let offered = [("www-authenticate", "Bearer"), ("www-authenticate", "NTLM")];
        assert!(rejected(judged(401, &offered, "", Names::NONE)));
        let windows = [("www-authenticate", "Negotiate"), ("www-authenticate", "NTLM")];
        assert!(matches!(
            judged(401, &windows, "", Names::NONE),
            ProviderError::Denied(Denied::BasicNotOffered { .. })
        ));
        let page = [("content-type", "text/html")];
        assert!(matches!(
            judged(203, &page, "<html>", Names::NONE),
            ProviderError::SignInPage { status: 203 }
        ));
        let redirect = [("location", "https://ado.example/tfs/_signin?reply_to=x")];
        assert!(matches!(judged(302, &redirect, "", Names::NONE), ProviderError::SignInPage { status: 302 }));
    }

    #[test]
    fn after_signing_in_a_401_is_a_missing_scope() {
        let names = Names { project: Some("Shop"), repository: None, scope: "vso.project" };
        let ProviderError::Forbidden { scopes, .. } = judged(401, &[], "", names) else { panic!() };
        assert_eq!(scopes, ["vso.project"]);
    }

    #[test]
    fn a_404_tells_the_project_from_the_repository() {
        let names = Names { project: Some("Shop"), repository: Some("web"), scope: "vso.code" };
        let project =
            "\u{feff}{\"message\":\"TF200016: gone\",\"typeKey\":\"ProjectDoesNotExistWithNameException\"}";
        assert!(matches!(judged(404, &[JSON], project, names), ProviderError::ProjectHidden { .. }));
        let repository = "{\"message\":\"TF401019: gone\",\"typeKey\":\"GitRepositoryNotFoundException\"}";
        assert!(matches!(judged(404, &[JSON], repository, names), ProviderError::RepositoryHidden { .. }));
    }

    #[test]
    fn a_redirect_elsewhere_is_no_sign_in_page() {
        let redirect = [("location", "https://evil.example/collect")];
        assert!(matches!(judged(302, &redirect, "", Names::NONE), ProviderError::Redirected { .. }));
    }
}
