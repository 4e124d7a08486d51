//! What a client asks for. The same JSON is POSTed to the control plane and travels in an `offer`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::selector::Selector;

mod lookup;

pub use lookup::{
    DEFAULT_REFERENCES, MAX_PATHS_BYTES, MAX_PATTERN_BYTES, MAX_PATTERNS, MAX_REFERENCES, is_glob,
};

/// How long a task may wait for an agent where it does not say, in seconds.
pub const DEFAULT_QUEUE_SECONDS: u64 = 600;

/// How long an attempt may run where the task does not say, in seconds.
pub const DEFAULT_RUN_SECONDS: u64 = 60;

/// The longest time that a task may ask for, waiting or running, in seconds (one day).
pub const MAX_SECONDS: u64 = 86_400;

/// The most attempts that a task may ask for.
pub const MAX_ATTEMPTS: u32 = 10;

/// The highest priority; the lowest is its negative.
pub const MAX_PRIORITY: i32 = 100;

/// The longest text in any field of a task, in bytes.
pub const MAX_TEXT_BYTES: usize = 4096;

/// The most labels that a task carries.
pub const MAX_LABELS: usize = 32;

/// The most paths or submodules that a clone names.
pub const MAX_PATHS: usize = 256;

/// The kinds of tasks of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// Connects to a git server stage by stage and reports what each stage saw.
    ConnectionTest,
    /// Clones one reference into a workspace of the agent's.
    Clone,
    /// Lists references, with filters.
    References,
    /// Reads a few files at a reference, without a clone.
    Files,
    /// Says whether a reference has moved since a commit.
    Compare,
}

impl TaskKind {
    /// Whether an attempt leaves something behind, so that no second one may begin before the first has ended
    /// for certain. The others read alone: two at once do no harm, and the number of the attempt tells whose
    /// result counts.
    pub fn has_side_effects(self) -> bool {
        match self {
            Self::Clone => true,
            Self::ConnectionTest | Self::References | Self::Files | Self::Compare => false,
        }
    }
}

/// The kinds of git servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Azure DevOps Server or Azure DevOps Services.
    AzureDevops,
    /// GitLab, self-managed or gitlab.com.
    Gitlab,
    /// A git server without an API.
    Git,
}

/// What a target is, where the task forces it instead of leaving it to the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// An organization, a collection, GitLab's root or a group.
    Account,
    /// A project of Azure DevOps.
    Project,
    /// A repository.
    Repository,
}

/// What becomes of a clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deliver {
    /// Nothing is kept: the clone was a check.
    None,
    /// A directory on the agent's host.
    Workspace,
    /// An archive of the tree at the control plane.
    Archive,
    /// A git bundle at the control plane.
    Bundle,
    /// Small files, inline.
    Files,
}

/// The form of an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ArchiveFormat {
    /// A tar, compressed by zstd.
    #[default]
    #[serde(rename = "tar.zst")]
    TarZst,
    /// A zip.
    #[serde(rename = "zip")]
    Zip,
}

/// Which submodules a clone takes along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Submodules {
    /// `true`: all of them, and theirs; `false`: none.
    All(bool),
    /// Only those at these paths.
    Named(Vec<String>),
}

