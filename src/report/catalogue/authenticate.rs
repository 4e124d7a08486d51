//! Who the server takes us for.

use super::Entry;
use crate::report::Stage;

pub(super) static PAT_REJECTED: Entry = Entry {
    code: "pat_rejected",
    stages: &[Stage::Authenticate],
    cause: "The server did not accept the access token",
    remedies: &[
        "Check that the token was copied whole, has not expired and was not revoked.",
        "Make a new token with the scopes that the target needs and put it where the credential's secret comes from.",
    ],
    seen: "Status 401 to the one request that carried the token, or the provider's documented answer for an unknown or revoked one. It was sent once and is not tried again.",
    why: "The token was cut off while it was copied, has expired, was revoked, or belongs to another server or organization. Azure DevOps gives the same empty 401 for a token that lacks the scope.",
    on_azure_devops: "User settings → Personal access tokens: look at its status and expiry. It needs Scopes → Code (Read), vso.code, for this very organization or collection; a token that is mistyped, has expired or lacks the scope is answered alike.",
    on_gitlab: "User settings → Access tokens (or Settings → Access tokens of the project or group): a token needs read_repository, and read_api for the API. A deploy token needs its own user name, gitlab+deploy-token-N, as username.",
    on_host: "Look at the length and the end of the secret's file (`wc -c FILE`); one line end is ignored, spaces and quotes are not.",
};

pub(super) static PAT_EXPIRED: Entry = Entry {
    code: "pat_expired",
    stages: &[Stage::Authenticate],
    cause: "The access token has expired",
    remedies: &["Make a new token, or extend this one, and put it where the credential's secret comes from."],
    seen: "The server's own documented field says that the token has expired, or names a date in the past.",
    why: "Tokens live for a year at the most on most servers, and nobody is told when a service's token ends.",
    on_azure_devops: "User settings → Personal access tokens → Regenerate, or Edit → Expiration.",
    on_gitlab: "User settings → Access tokens → Add new token; a token that has expired cannot be extended.",
    on_host: "Replace the content of the secret's file; it is read anew for each task. For a systemd credential restart the service.",
};

pub(super) static PASSWORD_REJECTED: Entry = Entry {
    code: "password_rejected",
    stages: &[Stage::Authenticate],
    cause: "The server did not accept the user name and password",
    remedies: &[
        "Check the user name and the password.",
        "Many servers take only access tokens for git: use a credential of the kind pat.",
    ],
    seen: "Status 401 to the one request that carried the password. It was sent once, so that no account is locked by repeated tries.",
    why: "The password changed, the user name lacks its domain, or the server takes no passwords for git.",
    on_azure_devops: "Use a personal access token (User settings → Personal access tokens, Code (Read)): passwords need IIS Basic Authentication, which breaks tokens. Services takes none.",
    on_gitlab: "Admin area → Settings → General → Sign-in restrictions → Allow password authentication for Git over HTTP(S) may be off; LDAP and single sign-on users need a token with read_repository.",
    on_host: "Set kind = \"pat\" in [credentials.<name>] and put a token into its secret.",
};

pub(super) static BEARER_REJECTED: Entry = Entry {
    code: "bearer_rejected",
    stages: &[Stage::Authenticate],
    cause: "The server did not accept the bearer token",
    remedies: &["Get a fresh token: bearer tokens live for an hour or two, mostly."],
    seen: "Status 401 to the one request with Authorization: Bearer.",
    why: "The token has run out, was issued for another resource, or is an access token that the server takes only as pat.",
    on_azure_devops: "A token of Microsoft Entra must be issued for the resource 499b84ac-1321-427f-aa17-267ca6975798/.default, and its identity must be a user of the organization (Organization settings → Users). A server of your own takes personal access tokens (kind pat).",
    on_gitlab: "OAuth tokens live for two hours: get a fresh one with the refresh token. A personal access token is of the kind pat.",
    on_host: "Whatever writes the secret's file must write it more often than the token lives.",
};

