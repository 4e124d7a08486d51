//! Git LFS: what is fetched is what Debian's git-lfs fetches from the same server, and nothing goes elsewhere.

mod submodules;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sortie::credential::basic;
use sortie::dial::Alpn;
use sortie::git::lfs::{self, Fetched, LfsRemote, ObjectProblem};
use sortie::git::{Access, Control, Error, LfsError, Limit, Remote, clone};
use sortie::remote_url::RemoteUrl;
use sortie::report::{Stage, StageLog};
use sortie::secret::Secret;
use stand_ins::{
    Authority, AzureDevOps, Fault, Gitlab, Provider, RecordedRequest, Repository, Running, ServerHandle,
    StandIns, World,
};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::git_transport::{a_minute, control, over_http, over_http_by};
use crate::support::binary::{binary, isolate};
use crate::support::control_plane::secret_file;
use crate::support::process::{START_LIMIT, command_line, require, wait_until};
use crate::support::repository::{SampleRepository, git, run_git};

/// The token that both stand-ins know.
const TOKEN: &str = "canary-1f5-glpat-77";

/// The bound for a cancel and a deadline, from the moment when they come true.
const STOP_LIMIT: Duration = Duration::from_secs(1);

const MIB: usize = 1024 * 1024;

/// More small objects than one batch request names.
const MANY: usize = 105;

/// A GitLab and an Azure DevOps over one repository with LFS objects.
struct Scene {
    running: Running,
    authority: Authority,
    scratch: TempDir,
    /// Path, content and whether it is executable.
    files: BTreeMap<String, (Vec<u8>, bool)>,
}

/// Bytes that are the same in every run and differ from file to file.
fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        content.extend(next());
    }
    content.truncate(bytes);
    content
}

