//! Everything that the demonstration starts: servers, control plane and agents.

use std::path::{Path, PathBuf};
use std::time::Instant;

use stand_ins::{Authority, AzureDevOps, Gitlab, Repository, Running, StandIns, World};

use crate::scenes::{self, FRANKFURT, MUNICH, Places};
use crate::screen::{Tone, colored};
use crate::support::agent::{Agent, AgentPlan};
use crate::support::binary::binary;
use crate::support::control_plane::{ControlPlane, secret_file};
use crate::support::process::user_name;
use crate::support::repository::SampleRepository;
use crate::support::sshd::{Key, KeyKind, Sshd};

/// The tokens that the stand-ins accept. They open nothing else.
const AZURE_PAT: &str = "demo-token-of-ada-at-azure-devops";
const GITLAB_PAT: &str = "demo-token-of-ada-at-gitlab";
/// A token that nobody accepts.
const WRONG_PAT: &str = "demo-token-that-was-revoked";
/// The one repository, below each server.
const AZURE_PATH: &str = "DefaultCollection/Shop/_git/web";
const GITLAB_PATH: &str = "group/web";

/// What runs.
pub(crate) struct Stage {
    /// Where the tasks are posted.
    pub(crate) control_plane: ControlPlane,
    /// Where they go.
    pub(crate) places: Places,
    // The order of these fields is the order in which they end.
    agents: Vec<Agent>,
    sshd: Sshd,
    _stand_ins: Running,
    authority: Authority,
    keys: Keys,
    scratch: PathBuf,
}

/// The keys that sshd lets in.
struct Keys {
    ed25519: Key,
    rsa: Key,
}

/// The git servers.
struct Servers {
    azure_url: String,
    gitlab_url: String,
    stand_ins: Running,
}

impl Stage {
    /// Starts everything, and says so step by step.
    ///
    /// # Panics
    /// When something does not start, with the reason and what to do about it.
    pub(crate) fn start(scratch: &Path) -> Self {
        let control_plane = step("the control plane, with a database of its own", || {
            let started = ControlPlane::start();
            let url = started.url();
            (started, url)
        });
        let sample = SampleRepository::small(&scratch.join("web.git"));
        let authority = Authority::create(scratch).expect("an authority for certificates");
        let servers = step("the stand-ins of Azure DevOps Server and GitLab, over TLS", || {
            let servers = Servers::start(&sample, &authority);
            let urls = format!("{}  {}", servers.azure_url, servers.gitlab_url);
            (servers, urls)
        });
        let keys = Keys {
            ed25519: Key::make(scratch, "id_ed25519", KeyKind::Ed25519, None),
            rsa: Key::make(scratch, "id_rsa", KeyKind::Rsa, None),
        };
        let sshd = step("OpenSSH's sshd", || {
            let sshd = start_sshd(&sample, &keys);
            let url = sshd.url();
            (sshd, url)
        });
        let plans = [
            azure_agent(&servers, &sshd, &authority, &keys),
            gitlab_agent(&servers, &sshd, &authority, &keys),
        ];
        let agents = plans.map(|(what, plan)| {
            step(what, || {
                let agent = plan.start(&control_plane);
                let told = format!("process {}", agent.id());
                (agent, told)
            })
        });
        let places = Places {
            azure_https: format!("{}/{AZURE_PATH}", servers.azure_url),
            azure_ssh: format!("{}/{AZURE_PATH}", sshd.url()),
            gitlab_https: format!("{}/{GITLAB_PATH}", servers.gitlab_url),
            gitlab_ssh: format!("{}/{GITLAB_PATH}.git", sshd.url()),
        };
        Self {
            control_plane,
            places,
            agents: Vec::from(agents),
            sshd,
            _stand_ins: servers.stand_ins,
            authority,
            keys,
            scratch: scratch.to_owned(),
        }
    }

    /// Says where everything is and how to look around.
    pub(crate) fn show_around(&self) {
        let url = self.control_plane.url();
        let token = self.control_plane.token();
        let token_file = secret_file(&self.scratch, "admin-token", token);
        // curl reads a header from a file, so that the token stands in no list of processes.
        let header = secret_file(&self.scratch, "admin-header", &format!("Authorization: Bearer {token}"));
        let pat_file = secret_file(&self.scratch, "azure-pat", AZURE_PAT);
        let task = scenes::test(&self.places.gitlab_https, "gitlab", "gitlab_pat", "gitlab");
        let task_file = secret_file(&self.scratch, "task.json", &task.to_string());
        let (header, token_file, task_file) = (header.display(), token_file.display(), task_file.display());
        let (sortie, control) = (binary("sortie"), binary("sortie-control"));
        let (sortie, control) = (sortie.display(), control.display());
        println!("\nEverything stays up until Ctrl-C.\n");
        println!("  the control plane          {url}");
        println!("  a token of the role admin  {token_file}");
        for agent in &self.agents {
            println!("  the agent {:<15}  {}", agent.name(), agent.directory().display());
        }
        print_command("What the control plane knows", &format!("curl -s -H @{header} {url}/api/v1/agents"));
        print_command("", &format!("curl -s -H @{header} '{url}/api/v1/tasks?limit=5'"));
        print_command(
            "A task of your own",
            &format!("{control} task submit --file {task_file} --wait --url {url} --token-file {token_file}"),
        );
        print_command(
            "The same tests without a control plane",
            &format!(
                "{sortie} test {} --pat-file {} --ca-file {}",
                self.places.azure_https,
                pat_file.display(),
                self.authority.ca_file().display()
            ),
        );
        print_command(
            "",
            &format!(
                "{sortie} test {} --ssh-key {} --known-hosts {}",
                self.places.gitlab_ssh,
                self.keys.ed25519.private_file.display(),
                self.sshd.known_hosts().display()
            ),
        );
    }
}

