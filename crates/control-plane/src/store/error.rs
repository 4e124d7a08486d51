//! What can be wrong with a database, by meaning.

use std::path::PathBuf;

/// A read or a write that did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another program holds the database.
    #[error("the database is locked by another program")]
    Locked,
    /// Too many others wait for the database.
    #[error("the database has too much to do")]
    Busy,
    /// The file, or the directory it lies in, cannot be written.
    #[error("the database cannot be written")]
    ReadOnly,
    /// The disk or the quota is full.
    #[error("there is no space left for the database")]
    Full,
    /// The file could not be opened.
    #[error("the database file cannot be opened")]
    CannotOpen,
    /// The file is something else, or damaged.
    #[error("the file is not a database of Sortie's, or it is damaged")]
    NotADatabase,
    /// A row holds what no version known here writes.
    #[error("the database holds a {0} that this version does not understand")]
    Unreadable(&'static str),
    /// Anything else that the database said.
    #[error("the database failed: {0}")]
    Database(#[source] sqlx::Error),
}

/// Primary result codes of SQLite, from its documentation; the extended ones carry them in the low byte.
mod sqlite_code {
    pub(super) const BUSY: u32 = 5;
    pub(super) const LOCKED: u32 = 6;
    pub(super) const READ_ONLY: u32 = 8;
    pub(super) const CORRUPT: u32 = 11;
    pub(super) const FULL: u32 = 13;
    pub(super) const CANNOT_OPEN: u32 = 14;
    pub(super) const NOT_A_DATABASE: u32 = 26;
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return Self::Busy;
        }
        let code = error.as_database_error().and_then(|it| it.code()).and_then(|it| it.parse::<u32>().ok());
        match code.map(|code| code & 0xff) {
            Some(sqlite_code::BUSY | sqlite_code::LOCKED) => Self::Locked,
            Some(sqlite_code::READ_ONLY) => Self::ReadOnly,
            Some(sqlite_code::FULL) => Self::Full,
            Some(sqlite_code::CANNOT_OPEN) => Self::CannotOpen,
            Some(sqlite_code::NOT_A_DATABASE | sqlite_code::CORRUPT) => Self::NotADatabase,
            _ => Self::Database(error),
        }
    }
}

/// A database that cannot be used. The text says the cause and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// PostgreSQL.
    #[error("PostgreSQL is not supported yet in this version; use sqlite:PATH")]
    PostgresNotSupported,
    /// A URL of no known form. It is not repeated, because such URLs may hold a password.
    #[error("the database is given as sqlite:PATH, such as sqlite:/var/lib/sortie-control/control.db")]
    UnknownUrl,
    /// The directory is missing, or the file cannot be made.
    #[error(
        "{path} cannot be created: {source}; make its directory and let this user write there",
        path = path.display()
    )]
    CannotCreate {
        /// The database file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Another process serves this database.
    #[error(
        "another sortie-control serves {path}; stop it first, or give this one a database of its own",
        path = path.display()
    )]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// A newer version has been here.
    #[error(
        "{path} was written by a newer version of sortie-control; install that version",
        path = path.display()
    )]
    Newer {
        /// The database file.
        path: PathBuf,
    },
    /// The database itself.
    #[error("{path}: {source}; {remedy}", path = path.display(), remedy = remedy(source))]
    Store {
        /// The database file.
        path: PathBuf,
        /// What is wrong.
        source: StoreError,
    },
}

fn remedy(error: &StoreError) -> &'static str {
    match error {
        StoreError::Busy => "start again",
        StoreError::Locked => "close the program that holds it, then start again",
        StoreError::ReadOnly | StoreError::CannotOpen => {
            "let this user read and write the file and the directory that it lies in"
        }
        StoreError::Full => "free some space, then start again",
        StoreError::NotADatabase | StoreError::Unreadable(_) => {
            "name another file, or restore this one from a backup"
        }
        StoreError::Database(_) => "see whether the disk and the file system are well",
    }
}
