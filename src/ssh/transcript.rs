//! What an SSH server says in the clear: its banner, the algorithms that it offers, and why it hangs up.
//!
//! libssh2 tells only what was agreed on. What was offered stands in the server's first packet (RFC 4253,
//! sections 4.2, 6 and 7.1), before anything is encrypted.

use serde_json::{Map, Value};

use super::key::take_string;

/// How much of the server's side is kept: more than any list of algorithms takes.
pub(super) const MAX_CLEAR_BYTES: usize = 64 * 1024;

/// The most names of one list, and the most characters of one name. RFC 4251 allows 64.
const MAX_NAMES: usize = 64;
const MAX_NAME_CHARS: usize = 64;

/// How much of a server's text is shown.
const MAX_SHOWN_CHARS: usize = 120;

const MSG_DISCONNECT: u8 = 1;
const MSG_KEXINIT: u8 = 20;
const MSG_NEWKEYS: u8 = 21;

/// The random bytes in front of the lists of a KEXINIT.
const COOKIE_BYTES: usize = 16;

/// The algorithms of one side, by kind, as they are negotiated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Algorithms {
    /// Key exchange.
    pub key_exchange: Vec<String>,
    /// Host keys.
    pub host_key: Vec<String>,
    /// Ciphers.
    pub cipher: Vec<String>,
    /// Message authentication.
    pub mac: Vec<String>,
}

/// Why a server says that it hangs up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disconnect {
    /// The reason by its number in RFC 4253, section 11.1.
    pub(super) reason: u32,
    /// The server's own words.
    pub(super) said: String,
}

/// What was heard of a server in the clear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Transcript {
    /// The first line, whatever it is.
    pub(super) first_line: String,
    /// The banner, as in `SSH-2.0-OpenSSH_9.2`.
    pub(super) banner: Option<String>,
    pub(super) offered: Option<Algorithms>,
    pub(super) disconnect: Option<Disconnect>,
    /// Whether the server's side has ended.
    pub(super) ended: bool,
}

impl Transcript {
    /// Reads the server's bytes as far as they are in the clear and in form.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut transcript = Self { first_line: shown(bytes), ..Self::default() };
        let mut rest = bytes;
        while transcript.banner.is_none() {
            let Some(end) = rest.iter().position(|&byte| byte == b'\n') else { return transcript };
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            transcript.banner = line.starts_with(b"SSH-").then(|| shown(line));
        }
        while let Some((payload, after)) = packet(rest) {
            rest = after;
            match payload.split_first() {
                Some((&MSG_KEXINIT, lists)) => transcript.offered = Algorithms::parse(lists),
                Some((&MSG_DISCONNECT, message)) => transcript.disconnect = disconnect(message),
                Some((&MSG_NEWKEYS, _)) => break,
                _ => {}
            }
        }
        transcript
    }
}

/// One packet before encryption, and what follows: its length, the length of its padding, payload, padding.
fn packet(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, rest) = take_string(bytes)?;
    let (&padding, body) = body.split_first()?;
    let payload = body.get(..body.len().checked_sub(usize::from(padding))?)?;
    Some((payload, rest))
}

fn disconnect(message: &[u8]) -> Option<Disconnect> {
    let (reason, rest) = message.split_first_chunk::<4>()?;
    let (said, _) = take_string(rest)?;
    Some(Disconnect { reason: u32::from_be_bytes(*reason), said: shown(said) })
}

impl Algorithms {
    /// The lists of a KEXINIT. Those of both directions are joined, because they hardly ever differ.
    fn parse(lists: &[u8]) -> Option<Self> {
        let mut rest = lists.get(COOKIE_BYTES..)?;
        let mut next = || {
            let (list, after) = take_string(rest)?;
            rest = after;
            Some(names(list))
        };
        let (key_exchange, host_key) = (next()?, next()?);
        let cipher = joined(next()?, next()?);
        let mac = joined(next()?, next()?);
        Some(Self { key_exchange: negotiable(key_exchange), host_key, cipher, mac })
    }

    /// Makes the lists of one side from what a library tells.
    pub(super) fn of(list: impl Fn(Kind) -> Vec<String>) -> Self {
        Self {
            key_exchange: negotiable(list(Kind::KeyExchange)),
            host_key: list(Kind::HostKey),
            cipher: list(Kind::Cipher),
            mac: list(Kind::Mac),
        }
    }

    /// The list of one kind.
    pub fn list(&self, kind: Kind) -> &[String] {
        match kind {
            Kind::KeyExchange => &self.key_exchange,
            Kind::HostKey => &self.host_key,
            Kind::Cipher => &self.cipher,
            Kind::Mac => &self.mac,
        }
    }

    /// The kinds of which both sides have no algorithm in common.
    pub(super) fn apart(&self, other: &Self) -> Vec<Kind> {
        let common = |kind: Kind| self.list(kind).iter().find(|name| other.list(kind).contains(name));
        // Such ciphers authenticate by themselves.
        let needs_mac = common(Kind::Cipher)
            .is_none_or(|cipher| !cipher.contains("-gcm@") && !cipher.contains("-poly1305"));
        let needed = |kind: &Kind| *kind != Kind::Mac || needs_mac;
        Kind::ALL.into_iter().filter(needed).filter(|kind| common(*kind).is_none()).collect()
    }

