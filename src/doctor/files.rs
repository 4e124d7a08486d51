//! Modes and owners of what the agent trusts: its configuration, its secrets, its state.
//!
//! Only what the file system tells of them is looked at; no secret is read here.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Check, Mark};
use crate::config::{Config, SecretSource};
use crate::credential::CredentialKind;

const NAME: &str = "files";

/// Who else may write.
const OTHERS_WRITE: u32 = 0o022;
/// Who else may do anything.
const OTHERS_ANY: u32 = 0o077;
/// Whether everybody may read.
const ALL_READ: u32 = 0o004;
/// Files that everybody may write are safe in a directory with this bit from being replaced by others.
const STICKY: u32 = 0o1000;

/// What a file is to the agent, which decides about its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It decides where the agent goes or whom it trusts: nobody else may change it.
    Trust,
    /// It holds a secret: not everybody may read it, and nobody else may change it.
    Secret,
    /// It holds a private key, which is refused unless it is its owner's alone.
    Key,
    /// It belongs to the agent alone.
    Private,
    /// The same for a directory.
    State,
}

/// Looks at every file that the configuration names. It blocks.
pub fn examine(files: &[PathBuf], config: &Config) -> Check {
    let mut check = Check::new(NAME, Mark::Passed, "modes and owners are as they should be");
    let (mut looked_at, mut hidden) = (0_usize, Vec::new());
    for (path, role) in named(files, config) {
        match std::fs::metadata(&path) {
            Ok(metadata) => {
                looked_at += 1;
                judge(&mut check, &path, role, metadata.mode(), metadata.uid());
                judge_directory(&mut check, &path);
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                hidden.push(path.display().to_string())
            }
            Err(error) if error.kind() == ErrorKind::NotFound => missing(&mut check, &path, role),
            Err(error) => {
                let summary = format!("{} cannot be looked at: {}", path.display(), error.kind());
                check.worsen(Mark::Warned, summary, format!("Look at it yourself: ls -l {}", path.display()));
            }
        }
    }
    if check.status == Mark::Passed && !hidden.is_empty() {
        check.summary =
            format!("those that this user can see are as they should be; hidden: {}", hidden.join(", "));
    }
    check.fact("looked_at", looked_at).fact("hidden", hidden)
}

fn named(files: &[PathBuf], config: &Config) -> Vec<(PathBuf, Role)> {
    let mut named: Vec<_> = files.iter().map(|file| (file.clone(), Role::Trust)).collect();
    let mut secret = |source: Option<&SecretSource>, role| {
        if let Some(SecretSource::File(path)) = source {
            named.push((path.clone(), role));
        }
    };
    for credential in config.credentials.values() {
        let is_key = credential.kind == CredentialKind::SshKey && credential.strict_modes;
        secret(Some(&credential.secret), if is_key { Role::Key } else { Role::Secret });
        secret(credential.passphrase.as_ref(), Role::Secret);
    }
    config.proxy_secrets.values().for_each(|source| secret(Some(source), Role::Secret));
    if let Some(control_plane) = &config.control_plane {
        secret(control_plane.proxy_secret.as_ref(), Role::Secret);
        let trusted = control_plane.ca_file.iter().chain(&control_plane.proxy_ca_file);
        named.extend(trusted.map(|file| (file.clone(), Role::Trust)));
    }
    for server in &config.servers {
        let trusted = server.ca_file.iter().chain(&server.known_hosts_file).chain(&server.proxy_ca_file);
        named.extend(trusted.map(|file| (file.clone(), Role::Trust)));
    }
    let of_control_plane = config.control_plane.iter().flat_map(|place| &place.client_certificate);
    let certificates = config.servers.iter().flat_map(|server| &server.client_certificate);
    for certificate in certificates.chain(of_control_plane) {
        named.push((certificate.cert_file.clone(), Role::Trust));
        let role = if certificate.strict_modes { Role::Key } else { Role::Secret };
        named.push((certificate.key_file.clone(), role));
    }
    let state = &config.agent.state_dir;
    named.push((state.clone(), Role::State));
    named.push((state.join("identity.json"), Role::Private));
    named
}

