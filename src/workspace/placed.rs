//! What a clone puts into a directory of the operator's, noted before it is there: whoever ends before anybody counted
//! the clone can take away what is its own, and nothing else.
//!
//! A note names the very directory, by device, number and birth, and not only its path. What was changed since it was put
//! in its place may be somebody's work by now, and stays.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write as _};
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::git::Growing;

/// The most that is read of a note, in bytes: names that lie side by side in a clone.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

/// How coarse the clock of a file system may be. Linux's own is one of a few milliseconds.
const LONGEST_TICK: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(1);

/// Names a directory that is about to be removed.
const DISCARDED: &str = ".discarded";

/// What one attempt has put, or is about to put, into a directory of the operator's.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Placed {
    /// Where it is to be.
    target: OsString,
    /// Where it grows.
    scratch: OsString,
    /// What it grows in, which is the very directory that will be at the target, unless it grows in the target.
    directory: Identity,
    /// Whether the target was there before and stays, so that what has grown is moved into it.
    is_inside: bool,
    /// The mode of an empty directory that the clone takes the place of.
    target_mode: Option<u32>,
    /// Directories that were made on the way, outermost first.
    parents: Vec<(OsString, Identity)>,
    /// What is known once the clone is whole, which is before it is at its place.
    whole: Option<Whole>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Whole {
    /// When the last of it was written, by the clock of its file system. `None` where that clock is so coarse that a
    /// later change might bear the same time.
    at: Option<Moment>,
    /// What is moved into a target that stays.
    entries: Vec<(OsString, Identity)>,
}

/// Seconds and nanoseconds.
type Moment = (i64, i64);

/// Tells one file from every other that has, or had, the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    number: u64,
    /// Numbers are used again; where the file system keeps no births, the number has to do.
    born: Option<SystemTime>,
}

/// What came of taking a clone away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// There is nothing of it.
    Nothing,
    /// It is gone.
    Gone,
    /// Somebody has changed it since, so that it stays.
    Changed,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino(), born: metadata.created().ok() }
    }

    fn at(path: &Path) -> io::Result<Self> {
        fs::symlink_metadata(path).map(|metadata| Self::of(&metadata))
    }

    fn is_at(&self, path: &Path) -> bool {
        Self::at(path).is_ok_and(|found| found == *self)
    }
}

