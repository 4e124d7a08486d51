//! Which proxy a connection goes through: the declared one, or what the standard variables say.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::error::DialError;
use super::{Alpn, Destination};
use crate::config::{Proxy, ProxyServer, ProxySettingProblem};

/// Set by web servers for the programs that they run (RFC 3875, section 4.1.12). Such a program must not
/// believe `HTTP_PROXY`, which then comes from a header of the request.
const CGI_MARK: &str = "REQUEST_METHOD";

/// What the standard variables say about proxies: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`, each
/// in either case, the lower case first.
#[derive(Debug, Clone, Default)]
pub struct ProxyEnvironment {
    https: Option<Setting>,
    http: Option<Setting>,
    all: Option<Setting>,
    exempt: Vec<Exemption>,
}

/// One variable's word.
#[derive(Debug, Clone)]
struct Setting {
    variable: &'static str,
    proxy: Result<ProxyServer, ProxySettingProblem>,
}

/// One entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exemption {
    /// `*`: everything.
    Everything,
    /// An address or a network, at one port or at all.
    Network(IpNet, Option<u16>),
    /// A name and all names below it, at one port or at all.
    Name(String, Option<u16>),
}

impl ProxyEnvironment {
    /// As this process's environment has them.
    pub fn from_process() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// No proxy at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// From variables by name.
    pub fn from_map(variables: &HashMap<String, String>) -> Self {
        Self::from_lookup(|name| variables.get(name).cloned())
    }

    fn from_lookup(value: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            let set = |name: &'static str| {
                value(name)
                    .map(|text| text.trim().to_owned())
                    .filter(|text| !text.is_empty())
                    .map(|t| (name, t))
            };
            names.iter().copied().find_map(set)
        };
        let setting = |names: &[&'static str]| {
            first(names).map(|(variable, text)| Setting { variable, proxy: ProxyServer::parse(&text) })
        };
        let http: &[&'static str] =
            if value(CGI_MARK).is_some() { &["http_proxy"] } else { &["http_proxy", "HTTP_PROXY"] };
        let exempt = first(&["no_proxy", "NO_PROXY"]);
        Self {
            https: setting(&["https_proxy", "HTTPS_PROXY"]),
            http: setting(http),
            all: setting(&["all_proxy", "ALL_PROXY"]),
            exempt: exempt.map(|(_, text)| parse_exemptions(&text)).unwrap_or_default(),
        }
    }

    /// The proxy that the variables name for a destination.
    fn proxy_for(&self, destination: &Destination) -> Result<Option<ProxyServer>, DialError> {
        // An SSH client does not look at these, and a proxy elsewhere cannot reach this host's loopback.
        if destination.alpn == Alpn::None || is_loopback(&destination.host) {
            return Ok(None);
        }
        if self.exempt.iter().any(|entry| entry.covers(&destination.host, destination.port)) {
            return Ok(None);
        }
        let own = if destination.tls { &self.https } else { &self.http };
        let Some(setting) = own.as_ref().or(self.all.as_ref()) else { return Ok(None) };
        match &setting.proxy {
            Ok(proxy) => Ok(Some(proxy.clone())),
            Err(problem) => {
                Err(DialError::ProxySetting { variable: setting.variable, problem: problem.clone() })
            }
        }
    }
}

/// The proxy that a connection to a destination goes through.
pub(super) fn choose(
    environment: &ProxyEnvironment,
    destination: &Destination,
) -> Result<Option<ProxyServer>, DialError> {
    match &destination.proxy {
        Proxy::Direct => Ok(None),
        Proxy::Through(proxy) => Ok(Some(proxy.clone())),
        Proxy::Environment => environment.proxy_for(destination),
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(super) fn endpoint(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn parse_exemptions(text: &str) -> Vec<Exemption> {
    let entries = text.split(|c: char| c == ',' || c.is_whitespace());
    entries.filter(|entry| !entry.is_empty()).map(Exemption::parse).collect()
}

impl Exemption {
    fn parse(entry: &str) -> Self {
        if entry == "*" {
            return Self::Everything;
        }
        let network = |text: &str| match text.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address)),
            Err(_) => text.parse::<IpNet>().ok(),
        };
        // A bare IPv6 address has colons that are no port's.
        if let Some(network) = network(entry) {
            return Self::Network(network, None);
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            _ => (entry, None),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Some(network) = network(bare) {
            return Self::Network(network, port);
        }
        let name = bare.trim_start_matches('*').trim_matches('.').to_ascii_lowercase();
        Self::Name(name, port)
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        let port_fits = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Self::Everything => true,
            Self::Network(network, wanted) => {
                port_fits(wanted) && host.parse().is_ok_and(|address: IpAddr| network.contains(&address))
            }
            Self::Name(name, wanted) => {
                let is_below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                !name.is_empty() && port_fits(wanted) && (host == name || is_below)
            }
        }
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
