//! The journal's file: SQLite, behind a thread of its own, because its calls wait for the disk.
//!
//! SQLite and not a lighter store, because a damaged file and a full disk are errors there and never a panic, and
//! because an operator can look into the file. A file that is damaged is set aside under another name, never deleted,
//! and a new one takes its place, so that the daemon starts.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, params};
use sortie_protocol::AttemptId;
use tokio::sync::{mpsc, oneshot};

use super::{Change, Durability, Kept, MAX_PAST_ATTEMPTS, Store, StoreError};

/// The name of the file, below the state directory.
pub const FILE: &str = "journal.db";

/// Says in the file's header that it is this: "SRTJ" in ASCII.
const APPLICATION_ID: i32 = 0x5352_544a;

/// The steps that bring a file from each version to the next; a new file is at version 0.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE attempts (
        -- Counts up, so that the oldest go first.
        seq     INTEGER PRIMARY KEY AUTOINCREMENT,
        task_id TEXT NOT NULL,
        number  INTEGER NOT NULL,
        -- began, ended (its result waits for the acknowledgment) or over.
        state   TEXT NOT NULL,
        result  TEXT,
        UNIQUE (task_id, number)
    );
    CREATE INDEX attempts_state ON attempts (state, seq);
"];

/// How long a write waits while somebody else, an operator's `sqlite3` for example, holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Pages of the cache, 4 KiB each.
const CACHE_PAGES: i32 = 64;

/// The write-ahead log is folded back after this many pages, 4 KiB each.
const CHECKPOINT_PAGES: i32 = 256;

/// The most that the file may grow to, in pages of 4 KiB: what may wait, and as much again for what is being replaced.
const MAX_PAGES: i64 = 128 * 1024;

/// Writes that may wait for the thread. The loop that makes them waits for each.
const QUEUE: usize = 4;

/// The journal cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It was made by a later version of the program, and may hold results that this one does not understand.
    #[error(
        "{} was written by a newer version: run that version until its results are delivered, or move the file away",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// The file, or the directory, cannot be read or written.
    #[error(
        "{} cannot be opened: {error}; make room, close the program that holds it, or let this user write there",
        path.display()
    )]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the store says.
        error: StoreError,
    },
    /// A damaged file could not be renamed.
    #[error("{} is damaged and cannot be renamed ({kind}): let this user write in its directory", path.display())]
    NotSetAside {
        /// The file.
        path: PathBuf,
        /// Why.
        kind: std::io::ErrorKind,
    },
    /// There is no thread for it.
    #[error("no thread can be started for the journal ({0})")]
    Thread(std::io::ErrorKind),
}

struct Request {
    changes: Vec<Change>,
    durability: Durability,
    reply: oneshot::Sender<Result<(), StoreError>>,
}

/// The way to the thread that has the file. The thread ends with it.
#[derive(Debug)]
pub struct SqliteStore {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl OpenError {
    /// Whether it may pass without anybody's changing the installation.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Newer { .. } => false,
            Self::Failed { .. } | Self::NotSetAside { .. } | Self::Thread(_) => true,
        }
    }
}

impl SqliteStore {
    /// Opens the journal below a state directory, makes it where it is missing, and reads what it holds. Blocks.
    ///
    /// # Errors
    /// See [`OpenError`]. A damaged file is no error: it is set aside.
    pub fn open(state_dir: &Path) -> Result<(Self, Kept), OpenError> {
        // The directory may lie behind symbolic links, as it does where systemd makes it for a dynamic user. The file
        // itself must not be one.
        let real = state_dir.canonicalize().map_err(|_| OpenError::Failed {
            path: state_dir.to_owned(),
            error: StoreError::Failed("its directory cannot be found"),
        })?;
        let path = real.join(FILE);
        let (connection, kept) = match opened(&path) {
            Err(OpenError::Failed { error: StoreError::Damaged, .. }) => {
                let aside = set_aside(&path)?;
                tracing::error!(
                    kept = %aside.display(),
                    "the journal is damaged and was set aside: results that it held are not delivered"
                );
                opened(&path)?
            }
            other => other?,
        };
        let (requests, mut queue) = mpsc::channel::<Request>(QUEUE);
        let run = move || {
            let mut file = JournalFile { connection, durability: None };
            while let Some(Request { changes, durability, reply }) = queue.blocking_recv() {
                let _ = reply.send(file.keep(&changes, durability).map_err(|error| meaning(&error)));
            }
        };
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(run)
            .map_err(|error| OpenError::Thread(error.kind()))?;
        Ok((Self { requests: Some(requests), thread: Some(thread) }, kept))
    }
}

