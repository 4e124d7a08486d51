//! Tokens for keys, and back.

use serde_json::json;
use sortie_control::server::{Settings, prepare};
use sortie_control::store::{Role, Store};

use crate::support::{Identity, ORIGIN, Rig, new_token, request};

#[tokio::test]
async fn a_token_enrolls_one_key_and_repeats_its_answer() {
    let rig = Rig::start().await;
    let token = rig.enrollment_token(json!({"tags": ["dc:fra1"]})).await;
    let first = Identity::new("a");
    let answer = first.enroll(&rig, &token).await;
    assert_eq!((answer.status, &answer.body["tags"]), (201, &json!(["dc:fra1"])));
    // The answer may have been lost: the same key gets the same agent, and no use is counted.
    let again = first.enroll(&rig, &token).await;
    assert_eq!((again.status, &again.body), (201, &answer.body));
    let second = Identity::new("b").enroll(&rig, &token).await;
    assert_eq!((second.status, &second.body["code"]), (403, &json!("token_used")));
    assert_eq!(second.content_type, "application/problem+json");
}

#[tokio::test]
async fn late_unknown_and_wrongly_signed_requests_are_refused() {
    let rig = Rig::start().await;
    let token = rig.enrollment_token(json!({})).await;
    let identity = Identity::new("a");
    let unknown = identity.enroll(&rig, "sortie_enroll_nothing").await;
    assert_eq!((unknown.status, &unknown.body["code"]), (401, &json!("token_unknown")));
    let mut forged = identity.enroll_body(&token);
    forged["signature"] = Identity::new("b").enroll_body(&token)["signature"].clone();
    let forged = rig.post("/agent/v1/enroll", forged).await;
    assert_eq!((forged.status, &forged.body["code"]), (403, &json!("signature_invalid")));
    let mut reserved = identity.enroll_body(&token);
    reserved["tags"] = json!(["name:other"]);
    let reserved = rig.post("/agent/v1/enroll", reserved).await;
    assert_eq!((reserved.status, &reserved.body["code"]), (422, &json!("invalid_field")));
    // The token's time is over as soon as the store says so.
    let path = format!("sqlite:{}", rig.database().display());
    let database = sqlx::SqlitePool::connect(&path).await.unwrap();
    sqlx::query("UPDATE enrollment_tokens SET expires_at = 1").execute(&database).await.unwrap();
    let late = identity.enroll(&rig, &token).await;
    assert_eq!((late.status, &late.body["code"]), (403, &json!("token_expired")));
}

#[tokio::test]
async fn names_are_unique_among_registered_agents() {
    let rig = Rig::start().await;
    let token = rig.enrollment_token(json!({"max_uses": 5})).await;
    let mut first = Identity::new("a");
    first.id = first.enroll(&rig, &token).await.body["agent_id"].as_str().unwrap().to_owned();
    let taken = Identity::new("a").enroll(&rig, &token).await;
    assert_eq!((taken.status, &taken.body["code"]), (409, &json!("name_taken")));
    // A new token for a known key keeps the identifier.
    let other_token = rig.enrollment_token(json!({"tags": ["new"]})).await;
    let again = first.enroll(&rig, &other_token).await;
    assert_eq!((again.status, &again.body["agent_id"]), (201, &json!(first.id)));
    assert_eq!(again.body["tags"], json!(["new"]));
    // A registration that was given back frees its name.
    assert_eq!(first.unenroll(&rig, &first).await.status, 204);
    assert_eq!(Identity::new("a").enroll(&rig, &token).await.status, 201);
}

#[tokio::test]
async fn only_the_registered_key_gives_a_registration_back() {
    let rig = Rig::start().await;
    let identity = rig.enrolled("a").await;
    let stranger = Identity::new("b");
    let refused = identity.unenroll(&rig, &stranger).await;
    assert_eq!((refused.status, &refused.body["code"]), (403, &json!("signature_invalid")));
    assert_eq!(identity.unenroll(&rig, &identity).await.status, 204);
    let gone = identity.unenroll(&rig, &identity).await;
    assert_eq!((gone.status, &gone.body["code"]), (404, &json!("agent_not_found")));
    // A challenge is answered once.
    let body = json!({"agent_id": identity.id, "origin": ORIGIN, "session": "session_x", "signature": ""});
    let expired = rig.post("/agent/v1/unenroll", body).await;
    assert_eq!((expired.status, &expired.body["code"]), (403, &json!("challenge_expired")));
}

#[tokio::test]
async fn agents_enroll_by_a_public_url_where_there_is_one() {
    let rig = Rig::start().await;
    let path = rig.directory.path().join("public.db");
    let store = Store::open(&format!("sqlite:{}", path.display())).await.unwrap();
    let admin = new_token(&store, "admin", Role::Admin).await;
    let settings = Settings {
        listen: "localhost:0".to_owned(),
        public_urls: vec!["HTTPS://Sortie.Example/".to_owned()],
        ..Settings::default()
    };
    let running = prepare(settings).await.unwrap().start(store).unwrap();
    let url = format!("http://{}", running.address());
    let made = request(
        &rig.client,
        reqwest::Method::POST,
        &format!("{url}/api/v1/enrollment-tokens"),
        Some(&admin),
        None,
        &[],
    )
    .await;
    let body = Identity::new("a").enroll_body(made.body["token"].as_str().unwrap());
    let enroll = format!("{url}/agent/v1/enroll");
    let refused = request(&rig.client, reqwest::Method::POST, &enroll, None, Some(body), &[]).await;
    assert_eq!((refused.status, &refused.body["code"]), (403, &json!("origin_not_public")));
    running.stop().await;
}

#[tokio::test]
async fn secrets_are_not_in_the_database() {
    let rig = Rig::start().await;
    let enrollment = rig.enrollment_token(json!({})).await;
    let agent = Identity::new("a");
    assert_eq!(agent.enroll(&rig, &enrollment).await.status, 201);
    let entries = std::fs::read_dir(rig.directory.path()).unwrap().map(|entry| entry.unwrap().path());
    for file in entries.filter(|path| path.is_file()) {
        let bytes = std::fs::read(file).unwrap();
        for secret in [&enrollment, &rig.admin] {
            let holds = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!holds, "a secret is in the database");
        }
    }
}
