//! `sortie clone`: a clone by the code that tasks use.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::access::AccessArgs;
use super::work::{self, Form};
use super::{Common, Exit, complain, usage};
use crate::git::Want;
use crate::task::submodules::{Submodules, Which};
use crate::task::{Task, clone};

/// When a clone gives up where nothing else is said.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sortie clone https://gitlab.corp.example/shop/web.git web --pat-file pat.txt
  sortie clone git@gitlab.corp.example:shop/web.git web --ref v1.2 --depth 1 --ssh-key ~/.ssh/id_ed25519
  sortie clone --server ado --project Shop --repository web web")]
pub(super) struct CloneArgs {
    /// The URL, unless --server names the target, and the directory to make
    #[arg(value_names = ["URL", "DIR"], num_args = 1..=2, required = true)]
    places: Vec<String>,
    /// A branch, a tag, a full reference or a full commit [default: the server's default branch]
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// How many commits of history [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    depth: Option<u32>,
    /// All branches beside --ref
    #[arg(long)]
    all_branches: bool,
    /// All tags beside --ref
    #[arg(long)]
    tags: bool,
    /// Write only this file or directory of the commit; may be repeated
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<String>,
    /// Fetch objects of Git LFS, from the server of the repository alone; without it files stay pointers
    #[arg(long)]
    lfs: bool,
    /// Take submodules along: all of them and theirs, or only the one at PATH; may be repeated with a PATH
    #[arg(long, value_name = "PATH", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    submodules: Vec<String>,
    /// Leave out submodules whose server is not declared, instead of failing
    #[arg(long, requires = "submodules")]
    skip_refused_submodules: bool,
    #[command(flatten)]
    access: AccessArgs,
}

pub(super) async fn execute(common: &Common, args: CloneArgs) -> Exit {
    let mut places = args.places.into_iter();
    let (url, directory) = match (&args.access.server, places.next(), places.next()) {
        (None, url @ Some(_), Some(directory)) => (url, directory),
        (Some(_), Some(directory), None) => (None, directory),
        (None, ..) => usage("clone takes a URL and a directory"),
        (Some(_), ..) => usage("clone takes a directory alone beside --server"),
    };
    let access = match args.access.resolve(common, url).await {
        Ok(access) => access,
        Err(error) => return complain(Exit::Configuration, &error.to_string()),
    };
    if access.test_repository.is_some() {
        usage("--repository names a repository of --server; a URL names its own");
    }
    let task = Task::Clone(clone::Request {
        target: access.target,
        provider: access.provider,
        credential: access.credential,
        want: Want {
            reference: args.reference,
            depth: args.depth,
            all_branches: args.all_branches,
            tags: args.tags,
        },
        paths: args.paths.iter().map(|path| path.trim_matches('/').to_owned()).collect(),
        lfs: args.lfs,
        submodules: Submodules { which: which(&args.submodules), skip_refused: args.skip_refused_submodules },
        destination: clone::Destination::Directory(PathBuf::from(directory)),
    });
    work::carry_out(&task, &access.tools, access.deadline.unwrap_or(DEFAULT_DEADLINE), Form::of(common.json))
        .await
}

/// Which submodules the flags name: an empty path stands for all.
fn which(paths: &[String]) -> Which {
    match paths {
        [] => Which::Nothing,
        _ if paths.iter().any(String::is_empty) => Which::All,
        _ => Which::Named(paths.iter().map(|path| path.trim_matches('/').to_owned()).collect()),
    }
}
