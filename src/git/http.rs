//! Git over HTTP: the list of references, and one exchange after the other for a pack.
//!
//! The request of an exchange is collected, because libgit2 writes it in pieces; its answer is streamed. No
//! answer but git's own gets through to libgit2, and no redirect leaves the origin.

mod early;
mod unpacked;

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use git2::Error as GitError;
use git2::transport::SmartSubtransportStream;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};

use self::early::{Early, Part};
use self::unpacked::Unpacked;
use super::pkt::scrubbed;
use super::transport::refused;
use super::wire::Wire;
use super::{Error, Limit, Loss};
use crate::dial::{self, HttpClient, HttpError};
use crate::remote_url;
use crate::report::Stage;
use crate::secret::Secret;

/// Servers tell git from a browser by the beginning of this, and answer a browser with a sign-in page.
pub(super) const USER_AGENT: &str = concat!("git/2.0 (sortie ", env!("CARGO_PKG_VERSION"), ")");

/// How much is read of an answer that is not git's.
pub(super) const MAX_EXPLANATION_BYTES: usize = 8 * 1024;

/// How many schemes of `WWW-Authenticate` are kept. Servers offer four at the most.
const MAX_SCHEMES: usize = 16;

/// The longest name of a scheme, in bytes.
const MAX_SCHEME_BYTES: usize = 32;

/// How much is shown of an answer that is not git's, in bytes.
const MAX_SHOWN_BYTES: usize = 200;

/// The longest time to wait that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// The largest request for a pack. A thousand wanted references have 50 KiB.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;

/// The names of the encoding that some proxies give an answer though nobody asked for it. Git reads it, too.
const GZIP: [&[u8]; 2] = [b"gzip", b"x-gzip"];

const SERVICE_LINE: &[u8] = b"001e# service=git-upload-pack\n";
const LIST_SUFFIX: &str = "/info/refs";
const LIST_QUERY: &str = "service=git-upload-pack";

/// What the exchanges of one connection have in common.
#[derive(Clone, Default)]
pub(super) struct Shared {
    /// The repository's path, where a redirect of the server's own named another one.
    base: Arc<Mutex<Option<String>>>,
    early: Early,
}

impl Shared {
    fn base(&self, wire: &Wire) -> String {
        let moved = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        moved.clone().unwrap_or_else(|| wire.url.path().to_owned())
    }
}

/// Asks for the list of references.
pub(super) fn list(
    wire: &Arc<Wire>,
    client: &HttpClient,
    authorization: Option<&Secret>,
    shared: &Shared,
) -> Result<Box<dyn SmartSubtransportStream>, GitError> {
    let answered = ask_for_list(wire, client, authorization, shared);
    match answered {
        Ok(answer) => Ok(Box::new(answer)),
        Err(error) => {
            // The reason is recorded; libgit2 need not know it.
            let _ = wire.fail(error);
            Err(refused("the list of references could not be had"))
        }
    }
}

/// Prepares a request for a pack, which is sent when libgit2 begins to read.
pub(super) fn exchange(
    wire: &Arc<Wire>,
    client: &HttpClient,
    authorization: Option<&Secret>,
    shared: &Shared,
) -> Box<dyn SmartSubtransportStream> {
    Box::new(Exchange {
        wire: Arc::clone(wire),
        client: client.clone(),
        authorization: authorization.cloned(),
        path: format!("{}/git-upload-pack", shared.base(wire)),
        request: Vec::new(),
        answer: None,
        early: shared.early.clone(),
        part: None,
        is_over: false,
    })
}

pub(super) fn ask_for_list(
    wire: &Arc<Wire>,
    client: &HttpClient,
    authorization: Option<&Secret>,
    shared: &Shared,
) -> Result<Answer, Error> {
    if !wire.has_seen(Stage::Authenticate) {
        wire.log.begin(Stage::Authenticate);
        wire.log.fact("anonymous", authorization.is_none());
    }
    let send = |base: &str| {
        let path = format!("{base}{LIST_SUFFIX}?{LIST_QUERY}");
        let request = client.request(Method::GET, &path).headers(headers(authorization)?);
        wire.wait(client.send(request))?.map_err(Error::Http)
    };
    let mut response = send(&shared.base(wire))?;
    if response.status().is_redirection() {
        let base = same_origin_base(client, wire.url.path(), &response).inspect_err(|error| {
            // Whoever is told where the repository is now was let in.
            if matches!(error, Error::Redirected { same_origin: true, .. }) {
                wire.log.begin(Stage::Repository);
            }
            note_evidence(wire, &response);
        })?;
        response = send(&base)?;
        *shared.base.lock().unwrap_or_else(PoisonError::into_inner) = Some(base);
    }
    let response = expect_git(wire, response, "application/x-git-upload-pack-advertisement")?;
    let status = response.status().as_u16();
    let content_type = content_type(&response);
    let mut answer = Answer::new(wire, response);
    let first = answer.peek(SERVICE_LINE.len())?;
    if !first.starts_with(SERVICE_LINE) {
        let first_bytes = scrubbed(first);
        return Err(Error::UnexpectedAnswer { status, content_type, first_bytes });
    }
    if !wire.has_seen(Stage::Repository) {
        wire.log.begin(Stage::Repository);
    }
    Ok(answer)
}

