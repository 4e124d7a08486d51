//! Who sends a request to GitLab, and what their token may do.

use axum::http::HeaderMap;

use crate::credential::Presented;
use crate::world::{Token, TokenKind, User, World};

/// Somebody who signed in.
pub(super) enum Caller<'a> {
    /// With a password: git only.
    Password(&'a User),
    /// With a token, and its number by which the API knows it.
    Token(usize, &'a Token),
}

impl Caller<'_> {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Password(user) => &user.name,
            Self::Token(_, token) => &token.user,
        }
    }

    pub(super) fn has_any_scope(&self, wanted: &[&str]) -> bool {
        match self {
            Self::Password(_) => true,
            Self::Token(_, token) => token.scopes.iter().any(|scope| wanted.contains(&scope.as_str())),
        }
    }
}

/// What became of a request's credential.
pub(super) enum Access<'a> {
    /// Signed in.
    Granted(Caller<'a>),
    /// None of a kind that counts here was presented.
    Anonymous,
    /// An unknown one.
    Refused,
    /// A token whose day has passed.
    Expired,
    /// A token that was revoked.
    Revoked,
    /// The right password of somebody with two-factor authentication.
    TokenNeeded,
}

/// Settles who calls the API: `PRIVATE-TOKEN` or Bearer; Basic does not count there, and deploy tokens are unknown.
pub(super) fn for_api<'a>(world: &'a World, headers: &HeaderMap) -> Access<'a> {
    let (secret, bearer) = match Presented::from_headers(headers) {
        Presented::PrivateToken(secret) => (secret, false),
        Presented::Bearer(secret) => (secret, true),
        Presented::Nothing | Presented::Basic { .. } | Presented::Unusable => return Access::Anonymous,
    };
    judge(world, &secret, |token| match token.kind {
        TokenKind::Pat | TokenKind::Project | TokenKind::Group => true,
        TokenKind::Oauth => bearer,
        TokenKind::Deploy | TokenKind::Job => false,
    })
}

/// Settles who uses git: Basic alone, with a token or a password behind a user name that is not empty.
pub(super) fn for_git<'a>(world: &'a World, headers: &HeaderMap) -> Access<'a> {
    let (name, secret) = match Presented::from_headers(headers) {
        Presented::Basic { user, secret } => (user, secret),
        Presented::Nothing => return Access::Anonymous,
        Presented::Bearer(_) | Presented::PrivateToken(_) | Presented::Unusable => return Access::Refused,
    };
    if name.is_empty() {
        return Access::Refused;
    }
    let by_token = judge(world, &secret, |token| match token.kind {
        TokenKind::Pat | TokenKind::Project | TokenKind::Group => true,
        TokenKind::Oauth => name == "oauth2",
        TokenKind::Deploy => name.starts_with("gitlab+deploy-token-"),
        TokenKind::Job => name == "gitlab-ci-token",
    });
    if !matches!(by_token, Access::Refused) {
        return by_token;
    }
    let is_right = |user: &&User| {
        user.name == name && user.password.as_ref().is_some_and(|known| known.matches(&secret))
    };
    match world.users.iter().find(is_right) {
        None => Access::Refused,
        Some(user) if user.two_factor => Access::TokenNeeded,
        Some(user) => Access::Granted(Caller::Password(user)),
    }
}

fn judge<'a>(world: &'a World, secret: &str, right_kind: impl Fn(&Token) -> bool) -> Access<'a> {
    let found =
        world.tokens.iter().enumerate().find(|(_, token)| token.secret.matches(secret) && right_kind(token));
    match found {
        None => Access::Refused,
        Some((_, token)) if token.revoked => Access::Revoked,
        Some((_, token)) if token.is_expired() => Access::Expired,
        Some((position, token)) => Access::Granted(Caller::Token(position + 1, token)),
    }
}
