//! Directories and files of a commit, by the API of GitLab's repositories.
//!
//! The list of a tree tells symbolic links and executables from other files, which the call for a file by its path
//! does not; and a blob is asked for by its name, so that no path of a file has to get through a proxy.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Place;
use super::answers::judge;
use crate::provider::ProviderError;
use crate::provider::contents::Entry;
use crate::provider::rest::Api;

/// Entries a page, at the most that the server gives.
const PER_PAGE: usize = 100;

/// How many pages of one directory are read.
const MAX_PAGES: usize = 10;

/// The entries of a directory of a commit, by its path from the root, which itself is the empty path; `None` where
/// there is none.
///
/// # Errors
/// [`ProviderError::Forbidden`] and what any call can fail with.
pub async fn directory(
    api: &Api,
    place: &Place,
    commit: &str,
    path: &str,
) -> Result<Option<Vec<Entry>>, ProviderError> {
    let project = place.encoded_path();
    let path = utf8_percent_encode(path, NON_ALPHANUMERIC);
    let mut entries = Vec::new();
    for page in 1..=MAX_PAGES {
        let call = format!(
            "projects/{project}/repository/tree?ref={commit}&path={path}&per_page={PER_PAGE}&page={page}"
        );
        let answer = api.get(&place.api(&call)).await?;
        if answer.status == 404 {
            return Ok(None);
        }
        let json = judge(&answer, "a tree in JSON")?;
        let list = json.as_array().ok_or_else(|| answer.unexpected("a tree in JSON"))?;
        entries.extend(Entry::read_all(list, &answer, ("name", "id"))?);
        if list.len() < PER_PAGE {
            return Ok(Some(entries));
        }
        if page == MAX_PAGES {
            return Err(answer.unexpected("a shorter directory"));
        }
    }
    Ok(Some(entries))
}

/// The bytes of a file or of a symbolic link, of which there may be so many.
///
/// # Errors
/// As [`directory`]; a longer file is [`crate::dial::HttpError::BodyTooLarge`].
pub async fn blob(
    api: &Api,
    place: &Place,
    entry: &Entry,
    max_bytes: usize,
) -> Result<Vec<u8>, ProviderError> {
    let call = format!("projects/{}/repository/blobs/{}/raw", place.encoded_path(), entry.id);
    let answer = api.get_bytes(&place.api(&call), max_bytes).await?;
    match answer.status {
        200 => Ok(answer.into_body()),
        _ => Err(judge(&answer, "the bytes of a file").err().unwrap_or_else(|| answer.unexpected("a file"))),
    }
}
