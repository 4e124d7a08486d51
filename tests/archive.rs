//! Archives and inline files straight from a repository's objects, compared with what git makes of the same commit.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sortie::git::{ArchiveFormat, ArchiveRequest, Archived, Control, Error, Limit, archive};

use crate::git_transport::a_minute;
use crate::support::process::{command_line, require};
use crate::support::repository::{SampleRepository, git, run_git};

/// Where the process that is measured finds its repository.
const MEASURED: &str = "SORTIE_TEST_ARCHIVE_OF";
/// The most memory that an archive may take here, in KiB: what the module says of itself, and the test program.
const MAX_MEMORY_KIB: u64 = 128 * 1024;
/// The bound for a cancel, from the moment when it comes true.
const STOP_LIMIT: Duration = Duration::from_secs(1);

fn request(commit: &str, format: ArchiveFormat, paths: &[&str]) -> ArchiveRequest {
    ArchiveRequest {
        commit: commit.to_owned(),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        format,
        prefix: String::new(),
        max_bytes: u64::MAX,
    }
}

fn archived(repository: &Path, request: &ArchiveRequest) -> (Vec<u8>, Archived) {
    let mut bytes = Vec::new();
    let archived = archive(repository, request, &mut bytes, &a_minute()).unwrap();
    assert_eq!(archived.archive_bytes, bytes.len() as u64);
    (bytes, archived)
}

fn refused(repository: &Path, request: &ArchiveRequest, control: &Control) -> Error {
    archive(repository, request, &mut io::sink(), control).unwrap_err()
}

/// What a program makes of the bytes that it is given.
fn piped(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    piped(Command::new(require("zstd", "zstd")).args(["--decompress", "--stdout", "--quiet"]), bytes)
}

