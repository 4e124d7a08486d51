//! Reads `.gitmodules` by the rules of git's configuration files, from memory: no other file is ever included.

use std::iter::Peekable;
use std::str::Chars;

/// What a section `[submodule "name"]` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) path: Option<String>,
    pub(super) url: Option<String>,
    /// Whether git leaves the submodule empty (`update = none`).
    pub(super) is_left_out: bool,
}

/// The submodules that the text names, each once; what comes later counts. `None` for a text that is out of form.
pub(super) fn parse(text: &str) -> Option<Vec<Section>> {
    let mut reader = Reader(text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable());
    let mut sections: Vec<Section> = Vec::new();
    let mut current: Option<usize> = None;
    while let Some(c) = reader.next() {
        match c {
            _ if c.is_ascii_whitespace() => {}
            '#' | ';' => reader.skip_line(),
            '[' => {
                current = reader.header()?.map(|name| {
                    let known = sections.iter().position(|section| section.name == name);
                    known.unwrap_or_else(|| {
                        sections.push(Section { name, ..Section::default() });
                        sections.len() - 1
                    })
                });
            }
            _ if c.is_ascii_alphabetic() => {
                let (key, value) = reader.setting(c)?;
                let section = current.and_then(|place| sections.get_mut(place));
                match (section, key.as_str(), value) {
                    (Some(section), "path", Some(value)) => section.path = Some(value),
                    (Some(section), "url", Some(value)) => section.url = Some(value),
                    (Some(section), "update", Some(value)) => section.is_left_out = value == "none",
                    _ => {}
                }
            }
            _ => return None,
        }
    }
    Some(sections)
}

struct Reader<'a>(Peekable<Chars<'a>>);

impl Reader<'_> {
    /// The next character; both ends of a line are one.
    fn next(&mut self) -> Option<char> {
        let c = self.0.next()?;
        if c == '\r' && self.0.peek() == Some(&'\n') { self.0.next() } else { Some(c) }
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|c| c != '\n') {}
    }

    /// The rest of a header. The inner value is `None` for a section that is none of a submodule's.
    fn header(&mut self) -> Option<Option<String>> {
        let mut kind = String::new();
        loop {
            match self.next()? {
                ']' => return Some(None),
                ' ' | '\t' => break,
                c if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') => kind.push(c.to_ascii_lowercase()),
                _ => return None,
            }
        }
        while self.0.peek().is_some_and(|c| matches!(c, ' ' | '\t')) {
            self.next();
        }
        let mut name = String::new();
        if self.next()? != '"' {
            return None;
        }
        loop {
            match self.next()? {
                '"' => break,
                '\n' => return None,
                '\\' => name.push(self.next().filter(|c| *c != '\n')?),
                c => name.push(c),
            }
        }
        (self.next()? == ']').then(|| (kind == "submodule").then_some(name))
    }

    /// A key that begins with `first`, in lower case, and its value; `None` for a key alone.
    fn setting(&mut self, first: char) -> Option<(String, Option<String>)> {
        let mut key = String::from(first.to_ascii_lowercase());
        while let Some(c) = self.0.next_if(|c| c.is_ascii_alphanumeric() || *c == '-') {
            key.push(c.to_ascii_lowercase());
        }
        loop {
            match self.next() {
                Some(' ' | '\t') => {}
                Some('=') => return Some((key, Some(self.value()?))),
                Some('\n') | None => return Some((key, None)),
                Some('#' | ';') => {
                    self.skip_line();
                    return Some((key, None));
                }
                Some(_) => return None,
            }
        }
    }

    fn value(&mut self) -> Option<String> {
        let (mut value, mut spaces, mut is_quoted) = (String::new(), String::new(), false);
        loop {
            let c = self.next().unwrap_or('\n');
            match c {
                '\n' if is_quoted => return None,
                '\n' => return Some(value),
                '#' | ';' if !is_quoted => {
                    self.skip_line();
                    return Some(value);
                }
                _ if c.is_ascii_whitespace() && !is_quoted => {
                    if !value.is_empty() {
                        spaces.push(c);
                    }
                    continue;
                }
                _ => value.push_str(&std::mem::take(&mut spaces)),
            }
            match c {
                '"' => is_quoted = !is_quoted,
                '\\' => match self.next()? {
                    '\n' => {}
                    't' => value.push('\t'),
                    'b' => value.push('\u{8}'),
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    _ => return None,
                },
                c => value.push(c),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<(String, String, String)>> {
        let all = parse(text)?.into_iter();
        Some(all.map(|s| (s.name, s.path.unwrap_or_default(), s.url.unwrap_or_default())).collect())
    }

    fn one(name: &str, path: &str, url: &str) -> Option<Vec<(String, String, String)>> {
        Some(vec![(name.into(), path.into(), url.into())])
    }

    #[test]
    fn what_git_reads_is_read() {
        assert_eq!(read("[submodule \"a\"]\n\tpath = lib\n\turl = ../b.git\n"), one("a", "lib", "../b.git"));
        assert_eq!(read("[submodule \"a\"]\r\n\tPath = lib\r\n\turl=x#y\r\n"), one("a", "lib", "x"));
        assert_eq!(read("[SubModule  \"a \\\"b\\\\\"] path = \"a b\" ; no"), one("a \"b\\", "a b", ""));
        assert_eq!(read("[submodule \"a\"]\npath = one \\\n two  \nurl\n"), one("a", "one  two", ""));
        assert_eq!(read("[submodule \"a\"]\npath=\"x\r\"\n[submodule \"a\"]\nurl=u\n"), one("a", "x\r", "u"));
        assert_eq!(read("[submodule \"a\"]\npath=x\npath=y\nurl = \"a#b\"\n"), one("a", "y", "a#b"));
    }

    #[test]
    fn other_sections_count_for_nothing_and_nothing_is_included() {
        let text =
            "[include]\npath = /etc/passwd\n[core]\nurl = x\n[submodule \"a\"]\nupdate = !sh\nbranch = x\n";
        assert_eq!(read(text), one("a", "", ""));
        assert_eq!(read("path = x\nurl = y\n"), Some(vec![]));
    }

    #[test]
    fn what_is_out_of_form_is_nothing() {
        for text in [
            "[submodule \"a]\n",
            "[submodule \"a\"",
            "[submodule a]\n",
            "[x\n]",
            "= y\n",
            "[submodule \"a\"]\nurl = \"x\n",
            "[submodule \"a\"]\nurl = \\q\n",
            "a b\n",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
