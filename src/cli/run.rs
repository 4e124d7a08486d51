//! `sortie run`: the daemon from its configuration to its end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::access::{AccessError, with_secret};
use super::enroll::{Failure, control_plane, profile, trade};
use super::{Common, Exit, complain, load_config};
use crate::agent::{Agent, Dialer, Ended, Parts, Wish};
use crate::artifact::Uploader;
use crate::backoff::{self, Backoff};
use crate::config::{self, Config};
use crate::control_socket::{self, Desk};
use crate::credential::Store;
use crate::dial::{Door, ProxyEnvironment};
use crate::doctor::{self, Examiner};
use crate::enroll::EnrollError;
use crate::git::{self, Mirrors};
use crate::health::{self, Source};
use crate::identity::{self, Identity, IdentityError};
use crate::journal::Journal;
use crate::journal::sqlite::{OpenError, SqliteStore};
use crate::policy::Policy;
use crate::pulse;
use crate::runner::Runner;
use crate::status::{Board, Daemon, Moment, Status};
use crate::systemd::Notifier;
use crate::task::Tools;
use crate::telemetry;
use crate::workspace::Workspaces;

/// How long until a journal that could not be opened is tried again.
const JOURNAL_RETRY: Duration = Duration::from_secs(5);

/// How often workspaces are looked through for those whose time is over, and mirrors for those with many packs.
const TENDING_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sortie run
  sortie run --config /etc/sortie/config.toml

SIGTERM and Ctrl-C drain: what runs is finished, for agent.drain_seconds at the most. A second one stops.
SIGUSR1 pauses: what runs goes on, and nothing new is taken. SIGUSR2 resumes.")]
pub(super) struct RunArgs {}

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("{0}")]
    Failure(#[from] Failure),
    #[error("{0}")]
    Access(#[from] AccessError),
    #[error("{0}")]
    Log(#[from] telemetry::LogError),
    #[error("{0}")]
    Identity(#[from] IdentityError),
    #[error(
        "this agent is not enrolled: run `sortie enroll`, or set control_plane.enrollment_token in the configuration"
    )]
    NotEnrolled,
    #[error(
        "this agent is enrolled at {enrolled}, and the configuration says {configured}: correct control_plane.url, \
         or run `sortie unenroll` and enroll again"
    )]
    Elsewhere { enrolled: String, configured: String },
    #[error("control_plane.url is damaged in the agent's identity: enroll again")]
    Url,
    #[error("another daemon uses the state directory {0}")]
    Locked(String),
    #[error("libgit2 cannot be set up: {0}")]
    Git(#[from] git::InitializationError),
    #[error("{0}")]
    Health(#[from] health::BindError),
    #[error("{0}")]
    Journal(#[from] OpenError),
    #[error("the journal could not be opened because of a bug; the log has more")]
    JournalPanicked,
    #[error("signals cannot be received: {0}")]
    Signals(std::io::ErrorKind),
}

pub(super) async fn execute(common: &Common, _args: RunArgs) -> Exit {
    let config = match load_config(common) {
        Ok(config) => config,
        Err(error) => return complain(Exit::Configuration, &error.to_string()),
    };
    match Box::pin(run(config)).await {
        Ok(exit) => exit,
        Err(error) => complain(Exit::Configuration, &error.to_string()),
    }
}

async fn run(config: Config) -> Result<Exit, StartError> {
    telemetry::init(config.log)?;
    let (sender, wishes) = watch::channel(Wish::Run);
    let signals = Signals::new()?;
    let _lock = lock(&config.agent.state_dir)?;
    git::initialize()?;
    let config = Arc::new(config);
    let tools = tools(&config).await;
    let (board, status) = Board::new();
    let daemon = daemon(&config);
    let health = tell_health(&config, &daemon, status.clone()).await?;
    let socket = open_control_socket(&config, daemon, &tools, status).await;
    let notifier = Notifier::from_environment();
    notifier.ready();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), agent.name = config.agent.name, "started");

    // These end with this function: they are aborted when the set is dropped.
    let mut tasks = JoinSet::new();
    tasks.spawn(signals.forward(sender));
    tasks.spawn(look_after_pool(board.clone()));
    tasks.spawn(tend(tools.workspaces.clone(), tools.mirrors.clone()));
    let ended = serve(&config, tools, board, notifier, wishes).await;
    socket.close().await;
    health.close().await;
    ended
}

