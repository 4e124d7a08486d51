//! The basic transfer: one object after the other by GET, hashed on its way, gone on with where it was cut.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tokio_util::task::TaskTracker;

use super::batch::{self, Grant, Patience, Trouble, at_server, elsewhere, message, passing_or_fatal};
use super::store::{Part, Placed, Store};
use super::{LfsFile, LfsRemote, ObjectProblem, Wanted, failed, panicked};
use crate::dial::HttpError;
use crate::git::http::retry_after;
use crate::git::{Control, Error};

/// How much is written at once, in bytes.
const PIECE_BYTES: usize = 1024 * 1024;

/// How much must have come for the tries to be counted anew, in bytes. A large object may be cut often.
const PROGRESS_BYTES: u64 = 1024 * 1024;

/// How many redirects at the declared server are followed for one download.
const MAX_REDIRECTS: u32 = 3;

/// What all downloads have in common.
pub(super) struct Transfers<'a> {
    remote: &'a LfsRemote,
    reference: Option<&'a str>,
    store: Arc<Store>,
    control: &'a Control,
    tracker: &'a TaskTracker,
    resumed: AtomicU64,
}

impl<'a> Transfers<'a> {
    pub(super) fn new(
        remote: &'a LfsRemote,
        reference: Option<&'a str>,
        store: Arc<Store>,
        control: &'a Control,
        tracker: &'a TaskTracker,
    ) -> Self {
        Self { remote, reference, store, control, tracker, resumed: AtomicU64::new(0) }
    }

    /// How many downloads went on after a cut.
    pub(super) fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// The ways to some objects.
    pub(super) async fn ask(&self, wanted: &[Wanted<'_>]) -> Result<Vec<Grant>, Error> {
        batch::ask(self.remote, wanted, self.reference).await
    }

    /// Fetches one object and puts its files in their places.
    pub(super) async fn fetch(&self, mut grant: Grant, files: &[LfsFile]) -> Result<Vec<Placed>, Error> {
        let Some(file) = grant.files.first().and_then(|first| files.get(*first)) else {
            return Ok(Vec::new());
        };
        let oid = file.pointer.oid;
        let store = Arc::clone(&self.store);
        let part = Arc::new(Mutex::new(self.blocking(move || store.begin(oid)).await?));
        let mut download = Download { transfers: self, file, part, patience: Patience::default() };
        let mut mark = 0;
        loop {
            if grant.is_expired() {
                let again = [Wanted { file, files: grant.files.clone() }];
                grant = self.ask(&again).await?.into_iter().next().unwrap_or(grant);
            }
            let Err(trouble) = download.run(&grant).await else { break };
            let received = download.received();
            if received >= mark + PROGRESS_BYTES {
                mark = received;
                download.patience.renew();
            }
            download.patience.after(trouble).await?;
        }
        let (store, part, control) = (Arc::clone(&self.store), download.part, self.control.clone());
        let places: Vec<(usize, LfsFile)> =
            grant.files.iter().filter_map(|number| Some((*number, files.get(*number)?.clone()))).collect();
        let file = file.clone();
        self.blocking(move || {
            {
                let part = part.lock().unwrap_or_else(PoisonError::into_inner);
                match part.name() {
                    Some(found) if found == oid => store.keep(&part, oid)?,
                    Some(found) => return Err(failed(&file, ObjectProblem::WrongContent { found })),
                    None => return Err(panicked()),
                }
            }
            places.iter().map(|(number, file)| store.place(file, *number, &control)).collect()
        })
        .await
    }

    /// Runs work on another thread, which [`super::fetch`] waits for whatever becomes of the future.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.tracker.spawn_blocking(work).await.unwrap_or_else(|_| Err(panicked()))
    }
}

/// One object on its way.
struct Download<'a> {
    transfers: &'a Transfers<'a>,
    file: &'a LfsFile,
    part: Arc<Mutex<Part>>,
    patience: Patience,
}

