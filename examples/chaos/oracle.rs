//! Whether everything is as it was promised, once the storm is over and all is at rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Handle;

use crate::client::{Desk, LABEL, Ledger, MAX_ATTEMPTS, Posted};
use crate::stage::{Stage, WORKSPACE_SECONDS};

/// How long everything may take to come to rest: leases of a minute, reconnections after a minute, and some more.
const REST_LIMIT: Duration = Duration::from_secs(240);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// How long it took to come to rest.
    pub(crate) rest: Duration,
    /// Tasks by outcome.
    pub(crate) outcomes: BTreeMap<String, usize>,
    /// Attempts of all tasks.
    pub(crate) attempts: usize,
    /// The most that one task took.
    pub(crate) most_attempts: usize,
    /// Tasks that were answered and are not there, or are not completed.
    pub(crate) lost: Vec<String>,
    /// Tasks that are there twice or were counted twice.
    pub(crate) doubled: Vec<String>,
    /// Artifacts of attempts that do not count. They go when their time is over.
    pub(crate) stale_artifacts: usize,
    /// What was left behind.
    pub(crate) leftovers: Vec<String>,
    /// Whatever else is not as it must be.
    pub(crate) wrong: Vec<String>,
}

impl Verdict {
    /// Whether all is well.
    pub(crate) fn is_good(&self) -> bool {
        self.findings().next().is_none()
    }

    /// All that is not well.
    pub(crate) fn findings(&self) -> impl Iterator<Item = &String> {
        self.lost.iter().chain(&self.doubled).chain(&self.leftovers).chain(&self.wrong)
    }
}

