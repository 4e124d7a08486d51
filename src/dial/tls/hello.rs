//! What a server chose, read from its first message: rustls forgets it with a handshake that fails.

use rustls::{CipherSuite, NamedGroup};

/// The parts of a `ServerHello` (RFC 8446, section 4.1.3) that a report names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// `1.0` to `1.3`.
    pub(super) version: Option<&'static str>,
    /// The cipher suite by its name in rustls, which is that of the registry.
    pub(super) cipher_suite: Option<&'static str>,
    /// The group of the key exchange; only TLS 1.3 names it here.
    pub(super) key_exchange: Option<&'static str>,
}

const HANDSHAKE_RECORD: u8 = 22;
const SERVER_HELLO: u8 = 2;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

/// Reads the first bytes that a server sent. What is missing or out of form stays unknown.
pub(super) fn chosen(first_bytes: &[u8]) -> Chosen {
    let mut chosen = Chosen::default();
    // Nothing is lost where the message ends early: what was read before counts.
    let _ = read(&mut Reader(first_bytes), &mut chosen);
    chosen
}

fn read(reader: &mut Reader<'_>, chosen: &mut Chosen) -> Option<()> {
    let is_record = reader.byte()? == HANDSHAKE_RECORD;
    // The version and the length of the record, which say nothing of the message's own.
    reader.take(4)?;
    if !is_record || reader.byte()? != SERVER_HELLO {
        return None;
    }
    reader.take(3)?;
    chosen.version = version(reader.number()?);
    // The server's random number.
    reader.take(32)?;
    let session = reader.byte()?;
    reader.take(usize::from(session))?;
    chosen.cipher_suite = CipherSuite::from(reader.number()?).as_str();
    // The compression, and the length of all extensions.
    reader.take(3)?;
    loop {
        let (extension, length) = (reader.number()?, reader.number()?);
        let mut content = Reader(reader.take(usize::from(length))?);
        match extension {
            SUPPORTED_VERSIONS => chosen.version = version(content.number()?),
            KEY_SHARE => chosen.key_exchange = NamedGroup::from(content.number()?).as_str(),
            _ => {}
        }
    }
}

fn version(number: u16) -> Option<&'static str> {
    match number {
        0x0301 => Some("1.0"),
        0x0302 => Some("1.1"),
        0x0303 => Some("1.2"),
        0x0304 => Some("1.3"),
        _ => None,
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record with a `ServerHello` of this legacy version, suite and extensions.
    fn hello(version: [u8; 2], suite: [u8; 2], extensions: &[u8]) -> Vec<u8> {
        let length = u8::try_from(extensions.len()).unwrap_or(u8::MAX);
        let head = [&[HANDSHAKE_RECORD, 3, 3, 0, 0, SERVER_HELLO, 0, 0, 0][..], &version, &[7; 32]].concat();
        [&head[..], &[2, 9, 9], &suite, &[0, 0, length], extensions].concat()
    }

    #[test]
    fn what_a_server_chose_is_read_as_far_as_it_came() {
        let modern = hello([3, 3], [0x13, 0x02], &[0, 43, 0, 2, 3, 4, 0, 51, 0, 4, 0, 29, 0, 0]);
        let expected = Chosen {
            version: Some("1.3"),
            cipher_suite: Some("TLS13_AES_256_GCM_SHA384"),
            key_exchange: Some("X25519"),
        };
        assert_eq!(chosen(&modern), expected);
        let old = chosen(&hello([3, 2], [0, 0x2f], &[]));
        assert_eq!((old.version, old.cipher_suite), (Some("1.1"), Some("TLS_RSA_WITH_AES_128_CBC_SHA")));
        for cut in 0..modern.len() {
            chosen(&modern[..cut]);
        }
        assert_eq!(chosen(b"HTTP/1.1 400 Bad Request"), Chosen::default());
        assert_eq!(chosen(&[]), Chosen::default());
    }
}
