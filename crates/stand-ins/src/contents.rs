//! Directories and files of a bare repository's commits, asked of the `git` program.

use std::io;
use std::path::Path;
use std::process::Output;

use crate::repository::git;

/// An entry of a tree.
pub(crate) struct TreeEntry {
    /// The mode, in octal, with six digits.
    pub(crate) mode: String,
    /// `blob`, `tree` or `commit`.
    pub(crate) kind: String,
    /// The object, in hexadecimal.
    pub(crate) object: String,
    /// The length of a blob in bytes.
    pub(crate) size: Option<u64>,
    /// The name in its directory.
    pub(crate) name: String,
}

/// The object at a path of a commit, and its kind; nothing where the commit or the path is unknown. The empty path is
/// the root.
pub(crate) async fn object_at(
    directory: &Path,
    commit: &str,
    path: &str,
) -> io::Result<Option<(String, String)>> {
    if !is_object(commit) {
        return Ok(None);
    }
    let name = if path.is_empty() { format!("{commit}^{{tree}}") } else { format!("{commit}:{path}") };
    let Some(object) = ask(directory, &["rev-parse", "--verify", "--quiet", &name]).await? else {
        return Ok(None);
    };
    let object = String::from_utf8_lossy(&object).trim().to_owned();
    let kind = ask(directory, &["cat-file", "-t", &object]).await?;
    // The commit of a submodule is not in this repository.
    let kind = kind.map_or("commit".to_owned(), |kind| String::from_utf8_lossy(&kind).trim().to_owned());
    Ok(Some((object, kind)))
}

/// The entries of a tree, without those of its own trees; nothing where there is no such tree.
pub(crate) async fn entries(directory: &Path, tree: &str) -> io::Result<Option<Vec<TreeEntry>>> {
    if !is_object(tree) {
        return Ok(None);
    }
    let Some(listed) = ask(directory, &["ls-tree", "-l", "-z", tree]).await? else { return Ok(None) };
    let listed = String::from_utf8_lossy(&listed);
    Ok(Some(listed.split('\0').filter_map(read).collect()))
}

/// Reads `<mode> <kind> <object> <size>\t<name>`.
fn read(line: &str) -> Option<TreeEntry> {
    let (head, name) = line.split_once('\t')?;
    let mut words = head.split_ascii_whitespace().map(str::to_owned);
    Some(TreeEntry {
        mode: words.next()?,
        kind: words.next()?,
        object: words.next()?,
        size: words.next()?.parse().ok(),
        name: name.to_owned(),
    })
}

/// The bytes of a blob; nothing where there is none of that name.
pub(crate) async fn blob(directory: &Path, object: &str) -> io::Result<Option<Vec<u8>>> {
    if !is_object(object) {
        return Ok(None);
    }
    ask(directory, &["cat-file", "blob", object]).await
}

/// Whether a text is the full name of an object, so that it cannot be taken for an option.
fn is_object(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What git writes; nothing where it says no.
async fn ask(directory: &Path, arguments: &[&str]) -> io::Result<Option<Vec<u8>>> {
    let Output { status, stdout, .. } =
        git().arg("--git-dir").arg(directory).args(arguments).output().await?;
    Ok(status.success().then_some(stdout))
}
