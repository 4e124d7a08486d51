//! Commits, tags and trees that git would not make any more, and takes.

use super::maker::{Maker, WHO};
use super::rig::{Row, row};

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = commits();
    rows.extend(tags());
    rows
}

/// A commit that is written as it is, with what stands between its tree and its message.
fn with_head(head: &'static str) -> impl Fn(&Maker) + Send + Sync {
    move |maker| {
        let tree = maker.one_file();
        let commit = maker.object("commit", format!("tree {tree}\n{head}\nx\n"));
        let tip = maker.commit(&tree, &[&commit]);
        maker.set("refs/heads/main", &tip);
        maker.set("refs/heads/itself", &commit);
    }
}

const DATES: [(&str, &str, &str); 4] = [
    ("date: before 1970", "date: before 1970, itself", "-1000000"),
    ("date: beyond 2038", "date: beyond 2038, itself", "9999999999"),
    ("date: none", "date: none, itself", ""),
    ("date: hexadecimal", "date: hexadecimal, itself", "0x5"),
];

fn commits() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, itself, date) in DATES {
        let build = move |maker: &Maker| {
            let tree = maker.one_file();
            let who = format!("Ada <ada@example.com> {date} +0000");
            let commit = maker.object("commit", format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nx\n"));
            maker.set("refs/heads/itself", &commit);
            maker.set("refs/heads/main", &maker.commit(&tree, &[&commit]));
        };
        rows.push(row(name, build));
        rows.push(row(itself, build).at("itself"));
    }
    for (name, head) in [
        ("commit: no name", "author <> 1700000000 +0000\ncommitter <> 1700000000 +0000\n"),
        ("commit: brackets within", "author A <a<b@c>> 1 +0000\ncommitter A >x< <b> 1 +0000\n"),
        ("commit: a strange zone", "author A <a@b> 1 +999999\ncommitter A <a@b> 1 zone\n"),
        (
            "commit: two authors",
            "author A <a@b> 1 +0000\nauthor B <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n",
        ),
        (
            "commit: headers of all kinds",
            "author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\nencoding windows-1252\n\
             gpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\nHG:extra x\n",
        ),
    ] {
        rows.push(row(name, with_head(head)).at("itself"));
    }
    rows.push(row("commit: a NUL in the message", |maker| {
        let tree = maker.one_file();
        let commit = format!("tree {tree}\nauthor {WHO}\ncommitter {WHO}\n\nx\0y\n");
        maker.set("refs/heads/main", &maker.object("commit", commit));
    }));
    rows.push(row("commit: bytes of no encoding", |maker| {
        let tree = maker.one_file();
        let mut commit = format!("tree {tree}\nauthor ").into_bytes();
        commit.extend_from_slice(b"\xff\xfe <\x80> 1 +0000\ncommitter \xe4 <\xf6> 1 +0000\n\n\xfc\n");
        maker.set("refs/heads/main", &maker.object("commit", commit));
    }));
    rows.push(row("commit: the empty tree", |maker| {
        maker.main(&maker.tree(&[]));
    }));
    rows.push(row("commit: an empty tree within", |maker| {
        let empty = maker.tree(&[]);
        maker.main(&maker.tree(&[("40000", b"empty", &empty), ("100644", b"file", &maker.blob("x"))]));
    }));
    rows.push(row("commit: one parent twice", |maker| {
        let tree = maker.one_file();
        let first = maker.commit(&tree, &[]);
        maker.set("refs/heads/main", &maker.commit(&tree, &[&first, &first]));
    }));
    rows
}

fn tags() -> Vec<Row> {
    let tag = |maker: &Maker, kind: &str, id: &str, rest: &str| {
        maker.object("tag", format!("object {id}\ntype {kind}\ntag v1\n{rest}"))
    };
    let tagged = move |rest: &'static str| {
        move |maker: &Maker| {
            let commit = maker.main(&maker.one_file());
            maker.set("refs/tags/v1", &tag(maker, "commit", &commit, rest));
        }
    };
    vec![
        row("tag: no tagger", tagged("\nx\n")).at("v1"),
        row("tag: a tagger without a date", tagged("tagger Ada <ada@example.com>\n\nx\n")).at("v1"),
        row("tag: no message", tagged("tagger A <a@b> 1 +0000\n")).at("v1"),
        row("tag: a date before 1970", tagged("tagger A <a@b> -5 +0000\n\nx\n")).at("v1"),
        row("tag: a NUL in the message", tagged("tagger A <a@b> 1 +0000\n\nx\0y\n")).at("v1"),
        row("tag: of a tag of a tag", move |maker| {
            let commit = maker.main(&maker.one_file());
            let first = tag(maker, "commit", &commit, "tagger A <a@b> 1 +0000\n\nx\n");
            let second = tag(maker, "tag", &first, "tagger A <a@b> 1 +0000\n\nx\n");
            maker.set("refs/tags/v1", &tag(maker, "tag", &second, "tagger A <a@b> 1 +0000\n\nx\n"));
        })
        .at("v1"),
        row("tags: of a tree and of a file, beside", move |maker| {
            let tree = maker.one_file();
            maker.main(&tree);
            maker.set("refs/tags/tree", &tag(maker, "tree", &tree, "tagger A <a@b> 1 +0000\n\nx\n"));
            maker.set(
                "refs/tags/file",
                &tag(maker, "blob", &maker.blob("x"), "tagger A <a@b> 1 +0000\n\nx\n"),
            );
            maker.set("refs/tags/light-tree", &tree);
        }),
        row("tags: of a tree, asked for", move |maker| {
            let tree = maker.one_file();
            maker.main(&tree);
            maker.set("refs/tags/v1", &tag(maker, "tree", &tree, "tagger A <a@b> 1 +0000\n\nx\n"));
        })
        .at("v1")
        .fails("reference_not_a_commit"),
    ]
}
