//! Clones of tasks that stay on this host: named after their attempt, bounded, listed, and gone when their time is over.
//!
//! A workspace `N` is the directory `N` with a note `N.json` beside it, which is written once the clone stands whole.
//! What has no note was never told to anybody, so that it is removed at the next start.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::config::WorkspaceSettings;

/// The most that is read of a note, in bytes. A URL has 4 KiB at the most.
const MAX_NOTE_BYTES: u64 = 64 * 1024;

/// What the name of a directory that is still growing has in it.
const GROWING: &str = ".sortie-";

/// All workspaces of this agent.
#[derive(Debug)]
pub struct Workspaces {
    root: PathBuf,
    settings: WorkspaceSettings,
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
    /// Workspaces below a directory, which is made when it is needed.
    pub fn new(root: PathBuf, settings: WorkspaceSettings) -> Self {
        Self { root, settings }
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

    /// Takes note of a clone that stands whole in its place.
    ///
    /// # Errors
    /// Why the note cannot be written.
    pub fn note(&self, name: &str, url: &str, commit: &str) -> io::Result<()> {
        let now = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let workspace = Workspace {
            name: name.to_owned(),
            url: url.to_owned(),
            commit: commit.to_owned(),
            bytes: size(&self.root.join(name)),
            created_at: now,
            expires_at: now.saturating_add(time::Duration::try_from(self.settings.ttl).unwrap_or_default()),
        };
        let text = serde_json::to_vec(&workspace).map_err(io::Error::other)?;
        let file = tempfile::NamedTempFile::new_in(&self.root)?;
        fs::write(file.path(), text)?;
        file.persist(self.note_of(name))?;
        Ok(())
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

    /// Removes a workspace that does not count, if it is there: another attempt does the same work again.
    pub fn discard(&self, name: &str) {
        let (path, aside) = (self.root.join(name), self.root.join(format!(".{name}{GROWING}discarded")));
        // Under another name it goes at the next start, too, if this process ends before it is gone.
        if fs::rename(&path, &aside).is_ok() {
            tracing::info!(workspace = name, "a workspace is removed whose attempt does not count");
            self.remove(&self.note_of(name));
            self.remove(&aside);
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

/// How much time is left until a moment, for people.
pub fn time_left(until: OffsetDateTime) -> std::time::Duration {
    let now = OffsetDateTime::from(SystemTime::now());
    std::time::Duration::try_from(until - now).unwrap_or_default()
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
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn workspaces(root: &Path, ttl: Duration) -> Workspaces {
        let settings = WorkspaceSettings { max_bytes: 100_000, ttl, directories: vec![root.join("allowed")] };
        Workspaces::new(root.join("workspaces"), settings)
    }

    fn make(workspaces: &Workspaces, name: &str, bytes: usize) {
        let path = workspaces.place(name, None).unwrap();
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), vec![1; bytes]).unwrap();
        workspaces.note(name, "https://git.example/x", "abc").unwrap();
    }

    #[test]
    fn what_takes_too_much_lets_nothing_more_in_until_it_has_expired() {
        let root = tempfile::tempdir().unwrap();
        let kept = workspaces(root.path(), Duration::from_secs(60));
        make(&kept, "one-1", 200_000);
        assert!(kept.list()[0].bytes >= 200_000);
        let refused = kept.place("two-1", None);
        assert!(matches!(refused, Err(PlaceError::Full { limit: 100_000, .. })), "{refused:?}");
        let mut note = kept.list().remove(0);
        note.expires_at = OffsetDateTime::UNIX_EPOCH;
        fs::write(kept.note_of("one-1"), serde_json::to_vec(&note).unwrap()).unwrap();
        assert!(kept.place("two-1", None).is_ok());
        assert!(!root.path().join("workspaces/one-1").exists());
    }

    #[test]
    fn what_nobody_was_told_of_is_swept() {
        let root = tempfile::tempdir().unwrap();
        let kept = workspaces(root.path(), Duration::from_secs(60));
        make(&kept, "one-1", 10);
        for orphan in ["two-1", ".three-1.sortie-abcdef"] {
            fs::create_dir(root.path().join("workspaces").join(orphan)).unwrap();
        }
        fs::write(root.path().join("workspaces/four-1.json"), "{}").unwrap();
        kept.sweep();
        let mut left: Vec<_> =
            fs::read_dir(root.path().join("workspaces")).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["one-1", "one-1.json"]);
        assert_eq!(kept.remove_all().len(), 1);
        assert!(kept.list().is_empty());
    }

    #[test]
    fn what_does_not_count_is_discarded_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let kept = workspaces(root.path(), Duration::from_secs(60));
        make(&kept, "one-1", 10);
        make(&kept, "one-2", 10);
        kept.discard("one-1");
        kept.discard("one-3");
        let mut left: Vec<_> =
            fs::read_dir(root.path().join("workspaces")).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["one-2", "one-2.json"]);
    }

    #[test]
    fn a_note_cannot_name_another_directory() {
        let root = tempfile::tempdir().unwrap();
        let kept = workspaces(root.path(), Duration::from_secs(60));
        make(&kept, "one-1", 10);
        let mut note = kept.list().remove(0);
        note.name = "../allowed".into();
        fs::create_dir(root.path().join("allowed")).unwrap();
        fs::write(kept.note_of("one-1"), serde_json::to_vec(&note).unwrap()).unwrap();
        assert!(kept.remove_all().is_empty());
        assert!(root.path().join("allowed").exists());
    }

    #[test]
    fn a_directory_is_below_one_that_the_operator_allows() {
        let root = tempfile::tempdir().unwrap();
        let kept = workspaces(root.path(), Duration::from_secs(60));
        fs::create_dir_all(root.path().join("allowed/inner")).unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("allowed/link")).unwrap();
        let place = |rest: &str| kept.place("n", Some(&root.path().join(rest)));
        assert!(place("allowed/inner/new/x").is_ok() && place("allowed/x").is_ok());
        for outside in ["allowed", "elsewhere/x", "allowed/../x", "allowed/link/x", "allowedx/y"] {
            assert!(matches!(place(outside), Err(PlaceError::NotAllowed { .. })), "{outside}");
        }
        assert!(kept.place("n", Some(Path::new("relative/x"))).is_err());
    }
}
