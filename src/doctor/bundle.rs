//! The archive for support: what the doctor found and how this agent is set up, without any secret.
//!
//! It is put together from texts that never held a secret, not from files that are searched for them afterwards.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The directory within the archive.
const DIRECTORY: &str = "sortie-support";

/// The first thing that a reader sees.
const README: &str = "\
What sortie doctor collected for support. It holds no secret: credentials stand here by the names of their sources alone.
Look through it before you send it on all the same: it names hosts, users, paths and repositories.

doctor.json   every check, with the reports of the connection tests
status.json   what the running daemon said it is doing; an error where there was none
config.toml   the configuration as it holds, defaults filled in, secrets by their source only
version.txt   the version of the program and of the system

Not here, because they may hold what nobody can scrub for sure: the log (journalctl -u sortie --since -1h), drop-ins of
the unit (systemctl cat sortie), and the secret files themselves.
";

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// There is a file of that name. It is left alone.
    #[error("{} exists already and is not overwritten", .0.display())]
    Exists(PathBuf),
    /// It cannot be written.
    #[error("{} cannot be written: {kind}", path.display())]
    Unwritable {
        /// Where.
        path: PathBuf,
        /// The class of the system's error.
        kind: io::ErrorKind,
    },
}

/// Writes a gzip-compressed tar archive, readable for its owner alone. `entries` are names and texts. It blocks.
///
/// # Errors
/// See [`BundleError`]; then nothing is left behind.
pub fn write(path: &Path, entries: &[(&str, String)]) -> Result<(), BundleError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => BundleError::Exists(path.to_owned()),
        kind => BundleError::Unwritable { path: path.to_owned(), kind },
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    archive(file, entries).map_err(|error| {
        let _ = std::fs::remove_file(path);
        BundleError::Unwritable { path: path.to_owned(), kind: error.kind() }
    })
}

fn archive(file: std::fs::File, entries: &[(&str, String)]) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let readme = [("README.txt", README.to_owned())];
    for (name, text) in readme.iter().chain(entries) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now).unwrap_or_default());
        archive.append_data(&mut header, format!("{DIRECTORY}/{name}"), text.as_bytes())?;
    }
    let mut file = archive.into_inner()?.finish()?;
    file.flush()?;
    file.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn an_archive_is_its_owners_alone_and_never_overwrites() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("support.tar.gz");
        write(&path, &[("version.txt", "1".to_owned())]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let before = std::fs::read(&path).unwrap();
        assert!(matches!(write(&path, &[]), Err(BundleError::Exists(_))));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        let nowhere = home.path().join("no/such.tar.gz");
        assert!(matches!(write(&nowhere, &[]), Err(BundleError::Unwritable { .. })));
    }
}
