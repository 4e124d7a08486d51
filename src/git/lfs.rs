//! Git LFS: the objects that pointer files stand for, fetched from the declared server and put in their place.
//!
//! Only the server's own batch API is asked (<https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md>),
//! with the basic transfer. `.lfsconfig` is never read, no filter and no extension runs, and an object that is said
//! to be elsewhere is refused. What comes is hashed on its way and stored as git-lfs stores it, so that `git lfs`
//! accepts the clone afterwards; a file takes its pointer's place only when its object is whole.
//!
//! Memory: for each of four downloads a piece of 1 MiB beside what the HTTP library holds of its windows, and one
//! answer of the batch API.

mod batch;
mod error;
mod find;
mod pointer;
mod store;
mod transfer;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio_util::task::TaskTracker;

use super::pkt::scrubbed;
use super::{Control, Error, Limit};
use crate::dial::HttpClient;
use crate::remote_url::RemoteUrl;
use crate::report::{Stage, StageLog};
use crate::secret::Secret;
use batch::Grant;
use store::Store;
use transfer::Transfers;

pub use error::{LfsError, Named, ObjectProblem};
pub use find::{find, refresh_index};
pub use pointer::{LfsOid, Pointer, parse};
pub use store::Placed;

/// How many objects come at once.
const PARALLEL_DOWNLOADS: usize = 4;

/// How many objects one batch request names, as git-lfs does.
const BATCH_OBJECTS: usize = 100;

/// The most objects of one commit. What is kept of one is about 200 bytes.
const MAX_OBJECTS: usize = 1_000_000;

/// A file that is a pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LfsFile {
    /// Its path in the repository, with slashes.
    pub path: Vec<u8>,
    /// What it says.
    pub pointer: Pointer,
}

impl LfsFile {
    fn named(&self) -> Named {
        Named { path: scrubbed(&self.path), oid: self.pointer.oid }
    }
}

/// Where a repository's objects are.
#[derive(Clone)]
pub struct LfsRemote {
    client: HttpClient,
    /// The declared server: nothing outside of it is asked.
    server: RemoteUrl,
    /// The path of the repository's LFS server, percent-encoded.
    endpoint: String,
    authorization: Option<Secret>,
}

impl LfsRemote {
    /// The LFS server of a repository.
    ///
    /// `repository` is its URL over HTTPS, `server` the base that the operator declared, both at the origin of
    /// `client`. `authorization` is the value of the header for git over HTTPS.
    pub fn new(
        repository: &RemoteUrl,
        server: &RemoteUrl,
        client: HttpClient,
        authorization: Option<Secret>,
    ) -> Self {
        Self { client, server: server.without_user(), endpoint: endpoint(repository.path()), authorization }
    }
}

/// The path of the LFS server of the repository at `path`, as git-lfs derives it; Azure DevOps knows its
/// repositories without a suffix.
fn endpoint(path: &str) -> String {
    let has_suffix = path.ends_with(".git") || path.to_ascii_lowercase().contains("/_git/");
    format!("{path}{}/info/lfs", if has_suffix { "" } else { ".git" })
}

/// What came.
#[derive(Debug, Default)]
pub struct Fetched {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How often a download went on after it had been cut.
    pub resumed: u64,
    /// The files that took their pointers' place, for [`refresh_index`].
    pub files: Vec<Placed>,
}

