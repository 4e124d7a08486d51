//! Full clones of three sizes: how time and memory grow with the work.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::lab::{Expected, Lab};
use crate::figure::{Figure, Quantity, Target};
use crate::statistics::Times;
use crate::support::repository::run_git;
use crate::turns::take_turns;

/// By how much the cost of an object must change before one speaks of a bend.
const BEND: f64 = 1.25;
/// What a bend must come to, as a part of the whole at the largest size: less is noise.
const LEAST: f64 = 0.1;

/// What was measured of one repository.
pub(super) struct Size {
    /// All objects that its references reach.
    pub(super) objects: usize,
    /// Files of its newest tree.
    pub(super) files: usize,
    /// Bytes of its pack.
    pub(super) pack_bytes: f64,
    /// Bytes of all its objects, unpacked.
    pub(super) unpacked_bytes: f64,
    pub(super) ours: Cost,
    pub(super) theirs: Cost,
}

/// Medians of one program.
#[derive(Clone, Copy)]
pub(super) struct Cost {
    pub(super) wall: Duration,
    /// The most memory of any of its processes, in bytes.
    pub(super) memory: f64,
}

/// Clones a repository again and again, by both programs in turns.
pub(super) fn measure(lab: &Lab, name: &str, clones: usize) -> Size {
    let served = lab.path(&format!("{name}.git"));
    let commit = run_git(&served, ["rev-parse", "HEAD"]);
    let target = lab.path("clone");
    let once = |is_sortie: bool| {
        let wall = lab.programs.time(lab.with_memory(is_sortie, name, &target));
        Expected { commit: &commit, target: &target }.is_there();
        Cost { wall, memory: lab.memory() }
    };
    for is_sortie in [true, false] {
        once(is_sortie);
        Expected { commit: &commit, target: &target }.is_whole();
        fs::remove_dir_all(&target).expect("the clone can be removed");
    }
    let cleared = |is_sortie: bool| {
        let cost = once(is_sortie);
        fs::remove_dir_all(&target).expect("the clone can be removed");
        cost
    };
    let objects = count(&served, &["rev-list", "--all", "--objects", "--count"]);
    eprintln!("full clone, HTTPS, {objects} objects, with memory: {clones} runs of each");
    let (ours, theirs) = take_turns(0, clones, || cleared(true), || cleared(false));
    let (ours, theirs) = (Cost::median(&ours), Cost::median(&theirs));
    eprintln!("  {:.2} s and {:.2} s", ours.wall.as_secs_f64(), theirs.wall.as_secs_f64());
    let files = run_git(&served, ["ls-tree", "-r", "--name-only", "HEAD"]).lines().count();
    let sizes =
        run_git(&served, ["cat-file", "--batch-all-objects", "--batch-check=%(objectsize)", "--unordered"]);
    let unpacked_bytes = sizes.lines().filter_map(|line| line.parse::<f64>().ok()).sum();
    Size { objects, files, pack_bytes: pack_bytes(&served), unpacked_bytes, ours, theirs }
}

fn count(repository: &Path, arguments: &[&str]) -> usize {
    run_git(repository, arguments).parse().expect("a number")
}

fn pack_bytes(repository: &Path) -> f64 {
    let packs = fs::read_dir(repository.join("objects/pack")).expect("packs");
    let packs = packs.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "pack"));
    packs.filter_map(|entry| entry.metadata().ok()).map(|facts| facts.len() as f64).sum()
}

impl Cost {
    fn median(costs: &[Self]) -> Self {
        let wall = Times::new(costs.iter().map(|cost| cost.wall).collect()).median();
        let mut memory: Vec<f64> = costs.iter().map(|cost| cost.memory).collect();
        memory.sort_by(f64::total_cmp);
        Self { wall, memory: memory[(memory.len() - 1) / 2] }
    }
}

