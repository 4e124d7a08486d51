//! Private keys in PEM (RFC 7468): PKCS#1, SEC 1, PKCS#8, plain, encrypted, and encrypted in the old way.

use zeroize::Zeroizing;

use super::{Description, KeyProblem, Unusable, decode};

/// A block of PEM with a private key.
pub(super) struct Block<'a> {
    /// As in `RSA PRIVATE KEY`.
    pub(super) label: &'a str,
    /// What stands between its first and its last line.
    body: &'a str,
    /// All of it.
    pub(super) text: &'a str,
}

/// The first whole block with a private key. Parameters of a curve, a certificate or remarks may stand around it.
pub(super) fn private_block(text: &str) -> Option<Block<'_>> {
    const BEGIN: &str = "-----BEGIN ";
    let mut at = 0;
    while let Some(found) = text[at..].find(BEGIN) {
        let start = at + found;
        let label_start = start + BEGIN.len();
        let label_end = label_start + text[label_start..].find("-----")?;
        let label = &text[label_start..label_end];
        at = label_end;
        if !label.ends_with("PRIVATE KEY") || label.contains('\n') {
            continue;
        }
        let body_start = label_end + "-----".len();
        let end = format!("-----END {label}-----");
        let body_end = body_start + text[body_start..].find(&end)?;
        let body = &text[body_start..body_end];
        return Some(Block { label, body, text: &text[start..body_end + end.len()] });
    }
    None
}

impl<'a> Block<'a> {
    /// The bytes that the block holds.
    pub(super) fn decoded(&self) -> Result<Zeroizing<Vec<u8>>, Unusable> {
        decode(self.split().1).ok_or(Unusable::Unreadable(KeyProblem::Damaged))
    }

    /// The headers of RFC 1421, which keys of old carry, and the rest.
    fn split(&self) -> (&'a str, &'a str) {
        let body = self.body.trim_start();
        if !body.starts_with("Proc-Type:") {
            return ("", body);
        }
        let blank = ["\n\n", "\r\n\r\n"].iter().filter_map(|blank| body.find(blank)).min();
        blank.map_or((body, ""), |at| body.split_at(at))
    }
}

/// Looks at a key in PEM.
pub(super) fn describe(block: &Block<'_>) -> Result<Description, Unusable> {
    let (headers, _) = block.split();
    let bytes = block.decoded()?;
    let encrypted_in_the_old_way = headers.contains("ENCRYPTED");
    let key_type = match block.label {
        "RSA PRIVATE KEY" => Some("ssh-rsa"),
        "DSA PRIVATE KEY" => Some("ssh-dss"),
        "EC PRIVATE KEY" if !encrypted_in_the_old_way => Some(curve(&bytes)),
        "PRIVATE KEY" => Some(of_pkcs8(&bytes)),
        "EC PRIVATE KEY" | "ENCRYPTED PRIVATE KEY" => None,
        _ => return Err(Unusable::Unreadable(KeyProblem::Unknown)),
    };
    let has_old_cipher = match block.label {
        "ENCRYPTED PRIVATE KEY" => has_old_scheme(&bytes),
        _ => encrypted_in_the_old_way && !has_usable_cipher(headers),
    };
    if has_old_cipher {
        return Err(Unusable::Unreadable(KeyProblem::Cipher));
    }
    if !encrypted_in_the_old_way && !is_whole(&bytes) {
        return Err(Unusable::Unreadable(KeyProblem::CutOff));
    }
    Ok(Description {
        encrypted: encrypted_in_the_old_way || block.label == "ENCRYPTED PRIVATE KEY",
        key_type: key_type.map(str::to_owned),
        fingerprint: None,
    })
}

/// Whether the bytes are as long as the DER at their beginning says: a sequence with a length in up to four bytes.
fn is_whole(bytes: &[u8]) -> bool {
    const SEQUENCE: u8 = 0x30;
    let Some((&SEQUENCE, rest)) = bytes.split_first() else { return false };
    let Some((&first, rest)) = rest.split_first() else { return false };
    let (length, content) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let Some((digits, content)) = rest.split_at_checked(usize::from(first - 0x80)) else {
                return false;
            };
            (digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit)), content)
        }
        _ => return false,
    };
    length == content.len()
}

/// Object identifiers in DER, without their tag.
mod oid {
    pub(super) const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
    pub(super) const DSA: &[u8] = b"\x2a\x86\x48\xce\x38\x04\x01";
    pub(super) const ED25519: &[u8] = b"\x2b\x65\x70";
    pub(super) const CURVES: [(&[u8], &str); 3] = [
        (b"\x2a\x86\x48\xce\x3d\x03\x01\x07", "ecdsa-sha2-nistp256"),
        (b"\x2b\x81\x04\x00\x22", "ecdsa-sha2-nistp384"),
        (b"\x2b\x81\x04\x00\x23", "ecdsa-sha2-nistp521"),
    ];
    pub(super) const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
    /// PKCS#5's schemes; the first version has DES and RC2 alone, the second is the last arc 13.
    pub(super) const PKCS5: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x05";
    pub(super) const PBES2_ARC: u8 = 13;
}

/// Whether an identifier with its tag stands among the first bytes, where the algorithm is.
fn names(bytes: &[u8], identifier: &[u8]) -> bool {
    /// An algorithm's identifier stands in front of the key, whatever that is.
    const HEAD_BYTES: usize = 48;
    let head = &bytes[..bytes.len().min(HEAD_BYTES)];
    position(head, identifier).is_some()
}

fn position(bytes: &[u8], identifier: &[u8]) -> Option<usize> {
    const TAG: u8 = 6;
    let length = u8::try_from(identifier.len()).ok()?;
    bytes
        .windows(identifier.len() + 2)
        .position(|window| window[0] == TAG && window[1] == length && window[2..] == *identifier)
}

/// The type of SSH's for a plain PKCS#8 key, or a word that is none.
fn of_pkcs8(bytes: &[u8]) -> &'static str {
    match () {
        () if names(bytes, oid::RSA) => "ssh-rsa",
        () if names(bytes, oid::ED25519) => "ssh-ed25519",
        () if names(bytes, oid::DSA) => "ssh-dss",
        () if names(bytes, oid::EC) => curve(bytes),
        () => "of an unknown type",
    }
}

/// The type of SSH's for a key on a curve. In SEC 1 the curve comes after the key.
fn curve(bytes: &[u8]) -> &'static str {
    let known = oid::CURVES.iter().find(|(identifier, _)| position(bytes, identifier).is_some());
    known.map_or("on a curve that SSH does not have", |(_, name)| name)
}

fn has_usable_cipher(headers: &str) -> bool {
    let name = headers.lines().find_map(|line| line.strip_prefix("DEK-Info:"));
    let name = name.and_then(|line| line.trim().split(',').next()).unwrap_or_default();
    ["AES-128-CBC", "AES-192-CBC", "AES-256-CBC", "DES-EDE3-CBC"].contains(&name)
}

fn has_old_scheme(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(32)];
    let arc = head.windows(oid::PKCS5.len() + 1).find_map(|window| window.strip_prefix(oid::PKCS5));
    arc.is_some_and(|arc| arc != [oid::PBES2_ARC])
}
