//! No answer of a server, however broken, is a bug of ours: good answers are recorded, spoiled in every way that
//! comes to mind, and sent through a real socket. What comes out is typed, bounded and fit to be shown.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::Value;
use sortie::provider::Provider;
use stand_ins::{AzureDevOps, Gitlab};

use crate::connection_test::{AZURE_PAT, GITLAB_PAT, Lab};
use crate::support::replay::{Answer, Recording, Replay};
use crate::trial::{Outcome, Trial};

/// How many spoiled tests are run; `SORTIE_BROKEN_ANSWERS` asks for more.
const CASES: u64 = 600;

/// How many of them run at once.
const AT_ONCE: usize = 8;

/// How long one of them may take, as it is told, and how much later it may notice.
const DEADLINE: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(5);

/// How long a server is waited for that says nothing.
const SHORT_DEADLINE: Duration = Duration::from_millis(500);

/// How many bytes of zeros are in the bomb.
const BOMB_BYTES: usize = 64 * 1024 * 1024;

/// What is tested: on which of the two servers, as what, and where.
const SCENARIOS: [(Server, Option<Provider>, &str); 9] = [
    (Server::Azure, Some(Provider::AzureDevops), "/Coll/My%20Shop/_git/web"),
    (Server::Azure, Some(Provider::AzureDevops), "/Coll/My%20Shop"),
    (Server::Azure, Some(Provider::AzureDevops), "/Coll"),
    (Server::Azure, None, "/Coll/My%20Shop/_git/web"),
    (Server::Gitlab, Some(Provider::Gitlab), "/shop/sub/web"),
    (Server::Gitlab, Some(Provider::Gitlab), "/shop"),
    (Server::Gitlab, Some(Provider::Gitlab), "/old/web"),
    (Server::Gitlab, None, "/shop/sub/web"),
    (Server::Gitlab, Some(Provider::Git), "/shop/sub/web.git"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Azure,
    Gitlab,
}

/// Both servers without TLS, so that what they say can be spoiled, and what they said so far.
struct Recorded {
    _lab: Lab,
    azure: Arc<Recording>,
    gitlab: Arc<Recording>,
    bomb: Vec<u8>,
}

impl Recorded {
    fn start() -> Self {
        let azure = AzureDevOps { plain_http: true, ..AzureDevOps::default() };
        let gitlab = Gitlab { plain_http: true, ..Gitlab::default() };
        let lab = Lab::with(azure, gitlab);
        let (azure, gitlab) = (Recording::of(lab.azure().port()), Recording::of(lab.gitlab().port()));
        Self { _lab: lab, azure, gitlab, bomb: bomb() }
    }

    /// A test of a scenario against a server that spoils its answers.
    async fn run(
        &self,
        scenario: (Server, Option<Provider>, &str),
        deadline: Duration,
        spoil: impl Fn(usize, &mut Answer) + Send + Sync + 'static,
    ) -> (Outcome, usize) {
        let (server, provider, path) = scenario;
        let (recording, token) = match server {
            Server::Azure => (&self.azure, AZURE_PAT),
            Server::Gitlab => (&self.gitlab, GITLAB_PAT),
        };
        let replay = Replay::start(recording, spoil).await;
        let trial = Trial::of(provider, &replay.url(), &format!("{}{path}", replay.url()));
        let began = Instant::now();
        let trial = trial.pat(token).within(deadline);
        let outcome = Box::pin(trial.run()).await;
        assert!(began.elapsed() < deadline + GRACE, "it took {:?}: {:#}", began.elapsed(), outcome.0);
        check(&outcome, token);
        (outcome, replay.asked())
    }
}

/// What holds for the outcome whatever the server said.
fn check(outcome: &Outcome, token: &str) {
    let (code, _) = outcome.diagnosis();
    assert_ne!(code, "internal", "{:#}", outcome.0);
    assert_eq!(outcome.succeeded(), code.is_empty(), "{:#}", outcome.0);
    let text = outcome.0.to_string();
    assert!(!text.contains(token), "{text}");
    assert!(text.len() < 64 * 1024, "a report of {} bytes", text.len());
    check_texts(&outcome.0);
}

/// Nothing in a report moves a cursor or turns the text around.
fn check_texts(json: &Value) {
    let is_unfit = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match json {
        Value::String(text) => assert!(!text.contains(is_unfit), "{text:?}"),
        Value::Array(items) => items.iter().for_each(check_texts),
        Value::Object(fields) => fields.values().for_each(check_texts),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Zeros that `gzip` has made small.
fn bomb() -> Vec<u8> {
    let script = format!("head -c {BOMB_BYTES} /dev/zero | gzip -9");
    let output = Command::new("sh").args(["-c", &script]).output().expect("gzip");
    assert!(output.status.success() && output.stdout.len() < BOMB_BYTES / 100, "gzip: {:?}", output.status);
    output.stdout
}

/// Numbers that are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn of(seed: u64) -> Self {
        let mut random = Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for _ in 0..4 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or(0)
    }

    fn of_list<'a, T: ?Sized>(&mut self, list: &[&'a T]) -> &'a T {
        list[self.below(list.len())]
    }
}

