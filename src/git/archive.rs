//! An archive of a commit's tree, made straight from the objects: nothing is written to any disk, and no name in the
//! tree is ever opened.
//!
//! The bytes of one commit, selection, prefix and format are always the same for one release of Sortie, whatever
//! packs the objects lie in. The tar inside is byte for byte that of `git archive`: attributes `export-ignore` and
//! line ends are applied, submodules are empty directories. Not applied are `export-subst`, which is counted, the
//! expansion of `$Id$` (`ident`), other encodings (`working-tree-encoding`), filters, and line ends of files over
//! 4 MiB.
//!
//! Memory is bounded whatever the tree holds: 8 MiB read ahead and one file of 4 MiB for each thread, 16 MiB of
//! cache for each thread, 64 MiB of trees, about 20 MiB in the compressor. A larger file is streamed where it is
//! stored whole; only one that is stored as a delta is held, at most 512 MiB and its base. The directory of a zip is
//! held until its end, about 100 bytes for each entry.

mod attributes;
mod form;
mod near;
pub(super) mod objects;
mod pipeline;
mod tar;
pub(super) mod trees;
mod walk;
mod zip;

use std::io::Write;
use std::path::Path;

use gix_hash::ObjectId;
use gix_object::{CommitRefIter, Kind};
use zstd::zstd_safe::CParameter;

use self::form::{Body, Form, Piece};
use self::objects::{Objects, object_id};
use self::trees::{EntryKind, Surveyor, Trees};
use self::walk::{Item, Walk};
use super::pkt::scrubbed;
use super::survey::is_unsafe_name;
use super::{Control, Error, Limit, PackProblem};

/// The level of zstd. With [`ZSTD_JOB_BYTES`] it decides the bytes.
const ZSTD_LEVEL: i32 = 3;

/// What each of zstd's threads takes at once, in bytes. Small, so that the last one does not work alone for long and
/// the buffers stay small; the archive does not grow by it.
const ZSTD_JOB_BYTES: u32 = 2 * 1024 * 1024;

/// Threads of zstd. Any number but none makes the same bytes: only the size of the jobs decides.
const ZSTD_WORKERS: u32 = 2;

/// The form of an archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// A tar, compressed by zstd.
    #[default]
    TarZst,
    /// A zip.
    Zip,
}

/// What an archive is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveRequest {
    /// The full commit, in hex.
    pub commit: String,
    /// Files and directories, from the root of the tree; all of it where there are none. No wildcards.
    pub paths: Vec<String>,
    /// Its form.
    pub format: ArchiveFormat,
    /// A directory in which everything in the archive lies, such as `web-0a1b2c3/`; empty is none.
    pub prefix: String,
    /// The most bytes that the contents may have, and that the archive may have.
    pub max_bytes: u64,
}

/// What an archive holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archived {
    /// Files, links, directories and submodules.
    pub entries: u64,
    /// Files and symbolic links.
    pub files: u64,
    /// Submodules, which are empty directories.
    pub submodules: u64,
    /// Bytes of the files before they were compressed.
    pub content_bytes: u64,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// Files that are pointers of Git LFS; they stay pointers.
    pub lfs_pointers: u64,
    /// Files with the attribute `export-subst`, whose placeholders are left as they are.
    pub unexpanded: u64,
    /// Paths of the request that the commit does not have.
    pub missing: Vec<String>,
}

/// Makes an archive of a commit and writes it to a sink as it comes. Blocks, and reads on threads of its own.
///
/// `repository` is a git directory. The names of everything selected are judged and counted before the first byte;
/// sizes are counted as the files come, so that a sink may have got a part of an archive when this fails.
///
/// # Errors
/// [`Error::PathNotFound`] where none of the paths is there, [`Error::UnsafePath`], [`Error::TooLarge`],
/// [`Error::PackCorrupt`], [`Error::Delivery`] where the sink refuses, [`Error::Cancelled`] and
/// [`Error::DeadlineExceeded`].
pub fn archive(
    repository: &Path,
    request: &ArchiveRequest,
    sink: &mut dyn Write,
    control: &Control,
) -> Result<Archived, Error> {
    control.check()?;
    let objects = Objects::open(repository)?;
    let id = object_id(&request.commit)?;
    let (root, time) = commit(&objects, id)?;
    let prefix = prefix(&request.prefix)?;
    let mut trees = Trees::new(objects.clone());
    let selected = select(&mut trees, root, &request.paths)?;
    let mut surveyor = Surveyor::new(&mut trees, control);
    for (path, found) in &selected.found {
        surveyor.survey(path, root, *found)?;
    }
    let attributes_matter = surveyor.attributes_matter;
    let paths = match selected.found.as_slice() {
        [(path, _)] if path.is_empty() => Vec::new(),
        found => found.iter().map(|(path, _)| path.clone()).collect(),
    };
    let walk = Walk::new(trees, root, paths, attributes_matter, &prefix)?;
    let form = match request.format {
        ArchiveFormat::TarZst => Form::Tar(tar::Form::new(id, time)),
        ArchiveFormat::Zip => Form::Zip(zip::Form::new(id, time)),
    };
    let output = Output { sink, written: 0, limit: request.max_bytes, failure: None };
    let mut writer = Writer::begin(&form, output, control)?;
    let mut archived = Archived { missing: selected.missing, ..Archived::default() };
    pipeline::run(walk, &objects, &form, control, |piece| {
        count(&mut archived, &piece, request.max_bytes)?;
        writer.piece(&form, &objects, piece)
    })?;
    archived.archive_bytes = writer.end(&form)?;
    Ok(archived)
}

