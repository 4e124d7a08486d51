//! How a task asks for agents by their tags.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest tag, in bytes.
pub const MAX_TAG_BYTES: usize = 128;

/// The most tags that one agent carries or one list of a selector names.
pub const MAX_TAGS: usize = 64;

/// Tags that an agent must carry. An empty selector takes any agent.
///
/// Beside its own tags every agent carries `name:<its name>`, `os:…`, `arch:…` and `version:…`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Selector {
    /// The agent carries every one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<String>,
    /// The agent carries at least one of these, where the list is not empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<String>,
    /// The agent carries none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub none: Vec<String>,
}

/// Why the tags of an agent do not satisfy a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Tags of `all` that the agent lacks.
    #[error("it lacks the tags {}", .0.join(", "))]
    Lacks(Vec<String>),
    /// The agent carries none of `any`.
    #[error("it carries none of the tags {}", .0.join(", "))]
    NoneOf(Vec<String>),
    /// Tags of `none` that the agent carries.
    #[error("it carries the excluded tags {}", .0.join(", "))]
    Excluded(Vec<String>),
}

/// A tag that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// A tag is empty, over [`MAX_TAG_BYTES`], or holds white space, commas or control characters.
    #[error("a tag has 1 to {MAX_TAG_BYTES} bytes without white space, commas or control characters")]
    Malformed,
    /// More than [`MAX_TAGS`].
    #[error("there may be {MAX_TAGS} tags at most")]
    TooMany,
    /// A prefix that every agent carries by itself.
    #[error("the tag `{0}` takes a prefix that Sortie sets itself (name:, os:, arch:, version:)")]
    Reserved(String),
}

impl Selector {
    /// Compares the selector with the tags of one agent.
    ///
    /// # Errors
    /// The first reason why the agent is not taken.
    pub fn admits(&self, tags: &BTreeSet<String>) -> Result<(), Mismatch> {
        let lacks: Vec<_> = self.all.iter().filter(|tag| !tags.contains(*tag)).cloned().collect();
        if !lacks.is_empty() {
            return Err(Mismatch::Lacks(lacks));
        }
        if !self.any.is_empty() && !self.any.iter().any(|tag| tags.contains(tag)) {
            return Err(Mismatch::NoneOf(self.any.clone()));
        }
        let excluded: Vec<_> = self.none.iter().filter(|tag| tags.contains(*tag)).cloned().collect();
        if !excluded.is_empty() {
            return Err(Mismatch::Excluded(excluded));
        }
        Ok(())
    }

    /// Checks the form of every tag that the selector names.
    ///
    /// # Errors
    /// The first malformed tag, or a list that is too long.
    pub fn validate(&self) -> Result<(), TagError> {
        for list in [&self.all, &self.any, &self.none] {
            check_tags(list)?;
        }
        Ok(())
    }
}

/// Checks the form of a list of tags.
///
/// # Errors
/// The first malformed tag, or a list that is too long.
pub fn check_tags(tags: &[String]) -> Result<(), TagError> {
    if tags.len() > MAX_TAGS {
        return Err(TagError::TooMany);
    }
    let malformed = |tag: &String| {
        tag.is_empty()
            || tag.len() > MAX_TAG_BYTES
            || tag.chars().any(|c| c.is_control() || c.is_whitespace() || c == ',')
    };
    if tags.iter().any(malformed) { Err(TagError::Malformed) } else { Ok(()) }
}

/// Checks tags that an operator or an enrollment token gives to an agent.
///
/// # Errors
/// As [`check_tags`], and [`TagError::Reserved`] for the prefixes of the implicit tags: an agent must not
/// pass for another.
pub fn check_own_tags(tags: &[String]) -> Result<(), TagError> {
    check_tags(tags)?;
    const RESERVED: [&str; 4] = ["name:", "os:", "arch:", "version:"];
    match tags.iter().find(|tag| RESERVED.iter().any(|prefix| tag.starts_with(prefix))) {
        Some(tag) => Err(TagError::Reserved(tag.clone())),
        None => Ok(()),
    }
}

/// The tags that every agent carries beside its own.
pub fn implicit_tags(name: &str, os: &str, arch: &str, version: &str) -> [String; 4] {
    [format!("name:{name}"), format!("os:{os}"), format!("arch:{arch}"), format!("version:{version}")]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tags(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn selector(json: &str) -> Selector {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_empty_selector_takes_any_agent() {
        assert_eq!(selector("{}").admits(&tags(&[])), Ok(()));
    }

    #[test]
    fn each_list_has_its_own_reason() {
        let agent = tags(&["dc:fra1", "ado", "os:linux"]);
        assert_eq!(selector(r#"{"all":["dc:fra1","ado"]}"#).admits(&agent), Ok(()));
        assert_eq!(
            selector(r#"{"all":["ado","gpu"]}"#).admits(&agent),
            Err(Mismatch::Lacks(vec!["gpu".into()]))
        );
        assert_eq!(selector(r#"{"any":["gitlab","ado"]}"#).admits(&agent), Ok(()));
        assert_eq!(
            selector(r#"{"any":["gitlab"]}"#).admits(&agent),
            Err(Mismatch::NoneOf(vec!["gitlab".into()]))
        );
        assert_eq!(
            selector(r#"{"none":["os:linux"]}"#).admits(&agent),
            Err(Mismatch::Excluded(vec!["os:linux".into()]))
        );
    }

    #[test]
    fn tags_have_a_form() {
        for bad in ["", "a b", "a,b", "a\n", &"x".repeat(MAX_TAG_BYTES + 1)] {
            assert_eq!(check_tags(&[bad.to_owned()]), Err(TagError::Malformed), "{bad:?}");
        }
        assert_eq!(check_tags(&vec!["a".to_owned(); MAX_TAGS + 1]), Err(TagError::TooMany));
        assert_eq!(check_own_tags(&["name:other".into()]), Err(TagError::Reserved("name:other".into())));
    }
}
