//! Opening a SQLite file, and the connections to it.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{OpenError, StoreError};

/// How long a statement waits for another program's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request waits for a connection to become free.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that read at once, for requests.
const READERS: u32 = 4;

/// Connections that read for the engine alone.
const ENGINE_READERS: u32 = 1;

/// What a file of ours carries in its header, see the second migration; a file of the first one has 0.
const APPLICATION_ID: i64 = 0x534f_5254;

/// The mode of a new database file: nobody else reads who did what.
const FILE_MODE: u32 = 0o600;

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// A SQLite file with one connection that writes and some that read.
///
/// SQLite has one writer at a time. With one connection the writers queue up here, in order, and never
/// meet each other's locks.
#[derive(Debug, Clone)]
pub struct Sqlite {
    pub(super) writer: SqlitePool,
    /// The engine's or the requests', by whose store this is.
    pub(super) readers: SqlitePool,
    engine_readers: SqlitePool,
    /// The place of the one request that may wait for the writer, see [`Sqlite::turn`].
    turns: Arc<Semaphore>,
    path: PathBuf,
}

/// The right to serve a database; given up on drop.
#[derive(Debug)]
pub struct ServeLock {
    _file: File,
}

/// The file that a database URL names.
pub(super) fn path_of(url: &str) -> Result<PathBuf, OpenError> {
    let scheme = url.split(':').next().unwrap_or_default();
    if ["postgres", "postgresql"].contains(&scheme) {
        return Err(OpenError::PostgresNotSupported);
    }
    let path = url.strip_prefix("sqlite:").ok_or(OpenError::UnknownUrl)?;
    let path = path.strip_prefix("//").unwrap_or(path);
    let is_plain = !path.is_empty() && !path.starts_with(':') && !path.contains('?');
    if is_plain { Ok(PathBuf::from(path)) } else { Err(OpenError::UnknownUrl) }
}

impl Sqlite {
    /// Opens a file, makes it where it is missing, and brings its tables up to date.
    pub(super) async fn open(path: &Path) -> Result<Self, OpenError> {
        make_private(path)?;
        check_owner(path).await?;
        let failed = |error: sqlx::Error| OpenError::Store { path: path.to_owned(), source: error.into() };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            // A file does not hang up, so that nobody need be asked first whether it is there.
            .test_before_acquire(false)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            // SQLite rolls back by itself after some failures, such as a disk that is full at a commit; the rollback that
            // follows then fails, and its connection counts as one in a transaction for ever, in which none can begin.
            // The pool closes it and opens another one.
            .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        MIGRATOR.run(&writer).await.map_err(|error| migration_failed(path, error))?;
        let options = options.pragma("query_only", "ON");
        let pool = |size| {
            let options = SqlitePoolOptions::new().test_before_acquire(false);
            options.max_connections(size).acquire_timeout(ACQUIRE_TIMEOUT)
        };
        let readers = pool(READERS).connect_with(options.clone()).await.map_err(failed)?;
        let engine_readers = pool(ENGINE_READERS).connect_with(options).await.map_err(failed)?;
        let turns = Arc::new(Semaphore::new(1));
        Ok(Self { writer, readers, engine_readers, turns, path: path.to_owned() })
    }

    /// The same database, read over connections that no request can hold.
    pub(super) fn for_engine(&self) -> Self {
        Self { readers: self.engine_readers.clone(), ..self.clone() }
    }

