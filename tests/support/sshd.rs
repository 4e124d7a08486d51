//! OpenSSH's sshd on loopback with a forced command that serves `git-upload-pack` for named repositories only.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::process::{Child, command_line, is_root, require, start_on_free_port, user_name, write_private};

/// Where sshd of root separates its privileges; Debian's package makes it at boot only.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";
/// Bits of an RSA key.
const RSA_BITS: &str = "3072";

/// The forced command. It gets nothing from the client but SSH_ORIGINAL_COMMAND, which it compares and never evaluates.
const FORCED_COMMAND: &str = r#"#!/bin/sh
set -f
if [ -z "$SSH_ORIGINAL_COMMAND" ]; then
    echo "$GREETING" >&2
    exit 1
fi
case "$SSH_ORIGINAL_COMMAND" in
    "git-upload-pack '"*"'") asked=${SSH_ORIGINAL_COMMAND#"git-upload-pack '"} ;;
    "git upload-pack '"*"'") asked=${SSH_ORIGINAL_COMMAND#"git upload-pack '"} ;;
    *) echo "Only git-upload-pack is served." >&2; exit 128 ;;
esac
asked=${asked%"'"}
asked=${asked#/}
tab=$(printf '\t')
# The list comes by another descriptor: standard input belongs to git.
while IFS="$tab" read -r path directory <&3; do
    if [ "$path" = "$asked" ] || [ "$path" = "$asked.git" ]; then
        exec "$GIT" -c safe.directory='*' -c uploadpack.allowReachableSHA1InWant=true upload-pack --strict "$directory" 3<&-
    fi
done 3< "$REPOSITORIES"
echo "ERROR: The repository does not exist or you do not have permission to read it." >&2
exit 128
"#;

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ssh-ed25519
    Ed25519,
    /// ssh-rsa, 3072 bits
    Rsa,
    /// ecdsa-sha2-nistp256
    Ecdsa,
}

impl KeyKind {
    fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
            Self::Ecdsa => "ecdsa",
        }
    }
}

/// A key pair on disk, in OpenSSH's own format.
pub struct Key {
    /// The file with the private key, mode 0600.
    pub private_file: PathBuf,
    /// Type and key of the public half, without a comment.
    pub public: String,
}

impl Key {
    /// Makes one as `directory/name`, encrypted when a passphrase is given.
    ///
    /// # Panics
    /// When ssh-keygen is missing or fails.
    pub fn make(directory: &Path, name: &str, kind: KeyKind, passphrase: Option<&str>) -> Self {
        let private_file = directory.join(name);
        let mut command = Command::new(require("ssh-keygen", "openssh-client"));
        command.args(["-q", "-C", "test", "-t", kind.name(), "-N", passphrase.unwrap_or("")]);
        if kind == KeyKind::Rsa {
            command.args(["-b", RSA_BITS]);
        }
        command_line(command.arg("-f").arg(&private_file));
        let line = fs::read_to_string(directory.join(format!("{name}.pub"))).expect("a public key");
        let public = line.split(' ').take(2).collect::<Vec<_>>().join(" ").trim_end().to_owned();
        Self { private_file, public }
    }
}

/// What an sshd shall be; [`SshdPlan::start`] starts it.
pub struct SshdPlan {
    host_keys: Vec<KeyKind>,
    authorized: Vec<String>,
    repositories: String,
    greeting: String,
    directives: Vec<String>,
}

/// A running sshd.
pub struct Sshd {
    port: u16,
    host_keys: Vec<Key>,
    kinds: Vec<KeyKind>,
    // The order of these fields is the order in which they end.
    child: Child,
    directory: TempDir,
}

impl Sshd {
    /// Plans one with host keys of these kinds.
    pub fn plan(host_keys: &[KeyKind]) -> SshdPlan {
        SshdPlan {
            host_keys: host_keys.to_vec(),
            authorized: Vec::new(),
            repositories: String::new(),
            greeting: "Shell access is not supported.".to_owned(),
            directives: Vec::new(),
        }
    }

