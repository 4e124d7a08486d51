//! What the server itself says no to: its API and its git.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use super::{Finding, Subject, connection};
use crate::credential::CredentialKind;
use crate::dial::HttpError;
use crate::git;
use crate::provider::rest::MAX_RETRY_AFTER;
use crate::provider::{Denied, Provider, ProviderError};
use crate::remote_url::RemoteUrl;
use crate::report::{Code, Stage};

/// The stage where an error of the API shows, given the one that ran.
pub(super) fn provider_stage(error: &ProviderError, running: Option<Stage>) -> Stage {
    match error {
        ProviderError::Http(HttpError::Dial(error)) => error.stage(),
        ProviderError::NotThisServer { .. }
        | ProviderError::WrongBasePath { .. }
        | ProviderError::CollectionUnknown { .. }
        | ProviderError::NamesItselfElsewhere { .. }
        | ProviderError::TooOld { .. } => Stage::Identify,
        ProviderError::Denied(_) | ProviderError::CredentialDemanded | ProviderError::SignInPage { .. } => {
            Stage::Authenticate
        }
        ProviderError::Forbidden { .. } | ProviderError::ProjectHidden { .. } => Stage::Authorize,
        ProviderError::RepositoryHidden { .. }
        | ProviderError::RepositoryDisabled
        | ProviderError::RepositoryMoved { .. } => Stage::Repository,
        ProviderError::Http(_)
        | ProviderError::RateLimited { .. }
        | ProviderError::ServerError { .. }
        | ProviderError::Unavailable { .. }
        | ProviderError::Redirected { .. }
        | ProviderError::Unexpected { .. } => running.unwrap_or(Stage::Identify),
    }
}

pub(super) fn provider(error: &ProviderError, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        ProviderError::Http(error) => connection::http(error, subject),
        ProviderError::NotThisServer { .. } => (Code::NotAGitServer, seen, vec![]),
        ProviderError::WrongBasePath { answered, .. } => {
            let remedy = match answered.starts_with('/') {
                true => below_base(answered, subject),
                false => "Name the collection in the URL: https://host[/tfs]/{collection}/{project}/_git/{repository}.".into(),
            };
            (Code::WrongBasePath, seen, vec![remedy])
        }
        ProviderError::CollectionUnknown { asked, right, known } => {
            collection_unknown(asked, right.as_deref(), known, subject)
        }
        ProviderError::NamesItselfElsewhere { named } => {
            let seen = format!("it was asked as {} and sends requests on to {named}", subject.host);
            (Code::PublicUrlIsLocalhost, seen, vec![])
        }
        ProviderError::TooOld { .. } => (Code::ServerTooOld, seen, vec![]),
        ProviderError::Denied(denied) => refused(denied, subject),
        ProviderError::CredentialDemanded => super::source::no_credential(subject),
        ProviderError::SignInPage { status } => (Code::SignInPage, format!("status {status}"), vec![]),
        ProviderError::Forbidden { scopes, said } => scope_missing(scopes, said.as_deref(), subject),
        ProviderError::ProjectHidden { name, near } => {
            (Code::ProjectNotFoundOrDenied, format!("the project is `{name}`"), perhaps(near))
        }
        ProviderError::RepositoryHidden { name, near } => {
            (Code::RepositoryNotFoundOrDenied, format!("the repository is `{name}`"), perhaps(near))
        }
        ProviderError::RepositoryDisabled => (Code::RepositoryDisabled, String::new(), vec![]),
        ProviderError::RepositoryMoved { to: Some(to) } => {
            (Code::RepositoryMoved, format!("it is at {to} now"), vec![format!("Use {to}.")])
        }
        ProviderError::RepositoryMoved { to: None } => (Code::RepositoryMoved, String::new(), vec![]),
        ProviderError::RateLimited { retry_after } => rate_limited(*retry_after),
        ProviderError::ServerError { status } => server_error(*status),
        ProviderError::Unavailable { .. } => (Code::ServerUnavailable, seen, vec![]),
        ProviderError::Redirected { status, location } => redirected(*status, location.as_deref()),
        ProviderError::Unexpected { expected, status, content_type, first } => {
            unexpected(expected, *status, content_type.as_deref(), first)
        }
    }
}

