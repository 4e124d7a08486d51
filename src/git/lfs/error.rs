//! Why an object of Git LFS could not be had, by meaning.

use super::LfsOid;
use crate::dial::HttpError;

/// Why Git LFS came to nothing, where it is not what any request or any write can meet.
///
/// Texts that came from a server are without control characters and bounded, and no secret is in any.
#[derive(Debug, thiserror::Error)]
pub enum LfsError {
    /// The repository is reached by SSH, and there is nothing by which its server's HTTPS could be used.
    #[error("the objects are at the server's HTTPS, for which there is no credential")]
    NoCredential,
    /// The repository is reached by SSH, and so is all that is declared of its server.
    #[error("the objects are at the server's HTTPS, of which only SSH is declared")]
    NoHttps,
    /// 404, 405, 410 or 501 to the batch request.
    #[error("the server has no LFS for this repository (status {status}){}", said(.message))]
    NotServed {
        /// The status of the answer.
        status: u16,
        /// The server's own words.
        message: String,
    },
    /// 401 or 403 to the batch request.
    #[error("the server does not let the credential read objects (status {status}){}", said(.message))]
    Denied {
        /// The status of the answer.
        status: u16,
        /// The server's own words.
        message: String,
    },
    /// Another refusal of the batch request: 406, 413, 422, 507, 509 and the like.
    #[error("the server refuses the request for objects (status {status}){}", said(.message))]
    Refused {
        /// The status of the answer.
        status: u16,
        /// The server's own words.
        message: String,
    },
    /// The answer to the batch request is not what the batch API has.
    #[error("the answer of the batch API (status {status}) is out of form: {problem}")]
    Unexpected {
        /// The status of the answer.
        status: u16,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The batch API, or one object, is said to be at another place than the declared server.
    #[error("the server leads to {host} for {}, which is not followed", object.as_ref().map_or("objects".to_owned(), Named::to_string))]
    Elsewhere {
        /// The origin, or the path on the same one, without user info and query.
        host: String,
        /// The object, where it is about one.
        object: Option<Named>,
    },
    /// One object could not be had.
    #[error("{object}: {problem}")]
    Object {
        /// Which one.
        object: Named,
        /// What was seen.
        problem: ObjectProblem,
    },
}

/// An object with the first file that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The path in the repository, without control characters.
    pub path: String,
    /// The object.
    pub oid: LfsOid,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` (object {})", self.path, self.oid)
    }
}

/// Why one object could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ObjectProblem {
    /// The batch API says so for this object.
    #[error("the server answers {code} for it{}", said(.message))]
    Refused {
        /// The code, of the meaning of a status of HTTP.
        code: u16,
        /// The server's own words.
        message: String,
    },
    /// The batch API names neither a way to it nor a reason.
    #[error("the server names no way to download it")]
    NoAction,
    /// The batch API gives another size than the pointer.
    #[error("the pointer says {expected} bytes and the server {named}")]
    SizeDiffers {
        /// By the pointer.
        expected: u64,
        /// By the server.
        named: u64,
    },
    /// The download was answered with this status.
    #[error("its download was answered with status {status}{}", said(.message))]
    Answer {
        /// The status.
        status: u16,
        /// The server's own words.
        message: String,
    },
    /// It broke off, and going on did not help.
    #[error("its download broke off {tries} times, the last time at {received} of {size} bytes: {cause}")]
    Interrupted {
        /// How often it was tried.
        tries: u32,
        /// Bytes received.
        received: u64,
        /// Its size by the pointer.
        size: u64,
        /// How it broke off the last time.
        cause: HttpError,
    },
    /// The server ended the answer too early, again and again.
    #[error("{received} bytes came instead of {size}")]
    TooShort {
        /// Bytes received.
        received: u64,
        /// Its size by the pointer.
        size: u64,
    },
    /// More came than the pointer says.
    #[error("more than its {size} bytes came")]
    TooLong {
        /// Its size by the pointer.
        size: u64,
    },
    /// What came is something else.
    #[error("what came has the SHA-256 {found}")]
    WrongContent {
        /// What came.
        found: LfsOid,
    },
    /// An answer to a part of it that is not the part that was asked for.
    #[error("the answer to the request for the rest of it is another part")]
    WrongRange,
    /// The file was changed by a program on its way into the object.
    #[error("the file needs an extension of Git LFS, a program, which is never run")]
    HasExtensions,
}

/// What a server said, as the end of a sentence.
fn said(message: &str) -> String {
    match message.trim_end_matches('.') {
        "" => String::new(),
        message => format!(": the server says `{message}`"),
    }
}