/// One unit of work, as a client describes it.
///
/// The target is either `url`, or `server` (by the name that the operator gave it) with `project` and
/// `repository`. Secrets are never part of a task: `credential` is the name of one that the agent has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskSpec {
    /// What is to be done.
    pub kind: TaskKind,
    /// The URL of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The declared server, instead of `url`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The project on `server`; for GitLab the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The repository in `project`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// The kind of server; found by looking where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// The name of a credential of the agent's; the server's default where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// What the target is, where the URL alone must not decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// The repository to read with git where the target is an account or a project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_repository: Option<String>,
    /// Which agents may do it.
    #[serde(default)]
    pub selector: Selector,
    /// How long the task may wait, counted from the POST, in seconds.
    #[serde(default = "default_queue_seconds")]
    pub queue_seconds: u64,
    /// How long one attempt may take, counted from its start, in seconds.
    #[serde(default = "default_run_seconds")]
    pub run_seconds: u64,
    /// How many attempts the task may have, those included after which another agent had a try, 1 to 10; the control
    /// plane's own limit where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Among the tasks that wait, those with a higher number go first, -100 to 100.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// For the client's own use; nothing is decided by them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Clone, files and compare: branch, tag, full reference or (but for compare) full commit; the default branch
    /// where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Clone: how many commits of history; all where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// Clone: all branches beside `reference`; that alone where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all_branches: Option<bool>,
    /// Clone: all tags beside `reference`; none where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<bool>,
    /// Clone: the directory for the workspace, below one that the operator allows; one of the agent's own where it is
    /// missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Clone: what becomes of it; a workspace where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<Deliver>,
    /// Clone: the form of an archive, where `deliver` is `archive`; `tar.zst` where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive_format: Option<ArchiveFormat>,
    /// Clone: only these files and directories, by their paths in the commit. Files: what to read, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Clone: submodules; none where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submodules: Option<Submodules>,
    /// Clone: whether submodules outside of what the operator allows are left out with a warning; where it is missing,
    /// the clone fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_refused_submodules: Option<bool>,
    /// Clone: whether objects of Git LFS are fetched; they stay pointers where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lfs: Option<bool>,
    /// References: full names, or globs over full names, in which `*` stands for any run of characters and `?` for
    /// one; branches and tags where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<String>,
    /// References: how many are named at the most; 1000 where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Compare: the commit that is known already, in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

fn default_queue_seconds() -> u64 {
    DEFAULT_QUEUE_SECONDS
}

fn default_run_seconds() -> u64 {
    DEFAULT_RUN_SECONDS
}

/// What is wrong with a task, and in which field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct TaskError {
    /// The field's name as in JSON.
    pub field: &'static str,
    /// What must hold for it.
    pub problem: String,
}

impl TaskSpec {
    /// Checks what can be said about a task without knowing any agent.
    ///
    /// # Errors
    /// The first field that is out of form. Whether the URL is one of a git server is for the agent to say:
    /// the answer is a report then, and not an error.
    pub fn validate(&self) -> Result<(), TaskError> {
        self.validate_target()?;
        self.validate_times()?;
        self.selector
            .validate()
            .map_err(|error| TaskError { field: "selector", problem: error.to_string() })?;
        self.validate_lengths()?;
        let is_clone = self.kind == TaskKind::Clone;
        let clone_only = [
            ("depth", self.depth.is_some()),
            ("all_branches", self.all_branches.is_some()),
            ("tags", self.tags.is_some()),
            ("directory", self.directory.is_some()),
            ("deliver", self.deliver.is_some()),
            ("archive_format", self.archive_format.is_some()),
            ("submodules", self.submodules.is_some()),
            ("skip_refused_submodules", self.skip_refused_submodules.is_some()),
            ("lfs", self.lfs.is_some()),
        ];
        for (field, is_set) in clone_only {
            ensure(is_clone || !is_set, field, "belongs to a clone")?;
        }
        self.validate_lookup()?;
        ensure(self.depth != Some(0), "depth", "is at least 1")?;
        self.validate_delivery()
    }

    /// Not everything goes with every way to deliver. Submodules and objects of LFS are not in the repository that
    /// archives, bundles and inline files are made of, so that they go with a working directory alone.
    fn validate_delivery(&self) -> Result<(), TaskError> {
        let deliver = self.deliver.unwrap_or(Deliver::Workspace);
        ensure(
            deliver == Deliver::Archive || self.archive_format.is_none(),
            "archive_format",
            "goes with `deliver`: `archive`",
        )?;
        ensure(
            deliver != Deliver::Files || !self.paths.is_empty(),
            "paths",
            "names the files where `deliver` is `files`",
        )?;
        ensure(
            deliver == Deliver::Workspace || self.directory.is_none(),
            "directory",
            "goes with `deliver`: `workspace`",
        )?;
        let is_bundle = deliver == Deliver::Bundle;
        ensure(
            !(is_bundle && self.depth.is_some()),
            "depth",
            "does not go with a bundle: it has all history",
        )?;
        ensure(!is_bundle || self.paths.is_empty(), "paths", "does not go with a bundle: it has everything")?;
        let has_directory = matches!(deliver, Deliver::Workspace | Deliver::None);
        let wants_submodules = !matches!(self.submodules, None | Some(Submodules::All(false)));
        let problem = "goes with a workspace: archives, bundles and files have none";
        ensure(has_directory || !wants_submodules, "submodules", problem)?;
        ensure(has_directory || self.lfs != Some(true), "lfs", problem)
    }

