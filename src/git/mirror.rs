//! Mirrors: bare repositories that keep what was fetched before, one for each remote and identity.
//!
//! The server is always asked first, on a connection of whoever wants to clone: its list says whether they may read,
//! and what is there now. Only then objects are taken from a mirror. Several may look at a mirror at once; one at a
//! time adds to it, and those who wait for that find everything there. A clone gets hard links to the packs, so that
//! it is whole by itself, whatever becomes of the mirror.

mod keep;
mod repack;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use git2::{Oid, Repository, RepositoryInitOptions};

pub use keep::{MirrorInfo, MirrorPlace, Mirrors};

use super::clone::{git_error, protect};
use super::fetch::{Asked, Fetched, Source, Want};
use super::references::internal;
use super::target::{target_error, write_error};
use super::wire::Wire;
use super::{Engine, Error, packed_refs};
use keep::Lock;

/// How often a mirror may be replaced by somebody else while it is waited for.
const MAX_TURNS: usize = 5;

/// Where a mirror keeps commits that no reference of the server leads to.
const COMMITS: &str = "refs/sortie/commits/";

/// Brings everything that is wanted into `repository` by way of a mirror. `None` where a mirror is of no use: it would
/// have to fetch the whole history for a clone that wants a part of it.
pub(super) fn fetch(
    wire: &Arc<Wire>,
    want: &Want,
    engine: Engine,
    place: &MirrorPlace,
    repository: &Repository,
) -> Result<Option<Fetched>, Error> {
    for _ in 0..MAX_TURNS {
        let shared = place.lock(wire, Lock::Shared)?;
        let mirror = open(wire, place)?;
        let remote = mirror.remote_anonymous(&wire.url_for_git());
        let mut asked =
            Asked::connect(wire, want, remote.map_err(|error| internal("opening the remote", &error))?)?;
        if !keep::is_unchecked(mirror.path()) && has_all(&mirror, &asked)? {
            return take_over(wire, place, want, asked, &mirror, repository, "current").map(Some);
        }
        if !asked.is_whole() {
            return Ok(None);
        }
        drop(shared);
        let _exclusive = place.lock(wire, Lock::Exclusive)?;
        if !place.is_at(&mirror) {
            continue;
        }
        let failed = |error| target_error(place.root(), error);
        if keep::is_unchecked(mirror.path()) {
            // Whoever fetched last was killed over it. The mirror is opened anew, without what came then.
            keep::sweep(mirror.path()).map_err(failed)?;
            continue;
        }
        let refreshed = mirror.odb().and_then(|odb| odb.refresh());
        refreshed.map_err(|error| internal("reading the mirror", &error))?;
        // Whoever held the lock before may have fetched the same.
        let freshness = if has_all(&mirror, &asked)? {
            "shared"
        } else {
            place.mark_used();
            keep::sweep(mirror.path()).map_err(failed)?;
            keep::begin_unchecked(mirror.path()).map_err(failed)?;
            let fetched = asked.download(&mirror, engine);
            let fetched = fetched.and_then(|()| keep::end_unchecked(mirror.path()).map_err(failed));
            if fetched.is_err() {
                // Where this fails too, the mark stays, and nobody takes anything before it is done.
                let _ = keep::sweep(mirror.path());
            }
            fetched?;
            point(&mirror, &asked)?;
            place.evict_others();
            "fetched"
        };
        return take_over(wire, place, want, asked, &mirror, repository, freshness).map(Some);
    }
    Ok(None)
}

/// Gives the clone its own names for what the mirror has.
fn take_over(
    wire: &Wire,
    place: &MirrorPlace,
    want: &Want,
    asked: Asked<'_>,
    mirror: &Repository,
    repository: &Repository,
    freshness: &str,
) -> Result<Fetched, Error> {
    place.mark_used();
    wire.log.fact("mirror", freshness);
    link_packs(mirror.path(), repository.path()).map_err(|error| target_error(repository.path(), error))?;
    let refreshed = repository.odb().and_then(|odb| odb.refresh());
    refreshed.map_err(|error| internal("reading the objects", &error))?;
    let fetched = asked.into_fetched(Source::Mirror);
    if let Some(depth) = want.depth
        && !fetched.all_branches
    {
        let commit = super::attach::peel(repository, &fetched)?;
        cut_off(repository, commit, depth)?;
    }
    Ok(fetched)
}

