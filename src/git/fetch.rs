//! From a connection to the objects of a commit in a repository: what is asked for is found in the server's list,
//! and what is missing is fetched, by way of a mirror where there is one.

use std::path::Path;
use std::sync::Arc;

use git2::{
    AutotagOption, Direction, ErrorClass, ErrorCode, FetchOptions, Oid, Progress, Remote as Git2Remote,
};
use git2::{RemoteCallbacks, Repository};

use super::connectivity::{self, Before};
use super::foreign::take_packs;
use super::mirror::{self, MirrorPlace};
use super::pkt::scrubbed;
use super::references::{advertised, connect_error, internal};
use super::refname::{self, Selected};
use super::target::{unless_disk_is_full, write_error};
use super::wire::Wire;
use super::{Advertisement, Engine, Error, Limit, PackProblem, Phase};
use crate::report::Stage;

/// The name of the remote in a clone.
pub(super) const REMOTE: &str = "origin";

/// What to fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Want {
    /// A branch, a tag, a full name of a reference, a full or a short commit; `None` is what the server's `HEAD` is.
    pub reference: Option<String>,
    /// How many commits of its history, from 1; `None` is all.
    pub depth: Option<u32>,
    /// All branches beside it.
    pub all_branches: bool,
    /// All tags beside it.
    pub tags: bool,
}

/// Where the objects of a clone came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The server alone.
    Origin,
    /// A mirror, brought up to date from the server.
    Mirror,
}

/// How it is fetched.
#[derive(Debug, Clone, Default)]
pub struct Means {
    /// What indexes packs and writes files.
    pub engine: Engine,
    /// Where mirrors are, and for whom; `None` goes to the server alone.
    pub mirror: Option<MirrorPlace>,
}

/// What came.
pub(super) struct Fetched {
    pub(super) selected: Selected,
    pub(super) list: Advertisement,
    /// Whether all branches came, because that was asked for or the server does not give out a commit alone.
    pub(super) all_branches: bool,
    /// Whether all tags came.
    pub(super) tags: bool,
    /// Where the objects came from.
    pub(super) source: Source,
}

/// Brings everything that is wanted into a repository that was made for it.
pub(super) fn fetch(
    wire: &Arc<Wire>,
    want: &Want,
    means: &Means,
    repository: &Repository,
) -> Result<Fetched, Error> {
    if let Some(place) = &means.mirror
        && (want.depth.is_none() || place.exists())
        && let Some(fetched) = mirror::fetch(wire, want, means.engine, place, repository)?
    {
        return Ok(fetched);
    }
    let remote = repository.find_remote(REMOTE).map_err(|error| internal("opening the remote", &error))?;
    let mut asked = Asked::connect(wire, want, remote)?;
    asked.download(repository, means.engine)?;
    Ok(asked.into_fetched(Source::Origin))
}

/// An open connection on which the server has listed what it has, and what of it is wanted.
pub(super) struct Asked<'a> {
    wire: &'a Arc<Wire>,
    remote: Git2Remote<'a>,
    list: Advertisement,
    selected: Selected,
    refspecs: Vec<String>,
    depth: Option<u32>,
    all_branches: bool,
    tags: bool,
}

impl<'a> Asked<'a> {
    /// Connects, which is where the server says whether whoever asks may read, and selects.
    pub(super) fn connect(
        wire: &'a Arc<Wire>,
        want: &Want,
        mut remote: Git2Remote<'a>,
    ) -> Result<Self, Error> {
        wire.expect_list();
        let connected = remote.connect(Direction::Fetch);
        connected.map_err(|error| connect_error(wire, &error))?;
        let list = advertised(wire);
        let selected = select(want.reference.as_deref(), &list)?;
        let mut asked = Self {
            wire,
            remote,
            list,
            selected,
            refspecs: Vec::new(),
            depth: want.depth,
            all_branches: want.all_branches,
            tags: want.tags,
        };
        asked.plan();
        Ok(asked)
    }

