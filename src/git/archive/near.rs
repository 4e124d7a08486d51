//! Paths of a commit that are like one that it does not have.

use gix_hash::ObjectId;

use super::normal;
use super::trees::{EntryKind, Trees, entry_at};
use crate::git::Error;
use crate::git::pkt::scrubbed;

/// How alike a path must be to be offered instead of one that is not there, from 0 to 1.
const NEAR_ENOUGH: f64 = 0.75;

/// The most paths that are offered.
const MAX_NEAR: usize = 3;

/// Paths that are like one that is not there: its neighbors in the deepest directory that is.
pub(super) fn near(trees: &mut Trees, root: ObjectId, path: &str) -> Result<Vec<String>, Error> {
    let normal = normal(path);
    let mut directory = root;
    let mut above = String::new();
    let mut wanted = "";
    for name in normal.split('/') {
        wanted = name;
        match trees.find(directory, name.as_bytes())? {
            Some((EntryKind::Directory, id)) => directory = id,
            _ => break,
        }
        above.push_str(name);
        above.push('/');
    }
    let tree = trees.get(directory)?;
    let mut scored: Vec<(f64, String)> = Vec::new();
    let mut offset = 0;
    while let Some((entry, next)) = entry_at(&tree, offset)? {
        offset = next;
        let name = scrubbed(entry.name);
        let score = strsim::jaro_winkler(&wanted.to_lowercase(), &name.to_lowercase());
        if score >= NEAR_ENOUGH {
            scored.push((score, format!("{above}{name}")));
        }
    }
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    Ok(scored.into_iter().take(MAX_NEAR).map(|(_, path)| path).collect())
}
