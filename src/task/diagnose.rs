//! The one edge where errors become diagnoses: a code, what was seen, and remedies that name the actual thing.
//!
//! Every match here is exhaustive, so that a new way to fail cannot be without a diagnosis.

mod compose;
mod connection;
mod deliver;
mod lfs;
mod proxy;
mod remote;
mod source;
mod ssh;
mod submodule;

use std::time::Duration;

use crate::artifact::UploadError;
use crate::config::Server;
use crate::credential::{CredentialKind, LoadError};
use crate::dial::{ClockOffset, DialError};
use crate::git;
use crate::provider::{Provider, ProviderError, gitlab};
use crate::remote_url::Scheme;
use crate::report::{Code, Diagnosis, Stage};

pub(super) use compose::advised;
pub(super) use submodule::refused as submodule_refused;

use super::stop::Stopped;
use super::target::TargetError;
use crate::workspace::PlaceError;

/// Why a task did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Policy says no, or the target is none.
    Target(TargetError),
    /// There is no place for the clone on this host.
    Place(PlaceError),
    /// The credential could not be had.
    Load(LoadError),
    /// The credential cannot be used with such a URL.
    KindMismatch,
    /// No credential was named, and without one it does not go.
    NoCredential,
    /// There is no connection.
    Dial(DialError),
    /// The API did not answer what it should.
    Provider(ProviderError),
    /// The credential is good and lacks these scopes.
    ScopeMissing {
        /// By the provider's own names.
        scopes: Vec<String>,
        /// The server's own words.
        said: Option<String>,
    },
    /// Git did not do what it should.
    Git(git::Error),
    /// There is no control plane that an artifact could go to.
    NoUploads,
    /// The artifact did not get to the control plane.
    Upload(UploadError),
    /// A submodule could not be taken along.
    Submodule(Box<OfSubmodule>),
    /// The time was over, or the task was cancelled.
    Stopped(Stopped),
}

/// Which submodule it was, and why.
#[derive(Debug)]
pub(super) struct OfSubmodule {
    /// Where it is in the clone.
    pub(super) path: String,
    /// What there is to know of its target.
    pub(super) subject: Subject,
    /// What went wrong.
    pub(super) failure: Failure,
}

/// What a failure is about, for remedies that name the actual thing.
#[derive(Debug, Clone, Default)]
pub(super) struct Subject {
    /// The kind of server, as far as it is known.
    pub(super) provider: Option<Provider>,
    /// The kind of the credential.
    pub(super) kind: Option<CredentialKind>,
    /// The credential's name.
    pub(super) credential: Option<String>,
    /// The URL as it is shown.
    pub(super) url: String,
    /// The host.
    pub(super) host: String,
    /// The declared server's name.
    pub(super) server: Option<String>,
    /// Whether the server is declared by the flags of the command line and has no table.
    pub(super) is_by_flags: bool,
    /// Where the declared server's web page is, without a slash at its end.
    pub(super) web_url: Option<String>,
    /// The server's own file of known hosts.
    pub(super) known_hosts_file: Option<String>,
    /// The server's own CA file.
    pub(super) ca_file: Option<String>,
    /// Whether it is the way to the control plane, which has a table of its own.
    pub(super) is_control_plane: bool,
    /// How far this host's clock was from another one, where a date is in question.
    pub(super) clock: Option<ClockOffset>,
}

impl Subject {
    pub(super) fn set_server(&mut self, server: &Server) {
        let shown = |path: &std::path::PathBuf| path.display().to_string();
        // The command line declares a server under a name that no configuration can have.
        self.server = Some(server.name.clone()).filter(|name| !name.contains(' '));
        self.is_by_flags = self.server.is_none();
        self.provider = self.provider.or(server.provider);
        self.web_url = (server.url.scheme() != Scheme::Ssh).then(|| server.url.to_string());
        self.known_hosts_file = server.known_hosts_file.as_ref().map(shown);
        self.ca_file = server.ca_file.as_ref().map(shown);
    }

    pub(super) fn set_credential(&mut self, name: &str) {
        self.credential = Some(name.to_owned()).filter(|name| !name.contains(' '));
    }

    /// The table of the configuration that declares the server.
    fn table(&self) -> String {
        if self.is_control_plane {
            return "[control_plane]".to_owned();
        }
        format!("[servers.{}]", self.server.as_deref().unwrap_or("<name>"))
    }

    /// Where a key of the server is given: in its table, or by a flag where the command line declares the server.
    fn setting(&self, key: &str, flag: &str) -> String {
        match (self.is_by_flags, &self.server, self.is_control_plane) {
            (true, _, false) => flag.to_owned(),
            (false, None, false) => format!("{key} of {} ({flag} on the command line)", self.table()),
            _ => format!("{key} of {}", self.table()),
        }
    }
}

/// Code, what was seen, and the remedies that name the actual thing.
type Finding = (Code, String, Vec<String>);

