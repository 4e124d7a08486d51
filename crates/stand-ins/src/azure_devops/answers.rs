//! Azure DevOps Server's ways of saying no, and the headers on all of its answers.

use axum::http::header::WWW_AUTHENTICATE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::site::{empty, guid, respond, set_header};
use crate::world::{AzureDevOps, BadToken, MissingScope};

/// The type of JSON as this server sends it.
const JSON: &str = "application/json; charset=utf-8; api-version=";
const PLAIN_JSON: &str = "application/json; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// The page that a browser would sign in on.
pub(super) const SIGN_IN_HTML: &str = "<!DOCTYPE html>\n<html lang=\"en-US\">\n<head><title>Azure DevOps Server | Sign In\
     </title></head>\n<body><form method=\"post\" action=\"_signin\"><h1>Sign In</h1></form></body>\n</html>\n";

/// 203 with the sign-in page.
pub(crate) fn sign_in_page() -> Response {
    respond(StatusCode::NON_AUTHORITATIVE_INFORMATION, HTML, SIGN_IN_HTML)
}

/// What is said of a repository that does not exist or may not be seen.
pub(super) fn repository_not_found(name: &str) -> String {
    format!(
        "TF401019: The Git repository with name or identifier {name} does not exist or you do not have permissions \
         for the operation you are attempting."
    )
}

/// Makes answers by one server's settings.
pub(super) struct Answers<'a> {
    pub(super) settings: &'a AzureDevOps,
    pub(super) public_url: String,
}

impl Answers<'_> {
    /// JSON with status 200.
    pub(super) fn json(&self, value: &Value) -> Response {
        let (major, minor) = self.settings.release.api_version();
        let mut response = respond(StatusCode::OK, PLAIN_JSON, value.to_string());
        set_header(&mut response, "content-type", &format!("{JSON}{major}.{minor}"));
        response
    }

    /// An error with the server's JSON around its message.
    pub(super) fn problem(&self, status: StatusCode, kind: &str, message: &str) -> Response {
        let body = json!({
            "$id": "1",
            "innerException": null,
            "message": message,
            "typeName": format!("Microsoft.TeamFoundation.Server.{kind}, Microsoft.TeamFoundation.Server"),
            "typeKey": kind,
            "errorCode": self.settings.refusal_code,
            "eventId": 3000,
        });
        let mark = if self.settings.json_bom { "\u{feff}" } else { "" };
        let mut response = respond(status, PLAIN_JSON, format!("{mark}{body}"));
        service_error(&mut response, message);
        response
    }

    pub(super) fn not_found_page(&self) -> Response {
        respond(StatusCode::NOT_FOUND, HTML, "<html><title>404 - File or directory not found.</title></html>")
    }

    /// No credential was sent.
    pub(super) fn anonymous(&self) -> Response {
        let mut response = self.unauthorized();
        service_error(
            &mut response,
            "TF400813: Resource not available for anonymous access. Client authentication required.",
        );
        response
    }

    /// An unknown credential was sent.
    pub(super) fn refused(&self) -> Response {
        if let Some(message) = &self.settings.refusal {
            let mut response =
                self.problem(StatusCode::UNAUTHORIZED, "UnauthorizedRequestException", message);
            self.challenge(&mut response);
            return response;
        }
        match self.settings.bad_token {
            BadToken::Empty401 => self.unauthorized(),
            BadToken::SignInPage => sign_in_page(),
            BadToken::Redirect => {
                let mut response =
                    respond(StatusCode::FOUND, HTML, "<html><title>Object moved</title></html>");
                let reply_to = utf8_percent_encode(&self.public_url, NON_ALPHANUMERIC);
                let location = format!("{}/_signin?reply_to={reply_to}", self.public_url);
                set_header(&mut response, "location", &location);
                response
            }
        }
    }

    /// 401 without a body, with every scheme that the server offers.
    pub(super) fn unauthorized(&self) -> Response {
        let mut response = empty(StatusCode::UNAUTHORIZED);
        self.challenge(&mut response);
        response
    }

    /// 401 by IIS itself, which took the header for a Windows account's: a page, and nothing of the application's.
    pub(super) fn refused_by_iis(&self) -> Response {
        let page = "<!DOCTYPE html><html><head><title>401 - Unauthorized: Access is denied due to invalid \
                    credentials.</title></head><body></body></html>";
        let mut response = respond(StatusCode::UNAUTHORIZED, "text/html", page);
        set_header(&mut response, "server", "Microsoft-IIS/10.0");
        for challenge in ["Negotiate", "NTLM", "Basic realm=\"ado.corp.example\""] {
            response.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }

    fn challenge(&self, response: &mut Response) {
        for scheme in &self.settings.schemes {
            let challenge = if scheme.eq_ignore_ascii_case("basic") {
                format!("Basic realm=\"{}\"", self.public_url)
            } else {
                scheme.clone()
            };
            if let Ok(value) = HeaderValue::from_str(&challenge) {
                response.headers_mut().append(WWW_AUTHENTICATE, value);
            }
        }
    }

    /// The token is good and lacks a scope.
    pub(super) fn scope_missing(&self, scope: &str) -> Response {
        match self.settings.missing_scope {
            MissingScope::Empty401 => self.unauthorized(),
            MissingScope::Json403 => self.problem(
                StatusCode::FORBIDDEN,
                "UnauthorizedRequestException",
                &format!("TF400813: The user is not authorized to access this resource; the scope {scope} is needed."),
            ),
        }
    }

    pub(super) fn repository_not_found(&self, name: &str) -> Response {
        self.problem(StatusCode::NOT_FOUND, "GitRepositoryNotFoundException", &repository_not_found(name))
    }

    pub(super) fn project_not_found(&self, name: &str) -> Response {
        let message = format!(
            "TF200016: The following project does not exist: {name}. Verify that the name of the project is correct \
             and that the project exists on the specified Azure DevOps Server."
        );
        self.problem(StatusCode::NOT_FOUND, "ProjectDoesNotExistWithNameException", &message)
    }

    /// Adds what the server puts on every answer; `name` is who signed in.
    pub(super) fn dress(&self, mut response: Response, name: Option<&str>) -> Response {
        set_header(&mut response, "server", "Microsoft-IIS/10.0");
        set_header(&mut response, "x-powered-by", "ASP.NET");
        set_header(&mut response, "x-tfs-processid", &guid(&["process"]));
        set_header(&mut response, "activityid", &guid(&["activity"]));
        if let Some(name) = name
            && response.status() != StatusCode::UNAUTHORIZED
        {
            set_header(&mut response, "x-vss-userdata", &format!("{}:{name}", guid(&["user", name])));
        }
        response
    }
}

fn service_error(response: &mut Response, message: &str) {
    let encoded = utf8_percent_encode(message, NON_ALPHANUMERIC).to_string();
    set_header(response, "x-tfs-serviceerror", &encoded);
}
