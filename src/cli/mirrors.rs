//! `sortie mirrors`: what was fetched before.

use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Common, Exit, complain, load_config, print, print_json};
use crate::git::{MirrorInfo, Mirrors};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sortie mirrors list
  sortie mirrors prune --bytes 1000000000")]
pub(super) struct MirrorsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the mirrors, the one that was used last first
    List,
    /// Remove mirrors, those that were used longest ago first; one that is in use stays
    Prune {
        /// Until all together take so many bytes at the most [default: 0, which removes all]
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        bytes: u64,
    },
}

#[derive(Serialize)]
struct Shown<'a> {
    key: &'a str,
    url: &'a str,
    identity: &'a str,
    bytes: u64,
    packs: u64,
    used_at: String,
}

impl<'a> From<&'a MirrorInfo> for Shown<'a> {
    fn from(mirror: &'a MirrorInfo) -> Self {
        let used = OffsetDateTime::from(mirror.used);
        Self {
            key: &mirror.key,
            url: &mirror.url,
            identity: &mirror.identity,
            bytes: mirror.bytes,
            packs: mirror.packs,
            used_at: used.replace_nanosecond(0).unwrap_or(used).format(&Rfc3339).unwrap_or_default(),
        }
    }
}

pub(super) fn execute(common: &Common, args: &MirrorsArgs) -> Exit {
    let config = match load_config(common) {
        Ok(config) => config,
        Err(error) => return complain(Exit::Configuration, &error.to_string()),
    };
    let mirrors = Mirrors::new(config.mirrors(), config.clones.mirrors_bytes.unwrap_or_default());
    let (found, schema) = match args.action {
        Action::List => (mirrors.list(), "sortie.mirrors.v1"),
        Action::Prune { bytes } => (mirrors.prune(bytes), "sortie.mirrors_removed.v1"),
    };
    let found = match found {
        Ok(found) => found,
        Err(error) => {
            let place = config.mirrors();
            return complain(Exit::Failed, &format!("{} cannot be used: {error}", place.display()));
        }
    };
    let shown: Vec<Shown<'_>> = found.iter().map(Shown::from).collect();
    if common.json {
        print_json(&serde_json::json!({ "schema": schema, "mirrors": shown }));
    } else {
        print(&table(&shown, matches!(args.action, Action::Prune { .. })));
    }
    Exit::Done
}

fn table(mirrors: &[Shown<'_>], are_gone: bool) -> String {
    let total: u64 = mirrors.iter().map(|mirror| mirror.bytes).sum();
    let mut text = String::new();
    for mirror in mirrors {
        let size = HumanBytes(mirror.bytes).to_string();
        let Shown { key, url, identity, used_at, .. } = mirror;
        text += &format!("{key}  {size:>12}  {used_at}  {url}  ({identity})\n");
    }
    let verb = if are_gone { "removed" } else { "kept" };
    text + &format!("{} mirrors {verb}, {}\n", mirrors.len(), HumanBytes(total))
}
