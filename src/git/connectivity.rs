//! Whether everything that came leads to things that are there: `git fetch` checks this, and libgit2 does not.
//!
//! While a pack is indexed, [`Links`] sees every object once and finds out whether any of them refers to something that
//! is neither in the pack nor was there before. Only where that is so, or could not be seen, the history is walked from
//! what was asked for, as git does it: an object that nobody asked for may refer to what it likes.

mod links;
mod walk;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use git2::{Oid, Repository};
use gix_hash::ObjectId;

pub(super) use self::links::{Collector, Links, Verdict};
use self::links::{Reference, prefix, references};
use super::objects::Objects;
use super::target::target_error;
use super::wire::Wire;
use super::{Error, PackProblem};

/// The most that is read of the list of commits whose parents did not come, in bytes.
const MAX_SHALLOW_BYTES: u64 = 64 * 1024 * 1024;

/// The packs of a repository at one time.
pub(super) struct Before {
    directory: PathBuf,
    packs: HashSet<OsString>,
}

impl Before {
    /// Takes note of the packs that are there.
    pub(super) fn note(repository: &Repository) -> Self {
        let directory = repository.path().join("objects/pack");
        let packs = indexes(&directory).filter_map(|path| Some(path.file_name()?.to_owned())).collect();
        Self { directory, packs }
    }

    /// The indexes of packs that have come since.
    fn new_indexes(&self) -> impl Iterator<Item = PathBuf> {
        indexes(&self.directory).filter(|path| path.file_name().is_none_or(|name| !self.packs.contains(name)))
    }

    /// Removes the packs that have come since.
    pub(super) fn restore(&self) {
        for index in self.new_indexes() {
            // The index first: without it nobody looks into the pack. Where it cannot be removed, the mirror goes as
            // a whole, or the clone.
            let _ = fs::remove_file(&index);
            let _ = fs::remove_file(index.with_extension("pack"));
        }
    }
}

fn indexes(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|ending| ending == "idx"))
}

/// Sees to it that what came is whole, as far as it can be reached from the tips.
pub(super) fn check(
    wire: &Wire,
    repository: &Repository,
    before: &Before,
    tips: &[Oid],
) -> Result<(), Error> {
    let verdict = wire.take_connectivity();
    let limits = wire.control.limits;
    let objects = Objects::open(&repository.path().join("objects"), limits.max_blob_bytes)
        .map_err(|error| target_error(repository.path(), error))?;
    let tips: Vec<ObjectId> = tips.iter().copied().map(super::checkout::object_id).collect();
    for tip in &tips {
        wire.control.check()?;
        if !objects.contains(tip) {
            return Err(missing());
        }
    }
    let shallow = shallow(repository)?;
    if let Some(verdict) = verdict
        && !verdict.has_holes
        && are_cut_off(&verdict, &shallow, &objects)
    {
        return Ok(());
    }
    let new: Vec<PathBuf> = before.new_indexes().collect();
    if new.is_empty() {
        return Ok(());
    }
    walk::walk(&objects, &new, tips, &shallow, &wire.control)
}

/// Whether the parents that did not come are those of commits at which the history was to end.
fn are_cut_off(verdict: &Verdict, shallow: &HashSet<ObjectId>, objects: &Objects) -> bool {
    if verdict.missing_parents.is_empty() {
        return true;
    }
    let mut cut_off = HashSet::new();
    let mut buffer = Vec::new();
    for commit in shallow {
        let Ok(Some(data)) = gix_object::Find::try_find(objects, commit, &mut buffer) else { continue };
        references(data.kind, data.data, |reference| {
            if let Reference::Parent(id) = reference {
                cut_off.insert(prefix(id));
            }
        });
    }
    verdict.missing_parents.iter().all(|parent| cut_off.contains(parent))
}

/// The commits at which the history ends because it was asked to.
fn shallow(repository: &Repository) -> Result<HashSet<ObjectId>, Error> {
    let Ok(file) = fs::File::open(repository.path().join("shallow")) else { return Ok(HashSet::new()) };
    let mut text = Vec::new();
    file.take(MAX_SHALLOW_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| target_error(repository.path(), error))?;
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| ObjectId::from_hex(line).ok()).collect())
}

fn missing() -> Error {
    Error::PackCorrupt(PackProblem::ObjectMissing)
}