fn collection_unknown(asked: &str, right: Option<&str>, known: &[String], subject: &Subject) -> Finding {
    let mut seen = match asked {
        "" => "the URL names no collection".to_owned(),
        asked => format!("the server has no collection `{asked}`"),
    };
    if !known.is_empty() {
        seen += &format!("; the server has {}", known.join(", "));
    }
    let remedy = match right {
        Some(right) if subject.is_by_flags => format!("Use {}.", right_url(right, subject)),
        Some(right) => format!("Use {}, and correct url of {}.", right_url(right, subject), subject.table()),
        None => {
            "Name the collection in the URL: https://host[/tfs]/{collection}/{project}/_git/{repository}."
                .into()
        }
    };
    (Code::WrongBasePath, seen, vec![remedy])
}

/// The target's URL with another path.
fn right_url(path: &str, subject: &Subject) -> String {
    RemoteUrl::parse(&subject.url).map_or_else(|_| path.to_owned(), |url| url.with_path(path).to_string())
}

pub(super) fn git(error: &git::Error, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        git::Error::Http(error) => connection::http(error, subject),
        git::Error::Ssh(error) => super::ssh::finding(error, subject),
        git::Error::Unauthorized { .. } if subject.kind.is_none() => super::source::no_credential(subject),
        git::Error::Unauthorized { schemes, .. } => refused(&denied_by(schemes), subject),
        git::Error::Forbidden { body, .. } => scope_missing(&git_scopes(subject), Some(body), subject),
        git::Error::NotFound { .. } => (Code::RepositoryNotFoundOrDenied, subject.url.clone(), vec![]),
        git::Error::RateLimited { retry_after } => rate_limited(*retry_after),
        // A page that pretends that all is well comes from a portal or a web server, and not from a sign-in.
        git::Error::SignInPage { status: 200, .. } => {
            unexpected("git's list of references", 200, Some("a page of HTML"), "")
        }
        git::Error::SignInPage { status, .. } => (Code::SignInPage, format!("status {status}"), vec![]),
        git::Error::Redirected { location, same_origin: true, .. } => {
            (Code::RepositoryMoved, format!("it redirects to {location}"), vec![format!("Use {location}.")])
        }
        git::Error::Redirected { status, location, same_origin: false } => {
            redirected(*status, Some(location))
        }
        git::Error::ServerError { status, .. } => server_error(*status),
        git::Error::PackRefused { status, body } => pack_refused(*status, body),
        git::Error::Lost { how, .. } => (Code::ConnectionLost, seen, vec![lost(*how)]),
        git::Error::GaveUp { message } => (Code::ServerGaveUp, quoted(message), vec![]),
        git::Error::DumbHttp => (Code::DumbHttp, subject.url.clone(), vec![]),
        git::Error::UnexpectedAnswer { status, content_type, first_bytes } => {
            unexpected("git's list of references", *status, content_type.as_deref(), first_bytes)
        }
        git::Error::RepositoryUnavailable { message, .. } => {
            let seen =
                if message.is_empty() { subject.url.clone() } else { format!("the server says `{message}`") };
            (Code::RepositoryNotFoundOrDenied, seen, vec![])
        }
        git::Error::Protocol { first_bytes } => {
            (Code::UnexpectedAnswer, format!("{seen}; it begins with `{first_bytes}`"), vec![])
        }
        git::Error::Lfs(error) => super::lfs::finding(error, subject),
        git::Error::ReferenceInvalid { .. }
        | git::Error::ReferenceNotFound { .. }
        | git::Error::DefaultBranchMissing { .. }
        | git::Error::NotACommit { .. }
        | git::Error::Empty
        | git::Error::PathNotFound { .. }
        | git::Error::TargetNotEmpty { .. }
        | git::Error::Target { .. }
        | git::Error::DiskFull { .. }
        | git::Error::TooLarge { .. }
        | git::Error::PackCorrupt(_)
        | git::Error::UnsafePath { .. }
        | git::Error::Shallow
        | git::Error::Delivery { .. }
        | git::Error::Cancelled
        | git::Error::DeadlineExceeded
        | git::Error::Internal { .. } => repository(error),
    }
}

