//! One bounded call to a server's API: nothing is followed, nothing is read without a limit.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use super::ProviderError;
use crate::dial::{self, HttpClient, HttpError, read_limited};
use crate::remote_url;
use crate::report::Facts;
use crate::secret::Secret;

/// The largest body of an answer that is read, in bytes.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// What is asked for, but for the bytes of a file.
const JSON: &str = "application/json";

/// The kind of bytes that are nothing but bytes.
const BYTES: &str = "application/octet-stream";

/// How many values an answer may hold. In memory each takes many times what it takes in a body; a page of a hundred
/// repositories has about five thousand.
const MAX_JSON_VALUES: usize = 50_000;

/// The longest wait that a server may name, whatever it asks for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// How much of a strange body is shown, in characters.
const MAX_SHOWN_CHARS: usize = 120;

/// How much of one text of a server's is kept, in characters.
pub const MAX_TEXT_CHARS: usize = 300;

/// How many texts of one list of a server's are kept.
pub const MAX_TEXTS: usize = 64;

/// The longest name of a server's that becomes part of a path, in bytes.
const MAX_NAME_BYTES: usize = 1024;

/// The API of one server, with or without a credential.
#[derive(Clone)]
pub struct Api {
    client: HttpClient,
    credential: Option<(HeaderName, Secret)>,
    trace: Option<Trace>,
}

/// Keeps the head of the last answer to a traced [`Api`], for the facts of the stage that asked.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Option<Answer>>>);

/// An answer, read to its end.
pub struct Answer {
    /// The path that was asked for, with its query.
    pub path: String,
    /// The status.
    pub status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Api {
    /// The API as everybody sees it.
    pub fn anonymous(client: HttpClient) -> Self {
        Self { client, credential: None, trace: None }
    }

    /// The API with a credential, which goes out with the first request already.
    pub fn with_credential(client: HttpClient, header: HeaderName, value: Secret) -> Self {
        Self { client, credential: Some((header, value)), trace: None }
    }

    /// The same API, and what keeps the head of its last answer. Calls that run at the same time need one each.
    pub fn traced(&self) -> (Self, Trace) {
        let trace = Trace::default();
        (Self { trace: Some(trace.clone()), ..self.clone() }, trace)
    }

    /// `scheme://host[:port]`.
    pub fn origin(&self) -> &str {
        self.client.origin()
    }

    /// Sends a GET.
    ///
    /// # Errors
    /// [`ProviderError::Http`] alone: the status is for the provider to judge.
    pub async fn get(&self, path: &str) -> Result<Answer, ProviderError> {
        self.send(Method::GET, path, JSON, MAX_BODY_BYTES).await
    }

    /// Sends a GET for bytes of any kind, of which a good answer may have so many.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_bytes(&self, path: &str, max_bytes: usize) -> Result<Answer, ProviderError> {
        self.send(Method::GET, path, BYTES, max_bytes).await
    }

    /// Sends an OPTIONS.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn options(&self, path: &str) -> Result<Answer, ProviderError> {
        self.send(Method::OPTIONS, path, JSON, MAX_BODY_BYTES).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
        max_bytes: usize,
    ) -> Result<Answer, ProviderError> {
        let mut request = self.client.request(method, path).header("accept", accept);
        if let Some((name, secret)) = &self.credential {
            // A secret that cannot stand in a header is sent as an empty one, and the server refuses it.
            let mut value = HeaderValue::from_str(secret.expose()).unwrap_or(HeaderValue::from_static(""));
            value.set_sensitive(true);
            request = request.header(name.clone(), value);
        }
        // On the heap, because calls that run at the same time would make one large future of it.
        let response = Box::pin(self.client.send(request)).await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if let Some(trace) = &self.trace {
            trace.keep(Answer { path: path.to_owned(), status, headers: headers.clone(), body: Vec::new() });
        }
        // What an error or a redirect says is a courtesy: a body too large for it is left unread.
        let max_bytes = if status == 200 { max_bytes } else { MAX_BODY_BYTES };
        let body = match read_limited(response, max_bytes).await {
            Err(HttpError::BodyTooLarge { .. }) if status != 200 => Vec::new(),
            read => read?,
        };
        Ok(Answer::new(path.to_owned(), status, headers, body))
    }
}

impl Trace {
    /// The last answer without its body; `None` where there was none.
    pub fn last(&self) -> Option<Answer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, answer: Answer) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
    }
}

impl Answer {
    /// An answer to a call of `path`, as it came over the line.
    pub fn new(path: String, status: u16, headers: HeaderMap, body: Vec<u8>) -> Self {
        Self { path, status, headers, body }
    }

    /// The body as it came.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What helps whoever looks for the reason of a failure, whatever kind of server it is.
    pub fn evidence(&self) -> Facts {
        let status = StatusCode::from_u16(self.status);
        status.map(|status| dial::evidence(status, &self.headers)).unwrap_or_default()
    }