const TYPES: [&str; 8] = [
    "text/html; charset=utf-8",
    "application/json",
    "application/json; charset=utf-8; api-version=7.1",
    "application/x-git-upload-pack-advertisement",
    "text/plain",
    "json",
    "",
    ";;;",
];

const HEADERS: [&str; 16] = [
    "x-tfs-serviceerror",
    "x-vss-userdata",
    "x-vss-e2eid",
    "www-authenticate",
    "location",
    "retry-after",
    "content-type",
    "x-gitlab-meta",
    "ratelimit-reset",
    "ratelimit-remaining",
    "link",
    "date",
    "x-request-id",
    "set-cookie",
    "content-encoding",
    "server",
];

const LOCATIONS: [&str; 12] = [
    "/",
    "",
    "//evil.invalid/x",
    "https://evil.invalid/collect?token=x",
    "http://[::1",
    "javascript:alert(1)",
    "/users/sign_in",
    "/tfs/_signin?reply_to=x",
    "/api/v4/projects/1",
    "/api/v4/projects/99999999999999999999999",
    "?x",
    "/shop/sub/web.git/info/refs?service=git-upload-pack",
];

const BODIES: [&str; 20] = [
    "",
    "{",
    "null",
    "[]",
    "[null]",
    "{}",
    "\"\"",
    "0",
    "1e999",
    "{\"value\":{}}",
    "{\"value\":[[],null,{\"name\":1}]}",
    "\u{feff}{\"message\":null,\"typeKey\":[]}",
    "{\"message\":{\"a\":[1]},\"error\":7,\"error_description\":{}}",
    "<html><title>\u{202e}Sign in\u{1b}[2J</title>",
    "zzzz",
    "0000",
    "0004",
    "001e# service=git-upload-pack\n0000",
    "001e# service=git-upload-pack\n0000fff0",
    "001e# service=git-upload-pack\n00000010ERR \u{1b}[2Jno",
];

const RAW: [&[u8]; 12] = [
    b"",
    b"\0\0\0\0\0\0\0\0",
    b"HTTP/1.1",
    b"HTTP/1.1 200",
    b"HTTP/9.9 200 OK\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x15\x03\x01\x00\x02\x02\x28",
    b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 7\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}",
    b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\n\r\nx",
];

/// Spoils an answer in a way that the numbers choose.
fn spoil(answer: &mut Answer, random: &mut Random, bomb: &[u8]) {
    match random.below(13) {
        0 => {
            // Those that say something of their own, or any.
            answer.status = match random.below(4) {
                0 => (100 + random.below(500)).to_string(),
                _ => random.of_list(&["203", "401", "403", "404", "407", "410", "429", "503"]).to_owned(),
            };
        }
        1 => {
            answer.status = random.of_list(&["000", "099", "600", "999", "1000", "-1", "2OO", ""]).to_owned()
        }
        2 => answer.set_header("content-type", random.of_list(&TYPES)),
        3 => answer.body.truncate(random.below(answer.body.len())),
        4 => {
            // The connection ends before the body does.
            answer.claimed_length = Some(answer.body.len().to_string());
            answer.body.truncate(random.below(answer.body.len()));
        }
        5 => (0..=random.below(8)).for_each(|_| flip_a_bit(&mut answer.body, random)),
        6 => answer.body = retyped(&answer.body, random),
        7 => answer.body = [vec![b'['; 200_000], vec![b']'; 200_000]].concat(),
        8 => answer.set_header(random.of_list(&HEADERS), strange_value(random)),
        9 => {
            answer.status = random.of_list(&["301", "302", "303", "304", "307", "308", "399"]).to_owned();
            answer.set_header("location", random.of_list(&LOCATIONS));
        }
        10 => answer.body = random.of_list(&BODIES).as_bytes().to_vec(),
        11 => answer.raw = Some(random.of_list(&RAW).to_vec()),
        _ => {
            answer.set_header("content-encoding", "gzip");
            answer.body = bomb.to_vec();
        }
    }
}

fn flip_a_bit(body: &mut [u8], random: &mut Random) {
    if !body.is_empty() {
        body[random.below(body.len())] ^= 1 << random.below(8);
    }
}

fn strange_value(random: &mut Random) -> Vec<u8> {
    match random.below(5) {
        0 => vec![0xff, 0xfe, b'x'],
        1 => b"%1B%5B2J%E2%80%AE%FF:%0A".to_vec(),
        2 => vec![b'a'; 100_000],
        3 => b"99999999999999999999999".to_vec(),
        _ => b"=,\"=,,; Basic, NTLM Negotiate realm=\"".to_vec(),
    }
}

