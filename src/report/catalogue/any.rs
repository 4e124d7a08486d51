//! What can happen in any stage.

use super::{ANY, Entry};
use crate::report::Stage;

pub(super) static RATE_LIMITED: Entry = Entry {
    code: "rate_limited",
    stages: ANY,
    cause: "The server limits the rate of requests",
    remedies: &[
        "Try again after the time that the server named.",
        "Spread the tests, or have the limit raised for the credential's user.",
    ],
    seen: "Status 429 or the provider's documented answer; the summary has the time to wait, an hour at the most whatever the server says.",
    why: "Other programs use the same user or the same outgoing address, or failed sign-ins have run up a count.",
    on_azure_devops: "Services: Organization settings → Usage shows who used up the limit.",
    on_gitlab: "Admin area → Settings → Network → User and IP rate limits; failed sign-ins by git are counted per address (rack_attack in /etc/gitlab/gitlab.rb).",
    on_host: "Give the agent a user of its own, so that nobody else's requests count for it.",
};

pub(super) static SERVER_ERROR: Entry = Entry {
    code: "server_error",
    stages: ANY,
    cause: "The server failed while answering",
    remedies: &["Try again later; the server's own log says more."],
    seen: "A status of 500 or above that does not stand for maintenance; facts carry the server's identifier of the request, where it gave one.",
    why: "A fault inside the server: its database, its disk, an extension.",
    on_azure_devops: "Event Viewer → Windows Logs → Application on the server; search for the activity identifier of the report.",
    on_gitlab: "`gitlab-ctl tail`, or search /var/log/gitlab for the request's identifier (X-Request-Id).",
    on_host: "",
};

pub(super) static SERVER_UNAVAILABLE: Entry = Entry {
    code: "server_unavailable",
    stages: ANY,
    cause: "The server is unavailable or in maintenance",
    remedies: &["Try again later; ask the server's operator about maintenance."],
    seen: "Status 502, 503 or 504, or the provider's documented answer for a collection that is not available (TF24668).",
    why: "The server is being upgraded or restarted, or the load balancer in front of it has no live server.",
    on_azure_devops: "Administration Console → Team Project Collections: Start Collection where it is stopped; IIS Manager → Application Pools must be started.",
    on_gitlab: "`gitlab-ctl status`; 502 for some minutes after a start is usual. Admin area → Settings → General → Maintenance mode.",
    on_host: "A proxy on the way gives these as well: look which one answers (the headers Server and Via in the facts).",
};

pub(super) static SERVER_GAVE_UP: Entry = Entry {
    code: "server_gave_up",
    stages: &[Stage::References, Stage::Negotiate, Stage::Receive, Stage::Index],
    cause: "The server's git ended with an error while it sent the objects",
    remedies: &[
        "Give the server's words to whoever runs it: `git fsck` on the repository finds missing and damaged objects, and its log tells of memory and limits.",
        "A clone with a depth of 1 may work meanwhile, where old history is what is damaged.",
    ],
    seen: "The server sent an error in git's own framing (side band 3, or ERR) instead of the pack or in the middle of it; the summary quotes it with the lines before it.",
    why: "An object is missing or damaged in the server's repository, or its git ran out of memory, processes or time.",
    on_azure_devops: "Ask for the health of the data tier; a push of a fresh mirror into a new repository mends a damaged one.",
    on_gitlab: "Run `gitlab-rake gitlab:git:fsck`, and look at `gitlab-ctl tail gitaly` at that time.",
    on_host: "",
};

pub(super) static CONNECTION_LOST: Entry = Entry {
    code: "connection_lost",
    stages: ANY,
    cause: "The connection was lost in the middle of an answer",
    remedies: &[
        "Try again. Where it ends at about the same size or after the same time, raise the limit or the timeout of the proxy or load balancer in front of the server.",
    ],
    seen: "The server had begun to answer, and then the connection ended before the answer did, or nothing more came for two minutes; the summary has how many bytes had come.",
    why: "A proxy or load balancer cuts long transfers, the server's process was killed, or the line is bad.",
    on_azure_devops: "A reverse proxy in front needs a response timeout as long as the longest clone.",
    on_gitlab: "Look at `gitlab-ctl tail nginx` and `gitlab-ctl tail gitaly` at that time: proxy_read_timeout, and processes that were killed for their memory.",
    on_host: "Compare with `git clone` from here and from a host in the server's own network.",
};

pub(super) static UNEXPECTED_ANSWER: Entry = Entry {
    code: "unexpected_answer",
    stages: ANY,
    cause: "The server answered something that a git server does not",
    remedies: &[
        "Check that the URL leads to the git server itself and not to a portal, gateway or other service in front of it.",
    ],
    seen: "Status, content type and first bytes of an answer that is out of form, over its limit (1 MiB), or a redirect to another place; all are in the summary, scrubbed.",
    why: "A portal, a captive gateway or a web application firewall answers in the server's place, or a proxy changes answers.",
    on_azure_devops: "A web application firewall in front must pass /_apis and /_git unchanged.",
    on_gitlab: "A proxy in front must pass encoded slashes (%2F) unchanged: AllowEncodedSlashes NoDecode and nocanon with Apache.",
    on_host: "Look at the page by hand: `curl -si URL | head -30`.",
};

pub(super) static DEADLINE_EXCEEDED: Entry = Entry {
    code: "deadline_exceeded",
    stages: ANY,
    cause: "The time for the task was over",
    remedies: &[
        "Allow more time (--deadline, or run_seconds of the task), or find out why the stage is slow.",
    ],
    seen: "The deadline passed while the stage that is named was running; a test has 60 s where nothing else is said.",
    why: "The server or the network is slow, or something on the way accepts connections and never answers.",
    on_azure_devops: "Look at the load of the application and data tier at that time.",
    on_gitlab: "Look at the load (Puma, Gitaly) at that time.",
    on_host: "The times of the stages before tell whether everything is slow or that one alone.",
};

pub(super) static CANCELLED: Entry = Entry {
    code: "cancelled",
    stages: ANY,
    cause: "The task was cancelled",
    remedies: &["Submit it again if it is still wanted."],
    seen: "Somebody pressed Ctrl-C or cancelled the task, or the agent was stopped.",
    why: "This is no fault of the server or of the credential. What was begun has been cleaned up.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "",
};

pub(super) static INTERNAL: Entry = Entry {
    code: "internal",
    stages: ANY,
    cause: "Sortie failed by a fault of its own",
    remedies: &["Report the identifier together with the agent's log around it."],
    seen: "Code that must not fail failed; the identifier in the summary is in the agent's log with the details.",
    why: "A bug of Sortie's. No answer of a server should be able to cause it.",
    on_azure_devops: "",
    on_gitlab: "",
    on_host: "`journalctl -u sortie | grep IDENTIFIER` has the lines to report.",
};