/// Lets everything come to rest and looks at it.
pub(crate) fn judge(stage: &mut Stage, handle: &Handle, ledger: &Ledger) -> Verdict {
    let desk = Desk::new(&stage.quiet_url(), &stage.token);
    let mut verdict = Verdict::default();
    ledger.close();
    let begun = Instant::now();
    let mut connected = false;
    while begun.elapsed() < REST_LIMIT && !crate::storm::is_stopped() {
        stage.all().for_each(super::supervised::Supervised::tend);
        connected = handle.block_on(all_connected(&desk, stage.agents.len()));
        if connected && ledger.is_idle() {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    verdict.rest = begun.elapsed();
    ledger.end();
    if !connected {
        verdict.wrong.push("an agent is not connected again".to_owned());
    }
    verdict.wrong.extend(ledger.wrongs());
    match handle.block_on(desk.list("tasks", "tasks")) {
        Ok(tasks) => {
            judge_tasks(&tasks, &ledger.posted(), &mut verdict);
            judge_disks(stage, &tasks, &mut verdict);
            let artifacts = handle.block_on(desk.list("artifacts", "artifacts"));
            judge_artifacts(&tasks, artifacts, &mut verdict);
        }
        Err(error) => verdict.wrong.push(format!("the tasks cannot be listed: {error}")),
    }
    verdict
}

async fn all_connected(desk: &Desk, expected: usize) -> bool {
    let agents = desk.agents().await.unwrap_or_default();
    agents.iter().filter(|agent| agent["state"] == "connected").count() == expected
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn judge_tasks(tasks: &[Value], posted: &BTreeMap<String, Posted>, verdict: &mut Verdict) {
    let mut by_key: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for task in tasks {
        by_key.entry(task["labels"][LABEL].as_str().unwrap_or_default()).or_default().push(task);
        judge_task(task, verdict);
    }
    for (key, found) in &by_key {
        if found.len() > 1 {
            verdict.doubled.push(format!("{key}: {} tasks came of one POST", found.len()));
        }
    }
    for (key, answered) in posted {
        match by_key.get(key.as_str()).and_then(|found| found.first()) {
            None => verdict.lost.push(format!("{key}: {} was answered and is not there", answered.id)),
            Some(task) if text(task, "id") != answered.id => {
                verdict
                    .doubled
                    .push(format!("{key}: answered with {}, and there is another one", answered.id));
            }
            Some(_) => {}
        }
    }
}

fn judge_task(task: &Value, verdict: &mut Verdict) {
    let (id, outcome) = (text(task, "id"), text(task, "outcome"));
    *verdict.outcomes.entry(outcome.to_owned()).or_default() += 1;
    let attempts = task["attempts"].as_array().map_or(&[][..], Vec::as_slice);
    verdict.attempts += attempts.len();
    verdict.most_attempts = verdict.most_attempts.max(attempts.len());
    if text(task, "state") != "completed" {
        return verdict.lost.push(format!("{id} is not completed: {task}"));
    }
    let numbers: Vec<u64> = attempts.iter().filter_map(|attempt| attempt["number"].as_u64()).collect();
    if !numbers.is_sorted_by(|a, b| a < b) || numbers.len() != attempts.len() {
        verdict.doubled.push(format!("{id}: the numbers of its attempts are {numbers:?}"));
    }
    if let Some(open) = attempts.iter().find(|attempt| attempt["ended_at"].is_null()) {
        verdict.wrong.push(format!("{id} is completed, and an attempt is not: {open}"));
    }
    let of_outcome = |wanted: &str| attempts.iter().filter(|it| text(it, "outcome") == wanted).count();
    let (succeeded, failed) = (of_outcome("succeeded"), of_outcome("failed"));
    // Another agent may reach a server that one could not reach: only other results end a task.
    let final_results = succeeded + attempts.iter().filter(|it| is_final_failure(it)).count();
    let said = history(attempts);
    if final_results > 1 {
        verdict
            .doubled
            .push(format!("{id}: {final_results} of its attempts have a result that ends it: {said}"));
    }
    let is_right = match outcome {
        "succeeded" => succeeded == 1 && attempts.last().is_some_and(|it| text(it, "outcome") == outcome),
        "failed" => succeeded == 0 && failed > 0,
        "dead" => final_results == 0 && attempts.len() >= MAX_ATTEMPTS,
        _ => false,
    };
    if !is_right {
        verdict.wrong.push(format!("{id} is {outcome} ({}): {said}", task["reason"]));
    }
    if matches!(outcome, "succeeded" | "failed") && task["result"].is_null() {
        verdict.lost.push(format!("{id} is {outcome} and has no result: {said}"));
    }
}

/// Whether an attempt failed for a reason that would be the same with another agent.
fn is_final_failure(attempt: &Value) -> bool {
    const ON_THE_WAY: [&str; 5] = ["resolve", "proxy", "connect", "tls", "host_key"];
    text(attempt, "outcome") == "failed" && !ON_THE_WAY.contains(&text(&attempt["diagnosis"], "stage"))
}

/// The attempts of a task in one line.
fn history(attempts: &[Value]) -> String {
    let each = attempts.iter().map(|attempt| {
        let diagnosis = &attempt["diagnosis"];
        let why = attempt["reason"].as_str().unwrap_or_else(|| text(diagnosis, "code"));
        let (agent, outcome, stage) =
            (text(attempt, "agent"), text(attempt, "outcome"), text(diagnosis, "stage"));
        format!("{} {agent} {outcome} {stage} {why}", attempt["number"])
    });
    each.collect::<Vec<_>>().join("; ")
}

/// Every artifact that was told of is there.
fn judge_artifacts(tasks: &[Value], artifacts: Result<Vec<Value>, String>, verdict: &mut Verdict) {
    let artifacts = match artifacts {
        Ok(artifacts) => artifacts,
        Err(error) => return verdict.wrong.push(format!("the artifacts cannot be listed: {error}")),
    };
    let kept: BTreeSet<&str> = artifacts.iter().map(|artifact| text(artifact, "id")).collect();
    let told: BTreeSet<&str> =
        tasks.iter().filter_map(|task| task["result"]["artifact"]["id"].as_str()).collect();
    verdict
        .lost
        .extend(told.difference(&kept).map(|id| format!("the artifact {id} was told of and is not there")));
    verdict.stale_artifacts = kept.difference(&told).count();
}

/// Looks for what attempts that are over left on the agents' disks.
fn judge_disks(stage: &Stage, tasks: &[Value], verdict: &mut Verdict) {
    let told: BTreeSet<PathBuf> =
        tasks.iter().filter_map(|task| task["result"]["path"].as_str()).map(PathBuf::from).collect();
    for agent in 0..stage.agents.len() {
        let state = stage.state(agent);
        let workspaces = state.join("workspaces");
        for path in entries(&workspaces) {
            let workspace =
                if path.extension().is_some_and(|it| it == "json") { path.with_extension("") } else { path };
            if !told.contains(&workspace) {
                verdict.leftovers.push(format!("{} belongs to no result", workspace.display()));
            }
        }
        for path in entries(&state.join("tmp")) {
            verdict.leftovers.push(format!("{} is left", path.display()));
        }
        for path in entries(&state.join("mirrors")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') {
                verdict.leftovers.push(format!("{} is left", path.display()));
            }
            let packs = entries(&path.join("objects/pack"));
            let is_part = |path: &PathBuf| !path.extension().is_some_and(|it| it == "pack" || it == "idx");
            verdict
                .leftovers
                .extend(packs.iter().filter(|it| is_part(it)).map(|it| format!("{} is left", it.display())));
        }
    }
    verdict.leftovers.sort();
    verdict.leftovers.dedup();
    judge_workspaces(tasks, verdict);
}

/// What was told of and is not yet to go must be there.
fn judge_workspaces(tasks: &[Value], verdict: &mut Verdict) {
    let age = |task: &Value| {
        let completed = time::OffsetDateTime::parse(
            text(task, "completed_at"),
            &time::format_description::well_known::Rfc3339,
        );
        completed.map_or(i64::MAX, |at| (time::OffsetDateTime::now_utc() - at).whole_seconds())
    };
    // A result may have waited for its control plane, so that its workspace is older than the end of its task.
    let is_fresh = |task: &&Value| age(task) < i64::try_from(WORKSPACE_SECONDS / 2).unwrap_or_default();
    for task in tasks.iter().filter(|task| text(task, "outcome") == "succeeded").filter(is_fresh) {
        if let Some(path) = task["result"]["path"].as_str()
            && !Path::new(path).join(".git/HEAD").is_file()
        {
            verdict.lost.push(format!("{}: {path} was delivered and is not there", text(task, "id")));
        }
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).collect()
}

/// Processes that still name this directory in their command line. Everything that was started there has been ended.
pub(crate) fn leftover_processes(scratch: &Path) -> Vec<String> {
    let own = std::process::id().to_string();
    let scratch = scratch.display().to_string();
    let processes = entries(Path::new("/proc")).into_iter().filter_map(|path| {
        let number = path.file_name()?.to_str()?.to_owned();
        number.parse::<u32>().ok().filter(|_| number != own)?;
        let line = String::from_utf8_lossy(&fs::read(path.join("cmdline")).ok()?).replace('\0', " ");
        line.contains(&scratch).then(|| format!("process {number} still runs: {line}"))
    });
    processes.collect()
}
