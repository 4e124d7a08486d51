//! How far a test goes: the target that policy admitted, and below it nothing that policy would not admit.
//!
//! A name in a task and a list of the server's both lead to places that nobody asked policy about yet. Whatever
//! makes a remote or a call about a repository gets its URL here.

use std::sync::Arc;

use super::Test;
use crate::config::Server;
use crate::dial::HttpError;
use crate::policy::{NotDeclared, Refusal};
use crate::provider::{Place, ProviderError};
use crate::remote_url::RemoteUrl;
use crate::task::diagnose::Failure;
use crate::task::target::TargetError;

/// What policy admitted: the declared server, and what the target means to it.
pub(super) struct Declared {
    pub(super) server: Arc<Server>,
    pub(super) place: Place,
}

impl Test<'_> {
    /// The URL by which git reads a place: that of the target itself, or one that policy admits on the same
    /// declared server. Another server would have another credential, and another way to it.
    pub(super) fn admitted_url(&self, place: &Place) -> Result<RemoteUrl, Failure> {
        let refused = |refusal: Refusal| Failure::Target(refusal.into());
        let (Some(url), Some(declared)) = (place.git_url(), &self.declared) else {
            return Err(refused(Refusal::NotDeclared(NotDeclared::Host(self.subject.host.clone()))));
        };
        if declared.place.git_url().as_ref() == Some(&url) {
            return Ok(url);
        }
        // Parsed again, because a name may hold what no URL may: `..`, for example.
        let url =
            RemoteUrl::parse(&url.to_string()).map_err(|error| Failure::Target(TargetError::Url(error)))?;
        let server = self.tools.policy.admit(&url).map_err(refused)?;
        if server.name == declared.server.name {
            return Ok(url);
        }
        let base = declared.server.url.path().to_owned();
        Err(refused(Refusal::NotDeclared(NotDeclared::Path { server: declared.server.name.clone(), base })))
    }

    /// The repository that a server's list offers. It is a courtesy: where the list is refused or has no end,
    /// the test goes on without.
    pub(super) fn first_found<T>(
        &mut self,
        first: Result<Option<T>, ProviderError>,
    ) -> Result<Option<T>, Failure> {
        match first {
            Ok(found) => Ok(found),
            Err(error) if error.is_forbidden() => Ok(None),
            Err(ProviderError::Http(HttpError::BodyTooLarge { .. })) => {
                self.list_too_long = true;
                Ok(None)
            }
            Err(error) => Err(Failure::Provider(error)),
        }
    }
}
