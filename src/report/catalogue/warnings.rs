//! What works and should still be looked at.

use super::{ANY, Entry};
use crate::report::Stage;

pub(super) static TOKEN_EXPIRES_SOON: Entry = Entry {
    code: "token_expires_soon",
    stages: &[Stage::Authenticate],
    cause: "The token expires soon",
    remedies: &["Make a new token in time."],
    seen: "The expiry date that the server itself tells of the token is less than 30 days away.",
    why: "Tokens have a last day, and after it every test and clone fails with pat_expired.",
    on_azure_devops: "User settings → Personal access tokens → Edit → Expiration, or Regenerate.",
    on_gitlab: "User settings → Access tokens → Rotate, or Add new token.",
    on_host: "Replace the content of the secret's file; it is read anew for each task.",
};

pub(super) static CERTIFICATE_EXPIRES_SOON: Entry = Entry {
    code: "certificate_expires_soon",
    stages: &[Stage::Proxy, Stage::Tls],
    cause: "A certificate on the way expires within 30 days",
    remedies: &["Renew the certificate, and let the server or proxy load the new one."],
    seen: "The last day of a certificate in the chain, or of the client certificate, is less than 30 days away.",
    why: "After that day nobody can connect any more: the failure is then tls_expired.",
    on_azure_devops: "Import the new certificate (IIS Manager → Server Certificates) and choose it in Bindings → https.",
    on_gitlab: "Replace /etc/gitlab/ssl/HOST.crt and run `gitlab-ctl hup nginx`; with Let's Encrypt `gitlab-ctl renew-le-certs`.",
    on_host: "A client certificate is replaced in the file that client_cert_file names.",
};

pub(super) static SCOPE_EXCESSIVE: Entry = Entry {
    code: "scope_excessive",
    stages: &[Stage::Authenticate, Stage::Authorize],
    cause: "The token may do more than is needed",
    remedies: &["Make a token with only the scopes that are needed."],
    seen: "The scopes that the server tells of the token, compared with those that tests, clones, statuses and webhooks need. On GitLab: sudo, admin_mode, k8s_proxy and those that write, but api, which statuses need.",
    why: "Whoever gets hold of the token gets all that it may do. A token for reading should only read.",
    on_azure_devops: "User settings → Personal access tokens → Edit → Scopes: Custom defined, Code (Read); never Full access.",
    on_gitlab: "User settings → Access tokens → Add new token with read_repository and read_api, then revoke the old one.",
    on_host: "",
};

pub(super) static PLAIN_HTTP: Entry = Entry {
    code: "plain_http",
    stages: &[Stage::Connect],
    cause: "The server is used without TLS, so the secret crosses the network readable",
    remedies: &["Serve the git server over https and declare it so."],
    seen: "The server is declared with an http:// URL.",
    why: "The operator allowed it for this server. Everybody on the way can read the token and use it.",
    on_azure_devops: "IIS Manager → Azure DevOps Server → Bindings → Add → https with a certificate; then Administration Console → Application Tier → Change Public URL.",
    on_gitlab: "Set external_url to https://… in /etc/gitlab/gitlab.rb and run gitlab-ctl reconfigure.",
    on_host: "Then change url in [servers.<name>] to https://, and make a new token: the old one has crossed the network.",
};

pub(super) static SERVER_RELEASE_ENDS: Entry = Entry {
    code: "server_release_ends",
    stages: &[Stage::Identify],
    cause: "The server's release is near or past the end of its support",
    remedies: &["Plan the update of the server."],
    seen: "The release that the server told, compared with the maker's published dates. A release of GitLab's counts as ended when it is older than a year, by the calendar of monthly releases.",
    why: "After that date there are no more fixes, for security least of all.",
    on_azure_devops: "Upgrade to the newest Azure DevOps Server; the installer upgrades in place, collections included.",
    on_gitlab: "GitLab maintains the newest three minor releases; upgrade through the required stops.",
    on_host: "",
};