impl From<git::Error> for Failure {
    fn from(error: git::Error) -> Self {
        match error {
            git::Error::Cancelled => Self::Stopped(Stopped::Cancelled),
            git::Error::DeadlineExceeded => Self::Stopped(Stopped::DeadlineExceeded),
            error => Self::Git(error),
        }
    }
}

impl From<UploadError> for Failure {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Cancelled => Self::Stopped(Stopped::Cancelled),
            UploadError::DeadlineExceeded => Self::Stopped(Stopped::DeadlineExceeded),
            error => Self::Upload(error),
        }
    }
}

impl Failure {
    /// What git's error means on a server of that kind: GitLab's git says in words of its own why somebody whom
    /// it knows may not go on.
    pub(super) fn of_git(error: git::Error, provider: Option<Provider>) -> Self {
        match &error {
            git::Error::Unauthorized { body, .. }
            | git::Error::Forbidden { body, .. }
            | git::Error::PackRefused { body, .. }
                if provider == Some(Provider::Gitlab) =>
            {
                match gitlab::reason(body) {
                    Some(denied) => Self::Provider(ProviderError::Denied(denied)),
                    None => error.into(),
                }
            }
            // Nobody but a server with scopes and roles tells one who is signed in from one who is not by a 403.
            git::Error::Forbidden { .. }
                if !matches!(provider, Some(Provider::AzureDevops | Provider::Gitlab)) =>
            {
                let message = "403 Forbidden".to_owned();
                Self::Git(git::Error::RepositoryUnavailable { exit_status: None, message })
            }
            _ => error.into(),
        }
    }

    /// The stage where it shows, given the one that ran.
    pub(super) fn stage(&self, running: Option<Stage>) -> Stage {
        let running_or = |stage| running.unwrap_or(stage);
        match self {
            Self::Target(_) | Self::Place(_) => Stage::Policy,
            Self::Load(_) | Self::KindMismatch | Self::NoCredential => Stage::Authenticate,
            Self::Dial(error) => error.stage(),
            Self::Provider(error) => remote::provider_stage(error, running),
            Self::ScopeMissing { .. } | Self::Git(git::Error::Forbidden { .. }) => Stage::Authorize,
            Self::Git(git::Error::SignInPage { status: 200, .. }) => running_or(Stage::Repository),
            Self::Git(error) => error.stage(running),
            Self::NoUploads | Self::Upload(_) => Stage::Deliver,
            Self::Submodule(_) => Stage::Checkout,
            Self::Stopped(_) => running_or(Stage::Policy),
        }
    }
}

/// The diagnosis of a failure at a stage.
pub(super) fn failure(failure: &Failure, stage: Stage, subject: &Subject) -> Diagnosis {
    let subject = match failure {
        Failure::Submodule(submodule) => &submodule.subject,
        _ => subject,
    };
    let (code, seen, remedies) = finding(failure, stage, subject);
    advised(code, stage, seen.trim_end_matches('.'), remedies, subject)
}

fn finding(failure: &Failure, stage: Stage, subject: &Subject) -> Finding {
    match failure {
        Failure::Target(error) => source::target(error, subject),
        Failure::Place(error) => source::place(error),
        Failure::Load(error) => source::load(error, subject),
        Failure::KindMismatch => source::kind_mismatch(subject),
        Failure::NoCredential => source::no_credential(subject),
        Failure::Dial(error) => connection::dial(error, subject),
        Failure::Provider(error) => remote::provider(error, subject),
        Failure::ScopeMissing { scopes, said } => remote::scope_missing(scopes, said.as_deref(), subject),
        Failure::Git(error) => remote::git(error, subject),
        Failure::NoUploads => deliver::no_uploads(),
        Failure::Upload(error) => deliver::upload(error),
        Failure::Submodule(submodule) => submodule::finding(submodule, stage),
        Failure::Stopped(Stopped::Cancelled) => cancelled(stage),
        Failure::Stopped(Stopped::DeadlineExceeded) => deadline_exceeded(stage),
        Failure::Stopped(Stopped::StepTooLong { limit }) => step_too_long(stage, *limit),
    }
}

/// The diagnosis of a failed way to the control plane: it is the same way with the same causes.
pub fn control_plane(error: &DialError, url: &str, ca_file: Option<&std::path::Path>) -> Diagnosis {
    let subject = Subject {
        url: url.to_owned(),
        ca_file: ca_file.map(|file| file.display().to_string()),
        is_control_plane: true,
        ..Subject::default()
    };
    let (code, seen, remedies) = connection::dial(error, &subject);
    advised(code, error.stage(), seen.trim_end_matches('.'), remedies, &subject)
}

/// The diagnosis of an artifact that did not get to the control plane.
pub fn upload(error: &UploadError) -> Diagnosis {
    failure(&Failure::from(error.clone()), Stage::Deliver, &Subject::default())
}

fn cancelled(stage: Stage) -> Finding {
    (Code::Cancelled, format!("it was in the stage {}", stage.as_str()), vec![])
}