fn oid(content: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pointer(content: &[u8]) -> String {
    let (oid, size) = (oid(content), content.len());
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n")
}

impl Scene {
    fn start() -> Self {
        Self::with(|_| ())
    }

    /// With something more in the commit.
    fn with(add: impl FnOnce(&Path)) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let (work, objects) = (scratch.path().join("work"), scratch.path().join("web.lfs"));
        run_git(scratch.path(), ["init", "-q", "-b", "main", "work"]);
        fs::create_dir(&objects).unwrap();
        let mut files = BTreeMap::new();
        for (path, content, is_executable) in [
            ("small.bin", content(1, 11), false),
            ("copy/of/small.bin", content(1, 11), false),
            ("media/big.bin", content(2, 5 * MIB + 17), false),
            ("media/other.bin", content(3, 3 * MIB), false),
            ("bin/run.bin", content(4, 3000), true),
            ("docs/Größe mit Leerzeichen.bin", content(5, 70_000), false),
        ] {
            files.insert(path.to_owned(), (content, is_executable));
        }
        for number in 0..MANY {
            files.insert(format!("many/{number}.bin"), (content(100 + number as u64, 40 + number), false));
        }
        for (path, (content, is_executable)) in &files {
            let file = work.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, pointer(content)).unwrap();
            let mode = if *is_executable { 0o755 } else { 0o644 };
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            fs::write(objects.join(oid(content)), content).unwrap();
        }
        fs::write(
            work.join(".gitattributes"),
            "[attr]large filter=lfs diff=lfs merge=lfs -text\n*.bin large\n",
        )
        .unwrap();
        // It looks like a pointer, and nobody says that it belongs to LFS.
        fs::write(work.join("notes.txt"), pointer(&content(1, 11))).unwrap();
        add(&work);
        run_git(&work, ["add", "."]);
        run_git(&work, ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-qm", "Begin"]);
        let bare = SampleRepository::empty(&scratch.path().join("web.git"));
        run_git(&work, ["push", "-q", bare.directory.to_str().unwrap(), "main"]);
        let authority = Authority::create(scratch.path()).unwrap();
        let world = World::new()
            .with_gitlab(Gitlab::default())
            .with_azure_devops(AzureDevOps::default())
            .with_user("ada", "secret")
            .with_pat("ada", TOKEN, &["read_repository", "vso.code"])
            .with_repository(Repository::gitlab("shop/web", &bare.directory).read_by("ada"))
            .with_repository(
                Repository::azure_devops("Coll", "My Shop", "web", &bare.directory).read_by("ada"),
            );
        let running = StandIns::start(world, &authority).unwrap();
        Self { running, authority, scratch, files }
    }

    fn server(&self, provider: Provider) -> &ServerHandle {
        match provider {
            Provider::Gitlab => self.running.gitlab.as_ref().unwrap(),
            Provider::AzureDevOps => self.running.azure.as_ref().unwrap(),
        }
    }

    fn gitlab(&self) -> &ServerHandle {
        self.server(Provider::Gitlab)
    }

    fn url(&self, provider: Provider) -> String {
        let base = self.server(provider).url();
        match provider {
            Provider::Gitlab => format!("{base}/shop/web.git"),
            Provider::AzureDevOps => format!("{base}/Coll/My%20Shop/_git/web"),
        }
    }

    fn object(&self, path: &str) -> PathBuf {
        self.scratch.path().join("web.lfs").join(oid(&self.files[path].0))
    }

    fn target(&self) -> PathBuf {
        self.scratch.path().join("target")
    }

    /// A clone whose pointers are still pointers, and where its objects are.
    async fn cloned(&self, provider: Provider) -> LfsRemote {
        self.cloned_by(Alpn::Http2OrHttp1, provider).await
    }

    async fn cloned_by(&self, alpn: Alpn, provider: Provider) -> LfsRemote {
        let mut remote = over_http_by(alpn, &self.url(provider), None, Some(&self.authority)).await;
        if let Access::Https { authorization, .. } = &mut remote.access {
            *authorization = Some(basic("oauth2", &Secret::new(TOKEN.to_owned())));
        }
        let request = crate::clone::wanted(None, &self.target());
        clone(&remote, &request, &a_minute(), &StageLog::default()).await.unwrap();
        self.server(provider).clear_requests();
        self.lfs(remote, &self.server(provider).url())
    }

    fn lfs(&self, remote: Remote, base: &str) -> LfsRemote {
        let Remote { url, access: Access::Https { client, authorization } } = remote else { panic!("https") };
        LfsRemote::new(&url, &RemoteUrl::parse(base).unwrap(), client, authorization)
    }

    /// Fetches into the clone, as a clone does it.
    async fn fetch(&self, remote: &LfsRemote, control: &Control, log: &StageLog) -> Result<Fetched, Error> {
        log.begin(Stage::Checkout);
        let target = self.target();
        let repository = git2::Repository::open(&target).unwrap();
        let files = lfs::find(&repository, control)?;
        let places = (target.as_path(), repository.path());
        let fetched = lfs::fetch(&files, remote, Some("refs/heads/main"), places, control, log).await;
        assert!(!repository.path().join("lfs/tmp").exists(), "what is not whole is removed");
        let fetched = fetched?;
        lfs::refresh_index(&repository, &fetched.files)?;
        Ok(fetched)
    }

    /// The error of a fetch under a fault.
    async fn failure(&self, provider: Provider, set: impl FnOnce(&ServerHandle)) -> (Error, StageLog) {
        let remote = self.cloned(provider).await;
        set(self.server(provider));
        let log = StageLog::default();
        let failed = self.fetch(&remote, &a_minute(), &log).await.unwrap_err();
        log.fail();
        (failed, log)
    }

    fn assert_is_pointer(&self, path: &str) {
        let found = fs::read_to_string(self.target().join(path)).unwrap();
        assert_eq!(found, pointer(&self.files[path].0), "{path} is still a pointer");
    }

    /// Everything is there, with its mode, and nothing of the server's secrets.
    fn assert_whole(&self) {
        for (path, (content, is_executable)) in &self.files {
            let file = self.target().join(path);
            assert!(fs::read(&file).unwrap() == *content, "{path}");
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o111 != 0, *is_executable, "{path}");
        }
        assert_no_secret(&self.target());
    }

    fn with_git_lfs(&self) -> Command {
        let value = basic("oauth2", &Secret::new(TOKEN.to_owned()));
        let header = format!("[http]\n extraHeader = \"Authorization: {}\"\n", value.expose());
        filters(self.scratch.path(), &self.authority, &header)
    }

    fn run_with_git_lfs(&self, directory: &Path, arguments: &[&str]) -> String {
        command_line(self.with_git_lfs().arg("-C").arg(directory).args(arguments))
    }
}