/// The same JSON with one of its values of another type; other bodies stay.
fn retyped(body: &[u8], random: &mut Random) -> Vec<u8> {
    const HUGE: &str = "a number that no type of ours holds";
    let text = String::from_utf8_lossy(body);
    let Ok(mut json) = serde_json::from_str::<Value>(text.trim_start_matches('\u{feff}')) else {
        return body.to_vec();
    };
    let count = nodes(&mut json).len();
    let chosen = random.below(count);
    let values = [
        Value::Null,
        Value::Bool(true),
        Value::from(-1),
        Value::from(u64::MAX),
        Value::from(HUGE),
        Value::from("\u{1b}[2J\u{202e}".repeat(2_000)),
        Value::from("../../%2e%2e/\u{0}"),
        Value::Array(vec![Value::Null; 3]),
        serde_json::json!({"name": {"name": "x"}}),
    ];
    *nodes(&mut json).swap_remove(chosen) = values[random.below(values.len())].clone();
    json.to_string().replace(&format!("\"{HUGE}\""), "1e99999").into_bytes()
}

/// Every leaf of a JSON.
fn nodes(json: &mut Value) -> Vec<&mut Value> {
    let is_leaf = !matches!(json, Value::Array(items) if !items.is_empty())
        && !matches!(json, Value::Object(fields) if !fields.is_empty());
    match json {
        leaf if is_leaf => vec![leaf],
        Value::Array(items) => items.iter_mut().flat_map(nodes).collect(),
        Value::Object(fields) => fields.values_mut().flat_map(nodes).collect(),
        leaf => vec![leaf],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_however_broken_is_a_bug() {
    let recorded = Recorded::start();
    for scenario in SCENARIOS {
        let (outcome, asked) = recorded.run(scenario, DEADLINE, |_, _| {}).await;
        let moved = outcome.diagnosis().0 == "repository_moved";
        assert!((outcome.succeeded() || moved) && asked > 0, "{scenario:?}: {:#}", outcome.0);
    }
    let cases =
        std::env::var("SORTIE_BROKEN_ANSWERS").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
    let one = async |seed: u64| {
        let mut random = Random::of(seed);
        let scenario = SCENARIOS[random.below(SCENARIOS.len())];
        let (at, goes_on) = (random.below(7), random.below(3) == 0);
        let (state, bomb) = (random.next(), recorded.bomb.clone());
        // The seed is in the message of a panic only if it is printed before.
        eprintln!("seed {seed}: {scenario:?}, from answer {at} on, all of them: {goes_on}");
        let spoiled = recorded.run(scenario, DEADLINE, move |number, answer| {
            if number == at || (goes_on && number > at) {
                spoil(answer, &mut Random(state.wrapping_add(number as u64) | 1), &bomb);
            }
        });
        spoiled.await.0.diagnosis().0.to_owned()
    };
    let codes: Vec<String> =
        futures_util::stream::iter(0..cases).map(one).buffer_unordered(AT_ONCE).collect().await;
    let mut kinds = BTreeMap::new();
    codes.iter().for_each(|code| *kinds.entry(code).or_insert(0) += 1);
    eprintln!("{kinds:?}");
    assert!(kinds.len() >= 10, "the spoiling is too tame: {kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_status_has_a_meaning() {
    let recorded = Recorded::start();
    let one = async |(status, scenario, at): (u16, usize, usize)| {
        let spoiled = recorded.run(SCENARIOS[scenario], DEADLINE, move |number, answer| {
            if number == at {
                answer.status = status.to_string();
            }
        });
        spoiled.await;
    };
    // The first answer is about the kind of server, the second about the credential, the last about git.
    let all = (100..600).map(|status| {
        let number = usize::from(status);
        (status, [0, 4, 8][number % 3], if number.is_multiple_of(2) { 0 } else { 1 + number % 5 })
    });
    futures_util::stream::iter(all).map(one).buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_waited_for_until_the_deadline() {
    let recorded = Recorded::start();
    for scenario in [SCENARIOS[0], SCENARIOS[4], SCENARIOS[8]] {
        let (_, asked) = recorded.run(scenario, DEADLINE, |_, _| {}).await;
        for at in 0..asked {
            let silent = recorded.run(scenario, SHORT_DEADLINE, move |number, answer| {
                if number == at {
                    answer.claimed_length = Some("1000000".to_owned());
                    answer.hangs = true;
                }
            });
            let (outcome, _) = silent.await;
            let waited = outcome.succeeded() || outcome.diagnosis().0 == "deadline_exceeded";
            assert!(waited, "answer {at} of {scenario:?}: {:#}", outcome.0);
        }
    }
}
