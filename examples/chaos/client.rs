//! Clients that post tasks and wait for them. They repeat what was not answered, with the same `Idempotency-Key`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::random::Random;

/// How long one request may take. A line that swallows it is given up then.
const REQUEST_LIMIT: Duration = Duration::from_secs(12);
/// How long the control plane is asked to wait for a task, in seconds.
const WAIT_SECONDS: u64 = 5;
/// How long an attempt may take. A git server that falls silent ends it.
const RUN_SECONDS: u64 = 15;
/// How long a task may wait; longer than any storm.
const QUEUE_SECONDS: u64 = 24 * 3600;
/// How many attempts a task may have. The most that there can be: killed agents use them up.
pub(crate) const MAX_ATTEMPTS: usize = 10;
/// The label by which a task is found again.
pub(crate) const LABEL: &str = "chaos";

/// A task that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Posted {
    pub(crate) id: String,
    pub(crate) took: Option<Duration>,
}

/// What all clients share.
pub(crate) struct Ledger {
    /// By the key of the POST.
    posted: Mutex<BTreeMap<String, Posted>>,
    /// What must not be.
    wrongs: Mutex<Vec<String>>,
    /// When a task was completed the last time, and the longest time without one.
    pace: Mutex<(Instant, Duration)>,
    numbers: AtomicU64,
    /// Clients that post or wait.
    busy: AtomicU64,
    /// Requests that were sent again.
    pub(crate) repeats: AtomicU64,
    /// Whether new tasks are posted.
    is_open: AtomicBool,
    /// Whether waiting is over, too.
    is_over: AtomicBool,
}

/// Where tasks go.
#[derive(Clone)]
pub(crate) struct Desk {
    http: Client,
    url: String,
    token: String,
}

/// The answer to a request.
struct Answer {
    status: u16,
    body: Value,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            posted: Mutex::default(),
            wrongs: Mutex::default(),
            pace: Mutex::new((Instant::now(), Duration::ZERO)),
            numbers: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            repeats: AtomicU64::new(0),
            is_open: AtomicBool::new(true),
            is_over: AtomicBool::new(false),
        }
    }
}

impl Ledger {
    /// Lets no new task be posted.
    pub(crate) fn close(&self) {
        self.is_open.store(false, Ordering::SeqCst);
    }

    /// Lets nobody wait any longer.
    pub(crate) fn end(&self) {
        self.close();
        self.is_over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn posted(&self) -> BTreeMap<String, Posted> {
        self.posted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn wrongs(&self) -> Vec<String> {
        self.wrongs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The longest time in which no task was completed.
    pub(crate) fn longest_gap(&self) -> Duration {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// How many tasks were posted, and how many of them are completed.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
        (posted.len(), posted.values().filter(|task| task.took.is_some()).count())
    }

    /// Whether no client posts or waits any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.busy.load(Ordering::SeqCst) == 0
    }

    fn wrong(&self, what: String) {
        self.wrongs.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn completed(&self, key: &str, took: Duration) {
        if let Some(task) = self.posted.lock().unwrap_or_else(PoisonError::into_inner).get_mut(key) {
            task.took = Some(took);
        }
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        pace.1 = pace.1.max(now - pace.0);
        pace.0 = now;
    }
}

impl Desk {
    /// A client of the control plane at this URL.
    ///
    /// # Panics
    /// When no client can be made.
    pub(crate) fn new(url: &str, token: &str) -> Self {
        // One that is installed already serves as well.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = Client::builder().no_proxy().timeout(REQUEST_LIMIT).build().expect("a client");
        Self { http, url: url.to_owned(), token: token.to_owned() }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        request = request.header(AUTHORIZATION, format!("Bearer {}", self.token));
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send().await?;
        let status = response.status().as_u16();
        let body = serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null);
        Ok(Answer { status, body })
    }

    /// A list, page by page.
    ///
    /// # Errors
    /// What was answered instead.
    pub(crate) async fn list(&self, path: &str, name: &str) -> Result<Vec<Value>, String> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = format!("/api/v1/{path}?limit=200{cursor}");
            let answer =
                self.send(Method::GET, &page, None, None).await.map_err(|error| error.to_string())?;
            let Some(entries) = answer.body[name].as_array() else {
                return Err(format!("{page} was answered with {}: {}", answer.status, answer.body));
            };
            all.extend(entries.iter().cloned());
            match answer.body["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(all),
            }
        }
    }

