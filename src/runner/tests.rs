//! Admission, panics, and reports that no message can carry.
#![allow(clippy::unwrap_used)]

use sortie_protocol::report::TaskOutput;

use super::*;
use crate::config::Server;
use crate::credential::Store;
use crate::dial::{Door, ProxyEnvironment};
use crate::policy::Policy;
use crate::remote_url::RemoteUrl;

fn runner() -> Runner {
    let server = Server::new("lab", None, RemoteUrl::parse("https://git.example").unwrap());
    let tools = Tools {
        door: Arc::new(Door::new(ProxyEnvironment::none())),
        policy: Arc::new(Policy::new([server])),
        credentials: Arc::new(Store::default()),
        limits: Limits::default(),
        engine: crate::git::Engine::default(),
        mirrors: None,
        temporary: std::env::temp_dir(),
        workspaces: None,
        uploads: None,
    };
    Runner::new(tools, Duration::from_secs(60))
}

fn offer(task: &str) -> Offer {
    Offer {
        attempt: AttemptId { task_id: "t".into(), attempt: 1 },
        task: task.into(),
        signature: None,
        accept_within_ms: 10_000,
        lease_ms: 60_000,
    }
}

#[tokio::test]
async fn policy_decides_before_anything_runs_and_says_whether_another_agent_may() {
    let mut runner = runner();
    let mut refused = |task: &str| {
        let reject = runner.admit(&offer(task)).unwrap_err();
        let code = reject.diagnosis.unwrap().code;
        (reject.reason, reject.retryable, code, reject.result.is_some())
    };
    let policy = RejectReason::Policy;
    let undeclared = refused(r#"{"kind":"clone","url":"https://evil.example/x"}"#);
    assert_eq!(undeclared, (policy, true, "server_not_declared".into(), true));
    let malformed = refused(r#"{"kind":"clone","url":"file:///etc"}"#);
    assert_eq!(malformed, (policy, false, "scheme_not_allowed".into(), true));
    let unknown = refused(r#"{"kind":"dig","url":"https://git.example/x"}"#);
    assert_eq!(unknown, (RejectReason::NotSupported, true, "task_not_allowed".into(), false));
    assert!(runner.admit(&offer(r#"{"kind":"clone","url":"https://git.example/x"}"#)).is_ok());
}

#[tokio::test]
async fn a_panic_in_a_task_is_a_diagnosis_of_that_task() {
    let mut runner = runner();
    let attempt = AttemptId { task_id: "t".into(), attempt: 1 };
    runner.admit(&offer(r#"{"kind":"connection-test","url":"https://git.example/x"}"#)).unwrap();
    let Admitted { task, .. } = runner.admitted.remove(&attempt).unwrap();
    let log = StageLog::default();
    log.begin(Stage::Tls);
    let id = runner.tasks.spawn(async { panic!("a bug") }).id();
    let now = Instant::now();
    let cancel = CancellationToken::new();
    runner.running.insert(attempt.clone(), Running { id, task, log, cancel, started: now, deadline: now });
    let RunnerEvent::Finished(result) = runner.next().await else { panic!("an end") };
    let TaskOutput::Report(report) = result.result else { panic!("a report") };
    let diagnosis = report.diagnosis.unwrap();
    assert_eq!((diagnosis.code.as_str(), diagnosis.stage.as_str()), ("internal", "tls"));
    assert_eq!(result.outcome, AttemptOutcome::Failed);
    assert!(runner.running.is_empty());
}

#[tokio::test]
async fn a_report_that_cannot_be_sent_is_replaced_and_not_tried_for_ever() {
    let mut runner = runner();
    let offer = offer(r#"{"kind":"connection-test","url":"https://git.example/x"}"#);
    runner.admit(&offer).unwrap();
    let Admitted { task, .. } = runner.admitted.remove(&offer.attempt).unwrap();
    let (log, cancel) = (StageLog::default(), CancellationToken::new());
    log.begin(Stage::Identify);
    log.fact("said", "x".repeat(sortie_protocol::frame::MAX_MESSAGE_BYTES));
    let diagnosis = Diagnosis::new(Code::UnexpectedAnswer, Stage::Identify, "", vec![]);
    let report = TaskReport::failed(&task, diagnosis, &log);
    let id = runner.tasks.spawn(async { report }).id();
    let now = Instant::now();
    runner.running.insert(offer.attempt, Running { id, task, log, cancel, started: now, deadline: now });
    let RunnerEvent::Finished(result) = runner.next().await else { panic!("an end") };
    assert_eq!(result.result.diagnosis().unwrap().code, "internal");
    assert!(sortie_protocol::encode(&AgentMessage::Result(*result)).is_ok());
}
