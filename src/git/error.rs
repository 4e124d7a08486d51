//! Why git's work failed, by meaning.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::lfs::LfsError;
use crate::dial::HttpError;
use crate::report::Stage;
use crate::ssh;

/// What a limit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes received in all.
    Bytes,
    /// Objects in the pack.
    Objects,
    /// Files in the working directory.
    Files,
    /// Bytes of one file.
    BlobBytes,
    /// Bytes of all files together.
    ExpandedBytes,
    /// Bytes of one path.
    PathBytes,
    /// Directories above one file.
    PathDepth,
    /// References that the server lists.
    References,
    /// Bytes of files that travel in one answer.
    AnswerBytes,
    /// Bytes of all objects of Git LFS.
    LfsBytes,
    /// Objects of Git LFS.
    LfsObjects,
    /// Bytes of an archive, or of what it holds.
    ArchiveBytes,
    /// Bytes of a bundle.
    BundleBytes,
    /// Bytes of one directory's list.
    TreeBytes,
    /// Bytes of one file that is stored as a delta, or of files that have to be held because there are deltas of them.
    DeltaBytes,
    /// Deltas on each other.
    DeltaDepth,
    /// Submodules, with those of submodules.
    Submodules,
    /// Submodules above one submodule, and itself.
    SubmoduleDepth,
}

impl Limit {
    /// The key of `[limits]` that sets it, where there is one.
    pub fn setting(self) -> Option<&'static str> {
        match self {
            Self::Bytes => Some("bytes"),
            Self::Objects => Some("objects"),
            Self::Files => Some("files"),
            Self::BlobBytes => Some("blob_bytes"),
            Self::ExpandedBytes => Some("expanded_bytes"),
            Self::PathBytes
            | Self::PathDepth
            | Self::References
            | Self::AnswerBytes
            | Self::LfsBytes
            | Self::LfsObjects
            | Self::ArchiveBytes
            | Self::BundleBytes
            | Self::TreeBytes
            | Self::DeltaBytes
            | Self::DeltaDepth
            | Self::Submodules
            | Self::SubmoduleDepth => None,
        }
    }

    /// What is counted, in the plural.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes received",
            Self::Objects => "objects",
            Self::Files => "files",
            Self::BlobBytes => "bytes in one file",
            Self::ExpandedBytes => "bytes in all files together",
            Self::PathBytes => "bytes in one path",
            Self::PathDepth => "directories above one file",
            Self::References => "references",
            Self::AnswerBytes => "bytes of files in one answer",
            Self::LfsBytes => "bytes of LFS objects",
            Self::LfsObjects => "LFS objects",
            Self::ArchiveBytes => "bytes in the archive",
            Self::BundleBytes => "bytes in the bundle",
            Self::TreeBytes => "bytes in the list of one directory",
            Self::DeltaBytes => "bytes in files that are stored as deltas or have deltas",
            Self::DeltaDepth => "deltas on each other",
            Self::Submodules => "submodules",
            Self::SubmoduleDepth => "submodules in each other",
        }
    }
}

/// What is wrong with a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PackProblem {
    /// It ended before everything that it promised had come.
    #[error("it ended too early")]
    Truncated,
    /// Its checksum, a delta or an object is wrong.
    #[error("a checksum, a delta or an object in it is wrong")]
    Damaged,
    /// An object that the reference leads to did not come.
    #[error("an object that the commit needs is missing")]
    ObjectMissing,
}

/// How a connection is lost in the middle of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    /// It ended, or was reset.
    #[error("it was cut")]
    Cut,
    /// Nothing more came for so long.
    #[error("nothing more came for {} s", .after.as_secs())]
    Silence {
        /// How long was waited.
        after: Duration,
    },
}