/// The tree of a commit, and when it was committed, in seconds since 1970.
pub(super) fn commit(objects: &Objects, id: ObjectId) -> Result<(ObjectId, u64), Error> {
    let damaged = |_| Error::PackCorrupt(PackProblem::Damaged);
    let mut data = Vec::new();
    objects.structure(&id, Kind::Commit, &mut data)?;
    let commit = |data| CommitRefIter::from_bytes(data, gix_hash::Kind::Sha1);
    let tree = commit(&data).tree_id().map_err(damaged)?;
    let seconds = commit(&data).committer().ok().and_then(|committer| committer.time().ok());
    Ok((tree, seconds.and_then(|time| u64::try_from(time.seconds).ok()).unwrap_or(0)))
}

/// A prefix in the form of a directory's path, if it has one.
fn prefix(prefix: &str) -> Result<Vec<u8>, Error> {
    let names: Vec<&str> = prefix.split('/').filter(|name| !name.is_empty()).collect();
    if prefix.starts_with('/') || names.iter().any(|name| is_unsafe_name(name.as_bytes(), false)) {
        return Err(Error::UnsafePath { path: scrubbed(prefix.as_bytes()) });
    }
    let path = names.join("/");
    Ok(if path.is_empty() { Vec::new() } else { (path + "/").into_bytes() })
}

/// The paths of a request, sorted into what is there and what is not.
struct Selected {
    /// None lies within another. The root is an empty path.
    found: Vec<(Vec<u8>, (EntryKind, ObjectId))>,
    missing: Vec<String>,
}

fn select(trees: &mut Trees, root: ObjectId, paths: &[String]) -> Result<Selected, Error> {
    let whole = (Vec::new(), (EntryKind::Directory, root));
    if paths.is_empty() {
        return Ok(Selected { found: vec![whole], missing: Vec::new() });
    }
    let mut selected = Selected { found: Vec::new(), missing: Vec::new() };
    for path in paths {
        let normal = normal(path);
        let found = if normal.is_empty() { Some(whole.1) } else { trees.find(root, normal.as_bytes())? };
        match found {
            Some(found) => selected.found.push((normal.into_bytes(), found)),
            None => selected.missing.push(path.clone()),
        }
    }
    let Some(first) = selected.missing.first() else { return Ok(without_overlap(selected)) };
    if selected.found.is_empty() {
        let near = near::near(trees, root, first)?;
        return Err(Error::PathNotFound { paths: vec![scrubbed(first.as_bytes())], near });
    }
    Ok(without_overlap(selected))
}

/// A path without slashes at its ends, double slashes and `.`.
pub(super) fn normal(path: &str) -> String {
    let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    names.join("/")
}

/// What lies within something else that is selected is there already.
fn without_overlap(mut selected: Selected) -> Selected {
    let with_slash = |path: &[u8]| if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
    selected.found.sort_by_cached_key(|(path, _)| with_slash(path));
    let mut kept: Vec<(Vec<u8>, (EntryKind, ObjectId))> = Vec::new();
    for entry in selected.found {
        let is_within =
            kept.last().is_some_and(|last| with_slash(&entry.0).starts_with(&with_slash(&last.0)));
        if !is_within {
            kept.push(entry);
        }
    }
    Selected { found: kept, ..selected }
}

fn count(archived: &mut Archived, piece: &Piece, max_bytes: u64) -> Result<(), Error> {
    archived.entries += 1;
    let kind = match &piece.body {
        Body::Large(item) => item.kind,
        Body::Tar(_, kind) | Body::Zip(_, _, kind) => *kind,
    };
    match kind {
        EntryKind::Directory => {}
        EntryKind::Submodule => archived.submodules += 1,
        EntryKind::File | EntryKind::Executable | EntryKind::Link => archived.files += 1,
    }
    archived.content_bytes = archived.content_bytes.saturating_add(piece.content_bytes);
    archived.lfs_pointers += u64::from(piece.is_pointer);
    archived.unexpanded += u64::from(piece.is_substituted);
    if archived.content_bytes > max_bytes {
        return Err(Error::TooLarge { what: Limit::ArchiveBytes, limit: max_bytes });
    }
    Ok(())
}

