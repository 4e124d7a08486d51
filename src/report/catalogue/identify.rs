//! Whether the right kind of server answers at that place.

use super::Entry;
use crate::report::Stage;

pub(super) static NOT_A_GIT_SERVER: Entry = Entry {
    code: "not_a_git_server",
    stages: &[Stage::Identify],
    cause: "Something answers, but there is no Azure DevOps, GitLab or git server at that path",
    remedies: &["Check the path of the URL; copy the clone URL from the server's own page."],
    seen: "One or two anonymous requests to the places where each kind of server would answer; none of them did in the form that is documented. Where nobody named the kind of server, git was tried as well, and got a web page or the way to another host.",
    why: "The host is another one (a wiki, a portal, a load balancer's default page), or the server lives below a path that the URL lacks.",
    on_azure_devops: "The URL has the form https://host[/tfs]/COLLECTION/PROJECT/_git/REPOSITORY; https://host/COLLECTION/_apis/connectionData must answer with JSON.",
    on_gitlab: "https://host[/root]/api/v4/version must answer with JSON, if only with 401.",
    on_host: "Name the kind (--provider, or provider in [servers.<name>]) where a gateway hides what the server is.",
};

pub(super) static SERVER_TOO_OLD: Entry = Entry {
    code: "server_too_old",
    stages: &[Stage::Identify],
    cause: "The server's release is older than those that are supported",
    remedies: &["Use Azure DevOps Server 2019 or newer, or GitLab 14 or newer."],
    seen: "The release, from the highest version of its interface (Azure DevOps) or from its own answer (GitLab); the facts carry what was seen.",
    why: "Team Foundation Server and old GitLab releases lack calls and algorithms that a safe connection needs, and get no security fixes.",
    on_azure_devops: "Team Foundation Server 2015 to 2018 can be upgraded in place to Azure DevOps Server; the collection then stays below /tfs/DefaultCollection.",
    on_gitlab: "GitLab is upgraded step by step through its required stops; the upgrade path tool of GitLab names them.",
    on_host: "For git alone, set provider = \"git\" for the server: nothing but git is asked then.",
};

pub(super) static PUBLIC_URL_IS_LOCALHOST: Entry = Entry {
    code: "public_url_is_localhost",
    stages: &[Stage::Identify],
    cause: "The server names another host than its own in its answers",
    remedies: &["Set the public URL in the server's administration console."],
    seen: "The URLs in the server's own answers name localhost, or a host other than the one that was asked.",
    why: "The public URL was never configured, so that links, webhooks and clients that follow the server's own URLs end up at the wrong machine.",
    on_azure_devops: "Azure DevOps Server Administration Console → Application Tier → Change Public URL.",
    on_gitlab: "Set external_url in /etc/gitlab/gitlab.rb to the URL that users type, and run gitlab-ctl reconfigure.",
    on_host: "Where the server has two names that are both right, use the one that it names itself in url of [servers.<name>].",
};

pub(super) static WRONG_BASE_PATH: Entry = Entry {
    code: "wrong_base_path",
    stages: &[Stage::Identify],
    cause: "The host is right, but the path misses its base (/tfs, the collection, or GitLab's relative root)",
    remedies: &["Use the base path that answered."],
    seen: "The place of the URL answers not found, and the server's root leads to, or answers at, another base path; the facts carry it.",
    why: "Servers that were upgraded from Team Foundation Server live below /tfs, a collection is missing or misspelt, or GitLab was installed below a relative root.",
    on_azure_devops: "Administration Console → Team Project Collections lists the collections, and → Application Tier the Public URL with or without /tfs: https://host[/tfs]/COLLECTION/PROJECT/_git/REPOSITORY.",
    on_gitlab: "The relative root is the path of external_url in /etc/gitlab/gitlab.rb.",
    on_host: "Correct url in [servers.<name>], and the URL in the task.",
};