    /// The type of the body without its parameters, in lower case.
    pub fn content_type(&self) -> Option<String> {
        let value = self.header("content-type")?;
        Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
    }

    /// The schemes that `WWW-Authenticate` offers, in their order.
    pub fn schemes(&self) -> Vec<String> {
        let mut schemes = Vec::new();
        for value in self.headers("www-authenticate") {
            // A scheme is a word at the beginning or after a comma that is not the name of a parameter.
            for part in value.split(',') {
                let word = part.trim().split(' ').next().unwrap_or_default();
                let is_scheme = !word.is_empty() && !word.contains(['=', '"']);
                if schemes.len() == MAX_TEXTS {
                    return schemes;
                }
                if is_scheme && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                    schemes.push(shown(word, MAX_TEXT_CHARS));
                }
            }
        }
        schemes
    }

    /// The values of all headers of a name, as text.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    /// The beginning of the body as text, for what stands there by a documented form.
    pub fn beginning(&self, max_bytes: usize) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(max_bytes)]).into_owned()
    }

    /// The body as JSON, whatever the status; `None` where it is none.
    pub fn json(&self) -> Option<Value> {
        let is_json = self.content_type().is_some_and(|kind| kind.ends_with("json"));
        // Some servers put a byte order mark before JSON, which no JSON parser takes.
        let body = self.body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&self.body);
        if is_json && count_values(body) <= MAX_JSON_VALUES {
            serde_json::from_slice(body).ok()
        } else {
            None
        }
    }

    /// A text field of a JSON body, made fit to be shown.
    pub fn field(&self, name: &str) -> Option<String> {
        text(&self.json()?, name)
    }

    /// The value of a header that the server percent-encoded, made fit to be shown.
    pub fn encoded_header(&self, name: &str) -> Option<String> {
        let text = percent_decode_str(self.header(name)?).decode_utf8_lossy().into_owned();
        Some(shown(&text, MAX_TEXT_CHARS))
    }

    /// The body of a good answer.
    ///
    /// # Errors
    /// [`ProviderError::Unexpected`] where it is no JSON.
    pub fn good_json(&self, expected: &'static str) -> Result<Value, ProviderError> {
        self.json().ok_or_else(|| self.unexpected(expected))
    }

    /// Where a redirect leads, without query and user info; `None` where this is no redirect.
    pub fn location(&self) -> Option<String> {
        let text = self.header("location")?.split(['?', '#']).next().unwrap_or_default();
        (300..400).contains(&self.status).then(|| remote_url::scrubbed(text))
    }

    /// The path of a redirect that stays on this origin; `None` for any other.
    pub fn local_redirect(&self, origin: &str) -> Option<String> {
        let location = self.location()?;
        let path = match location.strip_prefix(origin) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
            Some(_) => return None,
            None if location.starts_with('/') && !location.starts_with("//") => &location,
            None => return None,
        };
        Some(path.trim_end_matches('/').to_owned())
    }

    /// What is the same for every server: rate limits, failures of the server, redirects, strange answers.
    pub fn general_error(&self, expected: &'static str) -> ProviderError {
        match self.status {
            429 => ProviderError::RateLimited { retry_after: self.retry_after() },
            500.. => ProviderError::ServerError { status: self.status },
            300..=399 => ProviderError::Redirected { status: self.status, location: self.location() },
            _ => self.unexpected(expected),
        }
    }

    /// An answer out of form.
    pub fn unexpected(&self, expected: &'static str) -> ProviderError {
        ProviderError::Unexpected {
            expected,
            status: self.status,
            content_type: self.content_type().map(|kind| shown(&kind, MAX_SHOWN_CHARS)),
            first: shown(&self.beginning(4 * MAX_SHOWN_CHARS), MAX_SHOWN_CHARS),
        }
    }

    /// How long the server asks to wait, clamped, whatever the status.
    pub fn retry_after(&self) -> Option<Duration> {
        // A date is allowed here too; no clock decides anything, so that only seconds are read.
        let seconds: u64 = self.header("retry-after")?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
    }
}

/// About how many values JSON holds, before it is parsed: each but the first follows one of these signs. Signs within
/// texts count as well.
fn count_values(json: &[u8]) -> usize {
    json.iter().filter(|byte| matches!(byte, b'{' | b'[' | b',' | b':')).count()
}

/// A text field of an object, made fit to be shown; `None` where nothing is left of it. This, [`texts`] and
/// [`name`] are the only ways in which a text leaves a server's JSON.
pub fn text(json: &Value, key: &str) -> Option<String> {
    let text = shown(json.get(key)?.as_str()?, MAX_TEXT_CHARS);
    (!text.is_empty()).then_some(text)
}

/// A whole number of an object.
pub fn number(json: &Value, key: &str) -> Option<i64> {
    json.get(key)?.as_i64()
}

