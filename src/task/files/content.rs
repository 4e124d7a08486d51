//! A file as it stands in an answer: what it is, its bytes as text or in base64, and no more of them than fit.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::git::{Error, FetchedFile, Limit};
use crate::secret::Redaction;

/// How many bytes all files have as they stand in JSON, so that an answer fits a message of the protocol.
const MAX_ENCODED_BYTES: usize = 768 * 1024;

/// The sizes of what may be a pointer of Git LFS, in bytes, by its specification.
const LFS_POINTER_BYTES: RangeInclusive<usize> = 100..=1024;

/// What a pointer of Git LFS begins with.
const LFS_BEGINNING: &[u8] = b"version https://git-lfs.github.com/spec/";

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File,
    /// A file that can be executed.
    Executable,
    /// A symbolic link, which is never followed.
    Symlink,
    /// A directory.
    Directory,
    /// A submodule.
    Submodule,
}

impl Kind {
    /// By the mode of git's rules, of which the kind is the upper part. Old trees have files of mode 0o100664.
    fn of_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o160_000 => Self::Submodule,
            _ if mode & 0o100 != 0 => Self::Executable,
            _ => Self::File,
        }
    }
}

/// The bytes of a file in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// As they are.
    Text(String),
    /// In base64.
    Base64(String),
}

/// What is at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAnswer {
    /// The path.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Length in bytes and SHA-256 in hex of what has content.
    pub measures: Option<(u64, String)>,
    /// The content, or where a symbolic link leads.
    pub content: Option<Content>,
    /// Whether the content is a pointer of Git LFS.
    pub is_lfs_pointer: bool,
}

impl FileAnswer {
    /// A text of the server's that holds the task's own secret is given with it taken out.
    fn of(file: FetchedFile, redaction: &Redaction) -> Self {
        let kind = Kind::of_mode(file.mode);
        let bytes = file.content.as_deref();
        let is_lfs_pointer = matches!(kind, Kind::File | Kind::Executable)
            && bytes.is_some_and(|bytes| {
                LFS_POINTER_BYTES.contains(&bytes.len()) && bytes.starts_with(LFS_BEGINNING)
            });
        let measures = bytes.map(|bytes| (bytes.len() as u64, sha256(bytes)));
        let content = file.content.map(|bytes| Content::of(bytes, redaction));
        Self { path: file.path, kind, measures, content, is_lfs_pointer }
    }

    /// How long it is in JSON, without the names of its fields.
    fn encoded_bytes(&self) -> usize {
        let content = match &self.content {
            Some(Content::Text(text)) => json_bytes(text),
            Some(Content::Base64(text)) => text.len(),
            None => 0,
        };
        json_bytes(&self.path) + content
    }
}

impl Content {
    fn of(bytes: Vec<u8>, redaction: &Redaction) -> Self {
        let seen = String::from_utf8_lossy(&bytes).into_owned();
        let mut cleaned = seen.clone();
        redaction.clean(&mut cleaned);
        if cleaned != seen {
            return Self::Text(cleaned);
        }
        match String::from_utf8(bytes) {
            Ok(text) if !text.chars().any(is_unusual) => Self::Text(text),
            Ok(text) => Self::Base64(STANDARD.encode(text)),
            Err(error) => Self::Base64(STANDARD.encode(error.as_bytes())),
        }
    }
}

/// Control characters that no text needs; each takes six bytes in JSON.
fn is_unusual(c: char) -> bool {
    c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r')
}

/// How long a text is in JSON.
fn json_bytes(text: &str) -> usize {
    let escaped = |byte: &u8| matches!(byte, b'"' | b'\\' | b'\t' | b'\n' | b'\r');
    text.len() + text.as_bytes().iter().filter(|byte| escaped(byte)).count()
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Files as they stand in an answer.
///
/// # Errors
/// [`Error::TooLarge`] where they would not fit one; `limit` is what their bytes may be at the most.
pub(in crate::task) fn all(
    files: Vec<FetchedFile>,
    limit: u64,
    redaction: &Redaction,
) -> Result<Vec<FileAnswer>, Error> {
    let mut encoded = 0;
    let answers: Vec<_> = files.into_iter().map(|file| FileAnswer::of(file, redaction)).collect();
    for answer in &answers {
        encoded += answer.encoded_bytes();
    }
    if encoded > MAX_ENCODED_BYTES {
        return Err(Error::TooLarge { what: Limit::AnswerBytes, limit });
    }
    Ok(answers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn answer(mode: u32, content: &[u8]) -> FileAnswer {
        let file = FetchedFile { path: "a".into(), mode, content: Some(content.to_vec()) };
        FileAnswer::of(file, &Redaction::default())
    }

    #[test]
    fn what_is_text_stays_text_and_what_is_not_is_base64() {
        assert_eq!(answer(0o100_644, "Größe\n".as_bytes()).content, Some(Content::Text("Größe\n".into())));
        assert_eq!(answer(0o100_644, b"\xff\xfe").content, Some(Content::Base64("//4=".into())));
        assert_eq!(answer(0o100_644, b"a\0").content, Some(Content::Base64("YQA=".into())));
        assert_eq!(answer(0o100_644, b"").content, Some(Content::Text(String::new())));
        let (bytes, sha256) = answer(0o100_644, b"abc").measures.unwrap();
        assert_eq!(bytes, 3);
        assert!(sha256.starts_with("ba7816bf8f01cfea414140de5dae2223"), "{sha256}");
    }

    #[test]
    fn modes_are_told_apart() {
        for (mode, kind) in [
            (0o100_644, Kind::File),
            (0o100_664, Kind::File),
            (0o100_755, Kind::Executable),
            (0o120_000, Kind::Symlink),
            (0o040_000, Kind::Directory),
            (0o160_000, Kind::Submodule),
        ] {
            assert_eq!(Kind::of_mode(mode), kind, "{mode:o}");
        }
    }

    #[test]
    fn what_would_not_fit_in_json_is_too_large() {
        let file = |content: &[u8]| FetchedFile {
            path: "a".into(),
            mode: 0o100_644,
            content: Some(content.to_vec()),
        };
        let half = 512 * 1024;
        let fits = |content: &[u8]| all(vec![file(content)], 1, &Redaction::default()).is_ok();
        assert!(fits(&vec![b'a'; half]) && fits(&vec![0xff; half]));
        assert!(!fits(&vec![b'"'; half]));
    }

    #[test]
    fn a_secret_of_the_task_is_taken_out() {
        let redaction = Redaction::default();
        redaction.learn(&Secret::new("canary-5ecre7-pat".to_owned()), &[]);
        let file = FetchedFile {
            path: "a".into(),
            mode: 0o100_644,
            content: Some(b"\xfftoken canary-5ecre7-pat".to_vec()),
        };
        let Some(Content::Text(text)) = FileAnswer::of(file, &redaction).content else { panic!("text") };
        assert!(!text.contains("canary") && text.contains("token"), "{text}");
    }
}
