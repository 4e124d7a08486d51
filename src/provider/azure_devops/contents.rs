//! Directories and files of a commit, by the API of git on Azure DevOps.
//!
//! The tree tells modes, which items do not. The version of the interface is that of the oldest release that is
//! supported: later ones keep it.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::answers::{Names, judge};
use super::{Place, SCOPE_CODE};
use crate::provider::ProviderError;
use crate::provider::contents::{Entry, object_name};
use crate::provider::rest::{Answer, Api};

/// The version of the interface, as it stands in a query.
const VERSION: &str = "api-version=5.0";

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
    let path = utf8_percent_encode(path, NON_ALPHANUMERIC);
    let call = format!(
        "items?path=%2F{path}&versionDescriptor.version={commit}&versionDescriptor.versionType=commit&{VERSION}"
    );
    let answer = api.get(&call_on(place, &call)).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    let item = judged(place, &answer, "an item in JSON")?;
    if item.get("gitObjectType").and_then(|kind| kind.as_str()) != Some("tree") {
        return Ok(None);
    }
    let tree = item.get("objectId").and_then(object_name);
    let tree = tree.ok_or_else(|| answer.unexpected("an item with its object"))?;
    let answer = api.get(&call_on(place, &format!("trees/{tree}?{VERSION}"))).await?;
    let json = judged(place, &answer, "a tree in JSON")?;
    let list = json.get("treeEntries").and_then(|list| list.as_array());
    let list = list.ok_or_else(|| answer.unexpected("a tree in JSON"))?;
    Entry::read_all(list, &answer, ("relativePath", "objectId")).map(Some)
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
    let call = format!("blobs/{}?%24format=octetstream&{VERSION}", entry.id);
    let answer = api.get_bytes(&call_on(place, &call), max_bytes).await?;
    match answer.status {
        200 => Ok(answer.into_body()),
        _ => Err(judged(place, &answer, "the bytes of a file")
            .err()
            .unwrap_or_else(|| answer.unexpected("a file"))),
    }
}

fn call_on(place: &Place, call: &str) -> String {
    let (project, repository) = (place.project().unwrap_or_default(), place.repository().unwrap_or_default());
    place.project_api(project, &format!("git/repositories/{repository}/{call}"))
}

fn judged(
    place: &Place,
    answer: &Answer,
    expected: &'static str,
) -> Result<serde_json::Value, ProviderError> {
    let decoded = |segment: Option<&str>| segment.map(Place::decoded).unwrap_or_default();
    let (project, repository) = (decoded(place.project()), decoded(place.repository()));
    let names = Names { project: Some(&project), repository: Some(&repository), scope: SCOPE_CODE };
    judge(answer, names, expected)
}
