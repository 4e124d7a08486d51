//! Git LFS: what is fetched is what Debian's git-lfs fetches from the same server, and nothing goes elsewhere.

mod downloads;
mod elsewhere;
mod refusals;
mod submodules;
mod whole;

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
