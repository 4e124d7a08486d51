//! How Azure DevOps says no, in its statuses, headers and documented codes.

use serde_json::Value;

use crate::provider::rest::{Answer, MAX_TEXT_CHARS, number, shown};
use crate::provider::{Denied, ProviderError};
use crate::report::Facts;

/// Headers that only Azure DevOps sends.
const MARKS: [&str; 4] = ["x-tfs-processid", "x-tfs-serviceerror", "x-vss-e2eid", "x-vss-userdata"];

/// What the web server before the application calls itself in `Server`.
const IIS: [&str; 2] = ["microsoft-iis", "microsoft-httpapi"];

/// Headers by which the server's operator finds a request in the server's log, most telling first.
const REQUEST_IDS: [&str; 3] = ["x-vss-e2eid", "activityid", "x-tfs-session"];

/// What the server tells of its limits, with the name of the fact.
const RATE_LIMITS: [(&str, &str); 5] = [
    ("x-ratelimit-resource", "rate_limit_resource"),
    ("x-ratelimit-delay", "rate_limit_delay_s"),
    ("x-ratelimit-limit", "rate_limit"),
    ("x-ratelimit-remaining", "rate_limit_remaining"),
    ("x-ratelimit-reset", "rate_limit_reset"),
];

/// Codes of refusals by a policy: Azure DevOps' own for conditional access, and those of Entra's list of
/// error codes (<https://learn.microsoft.com/entra/identity-platform/reference-error-codes>) for conditional
/// access that failed, a device that is not compliant or not joined, an application that is not approved, and
/// conditional access that blocks.
const POLICY: [&str; 6] =
    ["VS403463", "AADSTS50131", "AADSTS53000", "AADSTS53001", "AADSTS53002", "AADSTS53003"];

/// The code of an account that is locked after too many attempts, from the same list (`IdsLocked`).
const LOCKED: &str = "AADSTS50053";

/// The number in `errorCode` of an account that is locked in Windows (`ERROR_ACCOUNT_LOCKED_OUT`), as it is and
/// as an HRESULT.
const LOCKED_IN_WINDOWS: [i64; 2] = [1909, 0x8007_0775_u32.cast_signed() as i64];

/// The collection is stopped or being moved or updated.
const COLLECTION_UNAVAILABLE: &str = "TF24668";

/// The request was cancelled because its user uses too much.
const TOO_MUCH: &str = "TF400733";

/// How much of a page is searched for its title, in bytes.
const MAX_TITLE_BYTES: usize = 1024;

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

/// What the server showed to somebody without a credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Greeting {
    /// The schemes that it offers.
    pub schemes: Vec<String>,
    /// Whether the application itself answered.
    pub shows_marks: bool,
    /// Whether it offers Basic in the way of IIS: see the function of that name.
    pub offers_iis_basic: bool,
}

impl Greeting {
    /// What an answer shows.
    pub fn of(answer: &Answer) -> Self {
        Self {
            schemes: answer.schemes(),
            shows_marks: shows_marks(answer),
            offers_iis_basic: offers_iis_basic(answer),
        }
    }
}

/// Whether the answer carries what only Azure DevOps sends.
pub fn shows_marks(answer: &Answer) -> bool {
    MARKS.iter().any(|mark| answer.header(mark).is_some())
}