/// Fetches the objects of `files` and puts each in the place of its pointer.
///
/// `reference` is the full name of what was cloned, for servers that ask. `work_tree` holds the checked-out files,
/// `git_directory` (on the same file system) gets `lfs/objects`. Both must be the caller's alone meanwhile. The
/// future watches cancel and deadline itself, and must be awaited to its end: no write goes on after that. A
/// failure leaves objects that were whole; the caller removes the directory.
///
/// # Errors
/// [`Error::Lfs`], and what any request or write can fail with.
pub async fn fetch(
    files: &[LfsFile],
    remote: &LfsRemote,
    reference: Option<&str>,
    (work_tree, git_directory): (&Path, &Path),
    control: &Control,
    log: &StageLog,
) -> Result<Fetched, Error> {
    control.check()?;
    let wanted = distinct(files, control)?;
    if wanted.is_empty() {
        return Ok(Fetched::default());
    }
    let bytes = wanted.iter().fold(0, |sum: u64, object| sum.saturating_add(object.size()));
    control.transfer.add_total_lfs_bytes(bytes);
    log.fact_at(Stage::Checkout, "lfs_objects", wanted.len());
    log.fact_at(Stage::Checkout, "lfs_bytes", bytes);
    let tracker = TaskTracker::new();
    let (trees, repository) = (work_tree.to_owned(), git_directory.to_owned());
    let prepared = tracker.spawn_blocking(move || Store::prepare(&trees, &repository, bytes));
    let store = prepared.await.unwrap_or(Err(panicked()))?;
    let store = Arc::new(store);
    let transfers = Transfers::new(remote, reference, Arc::clone(&store), control, &tracker);
    let fetched = tokio::select! {
        biased;
        () = control.cancel.cancelled() => Err(Error::Cancelled),
        () = tokio::time::sleep_until(control.deadline) => Err(Error::DeadlineExceeded),
        fetched = fetch_all(&transfers, files, &wanted) => fetched,
    };
    // What was begun on other threads ends before the caller goes on.
    tracker.close();
    tracker.wait().await;
    let resumed = transfers.resumed();
    drop(transfers);
    // Nobody else holds it now: its end removes what is not whole.
    let _ = tokio::task::spawn_blocking(move || drop(store)).await;
    log.fact_at(Stage::Checkout, "lfs_resumed", resumed);
    if let Err(Error::Lfs(error)) = &fetched {
        note(error, log);
    }
    Ok(Fetched { objects: wanted.len() as u64, bytes, resumed, files: fetched? })
}

/// Batches are asked for while the objects of the batch before still come.
async fn fetch_all(
    transfers: &Transfers<'_>,
    files: &[LfsFile],
    wanted: &[Wanted<'_>],
) -> Result<Vec<Placed>, Error> {
    let mut placed = Vec::with_capacity(files.len());
    let mut running: FuturesUnordered<BoxFuture<'_, Result<Vec<Placed>, Error>>> = FuturesUnordered::new();
    for batch in wanted.chunks(BATCH_OBJECTS) {
        let mut asking: BoxFuture<'_, Result<Vec<Grant>, Error>> = Box::pin(transfers.ask(batch));
        let grants = loop {
            tokio::select! {
                grants = &mut asking => break grants?,
                Some(done) = running.next() => placed.extend(done?),
            }
        };
        for grant in grants {
            while running.len() >= PARALLEL_DOWNLOADS {
                placed.extend(running.next().await.transpose()?.unwrap_or_default());
            }
            running.push(Box::pin(transfers.fetch(grant, files)));
        }
    }
    while let Some(done) = running.next().await {
        placed.extend(done?);
    }
    Ok(placed)
}

/// An object with the files that it belongs to.
struct Wanted<'a> {
    /// The first of them.
    file: &'a LfsFile,
    /// All of them, by their place in the list.
    files: Vec<usize>,
}

impl Wanted<'_> {
    fn size(&self) -> u64 {
        self.file.pointer.size
    }
}

