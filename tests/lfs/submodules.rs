//! LFS objects of a clone and of its submodules, on one server and on two, by both engines: what comes is what git and
//! Debian's git-lfs make of the same repositories.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sortie::config::{CredentialSource, Proxy, SecretSource, Server};
use sortie::credential::{CredentialKind, Store, basic};
use sortie::dial::{Door, ProxyEnvironment};
use sortie::git::{Control, Engine, Limits, Mirrors, Want};
use sortie::policy::Policy;
use sortie::remote_url::RemoteUrl;
use sortie::report::StageLog;
use sortie::secret::Secret;
use sortie::task::submodules::{Submodules, Which};
use sortie::task::{TargetSpec, Task, Tools, clone, run};
use stand_ins::{Authority, AzureDevOps, Fault, Gitlab, Repository, Running, ServerHandle, StandIns, World};
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{MIB, STOP_LIMIT, TOKEN, content, filters, oid, pointer, tree};
use crate::clone::entries;
use crate::support::process::{START_LIMIT, command_line, wait_until, write_private};
use crate::support::repository::{SampleRepository, run_git};
use crate::trial::Outcome;

/// What the other server takes, and the first one does not know.
const OTHER_TOKEN: &str = "canary-9b2-azure-41";

/// A submodule of a commit: its path, its URL, and its commit.
type Link<'a> = (&'a str, &'a str, &'a str);

/// `shop/web` with `libs/lib`, which has `deep/inner`, on a GitLab; and `vendor/dep` on an Azure DevOps where another one
/// may read.
struct Nested {
    running: Running,
    authority: Authority,
    scratch: TempDir,
    engine: Engine,
    mirrors: Option<Arc<Mirrors>>,
    limits: Limits,
    lfs: bool,
    cancel: CancellationToken,
}

