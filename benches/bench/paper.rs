//! The table, on the screen and in the documentation.

use std::io;
use std::path::{Path, PathBuf};

use crate::effort::Effort;
use crate::figure::{Figure, Target};

/// Columns that are not as the others are.
const NAME: usize = 0;
const AIM: usize = 5;
const VERDICT: usize = 6;
/// What stands for something that is not there.
const NOTHING: &str = "";

/// The figures as a table in Markdown whose columns are aligned for the eye as well. Aims have a column where there are any.
pub(crate) fn table(figures: &[Figure]) -> String {
    let head = ["figure", "Sortie", "git", "ratio", "target", "aim", ""].map(str::to_owned);
    let mut rows = vec![head];
    rows.extend(figures.iter().map(row));
    let has_aims = figures.iter().any(|figure| figure.aim.is_some());
    let columns: Vec<usize> = (0..rows[0].len()).filter(|column| has_aims || *column != AIM).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = columns.iter().map(|column| (*column, width(*column))).collect::<Vec<_>>();
    let line = |row: &[String; 7]| {
        let cells = widths.iter().map(|(column, width)| match *column {
            NAME | VERDICT => format!("{:<width$}", row[*column]),
            _ => format!("{:>width$}", row[*column]),
        });
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule = widths.iter().map(|(column, width)| match *column {
        NAME | VERDICT => "-".repeat(width + 2),
        _ => "-".repeat(width + 1) + ":",
    });
    let rule = format!("|{}|\n", rule.collect::<Vec<_>>().join("|"));
    let mut lines = rows.iter().map(line);
    lines.next().unwrap_or_default() + &rule + &lines.collect::<String>()
}

fn row(figure: &Figure) -> [String; 7] {
    let target = match figure.target {
        Target::Ratio(most) => format!("≤ {most:?} ×"),
        Target::Milliseconds(most) => format!("≤ {most:.0} ms"),
        Target::Megabytes(most) => format!("≤ {most:.0} MB"),
        Target::PerSecond(least) => format!("≥ {least:.0}/s"),
        Target::RatioAtLeast(least) => format!("≥ {least:?} ×"),
        Target::None => NOTHING.to_owned(),
    };
    let verdict = match figure.target {
        Target::None => NOTHING,
        _ if figure.is_over() => "**over**",
        _ => "ok",
    };
    [
        figure.name.clone(),
        figure.ours.in_words(),
        figure.theirs.map_or_else(String::new, |theirs| theirs.in_words()),
        figure.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2} ×")),
        target,
        figure.aim.map_or_else(String::new, |aim| format!("{aim:?} ×")),
        verdict.to_owned(),
    ]
}

/// The page of what the agent costs: the table with what one has to know of it.
pub(crate) fn text(table: &str, facts: &[(&str, String)], effort: &Effort) -> String {
    let facts = listed(facts);
    let Effort { warm_ups, tests, starts, tasks, failovers, clone_failovers, throughput_seconds, herd, .. } =
        effort;
    format!(
        "# Measurements\n\n\
         Written by `make bench` (`cargo bench --bench bench`), which measures all of it in one run; do not edit.\n\
         What clones cost stands in [performance.md](performance.md).\n\n\
         {table}\n\
         ## The machine\n\n\
         {facts}\n\
         ## What was measured\n\n\
         - Times are medians where nothing else is said, and the wall time of a whole program from its start to its end.\n\
         - `sortie` and `git` take turns, after {warm_ups} runs of each that do not count, against the same server over\n\
         \x20 TLS on loopback, with the same certificate authority and the same token, sent with the first request by both.\n\
         - Connection tests: {tests} runs of each program, on a repository of a few commits. With an API they run\n\
         \x20 against the project's stand-ins, which serve git by `git http-backend`, and every call of the test counts;\n\
         \x20 without one against nginx with `git http-backend`. `git` only lists the references.\n\
         - A second test is one of a process that has tested before, as an agent's are: it keeps its HTTP client, and\n\
         \x20 still measures a connection of its own. `git` is the whole program, as before.\n\
         - The most memory is what the kernel counted for a whole `sortie test` (GNU time).\n\
         - Memory: the resident set (VmRSS) of a connected agent five seconds after its start, and after the tasks below.\n\
         - Start: {starts} starts of an enrolled agent, from the start of the process to its line `session is open`,\n\
         \x20 which it writes when it has the `welcome`.\n\
         - From POST to result: {tasks} connection tests, one after the other, with a client that keeps its\n\
         \x20 connection: POST, then GET with `?wait=30s`; less the `duration_ms` that each report gives itself.\n\
         \x20 The database is SQLite, which is synced before each answer.\n\
         - Killed agents: two agents, and a git server whose line falls silent for the connection of the first. The agent that\n\
         \x20 is at the task is killed (SIGKILL); from then until the other one has succeeded, the longest of {failovers} tests\n\
         \x20 and {clone_failovers} clones. A clone has effects, so that it goes on when the first one's lease has ended.\n\
         - Tasks a second: {throughput_seconds} s of connection tests through sessions of this process, which answer every offer at\n\
         \x20 once with `accept`, `start` and `result`; a task counts when its result is acknowledged. Beside it stand, in the\n\
         \x20 column of `git`, rows that one SQLite connection inserts with a commit each, with the same settings in the\n\
         \x20 same directory, right afterwards.\n\
         - The herd: {herd} sessions of this process with the daemon's own backoff, whose control plane is killed (`kill -9`)\n\
         \x20 and started again. The time counts from its start to the last `welcome`; the handshakes are those of the\n\
         \x20 busiest second in it.\n"
    )
}

/// The facts of the machine as a list in Markdown.
pub(crate) fn listed(facts: &[(&str, String)]) -> String {
    facts.iter().map(|(name, fact)| format!("- {name}: {fact}\n")).collect()
}

/// Writes a page below the package's directory, and returns the file.
///
/// # Errors
/// What the system answers when the file cannot be written.
pub(crate) fn keep(page: &str, text: &str) -> io::Result<PathBuf> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    std::fs::write(&file, text)?;
    Ok(file)
}
