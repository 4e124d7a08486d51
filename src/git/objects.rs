//! The objects of a repository, as several threads read them at once.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use gix_hash::oid;
use gix_object::{Data, Find, FindHeader, Header};
use gix_pack::cache::lru::MemoryCappedHashmap;

/// What each handle keeps of objects that others are deltas of, in bytes.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The largest object that is no file, in bytes: a tree with a million entries has less.
pub(super) const MAX_TREE_BYTES: u64 = 64 * 1024 * 1024;

/// From which size on a file is not held in memory where that can be helped, in bytes.
pub(super) const LARGE_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// A handle on the objects of a repository. Clones share the open packs and have caches of their own.
#[derive(Clone)]
pub(super) struct Objects(gix_odb::Cache<gix_odb::store::Handle<Arc<gix_odb::Store>>>);

impl Objects {
    /// Opens the directory `objects` of a repository. A file that is larger than `max_blob_bytes` cannot be read.
    pub(super) fn open(directory: &Path, max_blob_bytes: u64) -> std::io::Result<Self> {
        Self::open_limited(directory, max_blob_bytes.max(MAX_TREE_BYTES))
    }

    /// Opens it so that nothing can be read that takes more than so many bytes, of whatever kind.
    pub(super) fn open_limited(directory: &Path, max_bytes: u64) -> std::io::Result<Self> {
        let options = gix_odb::store::init::Options {
            alloc_limit_bytes: usize::try_from(max_bytes).ok(),
            use_multi_pack_index: false,
            ..Default::default()
        };
        let nothing = &mut std::iter::empty();
        let store = gix_odb::Store::at_opts(directory.to_owned(), gix_hash::Kind::Sha1, nothing, options)?;
        let mut cache = gix_odb::Cache::from(Arc::new(store).to_handle_arc());
        cache.set_pack_cache(|| Box::new(MemoryCappedHashmap::new(CACHE_BYTES)));
        Ok(Self(cache))
    }

    /// Opens the objects that a pack in this directory may lean on; `None` where there are none.
    pub(super) fn for_bases(pack_directory: &Path, max_blob_bytes: u64) -> Option<Self> {
        let mut entries = std::fs::read_dir(pack_directory).ok()?.filter_map(Result::ok);
        let has_packs = entries.any(|entry| entry.path().extension() == Some(OsStr::new("idx")));
        if !has_packs {
            return None;
        }
        Self::open(pack_directory.parent()?, max_blob_bytes).ok()
    }

    /// A handle that does not look again for packs that have come meanwhile.
    pub(super) fn without_refresh(&self) -> Self {
        let mut objects = self.clone();
        objects.0.refresh_never();
        objects
    }

    /// How many objects are in packs; 0 where that cannot be said.
    pub(super) fn count(&self) -> u64 {
        self.0.packed_object_count().unwrap_or(0)
    }

    /// Whether there is an object.
    pub(super) fn contains(&self, id: &oid) -> bool {
        gix_object::Exists::exists(&self.0, id)
    }

    /// Whether there is an object that begins so.
    pub(super) fn contains_prefix(&self, prefix: gix_hash::Prefix) -> bool {
        self.0.lookup_prefix(prefix, None).is_ok_and(|found| found.is_some())
    }
}

impl Find for Objects {
    fn try_find<'a>(&self, id: &oid, buffer: &'a mut Vec<u8>) -> gix_error::Result<Option<Data<'a>>> {
        self.0.try_find(id, buffer)
    }
}

impl FindHeader for Objects {
    fn try_header(&self, id: &oid) -> gix_error::Result<Option<Header>> {
        FindHeader::try_header(&self.0, id)
    }
}
