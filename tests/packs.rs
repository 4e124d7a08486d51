//! Packs that are not what they should be: with holes, or made to take memory and time.

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use sortie::git::{Error, Limit, Limits, Means, Mirrors, PackProblem, clone};
use sortie::remote_url::RemoteUrl;
use sortie::report::StageLog;

use crate::clone::{assert_whole, on_both_engines, served, served_with, wanted, with_pack};
use crate::git_transport::{a_minute, over_http, read_head, scripted};
use crate::support::memory::{self, Measured};
use crate::support::process::write_private;
use crate::support::repository::{SampleRepository, git, run_git};

/// The names of everything that a revision reaches.
fn reached(sample: &SampleRepository, revision: &str) -> Vec<String> {
    let list = run_git(&sample.directory, ["rev-list", "--objects", "--no-object-names", revision]);
    list.lines().map(str::to_owned).collect()
}

/// A pack of these objects and no others.
fn pack_of(sample: &SampleRepository, objects: &[String], form: &[&str]) -> Vec<u8> {
    let mut command = git();
    command.arg("-C").arg(&sample.directory).args(["pack-objects", "--stdout", "-q"]).args(form);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all((objects.join("\n") + "\n").as_bytes()).unwrap();
    child.wait_with_output().unwrap().stdout
}

fn without(objects: &[String], left_out: &str) -> Vec<String> {
    objects.iter().filter(|object| *object != left_out).cloned().collect()
}

