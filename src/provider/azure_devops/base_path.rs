//! Where the collection of a URL really is, for a server that knows none of that name.
//!
//! All of this happens after the server has accepted the credential, and below its own roots alone: a directory
//! above the collection gets the credential only where it has shown Azure DevOps' marks to nobody in particular,
//! because another application may live beside it on the same host.

use super::answers::shows_marks;
use super::{Place, names_in};
use crate::provider::ProviderError;
use crate::provider::near::near;
use crate::provider::rest::{Api, MAX_TEXTS};

/// The directory in which servers that were once Team Foundation Server keep their collections.
pub const OLD_VIRTUAL_DIRECTORY: &str = "/tfs";

/// How many collections are asked for a project.
const MAX_COLLECTIONS_ASKED: usize = 4;

/// What is wrong with the collection of a place, and what would be right as far as the server tells.
///
/// # Errors
/// What any call can fail with.
pub(super) async fn find_collection(
    api: &Api,
    anonymous: &Api,
    place: &Place,
) -> Result<ProviderError, ProviderError> {
    let (above, asked) = place.collection().rsplit_once('/').unwrap_or_default();
    let unknown = |right: Option<String>, known: Vec<String>| ProviderError::CollectionUnknown {
        asked: Place::decoded(asked),
        right,
        known,
    };
    if place.is_cloud() || asked.is_empty() {
        return Ok(unknown(None, Vec::new()));
    }
    if let Some(known) = collections(api, anonymous, above).await? {
        let right = right_below(api, place, above, asked, &known).await?;
        return Ok(unknown(right, known));
    }
    // The directory that the URL names is none, and its collections are at the root.
    let (root, directory) = above.rsplit_once('/').unwrap_or_default();
    if let Some(known) = collections(api, anonymous, root).await?.filter(|_| !directory.is_empty()) {
        let is_there = known.iter().any(|name| same(name, &Place::decoded(asked)));
        let right = is_there.then(|| place.path_below(&format!("{root}/{asked}"), None));
        return Ok(unknown(right, known));
    }
    Ok(unknown(None, Vec::new()))
}

/// The same for a place that stops short of a collection, where the server has no projects. `None` where it does
/// not: only the directory above the collections lists them.
///
/// # Errors
/// What any call can fail with.
pub(super) async fn name_collections(
    api: &Api,
    place: &Place,
) -> Result<Option<ProviderError>, ProviderError> {
    let root = place.collection();
    let Some(known) = listed(api, root).await? else { return Ok(None) };
    let below = |name: &str| format!("{root}/{}", Place::encoded(name));
    let right = match place.project() {
        // The only collection that there is can only be the one that is meant.
        None => known.as_slice().first().filter(|_| known.len() == 1).map(|only| below(only)),
        Some(project) => {
            let is_collection = known.iter().any(|name| same(name, &Place::decoded(project)));
            match is_collection {
                true => right_in_collection(api, place, &format!("{root}/{project}")).await?,
                false => right_below(api, place, root, project, &known).await?,
            }
        }
    };
    Ok(Some(ProviderError::CollectionUnknown { asked: String::new(), right, known }))
}

/// The right path for a place whose project is the collection.
async fn right_in_collection(
    api: &Api,
    place: &Place,
    collection: &str,
) -> Result<Option<String>, ProviderError> {
    match place.repository() {
        None => Ok(Some(collection.to_owned())),
        // A repository that has the name of its project is the only one that a URL names without it.
        Some(name) if has_project(api, collection, name).await? => {
            Ok(Some(format!("{collection}/{name}/_git/{name}")))
        }
        Some(_) => Ok(None),
    }
}

/// The right path where the directory is right: another collection, or one that is missing.
async fn right_below(
    api: &Api,
    place: &Place,
    above: &str,
    asked: &str,
    known: &[String],
) -> Result<Option<String>, ProviderError> {
    let asked_name = Place::decoded(asked);
    if let Some(alike) = near(&asked_name, known).first() {
        return Ok(Some(place.path_below(&format!("{above}/{}", Place::encoded(alike)), None)));
    }
    if !place.lacks_project() {
        return Ok(None);
    }
    // A project in the collection's place: the collection was left out.
    for collection in known.iter().take(MAX_COLLECTIONS_ASKED) {
        let collection = format!("{above}/{}", Place::encoded(collection));
        if has_project(api, &collection, asked).await? {
            return Ok(Some(place.path_below(&collection, Some(asked))));
        }
    }
    Ok(None)
}

/// The collections of a root; `None` where it is none or does not tell.
async fn collections(api: &Api, anonymous: &Api, root: &str) -> Result<Option<Vec<String>>, ProviderError> {
    let call = format!("{root}/_apis/projectCollections");
    if !shows_marks(&anonymous.get(&call).await?) {
        return Ok(None);
    }
    listed(api, root).await
}

/// The same for a directory that has had the credential already.
async fn listed(api: &Api, root: &str) -> Result<Option<Vec<String>>, ProviderError> {
    let call = format!("{root}/_apis/projectCollections");
    let names = names_in(&api.get(&call).await?);
    Ok(names.map(|names| names.into_iter().take(MAX_TEXTS).collect()))
}

async fn has_project(api: &Api, collection: &str, name: &str) -> Result<bool, ProviderError> {
    let answer = api.get(&format!("{collection}/_apis/projects/{name}")).await?;
    Ok(answer.status == 200 && answer.field("id").is_some())
}

fn same(left: &str, right: &str) -> bool {
    left.to_lowercase() == right.to_lowercase()
}