impl Store for SqliteStore {
    async fn keep(&mut self, changes: Vec<Change>, durability: Durability) -> Result<(), StoreError> {
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        requests.send(Request { changes, durability, reply }).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

impl Drop for SqliteStore {
    /// Waits for the write that is under way, which is short: the file is closed in order.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The open file, and how durably its last transaction was committed.
struct JournalFile {
    connection: Connection,
    durability: Option<Durability>,
}

impl JournalFile {
    fn keep(&mut self, changes: &[Change], durability: Durability) -> rusqlite::Result<()> {
        if self.durability != Some(durability) {
            // In the mode with a write-ahead log, `NORMAL` leaves out the sync of a commit and nothing else.
            let synchronous = match durability {
                Durability::Process => "NORMAL",
                Durability::Disk => "FULL",
            };
            self.connection.pragma_update(None, "synchronous", synchronous)?;
            self.durability = Some(durability);
        }
        let transaction = self.connection.transaction()?;
        for change in changes {
            apply(&transaction, change)?;
        }
        transaction.commit()
    }
}

fn apply(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    let set = |attempt: &AttemptId, state: &str, result: Option<&str>| {
        transaction
            .prepare_cached(
                "INSERT INTO attempts (task_id, number, state, result) VALUES (?1, ?2, ?3, ?4) \
                 ON CONFLICT (task_id, number) DO UPDATE SET state = excluded.state, result = excluded.result",
            )?
            .execute(params![attempt.task_id, attempt.attempt, state, result])
            .map(|_| ())
    };
    match change {
        Change::Began(attempt) => set(attempt, "began", None),
        Change::Ended(result) => {
            let text = serde_json::to_string(result)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            set(&result.attempt, "ended", Some(&text))
        }
        Change::Over(attempt) => {
            set(attempt, "over", None)?;
            let oldest = "DELETE FROM attempts WHERE state = 'over' AND seq <= \
                          (SELECT max(seq) FROM attempts) - ?1";
            transaction
                .prepare_cached(oldest)?
                .execute([i64::try_from(MAX_PAST_ATTEMPTS).unwrap_or(i64::MAX)])
                .map(|_| ())
        }
    }
}

/// Opens the file, looks whether it is whole, brings it up to date and reads it.
fn opened(path: &Path) -> Result<(Connection, Kept), OpenError> {
    let failed = |error: rusqlite::Error| OpenError::Failed { path: path.to_owned(), error: meaning(&error) };
    let damaged = || OpenError::Failed { path: path.to_owned(), error: StoreError::Damaged };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    let number = |connection: &Connection, name| {
        connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed)
    };
    let version = number(&connection, "user_version")?;
    let whole: String =
        connection.pragma_query_value(None, "quick_check", |row| row.get(0)).map_err(failed)?;
    let is_ours = version == 0 || number(&connection, "application_id")? == i64::from(APPLICATION_ID);
    if whole != "ok" || !is_ours {
        return Err(damaged());
    }
    let done = usize::try_from(version).map_err(|_| damaged())?;
    if done > MIGRATIONS.len() {
        return Err(OpenError::Newer { path: path.to_owned() });
    }
    configure(&connection).map_err(failed)?;
    migrate(&mut connection, done).map_err(failed)?;
    let kept = kept(&connection).map_err(failed)?.ok_or_else(damaged)?;
    Ok((connection, kept))
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "cache_size", CACHE_PAGES)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "max_page_count", MAX_PAGES)
}

fn migrate(connection: &mut Connection, done: usize) -> rusqlite::Result<()> {
    for (version, step) in MIGRATIONS.iter().enumerate().skip(done) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", i64::try_from(version + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
    Ok(())
}

/// Reads everything. `None` is a row that makes no sense.
fn kept(connection: &Connection) -> rusqlite::Result<Option<Kept>> {
    let mut kept = Kept::default();
    let mut statement =
        connection.prepare("SELECT task_id, number, state, result FROM attempts ORDER BY seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let attempt = AttemptId { task_id: row.get(0)?, attempt: row.get(1)? };
        match row.get::<_, String>(2)?.as_str() {
            "began" => kept.began.push(attempt),
            "over" => kept.over.push(attempt),
            "ended" => {
                let text: String = row.get(3)?;
                let Ok(result) = serde_json::from_str(&text) else { return Ok(None) };
                kept.ended.push(result);
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(kept))
}

/// Gives a damaged file, and what belongs to it, another name.
fn set_aside(path: &Path) -> Result<PathBuf, OpenError> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Another one of the same second is not to be overwritten.
    let name = |number: u32| path.with_file_name(format!("{FILE}.damaged-{seconds}-{number}"));
    let aside = (0..).map(name).find(|aside| !aside.exists()).unwrap_or_else(|| name(0));
    let rename = |suffix: &str| {
        let with = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        match std::fs::rename(with(path), with(&aside)) {
            Err(error) if suffix.is_empty() || error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    };
    for suffix in ["-wal", "-shm", ""] {
        rename(suffix)
            .map_err(|error| OpenError::NotSetAside { path: path.to_owned(), kind: error.kind() })?;
    }
    Ok(aside)
}

/// What an error of SQLite's means here.
fn meaning(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Failed("another program holds it")
        }
        Some(ErrorCode::ReadOnly) => StoreError::Failed("it is read-only"),
        Some(ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            StoreError::Failed("it may not be opened")
        }
        Some(ErrorCode::SystemIoFailure) => StoreError::Failed("input or output failed"),
        Some(_) => StoreError::Failed("SQLite refused it"),
        // A column that is not of the type that was written: the file was changed by somebody else.
        None => StoreError::Damaged,
    }
}
