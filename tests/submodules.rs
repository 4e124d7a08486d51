//! Submodules of clones: taken along only where that is asked for, each by its own server's rules, with what git itself
//! then says of the clone.

mod bounds;
mod refused;
mod taken;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sortie::config::{CredentialSource, Proxy, SecretSource, Server};
use sortie::credential::{CredentialKind, Store};
use sortie::dial::{Door, ProxyEnvironment};
use sortie::git::{Control, Limits, Mirrors, Want};
use sortie::policy::Policy;
use sortie::remote_url::RemoteUrl;
use sortie::report::StageLog;
use sortie::task::submodules::{Submodules, Which};
use sortie::task::{TargetSpec, Task, Tools, clone, run};
use stand_ins::Authority;
use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clone::{entries, on_both_engines};
use crate::support::nginx::Nginx;
use crate::support::process::write_private;
use crate::support::repository::{SampleRepository, git, run_git};
use crate::support::sshd::{Key, KeyKind, Sshd};
use crate::trial::Outcome;

const TOKEN: &str = "canary-submodules-7c1e";
const OTHER_TOKEN: &str = "canary-submodules-other-93ab";

/// The bound for a cancel, from the moment when it is asked for.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// A submodule as a test writes it into a commit.
struct Link<'a> {
    path: &'a str,
    name: &'a str,
    url: &'a str,
    commit: &'a str,
}

