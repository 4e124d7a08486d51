//! What stands between this host and the server: lookup, proxy, TCP, TLS, SSH up to a session.

use std::io::ErrorKind;
use std::path::Path;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Finding, Subject, proxy};
use crate::credential::LoadError;
use crate::dial::{CaFileProblem, ClientCertificateProblem, ClockOffset, DialError, HttpError};
use crate::policy::AddressRefusal;
use crate::report::Code;
use crate::task::connection_test::CLOCK_WARNING_SECONDS;

pub(super) fn dial(error: &DialError, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        DialError::AddressNotAllowed { host, address, refusal } => {
            let remedies = match refusal {
                AddressRefusal::Loopback => {
                    vec![
                        "Correct the name's record in DNS or in the hosts file of the agent's host."
                            .to_owned(),
                        format!("If this is meant, set allow_loopback = true in {}.", subject.table()),
                    ]
                }
                AddressRefusal::LinkLocal | AddressRefusal::Translated | AddressRefusal::NoHost => vec![
                    "Such addresses are never used, whatever is declared: correct the URL, or the name's record in \
                     DNS or in the hosts file of the agent's host."
                        .to_owned(),
                ],
            };
            // A literal address leads to itself.
            let is_literal = *host == address.to_string();
            let seen = if is_literal { format!("{host} is {refusal}") } else { seen };
            (Code::AddressNotAllowed, seen, remedies)
        }
        DialError::NameNotFound { .. } => (Code::NameNotFound, seen, vec![]),
        DialError::ResolverFailed { .. } => (Code::ResolverFailed, seen, vec![]),
        DialError::ProxySetting { variable, .. } => {
            let form = "SCHEME://[user:password@]host[:port], with http, https or socks5";
            let remedy = format!("Correct the variable {variable}: {form}.");
            (Code::ProxyUnreachable, seen, vec![remedy])
        }
        DialError::ProxyUnreachable { .. }
        | DialError::ProxyProtocol { .. }
        | DialError::ProxyTls { .. }
        | DialError::ProxyAuthRequired { .. }
        | DialError::ProxyRefused { .. }
        | DialError::BehindProxy { .. } => proxy::proxy(error, subject),
        DialError::Refused { .. } => (Code::ConnectionRefused, seen, vec![]),
        DialError::TimedOut { .. } => {
            (Code::ConnectionTimedOut, format!("{seen}; a firewall drops it, most likely"), vec![])
        }
        DialError::Unreachable { .. } => (Code::NetworkUnreachable, seen, vec![]),
        DialError::Reset { .. } => (Code::ConnectionReset, seen, vec![]),
        DialError::Socket { .. } => (Code::NetworkUnreachable, seen, vec![]),
        DialError::ClientSetup => (Code::Internal, seen, vec![]),
        DialError::NotTls { .. }
        | DialError::TlsTimedOut { .. }
        | DialError::UntrustedIssuer { .. }
        | DialError::IncompleteChain { .. }
        | DialError::Expired { .. }
        | DialError::NotYetValid { .. }
        | DialError::NameMismatch { .. }
        | DialError::UnknownName { .. }
        | DialError::CutInHandshake { .. }
        | DialError::InvalidCertificate { .. }
        | DialError::LegacyOnly
        | DialError::ClientCertificateRequired { .. }
        | DialError::ClientCertificate { .. }
        | DialError::Intercepted(_)
        | DialError::TlsFailed { .. }
        | DialError::CaFile { .. } => tls(error, subject),
    }
}

