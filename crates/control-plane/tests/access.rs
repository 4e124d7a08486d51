//! Who may do what, and the form of every error.

use reqwest::Method;
use serde_json::json;
use sortie_control::store::Role;

use crate::support::{Rig, request};

#[tokio::test]
async fn each_role_may_do_what_it_says() {
    let rig = Rig::start().await;
    let viewer = rig.token("v", Role::Viewer).await;
    let dispatcher = rig.token("d", Role::Dispatcher).await;
    let task = json!({"kind": "connection-test", "url": "https://a"});
    let id = rig.task(json!({})).await;
    let agent = rig.enrolled("a").await.id;
    let cases = [
        (Method::GET, "/api/v1/tasks".to_owned(), None, [200, 200, 200]),
        (Method::GET, "/api/v1/agents".to_owned(), None, [200, 200, 200]),
        (Method::GET, format!("/api/v1/tasks/{id}/explain"), None, [200, 200, 200]),
        (Method::POST, "/api/v1/tasks".to_owned(), Some(task), [403, 201, 201]),
        (Method::POST, format!("/api/v1/tasks/{id}/cancel"), None, [403, 200, 200]),
        (Method::POST, "/api/v1/enrollment-tokens".to_owned(), Some(json!({})), [403, 403, 201]),
        (Method::POST, format!("/api/v1/agents/{agent}/pause"), None, [403, 403, 200]),
        (Method::DELETE, format!("/api/v1/agents/{agent}"), None, [403, 403, 204]),
    ];
    for (method, path, body, expected) in cases {
        let url = format!("{}{path}", rig.url);
        for (token, status) in [&viewer, &dispatcher, &rig.admin].into_iter().zip(expected) {
            let answer = request(&rig.client, method.clone(), &url, Some(token), body.clone(), &[]).await;
            assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        }
        for token in [None, Some("sortie_wrong")] {
            let answer = request(&rig.client, method.clone(), &url, token, body.clone(), &[]).await;
            assert_eq!((answer.status, &answer.body["code"]), (401, &json!("unauthorized")));
        }
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_at_once() {
    let rig = Rig::start().await;
    let token = rig.token("v", Role::Viewer).await;
    let url = format!("{}/api/v1/agents", rig.url);
    let call = || request(&rig.client, Method::GET, &url, Some(&token), None, &[]);
    assert_eq!(call().await.status, 200);
    assert!(rig.store.revoke_api_token(1, "v").await.unwrap());
    assert_eq!(call().await.status, 401);
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let rig = Rig::start().await;
    let cases = [
        (Method::GET, "/nothing", None, 404, "not_found"),
        (Method::GET, "/api/v1/nothing", None, 404, "not_found"),
        (Method::GET, "/api/v1/tasks/task_0", None, 404, "task_not_found"),
        (Method::GET, "/api/v1/tasks/task_0/explain", None, 404, "task_not_found"),
        (Method::GET, "/api/v1/tasks/task_0/events", None, 404, "task_not_found"),
        (Method::GET, "/api/v1/tasks/%ff", None, 400, "invalid_parameter"),
        (Method::POST, "/api/v1/tasks/task_0/cancel", None, 404, "task_not_found"),
        (Method::GET, "/api/v1/agents/agent_0", None, 404, "agent_not_found"),
        (Method::DELETE, "/api/v1/agents/agent_0", None, 404, "agent_not_found"),
        (Method::PUT, "/api/v1/tasks", None, 405, "method_not_allowed"),
        (Method::GET, "/api/v1/tasks?wat=1", None, 400, "invalid_parameter"),
        (Method::GET, "/api/v1/tasks?limit=0", None, 400, "invalid_parameter"),
        (Method::GET, "/api/v1/tasks?label=x", None, 400, "invalid_parameter"),
        (Method::GET, "/api/v1/tasks?cursor=x", None, 400, "invalid_parameter"),
        (Method::POST, "/api/v1/tasks", Some(json!({})), 400, "invalid_field"),
        (Method::POST, "/api/v1/tasks", Some(json!([])), 400, "invalid_json"),
        (Method::POST, "/api/v1/enrollment-tokens", Some(json!([])), 400, "invalid_json"),
        (Method::POST, "/agent/v1/enroll", Some(json!([])), 400, "invalid_json"),
        (Method::POST, "/api/v1/tasks", Some(json!({"kind": "clone"})), 422, "invalid_field"),
        (Method::POST, "/api/v1/enrollment-tokens", Some(json!({"tgs": []})), 400, "unknown_field"),
        (Method::POST, "/api/v1/enrollment-tokens", Some(json!({"max_uses": 0})), 422, "invalid_field"),
        (Method::POST, "/agent/v1/enroll", Some(json!({})), 400, "invalid_field"),
        (Method::GET, "/agent/v1", None, 400, "websocket_required"),
    ];
    for (method, path, body, status, code) in cases {
        let answer = rig.call(method.clone(), path, body).await;
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{method} {path}");
        assert_eq!(answer.content_type, "application/problem+json", "{method} {path}");
        assert_eq!(answer.body["status"], status);
        assert_eq!(answer.body["type"], format!("/problems/{code}"));
    }
}

#[tokio::test]
async fn health_and_the_document_are_for_anyone() {
    let rig = Rig::start().await;
    let status = async |path: &str| {
        let url = format!("{}{path}", rig.url);
        request(&rig.client, Method::GET, &url, None, None, &[]).await.status
    };
    for path in ["/healthz", "/api/v1/openapi.json"] {
        assert_eq!(status(path).await, 200, "{path}");
    }
    // It says that it is not ready until the dispatcher has read its tasks, which takes a moment.
    let ready = async { while status("/readyz").await != 200 {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), ready).await.expect("it gets ready");
}
