//! What the API shows of a commit's trees: entries and the bytes of files, the same for every provider.

use serde_json::Value;

use super::ProviderError;
use super::rest::Answer;

/// The longest name of an object in hex: that of SHA-256.
const MAX_ID_DIGITS: usize = 64;

/// An entry of a directory.
///
/// Names are kept as the server gives them, because they are compared with those that were asked for and never shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the directory.
    pub name: String,
    /// Its mode by git's rules, as 0o100644.
    pub mode: u32,
    /// The name of the object, in hex.
    pub id: String,
    /// The length of a file in bytes, where the server tells.
    pub size: Option<u64>,
}

impl Entry {
    /// Reads an entry with the name in `name`; `None` where it is out of form.
    pub(super) fn read(json: &Value, name: &str, id: &str) -> Option<Self> {
        let mode = u32::from_str_radix(json.get("mode")?.as_str()?, 8).ok()?;
        Some(Self {
            name: json.get(name)?.as_str()?.to_owned(),
            mode,
            id: object_name(json.get(id)?)?,
            size: json.get("size").and_then(Value::as_u64),
        })
    }

    /// Reads a list of entries.
    ///
    /// # Errors
    /// [`ProviderError::Unexpected`] where one of them is out of form.
    pub(super) fn read_all(
        list: &[Value],
        answer: &Answer,
        (name, id): (&str, &str),
    ) -> Result<Vec<Self>, ProviderError> {
        let read: Option<Vec<_>> = list.iter().map(|json| Self::read(json, name, id)).collect();
        read.ok_or_else(|| answer.unexpected("entries of a tree"))
    }

    /// Whether it is a file or a symbolic link.
    pub fn is_blob(&self) -> bool {
        matches!(self.mode & 0o170_000, 0o100_000 | 0o120_000)
    }
}

/// The name of an object, which becomes part of a path.
pub(super) fn object_name(json: &Value) -> Option<String> {
    let id = json.as_str()?;
    let is_name =
        !id.is_empty() && id.len() <= MAX_ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_name.then(|| id.to_ascii_lowercase())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_entry_has_a_mode_and_an_object_that_is_fit_for_a_path() {
        let read = |mode: &str, id: &str| {
            Entry::read(&json!({"name": "a", "mode": mode, "id": id, "size": 3}), "name", "id")
        };
        let entry = read("100755", "AB").unwrap();
        assert_eq!((entry.mode, entry.id.as_str(), entry.size), (0o100_755, "ab", Some(3)));
        assert!(entry.is_blob() && read("120000", "ab").unwrap().is_blob());
        assert!(!read("040000", "ab").unwrap().is_blob() && !read("160000", "ab").unwrap().is_blob());
        for (mode, id) in [("9", "ab"), ("100644", "../x"), ("100644", ""), ("100644", &"a".repeat(65))] {
            assert_eq!(read(mode, id), None, "{mode} {id}");
        }
    }
}
