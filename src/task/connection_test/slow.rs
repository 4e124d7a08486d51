//! Which stage of a test that succeeded took so long that somebody should look at it.

use std::time::Duration;

use crate::report::{Stage, StageRecord};

/// What a lookup stays below by far.
const SLOW_RESOLVE: Duration = Duration::from_secs(1);
/// What a connection stays below by far, to the server or to a proxy, on any continent.
const SLOW_CONNECT: Duration = Duration::from_secs(1);
/// What a handshake stays below by far.
const SLOW_HANDSHAKE: Duration = Duration::from_secs(2);
/// What a stage of requests stays below by far.
const SLOW_REQUESTS: Duration = Duration::from_secs(5);
/// What a whole test stays below by far.
const SLOW_TEST: Duration = Duration::from_secs(15);

/// The stage that is furthest above what it should stay below; or the longest one, where only the sum is too much.
pub(super) fn slowest(records: &[StageRecord]) -> Option<&StageRecord> {
    let share = |record: &StageRecord| record.duration.as_secs_f64() / threshold(record.stage).as_secs_f64();
    let worst = records.iter().max_by(|a, b| share(a).total_cmp(&share(b)))?;
    let whole: Duration = records.iter().map(|record| record.duration).sum();
    if share(worst) > 1.0 {
        Some(worst)
    } else if whole > SLOW_TEST {
        records.iter().max_by_key(|record| record.duration)
    } else {
        None
    }
}

/// What a stage should stay below.
pub(super) fn threshold(stage: Stage) -> Duration {
    match stage {
        Stage::Resolve => SLOW_RESOLVE,
        Stage::Proxy | Stage::Connect => SLOW_CONNECT,
        Stage::Tls | Stage::HostKey => SLOW_HANDSHAKE,
        Stage::Policy
        | Stage::Identify
        | Stage::Authenticate
        | Stage::Authorize
        | Stage::Repository
        | Stage::References
        | Stage::Negotiate
        | Stage::Receive
        | Stage::Index
        | Stage::Checkout
        | Stage::Deliver => SLOW_REQUESTS,
    }
}

/// The usual reason why a stage is slow, as a remedy.
pub(super) fn usual_reason(stage: Stage) -> &'static str {
    match stage {
        Stage::Policy => "Look at the load and the disk of the agent's host.",
        Stage::Resolve => {
            "The first nameserver of /etc/resolv.conf does not answer, most often, and the next one is asked after a \
             pause: ask each with `dig @ADDRESS NAME`."
        }
        Stage::Proxy => "Look at the proxy's load, and whether its name has an address that does not answer.",
        Stage::Connect => {
            "An address of the name does not answer, IPv6 most often: the fact attempts has each with its time."
        }
        Stage::Tls => {
            "A device on the way inspects TLS, most often, or the server looks for revocation lists that it cannot reach."
        }
        Stage::HostKey => {
            "The SSH server looks up the name of this host, most often, and its nameserver does not answer: set UseDNS no \
             in its sshd_config."
        }
        Stage::Identify | Stage::Authenticate => {
            "The first request after a pause wakes the application up, on Azure DevOps above all (IIS Manager → Application \
             Pools → Start Mode: AlwaysRunning); or the directory behind its sign-in is slow."
        }
        Stage::Authorize | Stage::Repository => "Look at the load of the server and its database.",
        Stage::References => {
            "Repositories with very many references are listed slowly: delete merged branches and old tags, and look at \
             the server's disk."
        }
        Stage::Negotiate | Stage::Receive | Stage::Index | Stage::Checkout | Stage::Deliver => {
            "Look at the load and the disk of the server and of this host."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(times: &[(Stage, u64)]) -> Option<Stage> {
        let record = |(stage, ms): &(Stage, u64)| StageRecord {
            duration: Duration::from_millis(*ms),
            ..StageRecord::skipped(*stage)
        };
        let records: Vec<_> = times.iter().map(record).collect();
        slowest(&records).map(|record| record.stage)
    }

    #[test]
    fn the_stage_that_is_furthest_above_its_own_measure_is_named() {
        assert_eq!(took(&[(Stage::Resolve, 999), (Stage::Identify, 4999)]), None);
        assert_eq!(took(&[(Stage::Resolve, 1500), (Stage::Identify, 5100)]), Some(Stage::Resolve));
        assert_eq!(took(&[(Stage::Tls, 2001), (Stage::References, 4000)]), Some(Stage::Tls));
        let many = [(Stage::Identify, 4000), (Stage::Authorize, 4500), (Stage::Repository, 4000)];
        assert_eq!(took(&many), None);
        let more = [many[0], many[1], many[2], (Stage::References, 4400)];
        assert_eq!(took(&more), Some(Stage::Authorize), "the sum is too much");
        assert_eq!(took(&[]), None);
    }
}