/// Why a list of references could not be had, or a clone could not be made.
///
/// Nothing here holds a secret, and texts that came from a server are without control characters and bounded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request did not get through, or its answer did not.
    #[error(transparent)]
    Http(HttpError),
    /// 401.
    #[error("the server did not accept the credential")]
    Unauthorized {
        /// The schemes that it offers in `WWW-Authenticate`, as written.
        schemes: Vec<String>,
        /// The beginning of the answer's body.
        body: String,
    },
    /// 403.
    #[error("the server forbids it")]
    Forbidden {
        /// The beginning of the answer's body.
        body: String,
        /// Whether the body is a page of HTML, as a web server of any kind has it.
        is_page: bool,
    },
    /// 404 or 410.
    #[error("the server knows no repository at that path")]
    NotFound {
        /// The beginning of the answer's body.
        body: String,
        /// Whether the body is a page of HTML, as a web server of any kind has it.
        is_page: bool,
    },
    /// 429.
    #[error("the server limits the rate of requests")]
    RateLimited {
        /// The time to wait that the server named, at most an hour.
        retry_after: Option<Duration>,
    },
    /// 203, a page of HTML, or a redirect to another page of the same server.
    #[error("the server answered with a page for people (status {status})")]
    SignInPage {
        /// The status of the answer.
        status: u16,
        /// Where a redirect led, without user info and query.
        location: Option<String>,
    },
    /// A redirect that is not followed.
    #[error("the server redirects to {location}")]
    Redirected {
        /// The status of the answer.
        status: u16,
        /// Where to, without user info and query.
        location: String,
        /// Whether scheme, host and port stay the same.
        same_origin: bool,
    },
    /// 5xx.
    #[error("the server failed with status {status}")]
    ServerError {
        /// The status of the answer.
        status: u16,
        /// The beginning of the answer's body.
        body: String,
    },
    /// The list of references was given out, and the request for objects right after it was refused.
    #[error("the request for objects was refused with status {status}")]
    PackRefused {
        /// The status of the answer.
        status: u16,
        /// The beginning of the answer's body.
        body: String,
    },
    /// The answer had begun, and then the connection was lost.
    #[error("the connection was lost after {bytes} bytes of the answer ({how})")]
    Lost {
        /// How much of the answer had come, in bytes.
        bytes: u64,
        /// How it was lost.
        how: Loss,
    },
    /// The server said in the middle of a pack that it cannot go on.
    #[error("the server gave up: {message}")]
    GaveUp {
        /// Its own words.
        message: String,
    },
    /// The files of a repository, as a web server without git gives them out.
    #[error("the server gives out the repository's files and does not speak git's own protocol")]
    DumbHttp,
    /// An answer that is not git's.
    #[error("the server answered something that is not git (status {status})")]
    UnexpectedAnswer {
        /// The status of the answer.
        status: u16,
        /// Its content type.
        content_type: Option<String>,
        /// Its first bytes as text.
        first_bytes: String,
    },
    /// SSH did not get as far as git.
    #[error(transparent)]
    Ssh(Box<ssh::Error>),
    /// The server's git ended, or refused, instead of listing references.
    #[error("the server does not give the repository out")]
    RepositoryUnavailable {
        /// The exit status of the remote command, over SSH.
        exit_status: Option<i32>,
        /// What the server said about it.
        message: String,
    },
    /// What the server sent is not git's protocol.
    #[error("the server does not keep to git's protocol")]
    Protocol {
        /// The first bytes that were out of form, as text.
        first_bytes: String,
    },
    /// The name cannot be that of a reference.
    #[error("`{name}` cannot be the name of a reference")]
    ReferenceInvalid {
        /// The name, without control characters.
        name: String,
    },
    /// The server has no such reference.
    #[error("the server has no reference `{name}`")]
    ReferenceNotFound {
        /// What was asked for.
        name: String,
        /// Names that are like it, the most alike first.
        near: Vec<String>,
    },
    /// What the server's `HEAD` names is not there, and other branches are.
    #[error("the server's default branch{} does not exist", branch.as_deref().map(|name| format!(" `{name}`")).unwrap_or_default())]
    DefaultBranchMissing {
        /// The branch, where the server says which one it is.
        branch: Option<String>,
        /// Branches that are there, the most likely first.
        branches: Vec<String>,
    },
    /// The reference leads to something that cannot be checked out.
    #[error("`{name}` is a {kind} and not a commit")]
    NotACommit {
        /// The full name.
        name: String,
        /// What it leads to: a tree or a blob.
        kind: &'static str,
    },
    /// There is no commit in the repository.
    #[error("the repository is empty")]
    Empty,
    /// Nothing of what was asked for is in the commit.
    #[error("the commit has none of these paths: {}", paths.join(", "))]
    PathNotFound {
        /// The first of the paths that were asked for, without control characters.
        paths: Vec<String>,
        /// Paths that are like them, the most alike first.
        near: Vec<String>,
    },
    /// The target directory holds something.
    #[error("the directory {} is not empty", path.display())]
    TargetNotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The target could not be made or written.
    #[error("cannot write to {}: {source}", path.display())]
    Target {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system of the target is full, or a quota is used up.
    #[error("no space is left for {}", path.display())]
    DiskFull {
        /// The directory.
        path: PathBuf,
    },
    /// Over a limit of the operator's.
    #[error("more than {limit} {}", what.as_str())]
    TooLarge {
        /// What there is too much of.
        what: Limit,
        /// The limit.
        limit: u64,
    },
    /// What the server sent is damaged.
    #[error("the pack is damaged: {0}")]
    PackCorrupt(PackProblem),
    /// A path that must not be written.
    #[error("the repository holds the unsafe path `{path}`")]
    UnsafePath {
        /// The path, without control characters.
        path: String,
    },
    /// Objects of Git LFS could not be had.
    #[error(transparent)]
    Lfs(Box<LfsError>),
    /// A part of the history is not there, and the whole is needed.
    #[error("the repository has only a part of its history")]
    Shallow,
    /// Whoever was to take the result did not.
    #[error("the result could not be handed on: {source}")]
    Delivery {
        /// What it said.
        source: io::Error,
    },
    /// The task was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The task's time was over.
    #[error("the deadline has passed")]
    DeadlineExceeded,
    /// A fault of ours.
    #[error("a fault of Sortie's own: {what} (class {class}, code {code})")]
    Internal {
        /// What was being done.
        what: &'static str,
        /// The library's class of the error.
        class: i32,
        /// The library's code of the error.
        code: i32,
    },
}

