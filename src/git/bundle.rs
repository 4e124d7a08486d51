//! A bundle: one reference with its whole history in a file that `git clone` takes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, PackBuilder, Repository};

use super::references::internal;
use super::{Control, Error, Limit, PackProblem};

/// What is copied at once, in bytes.
const PIECE_BYTES: usize = 256 * 1024;

/// The hash at the end of a pack and twice at the end of its index, in bytes.
const HASH_BYTES: u64 = 20;

/// The first bytes of a pack, its version behind them.
const PACK_SIGNATURE: &[u8] = b"PACK";

/// What a bundle is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleRequest {
    /// The full name of the reference, such as `refs/heads/main`; `HEAD` for a commit without one.
    pub reference: String,
    /// What it leads to, in hex: a commit, or a tag that leads to one.
    pub target: String,
    /// The most bytes that the bundle may have.
    pub max_bytes: u64,
}

/// What a bundle holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundled {
    /// Objects.
    pub objects: u64,
    /// Bytes of the bundle.
    pub bytes: u64,
    /// Whether the pack that came for this reference was taken as it is.
    pub is_copied: bool,
}

/// Makes a bundle of one reference, and of `HEAD`, which leads to the same commit, so that a clone of it checks that
/// out. Blocks. `repository` is a git directory.
///
/// Where all that the repository holds is one pack, and all its references lead to this very commit, the pack is
/// copied. Elsewhere, as in a mirror, the objects are chosen and packed anew, on all cores.
///
/// # Errors
/// [`Error::Shallow`], [`Error::TooLarge`], [`Error::PackCorrupt`], [`Error::Delivery`] where the sink refuses,
/// [`Error::Cancelled`] and [`Error::DeadlineExceeded`].
pub fn bundle(
    repository: &Path,
    request: &BundleRequest,
    sink: &mut dyn Write,
    control: &Control,
) -> Result<Bundled, Error> {
    control.check()?;
    super::initialize().map_err(|error| Error::Internal {
        what: "setting up",
        class: 0,
        code: error.code,
    })?;
    let opened = Repository::open(repository).map_err(|error| internal("opening the repository", &error))?;
    if opened.is_shallow() {
        return Err(Error::Shallow);
    }
    let target = Oid::from_str(&request.target).map_err(|error| internal("reading a name", &error))?;
    let missing = |_| Error::PackCorrupt(PackProblem::ObjectMissing);
    let object = opened.find_object(target, None).map_err(missing)?;
    let commit = object.peel_to_commit().map_err(missing)?.id();
    let mut output = Output { sink, written: 0, limit: request.max_bytes, control };
    output.write(b"# v2 git bundle\n")?;
    if request.reference != "HEAD" {
        output.write(format!("{target} {}\n", request.reference).as_bytes())?;
    }
    output.write(format!("{commit} HEAD\n\n").as_bytes())?;
    let only_pack = only_pack(&opened, target, commit);
    let objects = match &only_pack {
        Some(pack) => copy(pack, &mut output)?,
        None => pack(&opened, target, commit, &mut output)?,
    };
    output.sink.flush().map_err(|source| output.why(source))?;
    Ok(Bundled { objects, bytes: output.written, is_copied: only_pack.is_some() })
}

struct Output<'a> {
    sink: &'a mut dyn Write,
    written: u64,
    limit: u64,
    control: &'a Control,
}

impl Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.control.check()?;
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > self.limit {
            return Err(Error::TooLarge { what: Limit::BundleBytes, limit: self.limit });
        }
        self.sink.write_all(bytes).map_err(|source| self.why(source))
    }

    fn why(&self, source: std::io::Error) -> Error {
        self.control.check().err().unwrap_or(Error::Delivery { source })
    }
}

