//! Who sends a request to Azure DevOps Server, and what their token may do.

use axum::http::HeaderMap;

use crate::credential::Presented;
use crate::world::{AzureDevOps, Token, TokenKind, User, World};

/// Somebody who signed in.
pub(super) enum Caller<'a> {
    /// With a password: may do whatever the user may.
    Password(&'a User),
    /// With a token: only what its scopes allow.
    Token(&'a Token),
}

impl Caller<'_> {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Password(user) => &user.name,
            Self::Token(token) => &token.user,
        }
    }

    /// Whether the credential has this scope, itself or in a wider one.
    pub(super) fn has_scope(&self, wanted: &str) -> bool {
        let Self::Token(token) = self else {
            return true;
        };
        let wider: &[&str] = match wanted {
            "vso.code" => &["vso.code_write", "vso.code_manage", "vso.code_full"],
            "vso.project" => &["vso.project_write", "vso.project_manage"],
            _ => &[],
        };
        token.scopes.iter().any(|scope| {
            // A token with full access carries this one name on the server.
            scope == "app_token" || scope == wanted || wider.contains(&scope.as_str())
        })
    }
}

/// What became of a request's credential.
pub(super) enum Access<'a> {
    /// Signed in.
    Granted(Caller<'a>),
    /// None was presented.
    Anonymous,
    /// An unknown one: answered as the settings say.
    Refused,
    /// One that is known and no longer good, or a scheme that does not work here: always a 401.
    Unauthorized,
}

/// Settles who sends a request.
pub(super) fn authenticate<'a>(world: &'a World, settings: &AzureDevOps, headers: &HeaderMap) -> Access<'a> {
    match Presented::from_headers(headers) {
        Presented::Nothing => Access::Anonymous,
        Presented::Basic { user, secret } => {
            if !settings.schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) {
                return Access::Unauthorized;
            }
            if settings.iis_basic_authentication {
                return with_password(world, &user, &secret);
            }
            with_token(world, &secret, |token| token.kind == TokenKind::Pat)
        }
        Presented::Bearer(secret) => with_token(world, &secret, |token| token.kind == TokenKind::Oauth),
        // No Windows domain stands behind this server, so that Negotiate and NTLM never succeed.
        Presented::PrivateToken(_) | Presented::Unusable => Access::Unauthorized,
    }
}

/// IIS takes whatever stands in the Basic header for a Windows account's password.
fn with_password<'a>(world: &'a World, name: &str, password: &str) -> Access<'a> {
    // A domain may stand before the name: CORP\ada.
    let name = name.rsplit('\\').next().unwrap_or(name);
    let user = world.users.iter().find(|user| {
        user.name.eq_ignore_ascii_case(name)
            && user.password.as_ref().is_some_and(|known| known.matches(password))
    });
    user.map_or(Access::Unauthorized, |user| Access::Granted(Caller::Password(user)))
}

fn with_token<'a>(world: &'a World, secret: &str, right_kind: impl Fn(&Token) -> bool) -> Access<'a> {
    match world.tokens.iter().find(|token| token.secret.matches(secret) && right_kind(token)) {
        Some(token) if token.is_expired() => Access::Unauthorized,
        Some(token) if !token.revoked => Access::Granted(Caller::Token(token)),
        _ => Access::Refused,
    }
}
