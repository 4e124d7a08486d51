//! Files over the API: the directories that they are in, then each by the name of its object.

use std::collections::BTreeMap;

use reqwest::header::AUTHORIZATION;

use super::MAX_CONTENT_BYTES;
use crate::credential::{Credential, CredentialKind};
use crate::dial::{HttpClient, HttpError};
use crate::git::{self, Access, Control, FetchedFile, FetchedFiles, Found};
use crate::provider::contents::Entry;
use crate::provider::detect::{self, Known};
use crate::provider::rest::Api;
use crate::provider::{Place, Provider, ProviderError, Scope, azure_devops, gitlab};
use crate::report::StageLog;
use crate::task::Tools;
use crate::task::diagnose::Failure;
use crate::task::login;
use crate::task::remote::Reached;
use crate::task::stop::within_step;

/// The length of an object's name where it is a SHA-1, in digits.
const SHA1_DIGITS: usize = 40;

/// Why the API is of no use for these files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unusable {
    /// There is no credential for it.
    NoCredential,
    /// It refuses, or answers something else.
    Refused,
    /// It has none of the files: a project that is hidden looks like that as well.
    Nothing,
    /// What came is not what the tree names.
    Altered,
    /// The files have too many bytes, which git would not change.
    TooLarge,
}

impl Unusable {
    /// The word in the facts.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NoCredential => "no_credential",
            Self::Refused => "refused",
            Self::Nothing => "nothing",
            Self::Altered => "altered",
            Self::TooLarge => "too_large",
        }
    }
}

/// Whether there could be an API for the repository.
pub(super) fn may_answer(reached: &Reached) -> bool {
    let has_credential = reached.server.api_credential.is_some()
        || reached.credential.as_ref().is_some_and(|credential| suits(credential, reached.place.provider()));
    matches!(reached.remote.access, Access::Https { .. })
        && reached.place.provider() != Provider::Git
        && has_credential
}

/// Whether the API takes such a credential at all.
fn suits(credential: &Credential, provider: Provider) -> bool {
    let is_token = matches!(credential.kind(), CredentialKind::Pat | CredentialKind::Bearer);
    is_token && (provider != Provider::Gitlab || gitlab::git_only_kind(credential).is_none())
}

/// Reads files of the commit that was found.
pub(super) async fn read(
    reached: &Reached,
    found: &Found,
    paths: &[String],
    tools: &Tools,
    control: &Control,
    log: &StageLog,
) -> Result<Result<FetchedFiles, Unusable>, Failure> {
    let Access::Https { client, .. } = &reached.remote.access else { return Ok(Err(Unusable::NoCredential)) };
    let beside = match login::api_credential(&reached.server, tools, control).await {
        Err(stopped @ Failure::Stopped(_)) => return Err(stopped),
        loaded => loaded.ok().flatten(),
    };
    let credential = beside.as_ref().or(reached.credential.as_ref());
    let Some(credential) = credential.filter(|credential| suits(credential, reached.place.provider())) else {
        return Ok(Err(Unusable::NoCredential));
    };
    let Some(server) = Server::of(reached, client, credential, control).await? else {
        return Ok(Err(Unusable::Refused));
    };
    let mut reading =
        Reading { server, control, commit: found.commit(), calls: 0, bytes_left: MAX_CONTENT_BYTES };
    let read = reading.all(paths, found).await?;
    log.fact("source", "api");
    log.fact("calls", reading.calls);
    log.fact("bytes", MAX_CONTENT_BYTES - reading.bytes_left);
    Ok(read)
}

/// The API of one repository.
struct Server {
    api: Api,
    place: Place,
}

impl Server {
    /// `None` where there is none for this credential.
    async fn of(
        reached: &Reached,
        client: &HttpClient,
        credential: &Credential,
        control: &Control,
    ) -> Result<Option<Self>, Failure> {
        match &reached.place {
            Place::AzureDevops(_) => {
                let header = credential.git_authorization(Provider::AzureDevops.token_user());
                let api = header.map(|header| Api::with_credential(client.clone(), AUTHORIZATION, header));
                Ok(api.map(|api| Self { api, place: reached.place.clone() }))
            }
            Place::Gitlab(_) => {
                // Git does not need to know the relative root, and the API does.
                let base = reached.server.provider.map(|_| &reached.server.url);
                let url = &reached.remote.url;
                let scope = Some(Scope::Repository);
                let known = Known { url, base, provider: Some(Provider::Gitlab), scope };
                let anonymous = Api::anonymous(client.clone());
                let identified = within_step(control, detect::identify(&anonymous, known)).await;
                let place = identified.map_err(Failure::Stopped)?.ok().map(|identified| identified.place);
                let api = gitlab::api(client, credential);
                Ok(place.zip(api).map(|(place, api)| Self { api, place }))
            }
            Place::Git(_) => Ok(None),
        }
    }

