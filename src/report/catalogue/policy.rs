//! What is refused before anything is opened.

use super::Entry;
use crate::report::Stage;

pub(super) static URL_INVALID: Entry = Entry {
    code: "url_invalid",
    stages: &[Stage::Policy],
    cause: "The URL is not one of a git server",
    remedies: &[
        "Write https://host/path, ssh://user@host/path or user@host:path, without a password, a query or control characters.",
    ],
    seen: "The text of the URL itself, before any name is looked up: its form, its length (4 KiB at the most), user info with a password, control characters or encoded line ends, a query, parts that a program could take for an option.",
    why: "Most often something beside the URL was copied, such as a line end or the query of a page in a browser, or a token was written into it. Such a URL is refused whole, because a secret in a URL ends up in logs.",
    on_azure_devops: "Copy the URL from Repos → Files → Clone, and take out everything before the @ where one is in it.",
    on_gitlab: "Copy the URL from the project's page → Code → Clone with HTTPS (or with SSH).",
    on_host: "Give secrets as files (--pat-file, --password-file) or as [credentials.<name>] of the configuration, never in the URL.",
};

pub(super) static SCHEME_NOT_ALLOWED: Entry = Entry {
    code: "scheme_not_allowed",
    stages: &[Stage::Policy],
    cause: "Only https and ssh are used",
    remedies: &[
        "Use the https or ssh URL of the repository.",
        "Plain http works only for a server that the operator declares with an http:// URL in the agent's configuration.",
    ],
    seen: "The scheme of the URL, compared with https and ssh, and with what the operator declared.",
    why: "Over plain http the credential crosses the network readable for everybody on the way; git:// and file:// have no credential at all.",
    on_azure_devops: "Bind a certificate to the site: IIS Manager → Azure DevOps Server → Bindings → https, then set the https URL as the Public URL in the Administration Console.",
    on_gitlab: "Set external_url to an https:// URL in /etc/gitlab/gitlab.rb and run gitlab-ctl reconfigure.",
    on_host: "Where the server really has no TLS, declare it so: url = \"http://…\" in [servers.<name>]; every report then carries the warning plain_http.",
};

pub(super) static SERVER_NOT_DECLARED: Entry = Entry {
    code: "server_not_declared",
    stages: &[Stage::Policy],
    cause: "The target is outside of what the operator declared for this agent",
    remedies: &[
        "Add the server to the agent's configuration as [servers.<name>] with its url (and ssh, for SSH), or correct the URL's host, port or path.",
        "Choose an agent that declares this server, by its tags.",
    ],
    seen: "Scheme, host, port and path of the URL, compared with url and ssh of every [servers.*] of the agent's configuration. Nothing was opened.",
    why: "An agent goes to the servers that its operator declared and nowhere else, whatever the control plane asks for. A port or a base path that differs is another place.",
    on_azure_devops: "Declare the collection (https://host[/tfs]/DefaultCollection), so that all its projects are below it; for SSH add ssh = \"ssh://host:22\".",
    on_gitlab: "Declare the root that external_url names, with its relative path where it has one; for SSH add ssh = \"ssh://host:22\".",
    on_host: "Edit /etc/sortie/config.toml, judge it with `sortie config check`, and restart the service.",
};

pub(super) static TASK_NOT_ALLOWED: Entry = Entry {
    code: "task_not_allowed",
    stages: &[Stage::Policy],
    cause: "The operator's policy does not allow this task",
    remedies: &["Change the task, or ask the operator of the agent to allow it for this server."],
    seen: "The task's kind and the credential that it names, compared with what [servers.<name>] allows.",
    why: "The operator decides per server which kinds of tasks may run and which credentials they may name.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "Look at tasks and credentials of [servers.<name>] in /etc/sortie/config.toml.",
};

pub(super) static TFVC_NOT_SUPPORTED: Entry = Entry {
    code: "tfvc_not_supported",
    stages: &[Stage::Policy],
    cause: "The URL names a Team Foundation Version Control path, which is not git",
    remedies: &["Use the URL of a git repository: it has /_git/ in its path."],
    seen: "A path with $/ or _versionControl in the URL.",
    why: "A project can hold git repositories and Team Foundation Version Control side by side. Only git can be tested and cloned here.",
    on_azure_devops: "Open the project → Repos and choose a git repository in the list at the top; Import repository there turns a TFVC folder into a git repository.",
    on_gitlab: "",
    on_host: "",
};
