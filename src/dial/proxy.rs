//! Which proxy a connection goes through: the declared one, or what the standard variables say.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use percent_encoding::percent_decode_str;

use super::error::{DialError, ProxySettingProblem};
use super::{Alpn, Destination};
use crate::config::{HttpProxy, Proxy, ProxyAuthorization};
use crate::remote_url::RemoteUrl;
use crate::secret::Secret;

/// The variables that are read. `HTTP_PROXY` is not among them, as with curl: a web server that runs a
/// program sets it from a request's header.
const VARIABLES: [&str; 7] =
    ["https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"];

/// What the standard variables say about proxies: `HTTPS_PROXY`, `http_proxy`, `ALL_PROXY`, `NO_PROXY`, each
/// (but `http_proxy`) in either case, the lower case first.
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
    proxy: Result<HttpProxy, ProxySettingProblem>,
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
            first(names).map(|(variable, text)| Setting { variable, proxy: parse_proxy(&text) })
        };
        let [https, https_upper, http, all, all_upper, no, no_upper] = VARIABLES;
        Self {
            https: setting(&[https, https_upper]),
            http: setting(&[http]),
            all: setting(&[all, all_upper]),
            exempt: first(&[no, no_upper]).map(|(_, text)| parse_exemptions(&text)).unwrap_or_default(),
        }
    }

    /// The proxy that the variables name for a destination.
    fn proxy_for(&self, destination: &Destination) -> Result<Option<HttpProxy>, DialError> {
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
) -> Result<Option<HttpProxy>, DialError> {
    match &destination.proxy {
        Proxy::Direct => Ok(None),
        Proxy::Http(proxy) => Ok(Some(proxy.clone())),
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

/// Parses `[http://][user[:password]@]host[:port][/]`. The port is 80 where none is named.
fn parse_proxy(text: &str) -> Result<HttpProxy, ProxySettingProblem> {
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        // A password may hold "://" in a text without a scheme: only what looks like a scheme is repeated.
        Some((scheme, _)) if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) && scheme.len() <= 8 => {
            return Err(ProxySettingProblem::Scheme(scheme.to_ascii_lowercase()));
        }
        Some(_) => return Err(ProxySettingProblem::Form),
        None => text,
    };
    let (user_info, host_port) = match rest.rsplit_once('@') {
        Some((user_info, host_port)) => (Some(user_info), host_port),
        None => (None, rest),
    };
    let host_port = host_port.trim_end_matches('/');
    if host_port.contains('/') {
        return Err(ProxySettingProblem::Form);
    }
    let url = RemoteUrl::parse(&format!("http://{host_port}")).map_err(|_| ProxySettingProblem::Form)?;
    let authorization = user_info.map(parse_user_info).transpose()?;
    Ok(HttpProxy { host: url.host().to_owned(), port: url.port(), authorization })
}

fn parse_user_info(text: &str) -> Result<ProxyAuthorization, ProxySettingProblem> {
    let decoded = |part: &str| match percent_decode_str(part).decode_utf8() {
        Ok(part) if !part.chars().any(char::is_control) => Ok(part.into_owned()),
        _ => Err(ProxySettingProblem::Form),
    };
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    Ok(ProxyAuthorization { user: decoded(user)?, password: Secret::new(decoded(password)?) })
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
