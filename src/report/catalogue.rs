//! Every cause that a report can name: a stable code, the cause in words, and what to do.
//!
//! A code is decided from what was measured, never from the text of an error. Codes are never renamed.

/// What the catalogue says of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The code as everybody sees it.
    pub code: &'static str,
    /// The cause, a sentence without its full stop.
    pub cause: &'static str,
    /// What can be done about it in general, most likely first.
    pub remedies: &'static [&'static str],
}

macro_rules! catalogue {
    ($($variant:ident, $code:literal, $cause:literal, [$($remedy:literal),+ $(,)?];)+) => {
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
            pub fn entry(self) -> Entry {
                match self {
                    $(Self::$variant => Entry { code: $code, cause: $cause, remedies: &[$($remedy),+] },)+
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
}

catalogue! {
    UrlInvalid, "url_invalid",
        "The URL is not one of a git server",
        [
            "Write https://host/path, ssh://user@host/path or user@host:path, without a password, a query or control characters.",
        ];
    SchemeNotAllowed, "scheme_not_allowed",
        "Only https and ssh are used",
        [
            "Use the https or ssh URL of the repository.",
            "Plain http works only for a server that the operator declares with an http:// URL in the agent's configuration.",
        ];
    ServerNotDeclared, "server_not_declared",
        "The target is outside of what the operator declared for this agent",
        [
            "Add the server to the agent's configuration as [servers.<name>] with its url (and ssh, for SSH), or correct the URL's host, port or path.",
            "Choose an agent that declares this server, by its tags.",
        ];
    TaskNotAllowed, "task_not_allowed",
        "The operator's policy does not allow this task",
        [
            "Change the task, or ask the operator of the agent to allow it for this server.",
        ];
    TfvcNotSupported, "tfvc_not_supported",
        "The URL names a Team Foundation Version Control path, which is not git",
        [
            "Use the URL of a git repository: it has /_git/ in its path.",
        ];
    AddressNotAllowed, "address_not_allowed",
        "The name leads to an address that this agent must not connect to",
        [
            "Correct the name's record in DNS or in the hosts file of the agent's host.",
            "Where a loopback address is meant, declare the server with a loopback host or with allow_loopback = true.",
        ];
    NameNotFound, "name_not_found",
        "The host name does not exist for the agent's resolver",
        [
            "Check the spelling of the host.",
            "Look the name up on the agent's host with `getent hosts NAME`; an internal name may need the company's resolver or VPN.",
        ];
    ResolverFailed, "resolver_failed",
        "The resolver did not answer or answered with an error",
        [
            "Check the resolver of the agent's host (/etc/resolv.conf, resolvectl status) and try again.",
        ];
    ProxyUnreachable, "proxy_unreachable",
        "The proxy did not accept a connection",
        [
            "Check the proxy's host and port in the configuration or in HTTPS_PROXY, and that the agent's host may reach it.",
        ];
    ProxyAuthRequired, "proxy_auth_required",
        "The proxy demands authentication that it was not given or did not accept",
        [
            "Give the proxy's user and password: proxy_auth in the configuration, --proxy-auth-file on the command line, or user:password in HTTPS_PROXY.",
            "Or let the proxy pass this host without authentication, or name the host in NO_PROXY where it can be reached directly.",
        ];
    ProxyRefused, "proxy_refused",
        "The proxy refused the tunnel to the server",
        [
            "Allow CONNECT to this host and port at the proxy, or name the host in NO_PROXY where it can be reached directly.",
        ];
    ConnectionRefused, "connection_refused",
        "Nothing listens on that port of the server, or a firewall rejects the connection",
        [
            "Check the port in the URL and that the server runs.",
            "Ask the network team whether a firewall rejects connections from the agent's host.",
        ];
    ConnectionTimedOut, "connection_timed_out",
        "The server did not answer the connection attempt; a firewall drops it, most likely",
        [
            "Have the firewall opened from the agent's host to this host and port.",
            "Where a proxy is the way out, configure it.",
        ];
    NetworkUnreachable, "network_unreachable",
        "There is no route from the agent's host to the server",
        [
            "Check the routes, the VPN and the address family (IPv4 or IPv6) of the agent's host.",
        ];
    ConnectionReset, "connection_reset",
        "The connection was cut before TLS or SSH said anything",
        [
            "Ask the network team for a firewall or load balancer that resets connections to this host and port.",
            "Check the server's own log at this time.",
        ];
    NotTls, "not_tls",
        "What answers on that port does not speak TLS",
        [
            "Check the port in the URL; https usually listens on 443.",
            "If the server really has no TLS, put TLS in front of it.",
        ];
    TlsUntrustedIssuer, "tls_untrusted_issuer",
        "The server's certificate comes from an authority that this host does not trust",
        [
            "Give the authority's certificate as ca_file of the server (--ca-file on the command line), or install it among the host's trusted roots.",
            "Compare the fingerprint with the one that the server's operator names before you trust it.",
        ];
    TlsIntercepted, "tls_intercepted",
        "A device on the way opens TLS connections and presents a certificate of its own",
        [
            "Add the inspection authority's certificate as ca_file, or have this host exempted from inspection.",
        ];
    TlsIncompleteChain, "tls_incomplete_chain",
        "The server sends its certificate without the intermediate one that links it to a root",
        [
            "Install the full chain on the server.",
            "Until then, give the intermediate certificate as ca_file.",
        ];
    TlsExpired, "tls_expired",
        "The server's certificate has expired",
        [
            "Renew the certificate on the server.",
            "If the dates look right, correct the clock of the agent's host.",
        ];
    TlsNotYetValid, "tls_not_yet_valid",
        "The server's certificate is not valid yet",
        [
            "Correct the clock of the agent's host, or the certificate of the server.",
        ];
    TlsNameMismatch, "tls_name_mismatch",
        "The server's certificate is made out to other names",
        [
            "Use one of the certificate's names in the URL, or have the certificate issued for the name in use.",
        ];
    TlsLegacyOnly, "tls_legacy_only",
        "The server and the agent have no TLS version or cipher suite in common",
        [
            "Enable TLS 1.2 or newer with ECDHE and AES-GCM on the server (on Windows: the Schannel settings).",
        ];
    TlsClientCertificateRequired, "tls_client_certificate_required",
        "The server demands a client certificate",
        [
            "Use a way to the server that needs no client certificate, or have the server's operator exempt this host.",
        ];
    HostKeyUnknown, "host_key_unknown",
        "No known_hosts entry vouches for the key that the SSH server shows",
        [
            "Compare the fingerprint with the one that the server's operator publishes, then add the key to known_hosts_file (--known-hosts on the command line).",
        ];
    HostKeyChanged, "host_key_changed",
        "The SSH server shows another key than the known_hosts entry for it; nothing was sent to it",
        [
            "Find out from the server's operator whether the key was changed. Only then replace the entry.",
            "If it was not changed, somebody else answers in the server's place.",
        ];
    SshNoCommonAlgorithm, "ssh_no_common_algorithm",
        "The SSH server and the agent have no algorithm in common",
        [
            "Update the SSH server: algorithms that rest on SHA-1 are not used.",
            "Use HTTPS for this server.",
        ];
    NotSsh, "not_ssh",
        "What answers on that port is not an SSH server",
        [
            "Check host and port of the SSH URL.",
        ];
    NotAGitServer, "not_a_git_server",
        "Something answers, but there is no Azure DevOps, GitLab or git server at that path",
        [
            "Check the path of the URL; copy the clone URL from the server's own page.",
        ];
    ServerTooOld, "server_too_old",
        "The server's release is older than those that are supported",
        [
            "Use Azure DevOps Server 2019 or newer, or GitLab 14 or newer.",
        ];
    PublicUrlIsLocalhost, "public_url_is_localhost",
        "The server names another host than its own in its answers",
        [
            "Set the public URL in the server's administration console.",
        ];
    WrongBasePath, "wrong_base_path",
        "The host is right, but the path misses its base (/tfs, the collection, or GitLab's relative root)",
        [
            "Use the base path that answered.",
        ];
    PatRejected, "pat_rejected",
        "The server did not accept the access token",
        [
            "Check that the token was copied whole, has not expired and was not revoked.",
            "Make a new token with the scopes that the report names and put it where the credential's secret comes from.",
        ];
    PatExpired, "pat_expired",
        "The access token has expired",
        [
            "Make a new token, or extend this one, and put it where the credential's secret comes from.",
        ];
    PasswordRejected, "password_rejected",
        "The server did not accept the user name and password",
        [
            "Check the user name and the password.",
            "Many servers take only access tokens for git: use a credential of the kind pat.",
        ];
    BearerRejected, "bearer_rejected",
        "The server did not accept the bearer token",
        [
            "Get a fresh token: bearer tokens live for an hour or two, mostly.",
        ];
    SignInPage, "sign_in_page",
        "The server answered with a sign-in page where git or its API was due",
        [
            "Use an access token of this very organization or collection, and check that it has not expired.",
            "Check that no single sign-on gateway stands before the server on this path.",
        ];
    BasicNotOffered, "basic_not_offered",
        "The server offers only Negotiate or NTLM and refused the token sent by Basic",
        [
            "Enable token authentication on the server: Basic must pass to Azure DevOps itself.",
        ];
    IisBasicConflict, "iis_basic_conflict",
        "IIS takes the token for a Windows password",
        [
            "Switch IIS Basic Authentication off for the Azure DevOps site.",
        ];
    AccountLocked, "account_locked",
        "The server says that the account is locked; nothing was tried again",
        [
            "Have the account unlocked, and correct the credential before the next test.",
        ];
    TwoFactorRequired, "two_factor_required",
        "The account uses two-factor authentication, so its password does not work for git",
        [
            "Use an access token instead of the password.",
        ];
    PolicyBlocksToken, "policy_blocks_token",
        "A policy of the organization forbids this token from here",
        [
            "Ask the organization's administrator about conditional access, IP allowlists and token policies.",
        ];
    SshKeyRejected, "ssh_key_rejected",
        "The SSH server does not accept this key",
        [
            "Register the public key with the user at the server.",
            "Check the user name in the SSH URL (git, mostly).",
        ];
    SshKeyUnreadable, "ssh_key_unreadable",
        "The SSH key cannot be used",
        [
            "Give a private key in OpenSSH or PEM format that only the agent's user can read.",
        ];
    SshKeyPassphrase, "ssh_key_passphrase",
        "The SSH key is encrypted, and the passphrase is missing or wrong",
        [
            "Give the passphrase: passphrase = { file = … } in the configuration, --passphrase-file on the command line.",
        ];
    SshKeyTypeUnsupported, "ssh_key_type_unsupported",
        "The server does not take keys of this type",
        [
            "Use an RSA key of 3072 bits or more for Azure DevOps.",
        ];
    SshRsaSha2NotAnnounced, "ssh_rsa_sha2_not_announced",
        "The server does not announce rsa-sha2 signatures, so an RSA key cannot be used",
        [
            "Install the server's patches, or use HTTPS with a token.",
        ];
    CredentialMissing, "credential_missing",
        "The credential does not exist on the agent",
        [
            "Put the secret where the credential's configuration points, or correct the name.",
        ];
    CredentialUnreadable, "credential_unreadable",
        "The source of the credential's secret failed",
        [
            "Check the file's owner and mode, or the source that the configuration names.",
        ];
    CredentialKindMismatch, "credential_kind_mismatch",
        "A credential of this kind cannot be used with this URL",
        [
            "Use an ssh-key credential for SSH URLs, and pat, password or bearer for HTTPS URLs.",
        ];
    ScopeMissing, "scope_missing",
        "The credential is valid but lacks a permission that is needed",
        [
            "Give the token the scope that is named, or the user the permission.",
        ];
    ProjectNotFoundOrDenied, "project_not_found_or_denied",
        "The project does not exist, or the credential's user may not see it; the server does not tell which",
        [
            "Check the project's spelling.",
            "Sign in as the credential's user and open the project: if it shows, the token lacks a scope; if not, the user lacks access or it does not exist.",
        ];
    RepositoryNotFoundOrDenied, "repository_not_found_or_denied",
        "The repository does not exist, or the credential's user may not see it; the server does not tell which",
        [
            "Check the repository's spelling.",
            "Sign in as the credential's user and open the repository: if it shows, the token lacks a scope; if not, the user lacks access or it does not exist.",
        ];
    RepositoryDisabled, "repository_disabled",
        "The repository is disabled or in maintenance",
        [
            "Enable the repository in the project's settings.",
        ];
    RepositoryMoved, "repository_moved",
        "The repository has moved",
        [
            "Use the new URL.",
        ];
    RepositoryEmpty, "repository_empty",
        "The repository has no commits yet",
        [
            "Push a first commit.",
        ];
    ReferenceNotFound, "reference_not_found",
        "The server has no such reference",
        [
            "Check the spelling of the branch, tag or commit.",
        ];
    RateLimited, "rate_limited",
        "The server limits the rate of requests",
        [
            "Try again after the time that the server named.",
            "Spread the tests, or have the limit raised for the credential's user.",
        ];
    ServerError, "server_error",
        "The server failed while answering",
        [
            "Try again later; the server's own log says more.",
        ];
    ServerUnavailable, "server_unavailable",
        "The server is unavailable or in maintenance",
        [
            "Try again later; ask the server's operator about maintenance.",
        ];
    UnexpectedAnswer, "unexpected_answer",
        "The server answered something that a git server does not",
        [
            "Check that the URL leads to the git server itself and not to a portal, gateway or other service in front of it.",
        ];
    DeadlineExceeded, "deadline_exceeded",
        "The time for the task was over",
        [
            "Allow more time (--deadline, or run_seconds of the task), or find out why the stage is slow.",
        ];
    Cancelled, "cancelled",
        "The task was cancelled",
        [
            "Submit it again if it is still wanted.",
        ];
    TooLarge, "too_large",
        "The repository is over a limit that the operator set",
        [
            "Raise the limit in [limits] of the agent's configuration, or ask for less: a depth, for example.",
        ];
    PackCorrupt, "pack_corrupt",
        "The data that the server sent is damaged",
        [
            "Try again; if it stays, run git fsck on the server's repository and look for a proxy that alters answers.",
        ];
    TargetNotEmpty, "target_not_empty",
        "The target directory exists and holds something; it was left untouched",
        [
            "Name a directory that is empty or does not exist.",
        ];
    DiskFull, "disk_full",
        "The disk is full; nothing was left behind",
        [
            "Free space on the file system of the target, or choose another one.",
        ];
    UnsafePath, "unsafe_path",
        "The repository holds a path that must not be written",
        [
            "Look at the commit that brought the path in: it may be an attack.",
        ];
    SubmoduleNotAllowed, "submodule_not_allowed",
        "A submodule lies outside of what the operator allows",
        [
            "Declare the submodule's server, or leave submodules out.",
        ];
    LfsFailed, "lfs_failed",
        "An object of Git LFS could not be had",
        [
            "Check that the object exists on the server's LFS store.",
        ];
    DeliveryFailed, "delivery_failed",
        "The result could not be delivered",
        [
            "Check the target's permissions and space, or the control plane's log.",
        ];
    Internal, "internal",
        "Sortie failed by a fault of its own",
        [
            "Report the identifier together with the agent's log around it.",
        ];
    TokenExpiresSoon, "token_expires_soon",
        "The token expires soon",
        [
            "Make a new token in time.",
        ];
    CertificateExpiresSoon, "certificate_expires_soon",
        "The server's certificate expires within 30 days",
        [
            "Renew the certificate on the server.",
        ];
    ScopeExcessive, "scope_excessive",
        "The token may do more than is needed",
        [
            "Make a token with only the scopes that are needed.",
        ];
    PlainHttp, "plain_http",
        "The server is used without TLS, so the secret crosses the network readable",
        [
            "Serve the git server over https and declare it so.",
        ];
    ServerReleaseEnds, "server_release_ends",
        "The server's release nears the end of its support",
        [
            "Plan the update of the server.",
        ];
    Slow, "slow",
        "A stage took unusually long",
        [
            "Look at the stage's facts for where the time went.",
        ];
    HostKeyRsaOnly, "host_key_rsa_only",
        "The SSH server has only an RSA host key",
        [
            "Add an ed25519 host key to the server.",
        ];
    ClockOffset, "clock_offset",
        "The clocks of the server and of the agent's host differ",
        [
            "Synchronize the clock of the agent's host, or that of the server.",
        ];
    GitNotTried, "git_not_tried",
        "Git itself was not tried, because the target names no repository",
        [
            "Name a repository: --repository on the command line, test_repository in a task.",
        ];
    ApiRefused, "api_refused",
        "Git works, but the server's API refuses this credential",
        [
            "Give the token a scope for the API (vso.project, read_api), if the API is needed.",
        ];
}
