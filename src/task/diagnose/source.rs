//! What is wrong before anything goes out: the target, policy, the credential.

use super::{Finding, Subject};
use crate::credential::{CredentialKind, LoadError};
use crate::policy::{NotDeclared, Refusal};
use crate::provider::{Provider, Scope, azure_devops, detect, gitlab};
use crate::remote_url::{RemoteUrl, Scheme, UrlError};
use crate::report::Code;
use crate::task::target::TargetError;
use crate::workspace::PlaceError;

pub(super) fn target(error: &TargetError, subject: &Subject) -> Finding {
    match error {
        TargetError::Url(error) => url(error, subject),
        TargetError::Tfvc => (Code::TfvcNotSupported, subject.url.clone(), vec![]),
        TargetError::Refused(refusal) => refused(refusal),
    }
}

fn url(error: &UrlError, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        UrlError::Scheme(_) => (Code::SchemeNotAllowed, seen, vec![]),
        UrlError::Password => {
            let remedy = "Take the password out of the URL and name a credential of the agent's instead.";
            (Code::UrlInvalid, seen, vec![remedy.into()])
        }
        // What is shown of the target went through the scrubber, and that leaves the query out.
        UrlError::QueryOrFragment => {
            (Code::UrlInvalid, seen, vec![format!("Use {} without what follows it.", subject.url)])
        }
        UrlError::TooLong(_)
        | UrlError::ControlCharacters
        | UrlError::NotAUrl
        | UrlError::OptionLike(_)
        | UrlError::Host
        | UrlError::AmbiguousAddress
        | UrlError::Port
        | UrlError::Path => (Code::UrlInvalid, seen, vec![]),
    }
}

fn refused(refusal: &Refusal) -> Finding {
    let seen = refusal.to_string();
    match refusal {
        Refusal::PlainHttp => (Code::SchemeNotAllowed, seen, vec![]),
        Refusal::UnknownServer(name) => {
            let remedy =
                format!("Declare [servers.{name}] in the agent's configuration, or correct the name.");
            (Code::ServerNotDeclared, seen, vec![remedy])
        }
        Refusal::NotDeclared(NotDeclared::Host(_)) => (Code::ServerNotDeclared, seen, vec![]),
        Refusal::NotDeclared(NotDeclared::Endpoint { server, .. } | NotDeclared::Path { server, .. }) => {
            let remedy = format!(
                "Compare the URL with url and ssh of [servers.{server}] in the agent's configuration."
            );
            (Code::ServerNotDeclared, seen, vec![remedy])
        }
        Refusal::CredentialNotListed { server, credential } => {
            let remedy = format!(
                "Add \"{credential}\" to credentials of [servers.{server}], if it may be used there."
            );
            (Code::TaskNotAllowed, seen, vec![remedy])
        }
    }
}

pub(super) fn place(error: &PlaceError) -> Finding {
    let seen = error.to_string();
    match error {
        PlaceError::NotAllowed { directory } => {
            let remedy = format!(
                "Leave `directory` out of the task, or add a directory above {} to workspaces.directories.",
                directory.display()
            );
            (Code::TaskNotAllowed, seen, vec![remedy])
        }
        PlaceError::Full { .. } => {
            let remedies = [
                "Remove workspaces that nobody needs any more: sortie workspaces prune --all.",
                "Raise workspaces.bytes, or lower workspaces.ttl_seconds, in the agent's configuration.",
            ];
            (Code::DiskFull, seen, remedies.map(str::to_owned).to_vec())
        }
    }
}