fn repository(error: &git::Error) -> Finding {
    let seen = error.to_string();
    match error {
        git::Error::ReferenceInvalid { .. } => (Code::ReferenceNotFound, seen, vec![]),
        git::Error::ReferenceNotFound { near, .. } => (Code::ReferenceNotFound, seen, perhaps(near)),
        git::Error::DefaultBranchMissing { branches, .. } => {
            (Code::ReferenceNotFound, seen, default_branch(branches))
        }
        git::Error::NotACommit { .. } => (Code::ReferenceNotACommit, seen, vec![]),
        git::Error::Empty => (Code::RepositoryEmpty, String::new(), vec![]),
        git::Error::TargetNotEmpty { path } => (Code::TargetNotEmpty, path.display().to_string(), vec![]),
        git::Error::Target { path, source } => {
            (Code::DeliveryFailed, seen, vec![target(path, source.kind())])
        }
        git::Error::DiskFull { path } => (Code::DiskFull, path.display().to_string(), vec![]),
        git::Error::TooLarge { what: git::Limit::AnswerBytes, .. } => {
            (Code::TooLarge, seen, vec!["Ask for fewer or smaller files, or make a clone.".to_owned()])
        }
        git::Error::TooLarge { what, .. } => (Code::TooLarge, seen, vec![too_large(*what)]),
        git::Error::PackCorrupt(_) => (Code::PackCorrupt, seen, vec![]),
        git::Error::UnsafePath { path } => (Code::UnsafePath, format!("`{path}`"), vec![]),
        git::Error::PathNotFound { near, .. } => (Code::PathNotFound, seen, perhaps(near)),
        git::Error::Shallow => {
            let remedy = "Have an archive or a workspace delivered: a bundle takes the whole history.";
            (Code::DeliveryFailed, seen, vec![remedy.to_owned()])
        }
        git::Error::Delivery { .. } => (Code::DeliveryFailed, seen, vec![]),
        git::Error::Cancelled => (Code::Cancelled, String::new(), vec![]),
        git::Error::DeadlineExceeded => (Code::DeadlineExceeded, String::new(), vec![]),
        other => (Code::Internal, other.to_string(), vec![]),
    }
}

/// What lets a repository through that is over a limit: a setting, where there is one for it.
fn too_large(what: git::Limit) -> String {
    match what.setting() {
        Some(key) => {
            format!(
                "Raise {key} in [limits] of the agent's configuration, or ask for less: a depth, for example."
            )
        }
        None => format!(
            "This limit on {} is fixed. Ask for less: other paths, a smaller list, or a clone instead of an answer.",
            what.as_str()
        ),
    }
}

/// What makes a target writable.
fn target(path: &Path, kind: ErrorKind) -> String {
    let path = path.display();
    match kind {
        ErrorKind::InvalidFilename => format!(
            "A name in the repository is longer than the file system of {path} allows, 255 bytes on most: clone to \
             another file system, leave its directory out with --path (paths in a task), or rename the file."
        ),
        ErrorKind::ReadOnlyFilesystem => {
            format!("Mount the file system of {path} writable, or choose another target.")
        }
        _ => format!("Let the agent's user write to {path}."),
    }
}

