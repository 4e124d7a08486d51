//! Clones of tasks that stay on this host: named after their attempt, bounded, listed, and gone when their time is over.
//!
//! A workspace `N` is the directory `N` with a note `N.json` beside it, which is written before the clone is there.
//! What has no note was never told to anybody, so that it is removed at the next start.
//!
//! A clone into a directory of the operator's is noted before it is there (`placed`), until its result counts.

mod placed;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::config::WorkspaceSettings;
use crate::git::{Announce, Growing};
use placed::{Placed, Taken};

/// The most that is read of a note, in bytes. A URL has 4 KiB at the most.
const MAX_NOTE_BYTES: u64 = 64 * 1024;

/// What the name of a directory that is still growing has in it.
const GROWING: &str = ".sortie-";

/// How long a note of a clone in a directory of the operator's is kept that nobody has asked for. An attempt whose
/// result counts, or does not, has none; only a process that ends in that very moment leaves one.
const PLACED_AGE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// What the note of a clone is called that is being taken away, so that the next start goes on with it.
const TAKEN_AWAY: &str = "discarded";

/// All workspaces of this agent.
#[derive(Debug)]
pub struct Workspaces {
    root: PathBuf,
    /// Notes of what attempts have put into directories of the operator's.
    placed: PathBuf,
    settings: WorkspaceSettings,
    /// The attempts whose clones are being taken away.
    removals: watch::Sender<Arc<BTreeSet<String>>>,
}

/// Says that what an attempt has left is being removed, for as long as it lives.
#[derive(Debug)]
pub struct Removal {
    workspaces: Arc<Workspaces>,
    name: String,
}

/// A workspace as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workspace {
    /// Its name: the task and the number of the attempt.
    pub name: String,
    /// What was cloned.
    pub url: String,
    /// The commit.
    pub commit: String,
    /// What it took when it was delivered, in bytes.
    pub bytes: u64,
    /// When it was delivered.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it will be removed.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

/// Why there is no place for a clone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// The operator allows no clone there.
    #[error("the operator allows no clone in {}", directory.display())]
    NotAllowed {
        /// What was asked for.
        directory: PathBuf,
    },
    /// All workspaces together have used up what they may take.
    #[error("the workspaces of this agent take {used} of {limit} bytes")]
    Full {
        /// What they take, in bytes.
        used: u64,
        /// What they may take, in bytes.
        limit: u64,
    },
}

impl Workspaces {
    /// Workspaces below a directory, and notes of clones elsewhere below another one. Both are made when they are
    /// needed.
    pub fn new(root: PathBuf, placed: PathBuf, settings: WorkspaceSettings) -> Self {
        Self { root, placed, settings, removals: watch::Sender::default() }
    }

    /// Where a clone goes: a directory of that name, or the one that was asked for where the operator allows it. What
    /// has expired makes room first.
    ///
    /// # Errors
    /// Why there is no place.
    pub fn place(&self, name: &str, directory: Option<&Path>) -> Result<PathBuf, PlaceError> {
        if let Some(directory) = directory {
            return self.allowed(directory);
        }
        self.remove_expired();
        let used: u64 = self.list().iter().map(|workspace| workspace.bytes).sum();
        let limit = self.settings.max_bytes;
        if used >= limit { Err(PlaceError::Full { used, limit }) } else { Ok(self.root.join(name)) }
    }

    /// Below a directory of the operator's, once symbolic links in what exists of it are followed.
    fn allowed(&self, directory: &Path) -> Result<PathBuf, PlaceError> {
        let refused = || PlaceError::NotAllowed { directory: directory.to_owned() };
        let mut components = directory.components();
        let is_plain = components.next() == Some(Component::RootDir)
            && components.all(|component| matches!(component, Component::Normal(_)));
        let existing = directory.ancestors().find(|ancestor| ancestor.exists()).ok_or_else(refused)?;
        let rest = directory.strip_prefix(existing).map_err(|_| refused())?;
        let real = existing.canonicalize().map_err(|_| refused())?.join(rest);
        let is_below = self.settings.directories.iter().any(|allowed| {
            allowed.canonicalize().is_ok_and(|allowed| real.starts_with(&allowed) && real != allowed)
        });
        if is_plain && is_below { Ok(real) } else { Err(refused()) }
    }

