//! Makes one pack of the many small ones that fetches leave, so that looking for an object stays cheap.
//!
//! The largest pack stays as it is: the work grows with what is new. Clones have links of their own to the packs that
//! go, so that nobody who borrowed from the mirror notices.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use git2::{Oid, Repository};

use super::keep::{Mirrors, sweep};
use crate::git::Error;
use crate::git::references::internal;

/// From how many packs on a mirror is repacked.
pub(super) const MANY_PACKS: u64 = 12;

impl Mirrors {
    /// Repacks every mirror that has many packs and that nobody uses just now. It blocks.
    pub fn repack(&self) {
        for mirror in self.list().unwrap_or_default() {
            if mirror.packs < MANY_PACKS {
                continue;
            }
            let Ok(lock) = self.open_lock(&mirror.key) else { continue };
            if lock.try_lock().is_err() {
                continue;
            }
            let path = self.path(&mirror.key);
            let swept = sweep(&path).map_err(|source| Error::Target { path: path.clone(), source });
            match swept.and_then(|()| repack(&path)) {
                Ok(packs) => tracing::debug!(mirror = mirror.key, packs, "a mirror was repacked"),
                // It is as good as before; a damaged one is found out when it is used.
                Err(error) => tracing::warn!(mirror = mirror.key, %error, "a mirror cannot be repacked"),
            }
        }
    }
}

/// Puts the objects of all packs but the largest into one. Returns how many packs went.
fn repack(path: &Path) -> Result<usize, Error> {
    let failed = |error: git2::Error| internal("repacking a mirror", &error);
    let small = small_packs(path);
    let repository = Repository::open_bare(path).map_err(failed)?;
    let mut builder = repository.packbuilder().map_err(failed)?;
    builder.set_threads(0);
    for index in &small {
        for oid in objects_of(index)? {
            builder.insert_object(oid, None).map_err(failed)?;
        }
    }
    let odb = repository.odb().map_err(failed)?;
    let mut writer = odb.packwriter().map_err(failed)?;
    let mut written = Ok(());
    let walked = builder.foreach(|bytes| {
        written = writer.write_all(bytes);
        written.is_ok()
    });
    written.map_err(|source| Error::Target { path: path.to_owned(), source })?;
    walked.map_err(failed)?;
    writer.commit().map_err(failed)?;
    drop(writer);
    for index in &small {
        // The index first: without it nobody looks into the pack.
        for file in [index.clone(), index.with_extension("pack")] {
            fs::remove_file(&file).map_err(|source| Error::Target { path: file, source })?;
        }
    }
    Ok(small.len())
}

/// The indexes of all packs but the largest.
fn small_packs(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.join("objects/pack")).into_iter().flatten().filter_map(Result::ok);
    let indexes =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "idx"));
    let mut packs: Vec<(u64, PathBuf)> = indexes
        .map(|index| (fs::metadata(index.with_extension("pack")).map_or(0, |file| file.len()), index))
        .collect();
    packs.sort();
    packs.pop();
    packs.into_iter().map(|(_, index)| index).collect()
}

fn objects_of(index: &Path) -> Result<Vec<Oid>, Error> {
    let damaged = || Error::PackCorrupt(crate::git::PackProblem::Damaged);
    let file = gix_pack::index::File::at(index, gix_hash::Kind::Sha1).map_err(|_| damaged())?;
    file.iter().map(|entry| Oid::from_bytes(entry.oid.as_bytes()).map_err(|_| damaged())).collect()
}