    fn validate_target(&self) -> Result<(), TaskError> {
        ensure(
            self.url.is_some() != self.server.is_some(),
            "url",
            "or `server` names the target: exactly one of the two",
        )?;
        let by_url = self.url.is_some();
        let carries_password = self.url.as_deref().is_some_and(carries_password);
        ensure(!carries_password, "url", "carries a password: name a credential of the agent's instead")?;
        ensure(!(by_url && self.project.is_some()), "project", "goes with `server`, not with `url`")?;
        ensure(!(by_url && self.repository.is_some()), "repository", "goes with `server`, not with `url`")
    }

    fn validate_times(&self) -> Result<(), TaskError> {
        for (field, seconds) in [("queue_seconds", self.queue_seconds), ("run_seconds", self.run_seconds)] {
            ensure((1..=MAX_SECONDS).contains(&seconds), field, &format!("is between 1 and {MAX_SECONDS}"))?;
        }
        let attempts_fit = self.max_attempts.is_none_or(|attempts| (1..=MAX_ATTEMPTS).contains(&attempts));
        ensure(attempts_fit, "max_attempts", &format!("is between 1 and {MAX_ATTEMPTS}"))?;
        let priority_fits = (-MAX_PRIORITY..=MAX_PRIORITY).contains(&self.priority);
        ensure(priority_fits, "priority", &format!("is between -{MAX_PRIORITY} and {MAX_PRIORITY}"))
    }

    fn validate_lengths(&self) -> Result<(), TaskError> {
        let texts = [
            ("url", &self.url),
            ("server", &self.server),
            ("project", &self.project),
            ("repository", &self.repository),
            ("credential", &self.credential),
            ("test_repository", &self.test_repository),
            ("reference", &self.reference),
            ("directory", &self.directory),
        ];
        let too_long = format!("has {MAX_TEXT_BYTES} bytes at most and is not empty");
        for (field, text) in texts {
            let fits = text.as_ref().is_none_or(|text| !text.is_empty() && text.len() <= MAX_TEXT_BYTES);
            ensure(fits, field, &too_long)?;
        }
        let labels_fit = self.labels.len() <= MAX_LABELS
            && self.labels.iter().all(|(key, value)| key.len() + value.len() <= MAX_TEXT_BYTES);
        ensure(labels_fit, "labels", &format!("has {MAX_LABELS} entries at most"))?;
        let list_fits = |list: &[String]| {
            list.len() <= MAX_PATHS && list.iter().all(|entry| (1..=MAX_TEXT_BYTES).contains(&entry.len()))
        };
        let too_many = format!("has {MAX_PATHS} entries at most, each of 1 to {MAX_TEXT_BYTES} bytes");
        ensure(list_fits(&self.paths), "paths", &too_many)?;
        let submodules_fit = !matches!(&self.submodules, Some(Submodules::Named(list)) if !list_fits(list));
        ensure(submodules_fit, "submodules", &too_many)
    }
}

/// Whether the user info of a URL has a password. A task is kept and shown, so that it must not come so far.
fn carries_password(url: &str) -> bool {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = after_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').is_some_and(|(user_info, _)| user_info.contains(':'))
}