    /// The refspecs: never more than is asked for, unless the server cannot give out a commit by its identifier.
    fn plan(&mut self) {
        let single = match &self.selected {
            Selected::Branch { name, .. } | Selected::Detached { name, .. } => {
                Some(format!("+{name}:{name}"))
            }
            Selected::Commit(oid) => {
                let oid = oid.to_string();
                let tip = self.list.references.iter().find(|reference| reference.oid == oid);
                let by_name = tip.map(|tip| format!("+{0}:{0}", tip.name));
                let is_given_out = self.wire.observer().has_capability("allow-reachable-sha1-in-want")
                    || self.wire.observer().has_capability("allow-any-sha1-in-want");
                by_name.or_else(|| is_given_out.then(|| format!("+{oid}:refs/commit")))
            }
            Selected::Prefix(_) => None,
        };
        match single {
            Some(single) => self.refspecs.push(single),
            // The commit may lie deep and on any branch, so their history comes whole.
            None => (self.depth, self.all_branches, self.tags) = (None, true, true),
        }
        if self.all_branches {
            self.refspecs.push("+refs/heads/*:refs/heads/*".to_owned());
        }
        if self.tags {
            self.refspecs.push("+refs/tags/*:refs/tags/*".to_owned());
        }
    }

    /// Whether the history comes whole, so that it can be kept for others. A server may have a part of it itself.
    pub(super) fn is_whole(&self) -> bool {
        self.depth.is_none() && self.list.shallow.is_empty()
    }

    /// The names and objects that are wanted, as the server lists them; a bare commit has no name. libgit2 asks for
    /// nothing under a name that no reference may have, and says nothing of it.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (&str, Oid)> {
        let by_list = self.list.references.iter().filter(|reference| {
            let is_selected = match &self.selected {
                Selected::Branch { name, .. } | Selected::Detached { name, .. } => *name == reference.name,
                Selected::Commit(oid) => reference.oid == oid.to_string(),
                Selected::Prefix(_) => false,
            };
            let is_wanted = is_selected
                || (self.all_branches && reference.name.starts_with("refs/heads/"))
                || (self.tags && reference.name.starts_with("refs/tags/"));
            is_wanted && git2::Reference::is_valid_name(&reference.name)
        });
        let by_list =
            by_list.filter_map(|found| Some((found.name.as_str(), Oid::from_str(&found.oid).ok()?)));
        let alone = match &self.selected {
            Selected::Commit(oid) => Some(("", *oid)),
            Selected::Detached { name, oid } if name == "HEAD" => Some(("", *oid)),
            _ => None,
        };
        by_list.chain(alone)
    }

    /// What is wanted, as far as it is there. A commit that is asked for by its identifier alone may not exist.
    fn tips(&self, repository: &Repository) -> Vec<Oid> {
        let alone = match &self.selected {
            Selected::Commit(oid) if !repository.odb().is_ok_and(|odb| odb.exists(*oid)) => Some(*oid),
            _ => None,
        };
        self.wanted().map(|(_, oid)| oid).filter(|oid| Some(*oid) != alone).collect()
    }

    /// What the server listed.
    pub(super) fn list(&self) -> &Advertisement {
        &self.list
    }

    /// Negotiates and receives, into the repository that the remote belongs to. Where it fails, packs may be left there
    /// of which nobody knows whether they are whole.
    pub(super) fn download(&mut self, repository: &Repository, engine: Engine) -> Result<(), Error> {
        let wire = self.wire;
        let directory = repository.path();
        let before = Before::note(repository)?;
        // What is known of a pack before this one says nothing of this one.
        drop(wire.take_connectivity());
        if engine == Engine::Gix {
            let odb = repository.odb().map_err(|error| internal("opening the objects", &error))?;
            take_packs(&odb, directory.join("objects/pack"))
                .map_err(|error| internal("taking packs", &error))?;
        }
        wire.log.begin(Stage::Negotiate);
        wire.observer().expect_pack(wire.control.limits.max_objects);
        let mut options = FetchOptions::new();
        options.remote_callbacks(callbacks(wire, engine));
        options.download_tags(AutotagOption::None).update_fetchhead(false);
        if let Some(depth) = self.depth {
            options.depth(i32::try_from(depth).unwrap_or(i32::MAX));
        }
        let downloaded = self.remote.download(&self.refspecs, Some(&mut options));
        drop(options);
        downloaded.map_err(|error| download_error(wire, directory, &self.selected, &error))?;
        // The pack is there behind libgit2's back.
        let refreshed = repository.odb().and_then(|odb| odb.refresh());
        refreshed.map_err(|error| internal("reading the objects", &error))?;
        connectivity::end_at(repository, &self.list.shallow)?;
        connectivity::check(wire, repository, &before, &self.tips(repository))?;
        let transfer = &wire.control.transfer;
        wire.log.fact_at(Stage::Receive, "bytes", transfer.received_bytes());
        wire.log.fact_at(Stage::Receive, "objects", transfer.received_objects());
        Ok(())
    }

    pub(super) fn into_fetched(self, source: Source) -> Fetched {
        let Self { selected, list, all_branches, tags, .. } = self;
        Fetched { selected, list, all_branches, tags, source }
    }
}