    /// Whether only RSA proves who the host is; host certificates do not count, because they are not asked for.
    pub fn has_rsa_host_key_alone(&self) -> bool {
        let mut plain = self.host_key.iter().filter(|name| !name.contains("-cert-")).peekable();
        plain.peek().is_some() && plain.all(|name| name == "ssh-rsa" || name.starts_with("rsa-sha2-"))
    }

    /// The lists as a fact.
    pub(super) fn to_fact(&self) -> Value {
        let entry = |kind: Kind| (kind.as_str().to_owned(), Value::from(self.list(kind).to_vec()));
        Value::Object(Kind::ALL.into_iter().map(entry).collect::<Map<_, _>>())
    }
}

/// What is negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Key exchange.
    KeyExchange,
    /// Host keys.
    HostKey,
    /// Ciphers.
    Cipher,
    /// Message authentication.
    Mac,
}

impl Kind {
    const ALL: [Self; 4] = [Self::KeyExchange, Self::HostKey, Self::Cipher, Self::Mac];

    /// The kind as it stands in facts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyExchange => "key_exchange",
            Self::HostKey => "host_key",
            Self::Cipher => "cipher",
            Self::Mac => "mac",
        }
    }
}

/// Names without those that stand for extensions of the protocol and are never agreed on (RFC 8308).
fn negotiable(mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| !name.starts_with("ext-info-") && !name.starts_with("kex-strict-"));
    names
}

fn names(list: &[u8]) -> Vec<String> {
    let named = list.split(|&byte| byte == b',').filter(|name| !name.is_empty()).take(MAX_NAMES);
    let is_name = |name: &&[u8]| name.len() <= MAX_NAME_CHARS && name.iter().all(u8::is_ascii_graphic);
    named.filter(is_name).map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn joined(mut one: Vec<String>, other: Vec<String>) -> Vec<String> {
    for name in other {
        if !one.contains(&name) {
            one.push(name);
        }
    }
    one
}

/// A server's bytes as they may be shown: their first line.
pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(MAX_SHOWN_CHARS).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
    }

    fn packet_of(payload: &[u8]) -> Vec<u8> {
        string(&[&[4], payload, &[0; 4]].concat())
    }

    fn key_exchange(lists: [&str; 6]) -> Vec<u8> {
        let lists = lists.map(|list| string(list.as_bytes())).concat();
        packet_of(&[&[MSG_KEXINIT], &[7; COOKIE_BYTES][..], &lists, &[0; 21]].concat())
    }

    fn of(lists: [&[&str]; 4]) -> Algorithms {
        let [key_exchange, host_key, cipher, mac] =
            lists.map(|list| list.iter().map(ToString::to_string).collect());
        Algorithms { key_exchange, host_key, cipher, mac }
    }

    #[test]
    fn the_offer_is_read_from_the_first_packet() {
        let offer =
            key_exchange(["a,ext-info-s,kex-strict-s-v00@openssh.com", "ssh-rsa", "c,d", "d,e", "m", "m"]);
        let heard = [b"Welcome\r\nSSH-2.0-x y\r\n".to_vec(), packet_of(&[2, 0]), offer].concat();
        let transcript = Transcript::parse(&heard);
        assert_eq!(transcript.banner.as_deref(), Some("SSH-2.0-x y"));
        assert_eq!(transcript.offered, Some(of([&["a"], &["ssh-rsa"], &["c", "d", "e"], &["m"]])));
        // However early it is cut off, there is no panic and no wrong answer.
        for end in 0..heard.len() {
            assert_eq!(Transcript::parse(&heard[..end]).offered, None);
        }
    }

    #[test]
    fn a_farewell_is_read_and_what_comes_encrypted_is_not() {
        let farewell = [&[MSG_DISCONNECT, 0, 0, 0, 12], &string(b"Too many\nconnections")[..]].concat();
        let heard = [b"SSH-2.0-x\n".to_vec(), packet_of(&farewell)].concat();
        let expected = Disconnect { reason: 12, said: "Too many".into() };
        assert_eq!(Transcript::parse(&heard).disconnect, Some(expected));
        let heard = [b"SSH-2.0-x\n".to_vec(), packet_of(&[MSG_NEWKEYS]), packet_of(&farewell)].concat();
        assert_eq!(Transcript::parse(&heard).disconnect, None);
        assert_eq!(Transcript::parse(b"SSH-2.0-x\n\xff\xff\xff\xff\xff\xff").offered, None);
    }

    #[test]
    fn what_does_not_meet_is_named_by_kind() {
        let ours = of([&["x", "y"], &["ssh-ed25519"], &["aes256-gcm@openssh.com", "aes256-ctr"], &["sha2"]]);
        let theirs = of([&["y"], &["ssh-rsa", "ssh-dss"], &["aes256-gcm@openssh.com"], &["sha1"]]);
        assert_eq!(ours.apart(&theirs), [Kind::HostKey]);
        let theirs = of([&["z"], &["ssh-ed25519"], &["aes256-ctr"], &["sha1"]]);
        assert_eq!(ours.apart(&theirs), [Kind::KeyExchange, Kind::Mac]);
    }

    #[test]
    fn a_host_with_rsa_alone_is_told_by_its_offer() {
        let host = |names: &[&str]| of([&[], names, &[], &[]]).has_rsa_host_key_alone();
        assert!(host(&["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa", "ssh-ed25519-cert-v01@openssh.com"]));
        assert!(!host(&["rsa-sha2-512", "ssh-ed25519"]));
        assert!(!host(&[]));
    }
}
