//! Clones through the daemon's own code, from servers that are not ours, compared with what git itself makes.

use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sortie::git::{
    CloneRequest, Cloned, Control, Engine, Error, Limit, Means, Mirrors, PackProblem, Phase, Remote, Source,
    Want, clone,
};
use sortie::report::{Stage, StageEvent, StageLog, Status};
use tokio::time::Instant;

use crate::git_transport::{Https, TOKEN, a_minute, answer, control, https, over_http, over_ssh, scripted};
use crate::support::repository::{SampleRepository, git, run_git};
use crate::support::sshd::{Key, KeyKind, Sshd};

/// The bound for a cancel and a deadline, from the moment when they come true.
const STOP_LIMIT: Duration = Duration::from_secs(1);

type Change = fn(&mut Control);

/// Mode, name and object.
pub(crate) type TreeEntry<'a> = (&'a str, &'a str, &'a str);

pub(crate) fn wanted(reference: Option<&str>, target: &Path) -> CloneRequest {
    let want = Want { reference: reference.map(str::to_owned), ..Want::default() };
    let means = Means { engine: ENGINE.get(), mirror: None };
    CloneRequest { want, paths: Vec::new(), target: target.to_owned(), means, announce: None }
}

thread_local! {
    /// What the test at hand clones with.
    static ENGINE: Cell<Engine> = const { Cell::new(Engine::Gix) };
}

/// Whatever holds for one engine holds for the other.
pub(crate) async fn on_both_engines(test: impl AsyncFn()) {
    for engine in [Engine::Gix, Engine::Libgit2] {
        ENGINE.set(engine);
        Box::pin(test()).await;
    }
}

/// What the test at hand clones with.
pub(crate) fn engine() -> Engine {
    ENGINE.get()
}

async fn cloned(remote: &Remote, request: &CloneRequest) -> Result<Cloned, Error> {
    clone(remote, request, &a_minute(), &StageLog::default()).await
}

/// What is in a directory, hidden names included.
pub(crate) fn entries(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What git says of a clone must be nothing.
pub(crate) fn assert_whole(target: &Path) {
    assert_eq!(run_git(target, ["status", "--porcelain", "--ignored"]), "");
    assert_eq!(run_git(target, ["fsck", "--strict", "--no-dangling"]), "");
}

fn assert_no_secret(directory: &Path, secret: &str) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            assert_no_secret(&path, secret);
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap();
            let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} holds the secret", path.display());
        }
    }
}

