//! What objects refer to, collected by many threads in bounded memory.
//!
//! An object is known by the first eight bytes of its name here. Two that begin alike could hide a hole, which a walk
//! or whoever needs the object would find later; they cannot make one up.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use gix_hash::{Kind as HashKind, ObjectId, Prefix, oid};
use gix_object::Kind;

use crate::git::objects::Objects;
use crate::git::{Control, Error};

/// How many parts a set has, each with a lock of its own: as many as the first bits of a name tell apart.
const SHARD_BITS: u32 = 6;

/// How many of the references that were seen last each thread remembers. Trees that follow each other are alike.
const RECENT: usize = 32 * 1024;

/// How many hex digits of a name are known.
const PREFIX_DIGITS: usize = 16;

/// The bits of a mode that say what it is, and what they are for a commit of another repository.
const KIND_OF_MODE: u32 = 0o170_000;
const SUBMODULE: u32 = 0o160_000;

/// How often it is looked whether to go on.
pub(super) const CHECK_EVERY: usize = 1024;

/// Spreads names, which are whole numbers already, by secret numbers: whoever sends a tree chooses the names in it, and
/// must not know which of them meet in a table.
#[derive(Clone)]
struct Spread {
    start: u64,
    factors: [u64; 2],
}

impl Spread {
    fn new() -> Self {
        let secret = || RandomState::new().build_hasher().finish();
        // An odd factor loses nothing.
        Self { start: secret(), factors: [secret() | 1, secret() | 1] }
    }
}

impl BuildHasher for Spread {
    type Hasher = Spreading;

    fn build_hasher(&self) -> Spreading {
        Spreading { spread: self.clone(), hash: 0 }
    }
}

/// One name that is being spread.
struct Spreading {
    spread: Spread,
    hash: u64,
}

impl Hasher for Spreading {
    fn finish(&self) -> u64 {
        self.hash
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        let start = self.hash ^ value ^ self.spread.start;
        // One round leaves names in even steps in even steps.
        self.hash = self.spread.factors.iter().fold(start, |hash, factor| {
            let mixed = u128::from(hash) * u128::from(*factor);
            let [low, high] = [mixed, mixed >> u64::BITS].map(|half| (half & u128::from(u64::MAX)) as u64);
            low ^ high
        });
    }
}

/// A set of names, of so many at the most.
struct Names {
    shards: Vec<Mutex<HashSet<u64, Spread>>>,
    count: AtomicUsize,
}

impl Names {
    fn new() -> Self {
        let spread = Spread::new();
        let shards = (0..1 << SHARD_BITS).map(|_| Mutex::new(HashSet::with_hasher(spread.clone())));
        let shards = shards.collect();
        Self { shards, count: AtomicUsize::new(0) }
    }

    /// Adds a name. Returns how many there are.
    fn add(&self, name: u64) -> usize {
        let shard = usize::try_from(name >> (u64::BITS - SHARD_BITS)).unwrap_or(0);
        let is_new = self
            .shards
            .get(shard)
            .is_some_and(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).insert(name));
        self.count.fetch_add(usize::from(is_new), Ordering::Relaxed) + usize::from(is_new)
    }

    /// The names that are not among the sorted ones.
    fn without<'a>(&self, sorted: impl Iterator<Item = &'a oid>) -> Vec<u64> {
        let mut sorted = sorted.map(prefix).peekable();
        let mut missing = Vec::new();
        // The parts are in the order of what they hold.
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let mut names: Vec<u64> = shard.drain().collect();
            shard.shrink_to_fit();
            drop(shard);
            names.sort_unstable();
            for name in names {
                while sorted.next_if(|there| *there < name).is_some() {}
                if sorted.peek() != Some(&name) {
                    missing.push(name);
                }
            }
        }
        missing
    }
}

/// What the objects of a pack refer to.
///
/// It holds the beginnings of the names: nine bytes for each object that is referred to, up to twice that as a set grows.
/// There are never more of them than objects that can be meant; from then on there is a hole, and nothing more is noted.
pub(in crate::git) struct Links {
    others: Names,
    parents: Names,
    limit: usize,
    is_unsure: AtomicBool,
    interrupt: Arc<AtomicBool>,
}

/// What was found out about a pack.
pub(in crate::git) struct Verdict {
    /// Whether something is missing that is no parent of a commit, or may be.
    pub(in crate::git) has_holes: bool,
    /// The beginnings of the names of parents that are missing.
    pub(in crate::git) missing_parents: Vec<u64>,
}

