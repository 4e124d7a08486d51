//! The URL of a git remote or of a server, parsed once.
//!
//! What comes out is safe to hand to libgit2 and libssh2: there is no local path, no remote helper, no
//! option in it, no control character and no password. Two spellings of one place are one value.

mod path;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use percent_encoding::percent_decode_str;

pub use path::{SEGMENT, parse_path};
use path::{is_invisible, without_page_query};

/// The longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 4096;

/// How a remote is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// TLS; the only one for HTTP that needs no word of the operator's.
    Https,
    /// Without TLS: only where the operator declared that very server so.
    Http,
    /// SSH, also from the short form `user@host:path`.
    Ssh,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
        }
    }

    /// The port where a URL names none.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
            Self::Ssh => 22,
        }
    }
}

/// Why a text is no URL that Sortie goes to. None of these repeats the text: it may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Over [`MAX_URL_BYTES`].
    #[error("it has {0} bytes, more than the limit of {MAX_URL_BYTES}")]
    TooLong(usize),
    /// Control characters, white space or line ends, plain or percent-encoded.
    #[error("it holds control characters or white space")]
    ControlCharacters,
    /// A path on this host, or another form that is no URL.
    #[error("it is neither https://host/path, ssh://user@host/path nor user@host:path")]
    NotAUrl,
    /// A scheme that is never used.
    #[error("the scheme `{0}` is not allowed: only https and ssh are")]
    Scheme(String),
    /// Host, user or path begins with a dash and could be taken for an option.
    #[error("its {0} begins with a dash, as an option would")]
    OptionLike(&'static str),
    /// A password in the user info.
    #[error("it carries a password: name a credential instead")]
    Password,
    /// A query or a fragment, but for what the pages of the providers carry.
    #[error("it carries a query or a fragment, which the URL of a git server never has")]
    QueryOrFragment,
    /// The host is missing or out of form.
    #[error("its host is missing or malformed")]
    Host,
    /// An address in an unusual spelling, which some programs read differently from others.
    #[error("its host is an address in an ambiguous spelling: write a.b.c.d or [x:y::z]")]
    AmbiguousAddress,
    /// The port is no number from 1 to 65535.
    #[error("its port is not between 1 and 65535")]
    Port,
    /// `.` or `..` in the path, plain or percent-encoded, or a broken percent-encoding.
    #[error("its path holds `.` or `..` segments, a backslash or a broken percent-encoding")]
    Path,
}

/// A parsed URL, without any password.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteUrl {
    scheme: Scheme,
    user: Option<String>,
    host: String,
    port: u16,
    path: String,
    /// The path of the short form of SSH as it was written.
    short_path: Option<String>,
}

impl RemoteUrl {
    /// Parses `https://…`, `http://…`, `ssh://…` and `user@host:path`.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(UrlError::TooLong(text.len()));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) || holds_encoded_control(text) {
            return Err(UrlError::ControlCharacters);
        }
        if text.starts_with('-') {
            return Err(UrlError::OptionLike("beginning"));
        }
        match text.split_once("://") {
            Some((scheme, rest)) => Self::parse_with_scheme(scheme, rest),
            None => Self::parse_short_ssh(text),
        }
    }

    fn parse_with_scheme(scheme: &str, rest: &str) -> Result<Self, UrlError> {
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            "ssh" | "git+ssh" | "ssh+git" => Scheme::Ssh,
            name if is_scheme(name) => return Err(UrlError::Scheme(name.to_owned())),
            _ => return Err(UrlError::NotAUrl),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let path = without_page_query(scheme, path)?;
        if authority.contains(['?', '#']) || path.contains(['?', '#']) {
            return Err(UrlError::QueryOrFragment);
        }
        let (user, host_port) = split_user(authority)?;
        let (host, port) = split_port(host_port)?;
        Ok(Self {
            scheme,
            user,
            host: parse_host(host)?,
            port: port.unwrap_or(scheme.default_port()),
            path: parse_path(path)?,
            short_path: None,
        })
    }

    fn parse_short_ssh(text: &str) -> Result<Self, UrlError> {
        // The colons of an IPv6 address stand in brackets, and the path begins after these.
        let after_host = if text.split('@').next_back().is_some_and(|host| host.starts_with('[')) {
            text.find(']').ok_or(UrlError::Host)?
        } else {
            0
        };
        let colon = text[after_host..].find(':').ok_or(UrlError::NotAUrl)? + after_host;
        let (authority, path) = (&text[..colon], &text[colon + 1..]);
        let is_remote_helper = path.starts_with(':');
        let is_local = authority.contains(['/', '\\']) || (authority.len() == 1 && !authority.contains('@'));
        if is_remote_helper || is_local || path.is_empty() || path.starts_with("//") {
            return Err(UrlError::NotAUrl);
        }
        if path.contains(['?', '#']) {
            return Err(UrlError::QueryOrFragment);
        }
        if path.starts_with('-') {
            return Err(UrlError::OptionLike("path"));
        }
        let (user, host) = split_user(authority)?;
        Ok(Self {
            scheme: Scheme::Ssh,
            user,
            host: parse_host(host)?,
            port: Scheme::Ssh.default_port(),
            path: parse_path(&format!("/{}", path.trim_start_matches('/')))?,
            short_path: Some(path.to_owned()),
        })
    }

    /// How it is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The user, where the URL names one. It is never part of what is shown.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host in lower case: a name in its ASCII form, or an address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The address, where the host is one and not a name.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// The port, the scheme's own where the URL names none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path, percent-encoded, beginning with a slash and without one at the end; empty for the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The path of `user@host:path` exactly as it was written, without any decoding: a server takes it as
    /// relative to the user's home unless it begins with a slash. `None` for every other form.
    pub fn short_path(&self) -> Option<&str> {
        self.short_path.as_deref()
    }

    /// The segments of the path, decoded.
    pub fn segments(&self) -> Vec<String> {
        let segments = self.path.split('/').filter(|segment| !segment.is_empty());
        segments.map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned()).collect()
    }

    /// `scheme://host[:port]`, with the port only where it is not the scheme's own.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme.as_str(), self.authority())
    }

    /// `host[:port]`, brackets around an IPv6 address.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }

    /// The same place with another path; `path` is percent-encoded and begins with a slash.
    pub fn with_path(&self, path: &str) -> Self {
        Self { path: path.trim_end_matches('/').to_owned(), short_path: None, ..self.clone() }
    }

    /// The same without a user and without the spelling of the short form.
    pub fn without_user(&self) -> Self {
        Self { user: None, short_path: None, ..self.clone() }
    }

    /// The root of a host that is known to be one, by another scheme and at the scheme's own port.
    pub(crate) fn at_host(scheme: Scheme, host: &str) -> Self {
        let (host, port) = (host.to_owned(), scheme.default_port());
        Self { scheme, user: None, host, port, path: String::new(), short_path: None }
    }

    /// Whether `other` lies at or below this one: scheme, host and port are the same and this path is a
    /// whole-segment prefix of the other's. Encodings of one path are one path.
    pub fn contains(&self, other: &Self) -> bool {
        let same_place = self.scheme == other.scheme && self.host == other.host && self.port == other.port;
        let (mine, theirs) = (self.segments(), other.segments());
        same_place && theirs.len() >= mine.len() && mine.iter().zip(&theirs).all(|(a, b)| a == b)
    }
}

