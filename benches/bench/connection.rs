//! `sortie test` with the calls to the API, beside a single `git ls-remote` on the same server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sortie::config::{CredentialSource, Proxy, SecretSource, Server};
use sortie::credential::{CredentialKind, Store};
use sortie::dial::{Door, ProxyEnvironment};
use sortie::git::{Control, Engine, Limits};
use sortie::policy::Policy;
use sortie::provider::Provider;
use sortie::remote_url::RemoteUrl;
use sortie::report::StageLog;
use sortie::task::{TargetSpec, Task, Tools, connection_test, run};
use stand_ins::{Authority, AzureDevOps, Gitlab, Repository, Running, StandIns, World};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::effort::Effort;
use crate::figure::{Figure, Quantity, Target};
use crate::support::binary::{binary, isolate};
use crate::support::control_plane::secret_file;
use crate::support::nginx::Nginx;
use crate::support::process::require;
use crate::support::repository::{SampleRepository, git};
use crate::turns::{Programs, compare};

/// How many times as long as `git ls-remote` a whole test may take.
const TEST_TARGET: Target = Target::Ratio(1.0);
/// The same for every further test of a process, which keeps its client.
const AGAIN_TARGET: Target = Target::Ratio(0.3);
/// How much memory a test may take, whatever the server lists.
const MEMORY_TARGET: Target = Target::Megabytes(64.0);
/// What the servers accept.
const TOKEN: &str = "token-for-measurements";
const AZURE_PATH: &str = "DefaultCollection/Shop/_git/web";
const GITLAB_PATH: &str = "group/web";
/// How long any test may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Servers, and what both programs need to reach them.
struct Bench {
    stand_ins: Running,
    nginx: Nginx,
    ca_file: PathBuf,
    pat_file: PathBuf,
    programs: Programs,
    home: TempDir,
    scratch: TempDir,
}

/// Measures all of it.
pub(crate) fn measure(effort: &Effort) -> Vec<Figure> {
    let bench = Bench::start(effort.references);
    let azure = bench.stand_ins.azure.as_ref().expect("an Azure DevOps").url();
    let gitlab = bench.stand_ins.gitlab.as_ref().expect("a GitLab").url();
    let (azure, gitlab) = (format!("{azure}/{AZURE_PATH}"), format!("{gitlab}/{GITLAB_PATH}.git"));
    let many = format!("{}/many.git", bench.nginx.url());
    let references = effort.references;
    vec![
        bench.against_ls_remote(
            "`sortie test` on Azure DevOps, with its API",
            &azure,
            "azure-devops",
            effort,
        ),
        bench.against_ls_remote("`sortie test` on GitLab, with its API", &gitlab, "gitlab", effort),
        bench.again("the second test of an agent, Azure DevOps", &azure, Provider::AzureDevops, effort),
        bench.again("the second test of an agent, GitLab", &gitlab, Provider::Gitlab, effort),
        bench.against_ls_remote(&format!("`sortie test` with {references} references"), &many, "git", effort),
        bench.memory(&format!("most memory of a test with {references} references"), &many),
    ]
}

impl Bench {
    fn start(references: usize) -> Self {
        eprintln!("generating a repository of {references} references");
        let scratch = tempfile::tempdir().expect("a private directory");
        let path = scratch.path();
        let small = SampleRepository::small(&path.join("small.git"));
        SampleRepository::with_references(&path.join("many.git"), references);
        let authority = Authority::create(path).expect("an authority for certificates");
        let azure = Repository::azure_devops("DefaultCollection", "Shop", "web", &small.directory);
        let world = World::new()
            .with_azure_devops(AzureDevOps::default())
            .with_gitlab(Gitlab::default())
            .with_user("ada", "not-used")
            .with_pat("ada", TOKEN, &["vso.code", "vso.project", "read_api", "read_repository"])
            .with_repository(azure.read_by("ada"))
            .with_repository(Repository::gitlab(GITLAB_PATH, &small.directory).read_by("ada"));
        let stand_ins = StandIns::start(world, &authority).expect("the stand-ins");
        let nginx = Nginx::plan(path).accept_pat(TOKEN).start(&authority);
        let ca_file = authority.ca_file().to_owned();
        let pat_file = secret_file(path, "pat", TOKEN);
        let home = tempfile::tempdir().expect("a private home");
        Self { stand_ins, nginx, ca_file, pat_file, programs: Programs::new(path), home, scratch }
    }

