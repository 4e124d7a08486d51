//! From the URL of a submodule as it is written to a whole one.

use crate::remote_url::{RemoteUrl, Scheme, UrlError};

/// The whole URL of a submodule: a relative one counts from the URL of the repository that has it, as with git.
///
/// What comes out is still to be parsed.
///
/// # Errors
/// [`UrlError::Path`] where a relative one leads above the root of the server, and [`UrlError::NotAUrl`] for one that
/// leads nowhere.
pub fn resolve(holder: &RemoteUrl, url: &str) -> Result<String, UrlError> {
    let mut rest = url;
    if !rest.starts_with("./") && !rest.starts_with("../") {
        return Ok(url.to_owned());
    }
    let short = holder.short_path();
    let mut base = short.unwrap_or_else(|| holder.path()).trim_end_matches('/');
    loop {
        if let Some(after) = rest.strip_prefix("../") {
            rest = after;
            if base.trim_start_matches('/').is_empty() {
                return Err(UrlError::Path);
            }
            base = base.rfind('/').and_then(|at| base.get(..at)).unwrap_or_default();
        } else if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else {
            break;
        }
    }
    if rest.trim_matches('/').is_empty() {
        return Err(UrlError::NotAUrl);
    }
    let user = match holder.scheme() {
        Scheme::Ssh => holder.user().map(escaped).unwrap_or_default(),
        Scheme::Https | Scheme::Http => String::new(),
    };
    let host = holder.authority();
    Ok(match short {
        // What lies in the home of the user has no slash in front of it.
        Some(short) if base.is_empty() && !short.starts_with('/') => format!("{user}{host}:{rest}"),
        Some(_) => format!("{user}{host}:{base}/{rest}"),
        None => format!("{}://{user}{host}{base}/{rest}", holder.scheme().as_str()),
    })
}

fn escaped(user: &str) -> String {
    percent_encoding::utf8_percent_encode(user, crate::remote_url::SEGMENT).to_string() + "@"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn resolved(holder: &str, url: &str) -> Result<String, UrlError> {
        let text = resolve(&RemoteUrl::parse(holder).unwrap(), url)?;
        RemoteUrl::parse(&text).map(|_| text)
    }

    #[test]
    fn relative_urls_count_from_the_repository_as_with_git() {
        for (holder, url, expected) in [
            ("https://h/a/b.git", "../c.git", "https://h/a/c.git"),
            ("https://u@h:8443/a/b.git", "../../c", "https://h:8443/c"),
            ("https://h/a/b", "./c", "https://h/a/b/c"),
            ("https://h/a/b", ".././../c", "https://h/c"),
            ("https://ado/Coll/My%20Shop/_git/web", "../lib", "https://ado/Coll/My%20Shop/_git/lib"),
            ("ssh://git@h:2222/a/b.git", "../c.git", "ssh://git@h:2222/a/c.git"),
            ("git@h:a/b.git", "../c.git", "git@h:a/c.git"),
            ("git@h:b.git", "../c.git", "git@h:c.git"),
            ("git@h:/a/b.git", "../../c.git", "git@h:/c.git"),
            ("git@h:a/b.git", "https://x/y", "https://x/y"),
        ] {
            assert_eq!(resolved(holder, url).as_deref(), Ok(expected), "{holder} {url}");
        }
    }

    #[test]
    fn nothing_leads_above_the_root_or_to_this_host() {
        for url in [
            "../../../c",
            "../..",
            "../",
            "./",
            "../a/../../b",
            "../%2e%2e/x",
            "../x\r",
            "/etc",
            "x/y",
            "file:///etc",
        ] {
            assert!(resolved("https://h/a/b", url).is_err(), "{url}");
        }
        for url in ["../../../c", "ext::sh -c id", "--upload-pack=x"] {
            assert!(resolved("git@h:a/b.git", url).is_err(), "{url}");
        }
    }
}
