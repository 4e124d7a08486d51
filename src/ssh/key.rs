//! What a private key's file says of itself before any library reads it.

mod pem;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use zeroize::Zeroizing;

/// Why a file is no private key that can be used, by what was found in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyProblem {
    /// Nothing but white space.
    Empty,
    /// The beginning of a key; its end is missing.
    CutOff,
    /// The form of a key, and content that no library can read.
    Damaged,
    /// Encrypted with a cipher of old, which is switched off.
    Cipher,
    /// PuTTY's own format.
    Putty,
    /// The format of ssh.com's product.
    SshCom,
    /// The public half.
    Public,
    /// An SSH certificate, which is public as well.
    SshCertificate,
    /// An X.509 certificate.
    X509,
    /// A PGP block.
    Pgp,
    /// None of these.
    Unknown,
}

/// Why keys of a type are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeProblem {
    /// DSA, which servers refuse as well.
    Dsa,
    /// The key stays in a device, and somebody would have to touch that.
    SecurityKey,
    /// SSH has no name for such keys: another curve, Ed448, RSA for PSS alone.
    NotOfSsh,
    /// The server takes RSA alone.
    RsaAlone,
}

impl KeyProblem {
    /// What was found, in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "there is nothing in it",
            Self::CutOff => "it begins like a private key, and its end is missing",
            Self::Damaged => "it has the form of a private key, and its content cannot be read",
            Self::Cipher => "it is encrypted with a cipher that is no longer in use",
            Self::Putty => "it is a key in PuTTY's format",
            Self::SshCom => "it is a key in the format of ssh.com",
            Self::Public => "it is a public key; the private one is needed",
            Self::SshCertificate => "it is an SSH certificate; the private key is needed",
            Self::X509 => "it is an X.509 certificate; the private key is needed",
            Self::Pgp => "it is a PGP block, which SSH has no use for",
            Self::Unknown => "it is no private key in OpenSSH's format or in PEM",
        }
    }
}

impl TypeProblem {
    /// The reason, in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dsa => "DSA keys are weak and no longer in use",
            Self::SecurityKey => {
                "the private half lies in a security key, which somebody would have to touch"
            }
            Self::NotOfSsh => "SSH has no such keys",
            Self::RsaAlone => "Azure DevOps Services takes RSA keys alone",
        }
    }
}

/// What a key's file says without its passphrase.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) encrypted: bool,
    /// As in `ssh-ed25519`; PEM does not tell where it is encrypted.
    pub(super) key_type: Option<String>,
    /// `SHA256:…` of the public half, which only OpenSSH's format carries in the clear.
    pub(super) fingerprint: Option<String>,
}

/// Why there is no description of a usable key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    Unreadable(KeyProblem),
    Type { key_type: String, problem: TypeProblem },
}

impl Description {
    /// What the public half says.
    pub(super) fn of_public(public: &[u8]) -> Self {
        Self { encrypted: false, key_type: key_type(public), fingerprint: Some(fingerprint(public)) }
    }

    pub(super) fn is_rsa(&self) -> bool {
        self.key_type.as_deref() == Some("ssh-rsa")
    }
}

/// Looks at a key's file.
pub(super) fn describe(text: &str) -> Result<Description, Unusable> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Err(Unusable::Unreadable(KeyProblem::Empty));
    }
    let described = match pem::private_block(text) {
        Some(block) if block.label == "OPENSSH PRIVATE KEY" => describe_openssh(&block),
        Some(block) => pem::describe(&block),
        None => return Err(Unusable::Unreadable(other_format(text))),
    }?;
    match described.key_type.as_deref().and_then(type_problem) {
        None => Ok(described),
        Some(problem) => Err(Unusable::Type { key_type: described.key_type.unwrap_or_default(), problem }),
    }
}

fn type_problem(key_type: &str) -> Option<TypeProblem> {
    match key_type {
        "ssh-rsa" | "ssh-ed25519" | "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" | "ecdsa-sha2-nistp521" => {
            None
        }
        "ssh-dss" => Some(TypeProblem::Dsa),
        other if other.starts_with("sk-") => Some(TypeProblem::SecurityKey),
        _ => Some(TypeProblem::NotOfSsh),
    }
}

