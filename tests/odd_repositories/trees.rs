//! Names, modes and shapes of trees.

use super::maker::Maker;
use super::rig::{Row, row};

/// Files in one directory.
const MANY: usize = 20_000;

/// Directories in each other.
const DEEP: usize = 60;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = names();
    rows.extend(modes());
    rows.extend(shapes());
    rows
}

fn names() -> Vec<Row> {
    vec![
        row("names: one that is longer than file systems allow", |maker| {
            let name = "x".repeat(256);
            maker.main(&maker.tree(&[("100644", name.as_bytes(), &maker.blob("x"))]));
        })
        .fails("delivery_failed"),
        row("names: of any bytes", |maker| {
            let names: [&[u8]; 14] = [
                b"latin-\xe4\xf6\xfc",
                b"\xff\xfe",
                "Größe".as_bytes(),
                "Gro\u{308}ße".as_bytes(),
                b"tab\there",
                b"line\nbreak",
                b"quote\"and\\backslash",
                b" space ",
                b"-dash",
                b"*star?",
                b"dot.",
                b"con",
                b"a:b",
                b"\x01\x7f",
            ];
            let files: Vec<_> = names.iter().map(|name| ("100644", *name, *name)).collect();
            maker.files(&files);
        }),
        row("names: pairs that differ in case", |maker| {
            maker.plain(&[
                ("README", b"a"),
                ("readme", b"b"),
                ("Dir/a", b"a"),
                ("dir/a", b"b"),
                (".GITATTRIBUTES", b"* text eol=crlf\n"),
                ("x.txt", b"a\n"),
            ]);
        }),
        row("names: as long as a file system allows", |maker| {
            let name = "n".repeat(255);
            maker.plain(&[(&name, b"a"), (&format!("d/{name}"), b"b")]);
        }),
    ]
}

fn modes() -> Vec<Row> {
    let with_mode = |mode: &'static str| {
        move |maker: &Maker| {
            let file = maker.blob("content\n");
            maker.main(&maker.tree(&[("100644", b"a", &file), (mode, b"b", &file)]));
        }
    };
    vec![
        row("modes: group-writable", with_mode("100664")),
        row("modes: everything", with_mode("100777")),
        row("modes: a file padded with zeros", with_mode("0100644")),
        row("modes: a directory padded with zeros", |maker| {
            let inner = maker.one_file();
            maker.main(&maker.tree(&[("040000", b"d", &inner), ("100644", b"e", &maker.blob("x"))]));
        }),
        row("modes: links of all kinds", |maker| {
            maker.files(&[
                ("120000", b"up", b"../../etc/passwd"),
                ("120000", b"absolute", b"/etc/passwd"),
                ("120000", b"dangling", b"nothing"),
                ("120000", b"loop", b"loop"),
                ("120000", b"bytes", b"\xff\xfe\n"),
                ("120000", b"dir", b"d"),
                ("100644", b"d/file", b"x"),
                ("120000", b"long", &b"x/".repeat(1000)),
            ]);
        }),
    ]
}

fn shapes() -> Vec<Row> {
    vec![
        row("shapes: 20,000 files in one directory", |maker| {
            let names: Vec<String> = (0..MANY).map(|number| format!("d/{number:05}")).collect();
            let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
            maker.plain(&files);
        }),
        row("shapes: deep paths", |maker| {
            let path = format!("{}file", "directory/".repeat(DEEP));
            maker.plain(&[(&path, b"x")]);
        }),
        row("shapes: a file and a directory that begin alike", |maker| {
            maker.plain(&[("a.b", b"x"), ("a/b", b"x"), ("a0b", b"x"), ("a-b/c", b"x")]);
        }),
        row("shapes: a submodule without .gitmodules", |maker| {
            let module = "7".repeat(40);
            maker.main(&maker.tree(&[("100644", b"a", &maker.blob("x")), ("160000", b"sub", &module)]));
        }),
        row("shapes: a submodule with .gitmodules", |maker| {
            let module = "7".repeat(40);
            let modules = "[submodule \"sub\"]\n\tpath = sub\n\turl = ../sub.git\n";
            maker.main(
                &maker.tree(&[("100644", b".gitmodules", &maker.blob(modules)), ("160000", b"sub", &module)]),
            );
        }),
        row("shapes: ignored files that are there", |maker| {
            maker.plain(&[(".gitignore", b"*.log\n"), ("a.log", b"x")]);
        }),
    ]
}
