//! Files that are too large to be held: from the server to the disk they are a stream.

use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use sortie::git::{Error, Limit, Limits, clone};
use sortie::report::StageLog;

use crate::clone::{assert_whole, entries, wanted};
use crate::git_transport::{Https, TOKEN, a_minute, https};
use crate::packs::{Program, measured};
use crate::support::repository::{SampleRepository, run_git};

const MIB: usize = 1024 * 1024;

/// Bytes that nothing makes smaller.
fn noise(directory: &Path, name: &str, bytes: usize) {
    let mut random = File::open("/dev/urandom").unwrap().take(bytes as u64);
    std::io::copy(&mut random, &mut File::create(directory.join(name)).unwrap()).unwrap();
}

/// Adds what the directory holds to the branch `main` of a server's repository.
fn push(server: &Https, fill: impl FnOnce(&Path)) -> std::path::PathBuf {
    let work = server.directory.path().join("work");
    let origin = server.sample.directory.to_str().unwrap();
    // Compressing takes most of the time, and there is nothing to be gained.
    let form = ["-c", "core.compression=0"];
    run_git(server.directory.path(), ["clone", "-q", origin, work.to_str().unwrap()]);
    fill(&work);
    run_git(&work, form.iter().chain(&["add", "--all"]));
    let author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
    run_git(&work, form.iter().chain(&author).chain(&["commit", "-qm", "large files"]));
    run_git(&work, form.iter().chain(&["push", "-q", "origin", "HEAD:refs/heads/main"]));
    run_git(&server.sample.directory, form.iter().chain(&["repack", "-adq"]));
    work
}

/// The index of the one pack of a server's repository.
fn pack_of(server: &Https) -> String {
    let packs = server.sample.directory.join("objects/pack");
    let names = entries(&packs);
    let index = names.iter().find(|name| name.ends_with(".idx")).unwrap();
    packs.join(index).display().to_string()
}

fn same_bytes(one: &Path, other: &Path) -> bool {
    let read = |path: &Path| BufReader::with_capacity(MIB, File::open(path).unwrap());
    let (mut one, mut other) = (read(one), read(other));
    let (mut left, mut right) = (vec![0; MIB], vec![0; MIB]);
    loop {
        let count = one.read(&mut left).unwrap();
        if count == 0 {
            return other.read(&mut right).unwrap() == 0;
        }
        if other.read_exact(&mut right[..count]).is_err() || left[..count] != right[..count] {
            return false;
        }
    }
}

#[test]
fn a_file_that_is_larger_than_the_memory_it_takes_comes_whole() {
    const LARGE: usize = 200 * MIB;
    const MAX_MEMORY_KIB: u64 = 96 * 1024;
    let server = https(SampleRepository::small);
    let work = push(&server, |work| {
        noise(work, "large.bin", LARGE);
        noise(work, "tool", 20 * MIB);
        fs::set_permissions(work.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    });
    let target = server.directory.path().join("clones/web");
    let run = measured(&Program {
        home: server.directory.path(),
        url: &server.nginx.url(),
        ca_file: Some(server.authority.ca_file()),
        repository: "web.git",
        token: TOKEN,
        limits: "",
        target: &target,
    });
    assert_eq!(run.report["outcome"], "succeeded", "{:#}", run.report);
    assert!(run.memory_kib < MAX_MEMORY_KIB, "{} KiB", run.memory_kib);
    assert!(same_bytes(&work.join("large.bin"), &target.join("large.bin")));
    assert!(same_bytes(&work.join("tool"), &target.join("tool")));
    assert_eq!(fs::metadata(target.join("tool")).unwrap().permissions().mode() & 0o111, 0o111);
    assert_eq!(fs::metadata(target.join("large.bin")).unwrap().permissions().mode() & 0o111, 0);
    // The index knows the files as they are, so that git need not read them.
    assert_eq!(run_git(&target, ["diff-files", "--name-only"]), "");
    assert_whole(&target);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_files_are_converted_and_limited_like_all_others() {
    let server = https(SampleRepository::small);
    push(&server, |work| {
        fs::write(
            work.join(".gitattributes"),
            "*.txt text eol=crlf\n*.utf text working-tree-encoding=ISO-8859-1\n",
        )
        .unwrap();
        fs::write(work.join("lines.txt"), "a line\r\n".repeat(20 * MIB / 8)).unwrap();
        fs::write(work.join("lines.utf"), b"a line \xe4\n".repeat(2 * MIB)).unwrap();
        noise(work, "noise", 17 * MIB);
        let mut changed = fs::read(work.join("noise")).unwrap();
        changed[MIB] ^= 1;
        fs::write(work.join("noise-changed"), changed).unwrap();
    });
    let large = run_git(&server.sample.directory, ["verify-pack", "-v", &pack_of(&server)]);
    // The one file of noise is a delta of the other, which takes few bytes.
    let is_small_delta = |line: &str| line.split_whitespace().nth(2).is_some_and(|size| size.len() < 4);
    let noise_id = |name: &str| run_git(&server.sample.directory, ["rev-parse", &format!("main:{name}")]);
    let deltas = large.lines().filter(|line| is_small_delta(line));
    let deltas =
        deltas.filter(|line| ["noise", "noise-changed"].iter().any(|name| line.starts_with(&noise_id(name))));
    assert_eq!(deltas.count(), 1, "{large}");
    // libgit2's own checkout knows no encodings.
    let work = server.directory.path().join("work");
    let target = server.directory.path().join("target");
    let remote = server.remote(Some(TOKEN)).await;
    let request = wanted(None, &target);
    let done = clone(&remote, &request, &a_minute(), &StageLog::default()).await.unwrap();
    assert!(done.bytes > 65 * MIB as u64, "{done:?}");
    for name in ["lines.txt", "lines.utf", "noise", "noise-changed"] {
        assert!(same_bytes(&work.join(name), &target.join(name)), "{name}");
    }
    assert_eq!(run_git(&target, ["diff-files", "--name-only"]), "");
    assert_whole(&target);
    fs::remove_dir_all(&target).unwrap();
    let mut control = a_minute();
    control.limits = Limits { max_expanded_bytes: 40 * MIB as u64, ..Limits::default() };
    let refused = clone(&remote, &request, &control, &StageLog::default()).await;
    assert!(matches!(refused, Err(Error::TooLarge { what: Limit::ExpandedBytes, .. })), "{refused:?}");
    assert!(!target.exists());
}
