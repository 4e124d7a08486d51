//! What agents reached, and which failures another agent may not have.
//!
//! The memory lives in this process alone: a restart forgets it, and the next attempts bring it back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sortie_protocol::report::{Diagnosis, ReportOutcome, TaskOutput};
use sortie_protocol::task::TaskSpec;

/// Causes that lie between an agent and the server, or in what the agent's host trusts. Another agent has another
/// resolver, another proxy, another way and another set of authorities.
///
/// Not among them is what is the same from everywhere (a certificate that has expired, is made out to other names
/// or comes without its intermediate; no common TLS version), what is about a credential, also one for a proxy or
/// a client certificate (a second try may lock an account), and what SSH host keys say (a key that changed is a
/// warning and not a reason to go on).
const OTHERS_MAY_NOT_HAVE: &[&str] = &[
    // The resolver of the host, and what its view of the name leads to.
    "name_not_found",
    "resolver_failed",
    "address_not_allowed",
    // Its proxy.
    "proxy_unreachable",
    "proxy_refused",
    // Its way: firewalls, routes, devices in between.
    "connection_refused",
    "connection_timed_out",
    "network_unreachable",
    "connection_reset",
    "deadline_exceeded",
    // What it trusts, and who opens its connections.
    "tls_untrusted_issuer",
    "tls_intercepted",
];

/// The stages before a server can be told from nothing. A name that did not answer in time while a pack came in is
/// no matter of the way to it. SSH has its first word where TLS would have it.
const STAGES: &[&str] = &["resolve", "proxy", "connect", "tls", "host_key"];

/// The stages in which a server has answered.
const REACHED: &[&str] = &[
    "identify",
    "authenticate",
    "authorize",
    "repository",
    "references",
    "negotiate",
    "receive",
    "index",
    "checkout",
    "deliver",
];

/// Whether a failure is one that another agent may not have.
pub(super) fn others_may_not_have(diagnosis: &Diagnosis) -> bool {
    STAGES.contains(&diagnosis.stage.as_str()) && OTHERS_MAY_NOT_HAVE.contains(&diagnosis.code.as_str())
}

/// How far a failed attempt came on its way to the server, as a number that grows.
pub(super) fn progress(diagnosis: Option<&Diagnosis>) -> usize {
    diagnosis.and_then(|it| STAGES.iter().position(|stage| *stage == it.stage)).unwrap_or(STAGES.len())
}

/// Whether the result shows that the server was reached; `None` where it shows neither.
pub(super) fn was_reached(result: &TaskOutput) -> Option<bool> {
    match result.diagnosis() {
        _ if result.outcome() == ReportOutcome::Succeeded => Some(true),
        Some(diagnosis) if others_may_not_have(diagnosis) => Some(false),
        Some(diagnosis) if REACHED.contains(&diagnosis.stage.as_str()) => Some(true),
        _ => None,
    }
}

/// What a task wants to reach: the host of its URL with the port, where it names one, or the name of a declared
/// server.
pub(super) fn target(spec: &TaskSpec) -> Option<String> {
    let Some(url) = &spec.url else { return spec.server.clone() };
    let (rest, is_url) = url.split_once("://").map_or((url.as_str(), false), |(_, rest)| (rest, true));
    // `git@host:path` has its path behind a colon.
    let ends: &[char] = if is_url { &['/', '?', '#'] } else { &['/', ':'] };
    let authority = rest.split(ends).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (!host.is_empty()).then(|| host.to_lowercase())
}

#[derive(Debug)]
struct Seen {
    is_good: bool,
    at: Duration,
    /// Its place among all that was seen.
    order: u64,
}

/// For how long what was seen counts, and how much of it is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) good: Duration,
    pub(super) bad: Duration,
    pub(super) entries: usize,
}

/// What agents reached and did not reach, by agent and target. The oldest entries make room for new ones.
#[derive(Debug)]
pub(super) struct Reach {
    memory: Memory,
    by_agent: BTreeMap<String, BTreeMap<String, Seen>>,
    oldest: BTreeSet<(u64, String, String)>,
    counter: u64,
}

/// What is known of an agent's way to a target. The better is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It did not reach it so long ago.
    Bad(Duration),
    Unknown,
    Good,
}

impl Standing {
    /// The greater, the sooner the agent is chosen.
    pub(super) fn rank(self) -> u8 {
        match self {
            Self::Bad(_) => 0,
            Self::Unknown => 1,
            Self::Good => 2,
        }
    }
}

