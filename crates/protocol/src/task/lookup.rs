//! What holds for the tasks that look something up: references, files, compare.

use super::{MAX_PATHS, TaskError, TaskKind, TaskSpec, ensure};

/// The most patterns that a list of references names.
pub const MAX_PATTERNS: usize = 64;

/// The longest pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 256;

/// How many references are named where the task does not say.
pub const DEFAULT_REFERENCES: u32 = 1000;

/// The most references that a task may ask for.
pub const MAX_REFERENCES: u32 = 5000;

/// The most bytes that the paths of one task for files have together. They stand in the answer again.
pub const MAX_PATHS_BYTES: usize = 64 * 1024;

/// The length of a full commit, in digits.
const COMMIT_DIGITS: usize = 40;

/// Whether a pattern is a glob, and not one full name. No name of a reference holds one of its signs.
pub fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

impl TaskSpec {
    /// Checks the fields of the tasks that look something up, and that no other kind sets them.
    pub(super) fn validate_lookup(&self) -> Result<(), TaskError> {
        let kind = self.kind;
        let takes_reference = matches!(kind, TaskKind::Clone | TaskKind::Files | TaskKind::Compare);
        let takes_paths = matches!(kind, TaskKind::Clone | TaskKind::Files);
        let lists = kind == TaskKind::References;
        let compares = kind == TaskKind::Compare;
        let owned = [
            (takes_reference || self.reference.is_none(), "reference", "belongs to clone, files or compare"),
            (takes_paths || self.paths.is_empty(), "paths", "belongs to clone or files"),
            (lists || self.patterns.is_empty(), "patterns", "belongs to references"),
            (lists || self.limit.is_none(), "limit", "belongs to references"),
            (compares || self.commit.is_none(), "commit", "belongs to compare"),
            (!compares || self.commit.is_some(), "commit", "is missing"),
        ];
        for (holds, field, problem) in owned {
            ensure(holds, field, problem)?;
        }
        self.validate_patterns()?;
        let limit_fits = self.limit.is_none_or(|limit| (1..=MAX_REFERENCES).contains(&limit));
        ensure(limit_fits, "limit", &format!("is between 1 and {MAX_REFERENCES}"))?;
        if kind == TaskKind::Files {
            self.validate_files()?;
        }
        let is_full = |commit: &str| {
            commit.len() == COMMIT_DIGITS && commit.bytes().all(|digit| digit.is_ascii_hexdigit())
        };
        ensure(
            self.commit.as_deref().is_none_or(is_full),
            "commit",
            &format!("is a full commit, {COMMIT_DIGITS} hexadecimal digits"),
        )
    }

    fn validate_patterns(&self) -> Result<(), TaskError> {
        let few = self.patterns.len() <= MAX_PATTERNS;
        ensure(few, "patterns", &format!("has {MAX_PATTERNS} entries at most"))?;
        let fits = |pattern: &String| (1..=MAX_PATTERN_BYTES).contains(&pattern.len());
        let lengths = format!("has entries of 1 to {MAX_PATTERN_BYTES} bytes");
        ensure(self.patterns.iter().all(fits), "patterns", &lengths)?;
        let is_known = |pattern: &String| {
            !pattern.contains(['[', '\\']) && (is_glob(pattern) || pattern.starts_with("refs/"))
        };
        ensure(
            self.patterns.iter().all(is_known),
            "patterns",
            "has full names such as refs/heads/main, or globs over them with `*` and `?`",
        )
    }

    fn validate_files(&self) -> Result<(), TaskError> {
        ensure(!self.paths.is_empty(), "paths", &format!("has 1 to {MAX_PATHS} entries"))?;
        let bytes: usize = self.paths.iter().map(String::len).sum();
        let too_many = format!("has {MAX_PATHS_BYTES} bytes at most in all entries together");
        ensure(bytes <= MAX_PATHS_BYTES, "paths", &too_many)?;
        ensure(
            self.paths.iter().all(|path| is_plain_path(path)),
            "paths",
            "has paths from the repository's root, with single slashes between names and without `.`, `..` and \
             control characters",
        )
    }
}

/// Whether a path is one that an entry of a tree can have.
fn is_plain_path(path: &str) -> bool {
    let is_name = |name: &str| !matches!(name, "" | "." | "..");
    path.split('/').all(is_name) && !path.chars().any(char::is_control)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn problem(kind: &str, rest: &str) -> Option<&'static str> {
        let json = format!(r#"{{"kind":"{kind}","url":"https://a/b"{rest}}}"#);
        let task: TaskSpec = serde_json::from_str(&json).unwrap();
        task.validate().err().map(|error| error.field)
    }

    #[test]
    fn each_kind_has_its_own_fields() {
        let commit = format!(r#","commit":"{}""#, "a".repeat(COMMIT_DIGITS));
        assert_eq!(problem("references", r#","patterns":["refs/heads/release/*"],"limit":5"#), None);
        assert_eq!(problem("references", ""), None);
        assert_eq!(problem("files", r#","paths":["a/b"],"reference":"main""#), None);
        assert_eq!(problem("compare", &commit), None);
        assert_eq!(problem("connection-test", r#","reference":"main""#), Some("reference"));
        assert_eq!(problem("references", r#","reference":"main""#), Some("reference"));
        assert_eq!(problem("compare", &format!(r#"{commit},"paths":["a"]"#)), Some("paths"));
        assert_eq!(problem("clone", r#","patterns":["refs/heads/*"]"#), Some("patterns"));
        assert_eq!(problem("files", r#","paths":["a"],"limit":1"#), Some("limit"));
        assert_eq!(problem("clone", &commit), Some("commit"));
        assert_eq!(problem("files", r#","paths":["a"],"depth":1"#), Some("depth"));
    }

    #[test]
    fn patterns_are_full_names_or_globs_and_few() {
        let patterns = |list: &str| problem("references", &format!(r#","patterns":[{list}]"#));
        assert_eq!(patterns(r#""refs/heads/main","*/v1.?""#), None);
        for bad in [r#""main""#, r#""""#, r#""refs/heads/[ab]""#, r#""refs/\\*""#] {
            assert_eq!(patterns(bad), Some("patterns"), "{bad}");
        }
        assert_eq!(patterns(&format!(r#""refs/{}""#, "x".repeat(MAX_PATTERN_BYTES))), Some("patterns"));
        assert_eq!(patterns(&vec![r#""*""#; MAX_PATTERNS + 1].join(",")), Some("patterns"));
        for limit in [0, MAX_REFERENCES + 1] {
            assert_eq!(problem("references", &format!(r#","limit":{limit}"#)), Some("limit"));
        }
    }

    #[test]
    fn paths_of_files_stay_in_the_repository() {
        let paths = |list: &str| problem("files", &format!(r#","paths":[{list}]"#));
        assert_eq!(paths(r#""a","b/c d","Größe/日本.txt""#), None);
        for bad in ["", r#""/a""#, r#""a/""#, r#""a//b""#, r#""../a""#, r#""a/./b""#, r#""a\n""#, r#""""#] {
            assert_eq!(paths(bad), Some("paths"), "{bad}");
        }
        let long = format!(r#""{}""#, "x".repeat(4000));
        assert_eq!(paths(&vec![long.as_str(); 17].join(",")), Some("paths"));
    }

    #[test]
    fn a_commit_is_full() {
        assert_eq!(problem("compare", ""), Some("commit"));
        assert_eq!(problem("compare", r#","commit":"abc""#), Some("commit"));
        let strange = "g".repeat(COMMIT_DIGITS);
        assert_eq!(problem("compare", &format!(r#","commit":"{strange}""#)), Some("commit"));
    }
}
