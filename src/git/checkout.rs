//! The files of a commit, written into a fresh directory.

mod large;
mod parallel;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use git2::build::CheckoutBuilder;
use git2::{ErrorClass, Oid, Repository};
use gix_hash::ObjectId;

use super::clone::git_error;
use super::objects::Objects;
use super::survey::{Files, Survey, survey};
use super::target::{Scratch, target_error, unless_disk_is_full};
use super::wire::Wire;
use super::{Engine, Error, PackProblem, Phase};
use crate::report::Stage;

/// What was written.
pub(super) struct CheckedOut {
    pub(super) files: u64,
    /// Bytes of all files.
    pub(super) bytes: u64,
    pub(super) lfs_pointers: u64,
    pub(super) submodules: u64,
    /// Whether attributes name an encoding that git itself may read otherwise.
    pub(super) has_wide_encoding: bool,
}

/// Looks at the trees of a commit, then writes its files; only those below `paths` where there are any. Limits and
/// unsafe paths are found before the first file is written. No filter runs a program, and no hook runs.
pub(super) fn check_out(
    wire: &Arc<Wire>,
    repository: &Repository,
    commit: Oid,
    paths: &[String],
    engine: Engine,
    scratch: &Scratch,
) -> Result<CheckedOut, Error> {
    wire.log.begin(Stage::Checkout);
    wire.control.transfer.set_phase(Phase::CheckingOut);
    let commit = repository.find_commit(commit).map_err(|_| missing())?;
    let tree = object_id(commit.tree_id());
    let limits = wire.control.limits;
    let objects = Objects::open(&repository.path().join("objects"), limits.max_blob_bytes)
        .map_err(|error| target_error(scratch.path(), error))?;
    let looked_at = if engine == Engine::Gix { Files::Counted } else { Files::Weighed };
    let seen = survey(&objects, tree, paths, looked_at, &wire.control)?;
    drop(objects);
    wire.log.fact("files", seen.files);
    wire.control.transfer.set_total_files(seen.files);
    let (mut lfs_pointers, mut bytes) = (seen.lfs_pointers, seen.bytes);
    // Neither library leaves `ident` alone by itself, but libgit2 can be told to.
    if engine == Engine::Gix && !seen.has_ident {
        let written = parallel::write(wire, repository.path(), scratch.path(), tree, paths)?;
        (lfs_pointers, bytes) = (written.lfs_pointers, written.bytes);
    } else {
        one_by_one(wire, repository, &commit, paths, scratch, &seen)?;
        if !paths.is_empty() {
            // libgit2's index would lack what was left out.
            parallel::write_index(wire, repository.path(), scratch.path(), tree, paths)?;
        }
    }
    Ok(CheckedOut {
        files: seen.files,
        bytes,
        lfs_pointers,
        submodules: seen.submodules,
        has_wide_encoding: seen.has_wide_encoding,
    })
}

/// Looks at everything that a commit holds, without writing any of it.
pub(super) fn look_at(
    wire: &Wire,
    repository: &Repository,
    commit: Oid,
    directory: &Path,
) -> Result<Survey, Error> {
    wire.log.begin(Stage::Checkout);
    wire.control.transfer.set_phase(Phase::CheckingOut);
    let commit = repository.find_commit(commit).map_err(|_| missing())?;
    let objects = Objects::open(&repository.path().join("objects"), wire.control.limits.max_blob_bytes)
        .map_err(|error| target_error(directory, error))?;
    let seen = survey(&objects, object_id(commit.tree_id()), &[], Files::Weighed, &wire.control)?;
    wire.log.fact("files", seen.files);
    Ok(seen)
}

/// An identifier of libgit2's in gix's form.
pub(super) fn object_id(oid: Oid) -> ObjectId {
    // Both are the same twenty bytes.
    ObjectId::from_bytes_or_panic(oid.as_bytes())
}

fn missing() -> Error {
    Error::PackCorrupt(PackProblem::ObjectMissing)
}

/// Writes the files by libgit2, on one core.
fn one_by_one(
    wire: &Arc<Wire>,
    repository: &Repository,
    commit: &git2::Commit<'_>,
    paths: &[String],
    scratch: &Scratch,
    seen: &Survey,
) -> Result<(), Error> {
    let _off = seen.has_ident.then(|| IdentOff::write(repository, scratch)).transpose()?;
    let mut builder = CheckoutBuilder::new();
    for path in paths {
        builder.path(path);
    }
    builder.force().disable_pathspec_match(true).progress(|_, written, _| {
        wire.control.transfer.written().store(written, Ordering::Relaxed);
        // libgit2 asks nobody whether to go on, so the ground is taken from under it.
        if let Err(error) = wire.control.check() {
            let _ = wire.fail(error);
            scratch.withdraw();
        }
    });
    let written = repository.checkout_tree(commit.as_object(), Some(&mut builder));
    drop(builder);
    written.map_err(|error| match error.class() {
        ErrorClass::Odb | ErrorClass::Object | ErrorClass::Zlib | ErrorClass::Tree => missing(),
        // The survey has found what we know to be unsafe; libgit2 knows a path that we do not.
        ErrorClass::Checkout => Error::UnsafePath { path: String::new() },
        // It reads names and places of submodules where it comes upon one, asked for or not.
        ErrorClass::Submodule | ErrorClass::Config => {
            unless_disk_is_full(scratch.path(), Error::UnsafePath { path: ".gitmodules".to_owned() })
        }
        _ => git_error(scratch.path(), "writing the files", &error),
    })
}

/// Attributes of this repository alone that switch `ident` off, for as long as files are written.
struct IdentOff(std::path::PathBuf);

impl IdentOff {
    fn write(repository: &Repository, scratch: &Scratch) -> Result<Self, Error> {
        let file = repository.path().join("info/attributes");
        let written =
            fs::create_dir_all(repository.path().join("info")).and_then(|()| fs::write(&file, "* -ident\n"));
        written.map_err(|error| target_error(scratch.path(), error))?;
        Ok(Self(file))
    }
}

impl Drop for IdentOff {
    fn drop(&mut self) {
        // Where it stays, an expanded `$Id$` is all that git leaves out.
        let _ = fs::remove_file(&self.0);
    }
}