/// A git with git-lfs's filters in its configuration, as `git lfs install` leaves them, and with more of it.
fn filters(scratch: &Path, authority: &Authority, more: &str) -> Command {
    require("git-lfs", "git-lfs");
    let configuration = scratch.join("gitconfig");
    let text = format!(
        "[filter \"lfs\"]\n clean = git-lfs clean -- %f\n smudge = git-lfs smudge -- %f\n \
         process = git-lfs filter-process\n required = true\n[http]\n sslCAInfo = {}\n[core]\n quotePath = off\n{more}",
        authority.ca_file().display(),
    );
    fs::write(&configuration, text).unwrap();
    let mut command = git();
    command.env("GIT_CONFIG_GLOBAL", configuration).env("HOME", scratch);
    command
}

fn assert_no_secret(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_no_secret(&path);
        } else {
            let content = fs::read(&path).unwrap();
            let encoded = basic("oauth2", &Secret::new(TOKEN.to_owned()));
            for secret in [TOKEN, encoded.expose().trim_start_matches("Basic ")] {
                let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{} holds the secret", path.display());
            }
        }
    }
}

/// Paths, contents and executable bits of a working directory.
fn tree(directory: &Path) -> BTreeMap<PathBuf, (Vec<u8>, bool)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(inner) = directories.pop() {
        for entry in fs::read_dir(&inner).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with(".git") {
                    directories.push(path);
                }
                continue;
            }
            let is_executable = fs::metadata(&path).unwrap().permissions().mode() & 0o100 != 0;
            let name = path.strip_prefix(directory).unwrap().to_owned();
            found.insert(name, (fs::read(&path).unwrap(), is_executable));
        }
    }
    found
}

fn is_object(request: &RecordedRequest) -> bool {
    request.path.contains("/objects/") && !request.path.ends_with("/batch")
}

fn lfs_error(error: &Error) -> &LfsError {
    match error {
        Error::Lfs(error) => error,
        other => panic!("{other:?}"),
    }
}

fn problem(error: &Error) -> (&str, &ObjectProblem) {
    match lfs_error(error) {
        LfsError::Object { object, problem } => (&object.path, problem),
        other => panic!("{other:?}"),
    }
}

/// What counts the connections of whoever is led to it.
fn elsewhere() -> (TcpListener, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    (listener, url)
}

