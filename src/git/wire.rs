//! What one piece of work on a remote hands to the transports under libgit2, and what they hand back.
//!
//! libgit2 calls a transport on the thread that called libgit2 and has no room for an argument. So the
//! context stands in a thread-local while the work runs, and a transport that finds none refuses to work.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::runtime::Handle;

use super::connectivity::Verdict;
use super::pkt::Observer;
use super::{Access, Control, Error, Limit, Remote};
use crate::remote_url::RemoteUrl;
use crate::report::{Stage, StageLog};
use crate::ssh::Opened;

/// The context of one piece of work.
pub(super) struct Wire {
    pub(super) url: RemoteUrl,
    pub(super) access: Access,
    pub(super) control: Control,
    pub(super) log: StageLog,
    pub(super) runtime: Handle,
    /// The login of SSH, once there is one.
    pub(super) opened: OnceLock<Arc<Mutex<Opened>>>,
    /// The open connection of SSH, to be cut where the work must stop.
    pub(super) cut: Arc<Cut>,
    /// What came over the connection so far, by the rules of git's framing.
    pub(super) observer: Mutex<Observer>,
    failure: Mutex<Option<Error>>,
    connectivity: Mutex<Option<Verdict>>,
}

impl Wire {
    pub(super) fn new(remote: &Remote, control: &Control, log: &StageLog, cut: &Arc<Cut>) -> Arc<Self> {
        Arc::new(Self {
            url: remote.url.clone(),
            access: remote.access.clone(),
            control: control.clone(),
            log: log.clone(),
            runtime: Handle::current(),
            opened: OnceLock::new(),
            cut: Arc::clone(cut),
            observer: Mutex::new(Observer::new(control.limits.max_references)),
            failure: Mutex::new(None),
            connectivity: Mutex::new(None),
        })
    }

    /// The URL as libgit2 gets it. A user is kept for SSH alone, where it is no secret and a later `git
    /// pull` needs it; in an https URL it may be a token.
    pub(super) fn url_for_git(&self) -> String {
        match (&self.access, self.url.user()) {
            (Access::Ssh(login), _) => {
                let host = self.url.authority();
                let user =
                    percent_encoding::utf8_percent_encode(&login.user, percent_encoding::NON_ALPHANUMERIC);
                format!("ssh://{user}@{host}{}", self.url.path())
            }
            (Access::Https { .. }, _) => self.url.to_string(),
        }
    }

    /// The URL as the clone's own configuration gets it, where that is another: the short form of SSH stands
    /// for a path in the user's home, which no `ssh://` URL of libgit2's can say.
    pub(super) fn url_of_origin(&self) -> Option<String> {
        let Access::Ssh(login) = &self.access else { return None };
        // The short form has no port, and an IPv6 address stands in brackets in it.
        Some(format!("{}@{}:{}", login.user, self.url.authority(), self.url.short_path()?))
    }

    /// Makes this the context of the current thread until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Entered {
        CURRENT.with_borrow_mut(|current| *current = Some(Arc::clone(self)));
        Entered
    }

    /// Counts what came over the network, and hides from libgit2 what it would not understand.
    pub(super) fn received(&self, bytes: &mut [u8]) -> Result<(), Error> {
        let limit = self.control.limits.max_bytes;
        if self.control.transfer.add_bytes(bytes.len()) > limit {
            return Err(Error::TooLarge { what: Limit::Bytes, limit });
        }
        let was_silent = self.observer().is_silent();
        let mut observer = self.observer();
        let observed = observer.feed(bytes);
        observer.hide_ends(bytes);
        drop(observer);
        if was_silent && !self.observer().is_silent() {
            self.log.begin(Stage::References);
        }
        observed
    }

    /// Begins anew for the list of another connection.
    pub(super) fn expect_list(&self) {
        *self.observer() = Observer::new(self.control.limits.max_references);
    }

    pub(super) fn observer(&self) -> MutexGuard<'_, Observer> {
        self.observer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records why the work cannot go on, and gives libgit2 an error that says no more than that.
    ///
    /// The first reason counts; the deadline or a cancel comes before it, because they cut connections.
    pub(super) fn fail(&self, error: Error) -> io::Error {
        let error = self.control.check().err().unwrap_or(error);
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        io::Error::other("the transport failed")
    }

    /// Takes the recorded reason out.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Records what was seen of what the objects of a pack refer to.
    pub(super) fn set_connectivity(&self, verdict: Verdict) {
        *self.connectivity.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
    }

    /// Takes that out.
    pub(super) fn take_connectivity(&self) -> Option<Verdict> {
        self.connectivity.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Runs a future on the runtime until it is done, or until the work must stop.
    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, Error> {
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.control.cancel.cancelled() => Err(Error::Cancelled),
                () = tokio::time::sleep_until(self.control.deadline) => Err(Error::DeadlineExceeded),
                output = future => Ok(output),
            }
        })
    }

    /// Whether that stage runs or was recorded.
    pub(super) fn has_seen(&self, stage: Stage) -> bool {
        self.log.running() == Some(stage) || self.log.records().iter().any(|record| record.stage == stage)
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Wire>>> = const { RefCell::new(None) };
}

/// The context of the current thread.
pub(super) fn current() -> Option<Arc<Wire>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Takes the context away when dropped.
pub(super) struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| *current = None);
    }
}

/// A connection that another thread can cut, which wakes whoever waits on it, and a word to those who work
/// without waiting.
#[derive(Default)]
pub(crate) struct Cut {
    state: Mutex<CutState>,
    interrupt: Arc<AtomicBool>,
}

#[derive(Default)]
struct CutState {
    is_cut: bool,
    connection: Option<UnixStream>,
}

impl Cut {
    /// Takes note of a connection; one that comes too late is cut at once.
    pub(crate) fn watch(&self, connection: &UnixStream) -> io::Result<()> {
        let connection = connection.try_clone()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_cut {
            connection.shutdown(Shutdown::Both)?;
        }
        state.connection = Some(connection);
        Ok(())
    }

    /// Becomes true when the work must stop.
    pub(crate) fn interrupt(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupt)
    }

    /// Cuts the connection, now or as soon as there is one.
    pub(crate) fn cut(&self) {
        self.interrupt.store(true, Ordering::Relaxed);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_cut = true;
        if let Some(connection) = state.connection.take() {
            // It fails only where the peer was faster.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}
