//! The batch API: where objects can be downloaded, and by which words the server says that they cannot.
//!
//! Source: docs/api/batch.md of git-lfs. What it answers is believed only as far as it stays at the declared server.

use std::collections::HashMap;
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use url::Url;

use super::{LfsError, LfsOid, LfsRemote, Named, ObjectProblem, Wanted, failed};
use crate::dial::{HttpError, read_limited};
use crate::git::Error;
use crate::git::http::{MAX_EXPLANATION_BYTES, USER_AGENT, content_type, retry_after, shown_location};
use crate::git::pkt::scrubbed;
use crate::remote_url::RemoteUrl;

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.git-lfs+json");

/// Servers that are read, beside the API's own type, whose answers are JSON all the same.
const ANSWER_TYPES: [&str; 2] = ["application/vnd.git-lfs+json", "application/json"];

/// The largest answer, in bytes: for a hundred objects this leaves 40 KiB for each of them.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// The longest URL of a download, in bytes; signatures in it are long.
const MAX_HREF_BYTES: usize = 16 * 1024;

/// The most headers that an action may want on its download.
const MAX_HEADERS: usize = 32;

/// How often a request is sent that fails in a way that may pass.
const MAX_TRIES: u32 = 5;

/// The pause before the second try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause that a server may ask for; one that asks for more limits the rate.
const MAX_PAUSE: Duration = Duration::from_secs(15);

/// How long before its end an action is no longer used.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5);

/// The longest time for which an action is believed to be good.
const MAX_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);

/// The way to one object.
pub(super) struct Grant {
    /// The first file that it belongs to and all of them, by their place in the list.
    pub(super) files: Vec<usize>,
    /// Path and query at the client's origin.
    pub(super) path: String,
    /// What the download's request carries.
    pub(super) headers: HeaderMap,
    expires: Option<Instant>,
}

impl Grant {
    /// Whether it is of no use any more.
    pub(super) fn is_expired(&self) -> bool {
        self.expires.is_some_and(|expires| Instant::now() >= expires)
    }
}

/// Why one try of a request came to nothing.
pub(super) enum Trouble {
    /// Another try would come to the same.
    Fatal(Error),
    /// Another try may help, after the pause that the server asks for.
    Passing(Error, Option<Duration>),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

impl From<LfsError> for Trouble {
    fn from(error: LfsError) -> Self {
        Self::Fatal(error.into())
    }
}

/// How often something was tried in vain.
#[derive(Default)]
pub(super) struct Patience {
    tries: u32,
}

impl Patience {
    /// The number of the try that runs, from 1.
    pub(super) fn running(&self) -> u32 {
        self.tries + 1
    }

