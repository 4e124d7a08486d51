//! The proxies that hold, as this process sees them: variables and what they come to for each destination.

use serde_json::{Map, Value};

use super::{Check, Examiner, Mark};
use crate::config::ProxyServer;
use crate::dial::Destination;

const NAME: &str = "proxy";

/// The variables that name proxies. Their values may hold passwords, and are shown without.
const VARIABLES: [&str; 5] = ["https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY"];

/// The variables that name exemptions.
const EXEMPTIONS: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The variable that other programs read and this one does not.
const IGNORED: &str = "HTTP_PROXY";

pub(super) fn examine(examiner: &Examiner) -> Check {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let mut check = Check::new(NAME, Mark::Passed, "");
    let mut used = Map::new();
    let servers = examiner.config.servers.iter();
    let servers = servers.map(|server| (server.name.as_str(), Destination::for_url(&server.url, server)));
    let control_plane = examiner.control_plane.as_ref();
    let control_plane = control_plane.map(|place| ("control_plane", place.destination.clone()));
    for (name, destination) in control_plane.into_iter().chain(servers) {
        match examiner.tools.door.proxy_for(&destination) {
            Ok(proxy) => {
                used.insert(name.to_owned(), proxy.map_or(Value::Null, Value::String));
            }
            Err(error) => {
                let remedy = "Correct the variable: http://[user:password@]host[:port].";
                check.worsen(Mark::Failed, format!("for {name}: {error}"), remedy);
            }
        }
    }
    let through = used.iter().filter_map(|(name, proxy)| Some(format!("{name} through {}", proxy.as_str()?)));
    let through: Vec<_> = through.collect();
    if check.status == Mark::Passed {
        check.summary = if through.is_empty() { "none is used".to_owned() } else { through.join(", ") };
    }
    if set(IGNORED).is_some() && VARIABLES.iter().all(|name| set(name).is_none()) {
        let remedy = "Set HTTPS_PROXY, or http_proxy in small letters for plain http.";
        check.worsen(Mark::Warned, format!("{IGNORED} is set and not read"), remedy);
    }
    let mut variables = Map::new();
    for name in VARIABLES {
        variables.extend(set(name).map(|value| (name.to_owned(), Value::String(redacted(&value)))));
    }
    for name in EXEMPTIONS {
        variables.extend(set(name).map(|value| (name.to_owned(), Value::String(super::plain(&value)))));
    }
    check.fact("used", used).fact("variables", variables)
}

/// A proxy's URL without user and password. What is no URL is not shown: a password may stand anywhere in it.
fn redacted(value: &str) -> String {
    // By the parser that the connections go by: another one may end the password elsewhere.
    ProxyServer::parse(value.trim()).map_or_else(|_| "[no URL]".to_owned(), |proxy| proxy.url())
}

#[cfg(test)]
mod tests {
    use super::redacted;

    #[test]
    fn users_and_passwords_are_not_shown() {
        assert_eq!(redacted("http://ada:hunter2@proxy.example:3128/"), "http://proxy.example:3128");
        assert_eq!(redacted("ada:hunter2@proxy.example:3128"), "http://proxy.example:3128");
        assert_eq!(redacted("http://svc:4711/Secret@proxy.corp:3128"), "http://proxy.corp:3128");
        assert_eq!(redacted("http://svc:4711#Secret?x@proxy.corp:3128"), "http://proxy.corp:3128");
        assert_eq!(redacted("socks5h://proxy.example"), "socks5://proxy.example:1080");
        assert_eq!(redacted("http://svc:4711/Secret"), "[no URL]");
        assert_eq!(redacted("http://ada:hunt er2@"), "[no URL]");
    }
}
