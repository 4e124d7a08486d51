//! What stands between this host and the server: lookup, proxy, TCP, TLS, SSH up to a session.

use std::io::ErrorKind;
use std::path::Path;

use super::{Finding, Subject, proxy};
use crate::credential::LoadError;
use crate::dial::{CaFileProblem, ClientCertificateProblem, DialError, HttpError};
use crate::policy::AddressRefusal;
use crate::provider::Provider;
use crate::report::Code;
use crate::ssh;

pub(super) fn dial(error: &DialError, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        DialError::AddressNotAllowed { refusal, .. } => {
            let remedies = match refusal {
                AddressRefusal::Loopback => {
                    vec![format!("If this is meant, set allow_loopback = true in {}.", subject.table())]
                }
                AddressRefusal::LinkLocal | AddressRefusal::NoHost => vec![],
            };
            (Code::AddressNotAllowed, seen, remedies)
        }
        DialError::NameNotFound { host } => {
            (Code::NameNotFound, seen, vec![format!("On the agent's host, try: getent hosts {host}")])
        }
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
        DialError::TimedOut { .. } => (Code::ConnectionTimedOut, seen, vec![]),
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
            (Code::NotTls, format!("{seen}; its first bytes are `{first_bytes}`"), vec![])
        }
        DialError::TlsTimedOut { .. } => (Code::ConnectionTimedOut, seen, vec![]),
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
            let remedy =
                format!("Install the certificate of {issuer} on the server; it can be had at {issuer_url}.");
            (Code::TlsIncompleteChain, format!("{seen}; fingerprint {fingerprint}"), vec![remedy])
        }
        DialError::Expired { .. } => (Code::TlsExpired, seen, vec![]),
        DialError::NotYetValid { .. } => (Code::TlsNotYetValid, seen, vec![]),
        DialError::NameMismatch { names, .. } if names.is_empty() => {
            (Code::TlsNameMismatch, format!("{seen}; it has no name at all"), vec![])
        }
        DialError::NameMismatch { names, .. } => {
            (Code::TlsNameMismatch, format!("{seen} but for {}", names.join(", ")), vec![])
        }
        DialError::InvalidCertificate { .. } => (Code::TlsUntrustedIssuer, seen, vec![]),
        DialError::LegacyOnly => (Code::TlsLegacyOnly, seen, vec![]),
        DialError::ClientCertificateRequired { sent } => {
            (Code::TlsClientCertificateRequired, seen, vec![client_certificate(*sent, subject)])
        }
        DialError::ClientCertificate { path, problem } => unusable_client_certificate(path, problem, seen),
        DialError::Intercepted(found) => {
            let (through, without) = (&found.fingerprint, &found.direct_fingerprint);
            let seen = format!("{seen}; fingerprint {through} through the proxy, {without} without");
            (Code::TlsIntercepted, seen, vec![])
        }
        DialError::TlsFailed { alert } => {
            let alert = alert.map(|alert| format!("; the server sent the alert {alert}")).unwrap_or_default();
            (Code::TlsLegacyOnly, format!("{seen}{alert}"), vec![])
        }
        DialError::CaFile { path, problem } => {
            (Code::TlsUntrustedIssuer, seen, vec![ca_file(path, *problem)])
        }
        // The caller sends only the variants above here.
        other => (Code::Internal, other.to_string(), vec![]),
    }
}