fn deadline_exceeded(stage: Stage) -> Finding {
    (Code::DeadlineExceeded, format!("it was in the stage {}", stage.as_str()), vec![])
}

fn step_too_long(stage: Stage, limit: Duration) -> Finding {
    let seen = format!("the server took more than {} s in the stage {}", limit.as_secs(), stage.as_str());
    (Code::DeadlineExceeded, seen, vec![])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::policy::{NotDeclared, Refusal};
    use crate::provider::Denied;
    use crate::remote_url::UrlError;

    fn subject(provider: Provider, kind: CredentialKind) -> Subject {
        Subject {
            provider: Some(provider),
            kind: Some(kind),
            credential: Some("ado_pat".into()),
            url: "https://ado.corp/Coll/Shop/_git/web".into(),
            host: "ado.corp".into(),
            server: Some("ado".into()),
            is_by_flags: false,
            web_url: None,
            known_hosts_file: Some("/etc/sortie/known_hosts".into()),
            ca_file: None,
            is_control_plane: false,
            clock: None,
        }
    }

    fn code_and_stage(failed: &Failure, subject: &Subject) -> (&'static str, &'static str) {
        let stage = failed.stage(Some(Stage::References));
        let diagnosis = failure(failed, stage, subject);
        assert!(!diagnosis.remedies.is_empty(), "{failed:?}");
        (diagnosis.code.as_str(), stage.as_str())
    }

    #[test]
    fn each_failure_has_its_code_and_stage() {
        let pat = subject(Provider::AzureDevops, CredentialKind::Pat);
        let password = subject(Provider::Gitlab, CredentialKind::Password);
        let rejected = || Failure::Provider(ProviderError::Denied(Denied::Rejected));
        let unauthorized = || git::Error::Unauthorized { schemes: vec![], body: String::new() };
        let cases = [
            (Failure::Target(UrlError::Password.into()), &pat, ("url_invalid", "policy")),
            (Failure::Target(UrlError::Scheme("file".into()).into()), &pat, ("scheme_not_allowed", "policy")),
            (Failure::Target(Refusal::PlainHttp.into()), &pat, ("scheme_not_allowed", "policy")),
            (Failure::Target(TargetError::Tfvc), &pat, ("tfvc_not_supported", "policy")),
            (
                Failure::Target(Refusal::NotDeclared(NotDeclared::Host("evil".into())).into()),
                &pat,
                ("server_not_declared", "policy"),
            ),
            (
                Failure::Load(LoadError::Unknown { name: "x".into() }),
                &pat,
                ("credential_missing", "authenticate"),
            ),
            (Failure::KindMismatch, &pat, ("credential_kind_mismatch", "authenticate")),
            (rejected(), &pat, ("pat_rejected", "authenticate")),
            (rejected(), &password, ("password_rejected", "authenticate")),
            (
                Failure::Provider(ProviderError::Denied(Denied::Expired)),
                &pat,
                ("pat_expired", "authenticate"),
            ),
            (
                Failure::Provider(ProviderError::SignInPage { status: 203 }),
                &pat,
                ("sign_in_page", "authenticate"),
            ),
            (
                Failure::Provider(ProviderError::ServerError { status: 503 }),
                &pat,
                ("server_unavailable", "references"),
            ),
            (
                Failure::Provider(ProviderError::ServerError { status: 500 }),
                &pat,
                ("server_error", "references"),
            ),
            (Failure::Git(unauthorized()), &pat, ("pat_rejected", "authenticate")),
            (Failure::Git(unauthorized()), &password, ("password_rejected", "authenticate")),
            (
                Failure::Git(git::Error::NotFound { body: String::new(), is_page: false }),
                &pat,
                ("repository_not_found_or_denied", "repository"),
            ),
            (Failure::Stopped(Stopped::Cancelled), &pat, ("cancelled", "references")),
            (Failure::Stopped(Stopped::DeadlineExceeded), &pat, ("deadline_exceeded", "references")),
        ];
        for (failed, subject, expected) in cases {
            assert_eq!(code_and_stage(&failed, subject), expected, "{failed:?}");
        }
    }

    #[test]
    fn remedies_name_the_actual_thing() {
        let pat = subject(Provider::AzureDevops, CredentialKind::Pat);
        let missing = Failure::ScopeMissing { scopes: vec!["vso.code".into()], said: None };
        let diagnosis = failure(&missing, Stage::Authorize, &pat);
        assert!(diagnosis.remedies[0].contains("vso.code"), "{diagnosis:?}");
        let load = Failure::Load(LoadError::TooOpen { path: "/k".into(), mode: 0o644 });
        let diagnosis = failure(&load, Stage::Authenticate, &subject(Provider::Git, CredentialKind::SshKey));
        assert_eq!(diagnosis.code.as_str(), "ssh_key_unreadable");
        assert!(diagnosis.remedies[0].contains("chmod 600 /k"), "{diagnosis:?}");
    }
}