/// Makes a bare repository with LFS objects and submodules, and returns its commit.
fn repository(scratch: &Path, name: &str, files: &[(&str, Vec<u8>)], links: &[Link<'_>]) -> String {
    let (work, objects) = (scratch.join(format!("{name}-work")), scratch.join(format!("{name}.lfs")));
    fs::create_dir_all(&objects).unwrap();
    run_git(scratch, ["init", "-q", "-b", "main", work.to_str().unwrap()]);
    for (path, content) in files {
        let file = work.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, pointer(content)).unwrap();
        fs::write(objects.join(oid(content)), content).unwrap();
    }
    fs::write(work.join(".gitattributes"), "*.bin filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    let modules: String = links
        .iter()
        .map(|(path, url, _)| format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n"))
        .collect();
    if !links.is_empty() {
        fs::write(work.join(".gitmodules"), modules).unwrap();
    }
    run_git(&work, ["add", "--all"]);
    for (path, _, commit) in links {
        run_git(&work, ["update-index", "--add", "--cacheinfo", &format!("160000,{commit},{path}")]);
    }
    run_git(&work, ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-qm", "Begin"]);
    let bare = scratch.join(format!("{name}.git"));
    if !bare.exists() {
        SampleRepository::empty(&bare);
    }
    run_git(&work, ["push", "-q", bare.to_str().unwrap(), "main"]);
    run_git(&work, ["rev-parse", "HEAD"])
}

impl Nested {
    fn start() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path();
        let inner = repository(path, "inner", &[("inner.bin", content(31, 5000))], &[]);
        let lib = [("lib.bin", content(32, 2 * MIB)), ("of/both.bin", content(33, 70_000))];
        let lib = repository(path, "lib", &lib, &[("deep/inner", "../inner.git", &inner)]);
        let dep = repository(path, "dep", &[("dep.bin", content(34, MIB))], &[]);
        let authority = Authority::create(path).unwrap();
        let bare = |name: &str| path.join(format!("{name}.git"));
        let dep_place = Repository::azure_devops("Coll", "My Shop", "dep", &bare("dep"));
        let mut world = World::new()
            .with_gitlab(Gitlab::default())
            .with_azure_devops(AzureDevOps::default())
            .with_user("ada", "secret")
            .with_user("bob", "another")
            .with_pat("ada", TOKEN, &["read_repository"])
            .with_pat("bob", OTHER_TOKEN, &["vso.code"])
            .with_repository(dep_place.read_by("bob"));
        for name in ["inner", "lib", "web"] {
            let place = format!("shop/{name}");
            world = world.with_repository(Repository::gitlab(&place, &bare(name)).read_by("ada"));
        }
        // The port of the other server stands in a file of `web`, which is filled once the servers run.
        SampleRepository::empty(&bare("web"));
        let running = StandIns::start(world, &authority).unwrap();
        let elsewhere = format!("{}/Coll/My%20Shop/_git/dep", running.azure.as_ref().unwrap().url());
        let links = [("libs/lib", "../lib.git", lib.as_str()), ("vendor/dep", &elsewhere, &dep)];
        repository(
            path,
            "web",
            &[("web.bin", content(35, 3 * MIB)), ("both.bin", content(33, 70_000))],
            &links,
        );
        Self {
            running,
            authority,
            scratch,
            engine: Engine::default(),
            mirrors: None,
            limits: Limits::default(),
            lfs: true,
            cancel: CancellationToken::new(),
        }
    }

    fn gitlab(&self) -> &ServerHandle {
        self.running.gitlab.as_ref().unwrap()
    }

    fn azure(&self) -> &ServerHandle {
        self.running.azure.as_ref().unwrap()
    }

    fn url(&self) -> String {
        format!("{}/shop/web.git", self.gitlab().url())
    }

    fn target(&self) -> PathBuf {
        self.scratch.path().join("targets/web")
    }

    /// Where git has the files of the clone and of its submodules.
    fn directories(&self) -> [PathBuf; 4] {
        ["", "libs/lib", "libs/lib/deep/inner", "vendor/dep"].map(|path| self.target().join(path))
    }

    async fn run(&self) -> Outcome {
        let secret = |name: &str, token: &str| {
            let file = self.scratch.path().join(name);
            write_private(&file, token).unwrap();
            let secret = SecretSource::File(file);
            let kind = CredentialKind::Pat;
            (
                name.to_owned(),
                CredentialSource { kind, username: None, secret, passphrase: None, strict_modes: true },
            )
        };
        let declared = |name: &str, handle: &ServerHandle, provider| Server {
            proxy: Proxy::Direct,
            allow_loopback: true,
            credential: Some(name.to_owned()),
            ca_file: Some(self.authority.ca_file().to_owned()),
            ..Server::new(name, Some(provider), RemoteUrl::parse(&handle.url()).unwrap())
        };
        let servers = [
            declared("lab", self.gitlab(), sortie::provider::Provider::Gitlab),
            declared("ado", self.azure(), sortie::provider::Provider::AzureDevops),
        ];
        let credentials = [secret("lab", TOKEN), secret("ado", OTHER_TOKEN)];
        let tools = Tools {
            uploads: None,
            engine: self.engine,
            mirrors: self.mirrors.clone(),
            door: Arc::new(Door::new(ProxyEnvironment::none())),
            policy: Arc::new(Policy::new(servers)),
            credentials: Arc::new(Store::new(credentials.into_iter().collect())),
            limits: self.limits,
            temporary: self.scratch.path().join("tmp"),
            workspaces: None,
        };
        let request = clone::Request {
            target: TargetSpec::Url(self.url()),
            provider: None,
            credential: None,
            want: Want::default(),
            paths: Vec::new(),
            lfs: self.lfs,
            submodules: Submodules { which: Which::All, skip_refused: false },
            destination: clone::Destination::Directory(self.target()),
        };
        let mut control = Control::new(Instant::now() + Duration::from_secs(60), self.cancel.clone());
        control.limits = self.limits;
        let report = run(&Task::Clone(request), &tools, &control, &StageLog::default()).await;
        Outcome(serde_json::to_value(report.to_wire()).unwrap())
    }

    /// A git with git-lfs's filters, and with the token of each server for that server.
    fn with_git_lfs(&self) -> Command {
        let header = |handle: &ServerHandle, token: &str| {
            let value = basic("oauth2", &Secret::new(token.to_owned()));
            format!("[http \"{}\"]\n extraHeader = \"Authorization: {}\"\n", handle.url(), value.expose())
        };
        let headers = header(self.gitlab(), TOKEN) + &header(self.azure(), OTHER_TOKEN);
        filters(self.scratch.path(), &self.authority, &headers)
    }

    /// All is there, git and git-lfs call it clean, and nothing needs to be read again to know that.
    fn assert_whole(&self) {
        let theirs = tempfile::tempdir().unwrap();
        let copy = theirs.path().join("web");
        command_line(
            self.with_git_lfs().args(["clone", "-q", "--recurse-submodules", &self.url()]).arg(&copy),
        );
        let (ours, theirs) = (tree(&self.target()), tree(&copy));
        assert!(ours == theirs, "{:?}\n{:?}", ours.keys(), theirs.keys());
        for directory in self.directories() {
            // What was written in the same moment as the index is read by git all the same.
            let index = run_git(&directory, ["rev-parse", "--absolute-git-dir"]) + "/index";
            let index = fs::File::options().write(true).open(index).unwrap();
            index.set_modified(std::time::SystemTime::now() + Duration::from_secs(10)).unwrap();
        }
        for directory in self.directories() {
            let shown = directory.display();
            assert_eq!(run_git(&directory, ["diff-files", "--name-only"]), "", "{shown}");
            assert_eq!(run_git(&directory, ["fsck", "--strict"]), "", "{shown}");
            let with = |arguments: &[&str]| {
                command_line(self.with_git_lfs().arg("-C").arg(&directory).args(arguments))
            };
            assert_eq!(with(&["status", "--porcelain", "--ignored"]), "", "{shown}");
            assert!(with(&["lfs", "fsck"]).contains("OK"), "{shown}");
            let listed = with(&["lfs", "ls-files"]);
            assert!(!listed.is_empty() && listed.lines().all(|line| line.contains(" * ")), "{listed}");
        }
        super::assert_no_secret(&self.target());
    }

    /// A run that failed in a submodule, or ended before its end, leaves nothing.
    fn assert_nothing_is_left(&self) {
        let targets = self.scratch.path().join("targets");
        assert!(!targets.exists(), "{:?}", entries(&targets));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_bring_their_objects_by_either_engine_and_from_mirrors() {
    for engine in [Engine::Gix, Engine::Libgit2] {
        let mut nested = Nested::start();
        nested.engine = engine;
        for turn in 0..3 {
            nested.mirrors =
                (turn > 0).then(|| Arc::new(Mirrors::new(nested.scratch.path().join("mirrors"), u64::MAX)));
            let outcome = nested.run().await;
            assert!(outcome.succeeded(), "{engine:?} {turn}: {:#}", outcome.0);
            let paths = json!(["libs/lib", "libs/lib/deep/inner", "vendor/dep"]);
            assert_eq!(outcome.0["submodules"], paths);
            assert_eq!((&outcome.0["lfs_pointers"], outcome.warnings().len()), (&json!(0), 0));
            assert_eq!(outcome.0["received_objects"] == 0, turn == 2, "{:#}", outcome.0);
            let bytes = outcome.0["received_bytes"].as_u64().unwrap();
            assert!(bytes > 6 * MIB as u64, "what LFS brings is counted: {bytes}");
            nested.assert_whole();
            fs::remove_dir_all(nested.target()).unwrap();
        }
        nested.lfs = false;
        let outcome = nested.run().await;
        assert!(outcome.succeeded() && outcome.0["lfs_pointers"] == 6, "{:#}", outcome.0);
        for file in ["web.bin", "libs/lib/lib.bin", "libs/lib/deep/inner/inner.bin", "vendor/dep/dep.bin"] {
            let found = fs::read(nested.target().join(file)).unwrap();
            assert!(found.starts_with(b"version https://git-lfs"), "{file} stays a pointer");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_a_submodule_lacks_is_told_with_both_names_and_leaves_nothing() {
    for engine in [Engine::Gix, Engine::Libgit2] {
        let mut nested = Nested::start();
        nested.engine = engine;
        fs::remove_file(nested.scratch.path().join("lib.lfs").join(oid(&content(32, 2 * MIB)))).unwrap();
        let outcome = nested.run().await;
        assert_eq!(outcome.diagnosis(), ("lfs_failed", "checkout"), "{:#}", outcome.0);
        let summary = outcome.0["diagnosis"]["summary"].as_str().unwrap();
        assert!(summary.contains("`libs/lib`") && summary.contains("lib.bin"), "{summary}");
        nested.assert_nothing_is_left();
        // A server that has no LFS at all.
        let nested = Nested { engine, ..Nested::start() };
        fs::remove_dir_all(nested.scratch.path().join("dep.lfs")).unwrap();
        let outcome = nested.run().await;
        assert_eq!(outcome.diagnosis(), ("lfs_failed", "checkout"), "{:#}", outcome.0);
        assert!(outcome.0["diagnosis"]["summary"].as_str().unwrap().contains("`vendor/dep`"));
        nested.assert_nothing_is_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_for_objects_holds_for_all_repositories_together() {
    for engine in [Engine::Gix, Engine::Libgit2] {
        let mut nested = Nested::start();
        nested.engine = engine;
        // The clone itself has 3 MiB and its first submodule two.
        nested.limits.max_lfs_bytes = 4 * MIB as u64;
        let outcome = nested.run().await;
        assert_eq!(outcome.diagnosis(), ("too_large", "checkout"), "{:#}", outcome.0);
        let summary = outcome.0["diagnosis"]["summary"].as_str().unwrap();
        assert!(summary.contains("bytes of LFS objects") && summary.contains("`libs/lib`"), "{summary}");
        assert!(summary.contains(&(4 * MIB).to_string()), "the limit is the task's: {summary}");
        nested.assert_nothing_is_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_while_a_submodules_object_comes_takes_effect_at_once() {
    for engine in [Engine::Gix, Engine::Libgit2] {
        let mut nested = Nested::start();
        nested.engine = engine;
        let path = format!("/gitlab-lfs/objects/{}", oid(&content(32, 2 * MIB)));
        nested.gitlab().set_fault_at(&path, Fault::PauseAfter { bytes: 1000 });
        let (server, cancel) = (nested.gitlab().clone(), nested.cancel.clone());
        let canceller = tokio::task::spawn_blocking(move || {
            let has_begun = || server.requests().iter().any(|request| request.path.ends_with(&path));
            wait_until("the object is asked for", START_LIMIT, has_begun);
            cancel.cancel();
            Instant::now()
        });
        let outcome = nested.run().await;
        assert!(canceller.await.unwrap().elapsed() < STOP_LIMIT);
        assert_eq!(outcome.diagnosis().0, "cancelled", "{:#}", outcome.0);
        nested.assert_nothing_is_left();
    }
}