/// Deltas name their bases by their place, as servers send them, or by their identifiers.
const FORMS: [&[&str]; 2] = [&["--delta-base-offset"], &[]];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_missing_anywhere_in_the_history_is_noticed() {
    on_both_engines(async || {
        let directory = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(directory.path());
        let main = sample.commit("main");
        let all = reached(&sample, "main");
        assert!(all.len() > 10, "{all:?}");
        for form in FORMS {
            let whole = with_pack(&main, &pack_of(&sample, &all, form)).await;
            assert!(whole.is_ok(), "{whole:?}");
            for left_out in &all {
                let pack = pack_of(&sample, &without(&all, left_out), form);
                let refused = with_pack(&main, &pack).await;
                let kind = run_git(&sample.directory, ["cat-file", "-t", left_out]);
                assert!(
                    matches!(refused, Err(Error::PackCorrupt(PackProblem::ObjectMissing))),
                    "{kind} {left_out}: {refused:?}"
                );
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_for_may_refer_to_what_it_likes() {
    on_both_engines(async || {
        let directory = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(directory.path());
        let main = sample.commit("main");
        let mut objects = reached(&sample, "main");
        // A commit beside the history, without its tree.
        objects.push(sample.add_commit("feature", "aside", "aside"));
        for form in FORMS {
            let done = with_pack(&main, &pack_of(&sample, &objects, form)).await;
            assert!(done.is_ok(), "{done:?}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_keeps_nothing_of_a_pack_with_a_hole() {
    on_both_engines(async || {
        let directory = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(&directory.path().join("web.git"));
        let (main, first) = (sample.commit("main"), sample.commit("main~1"));
        let (all, old) = (reached(&sample, "main"), reached(&sample, "main~1"));
        let new: Vec<String> = all.iter().filter(|object| !old.contains(object)).cloned().collect();
        let old_tree = run_git(&sample.directory, ["rev-parse", "main~1^{tree}"]);
        let new_tree = run_git(&sample.directory, ["rev-parse", "main^{tree}"]);
        let whole = |objects: &[String]| pack_of(&sample, objects, FORMS[0]);
        let mut answers = Vec::new();
        answers.extend(served(&first, &whole(&old)));
        // What is new lacks its tree, so the mirror goes; then what is old lacks one, and there is no way.
        answers.extend(served(&main, &whole(&without(&new, &new_tree))));
        answers.extend(served(&main, &whole(&without(&all, &old_tree))));
        // A hole where the clone does not look.
        answers.extend(served(&main, &whole(&all)));
        let server = scripted(answers);
        let url = format!("{}/web", server.url);
        let remote = over_http(&url, None, None).await;
        let mirrors = Arc::new(Mirrors::new(directory.path().join("mirrors"), u64::MAX));
        let clone_into = async |name: &str| {
            let target = directory.path().join(name);
            let mut request = wanted(None, &target);
            let place = mirrors.place(&RemoteUrl::parse(&url).unwrap(), "token");
            request.means = Means { mirror: Some(place), ..request.means };
            clone(&remote, &request, &a_minute(), &StageLog::default()).await
        };
        assert_eq!(clone_into("first").await.unwrap().commit, first);
        let refused = clone_into("second").await;
        assert!(matches!(refused, Err(Error::PackCorrupt(PackProblem::ObjectMissing))), "{refused:?}");
        assert!(!directory.path().join("second").exists());
        assert_eq!(clone_into("third").await.unwrap().commit, main);
        assert_whole(&directory.path().join("third"));
        server.thread.join().unwrap();
    })
    .await;
}

/// A pack that is made by hand.
struct HandMade {
    bytes: Vec<u8>,
    count: u32,
}

const COMMIT: u8 = 1;
const TREE: u8 = 2;
const BLOB: u8 = 3;
const DELTA_BY_PLACE: u8 = 6;
const DELTA_BY_NAME: u8 = 7;

impl HandMade {
    fn new() -> Self {
        Self { bytes: b"PACK\0\0\0\x02\0\0\0\0".to_vec(), count: 0 }
    }

    /// Adds an entry and returns its place.
    fn add(&mut self, kind: u8, base: &[u8], content: &[u8]) -> usize {
        let place = self.bytes.len();
        let mut size = content.len();
        let mut byte = kind << 4 | (size & 15) as u8;
        size >>= 4;
        while size > 0 {
            self.bytes.push(byte | 0x80);
            byte = (size & 127) as u8;
            size >>= 7;
        }
        self.bytes.push(byte);
        self.bytes.extend(base);
        let mut deflated = ZlibEncoder::new(Vec::new(), Compression::default());
        deflated.write_all(content).unwrap();
        self.bytes.extend(deflated.finish().unwrap());
        self.count += 1;
        place
    }

    fn delta(&mut self, base: usize, content: &[u8]) -> usize {
        let mut distance = self.bytes.len() - base;
        let mut bytes = vec![(distance & 127) as u8];
        distance >>= 7;
        while distance > 0 {
            distance -= 1;
            bytes.insert(0, 0x80 | (distance & 127) as u8);
            distance >>= 7;
        }
        self.add(DELTA_BY_PLACE, &bytes, content)
    }

    /// A commit with one file. Returns the commit.
    fn commit(&mut self, file: &[u8; 20]) -> String {
        let tree = [b"100644 file\0".as_slice(), file].concat();
        self.add(TREE, &[], &tree);
        let tree = hex(&name("tree", &tree));
        let who = "Ada <ada@example.com> 1700000000 +0000";
        let commit = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nx\n");
        self.add(COMMIT, &[], commit.as_bytes());
        hex(&name("commit", commit.as_bytes()))
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes[8..12].copy_from_slice(&self.count.to_be_bytes());
        let hash = sha1(&[&self.bytes]);
        self.bytes.extend(hash);
        self.bytes
    }
}

fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut hasher = gix_hash::hasher(gix_hash::Kind::Sha1);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.try_finalize().unwrap().as_slice().try_into().unwrap()
}

fn name(kind: &str, content: &[u8]) -> [u8; 20] {
    sha1(&[format!("{kind} {}\0", content.len()).as_bytes(), content])
}

fn hex(id: &[u8; 20]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn size(mut size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while size > 127 {
        bytes.push(0x80 | (size & 127) as u8);
        size >>= 7;
    }
    bytes.push(size as u8);
    bytes
}

/// Instructions that copy the beginning of the base so many times.
fn copies(base: usize, length: usize, times: usize) -> Vec<u8> {
    let mut delta = [size(base), size(length * times)].concat();
    for _ in 0..times {
        let length = length.to_le_bytes();
        delta.extend([0xf0, length[0], length[1], length[2]]);
    }
    delta
}

/// A chain of so many deltas, each on the one before.
fn chain(pack: &mut HandMade, depth: u32, by_name: bool) -> [u8; 20] {
    const REST: &[u8; 16] = b"0123456789abcdef";
    let content = |number: u32| [&number.to_be_bytes(), REST.as_slice()].concat();
    let mut place = pack.add(BLOB, &[], &content(0));
    for number in 1..=depth {
        let insert = [&[4], number.to_be_bytes().as_slice()].concat();
        let delta = [size(20), size(20), insert, vec![0x91, 4, 16]].concat();
        place = if by_name {
            pack.add(DELTA_BY_NAME, &name("blob", &content(number - 1)), &delta)
        } else {
            pack.delta(place, &delta)
        };
    }
    name("blob", &content(depth))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_of_deltas_may_be_long_but_not_without_end() {
    for by_name in [false, true] {
        for (depth, is_taken) in [(4_095, true), (60_000, false)] {
            let mut pack = HandMade::new();
            let file = chain(&mut pack, depth, by_name);
            let commit = pack.commit(&file);
            let done = with_pack(&commit, &pack.finish()).await;
            match done {
                Ok(done) if is_taken => assert_eq!(done.files, 1),
                Err(Error::TooLarge { what: Limit::DeltaDepth, .. }) if !is_taken => {}
                other => panic!("{depth}, by name: {by_name}: {other:?}"),
            }
        }
    }
    let mut pack = HandMade::new();
    let file = chain(&mut pack, 100_000, false);
    let commit = pack.commit(&file);
    let done = with_pack(&commit, &pack.finish()).await;
    assert!(matches!(done, Err(Error::TooLarge { what: Limit::DeltaDepth, .. })), "{done:?}");
}

/// A server that answers as often as it is asked, until it is dropped.
struct PackServer {
    address: SocketAddr,
    has_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PackServer {
    fn start([list, pack]: [Vec<u8>; 2]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, has_ended) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let is_over = Arc::clone(&has_ended);
        let thread = std::thread::spawn(move || {
            while let Ok((mut connection, _)) = listener.accept() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let head = read_head(&mut connection);
                let answer = if head.starts_with("POST") { &pack } else { &list };
                // A client that has heard enough may be gone.
                let _ = connection.write_all(answer);
            }
        });
        Self { address, has_ended, thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for PackServer {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        #[allow(clippy::disallowed_methods)] // It wakes the server up.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A run of the program.
pub(crate) struct Program<'a> {
    pub(crate) home: &'a Path,
    pub(crate) url: &'a str,
    pub(crate) ca_file: Option<&'a Path>,
    pub(crate) repository: &'a str,
    pub(crate) token: &'a str,
    /// Lines of its configuration.
    pub(crate) limits: &'a str,
    pub(crate) target: &'a Path,
}

/// Clones by the program and asks the kernel how much memory it took.
pub(crate) fn measured(program: &Program<'_>) -> Measured {
    let Program { home, url, limits, .. } = program;
    let (pat, config) = (home.join("pat"), home.join("config.toml"));
    write_private(&pat, program.token).unwrap();
    let ca_file = program.ca_file.map(|file| format!("ca_file = \"{}\"\n", file.display()));
    let text = format!(
        "[agent]\nstate_dir = \"{}\"\n[limits]\n{limits}\n[servers.lab]\nprovider = \"git\"\nurl = \"{url}\"\n\
         allow_loopback = true\nproxy = \"none\"\n{}",
        home.join("state").display(),
        ca_file.unwrap_or_default()
    );
    std::fs::write(&config, text).unwrap();
    let arguments =
        ["clone", "--json", "--server", "lab", "--repository", program.repository, "--deadline", "120"];
    let mut arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    arguments.extend([OsStr::new("--config"), config.as_os_str(), OsStr::new("--pat-file"), pat.as_os_str()]);
    arguments.push(program.target.as_os_str());
    memory::measured(home, arguments)
}

#[test]
fn few_bytes_that_stand_for_a_large_file_are_refused_in_little_memory() {
    const MIB: usize = 1024 * 1024;
    /// What is under the limit may be held, with its base and for each thread; what is over it never is.
    const MAX_MEMORY_KIB: u64 = 200 * 1024;
    for by_name in [false, true] {
        let mut pack = HandMade::new();
        let base = vec![b'x'; 64 * 1024];
        let place = pack.add(BLOB, &[], &base);
        let (first, second) =
            (copies(64 * 1024, 64 * 1024 - 1, 256), copies(256 * (64 * 1024 - 1), 15 * MIB, 600));
        if by_name {
            pack.add(DELTA_BY_NAME, &name("blob", &base), &first);
            let made = base[1..].repeat(256);
            pack.add(DELTA_BY_NAME, &name("blob", &made), &second);
        } else {
            let place = pack.delta(place, &first);
            pack.delta(place, &second);
        }
        let commit = pack.commit(&name("blob", &base));
        let pack = pack.finish();
        assert!(pack.len() < 64 * 1024, "{} bytes stand for 9,000 MiB", pack.len());
        let home = tempfile::tempdir().unwrap();
        let server = PackServer::start(served(&commit, &pack));
        let run = measured(&Program {
            home: home.path(),
            url: &server.url(),
            ca_file: None,
            repository: "web",
            token: "any-token",
            limits: "blob_bytes = 67108864",
            target: &home.path().join("clones/web"),
        });
        assert_eq!(run.report["diagnosis"]["code"], "too_large", "{:#}", run.report);
        assert!(run.memory_kib < MAX_MEMORY_KIB, "{} KiB", run.memory_kib);
        assert!(run.took < Duration::from_secs(20), "{:?}", run.took);
        assert!(!home.path().join("clones").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_deltas_make_has_a_limit_on_both_engines() {
    on_both_engines(async || {
        let mut pack = HandMade::new();
        let base = vec![b'x'; 64 * 1024];
        let place = pack.add(BLOB, &[], &base);
        let made = base[1..].repeat(100);
        pack.delta(place, &copies(64 * 1024, 64 * 1024 - 1, 100));
        let commit = pack.commit(&name("blob", &made));
        let pack = pack.finish();
        assert!(with_pack(&commit, &pack).await.is_ok());
        let server = scripted(served(&commit, &pack).into());
        let root = tempfile::tempdir().unwrap();
        let remote = over_http(&format!("{}/web", server.url), None, None).await;
        let mut control = a_minute();
        control.limits = Limits { max_blob_bytes: 1_000_000, ..Limits::default() };
        let request = wanted(None, &root.path().join("target"));
        let refused = clone(&remote, &request, &control, &StageLog::default()).await;
        server.thread.join().unwrap();
        assert!(matches!(refused, Err(Error::TooLarge { what: Limit::BlobBytes, .. })), "{refused:?}");
    })
    .await;
}

/// A delta that copies nothing of a base of this size.
fn inserted(base: usize, content: &[u8]) -> Vec<u8> {
    let mut delta = [size(base), size(content.len())].concat();
    for piece in content.chunks(127) {
        delta.push(piece.len() as u8);
        delta.extend(piece);
    }
    delta
}

/// A commit of an empty tree, with its content.
fn bare_commit(parent: Option<&[u8; 20]>, message: &str) -> ([u8; 20], Vec<u8>) {
    let who = "Ada <ada@example.com> 1700000000 +0000";
    let tree = hex(&name("tree", b""));
    let parent = parent.map(|parent| format!("parent {}\n", hex(parent))).unwrap_or_default();
    let commit = format!("tree {tree}\n{parent}author {who}\ncommitter {who}\n\n{message}\n").into_bytes();
    (name("commit", &commit), commit)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_comes_twice_is_refused() {
    on_both_engines(async || {
        let ((x_id, x), (_, y)) = (bare_commit(None, "x"), bare_commit(None, "y"));
        let (tip, whole) = bare_commit(None, "z");
        for twice in [false, true] {
            let mut pack = HandMade::new();
            pack.add(TREE, &[], b"");
            // Whoever takes the second `x` for the base of `y` leans on `y` itself.
            let by_name = pack.add(DELTA_BY_NAME, &x_id, &inserted(x.len(), &y));
            let place = pack.add(COMMIT, &[], &whole);
            if twice {
                pack.delta(by_name, &inserted(y.len(), &x));
            }
            pack.delta(place, &inserted(whole.len(), &x));
            let done = with_pack(&hex(&tip), &pack.finish()).await;
            if twice {
                assert!(matches!(done, Err(Error::PackCorrupt(PackProblem::Damaged))), "{done:?}");
            } else {
                assert_eq!(done.unwrap().commit, hex(&tip));
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pack_has_itself_is_not_taken_from_the_mirror() {
    let (first, first_content) = bare_commit(None, "first");
    let (second, second_content) = bare_commit(Some(&first), "second");
    let (third, third_content) = bare_commit(Some(&second), "third");
    let mut old = HandMade::new();
    old.add(TREE, &[], b"");
    old.add(COMMIT, &[], &first_content);
    // What the mirror has comes once more; only `third` leans on something that is nowhere else.
    let mut new = HandMade::new();
    let place = new.add(COMMIT, &[], &second_content);
    new.add(DELTA_BY_NAME, &first, &inserted(first_content.len(), &third_content));
    new.delta(place, &inserted(second_content.len(), &first_content));
    let mut thin = HandMade::new();
    let (fourth, fourth_content) = bare_commit(Some(&third), "fourth");
    let (fifth, fifth_content) = bare_commit(Some(&fourth), "fifth");
    // One leans on the other, which leans on what the mirror has.
    thin.add(DELTA_BY_NAME, &fourth, &inserted(fourth_content.len(), &fifth_content));
    thin.add(DELTA_BY_NAME, &third, &inserted(third_content.len(), &fourth_content));
    let mut answers = Vec::new();
    for (tip, pack) in [(first, old), (third, new), (fifth, thin)] {
        answers.extend(served(&hex(&tip), &pack.finish()));
    }
    let server = scripted(answers);
    let url = format!("{}/web", server.url);
    let remote = over_http(&url, None, None).await;
    let directory = tempfile::tempdir().unwrap();
    let mirrors = Arc::new(Mirrors::new(directory.path().join("mirrors"), u64::MAX));
    for tip in [first, third, fifth] {
        let target = directory.path().join(hex(&tip));
        let mut request = wanted(None, &target);
        let place = mirrors.place(&RemoteUrl::parse(&url).unwrap(), "token");
        request.means = Means { mirror: Some(place), ..request.means };
        let done = clone(&remote, &request, &a_minute(), &StageLog::default()).await.unwrap();
        assert_eq!(done.commit, hex(&tip));
        assert_whole(&target);
        for entry in std::fs::read_dir(target.join(".git/objects/pack")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "pack") {
                // In its strict mode git refuses a pack that has something twice.
                let index = directory.path().join("again.idx");
                let (index, pack) = (index.to_str().unwrap(), path.to_str().unwrap());
                run_git(&target, ["index-pack", "--strict", "-o", index, pack]);
                std::fs::remove_file(index).unwrap();
            }
        }
    }
    server.thread.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_reference_may_have_is_left_out() {
    on_both_engines(async || {
        let directory = tempfile::tempdir().unwrap();
        let sample = SampleRepository::small(&directory.path().join("web.git"));
        let main = sample.commit("main");
        let elsewhere = "7".repeat(40);
        let lines = [format!("{elsewhere} refs/heads/a..b\n"), format!("{elsewhere} refs/tags/a b\n")];
        let pack = pack_of(&sample, &reached(&sample, "main"), FORMS[0]);
        let server = scripted(served_with(&main, &lines, &pack).into());
        let remote = over_http(&format!("{}/web", server.url), None, None).await;
        let target = directory.path().join("target");
        let mut request = wanted(None, &target);
        (request.want.all_branches, request.want.tags) = (true, true);
        let done = clone(&remote, &request, &a_minute(), &StageLog::default()).await.unwrap();
        server.thread.join().unwrap();
        assert_eq!(done.commit, main);
        assert_whole(&target);
        assert_eq!(
            run_git(&target, ["for-each-ref", "--format=%(refname)", "refs/remotes", "refs/tags"])
                .lines()
                .count(),
            2
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_small_and_stored_as_a_delta_of_something_large_is_what_it_is() {
    const LARGE: usize = 17 * 1024 * 1024;
    const ATTRIBUTES: &[u8] = b"*.txt text eol=crlf\n";
    const LINES: &[u8] = b"one\ntwo\n";
    on_both_engines(async || {
        let large = vec![b'x'; LARGE];
        let mut pack = HandMade::new();
        let base = pack.add(BLOB, &[], &large);
        let mut tree = Vec::new();
        for (mode, path, content) in [
            ("100644", ".gitattributes", ATTRIBUTES),
            ("100644", "lines.txt", LINES),
            ("120000", "link", b"lines.txt"),
        ] {
            pack.delta(base, &inserted(LARGE, content));
            tree.extend([format!("{mode} {path}\0").as_bytes(), &name("blob", content)].concat());
        }
        pack.add(TREE, &[], &tree);
        let tree = hex(&name("tree", &tree));
        let who = "Ada <ada@example.com> 1700000000 +0000";
        let commit = format!("tree {tree}\nauthor {who}\ncommitter {who}\n\nx\n");
        pack.add(COMMIT, &[], commit.as_bytes());
        let server = scripted(served(&hex(&name("commit", commit.as_bytes())), &pack.finish()).into());
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        let remote = over_http(&format!("{}/web", server.url), None, None).await;
        let done = clone(&remote, &wanted(None, &target), &a_minute(), &StageLog::default()).await.unwrap();
        server.thread.join().unwrap();
        assert_eq!(done.files, 3);
        assert_eq!(std::fs::read_link(target.join("link")).unwrap(), Path::new("lines.txt"));
        assert_eq!(std::fs::read(target.join("lines.txt")).unwrap(), b"one\r\ntwo\r\n");
        assert_whole(&target);
    })
    .await;
}