/// From the identity to the end of the loop.
async fn serve(
    config: &Config,
    mut tools: Tools,
    board: Board,
    mut notifier: Notifier,
    mut wishes: watch::Receiver<Wish>,
) -> Result<Exit, StartError> {
    let prepared =
        async { Ok::<_, StartError>((enrolled(config).await?, open_journal(config, &board).await?)) };
    let (identity, journal) = tokio::select! {
        prepared = notifier.while_alive(prepared) => prepared?,
        () = wished_to_end(&mut wishes) => return Ok(Exit::Done),
    };
    // What was wished for meanwhile is seen by the loop, a pause for example.
    wishes.mark_changed();
    let url = config::control_plane_url(&identity.control_plane).map_err(|_| StartError::Url)?;
    let control_plane = control_plane(config, &url).await?;
    let destination = control_plane.destination.clone();
    tools.uploads = Some(Uploader::new(Arc::clone(&tools.door), destination, url, &identity));
    let agent = Agent::new(Parts {
        way: Box::new(Dialer::new(Arc::clone(&tools.door), control_plane)),
        profile: profile(&config.agent),
        identity,
        runner: Runner::new(tools, config.max_run),
        journal,
        notifier,
        board,
        drain: config.agent.drain,
        jitter: Box::new(backoff::random),
    });
    let ended = agent.run(wishes).await;
    tracing::info!(drained = ended == Ended::Drained, "ended");
    Ok(Exit::Done)
}

/// The journal, once it can be opened: a disk that is full, or a program that holds the file, is waited out.
async fn open_journal(config: &Config, board: &Board) -> Result<Journal<SqliteStore>, StartError> {
    loop {
        let directory = config.agent.state_dir.clone();
        let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&directory)).await;
        match opened {
            Ok(Ok((store, kept))) => return Ok(Journal::new(store, kept)),
            Ok(Err(error)) if error.is_passing() => {
                tracing::error!(%error, retry_in_s = JOURNAL_RETRY.as_secs(), "no tasks are taken yet");
                board.trouble(&error.to_string());
                board.update(|status| status.journal_fails = true);
                tokio::time::sleep(JOURNAL_RETRY).await;
            }
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => return Err(StartError::JournalPanicked),
        }
    }
}

/// What tasks are done with, by the configuration alone.
pub(super) async fn tools(config: &Config) -> Tools {
    let mut servers = config.servers.clone();
    for server in &mut servers {
        // Without its secret the proxy will ask for it, and the report of a task will say so.
        match with_secret(server.proxy.clone(), config.proxy_secrets.get(&server.name)).await {
            Ok(proxy) => server.proxy = proxy,
            Err(error) => {
                tracing::error!(server = server.name, %error, "the proxy goes without authentication")
            }
        }
    }
    Tools {
        door: Arc::new(Door::new(ProxyEnvironment::from_process())),
        policy: Arc::new(Policy::new(servers)),
        credentials: Arc::new(Store::new(config.credentials.clone())),
        limits: config.limits,
        engine: config.clones.engine,
        mirrors: mirrors(config),
        temporary: temporary(config),
        workspaces: Some(workspaces(config)),
        // Filled in once it is known who this agent is.
        uploads: None,
    }
}

/// A directory for what is needed for a moment, without what a killed process left in it.
fn temporary(config: &Config) -> PathBuf {
    let directory = config.temporary();
    if let Err(error) = std::fs::remove_dir_all(&directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %directory.display(), %error, "what an earlier run left cannot be removed");
    }
    directory
}

