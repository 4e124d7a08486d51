//! Every cause that a report can name: a stable code, the cause in words, how it is measured, and what to do.
//!
//! A code is decided from what was measured, never from the text of an error. Codes are never renamed. This is the
//! one table: reports, `sortie explain` and `docs/diagnoses.md` all come from it.

mod access;
mod any;
mod authenticate;
mod clone;
mod identify;
mod network;
mod policy;
mod ssh;
mod tls;
mod warnings;

use super::Stage;

/// The stages of a code that can show anywhere.
const ANY: &[Stage] = &[
    Stage::Policy,
    Stage::Resolve,
    Stage::Proxy,
    Stage::Connect,
    Stage::Tls,
    Stage::HostKey,
    Stage::Identify,
    Stage::Authenticate,
    Stage::Authorize,
    Stage::Repository,
    Stage::References,
    Stage::Negotiate,
    Stage::Receive,
    Stage::Index,
    Stage::Checkout,
    Stage::Deliver,
];

/// The stages that only a clone has.
const CLONE: &[Stage] = &[Stage::Negotiate, Stage::Receive, Stage::Index, Stage::Checkout, Stage::Deliver];

/// What the catalogue says of a code.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The code as everybody sees it.
    pub code: &'static str,
    /// The stages where it can show.
    pub stages: &'static [Stage],
    /// The cause, a sentence without its full stop.
    pub cause: &'static str,
    /// What can be done about it in general, most likely first.
    pub remedies: &'static [&'static str],
    /// How it is measured, and where the report has what was seen.
    pub seen: &'static str,
    /// Why it happens, most often.
    pub why: &'static str,
    /// How to fix it on Azure DevOps Server or Services; empty where nothing can be done there.
    pub on_azure_devops: &'static str,
    /// How to fix it on GitLab; empty where nothing can be done there.
    pub on_gitlab: &'static str,
    /// How to fix it on the agent's host; empty where nothing can be done there.
    pub on_host: &'static str,
}

macro_rules! catalogue {
    ($($variant:ident => $group:ident::$entry:ident,)+) => {
        /// A cause, for a diagnosis or a warning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)] // The entry of each says what it means.
        pub enum Code {
            $($variant,)+
        }

        impl Code {
            /// All of them, in the catalogue's order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// What the catalogue says of this code.
            pub fn entry(self) -> &'static Entry {
                match self {
                    $(Self::$variant => &$group::$entry,)+
                }
            }
        }
    };
}

impl Code {
    /// The code as everybody sees it.
    pub fn as_str(self) -> &'static str {
        self.entry().code
    }

    /// The code of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }
}

