//! The tasks of the demonstration, and what is expected of each: this list drives everything.

use serde_json::{Value, json};

/// The agent that reaches the Azure DevOps Server.
pub(crate) const FRANKFURT: &str = "fra1-ado";
/// The agent that reaches the GitLab.
pub(crate) const MUNICH: &str = "muc1-gitlab";
/// How long the task that nobody may take waits, in seconds.
const SHORT_QUEUE_SECONDS: u64 = 3;

/// The URLs of one repository at each server, by each way.
pub(crate) struct Places {
    /// Azure DevOps Server over HTTPS.
    pub(crate) azure_https: String,
    /// Azure DevOps Server over SSH, by its path `/{collection}/{project}/_git/{repository}`.
    pub(crate) azure_ssh: String,
    /// GitLab over HTTPS.
    pub(crate) gitlab_https: String,
    /// GitLab over SSH.
    pub(crate) gitlab_ssh: String,
}

/// One task and what is expected of it.
pub(crate) struct Scene {
    /// What it shows.
    pub(crate) name: &'static str,
    /// What is posted.
    pub(crate) task: Value,
    /// What is to become of it.
    pub(crate) expected: Expected,
}

/// What is to become of a task.
pub(crate) struct Expected {
    /// `succeeded`, `failed`, `refused`, `expired`, ….
    pub(crate) outcome: &'static str,
    /// The agent that is to do it; none where no agent may.
    pub(crate) agent: Option<&'static str>,
    /// The code of the diagnosis; none where there is none.
    pub(crate) diagnosis: Option<&'static str>,
}

/// All of them, in the order in which they are played.
pub(crate) fn scenes(places: &Places) -> Vec<Scene> {
    let Places { azure_https, azure_ssh, gitlab_https, gitlab_ssh } = places;
    vec![
        Scene {
            name: "test Azure DevOps, HTTPS, PAT",
            task: test(azure_https, "azure-devops", "ado_pat", "ado"),
            expected: succeeded_by(FRANKFURT),
        },
        Scene {
            name: "test GitLab, HTTPS, PAT",
            task: test(gitlab_https, "gitlab", "gitlab_pat", "gitlab"),
            expected: succeeded_by(MUNICH),
        },
        Scene {
            name: "test GitLab, SSH, Ed25519 key",
            task: test(gitlab_ssh, "gitlab", "gitlab_ssh", "gitlab"),
            expected: succeeded_by(MUNICH),
        },
        Scene {
            name: "test Azure DevOps, SSH, RSA key",
            task: test(azure_ssh, "azure-devops", "ado_ssh", "ado"),
            expected: succeeded_by(FRANKFURT),
        },
        Scene {
            name: "test with a wrong PAT",
            task: test(azure_https, "azure-devops", "ado_wrong_pat", "ado"),
            expected: Expected { outcome: "failed", agent: Some(FRANKFURT), diagnosis: Some("pat_rejected") },
        },
        Scene {
            name: "test a host that nobody declared",
            task: json!({
                "kind": "connection-test", "url": "https://git.elsewhere.example/group/web",
                "selector": {"all": ["dc:muc1"]},
            }),
            expected: Expected {
                outcome: "refused",
                agent: Some(MUNICH),
                diagnosis: Some("server_not_declared"),
            },
        },
        Scene {
            name: "test from where no agent is",
            task: json!({
                "kind": "connection-test", "url": azure_https, "provider": "azure-devops",
                "selector": {"all": ["dc:lon1"]}, "queue_seconds": SHORT_QUEUE_SECONDS,
            }),
            expected: Expected { outcome: "expired", agent: None, diagnosis: None },
        },
        Scene {
            name: "clone from Azure DevOps, HTTPS",
            task: clone(azure_https, "azure-devops", "ado_pat", "ado"),
            expected: succeeded_by(FRANKFURT),
        },
        Scene {
            name: "clone from GitLab, HTTPS",
            task: clone(gitlab_https, "gitlab", "gitlab_pat", "gitlab"),
            expected: succeeded_by(MUNICH),
        },
        Scene {
            name: "clone from GitLab, SSH",
            task: clone(gitlab_ssh, "gitlab", "gitlab_ssh", "gitlab"),
            expected: succeeded_by(MUNICH),
        },
        Scene {
            name: "clone from Azure DevOps, SSH",
            task: clone(azure_ssh, "azure-devops", "ado_ssh", "ado"),
            expected: succeeded_by(FRANKFURT),
        },
        Scene {
            name: "archive from GitLab, delivered",
            task: delivered(clone(gitlab_https, "gitlab", "gitlab_pat", "gitlab"), "archive"),
            expected: succeeded_by(MUNICH),
        },
        Scene {
            name: "bundle from Azure DevOps, delivered",
            task: delivered(clone(azure_https, "azure-devops", "ado_pat", "ado"), "bundle"),
            expected: succeeded_by(FRANKFURT),
        },
    ]
}

fn succeeded_by(agent: &'static str) -> Expected {
    Expected { outcome: "succeeded", agent: Some(agent), diagnosis: None }
}

/// A connection test by any agent with this tag.
pub(crate) fn test(url: &str, provider: &str, credential: &str, tag: &str) -> Value {
    json!({
        "kind": "connection-test", "url": url, "provider": provider, "credential": credential,
        "selector": {"all": [tag]},
    })
}

/// The same, with what becomes of it.
fn delivered(mut task: Value, deliver: &str) -> Value {
    task["deliver"] = deliver.into();
    task
}

fn clone(url: &str, provider: &str, credential: &str, tag: &str) -> Value {
    json!({
        "kind": "clone", "url": url, "provider": provider, "credential": credential,
        "selector": {"all": [tag]}, "reference": "main",
    })
}
