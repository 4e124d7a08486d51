//! `sortie-control artifact`: what agents delivered, for a client of the REST interface.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use clap::Subcommand;
use reqwest::header::{CONTENT_RANGE, HeaderMap, IF_RANGE, RANGE};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::time::{Instant, sleep};

use super::client::{
    Access, CallError, ControlPlane, FIRST_PAUSE, LONGEST_PAUSE, checked, document, not_reached, persist,
};
use super::{Failure, note, print};
use crate::identity::{hex, new_id};

/// How long a download may get no byte before its control plane is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// The mode of a file that is being made; it keeps it.
const FILE_MODE: u32 = 0o600;

#[derive(Debug, Subcommand)]
pub(super) enum ArtifactCommand {
    /// Download an artifact and check its SHA-256.
    #[command(after_help = "\
Example:
  sortie-control artifact get artifact_5f0c27 --output web.tar.zst --url https://sortie.example.com \\
      --token-file ci.token

A connection that is cut is taken up where it was. The file is there whole, or not at all.")]
    Get(Get),
    /// List artifacts as JSON, the newest first.
    List(List),
}

#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// The artifact's identifier, as the result of its task names it.
    id: String,
    /// The file to make.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Replace the file where it exists.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only artifacts of this task.
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    #[command(flatten)]
    access: Access,
}

impl ArtifactCommand {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Get(get) => get.run().await,
            Self::List(list) => list.run().await,
        }
    }
}

/// What is needed of an artifact's description.
#[derive(Deserialize)]
struct Described {
    bytes: u64,
    sha256: String,
}

impl List {
    async fn run(self) -> Result<(), Failure> {
        if let Some(task) = &self.task {
            check_id(task)?;
        }
        let control_plane = self.access.connect().await?;
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = control_plane.artifacts(self.task.as_deref(), cursor.as_deref());
            let mut page = page.await.map_err(final_failure)?;
            if let Some(Value::Array(artifacts)) = page.get_mut("artifacts").map(Value::take) {
                all.extend(artifacts);
            }
            cursor = page["next"].as_str().filter(|cursor| check_id(cursor).is_ok()).map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        print(&serde_json::to_string_pretty(&all).map_err(Failure::failed)?);
        Ok(())
    }
}

/// An identifier goes into a URL as it is.
fn check_id(id: &str) -> Result<(), Failure> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !id.is_empty() && id.chars().all(is_plain) {
        return Ok(());
    }
    Err(Failure::Failed(format!("{} is no identifier", id.escape_default())))
}

fn final_failure(error: CallError) -> Failure {
    match error {
        CallError::Refused(message) | CallError::Unavailable(message) => Failure::Failed(message),
    }
}

impl Get {
    async fn run(self) -> Result<(), Failure> {
        check_id(&self.id)?;
        if !self.force && tokio::fs::symlink_metadata(&self.output).await.is_ok() {
            return Err(exists(&self.output));
        }
        let control_plane = self.access.connect().await?;
        let shown: Value = persist(PATIENCE, || control_plane.artifact(&self.id)).await?;
        let described = Described::deserialize(&shown)
            .map_err(|_| Failure::Failed("the control plane does not describe the artifact".to_owned()))?;
        let mut download = Download::begin(&self.output).await?;
        tokio::select! {
            done = download.run(&control_plane, &self.id, &described) => done?,
            _ = tokio::signal::ctrl_c() => return Err(Failure::Failed("interrupted".to_owned())),
        }
        download.finish(&self.output, self.force).await?;
        print(&serde_json::to_string_pretty(&shown).map_err(Failure::failed)?);
        Ok(())
    }
}

fn exists(output: &Path) -> Failure {
    Failure::Failed(format!("{} exists; name another file, or replace it with --force", output.display()))
}

impl ControlPlane {
    async fn artifact(&self, id: &str) -> Result<Value, CallError> {
        let request = self.request(Method::GET, &format!("/api/v1/artifacts/{id}"));
        document(request.send().await.map_err(not_reached)?).await
    }

    async fn artifacts(&self, task: Option<&str>, cursor: Option<&str>) -> Result<Value, CallError> {
        let mut path = "/api/v1/artifacts?limit=200".to_owned();
        for (name, value) in [("task", task), ("cursor", cursor)] {
            if let Some(value) = value {
                path += &format!("&{name}={value}");
            }
        }
        document(self.request(Method::GET, &path).send().await.map_err(not_reached)?).await
    }
}

/// A file that is being made beside the one that is wanted; it goes with the command, unless it is finished.
struct Download {
    file: File,
    temporary: Temporary,
    digest: Context,
    received: u64,
}

struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Once it has the name that was wanted it is not here any more.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Download {
    async fn begin(output: &Path) -> Result<Self, Failure> {
        let name = output
            .file_name()
            .ok_or_else(|| Failure::Failed(format!("--output {}: it names no file", output.display())))?;
        let unique = new_id("part").map_err(Failure::failed)?;
        let path = output.with_file_name(format!(".{}.{unique}", name.to_string_lossy()));
        let options = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).clone();
        let file = options.open(&path).await.map_err(|error| written(&path, &error))?;
        let digest = Context::new(&SHA256);
        Ok(Self { file, temporary: Temporary(path), digest, received: 0 })
    }

    /// Receives everything, with as many requests as that takes.
    async fn run(
        &mut self,
        control_plane: &ControlPlane,
        id: &str,
        whole: &Described,
    ) -> Result<(), Failure> {
        let (mut since, mut pause) = (Instant::now(), FIRST_PAUSE);
        while self.received < whole.bytes {
            let before = self.received;
            let Err(error) = self.receive(control_plane, id, whole).await else { continue };
            let message = match error {
                ReceiveError::Call(CallError::Unavailable(message)) => message,
                ReceiveError::Call(CallError::Refused(message)) => return Err(Failure::Failed(message)),
                ReceiveError::File(error) => return Err(written(&self.temporary.0, &error)),
            };
            if self.received > before {
                (since, pause) = (Instant::now(), FIRST_PAUSE);
            }
            if since.elapsed() + pause > PATIENCE {
                return Err(Failure::Failed(message));
            }
            if pause == FIRST_PAUSE {
                note(&format!("{message}; going on at byte {}", self.received));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        let digest = std::mem::replace(&mut self.digest, Context::new(&SHA256)).finish();
        if hex(digest.as_ref()) == whole.sha256 {
            return Ok(());
        }
        Err(Failure::Failed(
            "what arrived has another SHA-256 than the artifact; nothing was kept".to_owned(),
        ))
    }

    /// One request for what is missing, read to its end or to where it breaks off.
    async fn receive(
        &mut self,
        control_plane: &ControlPlane,
        id: &str,
        whole: &Described,
    ) -> Result<(), ReceiveError> {
        let mut request = control_plane.request(Method::GET, &format!("/api/v1/artifacts/{id}/content"));
        if self.received > 0 {
            request = request
                .header(RANGE, format!("bytes={}-", self.received))
                .header(IF_RANGE, format!("\"{}\"", whole.sha256));
        }
        let response = checked(request.send().await.map_err(not_reached)?).await?;
        let goes_on = response.status() == StatusCode::PARTIAL_CONTENT
            && first_byte(response.headers()) == Some(self.received);
        if !goes_on {
            self.begin_anew().await?;
        }
        let mut response = response;
        while let Some(chunk) = response.chunk().await.map_err(|error| broken_off(&error))? {
            if chunk.len() as u64 > whole.bytes - self.received {
                return Err(CallError::Refused("more arrived than the artifact has".to_owned()).into());
            }
            self.file.write_all(&chunk).await?;
            self.digest.update(&chunk);
            self.received += chunk.len() as u64;
        }
        if self.received < whole.bytes {
            return Err(CallError::Unavailable("the answer ended too early".to_owned()).into());
        }
        Ok(())
    }

    async fn begin_anew(&mut self) -> io::Result<()> {
        self.file.set_len(0).await?;
        self.file.rewind().await?;
        self.digest = Context::new(&SHA256);
        self.received = 0;
        Ok(())
    }

    /// Gives the file the name that was wanted.
    async fn finish(mut self, output: &Path, force: bool) -> Result<(), Failure> {
        let path = &self.temporary.0;
        let synced = async {
            self.file.flush().await?;
            self.file.sync_all().await
        };
        synced.await.map_err(|error| written(path, &error))?;
        if force {
            return tokio::fs::rename(path, output).await.map_err(|error| written(output, &error));
        }
        // A link, unlike a renaming, replaces nothing that appeared meanwhile.
        tokio::fs::hard_link(path, output).await.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(output),
            _ => written(output, &error),
        })
    }
}

/// Why one request did not bring everything.
enum ReceiveError {
    Call(CallError),
    File(io::Error),
}

impl From<CallError> for ReceiveError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<io::Error> for ReceiveError {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

fn broken_off(error: &reqwest::Error) -> CallError {
    CallError::Unavailable(format!("the download broke off: {error}"))
}

fn written(path: &Path, error: &io::Error) -> Failure {
    Failure::Failed(format!("{}: {error}", path.display()))
}

/// Where the bytes of a partial answer begin.
fn first_byte(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.parse().ok()
}
