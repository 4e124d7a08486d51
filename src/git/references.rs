//! The references that a server lists, which is also how a repository is tested.

use std::sync::{Arc, PoisonError};

use git2::Direction;

use super::pkt::scrubbed;
use super::wire::Wire;
use super::{Access, Control, Error, Remote, blocking};
use crate::report::{Stage, StageLog};

/// What a server lists before anything is fetched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advertisement {
    /// The branch that `HEAD` stands for, by its full name.
    pub head_branch: Option<String>,
    /// The commit that `HEAD` leads to; missing where its branch has no commit yet.
    pub head: Option<String>,
    /// Branches, tags and the rest, without `HEAD` and without the objects that tags lead to.
    pub references: Vec<Reference>,
    /// The path of another repository that the server led to instead of the one that was asked for.
    pub moved_to: Option<String>,
}

impl Advertisement {
    /// Whether there is nothing to fetch.
    pub fn is_empty(&self) -> bool {
        self.references.is_empty() && self.head.is_none()
    }
}

/// A name with what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The full name, as in `refs/heads/main`.
    pub name: String,
    /// The object, in hex.
    pub oid: String,
}

/// Asks for the list of references.
///
/// Over HTTPS the stages are `authenticate` and `repository` where they were not recorded before, then
/// `references`; over SSH the door's, `host_key`, `authenticate`, `repository` and `references`. The last one
/// still runs when this returns.
///
/// # Errors
/// Why there is no list; [`Error::stage`] says where.
pub async fn references(remote: &Remote, control: &Control, log: &StageLog) -> Result<Advertisement, Error> {
    blocking::run(remote, control, log, list).await
}

fn list(wire: &Arc<Wire>) -> Result<Advertisement, Error> {
    let detached = git2::Remote::create_detached(wire.url_for_git());
    let mut remote = detached.map_err(|error| internal("naming the remote", &error))?;
    let connected = remote.connect_auth(Direction::Fetch, None, None);
    connected.map_err(|error| connect_error(wire, &error))?;
    let advertisement = advertised(wire);
    ask_for_greeting(wire);
    Ok(advertisement)
}

/// Hears on the same connection what the server says to people, where that is known to do no harm. It comes last,
/// because some servers hang up after it.
fn ask_for_greeting(wire: &Wire) {
    let (Access::Ssh(login), Some(opened)) = (&wire.access, wire.opened.get()) else { return };
    if !login.greets {
        return;
    }
    wire.log.pass();
    let greeting = opened.lock().unwrap_or_else(PoisonError::into_inner).greeting(wire.control.time_left());
    if let Some(greeting) = greeting {
        wire.log.fact_at(Stage::Authenticate, "greeting", greeting.as_str());
        // Of two greetings of one server the first is as good as the second.
        let _ = login.seen.greeting.set(greeting);
    }
}

/// The list that an open connection brought. It is our own reading of it: libgit2's cannot tell of a name that
/// is not UTF-8 without a panic.
pub(super) fn advertised(wire: &Wire) -> Advertisement {
    let mut advertisement = wire.observer().take_list();
    advertisement.moved_to = wire.take_move();
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
        const USUAL: [&str; 2] = ["refs/heads/main", "refs/heads/master"];
        if self.head_branch.is_some() {
            return;
        }
        let Some(head) = &self.head else { return };
        let same =
            |reference: &&Reference| reference.name.starts_with("refs/heads/") && reference.oid == *head;
        let usual = |reference: &&Reference| USUAL.contains(&reference.name.as_str());
        let candidates: Vec<&Reference> = self.references.iter().filter(same).collect();
        let chosen = candidates.iter().copied().find(usual).or(candidates.first().copied());
        self.head_branch = chosen.map(|reference| reference.name.clone());
    }
}

/// What it means that libgit2 could not get a list, where no transport recorded why.
pub(super) fn connect_error(wire: &Wire, error: &git2::Error) -> Error {
    let observer = wire.observer();
    if let Some(message) = observer.error() {
        return Error::RepositoryUnavailable { exit_status: None, message: message.to_owned() };
    }
    const MAX_SHOWN_BYTES: usize = 200;
    let first = observer.first_bytes();
    if first.is_empty() {
        return internal("connecting", error);
    }
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
            moved_to: None,
            references: vec![
                reference("refs/heads/alpha", "a"),
                reference("refs/heads/main", "a"),
                reference("refs/tags/main", "a"),
            ],
        };
        advertisement.guess_head_branch();
        assert_eq!(advertisement.head_branch.as_deref(), Some("refs/heads/main"));
    }
}