    /// What takes note of a workspace right before it is put in its place: without it, it would be gone after the next
    /// start.
    pub fn announce_workspace(self: &Arc<Self>, name: &str, url: &str, commit: &str) -> Announce {
        let workspaces = Arc::clone(self);
        let (name, url, commit) = (name.to_owned(), url.to_owned(), commit.to_owned());
        Announce::new(self.note_of(&name), move |growing: &Growing<'_>| {
            workspaces.note(&name, growing.scratch, &url, &commit)
        })
    }

    /// Takes note of a clone that stands whole, wherever it is now.
    fn note(&self, name: &str, clone: &Path, url: &str, commit: &str) -> io::Result<()> {
        let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let workspace = Workspace {
            name: name.to_owned(),
            url: url.to_owned(),
            commit: commit.to_owned(),
            bytes: size(clone),
            created_at: now,
            expires_at: now.saturating_add(time::Duration::try_from(self.settings.ttl).unwrap_or_default()),
        };
        let text = serde_json::to_vec(&workspace).map_err(io::Error::other)?;
        let file = tempfile::NamedTempFile::new_in(&self.root)?;
        fs::write(file.path(), text)?;
        file.persist(self.note_of(name))?;
        Ok(())
    }

    /// Gives up the note of a workspace that did not come to its place.
    pub fn give_up(&self, name: &str) {
        if !self.root.join(name).exists() {
            self.remove(&self.note_of(name));
        }
    }

    /// Every workspace, the newest first.
    pub fn list(&self) -> Vec<Workspace> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().filter_map(Result::ok);
        let mut found: Vec<Workspace> = entries.filter_map(|entry| read_note(&entry.path())).collect();
        found.retain(|workspace| self.root.join(&workspace.name).is_dir());
        found.sort_by_key(|workspace| std::cmp::Reverse(workspace.created_at));
        found
    }

    /// Where a workspace is.
    pub fn path(&self, workspace: &Workspace) -> PathBuf {
        self.root.join(&workspace.name)
    }

    /// Removes what has expired, and returns it.
    pub fn remove_expired(&self) -> Vec<Workspace> {
        let now = OffsetDateTime::now_utc();
        self.remove_where(|workspace| workspace.expires_at <= now)
    }

    /// Removes all workspaces, and returns them.
    pub fn remove_all(&self) -> Vec<Workspace> {
        self.remove_where(|_| true)
    }

    fn remove_where(&self, is_over: impl Fn(&Workspace) -> bool) -> Vec<Workspace> {
        let mut over = self.list();
        over.retain(is_over);
        for workspace in &over {
            // The note goes last: as long as it is there, somebody will try again.
            self.remove(&self.root.join(&workspace.name));
            self.remove(&self.note_of(&workspace.name));
        }
        over
    }

    /// Begins to remove what an attempt of this name has left, because its result does not count. Whoever wants a
    /// directory of the operator's from now on waits for the end of it, see [`Self::removed`].
    pub fn remove_soon(self: &Arc<Self>, name: &str) -> Removal {
        self.removals.send_modify(|names| {
            Arc::make_mut(names).insert(name.to_owned());
        });
        Removal { workspaces: Arc::clone(self), name: name.to_owned() }
    }

    /// Waits until nothing is being removed. Dropping the future is fine.
    pub async fn removed(&self) {
        // The sender lives as long as this.
        let _ = self.removals.subscribe().wait_for(|names| names.is_empty()).await;
    }

    /// What takes note of a clone on its way into a directory of the operator's, for the attempt of this name.
    pub fn announce(&self, name: &str) -> Announce {
        let note = self.placed_note(name, "json");
        Announce::new(note.clone(), move |growing: &Growing<'_>| Placed::of(growing)?.write(&note))
    }

    /// Gives up the note of a clone in a directory of the operator's, which stays, unless it is being removed.
    pub fn settle(&self, name: &str) {
        if !self.removals.borrow().contains(name) {
            self.remove(&self.placed_note(name, "json"));
        }
    }

    fn discard(&self, name: &str) {
        let (path, aside) = (self.root.join(name), self.root.join(format!(".{name}{GROWING}discarded")));
        // Under another name it goes at the next start, too, if this process ends before it is gone.
        if fs::rename(&path, &aside).is_ok() {
            tracing::info!(workspace = name, "a workspace is removed whose attempt does not count");
            self.remove(&self.note_of(name));
            self.remove(&aside);
        }
        let note = self.placed_note(name, TAKEN_AWAY);
        if fs::rename(self.placed_note(name, "json"), &note).is_ok() {
            self.take_away(&note);
        }
    }

    /// Takes away what a note tells of, and gives it up unless the next start shall try again.
    fn take_away(&self, note: &Path) {
        let Some(placed) = Placed::read(note) else {
            tracing::warn!(path = %note.display(), "a note of a clone cannot be read, and is given up");
            return self.remove(note);
        };
        let path = placed.target().display();
        if self.allowed(placed.target()).is_err() {
            tracing::warn!(%path, "a clone that does not count stays: the operator allows no clone there any more");
            return self.remove(note);
        }
        match placed.take_away() {
            Ok(Taken::Nothing) => {}
            Ok(Taken::Gone) => tracing::info!(%path, "a clone is removed whose attempt does not count"),
            Ok(Taken::Changed) => {
                tracing::warn!(%path, "a clone whose attempt does not count stays: it was changed since");
            }
            Err(error) => {
                tracing::warn!(%path, %error, "a clone that does not count cannot be removed now");
                return;
            }
        }
        self.remove(note);
    }

    fn placed_note(&self, name: &str, extension: &str) -> PathBuf {
        self.placed.join(format!("{name}.{extension}"))
    }

    /// Goes on with what an earlier process began to take away, and gives up notes that nobody has asked for in long.
    fn sweep_placed(&self) {
        for entry in fs::read_dir(&self.placed).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|at| at.elapsed());
            match path.extension().and_then(|extension| extension.to_str()) {
                Some(TAKEN_AWAY) => self.take_away(&path),
                Some("json") if !matches!(age, Ok(Ok(age)) if age > PLACED_AGE) => {}
                _ => self.remove(&path),
            }
        }
    }

    /// Removes what was never told to anybody: clones that a killed process left unfinished or without a note, and notes
    /// without a clone. Nothing runs yet when this is called.
    pub fn sweep(&self) {
        for entry in fs::read_dir(&self.root).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_kept = match name.strip_suffix(".json") {
                Some(name) => self.root.join(name).is_dir(),
                None => !name.contains(GROWING) && self.note_of(&name).is_file(),
            };
            if !is_kept {
                self.remove(&path);
            }
        }
        self.remove_expired();
        self.sweep_placed();
    }

    fn note_of(&self, name: &str) -> PathBuf {
        self.root.join(format!("{name}.json"))
    }

    fn remove(&self, path: &Path) {
        let is_directory = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir());
        let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        if let Err(error) = removed
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a workspace cannot be removed");
        }
    }
}

