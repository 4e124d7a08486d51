//! `sortie config check` and `sortie config show`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Common, Exit, complain, load_config, print, print_json};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sortie config check --config /etc/sortie/config.toml
  sortie config show")]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is valid; secrets and servers are not looked at
    Check,
    /// Print the configuration with its defaults and without its secrets
    Show,
}

pub(super) fn execute(common: &Common, args: &ConfigArgs) -> Exit {
    let config = match load_config(common) {
        Ok(config) => config,
        Err(error) => {
            if common.json {
                print_json(&json!({ "valid": false, "error": error.to_string() }));
            }
            return complain(Exit::Configuration, &error.to_string());
        }
    };
    match (&args.command, common.json) {
        (ConfigCommand::Check, true) => print_json(&json!({ "valid": true, "error": null })),
        (ConfigCommand::Check, false) => print("The configuration is valid.\n"),
        (ConfigCommand::Show, true) => print_json(&config.show_json()),
        (ConfigCommand::Show, false) => print(&config.show()),
    }
    Exit::Done
}
