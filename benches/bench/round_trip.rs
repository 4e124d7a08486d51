//! From the POST of a task to its result, beyond the work itself.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stand_ins::{Authority, Gitlab, Repository, StandIns, World};

use crate::client::Client;
use crate::daemon::memory_of;
use crate::effort::Effort;
use crate::figure::{Figure, Quantity, Target};
use crate::statistics::Times;
use crate::support::agent::Agent;
use crate::support::control_plane::ControlPlane;
use crate::support::repository::SampleRepository;

/// What half of all tasks, and all but the slowest of a hundred, may take beyond the work. Both sides write to a disk
/// meanwhile: the control plane before it answers and before it acknowledges, the agent before it sends.
const HALF_TARGET: Target = Target::Milliseconds(3.0);
const SLOWEST_TARGET: Target = Target::Milliseconds(15.0);
/// The token of the server's user.
const TOKEN: &str = "token-for-measurements";
/// The repository's path on the server.
const PATH: &str = "group/web";

/// Measures all of it.
pub(crate) fn measure(effort: &Effort) -> Vec<Figure> {
    let scratch = tempfile::tempdir().expect("a private directory");
    let sample = SampleRepository::small(&scratch.path().join("web.git"));
    let authority = Authority::create(scratch.path()).expect("an authority for certificates");
    let world = World::new()
        .with_gitlab(Gitlab::default())
        .with_user("ada", "not-used")
        .with_pat("ada", TOKEN, &["read_api", "read_repository"])
        .with_repository(Repository::gitlab(PATH, &sample.directory).read_by("ada"));
    let stand_ins = StandIns::start(world, &authority).expect("the stand-in of a GitLab");
    let url = stand_ins.gitlab.as_ref().expect("a GitLab").url();
    let control_plane = ControlPlane::start();
    let agent = Agent::plan("bench")
        .with_toml(&format!(
            "[servers.gitlab]\nprovider = \"gitlab\"\nurl = \"{url}\"\ncredential = \"gitlab_pat\"\n\
             ca_file = \"{}\"\n",
            authority.ca_file().display()
        ))
        .with_credential("gitlab_pat", "pat", TOKEN, "")
        .start(&control_plane);
    eprintln!("POST to result: {} tasks", effort.tasks);
    let task = json!({"kind": "connection-test", "url": format!("{url}/{PATH}"), "provider": "gitlab"});
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let times = Times::new(runtime.block_on(beyond_the_work(&control_plane, &task, effort)));
    let memory = memory_of(&agent);
    vec![
        Figure::alone(
            "POST to result beyond the work, half of all",
            Quantity::of(times.median()),
            HALF_TARGET,
        ),
        Figure::alone(
            "POST to result beyond the work, 99 of 100",
            Quantity::of(times.percentile(99)),
            SLOWEST_TARGET,
        ),
        Figure::alone(
            &format!("resident memory of an agent after {} tasks", effort.tasks),
            memory,
            Target::None,
        ),
    ]
}

/// Runs the task again and again, and takes from each time what its report says that the work took.
async fn beyond_the_work(control_plane: &ControlPlane, task: &Value, effort: &Effort) -> Vec<Duration> {
    let (mut client, task) = (Client::of(control_plane).await, task.to_string());
    for _ in 0..effort.warm_ups {
        done(&mut client, &task).await;
    }
    let mut times = Vec::new();
    for _ in 0..effort.tasks {
        let begun = Instant::now();
        let done = done(&mut client, &task).await;
        let took = begun.elapsed();
        assert_eq!(done["outcome"], "succeeded", "{done:#}");
        let work = done["result"]["duration_ms"].as_f64().expect("the time that the work took");
        times.push(took.saturating_sub(Duration::from_secs_f64(work / 1000.0)));
    }
    times
}

/// Posts a task and waits for its end.
async fn done(client: &mut Client, task: &str) -> Value {
    let mut answer = client.post("/api/v1/tasks", task).await;
    loop {
        let task: Value = serde_json::from_slice(&answer.body).expect("JSON");
        if task["state"] == "completed" {
            return task;
        }
        let id = task["id"].as_str().unwrap_or_else(|| panic!("the task was not taken: {task:#}"));
        answer = client.get(&format!("/api/v1/tasks/{id}?wait=30s")).await;
    }
}
