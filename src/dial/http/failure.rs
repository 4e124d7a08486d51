//! A failed request by its cause: found by walking the chain of causes and asking each for its type.

use std::error::Error;
use std::io;

use reqwest::header::{HeaderMap, PROXY_AUTHENTICATE};

use super::{Bound, READ_TIMEOUT};
use crate::config::{ProxyKind, ProxyServer};
use crate::dial::error::Obstacle;
use crate::dial::tls::{Shown, classify};
use crate::dial::{DialError, HttpError, connect, proxy, tunnel};
use crate::report::StageLog;

/// What the chain of causes holds.
#[derive(Default)]
struct Causes {
    dial: Option<DialError>,
    tls: Option<rustls::Error>,
    socket: Option<io::ErrorKind>,
    http2_reason: Option<h2::Reason>,
    is_out_of_form: bool,
}

/// Whether the server refuses to answer by HTTP/2.
pub(super) fn is_http1_demanded(error: &reqwest::Error) -> bool {
    Causes::of(error).http2_reason == Some(h2::Reason::HTTP_1_1_REQUIRED)
}

impl Causes {
    fn of(error: &reqwest::Error) -> Self {
        let mut causes = Self::default();
        let mut next: Option<&(dyn Error + 'static)> = error.source();
        while let Some(error) = next {
            causes.take(error);
            next = match error.downcast_ref::<io::Error>() {
                // Its `source` passes over the error that it holds.
                Some(io) => io.get_ref().map(|inner| -> &(dyn Error + 'static) { inner }),
                None => error.source(),
            };
        }
        causes
    }

    fn take(&mut self, error: &(dyn Error + 'static)) {
        if let Some(error) = error.downcast_ref::<DialError>() {
            self.dial = Some(error.clone());
        } else if let Some(error) = error.downcast_ref::<rustls::Error>() {
            self.tls = Some(error.clone());
        } else if let Some(error) = error.downcast_ref::<io::Error>() {
            self.socket = Some(error.kind());
        } else if let Some(error) = error.downcast_ref::<h2::Error>() {
            self.http2_reason = error.reason();
            self.socket = error.get_io().map(io::Error::kind).or(self.socket);
        } else if let Some(error) = error.downcast_ref::<hyper::Error>() {
            self.is_out_of_form |= error.is_parse();
        }
    }
}

/// Why a request got no answer.
pub(super) async fn explain(bound: &Bound, error: &reqwest::Error) -> HttpError {
    let causes = Causes::of(error);
    if !error.is_connect() {
        return while_running(error, causes, Some(&bound.shown));
    }
    if let Some(found) = while_connecting(bound, error, causes) {
        return HttpError::Dial(found);
    }
    let log = StageLog::default();
    match Box::pin(connect::connect(&bound.parts, &bound.destination, &log)).await {
        Err(found) => HttpError::Dial(found),
        // It works now: what is known is only that it did not before.
        Ok(_) => HttpError::Interrupted { kind: io::ErrorKind::ConnectionAborted },
    }
}

/// The cause of a failed connection, where the error itself tells it.
fn while_connecting(bound: &Bound, error: &reqwest::Error, causes: Causes) -> Option<DialError> {
    let speaks_tls_itself = bound.proxy.as_ref().is_some_and(|proxy| proxy.kind == ProxyKind::Https);
    if let Some(rejected) = causes.tls.as_ref().and_then(classify::rejected_in)
        && !speaks_tls_itself
    {
        return Some(classify::rejection(rejected, &bound.destination.host));
    }
    // Whether the proxy or the server behind it is at fault is not told, nor what an alert was about.
    if bound.proxy.is_some() || causes.tls.is_some() {
        return None;
    }
    if let Some(found) = causes.dial {
        return Some(found);
    }
    if error.is_timeout() {
        return Some(connect::failed(&bound.destination, Obstacle::TimedOut));
    }
    match connect::obstacle(causes.socket?) {
        Obstacle::Reset | Obstacle::Socket(_) => None,
        obstacle => Some(connect::failed(&bound.destination, obstacle)),
    }
}

/// The cause of a failure after the connection had come about.
fn while_running(error: &reqwest::Error, causes: Causes, shown: Option<&Shown>) -> HttpError {
    match causes {
        // In TLS 1.3 the server refuses after the handshake, so that the first read meets the alert.
        Causes { tls: Some(rustls::Error::AlertReceived(alert)), .. } => {
            match classify::alert_received(alert, "", shown) {
                error @ DialError::ClientCertificateRequired { .. } => error.into(),
                _ => HttpError::Interrupted { kind: io::ErrorKind::ConnectionAborted },
            }
        }
        _ if error.is_timeout() => HttpError::TimedOut { after: READ_TIMEOUT },
        _ if error.is_builder() => HttpError::BadRequest,
        Causes { is_out_of_form: true, .. } => HttpError::Protocol,
        Causes { socket: Some(kind), .. } => HttpError::Interrupted { kind },
        // The server ended the stream of its own will.
        Causes { http2_reason: Some(_), .. } => {
            HttpError::Interrupted { kind: io::ErrorKind::ConnectionReset }
        }
        // What remains is a connection that ended before the answer did.
        _ => HttpError::Interrupted { kind: io::ErrorKind::UnexpectedEof },
    }
}

/// For those who read an answer piece by piece. Nothing is dialled to find the cause.
impl From<reqwest::Error> for HttpError {
    fn from(error: reqwest::Error) -> Self {
        while_running(&error, Causes::of(&error), None)
    }
}

/// A 407 that came as the answer to a request without a tunnel.
pub(super) fn proxy_authentication(proxy: &ProxyServer, headers: &HeaderMap) -> DialError {
    let values = headers.get_all(PROXY_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    DialError::ProxyAuthRequired {
        proxy: proxy::endpoint(&proxy.host, proxy.port),
        kind: proxy.kind,
        schemes: values.flat_map(tunnel::offered_schemes).collect(),
        credentials_sent: proxy.authorization.is_some(),
    }
}
