//! libgit2 set up once for the whole process: the one file of git that calls foreign functions.

use std::sync::OnceLock;

use git2::ConfigLevel;

use super::transport;

/// The most objects that libgit2 takes in one pack, whatever the header claims and a task allows: it makes
/// room for as many as the header says before the first one has come.
const PACK_MAX_OBJECTS: usize = 50_000_000;

/// How long libgit2's own sockets may wait, in milliseconds. It opens none; this is the second line.
const SERVER_TIMEOUT_MS: i32 = 30_000;

/// libgit2 could not be set up. Nothing of git works then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("libgit2 cannot be set up (code {code})")]
pub struct InitializationError {
    /// libgit2's code.
    pub code: i32,
}

/// Sets libgit2 up, the first time it is called. Everything in [`crate::git`] calls it by itself.
///
/// # Errors
/// Where libgit2 refuses a setting.
pub fn initialize() -> Result<(), InitializationError> {
    static DONE: OnceLock<Result<(), InitializationError>> = OnceLock::new();
    *DONE.get_or_init(|| set_up().map_err(|error| InitializationError { code: error.raw_code() }))
}

/// Neither the host's nor the user's configuration may change what a clone does, and nothing but our own
/// transports may carry it.
fn set_up() -> Result<(), git2::Error> {
    git2::opts::strict_object_creation(true);
    git2::opts::strict_hash_verification(true);
    // SAFETY: These change libgit2's global state, which nothing else touches meanwhile: every use of
    // libgit2 in this crate comes after `initialize`, which lets one thread in here and makes the rest wait.
    #[allow(unsafe_code)]
    unsafe {
        for level in [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::ProgramData] {
            git2::opts::set_search_path(level, "")?;
        }
        git2::opts::set_verify_owner_validation(true)?;
        git2::opts::set_server_connect_timeout_in_milliseconds(SERVER_TIMEOUT_MS)?;
        git2::opts::set_server_timeout_in_milliseconds(SERVER_TIMEOUT_MS)?;
        let option = libgit2_sys::GIT_OPT_SET_PACK_MAX_OBJECTS as std::ffi::c_int;
        let code = libgit2_sys::git_libgit2_opts(option, PACK_MAX_OBJECTS);
        if code < 0 {
            return Err(git2::Error::from_str("the limit on objects was refused"));
        }
        // The bare names: `https://` would be accepted and never be found.
        for scheme in ["https", "http"] {
            git2::transport::register(scheme, |remote| {
                git2::transport::Transport::smart(remote, true, transport::Subtransport::current())
            })?;
        }
        git2::transport::register("ssh", |remote| {
            git2::transport::Transport::smart(remote, false, transport::Subtransport::current())
        })?;
        // libgit2 has its own for these; they would pass by the door.
        for scheme in ["git", "file", "git+ssh", "ssh+git"] {
            git2::transport::register(scheme, |_| {
                Err(git2::Error::new(
                    git2::ErrorCode::NotFound,
                    git2::ErrorClass::Net,
                    "this scheme is not used",
                ))
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_up_works_and_can_be_repeated() {
        assert_eq!(initialize(), Ok(()));
        assert_eq!(initialize(), Ok(()));
    }

    #[test]
    fn without_a_context_no_transport_opens_anything() {
        assert_eq!(initialize(), Ok(()));
        for url in ["https://127.0.0.1:1/x", "ssh://git@127.0.0.1:1/x", "git://127.0.0.1:1/x", "file:///etc"]
        {
            let connected = git2::Remote::create_detached(url)
                .and_then(|mut remote| remote.connect(git2::Direction::Fetch));
            assert!(connected.is_err(), "{url}");
        }
    }
}
