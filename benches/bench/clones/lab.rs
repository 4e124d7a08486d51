//! The servers, the repositories on them, and the two programs that clone from them.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use stand_ins::Authority;
use tempfile::TempDir;

use crate::support::binary::{binary, isolate};
use crate::support::control_plane::secret_file;
use crate::support::line::Line;
use crate::support::nginx::Nginx;
use crate::support::process::require;
use crate::support::repository::{git, run_git};
use crate::support::sshd::{Key, KeyKind, Sshd};
use crate::turns::Programs;

/// What the server accepts.
const TOKEN: &str = "token-for-measurements";
/// A directory in memory, where the system has one.
const IN_MEMORY: &str = "/dev/shm";
/// Requests that nginx hands on at once: enough that no clone ever waits for another.
const PROCESSES: usize = 16;
/// How fast the line with a limit is, in bytes a second.
pub(super) const LINE_BYTES: u32 = 20_000_000;
/// When `sortie` gives up, in seconds.
const DEADLINE: &str = "600";

/// Where the repositories are served.
pub(super) struct Lab {
    /// Where everything lies that is measured: in memory where the system has a directory for that.
    pub(super) directory: TempDir,
    pub(super) programs: Programs,
    home: TempDir,
    nginx: Nginx,
    sshd: Sshd,
    line: Line,
    ca_file: PathBuf,
    pat_file: PathBuf,
    config: PathBuf,
    key: Key,
}

/// How a program gets to a repository.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// HTTPS, straight.
    Https,
    /// HTTPS by the line with a limit.
    Line,
    /// SSH.
    Ssh,
    /// HTTPS, and `sortie` by the name of a declared server, with the agent's mirrors.
    Declared,
}

/// What must come of a clone.
pub(super) struct Expected<'a> {
    pub(super) commit: &'a str,
    pub(super) target: &'a Path,
}

impl Lab {
    /// Starts servers for the bare repositories `NAME.git` that lie, or will lie, in the directory.
    pub(super) fn start(directory: TempDir, names: &[&str]) -> Self {
        let path = directory.path();
        let authority = Authority::create(path).expect("an authority for certificates");
        let nginx = Nginx::plan(path).accept_pat(TOKEN).with_processes(PROCESSES).start(&authority);
        let key = Key::make(path, "key", KeyKind::Ed25519, None);
        let sshd = names.iter().fold(Sshd::plan(&[KeyKind::Ed25519]).authorize(&key), |plan, name| {
            plan.serve(&format!("{name}.git"), &path.join(format!("{name}.git")))
        });
        let ca_file = authority.ca_file().to_owned();
        let pat_file = secret_file(path, "pat", TOKEN);
        let lab = Self {
            programs: Programs::new(path),
            home: tempfile::tempdir().expect("a private home"),
            line: Line::start(nginx.port(), LINE_BYTES),
            config: path.join("config.toml"),
            sshd: sshd.start(),
            nginx,
            ca_file,
            pat_file,
            key,
            directory,
        };
        std::fs::create_dir(lab.state()).expect("a directory for the agent's state");
        std::fs::write(&lab.config, lab.configuration()).expect("the configuration");
        lab
    }

    /// Where the agent keeps its state, and with it its mirrors.
    pub(super) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `sortie clone` of a repository into a directory.
    pub(super) fn sortie(&self, way: Way, repository: &str, target: &Path) -> Command {
        self.sortie_under(Command::new(binary("sortie")), way, repository, target)
    }

    /// `git clone` of the same.
    pub(super) fn git(&self, way: Way, repository: &str, target: &Path) -> Command {
        let mut command = git();
        self.add_git(&mut command, way, repository, target);
        command
    }

    /// Either program under GNU time, which writes the most memory of any of its processes to a file.
    pub(super) fn with_memory(&self, is_sortie: bool, repository: &str, target: &Path) -> Command {
        let told = self.told();
        let mut time = Command::new(require("time", "time"));
        time.args(["--format=%M", "--output"]).arg(&told);
        if is_sortie {
            time.arg(binary("sortie"));
            return self.sortie_under(time, Way::Https, repository, target);
        }
        let plain = git();
        time.arg(plain.get_program()).args(plain.get_args());
        time.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.add_git(&mut time, Way::Https, repository, target);
        time
    }

