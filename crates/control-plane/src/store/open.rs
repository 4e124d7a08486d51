//! Opening a SQLite file, and the connections to it.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::{OpenError, StoreError};

/// How long a statement waits for another program's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a request waits for a connection to become free.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that read at once.
const READERS: u32 = 4;

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
    pub(super) readers: SqlitePool,
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
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        MIGRATOR.run(&writer).await.map_err(|error| migration_failed(path, error))?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options.pragma("query_only", "ON"))
            .await
            .map_err(failed)?;
        Ok(Self { writer, readers, path: path.to_owned() })
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

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1 FROM api_tokens LIMIT 1").fetch_optional(&self.readers).await?;
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
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
}