impl Placed {
    /// Of a clone as it is now.
    ///
    /// # Errors
    /// Why it cannot be looked at.
    pub(super) fn of(growing: &Growing<'_>) -> io::Result<Self> {
        let scratch = fs::symlink_metadata(growing.scratch)?;
        let with_identity = |path: &PathBuf| Ok((path.clone().into(), Identity::at(path)?));
        let entries = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            Ok((entry.file_name(), Identity::at(&entry.path())?))
        };
        let whole = if growing.is_whole {
            let entries = match growing.is_inside_target {
                true => fs::read_dir(growing.scratch)?.map(entries).collect::<io::Result<_>>()?,
                false => Vec::new(),
            };
            Some(Whole { at: sealed(growing.scratch, &scratch)?, entries })
        } else {
            None
        };
        Ok(Self {
            target: growing.target.into(),
            scratch: growing.scratch.into(),
            directory: Identity::of(&scratch),
            is_inside: growing.is_inside_target,
            target_mode: growing.target_mode,
            parents: growing.made_parents.iter().map(with_identity).collect::<io::Result<_>>()?,
            whole,
        })
    }

    /// Writes it to a file, which is on the disk when this returns.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec(self).map_err(io::Error::other)?)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(directory)?.sync_all()
    }

    /// Reads it back. `None` is none that this program wrote.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let is_short = fs::metadata(path).is_ok_and(|metadata| metadata.len() <= MAX_BYTES);
        is_short.then(|| serde_json::from_slice(&fs::read(path).ok()?).ok()).flatten()
    }

    /// Where it is to be.
    pub(super) fn target(&self) -> &Path {
        Path::new(&self.target)
    }

    /// Removes what is left of the clone, be it at its place or still on its way there, and the directories that were
    /// made for it.
    ///
    /// # Errors
    /// Why something of it is left.
    pub(super) fn take_away(&self) -> io::Result<Taken> {
        let target = self.target();
        let taken = if self.is_inside {
            self.take_out()?
        } else if self.directory.is_at(target) {
            self.remove_target(target)?
        } else {
            Taken::Nothing
        };
        let taken = if self.remove_scratch()? && taken == Taken::Nothing { Taken::Gone } else { taken };
        if taken == Taken::Gone {
            self.remove_parents();
        }
        Ok(taken)
    }

    fn remove_target(&self, target: &Path) -> io::Result<Taken> {
        if !self.is_unchanged(target, Kind::Root) {
            return Ok(Taken::Changed);
        }
        // Under another name nobody comes upon half of it, and the next start finds it.
        let aside = self.aside();
        fs::rename(target, &aside)?;
        if !self.directory.is_at(&aside) {
            // Somebody has put another one there in this very moment.
            fs::rename(&aside, target)?;
            return Ok(Taken::Changed);
        }
        self.remake_target()?;
        fs::remove_dir_all(&aside)?;
        Ok(Taken::Gone)
    }

    /// Whether nothing at a path of the clone and below it was changed since it was whole. What is older than its beginning
    /// was changed, too, while the clock was set back.
    fn is_unchanged(&self, path: &Path, kind: Kind) -> bool {
        let begun = self.directory.born.and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let begun = begun.unwrap_or_default();
        let begun = (begun.as_secs().try_into().unwrap_or(i64::MAX), begun.subsec_nanos().into());
        let whole = self.whole.as_ref().and_then(|whole| whole.at);
        whole.is_some_and(|whole| is_all_of(&(begun..=whole), path, kind))
    }

    /// Removes what has been moved into a target that stays.
    fn take_out(&self) -> io::Result<Taken> {
        let (ours, has_others) = self.put_aside()?;
        for path in &ours {
            remove(path)?;
        }
        Ok(match ours.is_empty() {
            _ if has_others => Taken::Changed,
            true => Taken::Nothing,
            false => Taken::Gone,
        })
    }

    /// Gives all that has been moved into a target that stays another name, under which the next start finds it however
    /// little is left of it: removing a part changes the times of the rest. Returns where it is now, and whether
    /// anything else is in the target.
    ///
    /// # Errors
    /// Why it cannot be renamed, or looked at.
    pub(super) fn put_aside(&self) -> io::Result<(Vec<PathBuf>, bool)> {
        let (target, Some(whole)) = (self.target(), &self.whole) else { return Ok(Default::default()) };
        let entries = match fs::read_dir(target) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Default::default());
            }
            entries => entries?,
        };
        let mut known = HashMap::new();
        for (number, (name, identity)) in whole.entries.iter().enumerate() {
            let aside = with_suffix(self.aside().as_os_str(), &format!(".{number}"));
            known.insert(target.join(name), (aside.clone(), identity));
            known.insert(aside.clone(), (aside, identity));
        }
        let (mut aside, mut ours, mut has_others) = (Vec::new(), Vec::new(), false);
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if path.as_os_str() == self.scratch {
                continue;
            }
            let kind = Kind::of_root(&entry.file_name());
            match known.get(&path).filter(|(_, identity)| identity.is_at(&path)) {
                Some((to, _)) if path == *to => aside.push(path),
                Some((to, _)) if self.is_unchanged(&path, kind) => ours.push((path, to)),
                _ => has_others = true,
            }
        }
        // What an earlier process has begun goes on: it had found nothing of others.
        if has_others && aside.is_empty() {
            return Ok((aside, has_others));
        }
        for (path, to) in ours {
            fs::rename(path, to)?;
            aside.push(to.clone());
        }
        Ok((aside, has_others))
    }

    /// Removes what is not in its place: where it has grown, or where it was put aside to be removed.
    fn remove_scratch(&self) -> io::Result<bool> {
        let scratch = Path::new(&self.scratch);
        let withdrawn = with_suffix(&self.scratch, ".withdrawn");
        let aside = self.aside();
        let found = [scratch, &withdrawn, &aside].into_iter().find(|path| self.directory.is_at(path));
        if found == Some(&aside) {
            self.remake_target()?;
        }
        found.map_or(Ok(()), fs::remove_dir_all)?;
        Ok(found.is_some())
    }

    /// Makes the empty directory again that the clone took the place of.
    fn remake_target(&self) -> io::Result<()> {
        let (target, Some(mode)) = (self.target(), self.target_mode) else { return Ok(()) };
        match fs::DirBuilder::new().mode(mode).create(target) {
            Ok(()) => fs::set_permissions(target, fs::Permissions::from_mode(mode)),
            // An earlier process came that far, or it is somebody else's.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn aside(&self) -> PathBuf {
        with_suffix(&self.scratch, DISCARDED)
    }

    fn remove_parents(&self) {
        for (path, identity) in self.parents.iter().rev() {
            let path = Path::new(path);
            // One that somebody else has put something into stays, and those above it do.
            if !identity.is_at(path) || fs::remove_dir(path).is_err() {
                break;
            }
        }
    }
}