impl Removal {
    /// Removes it, if there is anything: another attempt does the same work again. Blocks.
    pub fn run(self) {
        self.workspaces.discard(&self.name);
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.workspaces.removals.send_modify(|names| {
            Arc::make_mut(names).remove(&self.name);
        });
    }
}

/// How much time is left until a moment, for people.
pub fn time_left(until: OffsetDateTime) -> Duration {
    let now = OffsetDateTime::from(SystemTime::now());
    Duration::try_from(until - now).unwrap_or_default()
}

fn read_note(path: &Path) -> Option<Workspace> {
    if path.extension()? != "json" || fs::metadata(path).ok()?.len() > MAX_NOTE_BYTES {
        return None;
    }
    let workspace: Workspace = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    // A note tells of the directory beside it and of no other.
    (path.file_stem()?.to_str()? == workspace.name).then_some(workspace)
}

/// What a directory takes on the disk, in bytes, without following symbolic links.
fn size(path: &Path) -> u64 {
    const BLOCK_BYTES: u64 = 512;
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let own = metadata.blocks() * BLOCK_BYTES;
    if !metadata.is_dir() {
        return own;
    }
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    own + entries.map(|entry| size(&entry.path())).sum::<u64>()
}

#[cfg(test)]
#[path = "workspace/tests.rs"]
mod tests;
