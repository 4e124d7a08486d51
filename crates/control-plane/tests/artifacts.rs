//! Artifacts: uploads that are proved, resumed and bounded, and who may read what came of them.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use sortie_control::identity::{hex, sha256};
use sortie_control::settings::{Limits, Times};
use sortie_control::store::Role;
use sortie_protocol::AttemptId;
use sortie_protocol::artifact::{ArtifactProof, PROOF_HEADER, complete_path, part_path, upload_path};
use sortie_protocol::message::AttemptOutcome;

use crate::support::{Agent, Answer, Identity, ORIGIN, PATIENCE, Rig};

const PART: usize = 1000;

const BEGIN: &str = "/agent/v1/artifacts";

fn limits() -> Limits {
    Limits { artifact_part_bytes: PART as u64, ..Limits::default() }
}

/// Bytes of which no two parts are alike.
fn content(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position * 31 + position / 251) as u8).collect()
}

fn hash(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}

/// An agent at an attempt.
struct Delivering {
    agent: Agent,
    attempt: AttemptId,
}

async fn delivering(rig: &Rig, name: &str) -> Delivering {
    let mut agent = rig.agent(name, &[]).await;
    let id = rig.task(json!({"selector": {"all": [format!("name:{name}")]}})).await;
    let attempt = agent.begin().await;
    rig.until_state(&id, "running").await;
    Delivering { agent, attempt }
}

fn proof(signer: &Identity, attempt: &AttemptId, method: &str, path: &str, body: &[u8]) -> ArtifactProof {
    let mut proof = ArtifactProof {
        origin: ORIGIN.to_owned(),
        agent_id: signer.id.clone(),
        task_id: attempt.task_id.clone(),
        attempt: attempt.attempt,
        body_sha256: hash(body),
        signature: String::new(),
    };
    proof.signature = signer.sign(&proof.payload(method, path));
    proof
}

async fn send(rig: &Rig, method: Method, path: &str, body: Vec<u8>, proof: &ArtifactProof) -> Answer {
    let request = rig.client.request(method, format!("{}{path}", rig.url));
    let response =
        request.header(PROOF_HEADER, serde_json::to_string(proof).unwrap()).body(body).send().await.unwrap();
    answer(response).await
}

async fn answer(response: Response) -> Answer {
    let status = response.status().as_u16();
    let content_type = response.headers().get("content-type").map(|it| it.to_str().unwrap().to_owned());
    let body = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or(Value::Null);
    Answer { status, content_type: content_type.unwrap_or_default(), location: None, body }
}

impl Delivering {
    async fn send(&self, rig: &Rig, method: Method, path: &str, body: Vec<u8>) -> Answer {
        let proof = proof(&self.agent.identity, &self.attempt, method.as_str(), path, &body);
        send(rig, method, path, body, &proof).await
    }

    async fn begin(&self, rig: &Rig, name: &str) -> Answer {
        let body = json!({"file_name": name, "media_type": "application/zstd"});
        self.send(rig, Method::POST, BEGIN, body.to_string().into_bytes()).await
    }

    async fn begun(&self, rig: &Rig, name: &str) -> String {
        let answer = self.begin(rig, name).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body["id"].as_str().unwrap().to_owned()
    }

    async fn put(&self, rig: &Rig, id: &str, number: u32, bytes: &[u8]) -> Answer {
        self.send(rig, Method::PUT, &part_path(id, number), bytes.to_vec()).await
    }

    async fn complete(&self, rig: &Rig, id: &str, whole: &[u8]) -> Answer {
        let parts = whole.len().div_ceil(PART);
        let body = json!({"parts": parts, "bytes": whole.len(), "sha256": hash(whole)});
        self.send(rig, Method::POST, &complete_path(id), body.to_string().into_bytes()).await
    }

    /// Uploads everything.
    async fn deliver(&self, rig: &Rig, name: &str, whole: &[u8]) -> String {
        let id = self.begun(rig, name).await;
        for (chunk, number) in whole.chunks(PART).zip(1..) {
            assert_eq!(self.put(rig, &id, number, chunk).await.status, 204);
        }
        let answer = self.complete(rig, &id, whole).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        id
    }
}

