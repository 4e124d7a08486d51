//! `sortie clone` beside `git clone`, on the same servers.
//!
//! In reading order: `history` (the repositories), `lab` (servers and programs), this file (the cases), `growth`
//! (three sizes, with memory), `page` (docs/performance.md).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[path = "clones/growth.rs"]
mod growth;
#[path = "clones/history.rs"]
mod history;
#[path = "clones/lab.rs"]
mod lab;
#[path = "clones/page.rs"]
mod page;

use crate::archives;
use crate::effort::Effort;
use crate::figure::{Figure, Target};
use crate::support::process::command_line;
use crate::support::repository::{SampleRepository, git, run_git};
use crate::turns::compare;
use growth::Size;
use lab::{Expected, Lab, Way};

pub(crate) use page::text;

/// Clones that are started at once.
const CROWD: usize = 8;
/// The names of the repositories of three sizes, smallest first.
const SIZES: [&str; 3] = ["small", "medium", "large"];
/// The name of the repository with many references.
const REFERENCES: &str = "references";
/// What a clone by the agent's mirrors says of itself.
const FROM_MIRROR: &str = "\"source\":\"mirror\"";

/// Everything that is measured of clones.
pub(crate) struct Clones {
    /// The lines of the table.
    pub(crate) figures: Vec<Figure>,
    sizes: Vec<Size>,
    references: usize,
}

/// What a case does around the programs.
struct Case<'a> {
    lab: &'a Lab,
    repository: &'a str,
    commit: String,
    target: PathBuf,
}

/// Measures all of it.
pub(crate) fn measure(effort: &Effort) -> Clones {
    let directory = lab::directory_in_memory();
    for (name, size) in SIZES.iter().zip(&effort.sizes) {
        eprintln!("generating a repository of {} objects", size.objects);
        history::generate(&directory.path().join(format!("{name}.git")), size.objects);
    }
    eprintln!("generating a repository of {} references", effort.references);
    let many = directory.path().join(format!("{REFERENCES}.git"));
    SampleRepository::with_references(&many, effort.references);
    let [small, medium, large] = SIZES;
    let lab = Lab::start(directory, &[small, medium, large, REFERENCES]);
    let sizes: Vec<Size> = SIZES
        .iter()
        .zip(&effort.sizes)
        .map(|(name, size)| growth::measure(&lab, name, size.clones))
        .collect();
    let case = Case::of(&lab, medium);
    let line = format!("full clone, HTTPS, line held to {} MB/s", lab::LINE_BYTES / 1_000_000);
    let mut of_medium = vec![
        case.cold(&line, (0.8, 0.65), Way::Line, effort),
        case.cold("full clone, SSH", (0.65, 0.45), Way::Ssh, effort),
        case.shallow(effort),
        case.warm(effort),
        case.behind(effort),
        case.crowd(effort),
        archives::measure(&lab.path(&format!("{medium}.git")), &case.commit, lab.directory.path(), effort),
    ];
    for figure in &mut of_medium {
        figure.name = format!("{}, {} objects", figure.name, sizes[1].objects);
    }
    let mut figures: Vec<Figure> = sizes.iter().map(Size::wall_figure).collect();
    figures.extend(of_medium);
    figures.push(Case::of(&lab, REFERENCES).many_references(effort));
    figures.extend(sizes.last().map(Size::memory_figure));
    Clones { figures, sizes, references: effort.references }
}

impl<'a> Case<'a> {
    fn of(lab: &'a Lab, repository: &'a str) -> Self {
        let served = lab.path(&format!("{repository}.git"));
        let commit = run_git(&served, ["rev-parse", "HEAD"]);
        Self { lab, repository, commit, target: lab.path("clone") }
    }

    /// Nothing is there before.
    fn cold(&self, name: &str, (most, aim): (f64, f64), way: Way, effort: &Effort) -> Figure {
        let ours = || self.timed(self.lab.sortie(way, self.repository, &self.target));
        let theirs = || self.timed(self.lab.git(way, self.repository, &self.target));
        self.check(ours, theirs);
        compare(name, Target::Ratio(most), 0, effort.clones, ours, theirs).aiming_at(aim)
    }

    fn shallow(&self, effort: &Effort) -> Figure {
        let with_depth = |mut command: Command| {
            command.args(["--depth", "1"]);
            self.timed(command)
        };
        let ours = || with_depth(self.lab.sortie(Way::Https, self.repository, &self.target));
        let theirs = || with_depth(self.lab.git(Way::Https, self.repository, &self.target));
        self.check(ours, theirs);
        let target = Target::Ratio(0.9);
        compare("clone of depth 1, HTTPS", target, 1, effort.quick_clones, ours, theirs).aiming_at(0.75)
    }

    /// A mirror and a reference repository that have everything.
    fn warm(&self, effort: &Effort) -> Figure {
        let reference = self.reference();
        self.make_mirror();
        let ours = || self.timed_from_mirror();
        let theirs = || self.timed_with_reference(&reference);
        self.check(ours, theirs);
        let name = "clone by a mirror that is current, against `git clone --reference`";
        let figure = compare(name, Target::Ratio(0.6), 1, effort.quick_clones, ours, theirs);
        fs::remove_dir_all(&reference).expect("the reference repository can be removed");
        figure.aiming_at(0.4)
    }

