//! GitLab's ways of saying no.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::site::{respond, set_header};

const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// The page that a browser would sign in on.
pub(super) const SIGN_IN_HTML: &str = "<!DOCTYPE html>\n<html class=\"gl-light\" lang=\"en\">\n<head><meta \
     content=\"GitLab\" property=\"og:site_name\"><title>Sign in · GitLab</title></head>\n<body></body>\n</html>\n";

pub(super) fn json(value: &Value) -> Response {
    respond(StatusCode::OK, JSON, value.to_string())
}

pub(super) fn message(status: StatusCode, text: &str) -> Response {
    respond(status, JSON, json!({"message": text}).to_string())
}

pub(super) fn unauthorized() -> Response {
    message(StatusCode::UNAUTHORIZED, "401 Unauthorized")
}

/// 401 in the form of OAuth, which tells an expired from a revoked token.
pub(super) fn invalid_token(description: &str) -> Response {
    let body = json!({"error": "invalid_token", "error_description": description});
    let mut response = respond(StatusCode::UNAUTHORIZED, JSON, body.to_string());
    let challenge = format!(
        "Bearer realm=\"Protected by OAuth 2.0\", error=\"invalid_token\", error_description=\"{description}\""
    );
    set_header(&mut response, "www-authenticate", &challenge);
    response
}

/// 403 that names the scopes of which one would do.
pub(super) fn insufficient_scope(scopes: &[&str]) -> Response {
    let body = json!({
        "error": "insufficient_scope",
        "error_description": "The request requires higher privileges than provided by the access token.",
        "scope": scopes.join(" "),
    });
    respond(StatusCode::FORBIDDEN, JSON, body.to_string())
}

pub(super) fn not_found(what: &str) -> Response {
    message(StatusCode::NOT_FOUND, &format!("404 {what} Not Found"))
}

/// No such call in this version.
pub(super) fn no_such_call() -> Response {
    respond(StatusCode::NOT_FOUND, JSON, json!({"error": "404 Not Found"}).to_string())
}

pub(super) fn not_found_page() -> Response {
    respond(
        StatusCode::NOT_FOUND,
        HTML,
        "<!DOCTYPE html>\n<html><title>The page could not be found (404)</title></html>",
    )
}

pub(super) fn git_unauthorized(public_url: &str) -> Response {
    let text = format!(
        "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was incorrect or \
         you're required to use a token instead of a password. If a token was provided, it was either incorrect, \
         expired, or improperly scoped. See \
         {public_url}/help/topics/git/troubleshooting_git#error-on-git-fetch-http-basic-access-denied"
    );
    let mut response = respond(StatusCode::UNAUTHORIZED, TEXT, text);
    set_header(&mut response, "www-authenticate", "Basic realm=\"GitLab\"");
    response
}

/// What git hears with a password that is right and does not do.
pub(super) fn git_token_needed(public_url: &str) -> Response {
    let text = format!(
        "HTTP Basic: Access denied\nYou must use a personal access token with 'read_repository' or 'write_repository' \
         scope for Git over HTTP.\nYou can generate one at {public_url}/-/profile/personal_access_tokens"
    );
    let mut response = respond(StatusCode::UNAUTHORIZED, TEXT, text);
    set_header(&mut response, "www-authenticate", "Basic realm=\"GitLab\"");
    response
}

pub(super) fn git_hidden() -> Response {
    let text = "The project you were looking for could not be found or you don't have permission to view it.";
    respond(StatusCode::NOT_FOUND, TEXT, text)
}

pub(super) fn git_forbidden(text: &'static str) -> Response {
    respond(StatusCode::FORBIDDEN, TEXT, text)
}
