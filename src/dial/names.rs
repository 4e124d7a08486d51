//! The lookup of names.

use std::net::IpAddr;
use std::sync::Arc;

use super::error::ResolverProblem;

/// Looks names up. The system's resolver is one; tests bring their own.
pub trait Names: Send + Sync {
    /// The addresses of a name. May block: it is called on a thread for that.
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

/// The resolver of this host.
#[derive(Debug, Clone, Copy)]
pub struct SystemNames;

impl Names for SystemNames {
    fn addresses(&self, _host: &str) -> Result<Vec<IpAddr>, LookupError> {
        Err(LookupError::NotFound)
    }
}

pub(super) struct Lookup {
    _names: Arc<dyn Names>,
}

impl Lookup {
    pub(super) fn new(names: Arc<dyn Names>) -> Self {
        Self { _names: names }
    }
}