/// Without user info, so that it can be shown, logged and compared.
impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.path)
    }
}

/// The text as it may be shown where it could not be parsed: without control characters and user info,
/// and shortened.
pub fn scrubbed(text: &str) -> String {
    const MAX_SHOWN_CHARS: usize = 200;
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    // A query or a fragment may hold a token, and it is never part of what a URL of ours means.
    let clean = clean.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = clean.split_once("://").map_or(("", clean), |(s, r)| (s, r));
    // Everything up to the last @ may be user info, wherever a broken URL has its slashes.
    let rest = rest.rsplit_once('@').map_or(rest, |(_, after)| after);
    let shown = if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") };
    if shown.chars().count() > MAX_SHOWN_CHARS {
        format!("{}…", shown.chars().take(MAX_SHOWN_CHARS).collect::<String>())
    } else {
        shown
    }
}

fn holds_encoded_control(text: &str) -> bool {
    percent_decode_str(text).any(|byte| byte < 0x20 || byte == 0x7f)
}

fn is_scheme(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn split_user(authority: &str) -> Result<(Option<String>, &str), UrlError> {
    let Some((user, host)) = authority.rsplit_once('@') else { return Ok((None, authority)) };
    if user.contains(':') {
        return Err(UrlError::Password);
    }
    let decoded = percent_decode_str(user).decode_utf8().map_err(|_| UrlError::NotAUrl)?;
    if decoded.starts_with('-') {
        return Err(UrlError::OptionLike("user"));
    }
    if decoded.contains(['@', ':', '/', '\\']) {
        return Err(UrlError::NotAUrl);
    }
    if decoded.chars().any(is_invisible) {
        return Err(UrlError::ControlCharacters);
    }
    Ok((Some(decoded.into_owned()).filter(|user| !user.is_empty()), host))
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), UrlError> {
    let after_host = if text.starts_with('[') { text.find(']').ok_or(UrlError::Host)? + 1 } else { 0 };
    let Some(colon) = text[after_host..].find(':').map(|at| at + after_host) else { return Ok((text, None)) };
    let (host, port) = (&text[..colon], &text[colon + 1..]);
    if port.is_empty() {
        return Ok((host, None));
    }
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(UrlError::Port);
    }
    match port.parse() {
        Ok(port) if port > 0 => Ok((host, Some(port))),
        _ => Err(UrlError::Port),
    }
}

fn parse_host(text: &str) -> Result<String, UrlError> {
    if text.starts_with('-') {
        return Err(UrlError::OptionLike("host"));
    }
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or(UrlError::Host)?;
        let address: Ipv6Addr = inner.parse().map_err(|_| UrlError::Host)?;
        // One address, one spelling: a mapped address would slip past a list of IPv4 addresses.
        return match address.to_canonical() {
            IpAddr::V6(address) => Ok(address.to_string()),
            IpAddr::V4(_) => Err(UrlError::AmbiguousAddress),
        };
    }
    if text.contains('%') {
        return Err(UrlError::Host);
    }
    match url::Host::parse(text).map_err(|_| UrlError::Host)? {
        // The parser reads 0x7f.1, 2130706433 and 0177.0.0.1 as 127.0.0.1; others do not.
        url::Host::Ipv4(address) if address.to_string() == text => Ok(text.to_owned()),
        url::Host::Ipv4(_) => Err(UrlError::AmbiguousAddress),
        url::Host::Ipv6(_) => Err(UrlError::Host),
        url::Host::Domain(name) if name.is_empty() || name.starts_with(['-', '.']) => Err(UrlError::Host),
        url::Host::Domain(name) => {
            // One dot at the end is the root of all names; without it the rest must still be a name.
            let name = name.strip_suffix('.').unwrap_or(&name);
            let is_whole = name.split('.').all(|label| !label.is_empty());
            // The parser lets signs through that no name of a host has, and that mean something elsewhere.
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            if is_whole && name.chars().all(is_plain) { Ok(name.to_owned()) } else { Err(UrlError::Host) }
        }
    }
}

#[cfg(test)]
mod tests;