fn code(answer: &Answer) -> (u16, &str) {
    if answer.status >= 400 {
        assert_eq!(answer.content_type, "application/problem+json");
    }
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

/// What lies in the directory beside the database: one entry for each artifact that has a part.
fn stored(rig: &Rig) -> usize {
    std::fs::read_dir(rig.directory.path().join("artifacts")).unwrap().count()
}

/// Waits until the sweep has left nothing.
async fn until_nothing_is_stored(rig: &Rig) {
    let gone = async {
        while stored(rig) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("something is left in the store");
}

async fn read(rig: &Rig, id: &str, headers: &[(&'static str, &str)]) -> Response {
    try_read(rig, id, headers).await.unwrap()
}

async fn try_read(rig: &Rig, id: &str, headers: &[(&'static str, &str)]) -> Result<Response, reqwest::Error> {
    let mut request = rig.client.get(format!("{}/api/v1/artifacts/{id}/content", rig.url));
    request = request.header("authorization", format!("Bearer {}", rig.admin));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await
}

#[tokio::test]
async fn an_artifact_is_delivered_once_however_often_it_is_sent() {
    let rig = Rig::with(Times::default(), limits()).await;
    let at = delivering(&rig, "a").await;
    let whole = content(2500);
    let id = at.begun(&rig, "web.tar.zst").await;
    let again = at.begin(&rig, "web.tar.zst").await;
    assert_eq!((again.status, again.body["id"].as_str().unwrap()), (200, id.as_str()));
    assert_eq!(again.body["part_bytes"], PART);
    // In any order, and again.
    for number in [3, 1, 3, 2] {
        let from = (number as usize - 1) * PART;
        let bytes = &whole[from..whole.len().min(from + PART)];
        assert_eq!(at.put(&rig, &id, number, bytes).await.status, 204);
    }
    let shown = at.send(&rig, Method::GET, &upload_path(&id), Vec::new()).await.body;
    let expected: Vec<Value> = whole
        .chunks(PART)
        .zip(1..)
        .map(|(bytes, number)| json!({"number": number, "bytes": bytes.len(), "sha256": hash(bytes)}))
        .collect();
    assert_eq!((&shown["parts"], &shown["artifact"]), (&json!(expected), &Value::Null));
    assert_eq!(rig.get(&format!("/api/v1/artifacts/{id}")).await.status, 404, "it is not complete");
    let artifact = at.complete(&rig, &id, &whole).await;
    assert_eq!(artifact.status, 200, "{}", artifact.body);
    assert_eq!((&artifact.body["bytes"], &artifact.body["sha256"]), (&json!(2500), &json!(hash(&whole))));
    assert_eq!(at.complete(&rig, &id, &whole).await.body, artifact.body);
    assert_eq!(at.begin(&rig, "web.tar.zst").await.body["artifact"], artifact.body);
    let list = rig.get(&format!("/api/v1/artifacts?task={}", at.attempt.task_id)).await.body;
    let listed = &list["artifacts"][0];
    assert_eq!((&listed["id"], &listed["agent_id"]), (&json!(id), &json!(at.agent.identity.id)));
    assert_eq!((&listed["attempt"], &listed["expires_at"]), (&json!(1), &artifact.body["expires_at"]));
    assert_eq!(rig.get("/api/v1/artifacts?task=task_none").await.body["artifacts"], json!([]));
    let answer = read(&rig, &id, &[]).await;
    assert_eq!(answer.bytes().await.unwrap(), whole);
}

#[tokio::test]
async fn ranges_are_served_as_the_rfc_says() {
    let rig = Rig::with(Times::default(), limits()).await;
    let at = delivering(&rig, "a").await;
    let whole = content(2500);
    let id = at.deliver(&rig, "web.zip", &whole).await;
    let etag = format!("\"{}\"", hash(&whole));
    let answer = read(&rig, &id, &[]).await;
    let header = |answer: &Response, name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(answer.status(), 200);
    for (name, expected) in [
        ("content-length", "2500"),
        ("content-type", "application/zstd"),
        ("content-disposition", "attachment; filename=\"web.zip\""),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("etag", etag.as_str()),
    ] {
        assert_eq!(header(&answer, name), expected);
    }
    // Across the ends of parts, to the end, the last ones, and with the tag of what the client has.
    for (range, first, last) in [("990-2010", 990, 2010), ("1000-", 1000, 2499), ("-1", 2499, 2499)] {
        let answer = read(&rig, &id, &[("range", &format!("bytes={range}")), ("if-range", &etag)]).await;
        assert_eq!(answer.status(), 206, "{range}");
        assert_eq!(header(&answer, "content-range"), format!("bytes {first}-{last}/2500"));
        assert_eq!(answer.bytes().await.unwrap(), whole[first..=last], "{range}");
    }
    let other = read(&rig, &id, &[("range", "bytes=5-"), ("if-range", "\"other\"")]).await;
    assert_eq!((other.status().as_u16(), other.bytes().await.unwrap().len()), (200, 2500));
    let beyond = read(&rig, &id, &[("range", "bytes=2500-")]).await;
    assert_eq!(
        (beyond.status().as_u16(), header(&beyond, "content-range")),
        (416, "bytes */2500".to_owned())
    );
    assert_eq!(answer_code(beyond).await, "range_not_satisfiable");
    // A part that was damaged on the disk breaks the answer off instead of shifting what follows.
    let object = rig.directory.path().join("artifacts").join(&id).join("2");
    std::fs::write(object, "short").unwrap();
    let whole = async { try_read(&rig, &id, &[]).await?.bytes().await };
    assert!(whole.await.is_err());
}

async fn answer_code(response: Response) -> String {
    answer(response).await.body["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_upload_goes_on_after_a_restart_of_the_control_plane() {
    let mut rig = Rig::with(Times::default(), limits()).await;
    let at = delivering(&rig, "a").await;
    let whole = content(3000);
    let id = at.begun(&rig, "web.bundle").await;
    assert_eq!(at.put(&rig, &id, 1, &whole[..PART]).await.status, 204);
    rig.restart().await;
    let running = std::slice::from_ref(&at.attempt);
    let _agent = at.agent.identity.connect(&rig.url, &[], running, &[]).await;
    let shown = at.send(&rig, Method::GET, &upload_path(&id), Vec::new()).await;
    assert_eq!(shown.body["parts"].as_array().unwrap().len(), 1, "{}", shown.body);
    for number in [2, 3] {
        let from = (number as usize - 1) * PART;
        assert_eq!(at.put(&rig, &id, number, &whole[from..from + PART]).await.status, 204);
    }
    // The digest of the whole died with the process, so that it is made from what is stored.
    assert_eq!(code(&at.complete(&rig, &id, &content(3001)[1..]).await), (422, "artifact_hash_mismatch"));
    assert_eq!(at.complete(&rig, &id, &whole).await.status, 200);
    rig.restart().await;
    assert_eq!(read(&rig, &id, &[]).await.bytes().await.unwrap(), whole);
}

#[tokio::test]
async fn what_is_not_proved_or_does_not_fit_is_refused() {
    let rig = Rig::with(Times::default(), limits()).await;
    let at = delivering(&rig, "a").await;
    let other = delivering(&rig, "b").await;
    let id = at.begun(&rig, "web.zip").await;
    let (path, part) = (part_path(&id, 1), content(PART));
    let identity = &at.agent.identity;
    let right = proof(identity, &at.attempt, "PUT", &path, &part);
    let with = |change: fn(&mut ArtifactProof)| {
        let mut proof = right.clone();
        change(&mut proof);
        proof
    };
    let elsewhere = proof(identity, &at.attempt, "PUT", &part_path(&id, 2), &part);
    let another_method = proof(identity, &at.attempt, "DELETE", &path, &part);
    let mut impostor = other.agent.identity.clone();
    impostor.id.clone_from(&identity.id);
    let by_impostor = proof(&impostor, &at.attempt, "PUT", &path, &part);
    for (proof, expected) in [
        (elsewhere, (403, "signature_invalid")),
        (another_method, (403, "signature_invalid")),
        (by_impostor, (403, "signature_invalid")),
        (with(|it| it.attempt = 2), (403, "signature_invalid")),
        (with(|it| it.task_id.push('x')), (403, "signature_invalid")),
        (with(|it| it.signature.clear()), (403, "signature_invalid")),
        (with(|it| it.agent_id = "agent_none".to_owned()), (404, "agent_not_found")),
        (with(|it| it.origin = "https://elsewhere".to_owned()), (403, "origin_mismatch")),
        (with(|it| it.body_sha256 = "x".to_owned()), (400, "proof_missing")),
        // Another agent that proves itself, for an attempt that is not its own and for its own one.
        (proof_of(&other.agent.identity, &at.attempt, &path, &part), (404, "artifact_not_found")),
        (proof_of(&other.agent.identity, &other.attempt, &path, &part), (404, "artifact_not_found")),
    ] {
        let answer = send(&rig, Method::PUT, &path, part.clone(), &proof).await;
        assert_eq!(code(&answer), expected, "{proof:?}");
    }
    let unproved = rig.call(Method::POST, BEGIN, Some(json!({}))).await;
    assert_eq!(code(&unproved), (400, "proof_missing"));
    let altered = send(&rig, Method::PUT, &path, content(PART - 1), &right).await;
    assert_eq!(code(&altered), (422, "body_hash_mismatch"));
    assert_eq!(code(&at.put(&rig, &id, 1, &content(PART + 1)).await), (413, "body_too_large"));
    for number in [0, 4097] {
        assert_eq!(code(&at.put(&rig, &id, number, &part).await), (422, "invalid_field"));
    }
    assert_eq!(code(&at.put(&rig, &id, 1, b"").await), (422, "invalid_field"));
    assert_eq!(stored(&rig), 0, "nothing of all that was kept");
    assert_eq!(send(&rig, Method::PUT, &path, part.clone(), &right).await.status, 204);
    assert_eq!(code(&at.put(&rig, &id, 1, &content(PART - 1)).await), (409, "part_differs"));
    // A part in the middle that is not full, and one that is missing.
    assert_eq!(at.put(&rig, &id, 3, &part).await.status, 204);
    let two = [part.clone(), part.clone()].concat();
    assert_eq!(code(&at.complete(&rig, &id, &two).await), (409, "parts_missing"));
    assert_eq!(code(&at.complete(&rig, &id, &content(3000)).await), (409, "parts_missing"));
    for (name, media_type) in [("../x", "a/b"), (".x", "a/b"), ("x", "a"), ("x", "a/b\r\nc: d")] {
        let body = json!({"file_name": name, "media_type": media_type}).to_string();
        let answer = at.send(&rig, Method::POST, BEGIN, body.into_bytes()).await;
        assert_eq!(code(&answer), (422, "invalid_field"), "{name}");
    }
}

fn proof_of(signer: &Identity, attempt: &AttemptId, path: &str, body: &[u8]) -> ArtifactProof {
    proof(signer, attempt, "PUT", path, body)
}

#[tokio::test]
async fn only_the_attempt_that_runs_now_delivers() {
    let rig = Rig::with(Times::default(), limits()).await;
    let at = delivering(&rig, "a").await;
    let id = at.begun(&rig, "web.zip").await;
    let stranger = rig.enrolled("b").await;
    let body = json!({"file_name": "x", "media_type": "a/b"}).to_string().into_bytes();
    let by_stranger = proof(&stranger, &at.attempt, "POST", BEGIN, &body);
    let answer = send(&rig, Method::POST, BEGIN, body.clone(), &by_stranger).await;
    assert_eq!(code(&answer), (409, "attempt_not_current"));
    let next = AttemptId { attempt: 2, ..at.attempt.clone() };
    let ahead = proof(&at.agent.identity, &next, "POST", BEGIN, &body);
    assert_eq!(code(&send(&rig, Method::POST, BEGIN, body, &ahead).await), (409, "attempt_not_current"));
    // The agent comes back without the attempt: it is lost, and the next one has its number.
    let identity = at.agent.identity.clone();
    let mut agent = identity.connect(&rig.url, &[], &[], &[]).await;
    agent.send(sortie_protocol::AgentMessage::Credit { slots: 1 }).await;
    let offered = agent.offer().await.attempt;
    assert_eq!(offered, next);
    assert_eq!(code(&at.put(&rig, &id, 1, &content(5)).await), (409, "attempt_not_current"));
    assert_eq!(code(&at.complete(&rig, &id, b"").await), (409, "attempt_not_current"));
    // It was offered and has not started: that may still be on its way.
    let at = Delivering { agent, attempt: offered };
    assert_eq!(code(&at.begin(&rig, "web.zip").await), (503, "attempt_not_started"));
    let (mut agent, attempt) = (at.agent, at.attempt);
    agent.send(sortie_protocol::AgentMessage::Accept(attempt.clone())).await;
    agent.send(sortie_protocol::AgentMessage::Start(attempt.clone())).await;
    rig.until_state(&attempt.task_id, "running").await;
    let at = Delivering { agent, attempt };
    let second = at.begun(&rig, "web.zip").await;
    assert_ne!(second, id);
    // A task that is to stop delivers nothing more, and its agent may still clean up.
    rig.call(Method::POST, &format!("/api/v1/tasks/{}/cancel", at.attempt.task_id), None).await;
    assert_eq!(code(&at.put(&rig, &second, 1, &content(5)).await), (409, "attempt_not_current"));
    assert_eq!(at.send(&rig, Method::DELETE, &upload_path(&second), Vec::new()).await.status, 204);
}

#[tokio::test]
async fn every_limit_holds() {
    let limits = Limits {
        artifact_bytes: 1500,
        artifacts_total_bytes: 2000,
        artifacts_per_attempt: 3,
        artifact_uploads_per_agent: 2,
        ..limits()
    };
    let rig = Rig::with(Times::default(), limits).await;
    let at = delivering(&rig, "a").await;
    let (first, second) = (at.begun(&rig, "a").await, at.begun(&rig, "b").await);
    assert_eq!(code(&at.begin(&rig, "c").await), (429, "too_many_uploads"));
    assert_eq!(at.put(&rig, &first, 1, &content(1000)).await.status, 204);
    assert_eq!(code(&at.put(&rig, &first, 2, &content(501)).await), (413, "artifact_too_large"));
    assert_eq!(at.put(&rig, &first, 2, &content(500)).await.status, 204);
    assert_eq!(code(&at.put(&rig, &second, 1, &content(501)).await), (507, "artifact_store_full"));
    assert_eq!(at.put(&rig, &second, 1, &content(500)).await.status, 204);
    // What is dropped makes room, and is not begun anew by a request that somebody repeats.
    for _ in 0..2 {
        assert_eq!(at.send(&rig, Method::DELETE, &upload_path(&first), Vec::new()).await.status, 204);
    }
    assert_eq!(stored(&rig), 1);
    assert_eq!(code(&at.begin(&rig, "a").await), (409, "upload_dropped"));
    assert_eq!(code(&at.put(&rig, &first, 1, &content(1000)).await), (404, "artifact_not_found"));
    let third = at.begun(&rig, "c").await;
    assert_eq!(at.put(&rig, &third, 1, &content(1000)).await.status, 204);
    assert_eq!(code(&at.begin(&rig, "d").await), (409, "too_many_artifacts"));
}

#[tokio::test]
async fn nothing_stays_that_nobody_may_have() {
    let times = Times {
        artifact_sweep: Duration::from_millis(10),
        artifact_life: Duration::from_millis(400),
        ..Times::default()
    };
    let rig = Rig::with(times, limits()).await;
    let mut at = delivering(&rig, "a").await;
    let whole = content(1500);
    let id = at.deliver(&rig, "web.zip", &whole).await;
    at.agent.finish(&at.attempt, AttemptOutcome::Succeeded).await;
    at.agent.acknowledged(&at.attempt).await;
    until_nothing_is_stored(&rig).await;
    assert_eq!(rig.get(&format!("/api/v1/artifacts/{id}")).await.status, 404);
    assert_eq!(rig.get("/api/v1/artifacts").await.body["artifacts"], json!([]));
}

#[tokio::test]
async fn an_upload_that_lies_still_is_abandoned() {
    let times = Times {
        artifact_sweep: Duration::from_millis(10),
        artifact_idle: Duration::from_millis(200),
        ..Times::default()
    };
    let rig = Rig::with(times, limits()).await;
    let at = delivering(&rig, "a").await;
    let id = at.begun(&rig, "web.zip").await;
    assert_eq!(at.put(&rig, &id, 1, &content(PART)).await.status, 204);
    assert_eq!(stored(&rig), 1);
    until_nothing_is_stored(&rig).await;
    assert_eq!(code(&at.complete(&rig, &id, &content(PART)).await), (404, "artifact_not_found"));
}

#[tokio::test]
async fn what_a_failed_attempt_delivered_goes_and_what_a_good_one_delivered_stays() {
    let times = Times { artifact_sweep: Duration::from_millis(10), ..Times::default() };
    let rig = Rig::with(times, limits()).await;
    let mut good = delivering(&rig, "a").await;
    let mut bad = delivering(&rig, "b").await;
    let whole = content(1500);
    let kept = good.deliver(&rig, "web.zip", &whole).await;
    bad.deliver(&rig, "web.zip", &whole).await;
    let open = bad.begun(&rig, "more.zip").await;
    assert_eq!(bad.put(&rig, &open, 1, &whole[..PART]).await.status, 204);
    assert_eq!(stored(&rig), 3);
    good.agent.finish(&good.attempt, AttemptOutcome::Succeeded).await;
    good.agent.acknowledged(&good.attempt).await;
    bad.agent.finish(&bad.attempt, AttemptOutcome::Failed).await;
    bad.agent.acknowledged(&bad.attempt).await;
    let alone = async {
        while stored(&rig) > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, alone).await.expect("what failed is still there");
    assert_eq!(read(&rig, &kept, &[]).await.bytes().await.unwrap(), whole);
    // A result names it now, so that its agent cannot take it back.
    let dropped = good.send(&rig, Method::DELETE, &upload_path(&kept), Vec::new()).await;
    assert_eq!(code(&dropped), (409, "attempt_not_current"));
}

#[tokio::test]
async fn who_may_read_reads_and_who_may_dispatch_removes() {
    let rig = Rig::with(Times::default(), limits()).await;
    let at = delivering(&rig, "a").await;
    let id = at.deliver(&rig, "web.zip", &content(10)).await;
    let viewer = rig.token("v", Role::Viewer).await;
    let dispatcher = rig.token("d", Role::Dispatcher).await;
    let one = format!("/api/v1/artifacts/{id}");
    let cases = [
        (Method::GET, "/api/v1/artifacts".to_owned(), [401, 200, 200]),
        (Method::GET, one.clone(), [401, 200, 200]),
        (Method::GET, format!("{one}/content"), [401, 200, 200]),
        (Method::DELETE, one.clone(), [401, 403, 204]),
        (Method::DELETE, one, [401, 403, 404]),
    ];
    for (method, path, expected) in cases {
        let url = format!("{}{path}", rig.url);
        for (token, status) in [None, Some(&viewer), Some(&dispatcher)].into_iter().zip(expected) {
            let token = token.map(String::as_str);
            let answer = crate::support::request(&rig.client, method.clone(), &url, token, None, &[]).await;
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        }
    }
    assert_eq!(stored(&rig), 0);
}