/// What to do where `HEAD` leads nowhere.
fn default_branch(branches: &[String]) -> Vec<String> {
    let ask = match branches {
        [] => "Ask for a branch by its name.".to_owned(),
        [first, ..] => {
            format!("Ask for a branch by its name (--ref {first}); there is {}.", branches.join(", "))
        }
    };
    vec![ask, "Or choose another default branch in the repository's settings on the server.".to_owned()]
}

/// A refusal right after the same credential was given the list of references.
fn pack_refused(status: u16, body: &str) -> Finding {
    let said = if body.is_empty() { String::new() } else { format!(", and says `{body}`") };
    let seen = format!("status {status} to POST …/git-upload-pack{said}");
    let remedy = match status {
        413 => {
            "Raise the limit for the bodies of requests in the proxy in front of the server (client_max_body_size in nginx)."
        }
        _ => {
            "Have whatever is in front of the git server, a proxy or a web application firewall, pass POST requests to paths \
             that end in /git-upload-pack."
        }
    };
    (Code::GatewayRefused, seen, vec![remedy.to_owned()])
}

fn lost(how: git::Loss) -> String {
    match how {
        git::Loss::Cut => {
            "Try again. Where it ends at about the same size or after the same time, raise the limit or the \
                           timeout of the proxy or load balancer in front of the server."
        }
        git::Loss::Silence { .. } => {
            "Look at the load of the server, and for a firewall on the way that forgets quiet \
                                      connections."
        }
    }
    .to_owned()
}

/// The right URL, where the server has told its base path.
fn below_base(answered: &str, subject: &Subject) -> String {
    match RemoteUrl::parse(&subject.url) {
        Ok(url) => {
            let base = answered.trim_end_matches('/');
            let (right, root) = (url.with_path(&format!("{base}{}", url.path())), url.with_path(base));
            if subject.is_by_flags {
                return format!("Use {right}.");
            }
            format!("Use {right}; url of {} begins with {root}.", subject.table())
        }
        Err(_) => format!(
            "Put {answered} between host and project in the URL, and into url of {}.",
            subject.table()
        ),
    }
}

/// A remedy that names what could have been meant; none where nothing is like it.
fn perhaps(near: &[String]) -> Vec<String> {
    if near.is_empty() {
        vec![]
    } else {
        vec![format!("Perhaps one of these is meant: {}.", near.join(", "))]
    }
}

/// A 401 that offers only Windows' own schemes means that Basic never reaches the server.
fn denied_by(schemes: &[String]) -> Denied {
    let offers = |name: &str| schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case(name));
    if (offers("NTLM") || offers("Negotiate")) && !offers("Basic") && !offers("Bearer") {
        Denied::BasicNotOffered { schemes: schemes.to_vec() }
    } else {
        Denied::Rejected
    }
}

fn refused(denied: &Denied, subject: &Subject) -> Finding {
    let credential = subject.credential.as_deref().map(|name| format!("the credential is `{name}`"));
    let seen = credential.unwrap_or_default();
    match denied {
        Denied::BasicNotOffered { schemes } => {
            return (Code::BasicNotOffered, format!("it offers {}", schemes.join(", ")), vec![]);
        }
        Denied::Locked { said } => return (Code::AccountLocked, quoted(said), vec![]),
        Denied::PolicyBlocks { said } => return (Code::PolicyBlocksToken, quoted(said), vec![]),
        Denied::TokenNeeded { said } if subject.kind == Some(CredentialKind::Password) => {
            return (Code::TwoFactorRequired, quoted(said), vec![]);
        }
        Denied::TokenNeeded { .. }
        | Denied::IisBasic
        | Denied::Rejected
        | Denied::Expired
        | Denied::Revoked => {}
    }
    match subject.kind {
        None => super::source::no_credential(subject),
        Some(CredentialKind::Password) => (Code::PasswordRejected, seen, password_remedies(subject)),
        Some(CredentialKind::Bearer) => (Code::BearerRejected, seen, vec![]),
        Some(CredentialKind::SshKey) => (Code::SshKeyRejected, seen, vec![]),
        Some(CredentialKind::Pat) => match denied {
            Denied::Expired => (Code::PatExpired, seen, vec![]),
            Denied::Revoked => (Code::PatRejected, "it was revoked".into(), vec![]),
            Denied::IisBasic => (Code::IisBasicConflict, seen, vec![]),
            _ => (Code::PatRejected, seen, vec![]),
        },
    }
}