    fn against_ls_remote(&self, name: &str, url: &str, provider: &str, effort: &Effort) -> Figure {
        let ours = || self.programs.time(self.test(Command::new(binary("sortie")), url, provider));
        let theirs = || self.programs.time(self.ls_remote(url, provider));
        let name = format!("{name}, and `git ls-remote`");
        compare(&name, TEST_TARGET, effort.warm_ups, effort.tests, ours, theirs)
    }

    /// Tests through the library, as the daemon does, with one door for all of them.
    fn again(&self, name: &str, url: &str, provider: Provider, effort: &Effort) -> Figure {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let (task, tools) = (task_for(url), self.tools(url, provider));
        let ours = || {
            let begun = Instant::now();
            let control = Control::new(tokio::time::Instant::now() + DEADLINE, CancellationToken::new());
            let report = runtime.block_on(run(&task, &tools, &control, &StageLog::default()));
            assert!(report.diagnosis().is_none(), "{:?}", report.diagnosis());
            begun.elapsed()
        };
        let theirs = || self.programs.time(self.ls_remote(url, provider.as_str()));
        // A warm-up at least: what is measured is not the first test.
        compare(
            &format!("{name}, and `git ls-remote`"),
            AGAIN_TARGET,
            effort.warm_ups.max(1),
            effort.tests,
            ours,
            theirs,
        )
    }

    /// The most memory of a whole `sortie test`, as the kernel counted it.
    fn memory(&self, name: &str, url: &str) -> Figure {
        let told = self.scratch.path().join("memory");
        let mut time = Command::new(require("time", "time"));
        time.args(["--format=%M", "--output"]).arg(&told).arg(binary("sortie"));
        self.programs.time(self.test(time, url, "git"));
        let kibibytes = std::fs::read_to_string(&told).expect("what `time` wrote");
        let kibibytes: f64 = kibibytes.trim().parse().expect("a number of kibibytes");
        Figure::alone(name, Quantity::Megabytes(kibibytes * 1024.0 / 1e6), MEMORY_TARGET)
    }

    fn test(&self, mut command: Command, url: &str, provider: &str) -> Command {
        isolate(&mut command, self.home.path()).args(["test", url, "--json", "--provider", provider]);
        command.arg("--pat-file").arg(&self.pat_file).arg("--ca-file").arg(&self.ca_file);
        command
    }

    fn ls_remote(&self, url: &str, provider: &str) -> Command {
        let mut command = git();
        // GitLab refuses an empty name, and the others know a token by it.
        let user = if provider == "gitlab" { "git" } else { "" };
        let header = STANDARD.encode(format!("{user}:{TOKEN}"));
        command.arg("-c").arg(format!("http.sslCAInfo={}", self.ca_file.display()));
        command.arg("-c").arg(format!("http.extraHeader=Authorization: Basic {header}"));
        command.args(["ls-remote", url]).current_dir(self.scratch.path());
        command
    }

    fn tools(&self, url: &str, provider: Provider) -> Tools {
        let url = RemoteUrl::parse(url).expect("the URL of a stand-in");
        let server = Server {
            credential: Some("pat".to_owned()),
            ca_file: Some(self.ca_file.clone()),
            proxy: Proxy::Direct,
            allow_loopback: true,
            ..Server::new("lab", Some(provider), url.with_path(""))
        };
        Tools {
            door: Arc::new(Door::new(ProxyEnvironment::none())),
            policy: Arc::new(Policy::new([server])),
            credentials: Arc::new(Store::new(credentials(&self.pat_file))),
            limits: Limits::default(),
            engine: Engine::default(),
            mirrors: None,
            temporary: self.scratch.path().to_owned(),
            workspaces: None,
            uploads: None,
        }
    }
}

fn credentials(pat_file: &Path) -> BTreeMap<String, CredentialSource> {
    let secret = SecretSource::File(pat_file.to_owned());
    let source = CredentialSource {
        kind: CredentialKind::Pat,
        username: None,
        secret,
        passphrase: None,
        strict_modes: true,
    };
    BTreeMap::from([("pat".to_owned(), source)])
}

fn task_for(url: &str) -> Task {
    Task::ConnectionTest(connection_test::Request {
        target: TargetSpec::Url(url.to_owned()),
        provider: None,
        credential: None,
        scope: None,
        test_repository: None,
    })
}