/// The pack that is all that a repository holds, where all its references lead to one commit. Such a pack came for
/// this reference and has its whole history, because the repository has nowhere else to take objects from.
fn only_pack(repository: &Repository, target: Oid, commit: Oid) -> Option<PathBuf> {
    let objects = repository.path().join("objects");
    if objects.join("info/alternates").exists() {
        return None;
    }
    for reference in repository.references().ok()? {
        let reference = reference.ok()?;
        if reference.target().is_some_and(|oid| oid != target && oid != commit) {
            return None;
        }
    }
    let has_loose = std::fs::read_dir(&objects).ok()?.flatten().any(|entry| {
        entry.file_name().len() == 2
            && std::fs::read_dir(entry.path()).is_ok_and(|mut entries| entries.next().is_some())
    });
    if has_loose {
        return None;
    }
    let packs = std::fs::read_dir(objects.join("pack")).ok()?.flatten().map(|entry| entry.path());
    let mut packs = packs.filter(|path| path.extension().is_some_and(|extension| extension == "pack"));
    let only = packs.next()?;
    (packs.next().is_none() && only.with_extension("idx").exists()).then_some(only)
}

/// Copies a pack that is as its index knows it, and returns the number of its objects.
fn copy(pack: &Path, output: &mut Output<'_>) -> Result<u64, Error> {
    let damaged = |_| Error::PackCorrupt(PackProblem::Damaged);
    let mut file = File::open(pack).map_err(damaged)?;
    let mut index = File::open(pack.with_extension("idx")).map_err(damaged)?;
    let mut header = [0; 12];
    let mut hashes = [[0; HASH_BYTES as usize]; 2];
    let [hash, known] = &mut hashes;
    file.read_exact(&mut header).map_err(damaged)?;
    file.seek(SeekFrom::End(-HASH_BYTES.cast_signed())).map_err(damaged)?;
    file.read_exact(hash).map_err(damaged)?;
    index.seek(SeekFrom::End(-2 * HASH_BYTES.cast_signed())).map_err(damaged)?;
    index.read_exact(known).map_err(damaged)?;
    let [signature @ .., _, _, _, _, _, _, _, _] = header;
    let [_, _, _, _, _, _, _, version, count @ ..] = header;
    if signature != *PACK_SIGNATURE || !matches!(version, 2 | 3) || hash != known {
        return Err(Error::PackCorrupt(PackProblem::Damaged));
    }
    file.rewind().map_err(damaged)?;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece).map_err(damaged)? {
            0 => return Ok(u64::from(u32::from_be_bytes(count))),
            read => output.write(piece.get(..read).unwrap_or_default())?,
        }
    }
}

/// Packs everything that leads to a commit, with the tags on the way to it, and returns the number of objects.
fn pack(repository: &Repository, target: Oid, commit: Oid, output: &mut Output<'_>) -> Result<u64, Error> {
    let control = output.control;
    let failed = |error: git2::Error| match control.check() {
        Err(stopped) => stopped,
        Ok(()) => match error.class() {
            git2::ErrorClass::Odb | git2::ErrorClass::Object | git2::ErrorClass::Zlib => {
                Error::PackCorrupt(PackProblem::ObjectMissing)
            }
            _ => internal("packing", &error),
        },
    };
    let mut walk = repository.revwalk().map_err(failed)?;
    walk.push(commit).map_err(failed)?;
    let mut builder: PackBuilder<'_> = repository.packbuilder().map_err(failed)?;
    builder.set_threads(0);
    builder.set_progress_callback(|_, _, _| control.check().is_ok()).map_err(failed)?;
    builder.insert_walk(&mut walk).map_err(failed)?;
    let mut tag = target;
    while let Ok(object) = repository.find_object(tag, Some(ObjectType::Tag)) {
        builder.insert_object(tag, None).map_err(failed)?;
        tag = object.as_tag().map_or(commit, git2::Tag::target_id);
    }
    let mut refused = None;
    let done = builder.foreach(|bytes| match output.write(bytes) {
        Ok(()) => true,
        Err(error) => {
            refused = Some(error);
            false
        }
    });
    match (done, refused) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(failed(error)),
        (Ok(()), None) => Ok(builder.written() as u64),
    }
}
