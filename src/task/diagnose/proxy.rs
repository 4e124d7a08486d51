//! What a proxy did not do, and what it met behind itself.

use super::{Finding, Subject, connection};
use crate::config::ProxyKind;
use crate::dial::{DialError, Obstacle, ProxyReply};
use crate::report::Code;

/// Schemes that take a Windows login of the host itself, which this program has none of.
const WINDOWS_SCHEMES: [&str; 3] = ["negotiate", "ntlm", "kerberos"];

/// Statuses by which an HTTP proxy says that it did not reach the target (RFC 9110, section 15.6); tinyproxy says
/// 500.
const NOT_REACHED: [u16; 4] = [500, 502, 503, 504];

/// Statuses by which an HTTP proxy says that its rules are against a tunnel.
const AGAINST_RULES: [u16; 2] = [403, 405];

pub(super) fn proxy(error: &DialError, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        DialError::ProxyUnreachable { proxy, problem } => {
            (Code::ProxyUnreachable, format!("{proxy}, {problem}"), vec![])
        }
        DialError::ProxyProtocol { kind, .. } => (Code::ProxyUnreachable, seen, vec![other_kind(*kind)]),
        DialError::ProxyTls { proxy, cause } => of_proxy(proxy, cause, subject),
        DialError::ProxyAuthRequired { proxy, kind, schemes, credentials_sent } => {
            let sent = if *credentials_sent {
                "the proxy did not accept the user and password"
            } else {
                "nothing was sent"
            };
            let offers =
                if schemes.is_empty() { String::new() } else { format!(" offers {}", schemes.join(", ")) };
            let remedies = authentication(*kind, schemes);
            (Code::ProxyAuthRequired, format!("{proxy}{offers}; {sent}"), remedies)
        }
        DialError::ProxyRefused { proxy, reply } => {
            (Code::ProxyRefused, format!("{proxy} answered with {reply}"), refusal(proxy, *reply, subject))
        }
        DialError::BehindProxy { proxy, problem, .. } => behind(proxy, *problem, seen),
        // The caller sends only the variants above here.
        other => (Code::Internal, other.to_string(), vec![]),
    }
}

/// What is wrong with TLS to the proxy has the codes of TLS, with remedies for the proxy.
fn of_proxy(proxy: &str, cause: &DialError, subject: &Subject) -> Finding {
    let (code, seen, _) = connection::tls(cause, subject);
    // One that waits for other words than TLS, or hangs up on them, is not there as what it is named.
    let code = match cause {
        DialError::TlsTimedOut { .. } | DialError::Reset { .. } => Code::ProxyUnreachable,
        _ => code,
    };
    let remedy = match cause {
        DialError::UntrustedIssuer { .. } | DialError::IncompleteChain { .. } => format!(
            "Give the authority of the proxy {proxy} as {} once you have compared its fingerprint.",
            subject.setting("proxy_ca_file", "--proxy-ca-file")
        ),
        DialError::CaFile { path, .. } => {
            format!(
                "Put the authority's certificate in PEM into {}, or correct proxy_ca_file.",
                path.display()
            )
        }
        DialError::NotTls { .. } | DialError::TlsTimedOut { .. } | DialError::Reset { .. } => {
            format!("Name the proxy {proxy} as http:// if it does not speak TLS itself, as most do not.")
        }
        DialError::NameMismatch { names, .. } if !names.is_empty() => {
            format!("Name the proxy by a name of its certificate: {}.", names.join(", "))
        }
        _ => format!(
            "This is about TLS with the proxy {proxy} and not with the server: ask who runs the proxy."
        ),
    };
    (code, format!("this is the certificate or TLS of the proxy {proxy}: {seen}"), vec![remedy])
}

fn other_kind(kind: ProxyKind) -> String {
    let (named, others) = match kind {
        ProxyKind::Http => ("http", "https:// or socks5://"),
        ProxyKind::Https => ("https", "http:// or socks5://"),
        ProxyKind::Socks5 => ("socks5", "http:// or https://"),
    };
    format!("Check what the proxy speaks on that port: it is named {named}://, and may have to be {others}.")
}

/// What to do about authentication, where the offered schemes say more than the catalogue.
fn authentication(kind: ProxyKind, schemes: &[String]) -> Vec<String> {
    if kind == ProxyKind::Socks5 || schemes.iter().any(|scheme| scheme == "basic") {
        return vec![];
    }
    if schemes.iter().any(|scheme| WINDOWS_SCHEMES.contains(&scheme.as_str())) {
        let offered = schemes.join(", ");
        return vec![
            format!(
                "The proxy offers only {offered}, which this program does not speak: have Basic allowed for this \
                 host, or have the host let through without authentication."
            ),
            "Or run a relay on this host that logs in to the proxy, such as cntlm or px, and name the relay as the \
             proxy."
                .to_owned(),
        ];
    }
    match schemes {
        [] => vec![],
        schemes => {
            vec![format!("The proxy offers only {}: have Basic allowed for this host.", schemes.join(", "))]
        }
    }
}

fn refusal(proxy: &str, reply: ProxyReply, subject: &Subject) -> Vec<String> {
    let host = &subject.host;
    match reply {
        ProxyReply::Status(status) if NOT_REACHED.contains(&status) => vec![format!(
            "The proxy {proxy} did not reach {host} itself: have its name resolution and its way there checked; its \
             log says which failed."
        )],
        ProxyReply::Status(status) if !AGAINST_RULES.contains(&status) => vec![format!(
            "Look into the log of the proxy {proxy}: it names why it answered {status} to CONNECT for {host}."
        )],
        ProxyReply::Status(_) | ProxyReply::Socks(2) => {
            vec![format!("Have {host} allowed at the proxy {proxy}; its rules refuse it.")]
        }
        ProxyReply::Socks(_) | ProxyReply::SocksUnknown => {
            vec![format!("Look into the log of the proxy {proxy}: SOCKS tells no more than this.")]
        }
    }
}

/// The target's own trouble, as the proxy tells it.
fn behind(proxy: &str, problem: Obstacle, seen: String) -> Finding {
    let code = match problem {
        Obstacle::Refused => Code::ConnectionRefused,
        Obstacle::TimedOut => Code::ConnectionTimedOut,
        Obstacle::Reset => Code::ConnectionReset,
        Obstacle::Unreachable | Obstacle::NameNotFound | Obstacle::ResolverFailed | Obstacle::Socket(_) => {
            Code::NetworkUnreachable
        }
    };
    let remedy = format!(
        "It is the proxy {proxy} that does not get there, not this host: have its way, its firewall and its name \
         resolution checked."
    );
    (code, seen, vec![remedy])
}
