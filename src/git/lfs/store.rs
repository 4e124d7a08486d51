//! Objects on disk: as they come, where git-lfs keeps them, and in the place of their pointers. All of it blocks.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::{LfsFile, LfsOid};
use crate::git::pkt::scrubbed;
use crate::git::target::target_error;
use crate::git::{Control, Error};

/// How much is copied between two looks at the control, in bytes.
const COPY_BYTES: u64 = 4 * 1024 * 1024;

/// The directories of a clone's objects.
pub(super) struct Store {
    /// For messages.
    work_tree_path: PathBuf,
    /// Every path is walked from here, and no symbolic link is followed.
    work_tree: OwnedFd,
    objects: PathBuf,
    /// What is not whole yet, readable for nobody else. It is removed with the store.
    temporary: PathBuf,
}

/// A file that took its pointer's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its path in the repository, with slashes.
    pub path: Vec<u8>,
    /// What the file system says of it.
    pub stat: Stat,
}

/// What git's index keeps of a file, in the index's own widths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are those of the system's structure.
pub struct Stat {
    /// Seconds and nanoseconds.
    pub ctime: (i32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i32, u32),
    pub dev: u32,
    pub ino: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u32,
}

impl Stat {
    /// The index keeps the lower 32 bits of each.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            ctime: (metadata.ctime() as i32, metadata.ctime_nsec() as u32),
            mtime: (metadata.mtime() as i32, metadata.mtime_nsec() as u32),
            dev: metadata.dev() as u32,
            ino: metadata.ino() as u32,
            uid: metadata.uid(),
            gid: metadata.gid(),
            size: metadata.len() as u32,
        }
    }
}

impl Store {
    /// Makes the directories, and sees that there is room for so many bytes before any has come.
    pub(super) fn prepare(work_tree: &Path, git_directory: &Path, bytes: u64) -> Result<Self, Error> {
        let failed = |source| target_error(work_tree, source);
        let opened = rustix::fs::openat(CWD, work_tree, directory_flags(), Mode::empty());
        let lfs = git_directory.join("lfs");
        let (objects, temporary) = (lfs.join("objects"), lfs.join("tmp"));
        DirBuilder::new().recursive(true).create(&objects).map_err(failed)?;
        DirBuilder::new().mode(0o700).create(&temporary).map_err(failed)?;
        // From here on the store cleans up.
        let store = Self {
            work_tree_path: work_tree.to_owned(),
            work_tree: opened.map_err(|error| failed(error.into()))?,
            objects,
            temporary,
        };
        let room = rustix::fs::statvfs(&store.temporary).map_err(|error| failed(error.into()))?;
        // Some file systems do not tell.
        if room.f_blocks > 0 && room.f_bavail.saturating_mul(room.f_frsize) < bytes {
            return Err(Error::DiskFull { path: work_tree.to_owned() });
        }
        Ok(store)
    }

    /// A file for an object that begins to come.
    pub(super) fn begin(&self, oid: LfsOid) -> Result<Part, Error> {
        let path = self.temporary.join(oid.to_string());
        let file = create(&path).map_err(|error| self.failed(error))?;
        Ok(Part { file, path, digest: Context::new(&SHA256), received: 0 })
    }

    /// Adds to an object.
    pub(super) fn append(&self, part: &mut Part, piece: &[u8]) -> Result<(), Error> {
        part.file.write_all(piece).map_err(|error| self.failed(error))?;
        part.digest.update(piece);
        part.received += piece.len() as u64;
        Ok(())
    }

    /// Forgets what has come of an object.
    pub(super) fn restart(&self, part: &mut Part) -> Result<(), Error> {
        let done = part.file.set_len(0).and_then(|()| part.file.rewind());
        done.map_err(|error| self.failed(error))?;
        part.digest = Context::new(&SHA256);
        part.received = 0;
        Ok(())
    }

    /// Puts an object that was verified where git-lfs keeps it.
    pub(super) fn keep(&self, part: &Part, oid: LfsOid) -> Result<(), Error> {
        let path = self.object(oid);
        let parent = path.parent().unwrap_or(&self.objects);
        let kept =
            DirBuilder::new().recursive(true).create(parent).and_then(|()| fs::rename(&part.path, &path));
        kept.map_err(|error| self.failed(error))
    }

