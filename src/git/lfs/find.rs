//! Which files of a checkout are pointers that belong to Git LFS, and what git's index has to know of the files
//! that took their place.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use git2::{AttrCheckFlags, IndexTime, ObjectType, Repository};

use super::pointer;
use super::{LfsFile, Placed};
use crate::git::references::internal;
use crate::git::{Control, Error, PackProblem};

/// A regular file, by the file type in its mode.
const TYPE_MASK: u32 = 0o170_000;
const TYPE_FILE: u32 = 0o100_000;

/// The bit of an index entry whose file is not in the working directory.
const SKIP_WORKTREE: u16 = 1 << 14;

/// The sizes of what may be a pointer, in bytes.
const POINTER_BYTES: std::ops::Range<usize> = 100..1024;

/// How many entries are looked at between two looks at the control.
const ENTRIES_A_CHECK: usize = 1000;

/// The pointers among the files of the index that are in the working directory and to which the attributes give
/// `filter=lfs`, in the index's order. Whatever the file in the working directory looks like, the object in the
/// index counts. It blocks.
///
/// # Errors
/// A cancel, the deadline, an object that is missing.
pub fn find(repository: &Repository, control: &Control) -> Result<Vec<LfsFile>, Error> {
    let index = repository.index().map_err(|error| internal("opening the index", &error))?;
    let odb = repository.odb().map_err(|error| internal("opening the objects", &error))?;
    let missing = |_| Error::PackCorrupt(PackProblem::ObjectMissing);
    let (mut found, mut known) = (Vec::new(), HashMap::new());
    for (number, entry) in index.iter().enumerate() {
        if number % ENTRIES_A_CHECK == 0 {
            control.check()?;
        }
        if entry.mode & TYPE_MASK != TYPE_FILE || entry.flags_extended & SKIP_WORKTREE != 0 {
            continue;
        }
        let pointer = match known.get(&entry.id) {
            Some(pointer) => *pointer,
            None => {
                let (size, kind) = odb.read_header(entry.id).map_err(missing)?;
                if kind != ObjectType::Blob || !POINTER_BYTES.contains(&size) {
                    continue;
                }
                let pointer = pointer::parse(odb.read(entry.id).map_err(missing)?.data());
                known.insert(entry.id, pointer);
                pointer
            }
        };
        if let Some(pointer) = pointer
            && is_filtered(repository, &entry.path)?
        {
            found.push(LfsFile { path: entry.path, pointer });
        }
    }
    Ok(found)
}

/// Whether the attributes say that this file belongs to Git LFS. Those of the host do not count.
fn is_filtered(repository: &Repository, path: &[u8]) -> Result<bool, Error> {
    let flags = AttrCheckFlags::FILE_THEN_INDEX | AttrCheckFlags::NO_SYSTEM;
    let path = Path::new(OsStr::from_bytes(path));
    let filter = repository.get_attr_bytes(path, "filter", flags);
    Ok(filter.map_err(|error| internal("reading the attributes", &error))? == Some(b"lfs"))
}

/// Writes what the file system says of the placed files into the index, whose objects stay the pointers: so git
/// knows without looking that nothing has changed. It is what git-lfs has `git update-index` do. It blocks.
///
/// # Errors
/// Where the index cannot be read or written.
pub fn refresh_index(repository: &Repository, files: &[Placed]) -> Result<(), Error> {
    let failed = |error: git2::Error| internal("writing the index", &error);
    let mut index = repository.index().map_err(failed)?;
    index.read(false).map_err(failed)?;
    let by_path: HashMap<&[u8], &Placed> = files.iter().map(|file| (file.path.as_slice(), file)).collect();
    let entries: Vec<_> = index.iter().filter(|entry| by_path.contains_key(entry.path.as_slice())).collect();
    for mut entry in entries {
        let Some(stat) = by_path.get(entry.path.as_slice()).map(|placed| placed.stat) else { continue };
        entry.ctime = IndexTime::new(stat.ctime.0, stat.ctime.1);
        entry.mtime = IndexTime::new(stat.mtime.0, stat.mtime.1);
        (entry.dev, entry.ino) = (stat.dev, stat.ino);
        (entry.uid, entry.gid) = (stat.uid, stat.gid);
        entry.file_size = stat.size;
        index.add(&entry).map_err(failed)?;
    }
    index.write().map_err(failed)
}