/// The time of a directory, once its file system would give a later one to whatever is changed from now on.
fn sealed(directory: &Path, metadata: &Metadata) -> io::Result<Option<Moment>> {
    let (at, since) = (changed(metadata), Instant::now());
    while since.elapsed() < LONGEST_TICK {
        std::thread::sleep(PAUSE);
        if touched(directory, metadata)? > at {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// What the clock of a directory's file system says now.
fn touched(directory: &Path, metadata: &Metadata) -> io::Result<Moment> {
    // The mode that it has already: only the time changes.
    fs::set_permissions(directory, metadata.permissions())?;
    Ok(changed(&fs::symlink_metadata(directory)?))
}

/// Where something lies in a clone, which says what its times tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It was renamed when it was put in its place, which only the time of its content leaves out.
    Root,
    /// The same with git's own directory.
    GitRoot,
    /// A file or a directory of the commit.
    Work,
    /// Below git's own directory.
    Git,
    /// Below a directory of objects, whose files never change. Some are links to those of a mirror, and their times
    /// change with every other link.
    Objects,
}

impl Kind {
    fn of_root(name: &std::ffi::OsStr) -> Self {
        if name == ".git" { Self::GitRoot } else { Self::Root }
    }

    fn below(self, name: &std::ffi::OsStr, is_top: bool) -> Self {
        match self {
            Self::Objects => Self::Objects,
            Self::Git | Self::GitRoot if name == "objects" => Self::Objects,
            Self::Git | Self::GitRoot => Self::Git,
            Self::Root if is_top && name == ".git" => Self::Git,
            Self::Root | Self::Work => Self::Work,
        }
    }
}

/// Whether all at a path and below it is of a time that is over. Symbolic links are not followed.
fn is_all_of(time: &RangeInclusive<Moment>, path: &Path, kind: Kind) -> bool {
    let mut waiting = vec![(path.to_owned(), kind, true)];
    while let Some((path, kind, is_top)) = waiting.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { return false };
        let last = match kind {
            Kind::Objects if !metadata.is_dir() => continue,
            Kind::Root | Kind::GitRoot => written(&metadata),
            Kind::Objects | Kind::Work | Kind::Git => written(&metadata).max(changed(&metadata)),
        };
        // Where the clock was set back to within that time, it tells nothing.
        let is_over = || touched(&path, &metadata).is_ok_and(|now| now > *time.end());
        if !time.contains(&last) || (is_top && metadata.is_dir() && !is_over()) {
            return false;
        }
        if metadata.is_dir() {
            let Ok(entries) = fs::read_dir(&path) else { return false };
            for entry in entries {
                let Ok(entry) = entry else { return false };
                waiting.push((entry.path(), kind.below(&entry.file_name(), is_top), false));
            }
        }
    }
    true
}

/// When the content was written.
fn written(metadata: &Metadata) -> Moment {
    (metadata.mtime(), metadata.mtime_nsec())
}

/// When anything of it was changed, which nobody can set.
fn changed(metadata: &Metadata) -> Moment {
    (metadata.ctime(), metadata.ctime_nsec())
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn with_suffix(path: &std::ffi::OsStr, suffix: &str) -> PathBuf {
    let mut path = path.to_owned();
    path.push(suffix);
    path.into()
}