    /// The memory that [`Self::with_memory`] told of, in bytes.
    pub(super) fn memory(&self) -> f64 {
        let kibibytes = std::fs::read_to_string(self.told()).expect("what `time` wrote");
        kibibytes.trim().parse::<f64>().expect("a number of kibibytes") * 1024.0
    }

    fn told(&self) -> PathBuf {
        self.path("memory")
    }

    fn sortie_under(&self, mut command: Command, way: Way, repository: &str, target: &Path) -> Command {
        isolate(&mut command, self.home.path()).arg("clone");
        if let Way::Declared = way {
            command.arg("--config").arg(&self.config).args(["--server", "lab", "--repository"]);
            command.arg(format!("{repository}.git"));
        } else {
            command.args([&self.url(way, repository), "--provider", "git"]);
        }
        match way {
            Way::Https | Way::Line => {
                command.arg("--pat-file").arg(&self.pat_file).arg("--ca-file").arg(&self.ca_file);
            }
            Way::Ssh => {
                command.arg("--ssh-key").arg(&self.key.private_file);
                command.arg("--known-hosts").arg(self.sshd.known_hosts());
            }
            Way::Declared => {}
        }
        command.args(["--json", "--deadline", DEADLINE]).arg(target);
        command
    }

    fn add_git(&self, command: &mut Command, way: Way, repository: &str, target: &Path) {
        if let Way::Ssh = way {
            // Only what is named here is read.
            let (key, known) = (self.key.private_file.display(), self.sshd.known_hosts());
            let known = known.display();
            let ssh = format!(
                "ssh -F /dev/null -i {key} -o IdentitiesOnly=yes -o BatchMode=yes -o UserKnownHostsFile={known}"
            );
            command.env("GIT_SSH_COMMAND", ssh);
        } else {
            let header = STANDARD.encode(format!(":{TOKEN}"));
            command.arg("-c").arg(format!("http.sslCAInfo={}", self.ca_file.display()));
            command.arg("-c").arg(format!("http.extraHeader=Authorization: Basic {header}"));
        }
        command.args(["clone", "--quiet", &self.url(way, repository)]).arg(target);
        command.current_dir(self.directory.path());
    }

    fn url(&self, way: Way, repository: &str) -> String {
        let base = match way {
            Way::Https | Way::Declared => self.nginx.url(),
            Way::Line => format!("https://127.0.0.1:{}", self.line.port()),
            Way::Ssh => self.sshd.url(),
        };
        format!("{base}/{repository}.git")
    }

    fn configuration(&self) -> String {
        format!(
            "[agent]\nname = \"bench\"\nstate_dir = \"{}\"\n\
             [servers.lab]\nprovider = \"git\"\nurl = \"{}\"\ncredential = \"pat\"\nca_file = \"{}\"\n\
             allow_loopback = true\nproxy = \"none\"\n\
             [credentials.pat]\nkind = \"pat\"\nsecret = {{ file = \"{}\" }}\n",
            self.state().display(),
            self.nginx.url(),
            self.ca_file.display(),
            self.pat_file.display(),
        )
    }
}

impl Expected<'_> {
    /// Whether the clone is at the commit.
    ///
    /// # Panics
    /// When it is not.
    pub(super) fn is_there(&self) {
        assert_eq!(
            run_git(self.target, ["rev-parse", "HEAD"]),
            self.commit,
            "another commit was checked out"
        );
    }

    /// Whether the files are those of the commit as well, and every object is there.
    ///
    /// # Panics
    /// When they are not, with what git has to say.
    pub(super) fn is_whole(&self) {
        self.is_there();
        assert_eq!(
            run_git(self.target, ["status", "--porcelain"]),
            "",
            "the files are not those of the commit"
        );
        run_git(self.target, ["rev-list", "--objects", "--quiet", "HEAD"]);
    }
}

/// A directory in memory where there is one, so that the disk is not what is measured.
pub(super) fn directory_in_memory() -> TempDir {
    let in_memory = Path::new(IN_MEMORY);
    let builder = tempfile::Builder::new();
    let found = if in_memory.is_dir() { TempDir::new_in(in_memory) } else { builder.tempdir() };
    found.or_else(|_| builder.tempdir()).expect("a private directory")
}
