//! The way to an HTTP server as a test sees it: one measured connection, its certificates, and both clocks.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{EXPIRY_WARNING_DAYS, Test};
use crate::dial::{CertificateFacts, Destination, DialError, HttpClient, Stream};
use crate::provider::rest::Trace;
use crate::provider::{azure_devops, gitlab};
use crate::remote_url::Scheme;
use crate::report::{Code, Stage};
use crate::task::diagnose::Failure;
use crate::task::stop::until_stopped;
use crate::task::target::Target;

/// How many seconds two clocks may differ before it is warned about. Tokens and single sign-on commonly bear five
/// minutes; what is told here has whole seconds and a way over the network in it.
pub const CLOCK_WARNING_SECONDS: i64 = 60;

impl Test<'_> {
    /// Notes what the last answer carries for whoever looks into the server's log. What a server says of a
    /// call that succeeded is no error of it.
    pub(super) fn note_evidence(&self, stage: Stage, trace: &Trace, has_failed: bool) {
        let Some(answer) = trace.last() else { return };
        let mut facts = azure_devops::evidence(&answer);
        if let Some(id) = gitlab::request_id(&answer) {
            facts.entry("request_id").or_insert(id.into());
        }
        if has_failed {
            for (name, value) in answer.evidence() {
                facts.entry(name).or_insert(value);
            }
        } else {
            facts.remove("service_error");
        }
        for (name, value) in facts {
            self.log.fact_at(stage, &name, value);
        }
    }

    /// One connection for its measurements, and the client that does the rest.
    pub(super) async fn connect(&mut self, target: &Target) -> Result<HttpClient, Failure> {
        let destination = Destination::for_url(&target.url, &target.server);
        let connected = until_stopped(self.control, self.tools.door.connect(&destination, self.log)).await;
        let stream = match connected.map_err(Failure::Stopped)? {
            Ok(stream) => stream,
            Err(error) => return Err(self.explained(&destination, error).await),
        };
        self.log.pass();
        if target.url.scheme() == Scheme::Http {
            self.warn(Code::PlainHttp, Stage::Connect, "", vec![]);
        }
        self.warn_about_certificates(&stream);
        drop(stream);
        let client = until_stopped(self.control, self.tools.door.client(&destination)).await;
        client.map_err(Failure::Stopped)?.map_err(Failure::Dial)
    }

    /// What else can be found out about a connection that did not come about.
    async fn explained(&mut self, destination: &Destination, error: DialError) -> Failure {
        if matches!(error, DialError::Expired { .. } | DialError::NotYetValid { .. }) {
            // Nothing that came over this connection can be believed, so that an earlier answer has to do.
            self.subject.clock = self.tools.door.clock_offset();
            if let Some(offset) = &self.subject.clock {
                self.log.fact("clock_offset_seconds", offset.seconds);
            }
        }
        let looked = self.tools.door.look_past_proxy(destination, error, self.log);
        match until_stopped(self.control, looked).await {
            Ok(error) => Failure::Dial(error),
            Err(stopped) => Failure::Stopped(stopped),
        }
    }

    /// Warns of every certificate on the way that ends soon: the server's chain, the proxy's, and our own.
    fn warn_about_certificates(&mut self, stream: &Stream) {
        let facts = stream.facts();
        let now = OffsetDateTime::now_utc();
        let chain = |tls: Option<&crate::dial::TlsFacts>| {
            let chain = tls.map(|tls| tls.chain.clone()).unwrap_or_default();
            chain.into_iter().filter(|certificate| !has_ended(certificate, now)).collect::<Vec<_>>()
        };
        let of_server = chain(facts.tls.as_ref()).into_iter().enumerate().map(|(place, certificate)| {
            let whose = if place == 0 { "it" } else { "one of its chain" };
            (Stage::Tls, whose, certificate)
        });
        let own = facts.client_certificate.iter().cloned();
        let own = own.map(|certificate| (Stage::Tls, "the client certificate of this host", certificate));
        let of_proxy = chain(facts.proxy_tls.as_ref()).into_iter();
        let of_proxy = of_proxy.map(|certificate| (Stage::Proxy, "the proxy's", certificate));
        let ending: Vec<_> =
            of_server.chain(own).chain(of_proxy).filter(|(.., certificate)| ends_soon(certificate)).collect();
        for (stage, whose, certificate) in ending {
            let seen = format!("{whose}, {}, ends at {}", certificate.subject, certificate.not_after);
            self.warn(Code::CertificateExpiresSoon, stage, &seen, vec![]);
        }
    }

    /// Compares this host's clock with the server's, by the answers that came already.
    pub(super) fn compare_clocks(&mut self, client: &HttpClient) {
        let Some(offset) = client.clock_offset() else { return };
        let Some(stage) = self.log.current() else { return };
        self.log.fact_at(stage, "clock_offset_seconds", offset.seconds);
        if offset.seconds.abs() > CLOCK_WARNING_SECONDS {
            let way = if offset.seconds > 0 { "ahead of" } else { "behind" };
            let seen = format!("the server's is {} s {way} this host's", offset.seconds.abs());
            self.warn(Code::ClockOffset, stage, &seen, vec![]);
        }
    }
}

fn ends_soon(certificate: &CertificateFacts) -> bool {
    OffsetDateTime::parse(&certificate.not_after, &Rfc3339)
        .is_ok_and(|end| (end - OffsetDateTime::now_utc()).whole_days() < EXPIRY_WARNING_DAYS)
}

/// Whether a certificate is past its end. In a chain that was verified such a one was not needed: servers send
/// them along, and nobody misses them.
fn has_ended(certificate: &CertificateFacts, now: OffsetDateTime) -> bool {
    OffsetDateTime::parse(&certificate.not_after, &Rfc3339).is_ok_and(|end| end < now)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_past_its_end_is_told_from_one_that_ends_soon() {
        let now = OffsetDateTime::parse("2026-11-21T04:00:00Z", &Rfc3339).unwrap();
        let ended = |not_after: &str| {
            let certificate = CertificateFacts { not_after: not_after.into(), ..CertificateFacts::default() };
            has_ended(&certificate, now)
        };
        assert!(ended("2021-01-01T00:00:00Z") && ended("2026-11-21T03:59:59Z"));
        assert!(!ended("2026-11-21T04:00:01Z") && !ended(""));
    }
}
