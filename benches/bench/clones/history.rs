//! Repositories for measurements that resemble those of products: thousands of files in directories, most of them
//! short and a few long, changed a few lines at a time by commits that touch one area; some pictures among them.
//!
//! Made by `git fast-import` from fixed numbers, so that every run has the same objects. The versions of a file are
//! written one after the other, the newest first: fast-import then finds good deltas by itself, and packing reuses
//! them, as a server's does with what was pushed. To search for all deltas anew would take minutes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Result, Write};
use std::path::Path;

use crate::support::repository::{SampleRepository, run_git};

/// Who made the commits.
const AUTHOR: &str = "Ada Example <ada@example.com>";
/// When the first commit was made, in seconds; each further one is a minute later.
const FIRST_COMMIT_SECONDS: usize = 1_700_000_000;
/// How many objects there are for each file of the newest tree.
const OBJECTS_A_FILE: usize = 40;
/// The fewest files.
const MIN_FILES: usize = 64;
/// Files in a directory.
const FILES_A_DIRECTORY: usize = 16;
/// Directories in an area.
const DIRECTORIES_AN_AREA: usize = 16;
/// Files that a commit changes, all in one area.
const FILES_A_COMMIT: usize = 3;
/// The most lines that a commit changes in a file.
const LINES_A_CHANGE: usize = 48;
/// The fewest lines of a file, and how many more the longest has.
const FEWEST_LINES: usize = 24;
const MORE_LINES: usize = 1000;
/// One file of so many is a picture, which never changes.
const FILES_A_PICTURE: usize = 31;
/// Bytes of a picture, which nothing compresses.
const PICTURE_BYTES: usize = 96 * 1024;
/// What lines are made of.
const WORDS: [&str; 32] = [
    "order", "customer", "let", "return", "price", "match", "account", "if", "is_valid", "total", "shipment",
    "for", "address", "invoice", "value", "self", "count", "mut", "name", "store", "index", "item", "result",
    "else", "request", "reply", "message", "load", "update", "key", "cart", "session",
];

/// What a file is, and how often it has changed.
struct File {
    path: String,
    seed: u64,
    /// The marks of its versions in the stream, oldest first.
    first_mark: usize,
    versions: usize,
}

/// Which commit changes which files.
struct Plan {
    files: Vec<File>,
    /// For each commit after the first the files that it changes, by their position.
    commits: Vec<BTreeSet<usize>>,
}

/// A bare repository with one branch, `main`, of at least so many objects, in one pack with a bitmap.
///
/// # Panics
/// When git fails.
pub(crate) fn generate(directory: &Path, objects: usize) -> SampleRepository {
    let sample = SampleRepository::empty(directory);
    let plan = Plan::of(objects);
    sample.import(|stream| plan.write(stream));
    run_git(directory, ["repack", "-a", "-d", "-q", "--write-bitmap-index"]);
    let found = sample.object_count();
    assert!(found >= objects, "{found} objects were generated instead of {objects}");
    sample
}

impl Plan {
    fn of(objects: usize) -> Self {
        let count = (objects / OBJECTS_A_FILE).max(MIN_FILES);
        let mut files: Vec<File> = (0..count).map(File::numbered).collect();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut commits = Vec::new();
        // The first commit: itself, its root, all areas, all directories and all files.
        let directories = count.div_ceil(FILES_A_DIRECTORY);
        let mut planned = 2 + directories.div_ceil(DIRECTORIES_AN_AREA) + directories + count;
        while planned < objects {
            let anchor = random.below(count);
            let area = FILES_A_DIRECTORY * DIRECTORIES_AN_AREA;
            let first = anchor / area * area;
            let last = (first + area).min(count);
            let changed = (0..FILES_A_COMMIT).map(|_| first + random.below(last - first));
            let changed: BTreeSet<usize> = changed.filter(|file| !is_picture(*file)).collect();
            if changed.is_empty() {
                continue;
            }
            let directories: BTreeSet<usize> = changed.iter().map(|file| file / FILES_A_DIRECTORY).collect();
            // The commit, its root, its area, and what lies below.
            planned += 3 + directories.len() + changed.len();
            for file in &changed {
                files[*file].versions += 1;
            }
            commits.push(changed);
        }
        let mut mark = 1;
        for file in &mut files {
            file.first_mark = mark;
            mark += file.versions;
        }
        Self { files, commits }
    }

