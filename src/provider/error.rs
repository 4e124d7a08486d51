//! Why a call to a provider's API did not answer what it should, named by meaning.

use std::time::Duration;

use super::Provider;
use crate::dial::HttpError;

/// How a credential was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Unknown, mistyped, or the server does not say what is wrong with it.
    Rejected,
    /// Its day has passed, by the server's own word.
    Expired,
    /// It was revoked, by the server's own word.
    Revoked,
    /// The server wants a token in the place of the password.
    TokenNeeded {
        /// The server's own words, scrubbed.
        said: String,
    },
    /// The account is locked or blocked, by the server's own word.
    Locked {
        /// The server's own words, scrubbed.
        said: String,
    },
    /// A policy of the server or of the organization forbids this credential, or this way of using it.
    PolicyBlocks {
        /// The server's own words, scrubbed.
        said: String,
    },
    /// It was sent by Basic, and the server offers only these other schemes.
    BasicNotOffered {
        /// What `WWW-Authenticate` names.
        schemes: Vec<String>,
    },
    /// IIS itself took the token for a Windows password, before the application saw it.
    IisBasic,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// There was no answer, or it broke off.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Something answers, and it is not this kind of server.
    #[error("what answers at {path} with status {status} is not {}", expected.product())]
    NotThisServer {
        /// What was looked for.
        expected: Provider,
        /// The path that was asked for.
        path: String,
        /// The status of the answer.
        status: u16,
    },
    /// The server is there, below another path.
    #[error("nothing answers at {asked}; the server's own base path is {answered}")]
    WrongBasePath {
        /// The path that was asked for.
        asked: String,
        /// The path that the server names, or a hint about what is missing.
        answered: String,
    },
    /// The server is there, and has no collection of the name in the URL.
    #[error("there is no collection `{asked}`")]
    CollectionUnknown {
        /// What stands in the collection's place.
        asked: String,
        /// The path of the target as it would be right, where the server told enough to find it.
        right: Option<String>,
        /// The collections that the server lists.
        known: Vec<String>,
    },
    /// The server sends us to a host by which it names itself, and where nobody else can find it.
    #[error("the server sends requests on to {named}")]
    NamesItselfElsewhere {
        /// The URL by which it names itself.
        named: String,
    },
    /// The release is older than those that are supported.
    #[error("the server is {seen}")]
    TooOld {
        /// Product and release.
        seen: String,
    },
    /// The credential was refused.
    #[error("the credential was refused")]
    Denied(Denied),
    /// The server demands a credential, and there was none to send.
    #[error("the server demands a credential")]
    CredentialDemanded,
    /// A page for people to sign in on.
    #[error("the server answered with a sign-in page, status {status}")]
    SignInPage {
        /// The status of the answer.
        status: u16,
    },
    /// Signed in, and not allowed.
    #[error("signed in, but not allowed")]
    Forbidden {
        /// The scopes of which the server names one as needed, or that the call is known to need.
        scopes: Vec<String>,
        /// The server's own words, scrubbed.
        said: Option<String>,
    },
    /// No such project, or not for this user.
    #[error("no such project, or not for this user")]
    ProjectHidden {
        /// Its name.
        name: String,
        /// Names of others that it could be mistaken for, the most alike first.
        near: Vec<String>,
    },
    /// No such repository, or not for this user.
    #[error("no such repository, or not for this user")]
    RepositoryHidden {
        /// Its name.
        name: String,
        /// Names of others that it could be mistaken for, the most alike first.
        near: Vec<String>,
    },
    /// The repository is disabled or in maintenance.
    #[error("the repository is disabled or in maintenance")]
    RepositoryDisabled,
    /// The repository has another path now.
    #[error("the repository has moved")]
    RepositoryMoved {
        /// Its new path, where the server tells.
        to: Option<String>,
    },
    /// Too many requests.
    #[error("the server limits the rate of requests")]
    RateLimited {
        /// How long to wait, as the server named it, clamped.
        retry_after: Option<Duration>,
    },
    /// A status from 500 up.
    #[error("the server answered with status {status}")]
    ServerError {
        /// The status.
        status: u16,
    },
    /// The server is there, and what was asked for is out of service, by the server's own word.
    #[error("the server says `{said}`")]
    Unavailable {
        /// The server's own words, scrubbed.
        said: String,
    },
    /// A redirect that is not followed.
    #[error("the server redirects with status {status}")]
    Redirected {
        /// The status.
        status: u16,
        /// Where to, without query and user info.
        location: Option<String>,
    },
    /// An answer out of form.
    #[error("expected {expected}, got status {status}")]
    Unexpected {
        /// What was expected.
        expected: &'static str,
        /// The status.
        status: u16,
        /// The type of the body.
        content_type: Option<String>,
        /// The beginning of the body, scrubbed.
        first: String,
    },
}

impl ProviderError {
    /// Whether the credential is good and only this call is beyond it.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden { .. })
    }
}