impl Links {
    /// For a pack of so many objects. Nothing is noted any more once the interrupt says so.
    pub(in crate::git) fn new(objects: usize, earlier: Option<&Objects>, interrupt: Arc<AtomicBool>) -> Self {
        let earlier = usize::try_from(earlier.map_or(0, Objects::count)).unwrap_or(usize::MAX);
        let limit = objects.saturating_add(earlier);
        let (others, parents) = (Names::new(), Names::new());
        Self { others, parents, limit, is_unsure: AtomicBool::new(false), interrupt }
    }

    fn is_over(&self) -> bool {
        self.is_unsure.load(Ordering::Relaxed) || self.interrupt.load(Ordering::Relaxed)
    }

    /// Notes nothing more: it is not known what there is.
    pub(in crate::git) fn give_up(&self) {
        self.is_unsure.store(true, Ordering::Relaxed);
    }

    /// Collects for one thread; a clone is for another one.
    pub(in crate::git) fn collector(&self) -> Collector<'_> {
        // What stands in a place at first belongs into the next one, so that it is no name that is looked for there.
        Collector { links: self, recent: (1..=RECENT as u64).collect() }
    }

    /// Looks for what is referred to, in the pack, whose names are sorted, and among the earlier objects.
    pub(in crate::git) fn judge<'a>(
        &self,
        sorted: impl Iterator<Item = &'a oid> + Clone,
        earlier: Option<&Objects>,
        control: &Control,
    ) -> Result<Verdict, Error> {
        if self.is_unsure.load(Ordering::Relaxed) {
            return Ok(Verdict { has_holes: true, missing_parents: Vec::new() });
        }
        let earlier = earlier.map(Objects::without_refresh);
        let mut asked = 0;
        let mut is_there = |name: u64| -> Result<bool, Error> {
            if asked % CHECK_EVERY == 0 {
                control.check()?;
            }
            asked += 1;
            Ok(earlier.as_ref().is_some_and(|earlier| has(earlier, name)))
        };
        let mut has_holes = false;
        for name in self.others.without(sorted.clone()) {
            if !is_there(name)? {
                has_holes = true;
                break;
            }
        }
        let mut missing_parents = Vec::new();
        for name in self.parents.without(sorted) {
            if !is_there(name)? {
                missing_parents.push(name);
            }
        }
        Ok(Verdict { has_holes, missing_parents })
    }
}

fn has(objects: &Objects, name: u64) -> bool {
    let mut id = ObjectId::null(HashKind::Sha1);
    if let Some(beginning) = id.as_mut_slice().first_chunk_mut() {
        *beginning = name.to_be_bytes();
    }
    Prefix::new(&id, PREFIX_DIGITS).is_ok_and(|prefix| objects.contains_prefix(prefix))
}

/// One thread's part of the collecting.
pub(in crate::git) struct Collector<'a> {
    links: &'a Links,
    /// What was seen last, each name in a place of its own.
    recent: Box<[u64]>,
}

impl Clone for Collector<'_> {
    fn clone(&self) -> Self {
        self.links.collector()
    }
}

impl Collector<'_> {
    /// Takes note of what an object refers to.
    pub(in crate::git) fn object(&mut self, kind: Kind, data: &[u8]) {
        let Self { links, recent } = self;
        if kind == Kind::Blob {
            return;
        }
        let is_whole = references(kind, data, |reference| {
            // One object can refer to millions.
            if links.is_over() {
                return ControlFlow::Break(());
            }
            let (names, id) = match reference {
                Reference::Parent(id) => (&links.parents, id),
                Reference::Other(id) => (&links.others, id),
            };
            let name = prefix(id);
            if matches!(reference, Reference::Other(_)) {
                let place = usize::try_from(name % RECENT as u64).unwrap_or(0);
                match recent.get_mut(place) {
                    Some(seen) if *seen == name => return ControlFlow::Continue(()),
                    Some(seen) => *seen = name,
                    None => {}
                }
            }
            if names.add(name) > links.limit {
                links.give_up();
            }
            ControlFlow::Continue(())
        });
        if !is_whole {
            links.give_up();
        }
    }
}