/// Whether nothing that is wanted is missing. What a mirror has of a history, it has whole.
fn has_all(mirror: &Repository, asked: &Asked<'_>) -> Result<bool, Error> {
    let odb = mirror.odb().map_err(|error| internal("reading the mirror", &error))?;
    let mut wanted = asked.wanted().peekable();
    Ok(wanted.peek().is_some() && wanted.all(|(_, oid)| odb.exists(oid)))
}

/// Opens the mirror, and makes it where there is none. It comes into being by a rename.
fn open(wire: &Wire, place: &MirrorPlace) -> Result<Repository, Error> {
    let path = place.path();
    if !path.join("HEAD").is_file() {
        let failed = |error| target_error(place.root(), error);
        let growing = tempfile::Builder::new().prefix(".new-").tempdir_in(place.root()).map_err(failed)?;
        let mut options = RepositoryInitOptions::new();
        options.external_template(false).bare(true).mkdir(false).mkpath(false);
        let made = Repository::init_opts(growing.path(), &options).and_then(|repository| {
            protect(&repository)?;
            let mut config = repository.config()?;
            config.set_str("sortie.url", &wire.url.to_string())?;
            config.set_str("sortie.identity", place.identity())
        });
        made.map_err(|error| git_error(place.root(), "making a mirror", &error))?;
        // Somebody else may have been faster, whose mirror is as good.
        match fs::rename(growing.path(), &path) {
            Err(error)
                if !matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) =>
            {
                return Err(failed(error));
            }
            _ => {}
        }
    }
    place.note_use();
    Repository::open_bare(&path).map_err(|error| internal("opening the mirror", &error))
}

/// Keeps the names under which the objects came, so that the next fetch tells the server what is here; names that the
/// server has no more go, because they would be told in vain.
fn point(mirror: &Repository, asked: &Asked<'_>) -> Result<(), Error> {
    let failed = |error| internal("reading the mirror's references", &error);
    let listed: HashSet<&str> =
        asked.list().references.iter().map(|reference| reference.name.as_str()).collect();
    let mut names: HashMap<String, Oid> = HashMap::new();
    for kept in mirror.references().map_err(failed)?.filter_map(Result::ok) {
        if let (Ok(name), Some(oid)) = (kept.name(), kept.target())
            && (name.starts_with(COMMITS) || listed.contains(name))
        {
            names.insert(name.to_owned(), oid);
        }
    }
    for (name, oid) in asked.wanted() {
        let name = if name.is_empty() { format!("{COMMITS}{oid}") } else { name.to_owned() };
        names.insert(name, oid);
    }
    let written = packed_refs::write(mirror, names.iter().map(|(name, oid)| (name.as_str(), *oid)));
    written.map_err(|error| target_error(mirror.path(), error))
}

/// Links every pack of one repository into another one; where they are on different file systems, copies it.
fn link_packs(from: &Path, to: &Path) -> std::io::Result<()> {
    let (from, to) = (from.join("objects/pack"), to.join("objects/pack"));
    let mut packs = Vec::new();
    for entry in fs::read_dir(&from)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            packs.push(path);
        }
    }
    for index in packs {
        // The index comes last: it is what is looked for.
        for path in [index.with_extension("pack"), index] {
            let target = to.join(path.file_name().unwrap_or_default());
            match fs::hard_link(&path, &target) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(_) => fs::copy(&path, &target).map(drop)?,
            }
        }
    }
    Ok(())
}

/// Ends the history after so many commits, as a shallow clone does that never had more.
fn cut_off(repository: &Repository, commit: Oid, depth: u32) -> Result<(), Error> {
    let failed = |error| internal("walking the history", &error);
    let mut ends = Vec::new();
    let mut seen = HashSet::from([commit]);
    let mut level = vec![commit];
    for step in 1..=depth {
        let mut next = Vec::new();
        for oid in std::mem::take(&mut level) {
            let found = repository.find_commit(oid).map_err(failed)?;
            if step == depth && found.parent_count() > 0 {
                ends.push(oid);
            } else if step < depth {
                next.extend(found.parent_ids().filter(|parent| seen.insert(*parent)));
            }
        }
        if next.is_empty() && step < depth {
            break;
        }
        level = next;
    }
    if ends.is_empty() {
        return Ok(());
    }
    ends.sort_unstable();
    let text: String = ends.iter().map(|oid| format!("{oid}\n")).collect();
    fs::write(repository.path().join("shallow"), text).map_err(|_| write_error(repository.path()))
}