impl Reach {
    pub(super) fn new(memory: Memory) -> Self {
        Self { memory, by_agent: BTreeMap::new(), oldest: BTreeSet::new(), counter: 0 }
    }

    pub(super) fn note(&mut self, now: Duration, agent_id: &str, target: &str, is_good: bool) {
        self.counter += 1;
        let seen = Seen { is_good, at: now, order: self.counter };
        let of_agent = self.by_agent.entry(agent_id.to_owned()).or_default();
        if let Some(before) = of_agent.insert(target.to_owned(), seen) {
            self.oldest.remove(&(before.order, agent_id.to_owned(), target.to_owned()));
        }
        self.oldest.insert((self.counter, agent_id.to_owned(), target.to_owned()));
        while self.oldest.len() > self.memory.entries {
            let Some((_, agent_id, target)) = self.oldest.pop_first() else { return };
            self.drop_entry(&agent_id, &target);
        }
    }

    fn drop_entry(&mut self, agent_id: &str, target: &str) {
        if let Some(of_agent) = self.by_agent.get_mut(agent_id) {
            of_agent.remove(target);
            if of_agent.is_empty() {
                self.by_agent.remove(agent_id);
            }
        }
    }

    /// Forgets an agent whose registration ended.
    pub(super) fn forget(&mut self, agent_id: &str) {
        for (target, seen) in self.by_agent.remove(agent_id).unwrap_or_default() {
            self.oldest.remove(&(seen.order, agent_id.to_owned(), target));
        }
    }

    pub(super) fn standing(&self, now: Duration, agent_id: &str, target: Option<&str>) -> Standing {
        let seen = target.and_then(|target| self.by_agent.get(agent_id)?.get(target));
        let Some(seen) = seen else { return Standing::Unknown };
        let age = now.saturating_sub(seen.at);
        match seen.is_good {
            true if age < self.memory.good => Standing::Good,
            false if age < self.memory.bad => Standing::Bad(age),
            _ => Standing::Unknown,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_hosts_or_declared_servers() {
        let target_of = |fields: &str| {
            let spec = serde_json::from_str(&format!(r#"{{"kind":"clone",{fields}}}"#)).unwrap();
            target(&spec)
        };
        for (url, host) in [
            ("https://ADO.corp.example/Default/_git/web", "ado.corp.example"),
            ("https://user@git.example:8443/x:y@z", "git.example:8443"),
            ("ssh://git@[fd00::1]:22/x", "[fd00::1]:22"),
            ("git@git.example:group/web.git", "git.example"),
            ("https://git.example?x", "git.example"),
        ] {
            assert_eq!(target_of(&format!(r#""url":"{url}""#)).as_deref(), Some(host), "{url}");
        }
        assert_eq!(target_of(r#""server":"ado""#).as_deref(), Some("ado"));
        assert_eq!(target_of(r#""url":"https://""#), None);
    }

    #[test]
    fn what_was_seen_counts_for_its_time_and_the_oldest_makes_room() {
        let seconds = Duration::from_secs;
        let mut reach = Reach::new(Memory { good: seconds(100), bad: seconds(10), entries: 2 });
        reach.note(seconds(0), "a", "x", true);
        reach.note(seconds(0), "b", "x", false);
        assert_eq!(reach.standing(seconds(9), "b", Some("x")), Standing::Bad(seconds(9)));
        assert_eq!(reach.standing(seconds(10), "b", Some("x")), Standing::Unknown);
        assert_eq!(reach.standing(seconds(99), "a", Some("x")), Standing::Good);
        assert_eq!(reach.standing(seconds(100), "a", Some("x")), Standing::Unknown);
        assert_eq!(reach.standing(seconds(0), "a", None), Standing::Unknown);
        reach.note(seconds(5), "a", "x", true);
        reach.note(seconds(6), "c", "x", true);
        assert_eq!(reach.standing(seconds(6), "b", Some("x")), Standing::Unknown);
        assert_eq!(reach.standing(seconds(6), "a", Some("x")), Standing::Good);
        reach.forget("a");
        assert_eq!(reach.standing(seconds(6), "a", Some("x")), Standing::Unknown);
        assert_eq!((reach.oldest.len(), reach.by_agent.len()), (1, 1));
    }
}
