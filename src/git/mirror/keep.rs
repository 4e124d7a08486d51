//! Where mirrors lie on the disk: locks, use, size, and what goes when there is too much of it.
//!
//! A mirror `K` is the repository `K.git` beside the file `K.lock`, whose time of change says when it was used last.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use git2::Repository;

use crate::git::Error;
use crate::git::connectivity::indexes;
use crate::git::target::target_error;
use crate::git::wire::Wire;
use crate::remote_url::RemoteUrl;

/// How often one who waits for a mirror tries again.
const LOCK_INTERVAL: Duration = Duration::from_millis(10);

/// How much of the hash names a mirror, in bytes.
const KEY_BYTES: usize = 16;

/// All mirrors of this agent.
#[derive(Debug)]
pub struct Mirrors {
    root: PathBuf,
    max_bytes: u64,
}

/// A mirror as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorInfo {
    /// Its name on the disk.
    pub key: String,
    /// The remote that it stands for.
    pub url: String,
    /// For whom: the name of a credential.
    pub identity: String,
    /// What it takes, in bytes.
    pub bytes: u64,
    /// In how many packs.
    pub packs: u64,
    /// When it was used last.
    pub used: SystemTime,
}

impl Mirrors {
    /// Mirrors below a directory, which is made when it is needed, of so many bytes together.
    pub fn new(root: PathBuf, max_bytes: u64) -> Self {
        Self { root, max_bytes }
    }

    /// The place for a mirror of one remote for one identity. An identity never sees what another one fetched.
    pub fn place(self: &Arc<Self>, url: &RemoteUrl, identity: &str) -> MirrorPlace {
        let hash = digest(&SHA256, format!("{url}\n{identity}").as_bytes());
        let key = hash.as_ref().iter().take(KEY_BYTES).map(|byte| format!("{byte:02x}")).collect();
        MirrorPlace { mirrors: Arc::clone(self), key, identity: identity.to_owned(), used: Arc::default() }
    }

    /// Every mirror, the one that was used last first.
    ///
    /// # Errors
    /// Why the directory cannot be read.
    pub fn list(&self) -> io::Result<Vec<MirrorInfo>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found: Vec<MirrorInfo> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                self.info(name.strip_suffix(".git")?)
            })
            .collect();
        found.sort_by_key(|mirror| std::cmp::Reverse(mirror.used));
        Ok(found)
    }

    fn info(&self, key: &str) -> Option<MirrorInfo> {
        let path = self.path(key);
        let config = git2::Config::open(&path.join("config")).ok()?;
        let value = |name: &str| config.get_string(name).unwrap_or_default();
        let (bytes, packs) = size(&path);
        let used = fs::metadata(self.lock_file(key)).and_then(|metadata| metadata.modified());
        Some(MirrorInfo {
            key: key.to_owned(),
            url: value("sortie.url"),
            identity: value("sortie.identity"),
            bytes,
            packs,
            used: used.unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }

    /// Removes the mirrors that were used longest ago until all together take so many bytes at the most. One that is in
    /// use stays. Returns what went.
    ///
    /// # Errors
    /// Why the directory cannot be read, or a mirror not be removed.
    pub fn prune(&self, max_bytes: u64) -> io::Result<Vec<MirrorInfo>> {
        self.prune_but(max_bytes, None)
    }

    fn prune_but(&self, max_bytes: u64, spared: Option<&str>) -> io::Result<Vec<MirrorInfo>> {
        let mut mirrors = self.list()?;
        let mut total: u64 = mirrors.iter().map(|mirror| mirror.bytes).sum();
        let mut gone = Vec::new();
        while let Some(oldest) = mirrors.pop() {
            if total <= max_bytes {
                break;
            }
            if spared == Some(oldest.key.as_str()) {
                continue;
            }
            let lock = self.open_lock(&oldest.key)?;
            if lock.try_lock().is_ok() {
                self.remove(&oldest.key)?;
                total -= oldest.bytes;
                gone.push(oldest);
            }
        }
        Ok(gone)
    }

    /// Removes what a process that was killed left behind.
    pub fn sweep(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().filter_map(Result::ok) {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(".new-") || name.starts_with(".gone-") {
                let _ = fs::remove_dir_all(entry.path());
            } else if let Some(key) = name.strip_suffix(".git")
                && let Ok(lock) = self.open_lock(key)
                && lock.try_lock().is_ok()
            {
                // What stays is not taken from before it is gone.
                let _ = sweep(&entry.path());
            }
        }
    }

    pub(super) fn path(&self, key: &str) -> PathBuf {
        self.root.join(format!("{key}.git"))
    }

    fn lock_file(&self, key: &str) -> PathBuf {
        self.root.join(format!("{key}.lock"))
    }

    pub(super) fn open_lock(&self, key: &str) -> io::Result<File> {
        File::options().read(true).write(true).create(true).truncate(false).open(self.lock_file(key))
    }

    /// Removes a mirror that is locked. The lock's file stays, because somebody may wait for it.
    fn remove(&self, key: &str) -> io::Result<()> {
        let gone = tempfile::Builder::new().prefix(".gone-").tempdir_in(&self.root)?;
        match fs::rename(self.path(key), gone.path().join("mirror")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => gone.close(),
        }
    }
}

/// How much a mirror takes: bytes and packs.
fn size(repository: &Path) -> (u64, u64) {
    let entries = fs::read_dir(repository.join("objects/pack")).into_iter().flatten().filter_map(Result::ok);
    entries.fold((0, 0), |(bytes, packs), entry| {
        let is_pack = entry.path().extension().is_some_and(|extension| extension == "pack");
        (bytes + entry.metadata().map_or(0, |metadata| metadata.len()), packs + u64::from(is_pack))
    })
}

/// Lists the packs of a mirror that were there before the present fetch. As long as the file is there, nobody knows
/// whether those that came since are whole.
const UNCHECKED: &str = "sortie-unchecked";

/// Notes, durably, that what comes from now on is not known to be whole. The mirror is locked.
pub(super) fn begin_unchecked(repository: &Path) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(repository)?;
    for index in indexes(&repository.join("objects/pack"))? {
        let name = index.file_name().unwrap_or_default();
        file.write_all(&[name.as_encoded_bytes(), b"\n"].concat())?;
    }
    file.as_file().sync_all()?;
    file.persist(repository.join(UNCHECKED))?;
    File::open(repository)?.sync_all()
}