pub(super) fn tls(error: &DialError, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        DialError::NotTls { first_bytes } => {
            (Code::NotTls, format!("its first bytes are `{first_bytes}`"), vec![])
        }
        DialError::TlsTimedOut { .. } => {
            let remedy = "The connection was accepted, and then nothing came: a load balancer without a live server \
                          behind it, an inspection device, or another service on that port. Look with `openssl \
                          s_client -connect HOST:PORT`.";
            (Code::ConnectionTimedOut, seen, vec![remedy.to_owned()])
        }
        DialError::UntrustedIssuer { issuer, fingerprint, inspection, self_signed, .. } => {
            let seen = format!("{seen}; fingerprint {fingerprint}");
            if let Some(product) = inspection {
                return (Code::TlsIntercepted, format!("{seen}; the issuer is one of {product}"), vec![]);
            }
            let what = if *self_signed {
                "the certificate itself".to_owned()
            } else {
                format!("the certificate of {issuer}")
            };
            (Code::TlsUntrustedIssuer, seen, vec![trust(&what, subject)])
        }
        DialError::IncompleteChain { issuer, issuer_url, fingerprint, .. } => {
            let remedies = vec![
                format!("Install the certificate of {issuer} on the server; it can be had at {issuer_url}."),
                format!("Until then, give it as {}.", subject.setting("ca_file", "--ca-file")),
            ];
            (Code::TlsIncompleteChain, format!("{seen}; fingerprint {fingerprint}"), remedies)
        }
        DialError::Expired { .. } => by_clock(Code::TlsExpired, seen, subject),
        DialError::NotYetValid { .. } => by_clock(Code::TlsNotYetValid, seen, subject),
        DialError::NameMismatch { host, names } if names.is_empty() => {
            (Code::TlsNameMismatch, format!("it has no name at all, and {host} was asked for"), vec![])
        }
        DialError::NameMismatch { host, names } => {
            (Code::TlsNameMismatch, format!("{}, and {host} was asked for", names.join(", ")), vec![])
        }
        DialError::UnknownName { .. } => (Code::TlsNameMismatch, seen, vec![]),
        DialError::InvalidCertificate { issuer, fingerprint, .. } => {
            let seen = format!("{seen}; its issuer is {issuer}, its fingerprint {fingerprint}");
            (Code::TlsUntrustedIssuer, seen, vec![])
        }
        DialError::LegacyOnly => (Code::TlsLegacyOnly, seen, vec![]),
        DialError::ClientCertificateRequired { sent } => {
            let seen = if *sent { "it did not accept the one that was sent" } else { "none was sent" };
            (Code::TlsClientCertificateRequired, seen.to_owned(), vec![client_certificate(*sent, subject)])
        }
        DialError::ClientCertificate { path, problem } => unusable_client_certificate(path, problem, seen),
        DialError::Intercepted(found) => {
            let (through, without) = (&found.fingerprint, &found.direct_fingerprint);
            let seen = format!("{seen}; fingerprint {through} through the proxy, {without} without");
            (Code::TlsIntercepted, seen, vec![])
        }
        DialError::TlsFailed { alert } => {
            let alert = alert.map(|alert| format!("; the server sent the alert {alert}")).unwrap_or_default();
            (Code::UnexpectedAnswer, format!("{seen}{alert}"), vec![])
        }
        DialError::CaFile { path, problem } => {
            (Code::TlsUntrustedIssuer, seen, vec![ca_file(path, *problem)])
        }
        // TLS with a proxy ends in the first one, too.
        DialError::Reset { .. } | DialError::CutInHandshake { .. } => (Code::ConnectionReset, seen, vec![]),
        // The callers send only the variants above here.
        other => (Code::Internal, other.to_string(), vec![]),
    }
}

/// A verdict that stands or falls with this host's clock.
fn by_clock(code: Code, seen: String, subject: &Subject) -> Finding {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let now = now.format(&Rfc3339).unwrap_or_default();
    let seen = format!("{seen}; the clock of this host says {now}");
    let Some(ClockOffset { source, seconds }) = &subject.clock else { return (code, seen, vec![]) };
    let way = if *seconds > 0 { "behind" } else { "ahead of" };
    let apart = seconds.abs();
    let seen = format!("{seen}, which is {apart} s {way} that of {source}");
    if apart <= CLOCK_WARNING_SECONDS {
        return (code, seen, vec![]);
    }
    (
        code,
        seen,
        vec![format!("Correct the clock of this host first: it is {apart} s {way} that of {source}.")],
    )
}

fn client_certificate(sent: bool, subject: &Subject) -> String {
    if sent {
        return format!(
            "Ask who runs {} which authorities and names it accepts, and whether the certificate is among its accounts.",
            subject.host
        );
    }
    format!(
        "Have a client certificate issued for this host, and name it with its key: {}.",
        subject.setting("client_cert_file and client_key_file", "--client-cert-file and --client-key-file")
    )
}