fn client_certificate(sent: bool, subject: &Subject) -> String {
    if sent {
        return format!(
            "Ask who runs {} which authorities and names it accepts, and whether the certificate is among its accounts.",
            subject.host
        );
    }
    format!(
        "Have a client certificate issued for this host, and name it with its key: client_cert_file and \
         client_key_file in {} (--client-cert-file and --client-key-file on the command line).",
        subject.table()
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
            "Give {what} as ca_file of {} (--ca-file on the command line) once you have compared its fingerprint.",
            subject.table()
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

pub(super) fn ssh(error: &ssh::Error, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        ssh::Error::Dial(error) => dial(error, subject),
        ssh::Error::Library { .. } => (Code::Internal, seen, vec![]),
        ssh::Error::NotSsh { first_bytes } if first_bytes.is_empty() => {
            (Code::NotSsh, format!("{seen}; it says nothing"), vec![])
        }
        ssh::Error::NotSsh { first_bytes } => {
            (Code::NotSsh, format!("{seen}; its first bytes are `{first_bytes}`"), vec![])
        }
        ssh::Error::NoCommonAlgorithm { .. } => no_common_algorithm(error),
        ssh::Error::TooBusy { .. } => (Code::RateLimited, seen, vec![LATER.into()]),
        ssh::Error::HungUp { reason, .. } => hung_up(*reason, seen),
        ssh::Error::Handshake { .. } => (Code::UnexpectedAnswer, seen, vec![]),
        ssh::Error::TimedOut { .. } => (Code::ConnectionTimedOut, seen, vec![]),
        ssh::Error::Disconnected { .. } => (Code::ConnectionReset, seen, vec![]),
        ssh::Error::KnownHostsUnreadable { path, .. } => {
            let remedy =
                format!("Let the agent's user read {}, or correct known_hosts_file.", path.display());
            (Code::HostKeyUnknown, seen, vec![remedy])
        }
        ssh::Error::HostKeyUnknown { .. } | ssh::Error::HostKeyChanged { .. } => host_key(error, subject),
        ssh::Error::NotAKey { .. } => super::source::kind_mismatch(subject),
        ssh::Error::KeyUnreadable { .. }
        | ssh::Error::KeyPassphrase { .. }
        | ssh::Error::KeyRejected { .. }
        | ssh::Error::RsaSha2NotAnnounced { .. }
        | ssh::Error::Authentication { .. } => key(error, subject),
        ssh::Error::Channel { .. } => (Code::RepositoryNotFoundOrDenied, seen, vec![]),
    }
}

/// What to do about a server that has too much to do.
const LATER: &str = "Try again later, and from fewer places at once; on the server, look at MaxStartups and \
                     PerSourcePenalties in sshd_config.";

/// What each side offers of the kinds that do not meet.
fn no_common_algorithm(error: &ssh::Error) -> Finding {
    let seen = error.to_string();
    let ssh::Error::NoCommonAlgorithm { banner, apart, ours, offered } = error else {
        return (Code::Internal, seen, vec![]);
    };
    let both = |kind: &ssh::Kind| {
        let (theirs, ours) = (offered.list(*kind).join(", "), ours.list(*kind).join(", "));
        format!("{}: it offers {theirs}, and the agent {ours}", kind.as_str())
    };
    let apart: Vec<String> = apart.iter().map(both).collect();
    (Code::SshNoCommonAlgorithm, format!("{seen}, which is {banner}; {}", apart.join("; ")), vec![])
}

/// What a server means that hangs up in form, by the reasons of RFC 4253, section 11.1.
fn hung_up(reason: u32, seen: String) -> Finding {
    const KEY_EXCHANGE_FAILED: u32 = 3;
    const SERVICE_NOT_AVAILABLE: u32 = 7;
    const TOO_MANY_CONNECTIONS: u32 = 12;
    match reason {
        KEY_EXCHANGE_FAILED => (Code::SshNoCommonAlgorithm, seen, vec![]),
        SERVICE_NOT_AVAILABLE => (Code::ServerUnavailable, seen, vec![]),
        TOO_MANY_CONNECTIONS => (Code::RateLimited, seen, vec![LATER.into()]),
        _ => (Code::ConnectionReset, seen, vec![]),
    }
}

fn host_key(error: &ssh::Error, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        ssh::Error::HostKeyUnknown { offered, file, .. } => {
            let file = file.as_ref().map(|file| file.display().to_string());
            let remedy = match file.or_else(|| subject.known_hosts_file.clone()) {
                Some(file) => format!(
                    "Compare {} with {}, then add this line to {file}: {}",
                    offered.fingerprint,
                    published_keys(subject),
                    offered.entry
                ),
                None => format!(
                    "Name a known_hosts_file in {} (--known-hosts on the command line) that has this line, once \
                     you have compared {} with {}: {}",
                    subject.table(),
                    offered.fingerprint,
                    published_keys(subject),
                    offered.entry
                ),
            };
            let seen = format!("{seen}; the server shows {} {}", offered.key_type, offered.fingerprint);
            (Code::HostKeyUnknown, seen, vec![remedy])
        }
        ssh::Error::HostKeyChanged {
            offered, file, line, known_type, known_fingerprint, revoked, ..
        } => {
            let known = if *revoked { "revokes it" } else { "has" };
            let seen = format!(
                "{seen}: the server shows {} {}, and {}:{line} {known} {known_type} {known_fingerprint}",
                offered.key_type,
                offered.fingerprint,
                file.display()
            );
            let remedy = format!("Ask who runs {} whether the key was changed.", subject.host);
            (Code::HostKeyChanged, seen, vec![remedy])
        }
        other => (Code::Internal, other.to_string(), vec![]),
    }
}

fn published_keys(subject: &Subject) -> String {
    match subject.provider {
        Some(Provider::Gitlab) => format!("https://{}/help/instance_configuration", subject.host),
        Some(Provider::AzureDevops | Provider::Git) | None => {
            "what the server's operator publishes".to_owned()
        }
    }
}

fn key(error: &ssh::Error, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        ssh::Error::KeyUnreadable { .. } => (Code::SshKeyUnreadable, seen, vec![]),
        ssh::Error::KeyPassphrase { given, .. } => {
            let given = if *given { "one was given, so it is wrong" } else { "none was given" };
            (Code::SshKeyPassphrase, format!("{seen}; {given}"), vec![])
        }
        ssh::Error::KeyRejected { key_type, fingerprint, methods, .. } => {
            let not_rsa = key_type.as_deref().is_some_and(|kind| !kind.contains("rsa"));
            if subject.provider == Some(Provider::AzureDevops) && not_rsa {
                let kind = key_type.as_deref().unwrap_or("unknown");
                return (Code::SshKeyTypeUnsupported, format!("{seen}, which is {kind}"), vec![]);
            }
            let mut seen = seen;
            if let Some(fingerprint) = fingerprint {
                seen += &format!("; the key's fingerprint is {fingerprint}");
            }
            if !methods.is_empty() {
                seen += &format!("; the server offers {}", methods.join(", "));
            }
            (Code::SshKeyRejected, seen, vec![])
        }
        ssh::Error::RsaSha2NotAnnounced { banner } => {
            (Code::SshRsaSha2NotAnnounced, format!("{seen}; it is {banner}"), vec![])
        }
        ssh::Error::Authentication { .. } => (Code::SshKeyRejected, seen, vec![]),
        other => (Code::Internal, other.to_string(), vec![]),
    }
}
