//! What is wrong before anything goes out: the target, policy, the credential.

use super::{Finding, Subject};
use crate::credential::{CredentialKind, LoadError};
use crate::policy::{NotDeclared, Refusal};
use crate::remote_url::UrlError;
use crate::report::Code;
use crate::task::target::TargetError;

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

pub(super) fn no_workspaces() -> Finding {
    let remedy = "Set agent.state_dir in the agent's configuration.";
    (Code::TaskNotAllowed, "this agent has no directory for workspaces".into(), vec![remedy.into()])
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
    (Code::CredentialKindMismatch, seen, vec![])
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