fn ensure(holds: bool, field: &'static str, problem: &str) -> Result<(), TaskError> {
    if holds { Ok(()) } else { Err(TaskError { field, problem: problem.to_owned() }) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn problem(json: &str) -> Option<&'static str> {
        let task: TaskSpec = serde_json::from_str(json).unwrap();
        task.validate().err().map(|error| error.field)
    }

    #[test]
    fn a_task_names_exactly_one_target() {
        assert_eq!(problem(r#"{"kind":"connection-test","url":"https://git.example/a"}"#), None);
        assert_eq!(problem(r#"{"kind":"connection-test"}"#), Some("url"));
        assert_eq!(problem(r#"{"kind":"connection-test","url":"https://a","server":"ado"}"#), Some("url"));
        assert_eq!(problem(r#"{"kind":"connection-test","url":"https://a","project":"p"}"#), Some("project"));
    }

    #[test]
    fn limits_hold_and_fields_of_a_clone_stay_with_clones() {
        let task = |rest: &str| format!(r#"{{"kind":"connection-test","url":"https://a"{rest}}}"#);
        assert_eq!(problem(&task(r#","run_seconds":0"#)), Some("run_seconds"));
        assert_eq!(problem(&task(r#","queue_seconds":86401"#)), Some("queue_seconds"));
        assert_eq!(problem(&task(r#","max_attempts":10,"priority":-100"#)), None);
        for bad in [0, 11] {
            assert_eq!(problem(&task(&format!(r#","max_attempts":{bad}"#))), Some("max_attempts"));
        }
        for bad in [-101, 101] {
            assert_eq!(problem(&task(&format!(r#","priority":{bad}"#))), Some("priority"));
        }
        assert_eq!(problem(&task(r#","depth":1"#)), Some("depth"));
        assert_eq!(problem(&task(r#","selector":{"all":[""]}"#)), Some("selector"));
        assert_eq!(problem(r#"{"kind":"clone","url":"https://a","depth":0}"#), Some("depth"));
    }

    #[test]
    fn what_does_not_go_with_a_delivery_is_named() {
        let clone = |rest: &str| problem(&format!(r#"{{"kind":"clone","url":"https://a",{rest}}}"#));
        assert_eq!(clone(r#""deliver":"archive","archive_format":"zip","paths":["a"],"depth":1"#), None);
        assert_eq!(clone(r#""deliver":"archive","archive_format":"tar.zst""#), None);
        assert_eq!(clone(r#""archive_format":"zip""#), Some("archive_format"));
        assert_eq!(clone(r#""deliver":"bundle","archive_format":"zip""#), Some("archive_format"));
        assert_eq!(clone(r#""deliver":"files""#), Some("paths"));
        assert_eq!(clone(r#""deliver":"files","paths":["README.md"],"depth":1"#), None);
        assert_eq!(clone(r#""deliver":"bundle","depth":1"#), Some("depth"));
        assert_eq!(clone(r#""deliver":"bundle","paths":["a"]"#), Some("paths"));
        for deliver in ["archive", "bundle", "files"] {
            let paths = if deliver == "bundle" { "" } else { r#","paths":["a"]"# };
            let with = |rest: &str| clone(&format!(r#""deliver":"{deliver}"{paths},{rest}"#));
            assert_eq!(with(r#""submodules":true"#), Some("submodules"), "{deliver}");
            assert_eq!(with(r#""lfs":true"#), Some("lfs"), "{deliver}");
            assert_eq!(with(r#""submodules":false,"lfs":false"#), None, "{deliver}");
        }
        assert_eq!(clone(r#""deliver":"none","submodules":true,"lfs":true"#), None);
        let test = r#"{"kind":"connection-test","url":"https://a","archive_format":"zip"}"#;
        assert_eq!(problem(test), Some("archive_format"));
    }

    #[test]
    fn texts_are_bounded_and_hold_no_password() {
        let with_url = |url: &str| problem(&format!(r#"{{"kind":"clone","url":"{url}"}}"#));
        assert_eq!(with_url(&format!("https://a/{}", "b".repeat(MAX_TEXT_BYTES))), Some("url"));
        assert_eq!(with_url("https://user:secret@a.example/x"), Some("url"));
        assert_eq!(with_url("https://user@a.example:8080/x:y@z"), None);
        assert_eq!(with_url("git@a.example:group/web.git"), None);
        let long = "b".repeat(MAX_TEXT_BYTES + 1);
        let more = |rest: &str| problem(&format!(r#"{{"kind":"clone","url":"https://a",{rest}}}"#));
        assert_eq!(more(&format!(r#""paths":["{long}"]"#)), Some("paths"));
        assert_eq!(more(&format!(r#""submodules":["{long}"]"#)), Some("submodules"));
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let task: TaskSpec = serde_json::from_str(r#"{"kind":"clone","url":"https://a"}"#).unwrap();
        assert_eq!((task.queue_seconds, task.run_seconds), (600, 60));
    }
}
