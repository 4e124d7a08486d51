//! The URLs by which a server names itself, and whether somebody else can use them.
//!
//! A server has a public URL and may have more (access mappings): it answers with the one by which it was asked, or
//! else with the public one. So its links are right where they name the host that was asked, whatever its public
//! URL is, with one exception: `localhost` is nobody's public URL, and what is sent by mail or by a service hook
//! carries that one.

use serde_json::Value;

use super::is_cloud_host;
use crate::provider::rest::text;
use crate::remote_url::RemoteUrl;

/// The URLs of one server, collected from its answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnUrls {
    /// The access point of its public mapping.
    public: Option<String>,
    /// The access points of all its mappings.
    mapped: Vec<String>,
    /// What its answers about projects and repositories carry.
    linked: Vec<String>,
}

impl OwnUrls {
    /// Those of `connectionData`.
    pub(super) fn of_connection(json: &Value) -> Self {
        let mappings = json.get("locationServiceData").and_then(|data| data.get("accessMappings"));
        let mappings = mappings.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let point = |mapping: &Value| text(mapping, "accessPoint");
        let public = mappings
            .iter()
            .find(|mapping| text(mapping, "moniker").as_deref() == Some("PublicAccessMapping"))
            .and_then(point);
        Self { public, mapped: mappings.iter().filter_map(point).collect(), linked: Vec::new() }
    }

    /// Adds those of a project or a repository.
    pub fn add_links(&mut self, links: Vec<String>) {
        self.linked.extend(links);
    }

    /// The URL by which the server names itself, where it leads elsewhere than to `host`, by which it was asked.
    pub fn astray(&self, host: &str) -> Option<&str> {
        if is_cloud_host(host) {
            return None;
        }
        let asked_locally = is_loopback(host);
        let leads_to = |url: &str| RemoteUrl::parse(url).ok().map(|url| url.host().to_ascii_lowercase());
        let is_local = |url: &&String| !asked_locally && leads_to(url).is_some_and(|host| is_loopback(&host));
        if let Some(url) = self.linked.iter().chain(&self.public).find(is_local) {
            return Some(url);
        }
        let is_ours = |url: &String| leads_to(url).is_none_or(|named| is_same_host(&named, host));
        if self.mapped.iter().any(|url| leads_to(url).is_some_and(|named| is_same_host(&named, host))) {
            return None;
        }
        let stray = self.linked.iter().find(|url| !is_ours(url));
        stray
            .or_else(|| self.public.as_ref().filter(|url| self.linked.is_empty() && !is_ours(url)))
            .map(String::as_str)
    }
}

/// The URLs of an answer about a project or a repository.
pub(super) fn links(json: &Value) -> Vec<String> {
    ["url", "remoteUrl", "webUrl"].into_iter().filter_map(|key| text(json, key)).collect()
}

/// Whether a name or an address means the very host that asks.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_name = bare.eq_ignore_ascii_case("localhost") || bare.to_ascii_lowercase().ends_with(".localhost");
    is_name || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether two names mean one host: they are the same, or one is the other without its domain.
fn is_same_host(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    let is_address = |host: &str| host.parse::<std::net::IpAddr>().is_ok();
    let is_short_for = |short: &str, long: &str| {
        !short.contains('.') && !is_address(long) && long.split('.').next() == Some(short)
    };
    one == other
        || (is_loopback(&one) && is_loopback(&other))
        || is_short_for(&one, &other)
        || is_short_for(&other, &one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(mappings: &[(&str, &str)], linked: &[&str]) -> OwnUrls {
        let mappings: Vec<Value> = mappings
            .iter()
            .map(|(moniker, point)| serde_json::json!({"moniker": moniker, "accessPoint": point}))
            .collect();
        let mut own =
            OwnUrls::of_connection(&serde_json::json!({"locationServiceData": {"accessMappings": mappings}}));
        own.add_links(linked.iter().map(ToString::to_string).collect());
        own
    }

    const PUBLIC: &str = "PublicAccessMapping";

    #[test]
    fn localhost_is_nobodys_public_url() {
        for url in ["http://localhost:8080/tfs", "http://127.0.0.1/", "http://[::1]:8080/tfs"] {
            assert_eq!(own(&[(PUBLIC, url)], &[]).astray("ado.corp"), Some(url));
            assert_eq!(own(&[], &[url]).astray("ado.corp"), Some(url));
        }
        // Asked by such a name, the server is right to answer with it.
        assert_eq!(own(&[(PUBLIC, "http://localhost:8080/")], &[]).astray("127.0.0.1"), None);
        // Its links may be right and its public URL still be one that mails and hooks carry.
        let half = own(
            &[(PUBLIC, "http://localhost:8080/"), ("Server", "https://ado.corp/")],
            &["https://ado.corp/x"],
        );
        assert_eq!(half.astray("ado.corp"), Some("http://localhost:8080/"));
    }

    #[test]
    fn another_host_is_named_only_where_nothing_names_ours() {
        let other = "https://old.corp/tfs";
        assert_eq!(own(&[(PUBLIC, other)], &[]).astray("ado.corp"), Some(other));
        assert_eq!(own(&[(PUBLIC, "https://ado.corp/")], &[]).astray("ADO.corp"), None);
        assert_eq!(own(&[(PUBLIC, "https://ado.corp.example/")], &[]).astray("ado"), None);
        assert_eq!(
            own(&[(PUBLIC, other), ("AlternateAccessMapping", "https://ado.corp/")], &[]).astray("ado.corp"),
            None
        );
        assert_eq!(own(&[(PUBLIC, other)], &["https://ado.corp/Coll/_apis/x"]).astray("ado.corp"), None);
        assert_eq!(own(&[(PUBLIC, "https://dev.azure.com/org/")], &[]).astray("org.visualstudio.com"), None);
        assert_eq!(own(&[], &[]).astray("ado.corp"), None);
    }
}
