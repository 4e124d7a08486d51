//! Files whose content depends on attributes.

use super::rig::{Row, row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = line_ends();
    rows.extend(attributes());
    rows
}

/// Line ends of all kinds.
const TEXTS: [(&str, &[u8]); 8] = [
    ("unix.txt", b"a\nb\n"),
    ("dos.txt", b"a\r\nb\r\n"),
    ("mixed.txt", b"a\nb\r\n"),
    ("old.txt", b"a\rb\r"),
    ("none.txt", b"a"),
    ("binary.txt", b"a\n\0b\n"),
    ("empty.txt", b""),
    ("trailing.txt", b"a\nb\n\x1a"),
];

fn with_texts(attributes: &'static str) -> impl Fn(&super::maker::Maker) + Send + Sync {
    move |maker| {
        let mut files = vec![(".gitattributes", attributes.as_bytes())];
        files.extend(TEXTS);
        maker.plain(&files);
    }
}

fn line_ends() -> Vec<Row> {
    vec![
        row("line ends: none asked for", with_texts("")),
        row("line ends: text=auto", with_texts("* text=auto\n")),
        row("line ends: text", with_texts("* text\n")),
        row("line ends: eol=lf", with_texts("* text=auto eol=lf\n")),
        row("line ends: -text eol=crlf", with_texts("* -text eol=crlf\n")),
        row("line ends: crlf", with_texts("* crlf\n")),
    ]
}

fn attributes() -> Vec<Row> {
    vec![
        row("attributes: a file that is a link", |maker| {
            maker.files(&[
                ("120000", b".gitattributes", b"elsewhere"),
                ("100644", b"elsewhere", b"* text eol=crlf\n"),
                ("100644", b"a.txt", b"a\n"),
            ]);
        }),
        row("attributes: a filter that nobody has set up", |maker| {
            maker.plain(&[(".gitattributes", b"*.txt filter=nobody\n"), ("a.txt", b"a\n")]);
        }),
    ]
}