    /// Puts a file in the place of its pointer: a copy, so that a change to it does not change the object.
    ///
    /// The directories on the way are opened one by one without following a symbolic link, and what is replaced
    /// must be a regular file: whatever a tree and a file system make of each other's names, nothing outside of
    /// the working directory is written to.
    pub(super) fn place(&self, file: &LfsFile, number: usize, control: &Control) -> Result<Placed, Error> {
        let oid = file.pointer.oid;
        let path = self.temporary.join(format!("{oid}-{number}"));
        let (directory, name) = self.directory_of(&file.path)?;
        let before = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| self.failed(error.into()))?;
        if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
            return Err(Error::UnsafePath { path: scrubbed(&file.path) });
        }
        let mut source = File::open(self.object(oid)).map_err(|error| self.failed(error))?;
        let mut copy = create(&path).map_err(|error| self.failed(error))?;
        loop {
            control.check()?;
            let copied = io::copy(&mut (&mut source).take(COPY_BYTES), &mut copy);
            if copied.map_err(|error| self.failed(error))? == 0 {
                break;
            }
        }
        // The pointer's mode is the file's, which is what the executable bit is about.
        let mode = Mode::from_raw_mode(before.st_mode & 0o777);
        let placed = rustix::fs::fchmod(&copy, mode)
            .and_then(|()| rustix::fs::renameat(CWD, &path, &directory, name))
            .map_err(io::Error::from)
            // Renaming changes the file's own times, so they are asked for after it.
            .and_then(|()| copy.metadata());
        let metadata = placed.map_err(|error| self.failed(error))?;
        Ok(Placed { path: file.path.clone(), stat: Stat::of(&metadata) })
    }

    /// The directory of a path below the working directory, and the name in it.
    fn directory_of<'a>(&self, path: &'a [u8]) -> Result<(OwnedFd, &'a [u8]), Error> {
        let unsafe_path = || Error::UnsafePath { path: scrubbed(path) };
        let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        if names.iter().any(|name| matches!(*name, b"" | b"." | b"..")) {
            return Err(unsafe_path());
        }
        let name = names.pop().ok_or_else(unsafe_path)?;
        let copied = self.work_tree.try_clone();
        let mut directory = copied.map_err(|error| self.failed(error))?;
        for name in names {
            directory = match rustix::fs::openat(&directory, name, directory_flags(), Mode::empty()) {
                Ok(inner) => inner,
                // A symbolic link, or no directory at all.
                Err(rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR) => return Err(unsafe_path()),
                Err(error) => return Err(self.failed(error.into())),
            };
        }
        Ok((directory, name))
    }

    /// `lfs/objects/aa/bb/aabb…`
    fn object(&self, oid: LfsOid) -> PathBuf {
        let name = oid.to_string();
        let part = |range| name.get(range).unwrap_or_default();
        self.objects.join(part(0..2)).join(part(2..4)).join(&name)
    }

    fn failed(&self, source: io::Error) -> Error {
        target_error(&self.work_tree_path, source)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.temporary)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %self.temporary.display(), %error, "a temporary directory could not be removed");
        }
    }
}

/// An object as it comes.
pub(super) struct Part {
    file: File,
    path: PathBuf,
    digest: Context,
    received: u64,
}

impl Part {
    /// How much of it has been written, in bytes.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The name of what has come so far.
    pub(super) fn name(&self) -> Option<LfsOid> {
        LfsOid::of_digest(self.digest.clone().finish().as_ref())
    }
}

/// Directories, and nothing else behind that name.
fn directory_flags() -> OFlags {
    OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::PATH
}

/// A new file with the mode that this process gives to its files.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::Duration;

    use aws_lc_rs::digest::digest;
    use tokio_util::sync::CancellationToken;

    use super::super::Pointer;
    use super::*;

    const CONTENT: &[u8] = b"content";

    fn control() -> Control {
        Control::new(tokio::time::Instant::now() + Duration::from_secs(60), CancellationToken::new())
    }

    fn file(path: &str) -> LfsFile {
        let oid = LfsOid::of_digest(digest(&SHA256, CONTENT).as_ref()).unwrap();
        let pointer = Pointer { oid, size: CONTENT.len() as u64, has_extensions: false };
        LfsFile { path: path.into(), pointer }
    }

    fn store(root: &Path) -> Store {
        fs::create_dir_all(root.join("tree/.git")).unwrap();
        let store = Store::prepare(&root.join("tree"), &root.join("tree/.git"), 1).unwrap();
        let mut part = store.begin(file("").pointer.oid).unwrap();
        store.append(&mut part, b"other").unwrap();
        store.restart(&mut part).unwrap();
        store.append(&mut part, CONTENT).unwrap();
        assert_eq!(part.name(), Some(file("").pointer.oid));
        store.keep(&part, file("").pointer.oid).unwrap();
        store
    }

    #[tokio::test]
    async fn a_file_keeps_the_mode_of_its_pointer_and_no_temporary_file_is_left() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let path = root.path().join("tree/run.bin");
        fs::write(&path, "pointer").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let placed = store.place(&file("run.bin"), 0, &control()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), CONTENT);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(placed.stat, Stat::of(&fs::metadata(&path).unwrap()));
        drop(store);
        assert!(!root.path().join("tree/.git/lfs/tmp").exists());
    }

    #[tokio::test]
    async fn nothing_is_written_through_a_link_or_outside() {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path());
        let outside = root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("f"), "untouched").unwrap();
        fs::create_dir(root.path().join("tree/real")).unwrap();
        symlink(&outside, root.path().join("tree/link")).unwrap();
        symlink(&outside, root.path().join("tree/real/link")).unwrap();
        symlink(outside.join("f"), root.path().join("tree/name")).unwrap();
        for path in ["link/f", "real/link/f", "name", "../outside/f", "real/../../outside/f", "/f", "real"] {
            let refused = store.place(&file(path), 0, &control());
            assert!(matches!(refused, Err(Error::UnsafePath { .. })), "{path}: {refused:?}");
        }
        assert_eq!(fs::read(outside.join("f")).unwrap(), b"untouched");
        // A hard link is replaced, not written to.
        fs::hard_link(outside.join("f"), root.path().join("tree/hard")).unwrap();
        store.place(&file("hard"), 1, &control()).unwrap();
        assert_eq!(fs::read(outside.join("f")).unwrap(), b"untouched");
    }

    #[test]
    fn more_than_there_is_room_for_is_refused_before_it_comes() {
        let root = tempfile::tempdir().unwrap();
        let refused = Store::prepare(root.path(), root.path(), u64::MAX).err().unwrap();
        assert!(matches!(refused, Error::DiskFull { .. }), "{refused:?}");
        assert!(!root.path().join("lfs/tmp").exists());
    }
}