/// What the server itself said, as a clause.
fn quoted(said: &str) -> String {
    format!("the server says `{}`", said.trim_end_matches('.'))
}

fn password_remedies(subject: &Subject) -> Vec<String> {
    match subject.provider {
        Some(Provider::Gitlab) => vec![
            "Newer releases of GitLab refuse the right password alike where two-factor authentication is on or passwords \
             are off for git: use an access token with the scope read_repository, as a credential of the kind pat."
                .into(),
        ],
        Some(Provider::AzureDevops | Provider::Git) | None => vec![],
    }
}

pub(super) fn scope_missing(scopes: &[String], said: Option<&str>, subject: &Subject) -> Finding {
    let mut seen = match scopes {
        [] => String::new(),
        scopes => format!("it lacks {}", scopes.join(", ")),
    };
    if let Some(said) = said.filter(|said| !said.is_empty()) {
        let joint = if seen.is_empty() { "" } else { "; " };
        seen += &format!("{joint}the server says `{}`", said.trim_end_matches('.'));
    }
    let names: Vec<String> = scopes.iter().map(|scope| described(scope)).collect();
    let remedy = match (subject.kind, names.is_empty()) {
        (Some(CredentialKind::Pat | CredentialKind::Bearer), false) => {
            vec![format!("Give the token the scope {}.", names.join(" and "))]
        }
        _ => vec![],
    };
    (Code::ScopeMissing, seen, remedy)
}

/// A scope as the page for making tokens names it, with its own name.
fn described(scope: &str) -> String {
    let title = match scope {
        "vso.code" => "Code (Read)",
        "vso.project" => "Project and Team (Read)",
        other => return other.to_owned(),
    };
    format!("{title}, {scope}")
}

fn git_scopes(subject: &Subject) -> Vec<String> {
    match subject.provider {
        Some(Provider::AzureDevops) => vec!["vso.code".into()],
        Some(Provider::Gitlab) => vec!["read_repository".into()],
        Some(Provider::Git) | None => vec![],
    }
}

fn rate_limited(retry_after: Option<Duration>) -> Finding {
    match retry_after {
        Some(wait) => {
            // What is clamped has been longer.
            let at_least = if wait >= MAX_RETRY_AFTER { "at least " } else { "" };
            let seconds = wait.as_secs();
            (
                Code::RateLimited,
                format!("it asks to wait {at_least}{seconds} s"),
                vec![
                    format!("Try again in {at_least}{seconds} s."),
                    "Spread the tests, or have the limit raised for the credential's user.".to_owned(),
                ],
            )
        }
        None => (Code::RateLimited, String::new(), vec![]),
    }
}

fn server_error(status: u16) -> Finding {
    let code = if matches!(status, 502..=504) { Code::ServerUnavailable } else { Code::ServerError };
    (code, format!("status {status}"), vec![])
}

fn redirected(status: u16, location: Option<&str>) -> Finding {
    let seen = match location {
        Some(location) => format!("status {status} redirects to {location}, which is not followed"),
        None => format!("status {status} redirects nowhere"),
    };
    (Code::UnexpectedAnswer, seen, vec![])
}

fn unexpected(expected: &str, status: u16, content_type: Option<&str>, first: &str) -> Finding {
    let kind = content_type.unwrap_or("no content type");
    let begins = if first.is_empty() { String::new() } else { format!(", beginning with `{first}`") };
    (Code::UnexpectedAnswer, format!("expected {expected}, got status {status} with {kind}{begins}"), vec![])
}
