//! Which facts of a stage are worth a person's eyes, and how they read.

use serde_json::Value;
use sortie_protocol::report::{Capability, Report, Stage};

/// How many facts stand below a stage that failed.
const MAX_EVIDENCE: usize = 6;

/// Facts that tell most about a failure, in their order. Those of later versions follow by name.
const EVIDENCE: [&str; 33] = [
    "attempts",
    "refused_addresses",
    "proxy",
    "status",
    "reply",
    "proxy_status",
    "squid_error",
    "via",
    "right_path",
    "collections",
    "said",
    "service_error",
    "schemes",
    "request_id",
    "subject",
    "issuer",
    "names",
    "not_before",
    "not_after",
    "fingerprint",
    "direct_issuer",
    "direct_fingerprint",
    "key_type",
    "known_fingerprint",
    "known_hosts_file",
    "key_fingerprint",
    "user",
    "offered",
    "server",
    "answered",
    "near",
    "scopes",
    "clock_offset_seconds",
];

/// Facts that say nothing to a person who has the rest.
const SILENT: [&str; 3] = ["credential", "chain", "known_hosts_line"];

/// The algorithms of both sides, which matter only where the handshake did not come as far as a host key.
const ALGORITHMS: [&str; 2] = ["offered", "ours"];

/// The one fact of a stage that matters most to somebody who looks at it.
pub(in crate::cli) fn telling(stage: &Stage, report: Option<&Report>) -> String {
    let fact = |name: &str| stage.facts.get(name).map(plain).filter(|text| !text.is_empty());
    let all = |names: &[&str]| joined(names.iter().map(|name| fact(name)));
    match (stage.stage.as_str(), report) {
        ("policy", _) => all(&["server"]),
        ("resolve", _) => all(&["addresses"]),
        ("proxy", _) => all(&["proxy"]),
        ("connect", _) => {
            let through = fact("through").map(|proxy| format!("through {proxy}"));
            joined([fact("address"), through])
        }
        ("tls", _) => {
            let version = fact("version").map(|version| format!("TLS {version}"));
            let issuer = fact("issuer").map(|issuer| format!("by {}", common_name(&issuer)));
            let until = fact("not_after").map(|date| format!("until {}", day(&date)));
            joined([version, issuer, until])
        }
        ("host_key", _) => joined([fact("key_type"), fact("fingerprint")]),
        ("identify", Some(report)) => server(report).or_else(|| fact("provider")).unwrap_or_default(),
        ("authenticate", Some(report)) => {
            let name = report.identity.name.clone().or_else(|| fact("user"));
            let kind = report.credential.kind.as_ref().map(|kind| format!("by {kind}"));
            // Without any name, the kind of the credential is known from above.
            if name.is_some() { joined([name, kind]) } else { all(&["key_type"]) }
        }
        ("authorize", Some(report)) => capabilities(report),
        ("repository", Some(report)) => {
            let picked = fact("test_repository").map(|name| format!("{name} (picked)"));
            let name = picked.or_else(|| fact("repository"));
            let branch =
                report.repository.default_branch.as_ref().map(|branch| format!("default branch {branch}"));
            joined([name, branch])
        }
        ("references", Some(report)) => {
            let count = report.repository.references.map(|count| match count {
                1 => "1 reference".to_owned(),
                count => format!("{count} references"),
            });
            let head = report.repository.head.as_deref().map(|head| format!("HEAD at {}", short(head)));
            joined([count, head])
        }
        ("identify", None) => all(&["provider", "product", "version"]),
        ("authenticate", None) => all(&["user", "key_type"]),
        ("repository", None) => all(&["repository"]),
        ("references", None) => all(&["references"]),
        ("receive", _) => all(&["objects"]),
        ("checkout", _) => all(&["files"]),
        _ => String::new(),
    }
}

/// The facts of a stage that failed, those first that tell most.
pub(in crate::cli) fn evidence(stage: &Stage) -> Vec<(String, String)> {
    let has_host_key = stage.facts.contains_key("fingerprint");
    let is_silent = |name: &str| {
        SILENT.contains(&name)
            || (has_host_key && ALGORITHMS.contains(&name))
            || (stage.stage == "policy" && name == "server")
    };
    let known = EVIDENCE.iter().map(|name| (*name).to_owned());
    let others = stage.facts.keys().filter(|name| !EVIDENCE.contains(&name.as_str())).cloned();
    known
        .chain(others)
        .filter(|name| !is_silent(name))
        .filter_map(|name| Some((name.clone(), plain(stage.facts.get(&name)?))))
        .filter(|(_, value)| !value.is_empty())
        .take(MAX_EVIDENCE)
        .collect()
}

/// What kind of place on what kind of server.
pub(in crate::cli) fn kind(report: &Report) -> String {
    joined([report.target.provider.as_ref().map(word), report.target.scope.as_ref().map(word)])
}

/// The credential's kind, scopes and end, as far as they are known.
pub(in crate::cli) fn credential(report: &Report) -> String {
    let credential = &report.credential;
    let scopes = (!credential.scopes.is_empty()).then(|| credential.scopes.join(" "));
    let until = credential.expires_at.as_ref().map(|date| format!("until {}", day(date)));
    joined([credential.kind.clone(), scopes, until])
}

/// The product and its release.
pub(in crate::cli) fn server(report: &Report) -> Option<String> {
    let product = report.server.product.as_deref()?;
    Some(
        [Some(product), report.server.version.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" "),
    )
}

/// What the credential may do, as far as it is known.
pub(in crate::cli) fn capabilities(report: &Report) -> String {
    let Ok(Value::Object(all)) = serde_json::to_value(&report.capabilities) else { return String::new() };
    let unknown = serde_json::to_value(Capability::Unknown).unwrap_or_default();
    let known = all.iter().filter(|(_, can)| **can != unknown);
    joined(known.map(|(name, can)| Some(format!("{name} {}", plain(can)))))
}

/// A value as a person reads it. Characters that a terminal would obey are left to whoever prints it.
pub(in crate::cli) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let separator = if list.iter().any(Value::is_object) { "; " } else { ", " };
            list.iter().map(plain).collect::<Vec<_>>().join(separator)
        }
        Value::Object(fields) => {
            let part = |(name, value): (&String, &Value)| match name.as_str() {
                "address" | "error" => Some(plain(value)),
                "ms" => Some(format!("{} ms", plain(value))),
                _ => Some(format!("{name} {}", plain(value))),
            };
            joined(fields.iter().filter(|(_, value)| !value.is_null()).map(part))
        }
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The common name of a distinguished name, or all of it where it has none.
fn common_name(name: &str) -> &str {
    name.split(", ").find_map(|part| part.strip_prefix("CN=")).unwrap_or(name)
}

/// The day of a time in RFC 3339.
fn day(time: &str) -> &str {
    time.split('T').next().unwrap_or(time)
}

/// As much of a commit's name as people use.
pub(in crate::cli) fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

pub(in crate::cli) fn milliseconds(duration: f64) -> String {
    if duration >= 10_000.0 { format!("{:.1} s", duration / 1000.0) } else { format!("{duration:.1} ms") }
}

/// A value of an enumeration as it stands in JSON.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().as_ref().map(plain).unwrap_or_default()
}

fn joined(parts: impl IntoIterator<Item = Option<String>>) -> String {
    parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}