/// Makes a bare repository with one commit on `main`, which it returns.
fn repository(directory: &Path, files: &[(&str, &str)], links: &[Link<'_>]) -> String {
    let modules = links.iter().map(|Link { path, name, url, .. }| {
        format!(
            "[submodule \"{name}\"]
	path = \"{path}\"
	url = \"{url}\"
	branch = other
"
        )
    });
    let modules: String = modules.collect();
    repository_with(directory, files, links, &modules)
}

fn repository_with(directory: &Path, files: &[(&str, &str)], links: &[Link<'_>], modules: &str) -> String {
    if !directory.exists() {
        SampleRepository::empty(directory);
    }
    let work = tempfile::tempdir().unwrap();
    run_git(work.path(), ["init", "-q", "-b", "main"]);
    for (path, content) in files {
        let file = work.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }
    if !links.is_empty() {
        fs::write(work.path().join(".gitmodules"), modules).unwrap();
    }
    run_git(work.path(), ["add", "--all", "--force"]);
    for link in links {
        let entry = format!("160000,{},{}", link.commit, link.path);
        run_git(work.path(), ["update-index", "--add", "--cacheinfo", &entry]);
    }
    let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
    run_git(work.path(), [who.as_slice(), &["commit", "-q", "--allow-empty", "-m", "Begin"]].concat());
    run_git(work.path(), ["push", "-q", "--force", directory.to_str().unwrap(), "HEAD:refs/heads/main"]);
    run_git(work.path(), ["rev-parse", "HEAD"])
}

/// Two servers with a token each.
struct Scene {
    directory: TempDir,
    authority: Authority,
    main: Nginx,
    other: Nginx,
}

impl Scene {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(directory.path()).unwrap();
        for root in ["main/shop", "other/private"] {
            fs::create_dir_all(directory.path().join(root)).unwrap();
        }
        let main = Nginx::plan(&directory.path().join("main")).accept_pat(TOKEN).start(&authority);
        let other = Nginx::plan(&directory.path().join("other")).accept_pat(OTHER_TOKEN).start(&authority);
        Self { directory, authority, main, other }
    }

    /// `web` with `libs/lib`, which has `deep/inner`; and `vendor/dep`, which is on the other server.
    fn usual() -> (Self, [String; 3]) {
        let scene = Self::start();
        let inner = repository(&scene.bare("inner"), &[("inner.txt", "inner\n")], &[]);
        let below = Link { path: "deep/inner", name: "inner one", url: "../inner.git", commit: &inner };
        let lib = repository(
            &scene.bare("lib"),
            &[("lib.txt", "lib\n"), ("hooks/post-checkout", "touch x")],
            &[below],
        );
        // What came later is not what the commit names.
        run_git(&scene.bare("inner"), ["update-ref", "refs/heads/before", &inner]);
        repository(&scene.bare("inner"), &[("later.txt", "later\n")], &[]);
        let dep = scene.directory.path().join("other/private/dep.git");
        let dep = repository(&dep, &[("dep.txt", "dep\n")], &[]);
        let elsewhere = format!("{}/private/dep.git", scene.other.url());
        let links = [
            Link { path: "libs/lib", name: "libs/lib", url: "../lib.git", commit: &lib },
            Link { path: "vendor/dep", name: "dep.v1", url: &elsewhere, commit: &dep },
        ];
        repository(&scene.bare("web"), &[("README.md", "web\n"), ("libs/other.txt", "x\n")], &links);
        (scene, [lib, inner, dep])
    }

    fn bare(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("main/shop/{name}.git"))
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    fn task(&self) -> Asked {
        let declared = |name: &str, nginx: &Nginx| Server {
            proxy: Proxy::Direct,
            allow_loopback: true,
            credential: Some(name.to_owned()),
            ca_file: Some(self.authority.ca_file().to_owned()),
            ..Server::new(name, None, RemoteUrl::parse(&nginx.url()).unwrap())
        };
        let mut credentials = BTreeMap::new();
        for (name, token) in [("main", TOKEN), ("other", OTHER_TOKEN)] {
            let file = self.directory.path().join(format!("{name}-token"));
            write_private(&file, token).unwrap();
            credentials.insert(name.to_owned(), source(CredentialKind::Pat, file));
        }
        Asked {
            servers: vec![declared("main", &self.main), declared("other", &self.other)],
            credentials,
            mirrors: None,
            limits: Limits::default(),
            cancel: CancellationToken::new(),
            request: clone::Request {
                target: TargetSpec::Url(format!("{}/shop/web.git", self.main.url())),
                provider: None,
                credential: None,
                want: Want::default(),
                paths: Vec::new(),
                lfs: false,
                submodules: Submodules { which: Which::All, skip_refused: false },
                destination: clone::Destination::Directory(self.target()),
            },
        }
    }

    /// The clone has its submodules as git has them: at these paths and commits, with nothing to do, nothing wrong and no
    /// secret.
    fn assert_whole(&self, expected: &[(&str, &str)]) {
        let target = self.target();
        let listed = run_git(&target, ["submodule", "status", "--recursive"]);
        let listed: Vec<(String, String)> = listed
            .lines()
            .map(|line| {
                let mut words = line.trim_start_matches(' ').split(' ');
                let mut word = || words.next().unwrap_or_default().to_owned();
                let commit = word();
                (word(), commit)
            })
            .filter(|(_, commit)| !commit.starts_with('-'))
            .collect();
        let wanted = expected.iter().map(|(path, commit)| ((*path).to_owned(), (*commit).to_owned()));
        assert_eq!(listed, wanted.collect::<Vec<_>>());
        for directory in expected.iter().map(|(path, _)| target.join(path)).chain([target.clone()]) {
            // What the index does not know would be listed as changed: this looks at no content.
            assert_eq!(run_git(&directory, ["diff-files", "--name-only"]), "", "{}", directory.display());
            assert_eq!(run_git(&directory, ["status", "--porcelain"]), "", "{}", directory.display());
            assert_eq!(run_git(&directory, ["fsck", "--strict"]), "", "{}", directory.display());
        }
        run_git(
            &target,
            ["submodule", "foreach", "--recursive", "--quiet", "git fsck --strict && test ! -e canary"],
        );
        assert_no_secret(&target);
    }
}

fn source(kind: CredentialKind, file: PathBuf) -> CredentialSource {
    CredentialSource {
        kind,
        username: None,
        secret: SecretSource::File(file),
        passphrase: None,
        strict_modes: true,
    }
}

/// A clone that is about to be asked for.
struct Asked {
    servers: Vec<Server>,
    credentials: BTreeMap<String, CredentialSource>,
    mirrors: Option<Arc<Mirrors>>,
    limits: Limits,
    cancel: CancellationToken,
    request: clone::Request,
}

impl Asked {
    fn named(mut self, paths: &[&str]) -> Self {
        self.request.submodules.which = Which::Named(paths.iter().map(|path| (*path).to_owned()).collect());
        self
    }

    fn skipping(mut self) -> Self {
        self.request.submodules.skip_refused = true;
        self
    }

    async fn run(&self) -> Outcome {
        let tools = Tools {
            uploads: None,
            engine: crate::clone::engine(),
            mirrors: self.mirrors.clone(),
            door: Arc::new(Door::new(ProxyEnvironment::none())),
            policy: Arc::new(Policy::new(self.servers.clone())),
            credentials: Arc::new(Store::new(self.credentials.clone())),
            limits: self.limits,
            temporary: PathBuf::from("/nonexistent"),
            workspaces: None,
        };
        let mut control = Control::new(Instant::now() + Duration::from_secs(60), self.cancel.clone());
        control.limits = self.limits;
        let report = run(&Task::Clone(self.request.clone()), &tools, &control, &StageLog::default()).await;
        Outcome(serde_json::to_value(report.to_wire()).unwrap())
    }
}

fn assert_no_secret(directory: &Path) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            assert_no_secret(&path);
        } else if metadata.is_file() {
            let content = fs::read(&path).unwrap();
            for token in [TOKEN, OTHER_TOKEN] {
                for secret in [token.to_owned(), STANDARD.encode(format!(":{token}"))] {
                    let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
                    assert!(!found, "{} holds a secret", path.display());
                }
            }
        }
    }
}