fn unusable_client_certificate(path: &Path, problem: &ClientCertificateProblem, seen: String) -> Finding {
    use ClientCertificateProblem as Problem;
    let path = path.display();
    let (code, remedy) = match problem {
        Problem::Unreadable(ErrorKind::NotFound) | Problem::Key(LoadError::Missing { .. }) => (
            Code::CredentialMissing,
            format!("Put the file at {path}, or correct its key in the configuration."),
        ),
        Problem::Key(LoadError::TooOpen { .. }) => (
            Code::CredentialUnreadable,
            format!(
                "Take it from the other users: chmod 600 {path}; or set strict_modes = false where the platform mounts secrets readable."
            ),
        ),
        Problem::Unreadable(_) | Problem::Key(_) | Problem::TooLarge => {
            (Code::CredentialUnreadable, format!("Let the agent's user read {path}."))
        }
        Problem::NoCertificate => (
            Code::CredentialUnreadable,
            format!(
                "Put the certificate, followed by its intermediate ones, in PEM (-----BEGIN CERTIFICATE-----) into {path}."
            ),
        ),
        Problem::NoKey | Problem::UnsupportedKey => (
            Code::CredentialUnreadable,
            format!(
                "Put the private key, RSA, ECDSA or Ed25519, in PEM (-----BEGIN PRIVATE KEY-----) into {path}."
            ),
        ),
        Problem::EncryptedKey => (
            Code::CredentialUnreadable,
            format!(
                "Write it without its passphrase into a file that only the agent's user can read: openssl pkey -in {path} -out FILE."
            ),
        ),
        Problem::Mismatch => (
            Code::CredentialUnreadable,
            "Name the key that the certificate was requested with as client_key_file; both show the same \
             openssl pkey -pubout and openssl x509 -pubkey -noout."
                .to_owned(),
        ),
    };
    (code, seen, vec![remedy])
}

fn trust(what: &str, subject: &Subject) -> String {
    match &subject.ca_file {
        Some(file) => format!("Add {what} to {file} once you have compared its fingerprint."),
        None => format!(
            "Give {what} as {} once you have compared its fingerprint.",
            subject.setting("ca_file", "--ca-file")
        ),
    }
}

fn ca_file(path: &Path, problem: CaFileProblem) -> String {
    let path = path.display();
    match problem {
        CaFileProblem::Unreadable(_) => format!("Let the agent's user read {path}, or correct ca_file."),
        CaFileProblem::TooLarge | CaFileProblem::NoCertificate | CaFileProblem::Malformed => {
            format!("Put the authority's certificate in PEM (-----BEGIN CERTIFICATE-----) into {path}.")
        }
    }
}

pub(super) fn http(error: &HttpError, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        HttpError::Dial(error) => dial(error, subject),
        HttpError::BodyTooLarge { .. } | HttpError::Protocol => (Code::UnexpectedAnswer, seen, vec![]),
        HttpError::Interrupted { .. } => (Code::ConnectionReset, seen, vec![]),
        HttpError::TimedOut { .. } => (Code::ConnectionTimedOut, seen, vec![]),
        HttpError::BadRequest => (Code::Internal, seen, vec![]),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_date_in_question_comes_with_this_hosts_clock_and_what_is_known_of_it() {
        let expired =
            DialError::Expired { subject: "CN=git".into(), not_after: "2020-01-01T00:00:00Z".into() };
        let told = |clock| {
            let (code, seen, remedies) = tls(&expired, &Subject { clock, ..Subject::default() });
            assert_eq!(code, Code::TlsExpired);
            (seen, remedies)
        };
        let (seen, remedies) = told(None);
        assert!(seen.contains("the clock of this host says 2") && remedies.is_empty(), "{seen}");
        let offset = |seconds| Some(ClockOffset { source: "sortie.example.com:443".into(), seconds });
        let (seen, remedies) = told(offset(2));
        assert!(seen.contains("2 s behind that of sortie.example.com:443") && remedies.is_empty(), "{seen}");
        let (_, remedies) = told(offset(-86_400));
        assert!(remedies[0].contains("86400 s ahead of that of sortie.example.com:443"), "{remedies:?}");
    }
}