/// The clones of tasks, swept of what a killed process left.
fn workspaces(config: &Config) -> Arc<Workspaces> {
    let workspaces = Workspaces::new(config.workspaces(), config.placed(), config.clones.workspaces.clone());
    workspaces.sweep();
    Arc::new(workspaces)
}

/// Notes for ever whether threads for blocking work are free.
async fn look_after_pool(board: Board) {
    pulse::ask_pool(|since| board.update(|status| status.pulse.pool_asked = since)).await;
}

/// Removes workspaces whose time is over, and repacks mirrors, for ever.
async fn tend(workspaces: Option<Arc<Workspaces>>, mirrors: Option<Arc<Mirrors>>) {
    let mut interval = tokio::time::interval(TENDING_INTERVAL);
    loop {
        interval.tick().await;
        let (workspaces, mirrors) = (workspaces.clone(), mirrors.clone());
        let tended = tokio::task::spawn_blocking(move || {
            let gone = workspaces.map_or(0, |workspaces| workspaces.remove_expired().len());
            if gone > 0 {
                tracing::info!(workspaces = gone, "workspaces have expired and are removed");
            }
            if let Some(mirrors) = mirrors {
                mirrors.repack();
            }
        });
        if tended.await.is_err() {
            tracing::error!("tending to workspaces and mirrors panicked");
        }
    }
}

/// The mirrors, swept of what a killed process left.
fn mirrors(config: &Config) -> Option<Arc<Mirrors>> {
    let mirrors = Mirrors::new(config.mirrors(), config.clones.mirrors_bytes?);
    mirrors.sweep();
    Some(Arc::new(mirrors))
}

