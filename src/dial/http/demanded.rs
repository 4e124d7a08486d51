//! A client certificate that a web server demands only in its answer: nginx ends the handshake well in any case
//! and tells by HTTP what it makes of the certificate.

use reqwest::{Response, StatusCode};

use super::read_limited;
use crate::dial::tls::Shown;
use crate::dial::{DialError, HttpError};

/// The largest page that is looked at, in bytes; nginx's own have about 250.
const MAX_PAGE_BYTES: usize = 64 * 1024;

/// What stands on nginx's own pages: status 496, no certificate, and 495, one that it does not accept. Both go
/// out as 400 (the documentation of ngx_http_ssl_module, "Error Processing").
const NGINX_PAGES: [&str; 2] = ["No required SSL certificate was sent", "The SSL certificate error"];

/// The answer, or what it says of the client certificate that the server had asked for.
pub(super) async fn judged(response: Response, shown: &Shown) -> Result<Response, HttpError> {
    if response.status() != StatusCode::BAD_REQUEST || !shown.was_asked() {
        return Ok(response);
    }
    let mut rebuilt = http::Response::new(());
    *rebuilt.status_mut() = response.status();
    *rebuilt.version_mut() = response.version();
    rebuilt.headers_mut().clone_from(response.headers());
    let page = read_limited(response, MAX_PAGE_BYTES).await?;
    let text = String::from_utf8_lossy(&page);
    if NGINX_PAGES.iter().any(|mark| text.contains(mark)) {
        return Err(DialError::ClientCertificateRequired { sent: shown.was_sent() }.into());
    }
    drop(text);
    Ok(Response::from(rebuilt.map(|()| page)))
}
