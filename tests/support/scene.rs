//! A GitLab stand-in with one repository: what most tests of the daemon need to work on.

use serde_json::{Value, json};
use stand_ins::{
    Authority, Fault, Gitlab, RecordedRequest, Repository, Running, ServerHandle, StandIns, World,
};
use tempfile::TempDir;

use super::agent::{Agent, AgentPlan};
use super::control_plane::ControlPlane;
use super::process::START_LIMIT;
use super::repository::SampleRepository;

/// The token that the stand-in knows.
pub const PAT: &str = "glpat-canary-5f2c";

/// A GitLab-like server over TLS.
pub struct Scene {
    running: Running,
    /// Who vouches for its certificate.
    pub authority: Authority,
    /// What is in its repository.
    pub sample: SampleRepository,
    scratch: TempDir,
}

impl Scene {
    /// With a small repository.
    pub fn small() -> Self {
        Self::with(SampleRepository::small)
    }

    /// With a repository of so many objects.
    pub fn generated(objects: usize) -> Self {
        Self::with(|directory| SampleRepository::generated(directory, objects))
    }

    fn with(make: impl FnOnce(&std::path::Path) -> SampleRepository) -> Self {
        let scratch = tempfile::tempdir().expect("a private directory");
        let sample = make(&scratch.path().join("web.git"));
        let authority = Authority::create(scratch.path()).expect("an authority");
        let world = World::new()
            .with_gitlab(Gitlab::default())
            .with_user("ada", "secret")
            .with_pat("ada", PAT, &["read_repository", "read_api"])
            .with_repository(Repository::gitlab("shop/web", &sample.directory).read_by("ada"));
        let running = StandIns::start(world, &authority).expect("the stand-in starts");
        Self { running, authority, sample, scratch }
    }

    /// The server.
    pub fn server(&self) -> &ServerHandle {
        self.running.gitlab.as_ref().expect("a GitLab")
    }

    /// The URL of its repository.
    pub fn url(&self) -> String {
        format!("{}/shop/web.git", self.server().url())
    }

    /// Waits until the server has seen such a request.
    ///
    /// # Panics
    /// When it has not within the limit for starts.
    pub fn wait_for_request(&self, what: &str, wanted: impl Fn(&RecordedRequest) -> bool) {
        assert!(
            self.server().wait_for_request(wanted, START_LIMIT),
            "{what}: {:?}",
            self.server().requests()
        );
    }

    /// Submits a clone and waits until its pack has begun to come; it goes on when the server's fault is cleared.
    ///
    /// # Panics
    /// When it has not begun within the limit for starts.
    pub fn begin_clone(&self, control_plane: &ControlPlane) -> String {
        self.begin_task(control_plane, &self.clone_task(json!({})))
    }

    /// The same with a clone of one's own.
    ///
    /// # Panics
    /// When it has not begun within the limit for starts.
    pub fn begin_task(&self, control_plane: &ControlPlane, clone: &Value) -> String {
        self.server().clear_requests();
        self.server().set_fault_at("git-upload-pack", Fault::PauseAfter { bytes: 100_000 });
        let id = control_plane.post_task(clone);
        self.wait_for_request("the clone has begun", asks_for_a_pack);
        id
    }

    /// How often the server was asked for a pack.
    pub fn packs_asked(&self) -> usize {
        self.server().requests().iter().filter(|request| asks_for_a_pack(request)).count()
    }

    /// A private directory for the test.
    pub fn scratch(&self) -> &std::path::Path {
        self.scratch.path()
    }

    /// An agent that declares this server as `lab`.
    pub fn agent(&self, name: &str) -> AgentPlan {
        self.agent_with_token(name, PAT)
    }

    /// The same with another token.
    pub fn agent_with_token(&self, name: &str, token: &str) -> AgentPlan {
        let table = format!(
            "[servers.lab]\nprovider = \"gitlab\"\nurl = \"{}\"\ncredential = \"lab_pat\"\nca_file = \"{}\"\n",
            self.server().url(),
            self.authority.ca_file().display()
        );
        Agent::plan(name).with_credential("lab_pat", "pat", token, "").with_toml(&table)
    }

    /// A connection test of its repository.
    pub fn test_task(&self, selector: Value) -> Value {
        json!({"kind": "connection-test", "url": self.url(), "selector": selector})
    }

    /// A clone of its repository.
    pub fn clone_task(&self, selector: Value) -> Value {
        json!({"kind": "clone", "url": self.url(), "selector": selector})
    }
}

fn asks_for_a_pack(request: &RecordedRequest) -> bool {
    request.path.ends_with("/git-upload-pack")
}