impl Download<'_> {
    fn size(&self) -> u64 {
        self.file.pointer.size
    }

    fn received(&self) -> u64 {
        self.part.lock().unwrap_or_else(PoisonError::into_inner).received()
    }

    fn failed(&self, problem: ObjectProblem) -> Error {
        failed(self.file, problem)
    }

    /// One try: asks for what is missing and writes what comes.
    async fn run(&self, grant: &Grant) -> Result<(), Trouble> {
        let received = self.received();
        if received == self.size() && received > 0 {
            return Ok(());
        }
        let mut headers = grant.headers.clone();
        if received > 0 {
            let range = HeaderValue::from_str(&format!("bytes={received}-"));
            headers.insert(header::RANGE, range.map_err(|_| Error::Http(HttpError::BadRequest))?);
        }
        let response = self.send(&grant.path, &headers).await?;
        match response.status() {
            StatusCode::OK if received > 0 => self.restart().await?,
            StatusCode::OK => {}
            StatusCode::PARTIAL_CONTENT if received > 0 => {
                self.check_range(&response, received)?;
                self.transfers.resumed.fetch_add(1, Ordering::Relaxed);
            }
            StatusCode::RANGE_NOT_SATISFIABLE if received > 0 => {
                self.restart().await?;
                let size = self.size();
                let short = self.failed(ObjectProblem::TooShort { received, size });
                return Err(Trouble::Passing(short, None));
            }
            _ => return Err(self.refusal(response).await),
        }
        self.receive(response).await
    }

    /// The answer to a GET, after redirects at the declared server.
    async fn send(&self, path: &str, headers: &HeaderMap) -> Result<Response, Trouble> {
        let LfsRemote { client, .. } = self.transfers.remote;
        let mut path = path.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let request = client.request(Method::GET, &path).headers(headers.clone());
            let response = client.send(request).await.map_err(|error| self.interrupted(error))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            path = at_server(self.transfers.remote, Some(&path), location.unwrap_or_default())
                .map_err(|host| elsewhere(host, self.file.named()))?;
        }
        let problem = ObjectProblem::Answer { status: 302, message: String::new() };
        Err(self.failed(problem).into())
    }

    /// What a status means that brings nothing of the object.
    async fn refusal(&self, response: Response) -> Trouble {
        let (status, asked) = (response.status().as_u16(), retry_after(response.headers()));
        let message = message(response).await;
        match status {
            429 => Trouble::Passing(Error::RateLimited { retry_after: asked }, asked),
            500 | 502 | 503 | 504 => {
                Trouble::Passing(self.failed(ObjectProblem::Answer { status, message }), asked)
            }
            _ => self.failed(ObjectProblem::Answer { status, message }).into(),
        }
    }

    /// The rest must be the one that was asked for: `bytes {received}-{end}/{size}`.
    fn check_range(&self, response: &Response, received: u64) -> Result<(), Trouble> {
        let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let range =
            range.and_then(|range| range.strip_prefix("bytes ")).and_then(|range| range.split_once('/'));
        let is_right = range.is_some_and(|(part, size)| {
            let start = part.split_once('-').and_then(|(start, _)| start.parse().ok());
            start == Some(received) && (size == "*" || size.parse() == Ok(self.size()))
        });
        if is_right { Ok(()) } else { Err(self.failed(ObjectProblem::WrongRange).into()) }
    }

    /// Writes the body piece by piece. One that does not end is left as soon as it is too long.
    async fn receive(&self, mut response: Response) -> Result<(), Trouble> {
        let mut left = self.size().saturating_sub(self.received());
        let mut piece: Vec<u8> = Vec::new();
        let broke = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let count = chunk.len() as u64;
                    left = left
                        .checked_sub(count)
                        .ok_or_else(|| self.failed(ObjectProblem::TooLong { size: self.size() }))?;
                    piece.extend_from_slice(&chunk);
                    if piece.len() >= PIECE_BYTES {
                        piece = self.append(piece).await?;
                    }
                }
                Ok(None) => break None,
                Err(error) => break Some(HttpError::from(error)),
            }
        };
        // What has come counts, so that the next try goes on behind it.
        if !piece.is_empty() {
            self.append(piece).await?;
        }
        let (received, size) = (self.received(), self.size());
        match broke {
            Some(error) => Err(self.interrupted(error)),
            None if received < size => {
                Err(Trouble::Passing(self.failed(ObjectProblem::TooShort { received, size }), None))
            }
            None => Ok(()),
        }
    }

    /// Writes a piece and gives its memory back.
    async fn append(&self, mut piece: Vec<u8>) -> Result<Vec<u8>, Error> {
        let (store, part) = (Arc::clone(&self.transfers.store), Arc::clone(&self.part));
        self.transfers.control.transfer.add_lfs_bytes(piece.len() as u64);
        self.transfers
            .blocking(move || {
                store.append(&mut part.lock().unwrap_or_else(PoisonError::into_inner), &piece)?;
                piece.clear();
                Ok(piece)
            })
            .await
    }

    async fn restart(&self) -> Result<(), Error> {
        let (store, part) = (Arc::clone(&self.transfers.store), Arc::clone(&self.part));
        self.transfers
            .blocking(move || store.restart(&mut part.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
    }

    fn interrupted(&self, error: HttpError) -> Trouble {
        match passing_or_fatal(error) {
            Trouble::Passing(Error::Http(cause), asked) => {
                let (tries, received, size) = (self.patience.running(), self.received(), self.size());
                let problem = ObjectProblem::Interrupted { tries, received, size, cause };
                Trouble::Passing(self.failed(problem), asked)
            }
            trouble => trouble,
        }
    }
}
