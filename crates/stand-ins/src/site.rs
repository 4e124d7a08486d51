//! One server while it runs, and what both servers need to answer a request.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::Response;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::fault::Faults;
use crate::recorder::Recorder;
use crate::world::{AzureDevOps, Gitlab, Provider, World};

/// What is escaped in a path inside of a URL.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Which server a site is, with its settings.
pub(crate) enum Product {
    /// Azure DevOps Server.
    AzureDevOps(AzureDevOps),
    /// GitLab.
    Gitlab(Gitlab),
}

impl Product {
    pub(crate) fn provider(&self) -> Provider {
        match self {
            Self::AzureDevOps(_) => Provider::AzureDevOps,
            Self::Gitlab(_) => Provider::Gitlab,
        }
    }
}

/// One server while it runs.
pub(crate) struct Site {
    pub(crate) world: Arc<World>,
    pub(crate) product: Product,
    pub(crate) scheme: &'static str,
    pub(crate) recorder: Recorder,
    pub(crate) faults: Faults,
    /// How far the clock that it tells by `Date` is ahead of the host's, in seconds; less than nothing is behind.
    pub(crate) clock_offset: AtomicI64,
}

impl Site {
    /// Scheme and host by which the client asked, such as `https://localhost:8443`.
    pub(crate) fn origin(&self, request: &Request) -> String {
        // HTTP/2 carries the host in the URI, HTTP/1.1 in a header.
        let host = request.uri().authority().map(|authority| authority.as_str().to_owned()).or_else(|| {
            let header = request.headers().get(HOST)?;
            header.to_str().ok().map(str::to_owned)
        });
        format!("{}://{}", self.scheme, host.unwrap_or_else(|| "localhost".to_owned()))
    }
}

/// Answers one request, with the date of its own clock.
pub(crate) async fn handle(State(site): State<Arc<Site>>, request: Request) -> Response {
    let mut response = answer(&site, request).await;
    let offset = site.clock_offset.load(Ordering::Relaxed);
    if offset != 0 {
        let away = Duration::from_secs(offset.unsigned_abs());
        let now = SystemTime::now();
        let date = if offset > 0 { now + away } else { now - away };
        set_header(&mut response, "date", &httpdate::fmt_http_date(date));
    }
    response
}

/// Records the request, lets a fault have it, or hands it to the product.
async fn answer(site: &Arc<Site>, request: Request) -> Response {
    site.recorder.record(&request);
    let path = path_and_query(request.uri()).to_owned();
    if let Some(response) = site.faults.replace(site.product.provider(), &path).await {
        return response;
    }
    match &site.product {
        Product::AzureDevOps(settings) => crate::azure_devops::answer(site, settings, request).await,
        Product::Gitlab(settings) => crate::gitlab::answer(site, settings, request).await,
    }
}

pub(crate) fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}

/// An answer with a body of one type.
pub(crate) fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Sets a header, unless the value cannot be one.
pub(crate) fn set_header(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The parts of a path between slashes, each decoded by itself; `None` when one is not UTF-8.
pub(crate) fn segments(path: &str) -> Option<Vec<String>> {
    path.split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_decode_str(segment).decode_utf8().ok().map(|text| text.into_owned()))
        .collect()
}

/// A path as it stands in a URL.
pub(crate) fn escape_path(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

/// The decoded value of one key of a query; the key is compared without regard to case.
pub(crate) fn query_value(uri: &Uri, wanted: &str) -> Option<String> {
    uri.query()?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !key.eq_ignore_ascii_case(wanted) {
            return None;
        }
        let value = value.replace('+', " ");
        percent_decode_str(&value).decode_utf8().ok().map(|text| text.into_owned())
    })
}

/// An identifier in the form of a GUID that is always the same for the same words.
pub(crate) fn guid(words: &[&str]) -> String {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        for word in words {
            word.to_lowercase().hash(&mut hasher);
        }
        hasher.finish()
    };
    let (high, low) = (half(1), half(2));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff
    )
}