/// What the answer carries that helps whoever looks into the server's log, and what it tells of its limits.
pub fn evidence(answer: &Answer) -> Facts {
    let mut facts = Facts::new();
    let shown_header =
        |name: &str| Some(shown(answer.header(name)?, MAX_TEXT_CHARS)).filter(|text| !text.is_empty());
    if let Some(id) = REQUEST_IDS.iter().find_map(|name| shown_header(name)) {
        facts.insert("request_id".to_owned(), id.into());
    }
    if let Some(error) = answer.encoded_header("x-tfs-serviceerror") {
        facts.insert("service_error".to_owned(), error.into());
    }
    for (header, fact) in RATE_LIMITS {
        if let Some(value) = shown_header(header) {
            facts.insert(fact.to_owned(), value.into());
        }
    }
    if let Some(wait) = answer.retry_after() {
        facts.insert("retry_after_s".to_owned(), wait.as_secs().into());
    }
    facts
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
    if answer.status == 200 {
        return answer.good_json(expected);
    }
    if let Some(error) = by_code(answer) {
        return Err(error);
    }
    match answer.status {
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

/// Whether IIS Basic Authentication took a token for a Windows password, by the refusal of the first call and
/// by what was offered before it.
///
/// With it on, IIS looks at the header before the application does, tries to log on to Windows with the token,
/// and refuses by itself. That shows in one of two ways:
/// - the application had answered before (its marks were on the anonymous answer, because IIS lets those pass
///   who bring no header), and the refusal comes from IIS: its name in `Server`, a page of HTML, no marks;
/// - Basic is offered in the way of IIS, by something that is IIS or has the application behind it. A gateway
///   with a realm of its own is neither.
///
/// The application's own refusal has neither: its body is empty, its marks are there, its realm is a URL.
pub(super) fn is_iis_basic(answer: &Answer, before: &Greeting) -> bool {
    let server = answer.header("server").unwrap_or_default().to_ascii_lowercase();
    let is_iis = IIS.iter().any(|name| server.starts_with(name));
    let is_page = answer.content_type().is_some_and(|kind| kind == "text/html");
    let offers_basic = answer.schemes().iter().any(|scheme| scheme.eq_ignore_ascii_case("basic"));
    let refused_by_iis = is_iis && is_page && offers_basic && before.shows_marks && !shows_marks(answer);
    let offered_by_iis =
        (before.offers_iis_basic || offers_iis_basic(answer)) && (is_iis || before.shows_marks);
    answer.status == 401 && (refused_by_iis || offered_by_iis)
}

/// Whether Basic is offered with a realm that is no URL. The realm of Azure DevOps is its own URL, that of IIS a
/// host name or what its administrator typed.
fn offers_iis_basic(answer: &Answer) -> bool {
    answer.headers("www-authenticate").any(|value| {
        let Some((scheme, rest)) = value.split_once(' ') else { return false };
        let realm = rest.trim_start().strip_prefix("realm=").map(|realm| realm.trim_matches('"'));
        scheme.eq_ignore_ascii_case("basic") && realm.is_some_and(|realm| !realm.contains("://"))
    })
}

/// What a documented code in the answer means, whatever the status.
fn by_code(answer: &Answer) -> Option<ProviderError> {
    let said = said(answer).or_else(|| title(answer))?;
    let codes: Vec<&str> = codes(&said).collect();
    let has = |code: &str| codes.contains(&code);
    let number = answer.json().and_then(|json| number(&json, "errorCode"));
    if has(LOCKED) || number.is_some_and(|number| LOCKED_IN_WINDOWS.contains(&number)) {
        return Some(ProviderError::Denied(Denied::Locked { said }));
    }
    if POLICY.iter().any(|code| has(code)) {
        return Some(ProviderError::Denied(Denied::PolicyBlocks { said }));
    }
    if has(COLLECTION_UNAVAILABLE) {
        return Some(ProviderError::Unavailable { said });
    }
    has(TOO_MUCH).then(|| ProviderError::RateLimited { retry_after: answer.retry_after() })
}

/// The codes in a message: `TF`, `VS` or `AADSTS` and a number.
fn codes(message: &str) -> impl Iterator<Item = &str> {
    message.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| {
        let number = ["TF", "VS", "AADSTS"].iter().find_map(|prefix| word.strip_prefix(prefix));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
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

/// What the server says in the fields that are there for it.
fn said(answer: &Answer) -> Option<String> {
    answer.field("message").or_else(|| answer.encoded_header("x-tfs-serviceerror"))
}

/// The title of a page. The cloud edition puts the code and the message of a refusal there for browsers.
fn title(answer: &Answer) -> Option<String> {
    if answer.content_type().as_deref() != Some("text/html") {
        return None;
    }
    let page = answer.beginning(MAX_TITLE_BYTES);
    let (_, rest) = page.split_once("<title>")?;
    let (title, _) = rest.split_once("</title>")?;
    Some(shown(title, MAX_TEXT_CHARS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::rest::tests::answer;

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");
    const HTML: (&str, &str) = ("content-type", "text/html; charset=us-ascii");

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
    fn iis_shows_in_its_own_refusal_and_in_its_realm() {
        let marks = ("x-tfs-processid", "1");
        let iis = ("server", "Microsoft-IIS/10.0");
        let basic = ("www-authenticate", "Basic realm=\"https://ado.corp/tfs\"");
        let by_iis = ("www-authenticate", "Basic realm=\"ado.corp\"");
        let greeting = |headers: &[(&'static str, &str)]| Greeting::of(&answer(401, headers, ""));
        let refusal = |headers: &[(&'static str, &str)]| answer(401, headers, "<html>401</html>");
        let application = greeting(&[marks, iis, basic]);
        assert!(is_iis_basic(&refusal(&[iis, HTML, basic]), &application));
        assert!(is_iis_basic(&refusal(&[iis, by_iis]), &Greeting::default()));
        assert!(is_iis_basic(&refusal(&[iis, basic]), &greeting(&[marks, basic, by_iis])));
        // The application's own refusal, IIS's without Basic, and a server of which nothing was seen before.
        assert!(!is_iis_basic(&refusal(&[marks, iis, basic]), &application));
        assert!(!is_iis_basic(&refusal(&[iis, HTML, ("www-authenticate", "NTLM")]), &application));
        assert!(!is_iis_basic(&refusal(&[iis, HTML, basic]), &Greeting::default()));
        // A gateway with a realm of its own.
        assert!(!is_iis_basic(&refusal(&[("server", "nginx"), by_iis]), &greeting(&[by_iis])));
    }

    #[test]
    fn documented_codes_decide_before_the_status() {
        let coded = |status: u16, message: &str, code: i64| {
            let body = serde_json::json!({"message": message, "errorCode": code}).to_string();
            judged(status, &[JSON], &body, Names::NONE)
        };
        assert!(matches!(
            coded(401, "VS403463: The conditional access policy has failed.", 0),
            ProviderError::Denied(Denied::PolicyBlocks { said }) if said.starts_with("VS403463")
        ));
        assert!(matches!(
            coded(400, "AADSTS50053: The account is locked.", 0),
            ProviderError::Denied(Denied::Locked { .. })
        ));
        for code in [1909, -2_147_022_987] {
            assert!(matches!(coded(401, "no", code), ProviderError::Denied(Denied::Locked { .. })));
        }
        assert!(matches!(coded(500, "TF24668: not available", 0), ProviderError::Unavailable { .. }));
        assert!(matches!(coded(503, "TF400733: cancelled", 0), ProviderError::RateLimited { .. }));
        // A longer number is another code.
        assert!(matches!(coded(401, "VS4034631: other", 0), ProviderError::Denied(Denied::Rejected)));
        let encoded = [("x-tfs-serviceerror", "VS403463%3A%20The%20policy%20has%20failed")];
        assert!(matches!(
            judged(403, &encoded, "", Names::NONE),
            ProviderError::Denied(Denied::PolicyBlocks { .. })
        ));
        let page = "<!DOCTYPE html><html><head><title>VS403463: no</title>";
        assert!(matches!(
            judged(203, &[HTML], page, Names::NONE),
            ProviderError::Denied(Denied::PolicyBlocks { .. })
        ));
    }

    #[test]
    fn evidence_is_decoded_and_named() {
        let headers = [
            ("activityid", "a-1"),
            ("x-vss-e2eid", "e-2"),
            ("x-tfs-serviceerror", "TF400813%3A%20no"),
            ("x-ratelimit-remaining", "0"),
            ("retry-after", "7"),
        ];
        let facts = evidence(&answer(200, &headers, ""));
        assert_eq!(facts["request_id"], "e-2");
        assert_eq!(facts["service_error"], "TF400813: no");
        assert_eq!((&facts["rate_limit_remaining"], &facts["retry_after_s"]), (&"0".into(), &7.into()));
        assert!(evidence(&answer(200, &[], "")).is_empty());
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