fn select(reference: Option<&str>, list: &Advertisement) -> Result<Selected, Error> {
    if list.is_empty() {
        return Err(Error::Empty);
    }
    let wanted = reference.filter(|name| *name != "HEAD");
    let by_head = || list.head_branch.as_deref().and_then(|branch| refname::select(branch, &list.references));
    let selected = match wanted {
        Some(name) => refname::select(name, &list.references),
        None => by_head().or_else(|| {
            let oid = Oid::from_str(list.head.as_deref()?).ok()?;
            Some(Selected::Detached { name: "HEAD".to_owned(), oid })
        }),
    };
    selected.ok_or_else(|| match wanted {
        Some(name) => {
            Error::ReferenceNotFound { name: name.to_owned(), near: refname::near(name, &list.references) }
        }
        None => Error::DefaultBranchMissing {
            branch: list.head_branch.clone(),
            branches: refname::likely_branches(&list.references),
        },
    })
}

fn callbacks<'a>(wire: &Arc<Wire>, engine: Engine) -> RemoteCallbacks<'a> {
    let mut callbacks = RemoteCallbacks::new();
    let log = wire.log.clone();
    callbacks.sideband_progress(move |bytes| {
        if let Some(line) = last_line(bytes) {
            log.hear(line);
        }
        true
    });
    if engine == Engine::Libgit2 {
        let wire = Arc::clone(wire);
        callbacks.transfer_progress(move |progress| match follow(&wire, &progress) {
            Ok(()) => true,
            Err(error) => {
                // libgit2 stops at `false`; why is recorded.
                let _ = wire.fail(error);
                false
            }
        });
    }
    callbacks
}

/// The last line of what a server says while it works: servers write the same line over and over.
fn last_line(bytes: &[u8]) -> Option<String> {
    let lines = bytes.rsplit(|byte| matches!(byte, b'\r' | b'\n'));
    lines.map(scrubbed).find(|line| !line.is_empty())
}

/// Follows libgit2 through the pack: counters, stages, limits, and whether to go on.
fn follow(wire: &Wire, progress: &Progress<'_>) -> Result<(), Error> {
    wire.control.check()?;
    let (received, total) = (progress.received_objects(), progress.total_objects());
    let transfer = &wire.control.transfer;
    transfer.set_objects(received, total);
    if total as u64 > wire.control.limits.max_objects {
        return Err(Error::TooLarge { what: Limit::Objects, limit: wire.control.limits.max_objects });
    }
    let phase = if total > 0 && received == total { Phase::Indexing } else { Phase::Receiving };
    if transfer.phase() != phase {
        if transfer.phase() == Phase::Connecting {
            wire.log.begin(Stage::Receive);
        }
        if phase == Phase::Indexing {
            wire.log.begin(Stage::Index);
            wire.log.fact("objects", total);
        }
        transfer.set_phase(phase);
    }
    Ok(())
}

/// What it means that libgit2 could not fetch, where no transport recorded why.
fn download_error(wire: &Wire, directory: &Path, selected: &Selected, error: &git2::Error) -> Error {
    if let Some(message) = wire.observer().error() {
        if let Selected::Commit(oid) = selected {
            return Error::ReferenceNotFound { name: oid.to_string(), near: Vec::new() };
        }
        // Whoever was given the list may read the repository.
        return Error::GaveUp { message: message.to_owned() };
    }
    match error.class() {
        ErrorClass::Os | ErrorClass::Filesystem => write_error(directory),
        ErrorClass::Net if error.code() == ErrorCode::Eof => Error::PackCorrupt(PackProblem::Truncated),
        ErrorClass::Net if wire.control.transfer.total_objects() > 0 => {
            Error::PackCorrupt(PackProblem::Truncated)
        }
        ErrorClass::Net => Error::Protocol { first_bytes: String::new() },
        ErrorClass::Indexer | ErrorClass::Odb | ErrorClass::Zlib | ErrorClass::Object | ErrorClass::Sha1 => {
            Error::PackCorrupt(PackProblem::Damaged)
        }
        _ => unless_disk_is_full(directory, internal("fetching", error)),
    }
}
