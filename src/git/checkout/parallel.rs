//! The files of a commit, written on all cores.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gix_hash::{ObjectId, oid};
use gix_index::entry::{Flags, Mode};
use gix_object::{Data, Find, FindHeader as _, Kind};
use gix_worktree::stack::state::Attributes;
use gix_worktree::stack::state::attributes::Source;
use prodash::progress::Discard;

use super::large::{self, Conversion};
use crate::git::meter::Meter;
use crate::git::objects::{LARGE_FILE_BYTES, MAX_TREE_BYTES, Objects};
use crate::git::pkt::scrubbed;
use crate::git::survey::is_lfs_pointer;
use crate::git::target::target_error;
use crate::git::wire::Wire;
use crate::git::{Error, Limit, Limits, PackProblem};

/// What was seen of the files as they were written.
pub(super) struct Written {
    pub(super) lfs_pointers: u64,
    pub(super) bytes: u64,
}

/// Writes the files of a tree, and the index with what the file system knows of them, so that git need not look at
/// them again. Outside of `paths`, where there are any, nothing is written.
///
/// The directory holds nothing but the repository. No filter that would run a program is known here.
pub(super) fn write(
    wire: &Wire,
    git_directory: &Path,
    directory: &Path,
    tree: ObjectId,
    paths: &[String],
) -> Result<Written, Error> {
    let limits = wire.control.limits;
    let open = |limit| {
        let objects = Objects::open_limited(&git_directory.join("objects"), limit);
        objects.map_err(|error| target_error(directory, error))
    };
    let (objects, whole) = (open(LARGE_FILE_BYTES)?, open(limits.max_blob_bytes.max(MAX_TREE_BYTES))?);
    let watched = Watched { objects, whole, seen: Arc::default(), limits };
    let seen = Arc::clone(&watched.seen);
    let interrupt = wire.cut.interrupt();
    let checked_out = || -> Result<(), Error> {
        let mut index = planned(&tree, &watched, paths, directory)?;
        let mut options = gix_worktree_state::checkout::Options::new(filters());
        options.fs = gix_fs::Capabilities::probe(git_directory);
        options.validate = VALIDATE;
        options.destination_is_initially_empty = true;
        options.attributes = attributes().map_err(|error| target_error(directory, error))?;
        let outcome = gix_worktree_state::checkout(
            &mut index,
            directory,
            watched.clone(),
            &Meter::counting(wire.control.transfer.written()),
            &Discard,
            &interrupt,
            options,
        );
        let outcome = outcome.map_err(|error| meaning(&error, directory))?;
        // An interruption is no error to the library.
        wire.control.check()?;
        if let Some(failed) = outcome.errors.first() {
            return Err(meaning(&failed.error, directory));
        }
        if let Some(collision) = outcome.collisions.first() {
            return Err(Error::UnsafePath { path: scrubbed(&collision.path) });
        }
        let large = std::mem::take(&mut *seen.large.lock().unwrap_or_else(PoisonError::into_inner));
        if !large.is_empty() {
            let conversion = Conversion {
                attributes: attributes().map_err(|error| target_error(directory, error))?,
                filters: filters(),
                find: &watched,
            };
            let places = (git_directory, directory);
            large::write(&mut index, &large, conversion, places, &wire.control, |size| watched.admit(size))?;
        }
        make_places_of_submodules(&index, directory).map_err(|error| target_error(directory, error))?;
        keep(index, git_directory, directory)
    };
    let done = checked_out();
    let noted = seen.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    done.map_err(|error| wire.control.check().err().or(noted).unwrap_or(error))?;
    Ok(Written {
        lfs_pointers: seen.lfs_pointers.load(Ordering::Relaxed),
        bytes: seen.bytes.load(Ordering::Relaxed),
    })
}

/// The names have been looked at before; this is the second pair of eyes.
const VALIDATE: gix_validate::path::component::Options =
    gix_validate::path::component::Options { protect_windows: false, protect_hfs: true, protect_ntfs: true };

/// The index of a commit, before its files are there.
fn planned(
    tree: &ObjectId,
    objects: &impl Find,
    paths: &[String],
    directory: &Path,
) -> Result<gix_index::State, Error> {
    let state = gix_index::State::from_tree(tree, objects, VALIDATE);
    let mut index = state.map_err(|error| meaning(&error, directory))?;
    if !paths.is_empty() {
        leave_out(&mut index, paths);
    }
    Ok(index)
}

fn keep(index: gix_index::State, git_directory: &Path, directory: &Path) -> Result<(), Error> {
    let mut file = gix_index::File::from_state(index, git_directory.join("index"));
    file.write(gix_index::write::Options::default()).map_err(|error| meaning(&error, directory))
}

/// Writes the index alone, for files that are there already.
pub(super) fn write_index(
    wire: &Wire,
    git_directory: &Path,
    directory: &Path,
    tree: ObjectId,
    paths: &[String],
) -> Result<(), Error> {
    let objects = Objects::open(&git_directory.join("objects"), wire.control.limits.max_blob_bytes)
        .map_err(|error| target_error(directory, error))?;
    let mut index = planned(&tree, &objects, paths, directory)?;
    for (entry, path) in index.entries_mut_with_paths() {
        if entry.flags.contains(Flags::SKIP_WORKTREE) || entry.mode == Mode::COMMIT {
            continue;
        }
        let file = directory.join(std::ffi::OsStr::from_bytes(path));
        let seen = gix_index::fs::Metadata::from_path_no_follow(&file)
            .map_err(|error| target_error(directory, error))?;
        entry.stat = gix_index::entry::Stat::from_fs(&seen)
            .map_err(|error| target_error(directory, io::Error::other(error)))?;
    }
    keep(index, git_directory, directory)
}

