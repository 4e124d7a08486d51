//! `sortie test`: a connection test from this host, by the code that tasks use.

use std::time::Duration;

use clap::Args;

use super::access::AccessArgs;
use super::work::{self, Form};
use super::{Common, Exit, complain, usage};
use crate::task::{Task, connection_test};

/// When a test gives up where nothing else is said.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sortie test https://ado.corp.example/DefaultCollection/Shop/_git/web --provider azure-devops --pat-file pat.txt
  sortie test git@gitlab.corp.example:shop/web.git --ssh-key ~/.ssh/id_ed25519
  sortie test git@gitlab.corp.example:shop/web.git --ssh-key ~/.ssh/id_ed25519 --api-pat-file pat.txt
  sortie test --server ado --project Shop --repository web --json
  sortie test --server ado --project Shop --repository web --markdown > ticket.md")]
pub(super) struct TestArgs {
    /// The URL to test: https://…, ssh://… or user@host:path
    url: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// Print the outcome for a ticket, without anything that opens anything
    #[arg(long)]
    markdown: bool,
}

pub(super) async fn execute(common: &Common, args: TestArgs) -> Exit {
    let form = match (common.json, args.markdown) {
        (true, true) => usage("--markdown and --json are two forms of one output"),
        (false, true) => Form::Markdown,
        (json, false) => Form::of(json),
    };
    let access = match args.access.resolve(common, args.url).await {
        Ok(access) => access,
        Err(error) => return complain(Exit::Configuration, &error.to_string()),
    };
    let task = Task::ConnectionTest(connection_test::Request {
        target: access.target,
        provider: access.provider,
        credential: access.credential,
        scope: None,
        test_repository: access.test_repository,
    });
    work::carry_out(&task, &access.tools, access.deadline.unwrap_or(DEFAULT_DEADLINE), form).await
}
