//! The agents' WebSocket: what is checked before the upgrade, and the transport for [`crate::session`].

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{SinkExt, StreamExt};
use sortie_protocol::frame::{MAX_FRAME_BYTES, MAX_MESSAGE_BYTES};
use sortie_protocol::{FrameError, SUBPROTOCOL, negotiate};
use tokio::sync::OwnedSemaphorePermit;

use crate::api::App;
use crate::api::problem::ApiError;
use crate::identity::canonical_origin;
use crate::server::{Place, carry};
use crate::session::{Incoming, Outgoing};

/// Upgrades a request of an agent's to a session.
///
/// # Errors
/// 403 for a page of another site, 426 and 400 for what is no upgrade to the subprotocol, 503 while too many
/// agents connect.
pub async fn upgrade(
    State(app): State<Arc<App>>,
    Extension(place): Extension<Place>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    check_page(&app, &headers)?;
    let upgrade = upgrade.map_err(|rejection| {
        let status = rejection.into_response().status();
        ApiError::new(status, "websocket_required", "This address speaks WebSocket")
            .detail(format!("upgrade to a WebSocket with the subprotocol {SUBPROTOCOL}"))
    })?;
    let offered: Vec<_> = upgrade.requested_protocols().filter_map(|name| name.to_str().ok()).collect();
    if negotiate(offered).is_none() {
        let detail = format!("this control plane speaks {SUBPROTOCOL} and nothing else");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "subprotocol_required", "No common subprotocol")
            .detail(detail));
    }
    let handshake = app.gate.enter()?;
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_FRAME_BYTES)
        .max_write_buffer_size(app.limits.outbound_bytes);
    // The token keeps the server waiting at a stop until the session has ended.
    let alive = app.sessions.token();
    Ok(upgrade.on_upgrade(move |socket| async move {
        serve(app, socket, handshake).await;
        drop((alive, place));
    }))
}

/// A browser names the page that opens a WebSocket. No page but one of this control plane's own may.
pub(crate) fn check_page(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(page) = headers.get(ORIGIN) else { return Ok(()) };
    let page = canonical_origin(page.to_str().unwrap_or_default());
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = canonical_origin(&format!("{}://{host}", app.scheme));
    let is_own = page == own || app.public_urls.iter().any(|url| site_of(url) == page);
    if is_own {
        return Ok(());
    }
    Err(ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", "Pages of other sites may not connect"))
}

/// Scheme and authority of a URL.
fn site_of(url: &str) -> &str {
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    let end =
        url.get(after_scheme..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| after_scheme + at);
    url.get(..end).unwrap_or(url)
}

async fn serve(app: Arc<App>, socket: WebSocket, handshake: OwnedSemaphorePermit) {
    let (sink, stream) = socket.split();
    let reader = stream.map(incoming);
    let writer = sink.with(|out: Outgoing| std::future::ready(Ok::<_, axum::Error>(outgoing(out))));
    carry(&app, reader, writer, handshake).await;
}

fn incoming(message: Result<Message, axum::Error>) -> Incoming {
    match message {
        Ok(Message::Text(text)) => Incoming::Text(text.as_str().to_owned()),
        Ok(Message::Binary(_)) => Incoming::NotText,
        Ok(Message::Ping(_) | Message::Pong(_)) => Incoming::Alive,
        Ok(Message::Close(_)) => Incoming::Closed,
        Err(error) => broken(&error),
    }
}

/// Tells a peer that broke a limit from one that is gone.
fn broken(error: &axum::Error) -> Incoming {
    use tungstenite_of_axum as tungstenite;
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<tungstenite::Error>() {
            return match error {
                tungstenite::Error::Capacity(tungstenite::error::CapacityError::MessageTooLong {
                    size,
                    ..
                }) => Incoming::Broken(FrameError::TooLarge { bytes: *size }),
                tungstenite::Error::Capacity(_)
                | tungstenite::Error::Utf8(_)
                | tungstenite::Error::Protocol(_) => Incoming::Broken(FrameError::NotAMessage),
                _ => Incoming::Closed,
            };
        }
        source = error.source();
    }
    Incoming::Closed
}

fn outgoing(outgoing: Outgoing) -> Message {
    match outgoing {
        Outgoing::Text(text) => Message::Text(text.into()),
        Outgoing::Ping => Message::Ping(Vec::new().into()),
        Outgoing::Close => Message::Close(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_scheme_and_authority() {
        assert_eq!(site_of("https://a.example:8443/base"), "https://a.example:8443");
        assert_eq!(site_of("https://a.example"), "https://a.example");
    }
}