fn assert_no_hit(listener: &TcpListener) {
    let refused = listener.accept().map(|(_, from)| from).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_is_what_debians_git_lfs_makes_of_it() {
    for provider in [Provider::Gitlab, Provider::AzureDevOps] {
        let scene = Scene::start();
        let remote = scene.cloned(provider).await;
        let (control, log) = (a_minute(), StageLog::default());
        let fetched = scene.fetch(&remote, &control, &log).await.unwrap();
        log.pass();
        scene.assert_whole();
        let bytes: usize =
            scene.files.iter().filter(|(path, _)| *path != "small.bin").map(|(_, f)| f.0.len()).sum();
        assert_eq!((fetched.objects, fetched.bytes), (scene.files.len() as u64 - 1, bytes as u64));
        assert_eq!(
            (control.transfer.lfs_bytes(), control.transfer.total_lfs_bytes()),
            (bytes as u64, bytes as u64)
        );
        assert_eq!(log.records()[0].facts["lfs_objects"], fetched.objects);
        let batches = scene.server(provider).requests().iter().filter(|r| r.path.ends_with("/batch")).count();
        assert_eq!(batches, 2, "at most a hundred objects a request");

        let theirs = scene.scratch.path().join("theirs");
        let url = scene.url(provider);
        command_line(scene.with_git_lfs().args(["clone", "-q", &url]).arg(&theirs));
        let (ours, theirs) = (tree(&scene.target()), tree(&theirs));
        assert!(ours == theirs, "{:?}\n{:?}", ours.keys(), theirs.keys());
        assert_eq!(ours[Path::new("notes.txt")].0, pointer(&content(1, 11)).as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn git_and_git_lfs_call_the_result_clean() {
    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap();
    let target = scene.target();
    // The index knows the files as they are, so that nobody has to read them to know that they are unchanged.
    let known = run_git(&target, ["ls-files", "--debug", "media/big.bin"]);
    assert!(known.contains(&format!("size: {}", 5 * MIB + 17)), "{known}");
    let index = fs::File::options().write(true).open(target.join(".git/index")).unwrap();
    index.set_modified(std::time::SystemTime::now() + Duration::from_secs(10)).unwrap();
    assert_eq!(run_git(&target, ["status", "--porcelain"]), "", "without any filter");
    assert_eq!(scene.run_with_git_lfs(&target, &["status", "--porcelain", "--ignored"]), "");
    assert_eq!(run_git(&target, ["diff", "HEAD", "--stat"]), "");
    assert!(scene.run_with_git_lfs(&target, &["lfs", "fsck"]).contains("OK"));
    let listed = scene.run_with_git_lfs(&target, &["lfs", "ls-files"]);
    let is_there = |line: &str| line.contains(" * ") || line.ends_with(" - notes.txt");
    assert!(listed.lines().all(is_there), "all objects are there: {listed}");
    // A change is seen, and git-lfs brings the file back from the clone's own objects.
    fs::remove_file(target.join("bin/run.bin")).unwrap();
    scene.run_with_git_lfs(&target, &["checkout", "bin/run.bin"]);
    scene.assert_whole();
    fs::write(target.join("small.bin"), "changed").unwrap();
    assert_eq!(scene.run_with_git_lfs(&target, &["status", "--porcelain"]), " M small.bin");
}

#[tokio::test(flavor = "multi_thread")]
async fn four_objects_come_at_once_and_no_more() {
    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    scene.gitlab().set_fault_at("/gitlab-lfs/objects/", Fault::PauseAfter { bytes: 1 });
    let server = scene.gitlab().clone();
    let watcher = tokio::task::spawn_blocking(move || {
        let objects = || server.requests().into_iter().filter(is_object).count();
        wait_until("four downloads", START_LIMIT, || objects() >= 4);
        let seen = objects();
        server.clear_fault();
        seen
    });
    scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap();
    assert_eq!(watcher.await.unwrap(), 4);
    scene.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_was_cut_goes_on_where_it_was() {
    let scene = Scene::start();
    // With HTTP/2, what the library still holds is lost with the stream.
    let remote = scene.cloned_by(Alpn::Http1, Provider::Gitlab).await;
    scene.gitlab().set_fault_at("/gitlab-lfs/objects/", Fault::CutAfter { bytes: 2 * MIB });
    let (control, log) = (a_minute(), StageLog::default());
    let fetched = scene.fetch(&remote, &control, &log).await.unwrap();
    assert_eq!(fetched.resumed, 3, "twice for the one of 5 MiB and once for that of 3 MiB");
    assert_eq!(control.transfer.lfs_bytes(), fetched.bytes, "nothing came twice");
    scene.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_go_on_begins_anew() {
    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    let path = format!("/gitlab-lfs/objects/{}", oid(&scene.files["media/big.bin"].0));
    scene.gitlab().set_fault_at(&path, Fault::RangeIgnored);
    scene.gitlab().set_fault_at(&path, Fault::CutAfter { bytes: 100 });
    let server = scene.gitlab().clone();
    let watched = path.clone();
    let watcher = tokio::task::spawn_blocking(move || {
        let tries = || server.requests().iter().filter(|request| request.path.ends_with(&watched)).count();
        wait_until("a second try", START_LIMIT, || tries() >= 2);
        server.clear_fault();
        server.set_fault_at(&watched, Fault::RangeIgnored);
    });
    let fetched = scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap();
    watcher.await.unwrap();
    assert_eq!(fetched.resumed, 0);
    scene.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_always_cut_is_given_up_and_named() {
    let scene = Scene::start();
    let path = format!("/gitlab-lfs/objects/{}", oid(&scene.files["media/big.bin"].0));
    let remote = scene.cloned_by(Alpn::Http1, Provider::Gitlab).await;
    scene.gitlab().set_fault_at(&path, Fault::CutAfter { bytes: 200_000 });
    let log = StageLog::default();
    let failed = scene.fetch(&remote, &a_minute(), &log).await.unwrap_err();
    log.fail();
    let (named, problem) = problem(&failed);
    assert_eq!(named, "media/big.bin");
    assert!(
        matches!(problem, ObjectProblem::Interrupted { tries: 5, received: 1..=1_000_000, .. }),
        "{problem:?}"
    );
    let tries = scene.gitlab().requests().iter().filter(|request| request.path.ends_with(&path)).count();
    assert_eq!(tries, 5);
    assert_eq!(log.records()[0].facts["lfs_path"], "media/big.bin");
    scene.assert_is_pointer("media/big.bin");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_what_the_pointer_names_is_refused() {
    let scene = Scene::start();
    let wrong = content(9, 3 * MIB);
    fs::write(scene.object("media/other.bin"), &wrong).unwrap();
    let (failed, _) = scene.failure(Provider::Gitlab, |_| ()).await;
    let (named, what) = problem(&failed);
    assert_eq!(named, "media/other.bin");
    assert!(
        matches!(what, ObjectProblem::WrongContent { found } if found.to_string() == oid(&wrong)),
        "{what:?}"
    );
    scene.assert_is_pointer("media/other.bin");
    let kept = scene.target().join(".git/lfs/objects");
    let name = oid(&scene.files["media/other.bin"].0);
    assert!(!kept.join(&name[..2]).join(&name[2..4]).join(&name).exists());

    // Longer, shorter, and without an end.
    for length in [3 * MIB + 1, 3 * MIB - 1] {
        let scene = Scene::start();
        fs::write(scene.object("media/other.bin"), content(3, length)).unwrap();
        let (failed, _) = scene.failure(Provider::Gitlab, |_| ()).await;
        let (_, what) = problem(&failed);
        let is_right = match what {
            ObjectProblem::TooLong { size } => length > 3 * MIB && *size == 3 * MIB as u64,
            ObjectProblem::TooShort { received, .. } => length < 3 * MIB && *received == length as u64,
            _ => false,
        };
        assert!(is_right, "{length}: {what:?}");
        scene.assert_is_pointer("media/other.bin");
    }
    let scene = Scene::start();
    let path = format!("/objects/{}", oid(&scene.files["small.bin"].0));
    let (failed, _) =
        scene.failure(Provider::Gitlab, |server| server.set_fault_at(&path, Fault::HugeBody)).await;
    assert!(matches!(problem(&failed).1, ObjectProblem::TooLong { size: 11 }), "{failed:?}");
}

/// A batch answer that gives this URL for every object, whatever was asked for.
fn leading_to(scene: &Scene, href: &str) -> Fault {
    let objects = scene.files.values().map(|(content, _)| {
        let name = oid(content);
        serde_json::json!({"oid": name, "size": content.len(),
            "actions": {"download": {"href": href.replace("OID", &name), "header": {"X-Canary": TOKEN}}}})
    });
    let body = serde_json::json!({"transfer": "basic", "objects": objects.collect::<Vec<_>>()}).to_string();
    Fault::Words { status: 200, content_type: "application/vnd.git-lfs+json", body }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_said_to_be_elsewhere_is_not_fetched_from_there() {
    let (listener, foreign) = elsewhere();
    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    let own = scene.gitlab().url();
    for href in [
        format!("{foreign}/OID?token=x"),
        format!("{}/OID", foreign.replace("https", "http")),
        format!("https://127.0.0.1@{}/OID", foreign.trim_start_matches("https://")),
        format!("{}/OID", own.replace("https://", "https://user:secret@")),
        format!("{}/OID", own.replace("https", "http")),
        "file:///etc/passwd".to_owned(),
        "not a url".to_owned(),
    ] {
        scene.gitlab().clear_fault();
        scene.gitlab().set_fault_at("/batch", leading_to(&scene, &href));
        let log = StageLog::default();
        let failed = scene.fetch(&remote, &a_minute(), &log).await.unwrap_err();
        let LfsError::Elsewhere { host, object: Some(object) } = lfs_error(&failed) else {
            panic!("{href}: {failed:?}")
        };
        assert!(!host.contains("token") && !host.contains("secret"), "{host}");
        assert!(scene.files.contains_key(&object.path));
        if href.starts_with(&foreign) {
            assert!(failed.to_string().contains(&foreign), "{failed}");
        }
    }
    // By a redirect of the download, or of the batch request itself.
    for (path, status) in [("/gitlab-lfs/objects/", 302), ("/gitlab-lfs/objects/", 307), ("/batch", 307)] {
        scene.gitlab().clear_fault();
        scene.gitlab().set_fault_at(path, Fault::Redirect { status, location: format!("{foreign}/x?sig=y") });
        let failed = scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap_err();
        assert!(
            matches!(lfs_error(&failed), LfsError::Elsewhere { host, .. } if *host == format!("{foreign}/x"))
        );
    }
    assert_no_hit(&listener);
    assert!(!scene.gitlab().requests().iter().any(|request| request.path.contains("passwd")));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_application_at_the_same_origin_is_elsewhere() {
    let scene = Scene::start();
    let mut remote = over_http(&scene.url(Provider::Gitlab), None, Some(&scene.authority)).await;
    if let Access::Https { authorization, .. } = &mut remote.access {
        *authorization = Some(basic("oauth2", &Secret::new(TOKEN.to_owned())));
    }
    scene.cloned(Provider::Gitlab).await;
    let own = scene.gitlab().url();
    let narrow = scene.lfs(remote, &format!("{own}/shop"));
    for path in ["/shopping/OID", "/other/OID", "/shop/../other/OID", "/shop/%2e%2e/other/OID", "/"] {
        scene.gitlab().clear_fault();
        scene.gitlab().set_fault_at("/batch", leading_to(&scene, &format!("{own}{path}")));
        let failed = scene.fetch(&narrow, &a_minute(), &StageLog::default()).await.unwrap_err();
        assert!(matches!(lfs_error(&failed), LfsError::Elsewhere { .. }), "{path}: {failed:?}");
    }
    assert!(!scene.gitlab().requests().iter().any(is_object), "{:?}", scene.gitlab().requests());
    // At the declared place a redirect is followed.
    scene.gitlab().clear_fault();
    let name = oid(&scene.files["small.bin"].0);
    let moved = leading_to(&scene, &format!("{own}/shop/moved/OID"));
    scene.gitlab().set_fault_at("/batch", moved);
    for (content, _) in scene.files.values() {
        let name = oid(content);
        let location = format!("/shop/web.git/gitlab-lfs/objects/{name}");
        scene.gitlab().set_fault_at(&format!("/moved/{name}"), Fault::Redirect { status: 302, location });
    }
    scene.fetch(&narrow, &a_minute(), &StageLog::default()).await.unwrap();
    scene.assert_whole();
    let asked = |path: &str| {
        let requests = scene.gitlab().requests();
        requests.into_iter().find(|request| request.path.ends_with(path)).unwrap()
    };
    assert!(asked(&format!("/moved/{name}")).has_authorization);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_repository_says_of_its_lfs_server_is_not_read() {
    let (listener, foreign) = elsewhere();
    let scene = Scene::with(|work| {
        let text = format!("[lfs]\n url = {foreign}/lfs\n[remote \"origin\"]\n lfsurl = {foreign}/lfs\n");
        fs::write(work.join(".lfsconfig"), text).unwrap();
    });
    let remote = scene.cloned(Provider::Gitlab).await;
    scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap();
    scene.assert_whole();
    assert_no_hit(&listener);
}

#[tokio::test(flavor = "multi_thread")]
async fn authorization_is_the_actions_own_or_ours() {
    for (provider, scheme) in [(Provider::Gitlab, "Basic"), (Provider::AzureDevOps, "Basic")] {
        let scene = Scene::start();
        let remote = scene.cloned(provider).await;
        scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap();
        let requests = scene.server(provider).requests();
        assert!(requests.iter().all(|r| r.authorization_scheme.as_deref() == Some(scheme)), "{requests:?}");
    }
    // A request that is authenticated by its URL gets no credential of ours.
    let scene = Scene::start();
    let name = oid(&scene.files["small.bin"].0);
    let own = scene.gitlab().url();
    let Fault::Words { body, .. } = leading_to(&scene, &format!("{own}/signed/OID?signature=1")) else {
        panic!("words")
    };
    let body = body.replace("\"actions\"", "\"authenticated\":true,\"actions\"");
    let words = Fault::Words { status: 200, content_type: "application/vnd.git-lfs+json", body };
    scene.failure(Provider::Gitlab, |server| server.set_fault_at("/batch", words)).await;
    let requests = scene.gitlab().requests();
    let signed: Vec<_> = requests.iter().filter(|request| request.path.contains("/signed/")).collect();
    assert!(
        !signed.is_empty() && signed.iter().all(|request| !request.has_authorization),
        "{name} {signed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_told_apart() {
    let scene = Scene::start();
    fs::remove_file(scene.object("bin/run.bin")).unwrap();
    let (failed, log) = scene.failure(Provider::Gitlab, |_| ()).await;
    let (named, what) = problem(&failed);
    assert_eq!(named, "bin/run.bin");
    assert!(
        matches!(what, ObjectProblem::Refused { code: 404, message } if message.starts_with("Object does not"))
    );
    assert_eq!(log.records()[0].facts["lfs_object"], oid(&scene.files["bin/run.bin"].0));
    assert_eq!(failed.stage(None), Stage::Checkout);

    for (provider, expected) in [(Provider::Gitlab, 501), (Provider::AzureDevOps, 404)] {
        let scene = Scene::start();
        fs::remove_dir_all(scene.scratch.path().join("web.lfs")).unwrap();
        let (failed, _) = scene.failure(provider, |_| ()).await;
        let LfsError::NotServed { status, message } = lfs_error(&failed) else { panic!("{failed:?}") };
        assert!(*status == expected && message.contains("LFS"), "{failed}");
    }

    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    let words = |status, body: &str| Fault::Words {
        status,
        content_type: "application/vnd.git-lfs+json",
        body: body.to_owned(),
    };
    let said = r#"{"message":"Say\u0007 no"}"#;
    let page = Fault::Words { status: 200, content_type: "text/html", body: "<html>".into() };
    let deep = format!("{{\"objects\":{}", "[".repeat(100_000));
    type Expected = fn(&Error) -> bool;
    let cases: [(Fault, Expected); 11] = [
        (
            words(401, said),
            |e| matches!(lfs_error(e), LfsError::Denied { status: 401, message } if message == "Say no"),
        ),
        (words(403, said), |e| matches!(lfs_error(e), LfsError::Denied { status: 403, .. })),
        (words(410, said), |e| matches!(lfs_error(e), LfsError::NotServed { status: 410, .. })),
        (words(422, said), |e| matches!(lfs_error(e), LfsError::Refused { status: 422, .. })),
        (page, |e| matches!(lfs_error(e), LfsError::Unexpected { .. })),
        (words(200, "{"), |e| matches!(lfs_error(e), LfsError::Unexpected { .. })),
        (words(200, &deep), |e| matches!(lfs_error(e), LfsError::Unexpected { .. })),
        (words(200, r#"{"transfer":"ssh","objects":[]}"#), |e| {
            matches!(lfs_error(e), LfsError::Unexpected { .. })
        }),
        (words(200, r#"{"objects":[]}"#), |e| matches!(problem(e).1, ObjectProblem::NoAction)),
        (Fault::HugeBody, |e| {
            matches!(lfs_error(e), LfsError::Unexpected { problem: "it is too large", .. })
        }),
        (Fault::ServerError(503), |e| matches!(e, Error::ServerError { status: 503, .. })),
    ];
    for (fault, expected) in cases {
        scene.gitlab().clear_fault();
        scene.gitlab().set_fault_at("/batch", fault.clone());
        let failed = scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap_err();
        assert!(expected(&failed), "{fault:?}: {failed:?}");
    }
    scene.gitlab().clear_fault();
    scene.gitlab().set_fault_at("/gitlab-lfs/", words(410, said));
    let failed = scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap_err();
    assert!(
        matches!(problem(&failed).1, ObjectProblem::Answer { status: 410, message } if message == "Say no")
    );
    scene.assert_is_pointer("media/big.bin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_to_wait_is_waited_for_within_reason() {
    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    scene.gitlab().set_fault_at("/batch", Fault::RateLimited { retry_after: 3600 });
    let failed = scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap_err();
    assert!(matches!(failed, Error::RateLimited { retry_after: Some(wait) } if wait.as_secs() == 3600));
    assert_eq!(scene.gitlab().requests().len(), 1);
    scene.gitlab().clear_fault();
    scene.gitlab().clear_requests();
    scene.gitlab().set_fault_at("/batch", Fault::RateLimited { retry_after: 1 });
    let server = scene.gitlab().clone();
    let watcher = tokio::task::spawn_blocking(move || {
        let came = server.wait_for_request(|_| true, START_LIMIT);
        server.clear_fault();
        came
    });
    scene.fetch(&remote, &a_minute(), &StageLog::default()).await.unwrap();
    assert!(watcher.await.unwrap());
    scene.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_not_even_asked_for() {
    type Change = fn(&mut Control);
    let scene = Scene::start();
    let remote = scene.cloned(Provider::Gitlab).await;
    let cases: [(Change, Limit); 2] = [
        (|control| control.limits.max_blob_bytes = 3 * MIB as u64, Limit::BlobBytes),
        (|control| control.limits.max_lfs_bytes = 8 * MIB as u64, Limit::LfsBytes),
    ];
    for (change, expected) in cases {
        let mut control = a_minute();
        change(&mut control);
        let failed = scene.fetch(&remote, &control, &StageLog::default()).await.unwrap_err();
        assert!(matches!(failed, Error::TooLarge { what, .. } if what == expected), "{failed:?}");
    }
    // More than any disk has: the pointer alone tells.
    let text = format!(
        "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n",
        "1".repeat(64),
        u64::MAX
    );
    let scene = Scene::with(|work| fs::write(work.join("huge.bin"), text).unwrap());
    let remote = scene.cloned(Provider::Gitlab).await;
    let mut control = a_minute();
    (control.limits.max_blob_bytes, control.limits.max_lfs_bytes) = (u64::MAX, u64::MAX);
    let failed = scene.fetch(&remote, &control, &StageLog::default()).await.unwrap_err();
    assert!(matches!(&failed, Error::DiskFull { path } if *path == scene.target()), "{failed:?}");
    assert_eq!(scene.gitlab().requests(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_needs_a_program_is_refused() {
    let scene = Scene::with(|work| {
        let text = pointer(b"x").replace("oid", &format!("ext-0-secret sha256:{}\noid", "1".repeat(64)));
        fs::write(work.join("extended.bin"), text).unwrap();
    });
    let (failed, _) = scene.failure(Provider::Gitlab, |_| ()).await;
    assert!(matches!(problem(&failed), ("extended.bin", ObjectProblem::HasExtensions)), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_and_the_deadline_take_effect_within_a_second() {
    for fault in [Fault::PauseAfter { bytes: 1000 }, Fault::Stall] {
        let scene = Scene::start();
        let remote = scene.cloned(Provider::Gitlab).await;
        let path = if fault == Fault::Stall { "/batch" } else { "/gitlab-lfs/" };
        scene.gitlab().set_fault_at(path, fault);
        let work = a_minute();
        let (server, cancel) = (scene.gitlab().clone(), work.cancel.clone());
        let canceller = tokio::task::spawn_blocking(move || {
            assert!(server.wait_for_request(|request| request.path.contains(path), START_LIMIT));
            let now = Instant::now();
            cancel.cancel();
            now
        });
        let failed = scene.fetch(&remote, &work, &StageLog::default()).await.unwrap_err();
        assert!(matches!(failed, Error::Cancelled), "{failed:?}");
        assert!(canceller.await.unwrap().elapsed() < STOP_LIMIT);

        let time = Duration::from_millis(300);
        let began = Instant::now();
        let failed = scene.fetch(&remote, &control(time), &StageLog::default()).await.unwrap_err();
        assert!(matches!(failed, Error::DeadlineExceeded), "{failed:?}");
        assert!(began.elapsed() < time + STOP_LIMIT);
        assert_no_secret(&scene.target());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_takes_objects_along_where_it_is_asked_and_names_the_one_that_it_lacks() {
    for (provider, flag) in [(Provider::Gitlab, "gitlab"), (Provider::AzureDevOps, "azure-devops")] {
        let site = Scene::start();
        let pat = secret_file(site.scratch.path(), "pat", TOKEN);
        let cloned = |name: &str, more: &[&str]| {
            let target = site.scratch.path().join(name);
            let mut command = Command::new(binary("sortie"));
            isolate(&mut command, site.scratch.path()).args(["clone", "--json", "--provider", flag]);
            command.arg("--pat-file").arg(&pat).arg("--ca-file").arg(site.authority.ca_file()).args(more);
            let output = command.arg(site.url(provider)).arg(&target).output().unwrap();
            (serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap(), target)
        };
        let (report, target) = cloned("with", &["--lfs"]);
        assert_eq!(report["outcome"], "succeeded", "{report:#}");
        // The one that only looks like a pointer stays one.
        assert_eq!(report["lfs_pointers"], 1, "{report:#}");
        for (path, (content, _)) in &site.files {
            assert!(fs::read(target.join(path)).unwrap() == *content, "{path}");
        }
        let (report, target) = cloned("without", &[]);
        assert_eq!(report["lfs_pointers"], site.files.len() + 1, "{report:#}");
        assert!(fs::read(target.join("media/big.bin")).unwrap().starts_with(b"version https://git-lfs"));
        fs::remove_file(site.object("media/big.bin")).unwrap();
        let (report, target) = cloned("lacking", &["--lfs"]);
        assert_eq!(report["diagnosis"]["code"], "lfs_failed", "{report:#}");
        assert!(report["diagnosis"]["summary"].as_str().unwrap().contains("media/big.bin"), "{report:#}");
        assert!(!target.exists());
    }
}