/// The sink, with what has gone into it.
struct Output<'a> {
    sink: &'a mut dyn Write,
    written: u64,
    limit: u64,
    /// Why it took no more, where that is not the sink's own error.
    failure: Option<Error>,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.written.saturating_add(bytes.len() as u64) > self.limit {
            self.failure = Some(Error::TooLarge { what: Limit::ArchiveBytes, limit: self.limit });
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        let count = self.sink.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.sink.flush()
    }
}

/// Puts pieces one behind the other.
struct Writer<'a> {
    target: Target<'a>,
    control: &'a Control,
    /// Bytes before they are compressed as a whole.
    written: u64,
    directory: zip::Directory,
}

enum Target<'a> {
    Compressed(zstd::Encoder<'static, Output<'a>>),
    Plain(Output<'a>),
}

impl<'a> Writer<'a> {
    fn begin(form: &Form, output: Output<'a>, control: &'a Control) -> Result<Self, Error> {
        let failed = |_| Error::Internal { what: "starting the compressor", class: 0, code: 0 };
        let directory = zip::Directory::default();
        match form {
            Form::Zip(_) => Ok(Self { target: Target::Plain(output), control, written: 0, directory }),
            Form::Tar(form) => {
                let mut encoder = zstd::Encoder::new(output, ZSTD_LEVEL).map_err(failed)?;
                encoder.include_checksum(true).map_err(failed)?;
                encoder.multithread(ZSTD_WORKERS).map_err(failed)?;
                encoder.set_parameter(CParameter::JobSize(ZSTD_JOB_BYTES)).map_err(failed)?;
                let mut writer = Self { target: Target::Compressed(encoder), control, written: 0, directory };
                writer.write(&form.beginning())?;
                Ok(writer)
            }
        }
    }

    fn piece(&mut self, form: &Form, objects: &Objects, piece: Piece) -> Result<(), Error> {
        match (piece.body, form) {
            (Body::Tar(bytes, _), _) => self.write(&bytes),
            (Body::Zip(bytes, record, _), Form::Zip(form)) => {
                self.directory.add(form, &record, self.written);
                self.write(&bytes)
            }
            (Body::Large(item), Form::Tar(form)) => {
                self.large_in_tar(form, objects, &item, piece.content_bytes)
            }
            (Body::Large(item), Form::Zip(form)) => {
                self.large_in_zip(form, objects, &item, piece.content_bytes)
            }
            (Body::Zip(..), Form::Tar(_)) => {
                Err(Error::Internal { what: "mixing formats", class: 0, code: 0 })
            }
        }
    }

    fn large_in_tar(
        &mut self,
        form: &tar::Form,
        objects: &Objects,
        item: &Item,
        size: u64,
    ) -> Result<(), Error> {
        self.write(&form.head_of_file(item, size))?;
        objects.stream(&item.id, size, |piece| self.write(piece))?;
        self.write(tar::Form::padding(size))
    }

    fn large_in_zip(
        &mut self,
        form: &zip::Form,
        objects: &Objects,
        item: &Item,
        size: u64,
    ) -> Result<(), Error> {
        let offset = self.written;
        let mut open = zip::Open::begin(form, item, size);
        objects.stream(&item.id, size, |piece| {
            let bytes = open.piece(piece)?;
            self.write(&bytes)
        })?;
        let (bytes, record) = open.end()?;
        self.directory.add(form, &record, offset);
        self.write(&bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.control.check()?;
        let done = match &mut self.target {
            Target::Compressed(encoder) => encoder.write_all(bytes),
            Target::Plain(output) => output.write_all(bytes),
        };
        self.written += bytes.len() as u64;
        done.map_err(|error| self.why(error))
    }

    /// Ends the archive and returns its size in bytes.
    fn end(mut self, form: &Form) -> Result<u64, Error> {
        match form {
            Form::Tar(_) => self.write(&tar::Form::end(self.written))?,
            Form::Zip(form) => {
                let directory = std::mem::take(&mut self.directory).end(form, self.written);
                self.write(&directory)?;
            }
        }
        let done = match &mut self.target {
            Target::Compressed(encoder) => encoder.do_finish().and_then(|()| encoder.get_mut().flush()),
            Target::Plain(output) => output.flush(),
        };
        done.map_err(|error| self.why(error))?;
        Ok(self.output().written)
    }

    fn output(&mut self) -> &mut Output<'a> {
        match &mut self.target {
            Target::Compressed(encoder) => encoder.get_mut(),
            Target::Plain(output) => output,
        }
    }

    /// What a failure to write means: a limit, a cancel, or a sink that takes no more.
    fn why(&mut self, source: std::io::Error) -> Error {
        let known = self.output().failure.take().or_else(|| self.control.check().err());
        known.unwrap_or(Error::Delivery { source })
    }
}
