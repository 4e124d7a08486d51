//! What a private key's file says of itself before any library reads it.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use zeroize::Zeroizing;

/// The forms in which keys are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    OpenSsh,
    Pem,
    Putty,
    Public,
    Unknown,
}

impl Format {
    /// The format in words, for messages.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::OpenSsh => "a key in OpenSSH's format that cannot be read (cut off, or of an unknown kind)",
            Self::Pem => "a key in PEM that cannot be read (cut off, or of an unknown kind)",
            Self::Putty => "a key in PuTTY's format: export it in OpenSSH's format",
            Self::Public => "a public key: the private one is needed",
            Self::Unknown => "no private key in a known format",
        }
    }

    /// Whether libssh2 can be tried with it.
    pub(super) fn is_private(self) -> bool {
        matches!(self, Self::OpenSsh | Self::Pem)
    }
}

/// What a key's file says without its passphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) format: Format,
    pub(super) encrypted: bool,
    /// As in `ssh-ed25519`; PEM does not tell where it is encrypted.
    pub(super) key_type: Option<String>,
    /// `SHA256:…` of the public half, which only OpenSSH's format carries in the clear.
    pub(super) fingerprint: Option<String>,
}

impl Description {
    pub(super) fn is_rsa(&self) -> bool {
        self.key_type.as_deref() == Some("ssh-rsa")
    }
}

/// Looks at a key's file.
pub(super) fn describe(text: &str) -> Description {
    let plain = |format| Description { format, encrypted: false, key_type: None, fingerprint: None };
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----") {
        return describe_openssh(text).unwrap_or(plain(Format::OpenSsh));
    }
    if text.starts_with("PuTTY-User-Key-File-") {
        return plain(Format::Putty);
    }
    if ["ssh-", "ecdsa-sha2-", "sk-ssh-", "---- BEGIN SSH2 PUBLIC", "-----BEGIN PUBLIC"]
        .iter()
        .any(|beginning| text.starts_with(beginning))
    {
        return plain(Format::Public);
    }
    let first_line = text.lines().next().unwrap_or_default();
    if !first_line.starts_with("-----BEGIN ") || !first_line.ends_with(" PRIVATE KEY-----") {
        return plain(Format::Unknown);
    }
    let key_type = match first_line {
        "-----BEGIN RSA PRIVATE KEY-----" => Some("ssh-rsa".to_owned()),
        _ => None,
    };
    let encrypted = first_line.contains("ENCRYPTED")
        || text.lines().take(4).any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"));
    Description { format: Format::Pem, encrypted, key_type, fingerprint: None }
}

/// OpenSSH's own format, as its PROTOCOL.key describes it: the cipher's name and the public half are in the
/// clear.
fn describe_openssh(text: &str) -> Option<Description> {
    let body: Zeroizing<String> = Zeroizing::new(
        text.lines().skip(1).take_while(|line| !line.starts_with("-----")).map(str::trim).collect(),
    );
    let bytes = Zeroizing::new(STANDARD.decode(body.as_bytes()).ok()?);
    let rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
    let (cipher, rest) = take_string(rest)?;
    let (_kdf, rest) = take_string(rest)?;
    let (_kdf_options, rest) = take_string(rest)?;
    let (_count, rest) = rest.split_at_checked(4)?;
    let (public, _) = take_string(rest)?;
    Some(Description {
        format: Format::OpenSsh,
        encrypted: cipher != b"none",
        key_type: key_type(public),
        fingerprint: Some(fingerprint(public)),
    })
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

pub(super) fn take_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

/// The key as libssh2 reads it reliably: with plain line ends, and one at its end.
pub(super) fn normalized(text: &str) -> Zeroizing<String> {
    let mut clean = Zeroizing::new(String::with_capacity(text.len() + 1));
    for line in text.trim_start_matches('\u{feff}').trim_start().lines() {
        clean.push_str(line.trim_end());
        clean.push('\n');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_a_key_is_told_from_its_beginning() {
        let format = |text| describe(text).format;
        assert_eq!(format("PuTTY-User-Key-File-3: ssh-ed25519\n"), Format::Putty);
        assert_eq!(format("ssh-ed25519 AAAAC3Nz user@host"), Format::Public);
        assert_eq!(format("hunter2"), Format::Unknown);
        assert_eq!(format(""), Format::Unknown);
        assert_eq!(format("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"), Format::OpenSsh);
        let pem = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAA\n";
        assert!(describe(pem).encrypted && describe(pem).is_rsa());
        assert!(describe("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA\n").encrypted);
        assert!(!describe("-----BEGIN PRIVATE KEY-----\nAA\n").encrypted);
    }

    #[test]
    fn line_ends_are_made_plain() {
        assert_eq!(normalized("\u{feff}a\r\nb").as_str(), "a\nb\n");
    }
}
