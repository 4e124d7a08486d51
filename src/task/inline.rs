//! Files that travel inside a report, in the wire's form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sortie_protocol::report as wire;

use crate::git::{FileContent, FileKind};

impl From<&FileContent> for wire::FileContent {
    fn from(file: &FileContent) -> Self {
        let (encoding, content) = encoded(&file.content);
        Self {
            path: file.path.clone(),
            kind: match file.kind {
                FileKind::File => wire::FileKind::File,
                FileKind::Executable => wire::FileKind::Executable,
                FileKind::Symlink => wire::FileKind::Symlink,
                FileKind::Directory => wire::FileKind::Directory,
                FileKind::Submodule => wire::FileKind::Submodule,
            },
            bytes: file.content.len() as u64,
            is_lfs_pointer: file.is_lfs_pointer,
            encoding,
            content,
        }
    }
}

/// Text as it is, unless its JSON would be longer than base64: that is what the limit on all files is made for.
fn encoded(content: &[u8]) -> (wire::ContentEncoding, String) {
    let longest = content.len().div_ceil(3) * 4;
    match std::str::from_utf8(content) {
        Ok(text) if json_bytes(text) <= longest => (wire::ContentEncoding::Utf8, text.to_owned()),
        _ => (wire::ContentEncoding::Base64, STANDARD.encode(content)),
    }
}

/// How long a text is in JSON, without its quotation marks.
fn json_bytes(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        byte if byte < 0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> wire::FileContent {
        let (path, content) = ("a".to_owned(), content.to_owned());
        (&FileContent { path, kind: FileKind::File, content, is_lfs_pointer: false }).into()
    }

    #[test]
    fn text_stays_text_and_everything_else_is_base64() {
        let text = file("Grüße\n".as_bytes());
        assert_eq!((text.encoding, text.content.as_str()), (wire::ContentEncoding::Utf8, "Grüße\n"));
        let binary = file(&[0xff, 0]);
        assert_eq!((binary.encoding, binary.content.as_str()), (wire::ContentEncoding::Base64, "/wA="));
        assert_eq!(binary.bytes, 2);
    }

    #[test]
    fn no_content_is_longer_in_json_than_as_base64() {
        let contents = [
            "\u{1}".repeat(3000),
            "\"".repeat(3000),
            "\n".repeat(3000),
            "a\n".repeat(1500),
            "ü".repeat(1500),
        ];
        for content in contents {
            let json = serde_json::to_string(&file(content.as_bytes()).content).unwrap();
            assert!(json.len() - 2 <= content.len() / 3 * 4, "{} for {}", json.len(), content.len());
        }
    }
}
