//! What is wrong between a connection and a running git over SSH: the server, its key, ours.

use super::{Finding, Subject};
use crate::provider::{Provider, azure_devops};
use crate::report::Code;
use crate::ssh::{self, AgentProblem, KeyProblem, TypeProblem};

pub(super) fn finding(error: &ssh::Error, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        ssh::Error::Dial(error) => super::connection::dial(error, subject),
        ssh::Error::Library { .. } => (Code::Internal, seen, vec![]),
        ssh::Error::NotSsh { first_bytes } if first_bytes.is_empty() => {
            (Code::NotSsh, "it says nothing".to_owned(), vec![])
        }
        ssh::Error::NotSsh { first_bytes } => {
            (Code::NotSsh, format!("its first bytes are `{first_bytes}`"), vec![])
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
        ssh::Error::Agent { socket, problem } => agent(&socket.display().to_string(), *problem, seen),
        ssh::Error::NotAKey { .. } => super::source::kind_mismatch(subject),
        ssh::Error::KeyUnreadable { .. }
        | ssh::Error::KeyTypeUnsupported { .. }
        | ssh::Error::KeyPassphrase { .. }
        | ssh::Error::KeyRejected { .. }
        | ssh::Error::KeyNotEnough { .. }
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
    let ssh::Error::NoCommonAlgorithm { banner, apart, ours, offered } = error else {
        return (Code::Internal, error.to_string(), vec![]);
    };
    let both = |kind: &ssh::Kind| {
        let (theirs, ours) = (offered.list(*kind).join(", "), ours.list(*kind).join(", "));
        format!("{}: it offers {theirs}, and the agent {ours}", kind.as_str())
    };
    let apart: Vec<String> = apart.iter().map(both).collect();
    (Code::SshNoCommonAlgorithm, format!("it is {banner}; {}", apart.join("; ")), vec![])
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
    match error {
        ssh::Error::HostKeyUnknown { host, offered, file, .. } => {
            let file = file.as_ref().map(|file| file.display().to_string());
            let published = published_keys(subject);
            let remedy = match file.or_else(|| subject.known_hosts_file.clone()) {
                Some(file) => format!(
                    "Compare {} with {published}, then add this line to {file}: {}",
                    offered.fingerprint, offered.entry
                ),
                None => format!(
                    "Compare {0} with {published}, then pin it: host_keys = [\"{0}\"] in {1}; or name a \
                     known_hosts_file there (--known-hosts on the command line) that has this line: {2}",
                    offered.fingerprint,
                    subject.table(),
                    offered.entry
                ),
            };
            let seen = format!("{host} shows {} {}", offered.key_type, offered.fingerprint);
            (Code::HostKeyUnknown, seen, vec![remedy])
        }
        ssh::Error::HostKeyChanged { host, offered, known, .. } => {
            let seen = format!("{host} shows {} {}", offered.key_type, offered.fingerprint);
            let ask = format!(
                "Ask who runs {} whether the key was changed, and compare {} with {}.",
                subject.host,
                offered.fingerprint,
                published_keys(subject)
            );
            let (seen, replace) = match known {
                ssh::KnownKey::InFile { file, line, key_type, fingerprint, revoked } => {
                    let has = if *revoked { "revokes it" } else { "has" };
                    let place = format!("{}:{line}", file.display());
                    let seen = format!("{seen}, and {place} {has} {key_type} {fingerprint}");
                    (
                        seen,
                        format!("Only if it was, put this line in the place of {place}: {}", offered.entry),
                    )
                }
                ssh::KnownKey::Pinned { key, pins } => {
                    let seen = format!("{seen}, and {key} has {}", pins.join(" and "));
                    let new = format!("{} {}", offered.key_type, offered.fingerprint);
                    (seen, format!("Only if it was, put \"{new}\" into {key}."))
                }
            };
            (Code::HostKeyChanged, seen, vec![ask, replace])
        }
        other => (Code::Internal, other.to_string(), vec![]),
    }
}

/// Where the fingerprints of a server's host keys are published.
fn published_keys(subject: &Subject) -> String {
    let web = subject.web_url.clone().unwrap_or_else(|| format!("https://{}", subject.host));
    match subject.provider {
        Some(Provider::Gitlab) if subject.host == "gitlab.com" => {
            "https://docs.gitlab.com/user/gitlab_com/#ssh-host-keys-fingerprints".to_owned()
        }
        Some(Provider::Gitlab) => format!("{web}/help/instance_configuration"),
        Some(Provider::AzureDevops) if azure_devops::is_cloud_host(&subject.host) => {
            "the page SSH public keys of your user settings at https://dev.azure.com, which shows it"
                .to_owned()
        }
        Some(Provider::AzureDevops) => {
            format!("the page SSH public keys of your user settings at {web}, which shows it")
        }
        Some(Provider::Git) | None => {
            "what `ssh-keygen -lf` prints on the server for its /etc/ssh/ssh_host_*_key.pub".to_owned()
        }
    }
}

fn agent(socket: &str, problem: AgentProblem, seen: String) -> Finding {
    let (code, remedy) = match problem {
        AgentProblem::Unreachable(_) | AgentProblem::NotAnAgent => {
            let remedy = format!(
                "See that an ssh-agent listens at {socket}, and that the user of sortie may connect to it."
            );
            (Code::CredentialUnreadable, remedy)
        }
        AgentProblem::NoTemporaryDirectory(_) => {
            let remedy = "Let the user of sortie write to /tmp, or set TMPDIR to a directory where it may.";
            (Code::CredentialUnreadable, remedy.to_owned())
        }
        AgentProblem::Declined => {
            let remedy =
                "Unlock the agent (ssh-add -X), and add the key without confirmation (ssh-add without -c).";
            (Code::CredentialUnreadable, remedy.to_owned())
        }
        AgentProblem::Empty | AgentProblem::KeyMissing => (
            Code::CredentialMissing,
            format!("Add the key to the agent: SSH_AUTH_SOCK={socket} ssh-add KEY."),
        ),
        AgentProblem::Several => {
            let remedy = format!(
                "Name the one to use: secret = {{ agent = \"{socket}\", key = \"SHA256:…\" }} in the configuration, \
                 --ssh-agent-key on the command line; SSH_AUTH_SOCK={socket} ssh-add -l lists them."
            );
            (Code::CredentialMissing, remedy)
        }
    };
    (code, seen, vec![remedy])
}

/// The command that makes a usable key of what was found, where there is one.
fn other_form(problem: KeyProblem) -> Option<String> {
    let remedy = match problem {
        KeyProblem::Putty => {
            "Run: puttygen KEY.ppk -O private-openssh -o KEY (package putty-tools), and give that KEY."
        }
        KeyProblem::SshCom => "Run: ssh-keygen -i -f FILE > KEY, and give that KEY.",
        KeyProblem::Cipher => "Encrypt the key anew: ssh-keygen -p -Z aes256-ctr -f KEY.",
        KeyProblem::Public | KeyProblem::SshCertificate => {
            "Give the file beside it whose name has no .pub: its first line says PRIVATE KEY."
        }
        KeyProblem::CutOff | KeyProblem::Damaged => {
            "Copy the file again, as a whole; ssh-keygen -y -f KEY prints its public half once it is in order."
        }
        KeyProblem::X509 => "Give the private key that belongs to the certificate, in PEM.",
        KeyProblem::Empty | KeyProblem::Pgp | KeyProblem::Unknown => return None,
    };
    Some(remedy.to_owned())
}

/// What to use in the place of a key of a type that does not go.
fn another_key(problem: TypeProblem) -> String {
    let kind = match problem {
        TypeProblem::RsaAlone => "-t rsa -b 3072",
        TypeProblem::Dsa | TypeProblem::SecurityKey | TypeProblem::NotOfSsh => {
            "-t ed25519 (-t rsa for Azure DevOps)"
        }
    };
    format!("Make another key, ssh-keygen {kind} -f KEY, and register KEY.pub with the user at the server.")
}

/// What was seen, with the key that was shown and the ways to authenticate that the server offers.
fn with_offer(mut seen: String, fingerprint: Option<&str>, hung_up: &str, methods: &[String]) -> String {
    if let Some(fingerprint) = fingerprint {
        seen += &format!("; the key's fingerprint is {fingerprint}");
    }
    seen += hung_up;
    if !methods.is_empty() {
        seen += &format!("; the server offers {}", methods.join(", "));
    }
    seen
}

fn key(error: &ssh::Error, subject: &Subject) -> Finding {
    let seen = error.to_string();
    match error {
        ssh::Error::KeyUnreadable { problem, .. } => {
            (Code::SshKeyUnreadable, seen, other_form(*problem).into_iter().collect())
        }
        ssh::Error::KeyTypeUnsupported { problem, .. } => {
            (Code::SshKeyTypeUnsupported, seen, vec![another_key(*problem)])
        }
        ssh::Error::KeyPassphrase { given, .. } => {
            let given = if *given { "one was given, so it is wrong" } else { "none was given" };
            (Code::SshKeyPassphrase, format!("{seen}; {given}"), vec![])
        }
        ssh::Error::KeyRejected { key_type, fingerprint, methods, hung_up, .. } => {
            let not_rsa = key_type.as_deref().is_some_and(|kind| !kind.contains("rsa"));
            if subject.provider == Some(Provider::AzureDevops) && not_rsa {
                let kind = key_type.as_deref().unwrap_or("unknown");
                let remedy = another_key(TypeProblem::RsaAlone);
                return (Code::SshKeyTypeUnsupported, format!("{seen}, which is {kind}"), vec![remedy]);
            }
            let hung_up = if *hung_up { "; it hung up when the key was shown" } else { "" };
            (Code::SshKeyRejected, with_offer(seen, fingerprint.as_deref(), hung_up, methods), vec![])
        }
        ssh::Error::KeyNotEnough { fingerprint, methods, .. } => {
            let remedy = "Let the key alone suffice for this user at the server (AuthenticationMethods publickey in \
                          sshd_config), and see that the account is neither locked nor expired.";
            let seen = with_offer(seen, fingerprint.as_deref(), "", methods);
            (Code::SshKeyRejected, seen, vec![remedy.to_owned()])
        }
        ssh::Error::RsaSha2NotAnnounced { banner } => {
            (Code::SshRsaSha2NotAnnounced, format!("{seen}; it is {banner}"), vec![])
        }
        ssh::Error::Authentication { .. } => (Code::SshKeyRejected, seen, vec![]),
        other => (Code::Internal, other.to_string(), vec![]),
    }
}
