//! Identifiers, tokens and the proof of an agent's key.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// Bytes of randomness in a token, a nonce and an identifier's secret part.
const SECRET_BYTES: usize = 32;

/// Bytes of randomness in an identifier.
const ID_BYTES: usize = 12;

/// Bytes of an Ed25519 public key.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// The operating system gave no random bytes. Nothing can be promised then.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

/// A bearer secret. It shows itself only through [`Token::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// Makes a new one. The prefix lets people and scanners tell what they have found.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn generate(prefix: &str) -> Result<Self, NoRandomness> {
        Ok(Self(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random::<SECRET_BYTES>()?))))
    }

    /// The secret itself, for its one showing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A new identifier such as `task_5f0c…`.
///
/// # Errors
/// [`NoRandomness`].
pub fn new_id(prefix: &str) -> Result<String, NoRandomness> {
    let mut id = format!("{prefix}_");
    for byte in random::<ID_BYTES>()? {
        id.push_str(&format!("{byte:02x}"));
    }
    Ok(id)
}

/// A new nonce: 32 random bytes in base64.
///
/// # Errors
/// [`NoRandomness`].
pub fn new_nonce() -> Result<String, NoRandomness> {
    Ok(STANDARD.encode(random::<SECRET_BYTES>()?))
}

fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// The SHA-256 under which a secret or a body is kept.
///
/// The secrets are 32 random bytes, so that a plain digest cannot be searched backwards.
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a text is a SHA-256 in lower-case hex.
pub fn is_sha256_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Decodes a public key in base64; `None` where it is not 32 bytes.
pub fn public_key(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok().filter(|key| key.len() == PUBLIC_KEY_BYTES)
}

/// Whether `signature`, in base64, is one of `payload` by the key.
pub fn is_signed_by(public_key: &[u8], payload: &[u8], signature: &str) -> bool {
    let Ok(signature) = STANDARD.decode(signature) else { return false };
    UnparsedPublicKey::new(&ED25519, public_key).verify(payload, &signature).is_ok()
}

/// The form in which base URLs are compared: scheme and host in lower case, no slash at the end.
pub fn canonical_origin(origin: &str) -> String {
    let trimmed = origin.trim_end_matches('/');
    let Some((scheme, rest)) = trimmed.split_once("://") else { return trimmed.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    format!("{}://{}{path}", scheme.to_ascii_lowercase(), authority.to_ascii_lowercase())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_token_does_not_show_itself() {
        let token = Token::generate("sortie_").unwrap();
        assert!(token.expose().starts_with("sortie_"));
        assert!(!format!("{token:?}").contains(&token.expose()[8..]));
        assert_ne!(token, Token::generate("sortie_").unwrap());
    }

    #[test]
    fn origins_are_compared_without_what_does_not_matter() {
        assert_eq!(canonical_origin("HTTPS://Sortie.Example:443/Base/"), "https://sortie.example:443/Base");
        assert_eq!(canonical_origin("https://a"), "https://a");
        assert_ne!(canonical_origin("https://a/x"), canonical_origin("https://a/X"));
    }
}