impl Servers {
    fn start(sample: &SampleRepository, authority: &Authority) -> Self {
        let [collection, project, _, name] = AZURE_PATH.split('/').collect::<Vec<_>>()[..] else {
            unreachable!("the path has four parts");
        };
        let world = World::new()
            .with_azure_devops(AzureDevOps::default())
            .with_gitlab(Gitlab::default())
            .with_user("ada", "not-used")
            .with_pat("ada", AZURE_PAT, &["vso.code", "vso.project"])
            .with_pat("ada", GITLAB_PAT, &["read_api", "read_repository"])
            .with_repository(
                Repository::azure_devops(collection, project, name, &sample.directory).read_by("ada"),
            )
            .with_repository(Repository::gitlab(GITLAB_PATH, &sample.directory).read_by("ada"));
        let stand_ins = StandIns::start(world, authority).unwrap_or_else(|error| panic!("{error}"));
        let url = |server: &Option<stand_ins::ServerHandle>| {
            server.as_ref().map(stand_ins::ServerHandle::url).expect("a server of the world")
        };
        Self { azure_url: url(&stand_ins.azure), gitlab_url: url(&stand_ins.gitlab), stand_ins }
    }
}

fn start_sshd(sample: &SampleRepository, keys: &Keys) -> Sshd {
    Sshd::plan(&[KeyKind::Ed25519, KeyKind::Rsa])
        .serve(AZURE_PATH, &sample.directory)
        .serve(&format!("{GITLAB_PATH}.git"), &sample.directory)
        .with_greeting("Shell access is not supported.")
        .authorize(&keys.ed25519)
        .authorize(&keys.rsa)
        .start()
}

fn azure_agent(
    servers: &Servers,
    sshd: &Sshd,
    authority: &Authority,
    keys: &Keys,
) -> (&'static str, AgentPlan) {
    let plan = Agent::plan(FRANKFURT)
        .with_tags(&["dc:fra1", "ado"])
        .with_toml(&format!(
            "[servers.ado]\nprovider = \"azure-devops\"\nurl = \"{}\"\ncredential = \"ado_pat\"\n\
             credentials = [\"ado_wrong_pat\", \"ado_ssh\"]\n{}",
            servers.azure_url,
            shared_keys(sshd, authority)
        ))
        .with_credential("ado_pat", "pat", AZURE_PAT, "")
        .with_credential("ado_wrong_pat", "pat", WRONG_PAT, "")
        .with_toml(&ssh_credential("ado_ssh", &keys.rsa));
    ("the agent fra1-ado, with the tags dc:fra1 and ado", plan)
}

fn gitlab_agent(
    servers: &Servers,
    sshd: &Sshd,
    authority: &Authority,
    keys: &Keys,
) -> (&'static str, AgentPlan) {
    let plan = Agent::plan(MUNICH)
        .with_tags(&["dc:muc1", "gitlab"])
        .with_toml(&format!(
            "[servers.gitlab]\nprovider = \"gitlab\"\nurl = \"{}\"\ncredential = \"gitlab_pat\"\n\
             credentials = [\"gitlab_ssh\"]\n{}",
            servers.gitlab_url,
            shared_keys(sshd, authority)
        ))
        .with_credential("gitlab_pat", "pat", GITLAB_PAT, "")
        .with_toml(&ssh_credential("gitlab_ssh", &keys.ed25519));
    ("the agent muc1-gitlab, with the tags dc:muc1 and gitlab", plan)
}

/// The keys of a `[servers.*]` table that are the same for both agents.
fn shared_keys(sshd: &Sshd, authority: &Authority) -> String {
    format!(
        "ssh = \"ssh://{}@127.0.0.1:{}\"\nknown_hosts_file = \"{}\"\nca_file = \"{}\"\n",
        user_name(),
        sshd.port(),
        sshd.known_hosts().display(),
        authority.ca_file().display()
    )
}

fn ssh_credential(name: &str, key: &Key) -> String {
    format!(
        "[credentials.{name}]\nkind = \"ssh-key\"\nsecret = {{ file = \"{}\" }}\n",
        key.private_file.display()
    )
}

/// Says what is being started, starts it, and says where it is.
fn step<T>(what: &str, start: impl FnOnce() -> (T, String)) -> T {
    println!("starting {what}");
    let begun = Instant::now();
    let (started, told) = start();
    let took = format!("({} ms)", begun.elapsed().as_millis());
    println!("  {told} {}", colored(Tone::Faint, &took));
    started
}

fn print_command(title: &str, command: &str) {
    if !title.is_empty() {
        println!("\n{title}:");
    }
    println!("  {}", colored(Tone::Good, command));
}
