//! Names of references: which ones can be, what a short one means, and which ones are alike.

use super::Reference;
use super::pkt::USUAL_BRANCHES;

/// The longest name of a reference, in bytes.
const MAX_NAME_BYTES: usize = 1024;

/// How many near names an error carries.
const MAX_NEAR: usize = 5;

/// From this likeness on (0 to 1) a name is near another.
const NEAR_ENOUGH: f64 = 0.75;

/// Whether a text can be asked for as a branch, a tag, a full name of a reference or a commit, by git's
/// rules for names. Nothing that it lets through can be taken for an option or a refspec.
pub fn is_acceptable_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !name.starts_with('-')
        && !name.contains(['*', '^', ':'])
        && (name == "HEAD" || git2::Reference::is_valid_name(&full_branch_name(name)))
}

/// What a name turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Selected {
    /// A branch, by its full name, at that commit.
    Branch { name: String, oid: git2::Oid },
    /// A tag or another reference, by its full name, at that object.
    Detached { name: String, oid: git2::Oid },
    /// A commit by its full identifier, which no reference needs to lead to.
    Commit(git2::Oid),
    /// A commit by the beginning of its identifier.
    Prefix(String),
}

impl Selected {
    /// What it leads to, where that is known before anything has come.
    pub(super) fn target(&self) -> Option<git2::Oid> {
        match self {
            Self::Branch { oid, .. } | Self::Detached { oid, .. } | Self::Commit(oid) => Some(*oid),
            Self::Prefix(_) => None,
        }
    }
}

/// Finds what a name means among the references of a server: a full name, then a branch, a tag, any other
/// reference, and last a full or a short commit.
pub(super) fn select(name: &str, references: &[Reference]) -> Option<Selected> {
    let find = |full: &str| {
        let found = references.iter().find(|reference| reference.name == full)?;
        let oid = git2::Oid::from_str(&found.oid).ok()?;
        let name = full.to_owned();
        let is_branch = full.starts_with("refs/heads/");
        Some(if is_branch { Selected::Branch { name, oid } } else { Selected::Detached { name, oid } })
    };
    let full = name.starts_with("refs/").then(|| find(name)).flatten();
    let short = || find(&format!("refs/heads/{name}")).or_else(|| find(&format!("refs/tags/{name}")));
    let other = || find(&format!("refs/{name}"));
    let by_name = full.or_else(short).or_else(other);
    by_name.or_else(|| commit(name).map(Selected::Commit)).or_else(|| prefix(name, references))
}

/// A commit by its first digits. Where a tip of the server's begins so, it is that one.
fn prefix(name: &str, references: &[Reference]) -> Option<Selected> {
    const HEX_DIGITS: std::ops::Range<usize> = 4..40;
    if !HEX_DIGITS.contains(&name.len()) || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let mut tips: Vec<&str> =
        references.iter().map(|tip| tip.oid.as_str()).filter(|oid| oid.starts_with(&name)).collect();
    tips.sort_unstable();
    tips.dedup();
    match tips[..] {
        [tip] => git2::Oid::from_str(tip).ok().map(Selected::Commit),
        _ => Some(Selected::Prefix(name)),
    }
}

pub(super) fn commit(name: &str) -> Option<git2::Oid> {
    const HEX_DIGITS: usize = 40;
    let is_full = name.len() == HEX_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_full { git2::Oid::from_str(name).ok() } else { None }
}

/// Branches that could be meant where the server's default branch is missing, by their short names: those with usual
/// names first.
pub(super) fn likely_branches(references: &[Reference]) -> Vec<String> {
    let branches = references.iter().filter(|reference| reference.name.starts_with("refs/heads/"));
    let mut names: Vec<&str> = branches.map(|reference| reference.name.as_str()).collect();
    names.sort_by_key(|name| !USUAL_BRANCHES.contains(name));
    names.into_iter().take(MAX_NEAR).map(|name| short_name(name).to_owned()).collect()
}

/// The names of branches and tags that are like `name`, the most alike first.
pub(super) fn near(name: &str, references: &[Reference]) -> Vec<String> {
    let mut near = Near::new(name);
    references.iter().for_each(|reference| near.note(&reference.name));
    near.into_names()
}