fn headers(authorization: Option<&Secret>) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    if let Some(secret) = authorization {
        let mut value =
            HeaderValue::from_str(secret.expose()).map_err(|_| Error::Http(HttpError::BadRequest))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

/// The repository's path after a redirect that may be followed: to the list of references of another path at
/// the same scheme, host and port, as servers do that want `.git` at the end.
fn same_origin_base(client: &HttpClient, path: &str, response: &Response) -> Result<String, Error> {
    let status = response.status().as_u16();
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let shown = shown_location(location.unwrap_or_default());
    let redirected = |same_origin| Error::Redirected { status, location: shown.clone(), same_origin };
    let asked = url::Url::parse(&format!("{}{path}{LIST_SUFFIX}", client.origin()));
    let asked = asked.map_err(|_| redirected(false))?;
    let target = location.and_then(|text| asked.join(text).ok()).ok_or_else(|| redirected(false))?;
    let has_user_info = !target.username().is_empty() || target.password().is_some();
    if target.origin() != asked.origin() || has_user_info {
        return Err(redirected(false));
    }
    match target.path().strip_suffix(LIST_SUFFIX) {
        // Another repository was not shown to policy, and the credential may not be meant for it.
        Some(base)
            if target.query() == Some(LIST_QUERY) && base != path && is_same_repository(path, base) =>
        {
            Ok(base.to_owned())
        }
        Some(base) => {
            let location = format!("{}{base}", client.origin());
            Err(Error::Redirected { status, location: remote_url::scrubbed(&location), same_origin: true })
        }
        None => Err(Error::SignInPage { status, location: Some(shown) }),
    }
}

/// Whether two paths differ in nothing but case and the suffix that some servers want at the end.
fn is_same_repository(asked: &str, answered: &str) -> bool {
    let bare = |path: &str| path.strip_suffix(".git").unwrap_or(path).to_lowercase();
    bare(asked) == bare(answered)
}

/// A location as it may be shown: without user info, and without the query, which may carry a token.
pub(super) fn shown_location(location: &str) -> String {
    remote_url::scrubbed(location.split(['?', '#']).next().unwrap_or_default())
}

/// Lets git's own answer through and says by name what any other one is.
fn expect_git(wire: &Wire, response: Response, expected_type: &str) -> Result<Response, Error> {
    let status = response.status();
    let content_type = content_type(&response);
    let is_page = content_type.as_deref().is_some_and(|kind| kind.starts_with("text/html"));
    if status == StatusCode::OK && content_type.as_deref() == Some(expected_type) {
        return Ok(response);
    }
    let code = status.as_u16();
    let headers = response.headers().clone();
    note_evidence(wire, &response);
    let body = || -> Result<String, Error> { explanation(wire, response) };
    Err(match status {
        StatusCode::UNAUTHORIZED => {
            let schemes = offered_schemes(&headers);
            if !schemes.is_empty() {
                wire.log.fact("schemes", schemes.clone());
            }
            Error::Unauthorized { schemes, body: body()? }
        }
        StatusCode::FORBIDDEN => Error::Forbidden { body: body()?, is_page },
        StatusCode::NOT_FOUND | StatusCode::GONE => Error::NotFound { body: body()?, is_page },
        StatusCode::TOO_MANY_REQUESTS => Error::RateLimited { retry_after: retry_after(&headers) },
        status if status.is_server_error() => Error::ServerError { status: code, body: body()? },
        status if status.is_redirection() => {
            let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
            let location = shown_location(location.unwrap_or_default());
            Error::Redirected { status: code, location, same_origin: false }
        }
        StatusCode::NON_AUTHORITATIVE_INFORMATION => Error::SignInPage { status: code, location: None },
        status if status.is_success() && is_page => Error::SignInPage { status: code, location: None },
        _ => {
            let body = body()?;
            if status == StatusCode::OK && is_list_of_files(&body) {
                return Err(Error::DumbHttp);
            }
            let first_bytes = scrubbed(&body.as_bytes()[..body.len().min(MAX_SHOWN_BYTES)]);
            Error::UnexpectedAnswer { status: code, content_type, first_bytes }
        }
    })
}

/// Whether this is the list of references that lies among a repository's files: an object, a tab, and a name. It has
/// lost its control characters here.
fn is_list_of_files(body: &str) -> bool {
    let digits = body.bytes().take_while(u8::is_ascii_hexdigit).count();
    matches!(digits, 40 | 64) && body.get(digits..).is_some_and(|name| name.starts_with("refs/"))
}

/// What a refusal of the request for objects is, right after the list of references was given to the same credential:
/// no answer about the repository or the credential.
fn of_pack(error: Error) -> Error {
    match error {
        Error::Forbidden { body, .. } => Error::PackRefused { status: 403, body },
        Error::NotFound { body, .. } => Error::PackRefused { status: 404, body },
        Error::UnexpectedAnswer { status, first_bytes, .. } if (400..500).contains(&status) => {
            Error::PackRefused { status, body: first_bytes }
        }
        error => error,
    }
}

/// Notes what the head of an answer that is not git's tells.
fn note_evidence(wire: &Wire, response: &Response) {
    for (name, value) in dial::evidence(response.status(), response.headers()) {
        wire.log.fact(&name, value);
    }
}

pub(super) fn content_type(response: &Response) -> Option<String> {
    let value = response.headers().get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// The schemes in `WWW-Authenticate`, which servers put into one header or into several.
fn offered_schemes(headers: &HeaderMap) -> Vec<String> {
    let mut schemes: Vec<String> = Vec::new();
    for value in headers.get_all(header::WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()) {
        for part in value.split(',') {
            let word = part.split_ascii_whitespace().next().unwrap_or_default();
            // What holds an equals sign is a parameter of the scheme before it.
            let is_scheme = !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            if schemes.len() == MAX_SCHEMES {
                return schemes;
            }
            if is_scheme
                && word.len() <= MAX_SCHEME_BYTES
                && !schemes.iter().any(|known| known.eq_ignore_ascii_case(word))
            {
                schemes.push(word.to_owned());
            }
        }
    }
    schemes
}

/// The time to wait, clamped. A date is not read: clocks differ, and no server of ours sends one.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse::<u64>().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// The beginning of an answer that explains itself. One that breaks off explains less, and that is all.
fn explanation(wire: &Wire, mut response: Response) -> Result<String, Error> {
    wire.wait(async {
        let mut text = Vec::new();
        while text.len() < MAX_EXPLANATION_BYTES {
            let Ok(Some(chunk)) = response.chunk().await else { break };
            text.extend_from_slice(&chunk[..chunk.len().min(MAX_EXPLANATION_BYTES - text.len())]);
        }
        scrubbed_body(&text)
    })
}

fn scrubbed_body(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect()
}

/// The body of git's answer as it comes.
pub(super) struct Answer {
    wire: Arc<Wire>,
    response: Response,
    unpacked: Option<Unpacked>,
    /// How many bytes of the body have come.
    bytes: u64,
    /// What has come; the part from `consumed` on was not read yet.
    pending: Vec<u8>,
    consumed: usize,
}

impl Answer {
    fn new(wire: &Arc<Wire>, response: Response) -> Self {
        let encoding = response.headers().get(header::CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let unpacked = encoding.filter(|name| GZIP.contains(name)).map(|_| Unpacked::default());
        Self { wire: Arc::clone(wire), response, unpacked, bytes: 0, pending: Vec::new(), consumed: 0 }
    }

    /// The first bytes, at least `count` of them unless the answer is shorter, without reading them away.
    fn peek(&mut self, count: usize) -> Result<&[u8], Error> {
        const MAX_SHOWN_BYTES: usize = 200;
        while self.pending.len() < count && self.more()? {}
        Ok(&self.pending[..self.pending.len().min(count.max(MAX_SHOWN_BYTES))])
    }

    /// Waits for the next piece; false at the end of the answer.
    fn more(&mut self) -> Result<bool, Error> {
        if self.consumed == self.pending.len() {
            self.pending.clear();
            self.consumed = 0;
        }
        if let Some(unpacked) = &mut self.unpacked
            && unpacked.more(&mut self.pending)?
        {
            return Ok(true);
        }
        let chunk = self.wire.wait(self.response.chunk())?.map_err(|error| self.lost(error.into()))?;
        let Some(chunk) = chunk else { return Ok(false) };
        self.bytes += chunk.len() as u64;
        match &mut self.unpacked {
            Some(unpacked) => unpacked.packed = chunk,
            None => self.pending.extend_from_slice(&chunk),
        }
        Ok(true)
    }

    /// What it means that an answer did not come whole.
    fn lost(&self, error: HttpError) -> Error {
        let how = match error {
            HttpError::Interrupted { .. } => Loss::Cut,
            HttpError::TimedOut { after } => Loss::Silence { after },
            error => return Error::Http(error),
        };
        Error::Lost { bytes: self.bytes, how }
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.consumed == self.pending.len() {
            match self.more() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => return Err(self.wire.fail(error)),
            }
        }
        let unread = &self.pending[self.consumed..];
        let count = buffer.len().min(unread.len());
        buffer[..count].copy_from_slice(&unread[..count]);
        self.consumed += count;
        self.wire.received(&mut buffer[..count]).map_err(|error| self.wire.fail(error))?;
        Ok(count)
    }
}

impl Write for Answer {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One request and its answer.
struct Exchange {
    wire: Arc<Wire>,
    client: HttpClient,
    authorization: Option<Secret>,
    path: String,
    request: Vec<u8>,
    answer: Option<Answer>,
    early: Early,
    /// The request that was sent instead, and how much of its answer is for this one.
    part: Option<(Vec<u8>, Part)>,
    /// Whether all of that has been read.
    is_over: bool,
}

impl Exchange {
    fn send(&mut self) -> Result<Answer, Error> {
        const REQUEST_TYPE: HeaderValue = HeaderValue::from_static("application/x-git-upload-pack-request");
        const RESULT_TYPE: &str = "application/x-git-upload-pack-result";
        let mut headers = headers(self.authorization.as_ref())?;
        headers.insert(header::CONTENT_TYPE, REQUEST_TYPE);
        headers.insert(header::ACCEPT, HeaderValue::from_static(RESULT_TYPE));
        let mut body = std::mem::take(&mut self.request);
        if let Some(rest) = self.early.take(&body) {
            return Ok(rest);
        }
        if let Some(following) = early::following(&body) {
            body.clone_from(&following);
            self.part = Some((following, Part::default()));
        }
        let request = self.client.request(Method::POST, &self.path).headers(headers).body(body);
        let response = self.wire.wait(self.client.send(request))?.map_err(Error::Http)?;
        let response = expect_git(&self.wire, response, RESULT_TYPE).map_err(of_pack)?;
        Ok(Answer::new(&self.wire, response))
    }
}

impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over {
            return Ok(0);
        }
        if self.answer.is_none() {
            match self.send() {
                Ok(answer) => self.answer = Some(answer),
                Err(error) => return Err(self.wire.fail(error)),
            }
        }
        let Some((_, part)) = &mut self.part else {
            return self.answer.as_mut().map_or(Ok(0), |answer| answer.read(buffer));
        };
        let Some(answer) = &mut self.answer else { return Ok(0) };
        let most = part.at_most(buffer.len());
        let (piece, _) = buffer.split_at_mut(most);
        let count = answer.read(piece)?;
        if part.read(piece.get(..count).unwrap_or_default())
            && let Some(((request, _), rest)) = self.part.take().zip(self.answer.take())
        {
            self.early.keep(request, rest);
            self.is_over = true;
        }
        Ok(count)
    }
}

impl Write for Exchange {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.request.len() + bytes.len() > MAX_REQUEST_BYTES {
            let limit = MAX_REQUEST_BYTES as u64;
            return Err(self.wire.fail(Error::TooLarge { what: Limit::References, limit }));
        }
        self.request.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn schemes_are_read_from_one_header_or_several() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer authorization_uri=https://x/y"),
        );
        headers.append(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"a b, c\", Negotiate, NTLM"),
        );
        let schemes = offered_schemes(&headers);
        assert!(["Bearer", "Basic", "Negotiate", "NTLM"].iter().all(|s| schemes.iter().any(|o| o == s)));
    }

    #[test]
    fn a_time_to_wait_is_clamped() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1000000000"));
        assert_eq!(retry_after(&headers), Some(MAX_RETRY_AFTER));
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("17"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(17)));
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("Wed, 21 Oct 2026 07:28:00 GMT"));
        assert_eq!(retry_after(&headers), None);
    }

    #[test]
    fn what_is_shown_of_a_location_holds_no_secret() {
        assert_eq!(shown_location("https://u:p@login.example/x?token=s#f"), "https://login.example/x");
    }
}
