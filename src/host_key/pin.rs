//! A host key that the operator writes into the configuration itself.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use crate::ssh::{fingerprint, key_type};

/// How many bytes the fingerprint of a key has: those of SHA-256.
const FINGERPRINT_BYTES: usize = 32;

/// A pinned key: by itself or by its fingerprint, with its type where that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    key_type: Option<String>,
    fingerprint: String,
    /// The whole key in base64, where it was given so.
    key: Option<String>,
}

impl Pin {
    /// Reads one of three forms: `ssh-ed25519 AAAA…` as it stands in a `.pub` file or, without the names of
    /// hosts, in known_hosts; `SHA256:…` as `ssh-keygen -l` prints it; or that with the type before it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let first = words.next()?;
        if let Some(fingerprint) = canonical(first) {
            let pin = Self { key_type: None, fingerprint, key: None };
            return words.next().is_none().then_some(pin);
        }
        let second = words.next()?;
        if let Some(fingerprint) = canonical(second) {
            let is_type = first.starts_with("ssh-") || first.starts_with("ecdsa-sha2-");
            let pin = Self { key_type: Some(first.to_owned()), fingerprint, key: None };
            return (is_type && words.next().is_none()).then_some(pin);
        }
        let key = STANDARD.decode(second).ok()?;
        let found = key_type(&key).filter(|found| found == first)?;
        Some(Self { key_type: Some(found), fingerprint: fingerprint(&key), key: Some(second.to_owned()) })
    }

    /// The type of the key, where it is known.
    pub fn key_type(&self) -> Option<&str> {
        self.key_type.as_deref()
    }

    /// Whether this is the pin of that key.
    pub fn is_of(&self, key: &[u8]) -> bool {
        let same_type = self.key_type.is_none() || self.key_type == key_type(key);
        same_type && self.fingerprint == fingerprint(key)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key_type) = &self.key_type {
            write!(f, "{key_type} ")?;
        }
        f.write_str(self.key.as_ref().unwrap_or(&self.fingerprint))
    }
}

/// A fingerprint in OpenSSH's form, which has no padding.
fn canonical(text: &str) -> Option<String> {
    let digest = STANDARD_NO_PAD.decode(text.strip_prefix("SHA256:")?.trim_end_matches('=')).ok()?;
    (digest.len() == FINGERPRINT_BYTES).then(|| format!("SHA256:{}", STANDARD_NO_PAD.encode(digest)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"\0\0\0\x0bssh-ed25519\0\0\0\x04abcd";

    #[test]
    fn a_key_is_pinned_by_itself_and_by_its_fingerprint() {
        let line = format!("ssh-ed25519 {}", STANDARD.encode(KEY));
        let printed = fingerprint(KEY);
        for text in [
            line.clone(),
            format!("{line} root@host"),
            printed.clone(),
            format!("{printed}="),
            format!("ssh-ed25519 {printed}"),
        ] {
            let pin = Pin::parse(&text).unwrap_or_else(|| panic!("{text}"));
            assert!(pin.is_of(KEY) && !pin.is_of(b"\0\0\0\x0bssh-ed25519\0\0\0\x04abce"), "{text}");
            assert_eq!(Pin::parse(&pin.to_string()).unwrap(), pin);
        }
        let other_type = Pin::parse(&format!("ssh-rsa {printed}")).unwrap();
        assert!(!other_type.is_of(KEY));
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        let key = STANDARD.encode(KEY);
        for text in [
            "",
            "SHA256:",
            "SHA256:AAAA",
            "MD5:00:11",
            "host",
            &format!("ssh-rsa {key}"),
            &format!("git.example ssh-ed25519 {key}"),
            &key,
        ] {
            assert_eq!(Pin::parse(text), None, "{text}");
        }
    }
}