pub(super) static SIGN_IN_PAGE: Entry = Entry {
    code: "sign_in_page",
    stages: &[Stage::Authenticate],
    cause: "The server answered with a sign-in page where git or its API was due",
    remedies: &[
        "Use an access token of this very organization or collection, and check that it has not expired.",
        "Check that no single sign-on gateway stands before the server on this path.",
    ],
    seen: "Status 203, or a redirect to a sign-in page, to a request that carried the credential. It is not followed.",
    why: "Azure DevOps Services answers so to a token that it does not know. A single sign-on gateway in front of a server answers so to everything that is no browser.",
    on_azure_devops: "User settings → Personal access tokens of the organization in the URL: make a token with Code (Read) there; tokens of other organizations are unknown.",
    on_gitlab: "Exempt the paths that end in .git/info/refs and /git-upload-pack, and /api/v4, from the gateway in front of GitLab.",
    on_host: "See where it leads: `curl -sI URL` prints the header Location.",
};

pub(super) static BASIC_NOT_OFFERED: Entry = Entry {
    code: "basic_not_offered",
    stages: &[Stage::Authenticate],
    cause: "The server offers only Negotiate or NTLM and refused the token sent by Basic",
    remedies: &["Enable token authentication on the server: Basic must pass to Azure DevOps itself."],
    seen: "Status 401 whose WWW-Authenticate offers Negotiate or NTLM and neither Basic nor Bearer, to a request that carried the token as Basic. The summary lists the schemes.",
    why: "IIS or a gateway takes care of sign-in by itself and never hands the token to Azure DevOps; or a policy of the server has switched Basic off.",
    on_azure_devops: "IIS Manager → Azure DevOps Server → Authentication: leave Windows Authentication and Anonymous Authentication enabled, so that Azure DevOps itself offers Basic and Bearer; on Services, Organization settings → Policies must not forbid it.",
    on_gitlab: "A gateway with Windows sign-in stands in front: exempt /api/v4 and git's paths from it.",
    on_host: "Compare: `curl -sI URL | grep -i www-authenticate`.",
};

pub(super) static IIS_BASIC_CONFLICT: Entry = Entry {
    code: "iis_basic_conflict",
    stages: &[Stage::Authenticate],
    cause: "IIS takes the token for a Windows password",
    remedies: &["Switch IIS Basic Authentication off for the Azure DevOps site."],
    seen: "The refusal comes from IIS itself, without the headers that Azure DevOps sets on all its own answers, and offers Basic with IIS's realm.",
    why: "With IIS Basic Authentication enabled, IIS looks the token up as the password of a Windows account, refuses it, and Azure DevOps never sees it. Repeated tries can lock an account.",
    on_azure_devops: "IIS Manager → Sites → Azure DevOps Server → Authentication → Basic Authentication → Disable, then restart the site.",
    on_gitlab: "",
    on_host: "",
};

pub(super) static ACCOUNT_LOCKED: Entry = Entry {
    code: "account_locked",
    stages: &[Stage::Authenticate],
    cause: "The server says that the account is locked; nothing was tried again",
    remedies: &["Have the account unlocked, and correct the credential before the next test."],
    seen: "The server's documented answer for a locked or blocked account, or for too many failed attempts.",
    why: "Something keeps signing in with an old password: a forgotten job, an old agent, a stored credential.",
    on_azure_devops: "The account is one of Active Directory: Active Directory Users and Computers → the user → Account → Unlock account. Event 4740 on the domain controller names the machine that locked it.",
    on_gitlab: "Admin area → Users → the user → Unlock account or Unblock user. Where git is answered 403 and no more than the word Forbidden, this host's address is banned for an hour after too many failed attempts: wait, or list the address in gitlab_rails['rack_attack_git_basic_auth'] of /etc/gitlab/gitlab.rb.",
    on_host: "Look for other services that use the same account, before you try again.",
};

