//! Large files, which the library would hold in memory: it leaves an empty file for each of them, and their content is
//! streamed into that here.

use std::collections::HashSet;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use gix_attributes::search::Outcome;
use gix_filter::driver::apply::Delay;
use gix_filter::pipeline::convert::to_worktree;
use gix_hash::{Kind, ObjectId};
use gix_index::entry::{Flags, Mode, Stat};
use gix_object::Find;
use gix_object::bstr::BStr;
use gix_worktree::Stack;
use gix_worktree::stack::State;
use gix_worktree::stack::state::Attributes;

use crate::git::archive::objects::Objects;
use crate::git::target::target_error;
use crate::git::{Control, Error, PackProblem};

/// The most threads that write large files.
const MAX_THREADS: usize = 4;

/// The attributes by which the content of a file changes on its way into the working directory.
const NAMES: [&str; 2] = ["eol", "working-tree-encoding"];

/// A file to be written.
struct Job {
    /// Its position in the index.
    entry: usize,
    id: ObjectId,
    path: PathBuf,
    size: u64,
}

/// What the threads have done.
#[derive(Default)]
struct Done {
    /// Entries by their position, and what the file system knows of them.
    written: Vec<(usize, Stat)>,
    failure: Option<Error>,
}

/// What takes part in every write.
struct Writer<'a> {
    objects: Objects,
    directory: &'a Path,
    control: &'a Control,
}

/// What it takes to put a file in another form.
pub(super) struct Conversion<'a, F> {
    pub(super) attributes: Attributes,
    pub(super) filters: gix_filter::Pipeline,
    /// Finds files of attributes.
    pub(super) find: &'a F,
}

/// Writes the files among the entries of an index whose objects are named, and notes what the file system knows of them.
///
/// `admit` is asked with the size of each before it is written. Files that are streamed are written on several threads;
/// what has to be held, because it is stored as a delta or is converted, is held one at a time.
pub(super) fn write<F: Find>(
    index: &mut gix_index::State,
    large: &HashSet<ObjectId>,
    conversion: Conversion<'_, F>,
    (git_directory, directory): (&Path, &Path),
    control: &Control,
    mut admit: impl FnMut(u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let writer = Writer { objects: Objects::open(git_directory)?, directory, control };
    let Conversion { attributes, filters, find } = conversion;
    let state = State::AttributesStack(attributes);
    let mut stack = Stack::from_state_and_ignore_case(directory, false, state, index, index.path_backing());
    let mut outcome = stack.selected_attribute_matches(NAMES);
    let (mut streamed, mut written) = (Vec::new(), Vec::new());
    for position in 0..index.entries().len() {
        let Some(entry) = index.entries().get(position) else { break };
        let is_file = matches!(entry.mode, Mode::FILE | Mode::FILE_EXECUTABLE);
        if !is_file || entry.flags.contains(Flags::SKIP_WORKTREE) || !large.contains(&entry.id) {
            continue;
        }
        control.check()?;
        let path = entry.path_in(index.path_backing());
        let relative = Path::new(std::ffi::OsStr::from_bytes(path));
        let size = writer.objects.size(&entry.id)?;
        admit(size)?;
        let job = Job { entry: position, id: entry.id, path: relative.to_owned(), size };
        let platform = stack.at_path(relative, Some(entry.mode), find);
        let platform = platform.map_err(|error| target_error(directory, error))?;
        outcome.reset();
        platform.matching_attributes(&mut outcome);
        if is_converted(&outcome) {
            let mut filters = filters.clone();
            let mut form = |content: &[u8], out: &mut dyn FnMut(&[u8]) -> Result<(), Error>| {
                let options = to_worktree::Options {
                    can_delay: Delay::Forbid,
                    unknown_encoding: to_worktree::UnknownEncoding::Ignore,
                };
                let mut look_up = |_: &BStr, found: &mut Outcome| {
                    platform.matching_attributes(found);
                };
                let formed = filters.convert_to_worktree(content, path, &mut look_up, options);
                let cannot = |_| Error::Internal { what: "converting a file", class: 0, code: 0 };
                out(formed.map_err(cannot)?.as_bytes().unwrap_or(content))
            };
            written.push((position, writer.write(&job, Some(&mut form))?));
        } else if writer.objects.is_streamed(&job.id)? {
            streamed.push(job);
        } else {
            written.push((position, writer.write(&job, None)?));
        }
    }
    written.extend(writer.write_all(&streamed)?);
    for (entry, stat) in written {
        if let Some(entry) = index.entries_mut().get_mut(entry) {
            entry.stat = stat;
        }
    }
    Ok(())
}

/// Whether a file with these attributes comes in another form: without any configuration line ends are changed for
/// Windows alone.
fn is_converted(outcome: &Outcome) -> bool {
    let mut states = outcome.iter_selected().map(|found| found.assignment.state);
    let is_for_windows =
        states.next().is_some_and(|state| state.as_bstr().is_some_and(|ends| ends == "crlf"));
    is_for_windows || states.next().is_some_and(|state| state.as_bstr().is_some())
}

/// Makes another form of a file.
type Form<'a> = &'a mut dyn FnMut(&[u8], &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error>;

impl Writer<'_> {
    fn write_all(&self, jobs: &[Job]) -> Result<Vec<(usize, Stat)>, Error> {
        let next = AtomicUsize::new(0);
        let done: Mutex<Done> = Mutex::default();
        let work = |writer: &Self| {
            while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let stat = writer.write(job, None);
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                match stat {
                    Ok(stat) => done.written.push((job.entry, stat)),
                    Err(error) => {
                        done.failure.get_or_insert(error);
                        next.store(jobs.len(), Ordering::Relaxed);
                    }
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        std::thread::scope(|scope| {
            // This thread is one of them; where no other can be had, it does everything.
            for _ in 1..threads.min(jobs.len()) {
                let writer = self.for_another_thread();
                let spawned = std::thread::Builder::new()
                    .name("large-files".to_owned())
                    .spawn_scoped(scope, move || work(&writer));
                if spawned.is_err() {
                    break;
                }
            }
            work(self);
        });
        let Done { written, failure } = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(written), Err)
    }

    fn for_another_thread(&self) -> Self {
        Self { objects: self.objects.clone(), directory: self.directory, control: self.control }
    }

    /// Fills the file that is there already, with the mode that it is to have.
    fn write(&self, job: &Job, form: Option<Form<'_>>) -> Result<Stat, Error> {
        let cannot = |error| target_error(self.directory, error);
        let path = self.directory.join(&job.path);
        let file = gix_fs::open_options_no_follow().write(true).truncate(true).open(&path);
        let mut file = file.map_err(cannot)?;
        let mut name = gix_hash::hasher(Kind::Sha1);
        name.update(format!("blob {}\0", job.size).as_bytes());
        let mut held = Vec::new();
        self.objects.stream(&job.id, job.size, |piece| {
            self.control.check()?;
            name.update(piece);
            if form.is_some() {
                held.extend_from_slice(piece);
                return Ok(());
            }
            file.write_all(piece).map_err(cannot)
        })?;
        if name.try_finalize().map_err(|_| damaged())? != job.id {
            return Err(damaged());
        }
        if let Some(form) = form {
            form(&held, &mut |content| file.write_all(content).map_err(cannot))?;
        }
        let seen = gix_index::fs::Metadata::from_file(&file).map_err(cannot)?;
        Stat::from_fs(&seen).map_err(|error| cannot(std::io::Error::other(error)))
    }
}

fn damaged() -> Error {
    Error::PackCorrupt(PackProblem::Damaged)
}
