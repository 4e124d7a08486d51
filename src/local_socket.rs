//! The daemon's end of a Unix socket of its own: made beside its place, closed to others, then put there.

use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// The mode of the socket: its owner and group may connect, which takes the permission to write.
const SOCKET_MODE: u32 = 0o660;

/// The mode of a directory that is made for it.
const DIRECTORY_MODE: u32 = 0o750;

/// What a socket is for, as errors name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose {
    /// What it is called.
    pub name: &'static str,
    /// The key of the configuration that says where it is.
    pub key: &'static str,
}

/// Why there is no such socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The directory is missing and cannot be made, or it cannot be written.
    #[error("the directory {} cannot be used for the {}: {kind}", path.display(), purpose.name)]
    Directory {
        /// What for.
        purpose: Purpose,
        /// Which one.
        path: PathBuf,
        /// The class of the system's error.
        kind: ErrorKind,
    },
    /// A daemon answers there.
    #[error("another daemon listens on {}: give this one another path as {}", path.display(), purpose.key)]
    Occupied {
        /// What for.
        purpose: Purpose,
        /// Where.
        path: PathBuf,
    },
    /// Something that is no socket has that name; it is left alone.
    #[error("{} is there and is no socket: move it away, or name another path as {}", path.display(), purpose.key)]
    NotASocket {
        /// What for.
        purpose: Purpose,
        /// Where.
        path: PathBuf,
    },
    /// The path is longer than the system takes.
    #[error("{} is too long for a socket: name a shorter path as {}", path.display(), purpose.key)]
    TooLong {
        /// What for.
        purpose: Purpose,
        /// Where.
        path: PathBuf,
    },
    /// The system does not let it be made.
    #[error("the {} {} cannot be made: {kind}", purpose.name, path.display())]
    Socket {
        /// What for.
        purpose: Purpose,
        /// Where.
        path: PathBuf,
        /// The class of the system's error.
        kind: ErrorKind,
    },
}

/// A socket that listens. Dropping it takes its file away.
#[derive(Debug)]
pub struct Listener {
    pub(crate) listener: UnixListener,
    path: PathBuf,
    /// Device and number of the file, so that another daemon's is not taken away.
    file: (u64, u64),
}

/// Makes the socket in the first of the places whose directory can be used. What a daemon that is gone left there is
/// replaced.
///
/// # Errors
/// See [`BindError`]; that of the last place that was tried.
pub async fn bind(purpose: Purpose, places: &[PathBuf]) -> Result<Listener, BindError> {
    let mut last = BindError::TooLong { purpose, path: PathBuf::new() };
    for place in places {
        match bind_at(purpose, place).await {
            Err(error @ BindError::Directory { .. }) => last = error,
            result => return result,
        }
    }
    Err(last)
}

async fn bind_at(purpose: Purpose, path: &Path) -> Result<Listener, BindError> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let unusable = |kind| BindError::Directory { purpose, path: directory.to_owned(), kind };
    let socket = |kind| BindError::Socket { purpose, path: path.to_owned(), kind };
    make_directory(directory).map_err(|error| unusable(error.kind()))?;
    make_way(purpose, path).await?;
    // Under a name of its own first, so that nobody connects before the mode is right, and renamed then.
    let temporary = directory.join(format!(".{}", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary).map_err(|error| match error.kind() {
        ErrorKind::InvalidInput => BindError::TooLong { purpose, path: path.to_owned() },
        kind @ (ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => unusable(kind),
        kind => socket(kind),
    })?;
    let file = place(&temporary, path).map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        socket(error.kind())
    })?;
    Ok(Listener { listener, path: path.to_owned(), file })
}

fn place(temporary: &Path, path: &Path) -> io::Result<(u64, u64)> {
    std::fs::set_permissions(temporary, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    let metadata = std::fs::symlink_metadata(temporary)?;
    std::fs::rename(temporary, path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Makes the directory where it is missing. The umask has its say in the making, so the mode is set afterwards.
fn make_directory(directory: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Ok(()) => std::fs::set_permissions(directory, std::fs::Permissions::from_mode(DIRECTORY_MODE)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Looks whether the name is free, or held by a socket that nobody listens on any more.
async fn make_way(purpose: Purpose, path: &Path) -> Result<(), BindError> {
    let owned = || path.to_owned();
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { purpose, path: owned() });
        }
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    let Err(error) = UnixStream::connect(path).await else {
        return Err(BindError::Occupied { purpose, path: owned() });
    };
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => Ok(()),
        // One that is too busy to take another client lives as well.
        ErrorKind::WouldBlock => Err(BindError::Occupied { purpose, path: owned() }),
        ErrorKind::InvalidInput => Err(BindError::TooLong { purpose, path: owned() }),
        kind => Err(BindError::Socket { purpose, path: owned(), kind }),
    }
}

impl Listener {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its file lets nobody in but its owner and group, as it was made.
    pub(crate) fn is_closed_to_others(&self) -> bool {
        const OTHERS: u32 = 0o007;
        std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.mode() & OTHERS == 0)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file);
        if is_ours {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{BindError, Listener, Purpose};
    use std::os::unix::fs::MetadataExt as _;
    use std::path::{Path, PathBuf};

    const PURPOSE: Purpose = Purpose { name: "test socket", key: "test.socket" };

    async fn bind(places: &[PathBuf]) -> Result<Listener, BindError> {
        super::bind(PURPOSE, places).await
    }

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn the_socket_and_its_directory_are_closed_to_others() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run/control.sock");
        let listener = bind(std::slice::from_ref(&path)).await.unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o660, 0o750));
        assert!(listener.is_closed_to_others());
        let left: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_daemon_that_is_gone_makes_way_and_one_that_lives_does_not() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        // A listener that is closed without taking its file away is what `kill -9` leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = bind(std::slice::from_ref(&path)).await.unwrap();
        assert!(matches!(bind(std::slice::from_ref(&path)).await, Err(BindError::Occupied { .. })));
        std::fs::remove_file(&path).unwrap();
        let second = bind(std::slice::from_ref(&path)).await.unwrap();
        drop(first);
        assert!(path.exists(), "the first took away what belongs to the second");
        drop(second);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone_and_a_directory_that_cannot_be_made_is_passed_over() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        assert!(matches!(bind(std::slice::from_ref(&file)).await, Err(BindError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        let places = [home.path().join("no/such/control.sock"), home.path().join("control.sock")];
        assert_eq!(bind(&places).await.unwrap().path(), places[1]);
        let long = home.path().join("x".repeat(200));
        assert!(matches!(
            bind(&[long.join("y"), long.clone()]).await,
            Err(BindError::Directory { .. } | BindError::TooLong { .. } | BindError::Socket { .. }) | Ok(_)
        ));
    }
}
