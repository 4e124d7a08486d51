//! How far this host's clock is from those of the servers that answer it, by the `Date` of their answers.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::header::{AGE, DATE, HeaderMap};

/// How far another clock is from this host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockOffset {
    /// Whose clock it is, as `host:port`.
    pub source: String,
    /// In seconds; more than nothing where the other clock is ahead of this host's. `Date` has whole seconds.
    pub seconds: i64,
}

/// The last offset that was seen, shared by those who look and those who ask.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<ClockOffset>>);

impl Clock {
    /// The last one.
    pub(super) fn get(&self) -> Option<ClockOffset> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, offset: ClockOffset) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(offset);
    }
}

/// The offset that an answer shows which came `waited` after its request. A cache on the way says by `Age` how
/// old the date is (RFC 9111, section 5.1).
pub(super) fn offset(headers: &HeaderMap, now: SystemTime, waited: Duration) -> Option<i64> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let age = text(AGE).and_then(|age| age.trim().parse().ok()).unwrap_or(0);
    offset_of(text(DATE)?, Duration::from_secs(age), now, waited)
}

/// The same for a date by itself.
pub(super) fn offset_of(date: &str, age: Duration, now: SystemTime, waited: Duration) -> Option<i64> {
    let theirs = httpdate::parse_http_date(date.trim()).ok()?.checked_add(age)?;
    // The answer was made somewhere between the request and now.
    let ours = now.checked_sub(waited / 2)?;
    let seconds = |time: Duration| i64::try_from(time.as_secs()).ok();
    match theirs.duration_since(ours) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => seconds(behind.duration()).map(|seconds| -seconds),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_compared_with_the_middle_of_the_wait_and_with_its_age() {
        let now = httpdate::parse_http_date("Sat, 21 Nov 2026 04:00:10 GMT").unwrap();
        let seen = |headers: &[(&'static str, &'static str)], waited| {
            let headers: HeaderMap =
                headers.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect();
            offset(&headers, now, Duration::from_secs(waited))
        };
        assert_eq!(seen(&[("date", "Sat, 21 Nov 2026 05:00:10 GMT")], 0), Some(3600));
        assert_eq!(seen(&[("date", "Sat, 21 Nov 2026 03:00:10 GMT")], 0), Some(-3600));
        assert_eq!(seen(&[("date", "Sat, 21 Nov 2026 04:00:00 GMT")], 20), Some(0));
        assert_eq!(seen(&[("date", "Sat, 21 Nov 2026 03:00:10 GMT"), ("age", "3600")], 0), Some(0));
        assert_eq!(seen(&[("date", "yesterday")], 0), None);
        assert_eq!(seen(&[], 0), None);
    }
}
