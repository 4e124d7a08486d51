//! Where a clone grows, and how it gets to its place: whole, or not at all.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Error;

/// From which age on a directory that nobody holds counts as left behind.
const SWEEP_AGE: Duration = Duration::from_secs(10);

/// A clone on its way to its place.
#[derive(Debug, Clone, Copy)]
pub struct Growing<'a> {
    /// The directory that it grows in: beside the target, or in it.
    pub scratch: &'a Path,
    /// Its place.
    pub target: &'a Path,
    /// Whether the target is there and stays: what has grown is moved into it. Else the directory takes its place.
    pub is_inside_target: bool,
    /// The mode of the target, where it exists.
    pub target_mode: Option<u32>,
    /// Directories that were made above it, outermost first.
    pub made_parents: &'a [PathBuf],
    /// Whether it is whole, and about to be put in its place.
    pub is_whole: bool,
}

/// Hears where a clone grows, and once more right before it is put in its place, so that a note can be taken of it. It
/// blocks, and a failure of it is one of the clone.
#[derive(Clone)]
pub struct Announce {
    note: PathBuf,
    tell: Arc<Tell>,
}

type Tell = dyn Fn(&Growing<'_>) -> io::Result<()> + Send + Sync;

impl Announce {
    /// One that writes its note to this file, which is named where that fails.
    pub fn new(note: PathBuf, tell: impl Fn(&Growing<'_>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { note, tell: Arc::new(tell) }
    }
}

impl fmt::Debug for Announce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Announce").field("note", &self.note).finish_non_exhaustive()
    }
}

/// A directory beside the target (or in it, where its parent cannot be written), readable for nobody else.
/// Dropping it removes it and every parent directory that was made for it.
pub(super) struct Scratch {
    path: PathBuf,
    withdrawn: OnceLock<PathBuf>,
    target: PathBuf,
    /// The mode of the target, where it existed.
    target_mode: Option<u32>,
    is_inside_target: bool,
    made_parents: Vec<PathBuf>,
    is_delivered: bool,
    announce: Option<Announce>,
    /// Held as long as this lives: what nobody holds was left behind by a process that was killed.
    _held: Option<File>,
}