/// A list of texts, each made fit to be shown, and no more than [`MAX_TEXTS`] of them.
pub fn texts(json: &Value, key: &str) -> Option<Vec<String>> {
    let items = json.get(key)?.as_array()?.iter().filter_map(Value::as_str);
    Some(items.take(MAX_TEXTS).map(|text| shown(text, MAX_TEXT_CHARS)).collect())
}

/// A name that becomes part of a path, letter by letter; `None` where it is too long or not fit to be shown,
/// because a name that was made fit would be another's.
pub fn name(json: &Value, key: &str) -> Option<String> {
    let name = json.get(key)?.as_str()?;
    let is_fit = !name.is_empty() && name.len() <= MAX_NAME_BYTES && !name.chars().any(is_unfit);
    is_fit.then(|| name.to_owned())
}

/// Control characters, and those that change the direction in which the others are read.
fn is_unfit(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text of somebody else's as it may be shown: one line, without control characters, shortened.
pub fn shown(text: &str, max_chars: usize) -> String {
    let clean: String = text.chars().map(|c| if is_unfit(c) { ' ' } else { c }).collect();
    let words = clean.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    pub(in crate::provider) fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Answer::new("/x".into(), status, map, body.as_bytes().to_vec())
    }

    #[test]
    fn schemes_are_read_from_several_headers_and_from_one() {
        let many = [
            ("www-authenticate", "Bearer"),
            ("www-authenticate", "Basic realm=\"https://ado, x\""),
            ("www-authenticate", "NTLM"),
        ];
        assert_eq!(answer(401, &many, "").schemes(), ["Bearer", "Basic", "NTLM"]);
        let one = [("www-authenticate", "Negotiate, NTLM, Basic realm=\"x\", charset=\"UTF-8\"")];
        assert_eq!(answer(401, &one, "").schemes(), ["Negotiate", "NTLM", "Basic"]);
    }

    #[test]
    fn json_may_begin_with_a_byte_order_mark() {
        let json = [("content-type", "application/json; charset=utf-8")];
        assert_eq!(answer(404, &json, "\u{feff}{\"message\":\"a\\nb\"}").field("message").unwrap(), "a b");
        assert!(answer(200, &[("content-type", "text/html")], "{}").json().is_none());
    }

    #[test]
    fn json_of_too_many_values_is_none() {
        let json = [("content-type", "application/json")];
        let many = format!("[{}0]", "0,".repeat(MAX_JSON_VALUES));
        assert!(answer(200, &json, &many).json().is_none());
        assert!(answer(200, &json, "[0,0]").json().is_some());
    }

    #[test]
    fn texts_are_scrubbed_and_names_are_taken_as_they_are_or_not_at_all() {
        let long = "x".repeat(2 * MAX_NAME_BYTES);
        let json = serde_json::json!({
            "hostile": "a\u{1b}]0;owned\u{7}\nb\u{202e}c", "long": long, "blank": "\u{1b}", "name": "a  b",
            "list": vec![long.as_str(); 10 * MAX_TEXTS],
        });
        assert_eq!(text(&json, "hostile").unwrap(), "a ]0;owned b c");
        assert_eq!(text(&json, "long").unwrap().chars().count(), MAX_TEXT_CHARS + 1);
        assert_eq!(text(&json, "blank"), None);
        let list = texts(&json, "list").unwrap();
        assert_eq!(list.len(), MAX_TEXTS);
        assert!(list.iter().all(|text| text.chars().count() == MAX_TEXT_CHARS + 1));
        assert_eq!(name(&json, "name").unwrap(), "a  b");
        assert_eq!((name(&json, "hostile"), name(&json, "long"), name(&json, "none")), (None, None, None));
    }

    #[test]
    fn a_long_list_of_schemes_is_cut() {
        let many = vec![("www-authenticate", "Bearer"); 10 * MAX_TEXTS];
        assert_eq!(answer(401, &many, "").schemes().len(), MAX_TEXTS);
    }

    #[test]
    fn a_wait_is_clamped_and_a_redirect_is_judged_by_its_origin() {
        let limited = answer(429, &[("retry-after", "1000000000")], "").general_error("JSON");
        let ProviderError::RateLimited { retry_after } = limited else { panic!("{limited:?}") };
        assert_eq!(retry_after, Some(MAX_RETRY_AFTER));
        let to = |location: &str| answer(302, &[("location", location)], "").local_redirect("https://h:1");
        assert_eq!(to("/tfs/").as_deref(), Some("/tfs"));
        assert_eq!(to("https://h:1/tfs/?x=y").as_deref(), Some("/tfs"));
        assert_eq!(to("https://h:10/tfs"), None);
        assert_eq!(to("//evil/tfs"), None);
        assert_eq!(to("https://evil/tfs"), None);
    }
}
