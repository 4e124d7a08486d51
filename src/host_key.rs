//! Whether an SSH server is the one that the operator knows, by a file in OpenSSH's known_hosts format and by keys
//! that are pinned in the configuration.
//!
//! There is no trust on first use: a host without an entry is unknown, and refused.

mod pin;

use std::io::{self, Read};
use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use pin::Pin;

use crate::ssh::{fingerprint, key_type};

/// The largest file of known hosts, in bytes.
pub const MAX_KNOWN_HOSTS_BYTES: u64 = 8 * 1024 * 1024;

/// A key that a server showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedKey {
    /// Its type, as in `ssh-ed25519`.
    pub key_type: String,
    /// Its fingerprint in OpenSSH's form, `SHA256:…`.
    pub fingerprint: String,
    /// The entry that would make it known, to be added once the fingerprint was compared.
    pub entry: String,
}

/// What the file says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The line of the entry that has it, from 1.
    Known(usize),
    /// No entry for the host.
    Unknown,
    /// The host's entries have other keys.
    Changed(Differing),
    /// An entry revokes the key.
    Revoked(Differing),
}

/// An entry that speaks against a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// Its line, from 1.
    pub line: usize,
    /// The type of its key.
    pub key_type: String,
    /// The fingerprint of its key.
    pub fingerprint: String,
}

/// The entries of a file of known hosts. Lines that cannot be read vouch for nothing and are left out.
#[derive(Debug, Default)]
pub struct HostKeys {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    line: usize,
    revoked: bool,
    hosts: Hosts,
    key_type: String,
    key: Vec<u8>,
}

#[derive(Debug)]
enum Hosts {
    Patterns(Vec<Pattern>),
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

#[derive(Debug)]
struct Pattern {
    negated: bool,
    text: String,
}

impl HostKeys {
    /// Reads a file.
    ///
    /// # Errors
    /// What the system says, and [`io::ErrorKind::FileTooLarge`] over [`MAX_KNOWN_HOSTS_BYTES`].
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_KNOWN_HOSTS_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_KNOWN_HOSTS_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().enumerate();
        Self { entries: lines.filter_map(|(index, line)| parse_entry(index + 1, line)).collect() }
    }

    /// The types of the keys that the host is known by, without repeats.
    pub fn key_types(&self, host: &str, port: u16) -> Vec<&str> {
        let with_port = self.keys_of(&host_form(host, port));
        let found = if with_port.is_empty() { self.keys_of(host) } else { with_port };
        let mut types = Vec::new();
        for entry in found {
            if !types.contains(&entry.key_type.as_str()) {
                types.push(entry.key_type.as_str());
            }
        }
        types
    }

    /// Compares the key that a server showed with its entries: those for `[host]:port` first, then, where
    /// there are none, those for the host alone. The latter can only vouch for a key, not speak against it,
    /// because they were made for another port.
    pub fn check(&self, host: &str, port: u16, key: &[u8]) -> Verdict {
        let name = host_form(host, port);
        let revoked =
            |name: &str| self.entries.iter().find(|e| e.revoked && e.key == key && e.hosts.name(name));
        if let Some(entry) = revoked(&name).or_else(|| revoked(host)) {
            return Verdict::Revoked(entry.differing());
        }
        let entries = self.keys_of(&name);
        if let Some(known) = entries.iter().find(|entry| entry.key == key) {
            return Verdict::Known(known.line);
        }
        let offered_type = key_type(key);
        let same_type = entries.iter().find(|entry| Some(&entry.key_type) == offered_type.as_ref());
        if let Some(differing) = same_type.or(entries.first()) {
            return Verdict::Changed(differing.differing());
        }
        match self.keys_of(host).iter().find(|entry| entry.key == key) {
            Some(known) => Verdict::Known(known.line),
            None => Verdict::Unknown,
        }
    }

    fn keys_of(&self, name: &str) -> Vec<&Entry> {
        self.entries.iter().filter(|entry| !entry.revoked && entry.hosts.name(name)).collect()
    }
}

/// The host as it stands in known_hosts: bare at port 22, `[host]:port` elsewhere.
pub fn host_form(host: &str, port: u16) -> String {
    if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") }
}

/// Describes a key that a server at `host` and `port` showed.
pub fn describe(host: &str, port: u16, key: &[u8]) -> OfferedKey {
    let key_type = key_type(key).unwrap_or_else(|| "unknown".to_owned());
    let entry = format!("{} {key_type} {}", host_form(host, port), STANDARD.encode(key));
    OfferedKey { fingerprint: fingerprint(key), key_type, entry }
}

impl Entry {
    fn differing(&self) -> Differing {
        Differing { line: self.line, key_type: self.key_type.clone(), fingerprint: fingerprint(&self.key) }
    }
}

impl Hosts {
    fn parse(field: &str) -> Option<Self> {
        if let Some(hashed) = field.strip_prefix("|1|") {
            let (salt, hash) = hashed.split_once('|')?;
            return Some(Self::Hashed {
                salt: STANDARD.decode(salt).ok()?,
                hash: STANDARD.decode(hash).ok()?,
            });
        }
        let patterns = field.split(',').filter(|pattern| !pattern.is_empty()).map(|pattern| {
            let bare = pattern.strip_prefix('!');
            Pattern { negated: bare.is_some(), text: bare.unwrap_or(pattern).to_ascii_lowercase() }
        });
        Some(Self::Patterns(patterns.collect()))
    }