/// Notes that everything is whole again.
pub(super) fn end_unchecked(repository: &Path) -> io::Result<()> {
    fs::remove_file(repository.join(UNCHECKED))
}

/// Whether there may be packs that are not whole.
pub(super) fn is_unchecked(repository: &Path) -> bool {
    // What cannot be looked at may be there.
    !matches!(fs::symlink_metadata(repository.join(UNCHECKED)), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

/// Removes what is no pack and no index, and packs that nobody has checked, left behind by a process that was killed.
/// The mirror is locked.
///
/// # Errors
/// Why packs that nobody has checked are there still.
pub(super) fn sweep(repository: &Path) -> io::Result<()> {
    let packs = repository.join("objects/pack");
    if is_unchecked(repository) {
        let checked = fs::read(repository.join(UNCHECKED))?;
        let checked: HashSet<&[u8]> = checked.split(|byte| *byte == b'\n').collect();
        for index in indexes(&packs)? {
            if !checked.contains(index.file_name().unwrap_or_default().as_encoded_bytes()) {
                // The pack goes with what is left of others.
                fs::remove_file(index)?;
            }
        }
        File::open(&packs)?.sync_all()?;
        end_unchecked(repository)?;
    }
    for entry in fs::read_dir(packs).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        let is_part = path.extension().is_some_and(|extension| extension == "pack" || extension == "idx");
        // An index that has lost its pack, or a pack that never got its index, is of no use either.
        let is_whole = path.with_extension("pack").is_file() && path.with_extension("idx").is_file();
        if !(is_part && is_whole) {
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

/// Where one mirror is, or will be.
#[derive(Debug, Clone)]
pub struct MirrorPlace {
    mirrors: Arc<Mirrors>,
    key: String,
    identity: String,
    used: Arc<AtomicBool>,
}

/// Who else may have a mirror at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// Others who read it.
    Shared,
    /// Nobody.
    Exclusive,
}

impl MirrorPlace {
    /// The mirror's name on the disk.
    pub(in crate::git) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn identity(&self) -> &str {
        &self.identity
    }

    pub(super) fn root(&self) -> &Path {
        &self.mirrors.root
    }

    pub(super) fn path(&self) -> PathBuf {
        self.mirrors.path(&self.key)
    }

    /// Whether there is something in it already.
    pub(in crate::git) fn exists(&self) -> bool {
        size(&self.path()).1 > 0
    }

    /// Whether objects of it may have been part of this piece of work.
    pub(in crate::git) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Whether an open mirror is still the one that is here: somebody may have thrown it away meanwhile.
    pub(super) fn is_at(&self, mirror: &Repository) -> bool {
        let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
        // The open one is asked by a file in it that is never replaced.
        let here = identity(&self.path().join("objects"));
        here.is_some()
            && here == identity(&mirror.path().join("objects"))
            && self.path().join("HEAD").is_file()
    }

    /// Waits for the mirror, until the work must stop.
    pub(super) fn lock(&self, wire: &Wire, kind: Lock) -> Result<File, Error> {
        let failed = |error| target_error(self.root(), error);
        fs::create_dir_all(self.root()).map_err(failed)?;
        let file = self.mirrors.open_lock(&self.key).map_err(failed)?;
        loop {
            let locked = match kind {
                Lock::Shared => file.try_lock_shared(),
                Lock::Exclusive => file.try_lock(),
            };
            match locked {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => wire.wait(tokio::time::sleep(LOCK_INTERVAL))?,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
    }

    pub(super) fn mark_used(&self) {
        // Where the time cannot be set, the mirror goes a little early.
        let _ = self.mirrors.open_lock(&self.key).and_then(|file| file.set_modified(SystemTime::now()));
    }

    /// Makes room where all mirrors together take too much.
    pub(super) fn evict_others(&self) {
        match self.mirrors.prune_but(self.mirrors.max_bytes, Some(&self.key)) {
            Ok(gone) => {
                for mirror in gone {
                    tracing::info!(
                        mirror = mirror.key,
                        bytes = mirror.bytes,
                        "a mirror made room for others"
                    );
                }
            }
            Err(error) => tracing::warn!(%error, "mirrors cannot be looked through"),
        }
    }

    /// Throws the mirror away, because it is damaged.
    pub(in crate::git) fn discard(&self, wire: &Wire) -> Result<(), Error> {
        let _lock = self.lock(wire, Lock::Exclusive)?;
        self.used.store(false, Ordering::Relaxed);
        self.mirrors.remove(&self.key).map_err(|error| target_error(self.root(), error))
    }
}
