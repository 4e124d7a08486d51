//! What runs: a git server, a control plane, agents, and the lines between them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use stand_ins::Authority;
use tokio::runtime::Handle;

use crate::ills;
use crate::random::Random;
use crate::supervised::Supervised;
use crate::support::agent::{Agent, AgentPlan};
use crate::support::binary::{binary, isolate};
use crate::support::control_plane::secret_file;
use crate::support::nginx::Nginx;
use crate::support::process::{START_LIMIT, accepts, command_line, free_port, wait_until};
use crate::support::repository::SampleRepository;
use crate::wire::{Weather, Wire};

/// The names of the agents.
const AGENTS: [&str; 3] = ["fra1-a", "fra1-b", "muc1-a"];
/// The agent whose state lies on a small file system, where one can be mounted.
const SMALL: &str = AGENTS[0];
/// How large the small file systems are, in MiB.
const AGENT_MEBIBYTES: u32 = 96;
const CONTROL_PLANE_MEBIBYTES: u32 = 256;
/// The token that the git server accepts. It opens nothing else.
const TOKEN: &str = "chaos-token-of-ada";
/// How long clones are kept, in seconds; a long storm would fill the small file system otherwise.
pub(crate) const WORKSPACE_SECONDS: u64 = 300;
/// After how many bytes something happens at the latest on lines to the control plane, and to the git server.
const CONTROL_REACH: u64 = 24 * 1024;
const GIT_REACH: u64 = 48 * 1024;

/// Everything that runs.
pub(crate) struct Stage {
    // The order of these fields is the order in which they end.
    /// The agents.
    pub(crate) agents: Vec<Supervised>,
    /// The control plane.
    pub(crate) control_plane: Supervised,
    _git: Nginx,
    wires: Vec<Wire>,
    /// What holds for all lines.
    pub(crate) weather: Arc<Weather>,
    plans: Vec<AgentPlan>,
    control_directory: PathBuf,
    port: u16,
    /// The token of the role `admin`.
    pub(crate) token: String,
    git_url: String,
    _authority: Authority,
}

impl Stage {
    /// Starts everything, in good weather.
    ///
    /// # Panics
    /// When something does not start, with the reason and what to do about it.
    pub(crate) fn start(scratch: &Path, handle: &Handle, random: &mut Random) -> Self {
        let authority = Authority::create(scratch).expect("an authority for certificates");
        let root = scratch.join("git");
        std::fs::create_dir(&root).expect("a directory for repositories");
        SampleRepository::small(&root.join("web.git"));
        let git = Nginx::plan(&root).accept_pat(TOKEN).with_processes(8).start(&authority);
        let control_directory = scratch.join("control");
        std::fs::create_dir(&control_directory).expect("a directory for the control plane");
        if ills::may_mount() {
            ills::mount_small(&control_directory, CONTROL_PLANE_MEBIBYTES);
        }
        let database = format!("sqlite:{}", control_directory.join("control.db").display());
        let token = make_token(scratch, &database);

        let weather = Arc::new(Weather::default());
        let port = free_port();
        let mut wire = |target, reach| Wire::start(handle, target, reach, &weather, random.fork());
        let wires = vec![wire(port, CONTROL_REACH), wire(port, CONTROL_REACH), wire(git.port(), GIT_REACH)];
        let agents_url = loopback("http", wires[0].port());
        let control_plane = start_control_plane(scratch, port, &database, &agents_url);
        wait_until("the control plane listens", START_LIMIT, || accepts(port));

        let git_url = loopback("https", wires[2].port());
        let plans: Vec<AgentPlan> =
            AGENTS.iter().map(|name| plan(name, &git_url, authority.ca_file())).collect();
        let uses = u32::try_from(AGENTS.len()).expect("a small number");
        let enrollment = enrollment_token(handle, &loopback("http", port), &token, uses);
        let agents =
            plans.iter().zip(AGENTS).map(|(plan, name)| start_agent(name, plan, &agents_url, &enrollment));
        let agents = agents.collect();
        Self {
            agents,
            control_plane,
            _git: git,
            wires,
            weather,
            plans,
            control_directory,
            port,
            token,
            git_url,
            _authority: authority,
        }
    }

