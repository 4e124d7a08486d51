//! How connections leave this host: directly, through a proxy, or as the environment says.

use percent_encoding::percent_decode_str;

use crate::remote_url::RemoteUrl;
use crate::secret::Secret;

/// The port of SOCKS (RFC 1928, section 3).
const SOCKS_PORT: u16 = 1080;

/// How connections leave this host.
#[derive(Debug, Clone, Default)]
pub enum Proxy {
    /// As the standard variables say: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.
    #[default]
    Environment,
    /// Directly, whatever the environment says.
    Direct,
    /// Through this one.
    Through(ProxyServer),
}

/// A proxy that makes tunnels.
#[derive(Debug, Clone)]
pub struct ProxyServer {
    /// What it speaks.
    pub kind: ProxyKind,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password: for Basic, or for SOCKS (RFC 1929).
    pub authorization: Option<ProxyAuthorization>,
}

/// What a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    /// HTTP: tunnels by CONNECT.
    Http,
    /// The same inside TLS.
    Https,
    /// SOCKS version 5; names are looked up by the proxy.
    Socks5,
}

/// User and password for a proxy.
#[derive(Debug, Clone)]
pub struct ProxyAuthorization {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Secret,
}

/// What is wrong with a text that should name a proxy. The text is never repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxySettingProblem {
    /// A scheme that no proxy here has.
    #[error("the scheme `{0}` is not supported: http, https and socks5 are")]
    Scheme(String),
    /// No URL and no `host:port`.
    #[error("it is not of the form SCHEME://[user:password@]host[:port]")]
    Form,
}

impl ProxyKind {
    /// The scheme by which a person names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
        }
    }

    fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme.to_ascii_lowercase().as_str() {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            // The h of curl's second form says that the proxy looks names up, which is so in any case here.
            "socks5" | "socks5h" => Some(Self::Socks5),
            _ => None,
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Socks5 => SOCKS_PORT,
        }
    }
}

impl ProxyServer {
    /// A proxy that asks for no authentication.
    pub fn new(kind: ProxyKind, host: impl Into<String>, port: u16) -> Self {
        Self { kind, host: host.into(), port, authorization: None }
    }

    /// Parses `[SCHEME://][user[:password]@]host[:port][/]`. Without a scheme it is http.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, ProxySettingProblem> {
        let (kind, rest) = match text.split_once("://") {
            Some((scheme, rest)) => match ProxyKind::of_scheme(scheme) {
                Some(kind) => (kind, rest),
                // A password may hold "://" in a text without a scheme: only what looks like one is repeated.
                None if scheme.bytes().all(|b| b.is_ascii_alphanumeric()) && scheme.len() <= 8 => {
                    return Err(ProxySettingProblem::Scheme(scheme.to_ascii_lowercase()));
                }
                None => return Err(ProxySettingProblem::Form),
            },
            None => (ProxyKind::Http, text),
        };
        let (user_info, host_port) = match rest.rsplit_once('@') {
            Some((user_info, host_port)) => (Some(user_info), host_port),
            None => (None, rest),
        };
        let host_port = host_port.strip_suffix('/').unwrap_or(host_port);
        if host_port.contains('/') {
            return Err(ProxySettingProblem::Form);
        }
        let url = RemoteUrl::parse(&format!("http://{host_port}")).map_err(|_| ProxySettingProblem::Form)?;
        // What follows an IPv6 address in brackets, or the whole.
        let after_host = host_port.rsplit_once(']').map_or(host_port, |(_, rest)| rest);
        let port = if after_host.contains(':') { url.port() } else { kind.default_port() };
        let authorization = user_info.map(parse_user_info).transpose()?;
        Ok(Self { kind, host: url.host().to_owned(), port, authorization })
    }

    /// `SCHEME://host:port`, without user and password.
    pub fn url(&self) -> String {
        let (scheme, host, port) = (self.kind.as_str(), &self.host, self.port);
        if host.contains(':') {
            format!("{scheme}://[{host}]:{port}")
        } else {
            format!("{scheme}://{host}:{port}")
        }
    }
}

fn parse_user_info(text: &str) -> Result<ProxyAuthorization, ProxySettingProblem> {
    let decoded = |part: &str| match percent_decode_str(part).decode_utf8() {
        Ok(part) if !part.chars().any(char::is_control) => Ok(part.into_owned()),
        _ => Err(ProxySettingProblem::Form),
    };
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    Ok(ProxyAuthorization { user: decoded(user)?, password: Secret::new(decoded(password)?) })
}
