//! Whether everything that came leads to things that are there: `git fetch` checks this, and libgit2 does not.
//!
//! While a pack is indexed, [`Links`] sees every object once and finds out whether any of them refers to something that
//! is neither in the pack nor was there before. Only where that is so, or could not be seen, the history is walked from
//! what was asked for, as git does it: an object that nobody asked for may refer to what it likes.

mod links;
mod walk;

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use git2::{Oid, Repository};
use gix_hash::ObjectId;

pub(super) use self::links::{Collector, Links, Verdict};
use self::links::{Reference, prefix, references};
use super::objects::Objects;
use super::target::target_error;
use super::wire::Wire;
use super::{Control, Error, PackProblem};

/// The most that is read of the list of commits whose parents did not come, in bytes.
const MAX_SHALLOW_BYTES: u64 = 64 * 1024 * 1024;

/// The packs of a repository at one time.
pub(super) struct Before {
    directory: PathBuf,
    packs: HashSet<OsString>,
}

impl Before {
    /// Takes note of the packs that are there.
    pub(super) fn note(repository: &Repository) -> Result<Self, Error> {
        let directory = repository.path().join("objects/pack");
        let packs = indexes(&directory).map_err(|error| target_error(repository.path(), error))?;
        let packs = packs.iter().filter_map(|path| Some(path.file_name()?.to_owned())).collect();
        Ok(Self { directory, packs })
    }

    /// The indexes of packs that have come since.
    fn new_indexes(&self) -> std::io::Result<Vec<PathBuf>> {
        let mut indexes = indexes(&self.directory)?;
        indexes.retain(|path| path.file_name().is_none_or(|name| !self.packs.contains(name)));
        Ok(indexes)
    }
}

/// The indexes of all packs in a directory.
pub(super) fn indexes(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut indexes = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "idx") {
            indexes.push(path);
        }
    }
    Ok(indexes)
}

/// Sees to it that what came is whole, as far as it can be reached from the tips.
pub(super) fn check(
    wire: &Wire,
    repository: &Repository,
    before: &Before,
    tips: &[Oid],
) -> Result<(), Error> {
    let verdict = wire.take_connectivity();
    let has_come = verdict.is_some();
    let limits = wire.control.limits;
    let objects = Objects::open(&repository.path().join("objects"), limits.max_blob_bytes)
        .map_err(|error| target_error(repository.path(), error))?;
    let tips: Vec<ObjectId> = tips.iter().copied().map(super::checkout::object_id).collect();
    for tip in &tips {
        wire.control.check()?;
        if !objects.contains(tip) {
            return Err(missing());
        }
    }
    let shallow = shallow(repository)?;
    if let Some(verdict) = verdict
        && !verdict.has_holes
        && are_cut_off(&verdict, &shallow, &objects, &wire.control)?
    {
        return Ok(());
    }
    let new = before.new_indexes().map_err(|error| target_error(repository.path(), error))?;
    if new.is_empty() {
        // Where nothing came, there is no verdict. A pack with holes that nobody can find is not taken.
        return if has_come { Err(missing()) } else { Ok(()) };
    }
    walk::walk(&objects, &new, tips, &shallow, &wire.control)
}

/// Lets the history end where the server's own does, beside where it was asked to: at those of these commits that came.
pub(super) fn end_at(repository: &Repository, commits: &[String]) -> Result<(), Error> {
    if commits.is_empty() {
        return Ok(());
    }
    let commits = commits.iter().filter_map(|commit| Oid::from_str(commit).ok());
    let came = commits.filter(|commit| repository.find_commit(*commit).is_ok());
    let mut ends: Vec<ObjectId> = came.map(super::checkout::object_id).collect();
    ends.extend(shallow(repository)?);
    if ends.is_empty() {
        return Ok(());
    }
    ends.sort_unstable();
    ends.dedup();
    let text: String = ends.iter().map(|end| format!("{end}\n")).collect();
    fs::write(repository.path().join("shallow"), text).map_err(|error| target_error(repository.path(), error))
}

/// Whether the parents that did not come are those of commits at which the history was to end.
fn are_cut_off(
    verdict: &Verdict,
    shallow: &HashSet<ObjectId>,
    objects: &Objects,
    control: &Control,
) -> Result<bool, Error> {
    if verdict.missing_parents.is_empty() {
        return Ok(true);
    }
    let mut cut_off = HashSet::new();
    let mut buffer = Vec::new();
    for commit in shallow {
        control.check()?;
        let Ok(Some(data)) = gix_object::Find::try_find(objects, commit, &mut buffer) else { continue };
        references(data.kind, data.data, |reference| {
            if let Reference::Parent(id) = reference {
                cut_off.insert(prefix(id));
            }
            ControlFlow::Continue(())
        });
    }
    Ok(verdict.missing_parents.iter().all(|parent| cut_off.contains(parent)))
}

/// The commits at which the history ends because it was asked to.
fn shallow(repository: &Repository) -> Result<HashSet<ObjectId>, Error> {
    let Ok(file) = fs::File::open(repository.path().join("shallow")) else { return Ok(HashSet::new()) };
    let mut text = Vec::new();
    file.take(MAX_SHALLOW_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| target_error(repository.path(), error))?;
    let lines = text.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| ObjectId::from_hex(line).ok()).collect())
}

