//! A text that must not be seen: redacted when printed, wiped when dropped, never serialized.

mod redaction;

use std::fmt;

use zeroize::Zeroizing;

pub use redaction::Redaction;

/// The largest secret, in bytes. An SSH key of 16,384 bits in PEM has about 13 KiB.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// A secret. It has no `Serialize`, no `Display` and no `PartialEq`; [`Secret::expose`] is called only
/// where the secret is used.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself. Do not store what this returns, and do not put it into an error.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_in_debug() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "[redacted]");
    }
}
