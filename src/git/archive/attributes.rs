//! What `.gitattributes` say of the files in an archive, as `git archive` takes it from the commit's own trees.

use std::path::{Path, PathBuf};

use gix_attributes::search::{MetadataCollection, Outcome};
use gix_attributes::{Search, StateRef};
use gix_filter::eol::AttributesDigest;
use gix_glob::pattern::Case;
use gix_object::bstr::ByteSlice as _;

/// The name of the files.
pub(super) const FILE_NAME: &[u8] = b".gitattributes";

/// The attributes that change an archive, in the order in which they are looked up.
const NAMES: [&str; 5] = ["export-ignore", "export-subst", "text", "crlf", "eol"];

/// What the attributes of one path come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Treatment {
    /// It is left out.
    pub(super) is_ignored: bool,
    /// Git would expand placeholders in it.
    pub(super) is_substituted: bool,
    /// How its line ends become those of Windows; `None` leaves them alone.
    pub(super) line_ends: Option<AttributesDigest>,
}

/// Whether a file of attributes can change an archive at all. Most cannot, and then nothing is looked up.
pub(super) fn matters(content: &[u8]) -> bool {
    content.contains_str("export-") || content.contains_str("crlf")
}

/// The attributes from the root down to a directory.
pub(super) struct Attributes {
    search: Search,
    names: MetadataCollection,
    outcome: Outcome,
}

impl Attributes {
    pub(super) fn new() -> Self {
        let mut names = MetadataCollection::default();
        let mut search = Search::default();
        // The one macro that git knows by itself. A text in memory cannot fail to be read.
        let _ = search.add_patterns_buffer(
            b"[attr]binary -diff -merge -text",
            PathBuf::from("[builtin]"),
            None,
            &mut names,
            true,
        );
        let mut outcome = Outcome::default();
        outcome.initialize_with_selection(&names, NAMES);
        Self { search, names, outcome }
    }

    /// Adds the file of a directory, whose path ends with a slash or is empty.
    pub(super) fn push(&mut self, content: &[u8], directory: &[u8]) {
        let Ok(base) = gix_object::bstr::BStr::new(directory).to_path() else { return };
        let source = base.join(".gitattributes");
        let is_root = directory.is_empty();
        let _ =
            self.search.add_patterns_buffer(content, source, Some(Path::new("")), &mut self.names, is_root);
        self.outcome = Outcome::default();
        self.outcome.initialize_with_selection(&self.names, NAMES);
    }

    /// Takes the last one away again.
    pub(super) fn pop(&mut self) {
        self.search.pop_pattern_list();
    }

    /// Looks up a path without a slash at its end.
    pub(super) fn of(&mut self, path: &[u8], is_directory: bool) -> Treatment {
        self.outcome.reset();
        self.search.pattern_matching_relative_path(
            path.as_bstr(),
            Case::Sensitive,
            Some(is_directory),
            &mut self.outcome,
        );
        let mut states = self.outcome.iter_selected().map(|found| found.assignment.state);
        let mut next = || states.next().unwrap_or(StateRef::Unspecified);
        let (ignore, subst) = (next(), next());
        let (text, crlf, eol) = (next(), next(), next());
        Treatment {
            is_ignored: ignore == StateRef::Set,
            is_substituted: subst == StateRef::Set,
            line_ends: line_ends(text, crlf, eol),
        }
    }
}

/// As git's `convert_attrs` puts them together, without any configuration: only line ends of Windows are made.
fn line_ends(text: StateRef<'_>, crlf: StateRef<'_>, eol: StateRef<'_>) -> Option<AttributesDigest> {
    let is = |state: StateRef<'_>, wanted: &[u8]| state.as_bstr().is_some_and(|value| value == wanted);
    let is_known =
        |state| matches!(state, StateRef::Set | StateRef::Unset) || is(state, b"auto") || is(state, b"input");
    // `crlf` is the older name of `text`.
    let text = if is_known(text) { text } else { crlf };
    if text == StateRef::Unset || !is(eol, b"crlf") {
        return None;
    }
    Some(if is(text, b"auto") { AttributesDigest::TextAutoCrlf } else { AttributesDigest::TextCrlf })
}