    fn write(&self, stream: &mut dyn Write) -> Result<()> {
        for (number, file) in self.files.iter().enumerate() {
            if is_picture(number) {
                write_blob(stream, file.first_mark, &picture(file.seed))?;
            } else {
                file.write_versions(stream)?;
            }
        }
        let mut next: Vec<usize> = self.files.iter().map(|file| file.first_mark).collect();
        write_commit(stream, 0)?;
        for (file, mark) in self.files.iter().zip(&mut next) {
            writeln!(stream, "M 100644 :{mark} {}", file.path)?;
            *mark += 1;
        }
        for (number, changed) in self.commits.iter().enumerate() {
            write_commit(stream, number + 1)?;
            for position in changed {
                writeln!(stream, "M 100644 :{} {}", next[*position], self.files[*position].path)?;
                next[*position] += 1;
            }
        }
        Ok(())
    }
}

impl File {
    fn numbered(number: usize) -> Self {
        let directory = number / FILES_A_DIRECTORY;
        let area = directory / DIRECTORIES_AN_AREA;
        let suffix = if is_picture(number) { "png" } else { "rs" };
        let path = format!("area-{area:03}/part-{directory:04}/file-{number:05}.{suffix}");
        let seed = Random(number as u64 + 1).next() | 1;
        Self { path, seed, first_mark: 0, versions: 1 }
    }

    /// Goes forward through all versions and keeps what each replaced, then backward to write them.
    fn write_versions(&self, stream: &mut dyn Write) -> Result<()> {
        let mut random = Random(self.seed);
        let mut lines: Vec<String> = (0..lines_of_a_file(&mut random)).map(|_| line(&mut random)).collect();
        let mut replaced = Vec::new();
        for _ in 1..self.versions {
            // What changes lies together, as a function does.
            let count = random.below(LINES_A_CHANGE) + 1;
            let first = random.below(lines.len());
            let change: Vec<(usize, String)> = (first..(first + count).min(lines.len()))
                .map(|position| (position, std::mem::replace(&mut lines[position], line(&mut random))))
                .collect();
            replaced.push(change);
        }
        for version in (0..self.versions).rev() {
            write_blob(stream, self.first_mark + version, lines.concat().as_bytes())?;
            for (position, before) in replaced.pop().unwrap_or_default().into_iter() {
                lines[position] = before;
            }
        }
        Ok(())
    }
}

fn is_picture(file: usize) -> bool {
    file % FILES_A_PICTURE == FILES_A_PICTURE - 1
}

/// Most files are short, and few are long.
fn lines_of_a_file(random: &mut Random) -> usize {
    let one = random.below(16) + 1;
    let other = random.below(16) + 1;
    FEWEST_LINES + one * one * other * other * MORE_LINES / 65_536
}

fn line(random: &mut Random) -> String {
    let mut text = " ".repeat(4 * random.below(4));
    for _ in 0..4 + random.below(6) {
        text.push_str(WORDS[random.below(WORDS.len())]);
        text.push(' ');
    }
    // Something that stands nowhere else, as names and numbers do.
    let _ = writeln!(text, "{:06x}", random.next() & 0xff_ffff);
    text
}

fn picture(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..PICTURE_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect()
}

fn write_blob(stream: &mut dyn Write, mark: usize, content: &[u8]) -> Result<()> {
    write!(stream, "blob\nmark :{mark}\ndata {}\n", content.len())?;
    stream.write_all(content)?;
    stream.write_all(b"\n")
}

fn write_commit(stream: &mut dyn Write, number: usize) -> Result<()> {
    let seconds = FIRST_COMMIT_SECONDS + 60 * number;
    let message = format!("Change number {number}");
    let length = message.len();
    write!(stream, "commit refs/heads/main\ncommitter {AUTHOR} {seconds} +0000\ndata {length}\n{message}\n")
}

/// A generator of numbers that are the same in every run (xorshift*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The lowest bits of the product are poor.
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }
}
