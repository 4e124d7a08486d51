//! The references that a server lists, as a clone needs them.

use super::Error;
use super::pkt::{USUAL_BRANCHES, scrubbed};
use super::wire::Wire;

/// What a server lists before anything is fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Advertisement {
    /// The branch that `HEAD` stands for, by its full name.
    pub(super) head_branch: Option<String>,
    /// The commit that `HEAD` leads to; missing where its branch has no commit yet.
    pub(super) head: Option<String>,
    /// Branches, tags and the rest, without `HEAD` and without the objects that tags lead to.
    pub(super) references: Vec<Reference>,
    /// Commits, in hex, at which the server's own history ends.
    pub(super) shallow: Vec<String>,
}

impl Advertisement {
    /// Whether there is nothing to fetch.
    pub(super) fn is_empty(&self) -> bool {
        self.references.is_empty() && self.head.is_none()
    }
}

/// A name with what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// The full name, as in `refs/heads/main`.
    pub(super) name: String,
    /// The object, in hex.
    pub(super) oid: String,
}

/// The list that an open connection brought. It is our own reading of it: libgit2's cannot tell of a name that
/// is not UTF-8 without a panic.
pub(super) fn advertised(wire: &Wire) -> Advertisement {
    let mut advertisement = wire.observer().take_list();
    // A repository without a commit lists nothing but its capabilities, under no object.
    advertisement.references.retain(|reference| reference.name.starts_with("refs/"));
    advertisement.guess_head_branch();
    wire.log.fact("references", advertisement.references.len());
    if let Some(branch) = &advertisement.head_branch {
        wire.log.fact("head_branch", branch.as_str());
    }
    advertisement
}

impl Advertisement {
    /// Servers of old do not say which branch `HEAD` stands for: it is one that leads to the same commit,
    /// and of several one with a usual name, as git itself guesses.
    fn guess_head_branch(&mut self) {
        if self.head_branch.is_some() {
            return;
        }
        let Some(head) = &self.head else { return };
        let same =
            |reference: &&Reference| reference.name.starts_with("refs/heads/") && reference.oid == *head;
        let usual = |reference: &&Reference| USUAL_BRANCHES.contains(&reference.name.as_str());
        let candidates: Vec<&Reference> = self.references.iter().filter(same).collect();
        let chosen = candidates.iter().copied().find(usual).or(candidates.first().copied());
        self.head_branch = chosen.map(|reference| reference.name.clone());
    }
}

/// What it means that libgit2 could not get a list, where no transport recorded why.
pub(super) fn connect_error(wire: &Wire, error: &git2::Error) -> Error {
    if wire.observer().is_silent() { internal("connecting", error) } else { unreadable(wire) }
}

/// What is wrong with a list that came and is none: the server's own word, or its first bytes.
pub(super) fn unreadable(wire: &Wire) -> Error {
    const MAX_SHOWN_BYTES: usize = 200;
    let observer = wire.observer();
    if let Some(message) = observer.error() {
        return Error::RepositoryUnavailable { exit_status: None, message: message.to_owned() };
    }
    let first = observer.first_bytes();
    Error::Protocol { first_bytes: scrubbed(&first[..first.len().min(MAX_SHOWN_BYTES)]) }
}

pub(super) fn internal(what: &'static str, error: &git2::Error) -> Error {
    Error::Internal { what, class: error.raw_class().cast_signed(), code: error.raw_code() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_branch_is_guessed_where_the_server_does_not_say() {
        let reference = |name: &str, oid: &str| Reference { name: name.into(), oid: oid.into() };
        let mut advertisement = Advertisement {
            head_branch: None,
            head: Some("a".into()),
            references: vec![
                reference("refs/heads/alpha", "a"),
                reference("refs/heads/main", "a"),
                reference("refs/tags/main", "a"),
            ],
            shallow: Vec::new(),
        };
        advertisement.guess_head_branch();
        assert_eq!(advertisement.head_branch.as_deref(), Some("refs/heads/main"));
    }
}
