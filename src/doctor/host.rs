//! What the kernel grants this process, and what of the kernel matters to it.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use super::{Check, Mark};

/// Each attempt takes a few dozen descriptors at its height; this leaves room for all slots.
const ADVISED_FILES: u64 = 1024;

/// With fewer the daemon cannot even open what one task needs.
const MIN_FILES: u64 = 128;

/// Threads for network, blocking work and signals.
const ADVISED_TASKS: u64 = 256;

/// An idle daemon takes a few megabytes, and a clone of a large repository some hundred.
const ADVISED_MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// The limits of this process.
pub(super) fn limits() -> Check {
    let cgroup = cgroup(Path::new("/"));
    let number = |file: &str| {
        cgroup.as_ref().and_then(|path| std::fs::read_to_string(path.join(file)).ok()?.trim().parse().ok())
    };
    judge(Limits {
        files: getrlimit(Resource::Nofile).current,
        processes: getrlimit(Resource::Nproc).current,
        tasks: number("pids.max"),
        memory: number("memory.max"),
    })
}

/// `None` is no limit.
#[derive(Debug, Clone, Copy)]
struct Limits {
    files: Option<u64>,
    processes: Option<u64>,
    tasks: Option<u64>,
    memory: Option<u64>,
}

fn judge(limits: Limits) -> Check {
    let Limits { files, processes, tasks, memory } = limits;
    let shown = files.map_or_else(|| "any number of".to_owned(), |files| files.to_string());
    let mut check = Check::new("limits", Mark::Passed, format!("{shown} open files are allowed"));
    let below = |limit: Option<u64>, least: u64| limit.filter(|limit| *limit < least);
    if let Some(files) = below(files, ADVISED_FILES) {
        let mark = if files < MIN_FILES { Mark::Failed } else { Mark::Warned };
        let summary = format!("only {files} open files are allowed");
        check.worsen(
            mark,
            summary,
            "Set LimitNOFILE=4096 in a drop-in of the unit, or ulimit -n 4096 where there is none.",
        );
    }
    if let Some(count) = below(tasks.into_iter().chain(processes).min(), ADVISED_TASKS) {
        let summary = format!("only {count} threads are allowed");
        check.worsen(
            Mark::Warned,
            summary,
            "Set TasksMax=1024 in a drop-in of the unit, or raise ulimit -u.",
        );
    }
    if let Some(bytes) = below(memory, ADVISED_MEMORY_BYTES) {
        let summary = format!("only {} of memory are allowed", indicatif::HumanBytes(bytes));
        check.worsen(
            Mark::Warned,
            summary,
            "Raise MemoryMax of the unit, or the container's limit, to 256M at least.",
        );
    }
    check
        .fact("open_files", files)
        .fact("processes", processes)
        .fact("threads_of_the_cgroup", tasks)
        .fact("memory_bytes", memory)
}

/// The directory of this process's own cgroup (version 2).
fn cgroup(root: &Path) -> Option<PathBuf> {
    let text = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(root.join("sys/fs/cgroup").join(path))
}

/// The kernel.
pub(super) fn kernel() -> Check {
    kernel_at(Path::new("/"))
}

fn kernel_at(root: &Path) -> Check {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let release = read("proc/sys/kernel/osrelease").trim().to_owned();
    let ipv6 = !read("proc/net/if_inet6").trim().is_empty();
    let unified = root.join("sys/fs/cgroup/cgroup.controllers").exists();
    let with = if ipv6 { "with" } else { "without" };
    let mut check = Check::new("kernel", Mark::Passed, format!("Linux {release}, {with} IPv6"));
    if !unified && root.join("sys/fs/cgroup").exists() {
        let summary = "control groups are of version 1: MemoryMax and IPAddressDeny of the unit may not hold";
        check.worsen(
            Mark::Warned,
            summary,
            "Boot with systemd.unified_cgroup_hierarchy=1 if you count on them.",
        );
    }
    check.fact("release", release).fact("cgroup_version", if unified { 2 } else { 1 }).fact("ipv6", ipv6)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn small_limits_are_named_with_the_setting() {
        let none = Limits { files: None, processes: None, tasks: None, memory: None };
        assert_eq!(judge(none).status, Mark::Passed);
        let few = judge(Limits { files: Some(64), ..none });
        assert_eq!(few.status, Mark::Failed);
        assert!(few.remedies[0].contains("LimitNOFILE=4096"), "{few:?}");
        assert_eq!(judge(Limits { files: Some(512), ..none }).status, Mark::Warned);
        let small = judge(Limits { memory: Some(64 << 20), tasks: Some(10), ..none });
        assert_eq!((small.status, small.remedies.len()), (Mark::Warned, 2), "{small:?}");
    }

    #[test]
    fn old_control_groups_are_warned_about() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("sys/fs/cgroup")).unwrap();
        assert_eq!(kernel_at(root.path()).status, Mark::Warned);
        std::fs::write(root.path().join("sys/fs/cgroup/cgroup.controllers"), "").unwrap();
        assert_eq!(kernel_at(root.path()).status, Mark::Passed);
    }
}
