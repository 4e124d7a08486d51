//! The files of a commit, written into a fresh directory.

use std::sync::Arc;

use git2::build::CheckoutBuilder;
use git2::{ErrorClass, Oid, Repository};

use super::clone::write_error;
use super::survey::survey;
use super::target::Scratch;
use super::wire::Wire;
use super::{Error, PackProblem, Phase};
use crate::report::Stage;

/// What was written.
pub(super) struct CheckedOut {
    pub(super) files: u64,
    pub(super) lfs_pointers: u64,
    pub(super) submodules: u64,
}

/// Looks at the trees of a commit, then writes its files. Limits and unsafe paths are found before the first
/// file is written. No filter runs a program, and no hook runs.
pub(super) fn check_out(
    wire: &Arc<Wire>,
    repository: &Repository,
    commit: Oid,
    scratch: &Scratch,
) -> Result<CheckedOut, Error> {
    wire.log.begin(Stage::Checkout);
    wire.control.transfer.set_phase(Phase::CheckingOut);
    let missing = |_| Error::PackCorrupt(PackProblem::ObjectMissing);
    let commit = repository.find_commit(commit).map_err(missing)?;
    let seen = survey(repository, commit.tree_id(), &wire.control)?;
    wire.log.fact("files", seen.files);
    let mut builder = CheckoutBuilder::new();
    builder.force().progress(|_, _, _| {
        // libgit2 asks nobody whether to go on, so the ground is taken from under it.
        if let Err(error) = wire.control.check() {
            let _ = wire.fail(error);
            scratch.withdraw();
        }
    });
    let written = repository.checkout_tree(commit.as_object(), Some(&mut builder));
    drop(builder);
    written.map_err(|error| match error.class() {
        ErrorClass::Odb | ErrorClass::Object | ErrorClass::Zlib | ErrorClass::Tree => {
            Error::PackCorrupt(PackProblem::ObjectMissing)
        }
        // The survey has found what we know to be unsafe; libgit2 knows a path that we do not.
        ErrorClass::Checkout => Error::UnsafePath { path: String::new() },
        _ => write_error(scratch, "writing the files", &error),
    })?;
    Ok(CheckedOut { files: seen.files, lfs_pointers: seen.lfs_pointers, submodules: seen.submodules })
}