pub(super) static SLOW: Entry = Entry {
    code: "slow",
    stages: ANY,
    cause: "A stage took unusually long",
    remedies: &["Look at the stage's facts for where the time went."],
    seen: "The time of each stage that passed, compared with what it usually stays below by far: 1 s for the lookup and for connecting, 2 s for TLS, 5 s for an answer of the server.",
    why: "The first nameserver does not answer, the first address is dead, a proxy inspects, or the server is under load. Clones and tasks pay the same time again.",
    on_azure_devops: "Look at the load of the application and data tier, and at the size of the repository.",
    on_gitlab: "Look at the load (Puma, Gitaly), and at the number of references of the repository.",
    on_host: "resolve: compare the nameservers in /etc/resolv.conf. connect: look at the fact attempts for an address that does not answer, IPv6 most often.",
};

pub(super) static CLOCK_OFFSET: Entry = Entry {
    code: "clock_offset",
    stages: &[Stage::Identify, Stage::References],
    cause: "The clocks of the server and of the agent's host differ",
    remedies: &["Synchronize the clock of the agent's host, or that of the server."],
    seen: "The header Date of the server's answers, with Age where a cache gave them, compared with this host's clock: more than 60 s. The fact clock_offset_seconds is positive where the server is ahead.",
    why: "No time server is configured or reachable, or a virtual machine was restored. Certificates and tokens are then judged by a wrong date.",
    on_azure_devops: "On the Windows server: `w32tm /query /status`.",
    on_gitlab: "On the server: `timedatectl`.",
    on_host: "`timedatectl` must say that the system clock is synchronized; name a time server that this network allows in /etc/systemd/timesyncd.conf or in chrony's configuration.",
};

pub(super) static GIT_NOT_TRIED: Entry = Entry {
    code: "git_not_tried",
    stages: &[Stage::References],
    cause: "Git itself was not tried, because the target names no repository",
    remedies: &["Name a repository: --repository on the command line, test_repository in a task."],
    seen: "The target is an account or a project, no repository was named, and the API lists none that the credential may read.",
    why: "Signing in can work while git does not: a scope can be missing, or a gateway can keep git away. Only reading a repository proves it.",
    on_azure_devops: "Repos lists the repositories of a project; name one as PROJECT/REPOSITORY.",
    on_gitlab: "Name a project of the group by its path.",
    on_host: "",
};

pub(super) static API_REFUSED: Entry = Entry {
    code: "api_refused",
    stages: &[Stage::Identify, Stage::Authenticate, Stage::Authorize, Stage::Repository],
    cause: "Git works, but not all of the server's API does",
    remedies: &[
        "Nothing need be done for tests and clones. Where the API is needed, give the token the scope for it (vso.project, read_api).",
    ],
    seen: "A call of the API was refused, and git read the repository with the same credential afterwards, or with its own beside api_credential.",
    why: "The token was made for git alone, or the one for REST does not work. Clones work; statuses, webhooks and lists of repositories do not.",
    on_azure_devops: "User settings → Personal access tokens → Edit → Scopes: add Project and Team (Read).",
    on_gitlab: "Make a token with read_api beside read_repository. Tokens of deployments and of jobs never get the API.",
    on_host: "Where git uses an SSH key, a password or a deploy token, give REST a token of its own: api_credential in [servers.<name>], or --api-pat-file.",
};

pub(super) static ENCODING_DIFFERS: Entry = Entry {
    code: "encoding_differs",
    stages: &[Stage::Checkout],
    cause: "Attributes ask for files in UTF-16 or UTF-32, which were written as they are in the repository",
    remedies: &["Read these files as UTF-8, or let git write them: git checkout -- . in the clone."],
    seen: "A .gitattributes of the commit has working-tree-encoding=UTF-16 or UTF-32.",
    why: "The libraries that write files do not know these encodings, which git gets from the system.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "git status calls these files modified until git itself has written them.",
};