impl Scratch {
    /// Checks that the target is missing or an empty directory, makes missing parents, and makes the
    /// directory to work in.
    pub(super) fn prepare(target: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Target { path: target.to_owned(), source };
        let absolute = std::path::absolute(target).map_err(failed)?;
        match fs::metadata(&absolute) {
            Ok(metadata) => Self::prepare_existing(&absolute.canonicalize().map_err(failed)?, &metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => Self::prepare_missing(&absolute),
            Err(error) => Err(failed(error)),
        }
    }

    /// A directory of its own that is never delivered, below one that is made where it is missing.
    pub(super) fn apart(directory: &Path) -> Result<Self, Error> {
        let failed = |error| target_error(directory, error);
        fs::create_dir_all(directory).map_err(failed)?;
        let target = directory.join("bare");
        Ok(Self::at(make(directory, &target).map_err(failed)?, &target))
    }

    fn prepare_existing(target: &Path, metadata: &fs::Metadata) -> Result<Self, Error> {
        let failed = |source| Error::Target { path: target.to_owned(), source };
        let is_empty = metadata.is_dir() && fs::read_dir(target).map_err(failed)?.next().is_none();
        if !is_empty {
            return Err(Error::TargetNotEmpty { path: target.to_owned() });
        }
        let beside = target.parent().filter(|parent| {
            // A mount point cannot be replaced by a rename.
            fs::metadata(parent).is_ok_and(|parent| parent.dev() == metadata.dev())
        });
        let beside = beside.and_then(|parent| make(parent, target).ok());
        let is_inside_target = beside.is_none();
        let path = match beside {
            Some(path) => path,
            None => make(target, target).map_err(|error| target_error(target, error))?,
        };
        let mut scratch = Self::at(path, target);
        scratch.is_inside_target = is_inside_target;
        scratch.target_mode = Some(metadata.permissions().mode());
        Ok(scratch)
    }

    fn prepare_missing(target: &Path) -> Result<Self, Error> {
        let failed = |source| target_error(target, source);
        let (Some(parent), Some(_)) = (target.parent(), target.file_name()) else {
            return Err(failed(ErrorKind::InvalidInput.into()));
        };
        let mut made = MadeParents(Vec::new());
        let missing: Vec<&Path> = parent.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
        for directory in missing.into_iter().rev() {
            match fs::create_dir(directory) {
                Ok(()) => made.0.push(directory.to_owned()),
                // Somebody else was faster: then it is not ours to remove.
                Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let path = make(parent, target).map_err(failed)?;
        let mut scratch = Self::at(path, target);
        scratch.made_parents = std::mem::take(&mut made.0);
        Ok(scratch)
    }

    fn at(path: PathBuf, target: &Path) -> Self {
        let held = hold(&path);
        Self {
            path,
            withdrawn: OnceLock::new(),
            target: target.to_owned(),
            target_mode: None,
            is_inside_target: false,
            made_parents: Vec::new(),
            is_delivered: false,
            announce: None,
            _held: held,
        }
    }

    /// Lets somebody take note of where it is.
    pub(super) fn announced(mut self, announce: Option<&Announce>) -> Result<Self, Error> {
        self.announce = announce.cloned();
        self.tell(false)?;
        Ok(self)
    }

    /// Lets somebody take note of it from now on, which is the moment before it is put in its place.
    pub(super) fn announce_to(&mut self, announce: Announce) {
        self.announce = Some(announce);
    }

    fn tell(&self, is_whole: bool) -> Result<(), Error> {
        let Some(announce) = &self.announce else { return Ok(()) };
        let growing = Growing {
            scratch: &self.path,
            target: &self.target,
            is_inside_target: self.is_inside_target,
            target_mode: self.target_mode,
            made_parents: &self.made_parents,
            is_whole,
        };
        (announce.tell)(&growing).map_err(|error| target_error(&announce.note, error))
    }

    /// The directory to work in.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the directory away from under whoever writes into it, so that the next write fails. It is the
    /// only way to stop libgit2's checkout, which asks nobody whether to go on.
    pub(super) fn withdraw(&self) {
        self.withdrawn.get_or_init(|| {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".withdrawn");
            let aside = PathBuf::from(aside);
            if fs::rename(&self.path, &aside).is_ok() { aside } else { self.path.clone() }
        });
    }

    /// Moves what has grown to its place.
    pub(super) fn deliver(mut self) -> Result<(), Error> {
        self.set_mode().map_err(|error| target_error(&self.target, error))?;
        self.tell(true)?;
        let delivered =
            if self.is_inside_target { self.move_up() } else { fs::rename(&self.path, &self.target) };
        match delivered {
            Ok(()) => {
                self.is_delivered = true;
                Ok(())
            }
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                Err(Error::TargetNotEmpty { path: self.target.clone() })
            }
            Err(error) => Err(target_error(&self.target, error)),
        }
    }

    /// Gives the directory the mode that it has in its place. Its time says from then on when the clone was whole.
    fn set_mode(&self) -> io::Result<()> {
        // What libgit2 made has the mode that this process gives to its directories.
        let usual = fs::metadata(self.path.join(".git"))?.permissions().mode();
        fs::set_permissions(&self.path, fs::Permissions::from_mode(self.target_mode.unwrap_or(usual)))
    }

    fn move_up(&self) -> io::Result<()> {
        let mut moved: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let to = self.target.join(&name);
            if let Err(error) = fs::rename(self.path.join(&name), &to) {
                moved.iter().for_each(|path| remove(path));
                return Err(error);
            }
            moved.push(to);
        }
        fs::remove_dir(&self.path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_delivered {
            remove(self.withdrawn.get().unwrap_or(&self.path));
            drop(MadeParents(std::mem::take(&mut self.made_parents)));
        }
    }
}

/// Directories that were made on the way, outermost first; removed again unless they are taken out.
struct MadeParents(Vec<PathBuf>);

impl Drop for MadeParents {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            // One that somebody else has put something into stays, and those above it do.
            if fs::remove_dir(directory).is_err() {
                break;
            }
        }
    }
}

