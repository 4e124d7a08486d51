//! Submodules of clones: taken along only where that is asked for, each by its own server's rules, with what git itself
//! then says of the clone.

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

#[tokio::test(flavor = "multi_thread")]
async fn submodules_stay_empty_unless_they_are_asked_for() {
    let (scene, _) = Scene::usual();
    let mut asked = scene.task();
    asked.request.submodules = Submodules::default();
    let outcome = asked.run().await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    assert_eq!(outcome.0["submodules"], json!([]));
    for path in ["libs/lib", "vendor/dep"] {
        assert!(entries(&scene.target().join(path)).is_empty());
    }
    assert_eq!(entries(&scene.target().join("libs")), ["lib", "other.txt"]);
    scene.assert_whole(&[]);
    assert!(scene.other.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_come_with_theirs_as_git_has_them_each_with_its_own_servers_credential() {
    on_both_engines(async || {
        let (scene, [lib, inner, dep]) = Scene::usual();
        let outcome = scene.task().run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["submodules"], json!(["libs/lib", "libs/lib/deep/inner", "vendor/dep"]));
        assert_eq!(outcome.0["files"], 3 + 3 + 1 + 1);
        assert_eq!(outcome.warnings(), Vec::<&str>::new());
        let facts = outcome.facts("checkout")["submodules"].as_array().unwrap().clone();
        assert_eq!(facts[1], json!({"path": "libs/lib/deep/inner", "commit": inner, "server": "main"}));
        assert_eq!(facts[2], json!({"path": "vendor/dep", "commit": dep, "server": "other"}));
        let mut stages: Vec<_> =
            outcome.0["stages"].as_array().unwrap().iter().map(|s| s["stage"].clone()).collect();
        let count = stages.len();
        stages.dedup();
        assert_eq!(stages.len(), count, "a stage stands twice: {:#}", outcome.0);
        scene.assert_whole(&[("libs/lib", &lib), ("libs/lib/deep/inner", &inner), ("vendor/dep", &dep)]);
        let target = scene.target();
        assert_eq!(entries(&target.join("libs/lib/deep/inner")), [".git", "inner.txt"]);
        assert_eq!(entries(&target.join(".git/modules")), ["dep.v1", "libs"]);
        assert!(target.join(".git/modules/libs/lib/modules/inner one/HEAD").is_file());
        assert!(!target.join(".git/modules/libs/lib/hooks").exists());
        // Each server accepts its own token alone, and was never asked with another one.
        for nginx in [&scene.main, &scene.other] {
            let requests = nginx.requests();
            let with_credential = requests.iter().filter(|line| line.ends_with("yes"));
            assert!(with_credential.clone().all(|line| line.ends_with("200 yes")), "{requests:?}");
            // What kind of server it is was found out once.
            assert_eq!(requests.len() - with_credential.count(), 2, "{requests:?}");
        }
        // Git has nothing left to do, and can do it all again by itself from what is here.
        assert_eq!(run_git(&target, ["submodule", "update", "--init", "--recursive", "--checkout"]), "");
        fs::remove_file(target.join("libs/lib/lib.txt")).unwrap();
        run_git(&target, ["submodule", "update", "--recursive", "--force", "--checkout"]);
        scene.assert_whole(&[("libs/lib", &lib), ("libs/lib/deep/inner", &inner), ("vendor/dep", &dep)]);
        run_git(&target, ["submodule", "deinit", "--all"]);
        assert!(entries(&target.join("libs/lib")).is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_and_a_depth_make_no_difference() {
    on_both_engines(async || {
        let (scene, [lib, inner, dep]) = Scene::usual();
        let mut asked = scene.task();
        asked.mirrors = Some(Arc::new(Mirrors::new(scene.directory.path().join("mirrors"), u64::MAX)));
        for turn in 0..3 {
            asked.request.want.depth = (turn == 2).then_some(1);
            let outcome = asked.run().await;
            assert!(outcome.succeeded(), "{:#}", outcome.0);
            assert_eq!(outcome.0["received_objects"] == 0, turn > 0, "{:#}", outcome.0);
            scene.assert_whole(&[("libs/lib", &lib), ("libs/lib/deep/inner", &inner), ("vendor/dep", &dep)]);
            fs::remove_dir_all(scene.target()).unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn named_ones_come_alone_and_without_theirs() {
    on_both_engines(async || {
        let (scene, [lib, ..]) = Scene::usual();
        let outcome = scene.task().named(&["libs/lib"]).run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["submodules"], json!(["libs/lib"]));
        assert!(entries(&scene.target().join("vendor/dep")).is_empty());
        assert!(entries(&scene.target().join("libs/lib/deep/inner")).is_empty());
        scene.assert_whole(&[("libs/lib", &lib)]);
        assert!(scene.other.requests().is_empty());
        fs::remove_dir_all(scene.target()).unwrap();
        let missing = scene.task().named(&["libs/lib", "libs/none"]).run().await;
        assert_eq!(missing.diagnosis(), ("path_not_found", "checkout"), "{:#}", missing.0);
        assert!(missing.0["diagnosis"]["summary"].as_str().unwrap().contains("libs/none"), "{:#}", missing.0);
        assert!(!scene.target().exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_outside_of_the_chosen_paths_do_not_come() {
    on_both_engines(async || {
        let (scene, [lib, inner, _]) = Scene::usual();
        let mut asked = scene.task();
        asked.request.paths = vec!["libs".to_owned()];
        let outcome = asked.run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["submodules"], json!(["libs/lib", "libs/lib/deep/inner"]));
        assert_eq!(entries(&scene.target()), [".git", "libs"]);
        scene.assert_whole(&[("libs/lib", &lib), ("libs/lib/deep/inner", &inner)]);
        assert!(scene.other.requests().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ssh_relative_urls_lead_to_the_same_server() {
    on_both_engines(async || {
        let (scene, [lib, inner, _]) = Scene::usual();
        let key = Key::make(scene.directory.path(), "key", KeyKind::Ed25519, None);
        let mut plan = Sshd::plan(&[KeyKind::Ed25519]).authorize(&key);
        for name in ["lib", "inner", "web"] {
            plan = plan.serve(&format!("shop/{name}.git"), &scene.bare(name));
        }
        let sshd = plan.with_directive("AcceptEnv GIT_PROTOCOL").start();
        for name in ["lib", "inner"] {
            run_git(&scene.bare(name), ["config", "uploadpack.allowAnySHA1InWant", "true"]);
        }
        let mut asked = scene.task().named(&["libs/lib"]);
        asked.servers = vec![Server {
            proxy: Proxy::Direct,
            allow_loopback: true,
            credential: Some("key".into()),
            known_hosts_file: Some(sshd.known_hosts()),
            ..Server::new("ssh", None, RemoteUrl::parse(&sshd.url()).unwrap())
        }];
        asked.credentials.insert("key".into(), source(CredentialKind::SshKey, key.private_file.clone()));
        asked.request.target = TargetSpec::Url(format!("{}/shop/web.git", sshd.url()));
        let outcome = asked.run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        scene.assert_whole(&[("libs/lib", &lib)]);
        fs::remove_dir_all(scene.target()).unwrap();
        asked.request.submodules = Submodules { which: Which::All, skip_refused: true };
        let outcome = asked.run().await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
        assert_eq!(outcome.0["submodules"], json!(["libs/lib", "libs/lib/deep/inner"]));
        assert_eq!(outcome.warnings(), ["submodule_not_allowed"]);
        scene.assert_whole(&[("libs/lib", &lib), ("libs/lib/deep/inner", &inner)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_declared_gets_no_connection_and_fails_the_clone_or_is_left_out() {
    let (scene, [lib, ..]) = Scene::usual();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    stranger.set_nonblocking(true).unwrap();
    let port = stranger.local_addr().unwrap().port();
    let links = |url: &'static str| {
        let url = url.replace("PORT", &port.to_string());
        let good = Link { path: "good", name: "good", url: "../lib.git", commit: &lib };
        let bad = Link { path: "bad", name: "bad", url: &url, commit: &lib };
        repository(&scene.bare("web"), &[], &[bad, good]);
    };
    for (url, shown) in [
        ("https://127.0.0.1:PORT/x.git?token=canary-query", "https://127.0.0.1:"),
        ("https://127.0.0.1:PORT/x.git", "https://127.0.0.1:"),
        ("https://canary-user:canary-password@127.0.0.1:PORT/x.git", "127.0.0.1:"),
        ("ssh://git@127.0.0.1:PORT/x.git", "ssh://127.0.0.1:"),
        ("http://127.0.0.1:PORT/x.git", "http://127.0.0.1:"),
        ("git://127.0.0.1:PORT/x.git", "git://127.0.0.1:"),
        ("../../../../x.git", "x.git"),
        ("ext::sh -c touch% canary", "ext::sh"),
        ("file:///etc", "file:///etc"),
        ("/etc", "/etc"),
        ("--upload-pack=touch canary", "--upload-pack"),
        ("-u./canary:x", "-u"),
    ] {
        links(url);
        let outcome = scene.task().run().await;
        assert_eq!(outcome.diagnosis(), ("submodule_not_allowed", "checkout"), "{url}: {:#}", outcome.0);
        let text = outcome.0.to_string();
        assert!(
            text.contains("`bad`") && text.contains(shown) && !text.contains("canary-"),
            "{url}: {:#}",
            outcome.0
        );
        assert!(!scene.target().exists());
        let asked_for_submodules = scene.main.requests().iter().any(|line| line.contains("lib.git"));
        assert!(!asked_for_submodules, "policy is asked about all before anything is fetched");
    }
    let outcome = scene.task().skipping().run().await;
    assert!(outcome.succeeded(), "{:#}", outcome.0);
    assert_eq!(outcome.warnings(), ["submodule_not_allowed"]);
    assert_eq!(outcome.0["submodules"][0], "good");
    assert_eq!(outcome.stages("warned"), ["checkout"]);
    assert!(entries(&scene.target().join("bad")).is_empty());
    assert!(stranger.accept().is_err(), "somebody connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_submodule_lacks_is_told_with_its_name_and_leaves_nothing() {
    on_both_engines(async || {
        let (scene, [lib, ..]) = Scene::usual();
        let nowhere = "1".repeat(40);
        for (url, commit, code) in [
            ("../missing.git", lib.as_str(), "repository_not_found_or_denied"),
            ("../lib.git", nowhere.as_str(), "reference_not_found"),
        ] {
            repository(&scene.bare("web"), &[], &[Link { path: "a/lib", name: "x", url, commit }]);
            let outcome = scene.task().run().await;
            assert_eq!(outcome.diagnosis(), (code, "checkout"), "{:#}", outcome.0);
            assert!(
                outcome.0["diagnosis"]["summary"].as_str().unwrap().contains("`a/lib`"),
                "{:#}",
                outcome.0
            );
            assert!(!scene.target().exists());
        }
        // The other server's own token is refused there: the name of the first one's must not be tried.
        let (scene, _) = Scene::usual();
        write_private(&scene.directory.path().join("wrong"), "wrong").unwrap();
        let mut asked = scene.task();
        asked
            .credentials
            .insert("other".into(), source(CredentialKind::Pat, scene.directory.path().join("wrong")));
        let outcome = asked.run().await;
        assert_eq!(outcome.diagnosis(), ("pat_rejected", "checkout"), "{:#}", outcome.0);
        assert!(
            outcome.0["diagnosis"]["summary"].as_str().unwrap().contains("`vendor/dep`"),
            "{:#}",
            outcome.0
        );
        let left: Vec<_> = entries(scene.directory.path());
        assert!(!left.iter().any(|name| name.contains("target")), "{left:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_paths_that_lead_elsewhere_are_refused() {
    on_both_engines(async || {
    let (scene, [lib, ..]) = Scene::usual();
    let link = |path, name| Link { path, name, url: "../lib.git", commit: &lib };
    let cases = [
        vec![link("a", "../../x")],
        vec![link("a", "..")],
        vec![link("a", "x/../../hooks")],
        vec![link("a", "..\\\\..\\\\x")],
        vec![link("a", ".git")],
        vec![link("a", "/etc/x")],
        vec![link("a", "-x")],
        vec![link("a", "")],
        vec![link("a\r", "cr")],
        vec![link("--upload-pack=x", "dash")],
        vec![link("a", "one"), link("b", "one/hooks")],
        vec![link("a", "one"), link("b", "ONE")],
    ];
    for links in cases {
        let shown = links.iter().map(|link| format!("{:?} {:?}", link.path, link.name)).collect::<Vec<_>>();
        repository(&scene.bare("web"), &[], &links);
        let outcome = scene.task().run().await;
        assert_eq!(outcome.diagnosis(), ("unsafe_path", "checkout"), "{shown:?}: {:#}", outcome.0);
        assert!(!scene.target().exists() && !scene.directory.path().join("x").exists());
    }
    for modules in ["[submodule \"a\"\n", "\u{0}\n", "[submodule \"a\"]\npath = \"a\n"] {
        repository_with(&scene.bare("web"), &[], &[link("a", "a")], modules);
        let outcome = scene.task().run().await;
        assert_eq!(outcome.diagnosis(), ("unsafe_path", "checkout"), "{modules:?}: {:#}", outcome.0);
    }
    // What leads elsewhere and is no entry of the commit is not looked at, and neither is a file that it includes.
    let modules = "[include]\npath = /etc/hostname\n[submodule \"x\"]\nupdate = !touch canary\n[submodule \"../../x\"]\npath = ../../x\nurl = ../lib.git\n";
    repository_with(&scene.bare("web"), &[], &[link("a", "a")], modules);
    let outcome = scene.task().run().await;
    assert!(outcome.succeeded() && outcome.0["submodules"] == json!([]), "{:#}", outcome.0);
    assert_eq!(entries(&scene.target()), [".git", ".gitmodules", "a"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_on_the_way_to_a_submodule_leads_nowhere() {
    on_both_engines(async || {
        let (scene, [lib, ..]) = Scene::usual();
        let bare = scene.bare("web");
        let hook = "#!/bin/sh\ntouch canary\n";
        let evil = repository(&scene.bare("evil"), &[("y/hooks/post-checkout", hook)], &[]);
        // One name as a link and as a directory, which no tool of git's writes.
        let modules = "[submodule \"x/y\"]\npath = A/modules/x\nurl = ../evil.git\n";
        repository_with(
            &bare,
            &[],
            &[Link { path: "A/modules/x", name: "x/y", url: "", commit: &evil }],
            modules,
        );
        let tree = run_git(&bare, ["rev-parse", "main:A"]);
        let blob = run_git(&bare, ["rev-parse", "main:.gitmodules"]);
        let file = scene.directory.path().join("link");
        fs::write(&file, ".git").unwrap();
        let link = run_git(&bare, ["hash-object", "-w", file.to_str().unwrap()]);
        for name in ["A", "a"] {
            let mut raw = Vec::new();
            let sorted = [("100644", ".gitmodules", &blob), ("40000", "A", &tree), ("120000", name, &link)];
            for (mode, name, oid) in sorted {
                raw.extend(format!("{mode} {name}\0").bytes());
                raw.extend((0..20).map(|at| u8::from_str_radix(&oid[at * 2..at * 2 + 2], 16).unwrap()));
            }
            fs::write(&file, raw).unwrap();
            let root =
                run_git(&bare, ["hash-object", "-w", "-t", "tree", "--literally", file.to_str().unwrap()]);
            let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
            let commit = run_git(&bare, [who.as_slice(), &["commit-tree", "-m", "x", &root]].concat());
            run_git(&bare, ["update-ref", "refs/heads/main", &commit]);
            let outcome = scene.task().run().await;
            if name == "A" {
                assert_eq!(outcome.diagnosis(), ("unsafe_path", "checkout"), "{:#}", outcome.0);
                assert!(!scene.target().exists());
            } else {
                // Where case counts these are two names, and the submodule lies below the directory.
                assert!(outcome.succeeded(), "{:#}", outcome.0);
                assert!(scene.target().join("A/modules/x/y/hooks/post-checkout").is_file());
                assert!(!scene.target().join(".git/modules/x/y/hooks").exists());
                scene.assert_whole(&[("A/modules/x", &evil)]);
            }
        }
        assert!(!lib.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_in_submodules_end_somewhere() {
    on_both_engines(async || {
        let (scene, _) = Scene::usual();
        // Each commit has the one before as its submodule: the same repository again and again.
        let bare = scene.bare("web");
        let mut commit = repository(&bare, &[("end", "x")], &[]);
        run_git(&bare, ["update-ref", "refs/heads/kept", &commit]);
        for level in 1..=11 {
            let link = Link { path: "again", name: "again", url: "./../web.git", commit: &commit };
            commit = repository(&bare, &[("level", &level.to_string())], &[link]);
            run_git(&bare, ["update-ref", &format!("refs/heads/kept-{level}"), &commit]);
            if level == 10 {
                let outcome = scene.task().run().await;
                assert_eq!(outcome.0["submodules"].as_array().unwrap().len(), 10, "{:#}", outcome.0);
                assert_eq!(outcome.0["submodules"][9], ["again"; 10].join("/"));
                run_git(
                    &scene.target(),
                    ["submodule", "foreach", "--recursive", "--quiet", "git status --porcelain"],
                );
                fs::remove_dir_all(scene.target()).unwrap();
            }
        }
        let outcome = scene.task().run().await;
        assert_eq!(outcome.diagnosis(), ("too_large", "checkout"), "{:#}", outcome.0);
        assert!(!scene.target().exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_all_repositories_together() {
    on_both_engines(async || {
        let (scene, _) = Scene::usual();
        let cases: [fn(&mut Limits); 3] = [
            // The clone alone has three files, and its first submodule three more.
            |limits| limits.max_files = 7,
            |limits| limits.max_expanded_bytes = 250,
            |limits| limits.max_objects = 16,
        ];
        for (number, lower) in cases.into_iter().enumerate() {
            let mut asked = scene.task();
            lower(&mut asked.limits);
            let outcome = asked.run().await;
            assert_eq!(outcome.diagnosis(), ("too_large", "checkout"), "{number}: {:#}", outcome.0);
            assert!(!scene.target().exists());
            asked.request.submodules = Submodules::default();
            let outcome = asked.run().await;
            assert!(outcome.succeeded(), "{number}: {:#}", outcome.0);
            fs::remove_dir_all(scene.target()).unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_in_the_middle_takes_effect_at_once_and_leaves_nothing() {
    on_both_engines(async || {
        let (scene, [lib, ..]) = Scene::usual();
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/x.git", silent.local_addr().unwrap());
        let links = [
            Link { path: "a", name: "a", url: "../lib.git", commit: &lib },
            Link { path: "b", name: "b", url: &url, commit: &lib },
        ];
        repository(&scene.bare("web"), &[], &links);
        let mut asked = scene.task();
        let base = RemoteUrl::parse(&format!("https://{}", silent.local_addr().unwrap())).unwrap();
        asked.servers.push(Server { url: base, name: "silent".into(), ..asked.servers[1].clone() });
        let running = asked.run();
        tokio::pin!(running);
        // It is connected to once the first submodule is there.
        let _held = tokio::select! {
            held = silent.accept() => held.unwrap(),
            outcome = &mut running => panic!("{:#}", outcome.0),
        };
        asked.cancel.cancel();
        let cancelled_at = std::time::Instant::now();
        let outcome = running.await;
        assert!(cancelled_at.elapsed() < STOP_LIMIT, "{:?}", cancelled_at.elapsed());
        assert_eq!(outcome.diagnosis().0, "cancelled", "{:#}", outcome.0);
        let left = entries(scene.directory.path());
        assert!(!left.iter().any(|name| name.contains("target")), "{left:?}");
    })
    .await;
}

#[test]
fn git_reads_gitmodules_as_the_tests_write_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("modules");
    fs::write(&file, "[submodule \"a\\\"b\"]\n\tpath = \"x\ty\" ; no\n").unwrap();
    let mut command = git();
    let listed =
        crate::support::process::command_line(command.args(["config", "--list", "--file"]).arg(&file));
    assert_eq!(listed, "submodule.a\"b.path=x\ty");
}