    /// `ssh://USER@127.0.0.1:PORT`, to be followed by `/` and a served path. The user is the one that runs this.
    pub fn url(&self) -> String {
        format!("ssh://{}@127.0.0.1:{}", user_name(), self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host keys, in the order of the plan.
    pub fn host_keys(&self) -> &[Key] {
        &self.host_keys
    }

    /// A known_hosts file with `[127.0.0.1]:PORT` and `[localhost]:PORT` for every host key.
    pub fn known_hosts(&self) -> PathBuf {
        let names = format!("[127.0.0.1]:{0},[localhost]:{0}", self.port);
        self.write_known_hosts("known_hosts", &names, &self.host_keys)
    }

    /// The same with plain names, without the port.
    pub fn known_hosts_without_port(&self) -> PathBuf {
        self.write_known_hosts("known_hosts_plain", "127.0.0.1,localhost", &self.host_keys)
    }

    /// The same with hashed names.
    pub fn known_hosts_hashed(&self) -> PathBuf {
        let names = format!("[127.0.0.1]:{}", self.port);
        let file = self.write_known_hosts("known_hosts_hashed", &names, &self.host_keys);
        command_line(
            Command::new(require("ssh-keygen", "openssh-client")).args(["-q", "-H", "-f"]).arg(&file),
        );
        file
    }

    /// A known_hosts file with the right names and kinds, but with other keys: the host's keys changed.
    ///
    /// # Panics
    /// When ssh-keygen is missing or fails.
    pub fn known_hosts_changed(&self) -> PathBuf {
        let directory = tempfile::tempdir().expect("a private directory");
        let others = self.kinds.iter().map(|kind| Key::make(directory.path(), kind.name(), *kind, None));
        let others = others.collect::<Vec<_>>();
        let names = format!("[127.0.0.1]:{0},[localhost]:{0}", self.port);
        self.write_known_hosts("known_hosts_changed", &names, &others)
    }

    /// A known_hosts file that knows no host.
    pub fn known_hosts_empty(&self) -> PathBuf {
        self.write_known_hosts("known_hosts_empty", "", &[])
    }

    /// The fingerprint of a host key in OpenSSH's form, `SHA256:…`.
    ///
    /// # Panics
    /// When ssh-keygen is missing or fails.
    pub fn fingerprint(&self, position: usize) -> String {
        let file = &self.host_keys[position].private_file;
        let line = command_line(Command::new(require("ssh-keygen", "openssh-client")).arg("-lf").arg(file));
        line.split(' ').nth(1).expect("a fingerprint").to_owned()
    }

    /// Its log so far, with each key that was tried.
    pub fn log(&self) -> String {
        self.child.stderr()
    }

    fn write_known_hosts(&self, name: &str, hosts: &str, keys: &[Key]) -> PathBuf {
        let file = self.directory.path().join(name);
        let lines = keys.iter().map(|key| format!("{hosts} {}\n", key.public)).collect::<String>();
        write_private(&file, &lines).expect("a known_hosts file");
        file
    }
}

impl SshdPlan {
    /// Lets this key in.
    pub fn authorize(mut self, key: &Key) -> Self {
        self.authorized.push(key.public.clone());
        self
    }

    /// Serves a bare repository under a path: `group/web.git` or `DefaultCollection/Shop/_git/web`. A leading slash
    /// is of no account, and a client may leave the suffix `.git` out.
    ///
    /// # Panics
    /// When the path or the directory holds a tab, a line end or a quote.
    pub fn serve(mut self, path: &str, directory: &Path) -> Self {
        let directory = directory.to_str().expect("a directory in UTF-8");
        for text in [path, directory] {
            assert!(!text.contains(['\t', '\n', '\'']), "{text:?} holds a tab, a line end or a quote");
        }
        let _ = writeln!(self.repositories, "{}\t{directory}", path.trim_start_matches('/'));
        self
    }

    /// Says this to whoever asks for a shell, such as `Welcome to GitLab, @ada!`.
    pub fn with_greeting(mut self, greeting: &str) -> Self {
        greeting.clone_into(&mut self.greeting);
        self
    }

    /// Adds a line to sshd's configuration, such as `KexAlgorithms diffie-hellman-group14-sha1`.
    pub fn with_directive(mut self, directive: &str) -> Self {
        self.directives.push(directive.to_owned());
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When a program is missing or does not start, with the reason.
    pub fn start(self) -> Sshd {
        // It starts itself again for each connection and wants to know where it is.
        let sshd = require("sshd", "openssh-server");
        if is_root() {
            fs::create_dir_all(PRIVILEGE_SEPARATION).expect("the directory for privilege separation");
        }
        let directory = tempfile::tempdir().expect("a private directory");
        let path = directory.path();
        let host_keys = self.host_keys.iter().enumerate().map(|(position, kind)| {
            Key::make(path, &format!("host_{position}_{}", kind.name()), *kind, None)
        });
        let host_keys = host_keys.collect::<Vec<_>>();
        self.write_files(path);
        let (child, port) = start_on_free_port("sshd", path, |port| {
            let file = path.join("sshd_config");
            write_private(&file, &self.configuration(path, port, &host_keys))
                .expect("the configuration of sshd");
            let mut command = Command::new(&sshd);
            command.args(["-D", "-e", "-f"]).arg(file);
            command
        });
        Sshd { port, host_keys, kinds: self.host_keys, child, directory }
    }

    fn write_files(&self, path: &Path) {
        write_private(&path.join("authorized_keys"), &self.authorized.join("\n")).expect("authorized_keys");
        write_private(&path.join("repositories"), &self.repositories).expect("the list of repositories");
        let script = path.join("serve");
        write_private(&script, FORCED_COMMAND).expect("the forced command");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("an executable script");
    }

    fn configuration(&self, path: &Path, port: u16, host_keys: &[Key]) -> String {
        let git = require("git", "git");
        let (path, git) = (path.display(), git.display());
        let mut text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nPidFile none\nLogLevel VERBOSE\nStrictModes no\nUsePAM no\n\
             PermitRootLogin prohibit-password\nPubkeyAuthentication yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nAllowTcpForwarding no\nX11Forwarding no\nPermitTTY no\n\
             PrintMotd no\nUseDNS no\nAcceptEnv GIT_PROTOCOL\nAuthorizedKeysFile {path}/authorized_keys\n\
             SetEnv GIT={git} REPOSITORIES={path}/repositories \"GREETING={greeting}\" GIT_CONFIG_NOSYSTEM=1 \
             GIT_CONFIG_GLOBAL=/dev/null\nForceCommand {path}/serve\n",
            greeting = self.greeting,
        );
        for key in host_keys {
            let _ = writeln!(text, "HostKey {}", key.private_file.display());
        }
        for directive in &self.directives {
            let _ = writeln!(text, "{directive}");
        }
        text
    }
}