/// What a text without a private key is.
fn other_format(text: &str) -> KeyProblem {
    let first = text.lines().next().unwrap_or_default();
    let word = first.split_ascii_whitespace().next().unwrap_or_default();
    let is_type = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|start| word.starts_with(start));
    match first {
        _ if is_type && word.contains("-cert-v0") => KeyProblem::SshCertificate,
        _ if is_type => KeyProblem::Public,
        _ if first.starts_with("PuTTY-User-Key-File-") => KeyProblem::Putty,
        _ if first.starts_with("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY") => KeyProblem::SshCom,
        _ if first.starts_with("---- BEGIN SSH2 PUBLIC KEY") => KeyProblem::Public,
        _ if first.starts_with("-----BEGIN PGP ") => KeyProblem::Pgp,
        _ if first.starts_with("-----BEGIN ") && first.contains("PUBLIC KEY") => KeyProblem::Public,
        _ if first.starts_with("-----BEGIN ") && first.contains("CERTIFICATE") => KeyProblem::X509,
        _ if first.starts_with("-----BEGIN ") && first.contains("PRIVATE KEY") => KeyProblem::CutOff,
        _ => KeyProblem::Unknown,
    }
}

/// OpenSSH's own format, as its PROTOCOL.key describes it: the cipher's name and the public half are in the
/// clear.
fn describe_openssh(block: &pem::Block<'_>) -> Result<Description, Unusable> {
    /// The ciphers that libssh2 decrypts such a key with.
    const CIPHERS: [&[u8]; 7] =
        [b"none", b"aes128-ctr", b"aes192-ctr", b"aes256-ctr", b"aes128-cbc", b"aes192-cbc", b"aes256-cbc"];
    let bytes = block.decoded()?;
    let parts = || {
        let rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
        let (cipher, rest) = take_string(rest)?;
        let (_kdf, rest) = take_string(rest)?;
        let (_kdf_options, rest) = take_string(rest)?;
        let (_count, rest) = rest.split_at_checked(4)?;
        let (public, rest) = take_string(rest)?;
        let (_private, _) = take_string(rest)?;
        Some((cipher, public))
    };
    let (cipher, public) = parts().ok_or(Unusable::Unreadable(KeyProblem::CutOff))?;
    let description = Description {
        encrypted: cipher != b"none",
        key_type: key_type(public),
        fingerprint: Some(fingerprint(public)),
    };
    if !CIPHERS.contains(&cipher) {
        return Err(Unusable::Unreadable(KeyProblem::Cipher));
    }
    Ok(description)
}

/// The type that an SSH public key names in its first field.
pub(crate) fn key_type(public: &[u8]) -> Option<String> {
    let (name, _) = take_string(public)?;
    let name = std::str::from_utf8(name).ok()?;
    let is_name = name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_graphic());
    is_name.then(|| name.to_owned())
}

/// A public key's fingerprint in OpenSSH's form: `SHA256:…`.
pub(crate) fn fingerprint(public: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(digest(&SHA256, public)))
}

/// A string by its length in four bytes, and what follows it (RFC 4251, section 5).
pub(super) fn take_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// The key as libssh2 reads it reliably: with plain line ends, one at its end, and nothing around the block.
pub(super) fn normalized(text: &str) -> Zeroizing<String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    let mut clean = Zeroizing::new(String::with_capacity(text.len() + 1));
    for line in pem::private_block(text).map_or(text, |block| block.text).lines() {
        clean.push_str(line.trim());
        clean.push('\n');
    }
    clean
}

/// Decodes base64 with line ends in it.
fn decode(lines: &str) -> Option<Zeroizing<Vec<u8>>> {
    let joined: Zeroizing<String> = Zeroizing::new(lines.split_ascii_whitespace().collect());
    STANDARD.decode(joined.as_bytes()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_private_key_is_told_from_its_beginning() {
        for (text, problem) in [
            ("", KeyProblem::Empty),
            ("\u{feff} \r\n", KeyProblem::Empty),
            ("PuTTY-User-Key-File-3: ssh-ed25519\n", KeyProblem::Putty),
            ("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n", KeyProblem::SshCom),
            ("ssh-ed25519 AAAAC3Nz user@host", KeyProblem::Public),
            ("ssh-ed25519-cert-v01@openssh.com AAAA", KeyProblem::SshCertificate),
            ("hunter2", KeyProblem::Unknown),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", KeyProblem::CutOff),
            ("-----BEGIN RSA PRIVATE KEY-----\n!\n-----END RSA PRIVATE KEY-----\n", KeyProblem::Damaged),
        ] {
            assert_eq!(describe(text), Err(Unusable::Unreadable(problem)), "{text:?}");
        }
    }

    #[test]
    fn line_ends_are_made_plain_and_what_is_around_is_left_out() {
        let block = "-----BEGIN X PRIVATE KEY-----\r\nAA \r\n-----END X PRIVATE KEY-----";
        let plain = "-----BEGIN X PRIVATE KEY-----\nAA\n-----END X PRIVATE KEY-----\n";
        assert_eq!(normalized(&format!("\u{feff}Bag Attributes\r\n{block}\nmore")).as_str(), plain);
    }
}
