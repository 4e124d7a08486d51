//! `HEAD` and references, and where a server keeps them.

use std::fs;

use super::maker::Maker;
use super::rig::{Row, row};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        row("HEAD: detached at a commit of no branch", |maker| {
            let commit = maker.main(&maker.one_file());
            let later = maker.commit(&maker.tree(&[]), &[&commit]);
            fs::write(maker.directory().join("HEAD"), format!("{later}\n")).unwrap();
        }),
        row("HEAD: detached at the tip of a branch", |maker| {
            let commit = maker.main(&maker.one_file());
            fs::write(maker.directory().join("HEAD"), format!("{commit}\n")).unwrap();
        }),
        row("HEAD: a branch with slashes", |maker| {
            let commit = maker.main(&maker.one_file());
            maker.set("refs/heads/team/a/b", &commit);
            maker.git(["symbolic-ref", "HEAD", "refs/heads/team/a/b"]);
        }),
        row("HEAD: no branch of those there are", |maker| {
            maker.main(&maker.one_file());
            maker.git(["symbolic-ref", "HEAD", "refs/heads/gone"]);
        })
        .fails("reference_not_found"),
        row("HEAD: unborn, and nothing else", |_: &Maker| {}).fails("repository_empty"),
        row("HEAD: a reference that is no branch", |maker| {
            let commit = maker.main(&maker.one_file());
            maker.set("refs/remotes/origin/main", &commit);
            fs::write(maker.directory().join("HEAD"), "ref: refs/remotes/origin/main\n").unwrap();
        }),
        row("references: an annotated tag of a file", |maker| {
            maker.main(&maker.one_file());
            let key = maker.blob("-----BEGIN PGP PUBLIC KEY BLOCK-----\n");
            maker.git([
                "-c",
                "user.name=Ada",
                "-c",
                "user.email=ada@example.com",
                "tag",
                "-a",
                "-m",
                "x",
                "key",
                &key,
            ]);
        })
        .at("key")
        .fails("reference_not_a_commit"),
        row("references: a branch and a tag of one name", |maker| {
            let commit = maker.main(&maker.one_file());
            maker.set("refs/tags/main", &maker.commit(&maker.tree(&[]), &[&commit]));
        }),
        row("references: replaced commits", |maker| {
            let commit = maker.main(&maker.one_file());
            let other = maker.commit(&maker.tree(&[("100644", b"other", &maker.blob("x"))]), &[]);
            maker.set(&format!("refs/replace/{commit}"), &other);
        }),
        row("server: objects elsewhere", |maker| {
            let commit = maker.main(&maker.one_file());
            let elsewhere = maker.directory().with_extension("elsewhere");
            fs::rename(maker.directory(), &elsewhere).unwrap();
            let maker = Maker::new(maker.directory());
            let line = format!("{}\n", elsewhere.join("objects").display());
            fs::write(maker.directory().join("objects/info/alternates"), line).unwrap();
            maker.set("refs/heads/main", &commit);
        }),
        row("server: shallow", |maker| {
            let tree = maker.one_file();
            let first = maker.commit(&tree, &[]);
            let second = maker.commit(&tree, &[&first]);
            maker.set("refs/heads/main", &maker.commit(&tree, &[&second]));
            fs::write(maker.directory().join("shallow"), format!("{second}\n")).unwrap();
        }),
        row("server: reftable", |maker| {
            let maker = maker.again(&["--ref-format=reftable"]);
            let commit = maker.main(&maker.one_file());
            maker.set("refs/tags/v1", &commit);
        }),
        row("server: packed references", |maker| {
            let commit = maker.main(&maker.one_file());
            maker.set("refs/heads/other", &commit);
            maker.git(["pack-refs", "--all"]);
            maker.git(["repack", "-a", "-d", "-q"]);
        }),
        row("depth: of a history with merges", |maker| {
            let tree = maker.one_file();
            let (a, b) = (maker.commit(&tree, &[]), maker.commit(&maker.tree(&[]), &[]));
            let merge = maker.commit(&tree, &[&a, &b]);
            maker.set("refs/heads/main", &maker.commit(&tree, &[&merge, &b]));
        })
        .depth(2),
    ]
}
