//! Quota, time to live, notes, and what is taken away again.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn workspaces(root: &Path, ttl: Duration) -> Workspaces {
    let settings = WorkspaceSettings { max_bytes: 100_000, ttl, directories: vec![root.join("allowed")] };
    Workspaces::new(root.join("workspaces"), root.join("placed"), settings)
}

fn make(workspaces: &Workspaces, name: &str, bytes: usize) {
    let path = workspaces.place(name, None).unwrap();
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("file"), vec![1; bytes]).unwrap();
    workspaces.note(name, &path, "https://git.example/x", "abc").unwrap();
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

/// A clone on its way into a directory of the operator's, as git's part of the program puts it there.
struct Growth {
    root: tempfile::TempDir,
    kept: Arc<Workspaces>,
    scratch: PathBuf,
    target: PathBuf,
    made: Vec<PathBuf>,
    mode: Option<u32>,
    is_inside: bool,
}

impl Growth {
    /// In a target that does not exist, or in an empty one, or in one that cannot be replaced.
    fn begin(exists: bool, is_inside: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let kept = Arc::new(workspaces(root.path(), Duration::from_secs(60)));
        let parent = root.path().join("allowed/builds");
        let target = parent.join("web");
        fs::create_dir_all(root.path().join("allowed")).unwrap();
        let made = if exists { Vec::new() } else { vec![parent.clone()] };
        fs::create_dir_all(if exists { &target } else { &parent }).unwrap();
        let scratch = if is_inside { &target } else { &parent }.join(".web.sortie-abcdef");
        fs::create_dir(&scratch).unwrap();
        let growth = Self { root, kept, scratch, target, made, mode: exists.then_some(0o40750), is_inside };
        growth.tell(false);
        for directory in ["src", ".git/objects/pack", ".git/refs"] {
            fs::create_dir_all(growth.scratch.join(directory)).unwrap();
        }
        for file in ["src/a", "README", ".git/HEAD", ".git/objects/pack/p.pack"] {
            fs::write(growth.scratch.join(file), file).unwrap();
        }
        fs::set_permissions(&growth.scratch, fs::Permissions::from_mode(0o755)).unwrap();
        growth.tell(true);
        growth
    }

    fn tell(&self, is_whole: bool) {
        let growing = Growing {
            scratch: &self.scratch,
            target: &self.target,
            is_inside_target: self.is_inside,
            target_mode: self.mode,
            made_parents: &self.made,
            is_whole,
        };
        let note = self.kept.placed_note("one-1", "json");
        Placed::of(&growing).unwrap().write(&note).unwrap();
    }

    fn place(&self) {
        if !self.is_inside {
            return fs::rename(&self.scratch, &self.target).unwrap();
        }
        for entry in fs::read_dir(&self.scratch).unwrap().map(Result::unwrap) {
            fs::rename(entry.path(), self.target.join(entry.file_name())).unwrap();
        }
        fs::remove_dir(&self.scratch).unwrap();
    }

    /// The note says that the clone is to be taken away, and the process ends before it has begun.
    fn asked_to_take_away(&self) -> PathBuf {
        let note = self.kept.placed_note("one-1", TAKEN_AWAY);
        fs::rename(self.kept.placed_note("one-1", "json"), &note).unwrap();
        note
    }

    /// What is left below the operator's directory once the attempt is discarded.
    fn discarded(&self) -> Vec<String> {
        self.kept.remove_soon("one-1").run();
        assert!(self.kept.removals.borrow().is_empty());
        assert_eq!(fs::read_dir(&self.kept.placed).unwrap().count(), 0, "no note is left");
        let mut found = Vec::new();
        let allowed = self.root.path().join("allowed");
        let mut waiting = vec![allowed.clone()];
        while let Some(directory) = waiting.pop() {
            for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
                found.push(path.strip_prefix(&allowed).unwrap().display().to_string());
                waiting.extend(path.is_dir().then_some(path));
            }
        }
        found.sort();
        found
    }
}

#[test]
fn a_clone_that_does_not_count_goes_with_what_was_made_for_it() {
    let there = [String::from("builds"), "builds/web".into()];
    for (exists, is_inside, left) in
        [(false, false, &there[..0]), (true, false, &there[..]), (true, true, &there[..])]
    {
        let growth = Growth::begin(exists, is_inside);
        growth.place();
        assert_eq!(growth.discarded(), left, "{exists} {is_inside}");
        if exists && !is_inside {
            assert_eq!(fs::metadata(&growth.target).unwrap().permissions().mode(), 0o40750);
        }
        // The process was killed between the note and the renaming.
        let growth = Growth::begin(exists, is_inside);
        assert_eq!(growth.discarded(), left, "{exists} {is_inside}");
    }
}

#[test]
fn a_clone_that_was_half_moved_or_half_removed_goes() {
    let growth = Growth::begin(true, true);
    fs::rename(growth.scratch.join("src"), growth.target.join("src")).unwrap();
    assert_eq!(growth.discarded(), ["builds", "builds/web"]);
    let growth = Growth::begin(false, false);
    growth.asked_to_take_away();
    fs::rename(&growth.scratch, growth.scratch.with_file_name(".web.sortie-abcdef.discarded")).unwrap();
    growth.kept.sweep();
    assert_eq!(growth.discarded(), [""; 0]);
}