    /// Whether these hosts take in that name.
    fn name(&self, name: &str) -> bool {
        match self {
            Self::Hashed { salt, hash } => {
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
                hmac::verify(&key, name.as_bytes(), hash).is_ok()
            }
            Self::Patterns(patterns) => {
                let takes = |pattern: &&Pattern| matches(pattern.text.as_bytes(), name.as_bytes());
                let hit = patterns.iter().filter(takes).map(|pattern| pattern.negated).reduce(|a, b| a || b);
                hit == Some(false)
            }
        }
    }
}

/// Matches `*` and `?`, in time that grows with the product of both lengths and no faster.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star_p, star_t)) = star else { return false };
                star = Some((star_p, star_t + 1));
                p = star_p + 1;
                t = star_t + 1;
            }
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

fn parse_entry(line: usize, text: &str) -> Option<Entry> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let mut fields = text.split_ascii_whitespace();
    let mut hosts = fields.next()?;
    let mut revoked = false;
    if let Some(marker) = hosts.strip_prefix('@') {
        // Authorities sign host certificates, which are not asked for; they vouch for no bare key.
        if marker != "revoked" {
            return None;
        }
        revoked = true;
        hosts = fields.next()?;
    }
    let named_type = fields.next()?;
    let key = STANDARD.decode(fields.next()?).ok()?;
    let key_type = key_type(&key).filter(|found| found == named_type)?;
    Some(Entry { line, revoked, hosts: Hosts::parse(hosts)?, key_type, key })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(kind: &str, content: u8) -> Vec<u8> {
        let mut bytes = (kind.len() as u32).to_be_bytes().to_vec();
        bytes.extend(kind.as_bytes());
        bytes.extend([0, 0, 0, 1, content]);
        bytes
    }

    fn entry(hosts: &str, kind: &str, content: u8) -> String {
        format!("{hosts} {kind} {}\n", STANDARD.encode(key(kind, content)))
    }

    #[test]
    fn a_known_key_is_known_by_plain_hashed_and_wildcard_entries() {
        let hashed = {
            let salt = [7; 20];
            let hmac_key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
            let tag = hmac::sign(&hmac_key, b"[git.example]:2222");
            format!("|1|{}|{}", STANDARD.encode(salt), STANDARD.encode(tag))
        };
        for hosts in
            ["[git.example]:2222", "other,[GIT.example]:2222", "[*.example]:2222", "git.example", &hashed]
        {
            let known = HostKeys::parse(&format!("# comment\n\n{}", entry(hosts, "ssh-ed25519", 1)));
            assert_eq!(
                known.check("git.example", 2222, &key("ssh-ed25519", 1)),
                Verdict::Known(3),
                "{hosts}"
            );
            assert_eq!(known.key_types("git.example", 2222), ["ssh-ed25519"], "{hosts}");
        }
    }

    #[test]
    fn a_changed_key_is_told_from_an_unknown_one() {
        let text = entry("git.example", "ssh-rsa", 1) + &entry("git.example", "ssh-ed25519", 2);
        let known = HostKeys::parse(&text);
        let verdict = known.check("git.example", 22, &key("ssh-ed25519", 9));
        let Verdict::Changed(differing) = verdict else { panic!("{verdict:?}") };
        assert_eq!((differing.line, differing.key_type.as_str()), (2, "ssh-ed25519"));
        assert_eq!(known.check("other.example", 22, &key("ssh-ed25519", 2)), Verdict::Unknown);
        // An entry for port 22 says nothing against another daemon on another port.
        assert_eq!(known.check("git.example", 2222, &key("ssh-ed25519", 9)), Verdict::Unknown);
    }

    #[test]
    fn an_entry_with_a_port_comes_before_one_without() {
        let text = entry("git.example", "ssh-rsa", 1) + &entry("[git.example]:2222", "ssh-rsa", 2);
        let known = HostKeys::parse(&text);
        assert_eq!(known.check("git.example", 2222, &key("ssh-rsa", 2)), Verdict::Known(2));
        assert!(matches!(known.check("git.example", 2222, &key("ssh-rsa", 1)), Verdict::Changed(_)));
    }

    #[test]
    fn revoked_negated_and_broken_entries_vouch_for_nothing() {
        let revoked = format!("@revoked {}{}", entry("*", "ssh-rsa", 1), entry("git.example", "ssh-rsa", 1));
        let verdict = HostKeys::parse(&revoked).check("git.example", 22, &key("ssh-rsa", 1));
        assert!(matches!(verdict, Verdict::Revoked(Differing { line: 1, .. })), "{verdict:?}");
        for text in [
            entry("*,!git.example", "ssh-rsa", 1),
            format!("@cert-authority {}", entry("*", "ssh-rsa", 1)),
            "git.example ssh-rsa AAAA".to_owned(),
            "git.example".to_owned(),
            entry("git.example", "ssh-rsa", 1).replace("ssh-rsa A", "ssh-dss A"),
        ] {
            let verdict = HostKeys::parse(&text).check("git.example", 22, &key("ssh-rsa", 1));
            assert_eq!(verdict, Verdict::Unknown, "{text}");
        }
    }
}
