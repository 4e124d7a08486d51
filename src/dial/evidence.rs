//! What the head of an answer over HTTP tells whoever looks for the reason on the server or between.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use crate::report::Facts;

/// How much of one header is kept, in characters.
const MAX_VALUE_CHARS: usize = 300;

/// The headers that are kept, by the names of their facts. `via` and `server` tell a proxy's or a gateway's answer
/// from the server's own.
const KEPT_HEADERS: [(&str, &str); 4] = [
    ("content-type", "content_type"),
    ("server", "server_header"),
    ("via", "via"),
    ("x-request-id", "request_id"),
];

/// The facts of an answer that is the reason of a failure.
pub fn evidence(status: StatusCode, headers: &HeaderMap) -> Facts {
    let mut facts = Facts::new();
    facts.insert("status".to_owned(), status.as_u16().into());
    for (header, fact) in KEPT_HEADERS {
        // A header that is text at all holds printable ASCII alone.
        let Some(value) = headers.get(header).and_then(|value| value.to_str().ok()) else { continue };
        let value: String = value.chars().take(MAX_VALUE_CHARS).collect();
        if !value.is_empty() {
            facts.insert(fact.to_owned(), value.into());
        }
    }
    facts
}