    /// The agents, as they are listed.
    ///
    /// # Errors
    /// What was answered instead.
    pub(crate) async fn agents(&self) -> Result<Vec<Value>, String> {
        let answer = self.send(Method::GET, "/api/v1/agents", None, None).await;
        let answer = answer.map_err(|error| error.to_string())?;
        answer.body["agents"].as_array().cloned().ok_or_else(|| answer.body.to_string())
    }
}

/// Posts one task after the other until the ledger is closed, and waits for each.
pub(crate) async fn work(desk: Desk, ledger: Arc<Ledger>, url: String, seed: u64, mut random: Random) {
    ledger.busy.fetch_add(1, Ordering::SeqCst);
    while ledger.is_open.load(Ordering::SeqCst) {
        let number = ledger.numbers.fetch_add(1, Ordering::SeqCst);
        let key = format!("chaos-{seed}-{number}");
        let task = task(&url, &key, &mut random);
        let begun = Instant::now();
        let Some(id) = post(&desk, &ledger, &key, &task, &mut random).await else { continue };
        let posted = Posted { id: id.clone(), took: None };
        ledger.posted.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), posted);
        if wait(&desk, &ledger, &id, &mut random).await {
            ledger.completed(&key, begun.elapsed());
        }
        // A client that has lost its memory asks once more, and gets the first task again.
        if random.percent(10)
            && let Some(again) = post(&desk, &ledger, &key, &task, &mut random).await
            && again != id
        {
            ledger.wrong(format!("{key} was answered with {id} and then with {again}"));
        }
    }
    ledger.busy.fetch_sub(1, Ordering::SeqCst);
}

fn task(url: &str, key: &str, random: &mut Random) -> Value {
    let mut task = json!({"kind": "connection-test", "url": url, "provider": "git", "selector": {"all": ["chaos"]},
        "queue_seconds": QUEUE_SECONDS, "run_seconds": RUN_SECONDS, "max_attempts": MAX_ATTEMPTS, "labels": {LABEL: key}});
    match random.below(10) {
        0..5 => {}
        5..8 => task["kind"] = json!("clone"),
        _ => {
            task["kind"] = json!("clone");
            task["deliver"] = json!("archive");
        }
    }
    task
}

/// Posts until it is answered. `None` where it is over, or where the answer was no.
async fn post(desk: &Desk, ledger: &Ledger, key: &str, task: &Value, random: &mut Random) -> Option<String> {
    while !ledger.is_over.load(Ordering::SeqCst) {
        match desk.send(Method::POST, "/api/v1/tasks", Some(key), Some(task)).await {
            Ok(Answer { status: 200 | 201, body }) if body["id"].is_string() => {
                return body["id"].as_str().map(str::to_owned);
            }
            Ok(Answer { status, body }) if (400..500).contains(&status) && status != 408 && status != 429 => {
                ledger.wrong(format!("{key} was answered with {status}: {body}"));
                return None;
            }
            _ => {}
        }
        ledger.repeats.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(random.milliseconds(50, 500)).await;
    }
    None
}

/// Waits until a task is completed; says whether it is.
async fn wait(desk: &Desk, ledger: &Ledger, id: &str, random: &mut Random) -> bool {
    while !ledger.is_over.load(Ordering::SeqCst) {
        let path = format!("/api/v1/tasks/{id}?wait={WAIT_SECONDS}s");
        match desk.send(Method::GET, &path, None, None).await {
            Ok(Answer { status: 200, body }) if body["state"] == "completed" => return true,
            Ok(Answer { status: 404, .. }) => {
                ledger.wrong(format!("{id} was answered, and is not known any more"));
                return false;
            }
            Ok(Answer { status: 200, .. }) => {}
            _ => tokio::time::sleep(random.milliseconds(50, 500)).await,
        }
    }
    false
}
