//! The clock of this host against the control plane's, and whether anything keeps it right.

use std::path::Path;
use std::time::Duration;

use time::OffsetDateTime;

use super::{Check, Mark};

/// From here on logs of two hosts do not fit together, and an answer's date cannot explain it.
const WARN_SECONDS: i64 = 30;

/// From here on certificates and tokens of the hour count as not yet valid or as expired.
const FAIL_SECONDS: i64 = 300;

/// systemd makes this file once the clock has been synchronized, whatever service did it.
const SYNCHRONIZED: &str = "run/systemd/timesync/synchronized";

/// How far this host's clock is ahead of another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offset {
    /// In seconds; negative where this host is behind. A `Date` header has no finer unit.
    pub seconds: i64,
}

impl Offset {
    /// From the `Date` header of an answer (RFC 9110, section 6.6.1) that came at `now` after `round_trip`.
    pub fn from_date(header: &str, now: OffsetDateTime, round_trip: Duration) -> Option<Self> {
        let told = OffsetDateTime::from(httpdate::parse_http_date(header.trim()).ok()?);
        Some(Self { seconds: (now - round_trip / 2 - told).whole_seconds() })
    }
}

/// Judges the clock. `root` is the root of the file system.
pub fn examine(root: &Path, offset: Option<Offset>) -> Check {
    let synchronized = root.join(SYNCHRONIZED).exists();
    let Some(Offset { seconds }) = offset else {
        let summary = "it could not be compared: the control plane told no date";
        return Check::new("clock", Mark::Skipped, summary).fact("synchronized", synchronized);
    };
    let direction = if seconds > 0 { "ahead of" } else { "behind" };
    let summary = match seconds.abs() {
        0 | 1 => "it agrees with the control plane's".to_owned(),
        off => format!("this host is {off} s {direction} the control plane"),
    };
    let check = match seconds.abs() {
        off if off >= FAIL_SECONDS => Check::new("clock", Mark::Failed, summary),
        off if off >= WARN_SECONDS => Check::new("clock", Mark::Warned, summary),
        _ => Check::new("clock", Mark::Passed, summary),
    };
    let check = check.fact("offset_seconds", seconds).fact("synchronized", synchronized);
    if check.status == Mark::Passed {
        return check;
    }
    check
        .remedy("Let a time service keep this host's clock: sudo timedatectl set-ntp true, and see timedatectl timesync-status.")
        .remedy("If this host's clock is right, the control plane's host is the one to correct.")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_measured_from_the_date_of_an_answer() {
        let now = OffsetDateTime::from_unix_timestamp(1_795_233_600).unwrap();
        let offset = |header| Offset::from_date(header, now, Duration::ZERO).map(|offset| offset.seconds);
        assert_eq!(offset("Sat, 21 Nov 2026 04:00:00 GMT"), Some(0));
        assert_eq!(offset("Sat, 21 Nov 2026 05:00:00 GMT"), Some(-3600));
        assert_eq!(offset("yesterday"), None);
    }

    #[test]
    fn small_offsets_pass_and_large_ones_name_the_time_service() {
        let root = tempfile::tempdir().unwrap();
        let judged = |seconds| examine(root.path(), Some(Offset { seconds }));
        assert_eq!(judged(2).status, Mark::Passed);
        assert_eq!(judged(-40).status, Mark::Warned);
        let failed = judged(-3600);
        assert_eq!((failed.status, failed.facts["offset_seconds"].as_i64()), (Mark::Failed, Some(-3600)));
        assert!(failed.remedies[0].contains("timedatectl"), "{failed:?}");
        assert_eq!(examine(root.path(), None).status, Mark::Skipped);
    }
}
