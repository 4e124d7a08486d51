//! What is wanted of a server's list of references, kept while the list passes by.
//!
//! As in [`super::summary`] the list is read without libgit2 and is not kept: what does not match costs nothing, and
//! what matches is bounded in number and in bytes.

use std::sync::Arc;

use super::pkt::scrubbed;
use super::refname::{self, Near};
use super::summary::read_from;
use super::wire::Wire;
use super::{Control, Error, Remote, Summary, blocking, is_acceptable_name};
use crate::report::StageLog;

/// The most bytes that the references of one list have as they travel. With everything else of an answer they fit
/// a message of the protocol.
const MAX_LIST_BYTES: usize = 768 * 1024;

/// About what one reference takes beside its name and its objects, in bytes.
const REFERENCE_BYTES: usize = 64;

/// What ends the name of the object that an annotated tag leads to.
const PEELED: &str = "^{}";

/// Which references are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    /// Full names, or globs over full names: `*` is any run of characters, `?` is one. None at all are branches and
    /// tags.
    pub patterns: Vec<String>,
    /// How many at the most.
    pub limit: usize,
}

/// The references that were wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// What holds for the whole list.
    pub summary: Summary,
    /// How many match.
    pub total: u64,
    /// Whether some that match are left out.
    pub truncated: bool,
    /// Those that match, in the server's order.
    pub references: Vec<ListedReference>,
}

/// A reference as a server lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedReference {
    /// The full name.
    pub name: String,
    /// The object, in hex.
    pub target: String,
    /// What an annotated tag leads to, in hex.
    pub peeled: Option<String>,
}

/// What a name turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The full name of the reference; `None` for a bare commit.
    pub name: Option<String>,
    /// The object that it names, in hex.
    pub target: String,
    /// What an annotated tag leads to, in hex.
    pub peeled: Option<String>,
}

impl Found {
    /// The commit, where tags lead to one.
    pub fn commit(&self) -> &str {
        self.peeled.as_deref().unwrap_or(&self.target)
    }
}

/// Lists references. Stages are those of [`super::summarize`]; the last one still runs when this returns.
///
/// # Errors
/// Why there is no list; [`Error::stage`] says where.
pub async fn list(
    remote: &Remote,
    wanted: &ListRequest,
    control: &Control,
    log: &StageLog,
) -> Result<Listed, Error> {
    let filter = Filter::new(wanted.clone());
    blocking::run(remote, control, log, move |wire| {
        let (summary, selection) = read(wire, Selection::Filter(filter))?;
        let Selection::Filter(Filter { total, truncated, listed, .. }) = selection else {
            return Ok(Listed { summary, ..Listed::default() });
        };
        Ok(Listed { summary, total, truncated, references: listed })
    })
    .await
}

/// Finds one reference by a name as a person writes it: a branch, a tag, a full name or a full commit; `None` is what
/// the server's `HEAD` is. A commit is taken at its word, because no list can tell. Stages as for [`list`].
///
/// # Errors
/// [`Error::ReferenceInvalid`], [`Error::ReferenceNotFound`] with near names, [`Error::Empty`], and why there is no
/// list.
pub async fn find(
    remote: &Remote,
    name: Option<&str>,
    control: &Control,
    log: &StageLog,
) -> Result<Found, Error> {
    if let Some(name) = name.filter(|name| !is_acceptable_name(name)) {
        return Err(Error::ReferenceInvalid { name: scrubbed(name.as_bytes()) });
    }
    let name = name.filter(|name| *name != "HEAD").map(str::to_owned);
    blocking::run(remote, control, log, move |wire| {
        let lookup = Lookup::new(name.as_deref().unwrap_or("HEAD"));
        let (summary, selection) = read(wire, Selection::Lookup(lookup))?;
        match (name, selection) {
            (Some(name), Selection::Lookup(lookup)) => lookup.into_found(&name, &summary),
            _ => head(summary),
        }
    })
    .await
}

fn read(wire: &Arc<Wire>, selection: Selection) -> Result<(Summary, Selection), Error> {
    wire.observer().select(selection);
    // The deadline and a cancel cut connections, so that they are the reason of whatever broke then.
    read_from(wire).map_err(|error| wire.control.check().err().unwrap_or(error))?;
    let mut observer = wire.observer();
    let selection = observer.take_selection();
    let summary = observer.take_summary();
    drop(observer);
    wire.log.fact("references", summary.references);
    if let Some(branch) = &summary.head_branch {
        wire.log.fact("head_branch", scrubbed(branch.as_bytes()));
    }
    let selection = selection.ok_or(Error::Internal { what: "reading the list", class: 0, code: 0 })?;
    Ok((summary, selection))
}

fn head(summary: Summary) -> Result<Found, Error> {
    match summary {
        Summary { head: Some(target), head_branch, .. } => {
            Ok(Found { name: head_branch, target, peeled: None })
        }
        Summary { references: 0, .. } => Err(Error::Empty),
        Summary { head_branch, .. } => Err(Error::DefaultBranchMissing {
            branch: head_branch.map(|name| scrubbed(name.as_bytes())),
            branches: Vec::new(),
        }),
    }
}