/// The tar that git makes.
fn git_tar(repository: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = git().arg("-C").arg(repository).args(["archive", "--format=tar"]).args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A repository with everything that an archive treats in a way of its own, and its commit.
fn peculiar(directory: &Path) -> (PathBuf, String) {
    let deep = format!("deep/{}/{}/file", "d".repeat(120), "e".repeat(90));
    let long_name = format!("long/{}", "n".repeat(180));
    let lfs =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 12345\n", "0".repeat(64));
    let files: Vec<(&str, &str, Vec<u8>)> = vec![
        ("100644", ".gitattributes", b"*.ignored export-ignore\nprivate export-ignore\n/version export-subst\n*.bat eol=crlf\n*.auto text=auto eol=crlf\n*.png binary\n[attr]secret export-ignore\n*.key secret\n".to_vec()),
        ("100644", "sub/.gitattributes", b"*.ignored -export-ignore\nlocal export-ignore\n".to_vec()),
        ("100644", "a.ignored", b"left out".to_vec()),
        ("100644", "a.key", b"left out".to_vec()),
        ("100644", "sub/b.ignored", b"kept".to_vec()),
        ("100644", "sub/local", b"left out".to_vec()),
        ("100644", "sub/inner/local", b"left out".to_vec()),
        ("100644", "private/inner/file", b"left out".to_vec()),
        ("100644", "hollow/only.ignored", b"left out".to_vec()),
        ("100644", "hollow2/private/x", b"left out".to_vec()),
        ("100644", "version", b"$Format:%H$\n".to_vec()),
        ("100644", "run.bat", b"echo\nthere\r\n".to_vec()),
        ("100644", "text.auto", b"a\nb\n".to_vec()),
        ("100644", "binary.auto", b"a\0\n".to_vec()),
        ("100644", "dos.auto", b"a\r\nb\n".to_vec()),
        ("100644", "image.png", b"\x89PNG\n".to_vec()),
        ("100755", "tool", b"#!/bin/sh\n".to_vec()),
        ("100644", "empty", Vec::new()),
        ("100644", "block", vec![b'x'; 512]),
        ("100644", "Gr\u{fc}\u{df}e/\u{65e5}\u{672c}.txt", b"names".to_vec()),
        ("120000", "link", b"sub/b.ignored".to_vec()),
        ("120000", "far", format!("../{}", "t".repeat(140)).into_bytes()),
        ("100644", "model.bin", lfs.into_bytes()),
        ("100644", &deep, b"deep".to_vec()),
        ("100644", &long_name, b"long".to_vec()),
    ];
    let mut stream =
        b"commit refs/heads/main\ncommitter Ada <ada@example.com> 1700000000 +0000\ndata 0\n".to_vec();
    for (mode, path, content) in files {
        write!(stream, "M {mode} inline {path}\ndata {}\n", content.len()).unwrap();
        stream.extend_from_slice(&content);
        stream.push(b'\n');
    }
    writeln!(stream, "M 160000 {} module", "1".repeat(40)).unwrap();
    run_git(
        Path::new("/"),
        ["init", "--quiet", "--bare", "--initial-branch=main", directory.to_str().unwrap()],
    );
    piped(git().arg("-C").arg(directory).args(["fast-import", "--quiet"]), &stream);
    (directory.to_owned(), run_git(directory, ["rev-parse", "main"]))
}

#[test]
fn a_tar_is_byte_for_byte_that_of_git() {
    let directory = tempfile::tempdir().unwrap();
    let small = SampleRepository::small(&directory.path().join("small"));
    let generated = SampleRepository::generated(&directory.path().join("generated"), 3000);
    let (peculiar, commit) = peculiar(&directory.path().join("peculiar"));
    let cases = [
        (&small.directory, small.commit("main")),
        (&small.directory, small.commit("v1.0")),
        (&generated.directory, generated.commit("main")),
        (&peculiar, commit),
    ];
    for (repository, commit) in cases {
        let (bytes, archived) = archived(repository, &request(&commit, ArchiveFormat::TarZst, &[]));
        let (ours, git) = (unpacked(&bytes), git_tar(repository, &[&commit]));
        // `export-subst` is the one thing that git does and we do not; it is counted.
        let expanded = commit.as_bytes();
        let mut git = git;
        if archived.unexpanded > 0 {
            let start = git.windows(40 + 472).position(|window| {
                &window[..40] == expanded && window[40] == b'\n' && window[41..] == [0; 471]
            });
            assert!(start.is_some(), "git expands");
            assert_eq!(listed(&ours), listed(&git));
            git = git_tar(
                repository,
                &[
                    &commit, "sub", "deep", "long", "tool", "run.bat", "link", "far", "module", "hollow",
                    "hollow2",
                ],
            );
            let paths =
                ["sub", "deep", "long", "tool", "run.bat", "link", "far", "module", "hollow", "hollow2"];
            let (bytes, _) = self::archived(repository, &request(&commit, ArchiveFormat::TarZst, &paths));
            assert!(unpacked(&bytes) == git, "{commit}");
            continue;
        }
        assert!(ours == git, "{commit}: {:?} and {:?}", listed(&ours), listed(&git));
    }
}

/// Names, modes, sizes but those of the file that git expands, and where links lead.
fn listed(tar: &[u8]) -> Vec<String> {
    let listing = piped(Command::new("tar").args(["--list", "--verbose", "--file=-"]), tar);
    let lines = String::from_utf8(listing).unwrap();
    lines.lines().filter(|line| !line.ends_with(" version")).map(str::to_owned).collect()
}

#[test]
fn contents_are_those_of_git_with_line_ends_and_a_prefix() {
    let directory = tempfile::tempdir().unwrap();
    let (repository, commit) = peculiar(&directory.path().join("peculiar"));
    let mut wanted = request(&commit, ArchiveFormat::TarZst, &[]);
    wanted.prefix = "web-1/".to_owned();
    let (bytes, archived) = archived(&repository, &wanted);
    assert_eq!((archived.lfs_pointers, archived.submodules, archived.unexpanded), (1, 1, 1));
    let (ours, theirs) = (directory.path().join("ours"), directory.path().join("theirs"));
    for (into, tar) in
        [(&ours, unpacked(&bytes)), (&theirs, git_tar(&repository, &["--prefix=web-1/", &commit]))]
    {
        std::fs::create_dir(into).unwrap();
        piped(
            Command::new("tar").arg("-C").arg(into).args(["--extract", "--preserve-permissions", "--file=-"]),
            &tar,
        );
    }
    let version = Path::new("web-1/version");
    assert_eq!(std::fs::read(ours.join(version)).unwrap(), b"$Format:%H$\n");
    std::fs::remove_file(ours.join(version)).unwrap();
    std::fs::remove_file(theirs.join(version)).unwrap();
    let differences =
        Command::new("diff").args(["--recursive", "--no-dereference"]).arg(&ours).arg(&theirs).output();
    let differences = differences.unwrap();
    assert!(differences.status.success(), "{}", String::from_utf8_lossy(&differences.stdout));
    assert_eq!(std::fs::read(ours.join("web-1/run.bat")).unwrap(), b"echo\r\nthere\r\n");
}

#[test]
fn paths_choose_what_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let (repository, commit) = peculiar(&directory.path().join("peculiar"));
    for paths in
        [&["sub"][..], &["sub/inner", "tool"], &["tool", "sub/b.ignored", "sub"], &["module"], &["link"]]
    {
        let (bytes, archived) = archived(&repository, &request(&commit, ArchiveFormat::TarZst, paths));
        let arguments = [&[commit.as_str()][..], paths].concat();
        assert!(unpacked(&bytes) == git_tar(&repository, &arguments), "{paths:?}");
        assert!(archived.missing.is_empty());
    }
    let (bytes, archived) =
        archived(&repository, &request(&commit, ArchiveFormat::TarZst, &["/sub/", "nothing"]));
    assert_eq!(archived.missing, ["nothing"]);
    assert!(unpacked(&bytes) == git_tar(&repository, &[&commit, "sub"]));
    let error =
        refused(&repository, &request(&commit, ArchiveFormat::TarZst, &["sub/b.ignord"]), &a_minute());
    assert!(
        matches!(&error, Error::PathNotFound { paths, near } if paths == &["sub/b.ignord"] && near == &["sub/b.ignored"]),
        "{error:?}"
    );
}