pub(super) static TWO_FACTOR_REQUIRED: Entry = Entry {
    code: "two_factor_required",
    stages: &[Stage::Authenticate],
    cause: "The account uses two-factor authentication, so its password does not work for git",
    remedies: &["Use an access token instead of the password."],
    seen: "The server's documented answer to a password says to use a token. GitLab's newest releases have one answer for this and for a wrong password, which is password_rejected.",
    why: "Git cannot ask for the second factor; servers refuse passwords of such accounts.",
    on_azure_devops: "User settings → Personal access tokens → New Token with Code (Read).",
    on_gitlab: "User settings → Access tokens → Add new token with read_repository (and read_api for the API).",
    on_host: "Set kind = \"pat\" in [credentials.<name>], or use --pat-file instead of --password-file.",
};

pub(super) static POLICY_BLOCKS_TOKEN: Entry = Entry {
    code: "policy_blocks_token",
    stages: &[Stage::Authenticate],
    cause: "A policy of the organization forbids this token from here",
    remedies: &[
        "Ask the organization's administrator about conditional access, IP allowlists and token policies.",
    ],
    seen: "The server's documented code or message for a refusal by policy, with a token that it knows.",
    why: "Conditional access or an IP allowlist does not list this host's outgoing address, or the organization forbids this kind of token.",
    on_azure_devops: "Organization settings → Policies: IP conditional access policy, third-party application access, restrictions on personal access tokens; in Microsoft Entra, Conditional Access → Named locations needs this network's outgoing address.",
    on_gitlab: "Group → Settings → General → Permissions and group features → Restrict access by IP address; Admin area → Settings → General → Sign-in restrictions and Account and limit → Disable personal access tokens; → Visibility and access controls → Enabled Git access protocols, where git over HTTPS is off. A group with SAML SSO wants the user to have signed in by it lately, and new Terms of Service want to be accepted.",
    on_host: "Find the address that the server sees: behind a proxy or NAT it is not this host's own.",
};

pub(super) static CREDENTIAL_MISSING: Entry = Entry {
    code: "credential_missing",
    stages: &[Stage::Tls, Stage::Authenticate],
    cause: "The credential does not exist on the agent",
    remedies: &["Put the secret where the credential's configuration points, or correct the name."],
    seen: "The configuration has no [credentials.<name>] of that name, its source has nothing or is empty, or the server demands a credential and none is named.",
    why: "The name in the task is mistyped, the file was never put there, or the command ran outside of the unit that is given the secret.",
    on_azure_devops: "User settings → Personal access tokens → New Token with Code (Read) makes one.",
    on_gitlab: "User settings → Access tokens → Add new token with read_repository makes one.",
    on_host: "Look at secret = { … } of [credentials.<name>]; for { systemd = \"NAME\" } the unit needs LoadCredential=NAME:/path (`systemctl edit sortie`) and a restart.",
};

pub(super) static CREDENTIAL_UNREADABLE: Entry = Entry {
    code: "credential_unreadable",
    stages: &[Stage::Tls, Stage::Authenticate],
    cause: "The source of the credential's secret failed",
    remedies: &["Check the file's owner and mode, or the source that the configuration names."],
    seen: "Reading the secret failed: the system's error number, a size over the limit, or content that is no text. The content is never shown.",
    why: "The file belongs to root alone and the service runs as sortie, or the path leads to something that is no secret.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "`sudo -u sortie cat FILE >/dev/null` must work: chown sortie FILE && chmod 600 FILE, and every directory above must let sortie pass; or use { systemd = … }, which needs no such right.",
};

pub(super) static CREDENTIAL_KIND_MISMATCH: Entry = Entry {
    code: "credential_kind_mismatch",
    stages: &[Stage::Authenticate],
    cause: "A credential of this kind cannot be used with this URL",
    remedies: &["Use an ssh-key credential for SSH URLs, and pat, password or bearer for HTTPS URLs."],
    seen: "The credential's kind beside the URL's scheme; nothing was sent.",
    why: "Tokens and passwords go over HTTPS, keys over SSH. Most servers have a URL for each.",
    on_azure_devops: "Repos → Files → Clone shows both URLs: HTTPS for a personal access token, SSH for a key.",
    on_gitlab: "The project's page → Code shows both URLs: HTTPS for a token, SSH for a key.",
    on_host: "Name another credential for the task, or correct kind in [credentials.<name>].",
};
