//! `sortie-control task submit`: a client of the REST interface.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::Value;
use sortie_protocol::task::TaskSpec;

use super::client::{Access, CallError, ControlPlane, document, not_reached, persist, read};
use super::{Failure, print};
use crate::identity::new_id;

/// How much longer than its own times a task may take before its control plane is given up: for the way to an
/// agent and back, and for a restart.
const OUTAGE_MARGIN: Duration = Duration::from_secs(120);

#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    /// Submit a task and print it as JSON.
    #[command(after_help = "\
Example:
  sortie-control task submit --file task.json --wait --url https://sortie.example.com --token-file ci.token

With --wait the exit status is 1 where the outcome is not `succeeded`. A control plane that restarts
meanwhile is waited for, as long as the task may queue and run.")]
    Submit(Submit),
}

#[derive(Debug, clap::Args)]
pub(super) struct Submit {
    /// The task, a JSON file.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Wait until the task is completed.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    access: Access,
}

impl TaskCommand {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Submit(submit) => submit.run().await,
        }
    }
}

impl Submit {
    async fn run(self) -> Result<(), Failure> {
        let body = read(&self.file, "--file").await?;
        let control_plane = self.access.connect().await?;
        // A key of its own lets the request be repeated without making two tasks.
        let key = new_id("submit").map_err(Failure::failed)?;
        let patience = if self.wait { patience(&body) } else { Duration::ZERO };
        let mut task = persist(patience, || control_plane.post(body.clone(), &key)).await?;
        let id = task["id"].as_str().unwrap_or_default().to_owned();
        while self.wait && task["state"] != "completed" {
            task = persist(patience, || control_plane.wait(&id)).await.map_err(|failure| match failure {
                Failure::Failed(message) => {
                    Failure::Failed(format!("{message}; the task is {id} and may go on"))
                }
                other => other,
            })?;
        }
        print(&serde_json::to_string_pretty(&task).map_err(Failure::failed)?);
        match task["outcome"].as_str() {
            Some("succeeded") => Ok(()),
            Some(outcome) if self.wait => Err(Failure::Failed(format!("the outcome is {outcome}"))),
            _ => Ok(()),
        }
    }
}

/// How long an outage may last before the task is over in any case.
fn patience(body: &[u8]) -> Duration {
    // The control plane says what is wrong with a task that cannot be read here.
    let times = serde_json::from_slice::<TaskSpec>(body).ok();
    let seconds = times.map_or(0, |task| task.queue_seconds.saturating_add(task.run_seconds));
    OUTAGE_MARGIN.saturating_add(Duration::from_secs(seconds))
}

impl ControlPlane {
    async fn post(&self, body: Vec<u8>, key: &str) -> Result<Value, CallError> {
        let request = self.request(Method::POST, "/api/v1/tasks");
        let request = request.header(CONTENT_TYPE, "application/json").header("idempotency-key", key);
        document(request.body(body).send().await.map_err(not_reached)?).await
    }

    async fn wait(&self, id: &str) -> Result<Value, CallError> {
        let request = self.request(Method::GET, &format!("/api/v1/tasks/{id}?wait=60s"));
        document(request.send().await.map_err(not_reached)?).await
    }
}
