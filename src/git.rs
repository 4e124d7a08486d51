//! Git over the daemon's own transports: the list of references, and clones.
//!
//! libgit2 speaks the protocol and keeps the repository; it never opens a connection. Everything that goes
//! over the network goes through [`crate::dial`], under the deadline, the cancel token and the limits of a
//! [`Control`].

mod archive;
mod attach;
mod blocking;
mod bundle;
mod checkout;
mod clone;
mod connectivity;
mod control;
mod error;
mod fetch;
mod files;
mod foreign;
mod http;
mod index_pack;
pub mod lfs;
mod list;
mod meter;
mod mirror;
pub mod modules;
mod objects;
mod pace;
mod packed_refs;
mod pkt;
mod references;
mod refname;
mod sparse;
mod ssh_stream;
mod summary;
mod survey;
mod target;
mod transport;
mod wire;

use references::{Advertisement, Reference};

use crate::dial::HttpClient;
use crate::remote_url::RemoteUrl;
use crate::secret::Secret;
use crate::ssh;

pub use archive::{ArchiveFormat, ArchiveRequest, Archived, archive};
pub use bundle::{BundleRequest, Bundled, bundle};
pub use clone::{Bare, CloneRequest, CloneWarning, Cloned, Draft, clone, draft, with_bare};
pub use control::{Control, Limits, Phase, Transfer};
pub use error::{Error, Limit, Loss, PackProblem};
pub use fetch::{Means, Source, Want};
pub use files::{FetchedFile, FetchedFiles, FilesRequest, blob_id, fetch_files};
pub use foreign::{InitializationError, initialize};
pub use lfs::{LfsError, LfsOid};
pub use list::{Found, ListRequest, Listed, ListedReference, find, list};
pub use mirror::{MirrorInfo, MirrorPlace, Mirrors};
pub use modules::{Holder, Submodule};
pub use pace::{Estimate, Pace};
pub use refname::is_acceptable_name;
pub use summary::{Summary, summarize};
pub use target::{Announce, Growing};

/// What indexes packs and writes files. Everything else is libgit2's work in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Engine {
    /// gix, on all cores.
    #[default]
    Gix,
    /// libgit2 here too, on one core.
    Libgit2,
}

impl Engine {
    /// As it stands in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gix => "gix",
            Self::Libgit2 => "libgit2",
        }
    }
}

/// A repository on a server, with the means to reach it.
#[derive(Clone)]
pub struct Remote {
    /// Where it is.
    pub url: RemoteUrl,
    /// How it is reached, and as whom.
    pub access: Access,
}

/// How a remote is reached. There is one for a whole piece of work, so its size does not matter.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)]
pub enum Access {
    /// Over HTTP with or without TLS.
    Https {
        /// A client that is bound to the origin of the remote's URL.
        client: HttpClient,
        /// The value of the `Authorization` header, sent with the first request; `None` asks anonymously.
        authorization: Option<Secret>,
    },
    /// Over SSH.
    Ssh(ssh::Login),
}