    /// A request's right to wait for the writer. One request waits there at a time, so that the engine, which
    /// asks for none, has at most one of them before it.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit, StoreError> {
        let turn = timeout(ACQUIRE_TIMEOUT, Arc::clone(&self.turns).acquire_owned()).await;
        turn.map_err(|_| StoreError::Busy)?.map_err(|_| StoreError::Busy)
    }

    /// A lock beside the database says who serves it. The database itself stays open to `token create`.
    pub(super) fn claim(&self) -> Result<ServeLock, OpenError> {
        let mut lock_path = self.path.clone().into_os_string();
        lock_path.push(".lock");
        let failed = |source| OpenError::CannotCreate { path: PathBuf::from(&lock_path), source };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(&lock_path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(ServeLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: self.path.clone() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The directory beside the file that artifacts lie in where no other place was named.
    pub(super) fn artifacts_directory(&self) -> PathBuf {
        self.path.with_file_name("artifacts")
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM api_tokens LIMIT 1").fetch_optional(&self.readers).await?;
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.engine_readers.close().await;
        self.writer.close().await;
    }
}

/// Makes a missing file with a mode of its own, so that SQLite's further files get the same.
fn make_private(path: &Path) -> Result<(), OpenError> {
    match OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(OpenError::CannotCreate { path: path.to_owned(), source }),
    }
}

/// Refuses a file of another program's before anything is written to it.
async fn check_owner(path: &Path) -> Result<(), OpenError> {
    match is_foreign(path).await.map_err(StoreError::from) {
        Ok(false) => Ok(()),
        Ok(true) => Err(OpenError::Store { path: path.to_owned(), source: StoreError::NotADatabase }),
        // A file that was left in the middle of a write is not read without being mended. Opening it for
        // writing does that, or says what stands in the way.
        Err(StoreError::ReadOnly | StoreError::CannotOpen) => Ok(()),
        Err(source) => Err(OpenError::Store { path: path.to_owned(), source }),
    }
}

async fn is_foreign(path: &Path) -> Result<bool, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
    let mut connection = options.disable_statement_logging().connect().await?;
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut connection).await?;
    let tables: Vec<String> = sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'table'")
        .fetch_all(&mut connection)
        .await?;
    connection.close().await?;
    let has = |name: &str| tables.iter().any(|table| table == name);
    // The first migration may have been cut off after its bookkeeping table.
    let is_ours = has("_sqlx_migrations") && (has("api_tokens") || tables.len() == 1);
    let is_empty = tables.is_empty() && application == 0;
    Ok(!(is_empty || is_ours && [0, APPLICATION_ID].contains(&application)))
}

fn migration_failed(path: &Path, error: MigrateError) -> OpenError {
    let path = path.to_owned();
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            OpenError::Store { path, source: error.into() }
        }
        MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => OpenError::Newer { path },
        _ => OpenError::Store { path, source: StoreError::NotADatabase },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_files_and_nothing_else() {
        assert_eq!(path_of("sqlite:control.db").unwrap(), PathBuf::from("control.db"));
        assert_eq!(path_of("sqlite:///var/lib/c.db").unwrap(), PathBuf::from("/var/lib/c.db"));
        for bad in ["", "control.db", "sqlite:", "sqlite::memory:", "sqlite:a?mode=ro", "mysql://x"] {
            assert!(matches!(path_of(bad), Err(OpenError::UnknownUrl)), "{bad}");
        }
        for url in ["postgres://u:p@h/d", "postgresql://h"] {
            assert!(matches!(path_of(url), Err(OpenError::PostgresNotSupported)), "{url}");
        }
    }

    #[tokio::test]
    async fn a_file_of_another_program_stays_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        for (name, statement) in [
            ("table.db", "CREATE TABLE notes (text)"),
            ("id.db", "PRAGMA application_id = 7"),
            ("sqlx.db", "CREATE TABLE _sqlx_migrations (version); CREATE TABLE notes (text)"),
        ] {
            let path = directory.path().join(name);
            let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
            let mut other = options.connect().await.unwrap();
            sqlx::raw_sql(statement).execute(&mut other).await.unwrap();
            other.close().await.unwrap();
            let before = std::fs::read(&path).unwrap();
            let refused = Sqlite::open(&path).await.unwrap_err();
            assert!(
                matches!(refused, OpenError::Store { source: StoreError::NotADatabase, .. }),
                "{name}: {refused}"
            );
            assert_eq!(std::fs::read(&path).unwrap(), before, "{name}");
        }
    }

    #[tokio::test]
    async fn a_file_of_ours_opens_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.db");
        for _ in 0..2 {
            Sqlite::open(&path).await.unwrap().close().await;
        }
        let mut own = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        let id: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut own).await.unwrap();
        assert_eq!(id, APPLICATION_ID);
    }

    #[tokio::test]
    async fn the_engine_reads_while_requests_hold_every_other_connection() {
        let directory = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&directory.path().join("control.db")).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..READERS {
            held.push(store.readers.acquire().await.unwrap());
        }
        assert!(store.readers.try_acquire().is_none());
        assert!(store.for_engine().live_tasks(Duration::ZERO).await.unwrap().is_empty());
    }
}
