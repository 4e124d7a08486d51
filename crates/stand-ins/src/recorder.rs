//! Remembers which requests arrived, so that a test can say what must and must not have been sent.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::Request;
use axum::http::header::AUTHORIZATION;

/// How many requests are remembered; the oldest are forgotten first.
const MAX_RECORDED_REQUESTS: usize = 10_000;

/// One request as it arrived. It never holds a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedRequest {
    /// The method, in capitals.
    pub method: String,
    /// The path with its query, undecoded.
    pub path: String,
    /// Whether it carried a credential in `Authorization` or `PRIVATE-TOKEN`.
    pub has_authorization: bool,
    /// The scheme of that credential as it was spelled: `Basic`, `Bearer`, …; `PRIVATE-TOKEN` for that header.
    pub authorization_scheme: Option<String>,
}

/// The requests of one server.
#[derive(Default)]
pub(crate) struct Recorder {
    requests: Mutex<VecDeque<RecordedRequest>>,
    arrived: Condvar,
}

impl Recorder {
    pub(crate) fn record(&self, request: &Request) {
        let headers = request.headers();
        let scheme = match headers.get(AUTHORIZATION) {
            Some(value) => {
                let text = String::from_utf8_lossy(value.as_bytes());
                // Only a word before a space is a scheme; anything else could be the secret itself.
                Some(text.split_once(' ').map_or("unknown", |(scheme, _)| scheme).to_owned())
            }
            None => headers.contains_key("private-token").then(|| "PRIVATE-TOKEN".to_owned()),
        };
        let recorded = RecordedRequest {
            method: request.method().to_string(),
            path: request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            has_authorization: scheme.is_some(),
            authorization_scheme: scheme,
        };
        let mut requests = self.lock();
        if requests.len() == MAX_RECORDED_REQUESTS {
            requests.pop_front();
        }
        requests.push_back(recorded);
        drop(requests);
        self.arrived.notify_all();
    }

    pub(crate) fn all(&self) -> Vec<RecordedRequest> {
        self.lock().iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    /// Blocks until a request satisfies `wanted` or the time is over; says whether one did.
    pub(crate) fn wait_for(&self, wanted: impl Fn(&RecordedRequest) -> bool, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut requests = self.lock();
        loop {
            if requests.iter().any(&wanted) {
                return true;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return false;
            };
            requests = match self.arrived.wait_timeout(requests, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<RecordedRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
