//! A real agent with its configuration, secrets and state in a private directory.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;

use super::binary::{binary, isolate};
use super::control_plane::{ControlPlane, secret_file};
use super::process::{Child, START_LIMIT, command_line, wait_until, write_private};
use super::small_disk::SmallDisk;

/// What an agent shall be; [`AgentPlan::start`] enrolls and starts it.
pub struct AgentPlan {
    name: String,
    tags: Vec<String>,
    max_tasks: u32,
    control_plane: String,
    tables: String,
    environment: Vec<(String, String)>,
    disk: Option<SmallDisk>,
    directory: TempDir,
}

/// An agent that runs, or ran.
pub struct Agent {
    name: String,
    config: PathBuf,
    environment: Vec<(String, String)>,
    disk: Option<SmallDisk>,
    // The order of these fields is the order in which they end.
    child: Child,
    directory: TempDir,
}

impl Agent {
    /// Plans one with this name; its directory exists from now on.
    ///
    /// # Panics
    /// When no private directory can be made.
    pub fn plan(name: &str) -> AgentPlan {
        AgentPlan {
            name: name.to_owned(),
            tags: Vec::new(),
            max_tasks: 4,
            control_plane: String::new(),
            tables: String::new(),
            environment: Vec::new(),
            disk: None,
            directory: tempfile::tempdir().expect("a private directory"),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The directory with its configuration, secrets and state.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it logged since its last start.
    pub fn log(&self) -> String {
        self.child.stderr() + &self.child.stdout()
    }

    /// Leaves its small disk room for so many bytes, or all that there is.
    ///
    /// # Panics
    /// When it has none.
    pub fn leave_room(&self, bytes: Option<u64>) {
        let disk = self.disk.as_ref().expect("a small disk");
        match bytes {
            Some(bytes) => disk.leave(self.id(), bytes),
            None => disk.make_room(self.id()),
        }
    }

    /// A directory below its state directory, as the agent sees it.
    pub fn state(&self, name: &str) -> PathBuf {
        let path = self.directory().join("state").join(name);
        if self.disk.is_some() { SmallDisk::seen(self.id(), &path) } else { path }
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Asks it to drain: SIGTERM. A second call makes it stop at once.
    pub fn terminate(&mut self) {
        self.child.terminate();
    }

    /// Sends a signal by name, such as `STOP` and `CONT`.
    pub fn signal(&mut self, name: &str) {
        self.child.signal(name);
    }

    /// Waits for its end; `None` when it still runs after the limit.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.child.wait(limit)
    }

    /// Starts it again with the same configuration and state, whether it still runs or not.
    pub fn restart(&mut self) {
        self.child.kill();
        self.child = run(&self.config, self.directory.path(), &self.environment, self.disk.as_ref());
    }

    /// Waits until the control plane lists this agent as connected.
    ///
    /// # Panics
    /// When it does not, with the end of the agent's log.
    pub fn wait_until_connected(&mut self, control_plane: &ControlPlane) {
        let name = self.name.clone();
        self.child.wait_for("the agent is connected", START_LIMIT, || is_connected(control_plane, &name));
    }

    /// Waits until the control plane has noticed that this agent is gone.
    ///
    /// # Panics
    /// When it has not within the limit.
    pub fn wait_until_disconnected(&self, control_plane: &ControlPlane, limit: Duration) {
        wait_until("the agent is disconnected", limit, || !is_connected(control_plane, &self.name));
    }
}

impl AgentPlan {
    /// Gives it tags.
    pub fn with_tags(mut self, tags: &[&str]) -> Self {
        self.tags.extend(tags.iter().map(ToString::to_string));
        self
    }

    /// Lets it run this many tasks at once instead of four.
    pub fn with_max_tasks(mut self, number: u32) -> Self {
        self.max_tasks = number;
        self
    }

    /// Adds keys to the table `[control_plane]` of its configuration, as TOML text.
    pub fn with_control_plane(mut self, keys: &str) -> Self {
        self.control_plane.push_str(keys);
        self.control_plane.push('\n');
        self
    }

    /// Adds tables to its configuration, as TOML text: `[servers.ado]`, `[credentials.ado_pat]`, `[limits]`, ….
    pub fn with_toml(mut self, tables: &str) -> Self {
        self.tables.push_str(tables);
        self.tables.push('\n');
        self
    }

    /// Writes a secret to a file of its own and declares it as a credential of this kind.
    ///
    /// `more` is further TOML of that table, such as `username = "ada"`.
    pub fn with_credential(self, name: &str, kind: &str, secret: &str, more: &str) -> Self {
        let file = secret_file(self.directory.path(), &format!("{name}.secret"), secret);
        let table = format!(
            "[credentials.{name}]\nkind = \"{kind}\"\nsecret = {{ file = \"{}\" }}\n{more}\n",
            file.display()
        );
        self.with_toml(&table)
    }

    /// Sets a variable of its environment.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives it a state directory on a disk of so many MiB of its own, empty at each start.
    pub fn with_small_state(mut self, mebibytes: u32) -> Self {
        self.disk = Some(SmallDisk::new(&self.directory.path().join("state"), mebibytes));
        self
    }

    /// The directory that its configuration, secrets and state will be in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Writes the configuration, enrolls and starts it, and waits until it is connected.
    ///
    /// # Panics
    /// When a step fails, with the reason.
    pub fn start(self, control_plane: &ControlPlane) -> Agent {
        let url = control_plane.url();
        self.start_through(control_plane, &url)
    }

    /// The same by another URL that leads to the control plane.
    ///
    /// # Panics
    /// When a step fails, with the reason.
    pub fn start_through(self, control_plane: &ControlPlane, url: &str) -> Agent {
        let token = control_plane.enrollment_token(&[], 1);
        let config = self.write_config(url);
        let path = self.directory.path();
        let token_file = secret_file(path, "enrollment-token", &token);
        let mut enroll = Command::new(binary("sortie"));
        isolate(&mut enroll, path).envs(self.environment.iter().map(|(name, value)| (name, value)));
        enroll.args(["enroll", "--control-plane", url, "--token-file"]).arg(token_file);
        command_line(enroll.arg("--config").arg(&config));
        let child = run(&config, path, &self.environment, self.disk.as_ref());
        let Self { name, environment, disk, directory, .. } = self;
        let mut agent = Agent { name, config, environment, disk, child, directory };
        agent.wait_until_connected(control_plane);
        agent
    }

    /// Writes the configuration file and returns its path, for tests that enroll or start in ways of their own.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_config(&self, control_plane_url: &str) -> PathBuf {
        let path = self.directory.path();
        let tags = self.tags.iter().map(|tag| format!("\"{tag}\"")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "[agent]\nname = \"{name}\"\ntags = [{tags}]\nstate_dir = \"{state}\"\ncontrol_socket = \"{socket}\"\nmax_tasks = {slots}\n\n\
             [control_plane]\nurl = \"{control_plane_url}\"\n{control_plane}\n{tables}",
            name = self.name,
            state = path.join("state").display(),
            socket = path.join("run/control.sock").display(),
            slots = self.max_tasks,
            control_plane = self.control_plane,
            tables = self.tables,
        );
        let config = path.join("config.toml");
        write_private(&config, &text).expect("the agent's configuration");
        config
    }
}

fn run(config: &Path, directory: &Path, environment: &[(String, String)], disk: Option<&SmallDisk>) -> Child {
    let program = binary("sortie");
    let mut command = disk.map_or_else(|| Command::new(&program), |disk| disk.command(&program));
    isolate(&mut command, directory).envs(environment.iter().map(|(name, value)| (name, value)));
    Child::start("agent", command.arg("run").arg("--config").arg(config), directory)
}

/// Whether the list of agents has this one as connected.
fn is_connected(control_plane: &ControlPlane, name: &str) -> bool {
    let agents = control_plane.agents();
    agents.iter().any(|agent| agent["name"] == name && agent["state"] == "connected")
}