/// Marks everything outside of the paths as not to be written.
fn leave_out(index: &mut gix_index::State, paths: &[String]) {
    for (entry, path) in index.entries_mut_with_paths() {
        let is_wanted = paths.iter().any(|wanted| {
            let rest = path.strip_prefix(wanted.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        });
        if !is_wanted {
            entry.flags.insert(Flags::SKIP_WORKTREE | Flags::EXTENDED);
        }
    }
}

/// End-of-line conversion and encodings, as attributes ask for them; no programs.
fn filters() -> gix_filter::Pipeline {
    let context = gix_command::Context::default();
    gix_filter::Pipeline::new(context, gix_hash::Kind::Sha1, gix_filter::pipeline::Options::default())
}

/// Attributes come from the commit alone, beside the macros that git has built in.
fn attributes() -> io::Result<Attributes> {
    let mut collection = gix_attributes::search::MetadataCollection::default();
    let no_files = std::iter::empty::<std::path::PathBuf>();
    let globals = gix_attributes::Search::new_globals(no_files, &mut Vec::new(), &mut collection)?;
    Ok(Attributes::new(globals, None, Source::IdMapping, collection))
}

/// An empty directory stands for a submodule that was not taken along, as with git.
fn make_places_of_submodules(index: &gix_index::State, directory: &Path) -> io::Result<()> {
    let backing = index.path_backing();
    let places = index
        .entries()
        .iter()
        .filter(|entry| entry.mode == Mode::COMMIT && !entry.flags.contains(Flags::SKIP_WORKTREE));
    for entry in places {
        let path = directory.join(std::ffi::OsStr::from_bytes(entry.path_in(backing)));
        match fs::create_dir_all(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// What a library's error means: a limit, the file system, or an object that is not there.
fn meaning(error: &gix_error::Error, directory: &Path) -> Error {
    let io = error.iter_errors().find_map(|error| error.downcast_ref::<io::Error>());
    match io {
        _ if error.is_validation() => Error::UnsafePath { path: String::new() },
        Some(io) => target_error(directory, io.kind().into()),
        None => Error::PackCorrupt(PackProblem::ObjectMissing),
    }
}

/// Objects that are looked at as they are read. In the place of a large file an empty one is found, and noted.
#[derive(Clone)]
struct Watched {
    /// It reads nothing large.
    objects: Objects,
    /// It reads whatever is allowed.
    whole: Objects,
    seen: Arc<Seen>,
    limits: Limits,
}

#[derive(Default)]
struct Seen {
    lfs_pointers: AtomicU64,
    bytes: AtomicU64,
    large: Mutex<HashSet<ObjectId>>,
    /// Locked by whoever reads something small that is made of something large.
    whole: Mutex<()>,
    failure: Mutex<Option<Error>>,
}

impl Watched {
    fn judge(&self, data: &Data<'_>) -> Result<(), Error> {
        self.admit(data.data.len() as u64)?;
        if is_lfs_pointer(data.data) {
            self.seen.lfs_pointers.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Counts a file of this size, before it is written.
    fn admit(&self, size: u64) -> Result<(), Error> {
        let limits = self.limits;
        if size > limits.max_blob_bytes {
            return Err(Error::TooLarge { what: Limit::BlobBytes, limit: limits.max_blob_bytes });
        }
        if self.seen.bytes.fetch_add(size, Ordering::Relaxed) + size > limits.max_expanded_bytes {
            return Err(Error::TooLarge { what: Limit::ExpandedBytes, limit: limits.max_expanded_bytes });
        }
        Ok(())
    }

    /// Reads an object that is not small, or is made of what is not. A large file is only noted, and `None` is its
    /// length here.
    fn read_large(&self, id: &oid, buffer: &mut Vec<u8>) -> gix_error::Result<Option<(Kind, Option<usize>)>> {
        let Some(header) = self.whole.try_header(id)? else { return Ok(None) };
        if header.kind == Kind::Blob && header.size >= LARGE_FILE_BYTES {
            self.seen.large.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
            return Ok(Some((Kind::Blob, None)));
        }
        // What it is made of may take any room, so that one thread at a time makes something of it.
        let _alone = self.seen.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let found = self.whole.try_find(id, buffer).inspect_err(|error| {
            if error.is_resource_exhausted() {
                let limit = self.limits.max_blob_bytes;
                self.fail(Error::TooLarge { what: Limit::BlobBytes, limit });
            }
        })?;
        Ok(found.map(|data| (data.kind, Some(data.data.len()))))
    }

    fn fail(&self, error: Error) {
        self.seen.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

impl Find for Watched {
    fn try_find<'a>(&self, id: &oid, buffer: &'a mut Vec<u8>) -> gix_error::Result<Option<Data<'a>>> {
        let found = match self.objects.try_find(id, buffer) {
            Ok(Some(data)) => Some((data.kind, Some(data.data.len()))),
            Ok(None) => None,
            Err(error) if error.is_resource_exhausted() => self.read_large(id, buffer)?,
            Err(error) => return Err(error),
        };
        let Some((kind, length)) = found else {
            self.fail(Error::PackCorrupt(PackProblem::ObjectMissing));
            return Ok(None);
        };
        let Some(length) = length else {
            buffer.clear();
            return Ok(Some(Data::new(buffer, kind, id.kind())));
        };
        let data = Data::new(buffer.get(..length).unwrap_or_default(), kind, id.kind());
        if data.kind == Kind::Blob
            && let Err(error) = self.judge(&data)
        {
            self.fail(error);
            return Err(gix_hash::io::from_std_io(ErrorKind::QuotaExceeded.into()));
        }
        Ok(Some(data))
    }
}