/// What is looked for in a list while it passes by.
pub(super) enum Selection {
    /// All that match.
    Filter(Filter),
    /// The one that a name means.
    Lookup(Lookup),
}

impl Selection {
    /// Looks at one line of the list. A name that was `cut` is too long to be anybody's.
    pub(super) fn note(&mut self, target: &[u8], name: &[u8], cut: bool) {
        // Names that are not UTF-8 are left out, because nobody can ask for them; git allows no control characters.
        let (Ok(target), Ok(name)) = (std::str::from_utf8(target), std::str::from_utf8(name)) else { return };
        if !name.starts_with("refs/") || name.chars().any(char::is_control) {
            return;
        }
        match self {
            Self::Filter(filter) if cut => filter.truncated = true,
            Self::Filter(filter) => filter.note(target, name),
            Self::Lookup(lookup) if !cut => lookup.note(target, name),
            Self::Lookup(_) => {}
        }
    }
}

/// Keeps what matches one of the patterns, up to the limits.
pub(super) struct Filter {
    wanted: ListRequest,
    bytes_left: usize,
    total: u64,
    truncated: bool,
    listed: Vec<ListedReference>,
}

impl Filter {
    fn new(mut wanted: ListRequest) -> Self {
        if wanted.patterns.is_empty() {
            wanted.patterns = vec!["refs/heads/*".to_owned(), "refs/tags/*".to_owned()];
        }
        Self { wanted, bytes_left: MAX_LIST_BYTES, total: 0, truncated: false, listed: Vec::new() }
    }

    fn note(&mut self, target: &str, name: &str) {
        if let Some(tag) = name.strip_suffix(PEELED) {
            if let Some(last) = self.listed.last_mut().filter(|last| last.name == tag) {
                last.peeled = Some(target.to_owned());
            }
            return;
        }
        if !self.wanted.patterns.iter().any(|pattern| matches(pattern, name)) {
            return;
        }
        self.total += 1;
        // Room for what the tag leads to, although only the next line tells whether it is one; a quotation mark in a
        // name takes two bytes.
        let bytes = REFERENCE_BYTES + 2 * (name.len() + target.len());
        if self.listed.len() < self.wanted.limit && bytes <= self.bytes_left && !self.truncated {
            self.bytes_left -= bytes;
            let (name, target) = (name.to_owned(), target.to_owned());
            self.listed.push(ListedReference { name, target, peeled: None });
        } else {
            self.truncated = true;
        }
    }
}

/// Keeps what a name could mean, and names that are like it.
pub(super) struct Lookup {
    /// Full names, the first meaning first.
    meanings: Vec<String>,
    found: Vec<Option<ListedReference>>,
    near: Near,
}

impl Lookup {
    fn new(name: &str) -> Self {
        // The order of `refname::select`.
        let full = name.starts_with("refs/").then(|| name.to_owned());
        let others = ["heads/", "tags/", ""].map(|kind| format!("refs/{kind}{name}"));
        let meanings: Vec<String> = full.into_iter().chain(others).collect();
        Self { found: vec![None; meanings.len()], meanings, near: Near::new(name) }
    }

    fn note(&mut self, target: &str, name: &str) {
        let tag = name.strip_suffix(PEELED);
        let full = tag.unwrap_or(name);
        if let Some(place) = self.meanings.iter().position(|meaning| meaning == full) {
            match (self.found.get_mut(place), tag) {
                (Some(Some(known)), Some(_)) => known.peeled = Some(target.to_owned()),
                (Some(slot), None) => {
                    let (name, target) = (name.to_owned(), target.to_owned());
                    *slot = Some(ListedReference { name, target, peeled: None });
                }
                _ => {}
            }
        }
        self.near.note(name);
    }

    fn into_found(self, name: &str, summary: &Summary) -> Result<Found, Error> {
        if let Some(found) = self.found.into_iter().flatten().next() {
            let ListedReference { name, target, peeled } = found;
            return Ok(Found { name: Some(name), target, peeled });
        }
        if summary.references == 0 && summary.head.is_none() {
            return Err(Error::Empty);
        }
        if let Some(commit) = refname::commit(name) {
            return Ok(Found { name: None, target: commit.to_string(), peeled: None });
        }
        Err(Error::ReferenceNotFound { name: name.to_owned(), near: self.near.into_names() })
    }
}

/// Whether a name is the pattern, where `*` stands for any run of characters and `?` for one. Slashes are characters
/// like others, as in a refspec. There is one place to go back to at any time, so that the worst pattern takes the
/// product of both lengths.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut in_pattern, mut in_name) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(in_name) {
        match pattern.get(in_pattern) {
            Some(b'*') => {
                in_pattern += 1;
                back = Some((in_pattern, in_name));
            }
            Some(b'?') => {
                in_pattern += 1;
                in_name += 1;
                while name.get(in_name).is_some_and(|byte| is_continuation(*byte)) {
                    in_name += 1;
                }
            }
            Some(wanted) if wanted == byte => {
                in_pattern += 1;
                in_name += 1;
            }
            _ => {
                let Some((after_star, from)) = back else { return false };
                in_pattern = after_star;
                in_name = from + 1;
                back = Some((after_star, in_name));
            }
        }
    }
    pattern.iter().skip(in_pattern).all(|byte| *byte == b'*')
}