#[test]
fn a_zip_opens_in_two_other_programs() {
    let directory = tempfile::tempdir().unwrap();
    let (repository, commit) = peculiar(&directory.path().join("peculiar"));
    let (bytes, archived) = archived(&repository, &request(&commit, ArchiveFormat::Zip, &[]));
    let file = directory.path().join("a.zip");
    std::fs::write(&file, &bytes).unwrap();
    command_line(Command::new(require("unzip", "unzip")).arg("-tqq").arg(&file));
    let script = "import sys, zipfile, json\n\
        z = zipfile.ZipFile(sys.argv[1])\n\
        assert z.testzip() is None\n\
        print(json.dumps({'comment': z.comment.decode(), 'entries': [[i.filename, oct(i.external_attr >> 16), i.date_time, z.read(i).hex()] for i in z.infolist()]}))";
    let text = command_line(Command::new(require("python3", "python3")).args(["-c", script]).arg(&file));
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(found["comment"], commit);
    let entries = found["entries"].as_array().unwrap();
    assert_eq!(entries.len() as u64, archived.entries);
    let entry =
        |name: &str| entries.iter().find(|entry| entry[0] == name).unwrap_or_else(|| panic!("{name}"));
    for (name, mode) in
        [("tool", "0o100755"), ("link", "0o120777"), ("empty", "0o100644"), ("module/", "0o40755")]
    {
        assert_eq!(entry(name)[1], mode, "{name}");
        assert_eq!(entry(name)[2], serde_json::json!([2023, 11, 14, 22, 13, 20]));
    }
    assert_eq!(entry("Gr\u{fc}\u{df}e/\u{65e5}\u{672c}.txt")[3], "6e616d6573");
    assert_eq!(entry("run.bat")[3], "6563686f0d0a74686572650d0a");
    let names: BTreeSet<&str> = entries.iter().filter_map(|entry| entry[0].as_str()).collect();
    assert!(!names.contains("a.ignored") && names.contains("sub/b.ignored"), "{names:?}");
}

#[test]
fn the_same_commit_gives_the_same_bytes_from_other_packs() {
    let directory = tempfile::tempdir().unwrap();
    let sample = SampleRepository::generated(&directory.path().join("sample"), 3000);
    let commit = sample.commit("main");
    let loose = directory.path().join("loose");
    let borrowing = directory.path().join("borrowing");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    run_git(Path::new("/"), ["init", "--quiet", "--bare", &path(&loose)]);
    let pack = git()
        .arg("-C")
        .arg(&sample.directory)
        .args(["pack-objects", "--all", "--stdout", "--quiet"])
        .stdin(Stdio::null())
        .output();
    piped(git().arg("-C").arg(&loose).args(["unpack-objects", "-q"]), &pack.unwrap().stdout);
    run_git(
        Path::new("/"),
        ["clone", "--quiet", "--bare", "--shared", &path(&sample.directory), &path(&borrowing)],
    );
    for format in [ArchiveFormat::TarZst, ArchiveFormat::Zip] {
        let wanted = request(&commit, format, &[]);
        let (first, _) = archived(&sample.directory, &wanted);
        let repacked = || run_git(&sample.directory, ["repack", "-adfq", "--depth=3"]);
        for repository in [&sample.directory, &loose, &borrowing] {
            assert!(archived(repository, &wanted).0 == first, "{format:?} {}", repository.display());
        }
        repacked();
        assert!(archived(&sample.directory, &wanted).0 == first, "{format:?}");
    }
}

