//! The installed service against the one that this version comes with, and where this program runs.

use std::path::{Path, PathBuf};

use super::{Check, Mark};

const NAME: &str = "unit";

/// The unit that this version comes with.
const SHIPPED: &str = include_str!("../../systemd/sortie.service");

/// Where units lie, the first one that has it counts (systemd.unit(5)).
const DIRECTORIES: [&str; 4] =
    ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// The unit needs LoadCredential=.
const MIN_SYSTEMD: u32 = 247;

/// systemd's own library has its version in its name, wherever a distribution puts it.
const LIBRARY_DIRECTORIES: [&str; 6] = [
    "usr/lib/systemd",
    "lib/systemd",
    "usr/lib/x86_64-linux-gnu/systemd",
    "usr/lib/aarch64-linux-gnu/systemd",
    "usr/lib64/systemd",
    "lib/x86_64-linux-gnu/systemd",
];

/// The largest unit that is compared, in bytes.
const MAX_UNIT_BYTES: u64 = 256 * 1024;

/// Looks at the service. `root` is the root of the file system. It blocks.
pub fn examine(root: &Path) -> Check {
    let place = place(root);
    let version = systemd_version(root);
    let units = DIRECTORIES.iter().map(|directory| root.join(directory).join("sortie.service"));
    let installed = units.into_iter().find(|path| path.exists());
    let check = match &installed {
        None if place == "container" => {
            Check::new(NAME, Mark::Skipped, "runs in a container, without a unit")
        }
        None => Check::new(NAME, Mark::Skipped, "no unit sortie.service is installed"),
        Some(path) => compared(root, path),
    };
    let mut check = check.fact("runs_in", place).fact("systemd", version);
    if let (Some(version), Some(_)) = (version.filter(|version| *version < MIN_SYSTEMD), &installed) {
        let summary = format!("systemd {version} is older than {MIN_SYSTEMD} and knows no LoadCredential=");
        check.worsen(
            Mark::Failed,
            summary,
            "Give secrets as files: secret = { file = … }, or update the system.",
        );
    }
    if let Some(path) = installed {
        check = check.fact("unit", path.display().to_string()).fact("drop_ins", drop_ins(root));
    }
    check
}

fn compared(root: &Path, path: &Path) -> Check {
    let shown = path.display();
    let small = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() <= MAX_UNIT_BYTES);
    let Some(text) = small.then(|| std::fs::read_to_string(path).ok()).flatten() else {
        return Check::new(NAME, Mark::Skipped, format!("{shown} cannot be read"));
    };
    if settings(&text) == settings(SHIPPED) {
        return Check::new(NAME, Mark::Passed, format!("{shown} is the one of this version"));
    }
    let check = Check::new(NAME, Mark::Warned, format!("{shown} is not the one of this version"));
    if path.starts_with(root.join("etc")) {
        check.remedy("Keep your changes as a drop-in (systemctl edit sortie) and remove the copy in /etc, so that upgrades reach the service.")
    } else {
        check.remedy("Install the package of this program's version, then: sudo systemctl daemon-reload && sudo systemctl restart sortie")
    }
}

/// What a unit sets, without comments and empty lines.
fn settings(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])).collect()
}

/// The names of drop-ins. Their contents may hold secrets and are not read.
fn drop_ins(root: &Path) -> Vec<String> {
    let directories = DIRECTORIES.iter().map(|directory| root.join(directory).join("sortie.service.d"));
    let entries = directories.filter_map(|directory| std::fs::read_dir(directory).ok()).flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| super::plain(&entry.path().display().to_string())).collect();
    names.sort();
    names
}

fn systemd_version(root: &Path) -> Option<u32> {
    let files =
        LIBRARY_DIRECTORIES.iter().filter_map(|directory| std::fs::read_dir(root.join(directory)).ok());
    let names = files.flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let versions = names.filter_map(|name| {
        let rest = name.strip_prefix("libsystemd-shared-")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    });
    versions.max()
}

/// Where this very program runs.
fn place(root: &Path) -> &'static str {
    let marks = [PathBuf::from("run/.containerenv"), PathBuf::from(".dockerenv")];
    let in_container = marks.iter().any(|mark| root.join(mark).exists())
        || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    match (in_container, std::env::var_os("INVOCATION_ID").is_some()) {
        (true, _) => "container",
        (false, true) => "unit",
        (false, false) => "shell",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn install(root: &Path, directory: &str, text: &str) {
        let directory = root.join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("sortie.service"), text).unwrap();
    }

    #[test]
    fn the_installed_unit_is_held_against_the_shipped_one() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(examine(root.path()).status, Mark::Skipped);
        install(root.path(), "usr/lib/systemd/system", &format!("# a comment\n{SHIPPED}"));
        assert_eq!(examine(root.path()).status, Mark::Passed);
        install(root.path(), "usr/lib/systemd/system", "[Service]\nExecStart=/usr/bin/sortie run\n");
        assert!(examine(root.path()).remedies[0].contains("package"));
        install(root.path(), "etc/systemd/system", "[Service]\nExecStart=/usr/bin/sortie run\n");
        let copied = examine(root.path());
        assert_eq!(copied.status, Mark::Warned);
        assert!(copied.remedies[0].contains("drop-in"), "{copied:?}");
    }

    #[test]
    fn a_systemd_without_credentials_is_named() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), "usr/lib/systemd/system", SHIPPED);
        let library = root.path().join("lib/systemd");
        std::fs::create_dir_all(&library).unwrap();
        std::fs::write(library.join("libsystemd-shared-241.so"), "").unwrap();
        let old = examine(root.path());
        assert_eq!((old.status, old.facts["systemd"].as_u64()), (Mark::Failed, Some(241)), "{old:?}");
        std::fs::write(library.join("libsystemd-shared-252.so"), "").unwrap();
        assert_eq!(examine(root.path()).status, Mark::Passed);
    }

    #[test]
    fn drop_ins_are_named_and_not_read() {
        let root = tempfile::tempdir().unwrap();
        install(root.path(), "usr/lib/systemd/system", SHIPPED);
        let directory = root.path().join("etc/systemd/system/sortie.service.d");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(
            directory.join("proxy.conf"),
            "[Service]\nEnvironment=HTTPS_PROXY=http://ada:hunter2@p",
        )
        .unwrap();
        let check = serde_json::to_string(&examine(root.path())).unwrap();
        assert!(check.contains("proxy.conf") && !check.contains("hunter2"), "{check}");
    }
}