fn judge(check: &mut Check, path: &Path, role: Role, mode: u32, owner: u32) {
    let shown = path.display();
    let bits = mode & 0o7777;
    let own = rustix::process::geteuid().as_raw();
    if mode & OTHERS_WRITE != 0 {
        let summary = format!("others can write {shown} (mode {bits:04o})");
        check.worsen(Mark::Failed, summary, format!("chmod go-w {shown}"));
    }
    match role {
        Role::Key | Role::Private | Role::State if mode & OTHERS_ANY & !OTHERS_WRITE != 0 => {
            let wanted = if role == Role::State { "0700" } else { "0600" };
            let mark = if role == Role::Key { Mark::Failed } else { Mark::Warned };
            let summary = format!("others can read {shown} (mode {bits:04o})");
            check.worsen(mark, summary, format!("chmod {wanted} {shown}"));
        }
        Role::Secret if mode & ALL_READ != 0 => {
            let summary = format!("every user of this host can read the secret in {shown} (mode {bits:04o})");
            check.worsen(Mark::Warned, summary, format!("chmod o-r {shown}"));
        }
        _ => {}
    }
    // Whoever owns a file can change it, whatever its mode. As root one looks at the files of the agent's user.
    let is_foreign = owner != 0 && owner != own && own != 0;
    if is_foreign && matches!(role, Role::Trust) {
        let summary = format!("{shown} belongs to another user (number {owner})");
        check.worsen(Mark::Warned, summary, format!("sudo chown root {shown}"));
    }
}

/// Who may write a directory can put another file in the place of one that he may not write.
fn judge_directory(check: &mut Check, path: &Path) {
    let Some(directory) = path.parent() else { return };
    let Ok(metadata) = std::fs::metadata(directory) else { return };
    if metadata.mode() & OTHERS_WRITE != 0 && metadata.mode() & STICKY == 0 {
        let shown = directory.display();
        let summary = format!(
            "others can replace {} (mode {:04o} of {shown})",
            path.display(),
            metadata.mode() & 0o7777
        );
        let remedy = format!("chmod go-w {shown}");
        if !check.remedies.contains(&remedy) {
            check.worsen(Mark::Failed, summary, remedy);
        }
    }
}

fn missing(check: &mut Check, path: &Path, role: Role) {
    let shown = path.display();
    match role {
        // Enrollment and the first start make these.
        Role::State | Role::Private => {}
        Role::Key | Role::Secret => {
            let summary = format!("{shown} does not exist");
            check.worsen(
                Mark::Failed,
                summary,
                format!("Put the secret into {shown}, or correct the path in the configuration."),
            );
        }
        Role::Trust => {
            let summary = format!("{shown} does not exist");
            check.worsen(
                Mark::Failed,
                summary,
                format!("Make {shown}, or take the key that names it out of the configuration."),
            );
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn judged(role: Role, mode: u32) -> (Mark, Vec<String>) {
        let mut check = Check::new(NAME, Mark::Passed, "");
        judge(&mut check, Path::new("/f"), role, 0o100_000 | mode, 0);
        (check.status, check.remedies)
    }

    #[test]
    fn each_role_has_its_modes() {
        for (role, mode, mark) in [
            (Role::Trust, 0o644, Mark::Passed),
            (Role::Trust, 0o664, Mark::Failed),
            (Role::Secret, 0o640, Mark::Passed),
            (Role::Secret, 0o644, Mark::Warned),
            (Role::Secret, 0o620, Mark::Failed),
            (Role::Key, 0o600, Mark::Passed),
            (Role::Key, 0o640, Mark::Failed),
            (Role::State, 0o700, Mark::Passed),
            (Role::State, 0o750, Mark::Warned),
            (Role::State, 0o770, Mark::Failed),
            (Role::Private, 0o604, Mark::Warned),
        ] {
            let (found, remedies) = judged(role, mode);
            assert_eq!(found, mark, "{role:?} {mode:o}");
            assert_eq!(remedies.is_empty(), mark == Mark::Passed);
        }
        assert_eq!(judged(Role::Key, 0o644).1, ["chmod 0600 /f"]);
    }

    #[test]
    fn a_directory_that_others_may_write_is_as_bad_as_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        let set =
            |mode| std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let mut check = Check::new(NAME, Mark::Passed, "");
        set(0o1777);
        judge_directory(&mut check, &home.path().join("file"));
        assert_eq!(check.status, Mark::Passed);
        set(0o777);
        judge_directory(&mut check, &home.path().join("file"));
        assert_eq!(check.status, Mark::Failed);
    }
}
