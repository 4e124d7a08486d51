//! A connection test for a ticket: Markdown that holds what a reader needs and nothing that opens anything.
//!
//! A ticket is read by many, and it is a page of somebody else's program. So texts of servers must not become
//! links, mentions, pictures or HTML there, and what looks like a secret does not go in, whoever said it.

use std::fmt::Write as _;

use sortie_protocol::report::{Diagnosis, Report, ReportOutcome, Stage};

use super::screen::Screen;
use super::table::{facts, mark};

/// What begins tokens of the servers and services that mark theirs.
const TOKEN_STARTS: [&str; 14] = [
    "glpat-",
    "gldt-",
    "glptt-",
    "glcbt-",
    "gloas-",
    "glrt-",
    "glsoat-",
    "glft-",
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "eyJ",
    "AKIA",
];
/// The length of an Azure DevOps token in its old form, letters and digits in lower case.
const OLD_AZURE_TOKEN_CHARS: usize = 52;
/// The length from which on a word of letters and digits alone is taken for a token; fingerprints and commits
/// are shorter or have other characters.
const LONG_TOKEN_CHARS: usize = 70;
/// What stands in the place of something that looks like a token.
const REMOVED: &str = "(removed)";

/// The report.
pub(super) fn report(report: &Report) -> String {
    let screen = Screen { width: usize::MAX, unicode: true, colors: false, live: false };
    let mut out = String::new();
    match &report.diagnosis {
        Some(diagnosis) => {
            let _ = writeln!(out, "## Connection test failed: `{}`\n", diagnosis.code);
        }
        None => out += "## Connection test succeeded\n\n",
    }
    out += "| | |\n|---|---|\n";
    let took = facts::milliseconds(report.duration_ms);
    for (name, value) in [
        ("Target", report.target.url.clone()),
        ("Kind", facts::kind(report)),
        ("Server", facts::server(report).unwrap_or_default()),
        ("Credential", facts::credential(report)),
        ("Capabilities", facts::capabilities(report)),
        ("Started", report.started_at.clone()),
        ("Took", took),
        ("By", format!("sortie {}", env!("CARGO_PKG_VERSION"))),
    ] {
        if !value.is_empty() {
            let _ = writeln!(out, "| {name} | {} |", code(&value, &screen));
        }
    }
    if let (ReportOutcome::Failed, Some(diagnosis)) = (report.outcome, &report.diagnosis) {
        explain(&mut out, "Diagnosis", diagnosis, &screen);
    }
    for warning in &report.warnings {
        explain(&mut out, "Warning", warning, &screen);
    }
    out += "\n### Stages\n\n| | stage | time | seen |\n|---|---|---:|---|\n";
    for stage in &report.stages {
        let (mark, _) = mark(stage.status, &screen);
        let time = facts::milliseconds(stage.duration_ms);
        let seen = code(&facts::telling(stage, Some(report)), &screen);
        let _ = writeln!(out, "| {mark} | {} | {time} | {seen} |", stage.stage);
    }
    all_facts(&mut out, &report.stages, &screen);
    out
}

fn explain(out: &mut String, title: &str, diagnosis: &Diagnosis, screen: &Screen) {
    let _ = writeln!(out, "\n### {title}: `{}` at `{}`\n", diagnosis.code, diagnosis.stage);
    let _ = writeln!(out, "{}\n", prose(&diagnosis.summary, screen));
    for remedy in &diagnosis.remedies {
        let _ = writeln!(out, "- {}", prose(remedy, screen));
    }
}

fn all_facts(out: &mut String, stages: &[Stage], screen: &Screen) {
    *out += "\n<details>\n<summary>Facts</summary>\n\n| stage | fact | value |\n|---|---|---|\n";
    for stage in stages {
        for (name, value) in &stage.facts {
            let value = facts::plain(value);
            if !value.is_empty() {
                let (name, value) = (code(name, screen), code(&value, screen));
                let _ = writeln!(out, "| {} | {name} | {value} |", stage.stage);
            }
        }
    }
    *out += "\n</details>\n";
}

/// A text as a span of code in a table's cell: nothing in it means anything there.
fn code(text: &str, screen: &Screen) -> String {
    let text = scrubbed(&screen.fit(text)).replace('|', "\\|");
    if text.trim().is_empty() {
        return String::new();
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// A sentence, with everything escaped that would be more than text.
fn prose(text: &str, screen: &Screen) -> String {
    let mut out = String::new();
    let mut previous = ' ';
    for c in scrubbed(&screen.fit(text)).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | '!' | '$' | '^' => {
                out.push('\\');
                out.push(c);
            }
            // A word joiner keeps a name from being called; an address such as git@host is none.
            '@' if !previous.is_alphanumeric() => out.push_str("@\u{2060}"),
            c => out.push(c),
        }
        previous = c;
    }
    out
}

/// The text without user info in URLs and without words that look like tokens.
fn scrubbed(text: &str) -> String {
    let scrub = |word: &str| {
        let word = without_user_info(word);
        let bare = |c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_');
        let found = word.split(bare).find(|part| is_token(part)).map(str::to_owned);
        found.map_or(word.clone(), |token| word.replace(&token, REMOVED))
    };
    text.split(' ').map(scrub).collect::<Vec<_>>().join(" ")
}

fn without_user_info(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

fn is_token(word: &str) -> bool {
    const LEAST_CHARS: usize = 16;
    let is_plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_old_azure = word.len() == OLD_AZURE_TOKEN_CHARS
        && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let has_start = word.len() >= LEAST_CHARS && TOKEN_STARTS.iter().any(|start| word.starts_with(start));
    has_start || is_old_azure || (is_plain && word.len() >= LONG_TOKEN_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCREEN: Screen = Screen { width: usize::MAX, unicode: true, colors: false, live: false };

    #[test]
    fn texts_of_servers_stay_text() {
        assert_eq!(code("a|b`c", &SCREEN), "``a\\|b`c``");
        assert_eq!(code("`x`", &SCREEN), "`` `x` ``");
        assert_eq!(code("<img src=x>\n\u{1b}[2J", &SCREEN), "`<img src=x>[2J`");
        assert_eq!(
            prose("<b>@all</b> [x](https://e) ![y] #1 git@host", &SCREEN),
            "&lt;b&gt;@\u{2060}all&lt;/b&gt; \\[x\\](https://e) \\!\\[y\\] \\#1 git@host"
        );
    }

    #[test]
    fn what_looks_like_a_secret_does_not_go_in() {
        let old = "a2b3".repeat(13);
        let new = "Az9".repeat(28);
        for (text, expected) in [
            ("at https://ada:secret@host/x?y@z now".to_owned(), "at https://host/x?y@z now".to_owned()),
            ("it says `glpat-0123456789abcdef`.".to_owned(), format!("it says `{REMOVED}`.")),
            (format!("token={old};"), format!("token={REMOVED};")),
            (new, REMOVED.to_owned()),
            (format!("commit {}", "a".repeat(40)), format!("commit {}", "a".repeat(40))),
            (format!("SHA256:{}", "x".repeat(43)), format!("SHA256:{}", "x".repeat(43))),
        ] {
            assert_eq!(scrubbed(&text), expected);
        }
    }
}
