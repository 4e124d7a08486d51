//! What a request presents to prove who sends it.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A credential as it was presented.
pub(crate) enum Presented {
    /// None at all.
    Nothing,
    /// `Authorization: Basic`, decoded.
    Basic {
        /// What stands before the first colon; may be empty.
        user: String,
        /// What stands after it.
        secret: String,
    },
    /// `Authorization: Bearer`.
    Bearer(String),
    /// GitLab's `PRIVATE-TOKEN`.
    PrivateToken(String),
    /// `Negotiate`, `NTLM`, anything else, or something out of form.
    Unusable,
}

impl Presented {
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        if let Some(token) = headers.get("private-token") {
            return token.to_str().map_or(Self::Unusable, |token| Self::PrivateToken(token.to_owned()));
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Self::Nothing;
        };
        let Some((scheme, rest)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
            return Self::Unusable;
        };
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            return Self::basic(rest).unwrap_or(Self::Unusable);
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Bearer(rest.to_owned());
        }
        Self::Unusable
    }

    fn basic(encoded: &str) -> Option<Self> {
        let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
        let (user, secret) = decoded.split_once(':')?;
        Some(Self::Basic { user: user.to_owned(), secret: secret.to_owned() })
    }
}
