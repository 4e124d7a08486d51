//! Room for workspaces against what a clone may take.

use std::path::Path;

use super::{Check, Mark};
use crate::config::Config;

const NAME: &str = "disk";

/// With less than this no clone of any use succeeds, and the agent's own files are in danger.
const MIN_FREE_BYTES: u64 = 256 * 1024 * 1024;

/// The same for files: a checkout takes one inode for each file and directory.
const MIN_FREE_INODES: u64 = 1000;

/// What a file system has left.
#[derive(Debug, Clone, Copy)]
struct Room {
    bytes: u64,
    /// `None` where the file system makes inodes as it needs them.
    inodes: Option<u64>,
    read_only: bool,
}

/// Looks at the file system of the workspaces.
pub(super) fn examine(config: &Config) -> Check {
    let workspaces = config.workspaces();
    let existing = workspaces.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(found) => {
            let room = Room {
                bytes: found.f_bavail.saturating_mul(found.f_frsize),
                inodes: (found.f_files > 0).then_some(found.f_favail),
                read_only: found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
            };
            judge(room, config.limits.max_bytes, config.limits.max_files, &workspaces)
        }
        Err(error) => {
            let summary = format!("{} cannot be looked at: {}", existing.display(), error.kind());
            Check::new(NAME, Mark::Skipped, summary)
        }
    }
}

fn judge(room: Room, max_bytes: u64, max_files: u64, workspaces: &Path) -> Check {
    let path = workspaces.display();
    let free = indicatif::HumanBytes(room.bytes);
    let inodes = room.inodes.unwrap_or(u64::MAX);
    let elsewhere = "or set agent.state_dir to a larger file system";
    let check = if room.read_only {
        Check::new(NAME, Mark::Failed, format!("{path} is on a file system that is mounted read-only"))
            .remedy("Mount it writable, or name another agent.state_dir.")
    } else if room.bytes < MIN_FREE_BYTES || inodes < MIN_FREE_INODES {
        let summary = match room.inodes {
            Some(inodes) if inodes < MIN_FREE_INODES => format!("{inodes} inodes are free for {path}"),
            _ => format!("{free} are free for {path}"),
        };
        Check::new(NAME, Mark::Failed, summary)
            .remedy(format!("Remove workspaces that nobody needs any more below {path}, {elsewhere}."))
    } else if room.bytes < max_bytes || inodes < max_files {
        let summary = if room.bytes < max_bytes {
            format!("{free} are free for {path}, and one clone may take {}", indicatif::HumanBytes(max_bytes))
        } else {
            format!("{inodes} inodes are free for {path}, and one clone may take {max_files}")
        };
        Check::new(NAME, Mark::Warned, summary)
            .remedy(format!("Make room, lower limits.bytes and limits.files to what there is, {elsewhere}."))
    } else {
        Check::new(NAME, Mark::Passed, format!("{free} are free for {path}"))
    };
    check.fact("path", path.to_string()).fact("free_bytes", room.bytes).fact("free_inodes", room.inodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024 * 1024 * 1024;

    fn judged(bytes: u64, inodes: Option<u64>, read_only: bool) -> Mark {
        judge(Room { bytes, inodes, read_only }, 20 * GIB, 2_000_000, Path::new("/x")).status
    }

    #[test]
    fn room_is_judged_against_what_one_clone_may_take() {
        assert_eq!(judged(30 * GIB, Some(3_000_000), false), Mark::Passed);
        assert_eq!(judged(30 * GIB, None, false), Mark::Passed);
        assert_eq!(judged(10 * GIB, Some(3_000_000), false), Mark::Warned);
        assert_eq!(judged(30 * GIB, Some(5_000), false), Mark::Warned);
        assert_eq!(judged(30 * GIB, Some(5), false), Mark::Failed);
        assert_eq!(judged(1024, Some(3_000_000), false), Mark::Failed);
        assert_eq!(judged(30 * GIB, Some(3_000_000), true), Mark::Failed);
    }
}