impl From<LfsError> for Error {
    fn from(error: LfsError) -> Self {
        Self::Lfs(Box::new(error))
    }
}

impl From<ssh::Error> for Error {
    fn from(error: ssh::Error) -> Self {
        Self::Ssh(Box::new(error))
    }
}

impl Error {
    /// The status of the answer of HTTP that this is about, where it is about one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Unauthorized { .. } => Some(401),
            Self::Forbidden { .. } => Some(403),
            Self::NotFound { .. } => Some(404),
            Self::RateLimited { .. } => Some(429),
            Self::SignInPage { status, .. }
            | Self::PackRefused { status, .. }
            | Self::Redirected { status, .. }
            | Self::ServerError { status, .. }
            | Self::UnexpectedAnswer { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Whether any web server answers so: with a page of its own, or with the way to another host.
    pub fn is_of_web_server(&self) -> bool {
        match self {
            Self::Forbidden { is_page, .. } | Self::NotFound { is_page, .. } => *is_page,
            Self::SignInPage { status, location } => *status == 200 && location.is_none(),
            Self::Redirected { same_origin, .. } => !same_origin,
            _ => false,
        }
    }

    /// The stage where this shows, given the one that ran.
    pub fn stage(&self, running: Option<Stage>) -> Stage {
        match self {
            Self::Http(HttpError::Dial(error)) => error.stage(),
            Self::Ssh(error) => error.stage(),
            Self::Unauthorized { .. } | Self::SignInPage { .. } => Stage::Authenticate,
            Self::Forbidden { .. }
            | Self::NotFound { .. }
            | Self::RepositoryUnavailable { .. }
            | Self::DumbHttp => Stage::Repository,
            Self::ReferenceInvalid { .. }
            | Self::ReferenceNotFound { .. }
            | Self::DefaultBranchMissing { .. }
            | Self::NotACommit { .. }
            | Self::Empty => Stage::References,
            Self::PackRefused { .. } => Stage::Negotiate,
            Self::PathNotFound { .. } | Self::Lfs(_) => Stage::Checkout,
            Self::TargetNotEmpty { .. } | Self::Shallow | Self::Delivery { .. } => Stage::Deliver,
            _ => running.unwrap_or(Stage::References),
        }
    }
}