    /// A mirror and a reference repository of before the last commits.
    fn behind(&self, effort: &Effort) -> Figure {
        let served = self.lab.path(&format!("{}.git", self.repository));
        let before = format!("main~{}", effort.behind);
        run_git(&served, ["update-ref", "refs/heads/main", &before]);
        let reference = self.reference();
        let old = Case::of(self.lab, self.repository);
        old.make_mirror();
        run_git(&served, ["update-ref", "refs/heads/main", &self.commit]);
        let kept = self.lab.path("state-before");
        copy(&self.lab.state(), &kept);
        let ours = || {
            // The run before has brought the mirror up to date.
            fs::remove_dir_all(self.lab.state()).expect("the state can be removed");
            copy(&kept, &self.lab.state());
            self.timed_from_mirror()
        };
        let theirs = || self.timed_with_reference(&reference);
        self.check(ours, theirs);
        let name =
            format!("clone by a mirror {} commits behind, against `git clone --reference`", effort.behind);
        let figure = compare(&name, Target::Ratio(0.65), 1, effort.quick_clones, ours, theirs);
        for directory in [&reference, &kept] {
            fs::remove_dir_all(directory).expect("what the case needed can be removed");
        }
        figure.aiming_at(0.4)
    }

    /// Several at once, and no mirror yet.
    fn crowd(&self, effort: &Effort) -> Figure {
        let targets: Vec<PathBuf> =
            (0..CROWD).map(|number| self.lab.path(&format!("clone-{number}"))).collect();
        let timed = |commands: Vec<Command>| {
            let took = self.lab.programs.time_all(commands);
            for target in &targets {
                Expected { commit: &self.commit, target }.is_there();
                fs::remove_dir_all(target).expect("the clone can be removed");
            }
            took
        };
        let ours = || {
            self.forget_mirrors();
            let commands =
                targets.iter().map(|target| self.lab.sortie(Way::Declared, self.repository, target));
            timed(commands.collect())
        };
        let theirs = || {
            let commands = targets.iter().map(|target| self.lab.git(Way::Https, self.repository, target));
            timed(commands.collect())
        };
        let name = format!("{CROWD} clones at once of a cold repository, against {CROWD} `git clone`");
        compare(&name, Target::Ratio(0.25), 0, effort.crowds, ours, theirs).aiming_at(0.15)
    }

    fn many_references(&self, effort: &Effort) -> Figure {
        let ours = || {
            let mut command = self.lab.sortie(Way::Https, self.repository, &self.target);
            // As `git clone` does.
            command.args(["--all-branches", "--tags"]);
            self.timed(command)
        };
        let theirs = || self.timed(self.lab.git(Way::Https, self.repository, &self.target));
        self.check(ours, theirs);
        let name = format!("full clone, HTTPS, of {} references", effort.references);
        compare(&name, Target::None, 0, effort.clones, ours, theirs)
    }

    /// Runs each program once and looks at all that it made.
    fn check(&self, ours: impl Fn() -> Duration, theirs: impl Fn() -> Duration) {
        for run in [&ours as &dyn Fn() -> Duration, &theirs] {
            run();
            // What was timed is still there: it is removed by whoever comes next.
            Expected { commit: &self.commit, target: &self.target }.is_whole();
        }
    }

    fn timed(&self, command: Command) -> Duration {
        self.clear();
        let took = self.lab.programs.time(command);
        Expected { commit: &self.commit, target: &self.target }.is_there();
        took
    }

    fn timed_from_mirror(&self) -> Duration {
        let took = self.timed(self.lab.sortie(Way::Declared, self.repository, &self.target));
        let said: String = self.lab.programs.said().split_whitespace().collect();
        assert!(said.contains(FROM_MIRROR), "no mirror was used: {said}");
        took
    }

    fn timed_with_reference(&self, reference: &Path) -> Duration {
        let mut command = self.lab.git(Way::Https, self.repository, &self.target);
        command.arg("--reference").arg(reference);
        self.timed(command)
    }

    fn clear(&self) {
        if self.target.exists() {
            fs::remove_dir_all(&self.target).expect("the clone can be removed");
        }
    }

    fn forget_mirrors(&self) {
        fs::remove_dir_all(self.lab.state()).expect("the state can be removed");
        fs::create_dir(self.lab.state()).expect("a directory for the agent's state");
    }

    /// Clones once by the agent's mirrors, which have nothing before.
    fn make_mirror(&self) {
        self.forget_mirrors();
        self.timed_from_mirror();
    }

    /// What `git clone --reference` borrows from: a bare clone of what the server has now.
    fn reference(&self) -> PathBuf {
        let served = self.lab.path(&format!("{}.git", self.repository));
        let reference = self.lab.path("reference.git");
        // Without `--no-local` it would take all packs over as they are, with what is newer in them.
        let mut command = git();
        command.args(["clone", "--quiet", "--bare", "--no-local"]).arg(served).arg(&reference);
        command_line(&mut command);
        reference
    }
}

/// Copies a directory with all that `cp -a` keeps.
fn copy(from: &Path, to: &Path) {
    command_line(Command::new("cp").arg("-a").arg(from).arg(to));
}
