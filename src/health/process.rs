//! What the kernel says of this process. The files below `/proc` are made in memory, so that reading them holds
//! nobody up, and they can be read when every thread for blocking work is taken.

/// What `/proc/self` tells; what it does not tell is missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Memory that is resident, in bytes.
    pub(super) resident_bytes: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
    /// Open file descriptors.
    pub(super) open_fds: Option<u64>,
}

pub(super) fn look() -> Process {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let open_fds = std::fs::read_dir("/proc/self/fd").ok().and_then(|entries| {
        // One of them is the list's own.
        u64::try_from(entries.count()).ok()?.checked_sub(1)
    });
    Process { open_fds, ..of_status(&status) }
}

fn of_status(text: &str) -> Process {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Process {
        resident_bytes: field("VmRSS").and_then(|kib| kib.checked_mul(1024)),
        threads: field("Threads"),
        open_fds: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read_in_their_units() {
        let text = "Name:\tsortie\nVmHWM:\t   99999 kB\nVmRSS:\t   10240 kB\nThreads:\t7\n";
        let expected = Process { resident_bytes: Some(10_485_760), threads: Some(7), open_fds: None };
        assert_eq!(of_status(text), expected);
        assert_eq!(of_status("VmRSS: many\n"), Process::default());
        let own = look();
        assert!(
            own.resident_bytes > Some(1024 * 1024) && own.threads >= Some(1) && own.open_fds >= Some(3),
            "{own:?}"
        );
    }
}
