//! The one file of git that calls foreign functions: libgit2 set up once for the whole process, and our own place for
//! the packs that it receives.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::OnceLock;

use git2::{ConfigLevel, Odb};
use libgit2_sys as raw;

use super::index_pack::IndexPack;
use super::transport;

/// The most objects that libgit2 takes in one pack, whatever the header claims and a task allows: it makes
/// room for as many as the header says before the first one has come.
const PACK_MAX_OBJECTS: usize = 50_000_000;

/// How long libgit2's own sockets may wait, in milliseconds. It opens none; this is the second line.
const SERVER_TIMEOUT_MS: i32 = 30_000;

/// Before libgit2's own places for objects, whose priorities are 1 and 2.
const PRIORITY: c_int = 1000;

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
        let option = raw::GIT_OPT_SET_PACK_MAX_OBJECTS as c_int;
        let code = raw::git_libgit2_opts(option, PACK_MAX_OBJECTS);
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

/// A place for objects that takes packs in and nothing else: what libgit2 reads, it reads from its own places.
#[repr(C)]
struct Backend {
    /// What libgit2 knows of it. It stands first, so that a pointer to one is a pointer to the other.
    parent: raw::git_odb_backend,
    /// Where packs go.
    pack_directory: PathBuf,
}

/// A pack that is coming.
#[repr(C)]
struct Writepack {
    /// What libgit2 knows of it. It stands first, so that a pointer to one is a pointer to the other.
    parent: raw::git_odb_writepack,
    work: IndexPack,
}

/// Hands the packs that a repository receives from now on to [`IndexPack`] instead of libgit2's own indexer.
pub(super) fn take_packs(odb: &Odb<'_>, pack_directory: PathBuf) -> Result<(), git2::Error> {
    use git2::Binding as _;
    // SAFETY: The struct is a plain one of C whose members may all be zero, which is what `git_odb_init_backend` makes
    // of it; libgit2 looks for functions that are missing, but for `foreach` and `free`, which are there. From
    // `git_odb_add_backend` on the database owns the backend and frees it by `free_backend`, once; where it does not
    // take it, it is freed here.
    #[allow(unsafe_code)]
    unsafe {
        let mut parent: raw::git_odb_backend = std::mem::zeroed();
        raw::git_odb_init_backend(&raw mut parent, raw::GIT_ODB_BACKEND_VERSION as c_uint);
        parent.writepack = Some(begin_pack);
        parent.foreach = Some(visit_nothing);
        parent.free = Some(free_backend);
        let backend = Box::into_raw(Box::new(Backend { parent, pack_directory })).cast();
        let code = raw::git_odb_add_backend(odb.raw(), backend, PRIORITY);
        if code < 0 {
            free_backend(backend);
            return Err(git2::Error::last_error(code));
        }
    }
    Ok(())
}

extern "C" fn visit_nothing(
    _: *mut raw::git_odb_backend,
    _: raw::git_odb_foreach_cb,
    _: *mut c_void,
) -> c_int {
    0
}

extern "C" fn free_backend(backend: *mut raw::git_odb_backend) {
    // SAFETY: libgit2 calls this once, with the pointer that `take_packs` made.
    #[allow(unsafe_code)]
    drop(unsafe { Box::from_raw(backend.cast::<Backend>()) });
}

/// Never fails: libgit2 would turn to its own indexer without a word. What is wrong shows at the first piece.
extern "C" fn begin_pack(
    out: *mut *mut raw::git_odb_writepack,
    backend: *mut raw::git_odb_backend,
    _odb: *mut raw::git_odb,
    _callback: raw::git_indexer_progress_cb,
    _payload: *mut c_void,
) -> c_int {
    // SAFETY: libgit2 passes the backend that `take_packs` gave to it, which lives as long as the database, and a place
    // for the result. Nothing else refers to the backend meanwhile: the database is locked.
    #[allow(unsafe_code)]
    unsafe {
        let directory = (*backend.cast::<Backend>()).pack_directory.clone();
        let mut parent: raw::git_odb_writepack = std::mem::zeroed();
        parent.backend = backend;
        parent.append = Some(append_to_pack);
        parent.commit = Some(commit_pack);
        parent.free = Some(free_pack);
        let work = IndexPack::begin(directory);
        *out = Box::into_raw(Box::new(Writepack { parent, work })).cast();
    }
    0
}

extern "C" fn append_to_pack(
    pack: *mut raw::git_odb_writepack,
    data: *const c_void,
    length: usize,
    _progress: *mut raw::git_indexer_progress,
) -> c_int {
    // SAFETY: libgit2 passes the pack that `begin_pack` made, from one thread at a time, and as many bytes as it says.
    #[allow(unsafe_code)]
    let (work, bytes) = unsafe {
        let bytes = if length == 0 { &[][..] } else { std::slice::from_raw_parts(data.cast::<u8>(), length) };
        (&mut (*pack.cast::<Writepack>()).work, bytes)
    };
    guarded(|| work.append(bytes))
}

extern "C" fn commit_pack(
    pack: *mut raw::git_odb_writepack,
    progress: *mut raw::git_indexer_progress,
) -> c_int {
    // SAFETY: libgit2 passes the pack that `begin_pack` made and its own counters, from one thread at a time.
    #[allow(unsafe_code)]
    let (work, progress) = unsafe { (&mut (*pack.cast::<Writepack>()).work, progress.as_mut()) };
    guarded(|| {
        let objects = work.commit()?;
        if let Some(progress) = progress {
            (progress.total_objects, progress.received_objects, progress.indexed_objects) =
                (objects, objects, objects);
        }
        Ok(())
    })
}

extern "C" fn free_pack(pack: *mut raw::git_odb_writepack) {
    // SAFETY: libgit2 calls this once, with the pointer that `begin_pack` made.
    #[allow(unsafe_code)]
    let pack = unsafe { Box::from_raw(pack.cast::<Writepack>()) };
    let _ = guarded(|| {
        drop(pack);
        Ok(())
    });
}

/// A panic must not reach C. Why something failed is recorded with the work; libgit2 learns that it did.
fn guarded(work: impl FnOnce() -> Result<(), super::index_pack::Failed>) -> c_int {
    const MESSAGE: &[u8] = b"the pack was refused\0";
    if let Ok(Ok(())) = catch_unwind(AssertUnwindSafe(work)) {
        return 0;
    }
    // SAFETY: The message ends with a zero byte and lives for ever; libgit2 copies it.
    #[allow(unsafe_code)]
    unsafe {
        raw::git_error_set_str(raw::GIT_ERROR_INDEXER as c_int, MESSAGE.as_ptr().cast::<c_char>());
    }
    raw::GIT_EUSER as c_int
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
