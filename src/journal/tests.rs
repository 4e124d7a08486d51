//! The journal as its owner sees it, and its file as the next process does.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use sortie_protocol::message::AttemptOutcome;
use sortie_protocol::report::{CompareReport, TaskOutput};

use super::sqlite::{FILE, OpenError, SqliteStore};
use super::*;

fn attempt(number: u32) -> AttemptId {
    AttemptId { task_id: "t1".into(), attempt: number }
}

fn result(number: u32) -> AttemptResult {
    let report: CompareReport = serde_json::from_value(serde_json::json!({
        "outcome": "succeeded", "reference": "refs/heads/main", "commit": "c", "head": "h", "state": "unchanged",
        "duration_ms": 1.0, "stages": [], "warnings": [], "diagnosis": null
    }))
    .unwrap();
    let result = TaskOutput::Compare(Box::new(report));
    AttemptResult { attempt: attempt(number), outcome: AttemptOutcome::Succeeded, result }
}

fn open(directory: &Path) -> Journal<SqliteStore> {
    let (store, kept) = SqliteStore::open(directory).unwrap();
    Journal::new(store, kept)
}

fn set_aside(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.contains("damaged"));
    names
}

#[tokio::test]
async fn the_next_process_finds_results_and_what_was_lost() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    for number in 1..=3 {
        journal.begin(&attempt(number), Durability::Process).await.unwrap();
    }
    journal.record(result(2)).await.unwrap();
    journal.record(result(3)).await.unwrap();
    journal.forget(&[attempt(3)]).await.unwrap();
    drop(journal);

    let mut journal = open(directory.path());
    assert_eq!(journal.unacknowledged(), [attempt(2)]);
    assert_eq!(journal.result(&attempt(2)), Some(&result(2)));
    let lost = journal.lost();
    assert_eq!(lost.iter().map(|lost| &lost.attempt).collect::<Vec<_>>(), [&attempt(1)]);
    assert!(lost[0].reason.contains("restarted"));
    for number in 1..=3 {
        assert!(journal.has_taken(&attempt(number)), "{number}");
    }
    assert!(!journal.has_taken(&attempt(4)));

    journal.forget(&[attempt(1), attempt(2)]).await.unwrap();
    drop(journal);
    let journal = open(directory.path());
    assert_eq!((journal.unacknowledged().len(), journal.lost().len()), (0, 0));
    assert!(journal.has_taken(&attempt(1)) && journal.has_taken(&attempt(2)));
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_never_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(FILE);
    let mut journal = open(directory.path());
    for number in 1..=50 {
        journal.record(result(number)).await.unwrap();
    }
    drop(journal);
    let whole = fs::read(&file).unwrap();
    let mut torn = whole.clone();
    torn[whole.len() / 2..].fill(0xa5);
    let half = whole[..whole.len() / 2 + 100].to_vec();
    let not_ours = {
        let other = directory.path().join("other.db");
        let connection = rusqlite::Connection::open(&other).unwrap();
        connection.execute_batch("CREATE TABLE attempts (x); PRAGMA user_version = 1;").unwrap();
        drop(connection);
        fs::read(&other).unwrap()
    };
    let damages = [torn, half, b"not a database at all".repeat(300), not_ours];
    for (number, damaged) in damages.iter().enumerate() {
        fs::write(&file, damaged).unwrap();
        let journal = open(directory.path());
        assert!(journal.unacknowledged().is_empty(), "{number}");
        drop(journal);
        let aside = set_aside(directory.path());
        assert_eq!(aside.len(), number + 1, "{aside:?}");
        let kept = aside.iter().any(|name| fs::read(directory.path().join(name)).unwrap() == *damaged);
        assert!(kept, "{number}: the bytes are there still");
    }
}

#[tokio::test]
async fn the_state_directory_may_lie_behind_a_symbolic_link_and_the_file_may_not() {
    let directory = tempfile::tempdir().unwrap();
    let (real, link) = (directory.path().join("real"), directory.path().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    drop(open(&link));
    assert!(real.join(FILE).is_file());
    fs::rename(real.join(FILE), real.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(real.join("elsewhere"), real.join(FILE)).unwrap();
    let error = SqliteStore::open(&link).unwrap_err();
    assert!(error.is_passing() && error.to_string().contains("let this user write there"), "{error}");
}

#[tokio::test]
async fn a_file_that_another_program_holds_is_a_passing_error() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let other = rusqlite::Connection::open(directory.path().join(FILE)).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE;").unwrap();
    let error = SqliteStore::open(directory.path()).unwrap_err();
    assert!(error.is_passing() && error.to_string().contains("another program holds it"), "{error}");
    drop(other);
    drop(open(directory.path()));
}

#[tokio::test]
async fn the_file_remembers_the_latest_attempts_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = open(directory.path());
    let all: Vec<_> = (1..=MAX_PAST_ATTEMPTS as u32 + 10).map(attempt).collect();
    journal.forget(&all).await.unwrap();
    drop(journal);
    let (_store, kept) = SqliteStore::open(directory.path()).unwrap();
    assert_eq!((kept.over.len(), &kept.over[0]), (MAX_PAST_ATTEMPTS, &attempt(11)));
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let file = directory.path().join(FILE);
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let before = fs::read(&file).unwrap();
    assert!(matches!(SqliteStore::open(directory.path()), Err(OpenError::Newer { .. })));
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn what_was_taken_is_remembered_within_bounds() {
    let mut journal = Journal::new(Failing::default(), Kept::default());
    for number in 1..=MAX_PAST_ATTEMPTS as u32 + 10 {
        journal.begin(&attempt(number), Durability::Process).await.unwrap();
    }
    assert!(!journal.has_taken(&attempt(10)));
    assert!(journal.has_taken(&attempt(11)));
    assert_eq!(journal.past.order.len(), MAX_PAST_ATTEMPTS);
}

/// A store that fails when it is told to, and remembers what it kept.
#[derive(Debug, Default)]
struct Failing {
    fails: bool,
    kept: Vec<Change>,
}

impl Store for Failing {
    async fn keep(&mut self, changes: Vec<Change>, _: Durability) -> Result<(), StoreError> {
        if self.fails {
            return Err(StoreError::Full);
        }
        self.kept.extend(changes);
        Ok(())
    }
}

#[tokio::test]
async fn a_result_that_could_not_be_written_is_kept_and_written_later() {
    let mut journal = Journal::new(Failing::default(), Kept::default());
    journal.begin(&attempt(1), Durability::Disk).await.unwrap();
    journal.store.fails = true;
    assert_eq!(journal.record(result(1)).await, Err(StoreError::Full));
    assert_eq!(journal.begin(&attempt(2), Durability::Disk).await, Err(StoreError::Full));
    assert_eq!(journal.result(&attempt(1)), Some(&result(1)));
    assert!(
        !journal.has_taken(&attempt(2)),
        "what was not kept must not run, so that it may be offered anew"
    );
    journal.store.fails = false;
    journal.catch_up().await.unwrap();
    assert!(journal.store.kept.contains(&Change::Ended(Box::new(result(1)))));
}