impl Size {
    pub(super) fn wall_figure(&self) -> Figure {
        let name = format!("full clone, HTTPS, {} objects", self.objects);
        let (ours, theirs) = (Quantity::of(self.ours.wall), Quantity::of(self.theirs.wall));
        Figure::beside(&name, ours, theirs, Target::Ratio(0.55)).aiming_at(0.38)
    }

    pub(super) fn memory_figure(&self) -> Figure {
        let name = format!("most memory, {} objects, against git's largest process", self.objects);
        let of = |cost: Cost| Quantity::Megabytes(cost.memory / 1e6);
        Figure::beside(&name, of(self.ours), of(self.theirs), Target::Ratio(3.0)).aiming_at(1.5)
    }
}

/// The table of sizes in Markdown.
pub(super) fn table(sizes: &[Size]) -> String {
    let mut text = String::from(
        "| objects | files | pack | unpacked | Sortie | git | ratio | memory of Sortie | memory of git | ratio |\n\
         |--------:|------:|-----:|---------:|-------:|----:|------:|-----------------:|--------------:|------:|\n",
    );
    for size in sizes {
        let Size { objects, files, pack_bytes, unpacked_bytes, ours, theirs } = size;
        let _ = writeln!(
            text,
            "| {objects} | {files} | {:.1} MB | {:.0} MB | {} | {} | {:.2} × | {:.1} MB | {:.1} MB | {:.2} × |",
            pack_bytes / 1e6,
            unpacked_bytes / 1e6,
            Quantity::of(ours.wall).in_words(),
            Quantity::of(theirs.wall).in_words(),
            ours.wall.as_secs_f64() / theirs.wall.as_secs_f64(),
            ours.memory / 1e6,
            theirs.memory / 1e6,
            ours.memory / theirs.memory,
        );
    }
    text
}

/// Where the lines bend, in sentences made from the figures.
pub(super) fn sentences(sizes: &[Size]) -> String {
    let microseconds = |cost: Cost| cost.wall.as_secs_f64() * 1e6;
    let bytes = |cost: Cost| cost.memory;
    let costs = |of: fn(&Size) -> Cost| sizes.iter().map(|size| (size.objects, of(size))).collect::<Vec<_>>();
    let (ours, theirs) = (costs(|size| size.ours), costs(|size| size.theirs));
    [
        bends("The time of `sortie clone`", &ours, microseconds, "µs"),
        bends("The time of `git clone`", &theirs, microseconds, "µs"),
        bends("The memory of `sortie clone`", &ours, bytes, "bytes"),
        bends("The memory of git's largest process", &theirs, bytes, "bytes"),
    ]
    .concat()
}

/// What each further object costs between two sizes, and where that changes.
fn bends(what: &str, costs: &[(usize, Cost)], quantity: impl Fn(Cost) -> f64, unit: &str) -> String {
    let slopes: Vec<(usize, usize, f64)> = costs
        .windows(2)
        .map(|pair| {
            let [(few, less), (many, more)] = [pair[0], pair[1]];
            (few, many, (quantity(more) - quantity(less)) / (many - few) as f64)
        })
        .collect();
    let each: Vec<String> = slopes
        .iter()
        .map(|(few, many, slope)| format!("{slope:.1} {unit} for each object between {few} and {many}"))
        .collect();
    let most = costs.last().map_or(0.0, |(_, cost)| quantity(*cost));
    let mut bends = Vec::new();
    for pair in slopes.windows(2) {
        let [(_, at, before), (_, until, after)] = [pair[0], pair[1]];
        let comes_to = (after - before) * (until - at) as f64;
        if comes_to.abs() < most * LEAST {
            continue;
        }
        if after > before * BEND {
            bends.push(format!("the line bends upward at {at} objects"));
        } else if before > after * BEND {
            bends.push(format!("the line bends downward at {at} objects"));
        }
    }
    let verdict =
        if bends.is_empty() { "the line is straight, within a quarter".to_owned() } else { bends.join("; ") };
    format!("- {what} grows by {}: {verdict}.\n", each.join(", and by "))
}