/// What a clone over HTTPS goes through once it is connected.
pub(crate) const STAGES: [Stage; 8] = [
    Stage::Authenticate,
    Stage::Repository,
    Stage::References,
    Stage::Negotiate,
    Stage::Receive,
    Stage::Index,
    Stage::Checkout,
    Stage::Deliver,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_over_https_is_what_git_makes() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let target = server.directory.path().join("made/for/web");
        let (log, control) = (StageLog::default(), a_minute());
        let request = wanted(None, &target);
        let done = clone(&server.remote(Some(TOKEN)).await, &request, &control, &log).await.unwrap();
        assert_eq!(done.commit, server.sample.commit("main"));
        assert_eq!(done.reference.as_deref(), Some("refs/heads/main"));
        assert!(done.received_bytes > 0 && done.received_objects > 0);
        assert_eq!(done.files, 7);
        assert_whole(&target);
        assert_eq!(entries(target.parent().unwrap()), ["web"]);
        assert_eq!(fs::read_link(target.join("current")).unwrap(), PathBuf::from("src/shop"));
        let mode = fs::metadata(target.join("bin/start.sh")).unwrap().permissions().mode();
        assert_eq!(mode & 0o100, 0o100, "the executable bit is set");
        assert_eq!(run_git(&target, ["symbolic-ref", "HEAD"]), "refs/heads/main");
        assert_eq!(run_git(&target, ["rev-parse", "--abbrev-ref", "main@{upstream}"]), "origin/main");
        assert_eq!(
            run_git(&target, ["remote", "get-url", "origin"]),
            format!("{}/web.git", server.nginx.url())
        );
        assert_no_secret(&target, TOKEN);
        let passed: Vec<Stage> =
            log.records().iter().filter(|r| r.status == Status::Passed).map(|r| r.stage).collect();
        assert_eq!(passed, STAGES);
        assert_eq!(control.transfer.phase(), Phase::CheckingOut);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_tags_and_commits_are_found_by_their_names() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let remote = server.remote(Some(TOKEN)).await;
        let first = server.sample.commit("light");
        for (name, commit, reference, head) in [
            ("feature", "feature", Some("refs/heads/feature"), "refs/heads/feature"),
            ("refs/heads/feature", "feature", Some("refs/heads/feature"), "refs/heads/feature"),
            ("v1.0", "v1.0", Some("refs/tags/v1.0"), ""),
            ("refs/tags/light", "light", Some("refs/tags/light"), ""),
            (first.as_str(), "light", None, ""),
            ("HEAD", "main", Some("refs/heads/main"), "refs/heads/main"),
        ] {
            let target = server.directory.path().join(name.replace('/', "-"));
            let done = cloned(&remote, &wanted(Some(name), &target)).await.unwrap();
            assert_eq!(done.commit, server.sample.commit(commit), "{name}");
            if name != first {
                assert_eq!(done.reference.as_deref(), reference, "{name}");
            }
            assert_whole(&target);
            let symbolic =
                git().arg("-C").arg(&target).args(["symbolic-ref", "-q", "HEAD"]).output().unwrap();
            assert_eq!(String::from_utf8(symbolic.stdout).unwrap().trim(), head, "{name}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_no_reference_names_comes_too() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let middle = server.sample.commit("v1.0");
        run_git(&server.sample.directory, ["tag", "-d", "v1.0"]);
        let target = server.directory.path().join("target");
        let done = cloned(&server.remote(Some(TOKEN)).await, &wanted(Some(&middle), &target)).await.unwrap();
        assert_eq!((done.commit, done.reference), (middle, None));
        assert_whole(&target);
        let nowhere = "1".repeat(40);
        let missing = cloned(
            &server.remote(Some(TOKEN)).await,
            &wanted(Some(&nowhere), &server.directory.path().join("x")),
        )
        .await;
        assert!(matches!(missing, Err(Error::ReferenceNotFound { .. })), "{missing:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_depth_bounds_the_history() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let target = server.directory.path().join("target");
        let mut request = wanted(None, &target);
        request.want.depth = Some(1);
        cloned(&server.remote(Some(TOKEN)).await, &request).await.unwrap();
        assert_eq!(run_git(&target, ["rev-list", "--count", "HEAD"]), "1");
        assert_whole(&target);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_over_ssh_can_be_pulled_into() {
    on_both_engines(async || {
        let directory = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(&directory.path().join("web.git"));
        let key = Key::make(directory.path(), "key", KeyKind::Ed25519, None);
        let sshd =
            Sshd::plan(&[KeyKind::Ed25519]).authorize(&key).serve("shop/web.git", &sample.directory).start();
        let url = format!("{}/shop/web.git", sshd.url());
        let remote = over_ssh(&url, &key.private_file, None, &sshd.known_hosts());
        let target = directory.path().join("target");
        let done = cloned(&remote, &wanted(None, &target)).await.unwrap();
        assert_eq!(done.commit, sample.commit("main"));
        assert_whole(&target);
        assert_eq!(run_git(&target, ["remote", "get-url", "origin"]), url);
        let newer = sample.add_commit("main", "new.txt", "new\n");
        let ssh = format!(
            "ssh -F none -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={}",
            key.private_file.display(),
            sshd.known_hosts().display()
        );
        let pulled =
            git().env("GIT_SSH_COMMAND", ssh).arg("-C").arg(&target).args(["pull", "-q"]).status().unwrap();
        assert!(pulled.success());
        assert_eq!(run_git(&target, ["rev-parse", "HEAD"]), newer);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_leave_nothing() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let remote = server.remote(Some(TOKEN)).await;
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("a/b");
        let missing = cloned(&remote, &wanted(Some("featrue"), &target)).await;
        assert!(
            matches!(&missing, Err(Error::ReferenceNotFound { near, .. }) if near == &["feature"]),
            "{missing:?}"
        );
        for name in ["-x", "a..b", "--upload-pack=x", "a b"] {
            let refused = cloned(&remote, &wanted(Some(name), &target)).await;
            assert!(matches!(refused, Err(Error::ReferenceInvalid { .. })), "{name}: {refused:?}");
        }
        let refused = cloned(&server.remote(Some("wrong")).await, &wanted(None, &target)).await;
        assert!(matches!(refused, Err(Error::Unauthorized { .. })), "{refused:?}");
        let limits: [(Change, Limit); 4] = [
            (|control| control.limits.max_bytes = 2000, Limit::Bytes),
            (|control| control.limits.max_objects = 3, Limit::Objects),
            (|control| control.limits.max_files = 3, Limit::Files),
            (|control| control.limits.max_blob_bytes = 10, Limit::BlobBytes),
        ];
        for (limit, expected) in limits {
            let mut control = a_minute();
            limit(&mut control);
            let refused = clone(&remote, &wanted(None, &target), &control, &StageLog::default()).await;
            assert!(matches!(refused, Err(Error::TooLarge { what, .. }) if what == expected), "{refused:?}");
        }
        assert!(entries(root.path()).is_empty(), "{:?}", entries(root.path()));
        fs::create_dir_all(&target).unwrap();
        fs::write(target.join("mine"), "mine").unwrap();
        let refused = cloned(&remote, &wanted(None, &target)).await;
        assert!(matches!(refused, Err(Error::TargetNotEmpty { .. })), "{refused:?}");
        assert_eq!(entries(&target), ["mine"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_repository_cannot_be_cloned() {
    on_both_engines(async || {
        let server = https(SampleRepository::empty);
        let root = tempfile::tempdir().unwrap();
        let refused = cloned(&server.remote(Some(TOKEN)).await, &wanted(None, &root.path().join("x"))).await;
        assert!(matches!(refused, Err(Error::Empty)), "{refused:?}");
        assert!(entries(root.path()).is_empty());
    })
    .await;
}

/// A log that reports when a stage begins.
fn at_stage(stage: Stage, act: impl Fn() + Send + Sync + 'static) -> StageLog {
    StageLog::observed(move |event| {
        if *event == StageEvent::Began(stage) {
            act();
        }
    })
}

fn generated() -> Https {
    https(|directory| SampleRepository::generated(directory, 20_000))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_takes_effect_in_every_phase_and_leaves_nothing() {
    on_both_engines(async || {
        let server = generated();
        let remote = server.remote(Some(TOKEN)).await;
        for stage in [Stage::References, Stage::Negotiate, Stage::Receive, Stage::Index, Stage::Checkout] {
            let root = tempfile::tempdir().unwrap();
            let target = root.path().join("a/b");
            let control = a_minute();
            let cancel = control.cancel.clone();
            let cancelled_at = std::sync::Arc::new(std::sync::Mutex::new(None));
            let noted = cancelled_at.clone();
            let log = at_stage(stage, move || {
                *noted.lock().unwrap() = Some(Instant::now());
                cancel.cancel();
            });
            let ended = clone(&remote, &wanted(None, &target), &control, &log).await;
            assert!(matches!(ended, Err(Error::Cancelled)), "{stage:?}: {ended:?}");
            let took = cancelled_at.lock().unwrap().unwrap().elapsed();
            assert!(took < STOP_LIMIT, "{stage:?}: {took:?}");
            assert!(entries(root.path()).is_empty(), "{stage:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_ends_a_clone_in_the_middle() {
    on_both_engines(async || {
        let server = generated();
        let remote = server.remote(Some(TOKEN)).await;
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        let began = Instant::now();
        let time = Duration::from_millis(120);
        let ended = clone(&remote, &wanted(None, &target), &control(time), &StageLog::default()).await;
        assert!(matches!(ended, Err(Error::DeadlineExceeded)), "{ended:?}");
        assert!(began.elapsed() < time + STOP_LIMIT, "{:?}", began.elapsed());
        assert!(entries(root.path()).is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_leaves_nothing() {
    on_both_engines(async || {
        let server = generated();
        let remote = server.remote(Some(TOKEN)).await;
        let root = tempfile::tempdir().unwrap();
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let began = std::sync::Mutex::new(Some(began));
        let log = at_stage(Stage::Receive, move || {
            began.lock().unwrap().take().unwrap().send(()).unwrap();
        });
        let request = wanted(None, &root.path().join("target"));
        {
            let control = a_minute();
            let work = clone(&remote, &request, &control, &log);
            tokio::select! {
                ended = work => panic!("{ended:?}"),
                begun = has_begun => begun.unwrap(),
            }
        }
        let until = Instant::now() + STOP_LIMIT;
        while !entries(root.path()).is_empty() {
            assert!(Instant::now() < until, "{:?}", entries(root.path()));
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Writes an object as it is, without any check of git's.
pub(crate) fn write_object(repository: &Path, kind: &str, content: &[u8]) -> String {
    let mut child = git()
        .arg("-C")
        .arg(repository)
        .args(["hash-object", "-w", "--literally", "--stdin", "-t", kind])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(content).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

pub(crate) fn tree(repository: &Path, entries: &[TreeEntry<'_>]) -> String {
    let mut content = Vec::new();
    for (mode, name, oid) in entries {
        content.extend(format!("{mode} {name}\0").bytes());
        let byte = |at: usize| u8::from_str_radix(&oid[at..at + 2], 16).unwrap();
        content.extend((0..oid.len()).step_by(2).map(byte));
    }
    write_object(repository, "tree", &content)
}

pub(crate) fn commit(repository: &Path, branch: &str, tree: &str) {
    let who = "A <a@example.com> 1700000000 +0000";
    let text = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nx\n");
    let oid = write_object(repository, "commit", text.as_bytes());
    run_git(repository, ["update-ref", &format!("refs/heads/{branch}"), &oid]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_trees_are_refused_and_nothing_is_written_outside() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let repository = &server.sample.directory;
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let file = write_object(repository, "blob", b"evil\n");
        let link = write_object(repository, "blob", outside.to_str().unwrap().as_bytes());
        let inner = tree(repository, &[("100644", "evil", &file)]);
        let hooks = tree(repository, &[("100755", "post-checkout", &file)]);
        let git_directory = tree(repository, &[("40000", "hooks", &hooks)]);
        let cases: [(&str, &[TreeEntry<'_>]); 8] = [
            ("dot-git", &[("40000", ".git", &git_directory)]),
            ("upper", &[("40000", ".GIT", &git_directory)]),
            ("short", &[("40000", "git~1", &git_directory)]),
            ("parent", &[("40000", "..", &inner)]),
            ("slash", &[("100644", "../outside/evil", &file)]),
            ("twice", &[("120000", "a", &link), ("40000", "a", &inner)]),
            ("modules", &[("120000", ".gitmodules", &link)]),
            ("absolute", &[("100644", "/tmp/evil", &file)]),
        ];
        let remote = server.remote(Some(TOKEN)).await;
        for (name, content) in cases {
            commit(repository, name, &tree(repository, content));
            let refused = cloned(&remote, &wanted(Some(name), &root.path().join("target"))).await;
            assert!(
                matches!(refused, Err(Error::UnsafePath { .. } | Error::PackCorrupt(PackProblem::Damaged))),
                "{name}: {refused:?}"
            );
            assert_eq!(entries(root.path()), ["outside"], "{name}");
            assert!(entries(&outside).is_empty(), "{name}");
        }
    })
    .await;
}

/// A branch with 65,536 files that are all the same, so that writing them takes a while.
fn many_files(repository: &Path) {
    let file = write_object(repository, "blob", b"the same\n");
    let names: Vec<String> = (0..256).map(|number| format!("{number:03}")).collect();
    let files: Vec<_> = names.iter().map(|name| ("100644", name.as_str(), file.as_str())).collect();
    let inner = tree(repository, &files);
    let directories: Vec<_> = names.iter().map(|name| ("40000", name.as_str(), inner.as_str())).collect();
    commit(repository, "many", &tree(repository, &directories));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_stops_the_writing_of_files() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        many_files(&server.sample.directory);
        let remote = server.remote(Some(TOKEN)).await;
        let root = tempfile::tempdir().unwrap();
        let control = a_minute();
        let cancel = control.cancel.clone();
        let watched = root.path().to_owned();
        let watcher = tokio::task::spawn_blocking(move || {
            // The scratch directory has one entry more than git's own as soon as files are written.
            while !fs::read_dir(&watched).unwrap().any(|found| found.unwrap().path().join("001").exists()) {
                std::thread::yield_now();
            }
            cancel.cancel();
        });
        let request = wanted(Some("many"), &root.path().join("target"));
        let ended = clone(&remote, &request, &control, &StageLog::default()).await;
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
        watcher.await.unwrap();
        let (written, all) = (control.transfer.written_files(), control.transfer.total_files());
        assert!(written < all, "{written} of {all} files were written");
        assert!(entries(root.path()).is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_hook_template_or_configuration_of_the_host_takes_part() {
    on_both_engines(async || {
        let server = https(SampleRepository::small);
        let target = server.directory.path().join("target");
        cloned(&server.remote(Some(TOKEN)).await, &wanted(None, &target)).await.unwrap();
        assert!(!target.join(".git/hooks").exists());
        assert_eq!(run_git(&target, ["config", "core.protectHFS"]), "true");
        assert_eq!(run_git(&target, ["config", "core.protectNTFS"]), "true");
    })
    .await;
}

fn frame(payload: &[u8]) -> Vec<u8> {
    [format!("{:04x}", payload.len() + 4).as_bytes(), payload].concat()
}

/// What a server answers that has one commit and sends these bytes as its pack: its list, and the pack.
pub(crate) fn served(commit: &str, pack: &[u8]) -> [Vec<u8>; 2] {
    served_with(commit, &[], pack)
}

/// The same with further lines in its list.
pub(crate) fn served_with(commit: &str, lines: &[String], pack: &[u8]) -> [Vec<u8>; 2] {
    let first = format!("{commit} HEAD\0side-band-64k ofs-delta symref=HEAD:refs/heads/main\n");
    let second = format!("{commit} refs/heads/main\n");
    let mut list = [&frame(b"# service=git-upload-pack\n"), b"0000".as_slice()].concat();
    for line in [&first, &second].into_iter().chain(lines) {
        list.extend(frame(line.as_bytes()));
    }
    list.extend(b"0000");
    [answer("200 OK", &content_type("advertisement"), list), result(&framed(pack))]
}

fn framed(pack: &[u8]) -> Vec<u8> {
    let mut body = frame(b"NAK\n");
    for piece in pack.chunks(60_000) {
        body.extend(frame(&[&[1], piece].concat()));
    }
    body.extend(b"0000");
    body
}

fn content_type(what: &str) -> String {
    format!("Content-Type: application/x-git-upload-pack-{what}\r\n")
}

fn result(body: &[u8]) -> Vec<u8> {
    answer("200 OK", &content_type("result"), body)
}

/// What a clone makes of a server that sends these bytes as its pack.
pub(crate) async fn with_pack(commit: &str, pack: &[u8]) -> Result<Cloned, Error> {
    cloned_from(served(commit, pack).into()).await
}

async fn cloned_from(answers: Vec<Vec<u8>>) -> Result<Cloned, Error> {
    let server = scripted(answers);
    let root = tempfile::tempdir().unwrap();
    let remote = over_http(&format!("{}/web", server.url), None, None).await;
    let done = cloned(&remote, &wanted(None, &root.path().join("target"))).await;
    // Not every client asks to the end.
    let asked: Vec<String> = server.asked.try_iter().collect();
    assert!(done.is_ok() || entries(root.path()).is_empty(), "{asked:?}");
    done
}

fn pack_of(sample: &SampleRepository, revisions: &str) -> Vec<u8> {
    let mut child = git()
        .arg("-C")
        .arg(&sample.directory)
        .args(["pack-objects", "--revs", "--stdout", "-q"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(revisions.as_bytes()).unwrap();
    child.wait_with_output().unwrap().stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_are_damaged_or_lie_are_refused() {
    on_both_engines(async || {
        let directory = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(directory.path());
        let main = sample.commit("main");
        let pack = pack_of(&sample, "main\n");
        assert!(with_pack(&main, &pack).await.is_ok(), "the pack as it is must work");
        let lie = [b"PACK\0\0\0\x02\xff\xff\xff\xff".as_slice(), &pack[12..]].concat();
        let refused = with_pack(&main, &lie).await;
        assert!(matches!(refused, Err(Error::TooLarge { what: Limit::Objects, .. })), "{refused:?}");
        for at in [pack.len() / 2, pack.len() - 3] {
            let mut damaged = pack.clone();
            damaged[at] ^= 0x55;
            let refused = with_pack(&main, &damaged).await;
            assert!(matches!(refused, Err(Error::PackCorrupt(_))), "{at}: {refused:?}");
        }
        for rest in [&pack[..pack.len() / 2], &pack[..20], b""] {
            let refused = with_pack(&main, rest).await;
            assert!(matches!(refused, Err(Error::PackCorrupt(_))), "{}: {refused:?}", rest.len());
        }
        // What stands behind a pack is no part of it.
        for rest in [&b"x"[..], &[0; 100_000]] {
            let refused = with_pack(&main, &[&pack, rest].concat()).await;
            assert!(matches!(refused, Err(Error::PackCorrupt(_))), "{}: {refused:?}", rest.len());
        }
        // A whole pack that leaves out what the commit needs.
        let other = pack_of(&sample, "main^\n");
        let refused = with_pack(&main, &other).await;
        assert!(matches!(refused, Err(Error::PackCorrupt(PackProblem::ObjectMissing))), "{refused:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_part_of_the_history_makes_a_clone_with_that_part() {
    on_both_engines(async || {
        let server = https(|directory| {
            let whole = SampleRepository::small(&directory.with_extension("whole"));
            let url = format!("file://{}", whole.directory.display());
            let part = directory.to_str().unwrap();
            let depth = ["clone", "--quiet", "--bare", "--no-single-branch", "--depth", "1", &url, part];
            run_git(&whole.directory, depth);
            SampleRepository { directory: directory.to_owned() }
        });
        assert_eq!(run_git(&server.sample.directory, ["rev-parse", "--is-shallow-repository"]), "true");
        let remote = server.remote(Some(TOKEN)).await;
        let mirrors = std::sync::Arc::new(Mirrors::new(server.directory.path().join("mirrors"), u64::MAX));
        for (name, has_mirror, all, depth) in [
            ("alone", false, false, None),
            ("all", false, true, None),
            ("short", false, false, Some(1)),
            ("mirrored", true, false, None),
            ("again", true, false, None),
        ] {
            let target = server.directory.path().join(name);
            let mut request = wanted(None, &target);
            (request.want.all_branches, request.want.tags, request.want.depth) = (all, all, depth);
            request.means.mirror = has_mirror.then(|| mirrors.place(&remote.url, "pat"));
            let done = cloned(&remote, &request).await.unwrap();
            assert_eq!((done.commit, done.source), (server.sample.commit("main"), Source::Origin));
            assert_whole(&target);
            assert_eq!(run_git(&target, ["rev-parse", "--is-shallow-repository"]), "true");
            assert_eq!(run_git(&target, ["rev-list", "--count", "HEAD"]), "1", "{name}");
        }
    })
    .await;
}