catalogue! {
    UrlInvalid => policy::URL_INVALID,
    SchemeNotAllowed => policy::SCHEME_NOT_ALLOWED,
    ServerNotDeclared => policy::SERVER_NOT_DECLARED,
    TaskNotAllowed => policy::TASK_NOT_ALLOWED,
    TfvcNotSupported => policy::TFVC_NOT_SUPPORTED,
    AddressNotAllowed => network::ADDRESS_NOT_ALLOWED,
    NameNotFound => network::NAME_NOT_FOUND,
    ResolverFailed => network::RESOLVER_FAILED,
    ProxyUnreachable => network::PROXY_UNREACHABLE,
    ProxyAuthRequired => network::PROXY_AUTH_REQUIRED,
    ProxyRefused => network::PROXY_REFUSED,
    ConnectionRefused => network::CONNECTION_REFUSED,
    ConnectionTimedOut => network::CONNECTION_TIMED_OUT,
    NetworkUnreachable => network::NETWORK_UNREACHABLE,
    ConnectionReset => network::CONNECTION_RESET,
    NotTls => tls::NOT_TLS,
    TlsUntrustedIssuer => tls::TLS_UNTRUSTED_ISSUER,
    TlsIntercepted => tls::TLS_INTERCEPTED,
    TlsIncompleteChain => tls::TLS_INCOMPLETE_CHAIN,
    TlsExpired => tls::TLS_EXPIRED,
    TlsNotYetValid => tls::TLS_NOT_YET_VALID,
    TlsNameMismatch => tls::TLS_NAME_MISMATCH,
    TlsLegacyOnly => tls::TLS_LEGACY_ONLY,
    TlsClientCertificateRequired => tls::TLS_CLIENT_CERTIFICATE_REQUIRED,
    HostKeyUnknown => ssh::HOST_KEY_UNKNOWN,
    HostKeyChanged => ssh::HOST_KEY_CHANGED,
    SshNoCommonAlgorithm => ssh::SSH_NO_COMMON_ALGORITHM,
    NotSsh => ssh::NOT_SSH,
    NotAGitServer => identify::NOT_A_GIT_SERVER,
    ServerTooOld => identify::SERVER_TOO_OLD,
    PublicUrlIsLocalhost => identify::PUBLIC_URL_IS_LOCALHOST,
    WrongBasePath => identify::WRONG_BASE_PATH,
    PatRejected => authenticate::PAT_REJECTED,
    PatExpired => authenticate::PAT_EXPIRED,
    PasswordRejected => authenticate::PASSWORD_REJECTED,
    BearerRejected => authenticate::BEARER_REJECTED,
    SignInPage => authenticate::SIGN_IN_PAGE,
    BasicNotOffered => authenticate::BASIC_NOT_OFFERED,
    IisBasicConflict => authenticate::IIS_BASIC_CONFLICT,
    AccountLocked => authenticate::ACCOUNT_LOCKED,
    TwoFactorRequired => authenticate::TWO_FACTOR_REQUIRED,
    PolicyBlocksToken => authenticate::POLICY_BLOCKS_TOKEN,
    SshKeyRejected => ssh::SSH_KEY_REJECTED,
    SshKeyUnreadable => ssh::SSH_KEY_UNREADABLE,
    SshKeyPassphrase => ssh::SSH_KEY_PASSPHRASE,
    SshKeyTypeUnsupported => ssh::SSH_KEY_TYPE_UNSUPPORTED,
    SshRsaSha2NotAnnounced => ssh::SSH_RSA_SHA2_NOT_ANNOUNCED,
    CredentialMissing => authenticate::CREDENTIAL_MISSING,
    CredentialUnreadable => authenticate::CREDENTIAL_UNREADABLE,
    CredentialKindMismatch => authenticate::CREDENTIAL_KIND_MISMATCH,
    ScopeMissing => access::SCOPE_MISSING,
    ProjectNotFoundOrDenied => access::PROJECT_NOT_FOUND_OR_DENIED,
    RepositoryNotFoundOrDenied => access::REPOSITORY_NOT_FOUND_OR_DENIED,
    RepositoryDisabled => access::REPOSITORY_DISABLED,
    RepositoryMoved => access::REPOSITORY_MOVED,
    RepositoryEmpty => access::REPOSITORY_EMPTY,
    ReferenceNotFound => access::REFERENCE_NOT_FOUND,
    ReferenceNotACommit => access::REFERENCE_NOT_A_COMMIT,
    DumbHttp => access::DUMB_HTTP,
    GatewayRefused => access::GATEWAY_REFUSED,
    RateLimited => any::RATE_LIMITED,
    ServerError => any::SERVER_ERROR,
    ServerUnavailable => any::SERVER_UNAVAILABLE,
    ServerGaveUp => any::SERVER_GAVE_UP,
    ConnectionLost => any::CONNECTION_LOST,
    UnexpectedAnswer => any::UNEXPECTED_ANSWER,
    DeadlineExceeded => any::DEADLINE_EXCEEDED,
    Cancelled => any::CANCELLED,
    TooLarge => clone::TOO_LARGE,
    PackCorrupt => clone::PACK_CORRUPT,
    PathNotFound => clone::PATH_NOT_FOUND,
    TargetNotEmpty => clone::TARGET_NOT_EMPTY,
    DiskFull => clone::DISK_FULL,
    UnsafePath => clone::UNSAFE_PATH,
    SubmoduleNotAllowed => clone::SUBMODULE_NOT_ALLOWED,
    LfsFailed => clone::LFS_FAILED,
    DeliveryFailed => clone::DELIVERY_FAILED,
    Internal => any::INTERNAL,
    TokenExpiresSoon => warnings::TOKEN_EXPIRES_SOON,
    CertificateExpiresSoon => warnings::CERTIFICATE_EXPIRES_SOON,
    ScopeExcessive => warnings::SCOPE_EXCESSIVE,
    PlainHttp => warnings::PLAIN_HTTP,
    EncodingDiffers => warnings::ENCODING_DIFFERS,
    ServerReleaseEnds => warnings::SERVER_RELEASE_ENDS,
    Slow => warnings::SLOW,
    HostKeyRsaOnly => ssh::HOST_KEY_RSA_ONLY,
    ClockOffset => warnings::CLOCK_OFFSET,
    GitNotTried => warnings::GIT_NOT_TRIED,
    ApiRefused => warnings::API_REFUSED,
}