/// The names that are most like one, found while a list passes by.
#[derive(Debug, Clone)]
pub(super) struct Near {
    wanted: String,
    /// The most alike first, and no more than [`MAX_NEAR`].
    best: Vec<(f64, String)>,
}

impl Near {
    pub(super) fn new(name: &str) -> Self {
        Self { wanted: short_name(name).to_lowercase(), best: Vec::new() }
    }

    /// Looks at the full name of a reference.
    pub(super) fn note(&mut self, full: &str) {
        let is_named = full.starts_with("refs/heads/") || full.starts_with("refs/tags/");
        if !is_named || full.ends_with("^{}") {
            return;
        }
        let score = likeness(&self.wanted, &short_name(full).to_lowercase());
        if score < NEAR_ENOUGH {
            return;
        }
        let place = self
            .best
            .partition_point(|(other, name)| other.total_cmp(&score).then_with(|| full.cmp(name)).is_gt());
        if place < MAX_NEAR {
            self.best.truncate(MAX_NEAR - 1);
            self.best.insert(place, (score, full.to_owned()));
        }
    }

    pub(super) fn into_names(self) -> Vec<String> {
        self.best.iter().map(|(_, name)| short_name(name).to_owned()).collect()
    }
}

/// How alike two names are. The last parts count too: `login` is near `feature/login`.
fn likeness(a: &str, b: &str) -> f64 {
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let same_last_part = if last(a) == last(b) { 0.9 } else { 0.0 };
    strsim::jaro_winkler(a, b).max(same_last_part)
}

fn short_name(full: &str) -> &str {
    full.strip_prefix("refs/heads/").or(full.strip_prefix("refs/tags/")).unwrap_or(full)
}

fn full_branch_name(name: &str) -> String {
    if name.starts_with("refs/") { name.to_owned() } else { format!("refs/heads/{name}") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn references() -> Vec<Reference> {
        let named = |name: &str, oid: &str| Reference { name: name.into(), oid: oid.into() };
        vec![
            named("HEAD", A),
            named("refs/heads/main", A),
            named("refs/heads/both", A),
            named("refs/heads/feature/login", A),
            named("refs/tags/both", B),
            named("refs/tags/v1", B),
            named("refs/merge-requests/1/head", B),
        ]
    }

    #[test]
    fn names_that_git_does_not_know_are_refused() {
        for name in ["main", "feature/x", "refs/heads/main", "HEAD", "v1.2.3", A, "merge-requests/1/head"] {
            assert!(is_acceptable_name(name), "{name}");
        }
        for name in
            ["", "-x", "--upload-pack=x", "a..b", "a b", "a\n", "x:y", "*", "a^", "x.lock", "/a", "a//b"]
        {
            assert!(!is_acceptable_name(name), "{name}");
        }
    }

    #[test]
    fn a_short_name_is_a_branch_before_it_is_a_tag() {
        let all = references();
        let named = |name| match select(name, &all) {
            Some(Selected::Branch { name, .. } | Selected::Detached { name, .. }) => name,
            other => panic!("{other:?}"),
        };
        assert_eq!(named("both"), "refs/heads/both");
        assert_eq!(named("refs/tags/both"), "refs/tags/both");
        assert_eq!(named("v1"), "refs/tags/v1");
        assert_eq!(named("merge-requests/1/head"), "refs/merge-requests/1/head");
        assert_eq!(select(B, &all), Some(Selected::Commit(git2::Oid::from_str(B).unwrap())));
        assert_eq!(select("nothing", &all), None);
        assert_eq!(select(&A[..12], &all), Some(Selected::Commit(git2::Oid::from_str(A).unwrap())));
        assert_eq!(select("cafe", &all), Some(Selected::Prefix("cafe".into())));
        assert_eq!(select("caf", &all), None);
    }

    #[test]
    fn near_names_are_offered() {
        assert_eq!(near("mian", &references()), ["main"]);
        assert_eq!(near("login", &references()), ["feature/login"]);
        assert!(near("zzz", &references()).is_empty());
    }
}
