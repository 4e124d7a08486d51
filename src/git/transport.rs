//! The transport that libgit2 gets for https, http and ssh: ours.

use std::sync::Arc;

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use git2::{Error as GitError, ErrorClass, ErrorCode};

use super::wire::{self, Wire};
use super::{Access, http, ssh_stream};

/// One connection of libgit2's to a remote.
pub(super) struct Subtransport {
    /// Missing where libgit2 was called outside of a piece of work: then nothing is opened. It is found out
    /// in `action`, because libgit2 loses the message of an error while a transport is made.
    wire: Option<Arc<Wire>>,
    http: http::Shared,
}

impl Subtransport {
    /// A transport with the context of the current thread.
    pub(super) fn current() -> Self {
        Self { wire: wire::current(), http: http::Shared::default() }
    }

    fn wire(&self, url: &str) -> Result<&Arc<Wire>, GitError> {
        let wire = self.wire.as_ref().ok_or_else(|| refused("there is no context for this connection"))?;
        if wire.url_for_git() != url {
            return Err(refused("libgit2 asks for another URL than the one at hand"));
        }
        Ok(wire)
    }
}

impl SmartSubtransport for Subtransport {
    fn action(&self, url: &str, action: Service) -> Result<Box<dyn SmartSubtransportStream>, GitError> {
        let wire = self.wire(url)?;
        match (&wire.access, action) {
            (Access::Https { client, authorization }, Service::UploadPackLs) => {
                http::list(wire, client, authorization.as_ref(), &self.http)
            }
            (Access::Https { client, authorization }, Service::UploadPack) => {
                Ok(http::exchange(wire, client, authorization.as_ref(), &self.http))
            }
            (Access::Ssh(login), Service::UploadPackLs) => ssh_stream::open(wire, login),
            _ => Err(refused("nothing is ever pushed")),
        }
    }

    fn close(&self) -> Result<(), GitError> {
        Ok(())
    }
}

/// An error for libgit2 whose meaning is recorded elsewhere.
pub(super) fn refused(message: &str) -> GitError {
    GitError::new(ErrorCode::GenericError, ErrorClass::Net, message)
}