fn make(parent: &Path, target: &Path) -> io::Result<PathBuf> {
    /// With the rest of the name this stays below the 255 bytes that file systems allow.
    const MAX_NAME_CHARS: usize = 40;
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let prefix: String = name.chars().take(MAX_NAME_CHARS).collect();
    let prefix = format!(".{prefix}.sortie-");
    sweep(parent, &prefix);
    let made = tempfile::Builder::new()
        .prefix(&prefix)
        .rand_bytes(6)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)?;
    Ok(made.keep())
}

/// Holds a directory, so that others see that somebody works in it.
fn hold(path: &Path) -> Option<File> {
    let directory = File::open(path).ok()?;
    directory.try_lock().ok().map(|()| directory)
}

/// Removes what a process that was killed left for the same target: directories that nobody holds.
fn sweep(parent: &Path, prefix: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok) {
        let is_scratch = entry.file_name().to_string_lossy().starts_with(prefix);
        let is_old = || {
            let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|at| at.elapsed());
            // One that was made a moment ago may not be held yet.
            matches!(age, Ok(Ok(age)) if age >= SWEEP_AGE)
        };
        if is_scratch && is_old() && hold(&entry.path()).is_some() {
            remove(&entry.path());
        }
    }
}

fn remove(path: &Path) {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    if let Err(error) = removed
        && error.kind() != ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a temporary directory could not be removed");
    }
}

/// What a write that libgit2 could not do means: whether the disk is full is found out by writing.
pub(super) fn write_error(directory: &Path) -> Error {
    const PROBE_BYTES: usize = 4 * 1024 * 1024;
    let probe = || -> io::Result<()> {
        let mut file = tempfile::tempfile_in(directory)?;
        file.write_all(&vec![0; PROBE_BYTES])?;
        file.sync_all()
    };
    let source = probe().err().unwrap_or_else(|| ErrorKind::Other.into());
    target_error(directory, source)
}

/// The same where it is not even said to be about a write: libgit2 loses that on some of its ways.
pub(super) fn unless_disk_is_full(directory: &Path, otherwise: Error) -> Error {
    match write_error(directory) {
        full @ Error::DiskFull { .. } => full,
        _ => otherwise,
    }
}

/// What it means that something could not be written.
pub(super) fn target_error(target: &Path, source: io::Error) -> Error {
    let path = target.to_owned();
    match source.kind() {
        // The last one is a limit for one file, of the file system or of whoever started this process.
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Error::DiskFull { path }
        }
        _ => Error::Target { path, source },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entries(directory: &Path) -> Vec<String> {
        let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_is_dropped_leaves_nothing_not_even_parents() {
        let root = tempfile::tempdir().unwrap();
        let scratch = Scratch::prepare(&root.path().join("a/b/c")).unwrap();
        assert_eq!(fs::metadata(scratch.path()).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(scratch.path().join("x"), "x").unwrap();
        scratch.withdraw();
        assert!(!scratch.path().exists());
        drop(scratch);
        assert!(entries(root.path()).is_empty());
    }

    #[test]
    fn what_is_delivered_is_at_its_place_and_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        for name in ["missing", "empty"] {
            let target = root.path().join("parent").join(name);
            if name == "empty" {
                fs::create_dir_all(&target).unwrap();
            }
            let scratch = Scratch::prepare(&target).unwrap();
            fs::create_dir(scratch.path().join(".git")).unwrap();
            scratch.deliver().unwrap();
            assert_eq!(entries(&target), [".git"]);
        }
        assert_eq!(entries(root.path()), ["parent"]);
        assert_eq!(entries(&root.path().join("parent")).len(), 2);
    }

    #[test]
    fn a_target_that_holds_something_is_refused_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "x").unwrap();
        for target in [root.path(), &file] {
            assert!(matches!(Scratch::prepare(target), Err(Error::TargetNotEmpty { .. })));
        }
        assert_eq!(entries(root.path()), ["file"]);
    }

    #[test]
    fn a_target_that_was_filled_meanwhile_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        let scratch = Scratch::prepare(&target).unwrap();
        fs::create_dir(scratch.path().join(".git")).unwrap();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("theirs"), "x").unwrap();
        assert!(matches!(scratch.deliver(), Err(Error::TargetNotEmpty { .. })));
        assert_eq!(entries(&target), ["theirs"]);
        assert_eq!(entries(root.path()), ["target"]);
    }
}