/// A tree with one entry that git itself would not write.
fn hostile(repository: &Path, mode: &str, name: &str) -> String {
    let blob = String::from_utf8(piped(
        git().arg("-C").arg(repository).args(["hash-object", "-w", "--stdin"]),
        b"x",
    ))
    .unwrap();
    let mut tree = format!("{mode} {name}\0").into_bytes();
    let digits = blob
        .trim()
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
    tree.extend(digits);
    let tree = piped(
        git().arg("-C").arg(repository).args(["hash-object", "-w", "-t", "tree", "--literally", "--stdin"]),
        &tree,
    );
    commit_of(repository, String::from_utf8(tree).unwrap().trim())
}

fn commit_of(repository: &Path, tree: &str) -> String {
    let mut command = git();
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Ada").env(format!("GIT_{who}_EMAIL"), "ada@example.com");
    }
    command_line(command.arg("-C").arg(repository).args(["commit-tree", "-m", "x", tree]))
}

#[test]
fn hostile_names_are_refused_before_the_first_byte() {
    let directory = tempfile::tempdir().unwrap();
    let sample = SampleRepository::empty(&directory.path().join("sample"));
    for (mode, name) in [
        ("100644", ".."),
        ("100644", "."),
        ("100644", ".git"),
        ("100644", ".GIT"),
        ("100644", "/etc/passwd"),
        ("100644", "a/../../b"),
        ("100644", "a\\..\\b"),
        ("100644", "git~1"),
        ("120000", ".gitmodules"),
    ] {
        let commit = hostile(&sample.directory, mode, name);
        for format in [ArchiveFormat::TarZst, ArchiveFormat::Zip] {
            let mut bytes = Vec::new();
            let refused = archive(&sample.directory, &request(&commit, format, &[]), &mut bytes, &a_minute());
            assert!(matches!(refused, Err(Error::UnsafePath { .. })), "{name}: {refused:?}");
            assert!(bytes.is_empty(), "{name}");
        }
    }
    let mut wanted = request(&hostile(&sample.directory, "100644", "fine"), ArchiveFormat::TarZst, &[]);
    archived(&sample.directory, &wanted);
    for prefix in ["../", "/etc/", "a/.git/"] {
        wanted.prefix = prefix.to_owned();
        assert!(
            matches!(refused(&sample.directory, &wanted, &a_minute()), Error::UnsafePath { .. }),
            "{prefix}"
        );
    }
}