/// Each object once, in the order of the files; all limits hold for what is returned.
fn distinct<'a>(files: &'a [LfsFile], control: &Control) -> Result<Vec<Wanted<'a>>, Error> {
    let limits = control.limits;
    let mut wanted: Vec<Wanted<'a>> = Vec::new();
    let mut places: HashMap<LfsOid, usize> = HashMap::new();
    let mut sum: u64 = 0;
    for (number, file) in files.iter().enumerate() {
        let Pointer { oid, size, has_extensions } = file.pointer;
        if has_extensions {
            return Err(failed(file, ObjectProblem::HasExtensions));
        }
        if let Some(known) = places.get(&oid).and_then(|place| wanted.get_mut(*place)) {
            if known.size() != size {
                return Err(failed(file, ObjectProblem::SizeDiffers { expected: size, named: known.size() }));
            }
            known.files.push(number);
            continue;
        }
        sum = sum.saturating_add(size);
        for (count, limit, what) in [
            (size, limits.max_blob_bytes, Limit::BlobBytes),
            (sum, limits.max_lfs_bytes, Limit::LfsBytes),
            (wanted.len() as u64 + 1, MAX_OBJECTS as u64, Limit::LfsObjects),
        ] {
            if count > limit {
                return Err(Error::TooLarge { what, limit });
            }
        }
        places.insert(oid, wanted.len());
        wanted.push(Wanted { file, files: vec![number] });
    }
    Ok(wanted)
}

/// Notes which object it is about.
fn note(error: &LfsError, log: &StageLog) {
    let object = match error {
        LfsError::Object { object, .. } | LfsError::Elsewhere { object: Some(object), .. } => object,
        _ => return,
    };
    log.fact_at(Stage::Checkout, "lfs_path", object.path.clone());
    log.fact_at(Stage::Checkout, "lfs_object", object.oid.to_string());
}

fn failed(file: &LfsFile, problem: ObjectProblem) -> Error {
    LfsError::Object { object: file.named(), problem }.into()
}

fn panicked() -> Error {
    Error::Internal { what: "a panic", class: 0, code: 0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;

    fn file(path: &str, digit: &str, size: u64) -> LfsFile {
        let oid = LfsOid::parse(&digit.repeat(64)).unwrap();
        LfsFile { path: path.into(), pointer: Pointer { oid, size, has_extensions: false } }
    }

    fn control() -> Control {
        Control::new(tokio::time::Instant::now() + Duration::from_secs(60), CancellationToken::new())
    }

    #[test]
    fn the_server_of_a_repository_is_below_its_path() {
        for (path, expected) in [
            ("/shop/web.git", "/shop/web.git/info/lfs"),
            ("/shop/web", "/shop/web.git/info/lfs"),
            ("/tfs/Coll/Shop/_git/web", "/tfs/Coll/Shop/_git/web/info/lfs"),
            ("/tfs/Coll/Shop/_GIT/web", "/tfs/Coll/Shop/_GIT/web/info/lfs"),
        ] {
            assert_eq!(endpoint(path), expected);
        }
    }

    #[tokio::test]
    async fn an_object_of_several_files_is_wanted_once() {
        let files = [file("a", "1", 5), file("b", "2", 7), file("c", "1", 5)];
        let wanted = distinct(&files, &control()).unwrap();
        let seen: Vec<_> = wanted.iter().map(|object| (object.size(), object.files.clone())).collect();
        assert_eq!(seen, [(5, vec![0, 2]), (7, vec![1])]);
        let lying = [file("a", "1", 5), file("c", "1", 6)];
        let refused = distinct(&lying, &control()).err().unwrap();
        assert!(matches!(refused, Error::Lfs(_)), "{refused:?}");
    }

    #[tokio::test]
    async fn sizes_are_added_up_before_anything_is_asked_for() {
        let files = [file("a", "1", 5), file("b", "2", u64::MAX), file("c", "3", 1)];
        let limited = |change: fn(&mut super::super::Limits)| {
            let mut control = control();
            control.limits.max_blob_bytes = u64::MAX;
            control.limits.max_lfs_bytes = u64::MAX;
            change(&mut control.limits);
            match distinct(&files, &control) {
                Err(Error::TooLarge { what, .. }) => Some(what),
                Err(other) => panic!("{other:?}"),
                Ok(_) => None,
            }
        };
        assert_eq!(limited(|_| ()), None);
        assert_eq!(limited(|limits| limits.max_blob_bytes = 6), Some(Limit::BlobBytes));
        assert_eq!(limited(|limits| limits.max_lfs_bytes = 6), Some(Limit::LfsBytes));
    }
}
