//! The list of remedies that a report carries: few, none twice, and with the names of the very case in them.

use super::Subject;
use crate::provider::Provider;
use crate::remote_url::{RemoteUrl, Scheme};
use crate::report::{Code, Diagnosis, Stage};

/// How many remedies a report names at most: who has to read more tries none.
const MAX_REMEDIES: usize = 3;

/// The codes where what is known of the case only adds to the catalogue's general remedies.
const ADDING: [Code; 5] = [
    Code::ProjectNotFoundOrDenied,
    Code::RepositoryNotFoundOrDenied,
    Code::ReferenceNotFound,
    Code::PasswordRejected,
    Code::Slow,
];

/// Words of the catalogue that name a key of the configuration, and the flag that does the same for a server which
/// only the command line knows.
const FLAGS: [(&str, &str); 7] = [
    ("known_hosts_file in [servers.<name>]", "--known-hosts"),
    ("ca_file in [servers.<name>]", "--ca-file"),
    ("--provider, or provider in [servers.<name>]", "--provider"),
    ("proxy in [servers.<name>]", "--proxy"),
    ("proxy = \"none\" in [servers.<name>]", "--proxy none"),
    ("url in [servers.<name>]", "the URL"),
    ("api_credential in [servers.<name>], or --api-pat-file", "--api-pat-file"),
];

/// A diagnosis with its remedies: those of the case in the place of the catalogue's general ones, and last one that
/// names the setting where it is made, on this kind of server or else on this host.
pub(in crate::task) fn advised(
    code: Code,
    stage: Stage,
    seen: &str,
    specific: Vec<String>,
    subject: &Subject,
) -> Diagnosis {
    let entry = code.entry();
    let adds = specific.is_empty() || ADDING.contains(&code);
    let place = match subject.provider {
        Some(Provider::AzureDevops) if !entry.on_azure_devops.is_empty() => {
            Some(format!("On Azure DevOps: {}", entry.on_azure_devops))
        }
        Some(Provider::Gitlab) if !entry.on_gitlab.is_empty() => {
            Some(format!("On GitLab: {}", entry.on_gitlab))
        }
        // What is known of the case is about this host already.
        _ if adds && !entry.on_host.is_empty() => Some(format!("On the agent's host: {}", entry.on_host)),
        _ => None,
    };
    let general = entry.remedies.iter().filter(|_| adds).map(|remedy| filled(remedy, subject));
    let room = MAX_REMEDIES - usize::from(place.is_some());
    let mut remedies: Vec<String> = specific.into_iter().chain(general).take(room).collect();
    remedies.extend(place.map(|place| filled(&place, subject)));
    Diagnosis { remedies, ..Diagnosis::new(code, stage, seen, vec![]) }
}

/// The catalogue's words with the target in the place of the words that stand for it there.
fn filled(text: &str, subject: &Subject) -> String {
    let mut text = text.to_owned();
    if let Some(server) = &subject.server {
        text = text.replace("[servers.<name>]", &format!("[servers.{server}]"));
    } else if subject.is_by_flags {
        for (key, flag) in FLAGS {
            text = text.replace(key, flag);
        }
    }
    if let Some(credential) = &subject.credential {
        text = text.replace("[credentials.<name>]", &format!("[credentials.{credential}]"));
    }
    let Ok(url) = RemoteUrl::parse(&subject.url) else { return text };
    let host = url.host().trim_matches(['[', ']']);
    let in_url = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let port = url.port().to_string();
    text = text
        .replace("HOST:PORT", &format!("{in_url}:{port}"))
        .replace("https://HOST", &format!("https://{in_url}"))
        .replace("HOST", host)
        .replace("PORT", &port)
        .replace("hosts NAME", &format!("hosts {host}"))
        .replace("@ADDRESS NAME", &format!("@ADDRESS {host}"));
    match in_shell(&url) {
        Some(shown) => text
            .replace("curl -sI URL", &format!("curl -sI {shown}"))
            .replace("curl -si URL", &format!("curl -si {shown}")),
        None => text,
    }
}

/// The URL as a shell takes it for one word and nothing else; none where it is not one for curl.
fn in_shell(url: &RemoteUrl) -> Option<String> {
    let url = (url.scheme() != Scheme::Ssh).then(|| url.to_string())?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ":/._-%[]~".contains(c);
    if url.chars().all(is_plain) {
        return Some(url);
    }
    (!url.contains(['\'', '`'])).then(|| format!("'{url}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(url: &str, server: Option<&str>) -> Subject {
        let server = server.map(str::to_owned);
        Subject { url: url.to_owned(), is_by_flags: server.is_none(), server, ..Subject::default() }
    }

    #[test]
    fn no_list_is_long_or_says_a_thing_twice() {
        let providers = [None, Some(Provider::AzureDevops), Some(Provider::Gitlab)];
        for (code, provider) in Code::ALL.iter().flat_map(|code| providers.map(|provider| (*code, provider)))
        {
            let subject = Subject { provider, ..subject("https://git.corp:8443/web", Some("corp")) };
            for specific in [0, 1, 2, 5] {
                let specific: Vec<String> = (0..specific).map(|n| format!("The case's own, {n}.")).collect();
                let found = advised(code, Stage::Policy, "", specific.clone(), &subject);
                assert!((1..=MAX_REMEDIES).contains(&found.remedies.len()), "{found:?}");
                let is_general = |remedy: &String| code.entry().remedies.contains(&remedy.as_str());
                if !specific.is_empty() {
                    assert_eq!(found.remedies[0], specific[0]);
                    assert!(ADDING.contains(&code) || !found.remedies.iter().any(is_general), "{found:?}");
                }
            }
        }
    }

    #[test]
    fn commands_name_the_target_itself() {
        let told = |code, url: &str, server| {
            advised(code, Stage::Policy, "", vec![], &subject(url, server)).remedies.join("\n")
        };
        let url = "https://git.corp:8443/web";
        for (code, expected) in [
            (Code::NotTls, "`openssl s_client -connect git.corp:8443`"),
            (Code::TlsLegacyOnly, "`openssl s_client -connect git.corp:8443 -tls1_2`"),
            (Code::ConnectionRefused, "`nc -vz git.corp 8443`"),
            (Code::NameNotFound, "`getent hosts git.corp`"),
            (Code::UnexpectedAnswer, "`curl -si https://git.corp:8443/web | head -30`"),
            (Code::NotSsh, "`nc git.corp 8443`"),
            (Code::HostKeyUnknown, "`ssh-keyscan -p 8443 git.corp >>"),
            (Code::TlsUntrustedIssuer, "Set --ca-file to a PEM file"),
        ] {
            let told = told(code, url, None);
            assert!(told.contains(expected), "{told}");
        }
        assert!(told(Code::TlsUntrustedIssuer, url, Some("corp")).contains("ca_file in [servers.corp]"));
        assert!(told(Code::NotTls, "https://[::1]:1/x", None).contains("-connect [::1]:1`"));
        assert!(
            told(Code::UnexpectedAnswer, "https://git.corp/a$b", None).contains("'https://git.corp/a$b'")
        );
        assert!(!told(Code::UnexpectedAnswer, "https://git.corp/a'b;c", None).contains("'b;c"));
    }
}
