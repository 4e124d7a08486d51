//! A table with aligned columns, in colors where somebody looks.

use std::io::IsTerminal as _;

/// How something went, which decides its color.
#[derive(Clone, Copy)]
pub(crate) enum Tone {
    /// Nothing to notice.
    Plain,
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
    /// Beside the point.
    Faint,
}

/// Colors a text where standard output is a terminal and `NO_COLOR` is not set.
pub(crate) fn colored(tone: Tone, text: &str) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Bad => "1;31",
        Tone::Faint => "2",
    };
    let wants_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if wants_none || !std::io::stdout().is_terminal() {
        return text.to_owned();
    }
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// The columns of a table whose rows are printed one by one, as they become known.
pub(crate) struct Table<const COLUMNS: usize> {
    widths: [usize; COLUMNS],
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// Prints the head. A column is as wide as its name or as its width, in characters.
    pub(crate) fn begin(names: [&str; COLUMNS], widths: [usize; COLUMNS]) -> Self {
        let mut table = Self { widths };
        for (width, name) in table.widths.iter_mut().zip(names) {
            *width = name.chars().count().max(*width);
        }
        table.row(names.map(|name| (Tone::Faint, name.to_owned())));
        table
    }

    /// Prints a row. A text that is too long pushes the rest of its row to the right.
    pub(crate) fn row(&self, cells: [(Tone, String); COLUMNS]) {
        let padded = cells.iter().zip(self.widths).map(|((tone, text), width)| {
            // Padded by hand, because the codes of colors would count as characters.
            let padding = " ".repeat(width.saturating_sub(text.chars().count()));
            colored(*tone, text) + &padding
        });
        println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
}
