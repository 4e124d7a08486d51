//! Pointer files, by the specification at <https://git-lfs.github.com/spec/v1>.

use std::fmt;

/// The one version that is read. Parsers compare it as a text.
const VERSION: &str = "version https://git-lfs.github.com/spec/v1";

/// The size that no pointer file reaches, in bytes; Git LFS itself looks at no larger file.
const POINTER_LIMIT_BYTES: usize = 1024;

/// How many lines a pointer file may have: three, and one for each of the ten extensions that there can be.
const MAX_LINES: usize = 13;

/// The name of an object of Git LFS: the SHA-256 of its content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LfsOid([u8; Self::BYTES]);

impl LfsOid {
    const BYTES: usize = 32;

    /// Reads 64 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * Self::BYTES {
            return None;
        }
        let mut bytes = [0; Self::BYTES];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = (digit(*high)? << 4) | digit(*low)?;
        }
        Some(Self(bytes))
    }

    /// The name of what has this digest; `None` where it is not one of SHA-256.
    pub(super) fn of_digest(digest: &[u8]) -> Option<Self> {
        digest.try_into().ok().map(Self)
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for LfsOid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LfsOid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a pointer file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pointer {
    /// The object that belongs in the file's place.
    pub oid: LfsOid,
    /// Its size, in bytes.
    pub size: u64,
    /// Whether a program has changed the file on its way into the object, and would have to change it back.
    pub has_extensions: bool,
}

/// Reads a file that may be a pointer; `None` where it is anything else.
pub fn parse(data: &[u8]) -> Option<Pointer> {
    if data.len() >= POINTER_LIMIT_BYTES {
        return None;
    }
    let text = std::str::from_utf8(data).ok()?.strip_suffix('\n')?;
    let mut lines = text.split('\n');
    if lines.next()? != VERSION {
        return None;
    }
    let (mut oid, mut size, mut extensions, mut previous) = (None, None, 0_usize, "");
    for (number, line) in lines.enumerate() {
        let (key, value) = line.split_once(' ')?;
        // The keys stand in ascending order, so that none is there twice.
        if number + 1 >= MAX_LINES || !is_key(key) || value.contains('\r') || key <= previous {
            return None;
        }
        match key {
            "oid" => oid = Some(LfsOid::parse(value.strip_prefix("sha256:")?)?),
            "size" => size = Some(parse_size(value)?),
            _ if is_extension(key) => {
                LfsOid::parse(value.strip_prefix("sha256:")?)?;
                extensions += 1;
            }
            _ => return None,
        }
        previous = key;
    }
    Some(Pointer { oid: oid?, size: size?, has_extensions: extensions > 0 })
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
}

/// `ext-{order}-{name}`, with one digit for the order.
fn is_extension(key: &str) -> bool {
    match key.strip_prefix("ext-").and_then(|rest| rest.split_once('-')) {
        Some((order, name)) => matches!(order.as_bytes(), [b'0'..=b'9']) && !name.is_empty(),
        None => false,
    }
}

/// Digits alone: a sign or a leading zero is another spelling, which nobody writes.
fn parse_size(value: &str) -> Option<u64> {
    let is_plain = value.bytes().all(|b| b.is_ascii_digit()) && (value == "0" || !value.starts_with('0'));
    is_plain.then(|| value.parse().ok()).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OID: &str = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393";

    fn text(rest: &str) -> String {
        format!("{VERSION}\n{}", rest.replace("OID", OID))
    }

    #[test]
    fn what_the_specification_shows_is_read() {
        let pointer = parse(text("oid sha256:OID\nsize 12345\n").as_bytes()).unwrap();
        assert_eq!((pointer.oid.to_string().as_str(), pointer.size), (OID, 12345));
        assert!(!pointer.has_extensions);
        let extended = text("ext-0-foo sha256:OID\next-1-bar sha256:OID\noid sha256:OID\nsize 0\n");
        assert!(parse(extended.as_bytes()).unwrap().has_extensions);
    }

    #[test]
    fn what_is_not_to_the_letter_is_no_pointer() {
        for rest in [
            "",
            "oid sha256:OID\n",
            "size 1\n",
            "oid sha256:OID\nsize 12345",
            "oid sha256:OID\r\nsize 12345\r\n",
            "size 12345\noid sha256:OID\n",
            "oid sha256:OID\noid sha256:OID\nsize 1\n",
            "oid sha1:OID\nsize 1\n",
            "oid sha256:OID0\nsize 1\n",
            "oid sha256:4D7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 1\n",
            "oid sha256:../../../../../../../../../../../../../../../../../../../../../etc\nsize 1\n",
            "oid sha256:OID\nsize -1\n",
            "oid sha256:OID\nsize +1\n",
            "oid sha256:OID\nsize 01\n",
            "oid sha256:OID\nsize 18446744073709551616\n",
            "oid  sha256:OID\nsize 1\n",
            "oid sha256:OID\nsize 1\n\n",
            "oid sha256:OID\nsize 1\nzzz 1\n",
            "Ext-0-a sha256:OID\noid sha256:OID\nsize 1\n",
            "ext-a-b sha256:OID\noid sha256:OID\nsize 1\n",
        ] {
            assert_eq!(parse(text(rest).as_bytes()), None, "{rest}");
        }
        let long = text(&format!("ext-0-{} sha256:OID\noid sha256:OID\nsize 1\n", "a".repeat(1024)));
        assert_eq!(parse(long.as_bytes()), None);
        let old = text("oid sha256:OID\nsize 1\n").replace("git-lfs.github", "hawser.github");
        assert_eq!(parse(old.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn whatever_it_holds_reading_it_ends(data: Vec<u8>) {
            parse(&data);
            let mut after_version = VERSION.as_bytes().to_vec();
            after_version.extend(data);
            parse(&after_version);
        }
    }
}