    /// The control plane's URL, by a line that nobody harms.
    pub(crate) fn quiet_url(&self) -> String {
        loopback("http", self.port)
    }

    /// The same by the line of the clients.
    pub(crate) fn client_url(&self) -> String {
        loopback("http", self.wires[1].port())
    }

    /// What is tested and cloned.
    pub(crate) fn repository_url(&self) -> String {
        format!("{}/web.git", self.git_url)
    }

    /// The database's file.
    pub(crate) fn database(&self) -> PathBuf {
        self.control_directory.join("control.db")
    }

    /// The directories that lie on small file systems: the control plane's, and one agent's.
    pub(crate) fn small_directories(&self) -> [PathBuf; 2] {
        let small = AGENTS.iter().position(|name| *name == SMALL).unwrap_or_default();
        [self.control_directory.clone(), self.state(small)]
    }

    /// The state directory of an agent.
    pub(crate) fn state(&self, agent: usize) -> PathBuf {
        self.plans[agent].directory().join("state")
    }

    /// Copies the agents' directories, which go with this, into another one.
    pub(crate) fn keep_agents(&self, into: &Path) {
        for (plan, name) in self.plans.iter().zip(AGENTS) {
            let _ = Command::new("cp").arg("-a").arg(plan.directory()).arg(into.join(name)).status();
        }
    }

    /// All that is supervised.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut Supervised> {
        self.agents.iter_mut().chain([&mut self.control_plane])
    }
}

fn loopback(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}

fn plan(name: &str, git_url: &str, ca_file: &Path) -> AgentPlan {
    let plan = Agent::plan(name)
        .with_tags(&["chaos"])
        .with_credential("lab_pat", "pat", TOKEN, "")
        .with_toml(&format!(
            "[servers.lab]\nprovider = \"git\"\nurl = \"{git_url}\"\ncredential = \"lab_pat\"\nca_file = \"{}\"\n\
             allow_loopback = true\n[workspaces]\nttl_seconds = {WORKSPACE_SECONDS}\n",
            ca_file.display()
        ));
    if name == SMALL && ills::may_mount() {
        ills::mount_small(&plan.directory().join("state"), AGENT_MEBIBYTES);
    }
    plan
}

fn start_control_plane(scratch: &Path, port: u16, database: &str, public_url: &str) -> Supervised {
    let (home, database, public_url) = (scratch.to_owned(), database.to_owned(), public_url.to_owned());
    Supervised::start("sortie-control", scratch, move || {
        let mut command = Command::new(binary("sortie-control"));
        isolate(&mut command, &home).args(["serve", "--listen", &format!("127.0.0.1:{port}")]);
        command.args(["--database", &database, "--public-url", &public_url]);
        command
    })
}

fn start_agent(name: &str, plan: &AgentPlan, url: &str, enrollment: &str) -> Supervised {
    let (config, directory) = (plan.write_config(url), plan.directory().to_owned());
    let token_file = secret_file(&directory, "enrollment-token", enrollment);
    let mut enroll = Command::new(binary("sortie"));
    isolate(&mut enroll, &directory).args(["enroll", "--control-plane", url, "--token-file"]).arg(token_file);
    command_line(enroll.arg("--config").arg(&config));
    let home = directory.clone();
    Supervised::start(name, &directory, move || {
        let mut command = Command::new(binary("sortie"));
        isolate(&mut command, &home).arg("run").arg("--config").arg(&config);
        command
    })
}

fn make_token(home: &Path, database: &str) -> String {
    let mut command = Command::new(binary("sortie-control"));
    isolate(&mut command, home).args(["token", "create", "--name", "admin", "--role", "admin", "--database"]);
    command_line(command.arg(database))
}

fn enrollment_token(handle: &Handle, url: &str, token: &str, uses: u32) -> String {
    let body = serde_json::json!({"tags": [], "ttl_seconds": 900, "max_uses": uses});
    let asked = async {
        // One that is installed already serves as well.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?;
        let request = http.post(format!("{url}/api/v1/enrollment-tokens")).bearer_auth(token);
        let request = request.header("Content-Type", "application/json").body(body.to_string());
        request.send().await?.error_for_status()?.bytes().await
    };
    let answer = handle.block_on(asked).expect("an enrollment token");
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
    answer["token"].as_str().expect("a token").to_owned()
}