/// Whether a byte goes on with a character of UTF-8.
fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn object(digit: &str) -> String {
        digit.repeat(40)
    }

    fn feed(selection: &mut Selection, lines: &[(&str, &str)]) {
        for (digit, name) in lines {
            selection.note(object(digit).as_bytes(), name.as_bytes(), false);
        }
    }

    fn filtered(patterns: &[&str], limit: usize, lines: &[(&str, &str)]) -> Filter {
        let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let mut selection = Selection::Filter(Filter::new(ListRequest { patterns, limit }));
        feed(&mut selection, lines);
        let Selection::Filter(filter) = selection else { panic!("a filter") };
        filter
    }

    const LINES: [(&str, &str); 7] = [
        ("a", "HEAD"),
        ("a", "refs/heads/main"),
        ("b", "refs/heads/release/1/x"),
        ("c", "refs/merge-requests/1/head"),
        ("d", "refs/tags/v1"),
        ("a", "refs/tags/v1^{}"),
        ("e", "refs/tags/v2"),
    ];

    #[test]
    fn globs_are_those_of_refspecs() {
        for (pattern, name, expected) in [
            ("refs/heads/*", "refs/heads/release/1/x", true),
            ("refs/heads/*", "refs/heads/", true),
            ("refs/heads/main", "refs/heads/main", true),
            ("refs/heads/main", "refs/heads/main2", false),
            ("*/v?", "refs/tags/v1", true),
            ("*/v?", "refs/tags/v12", false),
            ("*/v?", "refs/tags/vß", true),
            ("*a*b*c", "refs/aXbXbc", true),
            ("*a*b*c", "refs/aXbXb", false),
            ("**", "refs/x", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert!(!matches(&"*a".repeat(100), &"a".repeat(99)));
    }

    #[test]
    fn branches_and_tags_are_kept_where_nothing_is_asked_for_and_tags_are_peeled() {
        let filter = filtered(&[], 10, &LINES);
        assert_eq!((filter.total, filter.truncated), (4, false));
        let tag = &filter.listed[2];
        assert_eq!((tag.name.as_str(), tag.peeled.clone()), ("refs/tags/v1", Some(object("a"))));
        assert_eq!(filter.listed[3].peeled, None);
    }

    #[test]
    fn what_is_over_the_limit_is_counted_and_not_kept() {
        let filter = filtered(&["refs/*"], 3, &LINES);
        assert_eq!((filter.total, filter.truncated, filter.listed.len()), (5, true, 3));
        let name = |number: usize| format!("refs/heads/{number:0900}");
        let names: Vec<String> = (0..2000).map(name).collect();
        let lines: Vec<_> = names.iter().map(|name| ("a", name.as_str())).collect();
        let filter = filtered(&[], 5000, &lines);
        assert!(filter.truncated && filter.total == 2000);
        let bytes: usize = filter.listed.iter().map(|reference| reference.name.len()).sum();
        assert!(bytes > MAX_LIST_BYTES / 4 && bytes < MAX_LIST_BYTES, "{bytes}");
    }

    #[test]
    fn names_that_nobody_can_ask_for_are_left_out() {
        let mut selection = Selection::Filter(Filter::new(ListRequest { patterns: vec![], limit: 10 }));
        selection.note(object("a").as_bytes(), b"refs/heads/\xff", false);
        selection.note(object("a").as_bytes(), b"refs/heads/\x1b[31m", false);
        selection.note(object("a").as_bytes(), b"refs/heads/cut", true);
        let Selection::Filter(filter) = selection else { panic!("a filter") };
        assert_eq!((filter.total, filter.truncated, filter.listed), (0, true, vec![]));
    }

    #[test]
    fn a_name_is_looked_up_by_the_rules_of_clones() {
        let summary = Summary { references: 5, ..Summary::default() };
        let found = |name: &str| {
            let mut selection = Selection::Lookup(Lookup::new(name));
            feed(&mut selection, &LINES);
            let Selection::Lookup(lookup) = selection else { panic!("a lookup") };
            lookup.into_found(name, &summary)
        };
        let tag = found("v1").unwrap();
        assert_eq!((tag.name.as_deref(), tag.commit()), (Some("refs/tags/v1"), object("a").as_str()));
        assert_eq!(found("merge-requests/1/head").unwrap().target, object("c"));
        assert_eq!(found(&object("f")).unwrap().name, None);
        let Err(Error::ReferenceNotFound { near, .. }) = found("mian") else { panic!("not found") };
        assert_eq!(near, ["main"]);
    }
}
