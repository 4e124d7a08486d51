//! What can be asked of a clone beside a branch, with either engine, compared with what git makes of the same.

use std::fs;
use std::path::Path;

use sortie::git::{CloneWarning, Cloned, Error, Remote, Want, clone};
use sortie::report::{Code, StageLog};

use crate::clone::{assert_whole, entries, on_both_engines, wanted};
use crate::git_transport::{TOKEN, a_minute, https};
use crate::support::repository::{SampleRepository, git, run_git};

async fn cloned(remote: &Remote, want: Want, paths: &[&str], target: &Path) -> Result<Cloned, Error> {
    let mut request = wanted(None, target);
    request.want = want;
    request.paths = paths.iter().map(|path| (*path).to_owned()).collect();
    clone(remote, &request, &a_minute(), &StageLog::default()).await
}

fn reference(name: &str) -> Want {
    Want { reference: Some(name.to_owned()), ..Want::default() }
}

/// Commits files to a branch of a bare repository by way of a working directory of git's own.
fn commit_files(repository: &Path, branch: &str, files: &[(&str, &[u8])]) -> String {
    let work = tempfile::tempdir().unwrap();
    let status = git().args(["clone", "-q"]).arg(repository).arg(work.path()).status().unwrap();
    assert!(status.success());
    run_git(work.path(), ["checkout", "-q", "-B", branch]);
    for (name, content) in files {
        let path = work.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    // Attributes hold from the commit that brings them: what was added before them is as it is.
    run_git(work.path(), ["-c", "core.safecrlf=false", "add", "--all"]);
    let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
    run_git(work.path(), [who.as_slice(), &["commit", "-q", "-m", "files"]].concat());
    run_git(work.path(), ["push", "-q", "origin", &format!("HEAD:refs/heads/{branch}")]);
    run_git(work.path(), ["rev-parse", "HEAD"])
}

#[tokio::test(flavor = "multi_thread")]
async fn all_branches_and_all_tags_come_where_they_are_asked_for() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let remote = server.remote(Some(TOKEN)).await;
        let names = |target: &Path| {
            let all = run_git(target, ["for-each-ref", "--format=%(refname)"]);
            all.lines().filter(|name| !name.ends_with("HEAD")).map(str::to_owned).collect::<Vec<_>>()
        };
        let root = server.directory.path();
        for (name, all_branches, tags, expected) in [
            ("alone", false, false, vec!["refs/heads/main", "refs/remotes/origin/main"]),
            (
                "branches",
                true,
                false,
                vec!["refs/heads/main", "refs/remotes/origin/feature", "refs/remotes/origin/main"],
            ),
            (
                "tags",
                false,
                true,
                vec!["refs/heads/main", "refs/remotes/origin/main", "refs/tags/light", "refs/tags/v1.0"],
            ),
        ] {
            let target = root.join(name);
            let want = Want { all_branches, tags, ..Want::default() };
            cloned(&remote, want, &[], &target).await.unwrap();
            assert_eq!(names(&target), expected, "{name}");
            assert_whole(&target);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_found_by_its_first_digits_wherever_it_lies() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let remote = server.remote(Some(TOKEN)).await;
        let root = server.directory.path();
        run_git(&server.sample.directory, ["tag", "-d", "v1.0", "light"]);
        let deep = server.sample.commit("main^^");
        let tip = server.sample.commit("feature");
        for commit in [&deep, &tip] {
            let target = root.join(commit);
            let done = cloned(&remote, reference(&commit[..10]), &[], &target).await.unwrap();
            assert_eq!((&done.commit, done.reference), (commit, None));
            assert_whole(&target);
        }
        let nowhere = cloned(&remote, reference("0123456789"), &[], &root.join("nowhere")).await;
        assert!(matches!(nowhere, Err(Error::ReferenceNotFound { .. })), "{nowhere:?}");
        assert!(!root.join("nowhere").exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pull_and_merge_requests_are_references_like_others() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let remote = server.remote(Some(TOKEN)).await;
        let feature = server.sample.commit("feature");
        for name in ["refs/pull/7/merge", "refs/merge-requests/7/head"] {
            run_git(&server.sample.directory, ["update-ref", name, &feature]);
            for asked in [name, name.strip_prefix("refs/").unwrap()] {
                let target = server.directory.path().join(asked.replace('/', "-"));
                let want = Want { depth: Some(1), ..reference(asked) };
                let done = cloned(&remote, want, &[], &target).await.unwrap();
                assert_eq!((done.commit.as_str(), done.reference.as_deref()), (feature.as_str(), Some(name)));
                assert_eq!(run_git(&target, ["rev-list", "--count", "HEAD"]), "1");
                assert_whole(&target);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_named_paths_are_written_and_git_knows() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let remote = server.remote(Some(TOKEN)).await;
        let target = server.directory.path().join("sparse");
        let paths = ["src/shop", "docs/with space.txt"];
        let done = cloned(&remote, Want::default(), &paths, &target).await.unwrap();
        assert_eq!(done.files, 2);
        assert_eq!(entries(&target), [".git", "docs", "src"]);
        assert_eq!(entries(&target.join("docs")), ["with space.txt"]);
        assert_whole(&target);
        // Git itself adds what is asked for later.
        run_git(&target, ["sparse-checkout", "add", "bin"]);
        assert!(target.join("bin/start.sh").is_file());
        run_git(&target, ["sparse-checkout", "disable"]);
        assert!(target.join("README.md").is_file());
        assert_whole(&target);
        for path in ["../x", "/etc", "a/../b", ".git/config", ""] {
            let refused =
                cloned(&remote, Want::default(), &[path], &server.directory.path().join("no")).await;
            assert!(matches!(refused, Err(Error::UnsafePath { .. })), "{path}: {refused:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn line_ends_are_those_that_attributes_ask_for_and_nothing_else_is_done() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let attributes = b"*.crlf text eol=crlf\n*.lf text eol=lf\n*.bin binary\n*.id ident\n\
                           *.flt filter=evil\nauto.* text=auto\n";
        let canary = server.directory.path().join("canary");
        let config = format!("[filter \"evil\"]\n\tsmudge = touch {}\n", canary.display());
        commit_files(
            &server.sample.directory,
            "attributes",
            &[
                (".gitattributes", attributes),
                ("sub/.gitattributes", b"*.txt text eol=crlf\n"),
                ("sub/a.txt", b"one\ntwo\n"),
                ("a.crlf", b"one\ntwo\n"),
                ("a.lf", b"one\ntwo\n"),
                ("a.bin", b"one\ntwo\n"),
                ("auto.c", b"one\ntwo\n"),
                ("a.id", b"$Id$\n"),
                ("a.flt", b"content\n"),
                (".gitconfig", config.as_bytes()),
            ],
        );
        let remote = server.remote(Some(TOKEN)).await;
        let target = server.directory.path().join("attributes-clone");
        cloned(&remote, reference("attributes"), &[], &target).await.unwrap();
        let read = |name: &str| fs::read_to_string(target.join(name)).unwrap();
        assert_eq!(read("a.crlf"), "one\r\ntwo\r\n");
        assert_eq!(read("sub/a.txt"), "one\r\ntwo\r\n");
        for name in ["a.lf", "a.bin", "auto.c"] {
            assert_eq!(read(name), "one\ntwo\n", "{name}");
        }
        assert_eq!(read("a.id"), "$Id$\n");
        assert_eq!(read("a.flt"), "content\n");
        assert!(!target.join(".git/info/attributes").exists());
        assert!(!canary.exists());
        assert_whole(&target);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoding_that_is_not_written_is_warned_about() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let wide: Vec<u8> = "\u{feff}text\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        commit_files(
            &server.sample.directory,
            "wide",
            &[(".gitattributes", b"wide.txt working-tree-encoding=UTF-16\n"), ("wide.txt", &wide)],
        );
        let remote = server.remote(Some(TOKEN)).await;
        let target = server.directory.path().join("wide-clone");
        let done = cloned(&remote, reference("wide"), &[], &target).await.unwrap();
        // It is told as `encoding_differs`.
        assert_eq!(done.warnings, [CloneWarning::WideEncoding]);
        assert_eq!(Code::EncodingDiffers.as_str(), "encoding_differs");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_knows_the_files_so_that_git_need_not_look_at_them_again() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let remote = server.remote(Some(TOKEN)).await;
        let target = server.directory.path().join("indexed");
        cloned(&remote, Want::default(), &[], &target).await.unwrap();
        // What the index does not know would be listed as changed: this looks at no content.
        assert_eq!(run_git(&target, ["diff-files", "--name-only"]), "");
        let theirs = server.directory.path().join("theirs");
        let status = git().args(["clone", "-q"]).arg(&server.sample.directory).arg(&theirs).status().unwrap();
        assert!(status.success());
        for listing in [["ls-files", "--stage"], ["ls-tree", "HEAD"]] {
            assert_eq!(run_git(&target, listing), run_git(&theirs, listing));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submodule_that_is_not_taken_along_has_its_place() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let repository = &server.sample.directory;
        let main = server.sample.commit("main");
        let work = tempfile::tempdir().unwrap();
        assert!(git().args(["clone", "-q"]).arg(repository).arg(work.path()).status().unwrap().success());
        run_git(work.path(), ["update-index", "--add", "--cacheinfo", &format!("160000,{main},libs/dep")]);
        let who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
        run_git(work.path(), [who.as_slice(), &["commit", "-q", "-m", "dep"]].concat());
        run_git(work.path(), ["push", "-q", "origin", "HEAD:refs/heads/dep"]);
        let remote = server.remote(Some(TOKEN)).await;
        let target = server.directory.path().join("with-place");
        let done = cloned(&remote, reference("dep"), &[], &target).await.unwrap();
        assert_eq!(done.submodules, 1);
        assert!(entries(&target.join("libs/dep")).is_empty());
        assert_whole(&target);
    })
    .await;
}