pub(super) fn load(error: &LoadError, subject: &Subject) -> Finding {
    let is_key = subject.kind == Some(CredentialKind::SshKey);
    let (missing, unreadable) = if is_key {
        (Code::SshKeyUnreadable, Code::SshKeyUnreadable)
    } else {
        (Code::CredentialMissing, Code::CredentialUnreadable)
    };
    let seen = error.to_string();
    match error {
        LoadError::Unknown { name } => {
            let remedy =
                format!("Declare [credentials.{name}] in the agent's configuration, or correct the name.");
            (Code::CredentialMissing, seen, vec![remedy])
        }
        LoadError::Missing { source_name } => {
            (missing, seen, vec![format!("Put the secret where the agent looks for it: {source_name}.")])
        }
        LoadError::OutsideOfUnit { name } => {
            let remedy = format!(
                "Run this inside the unit that has LoadCredential={name}, or give the secret as a file."
            );
            (Code::CredentialMissing, seen, vec![remedy])
        }
        LoadError::Empty { source_name } => {
            (Code::CredentialMissing, seen, vec![format!("Write the secret into {source_name}.")])
        }
        LoadError::Unreadable { source_name, .. } => {
            (unreadable, seen, vec![format!("Let the agent's user read {source_name}.")])
        }
        LoadError::TooOpen { path, .. } => {
            let remedy = format!(
                "Run: chmod 600 {} (or set strict_modes = false for the credential, where the platform mounts it so).",
                path.display()
            );
            (unreadable, seen, vec![remedy])
        }
        LoadError::TooLarge { source_name } | LoadError::NotText { source_name } => (
            unreadable,
            seen,
            vec![format!("Check that {source_name} is the secret itself and nothing else.")],
        ),
    }
}

pub(super) fn kind_mismatch(subject: &Subject) -> Finding {
    let kind = subject.kind.map_or("unknown", CredentialKind::as_str);
    let seen = format!("a credential of the kind {kind} for {}", subject.url);
    let remedy = by_other_way(subject).map(|url| format!("With this credential the URL is {url}."));
    (Code::CredentialKindMismatch, seen, remedy.into_iter().collect())
}

/// The URL of the same repository for SSH where this one is for HTTPS, and the other way around, where it is known
/// whose grammar it follows.
fn by_other_way(subject: &Subject) -> Option<String> {
    let url = RemoteUrl::parse(&subject.url).ok()?;
    let scope = Some(Scope::Repository);
    let (https, ssh) = match subject.provider.or_else(|| detect::by_shape(&url))? {
        Provider::AzureDevops => {
            let place = azure_devops::Place::parse(&url, None, scope);
            (place.canonical_https(), place.canonical_ssh())
        }
        Provider::Gitlab => {
            let place = gitlab::Place::parse(&url, "", scope)?;
            (place.canonical_https(), place.canonical_ssh())
        }
        Provider::Git => return None,
    };
    if url.scheme() == Scheme::Ssh { Some(https.to_string()) } else { ssh }
}

pub(super) fn no_credential(subject: &Subject) -> Finding {
    let seen = "the server demands one, and none is named".to_owned();
    let remedy = format!(
        "Name a credential: credential of {} in the configuration or of the task; on the command line \
         --pat-file, --password-file, --bearer-file or --ssh-key.",
        subject.table()
    );
    (Code::CredentialMissing, seen, vec![remedy])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_of_the_wrong_kind_is_told_the_url_that_it_is_for() {
        let other = |url: &str| by_other_way(&Subject { url: url.to_owned(), ..Subject::default() });
        let cases = [
            (
                "https://dev.azure.com/org/My%20Shop/_git/web",
                Some("git@ssh.dev.azure.com:v3/org/My%20Shop/web"),
            ),
            ("ssh://ssh.dev.azure.com/v3/org/Shop/web", Some("https://dev.azure.com/org/Shop/_git/web")),
            ("ssh://ado.corp/tfs/Coll/Shop/_git/web", Some("https://ado.corp/tfs/Coll/Shop/_git/web")),
            ("https://gitlab.com/group/sub/web", Some("ssh://git@gitlab.com/group/sub/web.git")),
            ("https://git.corp/web", None),
        ];
        for (url, expected) in cases {
            assert_eq!(other(url).as_deref(), expected, "{url}");
        }
    }
}