/// A task that answers clients of this host, where there is one.
#[derive(Default)]
struct Service {
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Service {
    /// Cuts off what is being answered, and waits until the socket's file is gone.
    async fn close(mut self) {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
    }
}

/// Begins to answer `status` and `doctor`. The daemon can do its work without, so that a failure is no end.
async fn open_control_socket(
    config: &Arc<Config>,
    daemon: Daemon,
    tools: &Tools,
    status: watch::Receiver<Status>,
) -> Service {
    let mut service = Service::default();
    match control_socket::bind(&control_socket::places(&config.agent)).await {
        Ok(listener) => {
            tracing::info!(path = %listener.path().display(), "the control socket is open");
            let desk = Desk::new(daemon, status, examiner(config, tools).await);
            service.task.spawn(control_socket::serve(listener, desk, service.stop.clone()));
        }
        Err(error) => {
            tracing::warn!(%error, "`sortie status` and `sortie doctor` cannot ask this daemon")
        }
    }
    service
}

/// Begins to tell health, where that is configured. Whoever asks there would take a daemon without it for dead, so
/// that a failure ends the start.
async fn tell_health(
    config: &Config,
    daemon: &Daemon,
    status: watch::Receiver<Status>,
) -> Result<Service, health::BindError> {
    let mut service = Service::default();
    if let Some(configured) = &config.health {
        let listener = health::bind(configured).await?;
        let address = listener.address().unwrap_or_else(|| configured.clone());
        tracing::info!(%address, "health is told");
        let source = Source { daemon: daemon.clone(), status };
        service.task.spawn(health::serve(listener, source, service.stop.clone()));
    }
    Ok(service)
}

async fn examiner(config: &Arc<Config>, tools: &Tools) -> Examiner {
    let control_plane = match &config.control_plane {
        Some(configured) => control_plane(config, &configured.url).await.ok(),
        None => None,
    };
    Examiner { config: Arc::clone(config), tools: tools.clone(), control_plane }
}

fn daemon(config: &Config) -> Daemon {
    Daemon {
        name: config.agent.name.clone(),
        tags: config.agent.tags.clone(),
        max_tasks: config.agent.max_tasks,
        state_dir: config.agent.state_dir.display().to_string(),
        configuration: doctor::fingerprint(config),
        started: Moment::now(),
    }
}

/// The identity that is kept, or the one that the configured token gives. The network may be down when a
/// host starts: that is waited out, and only a refusal is final.
async fn enrolled(config: &Config) -> Result<Identity, StartError> {
    let configured = config.control_plane.as_ref();
    match identity::load(&config.agent.state_dir) {
        Ok(identity) => {
            return match configured.map(|configured| configured.url.to_string()) {
                Some(url) if url != identity.control_plane => {
                    Err(StartError::Elsewhere { enrolled: identity.control_plane, configured: url })
                }
                _ => Ok(identity),
            };
        }
        Err(IdentityError::NotEnrolled(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let Some((configured, token)) = configured.and_then(|c| Some((c, c.enrollment_token.as_ref()?))) else {
        return Err(StartError::NotEnrolled);
    };
    let control_plane = control_plane(config, &configured.url).await?;
    let mut backoff = Backoff::default();
    loop {
        let traded = trade(&config.agent.state_dir, &control_plane, &profile(&config.agent), token).await;
        match traded {
            Ok(identity) => {
                tracing::info!(agent.id = identity.agent_id, "enrolled");
                return Ok(identity);
            }
            Err(Failure::Enroll(error)) if is_passing(&error) => {
                let wait = backoff.next(backoff::random());
                tracing::warn!(%error, retry_in_ms = wait.as_millis() as u64, "not enrolled yet");
                tokio::time::sleep(wait).await;
            }
            Err(failure) => return Err(failure.into()),
        }
    }
}

/// Whether trying again may help.
fn is_passing(error: &EnrollError) -> bool {
    match error {
        EnrollError::Dial(_) | EnrollError::Http(_) => true,
        EnrollError::Refused { status, .. } | EnrollError::NotAControlPlane { status } => {
            *status >= 500 || *status == 429
        }
    }
}

async fn wished_to_end(wishes: &mut watch::Receiver<Wish>) {
    // A closed channel means the same as a wish.
    let _ = wishes.wait_for(|wish| *wish > Wish::Run).await;
}

/// Two daemons with one identity would supersede each other for ever.
fn lock(state_dir: &Path) -> Result<File, StartError> {
    identity::make_state_dir(state_dir)?;
    let path = state_dir.join("lock");
    let failed = |error: std::io::Error| IdentityError::State { path: path.clone(), kind: error.kind() };
    let file = File::create(&path).map_err(failed)?;
    file.try_lock().map_err(|_| StartError::Locked(state_dir.display().to_string()))?;
    Ok(file)
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    pause: tokio::signal::unix::Signal,
    resume: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, StartError> {
        let receive = |kind| signal(kind).map_err(|error| StartError::Signals(error.kind()));
        Ok(Self {
            terminate: receive(SignalKind::terminate())?,
            interrupt: receive(SignalKind::interrupt())?,
            pause: receive(SignalKind::user_defined1())?,
            resume: receive(SignalKind::user_defined2())?,
        })
    }

    /// The first signal that ends drains, and the second one stops. Before it, pauses may come and go.
    async fn forward(mut self, wishes: watch::Sender<Wish>) {
        let mut is_draining = false;
        loop {
            let wish = tokio::select! {
                _ = self.terminate.recv() => if is_draining { Wish::Stop } else { Wish::Drain },
                _ = self.interrupt.recv() => if is_draining { Wish::Stop } else { Wish::Drain },
                // Only the last wish counts, so that nothing may take the place of the one to drain.
                _ = self.pause.recv(), if !is_draining => Wish::Pause,
                _ = self.resume.recv(), if !is_draining => Wish::Run,
            };
            tracing::info!(?wish, "signal received");
            if wishes.send(wish).is_err() {
                return;
            }
            if wish == Wish::Stop {
                break;
            }
            is_draining |= wish == Wish::Drain;
        }
        std::future::pending().await
    }
}
