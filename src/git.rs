//! Git over the daemon's own transports: the list of references, and clones.
//!
//! libgit2 speaks the protocol and keeps the repository; it never opens a connection. Everything that goes
//! over the network goes through [`crate::dial`], under the deadline, the cancel token and the limits of a
//! [`Control`].

mod archive;
mod blocking;
mod bundle;
mod checkout;
mod clone;
mod contents;
mod control;
mod engine;
mod error;
mod http;
mod objects;
mod pkt;
mod references;
mod refname;
mod sink;
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
pub use clone::{CloneRequest, CloneWarning, Cloned, clone};
pub use contents::{Contents, ContentsLimits, FileContent, FileKind, contents};
pub use control::{Control, Limits, Phase, Transfer};
pub use engine::{InitializationError, initialize};
pub use error::{Error, Limit, PackProblem};
pub use refname::is_acceptable_name;
pub use sink::ChannelSink;
pub use summary::{Summary, summarize};

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
