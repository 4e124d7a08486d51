//! What the output can show: its width, its characters, its colors; and texts made fit for it.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// The width where the output does not say its own, in columns.
const DEFAULT_WIDTH: usize = 100;
/// The least width that is laid out for, in columns.
const MIN_WIDTH: usize = 40;
/// The width beyond which lines are hard to read, in columns.
const MAX_WIDTH: usize = 120;

/// A place to print to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    /// In columns.
    pub(super) width: usize,
    /// Whether it shows more than ASCII.
    pub(super) unicode: bool,
    /// Whether escape codes for colors are wanted.
    pub(super) colors: bool,
    /// Whether what was printed can be replaced: it is a terminal that moves its cursor.
    pub(super) live: bool,
}

/// What a color stands for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Color {
    Good,
    Warning,
    Bad,
    Faint,
    Strong,
}

impl Screen {
    /// Standard output.
    pub(super) fn of_stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    /// Standard error.
    pub(super) fn of_stderr() -> Self {
        Self::of(&std::io::stderr())
    }

    fn of(output: &(impl IsTerminal + AsFd)) -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is_dumb = set("TERM").is_some_and(|term| term == "dumb");
        let columns = set("COLUMNS").and_then(|columns| columns.parse().ok());
        let measured = || terminal_size::terminal_size_of(output).map(|(width, _)| usize::from(width.0));
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
        let encoding = locale.to_ascii_lowercase();
        Self {
            width: columns.or_else(measured).unwrap_or(DEFAULT_WIDTH).clamp(MIN_WIDTH, MAX_WIDTH),
            unicode: !is_dumb && (encoding.contains("utf-8") || encoding.contains("utf8")),
            colors: !is_dumb && output.is_terminal() && set("NO_COLOR").is_none(),
            live: !is_dumb && output.is_terminal(),
        }
    }

    /// The text in a color, where colors are wanted.
    pub(super) fn paint(&self, color: Color, text: &str) -> String {
        if !self.colors || text.is_empty() {
            return text.to_owned();
        }
        let code = match color {
            Color::Good => "32",
            Color::Warning => "33",
            Color::Bad => "31",
            Color::Faint => "2",
            Color::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// The text without anything that a terminal would obey, in characters that this one has.
    ///
    /// Servers have a say in most texts. Besides escape codes they must not turn the direction of writing or hide
    /// characters between others.
    pub(super) fn fit(&self, text: &str) -> String {
        let visible = text.chars().filter(|c| !c.is_control() && !is_invisible(*c));
        if self.unicode {
            return visible.collect();
        }
        let mut plain = String::with_capacity(text.len());
        for c in visible {
            match c {
                '→' => plain.push_str("->"),
                '…' => plain.push_str("..."),
                '–' | '—' => plain.push('-'),
                c if c.is_ascii() => plain.push(c),
                _ => plain.push('?'),
            }
        }
        plain
    }

    /// The text broken at spaces into lines of this screen, each with its end. A word that is too long stays whole,
    /// so that a URL or a fingerprint can be copied.
    pub(super) fn wrap(&self, first: &str, rest: &str, text: &str) -> String {
        let lines = self.lines(first, rest, text, self.width);
        lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    /// The text broken at spaces into lines of a width.
    pub(super) fn lines(&self, first: &str, rest: &str, text: &str, width: usize) -> Vec<String> {
        let spaced: String = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
        let options = textwrap::Options::new(width)
            .initial_indent(first)
            .subsequent_indent(rest)
            .break_words(false)
            .word_separator(textwrap::WordSeparator::AsciiSpace)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        let words: Vec<String> =
            spaced.split(' ').filter(|word| !word.is_empty()).map(|word| self.fit(word)).collect();
        textwrap::wrap(&words.join(" "), options).into_iter().map(Into::into).collect()
    }

    /// The text cut to a width, with a mark where something was cut off.
    pub(super) fn cut(&self, text: &str, width: usize) -> String {
        if text.width() <= width {
            return text.to_owned();
        }
        let mark = if self.unicode { "…" } else { "..." };
        let mut room = width.saturating_sub(mark.width());
        let kept = text.chars().take_while(|c| {
            let needed = c.width().unwrap_or(0);
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        });
        let mut cut: String = kept.collect();
        cut.push_str(mark);
        cut
    }
}

/// The text with spaces behind it up to a width, by what is seen and not by what is counted.
pub(super) fn padded(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// Marks of direction, joiners and the like: nothing that a name needs to be recognized.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: Screen = Screen { width: 100, unicode: true, colors: false, live: false };
    const ASCII: Screen = Screen { width: 40, unicode: false, colors: false, live: false };

    #[test]
    fn lines_keep_to_the_width_by_what_is_seen() {
        for screen in [WIDE, ASCII] {
            let text = "word 項目 ".repeat(30);
            let wrapped = screen.wrap("  - ", "    ", &text);
            assert!(wrapped.lines().count() > 2, "{wrapped}");
            assert!(wrapped.lines().all(|line| line.width() <= screen.width), "{wrapped}");
            assert!(
                wrapped.starts_with("  - word ") && wrapped.lines().nth(1).unwrap_or("").starts_with("    ")
            );
        }
        let fingerprint = "SHA256:".to_owned() + &"x".repeat(60);
        assert!(ASCII.wrap("", "", &format!("the key {fingerprint} is new")).contains(&fingerprint));
    }

    #[test]
    fn nothing_that_a_terminal_would_obey_is_left() {
        let hostile = "a\u{1b}[2Jb\u{9b}31mc\rd\u{202e}e\u{200b}f\u{7}\u{feff}g\u{8}";
        assert_eq!(WIDE.fit(hostile), "a[2Jb31mcdefg");
        assert_eq!(WIDE.wrap("", "", "one\n\ttwo\u{1b}]0;title\u{7}"), "one two]0;title\n");
    }

    #[test]
    fn ascii_is_all_that_some_screens_have() {
        assert_eq!(ASCII.fit("Menü → Größe…"), "Men? -> Gr??e...");
        assert_eq!(ASCII.cut("abcdefgh", 6), "abc...");
        assert_eq!(WIDE.cut("項目項目", 5), "項目…");
        assert_eq!(padded("項", 4), "項  ");
    }

    #[test]
    fn colors_are_for_those_who_want_them() {
        assert_eq!(WIDE.paint(Color::Bad, "x"), "x");
        assert_eq!(Screen { colors: true, ..WIDE }.paint(Color::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
    }
}
