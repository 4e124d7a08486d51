//! `sortie explain`: the catalogue's entry of a code, without any connection.

use std::fmt::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::screen::{Color, Screen, padded};
use super::{Common, Exit, complain, print, print_json};
use crate::report::Code;
use crate::report::catalogue::Entry;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sortie explain
  sortie explain tls_untrusted_issuer")]
pub(super) struct ExplainArgs {
    /// The code of a diagnosis or a warning; without one, all are listed
    code: Option<String>,
}

pub(super) fn execute(common: &Common, args: &ExplainArgs) -> Exit {
    let Some(name) = &args.code else {
        if common.json {
            print_json(&Code::ALL.iter().map(|code| to_json(code.entry())).collect::<Vec<_>>());
        } else {
            print(&list(&Screen::of_stdout()));
        }
        return Exit::Done;
    };
    match Code::of_name(name) {
        Some(code) if common.json => print_json(&to_json(code.entry())),
        Some(code) => print(&entry(code.entry(), &Screen::of_stdout())),
        None => {
            let likeness = |code: &Code| strsim::jaro_winkler(name, code.as_str());
            let near = Code::ALL.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            let near = near.map(|code| format!("; is {} meant?", code.as_str())).unwrap_or_default();
            let shown = Screen::of_stderr().fit(name);
            return complain(Exit::Usage, &format!("there is no code {shown}{near}"));
        }
    }
    Exit::Done
}

fn list(screen: &Screen) -> String {
    let width = Code::ALL.iter().map(|code| code.as_str().len()).max().unwrap_or_default() + 2;
    let indent = " ".repeat(width);
    let lines = Code::ALL.iter().map(|code| {
        let cause = format!("{}.", code.entry().cause);
        screen.wrap(&padded(code.as_str(), width), &indent, &cause)
    });
    lines.collect()
}

/// The entry for people.
fn entry(entry: &Entry, screen: &Screen) -> String {
    let stages: Vec<&str> = entry.stages.iter().map(|stage| stage.as_str()).collect();
    let mut out = format!("{}\n", screen.paint(Color::Strong, entry.code));
    out += &screen.wrap("  ", "  ", &format!("{}.", entry.cause));
    let mut part = |title: &str, text: &str| {
        if !text.is_empty() {
            let _ =
                write!(out, "\n{}\n{}", screen.paint(Color::Strong, title), screen.wrap("  ", "  ", text));
        }
    };
    part("What is measured", entry.seen);
    part("Why it happens", entry.why);
    part("On Azure DevOps", entry.on_azure_devops);
    part("On GitLab", entry.on_gitlab);
    part("On the agent's host", entry.on_host);
    let _ = writeln!(out, "\n{}", screen.paint(Color::Strong, "What to do"));
    for remedy in entry.remedies {
        out += &screen.wrap("  - ", "    ", remedy);
    }
    out += "\n";
    out += &screen.wrap("", "  ", &format!("It shows in: {}.", stages.join(", ")));
    out
}

fn to_json(entry: &Entry) -> Value {
    let stages: Vec<&str> = entry.stages.iter().map(|stage| stage.as_str()).collect();
    json!({
        "code": entry.code,
        "stages": stages,
        "cause": entry.cause,
        "remedies": entry.remedies,
        "seen": entry.seen,
        "why": entry.why,
        "on_azure_devops": entry.on_azure_devops,
        "on_gitlab": entry.on_gitlab,
        "on_host": entry.on_host,
    })
}
