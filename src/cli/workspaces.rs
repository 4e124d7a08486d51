//! `sortie workspaces`: the clones of tasks on this host.

use clap::{Args, Subcommand};
use indicatif::{HumanBytes, HumanDuration};

use super::{Common, Exit, complain, load_config, print, print_json};
use crate::workspace::{Workspace, Workspaces, time_left};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sortie workspaces
  sortie workspaces prune --all")]
pub(super) struct WorkspacesArgs {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Action {
    /// List the workspaces, the newest first
    List,
    /// Remove those whose time is over
    Prune {
        /// Remove all of them
        #[arg(long)]
        all: bool,
    },
}

pub(super) fn execute(common: &Common, args: &WorkspacesArgs) -> Exit {
    let config = match load_config(common) {
        Ok(config) => config,
        Err(error) => return complain(Exit::Configuration, &error.to_string()),
    };
    let workspaces = Workspaces::new(config.workspaces(), config.placed(), config.clones.workspaces.clone());
    let (found, schema, verb) = match args.action.unwrap_or(Action::List) {
        Action::List => (workspaces.list(), "sortie.workspaces.v1", "kept"),
        Action::Prune { all: false } => {
            (workspaces.remove_expired(), "sortie.workspaces_removed.v1", "removed")
        }
        Action::Prune { all: true } => (workspaces.remove_all(), "sortie.workspaces_removed.v1", "removed"),
    };
    if common.json {
        print_json(&serde_json::json!({ "schema": schema, "workspaces": found }));
        return Exit::Done;
    }
    let mut text = String::new();
    for workspace in &found {
        let Workspace { url, commit, expires_at, .. } = workspace;
        let (size, left) = (HumanBytes(workspace.bytes).to_string(), HumanDuration(time_left(*expires_at)));
        let (path, commit) = (workspaces.path(workspace), commit.get(..12).unwrap_or(commit));
        text += &format!("{}  {size:>12}  {commit}  {left} left  {url}\n", path.display());
    }
    let total: u64 = found.iter().map(|workspace| workspace.bytes).sum();
    print(&format!("{text}{} workspaces {verb}, {}\n", found.len(), HumanBytes(total)));
    Exit::Done
}