fn missing() -> Error {
    Error::PackCorrupt(PackProblem::ObjectMissing)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use git2::{ObjectType, Signature};
    use gix_object::Find as _;
    use tokio::time::{Duration, Instant};
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// A repository whose one pack has a commit and its files, and nothing of the commit before it.
    struct Cut {
        directory: tempfile::TempDir,
        commit: Oid,
        tree: Oid,
        blob: Oid,
    }

    impl Cut {
        fn make() -> Self {
            let source = tempfile::tempdir().unwrap();
            let repository = Repository::init_bare(source.path()).unwrap();
            let commit = |content: &[u8], parents: &[&git2::Commit<'_>]| {
                let blob = repository.blob(content).unwrap();
                let mut tree = repository.treebuilder(None).unwrap();
                tree.insert("file", blob, 0o100_644).unwrap();
                // A commit of another repository, which nobody looks for.
                tree.insert("sub", Oid::from_bytes(&[7; 20]).unwrap(), 0o160_000).unwrap();
                let tree = repository.find_tree(tree.write().unwrap()).unwrap();
                let who = Signature::now("Ada", "ada@example.com").unwrap();
                (repository.commit(None, &who, &who, "x", &tree, parents).unwrap(), tree.id(), blob)
            };
            let (first, ..) = commit(b"first", &[]);
            let (commit, tree, blob) = commit(b"second", &[&repository.find_commit(first).unwrap()]);
            let directory = tempfile::tempdir().unwrap();
            let target = Repository::init_bare(directory.path()).unwrap();
            let mut pack = repository.packbuilder().unwrap();
            for oid in [commit, tree, blob] {
                pack.insert_object(oid, None).unwrap();
            }
            pack.write(&target.path().join("objects/pack"), 0).unwrap();
            assert!(target.odb().unwrap().read_header(commit).unwrap().1 == ObjectType::Commit);
            Self { directory, commit, tree, blob }
        }

        fn objects(&self) -> Objects {
            Objects::open(&self.directory.path().join("objects"), u64::MAX).unwrap()
        }

        fn walked(&self, shallow: &[Oid]) -> Result<(), Error> {
            let index = indexes(&self.directory.path().join("objects/pack")).unwrap();
            assert_eq!(index.len(), 1);
            let shallow = shallow.iter().map(|oid| object_id(*oid)).collect();
            walk::walk(&self.objects(), &index, vec![object_id(self.commit)], &shallow, &control())
        }

        /// What is seen of these objects of the pack while it is indexed.
        fn judged(&self, oids: &[Oid]) -> Verdict {
            let (objects, links, mut buffer) =
                (self.objects(), Links::new(oids.len(), None, Arc::default()), Vec::new());
            let mut ids: Vec<ObjectId> = oids.iter().map(|oid| object_id(*oid)).collect();
            ids.sort_unstable();
            let mut collector = links.collector();
            for id in &ids {
                let data = objects.try_find(id, &mut buffer).unwrap().unwrap();
                collector.object(data.kind, data.data);
            }
            links.judge(ids.iter().map(|id| &**id), None, &control()).unwrap()
        }
    }

    fn object_id(oid: Oid) -> ObjectId {
        crate::git::checkout::object_id(oid)
    }

    fn control() -> Control {
        Control::new(Instant::now() + Duration::from_secs(60), CancellationToken::new())
    }

    #[test]
    fn a_history_may_end_only_where_it_was_asked_to() {
        let cut = Cut::make();
        assert!(cut.walked(&[cut.commit]).is_ok());
        for shallow in [&[][..], &[cut.tree]] {
            let refused = cut.walked(shallow);
            assert!(matches!(refused, Err(Error::PackCorrupt(PackProblem::ObjectMissing))), "{refused:?}");
        }
        let verdict = cut.judged(&[cut.commit, cut.tree, cut.blob]);
        assert_eq!((verdict.has_holes, verdict.missing_parents.len()), (false, 1));
        let are_cut_off = |shallow: &[Oid]| {
            let shallow = shallow.iter().map(|oid| object_id(*oid)).collect();
            are_cut_off(&verdict, &shallow, &cut.objects(), &control()).unwrap()
        };
        assert!(are_cut_off(&[cut.commit]));
        assert!(!are_cut_off(&[]) && !are_cut_off(&[cut.tree]));
    }

    #[test]
    fn what_is_missing_is_seen_while_a_pack_is_indexed() {
        let cut = Cut::make();
        for left in [[cut.commit, cut.blob], [cut.commit, cut.tree]] {
            assert!(cut.judged(&left).has_holes, "{left:?}");
        }
        assert!(!cut.judged(&[cut.tree, cut.blob]).has_holes);
    }

    #[test]
    fn packs_that_cannot_be_listed_are_not_taken_for_none() {
        let cut = Cut::make();
        let repository = Repository::open_bare(cut.directory.path()).unwrap();
        let before = Before::note(&repository).unwrap();
        assert!(before.new_indexes().unwrap().is_empty());
        let packs = cut.directory.path().join("objects/pack");
        fs::remove_dir_all(&packs).unwrap();
        fs::write(&packs, "no directory").unwrap();
        assert!(before.new_indexes().is_err());
        assert!(matches!(Before::note(&repository), Err(Error::Target { .. })));
    }

    #[test]
    fn an_object_out_of_form_is_left_to_the_walk() {
        let links = Links::new(10, None, Arc::default());
        links.collector().object(gix_object::Kind::Tree, b"100644 file");
        assert!(links.judge(std::iter::empty(), None, &control()).unwrap().has_holes);
    }
}
