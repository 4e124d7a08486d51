//! What goes wrong between a server's list of references and the end of its pack, as people have met it with other
//! clients: a real server's answers are recorded and spoiled, and each trouble is told from the others. Nothing is left
//! of any of them.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use sortie::provider::Provider;
use stand_ins::{AzureDevOps, Gitlab};

use crate::clone::on_both_engines;
use crate::connection_test::{GITLAB_PAT, Lab};
use crate::support::replay::{Answer, Recording, Replay};
use crate::trial::{Outcome, Trial};

/// How long one clone may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// What spoils an answer.
type Spoil = fn(&mut Answer);

/// A trouble: its name, what it does to the answers, the code that it has, and words of its summary and of its first
/// remedy.
type Trouble = (&'static str, Spoil, &'static str, &'static str, &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn each_trouble_is_told_from_the_others_and_leaves_nothing() {
    let troubles: &[Trouble] = &[
        (
            "cut early in the pack",
            |answer| cut(answer, 20),
            "connection_lost",
            "bytes of the answer",
            "proxy",
        ),
        (
            "cut late in the pack",
            |answer| cut(answer, 600),
            "connection_lost",
            "bytes of the answer",
            "proxy",
        ),
        ("cut in the list", cut_list, "connection_lost", "bytes of the answer", "proxy"),
        (
            "ended early by the server",
            |answer| end(answer, 300),
            "pack_corrupt",
            "ended too early",
            "git fsck",
        ),
        ("a flipped byte", |answer| flip(answer, 200), "pack_corrupt", "wrong", "git fsck"),
        (
            "an error on the side band",
            give_up,
            "server_gave_up",
            "fatal: out of memory; dying",
            "server's words",
        ),
        (
            "an error instead of the pack",
            refuse_in_words,
            "server_gave_up",
            "over the quota",
            "server's words",
        ),
        ("POST forbidden", |answer| refuse(answer, "403"), "gateway_refused", "status 403", "pass POST"),
        ("POST hidden", |answer| refuse(answer, "404"), "gateway_refused", "status 404", "pass POST"),
        ("POST not allowed", |answer| refuse(answer, "405"), "gateway_refused", "status 405", "pass POST"),
        (
            "POST too large",
            |answer| refuse(answer, "413"),
            "gateway_refused",
            "status 413",
            "client_max_body_size",
        ),
        (
            "a failing server",
            |answer| refuse(answer, "500"),
            "server_error",
            "status 500",
            "server's own log",
        ),
        (
            "no server behind",
            |answer| refuse(answer, "503"),
            "server_unavailable",
            "status 503",
            "Try again later",
        ),
        ("too many requests", |answer| refuse(answer, "429"), "rate_limited", "", "Try again"),
        ("files without git", give_out_files, "dumb_http", "no git answers", "git http-backend"),
        ("a list without a default branch", hide_head, "reference_not_found", "default branch", "--ref main"),
    ];
    on_both_engines(async || {
        let lab = Recorded::start();
        for &(name, spoil, code, summary, remedy) in troubles {
            let outcome = lab.clone_spoiled(spoil).await;
            let diagnosis = &outcome.0["diagnosis"];
            assert_eq!(outcome.diagnosis().0, code, "{name}: {diagnosis:#}");
            let (told, first) = (&diagnosis["summary"], &diagnosis["remedies"][0]);
            assert!(told.as_str().unwrap().contains(summary), "{name}: {diagnosis:#}");
            assert!(first.as_str().unwrap().contains(remedy), "{name}: {diagnosis:#}");
            assert!(lab.nothing_is_left(), "{name}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_a_proxy_compressed_unasked_are_read() {
    on_both_engines(async || {
        let lab = Recorded::start();
        let outcome = lab.clone_spoiled(compress).await;
        assert!(outcome.succeeded(), "{:#}", outcome.0);
    })
    .await;
    let lab = Recorded::start();
    let outcome = lab.clone_spoiled(|answer| answer.set_header("content-encoding", "gzip")).await;
    assert_eq!(outcome.diagnosis().0, "unexpected_answer", "it only says so: {:#}", outcome.0);
    assert!(lab.nothing_is_left());
}

/// A server whose answers are spoiled, and a place for clones.
struct Recorded {
    recording: std::sync::Arc<Recording>,
    lab: Lab,
}

impl Recorded {
    fn start() -> Self {
        let gitlab = Gitlab { plain_http: true, ..Gitlab::default() };
        let lab = Lab::with(AzureDevOps::default(), gitlab);
        Self { recording: Recording::of(lab.gitlab().port()), lab }
    }

    async fn clone_spoiled(&self, spoil: Spoil) -> Outcome {
        let replay = Replay::start(&self.recording, move |_, answer| spoil(answer)).await;
        let url = format!("{}/shop/sub/web.git", replay.url());
        let trial = Trial::of(Some(Provider::Gitlab), &replay.url(), &url).pat(GITLAB_PAT).within(DEADLINE);
        let target = self.lab.scratch.path().join("targets/web");
        let outcome = Box::pin(trial.clone_into(&target)).await;
        if outcome.succeeded() {
            fs::remove_dir_all(self.lab.scratch.path().join("targets")).unwrap();
        }
        outcome
    }

    fn nothing_is_left(&self) -> bool {
        !self.lab.scratch.path().join("targets").exists()
    }
}

fn has_type(answer: &Answer, name: &str) -> bool {
    let of = |header: &(String, Vec<u8>)| {
        header.0.eq_ignore_ascii_case("content-type") && header.1 == name.as_bytes()
    };
    answer.headers.iter().any(of)
}

fn is_list(answer: &Answer) -> bool {
    has_type(answer, "application/x-git-upload-pack-advertisement")
}

fn is_result(answer: &Answer) -> bool {
    has_type(answer, "application/x-git-upload-pack-result")
}

/// Where the pack begins.
fn pack(answer: &Answer) -> Option<usize> {
    answer.body.windows(4).position(|four| four == b"PACK").filter(|_| is_result(answer))
}

/// Ends the connection so many bytes into the pack.
fn cut(answer: &mut Answer, bytes: usize) {
    if let Some(at) = pack(answer) {
        answer.claimed_length = Some(answer.body.len().to_string());
        answer.body.truncate(at + bytes);
    }
}

fn cut_list(answer: &mut Answer) {
    if is_list(answer) {
        answer.claimed_length = Some(answer.body.len().to_string());
        answer.body.truncate(answer.body.len() / 2);
    }
}

/// Ends the pack as if that were all of it.
fn end(answer: &mut Answer, bytes: usize) {
    if let Some(at) = pack(answer) {
        answer.body.truncate(at + bytes);
    }
}

fn flip(answer: &mut Answer, bytes: usize) {
    if let Some(at) = pack(answer) {
        answer.body[at + bytes] ^= 0x55;
    }
}

fn frame(content: &[u8]) -> Vec<u8> {
    [format!("{:04x}", content.len() + 4).as_bytes(), content].concat()
}

/// Says in the middle of the pack why there will be no more, as git does.
fn give_up(answer: &mut Answer) {
    if let Some(at) = pack(answer) {
        // The frame of the pack begins before its band.
        answer.body.truncate(at - 5);
        let begun = frame(b"\x01PACK\0\0\0\x02\0\0\0\x09");
        let talk = frame(b"\x02fatal: out of memory\n");
        answer.body.extend([begun, talk, frame(b"\x03dying\n"), b"0000".to_vec()].concat());
    }
}

fn refuse_in_words(answer: &mut Answer) {
    if is_result(answer) {
        answer.body = frame(b"ERR the project is over the quota\n");
    }
}

fn refuse(answer: &mut Answer, status: &str) {
    if is_result(answer) {
        answer.status = status.to_owned();
        answer.set_header("content-type", "text/plain");
        answer.body = b"no".to_vec();
    }
}

fn give_out_files(answer: &mut Answer) {
    if is_list(answer) {
        answer.set_header("content-type", "text/plain");
        answer.body = format!("{}\trefs/heads/main\n", "1".repeat(40)).into_bytes();
    }
}

/// Takes `HEAD` out of the list, as a server does whose default branch was deleted.
fn hide_head(answer: &mut Answer) {
    if is_list(answer) {
        let (commit, tail) = ("1".repeat(40), "\0multi_ack side-band-64k ofs-delta\n");
        let lines = [
            frame(b"# service=git-upload-pack\n"),
            b"0000".to_vec(),
            frame(format!("{commit} refs/heads/feature{tail}").as_bytes()),
            frame(format!("{commit} refs/heads/main\n").as_bytes()),
            b"0000".to_vec(),
        ];
        answer.body = lines.concat();
    }
}

fn compress(answer: &mut Answer) {
    if is_list(answer) || is_result(answer) {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&answer.body).unwrap();
        answer.body = encoder.finish().unwrap();
        answer.set_header("content-encoding", "gzip");
    }
}
