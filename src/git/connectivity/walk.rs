//! Walks from the tips through everything that has come, as `git rev-list --objects` does.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use gix_hash::{Kind as HashKind, ObjectId, oid};
use gix_object::{Find as _, Kind};

use super::links::{CHECK_EVERY, Reference, references};
use super::missing;
use crate::git::objects::Objects;
use crate::git::{Control, Error, PackProblem};

/// A pack that has come, with a mark for each object that was seen.
struct New {
    index: gix_pack::index::File,
    seen: Vec<bool>,
}

/// How an object stands to what has come.
enum Met {
    /// It came, and is met for the first time.
    New,
    /// It was seen, or was there before.
    Old,
    /// Nobody has it.
    Missing,
}

struct Walk<'a> {
    objects: &'a Objects,
    new: Vec<New>,
    waiting: Vec<ObjectId>,
}

/// Goes through what has come, as far as it can be reached. What was there before is whole and is not looked into.
///
/// It holds a mark for each object of the new packs, and the names of those that wait.
pub(super) fn walk(
    objects: &Objects,
    new: &[PathBuf],
    tips: Vec<ObjectId>,
    shallow: &HashSet<ObjectId>,
    control: &Control,
) -> Result<(), Error> {
    let mut packs = Vec::with_capacity(new.len());
    for path in new {
        let index = gix_pack::index::File::at(path, HashKind::Sha1).map_err(|_| damaged())?;
        let seen = vec![false; index.num_objects() as usize];
        packs.push(New { index, seen });
    }
    let mut walk = Walk { objects, new: packs, waiting: Vec::new() };
    for tip in tips {
        walk.meet(&tip)?;
    }
    let mut buffer = Vec::new();
    while let Some(id) = walk.waiting.pop() {
        control.check()?;
        let header = gix_object::FindHeader::try_header(objects, &id).map_err(|_| damaged())?;
        if header.ok_or_else(missing)?.kind == Kind::Blob {
            continue;
        }
        let found = objects.try_find(&id, &mut buffer).map_err(|_| damaged())?.ok_or_else(missing)?;
        let (mut met, mut asked) = (Ok(()), 0usize);
        let is_cut_off = shallow.contains(&id);
        let is_whole = references(found.kind, found.data, |reference| {
            let id = match reference {
                Reference::Parent(_) if is_cut_off => return ControlFlow::Continue(()),
                Reference::Parent(id) | Reference::Other(id) => id,
            };
            asked += 1;
            let checked = if asked % CHECK_EVERY == 0 { control.check() } else { Ok(()) };
            met = checked.and_then(|()| walk.meet(id));
            if met.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        met?;
        if !is_whole {
            return Err(damaged());
        }
    }
    Ok(())
}

impl Walk<'_> {
    fn meet(&mut self, id: &oid) -> Result<(), Error> {
        match self.how(id) {
            Met::New => self.waiting.push(id.to_owned()),
            Met::Old => {}
            Met::Missing => return Err(missing()),
        }
        Ok(())
    }

    fn how(&mut self, id: &oid) -> Met {
        for pack in &mut self.new {
            let found = pack.index.lookup(id).and_then(|position| pack.seen.get_mut(position as usize));
            if let Some(seen) = found {
                return if std::mem::replace(seen, true) { Met::Old } else { Met::New };
            }
        }
        if self.objects.contains(id) { Met::Old } else { Met::Missing }
    }
}

fn damaged() -> Error {
    Error::PackCorrupt(PackProblem::Damaged)
}