/// What an object refers to.
#[derive(Clone, Copy)]
pub(super) enum Reference<'a> {
    /// A commit, to one before it.
    Parent(&'a oid),
    /// Anything else that has to be there.
    Other(&'a oid),
}

/// The beginning of a name.
pub(super) fn prefix(id: &oid) -> u64 {
    u64::from_be_bytes(id.as_bytes().first_chunk().copied().unwrap_or_default())
}

/// Hands out everything that an object refers to, until nobody wants more; commits of other repositories are nobody's
/// business here. `false` is an object out of form, or one that was not gone through.
pub(super) fn references(
    kind: Kind,
    data: &[u8],
    take: impl FnMut(Reference<'_>) -> ControlFlow<()>,
) -> bool {
    match kind {
        Kind::Blob => true,
        Kind::Tree => of_tree(data, take).is_some(),
        Kind::Commit => of_commit(data, take).is_some(),
        Kind::Tag => of_tag(data, take).is_some(),
    }
}

fn of_tree(mut data: &[u8], mut take: impl FnMut(Reference<'_>) -> ControlFlow<()>) -> Option<()> {
    while !data.is_empty() {
        let space = data.iter().take(8).position(|byte| *byte == b' ')?;
        let (mode, rest) = data.split_at_checked(space)?;
        let mode = mode.iter().try_fold(0u32, |mode, digit| match digit {
            b'0'..=b'7' => Some(mode << 3 | u32::from(digit - b'0')),
            _ => None,
        })?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        let (id, rest) = rest.get(end + 1..)?.split_at_checked(HashKind::Sha1.len_in_bytes())?;
        if mode & KIND_OF_MODE != SUBMODULE {
            take(Reference::Other(oid::try_from_bytes(id).ok()?)).continue_value()?;
        }
        data = rest;
    }
    Some(())
}

fn of_commit(data: &[u8], mut take: impl FnMut(Reference<'_>) -> ControlFlow<()>) -> Option<()> {
    let (tree, mut rest) = named(data, b"tree ")?;
    take(Reference::Other(&tree)).continue_value()?;
    while rest.starts_with(b"parent ") {
        let parent;
        (parent, rest) = named(rest, b"parent ")?;
        take(Reference::Parent(&parent)).continue_value()?;
    }
    Some(())
}

fn of_tag(data: &[u8], mut take: impl FnMut(Reference<'_>) -> ControlFlow<()>) -> Option<()> {
    let (object, _) = named(data, b"object ")?;
    take(Reference::Other(&object)).continue_value()?;
    Some(())
}

/// A line with a name, and what comes after it.
fn named<'a>(data: &'a [u8], key: &[u8]) -> Option<(ObjectId, &'a [u8])> {
    let (hex, rest) = data.strip_prefix(key)?.split_at_checked(HashKind::Sha1.len_in_hex())?;
    Some((ObjectId::from_hex(hex).ok()?, rest.strip_prefix(b"\n")?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tree(names: impl Iterator<Item = u64>) -> Vec<u8> {
        let mut data = Vec::new();
        for name in names {
            data.extend_from_slice(b"100644 x\0");
            data.extend_from_slice(&name.to_be_bytes());
            data.extend_from_slice(&[0; 12]);
        }
        data
    }

    fn count(links: &Links) -> usize {
        links.others.count.load(Ordering::Relaxed)
    }

    #[test]
    fn no_name_counts_as_seen_before_it_is() {
        let links = Links::new(100_000, None, Arc::default());
        let names = 0..2 * RECENT as u64;
        let mut collector = links.collector();
        collector.object(Kind::Tree, &tree(names.clone()));
        collector.object(Kind::Tree, &tree(names));
        assert_eq!(count(&links), 2 * RECENT);
    }

    #[test]
    fn one_object_cannot_make_us_hold_more_than_all_that_can_be_meant() {
        let links = Links::new(10, None, Arc::default());
        links.collector().object(Kind::Tree, &tree(1..1000));
        assert_eq!(count(&links), 11);
    }

    #[test]
    fn an_interrupt_ends_it_within_an_object() {
        let links = Links::new(1000, None, Arc::new(AtomicBool::new(true)));
        links.collector().object(Kind::Tree, &tree(1..1000));
        assert_eq!(count(&links), 0);
    }

    #[test]
    fn names_that_are_alike_do_not_meet_in_the_table() {
        const NAMES: u64 = 1 << 12;
        const TURNS: usize = 100;
        for shift in [0, 20, 40, 52] {
            for spread in std::iter::repeat_with(Spread::new).take(TURNS) {
                let places = (0..NAMES).map(|name| spread.hash_one(name << shift) & (NAMES - 1));
                let places: HashSet<u64> = places.collect();
                // Random numbers hit about 2,590 of them.
                assert!(places.len() > 2000, "{shift}: {}", places.len());
            }
        }
    }
}
