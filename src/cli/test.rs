//! `sortie test`: a connection test from this host, by the code that tasks use.

use std::time::Duration;

use clap::Args;

use super::access::AccessArgs;
use super::{Common, Exit, complain, work};
use crate::task::{Task, connection_test};

/// When a test gives up where nothing else is said.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sortie test https://ado.corp.example/DefaultCollection/Shop/_git/web --provider azure-devops --pat-file pat.txt
  sortie test git@gitlab.corp.example:shop/web.git --ssh-key ~/.ssh/id_ed25519
  sortie test --server ado --project Shop --repository web --json")]
pub(super) struct TestArgs {
    /// The URL to test: https://…, ssh://… or user@host:path
    url: Option<String>,
    #[command(flatten)]
    access: AccessArgs,
}

pub(super) async fn execute(common: &Common, args: TestArgs) -> Exit {
    let access = match args.access.resolve(common, args.url).await {
        Ok(access) => access,
        Err(error) => return complain(Exit::Configuration, &error.to_string()),
    };
    let task = Task::ConnectionTest(connection_test::Request {
        target: access.target,
        provider: access.provider,
        credential: access.credential,
        scope: None,
        test_repository: None,
    });
    work::carry_out(&task, &access.tools, access.deadline.unwrap_or(DEFAULT_DEADLINE), common.json).await
}
