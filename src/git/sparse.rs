//! A working directory with some paths of the commit only.

use std::fs;

use git2::Repository;

use super::Error;
use super::pkt::scrubbed;
use super::survey::is_unsafe_name;

/// Sees to it that paths lead to somewhere in a commit, and to nothing that must not be written.
pub(super) fn check(paths: &[String]) -> Result<(), Error> {
    let is_unsafe = |path: &&String| path.split('/').any(|name| is_unsafe_name(name.as_bytes(), false));
    match paths.iter().find(is_unsafe) {
        Some(path) => Err(Error::UnsafePath { path: scrubbed(path.as_bytes()) }),
        None => Ok(()),
    }
}

/// Tells git that only these paths are in the working directory, by patterns that name each of them exactly.
pub(super) fn configure(repository: &Repository, paths: &[String]) -> Result<(), git2::Error> {
    let mut patterns = String::new();
    for path in paths {
        patterns.push('/');
        for c in path.chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '\\' | '!' | '#' | ' ') {
                patterns.push('\\');
            }
            patterns.push(c);
        }
        patterns.push('\n');
    }
    let directory = repository.path().join("info");
    let written =
        fs::create_dir_all(&directory).and_then(|()| fs::write(directory.join("sparse-checkout"), patterns));
    written.map_err(|_| {
        git2::Error::new(
            git2::ErrorCode::GenericError,
            git2::ErrorClass::Os,
            "the patterns cannot be written",
        )
    })?;
    let mut config = repository.config()?;
    config.set_bool("core.sparseCheckout", true)?;
    config.set_bool("core.sparseCheckoutCone", false)
}