    /// Begins to count anew.
    pub(super) fn renew(&mut self) {
        self.tries = 0;
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// Where there is none.
    pub(super) async fn after(&mut self, trouble: Trouble) -> Result<(), Error> {
        let (error, asked) = match trouble {
            Trouble::Fatal(error) => return Err(error),
            Trouble::Passing(error, asked) => (error, asked),
        };
        let pause = asked.unwrap_or(FIRST_PAUSE * 2_u32.saturating_pow(self.tries));
        self.tries += 1;
        if self.tries >= MAX_TRIES || pause > MAX_PAUSE {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Asks for the ways to some objects.
pub(super) async fn ask(
    remote: &LfsRemote,
    wanted: &[Wanted<'_>],
    reference: Option<&str>,
) -> Result<Vec<Grant>, Error> {
    let objects: Vec<_> = wanted
        .iter()
        .map(|object| json!({"oid": object.file.pointer.oid.to_string(), "size": object.size()}))
        .collect();
    let mut body =
        json!({"operation": "download", "transfers": ["basic"], "hash_algo": "sha256", "objects": objects});
    if let Some(name) = reference {
        body["ref"] = json!({"name": name});
    }
    let body = body.to_string();
    let mut patience = Patience::default();
    loop {
        match post(remote, &body).await {
            Ok(answer) => return granted(remote, wanted, answer),
            Err(trouble) => patience.after(trouble).await?,
        }
    }
}

async fn post(remote: &LfsRemote, body: &str) -> Result<Answer, Trouble> {
    let mut headers = own_headers(remote)?;
    headers.insert(header::ACCEPT, MEDIA_TYPE);
    headers.insert(header::CONTENT_TYPE, MEDIA_TYPE);
    let path = format!("{}/objects/batch", remote.endpoint);
    let request = remote.client.request(Method::POST, &path).headers(headers).body(body.to_owned());
    let response = remote.client.send(request).await.map_err(passing_or_fatal)?;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(refusal(response).await);
    }
    let unexpected = |problem| LfsError::Unexpected { status: status.as_u16(), problem };
    if !content_type(&response).is_some_and(|kind| ANSWER_TYPES.contains(&kind.as_str())) {
        return Err(unexpected("its content type is not that of the batch API").into());
    }
    let answer = match read_limited(response, MAX_ANSWER_BYTES).await {
        Ok(answer) => answer,
        Err(HttpError::BodyTooLarge { .. }) => return Err(unexpected("it is too large").into()),
        Err(error) => return Err(passing_or_fatal(error)),
    };
    // The library's own limit bounds the depth.
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|_| unexpected("it is not the JSON that the batch API has"))?;
    if answer.transfer.as_deref().is_some_and(|transfer| transfer != "basic") {
        return Err(unexpected("it wants another transfer than `basic`").into());
    }
    if answer.hash_algo.as_deref().is_some_and(|hash| hash != "sha256") {
        return Err(unexpected("it wants another hash than SHA-256").into());
    }
    Ok(answer)
}

/// What a status other than 200 means for all objects.
async fn refusal(response: Response) -> Trouble {
    let status = response.status();
    let asked = retry_after(response.headers());
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let host = shown_location(location.unwrap_or_default());
    let message = message(response).await;
    let code = status.as_u16();
    match code {
        429 => Trouble::Passing(Error::RateLimited { retry_after: asked }, asked),
        500 | 502 | 503 | 504 => Trouble::Passing(Error::ServerError { status: code, body: message }, asked),
        401 | 403 => LfsError::Denied { status: code, message }.into(),
        404 | 405 | 410 | 501 => LfsError::NotServed { status: code, message }.into(),
        300..=399 => LfsError::Elsewhere { host, object: None }.into(),
        _ => LfsError::Refused { status: code, message }.into(),
    }
}

/// The field `message` of an answer that explains itself, as the API documents it; empty where there is none.
pub(super) async fn message(response: Response) -> String {
    #[derive(Deserialize)]
    struct Explained {
        message: String,
    }
    let Ok(body) = read_limited(response, MAX_EXPLANATION_BYTES).await else { return String::new() };
    let explained = serde_json::from_slice::<Explained>(&body);
    explained.map_or_else(|_| String::new(), |explained| scrubbed(explained.message.as_bytes()))
}

/// A request that broke may be sent again; one that never got through has a cause that stays.
pub(super) fn passing_or_fatal(error: HttpError) -> Trouble {
    match error {
        HttpError::Interrupted { .. } | HttpError::TimedOut { .. } => {
            Trouble::Passing(Error::Http(error), None)
        }
        error => Trouble::Fatal(Error::Http(error)),
    }
}

#[derive(Deserialize)]
struct Answer {
    transfer: Option<String>,
    hash_algo: Option<String>,
    objects: Vec<Answered>,
}

#[derive(Deserialize)]
struct Answered {
    oid: String,
    size: Option<u64>,
    authenticated: Option<bool>,
    actions: Option<Actions>,
    error: Option<Refused>,
}

#[derive(Deserialize)]
struct Actions {
    download: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    header: Option<HashMap<String, String>>,
    expires_in: Option<i64>,
}

#[derive(Deserialize)]
struct Refused {
    code: u16,
    message: Option<String>,
}

/// Takes from the answer what was asked for, and nothing else.
fn granted(remote: &LfsRemote, wanted: &[Wanted<'_>], answer: Answer) -> Result<Vec<Grant>, Error> {
    let mut answered: HashMap<LfsOid, Answered> =
        answer.objects.into_iter().filter_map(|object| Some((LfsOid::parse(&object.oid)?, object))).collect();
    let mut grants = Vec::with_capacity(wanted.len());
    for object in wanted {
        let refused = |problem| failed(object.file, problem);
        let Some(found) = answered.remove(&object.file.pointer.oid) else {
            return Err(refused(ObjectProblem::NoAction));
        };
        if let Some(Refused { code, message }) = found.error {
            let message = scrubbed(message.unwrap_or_default().as_bytes());
            return Err(refused(ObjectProblem::Refused { code, message }));
        }
        if let Some(named) = found.size.filter(|size| *size != object.size()) {
            return Err(refused(ObjectProblem::SizeDiffers { expected: object.size(), named }));
        }
        let action = found.actions.and_then(|actions| actions.download);
        let action = action.ok_or_else(|| refused(ObjectProblem::NoAction))?;
        let path = at_server(remote, None, &action.href)
            .map_err(|host| LfsError::Elsewhere { host, object: Some(object.file.named()) })?;
        let authenticated = found.authenticated.unwrap_or(false);
        let headers = action_headers(remote, authenticated, action.header.unwrap_or_default())?;
        let expires = action.expires_in.and_then(|seconds| u64::try_from(seconds).ok());
        let expires = expires.and_then(|seconds| Duration::from_secs(seconds).checked_sub(EXPIRY_MARGIN));
        // One that is over at once would be asked for without end.
        let expires =
            expires.filter(|left| !left.is_zero()).map(|left| Instant::now() + left.min(MAX_EXPIRY));
        grants.push(Grant { files: object.files.clone(), path, headers, expires });
    }
    Ok(grants)
}

/// Path and query of a URL at the declared server; of any other one what may be shown of it. `base` is the path
/// that a relative one starts from.
pub(super) fn at_server(remote: &LfsRemote, base: Option<&str>, text: &str) -> Result<String, String> {
    let elsewhere = || {
        let shown: String = shown_location(text).chars().filter(|c| !c.is_control()).take(200).collect();
        if shown.is_empty() { "no URL".to_owned() } else { shown }
    };
    if text.len() > MAX_HREF_BYTES {
        return Err(elsewhere());
    }
    let base = base.and_then(|path| Url::parse(&format!("{}{path}", remote.client.origin())).ok());
    let url = Url::options().base_url(base.as_ref()).parse(text).map_err(|_| elsewhere())?;
    let has_user = !url.username().is_empty() || url.password().is_some();
    if url.origin().ascii_serialization() != remote.client.origin() || has_user {
        return Err(elsewhere());
    }
    // The same origin may have other applications, for which the credential is not meant.
    let place = RemoteUrl::parse(&format!("{}{}", remote.client.origin(), url.path()));
    if !place.is_ok_and(|place| remote.server.contains(&place)) {
        return Err(elsewhere());
    }
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{}{query}", url.path()))
}

/// What every request of ours carries.
fn own_headers(remote: &LfsRemote) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    if let Some(secret) = &remote.authorization {
        let value = HeaderValue::from_str(secret.expose());
        let mut value = value.map_err(|_| Error::Http(HttpError::BadRequest))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

/// What a download carries: the action's own headers, and our authorization unless the server says that the
/// request has one already.
fn action_headers(
    remote: &LfsRemote,
    authenticated: bool,
    wanted: HashMap<String, String>,
) -> Result<HeaderMap, Error> {
    let mut headers = own_headers(remote)?;
    if authenticated {
        headers.remove(header::AUTHORIZATION);
    }
    let malformed =
        || LfsError::Unexpected { status: 200, problem: "its headers for a download are malformed" };
    if wanted.len() > MAX_HEADERS {
        return Err(malformed().into());
    }
    for (name, value) in wanted {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed())?;
        let mut value = HeaderValue::from_str(&value).map_err(|_| malformed())?;
        value.set_sensitive(true);
        if !is_ours(&name) {
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

/// Headers that belong to the connection or to how much of an object is asked for.
fn is_ours(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 11] = [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::EXPECT,
        header::RANGE,
        header::IF_RANGE,
        header::ACCEPT_ENCODING,
    ];
    OURS.contains(name) || name.as_str().starts_with("proxy-")
}

/// An object as a message names it.
pub(super) fn elsewhere(host: String, object: Named) -> LfsError {
    LfsError::Elsewhere { host, object: Some(object) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Proxy, Server};
    use crate::dial::{Destination, Door, ProxyEnvironment};
    use crate::git::lfs::{LfsFile, Pointer};
    use crate::provider::Provider;
    use crate::secret::Secret;

    async fn remote() -> LfsRemote {
        let url = RemoteUrl::parse("https://gl.corp/gitlab/shop/web.git").unwrap();
        let base = RemoteUrl::parse("https://gl.corp/gitlab").unwrap();
        let mut server = Server::new("gl", Some(Provider::Gitlab), base.clone());
        server.proxy = Proxy::Direct;
        let destination = Destination::for_url(&url, &server);
        let client = Door::new(ProxyEnvironment::none()).client(&destination).await.unwrap();
        LfsRemote::new(&url, &base, client, Some(Secret::new("Basic b3Vycw==".into())))
    }

    fn file() -> LfsFile {
        let oid = LfsOid::parse(&"1".repeat(64)).unwrap();
        LfsFile { path: b"a".to_vec(), pointer: Pointer { oid, size: 5, has_extensions: false } }
    }

    /// What is made of an answer for the one file.
    fn grant(remote: &LfsRemote, mut object: serde_json::Value) -> Result<Grant, Error> {
        let file = file();
        object["oid"] = file.pointer.oid.to_string().into();
        let answer = serde_json::from_value(json!({"objects": [object]})).unwrap();
        let grants = granted(remote, &[Wanted { file: &file, files: vec![0] }], answer);
        grants.map(|mut grants| grants.remove(0))
    }

    fn action(more: serde_json::Value) -> serde_json::Value {
        let mut download = json!({"href": "https://gl.corp/gitlab/x?y=z"});
        for (key, value) in more.as_object().unwrap() {
            download[key] = value.clone();
        }
        json!({"size": 5, "actions": {"download": download}})
    }

    #[tokio::test(start_paused = true)]
    async fn an_action_is_good_until_shortly_before_its_end() {
        let remote = remote().await;
        let hour = grant(&remote, action(json!({"expires_in": 3600}))).unwrap();
        let forever =
            [json!({}), json!({"expires_in": 5}), json!({"expires_in": 0}), json!({"expires_in": -9})]
                .map(|more| grant(&remote, action(more)).unwrap());
        assert_eq!(hour.path, "/gitlab/x?y=z");
        tokio::time::advance(Duration::from_secs(3594)).await;
        assert!(!hour.is_expired());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(hour.is_expired());
        assert!(!forever.iter().any(Grant::is_expired));
    }

    #[tokio::test]
    async fn headers_of_an_action_go_before_ours_and_rule_nothing_of_the_connection() {
        let remote = remote().await;
        let sent = |object| grant(&remote, object).unwrap().headers;
        assert_eq!(sent(action(json!({})))[header::AUTHORIZATION], "Basic b3Vycw==");
        let own = sent(action(json!({"header": {"authorization": "Bearer theirs", "Host": "evil",
            "RANGE": "bytes=7-", "Content-Length": "9", "Proxy-Authorization": "x", "X-More": "1"}})));
        assert_eq!(own[header::AUTHORIZATION], "Bearer theirs");
        assert_eq!(own["x-more"], "1");
        assert_eq!(own.len(), 3, "{own:?}");
        assert!(!format!("{own:?}").contains("theirs"), "{own:?}");
        let mut authenticated = action(json!({}));
        authenticated["authenticated"] = true.into();
        assert!(!sent(authenticated).contains_key(header::AUTHORIZATION));
        let many: HashMap<String, String> = (0..33).map(|n| (format!("x-{n}"), String::new())).collect();
        for headers in [json!(many), json!({"a b": "c"}), json!({"a": "b\r\nc: d"})] {
            let refused = grant(&remote, action(json!({"header": headers}))).err().unwrap();
            assert!(matches!(&refused, Error::Lfs(error) if matches!(**error, LfsError::Unexpected { .. })));
        }
    }

    #[tokio::test]
    async fn another_size_and_an_answer_without_a_way_are_refused() {
        let remote = remote().await;
        let problem = |object| match grant(&remote, object).err().unwrap() {
            Error::Lfs(error) => match *error {
                LfsError::Object { problem, .. } => problem,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let mut other = action(json!({}));
        other["size"] = 6.into();
        assert!(matches!(problem(other), ObjectProblem::SizeDiffers { expected: 5, named: 6 }));
        assert!(matches!(problem(json!({})), ObjectProblem::NoAction));
        assert!(matches!(problem(json!({"actions": {}})), ObjectProblem::NoAction));
        let long = format!("https://gl.corp/gitlab/{}", "a".repeat(MAX_HREF_BYTES));
        let refused = grant(&remote, action(json!({"href": long}))).err().unwrap();
        assert!(matches!(&refused, Error::Lfs(error) if matches!(**error, LfsError::Elsewhere { .. })));
        assert!(refused.to_string().len() < 400, "{refused}");
    }
}
