//! References and configuration, so that a clone is one that git itself could have made.

use git2::{ObjectType, Oid, Repository};

use super::fetch::{Fetched, REMOTE, Want};
use super::refname::Selected;
use super::wire::Wire;
use super::{Error, PackProblem, packed_refs};

/// What stands in the log of references.
const MESSAGE: &str = "clone";

/// The commit that a reference leads to, through tags.
pub(super) fn peel(repository: &Repository, fetched: &Fetched) -> Result<Oid, Error> {
    let not_found = |name: &str| Error::ReferenceNotFound { name: name.to_owned(), near: Vec::new() };
    let (object, name) = match &fetched.selected {
        Selected::Branch { name, oid } | Selected::Detached { name, oid } => {
            let object = repository.find_object(*oid, None);
            (object.map_err(|_| Error::PackCorrupt(PackProblem::ObjectMissing))?, name.clone())
        }
        Selected::Commit(oid) => {
            let name = oid.to_string();
            (repository.find_object(*oid, None).map_err(|_| not_found(&name))?, name)
        }
        // Two objects that begin alike are as good as none: whoever asks must say more.
        Selected::Prefix(name) => {
            (repository.revparse_single(name).map_err(|_| not_found(name))?, name.clone())
        }
    };
    let kind = match object.kind() {
        Some(ObjectType::Tag) => object.peel(ObjectType::Any).ok().and_then(|object| object.kind()),
        kind => kind,
    };
    let commit = object.peel_to_commit().map(|commit| commit.id());
    commit.map_err(|_| match kind {
        // A tag may lead to a tree or a file: there is nothing to check out then.
        Some(kind @ (ObjectType::Tree | ObjectType::Blob)) => Error::NotACommit { name, kind: kind.str() },
        _ => not_found(&name),
    })
}

/// Sets everything that points at what came.
pub(super) fn attach(
    wire: &Wire,
    repository: &Repository,
    fetched: &Fetched,
    want: &Want,
    commit: Oid,
) -> Result<(), git2::Error> {
    let set = |name: &str, oid| repository.reference(name, oid, true, MESSAGE).map(drop);
    if fetched.all_branches || fetched.tags {
        set_many(repository, fetched)?;
    }
    match &fetched.selected {
        Selected::Branch { name, oid } => {
            let branch = name.strip_prefix("refs/heads/").unwrap_or(name);
            let tracking = format!("refs/remotes/{REMOTE}/{branch}");
            set(&tracking, *oid)?;
            set(name, commit)?;
            let mut local = repository.find_branch(branch, git2::BranchType::Local)?;
            local.set_upstream(Some(&format!("{REMOTE}/{branch}")))?;
            if fetched.list.head_branch.as_deref() == Some(name) {
                let head = format!("refs/remotes/{REMOTE}/HEAD");
                repository.reference_symbolic(&head, &tracking, true, MESSAGE)?;
            }
            if want.depth.is_some() && !fetched.all_branches {
                // A later fetch of all branches would bring their whole history.
                let key = format!("remote.{REMOTE}.fetch");
                repository.config()?.set_str(&key, &format!("+{name}:{tracking}"))?;
            }
            repository.set_head(name)?;
        }
        Selected::Detached { name, oid } => {
            if name.starts_with("refs/") {
                set(name, *oid)?;
            }
            repository.set_head_detached(commit)?;
        }
        Selected::Commit(_) | Selected::Prefix(_) => repository.set_head_detached(commit)?,
    }
    if let Some(url) = wire.url_of_origin() {
        repository.remote_set_url(REMOTE, &url)?;
    }
    Ok(())
}

/// Sets all branches of the remote, or all tags, or both.
fn set_many(repository: &Repository, fetched: &Fetched) -> Result<(), git2::Error> {
    let mut names = Vec::new();
    for reference in &fetched.list.references {
        let oid = Oid::from_str(&reference.oid)?;
        match reference.name.strip_prefix("refs/heads/") {
            Some(branch) if fetched.all_branches => {
                names.push((format!("refs/remotes/{REMOTE}/{branch}"), oid));
            }
            None if fetched.tags && reference.name.starts_with("refs/tags/") => {
                names.push((reference.name.clone(), oid));
            }
            _ => {}
        }
    }
    let written = packed_refs::write(repository, names.iter().map(|(name, oid)| (name.as_str(), *oid)));
    written
        .map_err(|_| git2::Error::new(git2::ErrorCode::GenericError, git2::ErrorClass::Os, "no references"))
}