#[test]
fn what_was_moved_into_a_directory_goes_however_much_of_it_was_removed_already() {
    for theirs in [false, true] {
        let growth = Growth::begin(true, true);
        growth.place();
        let note = growth.asked_to_take_away();
        let (aside, has_others) = Placed::read(&note).unwrap().put_aside().unwrap();
        assert!(aside.len() == 3 && !has_others, "{aside:?}");
        // The process is killed within one of the directories.
        let source = aside.iter().find(|path| path.join("a").exists()).unwrap();
        fs::remove_file(source.join("a")).unwrap();
        if theirs {
            fs::write(growth.target.join("theirs"), "mine").unwrap();
        }
        growth.kept.sweep();
        let left = ["builds", "builds/web", "builds/web/theirs"];
        assert_eq!(growth.discarded(), left[..if theirs { 3 } else { 2 }]);
    }
}

#[test]
fn a_target_that_is_gone_or_no_directory_any_more_has_nothing_to_be_taken_away() {
    for is_file in [false, true] {
        let growth = Growth::begin(true, true);
        growth.place();
        fs::remove_dir_all(&growth.target).unwrap();
        if is_file {
            fs::write(&growth.target, "theirs").unwrap();
        }
        assert_eq!(growth.discarded(), &["builds", "builds/web"][..if is_file { 2 } else { 1 }]);
    }
}

#[test]
fn the_empty_directory_of_the_operator_is_made_again_by_the_next_start() {
    let growth = Growth::begin(true, false);
    growth.place();
    // The process was killed right after it had put the clone aside.
    growth.asked_to_take_away();
    fs::rename(&growth.target, growth.scratch.with_file_name(".web.sortie-abcdef.discarded")).unwrap();
    growth.kept.sweep();
    assert_eq!(growth.discarded(), ["builds", "builds/web"]);
    assert_eq!(fs::metadata(&growth.target).unwrap().permissions().mode(), 0o40750);
}

#[test]
fn what_was_changed_since_stays_and_so_does_what_another_put_there() {
    let changes: [fn(&Path); 5] = [
        |target| fs::write(target.join("src/new"), "mine").unwrap(),
        |target| fs::write(target.join("README"), "mine").unwrap(),
        |target| fs::create_dir(target.join("build")).unwrap(),
        |target| fs::write(target.join(".git/refs/mine"), "abc").unwrap(),
        |target| fs::write(target.join(".git/objects/pack/mine.pack"), "abc").unwrap(),
    ];
    for is_inside in [false, true] {
        for (number, change) in changes.iter().enumerate() {
            let growth = Growth::begin(is_inside, is_inside);
            growth.place();
            change(&growth.target);
            let left = growth.discarded();
            assert!(left.contains(&"builds/web/src/a".to_owned()), "{is_inside} {number}: {left:?}");
            assert!(left.len() >= 11, "{is_inside} {number}: {left:?}");
        }
    }
    // Another directory of the same path.
    let growth = Growth::begin(false, false);
    growth.place();
    fs::rename(&growth.target, growth.root.path().join("theirs")).unwrap();
    fs::create_dir(&growth.target).unwrap();
    assert_eq!(growth.discarded(), ["builds", "builds/web"]);
    assert!(growth.root.path().join("theirs/src/a").exists());
}

#[test]
fn work_stays_that_a_clock_which_was_set_back_calls_older_than_the_clone() {
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for is_inside in [false, true] {
        // The clone was whole in an hour, by the clock of then.
        let growth = Growth::begin(is_inside, is_inside);
        let note = growth.kept.placed_note("one-1", "json");
        let mut placed: serde_json::Value = serde_json::from_slice(&fs::read(&note).unwrap()).unwrap();
        placed["whole"]["at"] = serde_json::json!([now() + 3600, 0]);
        fs::write(&note, placed.to_string()).unwrap();
        growth.place();
        fs::write(growth.target.join("src/new"), "mine").unwrap();
        let left = growth.discarded();
        assert!(left.contains(&"builds/web/src/new".to_owned()), "{is_inside}: {left:?}");
        // The clock has come past that moment since, and tells of a time before the clone was begun.
        let growth = Growth::begin(is_inside, is_inside);
        growth.place();
        fs::write(growth.target.join("README"), "mine").unwrap();
        let written = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options()
            .write(true)
            .open(growth.target.join("README"))
            .unwrap()
            .set_modified(written)
            .unwrap();
        let left = growth.discarded();
        assert!(left.contains(&"builds/web/README".to_owned()), "{is_inside}: {left:?}");
    }
}

#[test]
fn another_link_to_its_objects_is_no_change() {
    let growth = Growth::begin(false, false);
    growth.place();
    let pack = growth.target.join(".git/objects/pack/p.pack");
    fs::hard_link(pack, growth.root.path().join("another")).unwrap();
    assert_eq!(growth.discarded(), [""; 0]);
}

#[test]
fn a_clone_that_counts_stays_and_so_does_one_where_nothing_is_allowed_any_more() {
    let growth = Growth::begin(false, false);
    growth.place();
    growth.kept.settle("one-1");
    assert!(growth.discarded().contains(&"builds/web/README".to_owned()));
    let mut growth = Growth::begin(false, false);
    growth.place();
    Arc::get_mut(&mut growth.kept).unwrap().settings.directories.clear();
    assert!(growth.discarded().contains(&"builds/web/README".to_owned()));
}

#[tokio::test]
async fn whoever_comes_next_waits_for_what_is_removed() {
    let growth = Growth::begin(false, false);
    let removal = growth.kept.remove_soon("one-1");
    let waited = tokio::time::timeout(Duration::from_millis(20), growth.kept.removed()).await;
    assert!(waited.is_err(), "it did not wait");
    growth.kept.settle("one-1");
    assert!(growth.kept.placed_note("one-1", "json").exists(), "it is still needed");
    drop(removal);
    growth.kept.removed().await;
}