    async fn directory(&self, commit: &str, path: &str) -> Result<Option<Vec<Entry>>, ProviderError> {
        match &self.place {
            Place::AzureDevops(place) => azure_devops::directory(&self.api, place, commit, path).await,
            Place::Gitlab(place) => gitlab::directory(&self.api, place, commit, path).await,
            Place::Git(_) => Ok(None),
        }
    }

    async fn blob(&self, entry: &Entry, max_bytes: usize) -> Result<Vec<u8>, ProviderError> {
        match &self.place {
            Place::AzureDevops(place) => azure_devops::blob(&self.api, place, entry, max_bytes).await,
            Place::Gitlab(place) => gitlab::blob(&self.api, place, entry, max_bytes).await,
            Place::Git(_) => Ok(Vec::new()),
        }
    }
}

/// The files of one commit while they are read.
struct Reading<'a> {
    server: Server,
    control: &'a Control,
    commit: &'a str,
    calls: u64,
    bytes_left: u64,
}

impl Reading<'_> {
    async fn all(
        &mut self,
        paths: &[String],
        found: &Found,
    ) -> Result<Result<FetchedFiles, Unusable>, Failure> {
        let mut directories: BTreeMap<&str, Vec<Entry>> = BTreeMap::new();
        let (mut files, mut missing) = (Vec::new(), Vec::new());
        for path in paths {
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            if !directories.contains_key(directory) {
                self.calls += 1;
                let listed = self.server.directory(self.commit, directory);
                match within_step(self.control, listed).await.map_err(Failure::Stopped)? {
                    Ok(entries) => directories.insert(directory, entries.unwrap_or_default()),
                    Err(_) => return Ok(Err(Unusable::Refused)),
                };
            }
            let entries = directories.get(directory).map(Vec::as_slice).unwrap_or_default();
            let Some(entry) = entries.iter().find(|entry| entry.name == name) else {
                missing.push(path.clone());
                continue;
            };
            let content = match entry.is_blob() {
                true => match self.content(entry).await? {
                    Ok(content) => Some(content),
                    Err(unusable) => return Ok(Err(unusable)),
                },
                false => None,
            };
            files.push(FetchedFile { path: path.clone(), mode: entry.mode, content });
        }
        if files.is_empty() {
            return Ok(Err(Unusable::Nothing));
        }
        let commit = self.commit.to_owned();
        Ok(Ok(FetchedFiles {
            commit,
            reference: found.name.clone(),
            source: git::Source::Origin,
            files,
            missing,
        }))
    }

    /// The bytes of a file, which are what its name says.
    async fn content(&mut self, entry: &Entry) -> Result<Result<Vec<u8>, Unusable>, Failure> {
        if entry.size.is_some_and(|size| size > self.bytes_left) {
            return Ok(Err(Unusable::TooLarge));
        }
        self.calls += 1;
        let max_bytes = usize::try_from(self.bytes_left).unwrap_or(usize::MAX);
        let read = self.server.blob(entry, max_bytes);
        let content = match within_step(self.control, read).await.map_err(Failure::Stopped)? {
            Ok(content) => content,
            Err(ProviderError::Http(HttpError::BodyTooLarge { .. })) => return Ok(Err(Unusable::TooLarge)),
            Err(_) => return Ok(Err(Unusable::Refused)),
        };
        self.control.transfer.add_bytes(content.len());
        self.bytes_left = self.bytes_left.saturating_sub(content.len() as u64);
        let is_altered =
            entry.id.len() == SHA1_DIGITS && git::blob_id(&content).as_deref() != Some(entry.id.as_str());
        Ok(if is_altered { Err(Unusable::Altered) } else { Ok(content) })
    }
}
