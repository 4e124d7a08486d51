//! The lookup of names, bounded in time and number, and policy's word on what they lead to.

use std::net::IpAddr;
use std::sync::Arc;

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::LOOKUP_TIMEOUT;
use super::error::{DialError, ResolverProblem};
use crate::policy::{AddressRefusal, AddressRule, check_address};

/// How many addresses of a name are tried at most.
const MAX_ADDRESSES: usize = 16;

/// How many lookups run at once. The system's resolver cannot be interrupted, so that one which hangs keeps
/// its thread and its place until the system gives up.
const MAX_LOOKUPS: usize = 16;

/// Looks names up. The system's resolver is one; tests bring their own.
pub trait Names: Send + Sync {
    /// The addresses of a name, in the order in which they should be tried. It may block: it is called on a
    /// thread for that.
    ///
    /// # Errors
    /// Why there are none.
    fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupError>;
}

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// There is no such name, or it has no addresses.
    #[error("no such name")]
    NotFound,
    /// The resolver gave no verdict.
    #[error("the resolver gave no answer: {0}")]
    Failed(ResolverProblem),
}

/// The resolver of this host, with all that its configuration says: hosts file, search list, mDNS, …
#[derive(Debug, Clone, Copy)]
pub struct SystemNames;

impl Names for SystemNames {
    fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
        let found = getaddrinfo(Some(host), None, Some(hints)).map_err(|error| match error.kind() {
            LookupErrorKind::NoName | LookupErrorKind::NoData => LookupError::NotFound,
            LookupErrorKind::Again => LookupError::Failed(ResolverProblem::Temporary),
            LookupErrorKind::Fail => LookupError::Failed(ResolverProblem::Permanent),
            _ => LookupError::Failed(ResolverProblem::Code(error.error_num())),
        })?;
        Ok(found.flatten().map(|entry| entry.sockaddr.ip()).collect())
    }
}

/// The addresses of a host, after policy has looked at each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admitted {
    /// Those that may be connected to; never empty.
    pub(super) allowed: Vec<IpAddr>,
    /// Those that may not.
    pub(super) refused: Vec<IpAddr>,
}

/// Asks [`Names`] on threads of their own, within [`LOOKUP_TIMEOUT`].
pub(super) struct Lookup {
    names: Arc<dyn Names>,
    places: Arc<Semaphore>,
}

impl Lookup {
    pub(super) fn new(names: Arc<dyn Names>) -> Self {
        Self { names, places: Arc::new(Semaphore::new(MAX_LOOKUPS)) }
    }

    /// The addresses of a host, which may be an address itself. No policy has looked at them.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let lookup = async {
            // The semaphore is never closed and the lookup does not panic; either would be a failure.
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let (names, host) = (Arc::clone(&self.names), host.to_owned());
            let blocking = move || {
                let _place = place;
                names.addresses(&host)
            };
            tokio::task::spawn_blocking(blocking).await.ok()
        };
        let found = match timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Some(found)) => found?,
            Ok(None) => return Err(LookupError::Failed(ResolverProblem::Permanent)),
            Err(_) => return Err(LookupError::Failed(ResolverProblem::TimedOut)),
        };
        let mut distinct = Vec::new();
        for address in found {
            if !distinct.contains(&address) {
                distinct.push(address);
            }
        }
        if distinct.is_empty() { Err(LookupError::NotFound) } else { Ok(distinct) }
    }

    /// The addresses of a host that policy allows to be connected to.
    pub(super) async fn admitted(&self, host: &str, rule: AddressRule) -> Result<Admitted, DialError> {
        let found = self.addresses(host).await.map_err(|error| named(host, error))?;
        admit(host, &found, rule)
    }
}

/// A failed lookup as a failed connection.
pub(super) fn named(host: &str, error: LookupError) -> DialError {
    let host = host.to_owned();
    match error {
        LookupError::NotFound => DialError::NameNotFound { host },
        LookupError::Failed(problem) => DialError::ResolverFailed { host, problem },
    }
}

/// Shows every address to policy. A host with some good addresses is good: only those are dialled.
pub(super) fn admit(host: &str, addresses: &[IpAddr], rule: AddressRule) -> Result<Admitted, DialError> {
    let mut admitted = Admitted { allowed: Vec::new(), refused: Vec::new() };
    let mut first_refusal: Option<(IpAddr, AddressRefusal)> = None;
    for &address in addresses {
        match check_address(address, rule) {
            Ok(()) => admitted.allowed.push(address),
            Err(refusal) => {
                admitted.refused.push(address);
                first_refusal.get_or_insert((address, refusal));
            }
        }
    }
    admitted.allowed.truncate(MAX_ADDRESSES);
    admitted.refused.truncate(MAX_ADDRESSES);
    match first_refusal {
        Some((address, refusal)) if admitted.allowed.is_empty() => {
            Err(DialError::AddressNotAllowed { host: host.to_owned(), address, refusal })
        }
        _ if admitted.allowed.is_empty() => Err(DialError::NameNotFound { host: host.to_owned() }),
        _ => Ok(admitted),
    }
}