#[test]
fn bombs_and_large_files_meet_their_limits() {
    let directory = tempfile::tempdir().unwrap();
    let sample = SampleRepository::empty(&directory.path().join("sample"));
    let at = |arguments: &[&str], input: &[u8]| {
        let bytes = piped(git().arg("-C").arg(&sample.directory).args(arguments), input);
        String::from_utf8(bytes).unwrap().trim().to_owned()
    };
    let blob = at(&["hash-object", "-w", "--stdin"], b"content");
    let mut tree = at(&["mktree"], format!("100644 blob {blob}\tf\n").as_bytes());
    for _ in 0..20 {
        let lines: String = (0..10).map(|digit| format!("040000 tree {tree}\td{digit}\n")).collect();
        tree = at(&["mktree"], lines.as_bytes());
    }
    let bomb = commit_of(&sample.directory, &tree);
    let began = Instant::now();
    let error = refused(&sample.directory, &request(&bomb, ArchiveFormat::TarZst, &[]), &a_minute());
    assert!(matches!(error, Error::TooLarge { what: Limit::Files, .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(5));

    let two = at(&["mktree"], format!("100644 blob {blob}\ta\n100644 blob {blob}\tb\n").as_bytes());
    let commit = commit_of(&sample.directory, &two);
    let mut wanted = request(&commit, ArchiveFormat::Zip, &[]);
    wanted.max_bytes = 13;
    let error = refused(&sample.directory, &wanted, &a_minute());
    assert!(matches!(error, Error::TooLarge { what: Limit::ArchiveBytes, limit: 13 }), "{error:?}");
    wanted.max_bytes = 100;
    let error = refused(&sample.directory, &wanted, &a_minute());
    assert!(matches!(error, Error::TooLarge { what: Limit::ArchiveBytes, limit: 100 }), "{error:?}");
    let mut control = a_minute();
    control.limits.max_blob_bytes = 6;
    let error = refused(&sample.directory, &request(&commit, ArchiveFormat::TarZst, &[]), &control);
    assert!(matches!(error, Error::TooLarge { what: Limit::BlobBytes, limit: 6 }), "{error:?}");
}

/// Takes everything, and sets a cancel when the first bytes come.
struct Cancelling(Control, Option<Instant>);

impl Write for Cancelling {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.get_or_insert_with(Instant::now);
        self.0.cancel.cancel();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes nothing.
struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A repository with one file of so many random bytes, so that an archive of it takes its time.
fn with_large_file(directory: &Path, content: &[u8]) -> (PathBuf, String) {
    let sample = SampleRepository::empty(directory);
    let path = &sample.directory;
    let blob = piped(git().arg("-C").arg(path).args(["hash-object", "-w", "--stdin"]), content);
    let blob = String::from_utf8(blob).unwrap();
    let line = format!("100644 blob {}\tlarge\n", blob.trim());
    let tree = piped(git().arg("-C").arg(path).args(["mktree"]), line.as_bytes());
    let commit = commit_of(path, String::from_utf8(tree).unwrap().trim());
    run_git(path, ["update-ref", "refs/heads/main", &commit]);
    (path.clone(), commit)
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..bytes / 8).flat_map(|_| next().to_le_bytes()).collect()
}

#[test]
fn a_cancel_and_a_sink_that_is_gone_end_it_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let (repository, commit) = with_large_file(&directory.path().join("sample"), &noise(64 << 20));
    for format in [ArchiveFormat::TarZst, ArchiveFormat::Zip] {
        let control = a_minute();
        let mut sink = Cancelling(control.clone(), None);
        let ended = archive(&repository, &request(&commit, format, &[]), &mut sink, &control);
        let took = sink.1.map(|cancelled| cancelled.elapsed());
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
        assert!(took.is_some_and(|took| took < STOP_LIMIT), "{took:?}");
        let ended = archive(&repository, &request(&commit, format, &[]), &mut Gone, &a_minute());
        assert!(matches!(ended, Err(Error::Delivery { .. })), "{ended:?}");
    }
}

/// Runs in a process of its own when the test below starts it; by itself it is an archive of next to nothing.
#[test]
fn an_archive_that_is_measured() {
    let named = std::env::var_os(MEASURED).map(PathBuf::from);
    let directory = tempfile::tempdir().unwrap();
    let repository = named.unwrap_or_else(|| SampleRepository::small(directory.path()).directory);
    let commit = run_git(&repository, ["rev-parse", "main"]);
    for format in [ArchiveFormat::TarZst, ArchiveFormat::Zip] {
        archive(&repository, &request(&commit, format, &[]), &mut io::sink(), &a_minute()).unwrap();
    }
}

#[test]
fn a_large_file_is_streamed_in_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    let (repository, commit) = with_large_file(&directory.path().join("sample"), &vec![0; 200 << 20]);
    let told = directory.path().join("memory");
    for is_packed in [false, true] {
        if is_packed {
            run_git(&repository, ["repack", "-adq"]);
        }
        let mut command = Command::new(require("/usr/bin/time", "time"));
        command.args(["--format=%M", "--output"]).arg(&told).arg(std::env::current_exe().unwrap());
        command.args(["--exact", "archive::an_archive_that_is_measured"]).env(MEASURED, &repository);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        let memory_kib: u64 = std::fs::read_to_string(&told).unwrap().trim().parse().unwrap();
        assert!(memory_kib < MAX_MEMORY_KIB, "{memory_kib} KiB");
    }
    let (bytes, _) = archived(&repository, &request(&commit, ArchiveFormat::TarZst, &[]));
    assert!(unpacked(&bytes) == git_tar(&repository, &[&commit]));
    let (bytes, _) = archived(&repository, &request(&commit, ArchiveFormat::Zip, &[]));
    let file = directory.path().join("a.zip");
    std::fs::write(&file, &bytes).unwrap();
    command_line(Command::new(require("unzip", "unzip")).arg("-tqq").arg(&file));
}
